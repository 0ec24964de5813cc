"""Predictions of a model on a split, to predictions.npz and to metrics."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from bigxfer import metrics, sharding, tree
from bigxfer.config import Run
from bigxfer.data import augment
from bigxfer.data.loader import Loader
from bigxfer.data.manifest import Manifest
from bigxfer.models import Model
from bigxfer.tree import Tree

Predict = Callable[[Tree, Loader], tuple[np.ndarray, np.ndarray]]


def make_predict(model: Model, run: Run, mesh: Mesh) -> Predict:
    """predict(variables, loader) -> (rows int [n], logits float32 [n, classes]).

    Every row of the loader exactly once, on any number of devices.
    """
    replicated = sharding.replicated(mesh)

    def forward(variables: Tree, images: jax.Array) -> jax.Array:
        view = augment.eval_view(images, run.data.crop)
        return model.apply(variables, view, train=False)[0]

    compiled = jax.jit(forward, out_shardings=replicated)
    size = images_at_once(run, mesh)

    def predict(variables: Tree, loader: Loader) -> tuple[np.ndarray, np.ndarray]:
        rows, logits = [], []
        for batch in loader.eval_batches(size):
            batch = sharding.to_global(mesh, batch)
            out = compiled(variables, batch["images"])
            index, mask, out = sharding.to_host((batch["index"], batch["mask"], out))
            rows.append(index[mask > 0])
            logits.append(out[mask > 0])
        return np.concatenate(rows), np.concatenate(logits)

    return predict


def images_at_once(run: Run, mesh: Mesh) -> int:
    """run.eval.batch, rounded up to the devices, each of which gets as many images.

    On a CPU at most half a million pixels each: R50x1 at 224 px takes as long an image
    in parts of 8 as of 128, and a third of the memory.
    """
    most = run.eval.batch
    if mesh.devices.flat[0].platform == "cpu":
        most = min(most, max(1, sharding.PIXELS // run.data.crop**2) * mesh.size)
    return -(-most // mesh.size) * mesh.size


def save(path: Path, part: Manifest, logits: np.ndarray) -> None:
    """Writes predictions.npz: ids, patients, sources, views, labels, logits, classes."""
    tree.save_npz(
        path,
        {
            "ids": part.id.astype(str),
            "patients": part.patient.astype(str),
            "sources": part.source.astype(str),
            "views": part.view.astype(str),
            "labels": part.labels,
            "logits": logits,
            "classes": np.asarray(part.classes),
        },
    )


def points(manifest: Manifest, rows: np.ndarray, logits: np.ndarray) -> dict:
    """{metric: value} without intervals, NaN where it cannot be computed."""
    part = manifest.select(rows)
    found = metrics.compute(
        part.labels, logits, part.classes, part.patient, resamples=0
    )["metrics"]
    none = float("nan")
    return {k: none if v["value"] is None else v["value"] for k, v in found.items()}
