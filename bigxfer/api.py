"""What Python code takes from bigxfer: a finished run's net, and a study's table.

  net = bigxfer.load("runs/DIGEST")
  net.predict("FOLDER")           float64 [n, classes]: probabilities
  net.features(["a.png", ...])    float32 [n, features]: what the head sees
  bigxfer.table("runs")           a pyarrow.Table, one row a run

Research software, no diagnostic device.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bigxfer.data.images import Files, fitted, listed, unlabelled
from bigxfer.runs import finished

if TYPE_CHECKING:
    import pyarrow as pa

    from bigxfer.models import Model
    from bigxfer.training.predictor import Predict

Name = str | os.PathLike[str]
# A folder (searched with all beneath it), an image, a CSV as bigxfer.predict takes it;
# several images; or pixels: uint8 [n, h, w] or [n, h, w, 1 or 3].
ImagesOrFiles = Name | Sequence[Name] | np.ndarray


def load(run: Name) -> "Net":
    """Open the folder of a finished run.

    Raises FileNotFoundError where there is none; ValueError where the run is not finished,
    damaged, or kept no parameters.
    """
    return Net(finished.open(Path(run)))


@dataclass(frozen=True)
class Net:
    """The net of a finished run. `notice` belongs on whatever is made with it."""

    run: finished.Trained

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the columns of `predict`."""
        return self.run.classes

    @property
    def notice(self) -> str:
        """That this is no diagnostic device, and whether its data were synthetic."""
        return self.run.notice

    def predict(self, images: ImagesOrFiles) -> np.ndarray:
        """float64 [n, classes]: probabilities, calibrated where the run has labels for that.

        As `python -m bigxfer.predict` gives them; `run.calibration()` says by what. Rows
        are in the order of `images`, those of a folder in the order of `data.images.listed`.
        Raises ValueError that names each image which cannot be read.
        """
        logits = self._forward(self._logits, images)
        return self.run.probabilities(logits, self._temperature)

    def features(self, images: ImagesOrFiles) -> np.ndarray:
        """float32 [n, features]: the layer before the head (`pre_logits`), as `predict`."""
        return self._forward(self._features, images)

    @cached_property
    def _temperature(self) -> float:
        return self.run.calibration()[0]

    @cached_property
    def _logits(self) -> "Predict":
        return self._compiled(self.run.model)

    @cached_property
    def _features(self) -> "Predict":
        from bigxfer.protocols import probe

        return self._compiled(probe.Headless(self.run.model))

    def _compiled(self, model: "Model") -> "Predict":
        # Imports jax: `import bigxfer` and bigxfer.table do without it.
        from bigxfer.training import sharding
        from bigxfer.training.predictor import make_predict

        run = self.run.run
        return make_predict(model, run, sharding.make(1, run.eval.batch))

    def _forward(self, compiled: "Predict", images: ImagesOrFiles) -> np.ndarray:
        pixels = self._pixels(images)
        rows = np.arange(len(pixels))
        loader = unlabelled(pixels, rows, self.run.run.eval.batch)
        order, values = compiled(self.run.variables, loader)
        # Known only now: files are decoded while the net runs.
        if isinstance(pixels, Files) and pixels.bad:
            bad = [f"{pixels.paths[row]}: {why}" for row, why in pixels.bad.items()]
            raise ValueError(
                f"{len(bad)} of {len(rows)} images cannot be read: {'; '.join(bad)}"
            )
        # Rows come in the order of the batches.
        return values[np.argsort(order)]

    def _pixels(self, images: ImagesOrFiles) -> Files | np.ndarray:
        """The images at the size to which the run resized its own."""
        data = self.run.run.data
        if isinstance(images, np.ndarray):
            return fitted(images, data.resize, data.channels)
        if isinstance(images, str | os.PathLike):
            root, paths = listed(Path(images))
        else:
            root, paths = Path(), [str(path) for path in images]
        return Files(root, paths, data.resize, data.channels)


def table(study: Name) -> "pa.Table":
    """Return the table of a study, one row a run (columns: docs/run_folder.md).

    study: the folder of its run folders, which is collected anew, or a table.parquet. A
    run that cannot be read is left out, with a warning. Raises FileNotFoundError where
    there is none of either, ValueError for a damaged table.
    """
    from bigxfer.tables import table as tables

    path = Path(study)
    if path.suffix == ".parquet":
        if not path.is_file():
            raise FileNotFoundError(f"no table at {path}")
        return tables.to_arrow(tables.load(path))
    collected = tables.collect([path], path)
    for folder, why in collected.bad.items():
        warnings.warn(f"left out: {folder}: {why}", stacklevel=2)
    return tables.to_arrow(collected.rows)
