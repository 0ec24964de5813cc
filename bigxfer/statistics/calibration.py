"""Whether probabilities mean what they say: reliability tables, calibration errors, the temperature.

Everything is computed from saved predictions. `labels` are int [n] (softmax), or float
[n, classes] of 0, 1, NaN = unknown (sigmoid); `logits` are [n, classes], as in metrics.py.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax, stdtrit

from bigxfer.statistics import weighted

TEMPERATURES = (0.05, 20.0)  # what a fit is looked for within


def probabilities(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """float [n, classes]: softmax or sigmoid, by what the labels are."""
    return softmax(logits, axis=1) if labels.ndim == 1 else expit(logits)


def events(
    labels: np.ndarray, p: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(confidence, hit) pairs: of the top label, or of each class's known labels."""
    if labels.ndim == 1:
        yield p.max(axis=1), (p.argmax(axis=1) == labels).astype(float)
        return
    for k in range(p.shape[1]):
        known = np.isfinite(labels[:, k])
        if known.any():
            yield p[known, k], labels[known, k].astype(float)


def binned(
    confidence: np.ndarray, hit: np.ndarray, bins: int = weighted.BINS
) -> list[dict[str, float]]:
    """The reliability table: bins of equal width, closed above, empty ones left out.

    Each has low, high, count, confidence (mean), frequency (mean hit).
    """
    edges = np.linspace(0, 1, bins + 1)
    # left: closed above, as in the paper and in weighted._ece.
    which = np.searchsorted(edges[1:-1], confidence, side="left")
    groups = [np.flatnonzero(which == b) for b in range(bins)]
    return [
        row(confidence[g], hit[g], edges[b], edges[b + 1])
        for b, g in enumerate(groups)
        if len(g)
    ]


def equal_counts(
    confidence: np.ndarray, hit: np.ndarray, bins: int = weighted.BINS
) -> list[dict[str, float]]:
    """The reliability table by bins of (nearly) equal counts; equal values together."""
    order = np.argsort(confidence, kind="stable")
    ranked = confidence[order]
    cuts = np.round(np.linspace(0, len(order), bins + 1)[1:-1]).astype(int)
    cuts = cuts[cuts < len(order)]  # of fewer images than bins the last may round up
    # Back to the first of equal values: they mean the same, so that one bin takes all.
    cuts = np.unique(np.searchsorted(ranked, ranked[cuts], side="left"))
    return [
        row(confidence[g], hit[g], confidence[g].min(), confidence[g].max())
        for g in np.split(order, cuts)
        if len(g)
    ]


def row(c: np.ndarray, hit: np.ndarray, low: float, high: float) -> dict[str, float]:
    values = low, high, len(c), c.mean(), hit.mean()
    names = "low", "high", "count", "confidence", "frequency"
    return dict(zip(names, map(float, values), strict=True))


def error(table: Sequence[dict[str, float]]) -> float:
    """Mean |frequency - confidence| over the images of a reliability table."""
    gaps = [r["count"] * abs(r["frequency"] - r["confidence"]) for r in table]
    return sum(gaps) / sum(r["count"] for r in table)


def ece(labels: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, 1706.04599), 15 bins; as metrics.py.

    Of the top label; of a multi-label set the mean over classes.
    """
    return float(np.mean([error(binned(*event)) for event in events(labels, p)]))


def adaptive_ece(labels: np.ndarray, p: np.ndarray) -> float:
    """The same by bins of equal counts (Nixon et al. 2019, 1904.01685)."""
    return float(np.mean([error(equal_counts(*event)) for event in events(labels, p)]))


def loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean cross-entropy in nats, over known labels where there are several."""
    if labels.ndim == 1:
        return float(
            -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
        )
    known = np.isfinite(labels)
    y = np.where(known, labels, 0)
    # log_expit, since the logarithm of expit is -inf at -750.
    each = -y * log_expit(logits) - (1 - y) * log_expit(-logits)
    return float(each[known].mean())


def temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The T > 0 for which logits / T have the least cross-entropy; for images that did not train.

    One number for all classes (Guo et al. 2017). It changes no rank within a class and
    no softmax argmax. ValueError without a known label, or where the edges
    of TEMPERATURES fit as well: predictions that are all right, or know nothing.
    """
    if not np.isfinite(np.asarray(labels, float)).any():
        raise ValueError("no known label to fit a temperature to")

    def at(log_t: float) -> float:
        return loss(labels, logits / np.exp(log_t))

    # By its logarithm, since a temperature is a scale.
    edges = np.log(TEMPERATURES)
    best = minimize_scalar(at, bounds=edges, method="bounded")
    # A loss that falls up to an edge has no minimum, only an end of the search.
    if min(map(at, edges)) <= best.fun + 1e-9:
        raise ValueError(
            f"no temperature within {TEMPERATURES} fits the {len(labels)} images: they"
            " are too few, or all right, or carry no signal"
        )
    return float(np.exp(best.x))


def temperature_interval(
    labels: np.ndarray, logits: np.ndarray, patients: np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """The interval of `temperature`, over patients [n].

    Of 1 / T, in which the loss is convex: the fit plus and minus t times its robust
    ("sandwich") error, the scores added up by patient, with as many degrees of freedom
    as patients less one; it covered the truth in 94 to 96% of 600 simulations each of 40
    and 90 images (tests/test_analysis_calibration.py). ValueError where it
    reaches TEMPERATURES' end: then the images bound T on one side at most.
    """
    inverse = 1 / temperature(labels, logits)
    if labels.ndim == 1:
        p = softmax(inverse * logits, axis=1)
        mean = (p * logits).sum(axis=1)
        # The first and second derivatives of an image's loss by 1 / T.
        slope = mean - logits[np.arange(len(labels)), labels]
        curve = (p * logits**2).sum(axis=1) - mean**2
    else:
        p, known = expit(inverse * logits), np.isfinite(labels)
        slope = (known * logits * (p - np.where(known, labels, 0))).sum(axis=1)
        curve = (known * logits**2 * p * (1 - p)).sum(axis=1)
    _, group = np.unique(np.asarray(patients, str), return_inverse=True)
    # Images of a patient err together: the sandwich takes their sum.
    scores = np.bincount(group, slope)
    count = len(scores)
    low, high = 0.0, np.inf
    if count > 1:
        # The factor and Student's t are for few patients.
        error = np.sqrt((scores**2).sum() * count / (count - 1)) / curve.sum()
        half = stdtrit(count - 1, (1 + level) / 2) * error
        low, high = inverse - half, inverse + half
    if low <= 1 / TEMPERATURES[1]:
        raise ValueError(
            f"the {len(labels)} images of {count} patients are too few: they bound the"
            " temperature on one side at most"
        )
    return float(1 / high), float(1 / low)
