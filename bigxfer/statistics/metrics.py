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
(`auroc.log_odds`). The macro metrics are plain means over all classes. Where one cannot be computed, the
mean is null and says which, since a mean over the others would be another metric.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bigxfer.statistics import auroc, intervals, weighted
from bigxfer.statistics.influence import Patients
from bigxfer.statistics.limits import Score
from bigxfer.statistics.scores import Judged, score_all

LESS_IS_BETTER = ("loss", "brier", "ece")


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
        statistic = weighted.statistic(labels, truth, logits, classes)
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
    statistic = weighted.statistic(labels, truth, logits, classes)
    point = statistic(np.ones((1, len(logits))))
    single = labels.ndim == 1
    parts = weighted.softmax_parts if single else weighted.sigmoid_parts
    called, means = parts(truth, logits)
    judged = Judged(
        classes,
        truth,
        auroc.log_odds(labels, logits),
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
) -> weighted.Values:
    """{metric: [resamples], NaN where it does not exist} on resampled patients.

    `only` one metric takes a fraction of the time of all. Two runs with the same patients in
    the same order, and the same seed, are on the same resamples, row by row: their
    differences are paired.
    """
    labels, logits = checked(labels, logits, classes, patients)
    truth = auroc.one_hot(labels, len(classes))
    statistic = weighted.statistic(labels, truth, logits, classes)
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
