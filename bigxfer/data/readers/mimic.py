"""MIMIC-CXR-JPG (1901.07042): CheXpert's marks, one row a study, joined to images."""

from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.labels import CHEXPERT14, policy
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import spellings
from bigxfer.data.readers.tables import Columns, DataError, Table, build, find, read_csv

# No other spelling: the file is official, so another word is a damaged row.
SPLITS = spellings.splits("train", "validate", "test")
LABELLERS = ("chexpert", "negbio")  # data.version; "" is the first
LATERAL = {"LATERAL": "L", "LL": "L"}  # as CheXpert's lateral images are called here


def read(root: str | Path, data: Data) -> Manifest:
    """Labels float32 [n, 14] in CheXpert's order, by labels.policy.

    Joins metadata (one row an image) with the labeller's file (one row a study) on
    subject and study; images of the 8 studies without a label row are dropped and
    counted. The split file gives train, valid ("validate") and test. Raises
    DataError with file, line and field.
    """
    root = Path(root)
    labeller = data.version or LABELLERS[0]
    if labeller not in LABELLERS:
        raise DataError(f"config.data.version is {labeller!r}; it may be {LABELLERS}")
    key = ("subject_id", "study_id")
    images = table(root, "metadata", ("dicom_id", *key, "ViewPosition"))
    studies = table(root, labeller, (*key, *CHEXPERT14))
    images.check_unique("dicom_id")
    # By subject and study: study numbers alone are unique today, by no promise.
    row_of: dict[tuple[str, str], int] = {}
    for row, study in enumerate(zip(studies[key[0]], studies[key[1]])):
        if row_of.setdefault(study, row) != row:
            line = studies.lines[row_of[study]]
            studies.fail(row, f"the study {study} stands on line {line} too")
    rows = [row_of.get(study, -1) for study in zip(images[key[0]], images[key[1]])]
    kept = [i for i, row in enumerate(rows) if row >= 0]
    raw = studies.marks(CHEXPERT14)[[rows[i] for i in kept]]
    labels, notes = policy(raw, CHEXPERT14, data.uncertain, data.blank)
    split, split_note = splits(root, images)
    paths = image_paths(images)
    people = read_people(root, images)
    # ViewPosition as in the headers; blank is unknown.
    views = [LATERAL.get(view, view) for view in images["ViewPosition"]]
    return build(
        name="mimic",
        root=root,
        classes=CHEXPERT14,
        labels=labels.reshape(len(kept), len(CHEXPERT14)),
        columns=Columns(
            id=[images["dicom_id"][i] for i in kept],
            path=[paths[i] for i in kept],
            patient=[f"mimic-{images['subject_id'][i]}" for i in kept],
            view=[views[i] for i in kept],
            split=[split[i] for i in kept],
            people={name: [c[i] for i in kept] for name, c in people.items()},
        ),
        notes={
            **notes,
            "labeller": labeller,
            "split": split_note,
        },
        dropped={"images of studies without a label row": len(images) - len(kept)},
    )


def table(root: Path, kind: str, columns: tuple[str, ...]) -> Table:
    name = f"mimic-cxr-2.0.0-{kind}.csv"
    return read_csv(find(root, f"{name}.gz", name), columns)


def read_people(root: Path, images: Table) -> dict[str, list[str]]:
    """Sex and age by MIMIC-IV's patients.csv, where it lies in root; {} without it.

    MIMIC-CXR itself tells neither. anchor_age is the age in the year anchor_year, which is
    shifted as the years of StudyDate are (physionet.org/content/mimiciv, hosp/patients).
    """
    names = [
        name for name in ("patients.csv.gz", "patients.csv") if (root / name).exists()
    ]
    if not names:
        return {}
    known = ("subject_id", "gender", "anchor_age", "anchor_year")
    patients = read_csv(root / names[0], known)
    patients.check_unique("subject_id")
    patients.groups("anchor_year", r"\d{4}", "a year")
    patients.groups("anchor_age", r"\d+", "years")
    people = dict(zip(patients["subject_id"], zip(*(patients[n] for n in known[1:]))))
    sexes, ages = [], []
    dates = images.columns.get("StudyDate", [""] * len(images))
    for subject, date in zip(images["subject_id"], dates):
        gender, age, year = people.get(subject, ("", "", ""))
        sexes.append(gender)
        known_year = age and date[:4].isdigit()
        # Both years are shifted alike for a patient, so their difference holds.
        ages.append(str(int(age) + int(date[:4]) - int(year)) if known_year else "")
    columns = {"sex": sexes, "age": ages}
    return Table(images.path, columns, images.lines).people("sex", "age")


def image_paths(images: Table) -> list[str]:
    """files/p10/p10000032/s50414267/DICOM.jpg of each row."""
    for name, pattern in (
        ("subject_id", r"\w{8}"),
        ("study_id", r"\w{8}"),
        ("dicom_id", r"[0-9a-f-]+"),
    ):
        images.groups(name, pattern, pattern)
    columns = (images[name] for name in ("subject_id", "study_id", "dicom_id"))
    return [f"files/p{p[:2]}/p{p}/s{s}/{d}.jpg" for p, s, d in zip(*columns)]


def splits(root: Path, images: Table) -> tuple[list[str], str]:
    # A random split by patient does without it.
    if not list(root.glob("mimic-cxr-2.0.0-split.csv*")):
        return [""] * len(images), "no split file found"
    official = table(root, "split", ("dicom_id", "split"))
    official.check_unique("dicom_id")
    split_of = dict(zip(official["dicom_id"], official.values("split", SPLITS)))
    for row, name in enumerate(images["dicom_id"]):
        if name not in split_of:
            images.fail(row, f"the image {name} has no row in {official.path.name}")
    assigned = [split_of[name] for name in images["dicom_id"]]
    return assigned, "official, validate as valid"
