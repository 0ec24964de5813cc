"""One run from its resolved config to its result.json.

train.py and transfer.py differ in where the parameters start; the rest of their
story is told here once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

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
    finished,
    folders,
    heads,
    predictions,
    provenance,
    steps,
    tune,
)
from bigxfer.statistics import by_group, metrics, operating_point
from bigxfer.training import (
    checkpoint,
    compiled,
    feed,
    loop,
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
        return load(self.data, split, self.run)

    @property
    def judged(self) -> tuple[str, ...]:
        """The splits that are predicted: validation only where its labels choose."""
        valid = self.select_on == "validation" and len(self.data.rows["valid"])
        return ("valid", "test") if valid else ("test",)

    @property
    def labels_used(self) -> dict[str, Any]:
        """How many images' labels train, how many more choose, and by which rule."""
        rows, chose = self.data.rows, "valid" in self.judged
        about = {"training": len(rows["train"]), "select_on": self.select_on}
        return {**about, "selection": len(rows["valid"]) if chose else 0}

    def parameters(self, state: loop.State | None) -> int:
        """How many the net has, or the encoder of a features file says that it has."""
        if state:
            return tree.count(state.params)
        return self.about["features"]["parameters"] or 0

    @property
    def tunes(self) -> bool:
        """Whether its rate is to be chosen; a fitted head chooses as it is fitted."""
        asked = self.run.optim.tune and self.run.freeze.head == "trained"
        return bool(asked) and self.select_on != "none"

    @property
    def keeps(self) -> bool:
        """Whether the parameters are kept, for other runs to start from."""
        return self.run.keep in ("all", self.run.kind)


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
    filed = run.init.kind == "features"  # read here: once for all draws
    encoder = features.read(run.init.features) if filed else None
    stop, kept = stop or Stop(), {} if kept is None else kept
    with folders.alone(folder, jax.process_index() == 0):
        if run.data.draws == 1:
            return tell(run, folder, stop, shared, kept, encoder)
        seen: dict[str, heads.Seen] = {}
        shared = {} if shared is None else shared
        common = {"stop": stop, "shared": shared, "kept": kept, "encoder": encoder}
        one = partial(tell, **common, cell=run, seen=seen)
        return cells.tell(run, folder, one)


