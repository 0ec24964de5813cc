"""Training by gradients, and its metrics on validation."""

from functools import partial
from typing import TYPE_CHECKING

from bigxfer.runs import evaluate
from bigxfer.runs.spent import Spent
from bigxfer.training import compiled, loop, predictor
from bigxfer.training.stopping import Stop

if TYPE_CHECKING:
    from bigxfer.runs.job import Job


def take(
    job: "Job", programs: compiled.Programs, state: loop.State, stop: Stop
) -> tuple[loop.State, Spent]:
    """Train by gradients, from the last checkpoint if there is one."""
    valid = partial(validate, job, programs.predict)
    # Within, a signal waits for the end of the step, so that it can be saved.
    with stop.training():
        state, clock = loop.fit(job, state, programs.step, job.feed, valid, stop)
    steps, images = job.plan.steps, job.plan.steps * job.run.optim.batch
    return state, Spent(steps, images, programs.flops * steps, clock)


def validate(
    job: "Job", predict: predictor.Predict, state: loop.State
) -> dict[str, float]:
    """Point values of the metrics on the validation split."""
    predicted = predict(loop.variables(state), job.loader("valid"))
    return evaluate.points(job.data.manifest, *predicted)
