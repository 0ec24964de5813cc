"""PatchCamelyon (1806.03962): HDF5, whose images are addressed as FILE.h5#ROW."""

from pathlib import Path

import numpy as np

from bigxfer.config import Data
from bigxfer.data.manifest import SPLITS, Manifest
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import Columns, DataError, Table, build, find, read_csv

STEM = "camelyonpatch_level_2_split_{split}_{part}"


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n]: tumour in the centre 32 x 32 pixels.

    Needs the unpacked _x.h5 and _y.h5 of each split; the _meta.csv beside them name
    the slide, which is the `patient` (nothing nearer is known). Raises DataError.
    """
    root = Path(root)
    paths, patients, labels, splits = [], [], [], []
    noted = "the slide, by _meta.csv"
    for split in SPLITS:
        stem = STEM.format(split=split, part="")
        images = find_h5(root, f"{stem}x.h5")
        # Stored as (n, 1, 1, 1).
        targets = read_h5(find_h5(root, f"{stem}y.h5"), "y").reshape(-1)
        count, meta = h5_shape(images, "x")[0], root / f"{stem}meta.csv"
        table = read_csv(meta, ("wsi",)) if meta.exists() else None
        check_lengths(images, count, len(targets), table)
        if not np.isin(targets, (0, 1)).all():
            row = int(np.flatnonzero(~np.isin(targets, (0, 1)))[0])
            raise DataError(f"{stem}y.h5, row {row}: {targets[row]}; 0 or 1 expected")
        here = [f"{images.name}#{row}" for row in range(count)]
        if table is None:
            noted = NOBODY
        paths += here
        # Patches of one slide are alike; split apart they would leak.
        patients += [f"pcam-{name}" for name in (table["wsi"] if table else here)]
        labels += targets.tolist()
        splits += [split] * count
    return build(
        name="pcam",
        root=root,
        classes=("normal", "tumour"),
        labels=labels,
        columns=Columns(
            path=paths,
            patient=patients,
            split=splits,
        ),
        notes={"patients": noted, "split": "official"},
    )


def check_lengths(images: Path, count: int, labels: int, table: Table | None) -> None:
    rows = count if table is None else len(table)
    if not count == labels == rows:
        raise DataError(f"{images}: {count} images, {labels} labels, {rows} meta rows")


def find_h5(root: Path, name: str) -> Path:
    # Random access into gzip would unpack the file for each image.
    if not (root / name).exists() and (root / f"{name}.gz").exists():
        raise DataError(f"{root / name}.gz must be unpacked: gunzip {name}.gz")
    return find(root, name)


def h5_shape(path: Path, name: str) -> tuple[int, ...]:
    return _h5(path, name, lambda dataset: dataset.shape)


def read_h5(path: Path, name: str) -> np.ndarray:
    return _h5(path, name, lambda dataset: dataset[:])


def _h5(path: Path, name: str, take):
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path} needs h5py: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            return take(file[name])
    except (OSError, KeyError) as error:
        raise DataError(
            f"{path}: no readable HDF5 dataset {name!r} ({error})"
        ) from None
