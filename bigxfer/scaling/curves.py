"""Laws of error over scale for every line of a study, and where two lines cross.

The error is 1 - metric. A form is chosen by what it says about scales that it was not
fitted to (choose), if it describes the others as well, then fitted to all of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from bigxfer.scaling import bootstrap, crossover
from bigxfer.scaling.fit import Fit, Score, choose, draw_mean, fit
from bigxfer.scaling.forms import CURVES, M1, M2, Array, Form
from bigxfer.tables import cells, lines
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.table import Row

ALONG = {  # x -> the columns of runs on one line
    "shots": ("target", "model", "line"),
    "upstream_size": ("target", "model", "line", "shots"),
    "upstream_examples": ("target", "model", "line", "shots"),
    "params": ("target", "line", "shots"),
}
STARTS = 16  # benchmarks/coverage.py: 95% intervals cover with as many
REPLICATES = 500
TIE = 1.01  # misses so close are equal
FREEDOM = 2  # degrees; the t of one spans all errors
DRAWS = 1 + FREEDOM  # with fewer the scatter is judged by the residuals
LEAST = 3  # scales: two for the power law, one to hold out


@dataclass(frozen=True)
class Curve:
    """The runs of one line: scales x [k] ascending, or of a surface x [k, inputs];
    `runs` {seed: row} at each."""

    about: dict[str, Any]
    x: Array
    runs: list[dict[int, Row]]
    metric: str

    def errors(self, seeds: Sequence[int] = ()) -> Array:
        """[draws, k], NaN where a run is missing."""
        chosen = seeds or sorted(set().union(*self.runs))
        nan = {self.metric: np.nan}
        values = [[1 - r.get(s, nan)[self.metric] for r in self.runs] for s in chosen]
        return np.array(values, float)

    def resampled(self, predictions: PredictionReader) -> tuple[Array | None, int]:
        """(mean errors over draws [r, k] on the same resampled patients, how many)."""
        every = [row for runs in self.runs for row in runs.values()]
        samples, patients = predictions.samples(every, self.metric)
        if samples is None or not np.isfinite(samples).all():
            return None, 0
        ends = np.cumsum([len(runs) for runs in self.runs])[:-1]
        parts = [p.mean(1) for p in np.split(1 - samples, ends, axis=1)]
        return np.stack(parts, axis=1), patients


@dataclass
class Law:
    """What was fitted to a curve; `band` is None where nothing could be, and
    `reason` says why. `left_out` {form: why}."""

    curve: Curve
    scores: list[Score] = field(default_factory=list)
    fit: Fit | None = None
    band: bootstrap.Intervals | None = None
    cutoff: float = np.nan  # scales above it were held out to choose the form
    left_out: dict[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Crossing:
    """The scale from which line `a` is ahead of line `b` of the same target."""

    about: dict[str, Any]  # target, model, ...; not the line
    a: str
    b: str
    found: crossover.Crossover | None
    basis: str  # of the interval, or why there is none

    def sentence(self, unit: str) -> str:
        """What is known of the crossing, `unit` being that of the scale."""
        found = self.found
        if found is None:
            return f"{self.a} and {self.b}: no crossover, {self.basis}"
        first, last = (f"{end:,.4g}" for end in (found.x[0], found.x[-1]))
        low = f"{found.low:,.3g}" if found.low > 0 else f"below {first}"
        high = f"{found.high:,.3g}" if found.high < np.inf else f"above {last}"
        if found.measured:
            text = f"{self.a} overtakes {self.b} at {found.value:,.3g} {unit}"
        elif found.value == 0:
            text = f"not within the data: {self.a} is ahead of {self.b} throughout"
        else:
            text = f"not within the data: {self.a} and {self.b} end equal"
        end = f"95% interval {low} to {high}"
        if found.low == found.high:
            end = f"95% interval wholly outside {first} to {last}"
        return f"{text} ({end}; {found.inside:.0%} of replicates cross in between)"


def curves(rows: Sequence[Row], x: str, metric: str) -> tuple[list[Curve], list[str]]:
    """Every line with its errors over x, and notes on what was left out."""
    named, notes = lines.lines(rows, x)
    known = [row for row in named if scale(row, x) is not None]
    if missing := len(named) - len(known):
        why = "full data is no number of shots" if x == "shots" else f"no {x} is known"
        notes.append(
            f"{missing} of {len(named)} transfers are not on this axis: {why}."
        )
    found, left_out = grouped(known, ALONG[x], (x,), metric)
    return found, notes + left_out


def grouped(
    rows: Sequence[Row], fixed: Sequence[str], inputs: Sequence[str], metric: str
) -> tuple[list[Curve], list[str]]:
    """The runs by what is fixed, at their scales `inputs`; notes on what has none."""
    groups: dict[tuple, dict[tuple[float, ...], dict[int, Row]]] = {}
    zero, others = 0, 0
    for key, every in cells.group(rows, metric, *fixed, *inputs).items():
        first = min(source for source, _ in every)
        runs = {seed: row for (source, seed), row in every.items() if source == first}
        others += len(every) - len(runs)
        if not 1 - np.mean([row[metric] for row in runs.values()]) > 0:
            zero += 1
            continue
        place = tuple(map(float, key[len(fixed) :]))
        groups.setdefault(key[: len(fixed)], {})[place] = runs
    found = []
    for key, places in sorted(groups.items()):
        about = dict(zip(fixed, key, strict=True))
        x = np.array(sorted(places))
        runs = [places[p] for p in sorted(places)]
        found.append(Curve(about, x if len(inputs) > 1 else x[:, 0], runs, metric))
    notes = [f"{zero} cells without any error are left out: no law reaches 0."] * (
        zero > 0
    )
    if others:
        notes.append(
            f"{others} runs from further upstream seeds are left out: a law is of the first."
        )
    return found, notes


def scale(row: Row, x: str) -> float | None:
    """The place of a run along the column x; None where it has none."""
    value = row[x]
    if value is None or value == "full" or not float(value) > 0:
        return None
    return float(value)


def law(curve: Curve, predictions: PredictionReader) -> Law:
    """The form that extrapolates best, with its intervals; never an exception."""
    found, x = Law(curve), curve.x
    if len(x) < LEAST:
        found.reason = f"{len(x)} of the {LEAST} scales that a law needs"
        return found
    found.cutoff = cutoff(x)
    return settle(found, CURVES.values(), predictions)


def cutoff(scales: Array) -> float:
    """Above it scales are held out: the upper half, if that leaves two, or the last."""
    half = scales[-1] / 2
    return half if (scales <= half).sum() >= 2 else scales[-2]


def settle(
    found: Law, candidates: Iterable[Form], predictions: PredictionReader, axis: int = 0
) -> Law:
    """Chooses among the forms those above `found.cutoff` held out, and fits to all.

    `axis` is the input along which they are held out, where there are several.
    """
    x, y = found.curve.x, found.curve.errors()
    first = x if x.ndim == 1 else x[:, axis]
    below = len(np.unique(x[first <= found.cutoff], axis=0))
    forms = []
    for form in candidates:
        if len(form.parameters) <= below:
            forms.append(form)
            continue
        found.left_out[form.name] = (
            f"{len(form.parameters)} parameters, {below} scales up to {found.cutoff:g}"
        )
    if not forms:
        found.reason = f"{below} scales up to {found.cutoff:g} are too few for any law"
        return found
    several = len(y) >= DRAWS
    data = y if several else draw_mean(y)
    sigma = _sigma(x, y) if several else None
    scores = choose(forms, x, data, found.cutoff, axis=axis, sigma=sigma, starts=STARTS)
    found.scores = _best_first(scores)
    how = {"sigma": sigma, "starts": STARTS}
    found.fit = fit(found.scores[0].form, x, data, **how)
    if found.fit.form is M2 and found.fit.parameters["floor"] == 0:
        found.fit = fit(M1, x, data, **how)  # which it is without its floor
    if not several and len(x) < len(found.fit.theta) + FREEDOM:
        found.reason = (
            f"no interval: it takes {DRAWS} draws, or {FREEDOM} scales more than"
            " parameters"
        )
        return found
    resampled = found.curve.resampled(predictions)[0] if several else None
    if resampled is not None:
        resampled = resampled[:REPLICATES]
    found.band = bootstrap.bootstrap(
        found.fit, resampled=resampled, replicates=REPLICATES
    )
    return found


def _best_first(scores: list[Score]) -> list[Score]:
    """By the worse of the held-out and the in-sample miss, then by parameters.

    With one or two scales held out, a form that foretells them better than it describes
    those it was fitted to is lucky.
    """
    miss = {s.form.name: max(s.held_out, s.in_sample) for s in scores}
    enough = TIE * min(miss.values()) + 1e-12

    def key(s: Score) -> tuple[float, float]:
        good = miss[s.form.name] <= enough
        return (0, len(s.form.parameters)) if good else (1, miss[s.form.name])

    return sorted(scores, key=key)


def _sigma(x: Array, y: Array) -> Array:
    """Relative standard deviations [k] of y [draws, k], as a power of the scales."""
    mean = draw_mean(y)
    count = np.maximum(np.isfinite(y).sum(0), 2)
    squares = np.where(np.isfinite(y), (y - mean) ** 2, 0.0).sum(0)
    return bootstrap.smooth_sigma(
        x if x.ndim == 1 else x[:, :2], np.sqrt(squares / (count - 1)) / mean
    )


def crossings(found: Sequence[Curve], predictions: PredictionReader) -> list[Crossing]:
    """Every pair of lines of one target (and model, shots), on the seeds of both."""
    groups: dict[tuple, list[Curve]] = {}
    for curve in found:
        about = {k: v for k, v in curve.about.items() if k != "line"}
        groups.setdefault(tuple(about.items()), []).append(curve)
    return [
        crossing(a, b, predictions)
        for group in groups.values()
        for a, b in combinations(group, 2)
    ]


def crossing(a: Curve, b: Curve, predictions: PredictionReader) -> Crossing:
    """Where the line that leads at the largest common scale overtook the other."""
    about = {k: v for k, v in a.about.items() if k != "line"}
    a, b = _paired(a, b)
    names = a.about["line"], b.about["line"]
    if len(a.x) < 2:
        return Crossing(about, *names, None, "fewer than two scales in common")
    if np.nanmean(a.errors()[:, -1]) > np.nanmean(b.errors()[:, -1]):
        a, b, names = b, a, names[::-1]
    both = np.stack([a.errors(), b.errors()], axis=1)  # [draws, 2, k]
    both_runs = [*a.runs, *b.runs]
    joint = Curve({}, np.tile(a.x, 2), both_runs, a.metric)
    resampled, patients = joint.resampled(predictions)
    draws = len(both)
    if draws < 2 and resampled is None:
        return Crossing(about, *names, None, "one draw and no predictions")
    point = draw_mean(both)[None]
    if resampled is None:
        sample = np.broadcast_to(point, (2000, *point.shape[1:]))
    else:
        sample = resampled.reshape(len(resampled), 2, -1)
    words = f"{draws} draws" if draws > 1 else "one draw"
    if draws > 1:
        rng = np.random.default_rng([0, 1])
        sample = sample + bootstrap.t_deviations(both, len(sample), rng)
    words += f" and {patients} test patients" if patients else ", no test patients"
    path = np.concatenate([point, sample])
    result = crossover.from_replicates(a.x, path[:, 0], path[:, 1])
    return Crossing(about, *names, result, words)


def _paired(a: Curve, b: Curve) -> tuple[Curve, Curve]:
    """Both at the scales and, at each, the seeds that both have."""
    left, right = (dict(zip(c.x, c.runs, strict=True)) for c in (a, b))
    x, runs = [], ([], [])
    for scale in sorted(left.keys() & right.keys()):
        if seeds := left[scale].keys() & right[scale].keys():
            x.append(scale)
            for side, out in zip((left, right), runs, strict=True):
                out.append({s: side[scale][s] for s in sorted(seeds)})
    return (
        Curve(a.about, np.array(x), runs[0], a.metric),
        Curve(b.about, np.array(x), runs[1], b.metric),
    )
