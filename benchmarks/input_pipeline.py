"""Images a second of the input path, and what building the cache costs.

    python benchmarks/input_pipeline.py [FOLDER_OF_JPEGS]
        [--torch-python PYTHON] [--tf-python PYTHON] [--grain-python PYTHON]

Without a folder, 2,000 synthetic 512 px grayscale JPEGs are written and decoded. The
Pythons have PyTorch, TensorFlow and Grain: their loaders read the same files, and the same
memmap, in turns with ours (input_rivals.py).
Asked of it: 50,000 images/s or more from `batch(step)` (64 gray images of 256 px)
and a cache built within 1.3 times the bare cost of decoding on all cores.
"""

import argparse
import io
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from input_rivals import rate
from PIL import Image

from bigxfer import host
from bigxfer.data import cache, encoded
from bigxfer.data.loader import Images, Loader, prefetch
from bigxfer.data.manifest import Manifest

SIZE, BATCH = 256, 64
ROUNDS, SECONDS = 5, 2.0  # turns of each way, and how long one lasts


def synthetic(folder: Path, n: int = 2000, side: int = 512) -> None:
    """Smooth noise as JPEG: about the bytes a pixel of a radiograph."""
    rng = np.random.default_rng(0)
    for k in range(n):
        coarse = rng.integers(0, 256, (side // 8, side // 8), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        image.save(folder / f"{k:05d}.jpg", quality=92)


def manifest(folder: Path) -> Manifest:
    paths = sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix == ".jpg"
    )
    n = len(paths)
    blank = [""] * n
    return Manifest(
        "benchmark",
        str(folder),
        ("a",),
        np.zeros(n, int),
        paths,
        paths,
        paths,
        blank,
        blank,
        blank,
    )


def bare(path: str) -> int:
    """Nothing but what Pillow has to do for one file."""
    image = Image.open(io.BytesIO(Path(path).read_bytes()))
    image.draft("L", image.size)
    return len(image.convert("L").resize((SIZE, SIZE), 2).tobytes())


def building(source: Manifest, scratch: Path) -> None:
    files = [str(Path(source.root) / p) for p in source.path]
    cores = len(host.cores())
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(bare, files[:32]))  # the pool and the page cache are warm
        began = time.perf_counter()
        list(pool.map(bare, files, chunksize=32))
    pool_seconds = time.perf_counter() - began
    began = time.perf_counter()
    cache.build(source, scratch, SIZE, 1)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    cache.build(source, scratch, SIZE, 1)
    opening = time.perf_counter() - began
    print(
        f"building: {len(files)} files, {cores} processes: {seconds:.2f} s,"
        f" {len(files) / seconds:.0f} images/s; bare decoding {pool_seconds:.2f} s"
        f" (x{seconds / pool_seconds:.2f}); opening again {opening * 1e3:.0f} ms"
    )


def reading(scratch: Path, n: int = 8000, steps: int = 500) -> None:
    """From the page cache, as the second epoch of a training sees it."""
    path = scratch / "pixels"
    np.random.default_rng(0).integers(0, 256, (n, SIZE * SIZE), np.uint8).tofile(path)
    images = np.memmap(path, np.uint8, "r", shape=(n, SIZE, SIZE, 1))
    loader = Loader(images, np.zeros(n, np.int32), np.arange(n), BATCH, 0)
    for name, batches in {
        "batch(step)": (loader.batch(step) for step in range(steps)),
        "prefetch": prefetch(loader, 0, steps),
    }.items():
        began, worked = time.perf_counter(), time.process_time()
        for batch in batches:
            assert batch["images"].shape == (BATCH, SIZE, SIZE, 1)
        rate = steps * BATCH / (time.perf_counter() - began)
        busy = steps * BATCH / (time.process_time() - worked)
        print(
            f"{name}: {rate:,.0f} images/s, {busy:,.0f} in a second of CPU time"
            f" ({BATCH} gray images of {SIZE} px)"
        )


class Rival:
    """The process that measures another library, waiting while it is not asked."""

    def __init__(self, side: str, python: str, folder: Path, pixels: Path) -> None:
        script = str(Path(__file__).with_name("input_rivals.py"))
        words = (side, folder, pixels, SIZE, BATCH, SECONDS)
        self.process = subprocess.Popen(
            [python, "-W", "ignore", script, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
        self.ways = [way for way in self.answer() if way != "check"]
        print(f"{side}: first image differs by {self.ask('check'):.2f} gray levels")

    def ask(self, way: str) -> float:
        assert self.process.stdin
        print(way, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> Any:
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"it ended: {self.process.args}")
        return json.loads(line)


def comparing(source: Manifest, scratch: Path, pythons: dict[str, str]) -> None:
    """Ours and the rivals in turns, on the same files; the median of each way."""
    raw = cache.build(source, scratch, SIZE, 1)
    kept = encoded.build(source, scratch, SIZE, 1)
    n = len(source)

    def ours(images: Images) -> Callable[[], float]:
        def measure() -> float:
            loader = Loader(images, np.zeros(n, np.int32), np.arange(n), BATCH, 0)
            ahead = prefetch(loader, 0, 10**6)
            found = rate((batch["images"] for batch in ahead), SECONDS)
            ahead.close()
            return found

        return measure

    ways = {
        "bigxfer decode encoded": ours(kept.images),
        "bigxfer cached": ours(raw.images),
    }
    for side, python in pythons.items():
        if not python:
            print(f"{side}: left out, since --{side}-python names no Python with it")
            continue
        rival = Rival(side, python, Path(source.root), raw.folder / "pixels.u8")
        for way in rival.ways:
            ways[f"{side} {way}"] = partial(rival.ask, way)
    found = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, measure in ways.items():
            found[name].append(measure())
    print(
        f"\n| way | images/s, median of {ROUNDS} turns | least | most |\n|---|---|---|---|"
    )
    for name, rates in found.items():
        low, high = min(rates), max(rates)
        print(f"| {name} | {np.median(rates):,.0f} | {low:,.0f} | {high:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", help="of JPEGs; synthetic ones otherwise")
    parser.add_argument("--torch-python", default="", help="a Python with PyTorch")
    parser.add_argument("--tf-python", default="", help="a Python with TensorFlow")
    parser.add_argument("--grain-python", default="", help="a Python with Grain")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = Path(args.folder or scratch / "images")
        if not args.folder:
            folder.mkdir()
            synthetic(folder)
        source = manifest(folder)
        building(source, scratch / "cache")
        reading(scratch)
        pythons = {"torch": args.torch_python, "tf": args.tf_python}
        pythons["grain"] = args.grain_python
        comparing(source, scratch / "cache", pythons)


if __name__ == "__main__":
    main()
