"""The input path: building the cache, images a second, end to end into the step.

    python benchmarks/input_pipeline.py [FOLDER_OF_JPEGS] [--out FILE.json]
        [--torch-python PYTHON] [--tf-python PYTHON] [--grain-python PYTHON]

Without a folder, 2,000 synthetic 512 px grayscale JPEGs are written and decoded.

building: the cache beside the bare cost of decoding on all cores (asked: 1.3 times it).
reading: `batch(step)`, 64 images (asked: 50,000 images/s of 64 px), from the page cache, as
the second epoch of a training sees it, with the checksums of the rows and without.
ways: ours in turns with PyTorch's, TensorFlow's and Grain's loaders on the same files
and the same memmap (input_rivals.py); the Pythons have those libraries.
step: that of R26x0.25@64, batch 64, fed as `fit` feeds it, in turns with the same step on
a batch that lies ready on the device; and the share of the time that it waited while the
device had nothing to do (asked: under 1%).
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import machine
import numpy as np
import turns
from input_rivals import rate
from PIL import Image

from bigxfer import cli, host
from bigxfer.data.loader import Images, Loader, prefetch
from bigxfer.data.manifest import Manifest
from bigxfer.data.pixels import cache, cache_encoded, checked

HERE = Path(__file__).parent
SIZE, BATCH = 256, 64
FORMS = (64, 1), (224, 1), (224, 3), (256, 1)  # of the images read: side, channels
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


def building(source: Manifest, scratch: Path) -> dict[str, Any]:
    """{"bare", "cache", "opening": seconds of each round}: a new cache every round."""
    files = [str(Path(source.root) / p) for p in source.path]
    found: dict[str, Any] = {
        "files": len(files),
        "bare": [],
        "cache": [],
        "opening": [],
    }
    for number in range(ROUNDS):
        with ProcessPoolExecutor(len(host.cores())) as pool:
            list(pool.map(bare, files[:32]))  # the pool and the page cache are warm
            began = time.perf_counter()
            list(pool.map(bare, files, chunksize=32))
        found["bare"].append(time.perf_counter() - began)
        for name in ("cache", "opening"):
            began = time.perf_counter()
            cache.build(source, scratch / str(number), SIZE, 1)
            found[name].append(time.perf_counter() - began)
    return found


def reading(scratch: Path, n: int = 4000, steps: int = 100) -> dict[str, Any]:
    """Images a second of each round, and in a second of CPU time, by form and way.

    Checked is what training reads; bare is the same memmap without its checksums.
    """
    found: dict[str, Any] = {}
    for side, channels in FORMS:
        path, shape = scratch / "pixels", (n, side, side, channels)
        np.random.default_rng(0).integers(0, 256, shape, np.uint8).tofile(path)
        bare = np.memmap(path, np.uint8, "r", shape=shape)
        sums = np.array([checked.sum_of(image) for image in bare], checked.SUM)
        names = np.full(n, "synthetic")
        ways: dict[str, Images] = {
            "bare": bare,
            "checked": checked.Checked(path, shape, sums, names, print),
        }
        for _ in range(ROUNDS):
            for way, images in ways.items():
                loader = Loader(images, np.zeros(n, np.int32), np.arange(n), BATCH, 0)
                alone = (loader.batch(step) for step in range(steps))
                for name, batches in {
                    f"batch(step), {way}": alone,
                    f"prefetch, {way}": prefetch(loader, 0, steps),
                }.items():
                    rates = found.setdefault(f"{side} px, {channels} channels", {})
                    began, worked = time.perf_counter(), time.process_time()
                    for batch in batches:
                        assert batch["images"].shape == (BATCH, *shape[1:])
                    each = rates.setdefault(name, {"images_per_s": [], "per_cpu_s": []})
                    seconds = time.perf_counter() - began, time.process_time() - worked
                    for key, took in zip(each, seconds, strict=True):
                        each[key].append(steps * BATCH / took)
        path.unlink()
    return found


def comparing(
    source: Manifest, scratch: Path, pythons: dict[str, str]
) -> dict[str, list[float]]:
    """{way: images a second of its turns}, ours and the rivals' on the same files."""
    raw = cache.build(source, scratch, SIZE, 1)
    kept = cache_encoded.build(source, scratch, SIZE, 1)
    n = len(source)

    def ours(images: Images) -> float:
        loader = Loader(images, np.zeros(n, np.int32), np.arange(n), BATCH, 0)
        ahead = prefetch(loader, 0, 10**6)
        found = rate((batch["images"] for batch in ahead), SECONDS)
        ahead.close()
        return found

    ways: dict[str, Callable[[], float]] = {
        "bigxfer decode encoded": lambda: ours(kept.images),
        "bigxfer cached": lambda: ours(raw.images),
    }
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(HERE.parent)}
    with ExitStack() as stack:
        for side, python in pythons.items():
            if not python:
                print(f"{side}: left out, as --{side}-python names no Python with it")
                continue
            script, file = HERE / "input_rivals.py", raw.folder / "pixels.u8"
            words = (script, side, source.root, file, SIZE, BATCH, SECONDS)
            call = [python, "-W", "ignore", *map(str, words)]
            rival = stack.enter_context(turns.Worker(call, env))
            off = rival.ask("check")["levels"]
            print(f"{side}: first image differs by {off:.2f} gray levels", flush=True)
            for way in rival.ask("ways")["ways"]:
                ways[f"{side} {way}"] = lambda rival=rival, way=way: rival.ask(way)[
                    "images_per_s"
                ]
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, measure in ways.items():
                found[name].append(measure())
    return found


