"""A linear probe: the head fitted to features that are computed once.

Features are the pre_logits of the evaluation view, without augmentation: the net below
the head stays as it starts, so one forward pass of each image is all that it costs.

- ridge: least squares on targets of -1 and 1 with an L2 penalty, as big_vision's
  few-shot evaluator (google-research/big_vision evaluators/fewshot_lsr.py). Its scores
  are no log-odds: read its ranks and accuracy, not its loss and calibration.
- logistic: logistic regression on standardised features (scikit-learn), softmax, or
  one for each label of a multi-label set; its strength has the least loss on
  validation.

Labels are those of a manifest: int [n], or float [n, classes] of 0, 1 and NaN.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from bigxfer import tree
from bigxfer.models import Around
from bigxfer.protocols import losses
from bigxfer.statistics import auroc
from bigxfer.tree import Tree

L2 = 2.0**10  # google-research/big_vision configs/common_fewshot.py, l2_reg
BIAS = 100.0  # the feature of the bias, large and so hardly penalised (fewshot_lsr.py)
STD_EPS = 1e-5  # the same
STRENGTHS = tuple(10.0**k for k in range(-4, 3))  # scikit-learn's C; else 1
THREADED = 10**7  # numbers; fewer take a thread 2 s, busy cores' threads a minute
NEVER = -30.0  # the logit of a class without an example

Head = tuple[np.ndarray, np.ndarray]  # kernel [features, classes], bias [classes]
Part = tuple[np.ndarray, np.ndarray]  # features float32 [n, features], labels


class Features(Around):
    """A model whose logits are its pre_logits, for evaluate.make_predict."""

    def apply(
        self,
        variables: Tree,
        images: jax.Array,
        train: bool,
        rngs: Any = None,
        hold: Sequence[str] = (),
    ) -> tuple[jax.Array, Tree]:
        _, out = self.model.apply(variables, images, train, rngs, hold)
        return out["pre_logits"], out


def fit(how: str, train: Part, valid: Part | None, classes: int) -> Head:
    """The head of `how` (ridge, logistic), for features as they are.

    Raises ValueError where the training features are not finite.
    """
    features, labels = train
    if not np.isfinite(features).all():
        raise ValueError("the features of the training images are not finite")
    mean, std = features.mean(0), features.std(0) + STD_EPS
    z = (features - mean) / std
    known = auroc.one_hot(labels, classes)
    if how == "ridge":
        columns = [ridge(z, known[:, k]) for k in range(classes)]
        kernel, bias = (
            np.stack([w for w, _ in columns], 1),
            np.array([b for _, b in columns]),
        )
    else:
        strengths = STRENGTHS if valid else (1.0,)
        heads = [logistic(z, labels, classes, c) for c in strengths]
        if valid:
            seen = (valid[0] - mean) / std, auroc.one_hot(valid[1], classes)
            heads.sort(key=lambda head: loss(head, *seen, labels.ndim == 2))
        kernel, bias = heads[0]
    kernel = kernel / std[:, None]
    return kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32)


def loss(head: Head, z: np.ndarray, targets: np.ndarray, multilabel: bool) -> float:
    """Mean cross-entropy in nats over the known labels."""
    of = losses.sigmoid if multilabel else losses.softmax
    logits = jnp.asarray(z @ head[0] + head[1])
    total, count = of(logits, jnp.asarray(targets), jnp.ones(len(z)))
    return float(total / count)


def ridge(z: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """(weights, bias) of least squares on the rows whose target is known."""
    known = ~np.isnan(target)
    x = np.pad(z[known].astype(np.float64), ((0, 0), (0, 1)), constant_values=BIAS)
    y, (n, d) = 2 * target[known] - 1, x.shape
    if n >= d:
        w = np.linalg.solve(x.T @ x + L2 * np.eye(d), x.T @ y)
    else:  # the same, by the smaller matrix
        w = x.T @ np.linalg.solve(x @ x.T + L2 * np.eye(n), y)
    return w[:-1], BIAS * w[-1]


def logistic(z: np.ndarray, labels: np.ndarray, classes: int, strength: float) -> Head:
    """Softmax over the classes, or a binary regression for each label."""
    kernel, bias = np.zeros((z.shape[1], classes)), np.full(classes, NEVER)
    if labels.ndim == 1:
        columns, w, b = binary_or_softmax(z, labels, strength)
        kernel[:, columns], bias[columns] = w, b
        return kernel, bias
    for k in range(classes):
        known = ~np.isnan(labels[:, k])
        found, w, b = binary_or_softmax(
            z[known], labels[known, k].astype(int), strength
        )
        if len(found) == 2:  # the log-odds of the positive
            kernel[:, k], bias[k] = w[:, 1] - w[:, 0], b[1] - b[0]
        elif 1 in found:
            bias[k] = -NEVER
    return kernel, bias


def binary_or_softmax(
    z: np.ndarray, labels: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(classes found, weights [features, found], biases): softmax over these."""
    # here, since scikit-learn is half a second and 70 MB that few runs need
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    found = np.unique(labels)
    if len(found) < 2:
        return found, np.zeros((z.shape[1], len(found))), np.zeros(len(found))
    model: Any = LogisticRegression(C=strength, max_iter=1000)
    threads = 1 if z.size < THREADED else None
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties need not
        model.fit(z, labels)
    w, b = model.coef_.T, model.intercept_
    if len(found) == 2:
        w, b = np.hstack([0 * w, w]), np.array([0.0, b[0]])
    return found, w, b


def put(params: Tree, pattern: str, head: Head) -> Tree:
    """`params` with this head: the kernel and bias that `pattern` names.

    Each keeps its place on the devices. ValueError where the sizes do not fit.
    """
    flat, values = tree.flatten(params), {"kernel": head[0], "bias": head[1]}
    for name in tree.names(tree.take(params, pattern)):
        old = flat[name]
        new = values[name.rpartition("/")[2]].reshape(old.shape)
        flat[name] = jax.make_array_from_callback(
            old.shape, old.sharding, lambda index, new=new: new[index]
        )
    return tree.unflatten(flat)
