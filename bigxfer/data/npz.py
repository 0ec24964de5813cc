"""Arrays in a .npz file, read row by row: the largest of MedMNIST+ would fill 16 GB."""

import functools
import os
import zipfile
import zlib
from contextlib import contextmanager
from threading import Lock

import numpy as np

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)


class Rows:
    """One array of a .npz file. Rising rows cost one pass over it, whatever its size.

    The array is compressed as a whole, so an earlier row than the last one begins a new
    pass. Raises FileNotFoundError, KeyError without such an array, ValueError where the
    file is damaged or the array is not stored row by row.
    """

    def __init__(self, path: str, key: str) -> None:
        self.path, self.lock = path, Lock()
        with damage(path):
            try:
                archive = zipfile.ZipFile(path)  # open while its rows are read
                # A stream: numpy.load would unpack the whole array.
                self.file = archive.open(f"{key}.npy")
            except KeyError:
                raise KeyError(f"{path} holds no array {key!r}") from None
            version = np.lib.format.read_magic(self.file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            self.shape, columns_first, self.dtype = header(self.file)
        # Fortran order stores an image in pieces all over the file.
        if columns_first or not self.shape or self.dtype.hasobject:
            raise ValueError(f"{path}: the array {key!r} is not stored row by row")
        self.start = self.file.tell()
        self.row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> np.ndarray:
        """One row, of shape[1:]; IndexError outside [0, len), ValueError for damage."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} is out of range of {len(self)} in {self.path}")
        data = self.read(row, 1)
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    def all(self) -> np.ndarray:
        """The whole array, which has to fit in memory; ValueError for damage."""
        data = self.read(0, len(self))
        return np.frombuffer(data, self.dtype).reshape(self.shape)

    def read(self, row: int, count: int) -> bytes:
        """The bytes of `count` rows from `row` on; ValueError for damage."""
        with self.lock, damage(self.path):  # seek and read belong together
            self.file.seek(self.start + row * self.row_bytes)
            data = self.file.read(count * self.row_bytes)
        if len(data) < count * self.row_bytes:
            raise ValueError(f"{self.path} is damaged: it ends within its rows")
        return data


@contextmanager
def damage(path: str):
    """Turn what zipfile and zlib raise for a damaged file into ValueError."""
    try:
        yield
    except DAMAGED as error:
        raise ValueError(f"{path} is a damaged npz file ({error})") from None


def rows(path: str, key: str) -> Rows:
    """The array, opened once as long as the file stays the same."""
    # The time is part of the key: a file that was replaced is opened anew.
    return _rows(path, key, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _rows(path: str, key: str, modified: int) -> Rows:
    return Rows(path, key)
