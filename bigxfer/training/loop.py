"""The only training loop: a pure step, and `fit`, which repeats it.

Pre-training and transfer are the same `fit` with another init and other data.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bigxfer.config import Data, Run
from bigxfer.data import augment
from bigxfer.data.loader import prefetch
from bigxfer.models import Model
from bigxfer.protocols import losses, optimizer
from bigxfer.protocols.optim import Plan
from bigxfer.protocols.phases import Stage
from bigxfer.statistics import metrics
from bigxfer.training import gradients
from bigxfer.training.checkpoint import Checkpoints
from bigxfer.training.feed import Feed
from bigxfer.training.log import Progress, RunLog
from bigxfer.training.stopping import Preempted, Stop
from bigxfer.training.task import Task
from bigxfer.tree import Tree

MOST_STEPS_BETWEEN_CHECKPOINTS = 1000
LEAST_SECONDS = 20.0  # between checkpoints: sooner, to save costs more than to redo


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """All that changes in training; what a checkpoint holds."""

    step: jax.Array  # int32 [], steps done
    seed: jax.Array  # int32 []; here, so that runs of one shape share one program
    params: Tree
    stats: Tree  # batch statistics; {} where the model has none
    opt: Any  # of optax


Step = Callable[[State, dict], tuple[State, dict]]


def variables(state: State) -> Tree:
    """What Model.apply takes."""
    stats = {"batch_stats": state.stats} if state.stats else {}
    return {"params": state.params, **stats}


def make_step(task: Task, stage: Stage, micro_batch: int) -> Step:
    """step(state, batch) -> (state, {"loss", "accuracy", "lr", "grad_norm"}), pure.

    batch is the feed's: images uint8 [b, S, S, C], labels, mask, position. The loss is
    the mean over known labels of the whole batch, so that micro-batches, devices and
    processes only change the order of a sum; so is the accuracy, of the views that were
    trained on, with the net as it was before the step.
    """
    run, model, rate = task.run, stage.model, optimizer.schedule(task.plan)
    loss_of = losses.sigmoid if task.multilabel else losses.softmax
    right_of = losses.right_signs if task.multilabel else losses.right_classes
    # The sum, not the mean: known labels differ between micro-batches.
    grad = jax.value_and_grad(partial(total_loss, model, loss_of), has_aux=True)
    parts = run.optim.batch // micro_batch

    def step(state: State, batch: dict) -> tuple[State, dict]:
        # By seed and step alone, so that a resumed run draws what a whole one does.
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        key_view, key_mix, key_drop = jax.random.split(key, 3)
        labels = batch["labels"]
        targets = labels if task.multilabel else jax.nn.one_hot(labels, task.classes)
        batch, share = mixup(key_mix, batch, targets, task.plan.mixup)

        def one(sums: tuple, numbered: tuple) -> tuple:
            (grads, total, right, count, stats), (number, piece) = sums, numbered
            images = view(key_view, piece, share, run.data)
            # Views need no such number: their keys fold in the place in the batch.
            drop = jax.random.fold_in(key_drop, number)
            (t, (c, stats, z)), g = grad(state.params, stats, images, piece, drop)
            right += right_of(z, piece["targets"], piece["mask"])
            grads = jax.tree.map(jnp.add, grads, g)
            return (grads, total + t, right, count + c, stats), None

        none = jnp.float32(0)
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        sums = (zeros, none, none, none, state.stats)
        if parts == 1:
            sums, _ = one(sums, (0, batch))
        else:
            # Every micro-batch takes its share from every device's part.
            pieces = jax.tree.map(
                lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch
            )
            sums, _ = jax.lax.scan(one, sums, (jnp.arange(parts), pieces))
        grads, total, right, count, stats = sums
        count = jnp.maximum(count, 1)  # a batch in which no label is known
        grads, length = gradients.mean(grads, count, split=run.mesh.fsdp > 1)
        updates, opt = stage.tx.update(grads, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        measured = {
            "loss": total / count,
            "accuracy": right / count,
            "lr": rate(state.step),
            "grad_norm": length,
        }
        return State(state.step + 1, state.seed, params, stats, opt), measured

    return step


def total_loss(
    model: Model,
    loss_of: Callable,
    params: Tree,
    stats: Tree,
    images: jax.Array,
    piece: dict,
    key: jax.Array,
) -> tuple[jax.Array, tuple]:
    """(sum of the losses, (how many, new batch statistics, logits)) of a micro-batch."""
    inputs = {"params": params, **({"batch_stats": stats} if stats else {})}
    logits, out = model.apply(inputs, images, train=True, rngs={"dropout": key})
    total, count = loss_of(logits, piece["targets"], piece["mask"])
    return total, (count, out.get("batch_stats", stats), logits)


def mixup(
    key: jax.Array, batch: dict, targets: jax.Array, alpha: float
) -> tuple[dict, jax.Array | None]:
    """(the batch with its targets mixed and its partners beside, the share).

    1710.09412, one Beta(alpha, alpha) draw a batch and the reversed global batch as
    partner, as google-research/big_transfer bit_tf2/input_pipeline_tf2_or_jax.py. A
    mix with an unknown label (NaN) is unknown. The pixels are mixed in `view`, a
    micro-batch at a time. alpha = 0: no mixing, share None.
    """
    kept = {k: batch[k] for k in ("images", "position", "mask")}
    if not alpha:
        return {**kept, "targets": targets}, None
    share = jax.random.beta(key, alpha, alpha)
    partners = {f"partner_{k}": batch[k][::-1] for k in ("images", "position")}
    mixed = share * targets + (1 - share) * targets[::-1]
    return {**kept, **partners, "targets": mixed}, share


def view(key: jax.Array, piece: dict, share: jax.Array | None, data: Data) -> jax.Array:
    """float32 [b, crop, crop, C]: random views, mixed with those of the partners."""
    images = augment.train_view(key, piece["images"], piece["position"], data)
    if share is None:
        return images
    other = piece["partner_images"], piece["partner_position"]
    return share * images + (1 - share) * augment.train_view(key, *other, data)


@dataclass
class Clock:
    """Seconds of this run over all its processes' lives, compile time left out."""

    train: float = 0.0
    waiting: float = 0.0  # of these, for data while the device had nothing to do


