"""Heads on fixed features: ridge, logistic regression, nearest class mean, neighbours.

`scores` is the one interface: a head of some `how`, fitted to the images that a Space was
made of at each of several strengths, scores the others. Features are those of the Space:
centred, with a mean square length of 1 in the draw. Labels are a manifest's: int [m] of
one class each, or float [m, classes] of 0, 1 and NaN, which is left out label by label.

- ridge: least squares on targets of -1 and 1 (sklearn.linear_model.Ridge of alpha, the
  strength). Its scores are no log-odds: read its ranks and accuracy, not its loss.
- logistic: softmax over the classes, or a regression for each label
  (sklearn.linear_model.LogisticRegression of C = 1 / the strength).
- ncm: the nearest class mean (sklearn.neighbors.NearestCentroid); of a label, the mean of
  its positives against that of its negatives. It has no strength.
- knn: the votes of the nearest images (sklearn.neighbors.KNeighborsClassifier), a vote
  shared by all classes added to them; the strength is their number.
"""

from collections.abc import Sequence

import numpy as np

from bigxfer.protocols import newton
from bigxfer.protocols.space import Space
from bigxfer.statistics import auroc

FITTED = ("ridge", "logistic", "ncm", "knn")
LINEAR = ("ridge", "logistic", "ncm")  # these are a kernel and a bias
PENALTIES = tuple(10.0 ** np.linspace(2, -2.5, 10))  # from strong to weak
NEIGHBOURS = (30, 20, 15, 10, 7, 5, 4, 3, 2, 1)
FIXED = 1.0  # the penalty where no label is there to choose one
NEVER = -30.0  # the logit of a class without an example: a probability of 1e-13

Weights = tuple[np.ndarray, np.ndarray]  # float64 [s, r, k], [s, k]


def strengths(how: str, images: int, asked: Sequence[float] = ()) -> tuple[float, ...]:
    """Return the strengths to choose from for a draw of `images`, strongest first.

    `asked` is config.optim.tune; where it is empty the grid is PENALTIES or NEIGHBOURS.
    """
    if how == "ncm":
        return (0.0,)
    # Strongest first: of equal scores the first is chosen (runs/choice.py).
    if how == "knn":
        few = [float(k) for k in asked or NEIGHBOURS if k <= images]
        return tuple(sorted(few, reverse=True)) or (1.0,)
    return tuple(sorted(asked, reverse=True)) or PENALTIES


def fixed(how: str, images: int) -> float:
    """Return the strength where no label chooses one; for knn the root of `images`."""
    known = {"ncm": 0.0, "knn": float(max(int(images**0.5), 1))}
    return known.get(how, FIXED)


def scores(
    how: str, space: Space, labels: np.ndarray, classes: int, of: Sequence[float]
) -> np.ndarray:
    """Return float32 [strengths, n, classes] of the Space's others."""
    if how == "knn":
        return neighbours(space, labels, classes, of)
    return space.scores(*weights(how, space, labels, classes, of))


def weights(
    how: str, space: Space, labels: np.ndarray, classes: int, of: Sequence[float]
) -> Weights:
    """Return the linear head of each strength in the coordinates of the Space."""
    fit = {"ridge": ridge, "logistic": logistic, "ncm": nearest_mean}[how]
    return fit(space.train, labels, classes, np.asarray(of, np.float64))


def ridge(x: np.ndarray, labels: np.ndarray, classes: int, of: np.ndarray) -> Weights:
    """Least squares; the bias is not penalised (scikit-learn's fit_intercept)."""
    y = 2 * auroc.one_hot(labels, classes) - 1
    known = ~np.isnan(y)
    if known.all():  # the directions of the Space are its eigenvectors already
        level = y.mean(0)
        w = x.T @ (y - level) / (np.square(x).sum(0)[:, None] + of[:, None, None])
        return w, level - x.mean(0) @ w
    w, b = np.zeros((len(of), x.shape[1], classes)), np.zeros((len(of), classes))
    # Labels that are known of the same images share one set of eigenvectors.
    for rows in np.unique(known, axis=1).T:
        if not rows.any():  # a label that nobody knows: score 0, between -1 and 1
            continue
        alike = (known == rows[:, None]).all(axis=0)
        target, middle = y[np.ix_(rows, alike)], x[rows].mean(0)
        centred, level = x[rows] - middle, target.mean(0)
        values, turn = np.linalg.eigh(centred.T @ centred)
        inner = turn.T @ (centred.T @ (target - level))
        # rounding leaves eigenvalues a little below 0
        scaled = inner / (np.maximum(values, 0)[:, None] + of[:, None, None])
        w[:, :, alike] = turn @ scaled
        b[:, alike] = level - middle @ w[:, :, alike]
    return w, b


