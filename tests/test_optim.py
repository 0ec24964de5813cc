"""Schedules and optimizers against numpy retellings of the published formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_hyperrule import published_lr

from bigxfer import config, tree
from bigxfer.protocols import optim, optimizer

HEAD = r"head/.*"


def cfg(**kw):
    return config.Optim(**({"schedule": "constant", "steps": 10} | kw))


def rates(plan, steps):
    return np.asarray(jax.vmap(optimizer.schedule(plan))(jnp.asarray(steps)))


# ---- plan


def test_the_hyperrule_as_it_stands():
    got = optim.plan(config.Optim(), 5000)
    assert got == optim.Plan(500, 100, (200, 300, 400), 0.003, 0.0, "hyperrule")
    got = optim.plan(config.Optim(mixup=-1, variant="paper"), 20_000)
    assert got == optim.Plan(10_000, 500, (3000, 6000, 9000), 0.003, 0.1, "hyperrule")


def test_the_hyperrule_stretched_and_scaled():
    got = optim.plan(config.Optim(steps=50, batch=128), 5000)
    assert (got.steps, got.warmup_steps, got.boundaries) == (50, 10, (20, 30, 40))
    assert got.lr == pytest.approx(0.00075)
    got = optim.plan(config.Optim(epochs=2, warmup_steps=7, batch=100), 5001)
    assert (got.steps, got.warmup_steps) == (103 - 2, 7)  # ceil(100.02)
    assert got.boundaries == (40, 61, 81)  # of 101: 40.4, 60.6, 80.8


def test_epochs_and_fractions_become_steps():
    """BiT-M's upstream (1912.11370 section 3.2): 90 epochs, decay at 30, 60, 80."""
    bit = cfg(
        schedule="step", steps=0, epochs=90, batch=4096, lr=0.03, lr_batch=256,
        warmup_steps=5000, boundaries=(30 / 90, 60 / 90, 80 / 90),
    )  # fmt: skip
    got = optim.plan(bit, 1_281_167)
    assert got.lr == pytest.approx(0.48)
    assert got.steps == 28_151  # ceil(1281167 * 90 / 4096)
    assert got.boundaries == (9384, 18_767, 25_023)
    assert got.warmup_steps == 5000
    warm = optim.plan(cfg(steps=100, warmup_epochs=1.5, batch=64), 1000)
    assert warm.warmup_steps == 24  # ceil(23.4)


@pytest.mark.parametrize(
    "kw, match",
    [
        ({"boundaries": (0.5,)}, "schedule=step"),
        ({"schedule": "step"}, "schedule=step"),
        ({"schedule": "step", "boundaries": (30.0,)}, "fractions"),
        ({"steps": 0}, "no steps"),
        ({"steps": 10, "warmup_steps": 11}, "exceeds"),
    ],
)
def test_a_plan_that_contradicts_itself(kw, match):
    with pytest.raises(config.ConfigError, match=match):
        optim.plan(cfg(**kw), 100)


# ---- schedule


@pytest.mark.parametrize("examples", [100, 20_000, 500_000])
def test_rates_are_the_published_ones(examples):
    plan = optim.plan(config.Optim(), examples)
    want = [published_lr(step, examples) for step in range(plan.steps)]
    np.testing.assert_allclose(rates(plan, np.arange(plan.steps)), want, rtol=1e-6)


def test_a_boundary_decays_from_the_next_step_on():
    plan = optim.plan(cfg(schedule="step", boundaries=(0.5,), lr_batch=512), 100)
    got = rates(plan, [0, 5, 6, 9])
    np.testing.assert_allclose(got, [0.003, 0.003, 0.0003, 0.0003], rtol=1e-6)


def test_cosine():
    plan = optim.plan(cfg(schedule="cosine", steps=110, warmup_steps=10, lr=2.0), 1)
    step = np.arange(111)
    want = np.where(step < 10, 2 * step / 10, 1 + np.cos(np.pi * (step - 10) / 100))
    np.testing.assert_allclose(rates(plan, step), want, atol=1e-6)
    assert rates(plan, [0])[0] == 0 and rates(plan, [10])[0] == 2


def test_constant_without_warmup_starts_at_once():
    plan = optim.plan(cfg(lr=0.25), 100)
    np.testing.assert_array_equal(rates(plan, [0, 1, 9]), np.float32(0.25))


# ---- optimizer


def unit_norm(x, axes):
    return np.sqrt((x**2).sum(axis=axes, keepdims=True))


