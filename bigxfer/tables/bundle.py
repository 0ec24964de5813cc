"""One file with what many runs predicted, small enough for git: intervals without run folders.

An npz. `sets` names the test sets, 0, 1, ...; of set S it holds

    classes/S    str [k]
    ids/S        bytes [n]: hashes of the images' ids, sorted
    patients/S   bytes [n]: hashes of their patients' ids
    labels/S     as predictions.npz has them, whole numbers as int16
    runs/S       str [r]: digests of the runs, as the table has them
    logits/S     float16 [r, n, k], each image's mean over the classes taken off

A hash is 8 bytes of keyed BLAKE2b (RFC 7693). The key is drawn anew for each file and kept
nowhere, so that nobody can try ids of public sets until one fits; equal ids have equal
hashes within one file only. No path, source, view, sex or age is in it.

The mean that is taken off changes no softmax. float16 keeps 11 bits, so that scores which
differ by less than a two-thousandth may tie: `write` says how far the macro AUROC moves.
"""

import io
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer import durable, tree
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import metrics
from bigxfer.tables.cells import RESAMPLES, PredictionReader
from bigxfer.tables.table import Row

MOST = 8_000_000  # bytes, of a file that git is to keep
HASH = 8  # bytes: of 10,000 images two are alike with probability 3e-12


@dataclass(frozen=True)
class Written:
    """What a bundle holds: runs, bytes, and how far float16 moved a macro AUROC at most."""

    runs: int
    size: int
    moved: float


def write(
    rows: Sequence[Row], predictions: PredictionReader, path: Path, key: bytes = b""
) -> Written:
    """Write the predictions of these rows; `key` is for tests, which need one that stays.

    Raises ValueError where a run keeps no predictions, where two runs of one target were
    tested on different images, or where the file would have more than MOST bytes.
    """
    # Anew for each file and kept nowhere: with a key nobody can try public ids.
    key = key or secrets.token_bytes(32)
    sets: dict[str, list[tuple[str, Predictions]]] = defaultdict(list)
    moved = 0.0
    for row in rows:
        if (saved := predictions.load(row["folder"])) is None:
            raise ValueError(f"{row['folder']} kept no predictions: leave its row out")
        # Of what is written, so that `moved` is what a reader meets.
        small = _small(saved)
        moved = max(moved, _moved(saved, small))
        sets[f"{row['target']} {row['data']}"].append((row["digest"], small))
    arrays: dict[str, Any] = {"sets": np.array(list(sets))}
    for i, (name, runs) in enumerate(sets.items()):
        for what, column in _arrays(name, runs, key).items():
            arrays[f"{what}/{i}"] = column
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    if (size := buffer.tell()) > MOST:
        raise ValueError(
            f"{len(rows)} runs take {size:,} bytes, more than {MOST:,}: leave draws out"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write(path, buffer.getvalue())
    return Written(len(rows), size, moved)


def _small(saved: Predictions) -> Predictions:
    """The predictions with the logits that a bundle keeps of them."""
    centred = saved.logits
    if saved.labels.ndim == 1:  # a sigmoid has no constant to take off
        centred = centred - centred.mean(axis=1, keepdims=True)
    # Beyond it float16 is infinite, and such scores would tie.
    if np.abs(centred).max() > np.finfo(np.float16).max:
        raise ValueError("logits beyond 65,504 are too large for float16")
    logits = centred.astype(np.float16).astype(np.float64)
    return replace(saved, logits=logits)


def _moved(saved: Predictions, small: Predictions) -> float:
    both = [
        metrics.compute(p.labels, p.logits, p.classes, p.patients, limits=False)
        for p in (saved, small)
    ]
    old, new = (result["metrics"]["auroc_macro"]["value"] for result in both)
    return 0.0 if old is None else abs(old - new)


def _arrays(
    name: str, runs: Sequence[tuple[str, Predictions]], key: bytes
) -> dict[str, np.ndarray]:
    first = runs[0][1]
    for digest, saved in runs:
        # One column of ids serves all runs of a set.
        if saved.ids.tolist() != first.ids.tolist() or saved.classes != first.classes:
            raise ValueError(f"{name}: run {digest} was tested on other images")
    ids, patients = hashed(first.ids, key), hashed(first.patients, key)
    order = np.argsort(ids)  # the order of the ids would tell which image is which
    labels = first.labels[order]
    logits = np.stack([saved.logits[order] for _, saved in runs])
    return {
        "classes": np.array(first.classes),
        "ids": ids[order],
        "patients": patients[order],
        "labels": labels.astype(np.int16) if labels.ndim == 1 else labels,
        "runs": np.array([digest for digest, _ in runs]),
        "logits": logits.astype(np.float16),
    }


def hashed(names: np.ndarray, key: bytes) -> np.ndarray:
    """Hex digits of the hashes of names str [n]; ValueError where two names have one."""
    by_name = {
        n: blake2b(n.encode(), digest_size=HASH, key=key).hexdigest() for n in names
    }
    # Two patients would become one; the next key will tell them apart.
    if len(set(by_name.values())) < len(by_name):
        raise ValueError("two ids have one hash: write the bundle again")
    return np.array([by_name[name].encode() for name in names])


class BundleReader(PredictionReader):
    """The predictions of a bundle, in the place of those of run folders."""

    def __init__(self, path: Path, resamples: int = RESAMPLES, seed: int = 0) -> None:
        super().__init__(Path, resamples, seed)
        self._sets = tree.load_npz(path)  # {"runs": {"0": ...}, ...}
        self._where = {
            digest: (of_set, place)
            for of_set, digests in self._sets["runs"].items()
            for place, digest in enumerate(digests.tolist())
        }

    def holds(self, row: Row) -> bool:
        return row["digest"] in self._where

    def load(self, folder: str) -> Predictions | None:
        """What a run predicted; None where the bundle does not have it.

        The last part of `folder` is the run's digest.
        """
        if (where := self._where.get(Path(folder).name)) is None:
            return None
        of_set, place = where
        columns = {
            name: arrays[of_set]
            for name, arrays in self._sets.items()
            if name != "sets"
        }
        labels = columns["labels"]
        none = np.full(len(labels), "")
        return Predictions(
            ids=columns["ids"].astype(str),
            patients=columns["patients"].astype(str),
            sources=none,
            views=none,
            labels=labels.astype(np.int32) if labels.ndim == 1 else labels,
            logits=columns["logits"][place].astype(np.float64),
            classes=tuple(columns["classes"].tolist()),
        )
