"""Splits: who is trained on, who is looked at, who is kept for the test.

A random split is of patients, never of images, and is a pure function of the
manifest's set of rows and the seed: patients are ordered by a hash, so that
neither the order of the rows nor the version of numpy changes it.
"""

import hashlib
from dataclasses import replace

import numpy as np

from bigxfer.config import Data
from bigxfer.data.manifest import SPLITS, Manifest

REFERENCE = {"padchest": 0.9, "tuberculosis": 0.85}  # share that trains; `reference`


def assign(manifest: Manifest, data: Data) -> Manifest:
    """The manifest with every row in "train", "valid" or "test".

    data.split "official" keeps the column as the reader filled it; rows that it
    leaves out are dropped and counted in notes["split"]. "patient" draws data.test
    of all patients (or takes fold data.fold of data.folds), then data.valid of the
    others, stratified by label as far as whole patients allow. "reference" is the
    predecessor's split of images. Where a split has no "valid", data.valid of its
    training patients are carved out. Patients that an official or reference split
    puts on two sides are counted in notes["leaks"]. Raises ValueError where there is
    no such split, or where a part would be empty.
    """
    dropped = 0
    if data.split == "official":
        manifest, dropped = official(manifest)
    elif data.split == "reference":
        manifest = replace(manifest, split=reference(manifest))
    else:
        if data.folds:
            held = folds(manifest, data.folds, data.split_seed) == data.fold
        else:
            held = chosen(manifest, data.test, data.split_seed, "test")
        split = np.where(held, "test", "train").astype(object)
        manifest = replace(manifest, split=split)
    # After the test patients: validation is of those that may train.
    if data.valid and "valid" not in manifest.split:
        split = manifest.split.copy()
        train = np.flatnonzero(split == "train")
        part = manifest.select(train)
        split[train[chosen(part, data.valid, data.split_seed, "valid")]] = "valid"
        manifest = replace(manifest, split=split)
    # Official lists too: two versions of COVIDx have a patient on both sides.
    leaks = check(manifest)
    if leaks and data.split == "patient":
        # It cannot be: a bug, not bad data.
        raise AssertionError(f"a random split leaks the patients {leaks[:5]}")
    notes = {"split": summary(manifest, data.split, dropped)}
    if leaks:
        notes["leaks"] = {"patients": len(leaks), "first": leaks[:10]}
    return replace(manifest, notes={**manifest.notes, **notes})


def official(manifest: Manifest) -> tuple[Manifest, int]:
    """(the rows that have a split, how many had none)."""
    where = f"data set {manifest.name} at {manifest.root}"
    if unknown := sorted(set(manifest.split) - {*SPLITS, ""}):
        raise ValueError(f"{where}: the split {unknown[0]!r} is none of {SPLITS}")
    if "train" not in manifest.split:
        raise ValueError(
            f"{where} has no official split (no row is in 'train');"
            " draw one by patient: --config.data.split=patient"
        )
    # Some sets leave images out of their official lists.
    kept = manifest.split != ""
    return manifest.keeping(kept, "images without a split"), int((~kept).sum())


def reference(manifest: Manifest) -> np.ndarray:
    """object [n]: the predecessor's random split of images, blind to patients.

    In each source by itself, the rows in the order of the reader (PadChest: of its
    table; tuberculosis: of the file names) are shuffled with RandomState(42), and the
    first of them train. SLAMPAI/large-scale-pretraining-transfer,
    transfer_learning/datasets/{padchest,tuberculosis}.py at fe6232b.
    """
    if manifest.name not in REFERENCE:
        raise ValueError(
            f"data set {manifest.name} has no reference split (those of"
            f" {', '.join(REFERENCE)} are known); see --config.data.split"
        )
    split = np.full(len(manifest), "test", object)
    for source in sorted(set(manifest.source)):
        rows = np.flatnonzero(manifest.source == source)
        # The legacy generator, whose stream numpy keeps: it is the predecessor's.
        np.random.RandomState(42).shuffle(rows)
        split[rows[: int(len(rows) * REFERENCE[manifest.name])]] = "train"
    return split


