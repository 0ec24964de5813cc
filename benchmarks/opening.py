"""What a run costs beside its steps: opening a target, its identity, the search for leaks.

    PYTHONPATH=. python benchmarks/opening.py [--images 200000] [--out FILE.json]
    PYTHONPATH=. python benchmarks/opening.py --collect RUN    # and the table of 2,000 such runs

The target is made up: a label file of 14 findings for patients of three images each,
empty image files, and a cache of 280 px that holds no data on disk (a sparse file) but a
record for each image. The runs are of 5 shots, one after another in one process, as a
worker does them: the first opens the target, the others find it open. Making it is not
timed. Seconds of each run's parts; the disk's cache is warm. --collect takes 2,000 copies
of a finished run: `study collect` reads all of them, then the same table once more.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import machine
import numpy as np

from bigxfer.config import Data
from bigxfer.data import dataset, exposure, readers, split
from bigxfer.data.pixels import cache, cache_store
from bigxfer.tables import table

FINDINGS, SIDE = 14, 280
COLLECTED = 2000  # finished runs


def make(folder: Path, images: int) -> Data:
    """The label file, the empty images, the cache."""
    rng = np.random.default_rng(0)
    names = [f"p{k // 3000:03d}/patient{k // 3:06d}_{k:06d}.jpg" for k in range(images)]
    marks = (rng.random((images, FINDINGS)) < 0.1).astype(int).tolist()
    for name in sorted({n.partition("/")[0] for n in names}):
        (folder / name).mkdir()
    columns = ["file", "patient_id", "split", *(f"f{k}" for k in range(FINDINGS))]
    with open(folder / "metadata.csv", "w") as file:
        print(*columns, sep=",", file=file)
        for k, name in enumerate(names):
            (folder / name).touch()
            part = "test" if k // 3 % 10 < 2 else "train"
            print(name, f"patient{k // 3:06d}", part, *marks[k], sep=",", file=file)
    data = Data(reader="csv", root=str(folder), views=(), shots="5")
    data.cache = str(folder / "cache")
    manifest = split.assign(readers.read(data), data)
    place = Path(data.cache) / cache.digest(manifest, SIDE, 1)
    with cache_store.locked(place, print):
        store = cache_store.Store(place, manifest, (SIDE, SIDE, 1), print)
        store.begin(images, True)
        store.finish({row: ("", rng.bytes(16)) for row in range(images)})
    return data


def seconds(data: Data, seed: int, kept: dict) -> dict[str, float]:
    """One run's, by part."""
    clock = [time.perf_counter()]
    opened = dataset.open(data, seed, print, kept)
    clock.append(time.perf_counter())
    opened.manifest.hash()
    clock.append(time.perf_counter())
    exposure.within(exposure.look(opened))
    clock.append(time.perf_counter())
    parts = np.diff(clock).tolist()
    return dict(zip(("open", "hash", "leaks"), parts, strict=True))


def collecting(run: Path, out: Path) -> list[float]:
    """Seconds to collect COLLECTED copies of a finished run, and once more."""
    for k in range(COLLECTED):
        shutil.copytree(run, out / "runs" / f"{k:04d}", copy_function=os.link)
    took = []
    for _ in range(2):
        began = time.perf_counter()
        found = table.collect([out / "runs"], out, "copies")
        table.save(found.rows, out)
        took.append(time.perf_counter() - began)
        assert len(found.rows) == COLLECTED, found.bad
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/opening.json"))
    parser.add_argument("--collect", type=Path, metavar="RUN")
    args = parser.parse_args()
    about = machine.about()
    if args.collect:  # beside the run: its files are linked, not copied
        with tempfile.TemporaryDirectory(dir=args.collect.parent) as folder:
            took = collecting(args.collect, Path(folder))
        print("{} runs: {:.2f} s, again {:.2f} s".format(COLLECTED, *took))
        return
    with tempfile.TemporaryDirectory() as folder:
        data, kept = make(Path(folder), args.images), {}
        os.sync()  # what is still written would slow the first run
        runs = [seconds(data, seed, kept) for seed in range(args.runs)]
    for run in runs:
        print({k: round(v, 2) for k, v in run.items()}, f"{sum(run.values()):.2f} s")
    machine.save(args.out, {**about, "images": args.images, "runs": runs})


if __name__ == "__main__":
    main()
