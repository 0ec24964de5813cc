"""The files of a folder as people keep them: litter is left out, links are followed.

The one place for every reader that lists files, and for bigxfer.predict.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bigxfer.data.readers.tables import DataError

IMAGES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif"),
    *(".bmp", ".tif", ".tiff", ".dcm"),
)
LITTER = {  # what systems and programs leave in folders, beside names that begin with a dot
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("@eadir", "$recycle.bin", "system volume information", "lost+found"),
    "__pycache__",
}


@dataclass
class Listing:
    """What `walk` came upon; every path is relative to its root."""

    files: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)  # files, and folders not entered
    loops: list[str] = field(default_factory=list)  # links to a folder they lie in
    broken: list[str] = field(default_factory=list)  # links to nothing
    # Files and folders that links lead to a second time, each after the first way to it.
    twice: list[tuple[str, str]] = field(default_factory=list)

    def dropped(self) -> dict[str, list[str]]:
        """What is left out, for `build`."""
        return {
            "litter (hidden files, __MACOSX and the like)": self.litter,
            "links to a folder that they lie in": self.loops,
        }


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name (not path) is no data of anybody's."""
    return name.startswith(".") or name.casefold() in LITTER


def is_image(name: str) -> bool:
    """By the ending alone."""
    return name.lower().endswith(IMAGES)


def is_dicom(path: Path) -> bool:
    """By its content: DICOM files often have no ending, or the UID's last number."""
    if not path.is_file():  # a FIFO is waited for without end
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def folders(top: Path) -> list[str]:
    """The names of the folders in top, links to folders among them, without litter."""
    with os.scandir(top) as entries:
        return sorted(e.name for e in entries if not is_litter(e.name) and e.is_dir())


def names(top: Path) -> list[str]:
    """The names of all that lies in top, sorted, without litter."""
    return sorted(name for name in os.listdir(top) if not is_litter(name))


def litter(root: Path, folder: str) -> list[str]:
    """The litter that lies in this folder of root itself, relative to root."""
    names = os.listdir(root / folder)
    return sorted(os.path.join(folder, name) for name in names if is_litter(name))


def walk(root: Path, tops: Iterable[str] = ("",)) -> Listing:
    """All that lies beneath these folders of root ("": root itself), files sorted.

    Links to folders are entered, except to one that the link itself lies in.
    """
    out = Listing()
    # The real path of a folder, or of a linked file -> the way that led to it first.
    ways: dict[str, str] = {}
    links: list[tuple[str, str]] = []  # (real path, way) of linked files
    todo = [(top, _real(root, top)) for top in tops]
    while todo:
        folder, above = todo.pop()
        if (first := ways.setdefault(above[-1], folder)) != folder:
            out.twice.append((first, folder))
            continue
        with os.scandir(root / folder) as entries:
            for entry in entries:
                way = os.path.join(folder, entry.name)
                linked = entry.is_symlink()
                real = os.path.realpath(entry.path) if linked else ""
                if is_litter(entry.name):
                    out.litter.append(way)
                elif entry.is_dir():
                    real = real or os.path.join(above[-1], entry.name)
                    if linked and any(_holds(real, other) for other in above):
                        out.loops.append(way)
                    else:
                        todo.append((way, (*above, real)))
                else:
                    out.files.append(way)
                    if linked and os.path.exists(real):
                        links.append((real, way))
                    elif linked:
                        out.broken.append(way)
    for real, way in links:
        parent, name = os.path.split(real)
        # Where the target's folder is walked too, the file is listed there without the
        # link: both together would count one image twice.
        direct = os.path.join(ways[parent], name) if parent in ways else way
        if (first := ways.setdefault(real, direct)) != way:
            out.twice.append((first, way))
    for paths in (out.files, out.litter, out.loops, out.broken, out.twice):
        paths.sort()
    return out


def _real(root: Path, top: str) -> tuple[str, ...]:
    """The real paths of root and of each folder on the way to this one."""
    ways = [root, *(root / way for way in reversed(Path(top).parents)), root / top]
    return tuple(map(os.path.realpath, ways))


def _holds(folder: str, other: str) -> bool:
    """Whether `other` is this folder or lies beneath it (real paths)."""
    return os.path.join(other, "").startswith(os.path.join(folder, ""))


def check_links(root: Path, listing: Listing) -> None:
    """DataError for an image that is listed twice by links, or a link to nothing.

    Broken links with an image's ending pass: the cache counts them as absent images.
    """
    if listing.twice:
        first, again = listing.twice[0]
        raise DataError(
            f"{root / first} and {root / again} are the same by a link: the images would"
            " count twice; remove one of the two"
        )
    if lost := [way for way in listing.broken if not is_image(way)]:
        raise DataError(f"{root / lost[0]} is a link to nothing; mend or remove it")