def logistic(
    x: np.ndarray, labels: np.ndarray, classes: int, of: np.ndarray
) -> Weights:
    """Softmax over the classes of the draw, or a binary regression for each label."""
    w = np.zeros((len(of), x.shape[1], classes))
    b = np.full((len(of), classes), NEVER)
    y = auroc.one_hot(labels, classes)
    positive = (y == 1).any(axis=0)
    if labels.ndim == 2:
        # Without a negative the bias would grow for ever: it is not penalised.
        b[:, positive] = -NEVER
        both = positive & (y == 0).any(axis=0)
        if both.any():
            w[:, :, both], b[:, both] = newton.fit(x, y[:, both], 1 / of, softmax=False)
        return w, b
    there = np.flatnonzero(positive)
    b[:, there] = 0
    # Binary, as scikit-learn's: softmax would share the difference of two classes
    # between two vectors, at half of the penalty.
    if len(there) == 2:
        one = y[:, there[1:]]
        w[:, :, there[1:]], b[:, there[1:]] = newton.fit(x, one, 1 / of, softmax=False)
    elif len(there) > 2:
        w[:, :, there], b[:, there] = newton.fit(x, y[:, there], 1 / of, softmax=True)
    return w, b


def nearest_mean(
    x: np.ndarray, labels: np.ndarray, classes: int, of: np.ndarray
) -> Weights:
    """Minus half the squared distance to each mean, without what all classes share."""
    y = auroc.one_hot(labels, classes)
    w, b = np.zeros((1, x.shape[1], classes)), np.full((1, classes), NEVER)
    for k in range(classes):
        positive, negative = x[y[:, k] == 1], x[y[:, k] == 0]
        if not len(positive):
            continue
        mean = positive.mean(0)
        other = np.zeros_like(mean)
        # The nearest of all classes needs no opponent; a label has one, its negatives.
        if labels.ndim == 2:
            other = negative.mean(0) if len(negative) else mean
        w[0, :, k] = mean - other
        b[0, k] = (other @ other - mean @ mean) / 2
        if labels.ndim == 2 and not len(negative):
            b[0, k] = -NEVER
    return np.repeat(w, len(of), 0), np.repeat(b, len(of), 0)


def neighbours(
    space: Space, labels: np.ndarray, classes: int, of: Sequence[float]
) -> np.ndarray:
    """The logarithm of the classes' votes, or the log-odds of each label's."""
    y = auroc.one_hot(labels, classes)
    t, x = space.coordinates(), space.train
    distance = np.square(x).sum(1) - 2 * (t @ x.T)  # up to what all have in common
    most = int(max(of))
    # Stable: among equally near images the first of the draw votes.
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :most]
    # One sort serves every k. An unknown label (NaN) is neither 1 nor 0: no vote on it.
    yes, no = (np.cumsum((y == v)[nearest], axis=1, dtype=np.int64) for v in (1, 0))
    out = np.empty((len(of), len(t), classes), np.float32)
    for i, k in enumerate(of):
        up, down = yes[:, int(k) - 1], no[:, int(k) - 1]
        if labels.ndim == 2:
            # Half a vote each keeps the odds of a unanimous vote finite.
            out[i] = np.log((up + 0.5) / (down + 0.5))
        else:
            out[i] = np.log((up + 1 / classes) / (k + 1))
    return out


def loss(how: str, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the loss [strengths] that a head is chosen by: its own.

    logits [strengths, n, classes] of images whose labels are given. The loss is the
    squared error of ridge, the cross-entropy in nats of the others, as a mean over the
    known labels.
    """
    y = auroc.one_hot(labels, logits.shape[2])
    z = logits.astype(np.float64)
    known = ~np.isnan(y)
    if how == "ridge":  # its scores are no log-odds: cross-entropy would misjudge them
        each = np.square(z - (2 * y - 1))
    elif labels.ndim == 2:
        each = np.logaddexp(0, z) - y * z
    else:
        each = -(z - np.logaddexp.reduce(z, axis=2, keepdims=True))[:, y == 1]
        return each.mean(axis=1)
    return each[:, known].mean(axis=1)
