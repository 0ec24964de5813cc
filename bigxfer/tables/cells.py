"""Runs that differ by their seed alone, and what their mean is worth.

A line is all runs of one target, model and upstream, a cell is a line at one number of
shots. Where an upstream was varied further (its size, the protocol, ...) the line's
label says how.
"""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bigxfer.runs import finished
from bigxfer.runs.predictions import Predictions as Saved
from bigxfer.statistics import intervals, metrics
from bigxfer.tables.table import Row

VARIANTS = {  # column -> how its value reads in a label
    "study": "{}",
    "protocol": "{}",
    "start": "{}",
    "init": "{}",
    "upstream_size": "{:,} images",
    "upstream_examples": "{:,} seen",
    "fraction": "fraction {:g}",
    "sampling": "{}",
    "mix": "mix {}",
    "space": "{} of labels",
    "steps": "{:,} steps",
}
STEPS_VARY_WITH = ("target", "model", "upstream", "shots")


def lines(rows: Sequence[Row], *along: str) -> tuple[list[Row], list[str]]:
    """(the transfers with their "line" added, notes on what was left out).

    `along` ("shots" if none) are the columns that a line runs along, which are
    therefore in no label. Of runs that the table cannot tell apart the newest is kept.
    """
    along = along or ("shots",)
    transfers = [row for row in rows if row["kind"] == "transfer"]
    families = _group(transfers, "target", "model", "upstream")
    found: dict[tuple, Row] = {}
    twice = 0
    for family in families.values():
        for label, row in zip(_labels(family, along), family, strict=True):
            places = {"model", "shots", *along}
            key = (row["target"], label, row["seed"], *(row[p] for p in sorted(places)))
            before = found.get(key)
            twice += before is not None
            if before is None or (row["changed_ns"] or 0) >= (
                before["changed_ns"] or 0
            ):
                found[key] = row | {"line": label}
    notes = []
    if twice:
        notes.append(
            f"{twice} runs repeat the target, model, upstream, shots and seed of another"
            " with settings that the table does not hold; the newest is shown."
        )
    return list(found.values()), notes


def _labels(family: list[Row], along: Sequence[str]) -> list[str]:
    """One label a row; a column is named where it tells runs apart that were equal."""
    keys = [(row["shots"], *(row[x] for x in along), row["seed"]) for row in family]
    labels = [row["upstream"] for row in family]
    for column, form in VARIANTS.items():
        values = [row.get(column) for row in family]
        if column in along or len(set(values)) < 2:
            continue
        finer = [(*key, value) for key, value in zip(keys, values, strict=True)]
        if len(set(finer)) == len(set(keys)) and column != "study":
            continue
        keys = finer
        for i, value in enumerate(values):
            if value is not None:
                labels[i] += f", {form.format(value)}"
    return labels


def _group(rows: Sequence[Row], *by: str) -> dict[tuple, list[Row]]:
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[k] for k in by)].append(row)
    return groups


def group(rows: Sequence[Row], metric: str, *by: str) -> dict[tuple, dict[int, Row]]:
    """{values of `by`: {seed: row}} of the rows that have the metric."""
    found: dict[tuple, dict[int, Row]] = defaultdict(dict)
    for row in sorted(rows, key=lambda r: r["seed"]):
        if row.get(metric) is not None:
            found[tuple(row[k] for k in by)][row["seed"]] = row
    return dict(found)


