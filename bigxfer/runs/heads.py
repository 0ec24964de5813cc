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
    """What a run's head gives the run."""

    state: loop.State | None  # with the head in it; None where there is no net
    logits: dict[str, np.ndarray]  # {split: [n, classes]}
    said: dict[str, Any]  # of result.json
    choice: Choice | None  # of its strength; None: no label chose it
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
    splits = np.cumsum([len(rows[name]) for name in job.judged])[:-1]
    judged = np.concatenate([rows[name] for name in job.judged])
    net = None if isinstance(source, features.Features) else source
    images = None if seen is None else seen.get("images")
    if images is None:
        shared = seen is not None and (net is None or starts_alike(job.run.init))
        pool = cells.pool(cell, job.data, kept) if shared else rows["train"]
        images = look(seer(job, source), job.data.manifest, pool, judged)
        if seen is not None and shared:
            seen["images"] = images
    train = rows["train"]
    of = heads.strengths(how, len(train), job.run.optim.tune)
    chosen = choose(how, images, train, rows["valid"], job.select_on, of)
    found = fit(how, images, train, judged, chosen)
    clock, many = loop.Clock(train=time.monotonic() - began), len(rows["train"])
    job.log.say(f"{how} head on {many} images: {clock.train:.1f} s")
    flops, state = 0.0, None
    if net:
        programs, state = net
        flops = programs.flops * many
        if found.head:
            params = probe.put(state.params, programs.model.head, found.head)
            state = replace(state, params=params)
    logits = dict(zip(job.judged, np.split(found.logits, splits), strict=True))
    folds = chosen.folds if chosen else 0
    said = {"how": how, "strength": found.strength, "folds": folds}
    return OfRun(state, logits, said, chosen, Spent(1, many, flops, clock))


def seer(job: "Job", source: Started | features.Features) -> See:
    """Return what computes the features of rows of the manifest, or looks them up."""
    if isinstance(source, features.Features):
        return partial(source.of, job.data.manifest)
    programs, state = cast(Started, source)
    predict = cast(predictor.Predict, programs.features)

    def see(rows: np.ndarray) -> np.ndarray:
        order = np.argsort(rows)
        some = replace(job.data, rows={"seen": rows[order]})
        loader = feed.loader(some, "seen", job.run)
        seen, values = predict(loop.variables(state), loader)
        out = np.empty_like(values)
        out[order] = values[np.argsort(seen)]
        return out

    return see


def starts_alike(init: Init) -> bool:
    """Whether a net starts the same for every seed."""
    return init.kind == "pretrained" and (init.how, init.upto) == ("copy", "")


def look(
    see: See, manifest: Manifest, pool: np.ndarray, others: np.ndarray
) -> CellImages:
    """See the rows `pool`, which may train, and `others`.

    Raises ValueError that names the first image whose features are not finite.
    """
    pool = np.unique(pool)
    rows = np.concatenate([pool, others[~np.isin(others, pool)]])
    features = see(rows)
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
    seen: CellImages,
    train: np.ndarray,
    valid: np.ndarray,
    select_on: str,
    of: tuple[float, ...],
) -> Choice | None:
    """Choose the strength `of` the head of the rows `train` as `select_on` says.

    none: None. support: by the least loss over folds of the patients of `train`.
    validation: by the least loss on the rows `valid`. Raises ValueError where the shots
    are of one patient, so that there are no folds.
    """
    if select_on == "none" or len(of) == 1:
        return None
    folds = 0
    if select_on == "validation":
        losses = _losses(how, seen, train, valid, of)
    else:
        losses, of, folds = _folded(how, seen, train, of)
    what = "neighbours" if how == "knn" else "penalty"
    return choice.best(what, of, losses.tolist(), "loss", folds)


def fit(
    how: str,
    seen: CellImages,
    train: np.ndarray,
    judged: np.ndarray,
    chosen: Choice | None,
) -> Fitted:
    """Fit the head to the rows `train`, with heads.fixed where nothing was chosen."""
    labels, classes = seen.manifest.labels, len(seen.manifest.classes)
    strength = chosen.value if chosen else heads.fixed(how, len(train))
    space = seen.products.space(seen.place[train], seen.place[judged])
    if how not in heads.LINEAR:
        logits = heads.scores(how, space, labels[train], classes, (strength,))
        return Fitted(strength, chosen, logits[0], None)
    w, b = heads.weights(how, space, labels[train], classes, (strength,))
    logits = space.scores(w, b)[0]
    return Fitted(strength, chosen, logits, space.head(w[0], b[0]))


def _losses(
    how: str,
    seen: CellImages,
    train: np.ndarray,
    held: np.ndarray,
    of: tuple[float, ...],
) -> np.ndarray:
    labels, classes = seen.manifest.labels, len(seen.manifest.classes)
    space = seen.products.space(seen.place[train], seen.place[held])
    found = heads.scores(how, space, labels[train], classes, of)
    return heads.loss(how, found, labels[held])


def _folded(
    how: str, seen: CellImages, train: np.ndarray, of: tuple[float, ...]
) -> tuple[np.ndarray, tuple[float, ...], int]:
    """(the mean loss of each strength over the folds, the strengths, how many folds).

    Of knn only the numbers of neighbours that every fold can have, the last ones.
    """
    fold, folds = choice.fold_of(seen.manifest.select(train))
    if how == "knn":
        fewest = len(train) - np.bincount(fold).max()
        of = tuple(k for k in of if k <= fewest) or (1.0,)
    total = np.zeros(len(of))
    for number in range(folds):
        held = fold == number
        losses = _losses(how, seen, train[~held], train[held], of)
        total += held.sum() * losses
    return total / len(train), of, folds
