"""Cats vs dogs: Microsoft's PetImages/{Cat,Dog}/N.jpg or Kaggle's train/cat.N.jpg."""

import re
from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import files
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import Columns, DataError, build, find

BAD = ("Cat/666.jpg", "Dog/11702.jpg")  # empty, in Microsoft's archive


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n]: cat, dog. The two empty files are dropped and counted."""
    root = Path(root)
    top = find(root, "PetImages", "train")
    if top.name == "PetImages":
        names = [f"{a}/{f}" for a in ("Cat", "Dog") for f in files.names(find(top, a))]
        pattern = re.compile(r"(Cat|Dog)/(\d+)\.(?i:jpe?g)")
    else:
        names, pattern = files.names(top), re.compile(r"(cat|dog)\.(\d+)\.(?i:jpe?g)")
    matches = [match for name in names if (match := pattern.fullmatch(name))]
    good = [match for match in matches if match[0] not in BAD]
    # By number: os.listdir's order is the file system's.
    good.sort(key=lambda match: (match[1], int(match[2])))
    if not good:
        raise DataError(f"{top}: no file such as Cat/1.jpg or cat.1.jpg")
    paths = [f"{top.name}/{match[0]}" for match in good]
    return build(
        name="catsdogs",
        root=root,
        classes=("cat", "dog"),
        labels=[int(match[1].lower() == "dog") for match in good],
        columns=Columns(
            path=paths,
            patient=[f"catsdogs-{path}" for path in paths],
        ),
        notes={"patients": NOBODY, "split": "none is official"},
        dropped={
            "files known to be empty": sorted({m[0] for m in matches} & {*BAD}),
            "files of other names": sorted({*names} - {m[0] for m in matches}),
        },
    )
