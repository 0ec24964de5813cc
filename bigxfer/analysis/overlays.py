"""Heatmaps of image files, each at the image's own resolution: `predict --heatmaps`."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from bigxfer.analysis import gradcam, plots
from bigxfer.data import augment
from bigxfer.data.images import Files
from bigxfer.data.pixels import decode
from bigxfer.runs.finished import Trained

AT_ONCE = 256  # images whose heatmaps are made together, by one compiled program


def write(
    run: Trained, files: Files, called: dict[int, tuple[int, float]], out: Path
) -> None:
    """Save out/`name` for each image: itself, and Grad-CAM of its likeliest class.

    called: {row: (class, probability)} of the files that could be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    endpoint = gradcam.deepest(run.model, run.variables, run.image_shape)
    rows = list(called)
    for start in range(0, len(rows), AT_ONCE):
        batch_rows = np.array(rows[start : start + AT_ONCE])
        views = np.asarray(
            augment.eval_view(jnp.asarray(files[batch_rows]), run.run.data.crop)
        )
        classes = np.array([called[row][0] for row in batch_rows.tolist()])
        maps = gradcam.gradcam(run.model, run.variables, views, classes, endpoint)
        for row, hot in zip(batch_rows.tolist(), maps, strict=True):
            path, (label, p) = files.paths[row], called[row]
            # Read again, since the net's own view is small and square. 0: as it lies.
            image = decode.load(files.root, path, 0, files.shape[-1])
            caption = (
                f"{path}\n{run.classes[label]} {p:.3f}; bright: Grad-CAM of {endpoint},"
                f" which is no proof of why\n{run.notice}"
            )
            plots.overlay(out / name(row, path), image, hot, caption)


def name(row: int, path: str) -> str:
    """ROW_FOLDERS_FILE.png: no two rows share it, nor do files of one name in two folders."""
    # File systems take names of at most 255 bytes.
    return f"{row:05d}_{re.sub(r'[^A-Za-z0-9_.-]+', '_', path)[-150:]}.png"
