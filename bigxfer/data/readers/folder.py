"""A folder of class folders, perhaps beneath train/, valid/ and test/."""

import os
from collections.abc import Callable
from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import SPLITS, Manifest
from bigxfer.data.readers import files, spellings
from bigxfer.data.readers.tables import SEE, Columns, DataError, build, check_spellings

NOBODY = "unknown: each image counts as a patient of its own"


def by_ending(path: Path) -> bool:
    return files.is_image(path.name)


def read(
    root: str | Path, data: Data, is_image: Callable[[Path], bool] = by_ending
) -> Manifest:
    """Labels int32 [n]: the class is the name of the first folder, sorted.

    Split folders are train/, valid/ and test/, also as training/, val/, validation/ and
    testing/, in any case. Links to folders are followed.

    Nobody says whose image it is, so each counts as a patient of its own, which the
    notes say: use the csv reader where patients have several. Raises DataError where
    there are fewer than two class folders, where one has no image or stands beside
    the splits, and for what `files.check_links` finds.
    """
    root = Path(root)
    parts = split_folders(root)
    tops = [
        (part, name, os.path.join(part, name))
        for part in parts
        for name in files.folders(root / part)
    ]
    places = {name: str(root / top) for _, name, top in tops}
    check_spellings("class folder", places, places.__getitem__)
    classes = tuple(sorted({name for _, name, _ in tops}))
    # One class is most often a root one level too high or too low.
    if len(classes) < 2:
        under = f" under {', '.join(parts)}" if any(parts) else ""
        raise DataError(
            f"{root}: looked for two or more class folders{under}, found"
            f" {list(classes)}; {SEE}"
        )
    listing = files.walk(root, [top for *_, top in tops])
    for part in {"": "", **parts}:  # above the class folders too
        listing.litter += files.litter(root, part)
    # Linked twice, an image could train and test.
    files.check_links(root, listing)
    images, other = by_folder(root, listing.files, [top for *_, top in tops], is_image)
    rows = [(p, name, path) for p, name, top in tops for path in images[top]]
    paths = [path for *_, path in rows]
    return build(
        name="folder",
        root=root,
        classes=classes,
        labels=[classes.index(name) for _, name, _ in rows],
        columns=Columns(
            path=paths,
            # Without the ending: 1.png and 1.dcm of one name are one patient at least.
            patient=[os.path.splitext(path)[0] for path in paths],
            split=[parts[part] for part, *_ in rows],
        ),
        notes={"patients": NOBODY},
        dropped={
            "files that are no image": other,
            **listing.dropped(),
            **elsewhere(root, parts, classes, is_image),
        },
    )


def by_folder(
    root: Path, paths: list[str], tops: list[str], is_image: Callable[[Path], bool]
) -> tuple[dict[str, list[str]], list[str]]:
    """({class folder: its images}, files that are no image) of paths beneath root.

    Raises DataError for a class folder without an image.
    """
    images: dict[str, list[str]] = {top: [] for top in tops}
    other = []
    # All class folders lie one deep, or all two deep, beneath the folder of a split.
    depth = tops[0].count("/") + 1
    for path in paths:
        # Images may lie deeper, in a folder for each patient or study.
        top = "/".join(path.split("/")[:depth])
        (images[top] if is_image(root / path) else other).append(path)
    for top, of_class in images.items():
        # Left out in silence, the class would be missing from all results.
        if not of_class:
            raise DataError(f"{root / top}: a class folder with no image")
    return images, other


def split_folders(root: Path) -> dict[str, str]:
    """{folder: split} in the order train, valid, test; {"": ""} where there is none.

    A folder with such a name is a class where images lie in it and no folders. Raises
    DataError for two folders of one split.
    """
    folders: dict[str, str] = {}
    for name in files.folders(root):
        split = spellings.split(name)
        # A class may be called "test" or "valid": then images lie in it, not classes.
        if not split or not files.folders(root / name):
            continue
        if split in folders:
            raise DataError(
                f"{root}: {folders[split]}/ and {name}/ are both the {split} split;"
                " rename or merge one"
            )
        folders[split] = name
    return {folders[split]: split for split in SPLITS if split in folders} or {"": ""}


def elsewhere(
    root: Path,
    parts: dict[str, str],
    classes: tuple[str, ...],
    is_image: Callable[[Path], bool],
) -> dict[str, list[str]]:
    """What lies in no class folder: images, and whole folders beside the splits.

    DataError where such a folder is called as a class, since its images are meant.
    """
    loose = [
        os.path.join(part, name)
        for part in {"": "", **parts}
        for name in files.names(root / part)
        if files.is_image(name) and (root / part / name).is_file()
    ]
    beside = [name for name in files.folders(root) if name not in parts and any(parts)]
    # Somebody forgot to sort these images into the splits.
    known = {spellings.fold(name) for name in classes}
    for name in beside:
        if spellings.fold(name) in known:
            raise DataError(
                f"{root / name}: a class folder beside {'/ and '.join(parts)}/; move it"
                " into one of them"
            )
    listing = files.walk(root, beside)
    loose += [path for path in listing.files if is_image(root / path)]
    return {"images that lie in no class folder": loose}
