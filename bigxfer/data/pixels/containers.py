"""What a manifest's `path` names: a file, or one image inside a larger file.

FILE                            the file
FILE.h5#ROW                     row of the only data set of an HDF5 file, an array
FILE.npz#KEY:ROW                row of the array KEY of a npz file
FILE.tar#OFFSET+SIZE            bytes within an uncompressed tar
FOLDER/tfds:SPLIT#INDEX         element of a builder prepared as array_record
FOLDER/ID_{red,green,blue}.png  three files, the planes of one image

Each kind is a class below with the same four things: `source`, `fetch`, `is_array` and
`planes`. A new kind is a class and an entry of KINDS.
"""

import errno
import functools
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from bigxfer.data import npz

LARGEST = 1 << 28  # bytes of an image file: 16 bits of 11,000 x 11,000 pixels
LARGEST_ARCHIVE = 1 << 63  # of a file of many images


@dataclass(frozen=True)
class Plain:
    """A file of its own."""

    pattern: ClassVar[re.Pattern] = re.compile(r"(.*)", re.DOTALL)
    is_array: ClassVar[bool] = False  # True: pixels, not the bytes of one image file

    file: str

    @property
    def planes(self) -> tuple[str, ...]:
        """The paths of the gray images that are its colours; () where it is one image."""
        return ()

    def source(self, root: Path | str) -> str:
        """The file that holds the image; the first of several planes."""
        return os.path.join(root, self.file)  # 200,000 Paths take seconds

    def sources(self, root: Path | str) -> tuple[str, ...]:
        """The files whose change means that the image may have changed."""
        return (self.source(root),)

    def fetch(self, root: Path | str) -> bytes | np.ndarray:
        """The encoded bytes or, where `is_array`, the pixels uint8 [H, W] or [H, W, 3].

        Raises OSError where the file cannot be read, ValueError or IndexError where
        the file lacks what is named, ImportError where h5py or tensorflow_datasets is
        missing.
        """
        with opened(self.source(root)) as file:
            return file.read()


@dataclass(frozen=True)
class HDF5(Plain):
    pattern = re.compile(r"(.+\.(?:h5|hdf5))#(\d+)")
    is_array = True

    row: str

    def fetch(self, root: Path | str) -> np.ndarray:
        return without_channel(h5_images(self.source(root))[int(self.row)])


@dataclass(frozen=True)
class NPZ(Plain):
    pattern = re.compile(r"(.+\.npz)#(\w+):(\d+)")
    is_array = True

    key: str
    row: str

    def fetch(self, root: Path | str) -> np.ndarray:
        return without_channel(npz.rows(self.source(root), self.key)[int(self.row)])


@dataclass(frozen=True)
class Tar(Plain):
    pattern = re.compile(r"(.+\.tar)#(\d+)\+(\d+)")

    offset: str
    size: str

    def fetch(self, root: Path | str) -> bytes:
        if int(self.size) > LARGEST:
            raise ValueError(too_large(int(self.size)))
        # The archive may have any size; the member, checked above, may not.
        with opened(self.source(root), LARGEST_ARCHIVE) as file:
            file.seek(int(self.offset))
            return file.read(int(self.size))


@dataclass(frozen=True)
class TFDS(Plain):
    pattern = re.compile(r"((?:.*/)?)tfds:(\w+)#(\d+)")

    split: str
    index: str

    def source(self, root: Path | str) -> str:
        # tensorflow-datasets writes it at the end of each preparation.
        return os.path.join(root, self.file, "dataset_info.json")

    def fetch(self, root: Path | str) -> bytes:
        images, feature = tfds_images(os.path.join(root, self.file), self.split)
        return images[int(self.index)][feature]


@dataclass(frozen=True)
class Planes(Plain):
    """`file` is what stands before the names of the three planes, `tail` what follows."""

    pattern = re.compile(r"(.*)\{(\w+),(\w+),(\w+)\}(.*)")
    is_array = True

    red: str
    green: str
    blue: str
    tail: str

    @property
    def planes(self) -> tuple[str, ...]:
        return tuple(
            f"{self.file}{name}{self.tail}"
            for name in (self.red, self.green, self.blue)
        )

    def source(self, root: Path | str) -> str:
        return os.path.join(root, self.planes[0])

    def sources(self, root: Path | str) -> tuple[str, ...]:
        return tuple(os.path.join(root, plane) for plane in self.planes)


KINDS = (HDF5, NPZ, Tar, TFDS, Planes, Plain)  # the first whose pattern fits


def parse(path: str) -> Plain:
    """What this path names; a plain file where it is of no other kind."""
    if "#" not in path and "{" not in path:  # nearly all: no pattern is tried
        return Plain(path)
    matches = ((kind, kind.pattern.fullmatch(path)) for kind in KINDS)
    return next(kind(*match.groups()) for kind, match in matches if match)


def opened(path: str, largest: int = LARGEST) -> BinaryIO:
    """The file for reading.

    Raises OSError where it is no regular file (a FIFO is waited for without end, a
    device may never end), ValueError where it has more than `largest` bytes.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        kind = "FIFO" if stat.S_ISFIFO(status.st_mode) else "device or socket"
        raise OSError(errno.EINVAL, f"a {kind}, not a file", path)
    if status.st_size > largest:
        raise ValueError(too_large(status.st_size))
    return open(path, "rb")


def without_channel(pixels: np.ndarray) -> np.ndarray:
    """[H, W] of gray pixels [H, W, 1], which Pillow does not take; others as they are."""
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def too_large(size: int) -> str:
    return f"{size / 1e9:.2f} GB; an image file may have {LARGEST / 1e9:.2f}"


@functools.lru_cache(maxsize=4)  # opening costs a thousand times a row
def h5_images(path: str) -> Any:
    """The only data set in the file."""
    import h5py

    with opened(path, LARGEST_ARCHIVE):  # FileNotFoundError; h5py's own says less
        file = h5py.File(path, "r")
    if len(names := list(file)) != 1:
        raise ValueError(f"one data set was expected in {path}, found {names}")
    return file[names[0]]


@functools.lru_cache(maxsize=8)
def tfds_images(folder: str, split: str) -> tuple[Any, str]:
    """(the data source with its images still encoded, the image feature's name)."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    features = builder.info.features
    image = next(n for n, f in features.items() if isinstance(f, tfds.features.Image))
    skip: dict[str, Any] = {image: tfds.decode.SkipDecoding()}
    source: Any = builder.as_data_source  # its decorator hides its types
    return source(split, decoders=skip), image
