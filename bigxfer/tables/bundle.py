"""One file with what many runs predicted, small enough for git: intervals without run folders.

An npz. `sets` names the test sets, 0, 1, ...; of set S it holds

    classes/S    str [k]
    ids/S        bytes [n]: hashes of the images' ids, sorted
    patients/S   bytes [n]: hashes of their patients' ids
    labels/S     as predictions.npz has them, whole numbers as int16
    runs/S       str [r]: digests of the runs, as the table has them
    logits/S     float16 [r, n, k], each image's mean over the classes taken off

A hash is 8 bytes of keyed BLAKE2b (RFC 7693). The key is a hash of all ids, patients and
labels of the test set: without the whole list of a set nobody can try single ids until one
fits, and with it a bundle can be checked, and continued on another machine. No path, source,
view, sex or age is in it.

The mean that is taken off changes no softmax. float16 keeps 11 bits, so that scores which
differ by less than a two-thousandth may tie: `write` says how far the macro AUROC moves.
"""

import io
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
    """What a bundle holds: runs, bytes, and how far float16 moved a macro AUROC at most.

    `moved` is of the runs that were not in a former bundle.
    """

    runs: int
    size: int
    moved: float


def write(
    rows: Sequence[Row],
    predictions: PredictionReader,
    path: Path,
    former: "BundleReader | None" = None,
) -> Written:
    """Write the predictions of these rows, first from a `former` bundle where it has them.

    Raises ValueError where a run keeps no predictions, where two runs of one target were
    tested on different images, or where the file would have more than MOST bytes.
    """
    sets: dict[str, list[tuple[str, Predictions]]] = defaultdict(list)
    hashes: dict[str, Hashes] = {}
    moved = 0.0
    for row in rows:
        name = f"{row['target']} {row['data']}"
        of_set = sets[name]
        if former and (known := former.load(row["digest"])):
            of_set.append((row["digest"], known))
            continue
        if (saved := predictions.load(row["folder"])) is None:
            raise ValueError(f"{row['folder']} kept no predictions: leave its row out")
        # Of what is written, so that `moved` is what a reader meets.
        small = _small(saved)
        moved = max(moved, _moved(saved, small))
        if name not in hashes or not hashes[name].fit(small):
            hashes[name] = Hashes.make(small)
        of_set.append((row["digest"], hashes[name].put(small)))
    arrays: dict[str, Any] = {"sets": np.array(list(sets))}
    for i, (name, runs) in enumerate(sets.items()):
        for what, column in _arrays(name, runs).items():
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


@dataclass(frozen=True)
class Hashes:
    """The hashes of a test set, made once for all runs that were tested on it."""

    of: Predictions  # that they were made of
    place: np.ndarray  # int [n]: the order of the images by their hashes
    ids: np.ndarray  # str [n], in that order
    patients: np.ndarray  # str [n], likewise

    @classmethod
    def make(cls, saved: Predictions) -> "Hashes":
        key = key_of(saved)
        # The order of the ids would tell which image is which.
        place = np.argsort(ids := hashed(saved.ids, key))
        patients = hashed(saved.patients, key)
        return cls(saved, place, ids[place], patients[place])

    def fit(self, saved: Predictions) -> bool:
        """Whether ids, patients and labels [n] are those that were hashed."""
        names = ("ids", "patients")
        return np.array_equal(self.of.labels, saved.labels, equal_nan=True) and all(
            np.array_equal(getattr(self.of, name), getattr(saved, name))
            for name in names
        )

    def put(self, saved: Predictions) -> Predictions:
        """The predictions with hashes for ids and patients, in the order of the hashes."""
        nameless = saved.select(self.place)
        return replace(nameless, ids=self.ids, patients=self.patients)


def key_of(saved: Predictions) -> bytes:
    """32 bytes from all ids, patients and labels of a test set, in whatever order."""
    labels = saved.labels.reshape(len(saved.labels), -1).astype(np.float64)
    rows = zip(saved.ids, saved.patients, labels.tolist(), strict=True)
    text = "\n".join(sorted(f"{i}\t{patient}\t{y}" for i, patient, y in rows))
    return blake2b(text.encode(), digest_size=32).digest()


def _arrays(
    name: str, runs: Sequence[tuple[str, Predictions]]
) -> dict[str, np.ndarray]:
    first = runs[0][1]
    for digest, saved in runs:
        # One column of ids serves all runs of a set.
        if saved.ids.tolist() != first.ids.tolist() or saved.classes != first.classes:
            raise ValueError(f"{name}: run {digest} was tested on other images")
    labels = first.labels
    logits = np.stack([saved.logits for _, saved in runs])
    return {
        "classes": np.array(first.classes),
        "ids": np.char.encode(first.ids),
        "patients": np.char.encode(first.patients),
        "labels": labels.astype(np.int16) if labels.ndim == 1 else labels,
        "runs": np.array([digest for digest, _ in runs]),
        "logits": logits.astype(np.float16),
    }


def hashed(names: np.ndarray, key: bytes) -> np.ndarray:
    """Hex digits of the hashes of names str [n]; ValueError where two names have one."""
    by_name = {
        n: blake2b(n.encode(), digest_size=HASH, key=key).hexdigest() for n in names
    }
    if len(set(by_name.values())) < len(by_name):  # two patients would become one
        raise ValueError("two ids have one hash: raise HASH in tables/bundle.py")
    return np.array([by_name[name] for name in names])


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
