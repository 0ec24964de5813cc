"""One run from its resolved config to its result.json.

train.py and transfer.py differ in where the parameters start; the rest of their
story is told here once.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax

from bigxfer import config, durable, models, tree
from bigxfer.config import Run
from bigxfer.data import dataset, exposure, external
from bigxfer.data.dataset import Dataset
from bigxfer.data.loader import Loader
from bigxfer.protocols import features, optim
from bigxfer.runs import (
    card,
    cells,
    config_json,
    evaluate,
    folders,
    heads,
    resume,
    tune,
)
from bigxfer.runs.spent import Spent
from bigxfer.training import (
    checkpoint,
    compiled,
    feed,
    loop,
    predictor,
    processes,
    sharding,
)
from bigxfer.training import task as tasks
from bigxfer.training.log import RunLog
from bigxfer.training.stopping import Stop
from bigxfer.training.task import Task


@dataclass(frozen=True)
class Job(loop.Session):
    """What every part of a run needs to know."""

    digest: str
    folder: Path
    data: Dataset
    about: dict[str, Any]  # what config.json holds
    task: Task
    feed: feed.Feed  # of the training split
    select_on: str  # the labels by which it may choose: none, support, validation

    def loader(self, split: str) -> Loader:
        return feed.loader(self.data, split, self.run)

    @property
    def judged(self) -> tuple[str, ...]:
        """The splits that are predicted: validation only where its labels choose."""
        valid = self.select_on == "validation" and len(self.data.rows["valid"])
        return ("valid", "test") if valid else ("test",)

    @property
    def labels_used(self) -> dict[str, Any]:
        """How many images' labels train, how many more choose, and by which rule."""
        rows, chose = self.data.rows, "valid" in self.judged
        return {
            "training": len(rows["train"]),
            "select_on": self.select_on,
            "selection": len(rows["valid"]) if chose else 0,
        }

    def parameters(self, state: loop.State | None) -> int:
        """How many the net has, or the encoder of a features file says that it has."""
        if state:
            return tree.count(state.params)
        return self.about["features"]["parameters"] or 0

    @property
    def tunes(self) -> bool:
        """Whether trials train beside the run itself; a fitted head has folds of its own.

        They choose its rate, or its folds fix a threshold and a temperature alone.
        """
        asked = self.run.optim.tune or self.select_on == "support"
        trained = self.run.freeze.head == "trained"
        return bool(asked) and trained and self.select_on != "none"

    @property
    def keeps(self) -> bool:
        """Whether the parameters are kept, for other runs to start from."""
        return self.run.keep in ("all", self.run.kind)

    def train(
        self, programs: compiled.Programs, state: loop.State, stop: Stop
    ) -> tuple[loop.State, Spent]:
        """Train by gradients, from the last checkpoint if there is one."""
        valid = partial(self.validate, programs.predict)
        # Within, a signal waits for the end of the step, so that it can be saved.
        with stop.training():
            state, clock = loop.fit(self, state, programs.step, self.feed, valid, stop)
        steps, images = self.plan.steps, self.plan.steps * self.run.optim.batch
        return state, Spent(steps, images, programs.flops * steps, clock)

    def validate(
        self, predict: predictor.Predict, state: loop.State
    ) -> dict[str, float]:
        """Point values of the metrics on the validation split."""
        predicted = predict(loop.variables(state), self.loader("valid"))
        return evaluate.points(self.data.manifest, *predicted)


@dataclass(frozen=True)
class InCommon:
    """What a run shares with the other runs of its process, or draws of its cell."""

    cell: Run  # the run of all draws, or the run itself
    stop: Stop
    programs: compiled.Shared
    sets: dict[str, dataset.Opened]
    encoder: features.Features | None  # read once for all draws
    seen: (
        dict[str, heads.CellImages] | None
    )  # features of a cell's images; None of one draw


def execute(
    run: Run,
    folder: Path,
    stop: Stop | None = None,
    shared: compiled.Shared | None = None,
    kept: dict[str, dataset.Opened] | None = None,
) -> dict:
    """Train, evaluate and write the run folder; return its result.

    A finished run is not done again, a half-done one resumes. Once `stop` is asked to
    (stopping.listen), Preempted is raised, in training with the step saved.
    `shared` keeps compiled programs for later runs, `kept` the data sets. Raises ValueError
    where the folder holds another config's run or other data.
    """
    models.maker(run.model)  # an error should not wait for the data
    filed = run.init.kind == "features"
    common = InCommon(
        cell=run,
        stop=stop or Stop(),
        programs={} if shared is None else shared,
        sets={} if kept is None else kept,
        encoder=features.read(run.init.features) if filed else None,
        seen={} if run.data.draws > 1 else None,
    )
    # Before the first look into the folder: two commands would both find it free.
    with folders.alone(folder, jax.process_index() == 0):
        if run.data.draws == 1:
            return tell(run, folder, common)
        return cells.tell(run, folder, partial(tell, common=common))