@dataclass(frozen=True)
class Session:
    """A run while it trains: what it is to do, where it saves, what it says to."""

    run: Run
    plan: Plan
    checkpoints: Checkpoints
    log: RunLog


def fit(
    session: Session,
    state: State,
    step: Step,
    feed: Feed,
    validate: Callable[[State], dict[str, float]],
    stop: Stop,
) -> tuple[State, Clock]:
    """Runs `step` until plan.steps, from the latest checkpoint if there is one.

    Returns the last state or, where eval.select names a metric, the best one.
    Raises FloatingPointError, with the step, when the loss stops being finite, and
    Preempted, with the step saved, once `stop` says so.
    """
    run, log, steps = session.run, session.log, session.plan.steps
    checkpoints = session.checkpoints
    state, clock, best = restore(state, checkpoints, log)
    start = int(state.step)
    watch = Watch(log, Progress(log, start, steps, run.optim.batch))
    most = MOST_STEPS_BETWEEN_CHECKPOINTS
    save_every = max(1, min(steps // (run.checkpoints or 4), most))
    # Several processes have to agree, and their clocks do not.
    rare = not (run.checkpoints or run.eval.select or jax.process_count() > 1)
    batches = prefetch(feed, start, steps, busy=watch.busy)
    began = saved = time.monotonic()
    for number, batch in enumerate(batches, start + 1):
        state, measured = step(state, feed.place(batch))  # returns at once
        watch.add(number, measured)
        last = number == steps
        stops = stop(number)
        saves = number % save_every == 0 or last or stops
        saves &= stops or not rare or time.monotonic() > saved + LEAST_SECONDS
        judges = bool(run.eval.every) and number % run.eval.every == 0
        judges = judges or (last and bool(run.eval.select))
        if not (saves or judges or last or number % run.log.every == 0):
            continue
        watch.flush(checkpoints)  # waits; first, so that no state with a NaN is saved
        clock.train += time.monotonic() - began
        if judges:
            scores = validate(state)
            log.scalars(number, {f"valid/{k}": v for k, v in scores.items()})
            if run.eval.select and better(run.eval.select, scores, best):
                best = {"step": number, **scores}
        if saves or best.get("step") == number:  # the run may end with its best
            clock_now = {"train": clock.train, "waiting": clock.waiting}
            checkpoints.save(
                number, state, {"best": best, "clock": clock_now, "log": log.sum()}
            )
            saved = time.monotonic()
            if best.get("step") == number:
                checkpoints.mark_best(number)
        if stops:
            checkpoints.wait()  # it is written in the background
            told = f"asked to stop: saved step {number} of {steps}"
            log.say(f"{told}; the same command goes on from it")
            raise Preempted(stop.status, number)
        began = time.monotonic()
    clock.waiting += batches.waited
    return chosen(session, state, clock, best), clock


def chosen(session: Session, state: State, clock: Clock, best: dict) -> State:
    """The state that the run ends with: the best, where one is selected, or the last."""
    session.checkpoints.wait()
    share = clock.waiting / max(clock.train, 1e-9)
    say = session.log.say
    say(f"trained for {clock.train:.1f} s, {share:.2%} of it waiting for data")
    if best:
        say(f"best {session.run.eval.select} at step {best['step']}")
        state, _ = session.checkpoints.restore(int(best["step"]), state)
    return state


def restore(
    state: State, checkpoints: Checkpoints, log: RunLog
) -> tuple[State, Clock, dict]:
    """The state, clock and best scores of the latest checkpoint; anew without one."""
    resumed = checkpoints.restore_latest(state, log.warn)
    if resumed is None:
        # Of a run killed before its first checkpoint: it starts again at step 0.
        log.rewind(0)
        return state, Clock(), {}
    latest, state, extra = resumed
    log.rewind(latest, extra.get("log", ""))
    log.say(f"resumed from step {latest}")
    if (best := extra["best"].get("step")) in checkpoints.steps():
        checkpoints.mark_best(best)  # again: it may have been killed before the mark
    return state, Clock(**extra["clock"]), extra["best"]


def better(name: str, scores: dict[str, float], best: dict) -> bool:
    """Whether scores[name] beats the best so far; ties keep the earlier step."""
    if name not in scores or math.isnan(scores[name]):
        raise ValueError(
            f"config.eval.select={name!r} cannot be computed on the validation"
            f" split; these can: {[k for k, v in scores.items() if not math.isnan(v)]}"
        )
    sign = metrics.sign(name)
    return not best or sign * scores[name] > sign * best[name]


class Watch:
    """Fetches metrics late, so that the device never waits for the host."""

    def __init__(self, log: RunLog, progress: Progress) -> None:
        self.log, self.progress = log, progress
        self.pending: list[tuple[int, dict]] = []

    def add(self, step: int, measured: dict) -> None:
        self.pending.append((step, measured))

    def busy(self) -> bool:
        """Whether the device is still at the last step."""
        return bool(self.pending) and not self.pending[-1][1]["loss"].is_ready()

    def flush(self, checkpoints: Checkpoints) -> None:
        """Logs what is due; FloatingPointError at the first that is not finite."""
        # All at once: one wait for the device, not one a step.
        for step, values in jax.device_get(self.pending):
            values = {name: float(np.asarray(v)) for name, v in values.items()}
            if step % self.log.every == 0 or not math.isfinite(values["loss"]):
                self.log.scalars(step, values)
            # The norm tells it one step before the loss does.
            if not (math.isfinite(values["loss"] + values["grad_norm"])):
                checkpoints.wait()
                kept = checkpoints.latest()
                raise FloatingPointError(
                    f"the loss is {values['loss']} and the gradient's norm"
                    f" {values['grad_norm']} at step {step}. The last good checkpoint"
                    f" is {f'step {kept}' if kept is not None else 'none'}; lower"
                    " config.optim.lr or warm up for longer."
                )
        if self.pending:
            self.progress.update(step, values["loss"])
        self.pending.clear()
