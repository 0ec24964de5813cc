"""Several nets or passes as one: ensembles, MC dropout, and what referral would gain.

Everything is computed from saved predictions; nothing here sees a test label before it
judges. `labels` and `logits` are as in statistics/metrics.py.
"""

from collections.abc import Sequence

import jax
import numpy as np
from scipy.special import log_expit, log_softmax, logsumexp

from bigxfer.data import augment
from bigxfer.models import Model
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import calibration, limits, metrics
from bigxfer.statistics.influence import Patients
from bigxfer.tree import Tree

COVERAGES = np.linspace(0.1, 1, 19)  # of the referral curves


def ensemble(labels: np.ndarray, logits: Sequence[np.ndarray]) -> np.ndarray:
    """Logits [n, classes] of the mean probability of several nets.

    A deep ensemble (Lakshminarayanan et al. 2017, 1612.01474) over draws or seeds, or the
    passes of `mc_dropout`.
    """
    stack = np.asarray(logits, np.float64)  # [nets, n, classes]
    # From logarithms, so that images of a probability near 1 keep their order.
    if labels.ndim == 1:
        return logsumexp(log_softmax(stack, axis=2), axis=0) - np.log(len(stack))
    # The log-odds of the mean: the mean of p over the mean of 1 - p.
    return logsumexp(log_expit(stack), axis=0) - logsumexp(log_expit(-stack), axis=0)


def aligned(runs: Sequence[Predictions]) -> list[np.ndarray]:
    """The logits of several runs on the same images, in the order of the first.

    ValueError where the images, the classes or the labels differ.
    """
    first, out = runs[0], []
    for i, run in enumerate(runs):
        places = {name: k for k, name in enumerate(run.ids)}
        if run.classes != first.classes or set(places) != set(first.ids):
            raise ValueError(
                f"run {i + 1} was judged on other images or classes than run 1; an"
                " ensemble needs one test split"
            )
        order = [places[name] for name in first.ids]
        if not np.array_equal(run.labels[order], first.labels, equal_nan=True):
            raise ValueError(f"run {i + 1} has other labels than run 1")
        out.append(run.logits[order])
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
    # train=True turns dropout on, and would have batch norm take this batch's moments.
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
    # Nets without dropout ignore the key, so that all passes are equal to the bit.
    if passes > 1 and np.array_equal(out[0], out[1]):
        raise ValueError("this net has no dropout: its passes are all the same")
    return out


def uncertainty(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """float [n]: the entropy of the prediction in nats, mean over classes if sigmoid."""
    logits = np.asarray(logits, np.float64)
    if labels.ndim == 1:
        return entr_of_log(log_softmax(logits, axis=1)).sum(axis=1)
    both = entr_of_log(log_expit(logits)) + entr_of_log(log_expit(-logits))
    return both.mean(axis=1)


def entr_of_log(log_p: np.ndarray) -> np.ndarray:
    """-p log p, of log p."""
    return -np.exp(log_p) * log_p


def referral(
    labels: np.ndarray, p: np.ndarray, patients: np.ndarray, unsure: np.ndarray
) -> list[dict[str, float]]:
    """Accuracy of what is kept where the least sure are referred to a reader.

    Rows of coverage, images, accuracy, low, high (95% over patients, limits.proportion;
    NaN below five of them) and chance, the accuracy without referral. Who is referred is
    taken as given: an interval does not cover the choice. Of a multi-label set the mean over known labels at
    probability 0.5. Leibig et al. 2017 (Sci Rep 7:17816) for retinopathy.
    """
    if labels.ndim == 1:
        right, known = (p.argmax(axis=1) == labels).astype(float), np.ones(len(p))
    else:
        known = np.isfinite(labels).sum(axis=1).astype(float)
        right = ((p > 0.5) == (labels == 1)) & np.isfinite(labels)
        right = right.sum(axis=1).astype(float)
    # Stable, so that ties are referred in the order of the images, always.
    order, out = np.argsort(unsure, kind="stable"), []
    everywhere, people = right.sum() / known.sum(), Patients.of(patients)
    for coverage in COVERAGES:
        kept = np.zeros(len(p))
        kept[order[: max(1, round(coverage * len(p)))]] = 1
        score = limits.proportion(right * kept, known * kept, people)
        names = "coverage", "images", "accuracy", "low", "high", "chance"
        values = coverage, kept.sum(), *score[:3], everywhere
        out.append(dict(zip(names, map(float, values), strict=True)))
    return out


def judged(labels: np.ndarray, logits: np.ndarray, patients: np.ndarray) -> dict:
    """{metric: {"value", "low", "high"}} of loss, brier, ece, and adaptive_ece's value."""
    names = [str(k) for k in range(logits.shape[1])]
    values = metrics.compute(labels, logits, names, patients)["metrics"]
    p = calibration.probabilities(labels, logits)
    out = {name: values[name] for name in ("loss", "brier", "ece")}
    out["adaptive_ece"] = {
        "value": calibration.adaptive_ece(labels, p),
        "low": None,
        "high": None,
    }
    return out
