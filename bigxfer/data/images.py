"""Images without a manifest: files of a folder, a CSV or one by one, and arrays.

What a finished run predicts on; `unlabelled` turns them into the batches of evaluation.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bigxfer.data.loader import Images, Loader
from bigxfer.data.pixels import decode
from bigxfer.data.readers import files, tables


class Files:
    """The images of these files as a Loader wants them, decoded when asked for.

    One that cannot be read is black, and `bad` gives the reason.
    """

    def __init__(self, root: Path, paths: list[str], size: int, channels: int) -> None:
        self.root, self.paths = root, paths
        self.shape = (len(paths), size, size, channels)
        self.bad: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """uint8 [b, S, S, C]; the padding of a batch repeats a row, read once."""
        # Threads: Pillow lets go of the interpreter's lock while it decodes.
        rows, places = np.unique(index, return_inverse=True)
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(self.read, rows.tolist())))[places]

    def read(self, row: int) -> np.ndarray:
        _, size, _, channels = self.shape
        try:
            image = decode.load(self.root, self.paths[row], size, channels)
            if (image == image[0, 0]).all():  # a probability of nothing would mislead
                raise decode.DecodeError("all its pixels have one value")
        except decode.DecodeError as error:
            self.bad[row] = str(error)
            # Black keeps the batch whole; the caller leaves the row out by `bad`.
            return np.zeros(self.shape[1:], np.uint8)
        return image


def listed(images: Path, outside: bool = False) -> tuple[Path, list[str]]:
    """(root, paths relative to it) of a folder, a CSV or one image.

    Of a folder, the files with an image's ending and those that begin as DICOM does,
    sorted; links are followed and litter is passed over. A path of a CSV that leads
    out of its folder is refused unless `outside`. Raises ValueError where there is none.
    """
    if images.is_dir():
        listing = files.walk(images)
        # DICOM often has no ending, so its files are told by their first bytes.
        names = [
            file
            for file in listing.files
            if files.is_image(file) or files.is_dicom(images / file)
        ]
        if not names:
            raise ValueError(f"{images}: no image among {len(listing.files)} files")
        notes = []
        if other := len(listing.files) - len(names):
            notes.append(f"{other} files of {images} are no images and are passed over")
        for kind, dropped in listing.dropped().items():
            if dropped:
                such = f"{len(dropped)} (such as {dropped[0]})"
                notes.append(f"{images}: {kind} passed over: {such}")
        for note in notes:
            print(note, file=sys.stderr, flush=True)
        return images, names
    if images.suffix.lower() != ".csv":
        return images.parent, [images.name]
    table = tables.read_csv(images)
    column = table.column("file", "path")
    table.check_filled(column)
    for row, path in enumerate(table[column]):
        # The list may be a stranger's, and must not make us read any file.
        if tables.outside(path) and not outside:
            table.fail(row, f"{path!r} lies outside {images.parent}; allow: --outside")
    return images.parent, table[column]


def fitted(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """uint8 [n, size, size, channels] of uint8 [n, h, w] or [n, h, w, 1 or 3].

    Resized as the images of files are. Raises ValueError for another shape or dtype.
    """
    if images.dtype != np.uint8 or not 3 <= images.ndim <= 4:
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}; expected uint8 [n, h, w] or"
            " [n, h, w, 1 or 3], 0 black"
        )
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        raise ValueError(f"images have {images.shape[3]} channels; expected 1 or 3")
    # Pillow takes no [h, w, 1].
    planes = images[..., 0] if images.shape[3:] == (1,) else images
    return np.stack([decode.fit_array(plane, size, channels) for plane in planes])


def unlabelled(images: Images, rows: np.ndarray, batch: int) -> Loader:
    """Return a loader of these rows for evaluation, which looks at no label."""
    return Loader(images, np.zeros(len(images), np.int32), rows, batch, seed=0)
