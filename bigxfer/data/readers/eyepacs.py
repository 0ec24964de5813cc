"""EyePACS, Kaggle's diabetic retinopathy detection of 2015."""

from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.tables import Columns, build, find, read_csv

GRADES = ("none", "mild", "moderate", "severe", "proliferative")  # ICDR, levels 0-4
LEVELS = {str(i): i for i in range(len(GRADES))}
USAGE = {"Public": "valid", "Private": "test"}  # as tensorflow-datasets splits it


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n], the level. The number before "_left" is the patient.

    trainLabels.csv is "train"; of retinopathy_solution.csv, where it is there, the
    Public rows are "valid" and the Private ones "test". Raises DataError.
    """
    root = Path(root)
    files, patients, labels, splits = [], [], [], []
    names = ["trainLabels.csv"]
    if (root / "retinopathy_solution.csv").exists():
        names.append("retinopathy_solution.csv")
    for name in names:
        train = name == "trainLabels.csv"
        needed = ("image", "level") if train else ("image", "level", "Usage")
        table = read_csv(find(root, name), needed)
        table.check_unique("image")
        [people] = table.groups("image", r"(\d+)_(?:left|right)", "10_left")
        table.check_spellings("image", people)
        folder = "train" if train else "test"
        files += [f"{folder}/{image}.jpeg" for image in table["image"]]
        # Both eyes of a person bear one number, and must lie on one side of a split.
        patients += [f"eyepacs-{number}" for number in people]
        labels += table.values("level", LEVELS)
        splits += ["train"] * len(table) if train else table.values("Usage", USAGE)
    return build(
        name="eyepacs",
        root=root,
        classes=GRADES,
        labels=labels,
        columns=Columns(
            path=files,
            patient=patients,
            split=splits,
        ),
        notes={"split": "Kaggle's: Public of the test set as valid, Private as test"},
    )
