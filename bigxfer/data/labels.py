"""Label spaces and policies: every choice is data, and is written to the notes."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer.config import nearest
from bigxfer.data.manifest import COLUMNS, Manifest

Classes = tuple[str, ...]

CHEXPERT14 = (  # in the order of train.csv, CheXpert-v1.0
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
CHEXPERT13 = CHEXPERT14[1:]  # without No Finding, as in the predecessor's chexpert.py
NIH14 = (  # in the order of Wang et al. 2017 (1705.02315) and its ChestX-ray14 update
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
PADCHEST27 = (  # the predecessor's, sorted as there (padchest.py at fe6232b)
    "Air Trapping",
    "Aortic Atheromatosis",
    "Aortic Elongation",
    "Atelectasis",
    "Bronchiectasis",
    "Cardiomegaly",
    "Consolidation",
    "Costophrenic Angle Blunting",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Flattened Diaphragm",
    "Fracture",
    "Granuloma",
    "Hemidiaphragm Elevation",
    "Hernia",
    "Hilar Enlargement",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
    "Scoliosis",
    "Support Devices",
    "Tuberculosis",
)
PREDECESSOR7 = (  # the "merge" of 2106.00116's code: what CheXpert, MIMIC, NIH share
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Pneumonia",
    "Pneumothorax",
)
ALIASES = {  # another data set's name -> ours
    "Pleural Effusion": "Effusion",
    "Pleural Thickening": "Pleural_Thickening",
}


def canonical(name: str) -> str:
    return ALIASES.get(name, name)


def policy(
    raw: np.ndarray, classes: Sequence[str], uncertain: str, blank: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """CheXpert's marks -> labels, and the notes that say how.

    `raw` is float32 [n, classes]: 1 positive, 0 negative, -1 uncertain, NaN not
    mentioned. The result holds 1, 0 and NaN (unknown). In this order:

    1. No Finding is 1 exactly where nothing but Support Devices is positive or
       uncertain (stanfordmlgroup/chexpert-labeler, stages/aggregate.py). So where
       it is 1, blanks and uncertain marks become 0, except Support Devices'; and
       where it is blank but another finding is positive or uncertain, it is 0.
    2. uncertain: ignore (NaN), zeros, ones: U-Ignore, U-Zeros, U-Ones of 1901.07031.
    3. blank: unknown (NaN, as torchxrayvision) or negative (as CheXpert's authors).
    """
    labels = raw.copy()
    notes: dict[str, Any] = {"uncertain": uncertain, "blank": blank}
    if "No Finding" in classes:
        none = list(classes).index("No Finding")
        spared = ("No Finding", "Support Devices")
        finding = np.array([name not in spared for name in classes])
        healthy = raw[:, none] == 1
        # The labeller cannot give these; 0 are expected, and more would be a damaged file.
        contradicted = healthy & (raw[:, finding] == 1).any(axis=1)
        # "No Finding" says that they were looked for, so blank is a no here.
        labels[np.ix_(healthy, finding)] = (raw[np.ix_(healthy, finding)] == 1) * 1.0
        marked = (np.abs(raw[:, finding]) == 1).any(axis=1)
        labels[np.isnan(raw[:, none]) & marked, none] = 0
        notes["no_finding"] = (
            "No Finding = 1 sets blank and uncertain findings to 0 (not Support"
            " Devices); a positive or uncertain finding sets a blank No Finding to 0"
        )
        notes["no_finding_contradicted"] = int(contradicted.sum())
    return settled(labels, uncertain, blank), notes


def settled(marks: np.ndarray, uncertain: str, blank: str) -> np.ndarray:
    """float32 [n, classes] of 1, 0 and NaN: -1 and NaN of `marks` by steps 2 and 3."""
    values = {"ignore": np.nan, "zeros": 0.0, "ones": 1.0}
    labels = np.where(marks == -1, np.float32(values[uncertain]), marks)
    if blank == "negative":
        labels[np.isnan(marks)] = 0
    return labels


def subset(manifest: Manifest, wanted: Sequence[str]) -> Manifest:
    """Only these classes, in this order and spelling; aliases are found.

    Multi-label: the columns. Single-label: the rows of these classes, renumbered.
    Raises ValueError for a class that the set lacks, or if no row is left.
    """
    have = {canonical(name): i for i, name in enumerate(manifest.classes)}
    for name in wanted:
        if canonical(name) not in have:
            hint = nearest(name, list(manifest.classes))
            raise ValueError(
                f"data.labels: {manifest.name} has no class {name!r}{hint}"
            )
    # Under two spellings a class would have two columns.
    if len({canonical(name) for name in wanted}) < len(wanted):
        raise ValueError(f"data.labels names a class twice: {tuple(wanted)}")
    picked = [have[canonical(name)] for name in wanted]
    notes = {**manifest.notes, "classes_kept": list(wanted)}
    if manifest.multilabel:
        labels = manifest.labels[:, picked]
        return replace(manifest, classes=tuple(wanted), labels=labels, notes=notes)
    # -1: not wanted.
    number = np.full(len(manifest.classes), -1)
    number[picked] = range(len(picked))
    labels = number[manifest.labels]
    if not (labels >= 0).any():
        raise ValueError(
            f"data.labels: {manifest.name} has no image of {tuple(wanted)}"
        )
    kept = replace(manifest, classes=tuple(wanted), labels=labels, notes=notes)
    return kept.select(labels >= 0).dropping(
        f"images of other classes than {', '.join(wanted)}", int((labels < 0).sum())
    )


def union(manifests: Sequence[Manifest]) -> Manifest:
    """All rows under all classes; what a set does not label is NaN there.

    Classes come in order of first appearance, by their canonical names. If every
    set is single-label the union is too; otherwise single-label sets become one-hot
    over their own classes. See `concatenate` for ids, paths and patients.
    """
    names = [canonical(c) for m in manifests for c in m.classes]
    classes = tuple(dict.fromkeys(names))
    return concatenate(manifests, classes, "union, NaN where a set lacks the class")


def intersection(manifests: Sequence[Manifest]) -> Manifest:
    """All rows under the classes that every set has, sorted by name.

    So the predecessor merged its upstreams: CheXpert, MIMIC and NIH (and PadChest)
    give PREDECESSOR7. Multi-label only. Raises ValueError where nothing is shared.
    """
    # An image whose one class is not shared would be left without any.
    if not all(m.multilabel for m in manifests):
        raise ValueError("intersection is of multi-label sets; use union")
    sets = [{canonical(c) for c in m.classes} for m in manifests]
    classes = tuple(sorted(set.intersection(*sets)))
    if not classes:
        raise ValueError(f"{[m.name for m in manifests]} share no class")
    return concatenate(manifests, classes, "intersection, sorted by name")


def concatenate(manifests: Sequence[Manifest], classes: Classes, how: str) -> Manifest:
    """The rows of all, labelled under `classes` (canonical names).

    ids get the set's name before them ("nih/00000001_000.png"). Patients stay as
    they are: readers of public sets prefix them ("nih-00000001"), so a person in two
    sets stays one. Paths become relative to the deepest folder that holds all roots.
    """
    names = [m.name for m in manifests]
    # Ids of a union bear the set's name and must stay unique.
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two data sets are called {sorted(twice)}; rename one")
    multilabel = any(m.multilabel for m in manifests)
    roots = [os.path.abspath(m.root) for m in manifests]
    common = os.path.commonpath(roots)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    known = dict.fromkeys(name for m in manifests for name in m.people())
    people: dict[str, list[np.ndarray]] = {name: [] for name in known}
    labels = []
    for m, root in zip(manifests, roots):
        # Paths of a union lie beneath one root, as those of any manifest do.
        inner = os.path.relpath(root, common)
        for name in COLUMNS:
            columns[name].append(getattr(m, name))
        for name, parts in people.items():
            # A set that knows no ages beside one that does: unknown, not left out.
            parts.append(m.people().get(name, np.full(len(m), "", object)))
        prefix = "" if inner == "." else Path(inner).as_posix() + "/"
        columns["id"][-1] = np.array([f"{m.name}/{i}" for i in m.id], object)
        columns["path"][-1] = np.array([f"{prefix}{p}" for p in m.path], object)
        labels.append(under(m, classes, multilabel))
    return Manifest(
        name="+".join(names),
        root=common,
        classes=classes,
        labels=np.concatenate(labels),
        synthetic=any(m.synthetic for m in manifests),
        notes={"classes": how, "members": {m.name: m.notes for m in manifests}},
        **{name: np.concatenate(parts) for name, parts in (columns | people).items()},
    ).validate()


def under(manifest: Manifest, classes: Classes, multilabel: bool) -> np.ndarray:
    """The labels of one set, rewritten for the classes of the whole."""
    index = {name: i for i, name in enumerate(classes)}
    targets = [index.get(canonical(name), -1) for name in manifest.classes]
    if not multilabel:
        return np.array(targets)[manifest.labels]
    labels = np.full((len(manifest), len(classes)), np.nan, np.float32)
    if manifest.multilabel:
        for source, target in enumerate(targets):
            if target >= 0:
                labels[:, target] = manifest.labels[:, source]
    else:
        # Only its own classes: of the others' it says nothing.
        labels[:, targets] = 0
        labels[np.arange(len(manifest)), np.array(targets)[manifest.labels]] = 1
    return labels
