"""Laws of error over two scales at once: joint L(N, D), and Mikami's two-way law.

A surface is all runs of one target and line (cells.lines) at several values of both
scales. Where the study varies the domain of the upstream, the two-way law is fitted
across domains too, with the distance between upstream and target as a covariate: kappa
above 0 says that distant domains transfer worse however many images they have.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bigxfer.scaling import bootstrap, curves, trend
from bigxfer.scaling.choice import choose
from bigxfer.scaling.curves import REPLICATES, Curve, Law
from bigxfer.scaling.fit import fit
from bigxfer.scaling.forecast import STARTS, STEPS
from bigxfer.scaling.forms import JOINT, TWO_WAY, TWO_WAY_DISTANCE, TWO_WAY_FLOOR, Form
from bigxfer.tables import lines
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.table import Row

FORMS: dict[tuple[str, str], tuple[Form, ...]] = {  # the two scales -> laws to try
    ("params", "shots"): (JOINT,),
    ("params", "upstream_size"): (JOINT,),
    ("params", "upstream_examples"): (JOINT,),
    ("upstream_size", "shots"): (TWO_WAY, TWO_WAY_FLOOR),
}
FIXED = {  # the two scales -> the columns that all runs of a surface share
    ("params", "shots"): ("target", "line"),
    ("params", "upstream_size"): ("target", "line", "shots"),
    ("params", "upstream_examples"): ("target", "line", "shots"),
    ("upstream_size", "shots"): ("target", "model", "line"),
}

LEAST = 3  # values of a scale: two to fit, one to hold out

Distances = dict[tuple[str, str], float]  # {(upstream, target): distance}


def read_distances(path: Path) -> Distances:
    """A CSV with the columns upstream, target, distance; ValueError names the row."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        wanted = ["upstream", "target", "distance"]
        if missing := [c for c in wanted if c not in (reader.fieldnames or [])]:
            raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
        distances: Distances = {}
        for row in reader:
            try:
                distance = float(row["distance"])
            except (TypeError, ValueError):
                distance = np.nan
            if not np.isfinite(distance):
                line = f"{path}, line {reader.line_num}"
                raise ValueError(f"{line}: distance {row['distance']!r} is no number")
            distances[row["upstream"], row["target"]] = distance
    return distances


def distance(row: Row, known: Distances) -> float | None:
    """Of the run's upstream from its target: as given, or the phantom's own."""
    given = known.get((row["upstream"], row["target"]))
    ends = row["upstream_distance"], row["target_distance"]
    if given is None and ends[0] is not None and ends[1] is not None:
        return abs(ends[0] - ends[1])
    return given


def fitted(
    rows: Sequence[Row],
    scales: tuple[str, str],
    metric: str,
    predictions: PredictionReader,
    known: Distances,
) -> tuple[list[Law], list[str]]:
    """A law for every surface, and notes on what was left out."""
    named, notes = lines.lines(rows, *scales)
    on = [r for r in named if all(curves.scale(r, s) is not None for s in scales)]
    if missing := len(named) - len(on):
        notes.append(f"{missing} of {len(named)} transfers lack {' or '.join(scales)}.")
    fixed = FIXED[scales]
    groups, left_out = curves.grouped(on, fixed, scales, metric)
    notes += left_out
    laws = [law(curve, FORMS[scales], predictions) for curve in groups]
    if scales == ("upstream_size", "shots"):
        far = []
        for row in on:
            if (d := distance(row, known)) is not None:
                variant = row["line"].removeprefix(row["upstream"])
                # Without the upstream's name and family: its distance stands for them.
                name = f"all upstreams{variant}"
                far.append(row | {"line": name, "distance": d, "family": ""})
        try:
            pooled, _ = curves.grouped(far, fixed, (*scales, "distance"), metric)
        except ValueError as error:  # two upstreams of one size at one distance
            return laws, [*notes, f"No law over the distance: {error}"]
        for curve in pooled:
            # One distance tells nothing of kappa.
            if len(np.unique(curve.x[:, 2])) > 1:
                laws.append(law(curve, (TWO_WAY_DISTANCE,), predictions))
    return laws, notes


def law(curve: Curve, forms: Iterable[Form], predictions: PredictionReader) -> Law:
    """Held out is the upper part of the first scale that has LEAST values."""
    found = Law(curve)
    values = [np.unique(column) for column in curve.x[:, :2].T]
    axis = next((k for k, v in enumerate(values) if len(v) >= LEAST), None)
    if axis is None or min(map(len, values)) < 2:
        have = " and ".join(str(len(v)) for v in values)
        found.reason = f"{have} values of the scales: it takes 2 and {LEAST} or more"
        return found
    found.cutoff = curves.cutoff(values[axis])
    return settle(found, forms, predictions, axis)


def settle(
    law: Law, candidates: Iterable[Form], predictions: PredictionReader, axis: int
) -> Law:
    """Chooses among the laws of a surface those above `law.cutoff` held out along the
    input `axis`, and fits to all; the intervals are of parameters, not of a forecast."""
    x, scattered = law.curve.x, law.curve.scatter(predictions)
    law.scatter = scattered
    below = len(np.unique(x[x[:, axis] <= law.cutoff], axis=0))
    forms = []
    for form in candidates:
        if len(form.parameters) <= below:
            forms.append(form)
        else:
            law.leave_out(form, below)
    if not forms:
        law.reason = f"{below} scales up to {law.cutoff:g} are too few for any law"
        return law
    mean, how = scattered.mean, {"sigma": scattered.sigma, "starts": STARTS}
    law.scores = choose(forms, x, mean, law.cutoff, axis=axis, **how)
    law.fit = fit(law.scores[0].form, x, mean, **how)
    curves_of = scattered.curves
    if curves_of is None:
        if len(x) < len(law.fit.theta) + trend.FREEDOM:
            law.reason = (
                f"no interval: it takes 3 draws, or {trend.FREEDOM} scales more"
            )
            law.reason += " than parameters"
            return law
        curves_of = bootstrap.around(law.fit, REPLICATES, np.random.default_rng(0))
    theta = bootstrap.refit(law.fit, curves_of, iterations=2 * STEPS)
    law.band = bootstrap.Intervals(law.fit, theta, scattered.words)
    return law
