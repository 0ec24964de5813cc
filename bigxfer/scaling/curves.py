"""Laws of error over scale for every line of a study.

The error is 1 - metric. From LEAST scales on a form is chosen by what it says about
scales that it was not fitted to, then fitted to all of them. Fewer scales have a slope.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigxfer.scaling import bootstrap, reach, trend
from bigxfer.scaling.choice import Score, choose
from bigxfer.scaling.fit import Fit, fit
from bigxfer.scaling.forecast import STARTS, Forecast, forecast
from bigxfer.scaling.forms import CURVES, Array, Form
from bigxfer.scaling.reach import Reach
from bigxfer.scaling.scatter import Scatter, scatter
from bigxfer.tables import cells, differences, estimates, lines
from bigxfer.tables.cells import PredictionReader, Runs
from bigxfer.tables.table import Row

ALONG = {  # x -> the columns of runs on one line
    "shots": ("target", "model", "line"),
    "upstream_size": ("target", "model", "line", "shots"),
    "upstream_examples": ("target", "model", "line", "shots"),
    "params": ("target", "line", "shots"),
}
REPLICATES = cells.RESAMPLES
LEAST = 6  # scales of a forecast: with three its 95% band covers .02 to .55


@dataclass(frozen=True)
class Curve:
    """The runs of one line: scales x [k] ascending, or of a surface x [k, inputs];
    `runs` {(upstream seed, seed): row} at each."""

    about: dict[str, Any]
    x: Array
    runs: list[Runs]
    metric: str

    @property
    def rows(self) -> list[Row]:
        return [row for runs in self.runs for row in runs.values()]

    def errors(self) -> Array:
        """[upstream seeds, draws, k], NaN where a run is missing.

        At full data no draw is shared: the fine-tunings of an upstream seed are one, or,
        of a single upstream, stand for draws.
        """
        sources = sorted({source for runs in self.runs for source, _ in runs})
        draws = sorted({draw for runs in self.runs for _, draw in runs})
        out = np.full((len(sources), len(draws), len(self.runs)), np.nan)
        for k, runs in enumerate(self.runs):
            for (source, draw), row in runs.items():
                place = sources.index(source), draws.index(draw), k
                out[place] = 1 - row[self.metric]
        if len(sources) == 1 or estimates.drawn(self.rows):
            return out
        count = np.isfinite(out).sum(1, keepdims=True)
        total = np.nansum(out, axis=1, keepdims=True)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def scatter(self, predictions: PredictionReader) -> Scatter:
        """Replicates of the mean errors, over what the runs vary in."""
        errors = self.errors()
        # Half a count for a run without any error: its logarithm must be finite.
        least = np.nanmin(np.where(errors > 0, errors, np.nan), initial=1.0)
        images = [next(iter(runs.values())).get("test_images") for runs in self.runs]
        half = np.array([0.5 / n if n else least / 2 for n in images])
        samples, patients = predictions.samples(self.rows, self.metric)
        resampled = None
        if samples is not None and np.isfinite(samples).all():
            ends = np.cumsum([len(runs) for runs in self.runs])[:-1]
            by_scale = np.split(1 - samples[:REPLICATES], ends, axis=1)
            # The same resampled patients at every scale: their errors move together.
            resampled = np.stack([runs.mean(1) for runs in by_scale], axis=1)
        scattered = scatter(self.x, errors, half, REPLICATES, resampled)
        tested = f" and {patients} test patients"
        if resampled is None:
            tested = "; the choice of test patients is not covered"
        words = scattered.words + tested * (scattered.curves is not None)
        return Scatter(scattered.mean, scattered.sigma, scattered.curves, words)


@dataclass
class Law:
    """What was fitted to a curve; `band` is None where nothing could be, and
    `reason` says why. `left_out` {form: why}.

    `slope` (value, low, high) is the power by which the error falls. `flat` is the
    margin within which all scales have equal errors, or None: that is not shown.
    """

    curve: Curve
    scores: list[Score] = field(default_factory=list)
    fit: Fit | None = None
    band: Forecast | bootstrap.Intervals | None = None
    cutoff: float = np.nan  # scales above it were held out to choose the form
    left_out: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    scatter: Scatter | None = None
    slope: tuple[float, float, float] | None = None
    flat: float | None = None

    @property
    def words(self) -> str:
        """What the interval covers."""
        return self.scatter.words if self.scatter else ""

    def leave_out(self, form: Form, below: int) -> None:
        """Note that a form has too many parameters for `below` scales up to the cutoff."""
        why = f"{len(form.parameters)} parameters, {below} scales up to {self.cutoff:g}"
        self.left_out[form.name] = why

    def reach(self, error: float) -> Reach | None:
        """The scale that reaches an error; None where nothing says how sure that is."""
        if isinstance(self.band, Forecast):
            return reach.beyond(self.curve.x, self.band, error)
        if self.scatter is None or self.curve.x.ndim > 1:
            return None
        return reach.within(self.curve.x, self.scatter, error)


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
    groups: dict[tuple, dict[tuple[float, ...], Runs]] = {}
    for key, runs in cells.group(rows, metric, *fixed, *inputs).items():
        place = tuple(map(float, key[len(fixed) :]))
        groups.setdefault(key[: len(fixed)], {})[place] = runs
    lines_found, perfect = [], 0
    for key, places in sorted(groups.items()):
        about = dict(zip(fixed, key, strict=True))
        x = np.array(sorted(places))
        runs = [places[p] for p in sorted(places)]
        perfect += sum(all(r[metric] >= 1 for r in cell.values()) for cell in runs)
        curve = Curve(about, x if len(inputs) > 1 else x[:, 0], runs, metric)
        lines_found.append(curve)
    note = (
        f"{perfect} cells without any error count as half an error: no law reaches 0."
    )
    return lines_found, [note] * bool(perfect)


def scale(row: Row, x: str) -> float | None:
    """The place of a run along the column x; None where it has none."""
    value = row[x]
    if value is None or value == "full" or not float(value) > 0:
        return None
    return float(value)


def law(curve: Curve, predictions: PredictionReader) -> Law:
    """The slope, and from LEAST scales on a forecast; never an exception."""
    found, x = Law(curve), curve.x
    if len(x) < 2:
        found.reason = "one scale"
        return found
    if not np.nanmax(curve.errors()) > 0:
        found.reason = "no error at any scale"
        return found
    found.scatter = curve.scatter(predictions)
    # Below LEAST scales too: a slope needs no law.
    found.slope = trend.slope(x, found.scatter)
    found.flat = trend.flat(found.scatter, differences.margin_of(curve.rows))
    if len(x) < LEAST:
        found.reason = f"{len(x)} of the {LEAST} scales that a forecast needs"
    # Every form falls: fitted to errors that rise it would be a flat line with a band.
    elif risen := trend.rises(x, found.scatter, found.slope):
        found.reason = f"no falling law: {risen}"
    else:
        found.cutoff = cutoff(x)
        _foretell(found)
    return found


def _foretell(found: Law) -> None:
    """Chooses a form and its band, in place."""
    x, scattered = found.curve.x, found.scatter
    below = int((x <= found.cutoff).sum())
    # Fewer parameters than scales, so that something is left to miss.
    forms = [f for f in CURVES.values() if len(f.parameters) < below]
    for form in CURVES.values():
        if form not in forms:
            found.leave_out(form, below)
    assert scattered is not None
    if scattered.curves is None:  # one draw: the scatter about a law stands for more
        found.scores = choose(forms, x, scattered.mean, found.cutoff, starts=STARTS)
        found.fit = fit(found.scores[0].form, x, scattered.mean, starts=STARTS)
        if len(x) < len(found.fit.theta) + trend.FREEDOM:
            found.reason = (
                f"no interval: it takes 3 draws, or {trend.FREEDOM} scales more"
            )
            found.reason += " than parameters"
            return
        rng = np.random.default_rng([0, 1])
        replicates = bootstrap.around(found.fit, REPLICATES, rng)
        words = "the scatter of the scales about the law"
        sigma = np.ones(len(x))
        scattered = found.scatter = Scatter(scattered.mean, sigma, replicates, words)
    prediction = forecast(forms, x, scattered, found.cutoff)
    found.band, found.fit, found.scores = prediction, prediction.fit, prediction.scores


def cutoff(scales: Array) -> float:
    """Above it scales are held out: the largest third, and one at least."""
    return float(scales[-1 - max(1, len(scales) // 3)])
