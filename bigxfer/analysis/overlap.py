"""How much two classes have in common: in the labels, to the net, in its features.

Lo & Elezabi wished to know how far the signs of COVID-19 overlap with those of other
infections (S003-q-overlap). A net cannot say what a disease is; it can say what of
one class's evidence it takes for another's, on these images, with their shortcuts.

Classes are columns of `truth`, float [n, k] of 0, 1, NaN (unknown), one row an image;
matrices are [k, k], and every function of weights [r, n] gives [r, k, k].

`analyze --what overlap` writes overlap.*.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer.analysis import features, plots
from bigxfer.data import shortcuts
from bigxfer.runs.finished import WithData
from bigxfer.statistics import auroc, calibration, intervals
from bigxfer.statistics.limits import LEAST

Matrices = Callable[[np.ndarray], np.ndarray]  # weights [r, n] -> [r, k, k]
RESAMPLES = 500


def by_patient(truth: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """[patients, k]: 1 where any of a patient's images shows it, NaN if none says."""
    _, which = np.unique(patients.astype(str), return_inverse=True)
    out = np.full((which.max() + 1, truth.shape[1]), np.nan)
    for i, row in zip(which, truth, strict=True):
        # fmax passes over NaN: one image that tells is enough.
        out[i] = np.fmax(out[i], row)
    return out


def co_occurrence(truth: np.ndarray) -> Matrices:
    """Phi, the correlation of two labels, over rows where both are known.

    NaN where one of the two does not vary.
    """
    known = np.isfinite(truth).astype(float)
    y = np.where(known > 0, truth, 0)

    def statistic(w: np.ndarray) -> np.ndarray:
        both, n = (np.einsum("rn,ni,nj->rij", w, a, a) for a in (y, known))
        first = np.einsum("rn,ni,nj->rij", w, y, known)
        second = first.transpose(0, 2, 1)
        above = n * both - first * second
        below = first * (n - first) * second * (n - second)
        # Rounding can bring a variance of 0 below it.
        return auroc.ratio(above, np.sqrt(np.maximum(below, 0)))

    return statistic


def mistaken(truth: np.ndarray, p: np.ndarray) -> Matrices:
    """[i, j]: the mean probability of class j on images that show i but not j.

    The diagonal is that of i on images that show i.
    """
    shown = truth == 1

    def statistic(w: np.ndarray) -> np.ndarray:
        k = truth.shape[1]
        out = np.full((len(w), k, k), np.nan)
        for i, j in np.ndindex(k, k):
            here = shown[:, i] & ((truth[:, j] == 0) | (i == j))
            out[:, i, j] = auroc.ratio(w @ (p[:, j] * here), w @ here.astype(float))
        return out

    return statistic


def agreement(logits: np.ndarray, truth: np.ndarray) -> Matrices:
    """[i, j]: correlation of two logits over images that show neither class.

    So it is not the labels that correlate but what the net takes for either.
    """
    # Centred over the classes, whose common part softmax does not see: only where every
    # image has exactly one class, so where softmax was used.
    x = logits - logits.mean(axis=1, keepdims=True) * (truth.sum(axis=1) == 1).all()

    def statistic(w: np.ndarray) -> np.ndarray:
        k = truth.shape[1]
        out = np.full((len(w), k, k), np.nan)
        for i, j in np.ndindex(k, k):
            v = w * ((truth[:, i] == 0) & (truth[:, j] == 0))
            total = v.sum(axis=1)
            a, b = x[:, i], x[:, j]
            mean_a, mean_b = auroc.ratio(v @ a, total), auroc.ratio(v @ b, total)
            cov = auroc.ratio(v @ (a * b), total) - mean_a * mean_b
            var_a = auroc.ratio(v @ a**2, total) - mean_a**2
            var_b = auroc.ratio(v @ b**2, total) - mean_b**2
            below = np.sqrt(np.maximum(var_a, 0) * np.maximum(var_b, 0))
            out[:, i, j] = auroc.ratio(cov, below)
        return out

    return statistic


def shared(
    features: np.ndarray, truth: np.ndarray, others: np.ndarray, theirs: np.ndarray
) -> Matrices:
    """[i, j]: AUROC of what tells class i, where it has to tell class j.

    features [m, f] and truth [m, k] are what probes are fitted to (logistic regression
    of images that show i but not j against those that show neither), others [n, f] and
    theirs [n, k] what they are judged by: images that show j but not i against neither.
    0.5: what marks i says nothing of j; near 1: the two are marked by the same; below
    0.5: they lie on opposite sides of neither. The diagonal tells i from all others.
    """
    k = truth.shape[1]
    ranked_pairs = {}
    for i, j in np.ndindex(k, k):
        fit, judge = (apart(t, i, j) for t in (truth, theirs))
        target = fit[:, :1]
        scores = shortcuts.fit(features, target, others)[:, 0]
        if np.isfinite(scores).all():
            # Ranked once: the bootstrap only weighs the images anew.
            ranked_pairs[i, j] = auroc.rank(judge[:, 1], scores)

    def statistic(w: np.ndarray) -> np.ndarray:
        out = np.full((len(w), k, k), np.nan)
        for (i, j), ranked in ranked_pairs.items():
            out[:, i, j] = ranked.areas(w)[0]
        return out

    return statistic


