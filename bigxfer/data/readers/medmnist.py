"""MedMNIST+ (2110.14795; package medmnist 3.0.2): twelve 2-D sets, npz files of 28 to 224 px."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigxfer.config import Data, nearest
from bigxfer.data import npz
from bigxfer.data.labels import NIH14
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import spellings
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import Columns, DataError, build

# Side of the images, pixels. A file of 28 has no size in its name.
SIZES = (28, 64, 128, 224)
SPLITS = spellings.splits("train", "val", "test")


@dataclass(frozen=True)
class Set:
    classes: tuple[str, ...]
    images: tuple[int, int, int]  # in train, val and test
    md5: tuple[str, str, str, str]  # of the files in the order of SIZES

    @property
    def multilabel(self) -> bool:
        return self.classes == NIH14  # chestmnist alone


ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)
# Copied from INFO of the package medmnist 3.0.2, info.py, which itself needs torch. Three
# class names lost their commas, which --config.data.labels splits at. ChestMNIST bears the
# names of NIH ChestX-ray14, whose images and labels it has: the two can be joined.
SETS = {
    "pathmnist": Set(
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        (89996, 10004, 7180),
        (
            "a8b06965200029087d5bd730944a56c1",
            "55aa9c1e0525abe5a6b9d8343a507616",
            "ac42d08fb904d92c244187169d1fd1d9",
            "2c51a510bcdc9cf8ddb2af93af1eadec",
        ),
    ),
    "chestmnist": Set(
        NIH14,
        (78468, 11219, 22433),
        (
            "02c8a6516a18b556561a56cbdd36c4a8",
            "9de6cd0b934ebb5b7426cfba5efbae16",
            "db107e5590b27930b62dbaf558aebee3",
            "45bd33e6f06c3e8cdb481c74a89152aa",
        ),
    ),
    "dermamnist": Set(
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        (7007, 1003, 2005),
        (
            "0744692d530f8e62ec473284d019b0c7",
            "b70a2f5635c6199aeaa28c31d7202e1f",
            "2defd784463fa5243564e855ed717de1",
            "8974907d8e169bef5f5b96bc506ae45d",
        ),
    ),
    "octmnist": Set(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        (97477, 10832, 1000),
        (
            "c68d92d5b585d8d81f7112f81e2d0842",
            "e229e9440236b774d9f0dfef9d07bdaf",
            "0a97e76651ace45c5d943ee3f65b63ae",
            "abc493b6d529d5de7569faaef2773ba3",
        ),
    ),
    "pneumoniamnist": Set(
        ("normal", "pneumonia"),
        (4708, 524, 624),
        (
            "28209eda62fecd6e6a2d98b1501bb15f",
            "8f4eceb4ccffa70c672198ea285246c6",
            "05b46931834c231683c68f40c47b2971",
            "d6a3c71de1b945ea11211b03746c1fe1",
        ),
    ),
    "retinamnist": Set(
        tuple("01234"),
        (1080, 120, 400),
        (
            "bd4c0672f1bba3e3a89f0e4e876791e4",
            "afda852cc34dcda56f86ad2b2457dbcc",
            "e48e916a24454daf90583d4e6efb1a18",
            "eae7e3b6f3fcbda4ae613ebdcbe35348",
        ),
    ),
    "breastmnist": Set(
        ("malignant", "normal or benign"),
        (546, 78, 156),
        (
            "750601b1f35ba3300ea97c75c52ff8f6",
            "742edef2a1fd1524b2efff4bd7ba9364",
            "363e4b3f8d712e9b5de15470a2aaadf1",
            "b56378a6eefa9fed602bb16d192d4c8b",
        ),
    ),
    "bloodmnist": Set(
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        (11959, 1712, 3421),
        (
            "7053d0359d879ad8a5505303e11de1dc",
            "2b94928a2ae4916078ca51e05b6b800b",
            "adace1e0ed228fccda1f39692059dd4c",
            "b718ff6835fcbdb22ba9eacccd7b2601",
        ),
    ),
    "tissuemnist": Set(
        (
            "Collecting Duct or Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
        (165466, 23640, 47280),
        (
            "ebe78ee8b05294063de985d821c1c34b",
            "123ece2eba09d0aa5d698fda57103344",
            "61b955355d7425a89687b06cca3ce0c2",
            "b077128c4a949f0a4eb01517f9037b9c",
        ),
    ),
    "organamnist": Set(
        ORGANS,
        (34561, 6491, 17778),
        (
            "68e3f8846a6bd62f0c9bf841c0d9eacc",
            "2dcccc29b88e6da5a01161ef20cda288",
            "eeae80d0a227a8d099027e1b3cfd3b60",
            "50747347e05c87dd3aaf92c49f9f3170",
        ),
    ),
    "organcmnist": Set(
        ORGANS,
        (12975, 2392, 8216),
        (
            "b9ceb9546e10131b32923c5bbeaea2b1",
            "3ce34a8724ea6f548e6db4744d03b6a9",
            "773c1f009daa3fe5d9a2a201b2a7ed94",
            "050f5e875dc056f6768abf94ec9995d1",
        ),
    ),
    "organsmnist": Set(
        ORGANS,
        (13932, 2452, 8827),
        (
            "9ab87b696fb54e2a387ebe992d6ed5f1",
            "53a6d115339d874c25e309a994ff46d3",
            "ded0c5fa01a95dc4978b956f613e9b8e",
            "b354719e553fbbb2513d5533f52a4cb1",
        ),
    ),
}


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n], or float32 [n, 14] of chestmnist, of the file data.version.

    data.version is the file's name, such as "chestmnist_64" ("chestmnist" is 28 px), or ""
    where root holds one such file. The splits are official. The files name no patient: a
    patient is one image, with the same name at every size. Raises DataError.
    """
    root = Path(root)
    name = file_name(root, data.version)
    set_name = name.partition("_")[0]
    path, known = str(root / f"{name}.npz"), SETS[set_name]
    labels, ids, paths, splits, counts = [], [], [], [], []
    for part, split in SPLITS.items():
        marks = array(path, f"{part}_labels").all()
        images = array(path, f"{part}_images").shape
        check(path, part, known, images, marks)
        labels.append(marks)
        counts.append(len(marks))
        paths += [f"{name}.npz#{part}_images:{row}" for row in range(len(marks))]
        # Without the size: a draw takes the same images at 28 and at 224 pixels.
        ids += [f"{set_name}-{part}-{row}" for row in range(len(marks))]
        splits += [split] * len(marks)
    # Labels of all sets fit in memory; images may not, and stay in the file.
    every = np.concatenate(labels)
    notes = {"patients": NOBODY, "split": "official", "file": f"{name}.npz"}
    if tuple(counts) != known.images:  # a subset that somebody made, or another version
        notes["counts"] = f"{counts}; MedMNIST 3.0.2 has {list(known.images)}"
    return build(
        name=set_name,
        root=root,
        classes=known.classes,
        labels=every.astype(np.float32) if known.multilabel else every[:, 0],
        columns=Columns(
            id=ids,
            path=paths,
            patient=ids,
            split=splits,
        ),
        notes=notes,
    )


