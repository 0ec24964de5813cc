import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bigxfer import config, models, presets
from bigxfer.protocols import optim, phases
from bigxfer.training import gradients, loop, sharding
from bigxfer.training.log import RunLog
from bigxfer.training.task import Task

CLASSES = 3


def batch(n=8, multilabel=False):
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=n).astype(np.int32)
    if multilabel:
        labels = rng.choice([0.0, 1.0, np.nan], size=(n, CLASSES)).astype(np.float32)
    return {
        "images": rng.integers(256, size=(n, 40, 40, 1)).astype(np.uint8),
        "labels": labels,
        "mask": np.ones(n, np.float32),
        "index": np.arange(n, dtype=np.int32),
        "position": np.arange(n, dtype=np.int32),
    }


def stepper(micro=8, multilabel=False, blocks=(1,), **changes):
    """(compiled step, first state); one program for all tests that ask for it."""
    return compiled(micro, multilabel, blocks, tuple(changes.items()))


@functools.cache
def compiled(micro, multilabel, blocks, changes):
    run = presets.load("configs/covidx_small.py:model=R1-1x0.125,res=32,batch=8")
    run.model.blocks = blocks
    run.data.augment, run.data.flip = "crop", False
    run.model.groups = 1  # two values a group, at one pixel, magnify rounding errors
    for name, value in changes:
        setattr(run.optim, name, value)
    plan = optim.plan(run.optim, 100)
    model = models.build(run.model, CLASSES)
    params = model.init(jax.random.key(0), (1, 32, 32, 3))["params"]
    (stage,) = phases.stages(run.optim, run.freeze, run.phase, plan, model, params)
    opt = stage.tx.init(params)
    state = loop.State(jnp.int32(0), jnp.int32(5), params, {}, opt)
    task = Task(run, plan, CLASSES, multilabel, sharding.make(1, 1))
    return jax.jit(loop.make_step(task, stage, micro)), state


SGD = {"optimizer": "sgd", "warmup_steps": 0, "lr": 1.0}  # lr is 1/8: lr_batch is 64


@pytest.mark.parametrize(
    ("multilabel", "alpha"), [(False, 0.2), (True, 0.2), (False, 0.0)]
)
def test_micro_batches_give_the_gradient_of_the_batch(multilabel, alpha):
    """SGD, so that parameters after a step are the gradient."""
    found = []
    for micro in (8, 2):
        step, state = stepper(micro, multilabel, **SGD, mixup=alpha)
        found.append(step(state, batch(multilabel=multilabel)))
    (whole, metrics), (state, values) = found
    assert metrics["grad_norm"] > 0
    np.testing.assert_allclose(values["loss"], metrics["loss"], rtol=1e-5)
    assert values["accuracy"] == metrics["accuracy"]  # counts, which have no order
    off = optax.tree.sub(state.params, whole.params)
    assert optax.tree.norm(off) < 0.01 * metrics["grad_norm"] / 8


def test_the_step_is_pure_and_draws_by_seed_and_step():
    step, state = stepper()
    a, b = step(state, batch())[1], step(state, batch())[1]
    assert a["loss"] == b["loss"] and a["grad_norm"] == b["grad_norm"]
    later = loop.State(jnp.int32(1), *(getattr(state, n) for n in FIELDS))
    other = loop.State(state.step, jnp.int32(6), state.params, {}, state.opt)
    for changed in (later, other):
        assert step(changed, batch())[1]["grad_norm"] != a["grad_norm"]


FIELDS = ("seed", "params", "stats", "opt")


def test_loss_falls_on_what_it_has_seen():
    learns = {"warmup_steps": 0, "steps": 20, "lr": 0.02}
    step, state = stepper(blocks=(1, 1, 1, 1), **learns)
    first = None
    for _ in range(20):
        state, metrics = step(state, batch())
        first = metrics["loss"] if first is None else first
    assert metrics["loss"] < 0.8 * first
    assert int(state.step) == 20


def test_a_batch_without_known_labels_has_no_gradient():
    step, state = stepper(multilabel=True)
    blank = batch(multilabel=True)
    blank["labels"][:] = np.nan
    _, metrics = step(state, blank)
    assert metrics["loss"] == 0 and metrics["grad_norm"] == 0
    assert metrics["accuracy"] == 0
    blank["labels"][3, 1] = 0  # the one label that is known; the head starts at zero
    _, metrics = step(state, blank)
    np.testing.assert_allclose(metrics["loss"], np.log(2), rtol=1e-6)
    assert metrics["accuracy"] == 1


