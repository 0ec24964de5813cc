"""Pixels that are compared with their checksums whenever they are read.

The sum of a row is XXH3 (128 bits) of its bytes, taken where they were decoded, before
they were written. On a core of an EPYC it takes 0.9 us for 224 x 224 pixels, where zlib's
crc32 takes 12 (to read them takes 5: benchmarks/README.md). It finds damage, by chance all
but one in 2^128; it is no protection from somebody who means to deceive.

Noticed: whatever differs from what was decoded when a batch is gathered from the file,
at every read. Not noticed: what a decoder did wrong, and what happens to a batch, or to
images that lie on the devices (data.resident), after it was read.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

SUM = np.dtype("V16")
VERSION = 1  # of the sums; they stand in images.npz of finished runs too
SHOWN = 3  # damaged images that a message names


def sum_of(data: Any) -> bytes:
    """The checksum, 16 bytes, of bytes or of a contiguous array's."""
    return xxhash.xxh3_128_digest(data)


def identity(sums: np.ndarray) -> str:
    """sha256 in hex of the sums SUM [n] of some rows, in their order.

    Two sets of rows have the same identity where all their pixels are equal (raw) or
    all their files are (encoded). Cheap: it reads no pixels, 0.1 s for 10 million rows.
    """
    return hashlib.sha256(np.ascontiguousarray(sums).tobytes()).hexdigest()


class Checked:
    """uint8 [n, S, S, C] in a file, read-only; what does not fit its sum is refused."""

    def __init__(
        self,
        file: Path,
        shape: tuple[int, ...],
        sums: np.ndarray,  # SUM [n]
        names: np.ndarray,  # str [n], for messages
        forget: Callable[[list[int]], None],  # called with the damaged rows
    ) -> None:
        self.file, self.shape, self.sums = file, shape, sums
        self.names, self.forget = names, forget
        # A plain array: numpy's memmap class takes longer for each index.
        self.pixels = np.asarray(np.memmap(file, np.uint8, "r", shape=shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray | slice | int) -> np.ndarray:
        """A fresh array: uint8 [b, S, S, C] of several rows, [S, S, C] of one.

        Raises ValueError where pixels are not those that were decoded; the rows are
        then decoded again when the cache is next opened.
        """
        if not isinstance(index, np.ndarray):
            index = np.arange(len(self))[index]
        if index.dtype == bool:
            index = np.flatnonzero(index)
        rows = np.atleast_1d(index)
        images = self.pixels[rows]  # a copy: what is checked is what is used
        if [sum_of(image) for image in images] != self.sums[rows].tolist():
            self.refuse(rows, images)
        return images if index.ndim else images[0]

    def refuse(self, rows: np.ndarray, images: np.ndarray) -> None:
        pairs = zip(rows.tolist(), images, strict=True)
        damaged = [r for r, image in pairs if sum_of(image) != self.sums[r].tobytes()]
        self.forget(damaged)
        names = ", ".join(self.names[damaged[:SHOWN]])
        raise ValueError(
            f"{self.file} is damaged: the pixels of {len(damaged)} images ({names}) are"
            " not those that were decoded, or another process has decoded changed files"
            " since this one began. Start again: they are decoded anew. Where the cache"
            " cannot be written, take another with --config.data.cache=FOLDER."
        )