def tell(
    run: Run,
    folder: Path,
    stop: Stop,
    shared: compiled.Shared | None,
    kept: dict[str, dataset.Opened] | None,
    encoder: features.Features | None,
    cell: Run | None = None,
    seen: dict[str, heads.Seen] | None = None,
) -> dict:
    """The story of a run; the draws of a `cell` share what was `seen`."""
    digest = config.digest(run)
    primary = jax.process_index() == 0
    before, done, damage = finished.begun(folder, digest)
    log = RunLog(folder, run.log, primary)
    if damage:
        log.say(f"{damage}; the run is done again")

    data = processes.in_turn(partial(external.open, run.data, run.seed, log.say, kept))
    plan = optim.plan(run.optim, len(data.rows["train"]))
    about = config_json.of(run, digest, plan, data, encoder)
    finished.check_data(folder, before, about, done)
    if done:
        return reuse(done, about, run, log)
    job = prepare(run, folder, log, data, plan, about)
    shared = {} if shared is None else shared
    net = None if run.init.kind == "features" else start(job, shared)
    if primary:  # all that can be wrong was found: the folder is this run's
        folders.begin(folder, job.about)
        if drawn := data.report.get("drawn"):
            durable.write(folder / "support.txt", "\n".join(drawn) + "\n")
    log.begin(about)
    leaks = find_leaks(job) if primary else {}

    chosen, trials = None, []
    if job.tunes:
        net = None  # its parameters would lie beside those of the trials
        job, chosen, trials = tune.choose(job, shared, stop)
        net = start(job, shared)
        if primary:
            folders.begin(folder, job.about)
    if net and not net[0].features:
        state, spent = steps.take(job, *net, stop)
        fitted = None
    else:
        source = net or cast(features.Features, encoder)
        fitted = heads.of_run(job, source, cell or run, kept, seen)
        state, spent, chosen = fitted.state, fitted.spent, fitted.choice
    by_net = partial(net[0].predict, loop.variables(state)) if net and state else None
    result: dict[str, Any] = {
        **judge(job, fitted, by_net),
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
    finish(job, state, result)
    job.checkpoints.delete()
    log.end(result["metrics"])
    if primary:
        folders.tidy(folder)
    return result


def reuse(done: finished.Finished, about: dict, run: Run, log: RunLog) -> dict:
    """The result of a finished run, after one line on it; about: of today's run."""
    changes = "; ".join(provenance.changes(done.about, about)) or "nothing"
    kept = ""
    if run.keep in ("all", run.kind) and not done.keeps:
        kept = (
            ". It kept no params.npz, which config.keep asks for: remove result.json there"
            " and give the command again, which trains it again"
        )
    log.say(f"finished already, {done.line}; differs now: {changes}{kept}")
    if log.primary:
        folders.tidy(done.folder)
    return done.result


def prepare(
    run: Run, folder: Path, log: RunLog, data: Dataset, plan: optim.Plan, about: dict
) -> Job:
    """What the run needs to know; raises for all that can be wrong in its data."""
    train, digest = len(data.rows["train"]), about["digest"]
    log.say(f"{data.manifest.name}: {data.report['counts']}, drawn {train}; {plan}")
    if pair := about["data"].get("resolution"):
        log.say(pair)
    if run.eval.select:
        evaluate.check_select(run.eval.select, data)
    task = tasks.of(run, plan, data.manifest)
    reads = feed.of(load(data, "train", run), task.mesh, run.data.resident)
    saved = checkpoint.Checkpoints(folder / "checkpoints", digest)
    on = config.select_on(run)
    trained = run.freeze.head == "trained"
    nothing = trained and on == "support" and not run.optim.tune  # to choose by folds
    if nothing or (on == "validation" and not len(data.rows["valid"])):
        on = "none"
    if run.optim.tune and on == "none":
        log.say("untuned: no label may choose from config.optim.tune (eval.select_on)")
    return Job(run, plan, saved, log, digest, folder, data, about, task, reads, on)


def load(data: Dataset, split: str, run: Run) -> Loader:
    """This process's share of a split, in batches of optim.batch."""
    here, of = jax.process_index(), jax.process_count()
    return data.loader(split, run.optim.batch, run.seed, here, of)


def start(job: Job, shared: compiled.Shared) -> heads.Net:
    """The programs of a run's net, and its state at step 0."""
    programs = compiled.get(job.run, job.task, job.feed, job.log, shared)
    state = programs.first_state(job.run)
    job.log.parameters(state.params)
    return programs, state


def find_leaks(job: Job) -> dict[str, Any]:
    """{"splits", "upstream"}: patients and equal images where they must not be.

    Keeps images.npz for the runs that will start from this one's parameters.
    """
    mine, init = exposure.look(job.data), job.run.init
    if job.keeps:
        mine.save(job.folder)
    found = {"splits": exposure.within(mine)}
    if init.kind == "pretrained":
        found["upstream"] = exposure.against(Path(init.checkpoint), mine)
    for where, leaks in found.items():
        job.log.say(exposure.line(where, leaks))
    return found


def judge(
    job: Job,
    fitted: heads.OfRun | None,
    by_net: Callable[[Loader], tuple[np.ndarray, np.ndarray]] | None,
) -> dict:
    """Predict each split that counts, write it, and compute what is reported.

    A fitted head has predicted the run's own splits; the net predicts all else.
    """
    manifest, found = job.data.manifest, {}
    for name, file in (("valid", "predictions_valid.npz"), ("test", "predictions.npz")):
        if name in job.judged:
            rows = job.data.rows[name]
            if fitted:
                logits = fitted.logits[name]
            else:
                rows, logits = cast(Callable, by_net)(job.loader(name))
            found[name] = manifest.select(rows), logits
            if jax.process_index() == 0:
                predictions.save(job.folder / file, *found[name])
    test, logits = found["test"]
    limits = job.run.eval.resamples > 0
    out = metrics.compute(test.labels, logits, test.classes, test.patient, limits)
    out |= {"head": fitted.said} if fitted else {}
    if limits and (groups := by_group.judge(vars(predictions.of(test, logits)))):
        out["groups"] = groups
    for name, other in job.data.external.items():
        other_found = cast(Callable, by_net)(load(other, "test", job.run))
        own = predictions.of(test, logits)
        about = evaluate.beside(job.folder, name, other, other_found, own)
        out.setdefault("external", {})[name] = about
    if "valid" in found:
        valid, valid_logits = found["valid"]
        out["operating_point"] = operating_point.judge(
            valid.labels,
            valid_logits,
            test.labels,
            logits,
            test.classes,
            test.patient,
        )
    return out


def finish(job: Job, state: loop.State | None, result: dict) -> None:
    """Write params.npz, where it is to be kept, card.md and then result.json."""
    host = None
    if state and job.keeps:
        host = sharding.to_host({"params": state.params, "batch_stats": state.stats})
    if jax.process_index() == 0:
        if host:
            flat = {**host["params"], "batch_stats": host["batch_stats"]}
            tree.save_npz(job.folder / "params.npz", flat)
        card.write(job.folder, result)
        result = {**result, "files": folders.sums(job.folder)}
        folders.write(job.folder / "result.json", result)
    processes.barrier()