def check(manifest: Manifest) -> list[str]:
    """The known patients that stand in two splits, sorted; [] is what one wants."""
    # "unknown" is no person: images that share it are not one patient's.
    known = manifest.known_patients()
    people, splits = manifest.patient[known], manifest.split[known]
    patient, index = np.unique(people.astype(str), return_inverse=True)
    sides = np.zeros(len(patient), int)
    for name in sorted(set(splits)):
        sides[np.unique(index[splits == name])] += 1
    return patient[sides > 1].tolist()


def folds(manifest: Manifest, k: int, seed: int) -> np.ndarray:
    """int [n]: the fold of each row in k-fold cross-validation by patient.

    Stratified as `assign`. Raises ValueError where there are fewer than k patients.
    """
    order, index = shuffled(manifest, seed, f"{k} folds")
    if not 2 <= k <= len(order):
        raise ValueError(f"{k} folds of {len(order)} patients cannot be made")
    fold = np.empty(len(order), int)
    fold[order] = np.arange(len(order)) % k
    return fold[index]


def chosen(manifest: Manifest, fraction: float, seed: int, salt: str) -> np.ndarray:
    """bool [n]: the rows of `fraction` of the patients.

    Every 1/fraction-th of the patients ordered by stratum and hash (systematic
    sampling): each stratum and the whole get their share to within one patient.
    """
    order, index = shuffled(manifest, seed, salt)
    # Where the count of those held out steps up: 0.5 rounds to the nearest, not down.
    edge = np.floor(np.arange(len(order) + 1) * fraction + 0.5)
    take = edge[1:] > edge[:-1]
    # An empty part would be told by no metric, or by a crash after training.
    if not take.any() or take.all():
        one = (
            f"; all images are of one, {manifest.patient[0]!r}: name the patients, or take"
            " the official split with --config.data.valid=0"
            if len(order) == 1
            else ""
        )
        raise ValueError(
            f"data set {manifest.name}: {len(order)} patients are too few to hold out"
            f" {fraction:g} of them as {salt!r} (--config.data.{salt}){one}"
        )
    picked = np.zeros(len(order), bool)
    picked[order[take]] = True
    return picked[index]


def shuffled(manifest: Manifest, seed: int, salt: str) -> tuple[np.ndarray, np.ndarray]:
    """(patients by stratum, each stratum shuffled; the patient of each row).

    A patient's stratum is the rarest class it shows (multi-label: the rarest
    positive label, or none).
    """
    patient, index = np.unique(manifest.patient.astype(str), return_inverse=True)
    rows = by_label(manifest, np.arange(len(manifest)))
    # The rarest class decides: it is the one that a split by chance could miss.
    rarest_first = np.argsort([len(r) for r in rows], kind="stable")
    rank = np.full(len(manifest), len(rows))
    # The rarest is written last, over the others.
    for place, label in reversed(list(enumerate(rarest_first))):
        rank[rows[label]] = place
    stratum = np.full(len(patient), len(rows))
    np.minimum.at(stratum, index, rank)
    # A hash, not a shuffle: a patient who is added moves no other.
    key = [hashlib.sha256(f"{salt}/{seed}/{p}".encode()).digest() for p in patient]
    return np.lexsort((np.array(key, "S32"), stratum)), index


def by_label(manifest: Manifest, order: np.ndarray) -> list[np.ndarray]:
    """For every class, those of the rows `order` that show it, in that order.

    No [n, classes] array: 14 million images of 21 thousand classes fill none.
    """
    if manifest.multilabel:
        columns = range(len(manifest.classes))
        return [order[manifest.labels[order, label] == 1] for label in columns]
    labels = manifest.labels[order]
    ends = np.cumsum(np.bincount(labels, minlength=len(manifest.classes)))
    return np.split(order[np.argsort(labels, kind="stable")], ends[:-1])


def positives(manifest: Manifest) -> np.ndarray:
    """bool [n, classes]: the label is known and present."""
    if manifest.multilabel:
        return manifest.labels == 1
    return manifest.labels[:, None] == np.arange(len(manifest.classes))


def summary(manifest: Manifest, kind: str, dropped: int) -> dict:
    """{"kind", "dropped", split: {"images", "patients"}} for the notes."""
    counts = {}
    for name in SPLITS:
        rows = manifest.split == name
        patients = len(set(manifest.patient[rows]))
        counts[name] = {"images": int(rows.sum()), "patients": patients}
    return {"kind": kind, "dropped": dropped, **counts}
