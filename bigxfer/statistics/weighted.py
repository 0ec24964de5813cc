"""Every metric as a function of weights over the images, which metrics.py describes.

Weights are [r, n] for r sets of weights on n images. What needs no weight is computed once,
so that a thousand resamples cost a thousand products.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used: not while training

from bigxfer.statistics import auroc

BINS = 15  # of equal width: Guo et al. 2017, arXiv 1706.04599, section 5

Values = dict[str, np.ndarray]  # metric -> [r], NaN where it does not exist
Metrics = dict[str, Callable[[np.ndarray], np.ndarray]]
Means = dict[str, tuple[np.ndarray, np.ndarray]]  # metric -> sums, counts [n]


def statistic(
    labels: np.ndarray, truth: np.ndarray, logits: np.ndarray, classes: Sequence[str]
) -> Callable[..., Values]:
    """(weights [r, n], only="") -> {metric: [r]}; what needs no weight is done once."""
    single = labels.ndim == 1
    p = scipy.special.softmax(logits, axis=1) if single else scipy.special.expit(logits)
    scores = auroc.log_odds(labels, logits)
    micro = auroc.micro(truth, scores)
    rankings = [auroc.rank(truth[:, i], scores[:, i]) for i in range(len(classes))]
    common = _softmax_metrics if single else _sigmoid_metrics
    metrics = common(truth, logits, p)
    metrics["auroc_micro"] = lambda weights: micro.areas(weights)[0]

    def evaluate(weights: np.ndarray, only: str = "") -> Values:
        """All metrics; with `only` that one, and others where they come with it."""
        if only in metrics:
            return {only: metrics[only](weights)}
        values = {} if only else {name: m(weights) for name, m in metrics.items()}
        areas = [r.areas(weights) for r in rankings]
        for j, kind in enumerate(("auroc", "auprc")):
            # Not nanmean: a mean over fewer classes would be another metric.
            values[f"{kind}_macro"] = np.mean([a[j] for a in areas], axis=0)
            for name, area in zip(classes, areas, strict=True):
                values[f"{kind}/{name}"] = area[j]
        return values

    return evaluate


def _mean(values: np.ndarray, known: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means [r, k] of values [n, k] over the known ones."""
    return auroc.ratio(weights @ np.where(known, values, 0), weights @ known)


def _ece(
    confidence: np.ndarray, hit: np.ndarray, known: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """weights [r, n] -> expected calibration error [r] of confidence and hit [n].

    Bins are closed above, as in the paper. In a bin |mean hit - mean confidence|
    times its share of the weight is |sum of the gaps| over the weight of all.
    """
    # Without both ends: 0 and 1 are in the first and the last bin.
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    inside = np.searchsorted(edges, confidence, side="left")[:, None] == np.arange(BINS)
    gaps = np.where(known, hit - confidence, 0)[:, None] * inside
    return lambda w: auroc.ratio(np.abs(w @ gaps).sum(axis=1), w @ known)


def softmax_parts(truth: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, Means]:
    """(bool [n, k]: the class of the largest logit, what the means are of)."""
    n, k = logits.shape
    loss = -(truth * scipy.special.log_softmax(logits, axis=1)).sum(axis=1)
    p = scipy.special.softmax(logits, axis=1)
    brier = ((p - truth) ** 2).sum(axis=1) / (2 if k == 2 else 1)
    called = np.arange(k) == p.argmax(axis=1)[:, None]
    return called, {"loss": (loss, np.ones(n)), "brier": (brier, np.ones(n))}


def sigmoid_parts(truth: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, Means]:
    """(bool [n, k]: probability above 0.5, what the means over known labels are of)."""
    known = ~np.isnan(truth)
    y = np.where(known, truth, 0)
    log_p, p = scipy.special.log_expit, scipy.special.expit(logits)
    loss = np.where(known, -y * log_p(logits) - (1 - y) * log_p(-logits), 0)
    brier = np.where(known, (p - y) ** 2, 0)
    number = known.sum(axis=1).astype(np.float64)
    means = {"loss": (loss.sum(axis=1), number), "brier": (brier.sum(axis=1), number)}
    return logits > 0, means  # a probability above 0.5


def _softmax_metrics(truth: np.ndarray, logits: np.ndarray, p: np.ndarray) -> Metrics:
    known = np.ones(len(p))
    right = (p.argmax(axis=1) == truth.argmax(axis=1)).astype(np.float64)
    _, means = softmax_parts(truth, logits)
    return {
        "loss": _weighted(*means["loss"]),
        "accuracy": _weighted(right, known),
        "balanced_accuracy": lambda w: _mean(right[:, None], truth > 0, w).mean(axis=1),
        "brier": _weighted(*means["brier"]),
        "ece": _ece(p.max(axis=1), right, known),
    }


def _sigmoid_metrics(truth: np.ndarray, logits: np.ndarray, p: np.ndarray) -> Metrics:
    known = ~np.isnan(truth)
    y = np.where(known, truth, 0)
    called, means = sigmoid_parts(truth, logits)

    def balanced(w: np.ndarray) -> np.ndarray:
        sensitivity = _mean(called, truth == 1, w)
        return (sensitivity + _mean(~called, truth == 0, w)).mean(axis=1) / 2

    eces = [
        _ece(p[:, i], y[:, i], known[:, i].astype(np.float64))
        for i in range(p.shape[1])
    ]
    return {
        "loss": _weighted(*means["loss"]),
        "balanced_accuracy": balanced,
        "brier": _weighted(*means["brier"]),
        "ece": lambda w: np.mean([ece(w) for ece in eces], axis=0),
    }


def _weighted(sums: np.ndarray, counts: np.ndarray) -> Callable:
    """weights [r, n] -> the weighted mean [r] of values with these sums and counts."""
    return lambda w: auroc.ratio(w @ sums, w @ counts)
