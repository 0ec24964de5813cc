"""The peak rate of a run, chosen from config.optim.tune by labels that the run may use.

Each rate trains as the run does, with its schedule: on all its training images, judged on
validation, or on all but one fold of them, judged on that fold. Then the run itself trains
at the best rate, as a run of that config.optim.lr would.

A trial has a folder of its own, RUN/trials/NAME, with its checkpoints, and what it scored
in trial.json there. So a run that was killed does no trial again, and goes on with the one
that it was at, to the same bits.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bigxfer import durable
from bigxfer.protocols import optim
from bigxfer.runs import choice, steps
from bigxfer.runs.choice import Choice
from bigxfer.runs.spent import Spent
from bigxfer.training import checkpoint, compiled, feed, loop, processes
from bigxfer.training import task as tasks
from bigxfer.training.log import RunLog
from bigxfer.training.stopping import Stop

if TYPE_CHECKING:
    from bigxfer.runs.job import Job

FOLDER = "trials"


def choose(
    job: "Job", shared: compiled.Shared, stop: Stop
) -> tuple["Job", Choice, list[Spent]]:
    """(the job at the best rate, how that was chosen, what each trial has cost).

    By config.eval.select or else the loss: on validation, or its mean over the images of
    all folds. Raises ValueError where every rate diverges.
    """
    of, metric = job.run.optim.tune, job.run.eval.select or "loss"
    parts, scores, spent = list(folds(job)), [], []
    held = [len(part.data.rows["valid"]) for part in parts]
    for rate in of:
        each = []
        for number, part in enumerate(parts):
            at = with_rate(part, rate)
            score, cost = trial(at, f"{rate:g}-{number}", metric, shared, stop)
            each.append(score)
            spent.append(cost)
        scores.append(float(np.average(each, weights=held)))
        job.log.say(f"rate {rate:g}: {metric} {scores[-1]:.4f} on {job.select_on}")
    count = len(parts) if job.select_on == "support" else 0
    found = choice.best("rate", of, scores, metric, count)
    job.log.say(f"chose rate {found.value:g} of {len(of)}, after {len(spent)} trials")
    return with_rate(job, found.value), found, spent


def folds(job: "Job") -> Iterator["Job"]:
    """The job itself where validation judges, else one job for each fold of its support."""
    if job.select_on == "validation":
        yield job
        return
    train = job.data.rows["train"]
    fold, count = choice.fold_of(job.data.manifest.select(train))
    for number in range(count):
        kept = fold != number
        rows = {**job.data.rows, "train": train[kept], "valid": train[~kept]}
        sampling = job.data.sampling.only(kept)
        part = replace(job, data=replace(job.data, rows=rows, sampling=sampling))
        reads = feed.of(part.loader("train"), job.task.mesh, job.run.data.resident)
        yield replace(part, feed=reads)


def with_rate(job: "Job", rate: float) -> "Job":
    """The job at this config.optim.lr, with as many steps."""
    run = replace(job.run, optim=replace(job.run.optim, lr=rate))
    plan = replace(job.plan, lr=optim.peak(run.optim))
    task = tasks.of(run, plan, job.data.manifest)
    about = {**job.about, "plan": vars(plan)}
    return replace(job, run=run, plan=plan, task=task, about=about)


def trial(
    job: "Job", name: str, metric: str, shared: compiled.Shared, stop: Stop
) -> tuple[float, Spent]:
    """(the metric on validation, the cost) of one training; NaN where it diverges."""
    folder = job.folder / FOLDER / name
    try:
        known = durable.read_sealed(folder / "trial.json")
    except (ValueError, OSError):  # not done, or damaged
        folder.mkdir(parents=True, exist_ok=True)
        log = RunLog(folder, replace(job.run.log, writers=()), job.log.primary)
        saved = checkpoint.Checkpoints(folder / "checkpoints", job.digest)
        own = replace(job, folder=folder, log=log, checkpoints=saved)
        known = train(own, metric, shared, stop)
        if job.log.primary:
            durable.write_sealed(folder / "trial.json", known)
        saved.delete()
        processes.barrier("trial")  # all are to read the same file
    score = math.nan if known["score"] is None else known["score"]
    clock = loop.Clock(**known["clock"])
    return score, Spent(job.plan.steps, 0, known["flops"], clock)


def train(
    own: "Job", metric: str, shared: compiled.Shared, stop: Stop
) -> dict[str, Any]:
    """What trial.json says of a training; of one that diverged no score."""
    programs = compiled.get(own.run, own.task, own.feed, own.log, shared)
    flops = programs.flops * own.plan.steps  # of one that diverged too: at most so many
    try:
        state, spent = steps.take(own, programs, programs.first_state(own.run), stop)
    except FloatingPointError as error:
        own.log.say(f"{own.folder.name} diverges, and so counts as the worst: {error}")
        return {"score": None, "flops": flops, "clock": vars(loop.Clock())}
    score = steps.validate(own, programs.predict, state)[metric]
    score = score if math.isfinite(score) else None
    return {"score": score, "flops": flops, "clock": vars(spent.clock)}
