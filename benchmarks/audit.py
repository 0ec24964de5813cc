"""The audit's fingerprints and search, whole, at the size of the large sets.

    python benchmarks/audit.py --images FOLDER [--count 100000] [--pixels 224]

The images are mixtures of two radiographs out of FOLDER (jpg or png, looked for in its
subfolders too), each turned, scaled and mirrored at random: no two are alike, and all
have the statistics of radiographs (the phantom's drawings resemble one another far
more than people do). 20 copies, cropped by up to 4% a side, are planted. Making the
images is not timed. Prints the seconds of each part and the pairs found; writes
results/audit.json.
"""

import argparse
import json
import tempfile
import time
from itertools import pairwise
from multiprocessing import Pool
from pathlib import Path

import machine
import numpy as np
from PIL import Image

PLANTED = 20


def source(path: Path) -> Image.Image:
    """The file as a square of 280 px, gray."""
    return Image.open(path).convert("L").resize((280, 280), Image.Resampling.BILINEAR)


def moved(image: Image.Image, rng: np.random.Generator, pixels: int) -> np.ndarray:
    """float32 [pixels, pixels]: turned, scaled, shifted and mirrored at random."""
    angle, scale = np.deg2rad(rng.uniform(-15, 15)), 280 / pixels * rng.uniform(0.7, 1)
    turn = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    turn[:, 0] *= rng.choice([-1, 1])
    shift = 140 - turn @ np.full(2, pixels / 2) + rng.uniform(-14, 14, 2)
    data = (*turn[0], shift[0], *turn[1], shift[1])
    out = image.transform((pixels, pixels), Image.Transform.AFFINE, data, 2)
    return np.asarray(out, np.float32)


def write(job: tuple) -> None:
    """Fills the rows start to stop of the memory map."""
    path, shape, start, stop, files = job
    images = np.memmap(path, np.uint8, "r+", shape=shape)
    originals = [source(f) for f in files]
    for i in range(start, stop):
        rng = np.random.default_rng([7, i])
        a, b = (originals[k] for k in rng.choice(len(files), 2, replace=False))
        share = rng.uniform(0.35, 0.65)
        mixed = share * moved(a, rng, shape[1])
        images[i, ..., 0] = mixed + (1 - share) * moved(b, rng, shape[1])


def plant(images: np.ndarray) -> set[tuple[int, int]]:
    """Overwrites the last rows with cropped copies of the first; the pairs."""
    count, side = images.shape[:2]
    rng = np.random.default_rng(3)
    for k in range(PLANTED):
        left, top, right, low = rng.uniform(0, 0.04 * side, 4)
        box = (left, top, side - right, side - low)
        picture = Image.fromarray(images[k, ..., 0])
        copy = picture.resize((side, side), Image.Resampling.BILINEAR, box)
        images[count - PLANTED + k, ..., 0] = np.asarray(copy)
    return {(k, count - PLANTED + k) for k in range(PLANTED)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--pixels", type=int, default=224)
    args = parser.parse_args()
    from bigxfer.data import duplicates

    kinds = (".jpg", ".jpeg", ".png")
    files = sorted(p for p in args.images.rglob("*") if p.suffix.lower() in kinds)
    if len(files) < 2:
        parser.error(f"--images {args.images} holds {len(files)} of {kinds}")
    shape = (args.count, args.pixels, args.pixels, 1)
    with tempfile.NamedTemporaryFile(dir=".", suffix=".audit") as file:
        np.memmap(file.name, np.uint8, "w+", shape=shape)
        bounds = np.linspace(0, args.count, 65).astype(int)
        with Pool() as pool:
            parts = pairwise(bounds)
            pool.map(write, [(file.name, shape, a, b, files) for a, b in parts], 1)
        images = np.memmap(file.name, np.uint8, "r+", shape=shape)
        planted = plant(images)
        report = {"machine": machine.about(), "images": args.count}
        rows = np.arange(args.count)
        start = time.perf_counter()
        prints = duplicates.fingerprint(images, rows)
        printed = time.perf_counter()
        pairs = duplicates.near(images, prints, rows)
        end = time.perf_counter()
    found = {(p.a, p.b) for p in pairs}
    report |= {
        "fingerprint_s": printed - start,
        "search_s": end - printed,
        "whole_s": end - start,
        "planted_found": len(found & planted),
        "other_pairs": len(found - planted),
    }
    print(json.dumps(report, indent=1))
    out = Path(__file__).parent / "results" / "audit.json"
    out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