def reference_agc(g, w, clipping, skip):
    """SLAMPAI optim/sgd_agc.py, with the output channel last instead of first."""
    axes = {0: None, 1: None, 2: 0, 4: (0, 1, 2)}[g.ndim]
    if skip and g.ndim in (2, 4):
        return g
    g_norm = unit_norm(g, axes)
    most = clipping * np.maximum(unit_norm(w, axes), 1e-3)
    return np.where(g_norm > most, g * (most / np.maximum(g_norm, 1e-6)), g)


def reference_sgd(p, buf, g, lr, c, skip):
    """torch.optim.SGD (torch 1.7, sgd.py): returns the new p and buffer, float64."""
    if c.agc:
        g = reference_agc(g, p, c.agc, skip)
    g = g + c.weight_decay * p
    buf = g if buf is None else c.momentum * buf + g
    step = g + c.momentum * buf if c.nesterov else buf
    return p - lr * step, buf


def reference_adam(p, m, v, g, lr, t, c):
    """1412.6980, algorithm 1, with L2 in the gradient; t from 1."""
    g = g + c.weight_decay * p
    m, v = c.momentum * m + (1 - c.momentum) * g, 0.999 * v + 0.001 * g**2
    hat = (m / (1 - c.momentum**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p - lr * hat, m, v


SHAPES = {
    "root/kernel": (3, 3, 2, 5),
    "root/gamma": (5,),
    "scale": (),
    "dense/kernel": (6, 4),
    "head/kernel": (1, 1, 5, 3),
    "head/bias": (3,),
}


def draw(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {n: scale * rng.standard_normal(s) for n, s in SHAPES.items()}


def run(c, labels, params, grads, lr):
    """The parameters after one update for each tree of gradients."""
    tx = optimizer.build(c, lr, tree.unflatten(labels), HEAD)
    p = jax.tree.map(jnp.float32, tree.unflatten(params))
    state = tx.init(p)
    update = jax.jit(tx.update)
    for g in grads:
        change, state = update(jax.tree.map(jnp.float32, tree.unflatten(g)), state, p)
        p = optax.apply_updates(p, change)
    return tree.flatten(jax.tree.map(np.asarray, p)), state


TRAIN = dict.fromkeys(SHAPES, "train")


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.parametrize("agc", [0.0, 0.01])
def test_sgd_is_torchs_and_the_predecessors(nesterov, weight_decay, agc):
    c = cfg(nesterov=nesterov, weight_decay=weight_decay, agc=agc)
    plan = optim.plan(cfg(steps=6, warmup_steps=3, lr=0.2), 1)
    lrs = [0, 0.2 / 3, 0.4 / 3, 0.2, 0.2, 0.2]
    grads = [draw(10 + i, 10.0 ** (-i)) for i in range(6)]  # clipped and not
    got, _ = run(c, TRAIN, draw(1), grads, optimizer.schedule(plan))
    for name, p in draw(1).items():
        buf = None
        for lr, g in zip(lrs, grads):
            head = name.startswith("head/")
            p, buf = reference_sgd(p, buf, g[name], lr, c, head)
        np.testing.assert_allclose(got[name], p, rtol=2e-5, atol=2e-6, err_msg=name)


def test_sgd_is_optax_sgd_to_the_bit():
    grads = [draw(20 + i) for i in range(4)]
    got, _ = run(cfg(nesterov=True), TRAIN, draw(1), grads, lambda step: 0.1)
    p = jax.tree.map(jnp.float32, draw(1))
    tx = optax.sgd(0.1, momentum=0.9, nesterov=True)
    state = tx.init(p)
    for g in grads:
        change, state = jax.jit(tx.update)(jax.tree.map(jnp.float32, g), state, p)
        p = optax.apply_updates(p, change)
    for name in SHAPES:
        np.testing.assert_array_equal(got[name], p[name])


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_adam(weight_decay):
    c = cfg(optimizer="adam", weight_decay=weight_decay)
    grads = [draw(30 + i) for i in range(5)]
    got, _ = run(c, TRAIN, draw(1), grads, lambda step: 0.01)
    for name, p in draw(1).items():
        m, v = 0 * p, 0 * p
        for t, g in enumerate(grads, 1):
            p, m, v = reference_adam(p, m, v, g[name], 0.01, t, c)
        np.testing.assert_allclose(got[name], p, rtol=2e-5, atol=2e-6, err_msg=name)


def test_agc_is_optax_agc_but_for_the_head():
    """optax.adaptive_grad_clip is another's reading of the same paper."""
    g = jax.tree.map(jnp.float32, tree.unflatten(draw(40, 0.3)))
    weights = draw(41)
    weights["root/kernel"] *= 1e-4  # units shorter than the least norm that counts
    w = jax.tree.map(jnp.float32, tree.unflatten(weights))
    theirs = optax.adaptive_grad_clip(0.01, 1e-3)
    ours = optimizer.clip_units(0.01, HEAD)
    want = tree.flatten(theirs.update(g, theirs.init(w), w)[0])
    got = tree.flatten(ours.update(g, ours.init(w), w)[0])
    for name in SHAPES:
        same = tree.flatten(g) if name == "head/kernel" else want
        np.testing.assert_allclose(got[name], same[name], rtol=1e-6, err_msg=name)
    assert np.abs(want["head/kernel"] - got["head/kernel"]).max() > 0.01


def test_frozen_leaves_stay_to_the_bit_and_hold_no_buffers():
    labels = TRAIN | {"root/kernel": "freeze", "root/gamma": "freeze"}
    c = cfg(weight_decay=0.1, agc=0.01)
    got, state = run(c, labels, draw(1), [draw(2), draw(3)], lambda step: 0.1)
    for name, value in draw(1).items():
        same = np.array_equal(got[name], np.float32(value))
        assert same == (labels[name] == "freeze"), name
    held = sum(leaf.size for leaf in jax.tree.leaves(state)) - 1  # the count
    trained = [n for n, l in labels.items() if l == "train"]
    assert held == sum(int(np.prod(SHAPES[n])) for n in trained)


def test_bad_labels():
    for labels, match in [
        (TRAIN | {"scale": "frozen"}, "frozen"),
        (dict.fromkeys(SHAPES, "freeze"), "nothing would train"),
        ({"a/kernel": "train"}, "matches"),
    ]:
        with pytest.raises(ValueError, match=match):
            optimizer.build(cfg(), lambda s: 0.1, tree.unflatten(labels), HEAD)
    clip = optimizer.clip_units(0.01, HEAD)
    with pytest.raises(ValueError, match="parameters"):
        clip.update({"a": jnp.ones(2)}, clip.init({}))


def test_a_plan_is_said_in_words():
    said = str(optim.Plan(500, 100, (200, 300, 400), 0.003, 0.1, "hyperrule"))
    assert said == (
        "500 steps, rate 0.003 hyperrule, warm-up of 100, x0.1 at 200, 300, 400, mixup 0.1"
    )
    assert (
        str(optim.Plan(3, 0, (), 0.1, 0.0, "constant")) == "3 steps, rate 0.1 constant"
    )


def test_the_shortest_runs():
    assert optim.plan(cfg(steps=1), 100).steps == 1
    warm = optim.plan(cfg(steps=4, warmup_steps=4, lr=0.4, lr_batch=512), 100)
    np.testing.assert_allclose(rates(warm, range(4)), [0, 0.1, 0.2, 0.3], rtol=1e-6)
    one = optim.plan(cfg(steps=3, warmup_steps=1, lr=0.4, lr_batch=512), 100)
    np.testing.assert_allclose(rates(one, range(3)), [0, 0.4, 0.4], rtol=1e-6)
    cosine = optim.plan(cfg(schedule="cosine", steps=4, warmup_steps=4), 100)
    assert np.isfinite(rates(cosine, range(4))).all()


@pytest.mark.parametrize("boundary", [0.0, 1.0, 1.5, -0.5])
def test_a_boundary_lies_within_the_run(boundary):
    with pytest.raises(config.ConfigError, match="fractions"):
        optim.plan(cfg(schedule="step", boundaries=(boundary,)), 100)


def test_adam_divides_by_its_epsilon_too():
    """A gradient of 1e-8 moves by half the rate in the first step (1412.6980)."""
    grads = [{name: np.full(shape, 1e-8) for name, shape in SHAPES.items()}]
    start = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    c = cfg(optimizer="adam", weight_decay=0.0)
    got, _ = run(c, TRAIN, start, grads, lambda step: 0.1)
    np.testing.assert_allclose(got["root/gamma"], -0.05, rtol=1e-3)


def test_the_cosine_ends_after_the_last_step_and_stays_there():
    cosine = cfg(schedule="cosine", steps=4, warmup_steps=3, lr=1.0, lr_batch=512)
    got = rates(optim.plan(cosine, 100), [2, 3, 4, 5, 9])
    np.testing.assert_allclose(got, [2 / 3, 1, 0, 0, 0], atol=1e-7)


def test_of_a_dense_head_the_bias_alone_is_clipped():
    g = {"head": {"kernel": jnp.ones((5, 3)), "bias": jnp.ones(3)}}
    w = jax.tree.map(jnp.zeros_like, g)
    clip = optimizer.clip_units(0.01, HEAD)
    got = tree.flatten(clip.update(g, clip.init(w), w)[0])
    np.testing.assert_array_equal(got["head/kernel"], 1)
    # a hundredth of the least norm that counts, 1e-3, over three equal numbers
    np.testing.assert_allclose(got["head/bias"], 1e-5 / np.sqrt(3), rtol=1e-5)
