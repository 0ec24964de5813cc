"""From a plan to a schedule of rates and an optax optimizer."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from bigxfer import tree
from bigxfer.config import Optim
from bigxfer.protocols.optim import Plan

DECAY = 0.1  # at each boundary: 1912.11370, both recipes; the predecessor's too
AGC_EPS = 1e-3  # a unit's norm counts as at least this: 2102.06171 section 4.1


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
            # Arithmetic, no Python `if`: the step is traced.
            factor *= jnp.where(boundary < step, DECAY, 1.0)
        if plan.schedule == "cosine":
            left = max(plan.steps - plan.warmup_steps, 1)
            share = jnp.clip((step - plan.warmup_steps) / left, 0, 1)
            factor = 0.5 * (1 + jnp.cos(jnp.pi * share))
        warm = jnp.minimum(step / max(plan.warmup_steps, 1), 1)
        return plan.lr * factor * (warm if plan.warmup_steps else 1)

    return rate


def build(
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
    tree.take(labels, head_pattern)  # raises without a head, which AGC would clip
    steps = [clip_units(cfg.agc, head_pattern)] if cfg.agc else []
    # After the clipping: the predecessor clips the loss's gradient alone.
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
    # What is frozen has no momentum: 62 to 16 MiB where the head alone trains.
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
