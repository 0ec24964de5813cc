"""What the compiled programs of a run depend on, and nothing else."""

import json
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from bigxfer import config
from bigxfer.config import Run
from bigxfer.data.manifest import Manifest
from bigxfer.models import Model
from bigxfer.protocols import optim
from bigxfer.training import sharding


@dataclass(frozen=True)
class Task:
    """Equal `key`: the same programs. What is compiled reads no other object.

    A field of the config that lacks the word `program` in schema.PLACES has its default
    here. So a new field that changes a program, but does not say so, does nothing at
    all, rather than change the programs of some runs and not of others.
    """

    run: Run  # its `program` fields alone
    plan: optim.Plan
    classes: int
    multilabel: bool  # a sigmoid a class; otherwise one softmax over the classes
    mesh: Mesh

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """(1, crop, crop, 3): what Model.init takes."""
        crop = self.run.data.crop
        return 1, crop, crop, 3

    @property
    def key(self) -> str:
        """Names the programs, but for the shapes of the batch."""
        kept = config.values(self.run, "program")
        about = self.classes, self.multilabel, str(self.mesh)
        return json.dumps([kept, vars(self.plan), *about])

    def variables(self, model: Model) -> Any:
        """The shapes of the model's variables."""
        return jax.eval_shape(lambda: model.init(jax.random.key(0), self.image_shape))


def of(run: Run, plan: optim.Plan, manifest: Manifest) -> Task:
    """The task of a run on this data, on all devices."""
    mesh = sharding.make(run.mesh.fsdp, run.optim.batch)
    classes, multilabel = len(manifest.classes), manifest.multilabel
    # Other fields are at their defaults: a program that reads one reads no run's own.
    return Task(config.only(run, "program"), plan, classes, multilabel, mesh)