def file_name(root: Path, version: str) -> str:
    """The file to read without its ending; DataError where it is none or several."""
    known = [name for set_name in SETS for name in names(set_name)]
    if version and version not in known:
        hint = nearest(version, known)
        raise DataError(
            f"config.data.version: {version!r} is no 2-D set of MedMNIST+{hint}"
        )
    here = [name for name in known if (root / f"{name}.npz").is_file()]
    if version in here:
        return version
    if version or len(here) != 1:
        looked = f"{version}.npz" if version else "one file of MedMNIST+"
        raise DataError(
            f"{root}: looked for {looked}, found {here or 'none'}; set"
            " --config.data.version to one that is there, or fetch it: python -m"
            f" bigxfer.data.fetch medmnist:{version or 'NAME'} --out {root}"
        )
    return here[0]


def names(set_name: str) -> list[str]:
    """The names of a set's files without their ending, in the order of SIZES."""
    return [set_name, *(f"{set_name}_{size}" for size in SIZES[1:])]


def array(path: str, key: str) -> npz.Rows:
    try:
        return npz.rows(path, key)
    except KeyError:
        raise DataError(
            f"{path} holds no array {key!r}: it is no file of MedMNIST+"
        ) from None
    except ValueError as error:
        raise DataError(f"{error}; remove it and fetch it again") from None


def check(path: str, part: str, known: Set, images: tuple, labels: np.ndarray) -> None:
    """DataError where the arrays of a split are not of the published form."""
    width = len(known.classes) if known.multilabel else 1
    if len(images) not in (3, 4) or images[0] != len(labels):
        raise DataError(
            f"{path}: {part}_images has the shape {images}, {part}_labels"
            f" {labels.shape}; as many images as labels are expected"
        )
    if labels.ndim != 2 or labels.shape[1] != width:
        raise DataError(
            f"{path}: {part}_labels has the shape {labels.shape}; (n, {width}) expected"
        )
    allowed = range(2) if width > 1 else range(len(known.classes))
    if len(bad := np.argwhere(~np.isin(labels, allowed))):
        row, column = bad[0]
        raise DataError(
            f"{path}: {part}_labels[{row}, {column}] is {labels[row, column]};"
            f" 0 to {allowed[-1]} expected"
        )
