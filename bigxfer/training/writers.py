"""Where a run's curves go beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow.

Each writer is the tool's own package behind two calls, `scalars` and `end`. What they
show is a copy: tables and reports read metrics.jsonl and result.json alone. Not
clu.metric_writers: it cannot be imported without TensorFlow, which nothing else here needs.
"""

import importlib.util
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from bigxfer import config

PROJECT = "bigxfer"  # the W&B project and the MLflow experiment, where none is set
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
NOT_MLFLOW = re.compile(r"[^\w\-. /:]")  # what MLflow refuses in a metric's name


class Writer(Protocol):
    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def end(self, final: dict[str, float]) -> None:
        """Write the test metrics, as values of the whole run, and close."""
        ...


def check(names: Sequence[str]) -> None:
    """Raise ConfigError, which says what to install, where a package is absent."""
    # Looked for, not imported: these packages take seconds to load.
    for name in names:
        if importlib.util.find_spec(package := PACKAGES[name]) is None:
            raise config.ConfigError(
                f"config.log.writers={name} needs the package {package}: pip install"
                f" {package} (or leave {name} out; metrics.jsonl is always written)"
            )


class Board:
    """Event files in FOLDER/tensorboard. They hold curves only, no test metrics."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        from tensorboardX import SummaryWriter  # slow to import

        del about
        self.board = SummaryWriter(str(folder / "tensorboard"))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def end(self, final: dict[str, float]) -> None:
        del final
        self.board.close()


class Wandb:
    """A W&B run. The user sets WANDB_MODE, WANDB_PROJECT and all else that W&B reads."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=identity(folder, about),
            name=folder.name,
            dir=folder,
            config=settings(about),
            tags=tags(about),
            resume="allow",  # a run that was killed goes on in its own curves
            reinit="create_new",  # a launcher's worker does several runs
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def end(self, final: dict[str, float]) -> None:
        self.run.summary.update(final)
        self.run.finish()


class Mlflow:
    """An MLflow run, at MLFLOW_TRACKING_URI or where MLflow keeps runs by default."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        import mlflow

        self.client = mlflow.MlflowClient()
        self.entities = mlflow.entities
        # The client does not read this by itself, as MLflow's fluent functions do.
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        if experiment:
            experiment_id = experiment.experiment_id
        else:
            experiment_id = self.client.create_experiment(name)
        ours = identity(folder, about)
        # MLflow gives runs ids of its own, so ours is kept as a tag.
        begun = self.client.search_runs([experiment_id], f"tags.bigxfer = '{ours}'")
        if begun:  # a run that was killed goes on in its own curves
            self.id = begun[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
            return
        labels = {"bigxfer": ours, **dict.fromkeys(tags(about), "yes")}
        run = self.client.create_run(experiment_id, run_name=folder.name, tags=labels)
        self.id = run.info.run_id
        pairs = [
            # older servers refuse more characters
            self.entities.Param(name, str(value)[:500])
            for name, value in settings(about).items()
        ]
        for start in range(0, len(pairs), 100):  # the most that MLflow takes at once
            self.client.log_batch(self.id, params=pairs[start : start + 100])

    def scalars(self, step: int, values: dict[str, float]) -> None:
        now = int(1000 * time.time())
        points = [
            self.entities.Metric(NOT_MLFLOW.sub("_", name), value, now, step)
            for name, value in values.items()
        ]
        # The most metrics that MLflow takes at once.
        for start in range(0, len(points), 1000):
            self.client.log_batch(self.id, metrics=points[start : start + 1000])

    def end(self, final: dict[str, float]) -> None:
        self.scalars(0, final)
        self.client.set_terminated(self.id)


OPEN: dict[str, Callable[[Path, dict[str, Any]], Writer]] = {
    "tensorboard": Board,
    "wandb": Wandb,
    "mlflow": Mlflow,
}


def identity(folder: Path, about: dict[str, Any]) -> str:
    """Name a run to the tool: of one config, in one folder."""
    return config.hash_of([about["digest"], str(folder.resolve())])


def settings(about: dict[str, Any]) -> dict[str, Any]:
    """{"optim/lr": 0.003, ...} of all fields, with the digest and the commit."""
    fields = config.flat(config.from_dict(about["config"]))
    return {**fields, "digest": about["digest"], "commit": about["commit"]}


def tags(about: dict[str, Any]) -> list[str]:
    return ["SYNTHETIC"] if about["synthetic"] else ["research only"]
