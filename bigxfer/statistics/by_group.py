"""Metrics within groups of patients and images (sex, age, site, view), and their gaps.

`test` holds the fields of runs.predictions.Predictions by name, as in by_source.py. Groups
are compared on what all of them can be judged by: the macro AUROC is the mean over the
classes that have LEAST patients with and LEAST without in every group that has any such class.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used: not while training

from bigxfer.statistics import auroc, limits, metrics
from bigxfer.statistics.limits import LEAST, Score, Z
from bigxfer.tree import Tree

FACTORS = {"sex": "sexes", "age": "ages", "site": "sources", "view": "views"}
BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, math.inf))  # years, [from, to)
NONE = {"value": None, "low": None, "high": None}
MOST = 8  # groups of a factor, the largest: hundreds of sites would fill the page


def judge(test: Tree) -> dict[str, Any]:
    """{factor: {"classes", "groups", "gaps"}} of each factor with two known groups or more.

    "groups": {name: {"images", "patients", "metrics"}}, the metrics as Score.entry holds
    them: auroc_macro over "classes", auroc/CLASS and, of single-label sets, accuracy. Where
    a group has fewer than LEAST patients with or without a label there is no value, but the
    reason. "gaps": {metric: what `gap` returns}. "left_out": groups beyond MOST, if any.
    """
    out = {}
    for factor, column in FACTORS.items():
        values = test.get(column)
        if values is None:
            continue
        values = bands(values) if factor == "age" else values
        names, counts = np.unique(values[values != ""], return_counts=True)
        if len(names) < 2:
            continue
        names = names[np.argsort(-counts, kind="stable")]
        result = compared(test, values, sorted(names[:MOST].tolist()))
        out[factor] = result | (
            {"left_out": len(names) - MOST} if len(names) > MOST else {}
        )
    return out


def bands(ages: np.ndarray) -> np.ndarray:
    """str [n]: "40-59" of the age "57"; "" where it is unknown."""
    out = np.full(len(ages), "", object)
    known = np.flatnonzero(ages != "")
    years = ages[known].astype(float)
    for low, high in BANDS:
        name = f"{low}+" if high == math.inf else f"{low}-{high - 1}"
        out[known[(years >= low) & (years < high)]] = name
    return out.astype(str)


def compared(test: Tree, values: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """{"classes", "groups", "gaps"} of the images whose value is one of these names."""
    classes = list(map(str, test["classes"]))
    rows_of = {name: values == name for name in names}
    lacks = {name: lacking(test, rows, classes) for name, rows in rows_of.items()}
    # A group that lacks every class has no say, or there would be none to share.
    judged = [name for name in names if len(lacks[name]) < len(classes)]
    shared = [c for c in classes if not any(c in lacks[name] for name in judged)]
    scores = {
        name: group_scores(test, rows, classes, lacks[name], shared)
        for name, rows in rows_of.items()
    }
    people = {name: np.unique(test["patients"][rows]) for name, rows in rows_of.items()}
    every = dict.fromkeys(metric for group in scores.values() for metric in group)
    return {
        "classes": shared,
        "groups": {
            name: {
                "images": int(rows.sum()),
                "patients": len(people[name]),
                "metrics": entries(scores[name]),
            }
            for name, rows in rows_of.items()
        },
        "gaps": {metric: gap(metric, scores, people) for metric in every},
    }


def lacking(test: Tree, rows: np.ndarray, classes: Sequence[str]) -> dict[str, str]:
    """{class: why it has no AUROC among these images (bool [n])}."""
    truth, patients = (
        auroc.one_hot(test["labels"][rows], len(classes)),
        test["patients"][rows],
    )
    out = {}
    for i, name in enumerate(classes):
        for word, value in (("with", 1), ("without", 0)):
            # Patients, not images: ten films of one patient say one thing.
            count = len(set(patients[truth[:, i] == value]))
            if count < LEAST and name not in out:
                out[name] = f"{count} patients {word} {name}; {LEAST} are needed"
    return out


def group_scores(
    test: Tree,
    rows: np.ndarray,
    classes: Sequence[str],
    lacks: dict[str, str],
    shared: Sequence[str],
) -> dict[str, Score]:
    """{metric: Score} of the images `rows` (bool [n]); NaN and the reason where it lacks."""
    labels, logits, patients = (
        test[name][rows] for name in ("labels", "logits", "patients")
    )
    whole = metrics.scores(labels, logits, classes, patients)
    out = {}
    if not shared or len(lacks) == len(classes):
        why = next(
            iter(lacks.values()), "the groups share no class that has enough patients"
        )
        out["auroc_macro"] = Score(math.nan, reason=why)
    else:
        # The same classes in each group: the means are then of one thing.
        out["auroc_macro"] = limits.average([whole[f"auroc/{name}"] for name in shared])
    for name in classes:
        no = Score(math.nan, reason=lacks.get(name, ""))
        out[f"auroc/{name}"] = no if name in lacks else whole[f"auroc/{name}"]
    if test["labels"].ndim == 1:
        count = len(set(patients))
        few = Score(math.nan, reason=f"{count} patients; {LEAST} are needed")
        out["accuracy"] = whole["accuracy"] if count >= LEAST else few
    return out


def gap(
    metric: str, scores: dict[str, dict[str, Score]], people: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The largest difference of a metric between two groups.

    {"value", "low", "high", "of": [higher, lower], "pairs"}, or a null value and a "reason".
    The interval is simultaneous (Bonferroni) over all pairs: the largest was picked.
    """
    known = {
        name: group[metric]
        for name, group in scores.items()
        if np.isfinite(group[metric].low)
    }
    if len(known) < 2:
        return NONE | {"reason": "fewer than two groups have a value with an interval"}
    # Of all pairs: the largest gap of many groups is large by chance alone.
    pairs = len(list(combinations(known, 2)))
    first = max(known, key=lambda name: known[name].value)
    last = min(known, key=lambda name: known[name].value)
    ends = difference(known[first], people[first], known[last], people[last], pairs)
    return {**ends, "of": [first, last], "pairs": pairs}


