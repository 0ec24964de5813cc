"""One run from its resolved config to its result.json.

train.py and transfer.py differ in where the parameters start; the rest of their
story is told here once.
"""

import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from bigxfer import config, models, tree
from bigxfer.config import Run
from bigxfer.data import dataset, exposure, external, fewshot
from bigxfer.data.dataset import Dataset
from bigxfer.data.loader import Loader
from bigxfer.protocols import hyperrule, optim, probe
from bigxfer.runs import card, evaluate, finished, folders, predictions, provenance
from bigxfer.statistics import by_group, metrics, operating_point
from bigxfer.training import checkpoint, compiled, feed, loop, predictor, sharding
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

    def loader(self, split: str) -> Loader:
        return load(self.data, split, self.run)

    @property
    def keeps(self) -> bool:
        """Whether the parameters are kept, for other runs to start from."""
        return self.run.keep in ("all", self.run.kind)


@dataclass(frozen=True)
class Spent:
    """What a way to train has cost."""

    steps: int
    images: int
    flops: float
    clock: loop.Clock


def execute(
    run: Run,
    folder: Path,
    stop: Stop | None = None,
    shared: compiled.Shared | None = None,
    kept: dict[str, dataset.Opened] | None = None,
) -> dict:
    """Trains, evaluates and writes the run folder; returns its result.

    A finished run is not done again, a half-done one resumes. Once `stop` is asked to
    (stopping.listen), Preempted is raised, in training with the step saved.
    `shared` keeps compiled programs for later runs, `kept` the data sets. Raises ValueError
    where the folder holds another config's run or other data.
    """
    models.maker(run.model)  # an error should not wait for the data
    with folders.alone(folder, jax.process_index() == 0):
        return tell(run, folder, stop or Stop(), shared, kept)


def tell(
    run: Run,
    folder: Path,
    stop: Stop,
    shared: compiled.Shared | None,
    kept: dict[str, dataset.Opened] | None,
) -> dict:
    """The story of a run, in a folder that is its own meanwhile."""
    digest = config.digest(run)
    primary = jax.process_index() == 0
    before, done, damage = finished.begun(folder, digest)
    log = RunLog(folder, run.log, primary)
    if damage:
        log.say(f"{damage}; the run is done again")

    data = sharding.in_turn(partial(external.open, run.data, run.seed, log.say, kept))
    plan = optim.plan(run.optim, len(data.rows["train"]))
    about = describe(run, digest, plan, data)
    check_data(folder, before, about, done)
    if done:
        return reuse(done, about, run, log)
    job = prepare(run, folder, log, data, plan, about)
    programs = compiled.get(
        run, job.task, job.feed, log, {} if shared is None else shared
    )
    state = programs.first_state(run)
    log.parameters(state.params)
    if primary:  # all that can be wrong was found: the folder is this run's from here
        folders.begin(folder, job.about)
    leaks = find_leaks(job) if primary else {}

    train = fit_head if programs.features else take_steps
    state, spent = train(job, programs, state, stop)
    result = {
        **judge(job, loop.variables(state), programs.predict),
        "cost": cost(job, state, spent),
        "leaks": leaks,
        "synthetic": job.data.manifest.synthetic,
        "digest": digest,
        "commit": job.about["commit"],
        "finished": folders.now(),
    }
    finish(job, state, result)
    job.checkpoints.delete()
    return result


def check_data(
    folder: Path, before: dict | None, about: dict, done: finished.Finished | None
) -> None:
    """ValueError where the run in this folder was done, or begun, with other data."""
    if before is None or not (differs := provenance.data_differs(before, about)):
        return
    how = "was done with" if done else "was begun with"
    raise ValueError(
        f"{folder} {how} other data: {differs} differ (then data"
        f" {provenance.data_name(before)} at {before['config']['data']['root']!r}, now"
        f" {provenance.data_name(about)} at {about['config']['data']['root']!r}). Take"
        " another --workdir, or move that folder away"
    )


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
    return Job(run, plan, saved, log, digest, folder, data, about, task, reads)


def load(data: Dataset, split: str, run: Run) -> Loader:
    """This process's share of a split, in batches of optim.batch."""
    here, of = jax.process_index(), jax.process_count()
    return data.loader(split, run.optim.batch, run.seed, here, of)


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


def take_steps(
    job: Job, programs: compiled.Programs, state: loop.State, stop: Stop
) -> tuple[loop.State, Spent]:
    """Trains by gradients, from the last checkpoint if there is one."""
    valid = partial(validate, job, programs.predict)
    with stop.training():
        state, clock = loop.fit(job, state, programs.step, job.feed, valid, stop)
    steps, images = job.plan.steps, job.plan.steps * job.run.optim.batch
    return state, Spent(steps, images, programs.flops * steps, clock)


