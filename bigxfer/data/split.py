"""Splits: who is trained on, who is looked at, who is kept for the test.

A random split is of patients, never of images, and is a pure function of the
manifest's set of rows and the seed: patients are ordered by a hash, so that
neither the order of the rows nor the version of numpy changes it.
"""

import hashlib
from dataclasses import replace

import numpy as np

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest

NAMES = ("train", "valid", "test")


def assign(manifest: Manifest, data: Data) -> Manifest:
    """The manifest with every row in "train", "valid" or "test".

    data.split "official" keeps the column as the reader filled it; rows that it
    leaves out are dropped and counted in notes["split"]. "patient" draws data.test
    of all patients, then data.valid of the others, stratified by label as far as
    whole patients allow. Where an official split has no "valid", data.valid of its
    training patients are carved out. Patients that an official split puts on two
    sides are counted in notes["leaks"]. Raises ValueError where there is no
    official split, or where a part would be empty.
    """
    if data.split == "patient":
        split = np.full(len(manifest), "train", object)
        split[chosen(manifest, data.test, data.split_seed, "test")] = "test"
        manifest, dropped = replace(manifest, split=split), 0
    else:
        manifest, dropped = official(manifest)
    if data.valid and "valid" not in manifest.split:
        split = manifest.split.copy()
        train = np.flatnonzero(split == "train")
        part = manifest.select(train)
        split[train[chosen(part, data.valid, data.split_seed, "valid")]] = "valid"
        manifest = replace(manifest, split=split)
    leaks = check(manifest)
    if leaks and data.split == "patient":
        raise AssertionError(f"a random split leaks the patients {leaks[:5]}")
    notes = {"split": summary(manifest, data.split, dropped)}
    if leaks:
        notes["leaks"] = {"patients": len(leaks), "first": leaks[:10]}
    return replace(manifest, notes={**manifest.notes, **notes})


def official(manifest: Manifest) -> tuple[Manifest, int]:
    """(the rows that have a split, how many had none)."""
    where = f"data set {manifest.name} at {manifest.root}"
    if unknown := sorted(set(manifest.split) - {*NAMES, ""}):
        raise ValueError(f"{where}: the split {unknown[0]!r} is none of {NAMES}")
    if "train" not in manifest.split:
        raise ValueError(
            f"{where} has no official split (no row is in 'train');"
            " draw one by patient: --config.data.split=patient"
        )
    kept = manifest.split != ""
    return manifest.select(kept), int((~kept).sum())


def check(manifest: Manifest) -> list[str]:
    """The patients that stand in two splits, sorted; [] is what one wants."""
    patient, index = np.unique(manifest.patient.astype(str), return_inverse=True)
    sides = np.zeros(len(patient), int)
    for name in sorted(set(manifest.split)):
        sides[np.unique(index[manifest.split == name])] += 1
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
    edge = np.floor(np.arange(len(order) + 1) * fraction + 0.5)
    take = edge[1:] > edge[:-1]
    if not take.any() or take.all():
        raise ValueError(
            f"data set {manifest.name}: {len(order)} patients are too few to hold out"
            f" {fraction:g} of them as {salt!r} (--config.data.{salt})"
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
    positive = positives(manifest)
    rarest_first = np.argsort(positive.sum(axis=0), kind="stable")
    rank = np.full(len(manifest), positive.shape[1])
    for place, label in reversed(list(enumerate(rarest_first))):
        rank[positive[:, label]] = place
    stratum = np.full(len(patient), positive.shape[1])
    np.minimum.at(stratum, index, rank)
    key = [hashlib.sha256(f"{salt}/{seed}/{p}".encode()).digest() for p in patient]
    return np.lexsort((np.array(key, "S32"), stratum)), index


def positives(manifest: Manifest) -> np.ndarray:
    """bool [n, classes]: the label is known and present."""
    if manifest.multilabel:
        return manifest.labels == 1
    return manifest.labels[:, None] == np.arange(len(manifest.classes))


def summary(manifest: Manifest, kind: str, dropped: int) -> dict:
    """{"kind", "dropped", split: {"images", "patients"}} for the notes."""
    counts = {}
    for name in NAMES:
        rows = manifest.split == name
        patients = len(set(manifest.patient[rows]))
        counts[name] = {"images": int(rows.sum()), "patients": patients}
    return {"kind": kind, "dropped": dropped, **counts}