def apart(truth: np.ndarray, i: int, j: int) -> np.ndarray:
    """[n, 2]: i, and j, against neither; NaN for images that show the other one."""
    first, second = truth[:, i], truth[:, j]
    if i == j:
        return np.stack([first, second], 1)
    neither = np.where((first == 0) & (second == 0), 0, np.nan)
    only_i = np.where((first == 1) & (second == 0), 1, neither)
    only_j = np.where((second == 1) & (first == 0), 1, neither)
    return np.stack([only_i, only_j], 1)


def measured(statistic: Matrices, patients: np.ndarray) -> np.ndarray:
    """[3, k, k]: value, low and high: percentiles of a bootstrap over patients.

    They describe, they decide nothing: of rare classes, and near an end of a measure's
    range, such percentiles are too narrow. NaN below five patients.
    """
    value = statistic(np.ones((1, len(patients))))[0]
    if len(np.unique(patients)) < LEAST:
        return np.stack([value, *np.full((2, *value.shape), np.nan)])
    samples = intervals.resample(statistic, patients, RESAMPLES)
    spans = np.array(
        [intervals.percentile(samples[:, i, j]) for i, j in np.ndindex(value.shape)]
    )
    low, high = spans.T.reshape(2, *value.shape)
    return np.stack([value, low, high])


LAYER = "pre_logits"
SUMMARY = 6  # pairs of classes that the summary names
TITLES = {
    "labels": "labels: phi over images",
    "mistaken": "mean probability of the\ncolumn on images of the row",
    "agreement": "correlation of logits over\nimages of neither class",
    "features": "AUROC of the row's probe\nfor the column",
}


def write(run: WithData, split: str, most: int, out: Path) -> dict[str, Any]:
    """Write overlap.*: four matrices of classes, with percentiles over patients (measured).

    Labels are those of the whole set; of a set with one class an image a patient's
    images are taken together. Probes are fitted to training images.
    """
    manifest, names = run.data.manifest, run.data.manifest.classes
    every = auroc.one_hot(manifest.labels, len(names))
    owners = manifest.patient.astype(str)
    titles = dict(TITLES)
    if not manifest.multilabel:
        # With one class an image, no image has two: a patient can, over several images.
        every, owners = by_patient(every, owners), np.unique(owners)
        titles["labels"] = "labels: phi over patients"
    rows = features.sample(run, split, most)
    fitted = features.sample(run, "train", most)
    extract = features.extractor(run, only=(LAYER,))
    judged, logits = manifest.select(rows), features.predictor(run)(run.variables, rows)
    truth = auroc.one_hot(judged.labels, len(names))
    p = calibration.probabilities(judged.labels, logits)
    # Probes are fitted to training images, as the net was.
    known = auroc.one_hot(manifest.select(fitted).labels, len(names))
    ends, others = (extract(run.variables, r)[LAYER] for r in (fitted, rows))
    patients = judged.patient.astype(str)
    matrices = {
        "labels": measured(co_occurrence(every), owners),
        "mistaken": measured(mistaken(truth, p), patients),
        "agreement": measured(agreement(logits, truth), patients),
        "features": measured(shared(ends, known, others, truth), patients),
    }
    table = [
        {"measure": measure, "row": a, "column": b}
        | dict(zip(("value", "low", "high"), values[:, i, j].tolist(), strict=True))
        for measure, values in matrices.items()
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    drawn = draw(matrices, titles, names, f"{run.folder.name}, {manifest.name} {split}")
    plots.save(drawn, out, "overlap", table, manifest.synthetic)
    return summary(matrices, names)


def draw(
    found: dict[str, np.ndarray], titles: dict, names: tuple[str, ...], about: str
) -> object:
    k = len(names)
    side = max(3.6, 1.5 + 0.42 * k)
    figure, axes = plots.figure(2 * side + 1, 2 * side, 2, 2)
    for ax, (measure, values) in zip(axes.flat, found.items(), strict=True):
        low = -1 if measure in ("labels", "agreement") else 0
        plots.matrix(ax, values[0], names, names, low)
        ax.invert_yaxis()  # rows read down, as in a table
        ax.set_title(titles[measure], fontsize=9)
    figure.suptitle(f"What classes have in common: {about}")
    return figure


def summary(
    found: dict[str, np.ndarray], names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """The pairs whose probes tell each other best, in either direction."""
    values = np.nan_to_num(found["features"][0])
    # A class with itself is no pair, and a pair that could not be had comes last.
    np.fill_diagonal(values, -1)
    order = np.dstack(np.unravel_index(np.argsort(-values, axis=None), values.shape))[0]
    out: dict[str, dict[str, Any]] = {}
    for i, j in order[: min(SUMMARY, len(names) ** 2 - len(names))].tolist():
        pair = {}
        for measure, matrix in found.items():
            if np.isfinite(matrix[0, i, j]):
                keys = ("value", "low", "high")
                pair[measure] = dict(zip(keys, matrix[:, i, j].tolist(), strict=True))
        out[f"{names[i]} and {names[j]},"] = pair
    return out
