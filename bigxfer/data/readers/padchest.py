"""PadChest (1901.07441): 174 findings in free order, read as the predecessor's 27."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from bigxfer.config import Data
from bigxfer.data.labels import PADCHEST27
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import spellings
from bigxfer.data.readers.tables import Columns, DataError, Table, build, find, read_csv

# Its only release; .gz as distributed.
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
SYNONYMS = {  # SLAMPAI/large-scale-pretraining-transfer, datasets/padchest.py @ fe6232b
    "Infiltration": (
        "infiltrates",
        "interstitial pattern",
        "ground glass pattern",
        "reticular interstitial pattern",
        "reticulonodular interstitial pattern",
        "alveolar pattern",
        "consolidation",
        "air bronchogram",
    ),
    "Pleural_Thickening": ("pleural thickening",),
    "Consolidation": ("air bronchogram",),
    "Hilar Enlargement": ("adenopathy", "pulmonary artery enlargement"),
    "Support Devices": ("device", "pacemaker"),
}
STRING = r"""(?:'([^']*)'|"([^"]*)")"""
# A Python list as text. Read by a pattern: eval of a stranger's file would run it.
LIST = rf"\[(?:{STRING}(?:,\s*{STRING})*)?\]"
SILENT = {"unchanged", "suboptimal study"}  # say nothing of what is to be seen


def read(root: str | Path, data: Data) -> Manifest:
    """Labels float32 [n, 27] of 0 and 1, by substring of each label or a synonym.

    data.version "single" keeps the rows with exactly one of the 27, as int32 [n]: the
    predecessor's PadChest-Cl, finetune.py --multilabel-force-classification.

    Rows without labels, with the label "exclude", or with none but "unchanged" and
    "suboptimal study" are dropped and counted (the predecessor dropped only the
    first kind). Images lie in ImageDir/ImageID, or flat in root. No official split.
    Raises DataError with file, line and field.
    """
    root = Path(root)
    if data.version not in ("", "single"):
        raise DataError(f"config.data.version is {data.version!r}; 'single' or ''")
    columns = ("ImageID", "ImageDir", "PatientID", "Projection", "Labels")
    table = read_csv(find(root, f"{TABLE}.gz", TABLE), columns)
    table.check_unique("ImageID")
    # PatientID has no fixed form there, so spellings are compared.
    people = table.patients("PatientID")
    table.groups("ImageID", r"[^/]+\.png", "a png file")
    table.groups("ImageDir", r"\d+", "a number")
    findings = parse(table)
    kept, dropped = telling(findings)
    labels = marks([findings[row] for row in kept])
    if data.version == "single":
        one = labels.sum(axis=1) == 1
        dropped["images of none or several of the 27"] = int((~one).sum())
        kept = [row for row, single in zip(kept, one, strict=True) if single]
        labels = labels[one].argmax(axis=1).astype(np.int32)
    # SLAMPAI's scripts put all images into one folder.
    flat = not any((root / name).is_dir() for name in set(table["ImageDir"]))
    folder = ["" if flat else f"{name}/" for name in table["ImageDir"]]
    views = [
        # The name that the other sets use for a patient who lies.
        {"AP_horizontal": "AP Supine"}.get(view, view)
        for view in table["Projection"]
    ]
    return build(
        name="padchest",
        root=root,
        classes=PADCHEST27,
        labels=labels,
        columns=Columns(
            id=[table["ImageID"][row] for row in kept],
            path=[folder[row] + table["ImageID"][row] for row in kept],
            patient=[f"padchest-{table['PatientID'][row]}" for row in kept],
            view=[views[row] for row in kept],
            people={
                n: [c[row] for row in kept] for n, c in sexes_and_ages(table).items()
            },
        ),
        notes={
            "labels": "substring of a label or a synonym; 0 where none",
            "split": "none is official",
            **({"patients": people} if people else {}),
        },
        dropped=dropped,
    )


def telling(findings: list[set[str]]) -> tuple[list[int], Counter[str]]:
    """(the rows whose labels say what is to be seen, how many of each kind do not)."""
    kept, dropped = [], Counter[str]()
    for row, labels in enumerate(findings):
        if not labels:
            dropped["images without labels"] += 1
        elif "exclude" in labels:
            dropped["images labelled exclude"] += 1
        elif labels <= SILENT:
            dropped["images labelled unchanged or suboptimal alone"] += 1
        else:
            kept.append(row)
    return kept, dropped


def marks(findings: list[set[str]]) -> np.ndarray:
    """float32 [n, 27]: 1 where a label of the row makes the class positive."""
    columns_of = {label: positives(label) for labels in findings for label in labels}
    values = np.zeros((len(findings), len(PADCHEST27)), np.float32)
    for row, labels in enumerate(findings):
        for label in labels:
            values[row, columns_of[label]] = 1
    return values


def sexes_and_ages(table: Table) -> dict[str, list[str]]:
    """Sex, and the age in the year of the study; PadChest tells the year of birth."""
    births = table.columns.get("PatientBirth", [""] * len(table))
    dates = table.columns.get("StudyDate_DICOM", [""] * len(table))
    ages = []
    for birth, date in zip(births, dates):
        year = spellings.age(birth)  # a number, blank, or neither
        known = year and date[:4].isdigit()
        ages.append(f"{float(date[:4]) - float(year):g}" if known else "")
    sexes = table.columns.get("PatientSex_DICOM", [""] * len(table))
    columns = {"sex": sexes, "age": ages}
    return Table(table.path, columns, table.lines).people("sex", "age")


def parse(table: Table) -> list[set[str]]:
    """The labels of each row, stripped, lower case; the empty set where there are none."""
    cells = {"": set(), "nan": set()}
    for row, text in enumerate(table["Labels"]):
        if text not in cells:
            if not re.fullmatch(LIST, text):
                table.fail(
                    row, f"Labels is {text!r}; a list such as ['normal'] expected"
                )
            pairs = re.findall(STRING, text)
            cells[text] = {(a or b).strip().lower() for a, b in pairs} - {""}
    return [cells[text] for text in table["Labels"]]


def positives(label: str) -> list[int]:
    """The columns that this label makes positive."""
    return [
        i
        for i, name in enumerate(PADCHEST27)
        if any(word in label for word in (name.lower(), *SYNONYMS.get(name, ())))
    ]