def stepping(source: Manifest, scratch: Path) -> dict[str, Any]:
    """{"ready", "fed": seconds a step of each turn, "waited": share of fed's time}."""
    import jax.numpy as jnp
    import train_step_jax as ours

    from bigxfer.training import loop, sharding
    from bigxfer.training.log import Progress, RunLog

    run = ours.settings(
        {"model": "R26x0.25", "res": 64, "batch": 64, "dtype": "float32"}
    )
    run.data.channels, n = 1, len(source)
    images = cache.build(source, scratch, run.data.resize, 1).images
    loader = Loader(images, np.zeros(n, np.int32), np.arange(n), run.optim.batch, 0)
    mesh = sharding.make(1, run.optim.batch)
    lying = sharding.to_global(mesh, loader.batch(0))
    log, made = (
        RunLog(scratch, run.log, primary=False),
        ours.build(run, mesh, channels=1),
    )
    state, waited, took = made.scratch(jnp.int32(0)), 0.0, 0.0

    def ready(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = made.step(state, lying)
        metrics["loss"].block_until_ready()

    def fed(steps: int) -> None:
        nonlocal state, waited, took
        watch = loop.Watch(log, Progress(log, 0, steps, run.optim.batch))
        batches = prefetch(loader, 0, steps, busy=watch.busy)
        began = time.perf_counter()
        for number, batch in enumerate(batches, 1):
            state, metrics = made.step(state, sharding.to_global(mesh, batch))
            watch.add(number, metrics)
        metrics["loss"].block_until_ready()
        waited, took = waited + batches.waited, took + time.perf_counter() - began

    found: dict[str, Any] = {"ready": [], "fed": []}
    for _ in range(2 * ROUNDS):
        for name, steps in (("ready", ready), ("fed", fed)):
            found[name].append(turns.turn(steps, SECONDS)["seconds"])
    return found | {"waited": waited / took}


def table(found: dict[str, Any]) -> str:
    """One for the loaders, one for all else."""
    built, step = found["building"], found["step"]
    seconds = {k: statistics.median(built[k]) for k in ("bare", "cache", "opening")}
    rows = {
        f"cache of {built['files']} files": f"{seconds['cache']:.2f} s",
        "bare decoding of them": f"{seconds['bare']:.2f} s",
        "cache over bare decoding": interval(built["cache"], built["bare"]),
        "opening the cache": f"{1e3 * seconds['opening']:.0f} ms",
    }
    for form, rates in found["reading"].items():
        for name, r in rates.items():
            most, cpu = (statistics.median(r[k]) for k in ("images_per_s", "per_cpu_s"))
            rows[f"{form}, {name}"] = f"{most:,.0f} images/s; of CPU time {cpu:,.0f}"
    rows["step, fed over ready"] = interval(step["fed"], step["ready"])
    rows["of it waiting for data"] = f"{step['waited']:.2%}"
    lines = ["| what | measured |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    head = f"images/s, median of {ROUNDS} turns"
    lines += ["", f"| way | {head} | least | most |", "|---|---|---|---|"]
    for name, rates in found["ways"].items():
        each = statistics.median(rates), min(rates), max(rates)
        lines.append(f"| {name} | {' | '.join(f'{r:,.0f}' for r in each)} |")
    return "\n".join(lines)


def interval(times: list[float], others: list[float]) -> str:
    """The median ratio of a round, and its 95% interval."""
    ratios = turns.median(a / b for a, b in zip(times, others, strict=True))
    return "{:.3f} ({:.3f} to {:.3f})".format(*ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", help="of JPEGs; synthetic ones otherwise")
    parser.add_argument("--torch-python", default="", help="a Python with PyTorch")
    parser.add_argument("--tf-python", default="", help="a Python with TensorFlow")
    parser.add_argument("--grain-python", default="", help="a Python with Grain")
    parser.add_argument(
        "--out", type=Path, default=HERE / "results/input_pipeline.json"
    )
    args = parser.parse_args()
    cli.set_xla_flags()
    about = machine.about()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = Path(args.folder or scratch / "images")
        if not args.folder:
            folder.mkdir()
            synthetic(folder)
        source = manifest(folder)
        pythons = {"torch": args.torch_python, "tf": args.tf_python}
        pythons["grain"] = args.grain_python
        found: dict[str, Any] = {
            "building": building(source, scratch / "building"),
            "reading": reading(scratch),
            "ways": comparing(source, scratch / "cache", pythons),
            "step": stepping(source, scratch / "cache"),
        }
    machine.save(args.out, {"about": about} | found)
    print(table(found))


if __name__ == "__main__":
    main()
