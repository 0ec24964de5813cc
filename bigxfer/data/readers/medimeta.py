"""MedIMeta (Woerner et al. 2024, 2404.16000): 19 sets at 224 px, each with several tasks."""

from pathlib import Path

import numpy as np

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import spellings
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.pcam import h5_shape
from bigxfer.data.readers.tables import Columns, DataError, build, find, lines, read_csv

SPLITS = spellings.splits("train", "val", "test")
MULTILABEL = "MULTILABEL_CLASSIFICATION"
TARGETS = {  # task_target of info.yaml: whether an image has several labels
    "BINARY_CLASSIFICATION": False,
    "MULTICLASS_CLASSIFICATION": False,
    "ORDINAL_REGRESSION": False,  # grades, read as classes
    MULTILABEL: True,
}


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n], or float32 [n, classes], of the task data.version: "oct/Disease".

    root holds a folder for each set, with info.yaml, task_labels/TASK.npy, and
    images.hdf5 or images/000000.tiff. The split is that of splits/, else of
    original_splits/; images that it leaves out have none. Patients are those of
    annotations.csv, where it names them. Raises DataError.
    """
    root = Path(root)
    set_id, _, task_name = data.version.partition("/")
    folder = root / set_id
    info = read_info(root, set_id)
    task = find_task(folder, info, task_name)
    classes = tuple(str(task["labels"][k]) for k in sorted(task["labels"]))
    labels = read_labels(folder / "task_labels" / f"{task_name}.npy", task, classes)
    names = [f"images/{row:06d}.tiff" for row in range(len(labels))]
    split, split_note = read_split(folder, names)
    patients, note = read_patients(folder, set_id, names)
    return build(
        name=f"medimeta-{set_id}",
        root=root,
        classes=classes,
        labels=labels,
        columns=Columns(
            id=names,
            path=image_paths(folder, set_id, names),
            patient=patients,
            split=split,
        ),
        notes={"task": task_name, "split": split_note, **note},
    )


def read_info(root: Path, set_id: str) -> dict:
    """What ROOT/SET/info.yaml holds; DataError that names the sets there are."""
    import yaml  # 5 MB that other readers do not need

    # Folders bear the id of their set.
    there = sorted(path.parent.name for path in root.glob("*/info.yaml"))
    if not set_id or set_id not in there:
        raise DataError(
            f"{root}: config.data.version is SET/TASK, such as 'oct/Disease'; there is"
            f" no folder {set_id!r} with info.yaml (there are {there})"
        )
    path = root / set_id / "info.yaml"
    try:
        info = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not YAML ({error})") from None
    if not isinstance(info, dict) or not isinstance(info.get("tasks"), list):
        raise DataError(f"{path}: a list 'tasks' is expected")
    return info


def find_task(folder: Path, info: dict, name: str) -> dict:
    """The entry of info.yaml on this task; DataError where there is none we can read."""
    tasks = {task.get("task_name"): task for task in info["tasks"]}
    if name not in tasks:
        raise DataError(
            f"{folder}: no task {name!r}; set config.data.version to"
            f" {[f'{folder.name}/{task}' for task in tasks]}"
        )
    task = tasks[name]
    if task.get("task_target") not in TARGETS:
        raise DataError(
            f"{folder / 'info.yaml'}: task {name!r} has the task_target"
            f" {task.get('task_target')!r}; {list(TARGETS)} can be read"
        )
    labels = task.get("labels")
    if not isinstance(labels, dict) or sorted(labels) != list(range(len(labels))):
        raise DataError(
            f"{folder / 'info.yaml'}: the labels of task {name!r} are {labels!r}; a name"
            " for each of 0, 1, ... is expected"
        )
    return task


def read_labels(path: Path, task: dict, classes: tuple[str, ...]) -> np.ndarray:
    """int32 [n], or float32 [n, classes] of 0 and 1; DataError for another form."""
    find(path.parent, path.name)
    try:
        # A pickle of a stranger could run anything.
        labels = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: no readable npy file ({error})") from None
    several = TARGETS[task["task_target"]]
    shape = (len(labels), len(classes)) if several else (len(labels),)
    if labels.shape != shape:
        raise DataError(f"{path} has the shape {labels.shape}; {shape} expected")
    allowed = range(2 if several else len(classes))
    if len(bad := np.argwhere(~np.isin(labels, allowed))):
        row = tuple(bad[0].tolist())
        raise DataError(
            f"{path}: {list(row)} is {labels[row]}; 0 to {allowed[-1]} expected"
        )
    return labels.astype(np.float32 if several else np.int32)


def read_split(folder: Path, names: list[str]) -> tuple[list[str], str]:
    """(the split of each image, "" where no list names it; which lists it is of)."""
    kinds = [k for k in ("splits", "original_splits") if (folder / k).is_dir()]
    if not kinds:
        return [""] * len(names), "no lists found"
    split = dict.fromkeys(names, "")
    for part, value in SPLITS.items():
        path = folder / kinds[0] / f"{part}.txt"
        if not path.exists():  # a set without validation images has no val.txt
            continue
        for number, line in enumerate(lines(path), 1):
            name = line.strip()
            if not name:
                continue
            if name not in split:
                raise DataError(
                    f"{path}, line {number}: {name} has no label; {names[0]} to"
                    f" {names[-1]} are expected"
                )
            if split[name]:
                raise DataError(f"{path}, line {number}: {name} is listed twice")
            split[name] = value
    return list(split.values()), kinds[0]


def read_patients(
    folder: Path, set_id: str, names: list[str]
) -> tuple[list[str], dict[str, str]]:
    """(the patient of each image, the note on them) by annotations.csv."""
    path = folder / "annotations.csv"
    table = read_csv(path, ("filepath",)) if path.exists() else None
    if table is None or "patient_id" not in table.columns:
        return [f"{set_id}-{name}" for name in names], {"patients": NOBODY}
    table.check_unique("filepath")
    note = table.patients("patient_id")
    row_of = {name: row for row, name in enumerate(table["filepath"])}
    if missing := [name for name in names if name not in row_of]:
        raise DataError(f"{path}: no row for {missing[0]}, which has a label")
    people = [f"{set_id}-{table['patient_id'][row_of[name]]}" for name in names]
    return people, {"patients": note} if note else {}


def image_paths(folder: Path, set_id: str, names: list[str]) -> list[str]:
    """Rows of images.hdf5 where it is there, one file, else the TIFF files."""
    if not (folder / "images.hdf5").exists():
        find(folder, "images")
        return [f"{set_id}/{name}" for name in names]
    count = h5_shape(folder / "images.hdf5", "images")[0]
    # Rows would be matched to the wrong labels.
    if count != len(names):
        raise DataError(
            f"{folder / 'images.hdf5'} holds {count} images, its task has {len(names)}"
            " labels"
        )
    return [f"{set_id}/images.hdf5#{row}" for row in range(count)]
