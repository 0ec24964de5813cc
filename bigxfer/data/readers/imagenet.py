"""ImageNet-1k as folders (1409.0575) and ImageNet-21k as tar files of its synsets."""

import re
import tarfile
from pathlib import Path, PurePosixPath

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import files
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import Columns, DataError, build, find, read_csv

SYNSET = re.compile(r"n\d{8}")
# The folder before it differs between releases.
MEMBER = re.compile(r"(?:.*/)?((n\d{8})_\w+)\.JPEG")


def read_1k(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n], the synsets sorted. val/, labelled, is "test".

    train/SYNSET/*.JPEG, and val/ likewise or flat with Kaggle's
    LOC_val_solution.csv; or root/Data/CLS-LOC/{train,val}. Raises DataError.
    """
    root = Path(root)
    top = find(root, "train", "Data/CLS-LOC/train").parent
    # Kaggle unpacks two folders deeper.
    prefix = "" if top == root else "Data/CLS-LOC/"
    rows, other = [], []
    for folder, split in (("train", "train"), ("val", "test")):
        if (top / folder).is_dir():
            images, unread = synset_folders(top / folder)
            other += [f"{prefix}{folder}/{name}" for name in unread]
            # The official tar of val/ is flat.
            images = images or validation(root)
            rows += [(split, s, f"{prefix}{folder}/{name}") for s, name in images]
    dropped = {"files that are no .JPEG in a synset's folder": other}
    return manifest("imagenet", root, rows, "train; val as test", dropped=dropped)


def synset_folders(folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """((synset, SYNSET/FILE) of every image in a folder of synset folders, the others).

    The images of a flat folder are none of the others: `validation` takes those.
    """
    images, other = [], []
    for synset in files.folders(folder):
        if not SYNSET.fullmatch(synset):
            other.append(synset)
            continue
        for name in files.names(folder / synset):
            # As published, in capitals; others are litter or thumbnails.
            if name.endswith(".JPEG"):
                images.append((synset, f"{synset}/{name}"))
            else:
                other.append(f"{synset}/{name}")
    return images, other


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
    litter, tars = [], [root / name for name in files.names(root)]
    if not (tars := [path for path in tars if path.suffix == ".tar"]):
        raise DataError(f"{root}: looked for n01440764.tar or other *.tar, found none")
    # In the order of the names, so that ids do not depend on the file system.
    for path in tars:
        for name, where in members(path):
            if any(map(files.is_litter, PurePosixPath(name).parts)):
                litter.append(f"{path.name}: {name}")
                continue
            if not (match := MEMBER.fullmatch(name)):
                raise DataError(f"{path}: member {name!r} is not nNNNNNNNN_X.JPEG")
            rows.append(("", match[2], f"{path.name}#{where}"))
            ids.append(match[1])
    dropped = {"litter (hidden files, __MACOSX and the like)": litter}
    return manifest("imagenet21k", root, rows, "none is official", ids, dropped)


def members(path: Path) -> list[tuple[str, str]]:
    """(name, "OFFSET+SIZE") of each file in an uncompressed tar."""
    out, size = [], path.stat().st_size
    try:
        # "r:" refuses compression, in which no offset helps.
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    where = f"{member.offset_data}+{member.size}"
                    out.append((member.name, where))
                    # tarfile tells this only when it reads the bytes.
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
    dropped: dict[str, list[str]] | None = None,
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
        columns=Columns(
            id=ids,
            path=paths,
            patient=ids,  # unique as they are; copies of 14 million strings are not
            split=[row_split for row_split, *_ in rows],
        ),
        notes={"patients": NOBODY, "split": split},
        dropped=dropped or {},
    )
