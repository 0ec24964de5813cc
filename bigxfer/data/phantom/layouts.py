"""The labels and files of the phantom's sets, as the real sets have them.

Each layout writes its label files into a folder and returns the images to draw.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigxfer.config import Phantom
from bigxfer.data.phantom.natural import NATURAL

OPACITIES = ("pneumonia", "infiltration", "consolidation", "edema", "atelectasis")

# Column of train.csv: findings that make it positive; then, of the rows that are
# not positive, the share that says 0.0, and of the mentioned ones the share that
# says -1.0: both from the counts of CheXpert's train.csv.
CHEXPERT: dict[str, tuple[tuple[str, ...], float, float]] = {
    "Enlarged Cardiomediastinum": (("enlarged_mediastinum",), 0.11, 0.53),
    "Cardiomegaly": (("cardiomegaly",), 0.06, 0.23),
    "Lung Opacity": ((*OPACITIES, "nodule", "mass"), 0.06, 0.05),
    "Lung Lesion": (("nodule", "mass"), 0.01, 0.14),
    "Edema": (("edema",), 0.12, 0.20),
    "Consolidation": (("consolidation",), 0.16, 0.65),
    "Pneumonia": (("pneumonia",), 0.01, 0.76),
    "Atelectasis": (("atelectasis",), 0.01, 0.50),
    "Pneumothorax": (("pneumothorax",), 0.28, 0.14),
    "Pleural Effusion": (("effusion",), 0.28, 0.12),
    "Pleural Other": (("pleural_thickening",), 0.01, 0.43),
    "Fracture": (("fracture",), 0.01, 0.07),
    "Support Devices": (("devices",), 0.06, 0.01),
}

CHEXPERT_FINDINGS = tuple(f for made, _, _ in CHEXPERT.values() for f in made)

NIH = {  # finding: its name in Data_Entry_2017_v2020.csv
    "atelectasis": "Atelectasis",
    "cardiomegaly": "Cardiomegaly",
    "consolidation": "Consolidation",
    "edema": "Edema",
    "effusion": "Effusion",
    "emphysema": "Emphysema",
    "fibrosis": "Fibrosis",
    "hernia": "Hernia",
    "infiltration": "Infiltration",
    "mass": "Mass",
    "nodule": "Nodule",
    "pleural_thickening": "Pleural_Thickening",
    "pneumonia": "Pneumonia",
    "pneumothorax": "Pneumothorax",
}

COVIDX = {  # class: the finding that makes it, the source that is "its own"
    "normal": ("", "rsna"),
    "pneumonia": ("pneumonia", "cohen"),
    "COVID-19": ("covid", "ricord"),
}
SOURCES = ("rsna", "cohen", "ricord")  # drawn by scanners 0, 1 and 2


@dataclass(frozen=True)
class Drawing:
    """One image to draw; every pixel of it follows from these."""

    file: str  # relative to the folder
    pixels: int
    patient: tuple[int, ...]  # seed of the anatomy
    image: tuple[int, ...]  # seed of the rest
    findings: tuple[str, ...]
    scanner: int  # or -1: no radiograph but the shape findings[0]
    distance: float
    severity: float = 1.0


def chexpert(folder: Path, phantom: Phantom) -> list[Drawing]:
    """CheXpert-v1.0-small: train.csv, valid.csv and their image trees."""
    drawings, first, valid = [], 1, max(200, phantom.images // 10)
    for number, split, images in ((1, "train", phantom.images), (2, "valid", valid)):
        rows = []
        for patient, study, seed in _patients(images, phantom.seed, 10 + number):
            rng = np.random.default_rng([*seed, 1])
            findings = _illness(rng, CHEXPERT_FINDINGS)
            view = "AP" if rng.random() < 0.6 else "PA"
            name = f"patient{first + patient:05d}/study{study}/view1_frontal.jpg"
            drawings.append(
                make_drawing(f"{split}/{name}", seed, findings, rng, phantom)
            )
            sex, age = rng.choice(["Female", "Male"]), int(rng.integers(18, 91))
            path = f"CheXpert-v1.0-small/{split}/{name}"
            labels = _chexpert_labels(findings, rng, exact=split == "valid")
            rows.append([path, sex, age, "Frontal", view, *labels])
        first += patient + 1  # patients are disjoint
        header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding"]
        write_csv(folder / f"{split}.csv", [*header, *CHEXPERT], rows)
    return drawings


def _chexpert_labels(
    findings: tuple[str, ...], rng: np.random.Generator, exact: bool
) -> list[str]:
    """Fourteen cells; exact: 1.0 or 0.0, else with uncertain and blank ones."""
    truth = [any(f in findings for f in made) for made, _, _ in CHEXPERT.values()]
    healthy = not any(truth[:-1])  # devices are no finding
    cells = ["1.0" if healthy else "0.0" if exact else ""]
    for true, (_, negative, uncertain) in zip(truth, CHEXPERT.values(), strict=True):
        chance = rng.random()
        if exact:
            cell = "1.0" if true else "0.0"
        elif true:  # half of the uncertain mentions are of things that are there
            cell = "-1.0" if chance < uncertain / 2 else "" if chance > 0.95 else "1.0"
        elif chance < negative:
            cell = "0.0"
        else:
            cell = "-1.0" if not healthy and chance > 1 - 0.1 * uncertain else ""
        cells.append(cell)
    return cells


def nih(folder: Path, phantom: Phantom) -> list[Drawing]:
    """NIH ChestX-ray14: images/, Data_Entry_2017_v2020.csv and the two lists."""
    drawings, rows, first = [], [], 1
    test = max(200, phantom.images // 4)
    for number, split, images in ((1, "train_val", phantom.images), (2, "test", test)):
        names = []
        for patient, study, seed in _patients(images, phantom.seed, 20 + number):
            rng = np.random.default_rng([*seed, 1])
            findings = _illness(rng, tuple(NIH))
            identity = first + patient
            name = f"{identity:08d}_{study - 1:03d}.png"
            names.append(name)
            drawings.append(
                make_drawing(f"images/{name}", seed, findings, rng, phantom)
            )
            labels = "|".join(sorted(NIH[f] for f in findings)) or "No Finding"
            age, sex = int(rng.integers(18, 91)), rng.choice(["F", "M"])
            view = "AP" if rng.random() < 0.4 else "PA"
            size = [phantom.pixels, phantom.pixels, 0.4, 0.4]
            rows.append([name, labels, study - 1, identity, age, sex, view, *size])
        first += patient + 1  # patients are disjoint
        (folder / f"{split}_list.txt").write_text("\n".join(names) + "\n")
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,"
    header += "Patient Gender,View Position,OriginalImage[Width,Height],"
    header += "OriginalImagePixelSpacing[x,y]"  # unquoted commas: eleven columns
    write_csv(folder / "Data_Entry_2017_v2020.csv", header.split(","), rows)
    return drawings


def covidx(folder: Path, phantom: Phantom) -> list[Drawing]:
    """COVIDx 9A: train_COVIDx9A.txt, test_COVIDx9A.txt, train/, test/.

    With probability phantom.shortcut an image comes from the source of its class
    (its scanner and corner mark give the class away), in both splits, as COVIDx's
    own test set does; else from any source. The test set has equal classes.
    """
    classes, drawings, first = list(COVIDX), [], 0
    test = -(-max(200, phantom.images // 5) // 3) * 3
    for number, split, images in ((1, "train", phantom.images), (2, "test", test)):
        lines = []
        for patient, study, seed in _patients(images, phantom.seed, 30 + number):
            rng = np.random.default_rng([*seed, 1])
            if split == "test":
                label = classes[len(lines) * 3 // images]
            else:  # the same in every study of a patient
                chance = np.random.default_rng([*seed[:-1], 4])
                label = str(chance.choice(classes, p=(0.45, 0.35, 0.20)))
            finding, own = COVIDX[label]
            other = SOURCES[rng.integers(3)]
            source = own if rng.random() < phantom.shortcut else other
            findings = tuple(f for f, p in DISTRACTORS.items() if rng.random() < p)
            if finding:
                findings += (finding,)
            name = f"p{first + patient:05d}_{study}.png"
            scanner = SOURCES.index(source)
            drawing = make_drawing(
                f"{split}/{name}", seed, findings, rng, phantom, scanner
            )
            drawings.append(drawing)
            lines.append(f"p{first + patient:05d} {name} {label} {source}")
        first += patient + 1
        (folder / f"{split}_COVIDx9A.txt").write_text("\n".join(lines) + "\n")
    return drawings


DISTRACTORS = {  # what any patient of the covidx phantom may have as well
    "devices": 0.15,
    "cardiomegaly": 0.12,
    "atelectasis": 0.10,
    "effusion": 0.08,
    "nodule": 0.06,
    "emphysema": 0.06,
}


def natural(folder: Path, phantom: Phantom) -> list[Drawing]:
    """train/CLASS/*.jpg and test/CLASS/*.jpg; distance and shortcut do nothing."""
    drawings, tests = [], max(200, phantom.images // 5)
    for number, split, images in ((1, "train", phantom.images), (2, "test", tests)):
        for k in range(images):
            name = list(NATURAL)[k % len(NATURAL)]
            seed = (phantom.seed, 40 + number, k)
            file = f"{split}/{name}/{k:06d}.jpg"
            drawings.append(Drawing(file, phantom.pixels, (), seed, (name,), -1, 0.0))
    return drawings


def _patients(
    images: int, seed: int, stream: int
) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """(patient from 0, study from 1, seed of the image) of `images` images; a
    patient has one to four studies."""
    patient = left = study = 0
    rng = np.random.default_rng([seed, stream])
    for k in range(images):
        if not left:
            patient, study = patient + (k > 0), 0
            left = min(int(rng.geometric(0.6)), 4)
        study, left = study + 1, left - 1
        yield patient, study, (seed, stream, patient, study)


def _illness(rng: np.random.Generator, named: tuple[str, ...]) -> tuple[str, ...]:
    """Findings of one study, of those that the set names. They come in company, as
    heart failure brings edema, effusions and a large heart; the rates are invented."""
    if rng.random() < 0.18:
        return ("devices",) if "devices" in named and rng.random() < 0.2 else ()
    rates = dict.fromkeys(("atelectasis", "devices", "effusion"), 0.15)
    rates |= dict.fromkeys(("nodule", "pneumothorax", "infiltration"), 0.09)
    rates |= dict.fromkeys(("cardiomegaly", "mass", "pneumonia", "emphysema"), 0.06)
    rates |= dict.fromkeys(("consolidation", "edema", "enlarged_mediastinum"), 0.05)
    rates |= dict.fromkeys(("pleural_thickening", "fracture", "fibrosis"), 0.05)
    rates["hernia"] = 0.01
    cause = rng.random()
    if cause < 0.22:  # heart failure
        rates |= {"edema": 0.7, "effusion": 0.6, "cardiomegaly": 0.65, "devices": 0.4}
    elif cause < 0.45:  # infection
        rates |= {"pneumonia": 0.6, "consolidation": 0.4, "infiltration": 0.3}
    elif cause < 0.55:  # after an operation
        rates |= {"atelectasis": 0.6, "devices": 0.7, "pneumothorax": 0.3}
    rates = {f: rate for f, rate in rates.items() if f in named}
    findings = tuple(f for f, rate in rates.items() if rng.random() < rate)
    return findings or (str(rng.choice(list(rates))),)


def make_drawing(
    file: str,
    seed: tuple[int, ...],
    findings: tuple[str, ...],
    rng: np.random.Generator,
    phantom: Phantom,
    scanner: int | None = None,
) -> Drawing:
    """A radiograph; without a scanner one is drawn, the default one most often."""
    if scanner is None:
        scanner = int(rng.choice(3, p=(0.6, 0.25, 0.15)))
    anatomy = seed[:-1]  # the same in every study of a patient
    size, distance, severity = phantom.pixels, phantom.distance, phantom.severity
    return Drawing(file, size, anatomy, seed, findings, scanner, distance, severity)


def write_csv(path: Path, header: Sequence[str], rows: list[list]) -> None:
    with open(path, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
