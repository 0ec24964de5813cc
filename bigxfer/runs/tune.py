"""The peak rate of a run, chosen from config.optim.tune by labels that the run may use.

Each rate trains as the run does, with its schedule: on all its training images, judged on
validation, or on all but one fold of them, judged on that fold. Then the run itself trains
at the best rate, as a run of that config.optim.lr would. Without a grid, where
config.eval.select_on=support is set, only the folds train, at the run's own rate: what they
predict fixes an operating point and a temperature.

A trial has a folder of its own, RUN/trials/NAME, with its checkpoints, and what it scored
in trial.json there. So a run that was killed does no trial again, and goes on with the one
that it was at, to the same bits.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bigxfer import durable, tree
from bigxfer.protocols import optim
from bigxfer.runs import choice, evaluate
from bigxfer.runs.choice import Choice
from bigxfer.runs.spent import Spent
from bigxfer.training import checkpoint, compiled, feed, loop, processes
from bigxfer.training import task as tasks
from bigxfer.training.log import RunLog
from bigxfer.training.stopping import Stop

if TYPE_CHECKING:
    from bigxfer.runs.job import Job

FOLDER = "trials"
HELD = "held.npz"  # in a trial's folder: what it predicted for its fold


def choose(
    job: "Job", shared: compiled.Shared, stop: Stop
) -> tuple["Job", Choice | None, list[Spent], np.ndarray | None]:
    """(the job at the best rate, how that was chosen, what each trial has cost, `held`).

    By config.eval.select or else the loss: on validation, or its mean over the images of
    all folds. `held`, of folds: the logits [m, classes] of each training image by the trial
    that did not train on it. Without a grid nothing is chosen, and `held` is None where the
    run's own rate diverges. Raises ValueError where every rate of a grid does.
    """
    grid, metric = job.run.optim.tune, job.run.eval.select or "loss"
    rates = grid or (job.run.optim.lr,)
    fold_jobs, scores, spent = list(folds(job)), [], []
    images = [len(fold_job.data.rows["valid"]) for fold_job in fold_jobs]
    for rate in rates:
        each = []
        for number, fold_job in enumerate(fold_jobs):
            trial_job = with_rate(fold_job, rate)
            name = name_of(rate, number)
            score, cost = trial(trial_job, name, metric, shared, stop)
            each.append(score)
            spent.append(cost)
        # Folds are of patients and differ in images: each image counts once.
        scores.append(float(np.average(each, weights=images)))
        job.log.say(f"rate {rate:g}: {metric} {scores[-1]:.4f} on {job.select_on}")
    count = len(fold_jobs) if job.select_on == "support" else 0
    if not grid:
        held = held_out(job, rates[0], count) if math.isfinite(scores[0]) else None
        return job, None, spent, held
    chosen = choice.best("rate", rates, scores, metric, count)
    job.log.say(
        f"chose rate {chosen.value:g} of {len(rates)}, after {len(spent)} trials"
    )
    held = held_out(job, chosen.value, count) if count else None
    return with_rate(job, chosen.value), chosen, spent, held


def held_out(job: "Job", rate: float, folds: int) -> np.ndarray:
    """The logits float32 [m, classes] of each training image at the rate, without its fold."""
    train, manifest = job.data.rows["train"], job.data.manifest
    place = np.full(len(manifest), -1)
    place[train] = np.arange(len(train))
    out = np.full((len(train), len(manifest.classes)), np.nan, np.float32)
    for number in range(folds):
        of_fold = tree.load_npz(job.folder / FOLDER / name_of(rate, number) / HELD)
        out[place[of_fold["rows"]]] = of_fold["logits"]
    return out


def name_of(rate: float, fold: int) -> str:
    """The folder of a trial below FOLDER."""
    return f"{rate:g}-{fold}"


def folds(job: "Job") -> Iterator["Job"]:
    """The job itself where validation judges, else one job for each fold of its support."""
    if job.select_on == "validation":
        # Validation images do not train anyway: one trial a rate is enough.
        yield job
        return
    train = job.data.rows["train"]
    fold, count = choice.fold_of(job.data.manifest.select(train))
    for number in range(count):
        kept = fold != number
        rows = {**job.data.rows, "train": train[kept], "valid": train[~kept]}
        # Its weights are one an image of the training rows, which are fewer here.
        sampling = job.data.sampling.only(kept)
        fold_job = replace(job, data=replace(job.data, rows=rows, sampling=sampling))
        reads = feed.of(fold_job.loader("train"), job.task.mesh, job.run.data.resident)
        yield replace(fold_job, feed=reads)


def with_rate(job: "Job", rate: float) -> "Job":
    """The job at this config.optim.lr, with as many steps."""
    run = replace(job.run, optim=replace(job.run.optim, lr=rate))
    # Not planned anew: a fold's fewer images must not change the number of steps.
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
        # Trials of before December 2026 kept none.
        if job.select_on == "support" and known["score"] is not None:
            tree.load_npz(folder / HELD)
    except (ValueError, OSError):  # not done, or damaged
        folder.mkdir(parents=True, exist_ok=True)
        # No writers: a trial would show up in W&B or MLflow as a run of its own.
        log = RunLog(folder, replace(job.run.log, writers=()), job.log.primary)
        saved = checkpoint.Checkpoints(folder / "checkpoints", job.digest)
        trial_job = replace(job, folder=folder, log=log, checkpoints=saved)
        known = train(trial_job, metric, shared, stop)
        if job.log.primary:
            durable.write_sealed(folder / "trial.json", known)
        # After trial.json: a kill between the two loses no trial.
        saved.delete()
        processes.barrier("trial")  # all are to read the same file
    score = math.nan if known["score"] is None else known["score"]
    clock = loop.Clock(**known["clock"])
    return score, Spent(job.plan.steps, 0, known["flops"], clock)


def train(
    job: "Job", metric: str, shared: compiled.Shared, stop: Stop
) -> dict[str, Any]:
    """Train, and return what trial.json holds: "score" is None where it diverged."""
    programs = compiled.get(job.run, job.task, job.feed, job.log, shared)
    flops = programs.flops * job.plan.steps  # an upper bound where it diverges
    try:
        state, spent = job.train(programs, programs.first_state(job.run), stop)
    except FloatingPointError as error:
        job.log.say(f"{job.folder.name} diverges, and so counts as the worst: {error}")
        return {"score": None, "flops": flops, "clock": vars(loop.Clock())}
    rows, logits = programs.predict(loop.variables(state), job.loader("valid"))
    # Before trial.json, which says that the trial is done.
    if job.select_on == "support" and job.log.primary:
        tree.save_npz(job.folder / HELD, {"rows": rows, "logits": logits})
    score = evaluate.points(job.data.manifest, rows, logits)[metric]
    score = score if math.isfinite(score) else None
    return {"score": score, "flops": flops, "clock": vars(spent.clock)}
