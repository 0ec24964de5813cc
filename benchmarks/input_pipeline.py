"""Images a second of the input path, and what building the cache costs.

    python benchmarks/input_pipeline.py [FOLDER_OF_IMAGES]

Without a folder, 2,000 synthetic 512 px grayscale JPEGs are written and decoded.
Asked of it: 50,000 images/s or more from `batch(step)` (64 gray images of 256 px)
and a cache built within 1.3 times the bare cost of decoding on all cores.
"""

import io
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from bigxfer.data import cache
from bigxfer.data.loader import Loader, prefetch
from bigxfer.data.manifest import Manifest

SIZE, BATCH = 256, 64


def synthetic(folder: Path, n: int = 2000, side: int = 512) -> None:
    """Smooth noise as JPEG: about the bytes a pixel of a radiograph."""
    rng = np.random.default_rng(0)
    for k in range(n):
        coarse = rng.integers(0, 256, (side // 8, side // 8), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        image.save(folder / f"{k:05d}.jpg", quality=92)


def manifest(folder: Path) -> Manifest:
    paths = sorted(
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.suffix in (".jpg", ".png")
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
    cores = cache.cores()
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


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else scratch / "images"
        if len(sys.argv) < 2:
            folder.mkdir()
            synthetic(folder)
        building(manifest(folder), scratch / "cache")
        reading(scratch)


if __name__ == "__main__":
    main()
