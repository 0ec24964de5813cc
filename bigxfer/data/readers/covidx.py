"""COVIDx, every version: the official label files and Kaggle's train.txt, test.txt.

Line formats as counted in lindawangg/COVID-Net @ 6599980, labels/*.txt: 3 tokens
"patient file label" (v1-2, and rsna lines of later test files), 4 with the source,
5 where the patient has a blank ("COVID 1 COVID(1).png positive sirm", v7-8).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import spellings
from bigxfer.data.readers.tables import SEE, Columns, DataError, build, lines

SPACES = (  # the classes of the A, B and severity versions
    ("normal", "pneumonia", "COVID-19"),
    ("negative", "positive"),
    ("level1", "level2"),
)
SOURCES = (
    *("cohen", "fig1", "actmed", "sirm", "ricord", "rsna", "stonybrook", "bimcv"),
    "rnsa",  # sic, 199 lines of version 9
)
PARTS = ("train", "val", "test")  # of the names of the label files
IMAGE = re.compile(r".+\.(png|jpe?g)", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    where: str
    patient: str
    file: str
    label: str
    source: str


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n]; data.version picks the pair of label files ("5", "9A").

    Label files lie in root or root/labels, images in root/train and root/test. A
    file listed again in its split is dropped and counted in the notes. Raises
    DataError with file and line, also where the two lines have different labels.
    """
    root = Path(root)
    files = label_files(root, data.version)
    rows = [(s, line) for s, path in files.items() for line in parse(path)]
    # The first label tells the version, of A, B or severity.
    classes = next((s for s in SPACES if rows[0][1].label in s), SPACES[0])
    first: dict[tuple[str, str], Line] = {}
    kept = []
    for split, line in rows:
        if line.label not in classes:
            raise DataError(f"{line.where}: label {line.label!r} is not of {classes}")
        # By split: a file of the same name in train/ and test/ is another image.
        before = first.setdefault((split, line.file), line)
        if before is line:
            kept.append((split, line))
        # Two labels of one image cannot both be right, and nobody here knows which is.
        if before.label != line.label:
            raise DataError(
                f"{line.where}: {line.file} is {line.label!r}, and {before.label!r} in"
                f" {before.where}; remove the wrong line, or both"
            )
    return build(
        name="covidx",
        root=root,
        classes=classes,
        labels=[classes.index(line.label) for _, line in kept],
        columns=Columns(
            path=[f"{split}/{line.file}" for split, line in kept],
            patient=[f"covidx-{line.patient}" for _, line in kept],
            # Else one source would look like two in the table by source.
            source=[{"rnsa": "rsna"}.get(line.source, line.source) for _, line in kept],
            split=[spellings.SPLITS[split] for split, _ in kept],
        ),
        notes={
            "label_files": {split: path.name for split, path in files.items()},
            "rnsa_read_as_rsna": sum(line.source == "rnsa" for _, line in kept),
        },
        dropped={"lines that list a file again": len(rows) - len(kept)},
    )


def label_files(root: Path, version: str) -> dict[str, Path]:
    """{"train": path, "test": path, perhaps "val": path} of one version."""
    versions: dict[str, dict[str, Path]] = {}
    for path in sorted([*root.glob("*.txt"), *root.glob("labels/*.txt")]):
        match = re.fullmatch(rf"({'|'.join(PARTS)})(?:_COVIDx(.*))?\.txt", path.name)
        if match:
            # Kaggle's train.txt is "", train_COVIDx.txt the first version
            number = "" if match[2] is None else match[2] or "1"
            versions.setdefault(number, {})[match[1]] = path
    have = sorted(v for v, files in versions.items() if {"train", "test"} <= set(files))
    if not version and len(have) == 1:
        version = have[0]
    if version in have and (version or len(have) == 1):
        files = versions[version]
        return {split: files[split] for split in PARTS if split in files}
    wanted = f"train_COVIDx{version}.txt and test_COVIDx{version}.txt"
    raise DataError(
        f"{root}: looked for {wanted if version else 'one pair of label files'} or"
        f" Kaggle's train.txt and test.txt there and in labels/; versions found:"
        f" {have or 'none'}; set config.data.version to one of them. {SEE}"
    )


def parse(path: Path) -> list[Line]:
    """The lines of one label file, read from the right: [source,] label, file."""
    out = []
    for number, text in enumerate(lines(path), 1):
        tokens = text.split()
        where = f"{path}, line {number}"
        if not tokens:
            continue
        source = tokens.pop() if tokens[-1] in SOURCES else ""
        if len(tokens) < 3 or not IMAGE.fullmatch(tokens[-2]):
            raise DataError(
                f"{where}: {text.strip()!r} is not 'patient file label [source]' with"
                f" a png or jpg file and a source of {SOURCES}"
            )
        # From the right, since a patient may hold a blank.
        *patient, file, label = tokens
        out.append(Line(where, " ".join(patient), file, label, source))
    if not out:
        raise DataError(f"{path}, line 1: the label file is empty")
    return out
