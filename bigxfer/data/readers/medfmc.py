"""MedFMC (Wang et al. 2023, Scientific Data 10:574): ChestDR, ColonPath and Endo.

The lists are those of github.com/openmedlab/MedFM, folder data_backup/MedFMC. Its few-shot
lists beside them are support sets, not splits: this reader does not open them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import (
    Columns,
    DataError,
    build,
    check_spellings,
    find,
    lines,
)

LISTS = {"trainval.txt": "train", "test_WithLabel.txt": "test"}


@dataclass(frozen=True)
class Set:
    classes: tuple[str, ...]  # in the order of the list's columns (medical_datasets.py)
    patient: str  # pattern of a file name; its group stands for the patient
    patients: str  # the note on them
    example: str  # a line, for messages

    @property
    def line(self) -> re.Pattern:
        """A line of a list: a file name, which may hold blanks, and the marks."""
        marks = len(self.classes) if len(self.classes) > 2 else 1
        return re.compile(rf"(.+\.\w+) ([01](?:[ ,][01]){{{marks - 1}}})")


SETS = {
    "chest": Set(
        (
            *("pleural_effusion", "nodule", "pneumonia", "cardiomegaly"),
            *("hilar_enlargement", "fracture_old", "fibrosis", "aortic_calcification"),
            *("tortuous_aorta", "thickened_pleura", "TB", "pneumothorax", "emphysema"),
            *("atelectasis", "calcification", "pulmonary_edema"),
            *("increased_lung_markings", "elevated_diaphragm", "consolidation"),
        ),
        patient=r"(.+)",
        patients=NOBODY,
        example="5DDCA02820906AD.png 1,0,0, ... (19 marks of 0 and 1)",
    ),
    # The lists' makers count a region of a slide as one shot (baseline_multiclass.py);
    # regions of one slide are of one patient, so the slide keeps them on one side.
    "colon": Set(
        ("negative", "positive"),
        patient=r"(.+?)-lv\d.*",
        patients="the slide, by the file name",
        example="2019-08976-1-1-1_2019-05-28 23_07_27-lv1-54636-8351-5285-8025p0036.png 0",
    ),
    "endo": Set(
        ("ulcer", "erosion", "polyp", "tumor"),
        patient=r"(\d+_\d{4}\.\d\d_\d{4})_.*",  # baseline_multilabel.py: its study
        patients="the study, by the file name",
        example="13333_2021.12_0007_57297497.png 1 0 0 0",
    ),
}


def read(root: str | Path, data: Data) -> Manifest:
    """Labels float32 [n, 19] of chest, [n, 4] of endo, int32 [n] of colon: data.version.

    root holds the folder of that name, or is it: trainval.txt is "train",
    test_WithLabel.txt is "test", images lie in images/. Raises DataError with file and line.
    """
    root = Path(root)
    if data.version not in SETS:
        raise DataError(
            f"config.data.version is {data.version!r}; it may be {list(SETS)}"
        )
    known = SETS[data.version]
    first = find(root, f"{data.version}/trainval.txt", "trainval.txt")
    folder = first.parent.relative_to(root).as_posix()
    prefix = "images/" if folder == "." else f"{folder}/images/"
    names, patients, marks, splits = [], [], [], []
    place: dict[str, str] = {}
    for file, split in LISTS.items():
        path = find(first.parent, file)
        for number, text in enumerate(lines(path), 1):
            if not text.strip():
                continue
            match = known.line.fullmatch(text.strip())
            if not match or not (who := re.fullmatch(known.patient, match[1])):
                raise DataError(
                    f"{path}, line {number}: {text.strip()!r}; expected as in"
                    f" {known.example!r}"
                )
            # On both lists an image would train and test.
            if before := place.get(match[1]):
                raise DataError(
                    f"{path}, line {number}: {match[1]} is listed in {before} too"
                )
            place[match[1]] = f"{file}, line {number}"
            names.append(match[1])
            patients.append(who[1])
            marks.append([int(mark) for mark in re.split("[ ,]", match[2])])
            splits.append(split)
    # Patients come from file names that people typed.
    check_spellings(f"{first.parent}: patient", dict.fromkeys(patients), str)
    labels = np.array(marks, np.float32).reshape(len(names), -1)
    return build(
        name=f"medfmc-{data.version}",
        root=root,
        classes=known.classes,
        labels=labels[:, 0].astype(np.int32) if data.version == "colon" else labels,
        columns=Columns(
            id=names,
            path=[prefix + name for name in names],
            patient=[f"medfmc-{patient}" for patient in patients],
            split=splits,
        ),
        notes={
            "labels": "0 where a finding is not marked",
            "patients": known.patients,
            "split": "trainval.txt is train, test_WithLabel.txt is test",
        },
    )