def tell(run: Run, folder: Path, common: InCommon) -> dict:
    """The story of a run; the draws of a cell share what was `seen`."""
    digest = config.digest(run)
    primary = jax.process_index() == 0
    before, done, damage = resume.begun(folder, digest)  # before data are opened
    log = RunLog(folder, run.log, primary)
    if damage:
        log.say(f"{damage}; the run is done again")

    opening = partial(external.open, run.data, run.seed, log.say, common.sets)
    data = processes.in_turn(opening)  # the first decodes, the others find it
    plan = optim.plan(run.optim, len(data.rows["train"]))
    about = config_json.of(run, digest, plan, data, common.encoder)
    resume.check_data(folder, before, about, done)  # of a finished run too
    if done:
        return resume.reuse(done, about, run, log)
    job = prepare(run, folder, log, data, plan, about)
    net = None if run.init.kind == "features" else build_net(job, common.programs)
    if primary:  # all that can be wrong was found: the folder is this run's
        folders.begin(folder, job.about)
        if drawn := data.report.get("drawn"):
            durable.write(folder / "support.txt", "\n".join(drawn) + "\n")
    log.begin(about)
    leaks = find_leaks(job) if primary else {}

    chosen, trials, held, fitted = None, [], None, None
    if job.tunes:
        net = None  # its parameters would lie beside those of the trials
        job, chosen, trials, held = tune.choose(job, common.programs, common.stop)
        net = build_net(job, common.programs)
        if primary:
            folders.begin(folder, job.about)
    if net and not net[0].features:
        state, spent = job.train(*net, common.stop)
    else:
        source = net or cast(features.Features, common.encoder)
        fitted = heads.of_run(job, source, common.cell, common.sets, common.seen)
        state, spent = fitted.state, fitted.spent
        chosen, held = fitted.choice, fitted.held
    # None for a features file: then the fitted head predicted every split.
    by_net = partial(net[0].predict, loop.variables(state)) if net and state else None
    result: dict[str, Any] = {
        **evaluate.judge(job, fitted, by_net, held),
        "labels_used": job.labels_used,
        "tuned": chosen and chosen.said(),
        "cost": spent.with_trials(trials).told(
            job.task.mesh.size, job.parameters(state)
        ),
        "leaks": leaks,
        "synthetic": job.data.manifest.synthetic,
        "digest": digest,
        "commit": job.about["commit"],
        "finished": folders.now(),
    }
    finish(job, state, result)  # first: a kill after it leaves a finished run
    job.checkpoints.delete()
    log.end(result["metrics"])
    if primary:
        folders.tidy(folder)
    return result


def prepare(
    run: Run, folder: Path, log: RunLog, data: Dataset, plan: optim.Plan, about: dict
) -> Job:
    """What the run needs to know; raises for all that can be wrong in its data."""
    train, digest = len(data.rows["train"]), about["digest"]
    counts = ", ".join(f"{n:,} {name}" for name, n in data.report["counts"].items())
    log.say(f"{data.manifest.name}: {counts} images, {train:,} of them train; {plan}")
    if pair := about["data"].get("resolution"):
        log.say(pair)
    if run.eval.select:
        evaluate.check_select(run.eval.select, data)
    task = tasks.of(run, plan, data.manifest)
    reads = feed.of(feed.loader(data, "train", run), task.mesh, run.data.resident)
    saved = checkpoint.Checkpoints(folder / "checkpoints", digest)
    on = config.select_on(run)
    trained = run.freeze.head == "trained"
    # By default no fold is trained for a threshold alone, which would take five more
    # trainings; and the result must not say that labels chose.
    asked = run.optim.tune or run.eval.select_on
    nothing = trained and on == "support" and not asked
    if nothing or (on == "validation" and not len(data.rows["valid"])):
        on = "none"
    if run.optim.tune and on == "none":
        log.say("untuned: no label may choose from config.optim.tune (eval.select_on)")
    return Job(run, plan, saved, log, digest, folder, data, about, task, reads, on)


def build_net(job: Job, shared: compiled.Shared) -> heads.Started:
    """The programs of a run's net, and its state at step 0."""
    programs = compiled.get(job.run, job.task, job.feed, job.log, shared)
    state = programs.first_state(job.run)
    job.log.parameters(state.params)
    return programs, state


def find_leaks(job: Job) -> dict[str, Any]:
    """{"splits", "upstream"}: patients and equal images where they must not be.

    Writes images.npz where the run keeps its parameters.
    """
    mine, init = exposure.look(job.data), job.run.init
    if job.keeps:  # for the runs that will start from them, and ask what they have seen
        mine.save(job.folder)
    leaks = {"splits": exposure.within(mine)}
    if init.kind == "pretrained":
        leaks["upstream"] = exposure.against(Path(init.checkpoint), mine)
    for where, seen in leaks.items():
        job.log.say(exposure.line(where, seen))
    return leaks


def finish(job: Job, state: loop.State | None, result: dict) -> None:
    """Write params.npz, where it is to be kept, card.md and then result.json."""
    host = None
    if state and job.keeps:
        # On every process, since gathering shards is a collective; one writes.
        host = sharding.to_host({"params": state.params, "batch_stats": state.stats})
    if jax.process_index() == 0:
        if host:
            flat = {**host["params"], "batch_stats": host["batch_stats"]}
            tree.save_npz(job.folder / "params.npz", flat)
        # Before result.json, after which nothing of the run may be missing.
        card.write(job.folder, result)
        result = {**result, "files": folders.sums(job.folder)}
        folders.write(job.folder / "result.json", result)
    processes.barrier()