@pytest.mark.parametrize(("multilabel", "want"), [(False, CLASSES), (True, 2)])
def test_the_loss_of_a_head_at_zero_is_that_of_a_guess(multilabel, want):
    """A mean over the images, or the known labels: eight tell no more than one."""
    step, state = stepper(multilabel=multilabel)
    loss = step(state, batch(multilabel=multilabel))[1]["loss"]
    np.testing.assert_allclose(loss, np.log(want), rtol=1e-6)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_accuracy_is_of_the_labels_that_count(multilabel):
    """A net whose head says one thing: its accuracy is a share of known labels."""
    step, state = stepper(4, multilabel)
    head = state.params["head"]["conv2d"] | {"bias": jnp.array([-9.0, 9.0, -9.0])}
    says = {**state.params, "head": {"conv2d": head}}
    state = loop.State(state.step, state.seed, says, {}, state.opt)
    given = batch(multilabel=multilabel)
    given["mask"][5:] = 0
    labels = given["labels"][:5]
    right = (labels == [0, 1, 0])[~np.isnan(labels)] if multilabel else labels == 1
    _, metrics = step(state, given)
    np.testing.assert_allclose(metrics["accuracy"], right.mean(), rtol=1e-6)


def test_mixup_mixes_with_the_mirrored_batch():
    x = batch()
    y = jax.nn.one_hot(x["labels"], CLASSES)
    mixed, share = loop.mixup(jax.random.key(7), x, y, 0.2)
    np.testing.assert_allclose(mixed["targets"], share * y + (1 - share) * y[::-1])
    data = config.Data(resize=40, crop=40, flip=False)  # so a view is the image
    pixels = loop.view(jax.random.key(7), mixed, share, data)
    plain = (2.0 * x["images"] - 255) / 255
    want = share * plain + (1 - share) * plain[::-1]
    np.testing.assert_allclose(pixels[..., :1], want, atol=1e-6)
    draws = [
        loop.mixup(k, x, y, 0.4)[1] for k in jax.random.split(jax.random.key(7), 200)
    ]
    assert abs(np.mean(draws) - 0.5) < 0.1
    assert abs(np.var(draws) - 0.25 / 1.8) < 0.03  # Beta(a, a): 1 / (4 (2a + 1))


def test_mixup_with_an_unknown_label_is_unknown():
    y = jnp.array([[1.0, jnp.nan, 0.0], [0.0, 1.0, 0.0]])
    mixed, _ = loop.mixup(jax.random.key(7), batch(2), y, 0.1)
    want = [[False, True, False], [False, True, False]]
    np.testing.assert_array_equal(np.isnan(mixed["targets"]), want)
    same, share = loop.mixup(jax.random.key(7), batch(2), y, 0.0)
    assert share is None and same["targets"] is y


@pytest.mark.parametrize("shapes", [[(3,), (2, 4), (5,), ()], [(2, 4), (1, 1, 3, 2)]])
def test_norm_of_vectors_and_others(shapes):
    rng = np.random.default_rng(0)
    grads = {
        str(k): rng.normal(size=s).astype(np.float32) for k, s in enumerate(shapes)
    }
    flat = np.concatenate([g.ravel() for g in grads.values()])
    np.testing.assert_allclose(gradients.norm(grads), np.linalg.norm(flat), rtol=1e-6)
    assert np.isnan(gradients.norm({**grads, "a": np.float32([1, np.nan])}))


def test_no_kernel_is_copied_before_its_update():
    step, state = stepper()
    text = jax.jit(step, donate_argnums=0).lower(state, batch()).compile().as_text()
    assert not re.findall(r"copy\(%?state_params\S*kernel\S*\)", text)


def test_better_keeps_the_earlier_of_ties_and_knows_which_way_is_up():
    best = {"loss": 0.5, "auroc_macro": 0.8}
    assert loop.better("loss", {"loss": 0.4}, best)
    assert not loop.better("loss", {"loss": 0.5}, best)
    assert loop.better("auroc_macro", {"auroc_macro": 0.9}, best)
    assert not loop.better("auroc_macro", {"auroc_macro": 0.8}, best)
    with pytest.raises(ValueError, match=r"these can: \['loss'\]"):
        loop.better("auroc", {"loss": 1.0, "auroc": float("nan")}, best)


def test_only_optax_updates():
    """The loop adds what optax says, with its sign."""
    step, state = stepper(**SGD, mixup=0.0)
    after, metrics = step(state, batch())
    moved = optax.tree.norm(optax.tree.sub(after.params, state.params))
    np.testing.assert_allclose(moved, metrics["grad_norm"] / 8, rtol=1e-4)


def test_the_loop_knows_whether_the_device_is_at_a_step():
    @jax.jit
    def step(x):
        return jax.lax.fori_loop(0, 2000, lambda _, y: jnp.tanh(y @ y), x).sum()

    log = RunLog(Path(), config.Run().log, primary=False)
    watch = loop.Watch(log, loop.Progress(log, 0, 9, 1))
    x = jnp.full((128, 128), 0.01)
    step(x).block_until_ready()
    assert not watch.busy()
    loss = step(x)
    watch.add(1, {"loss": loss})
    seen = watch.busy()
    loss.block_until_ready()
    assert seen and not watch.busy()
