"""ImageNet-1k as folders (1409.0575) and ImageNet-21k as tar files of its synsets."""

import os
import re
import tarfile
from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import DataError, build, find, read_csv

SYNSET = re.compile(r"n\d{8}")
MEMBER = re.compile(r"(?:.*/)?((n\d{8})_\w+)\.JPEG")


def read_1k(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n], the synsets sorted. val/, labelled, is "test".

    train/SYNSET/*.JPEG, and val/ likewise or flat with Kaggle's
    LOC_val_solution.csv; or root/Data/CLS-LOC/{train,val}. Raises DataError.
    """
    root = Path(root)
    top = find(root, "train", "Data/CLS-LOC/train").parent
    prefix = "" if top == root else "Data/CLS-LOC/"
    rows = []
    for folder, split in (("train", "train"), ("val", "test")):
        if (top / folder).is_dir():
            images = synset_folders(top / folder) or validation(root)
            rows += [(split, s, f"{prefix}{folder}/{name}") for s, name in images]
    return manifest("imagenet", root, rows, "train; val as test")


def synset_folders(folder: Path) -> list[tuple[str, str]]:
    """(synset, SYNSET/FILE) of every image beneath a folder of synset folders."""
    synsets = [name for name in sorted(os.listdir(folder)) if SYNSET.fullmatch(name)]
    return [
        (synset, f"{synset}/{name}")
        for synset in synsets
        for name in sorted(os.listdir(folder / synset))
        if name.endswith(".JPEG")
    ]


def validation(root: Path) -> list[tuple[str, str]]:
    """(synset, FILE) of a flat val/, from Kaggle's solution."""
    solution = find(root, "LOC_val_solution.csv")
    table = read_csv(solution, ("ImageId", "PredictionString"))
    table.check_unique("ImageId")
    [synsets] = table.groups("PredictionString", r"(n\d{8})(?: .*)?", "n01751748 ...")
    names = [f"{name}.JPEG" for name in table["ImageId"]]
    return list(zip(synsets, names))


def read_21k(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n], the synsets sorted, of every *.tar in root; no split.

    Members are nNNNNNNNN_X.JPEG, whatever tar they lie in. A path is
    FILE.tar#OFFSET+SIZE: the member's bytes in the tar, so that one is read without
    an index. Reading all headers once takes minutes; save the manifest. Raises
    DataError for a tar that is cut off or compressed, or a member of another name.
    """
    root, rows, ids = Path(root), [], []
    if not (tars := sorted(root.glob("*.tar"))):
        raise DataError(f"{root}: looked for n01440764.tar or other *.tar, found none")
    for path in tars:
        for name, where in members(path):
            if not (match := MEMBER.fullmatch(name)):
                raise DataError(f"{path}: member {name!r} is not nNNNNNNNN_X.JPEG")
            rows.append(("", match[2], f"{path.name}#{where}"))
            ids.append(match[1])
    return manifest("imagenet21k", root, rows, "none is official", ids)


def members(path: Path) -> list[tuple[str, str]]:
    """(name, "OFFSET+SIZE") of each file in an uncompressed tar."""
    out, size = [], path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    where = f"{member.offset_data}+{member.size}"
                    out.append((member.name, where))
                    if member.offset_data + member.size > size:
                        raise DataError(f"{path}: cut off within {member.name}")
                tar.members = []  # type: ignore[attr-defined]  # or it keeps all
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: no readable uncompressed tar ({error})") from None
    return out


def manifest(
    name: str,
    root: Path,
    rows: list[tuple[str, str, str]],
    split: str,
    ids: list[str] | None = None,
) -> Manifest:
    """From rows of (split, synset, path)."""
    classes = tuple(sorted({synset for _, synset, _ in rows}))
    index = {synset: i for i, synset in enumerate(classes)}
    paths = [path for *_, path in rows]
    ids = ids or paths
    return build(
        name=name,
        root=root,
        classes=classes,
        labels=[index[synset] for _, synset, _ in rows],
        id=ids,
        path=paths,
        patient=ids,  # unique as they are; copies of 14 million strings are not
        split=[part for part, *_ in rows],
        notes={"patients": NOBODY, "split": split},
    )
