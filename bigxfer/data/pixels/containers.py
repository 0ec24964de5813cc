"""What a manifest's `path` names: a file, or one image inside a larger file.

FILE                            the file
FILE.h5#ROW                     row of the only data set of an HDF5 file, an array
FILE.tar#OFFSET+SIZE            bytes within an uncompressed tar
FOLDER/tfds:SPLIT#INDEX         element of a builder prepared as array_record
FOLDER/ID_{red,green,blue}.png  three files, the planes of one image
"""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

H5 = re.compile(r"(.+\.(?:h5|hdf5))#(\d+)")
TAR = re.compile(r"(.+\.tar)#(\d+)\+(\d+)")
TFDS = re.compile(r"(?:(.*)/)?tfds:(\w+)#(\d+)")
PLANES = re.compile(r"(.*)\{(\w+),(\w+),(\w+)\}(.*)")


def source(root: Path | str, path: str) -> Path:
    """The file whose change means that the image may have changed."""
    if match := H5.fullmatch(path) or TAR.fullmatch(path):
        return Path(root) / match[1]
    if match := TFDS.fullmatch(path):
        return Path(root) / (match[1] or "") / "dataset_info.json"
    return Path(root) / planes(path)[0]


def planes(path: str) -> list[str]:
    """The path, or those of its three planes."""
    if match := PLANES.fullmatch(path):
        head, *names, tail = match.groups()
        return [f"{head}{name}{tail}" for name in names]
    return [path]


def fetch(root: Path | str, path: str) -> bytes | np.ndarray:
    """The encoded bytes or, from HDF5, the pixels uint8 [H, W, 3].

    Raises OSError where the file cannot be read, ValueError or IndexError where what
    is named is not in it, ImportError where h5py or tensorflow_datasets is missing.
    """
    if match := H5.fullmatch(path):
        return h5_images(str(Path(root) / match[1]))[int(match[2])]
    if match := TAR.fullmatch(path):
        with open(Path(root) / match[1], "rb") as file:
            file.seek(int(match[2]))
            return file.read(int(match[3]))
    if match := TFDS.fullmatch(path):
        images, feature = tfds_images(str(Path(root) / (match[1] or "")), match[2])
        return images[int(match[3])][feature]
    return (Path(root) / path).read_bytes()


@functools.lru_cache(maxsize=4)  # opening costs a thousand times a row
def h5_images(path: str) -> Any:
    """The only data set in the file."""
    import h5py

    with open(path, "rb"):  # a plain FileNotFoundError; h5py's says less
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
