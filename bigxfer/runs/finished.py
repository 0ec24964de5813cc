"""A trained net out of its run folder, without the data it was trained on."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from scipy.special import expit, softmax

from bigxfer import config, durable, models, tree
from bigxfer.config import Run
from bigxfer.models import weights
from bigxfer.runs import folders
from bigxfer.statistics import calibration
from bigxfer.tree import Tree

NOTICE = "Research software, no diagnostic device: not for decisions about patients"


@dataclass(frozen=True)
class Trained:
    """What result.json, config.json, params.npz and the predictions say."""

    folder: Path
    run: Run
    digest: str
    commit: str
    synthetic: bool
    classes: tuple[str, ...]
    multilabel: bool  # a sigmoid a class; otherwise one softmax over the classes
    model: models.Model
    variables: Tree  # {"params"[, "batch_stats"]}, numpy float32

    @property
    def notice(self) -> str:
        """What stands on everything that is made from the run."""
        return "SYNTHETIC DATA. " * self.synthetic + NOTICE

    def probabilities(self, logits: np.ndarray, temperature: float) -> np.ndarray:
        """float [n, classes] of logits [n, classes]."""
        scaled = np.asarray(logits, np.float64) / temperature
        return expit(scaled) if self.multilabel else softmax(scaled, axis=1)

    def calibration(self) -> tuple[float, str]:
        """(temperature, where it comes from); 1 where validation cannot give one."""
        path = self.folder / "predictions_valid.npz"
        if not path.exists():
            return 1.0, "none: the run has no validation predictions"
        saved = tree.load_npz(path)
        labels, logits = saved["labels"], np.asarray(saved["logits"], np.float64)
        try:
            found = calibration.temperature(labels, logits)
        except ValueError as error:
            return 1.0, f"none: {error}"
        return (
            found,
            f"temperature {found:.4g} fitted on {len(labels)} validation images",
        )


def open(folder: Path) -> Trained:
    """Reads a run folder.

    Raises ValueError or FileNotFoundError that says what to do where the run is not
    finished, has kept no parameters, or they do not fit its config.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no run folder at {folder}")
    parameters, digest = folders.find_parameters(folder)
    about = durable.read_json(folder / "config.json")
    run, classes = config.from_dict(about["config"]), tuple(about["classes"])
    labels = tree.load_npz(folder / "predictions.npz")["labels"]
    model = models.build(run.model, len(classes))
    shape = (1, run.data.crop, run.data.crop, 3)
    template = jax.eval_shape(lambda: model.init(jax.random.key(0), shape))
    stats = {k: v for k, v in template.items() if k == "batch_stats"}
    params = weights.load(parameters, {**template["params"], **stats}, keep_head=True)
    stats = {k: params.pop(k) for k in stats}
    return Trained(
        folder=folder,
        run=run,
        digest=digest,
        commit=about["commit"],
        synthetic=about["synthetic"],
        classes=classes,
        multilabel=labels.ndim == 2,
        model=model,
        variables={"params": params, **stats},
    )
