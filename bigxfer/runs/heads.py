"""The fitted head of a run: what its images look like to the upstream, and what it scores.

An upstream sees each image once, for all draws of a cell; every draw then takes its rows
of one table of dot products (protocols/space.py).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bigxfer.config import Init, Run
from bigxfer.data import dataset
from bigxfer.data.manifest import Manifest
from bigxfer.protocols import features, heads, probe
from bigxfer.protocols.space import Products
from bigxfer.runs import cells, choice
from bigxfer.runs.choice import Choice
from bigxfer.runs.spent import Spent
from bigxfer.training import compiled, feed, loop, predictor

if TYPE_CHECKING:
    from bigxfer.runs.job import Job

Started = tuple[compiled.Programs, loop.State]
See = Callable[[np.ndarray], np.ndarray]  # rows of the manifest -> float32 [n, d]


@dataclass(frozen=True)
class CellImages:
    """The images that the draws of a cell train on or are judged by."""

    products: Products
    place: np.ndarray  # int: the row in `products` of each row of the manifest, or -1
    manifest: Manifest


@dataclass(frozen=True)
class OfRun:
    """What the fitted head gives to the story of its run."""

    state: loop.State | None  # with the head in it; None where there is no net
    logits: dict[str, np.ndarray]  # {split: [n, classes]}
    said: dict[str, Any]  # what result.json holds under "head"
    choice: Choice | None  # how its strength was chosen; None: no label chose it
    held: np.ndarray | None  # [m, classes] of the training images, as `choose` gives it
    spent: Spent


@dataclass(frozen=True)
class Fitted:
    """The head of one draw."""

    strength: float
    choice: Choice | None  # None: no label chose the strength
    logits: np.ndarray  # float32 [n, classes] of the images to judge
    head: tuple[np.ndarray, np.ndarray] | None  # kernel, bias for features as they are


def of_run(
    job: "Job",
    source: Started | features.Features,
    cell: Run,
    kept: dict[str, dataset.Opened] | None,
    seen: dict[str, CellImages] | None,
) -> OfRun:
    """Fit the head of config.freeze.head to features that are computed once an image.

    `source` gives the features: a net, as its programs and its state, or a features file.
    `cell` is the run of all draws, or the run itself; they share `seen`.
    """
    began, how, rows = time.monotonic(), job.run.freeze.head, job.data.rows
    # All splits are judged in one go and cut apart afterwards: one fit, one space.
    splits = np.cumsum([len(rows[name]) for name in job.judged])[:-1]
    judged = np.concatenate([rows[name] for name in job.judged])
    net = None if isinstance(source, features.Features) else source
    images = None if seen is None else seen.get("images")
    if images is None:
        # Where the net's start depends on the seed, every draw has features of its own.
        shared = seen is not None and (net is None or starts_alike(job.run.init))
        pool = cells.pool(cell, job.data, kept) if shared else rows["train"]
        images = look(seer(job, source), job.data.manifest, pool, judged)
        if seen is not None and shared:
            seen["images"] = images
    train = rows["train"]
    grid = heads.strengths(how, len(train), job.run.optim.tune)
    chosen, held = choose(how, images, train, rows["valid"], job.select_on, grid)
    fitted = fit(how, images, train, judged, chosen)
    clock, many = loop.Clock(train=time.monotonic() - began), len(rows["train"])
    job.log.say(f"{how} head on {many} images: {clock.train:.1f} s")
    flops, state = 0.0, None
    if net:
        programs, state = net
        flops = programs.flops * many
        if fitted.head:
            # So params.npz is a whole net, which predict and export can open.
            params = probe.put(state.params, programs.model.head, fitted.head)
            state = replace(state, params=params)
    logits = dict(zip(job.judged, np.split(fitted.logits, splits), strict=True))
    folds = chosen.folds if chosen else 0
    said = {"how": how, "strength": fitted.strength, "folds": folds}
    return OfRun(state, logits, said, chosen, held, Spent(1, many, flops, clock))


def seer(job: "Job", source: Started | features.Features) -> See:
    """Return what computes the features of rows of the manifest, or looks them up."""
    if isinstance(source, features.Features):
        return partial(source.of, job.data.manifest)
    programs, state = cast(Started, source)
    predict = cast(predictor.Predict, programs.features)

    def see(rows: np.ndarray) -> np.ndarray:
        # In ascending order, so that the cache is read forwards.
        order = np.argsort(rows)
        subset = replace(job.data, rows={"seen": rows[order]})
        loader = feed.loader(subset, "seen", job.run)
        seen_rows, values = predict(loop.variables(state), loader)
        out = np.empty_like(values)
        # predict says which rows it gives: their order is the batches', not ours.
        out[order] = values[np.argsort(seen_rows)]
        return out

    return see


def starts_alike(init: Init) -> bool:
    """Whether a net starts the same for every seed."""
    # Below the zero head a whole copy has nothing random in it.
    return init.kind == "pretrained" and (init.how, init.upto) == ("copy", "")


def look(
    see: See, manifest: Manifest, pool: np.ndarray, others: np.ndarray
) -> CellImages:
    """Compute the features of the rows `pool`, which may train, and of `others`.

    Raises ValueError that names the first image whose features are not finite.
    """
    pool = np.unique(pool)
    # The pool first: Products makes the dot products of all with these.
    rows = np.concatenate([pool, others[~np.isin(others, pool)]])
    features = see(rows)
    # A single NaN would spread to every score through the products.
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        first = manifest.id[rows[int(np.argmin(finite))]]
        raise ValueError(
            f"the features of {first!r} are not finite ({(~finite).sum()} of"
            f" {len(rows)} images)"
        )
    place = np.full(len(manifest), -1)
    place[rows] = np.arange(len(rows))
    return CellImages(Products(features, len(pool)), place, manifest)


def choose(
    how: str,
    images: CellImages,
    train: np.ndarray,
    valid: np.ndarray,
    select_on: str,
    grid: tuple[float, ...],
) -> tuple[Choice | None, np.ndarray | None]:
    """Choose the strength of the head of the rows `train` as `select_on` says.

    none: nothing. support: by the least loss over folds of the patients of `train`.
    validation: by the least loss on the rows `valid`. Return also, of support, the logits
    float32 [len(train), classes] of each training image by the head of the other folds, at
    the strength that was chosen: what may fix a threshold and a temperature. Raises
    ValueError where the shots are of one patient, so that there are no folds.
    """
    # Of one strength nothing is chosen, and the result says "untuned".
    single, what = len(grid) == 1, "neighbours" if how == "knn" else "penalty"
    if select_on == "support":
        losses, grid, folds, logits = _folded(how, images, train, grid)
        if single:
            return None, logits[0]
        chosen = choice.best(what, grid, losses.tolist(), "loss", folds)
        return chosen, logits[grid.index(chosen.value)]
    if select_on == "none" or single:
        return None, None
    logits = _scores(how, images, train, valid, grid)
    losses = heads.loss(how, logits, images.manifest.labels[valid])
    return choice.best(what, grid, losses.tolist(), "loss", 0), None


def fit(
    how: str,
    images: CellImages,
    train: np.ndarray,
    judged: np.ndarray,
    chosen: Choice | None,
) -> Fitted:
    """Fit the head to the rows `train`, with heads.fixed where nothing was chosen."""
    labels, classes = images.manifest.labels, len(images.manifest.classes)
    strength = chosen.value if chosen else heads.fixed(how, len(train))
    space = images.products.space(images.place[train], images.place[judged])
    if how not in heads.LINEAR:
        # Neighbours are no kernel and bias: there is no head to put into the net.
        logits = heads.scores(how, space, labels[train], classes, (strength,))
        return Fitted(strength, chosen, logits[0], None)
    w, b = heads.weights(how, space, labels[train], classes, (strength,))
    logits = space.scores(w, b)[0]
    return Fitted(strength, chosen, logits, space.head(w[0], b[0]))


def _scores(
    how: str,
    images: CellImages,
    train: np.ndarray,
    held: np.ndarray,
    grid: tuple[float, ...],
) -> np.ndarray:
    """float32 [strengths, len(held), classes] of heads of the rows `train`."""
    labels, classes = images.manifest.labels, len(images.manifest.classes)
    space = images.products.space(images.place[train], images.place[held])
    return heads.scores(how, space, labels[train], classes, grid)


def _folded(
    how: str, images: CellImages, train: np.ndarray, grid: tuple[float, ...]
) -> tuple[np.ndarray, tuple[float, ...], int, np.ndarray]:
    """(the mean loss of each strength over the folds, the strengths, how many folds, the
    logits float32 [strengths, len(train), classes] of each image without its fold).

    For knn, only the numbers of neighbours that every fold can have: the smallest.
    """
    fold, folds = choice.fold_of(images.manifest.select(train))
    if how == "knn":
        fewest = len(train) - np.bincount(fold).max()
        # In a fold of fewer images there are no k neighbours to vote.
        grid = tuple(k for k in grid if k <= fewest) or (1.0,)
    total, labels = np.zeros(len(grid)), images.manifest.labels
    shape = len(grid), len(train), len(images.manifest.classes)
    logits = np.empty(shape, np.float32)
    for number in range(folds):
        held = fold == number
        logits[:, held] = _scores(how, images, train[~held], train[held], grid)
        losses = heads.loss(how, logits[:, held], labels[train[held]])
        # Folds are of patients and differ in images: each image counts once.
        total += held.sum() * losses
    return total / len(train), grid, folds, logits