def fit_head(
    job: Job, programs: compiled.Programs, state: loop.State, stop: Stop
) -> tuple[loop.State, Spent]:
    """Fits the head of config.freeze.head to features that are computed once an image."""
    del stop  # there is nothing to save
    began, variables = time.monotonic(), loop.variables(state)
    predict = cast(predictor.Predict, programs.features)

    def part(split: str) -> probe.Part:
        rows, features = predict(variables, job.loader(split))
        return features, job.data.manifest.select(rows).labels

    train = part("train")
    valid = part("valid") if len(job.data.rows["valid"]) else None
    head = probe.fit(job.run.freeze.head, train, valid, job.task.classes)
    params = probe.put(state.params, programs.model.head, head)
    images, clock = len(train[0]), loop.Clock(train=time.monotonic() - began)
    job.log.say(f"{job.run.freeze.head} head on {images} images: {clock.train:.1f} s")
    return replace(state, params=params), Spent(
        1, images, programs.flops * images, clock
    )


def cost(job: Job, state: loop.State, spent: Spent) -> dict[str, float]:
    """What result.json says of the cost."""
    clock = spent.clock
    return {
        "steps": spent.steps,
        "images": spent.images,
        "flops": spent.flops,
        "device_seconds": clock.train * job.task.mesh.size,
        "waiting_for_data": clock.waiting / max(clock.train, 1e-9),
        "parameters": tree.count(state.params),
    }


def validate(
    job: Job, predict: predictor.Predict, state: loop.State
) -> dict[str, float]:
    """Point values of the metrics on the validation split."""
    found = predict(loop.variables(state), job.loader("valid"))
    return evaluate.points(job.data.manifest, *found)


def judge(job: Job, variables: dict, predict: predictor.Predict) -> dict:
    """Predicts validation and test, writes both, and computes what is reported."""
    manifest, found = job.data.manifest, {}
    for name, file in (("valid", "predictions_valid.npz"), ("test", "predictions.npz")):
        if len(job.data.rows[name]):
            rows, logits = predict(variables, job.loader(name))
            found[name] = manifest.select(rows), logits
            if jax.process_index() == 0:
                predictions.save(job.folder / file, *found[name])
    test, logits = found["test"]
    limits = job.run.eval.resamples > 0
    out = metrics.compute(test.labels, logits, test.classes, test.patient, limits)
    if limits and (groups := by_group.judge(vars(predictions.of(test, logits)))):
        out["groups"] = groups
    for name, other in job.data.external.items():
        other_found = predict(variables, load(other, "test", job.run))
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


def finish(job: Job, state: loop.State, result: dict) -> None:
    """Writes params.npz, where it is to be kept, card.md and then result.json."""
    kept = {"params": state.params, "batch_stats": state.stats}
    host = sharding.to_host(kept)
    if jax.process_index() == 0:
        if job.keeps:
            flat = {**host["params"], "batch_stats": host["batch_stats"]}
            tree.save_npz(job.folder / "params.npz", flat)
        card.write(job.folder, result)
        result = {**result, "files": folders.sums(job.folder)}
        folders.write(job.folder / "result.json", result)
    sharding.barrier()


def describe(run: Run, digest: str, plan: optim.Plan, data: Dataset) -> dict:
    """What config.json holds."""
    about, d = dict(data.report), run.data
    if run.optim.schedule == "hyperrule":
        area = dataset.image_area(data.manifest, data.rows["train"])
        big = (run.model.blocks, run.model.width) == (config.DEPTHS[152], 4.0)
        about["resolution"] = hyperrule.branch(
            area, d.resize, d.crop, run.optim.variant, big
        )
    if run.data.shots != "full":  # what is above the shots is overshoot
        drawn = data.manifest.select(data.rows["train"])
        about["positives"] = fewshot.counts(drawn, np.arange(len(drawn)))
    return {
        "digest": digest,
        "config": config.to_dict(run),
        "commit": folders.commit(),
        "manifest_hash": data.manifest.hash(),
        "identity": data.identity,
        "classes": data.manifest.classes,
        "synthetic": data.manifest.synthetic,
        "plan": vars(plan),
        "data": about,
        "versions": folders.versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
    }


def start_processes() -> None:
    """Joins the processes of one run where the environment says that there are any."""
    if (found := sharding.arguments(os.environ)) is not None:
        sharding.join(**found)


def check(run: Run, kind: str) -> None:
    """ConfigError, before any data is opened, where this main cannot do the run."""
    models.maker(run.model)
    if run.kind != kind:
        main = {"upstream": "train", "transfer": "transfer"}[run.kind]
        raise config.ConfigError(
            f"this config is of kind={run.kind}; give it to python -m bigxfer.{main}"
        )


def show(result: dict, folder: Path) -> None:
    """Prints what a run found, with its intervals, and where it lies."""
    if jax.process_index():
        return
    mark = "SYNTHETIC " if result["synthetic"] else ""
    print(f"\n{mark}test metrics with 95% intervals over patients")
    for name, m in result["metrics"].items():
        if m["value"] is None:
            print(f"  {name:28} -      {m['reason']}")
        else:
            none = m["low"] is None
            reason = m.get("reason", "no interval")
            span = reason if none else f"[{m['low']:.3f}, {m['high']:.3f}]"
            print(f"  {name:28} {m['value']:.3f}  {span}")
    for where, leaks in result.get("leaks", {}).items():
        if leaks["first"]:
            print(exposure.line(where, leaks))
    print(f"run folder: {folder}")
