"""The runs of a cell, which differ in nothing but seeds, and their saved predictions."""

import copy
import hashlib
import math
import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bigxfer.runs import finished
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import metrics, weighted
from bigxfer.statistics.limits import Score
from bigxfer.tables.table import Row

RESAMPLES = 500  # of the test patients; an end of 95% is then the 13th of them
GROUPS = 1000  # of test patients, at most, whose influences are kept
KEPT = 256e6  # bytes of logits that a reader keeps: a page reads each run several times

T = TypeVar("T")
Runs = dict[tuple[int, int], Row]  # {(upstream seed, seed): run} of one family


def seeds(row: Row) -> tuple[int, int]:
    """(seed of the upstream, seed of the run); -1 where there is no upstream seed."""
    source = row.get("upstream_seed")
    # A number, so that pairs can be sorted.
    return -1 if source is None else source, row["seed"]


def stopped_early(rows: Sequence[Row], *by: str) -> list[tuple[Row, int]]:
    """(row, steps of most runs of its cell) of the rows with fewer; cells are by `by`."""
    known = [row for row in rows if row["steps"] is not None]
    steps: dict[tuple, Counter[int]] = defaultdict(Counter)
    for row in known:
        steps[tuple(row[name] for name in by)][row["steps"]] += 1
    # By what most runs did: a table does not hold the steps that were planned.
    usual = {cell: count.most_common(1)[0][0] for cell, count in steps.items()}
    pairs = [(row, usual[tuple(row[name] for name in by)]) for row in known]
    return [(row, most) for row, most in pairs if row["steps"] < most]


def group(rows: Sequence[Row], metric: str, *by: str) -> dict[tuple, Runs]:
    """{values of `by`: its runs} of the rows that have the metric.

    Raises ValueError where two runs of one group have the same seeds, or differ in more
    than seeds: their mean would be of nothing. `lines` tells such runs apart.
    """
    groups: dict[tuple, Runs] = defaultdict(dict)
    for row in sorted(rows, key=seeds):
        if row.get(metric) is None:
            continue
        runs = groups[tuple(row[k] for k in by)]
        if (other := runs.get(seeds(row))) is not None:
            amiss = "the same seeds"
        else:
            runs[seeds(row)] = row
            other = next(iter(runs.values()))
            amiss = "other settings or data"
        # The family knows every setting and the data; a mean over two is of nothing.
        if other is not row and (
            amiss == "the same seeds" or other.get("family") != row.get("family")
        ):
            raise ValueError(
                f"{row['folder']} and {other['folder']} stand in one cell"
                f" ({', '.join(str(row[k]) for k in by)}) with {amiss}: select one"
                " study, protocol and setting first"
            )
    return dict(groups)


