"""tf.data, PyTorch's DataLoader or Grain on the files of input_pipeline.py.

    PYTHON benchmarks/input_rivals.py tf|torch|grain FOLDER PIXELS SIZE BATCH SECONDS

Run by input_pipeline.py in a Python that has the library. FOLDER holds the images,
PIXELS is the memmap of the cache. It answers as turns.reply does: to "ways" with their
names, to a way with its images a second, to "check" with the mean difference of its
first decoded image from the cache's, in gray levels.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import turns

SKIPPED = 8  # batches: what was fetched ahead before the clock started
Batches = Iterator[np.ndarray]


def rate(batches: Batches, seconds: float) -> float:
    """Images a second, once the pipe is full."""
    for _ in range(SKIPPED):
        next(batches)
    images, began = 0, time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        images += len(next(batches))
    return images / (now - began)


def tf_ways(
    files: list[str], pixels: np.ndarray, size: int, batch: int
) -> dict[str, Callable[[], Batches]]:
    """Decoding in parallel as AUTOTUNE sees fit; from memory by slices, by gather."""
    import tensorflow as tf

    n, auto = len(files), tf.data.AUTOTUNE

    def load(path):
        data = tf.io.decode_image(tf.io.read_file(path), 1, expand_animations=False)
        small = tf.image.resize(data, (size, size), antialias=True)
        return tf.cast(tf.round(small), tf.uint8)

    def parallel():
        paths = tf.data.Dataset.from_tensor_slices(files).shuffle(n).repeat()
        return paths.map(load, auto, deterministic=False).batch(batch)

    def slices():
        return (
            tf.data.Dataset.from_tensor_slices(memory).shuffle(n).repeat().batch(batch)
        )

    def gather():
        index = tf.data.Dataset.range(n).shuffle(n).repeat().batch(batch)
        return index.map(lambda i: tf.gather(memory, i), auto)

    memory = tf.constant(pixels)
    first = load(files[0]).numpy()
    ways = {
        f"{kind} {make.__name__}": lambda make=make: (
            b.numpy() for b in make().prefetch(auto)
        )
        for kind, make in (("decode", parallel), ("cached", slices), ("cached", gather))
    }
    return {**ways, "check": lambda: iter([first])}


def torch_ways(
    files: list[str], pixels: np.ndarray, size: int, batch: int
) -> dict[str, Callable[[], Batches]]:
    """Pillow in a worker for each core; the memmap in workers, and in this process."""
    import torch
    from PIL import Image
    from torch.utils import data

    class Files(data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, k):
            image = Image.open(files[k])
            image.draft("L", image.size)
            small = image.convert("L").resize((size, size), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(small)[..., None])

    class Pixels(Files):
        def __getitem__(self, k):  # one image, or a batch: fresh arrays both
            fresh = pixels[k] if isinstance(k, list) else np.array(pixels[k])
            return torch.from_numpy(np.asarray(fresh))

    def loader(dataset, workers, whole):
        # Permutations without an end: workers would start anew for every epoch.
        order = data.RandomSampler(dataset, num_samples=10**4 * len(files))
        if whole:
            order = data.BatchSampler(order, batch, drop_last=True)
            return data.DataLoader(dataset, batch_size=None, sampler=order)
        return data.DataLoader(dataset, batch, sampler=order, num_workers=workers)

    workers = len(os.sched_getaffinity(0))

    def way(*args):
        return lambda: (b.numpy() for b in loader(*args))

    return {
        f"decode {workers} workers": way(Files(), workers, False),
        f"cached {workers} workers": way(Pixels(), workers, False),
        "cached in process": way(Pixels(), 0, True),
        "check": lambda: iter([Files()[0].numpy()]),
    }


def grain_ways(
    files: list[str], pixels: np.ndarray, size: int, batch: int
) -> dict[str, Callable[[], Batches]]:
    """Pillow in threads of this process, and in a worker process for each core."""
    import grain
    from PIL import Image

    workers = len(os.sched_getaffinity(0))

    def load(path):
        image = Image.open(path)
        image.draft("L", image.size)
        small = image.convert("L").resize((size, size), Image.Resampling.BILINEAR)
        return np.array(small)[..., None]

    def decode(processes, threads):
        data = grain.MapDataset.source(files).shuffle(seed=0).repeat().map(load)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * batch)
        data = data.to_iter_dataset(options).batch(batch, drop_remainder=True)
        if processes:
            data = data.mp_prefetch(grain.MultiprocessingOptions(processes))
        return iter(data)

    def cached():
        data = grain.MapDataset.range(len(files)).shuffle(seed=0).repeat()
        data = data.batch(batch, drop_remainder=True).map(lambda k: pixels[k])
        return iter(data.to_iter_dataset())

    return {
        f"decode {workers} threads": lambda: decode(0, workers),
        f"decode {workers} workers": lambda: decode(workers, 1),
        "cached, a batch at a time": cached,
        "check": lambda: iter([load(files[0])]),
    }


def main() -> None:
    side, folder, file, size, batch, seconds = sys.argv[1:]
    files = sorted(str(p) for p in Path(folder).rglob("*") if p.suffix == ".jpg")
    shape = (len(files), int(size), int(size), 1)
    pixels = np.memmap(file, np.uint8, "r", shape=shape)
    make = {"tf": tf_ways, "torch": torch_ways, "grain": grain_ways}[side]
    ways = make(files, pixels, int(size), int(batch))

    def answer(what: str) -> dict[str, Any]:
        if what == "ways":
            return {"ways": [way for way in ways if way != "check"]}
        batches = ways[what]()
        if what == "check":
            return {"levels": abs(next(batches).astype(float) - pixels[0]).mean()}
        return {"images_per_s": rate(batches, float(seconds))}

    turns.reply(answer)


if __name__ == "__main__":
    main()
