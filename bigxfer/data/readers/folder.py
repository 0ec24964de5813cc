"""A folder of class folders, perhaps beneath train/, valid/ and test/."""

import os
from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.tables import SEE, DataError, build

SPLITS = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
NOBODY = "unknown: each image counts as a patient of its own"
IMAGES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif"),
    *(".bmp", ".tif", ".tiff", ".dcm"),
)


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n]: the class is the name of the first folder, sorted.

    Nobody says whose image it is, so each counts as a patient of its own, which the
    notes say: use the csv reader where patients have several. Raises DataError
    where there are fewer than two class folders, or one has no image.
    """
    root = Path(root)
    parts = [name for name in SPLITS if (root / name).is_dir()] or [""]
    rows, other = [], 0
    for part in parts:
        for name in class_folders(root / part):
            files = sorted(walk(root / part / name))
            images = [f for f in files if f.lower().endswith(IMAGES)]
            other += len(files) - len(images)
            if not images:
                raise DataError(f"{root / part / name}: a class folder with no image")
            prefix = f"{part}/{name}" if part else name
            rows += [(part, name, f"{prefix}/{file}") for file in images]
    classes = tuple(sorted({name for _, name, _ in rows}))
    if len(classes) < 2:
        raise DataError(
            f"{root}: looked for two or more class folders"
            f"{' under ' + ', '.join(parts) if parts != [''] else ''},"
            f" found {list(classes)}; {SEE}"
        )
    index = {name: i for i, name in enumerate(classes)}
    paths = [path for _, _, path in rows]
    return build(
        name="folder",
        root=root,
        classes=classes,
        labels=[index[name] for _, name, _ in rows],
        path=paths,
        patient=[os.path.splitext(path)[0] for path in paths],
        split=[SPLITS.get(part, "") for part, _, _ in rows],
        notes={
            "patients": NOBODY,
            "files_that_are_no_image": other,
        },
    )


def class_folders(top: Path) -> list[str]:
    with os.scandir(top) as entries:
        return sorted(e.name for e in entries if e.is_dir() and e.name[0] != ".")


def walk(top: Path) -> list[str]:
    """All files beneath top, relative to it."""
    return [
        Path(folder, file).relative_to(top).as_posix()
        for folder, _, files in os.walk(top)
        for file in files
    ]
