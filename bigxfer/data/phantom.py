"""The phantom: synthetic sets written to disk in the layouts of the real ones.

Its images are drawings, not radiographs, and show no person. What they show is
known, so a question such as "does pre-training help when the domains are far
apart?" can be asked where the answer is known, anywhere and without credentials.
"""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from bigxfer.config import Phantom
from bigxfer.data import phantom_draw as draw
from bigxfer.data.phantom_findings import radiograph
from bigxfer.data.phantom_natural import NATURAL, natural

VERSION = 1  # of the drawings: a change of any pixel or label raises it
DONE = "SYNTHETIC.txt"
TRUTH = ("file", "finding", "x0", "y0", "x1", "y1")  # of truth.csv

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
class Job:
    """One image to draw; everything about it follows from these."""

    file: str  # relative to the folder
    pixels: int
    patient: tuple[int, ...]  # seed of the anatomy
    image: tuple[int, ...]  # seed of the rest
    findings: tuple[str, ...]
    scanner: int
    distance: float


def write(kind: str, folder: Path | str, phantom: Phantom) -> Path:
    """Draws a synthetic set into `folder` and returns it.

    kind: "chexpert", "nih", "covidx" or "natural" (a folder of class folders);
    phantom.images is the number of training images. A folder that holds the same
    set already stays as it is, one that holds another phantom is replaced, and
    one that holds anything else is an error. The set is drawn beside the folder
    and moved into place when complete, so a killed run leaves no half set.
    truth.csv says where each finding lies (x0, y0, x1, y1 in pixels, inclusive).
    """
    if kind not in LAYOUTS:
        raise ValueError(f"phantom kind {kind!r}; there are {', '.join(LAYOUTS)}")
    if phantom.images < 1 or phantom.pixels < 16:
        raise ValueError(
            f"a phantom of {phantom.images} images of {phantom.pixels} pixels: set"
            " config.data.phantom.images > 0 and pixels >= 16"
        )
    for name in ("distance", "shortcut"):
        if not 0 <= getattr(phantom, name) <= 1:
            raise ValueError(f"config.data.phantom.{name} lies between 0 and 1")
    folder = Path(folder)
    note = notice(kind, phantom)
    if _done(folder, note):
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / DONE).exists():
        raise ValueError(
            f"{folder} holds files but no {DONE}; the phantom replaces only its own"
            " sets. Give another folder, or empty this one."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        part.chmod(0o755)  # mkdtemp keeps others out; a shared cache lets them read
        LAYOUTS[kind](part, phantom)
        (part / DONE).write_text(note)
        if _done(folder, note):  # another process was faster
            return folder
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def notice(kind: str, phantom: Phantom) -> str:
    settings = {"kind": kind, "version": VERSION, **asdict(phantom)}
    return (
        "SYNTHETIC DATA. The images in this folder are drawings made by a program\n"
        "(bigxfer/data/phantom.py). They are not radiographs or photographs, show\n"
        "no person, and must not be used to judge any method for clinical use. The\n"
        "layout and file names are those of a real set only so that its reader\n"
        "works.\n" + json.dumps(settings) + "\n"
    )


def _done(folder: Path, note: str) -> bool:
    mark = folder / DONE
    return mark.is_file() and mark.read_text() == note


# --- layouts


def chexpert(folder: Path, phantom: Phantom) -> None:
    """CheXpert-v1.0-small: train.csv, valid.csv and their image trees."""
    first, valid = 1, max(200, phantom.images // 10)
    for number, split, images in ((1, "train", phantom.images), (2, "valid", valid)):
        jobs, rows = [], []
        for patient, study, seed in _patients(images, phantom.seed, 10 + number):
            rng = np.random.default_rng([*seed, 1])
            findings = _illness(rng)
            view = "AP" if rng.random() < 0.6 else "PA"
            name = f"patient{first + patient:05d}/study{study}/view1_frontal.jpg"
            jobs.append(_job(f"{split}/{name}", seed, findings, rng, phantom))
            sex, age = rng.choice(["Female", "Male"]), int(rng.integers(18, 91))
            path = f"CheXpert-v1.0-small/{split}/{name}"
            labels = _chexpert_labels(findings, rng, exact=split == "valid")
            rows.append([path, sex, age, "Frontal", view, *labels])
        first += patient + 1  # patients are disjoint
        header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding"]
        _csv(folder / f"{split}.csv", [*header, *CHEXPERT], rows)
        _render(folder, jobs)


def _chexpert_labels(
    findings: tuple[str, ...], rng: np.random.Generator, exact: bool
) -> list[str]:
    """Fourteen cells; exact: 1.0 or 0.0, else with uncertain and blank ones."""
    truth = [any(f in findings for f in made) for made, _, _ in CHEXPERT.values()]
    healthy = not any(truth[:-1])  # devices are no finding
    cells = ["1.0" if healthy else "0.0" if exact else ""]
    for true, (_, negative, uncertain) in zip(truth, CHEXPERT.values(), strict=True):
        draw_ = rng.random()
        if exact:
            cell = "1.0" if true else "0.0"
        elif true:  # half of the uncertain mentions are of things that are there
            cell = "-1.0" if draw_ < uncertain / 2 else "" if draw_ > 0.95 else "1.0"
        elif draw_ < negative:
            cell = "0.0"
        else:
            cell = "-1.0" if not healthy and draw_ > 1 - 0.1 * uncertain else ""
        cells.append(cell)
    return cells


def nih(folder: Path, phantom: Phantom) -> None:
    """NIH ChestX-ray14: images/, Data_Entry_2017_v2020.csv and the two lists."""
    jobs, rows = [], []
    splits = {"train_val": phantom.images, "test": max(200, phantom.images // 4)}
    first = 1
    for number, (split, images) in enumerate(splits.items()):
        names = []
        for patient, study, seed in _patients(images, phantom.seed, 20 + number):
            rng = np.random.default_rng([*seed, 1])
            findings = tuple(f for f in _illness(rng) if f in NIH)
            identity = first + patient
            name = f"{identity:08d}_{study - 1:03d}.png"
            names.append(name)
            jobs.append(_job(f"images/{name}", seed, findings, rng, phantom))
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
    _csv(folder / "Data_Entry_2017_v2020.csv", header.split(","), rows)
    _render(folder, jobs)


def covidx(folder: Path, phantom: Phantom) -> None:
    """COVIDx 9A: train_COVIDx9A.txt, test_COVIDx9A.txt, train/, test/.

    With probability phantom.shortcut an image comes from the source of its class
    (its scanner and corner mark give the class away), in both splits, as COVIDx's
    own test set does; else from any source. The test set has equal classes.
    """
    classes, jobs, first = list(COVIDX), [], 0
    test = -(-max(200, phantom.images // 5) // 3) * 3
    for number, split, images in ((1, "train", phantom.images), (2, "test", test)):
        lines = []
        for patient, study, seed in _patients(images, phantom.seed, 30 + number):
            rng = np.random.default_rng([*seed, 1])
            share = (0.45, 0.35, 0.20) if split == "train" else None
            kind = np.random.default_rng(seed[:-1]).choice(3, p=share)  # a patient's
            if split == "test":
                kind = len(lines) * 3 // images
            label = classes[kind]
            finding, own = COVIDX[label]
            other = SOURCES[rng.integers(3)]
            source = own if rng.random() < phantom.shortcut else other
            findings = tuple(f for f, p in DISTRACTORS.items() if rng.random() < p)
            if finding:
                findings += (finding,)
            name = f"p{first + patient:05d}_{study}.png"
            scanner = SOURCES.index(source)
            job = _job(f"{split}/{name}", seed, findings, rng, phantom, scanner)
            jobs.append(job)
            lines.append(f"p{first + patient:05d} {name} {label} {source}")
        first += patient + 1
        (folder / f"{split}_COVIDx9A.txt").write_text("\n".join(lines) + "\n")
    _render(folder, jobs)


DISTRACTORS = {  # what any patient of the covidx phantom may have as well
    "devices": 0.15,
    "cardiomegaly": 0.12,
    "atelectasis": 0.10,
    "effusion": 0.08,
    "nodule": 0.06,
    "emphysema": 0.06,
}


def natural_folder(folder: Path, phantom: Phantom) -> None:
    """train/CLASS/*.jpg and test/CLASS/*.jpg; distance and shortcut do nothing."""
    tests = max(200, phantom.images // 5)
    for number, split, images in ((1, "train", phantom.images), (2, "test", tests)):
        jobs = []
        for k in range(images):
            name = list(NATURAL)[k % len(NATURAL)]
            seed = (phantom.seed, 40 + number, k)
            file = f"{split}/{name}/{k:06d}.jpg"
            jobs.append(Job(file, phantom.pixels, (), seed, (name,), -1, 0.0))
        _render(folder, jobs)


LAYOUTS = {
    "chexpert": chexpert,
    "nih": nih,
    "covidx": covidx,
    "natural": natural_folder,
}


# --- what the patients have


def _patients(
    images: int, seed: int, stream: int
) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """(patient from 0, study from 1, seed of the image) for so many images; a
    patient has one to four studies."""
    patient = left = study = 0
    rng = np.random.default_rng([seed, stream])
    for k in range(images):
        if not left:
            patient, left, study = patient + (k > 0), 1 + rng.geometric(0.6), 0
            left = min(int(left) - 1, 4)
        study, left = study + 1, left - 1
        yield patient, study, (seed, stream, patient, study)


def _illness(rng: np.random.Generator) -> tuple[str, ...]:
    """Findings of one study. They come in company, as heart failure brings edema,
    effusions and a large heart; the rates are invented."""
    if rng.random() < 0.18:
        return ("devices",) if rng.random() < 0.2 else ()
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
    return tuple(f for f, rate in rates.items() if rng.random() < rate)


# --- files


def _job(
    file: str,
    seed: tuple[int, ...],
    findings: tuple[str, ...],
    rng: np.random.Generator,
    phantom: Phantom,
    scanner: int | None = None,
) -> Job:
    if scanner is None:
        scanner = int(rng.choice(3, p=(0.6, 0.25, 0.15)))
    anatomy = seed[:-1]  # the same in every study of a patient
    size, distance = phantom.pixels, phantom.distance
    return Job(file, size, anatomy, seed, findings, scanner, distance)


def _draw(folder: Path, job: Job) -> list[list]:
    """Draws and saves one image; the rows of truth.csv."""
    rng = np.random.default_rng([*job.image, 2])
    boxes: list[tuple[str, draw.Box]] = []
    if job.scanner < 0:
        image = natural(job.findings[0], job.pixels, rng)
    else:
        body = draw.person(np.random.default_rng([*job.patient, 3]), job.distance)
        style = draw.scanner(job.scanner, job.distance)
        found = list(job.findings)
        image, boxes = radiograph(job.pixels, body, style, found, rng)
    path = folder / job.file
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=92)
    return [[job.file, name, *box] for name, box in boxes]


def _draw_many(work: tuple[Path, list[Job]]) -> list[list]:
    folder, jobs = work
    return [row for job in jobs for row in _draw(folder, job)]


def _render(folder: Path, jobs: list[Job]) -> None:
    """Draws all jobs, in processes where it is worth it, and notes the truth."""
    parts = [(folder, jobs[k : k + 64]) for k in range(0, len(jobs), 64)]
    cores = os.cpu_count() or 1
    if cores > 1 and sum(job.pixels**2 for job in jobs) > 2000 * 64**2:
        # spawn: a fork of a process that runs jax may hang
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            rows = [row for part in pool.map(_draw_many, parts) for row in part]
    else:
        rows = [row for part in parts for row in _draw_many(part)]
    truth = folder / "truth.csv"
    _csv(truth, [] if truth.exists() else TRUTH, rows)


def _csv(path: Path, header: Sequence[str], rows: list[list]) -> None:
    with open(path, "a", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        if header:
            table.writerow(header)
        table.writerows(rows)
