"""Exact metrics of saved predictions, with 95% intervals over patients.

Every metric is a function of weights [r, n] over the images: one row of ones gives
the value, rows that count resampled patients give those of a bootstrap. The intervals
are those of limits.py. Definitions are scikit-learn's where it has the metric.

`labels` are int [n] for sets with one class an image (softmax), or float [n, k] of 0,
1 and NaN = unknown for multi-label sets (sigmoid); `logits` are [n, k].

| metric | one class an image | multi-label |
|---|---|---|
| loss | cross-entropy in nats | binary cross-entropy, mean over known labels |
| accuracy | of the largest logit | none: with rare findings "never" scores best |
| balanced_accuracy | mean recall of the classes | mean over classes of (sensitivity + specificity) / 2 at probability 0.5 |
| auroc, auprc | each class against the rest, by its log-odds | each class among its known labels; auprc is the average precision |
| auroc_micro | of all (image, class) pairs in one order, by the class's log-odds | of all known (image, label) pairs |
| brier | mean over images of the sum over classes of (p - y)^2, half of it for 2 classes (scikit-learn's scale_by_half="auto") | mean over known labels of (p - y)^2 |
| ece | top label, 15 bins; above the truth in small sets, so without an interval | mean over classes of the binary one, 15 bins of p |

Log-odds rank as probabilities do, but a probability within 1e-16 of 1 is 1 in float64
(`log_odds`). The macro metrics are plain means over all classes. Where one cannot be computed, the
mean is null and says which, since a mean over the others would be another metric.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used: not while training

from bigxfer.statistics import auroc, intervals
from bigxfer.statistics.influence import Patients
from bigxfer.statistics.limits import Score
from bigxfer.statistics.scores import Judged, score_all

BINS = 15  # of equal width: Guo et al. 2017, arXiv 1706.04599, section 5
LESS_IS_BETTER = ("loss", "brier", "ece")

Values = dict[str, np.ndarray]  # metric -> [r], NaN where it does not exist
Metrics = dict[str, Callable[[np.ndarray], np.ndarray]]


def sign(metric: str) -> int:
    """-1 where less of the metric is better, else 1."""
    return -1 if metric in LESS_IS_BETTER else 1


def largest(metric: str) -> float:
    """The largest value that the metric can have."""
    # A Brier score of 2: all probability on one class, and another is true.
    return {"loss": np.inf, "brier": 2.0}.get(metric, 1.0)


def least(metric: str) -> float:
    """The least value that the metric can have; columns gap/SET/METRIC are differences."""
    return -1.0 if metric.startswith("gap/") else 0.0


def compute(
    labels: np.ndarray,
    logits: np.ndarray,
    classes: Sequence[str],
    patients: np.ndarray,
    limits: bool = True,
) -> dict[str, Any]:
    """{"metrics": {name: {"value", "low", "high"}}, "counts", "images", "patients"}.

    A metric that does not exist has value, low and high None and a "reason"; one without
    an interval has low and high None and a "reason". limits=False leaves all low and
    high None. Raises ValueError where the shapes do not fit or a logit is not finite.
    """
    labels, logits = checked(labels, logits, classes, patients)
    truth = auroc.one_hot(labels, len(classes))
    reasons = _absent(truth, classes)
    if limits:
        by_name = scores(labels, logits, classes, patients)
    else:
        statistic = _statistic(labels, truth, logits, classes)
        point = statistic(np.ones((1, len(logits))))  # each image once: the data
        by_name = {name: Score(float(point[name][0])) for name in point}
    rows = {"positive": truth == 1, "negative": truth == 0, "unknown": np.isnan(truth)}
    counts = {
        name: {kind: int(r[:, i].sum()) for kind, r in rows.items()}
        for i, name in enumerate(classes)
    }
    return {
        "metrics": {n: s.entry(reasons.get(n, "")) for n, s in by_name.items()},
        "counts": counts,
        "images": len(logits),
        "patients": len(set(patients)),
    }


def scores(
    labels: np.ndarray,
    logits: np.ndarray,
    classes: Sequence[str],
    patients: np.ndarray,
) -> dict[str, Score]:
    """{metric: Score}: values, limits, and influences summed within patients.

    Scores of two runs on the same images have sums of the same patients in one order,
    that of their names. Raises ValueError as `compute`.
    """
    labels, logits = checked(labels, logits, classes, patients)
    truth = auroc.one_hot(labels, len(classes))
    point = _statistic(labels, truth, logits, classes)(np.ones((1, len(logits))))
    single = labels.ndim == 1
    called, means = (_softmax_parts if single else _sigmoid_parts)(truth, logits)
    judged = Judged(
        classes,
        truth,
        log_odds(labels, logits),
        called,
        means,
        single,
        Patients.of(patients),
    )
    return score_all(judged, {name: float(value[0]) for name, value in point.items()})


def resampled(
    labels: np.ndarray,
    logits: np.ndarray,
    classes: Sequence[str],
    patients: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
    only: str = "",
) -> Values:
    """{metric: [resamples], NaN where it does not exist} on resampled patients.

    `only` one metric takes a fraction of the time of all. Two runs with the same patients in
    the same order, and the same seed, are on the same resamples, row by row: their
    differences are paired.
    """
    labels, logits = checked(labels, logits, classes, patients)
    truth = auroc.one_hot(labels, len(classes))
    statistic = _statistic(labels, truth, logits, classes)
    chunks = [
        statistic(w, only) for w in intervals.patient_weights(patients, resamples, seed)
    ]
    return {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}


def checked(
    labels: Any, logits: Any, classes: Sequence[str], patients: Any
) -> tuple[np.ndarray, np.ndarray]:
    """labels and float64 logits, or a ValueError that says what does not fit."""
    labels, logits = np.asarray(labels), np.asarray(logits, np.float64)
    n, k = len(labels), len(classes)
    if not n:
        raise ValueError("no predictions: the test split is empty")
    if logits.shape != (n, k) or len(patients) != n:
        raise ValueError(
            f"{n} labels, logits {logits.shape} and {len(patients)} patients do not"
            f" fit each other and the {k} classes {tuple(classes)}"
        )
    if len(bad := np.flatnonzero(~np.isfinite(logits).all(axis=1))):
        raise ValueError(f"the logits of row {bad[0]} are not finite: {logits[bad[0]]}")
    if labels.ndim == 1:
        bad = np.flatnonzero((labels < 0) | (labels >= k))
    else:
        bad = np.flatnonzero(~np.isin(np.nan_to_num(labels), (0, 1)).all(axis=1))
    if len(bad):
        allowed = f"0 to {k - 1}" if labels.ndim == 1 else "0, 1 and NaN"
        raise ValueError(
            f"row {bad[0]} has the label {labels[bad[0]]}; it may be {allowed}"
        )
    return labels, logits


def _absent(truth: np.ndarray, classes: Sequence[str]) -> dict[str, str]:
    """{metric: why it cannot be computed} for classes without positives or negatives."""
    reasons, lines = {}, []
    for i, name in enumerate(classes):
        lacks = [
            word
            for word, y in (("positive", 1), ("negative", 0))
            if y not in truth[:, i]
        ]
        if lacks:
            line = f"no {' and no '.join(lacks)} label of {name} in the test split"
            reasons[f"auroc/{name}"] = reasons[f"auprc/{name}"] = line
            lines.append(line)
    if lines:
        for name in ("auroc_macro", "auprc_macro", "balanced_accuracy"):
            reasons[name] = "; ".join(lines)
    if len(unknown := np.flatnonzero(np.isnan(truth).all(axis=0))):
        names = ", ".join(classes[int(i)] for i in unknown)
        reasons["ece"] = f"no known label of {names} in the test split"
    if not ((truth == 0).any() and (truth == 1).any()):
        reasons["auroc_micro"] = "no positive or no negative label in the test split"
    if np.isnan(truth).all():
        reasons["loss"] = reasons["brier"] = "no known label in the test split"
    return reasons


def _statistic(
    labels: np.ndarray, truth: np.ndarray, logits: np.ndarray, classes: Sequence[str]
) -> Callable[..., Values]:
    """(weights [r, n], only="") -> {metric: [r]}; what needs no weight is done once."""
    single = labels.ndim == 1
    p = scipy.special.softmax(logits, axis=1) if single else scipy.special.expit(logits)
    scores = log_odds(labels, logits)
    micro = auroc.micro(truth, scores)
    rankings = [auroc.rank(truth[:, i], scores[:, i]) for i in range(len(classes))]
    common = _softmax_metrics if single else _sigmoid_metrics
    metrics = common(truth, logits, p)
    metrics["auroc_micro"] = lambda weights: micro.areas(weights)[0]

    def statistic(weights: np.ndarray, only: str = "") -> Values:
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

    return statistic


def log_odds(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """float64 [n, k]: log(p / (1 - p)) of the probability of each class.

    What every ranking and every threshold goes by. Where the largest logit is 37 above
    the others its probability is 1 in float64, and even its logarithm is 0, so that
    such images would be tied; log-odds tell them apart. They are exact functions of the
    gaps between an image's logits: rows that differ by a shift, or by the order of the
    other classes, tie exactly. A multi-label logit is its own log-odds.
    """
    logits = np.asarray(logits, np.float64)
    if labels.ndim == 2:
        return logits
    gaps = logits - logits.max(axis=1, keepdims=True)
    largest = gaps == 0
    # All but one largest. Sorted, so that the same gaps in another order sum alike.
    others = np.sort(gaps, axis=1)[:, :-1]
    total = np.exp(others).sum(axis=1, keepdims=True)
    odds = gaps - np.log1p(total - np.where(largest, 0, np.exp(gaps)))
    return np.where(largest, -np.logaddexp.reduce(others, axis=1, keepdims=True), odds)


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


Means = dict[str, tuple[np.ndarray, np.ndarray]]  # metric -> sums, counts [n]


def _softmax_parts(truth: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, Means]:
    """(bool [n, k]: the class of the largest logit, what the means are of)."""
    n, k = logits.shape
    loss = -(truth * scipy.special.log_softmax(logits, axis=1)).sum(axis=1)
    p = scipy.special.softmax(logits, axis=1)
    brier = ((p - truth) ** 2).sum(axis=1) / (2 if k == 2 else 1)
    called = np.arange(k) == p.argmax(axis=1)[:, None]
    return called, {"loss": (loss, np.ones(n)), "brier": (brier, np.ones(n))}


def _sigmoid_parts(truth: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, Means]:
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
    _, means = _softmax_parts(truth, logits)
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
    called, means = _sigmoid_parts(truth, logits)

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