class Predictions:
    """predictions.npz of run folders, each opened once and its metrics resampled.

    `find(folder)` says where the folder of a row is now.
    """

    def __init__(
        self, find: Callable[[str], Path] = Path, resamples: int = 1000, seed: int = 0
    ) -> None:
        self.find, self.resamples, self.seed = find, resamples, seed
        self.unreadable: list[str] = []
        self._known: dict[str, tuple[bytes, int, metrics.Values] | None] = {}

    def load(self, folder: str) -> Saved | None:
        """What a run predicted, in the order of the ids; None where it kept nothing.

        A damaged file is named in `unreadable`, and None.
        """
        place = self.find(folder)
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
        return saved.select(np.argsort(saved.ids))

    def known(self, row: Row) -> bool:
        """Whether the predictions of a run can be read and resampled."""
        return self._of(row["folder"]) is not None

    def samples(
        self, rows: Sequence[Row], metric: str
    ) -> tuple[np.ndarray | None, int]:
        """(the metric [resamples, rows] on the same resampled patients, how many).

        (None, 0) where a run keeps no predictions or was tested on other images.
        """
        found = [self._of(row["folder"]) for row in rows]
        known = [f for f in found if f is not None and metric in f[2]]
        if not rows or len(known) < len(rows) or len({f[0] for f in known}) > 1:
            return None, 0
        return np.stack([f[2][metric] for f in known], axis=1), known[0][1]

    def all_of(self, rows: Sequence[Row], metric: str) -> tuple[np.ndarray, int]:
        """`samples` of rows that have to have them; ValueError where they do not."""
        samples, patients = self.samples(rows, metric)
        if samples is None:
            folders = ", ".join(row["folder"] for row in rows)
            raise ValueError(
                "one of these has no predictions.npz that can be read, or was tested on"
                f" other images than the first: {folders}"
            )
        return samples, patients

    def _of(self, folder: str) -> tuple[bytes, int, metrics.Values] | None:
        if folder not in self._known:
            self._known[folder] = self._resampled(folder)
        return self._known[folder]

    def _resampled(self, folder: str) -> tuple[bytes, int, metrics.Values] | None:
        """(ids and patients, how many patients, metrics); None where it cannot be."""
        if (saved := self.load(folder)) is None:
            return None
        about = saved.labels, saved.logits, saved.classes, saved.patients
        try:
            values = metrics.resampled(*about, self.resamples, self.seed)
        except ValueError as error:
            self.unreadable.append(f"{folder}: {error}")
            return None
        images = saved.ids.tobytes() + saved.patients.tobytes()
        return images, len(np.unique(saved.patients)), values


def estimate(
    rows: Sequence[Row], metric: str, predictions: Predictions
) -> tuple[intervals.Estimate, str]:
    """The mean over the runs of a cell, and in words what its interval covers."""
    points = np.array([row[metric] for row in rows])
    samples, patients = predictions.samples(rows, metric)
    found = intervals.estimate(points, samples, patients)
    if found.method == "none" and rows[0].get(f"{metric}_low") is not None:
        ends = {end: rows[0][f"{metric}_{end}"] for end in ("low", "high")}
        return replace(found, **ends), "patients of the one draw, from result.json"
    return found, basis(found, patients)


def difference(
    a: dict[int, Row], b: dict[int, Row], metric: str, predictions: Predictions
) -> tuple[intervals.Estimate, str] | None:
    """a - b on the seeds that both have, and what the interval covers."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    left, right = [a[s] for s in seeds], [b[s] for s in seeds]
    x, y = (np.array([row[metric] for row in side]) for side in (left, right))
    samples, patients = predictions.samples([*left, *right], metric)
    if samples is None:
        found = intervals.paired(x, y)
    else:
        n = len(seeds)
        found = intervals.paired(x, y, samples[:, :n], samples[:, n:], patients)
        samples = samples[:, :n] - samples[:, n:]
    if found.method in ("draws", "crossed", "patients"):
        found = replace(found, p=intervals.t_test(x - y, samples, patients))
    return found, basis(found, patients)


def basis(found: intervals.Estimate, patients: int) -> str:
    """What the interval of an estimate covers, in words."""
    draws = f"{found.draws} draws"
    return {
        "t": f"t over {draws}"
        + (f" and {patients} test patients" if patients else ", no test patients"),
        "crossed": f"bootstrap over {draws} and {patients} test patients",
        "draws": f"bootstrap over {draws}, no test patients",
        "patients": f"bootstrap over {patients} test patients, one draw",
        "none": "one draw and no predictions: no interval",
    }[found.method]


def source(rows: Sequence[Row]) -> str:
    """The folders of a cell's runs, what they share said once."""
    folders = [row["folder"] for row in rows]
    if len(folders) == 1:
        return folders[0]
    shared = os.path.commonprefix(folders)
    return f"{shared}{{{', '.join(f[len(shared) :] for f in folders)}}}"


def interval(found: intervals.Estimate, digits: int = 3) -> str:
    """ "0.908 [0.878, 0.935]" """
    if not math.isfinite(found.low):
        return f"{found.value:.{digits}f}"
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