class PredictionReader:
    """predictions.npz of run folders, each opened once while KEPT suffices.

    `find(folder)` says where the folder of a row is now. `judge` gives what `scores`
    knows: the metrics, or the points of a curve. What could not be read is listed in
    `unreadable`.
    """

    def __init__(
        self,
        find: Callable[[str], Path] = Path,
        resamples: int = RESAMPLES,
        seed: int = 0,
        judge: Callable[..., dict[str, Score]] = metrics.scores,
    ) -> None:
        self.find, self.resamples, self.seed = find, resamples, seed
        self.judge = judge
        self.unreadable: list[str] = []
        self._kept: OrderedDict[str, Predictions] = OrderedDict()  # oldest first
        self._columns: dict[bytes, np.ndarray] = {}  # by a hash of what they hold
        self._images: dict[str, tuple[bytes, int] | None] = {}
        self._scores: dict[str, dict[str, Score]] = {}
        self._resampled: dict[str, dict[str, weighted.Values]] = {}  # by metric

    def judging(self, judge: Callable[..., dict[str, Score]]) -> "PredictionReader":
        """A reader of the same predictions, kept together, that judges otherwise."""
        other = copy.copy(self)
        other.judge, other.unreadable = judge, []
        other._images, other._scores, other._resampled = {}, {}, {}
        return other

    def load(self, folder: str) -> Predictions | None:
        """What a run predicted, in the order of the ids; None where it kept nothing.

        A damaged file is named in `unreadable`, and None. The arrays are shared: do not
        write to them.
        """
        if folder in self._kept:
            self._kept.move_to_end(folder)
            return self._kept[folder]
        if (saved := self._read(folder)) is None:
            return None
        self._kept[folder] = saved
        while sum(s.logits.nbytes for s in self._kept.values()) > KEPT:
            self._kept.popitem(last=False)
        return saved

    def _read(self, folder: str) -> Predictions | None:
        place = self.find(folder)
        # Runs of published tables have no folder at all.
        if not place.is_dir():
            return None
        try:
            run = finished.read(place)
            if not run.has("test"):
                return None
            saved = run.predictions("test")
        except (ValueError, OSError) as error:
            self.unreadable.append(str(error))
            return None
        # By id: only then do the influences of two runs stand for the same patients.
        saved = saved.select(np.argsort(saved.ids))
        # Runs on one test set share their ids, patients and labels: 300 bytes an image.
        shared = {k: v for k, v in vars(saved).items() if isinstance(v, np.ndarray)}
        del shared["logits"]
        same: dict[str, Any] = {
            k: self._columns.setdefault(_hash(v), v) for k, v in shared.items()
        }
        return replace(saved, **same)

    def scores(self, rows: Sequence[Row], metric: str) -> list[Score] | None:
        """The metric of each run, with the influences of the same patients.

        None where a run keeps no predictions or was tested on other images.
        """
        each = [self.judged(row) for row in rows]
        if not self._alike(rows) or any(f is None or metric not in f for f in each):
            return None
        return [f[metric] for f in each if f is not None]

    def judged(self, row: Row) -> dict[str, Score] | None:
        """All scores of a run; None where it keeps no predictions."""
        judge = partial(_grouped, self.judge)
        return self._of(row["folder"], self._scores, judge)

    def samples(
        self, rows: Sequence[Row], metric: str
    ) -> tuple[np.ndarray | None, int]:
        """(the metric [resamples, rows] on the same resampled patients, how many).

        (None, 0) where a run keeps no predictions or was tested on other images.
        """

        def resampled(*args: Any) -> weighted.Values:
            how = {"resamples": self.resamples, "seed": self.seed}
            return metrics.resampled(*args, **how, only=metric)

        known = self._resampled.setdefault(metric, {})
        each = [self._of(row["folder"], known, resampled) for row in rows]
        if not self._alike(rows) or any(f is None or metric not in f for f in each):
            return None, 0
        samples = np.stack([f[metric] for f in each if f is not None], axis=1)
        return samples, self.patients(rows)

    def patients(self, rows: Sequence[Row]) -> int:
        """How many patients the runs were tested on; 0 where that is not known."""
        images = self._images.get(rows[0]["folder"])
        return images[1] if images else 0

    def apart(self, rows: Sequence[Row]) -> bool:
        """Whether all runs have predictions, but not all of the same images."""
        images = {self._images.get(row["folder"]) for row in rows}
        return len(images) > 1 and None not in images

    def _alike(self, rows: Sequence[Row]) -> bool:
        """Whether all runs have predictions, of the same images and patients."""
        images = {self._images.get(row["folder"]) for row in rows}
        return len(images) == 1 and None not in images

    def _of(self, folder: str, known: dict[str, T], call: Callable[..., T]) -> T | None:
        """call(labels, logits, classes, patients) of a run, made once; None where the
        predictions cannot be read."""
        if folder in known:
            return known[folder]
        if folder in self._images and self._images[folder] is None:
            return None
        # First, so that a folder without predictions is opened once, not for each cell.
        self._images[folder] = None
        if (saved := self.load(folder)) is None:
            return None
        classes = list(saved.classes)
        try:
            known[folder] = call(saved.labels, saved.logits, classes, saved.patients)
        except ValueError as error:
            self.unreadable.append(f"{folder}: {error}")
            return None
        # The patients too: another grouping of the same images has other influences.
        images = _hash(saved.ids) + _hash(saved.patients)
        self._images[folder] = images, len(np.unique(saved.patients))
        return known[folder]


def _hash(column: np.ndarray) -> bytes:
    """16 bytes that stand for an array: its type, its shape and what it holds."""
    kind = f"{column.dtype.str}{column.shape}".encode()
    content = np.ascontiguousarray(column).tobytes()
    return hashlib.blake2b(kind + content, digest_size=16).digest()


def _grouped(judge: Callable[..., dict[str, Score]], *args: Any) -> dict[str, Score]:
    """The scores of a run, with patients beyond GROUPS summed in GROUPS groups."""
    by_name = judge(*args)
    out = {}
    for name, score in by_name.items():
        if score.sums is not None and len(score.sums) > GROUPS:
            # Bounds the memory of a cell; 1,000 sums tell a variance to about 5%.
            index = np.arange(len(score.sums)) % GROUPS
            score = score._replace(sums=np.bincount(index, score.sums, GROUPS))
        out[name] = score
    return out


def source(rows: Sequence[Row]) -> str:
    """The folders of a cell's runs, what they share said once."""
    folders = [row["folder"] for row in rows]
    if len(folders) == 1:
        return folders[0]
    shared = os.path.commonprefix(folders)
    return f"{shared}{{{', '.join(f[len(shared) :] for f in folders)}}}"


def interval(value: float, low: float, high: float, sign: str = "") -> str:
    """ "0.908 [0.878, 0.935]"; "+0.108 [+0.078, +0.135]" with sign="+"."""
    if not math.isfinite(low):
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def amount(scale: float) -> str:
    """A scale in words, without an exponent: "2,685", "23.5 million"."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if scale >= 0.9995 * size:  # what three digits round up to it
            return f"{scale / size:.3g} {word}"
    return f"{scale:,.12g}"
