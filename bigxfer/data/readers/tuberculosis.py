"""Shenzhen and Montgomery (Jaeger et al. 2014): tuberculosis, from the file names."""

import re
from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import files
from bigxfer.data.readers.tables import Columns, DataError, build, find

CHINA, USA = "ChinaSet_AllFiles", "MontgomerySet"
FOLDERS = {  # the layout of NLM's archives, then of Kaggle's kmader copies
    "shenzhen": (f"{CHINA}/CXR_png", f"{CHINA}/{CHINA}/CXR_png"),
    "montgomery": (f"{USA}/CXR_png", f"Montgomery/{USA}/CXR_png"),
}
NAME = re.compile(r"((?:CHNCXR|MCUCXR)_\d{4})_([01])\.(?i:png)")


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n]: the last digit of the name, 0 normal, 1 tuberculosis.

    data.version: "shenzhen", "montgomery", or "" for those that are there, with the
    set as `source`. One image a patient, PA; no official split. Raises DataError.
    """
    root = Path(root)
    if data.version not in ("", *FOLDERS):
        raise DataError(
            f"config.data.version is {data.version!r}; it may be {list(FOLDERS)} or ''"
        )
    rows: list[tuple[str, str, str, int]] = []
    other: list[str] = []
    there = [s for s, ways in FOLDERS.items() if any((root / w).is_dir() for w in ways)]
    for source in [data.version] if data.version else there or list(FOLDERS):
        folder = find(root, *FOLDERS[source])
        for name in files.names(folder):
            if not files.is_image(name):
                other.append(f"{folder.relative_to(root)}/{name}")
                continue
            # The label stands nowhere else: a name that cannot be read is no "normal".
            if not (match := NAME.fullmatch(name)):
                raise DataError(
                    f"{folder / name}: CHNCXR_0001_0.png or MCUCXR_0001_1.png expected"
                )
            path = (folder / name).relative_to(root).as_posix()
            rows.append((path, match[1], source, int(match[2])))
    return build(
        name="tuberculosis",
        root=root,
        classes=("normal", "tuberculosis"),
        labels=[label for *_, label in rows],
        columns=Columns(
            id=[path.rpartition("/")[2] for path, *_ in rows],
            path=[path for path, *_ in rows],
            patient=[f"tuberculosis-{patient}" for _, patient, _, _ in rows],
            source=[source for _, _, source, _ in rows],
            view=["PA"] * len(rows),
        ),
        notes={"split": "none is official", "sets": sorted({r[2] for r in rows})},
        dropped={"files that are no image": other},
    )