def difference(
    a: Score, a_people: np.ndarray, b: Score, b_people: np.ndarray, pairs: int = 1
) -> dict[str, float]:
    """{"value", "low", "high"} of a - b, metrics of these patients (sorted str).

    MOVER (Zou and Donner 2008, Statistics in Medicine 27:1693): distances to the limits add
    as standard deviations do, with the correlation that patients in both make. For one of
    several `pairs` the distances are widened by the quotient of the normal quantiles.
    """
    wider = float(scipy.special.ndtri(1 - 0.025 / pairs)) / Z
    # Above 0 where patients are in both: their difficulty cancels in a difference.
    r = correlation(a, a_people, b, b_people)
    down, up = (
        # rounding may leave a square of 0 a little below 0
        wider * math.sqrt(max(x**2 + y**2 - 2 * r * x * y, 0.0))
        for x, y in (
            (a.value - a.low, b.high - b.value),
            (a.high - a.value, b.value - b.low),
        )
    )
    value = a.value - b.value
    return {
        "value": value,
        "low": max(value - down, -1.0),
        "high": min(value + up, 1.0),
    }


def against(other: Tree, own: Tree) -> dict[str, Any]:
    """How a model does on another set than its own test split: see `judge` for the parts.

    {"images", "patients", "shared_patients", "classes", "metrics", "own", "gaps"}: the
    metrics of the other set, those of the own one over the same classes, and other - own,
    which is paired over the patients that are in both.
    """
    classes = list(map(str, own["classes"]))
    sets = {"other": other, "own": own}
    every = {name: np.ones(len(test["labels"]), bool) for name, test in sets.items()}
    lacks = {name: lacking(test, every[name], classes) for name, test in sets.items()}
    shared = [c for c in classes if not any(c in lack for lack in lacks.values())]
    scores = {
        name: group_scores(test, every[name], classes, lacks[name], shared)
        for name, test in sets.items()
    }
    people = {name: np.unique(test["patients"]) for name, test in sets.items()}
    gaps: dict[str, dict[str, Any]] = {}
    for metric, score in scores["other"].items():
        if np.isfinite(score.low) and np.isfinite(scores["own"][metric].low):
            gaps[metric] = difference(
                score, people["other"], scores["own"][metric], people["own"]
            )
        else:
            why = score.reason or scores["own"][metric].reason
            gaps[metric] = NONE | {"reason": why}
    return {
        "images": len(other["labels"]),
        "patients": len(people["other"]),
        "shared_patients": len(np.intersect1d(people["other"], people["own"])),
        "classes": shared,
        "metrics": entries(scores["other"]),
        "own": entries(scores["own"]),
        "gaps": gaps,
    }


def entries(scores: dict[str, Score]) -> dict[str, Any]:
    """Metrics as result.json holds them."""
    return {name: score.entry(score.reason) for name, score in scores.items()}


def correlation(
    a: Score, a_people: np.ndarray, b: Score, b_people: np.ndarray
) -> float:
    """Of two metrics whose influences are summed within these patients (sorted str)."""
    if a.sums is None or b.sums is None:
        return 0.0
    both, i, j = np.intersect1d(a_people, b_people, return_indices=True)
    # Over all patients of each: those in one set alone add variance, and no covariance.
    size = math.sqrt((a.sums**2).sum() * (b.sums**2).sum())
    return float(a.sums[i] @ b.sums[j]) / size if len(both) and size else 0.0
