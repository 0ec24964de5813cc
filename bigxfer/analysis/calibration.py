"""Whether probabilities mean what they say, and what to do where they do not.

Everything is computed from saved predictions. Temperatures are fitted on validation and
judged on test; nothing here sees a test label before it judges.

`labels` are int [n] (softmax), or float [n, classes] of 0, 1, NaN = unknown (sigmoid);
`logits` are [n, classes], as in metrics.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax

from bigxfer import metrics, ranking, stats, tree
from bigxfer.data import augment
from bigxfer.models import Model
from bigxfer.tree import Tree

TEMPERATURES = (0.05, 20.0)  # what a fit is looked for within
TINY = 1e-12  # the least probability whose logarithm is taken
COVERAGES = np.linspace(0.1, 1, 19)  # of the referral curves
REFERRAL_RESAMPLES = 500


@dataclass(frozen=True)
class Predictions:
    """One predictions.npz of a run folder."""

    ids: np.ndarray
    patients: np.ndarray
    sources: np.ndarray
    views: np.ndarray
    labels: np.ndarray
    logits: np.ndarray  # float64
    classes: tuple[str, ...]


def read(path: Path) -> Predictions:
    """Raises FileNotFoundError or ValueError for what is no predictions file."""
    found = tree.load_npz(path)
    missing = [k for k in Predictions.__dataclass_fields__ if k not in found]
    if missing:
        raise ValueError(f"{path} lacks {missing}: it is no predictions.npz of a run")
    found["classes"] = tuple(found["classes"].tolist())
    found["logits"] = found["logits"].astype(np.float64)
    return Predictions(**found)


def probabilities(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """float [n, classes]: softmax or sigmoid, by what the labels are."""
    return softmax(logits, axis=1) if labels.ndim == 1 else expit(logits)


def to_logits(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Logits whose probabilities are p: its logarithm, or its log-odds."""
    if labels.ndim == 1:
        return np.log(np.maximum(p, TINY))
    p = np.clip(p, TINY, 1 - TINY)
    return np.log(p) - np.log1p(-p)


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
    confidence: np.ndarray, hit: np.ndarray, bins: int = metrics.BINS
) -> list[dict[str, float]]:
    """The reliability table: bins of equal width, closed above, empty ones left out.

    Each has low, high, count, confidence (mean), frequency (mean hit).
    """
    edges = np.linspace(0, 1, bins + 1)
    which = np.searchsorted(edges[1:-1], confidence, side="left")
    groups = [np.flatnonzero(which == b) for b in range(bins)]
    return [
        row(confidence[g], hit[g], edges[b], edges[b + 1])
        for b, g in enumerate(groups)
        if len(g)
    ]


def equal_counts(
    confidence: np.ndarray, hit: np.ndarray, bins: int = metrics.BINS
) -> list[dict[str, float]]:
    """The reliability table by bins of (nearly) equal counts; equal values together."""
    order = np.argsort(confidence, kind="stable")
    ranked = confidence[order]
    cuts = np.round(np.linspace(0, len(order), bins + 1)[1:-1]).astype(int)
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
    each = -y * log_expit(logits) - (1 - y) * log_expit(-logits)
    return float(each[known].mean())


def temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The T > 0 for which logits / T have the least cross-entropy; for validation.

    One number for all classes (Guo et al. 2017). It changes no rank within a class and
    no softmax argmax. ValueError without a known label, or where the edges
    of TEMPERATURES fit as well: predictions that are all right, or know nothing.
    """
    if not np.isfinite(np.asarray(labels, float)).any():
        raise ValueError("no known label to fit a temperature to")

    def at(log_t: float) -> float:
        return loss(labels, logits / np.exp(log_t))

    edges = np.log(TEMPERATURES)
    found = minimize_scalar(at, bounds=edges, method="bounded")
    if min(map(at, edges)) <= found.fun + 1e-9:
        raise ValueError(
            f"no temperature within {TEMPERATURES} fits the {len(labels)} validation"
            " images: they are too few, or all right, or carry no signal"
        )
    return float(np.exp(found.x))


def ensemble(labels: np.ndarray, logits: Sequence[np.ndarray]) -> np.ndarray:
    """Logits [n, classes] of the mean probability of several nets.

    A deep ensemble (Lakshminarayanan et al. 2017, 1612.01474) over draws or seeds, or
    the passes of `mc_dropout`.
    """
    p = np.mean([probabilities(labels, x) for x in logits], axis=0)
    return to_logits(labels, p)


def aligned(parts: Sequence[Predictions]) -> list[np.ndarray]:
    """The logits of several runs on the same images, in the order of the first.

    ValueError where the images, the classes or the labels differ.
    """
    first, out = parts[0], []
    for i, part in enumerate(parts):
        places = {name: k for k, name in enumerate(part.ids)}
        if part.classes != first.classes or set(places) != set(first.ids):
            raise ValueError(
                f"run {i + 1} was judged on other images or classes than run 1; an"
                " ensemble needs one test split"
            )
        order = [places[name] for name in first.ids]
        if not np.array_equal(part.labels[order], first.labels, equal_nan=True):
            raise ValueError(f"run {i + 1} has other labels than run 1")
        out.append(part.logits[order])
    return out


def mc_dropout(
    model: Model,
    variables: Tree,
    pixels: np.ndarray,
    crop: int,
    passes: int = 20,
    seed: int = 0,
) -> list[np.ndarray]:
    """float32 [n, classes] for each pass with dropout on (Gal & Ghahramani 2016,
    1506.02142); batch norm keeps its running averages.

    pixels: uint8 [n, S, S, C] of the cache. ValueError where the passes agree: then
    the net has no dropout.
    """
    hold = model.layers()

    @jax.jit
    def once(variables: Tree, pixels: jax.Array, key: jax.Array) -> jax.Array:
        images = augment.eval_view(pixels, crop)
        return model.apply(variables, images, True, {"dropout": key}, hold)[0]

    out = [
        np.concatenate(
            [
                np.asarray(once(variables, pixels[i : i + 64], key))
                for i in range(0, len(pixels), 64)
            ]
        )
        for key in jax.random.split(jax.random.key(seed), passes)
    ]
    if passes > 1 and np.array_equal(out[0], out[1]):
        raise ValueError("this net has no dropout: its passes are all the same")
    return out


def uncertainty(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """float [n]: the entropy of the prediction in nats, mean over classes if sigmoid."""

    def part(p: np.ndarray) -> np.ndarray:
        return -p * np.log(np.maximum(p, TINY))

    if labels.ndim == 1:
        return part(p).sum(axis=1)
    return (part(p) + part(1 - p)).mean(axis=1)


def referral(
    labels: np.ndarray, p: np.ndarray, patients: np.ndarray, unsure: np.ndarray
) -> list[dict[str, float]]:
    """Accuracy of what is kept where the least sure are referred to a reader.

    Rows of coverage, images, accuracy, low, high (95% over patients) and chance, the
    accuracy without referral. Of a multi-label set the mean over known labels at
    probability 0.5. Leibig et al. 2017 (Sci Rep 7:17816) for retinopathy.
    """
    if labels.ndim == 1:
        right, known = (p.argmax(axis=1) == labels).astype(float), np.ones(len(p))
    else:
        known = np.isfinite(labels).sum(axis=1).astype(float)
        right = ((p > 0.5) == (labels == 1)) & np.isfinite(labels)
        right = right.sum(axis=1).astype(float)
    order, out = np.argsort(unsure, kind="stable"), []
    everywhere = right.sum() / known.sum()
    for coverage in COVERAGES:
        kept = np.zeros(len(p))
        kept[order[: max(1, round(coverage * len(p)))]] = 1
        share = accuracy_on(right * kept, known * kept)
        low, high = stats.percentile(
            stats.resample(share, patients, REFERRAL_RESAMPLES)
        )
        names = "coverage", "images", "accuracy", "low", "high", "chance"
        value = share(np.ones((1, len(p))))[0]
        values = coverage, kept.sum(), value, low, high, everywhere
        out.append(dict(zip(names, map(float, values), strict=True)))
    return out


def accuracy_on(
    right: np.ndarray, known: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weights: ranking.ratio(weights @ right, weights @ known)


def judged(labels: np.ndarray, logits: np.ndarray, patients: np.ndarray) -> dict:
    """{metric: {"value", "low", "high"}} of loss, brier, ece, and adaptive_ece's value."""
    names = [str(k) for k in range(logits.shape[1])]
    found = metrics.compute(labels, logits, names, patients, 200)["metrics"]
    p = probabilities(labels, logits)
    out = {name: found[name] for name in ("loss", "brier", "ece")}
    out["adaptive_ece"] = {"value": adaptive_ece(labels, p), "low": None, "high": None}
    return out
