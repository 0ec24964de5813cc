"""Simulated single runs: the limits of their metrics over test patients.

A setting is a kind of test set, its patients, images a patient and the net's skill. All
images are drawn anew in each simulation. The images of a patient share 0.6 of the
variance of a logit. The truth is the metric of 300,000 images, each of its own patient;
sensitivity and specificity, whose threshold a validation set of 100 patients fixes, have
theirs from the normal distribution.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from scipy.stats import norm

from bigxfer.statistics import auroc, influence, limits, metrics, operating_point
from bigxfer.statistics.influence import Patients

ALIKE = 0.6  # share of the variance of a logit that the images of a patient share
LARGE = 300_000
SCALE = 1.3  # of the logits, which are a little too sure
SKILLS = (0.3, 1.2, 2.1, 3.0)  # AUROC .60, .86, .97, .998 with one class an image
PREVALENCES = (0.5, 0.35, 0.25)  # of the findings of the multi-label set
SOFTMAX = ("auroc/c0", "auroc_macro", "auroc_micro", "accuracy", "balanced_accuracy")
SOFTMAX += ("loss", "brier")
SIGMOID = tuple(n for n in SOFTMAX if n != "accuracy")

Data = tuple[np.ndarray, np.ndarray, list[str], np.ndarray]


def noise(rng: np.random.Generator, patients: int, images: int, k: int) -> np.ndarray:
    """Normal [patients * images, k] of variance 1, alike within patients."""
    own = rng.normal(size=(patients * images, k))
    if images == 1:
        return own
    common = np.repeat(rng.normal(size=(patients, k)), images, axis=0)
    return np.sqrt(ALIKE) * common + np.sqrt(1 - ALIKE) * own


def softmax(rng: np.random.Generator, patients: int, images: int, skill: float) -> Data:
    """Three classes, equally frequent; a patient has one class."""
    labels = np.repeat(rng.integers(0, 3, patients), images)
    logits = noise(rng, patients, images, 3) + skill * np.eye(3)[labels]
    ids = np.repeat(np.arange(patients), images)
    return labels, SCALE * logits, ["c0", "c1", "c2"], ids


def sigmoid(rng: np.random.Generator, patients: int, images: int, skill: float) -> Data:
    """Three findings of PREVALENCES, 5% of their labels unknown."""
    there = np.repeat(rng.random((patients, 3)) < PREVALENCES, images, axis=0)
    logits = noise(rng, patients, images, 3) + skill * (there - 0.5)
    labels = np.where(rng.random(there.shape) < 0.05, np.nan, there.astype(float))
    ids = np.repeat(np.arange(patients), images)
    return labels, SCALE * logits, ["c0", "c1", "c2"], ids


def binary(
    rng: np.random.Generator, patients: int, images: int, skill: float
) -> tuple[np.ndarray, np.ndarray]:
    """(labels, logits) of two classes, 30% positive; log-odds are skill (y - 1/2) + noise."""
    labels = np.repeat((rng.random(patients) < 0.3).astype(int), images)
    odds = skill * (labels - 0.5) + noise(rng, patients, images, 1)[:, 0]
    return labels, np.stack([0 * odds, odds], axis=1)


Simulation = Callable[[int], dict[str, dict]]


def settings() -> Iterator[tuple[str, str, Simulation]]:
    """(kind, setting, simulation) of every row; a simulation gives {metric: row}."""
    for images, patients, skill in itertools.product((1, 4), (50, 100, 300), SKILLS):
        where = f"{patients} patients, {images} images each, skill {skill}"
        size = patients, images, skill
        yield "run, one class", where, _limits(softmax, SOFTMAX, size)
        yield "run, multi-label", where, _limits(sigmoid, SIGMOID, size)
        yield "run, operating point", where, _operating_point(size)
        yield "run, one class", f"precision, {where}", _precision(softmax, size)
        yield "run, multi-label", f"precision, {where}", _precision(sigmoid, size)


def _limits(draw: Callable, names: tuple[str, ...], size: tuple) -> Simulation:
    patients, images, skill = size

    def simulate(simulations: int) -> dict[str, dict]:
        whole = truths(draw, skill)
        rng = np.random.default_rng([patients, images, round(10 * skill)])
        ends: dict[str, list] = {name: [] for name in names}
        for _ in range(simulations):
            scores = metrics.scores(*draw(rng, patients, images, skill))
            for name in names:
                ends[name].append((scores[name].low, scores[name].high))
        return {name: row(ends[name], whole[name]) for name in names}

    return simulate


def _precision(draw: Callable, size: tuple) -> Simulation:
    """Average precision of one class, and its mean over the classes, alone."""
    patients, images, skill = size

    def simulate(simulations: int) -> dict[str, dict]:
        whole = truths(draw, skill)
        rng = np.random.default_rng([patients, images, round(10 * skill), 1])
        ends: dict[str, list] = {"auprc/c0": [], "auprc_macro": []}
        for _ in range(simulations):
            labels, logits, names, ids = draw(rng, patients, images, skill)
            truth, people = auroc.one_hot(labels, len(names)), Patients.of(ids)
            scores = []
            for y, odds in zip(truth.T, auroc.log_odds(labels, logits).T):
                value = auroc.rank(y, odds).areas(np.ones((1, len(y))))[1][0]
                effect = influence.of_precision(y, odds)
                scores.append(limits.precision(float(value), effect, y, people))
            for name, score in zip(ends, (scores[0], limits.average(scores))):
                ends[name].append((score.low, score.high))
        return {name: row(ends[name], whole[name]) for name in ends}

    return simulate


@cache
def truths(draw: Callable, skill: float) -> dict[str, float]:
    """{metric: its value on LARGE images}."""
    many = draw(np.random.default_rng(9), LARGE, 1, skill)
    found = metrics.compute(*many, limits=False)["metrics"]
    return {name: entry["value"] for name, entry in found.items()}


def _operating_point(size: tuple) -> Simulation:
    """Sensitivity and specificity of the positive class."""
    patients, images, skill = size

    def simulate(simulations: int) -> dict[str, dict]:
        rng = np.random.default_rng([patients, images, round(10 * skill)])
        ends: dict[str, list] = {"sensitivity": [], "specificity": []}
        truths: dict[str, list] = {"sensitivity": [], "specificity": []}
        for _ in range(simulations):
            known = binary(rng, 100, 1, skill)
            new = binary(rng, patients, images, skill)
            ids = np.repeat(np.arange(patients), images)
            judged = operating_point.judge(*known, *new, ["no", "yes"], ids)["yes"]
            at = judged["log_odds"]
            truths["sensitivity"].append(norm.sf(at - skill / 2))
            truths["specificity"].append(norm.cdf(at + skill / 2))
            for name, kept in ends.items():
                score = judged[name]
                limits = score["low"], score["high"]
                kept.append([np.nan if x is None else x for x in limits])
        return {name: row(ends[name], np.array(truths[name])) for name in ends}

    return simulate


def row(ends: list, truth: float | np.ndarray) -> dict:
    """What is kept of simulated limits; those that were not given do not count."""
    low, high = np.array(ends, float).T
    given = np.isfinite(low)
    inside = (low <= truth) & (truth <= high)
    return {
        "truth": round(float(np.mean(truth)), 4),
        "coverage": round(float(inside[given].mean()), 4) if given.any() else None,
        "width": round(float(np.median((high - low)[given])), 4) if given.any() else 0,
        "simulations": int(given.sum()),
    }
