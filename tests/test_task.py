"""What programs depend on: a worker reuses them for runs of equal tasks."""

from types import SimpleNamespace
from typing import Any

import pytest

from bigxfer import config
from bigxfer.config import Run
from bigxfer.protocols import optim
from bigxfer.training import sharding, task

FIELDS = config.flat(Run())
PLAN = optim.Plan(3, 0, (), 0.1, 0.0, "constant")


def changed(name):
    """A run in which this field alone has another value."""
    run, value = Run(), FIELDS[name]
    part, (*sections, last) = run, name.split("/")
    for section in sections:
        part = getattr(part, section)
    other = {bool: lambda: not value, tuple: lambda: (*value, 7)}
    plus = {int: 1, float: 0.5, str: "x"}
    make = other.get(type(value), lambda: value + plus[type(value)])
    setattr(part, last, make())
    return run


def key(run):
    return task.Task(config.only(run, "program"), PLAN, 3, False, sharding.make()).key


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_changes_the_programs_if_it_says_so(name):
    compiled = "program" in config.places()[name][0]
    assert (key(changed(name)) != key(Run())) is compiled


def test_nothing_that_is_compiled_sees_a_field_that_does_not_say_so():
    """A new field of init that changed a program would else be ignored on reuse."""
    run = Run(kind="transfer", seed=5)
    run.init = config.Init("gabor", upto="block2", checkpoint="x")
    run.model.width, run.data.crop, run.log.every = 2.0, 96, 1
    manifest: Any = SimpleNamespace(classes=("a", "b", "c"), multilabel=True)
    seen = task.of(run, PLAN, manifest)
    assert seen.multilabel and seen.classes == 3
    assert (seen.run.init, seen.run.seed, seen.run.log) == (config.Init(), 0, Run().log)
    assert (seen.run.model.width, seen.image_shape) == (2.0, (1, 96, 96, 3))
