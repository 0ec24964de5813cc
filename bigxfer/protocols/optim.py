"""From the Optim section to a schedule and an optax optimizer."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from bigxfer import tree
from bigxfer.config import ConfigError, Optim
from bigxfer.protocols import hyperrule

DECAY = 0.1  # at each boundary: 1912.11370, both recipes; the predecessor's too
AGC_EPS = 1e-3  # a unit's norm counts as at least this: 2102.06171 section 4.1


@dataclass(frozen=True)
class Plan:
    steps: int
    warmup_steps: int
    boundaries: tuple[int, ...]  # steps
    lr: float  # the peak, scaled to the batch
    mixup: float  # alpha; 0 is off
    schedule: str  # hyperrule, cosine, step, constant

    def __str__(self) -> str:
        """Such as "900 steps, rate 0.004 cosine, warm-up of 90"."""
        words = [f"{self.steps} steps", f"rate {self.lr:.4g} {self.schedule}"]
        if self.warmup_steps:
            words.append(f"warm-up of {self.warmup_steps}")
        if self.boundaries:
            words.append(f"x0.1 at {', '.join(map(str, self.boundaries))}")
        if self.mixup:
            words.append(f"mixup {self.mixup:g}")
        return ", ".join(words)


def plan(cfg: Optim, examples: int) -> Plan:
    """What `cfg` means for a training set of so many images.

    Epochs become steps (rounded up), the rate scales linearly with the batch
    (Goyal et al., 1706.02677 section 2.1). Under the HyperRule `steps` or `epochs`,
    where set, stretch its boundaries and warm-up in proportion; a warm-up that is
    set replaces the rule's. Raises ConfigError where `cfg` contradicts itself.
    """
    known = hyperrule.rule(examples, 1, cfg.variant)  # the pixels stand in `data`
    ruled = cfg.schedule == "hyperrule"
    if bool(cfg.boundaries) != (cfg.schedule == "step"):
        raise ConfigError(
            "config.optim.boundaries belong to schedule=step, and it needs them: "
            f"boundaries={cfg.boundaries}, schedule={cfg.schedule}"
        )
    if any(not 0 < b < 1 for b in cfg.boundaries):
        raise ConfigError(
            f"config.optim.boundaries={cfg.boundaries} are fractions of the run, "
            "between 0 and 1"
        )
    steps = cfg.steps or math.ceil(examples * cfg.epochs / cfg.batch)
    if ruled:
        steps = steps or known.steps
    if steps < 1:
        raise ConfigError("the run has no steps: set config.optim.steps or epochs")
    warmup = cfg.warmup_steps or math.ceil(examples * cfg.warmup_epochs / cfg.batch)
    boundaries = tuple(round(b * steps) for b in cfg.boundaries)
    if ruled:
        warmup = warmup or round(known.warmup_steps * steps / known.steps)
        boundaries = tuple(round(b * steps / known.steps) for b in known.boundaries)
    if warmup > steps:
        raise ConfigError(f"the warm-up of {warmup} steps exceeds the run's {steps}")
    return Plan(
        steps=steps,
        warmup_steps=warmup,
        boundaries=boundaries,
        lr=cfg.lr * cfg.batch / cfg.lr_batch,
        mixup=known.mixup if cfg.mixup == -1 else cfg.mixup,
        schedule=cfg.schedule,
    )


def schedule(plan: Plan) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """step -> learning rate, float32, for steps 0 to plan.steps - 1.

    Warm-up is lr * step / warmup_steps, so step 0 has rate 0 and step warmup_steps
    is the first at the peak. A boundary b decays from step b + 1 on, as in
    big_transfer's bit_hyperrule.py (`if s < step`). The cosine falls from the end
    of the warm-up to 0 at step plan.steps, one after the last.
    """

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        factor = jnp.float32(1)
        for boundary in plan.boundaries:
            factor *= jnp.where(boundary < step, DECAY, 1.0)
        if plan.schedule == "cosine":
            left = max(plan.steps - plan.warmup_steps, 1)
            part = jnp.clip((step - plan.warmup_steps) / left, 0, 1)
            factor = 0.5 * (1 + jnp.cos(jnp.pi * part))
        warm = jnp.minimum(step / max(plan.warmup_steps, 1), 1)
        return plan.lr * factor * (warm if plan.warmup_steps else 1)

    return rate


def optimizer(
    cfg: Optim,
    schedule: optax.Schedule,
    labels: tree.Tree,
    head_pattern: str,
) -> optax.GradientTransformation:
    """The optimizer of the leaves labelled "train"; those labelled "freeze" stay.

    In this order, as torch's SGD and the predecessor's SGD_AGC (SLAMPAI
    large-scale-pretraining-transfer, optim/sgd_agc.py): clipping by `clip_units`;
    weight decay added to the gradient, for every trained parameter; momentum
    buf = m * buf + g; the step -lr * buf (Nesterov: -lr * (g + m * buf)). Adam has
    cfg.momentum for its beta1 and otherwise the constants of 1412.6980, algorithm 1.

    `labels` has the form of the parameters (tree.label); `head_pattern` is a regular
    expression for the names of the head. Raises ValueError for another label, where
    nothing trains, and where no name is the head's.
    """
    flat = tree.flatten(labels)
    if unknown := set(flat.values()) - {"train", "freeze"}:
        raise ValueError(f"labels are train or freeze, not {sorted(unknown)}")
    if "train" not in flat.values():
        raise ValueError("every parameter is frozen: nothing would train")
    tree.take(labels, head_pattern)
    steps = [clip_units(cfg.agc, head_pattern)] if cfg.agc else []
    if cfg.weight_decay:
        steps.append(optax.add_decayed_weights(cfg.weight_decay))
    if cfg.optimizer == "sgd":
        steps.append(optax.trace(decay=cfg.momentum, nesterov=cfg.nesterov))
    else:
        steps.append(
            optax.scale_by_adam(
                b1=cfg.momentum, b2=0.999, eps=1e-8, nesterov=cfg.nesterov
            )
        )
    train = optax.chain(*steps, optax.scale_by_learning_rate(schedule))
    return optax.partition({"train": train, "freeze": optax.set_to_zero()}, labels)


def clip_units(clipping: float, head_pattern: str) -> optax.GradientTransformation:
    """Adaptive gradient clipping (Brock et al., 2102.06171) by output unit.

    Where |g| > clipping * max(|w|, 1e-3), g becomes g * that / max(|g|, 1e-6): the
    predecessor's optim/sgd_agc.py, with its clipping of 0.01. The norms are over
    whole vectors, and over all axes but the last of anything larger: flax and keras
    put the output channel last (HWIO, [in, out]), torch first (OIHW, [out, in]).

    The predecessor leaves out kernels whose first axis is as long as the number of
    classes: the head, and by accident any convolution with as many outputs. Here it
    is the kernel of the head, by name. The head's bias is clipped, as there.
    """

    def clip(path: tuple, g: jax.Array, w: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if g.ndim > 1 and re.fullmatch(head_pattern, name):
            return g
        axes = tuple(range(g.ndim - 1)) if g.ndim > 1 else None
        g_norm = jnp.sqrt(jnp.sum(g * g, axes, keepdims=True))
        w_norm = jnp.sqrt(jnp.sum(w * w, axes, keepdims=True))
        most = clipping * jnp.maximum(w_norm, AGC_EPS)
        return jnp.where(g_norm > most, g * (most / jnp.maximum(g_norm, 1e-6)), g)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("adaptive gradient clipping needs the parameters")
        return jax.tree_util.tree_map_with_path(clip, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
