"""Freezing: which layers, that they stay, that they cost nothing; and phases.

Counts of Keras's layers are those measured on keras 3.15.1 by hand (see the layer
named beside each share).
"""

import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bigxfer import config, models, presets, tree
from bigxfer.config import ConfigError, Freeze, Optim, Phase
from bigxfer.models import cbr, keras_zoo
from bigxfer.protocols import freeze, optim, phases
from bigxfer.runs import job
from bigxfer.training import loop, sharding, stopping
from bigxfer.training.task import Task

needs_keras = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="keras is not installed"
)
SHAPE = (1, 24, 24, 3)
TOYS = {
    "bit": config.Model(blocks=(1, 2, 1), width=0.25),
    "cbr_tiny": config.Model("cbr_tiny", width=0.125),
    "smallcnn": config.Model("smallcnn", width=0.125, hidden=6, dropout=0.0),
}
KERAS = {  # share fixed, of all Keras layers: (last fixed with weights, parameters)
    "inception_v3": {0.1: ("mixed0/conv2d_10", 1.9), 0.2: ("", 3.2), 0.5: ("", 22.9)},
    "resnet50_v2": {0.1: ("conv2_block2_preact_bn", 0.4), 0.3: ("", 2.9)},
    "densenet121": {0.1: ("conv2_block5_2_conv", 4.0), 0.82: ("", 77.0)},
    "mobilenet": {0.1: ("conv_pw_1", 0.1), 0.5: ("", 8.5), 0.75: ("", 33.8)},
}


@functools.cache
def shapes(name):
    """(the net of three classes, the shapes of its variables), traced once."""
    model = models.build(EVERY[name], 3)
    return model, jax.eval_shape(lambda: model.init(jax.random.key(0), SHAPE))


def toy(name):
    model, variables = shapes(name)
    return model, variables["params"]


def share(layers, params):
    """Percent of the parameters below the head that lie in these layers."""
    flat = {n: v.size for n, v in tree.flatten(params).items() if "head/" not in n}
    inside = tuple(f"{n}/" for n in layers)
    return (
        100
        * sum(v for n, v in flat.items() if n.startswith(inside))
        / sum(flat.values())
    )


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("percent", [100, 75, 50, 30, 20, 10, 0])
def test_bottom_share_of_the_layers(name, percent):
    model, params = toy(name)
    body = model.layers()[:-1]
    found = freeze.fixed(Freeze(bottom=percent / 100), model, params)
    assert found == body[: percent * len(body) // 100]


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("part", [1.0, 0.75, 0.5, 0.1, 0.0])
def test_bottom_share_of_the_parameters(name, part):
    """As many layers as fit, and the next would be too much."""
    model, params = toy(name)
    body = model.layers()[:-1]
    found = freeze.fixed(Freeze(bottom=part, count_by="params"), model, params)
    assert found == body[: len(found)]
    assert share(found, params) <= 100 * part + 1e-6
    if len(found) < len(body):
        assert share(body[: len(found) + 1], params) > 100 * part


def test_the_shares_of_the_parameters_where_each_layer_ends():
    sizes = {"a": (2, 1), "b": (3,), "b_1": (1, 5), "head": (7,)}
    params = {name: {"kernel": np.zeros(shape)} for name, shape in sizes.items()}
    assert freeze.shares(["a", "b", "b_1"], params) == [0.2, 0.5, 1.0]


def test_from_the_top():
    model, params = toy("bit")
    body = model.layers()[:-1]
    assert freeze.fixed(Freeze(top_layers=1), model, params) == body
    assert freeze.fixed(Freeze(top_layers=3), model, params) == body[:-2]
    assert freeze.fixed(Freeze(top_layers=7), model, params) == []
    assert freeze.fixed(Freeze(top=0.5), model, params) == body[:3]
    assert freeze.fixed(Freeze(top=1.0), model, params) == []
    with pytest.raises(ConfigError, match="top_layers=8, but there are 7"):
        freeze.fixed(Freeze(top_layers=8), model, params)
    with pytest.raises(ConfigError, match="keras_layers is for the models of Keras"):
        freeze.fixed(Freeze(bottom=0.5, count_by="keras_layers"), model, params)


@needs_keras
@pytest.mark.parametrize("name", KERAS)
def test_keras_layers_as_the_pydata_study_counted(name):
    model, params = toy(name)
    for part, (last, percent) in KERAS[name].items():
        cfg = Freeze(bottom=part, count_by="keras_layers")
        found = freeze.fixed(cfg, model, params)
        assert found[-1].startswith(last)
        assert share_with_statistics(found, shapes(name)[1]) == pytest.approx(
            percent, abs=0.06
        )


def share_with_statistics(layers, variables):
    """As Keras counts: moving averages are weights of a layer too."""
    inside, found = tuple(f"{n}/" for n in layers), [0, 0]
    for part in ("params", "batch_stats"):
        for name, leaf in tree.flatten(variables[part]).items():
            if not name.startswith("head/"):
                found[0] += leaf.size * name.startswith(inside)
                found[1] += leaf.size
    return 100 * found[0] / found[1]


@needs_keras
def test_the_top_18_percent_of_chexnet():
    """S003: 18% of the layers train; 350 of 427 are fixed."""
    model, params = toy("densenet121")
    found = freeze.fixed(Freeze(top=0.18, count_by="keras_layers"), model, params)
    assert found[-1] == "conv5_block6_0_bn"


NO_PHASES = Phase()


EVERY = {
    **TOYS,
    **{name: config.Model(name, width=0.125) for name in cbr.SIZES},
    **{name: config.Model(name) for name in keras_zoo.NETS},
}
SIDES = {**dict.fromkeys(keras_zoo.NETS, 64), "inception_v3": 80}  # else 24 pixels
# Of what trains: half of the layers are as many units as of the longer toy.
TRAINED = {**EVERY, "bit": config.Model(blocks=(1, 1), width=0.25)}


@needs_keras
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", models.MODELS)
def test_the_optimizer_of_every_model_holds_the_named_leaves_only(name, optimizer):
    """By name and shape, for a lower half, all but the head, and nothing fixed."""
    model, params = toy(name)
    body, flat = model.layers()[:-1], tree.flatten(params)
    cfg = Optim(optimizer, steps=4, batch=8)
    for bottom in (0.5, 1.0, 0.0):
        about = cfg, Freeze(bottom=bottom), NO_PHASES, optim.plan(cfg, 8)
        (stage,) = phases.stages(*about, model, params)
        state = jax.eval_shape(stage.tx.init, params)
        held = []
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            if match := re.fullmatch(r".*/(mu|nu|trace)/(.*)", where):
                assert leaf.shape == flat[match[2]].shape
                held.append(match[2])
            else:
                assert leaf.shape == ()  # counters
        still = of(body[: int(bottom * len(body))], params)
        assert bool(still) == bool(bottom)
        averages = {"adam": 2, "sgd": 1}[optimizer]
        assert sorted(held) == sorted([*(set(flat) - still)] * averages)


@functools.cache
def begun(name):
    """(the net of three classes, its first variables with a random head), drawn once."""
    model = models.build(TRAINED[name], 3)
    variables = model.init(jax.random.key(0), SHAPE)
    flat = tree.flatten(variables["params"])
    for leaf in flat:
        if re.fullmatch(model.head, leaf):
            flat[leaf] = jax.random.normal(jax.random.key(1), flat[leaf].shape)
    return model, {**variables, "params": tree.unflatten(flat)}


def training(name, frozen, phase=NO_PHASES, steps=4, optimizer="adam", micro=8):
    """(step, state, batch, model, stages) of a toy net on eight random images."""
    run = config.Run(model=TRAINED[name], freeze=frozen, phase=phase)
    side = run.data.crop = run.data.resize = SIDES.get(name, 24)
    run.data.flip = False
    run.optim = Optim(optimizer, lr=0.05, lr_batch=8, batch=8, steps=steps)
    run.optim.schedule = "constant"
    plan = optim.plan(run.optim, 8)
    model, variables = begun(name)
    params = variables["params"]
    stages = phases.stages(run.optim, frozen, phase, plan, model, params)
    task = Task(run, plan, 3, False, sharding.make(1, 1))
    made = [loop.make_step(task, stage, micro) for stage in stages]
    opt, stats = stages[0].tx.init(params), variables.get("batch_stats", {})
    state = loop.State(jnp.int32(0), jnp.int32(0), params, stats, opt)
    rng = np.random.default_rng(0)
    batch = {
        "images": jnp.asarray(rng.integers(0, 255, (8, side, side, 3)), jnp.uint8),
        "labels": jnp.asarray(rng.integers(0, 3, 8)),
        "mask": jnp.ones(8),
        "position": jnp.arange(8),
    }
    return phases.switch(stages, made), state, batch, model, stages


def moved(before, after):
    a, b = tree.flatten(before), tree.flatten(after)
    return {n for n in a if not np.array_equal(a[n], b[n])}


def of(layers, part):
    inside = tuple(f"{n}/" for n in layers)
    return {n for n in tree.names(part) if n.startswith(inside)}


@pytest.mark.parametrize(
    ("name", "micro"),
    [
        *((name, 8) for name in TOYS if name != "bit"),
        *((name, 4) for name in TOYS),
        *(
            pytest.param(name, 8, marks=(needs_keras, pytest.mark.slow))
            for name in models.MODELS
            if name not in TOYS
        ),
    ],
)
def test_exactly_the_other_leaves_change(name, micro):
    """Parameters and running averages, in two steps; no state for what is fixed."""
    step, state, batch, _, stages = training(name, Freeze(bottom=0.5), micro=micro)
    (stage,) = stages
    assert stage.fixed
    after = state
    for _ in range(2):
        after, metrics = jax.jit(step)(after, batch)
    still = of(stage.fixed, state.params)
    assert still
    assert moved(state.params, after.params) == set(tree.names(state.params)) - still
    if state.stats:
        still = of(stage.fixed, state.stats)
        assert moved(state.stats, after.stats) == set(tree.names(state.stats)) - still
    assert np.isfinite(metrics["grad_norm"])
    trained = tree.count(state.params) - sum(
        tree.flatten(state.params)[n].size for n in of(stage.fixed, state.params)
    )
    held = [x for x in jax.tree.leaves(state.opt) if x.ndim]
    assert sum(x.size for x in held) == 2 * trained  # Adam's two averages


def test_batch_norm_of_fixed_layers_is_a_setting():
    frozen = Freeze(bottom=0.5, batch_norm="batch")
    step, state, batch, _, (stage,) = training("cbr_tiny", frozen)
    after, _ = jax.jit(step)(state, batch)
    assert moved(state.stats, after.stats) == set(tree.names(state.stats))
    assert not moved(state.params, after.params) & of(stage.fixed, state.params)


def test_gradients_of_what_trains_are_those_of_the_whole_net():
    """Against a whole gradient, of a net without batch norm."""
    step, state, batch, model, (stage,) = training(
        "bit", Freeze(bottom=0.5), optimizer="sgd"
    )
    whole, state2, *_ = training("bit", Freeze(), optimizer="sgd")
    after, _ = jax.jit(step)(state, batch)
    after2, _ = jax.jit(whole)(state2, batch)
    a, b = tree.flatten(after.params), tree.flatten(after2.params)
    for name in set(a) - of(stage.fixed, state.params):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-5)
    del model


def test_a_fixed_net_costs_little_more_than_its_forward_pass():
    def flops(*args):
        step, state, batch, *_ = training("bit", *args)
        return jax.jit(step).lower(state, batch).cost_analysis()["flops"]

    whole, none = flops(Freeze()), flops(Freeze(bottom=1.0))
    assert none < 0.45 * whole  # the backward pass is two thirds


HEAD_THEN_ALL = (Phase(until=(0.5,), bottom=(1.0,)), Freeze())


def test_phases_release_the_layers_in_turn():
    """Head only, then half, then all: who moves in each step."""
    phase = Phase(until=(0.25, 0.5), bottom=(1.0, 0.5))
    step, state, batch, _, stages = training("cbr_tiny", Freeze(), phase, steps=8)
    assert [s.start for s in stages] == [0, 2, 4]
    step = jax.jit(step)
    for number in range(8):
        after, _ = step(state, batch)
        stage = stages[number // 2 if number < 4 else 2]
        for before, now in ((state.params, after.params), (state.stats, after.stats)):
            expected = set(tree.names(before)) - of(stage.fixed, before)
            assert moved(before, now) == expected, number
        state = after


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_phases_equal_two_runs_in_sequence(optimizer):
    """3 + 50 said the plain way: two runs, the second with a new optimizer."""
    phase, last = HEAD_THEN_ALL
    step, state, batch, _, _ = training(
        "cbr_tiny", last, phase, steps=6, optimizer=optimizer
    )
    first, plain, *_ = training("cbr_tiny", Freeze(bottom=1.0), optimizer=optimizer)
    second, other, _, _, (stage,) = training("cbr_tiny", Freeze(), optimizer=optimizer)
    step, first, second = map(jax.jit, (step, first, second))
    for number in range(6):
        state, metrics = step(state, batch)
        if number == 3:
            plain = loop.State(
                plain.step, plain.seed, plain.params, plain.stats, other.opt
            )
        plain, expected = (first if number < 3 else second)(plain, batch)
        assert metrics["loss"] == pytest.approx(float(expected["loss"]), rel=1e-5)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(plain.params)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    del stage


def test_the_schedule_is_that_of_the_whole_run():
    """The second phase's optimizer counts anew; its rate goes on."""
    rate = optax.linear_schedule(1.0, 0.0, 10)
    shifted = phases.counted_from(rate, 4)
    assert float(shifted(0)) == float(rate(4)) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("phase", "last", "message"),
    [
        (Phase((0.5,), (0.0,)), Freeze(bottom=1.0), "phases only release layers"),
        (Phase((0.01,), (1.0,)), Freeze(), "each needs a step of its own"),
    ],
)
def test_phases_that_cannot_be_are_refused(phase, last, message):
    with pytest.raises(ConfigError, match=message):
        training("cbr_tiny", last, phase)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": Freeze(bottom=0.5, top=0.5)}, "set one of config.freeze.bottom"),
        ({"freeze": Freeze(bottom=1.5)}, "shares between 0 and 1"),
        ({"freeze": Freeze(count_by="stages")}, "config.freeze.count_by is 'stages'"),
        ({"phase": Phase((0.5,), ())}, "one for each of config.phase.bottom"),
        ({"phase": Phase((0.5, 0.5), (1.0, 0.5))}, "rising fractions"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config.resolve(config.Run(**changes))


@pytest.mark.slow
def test_a_run_stopped_in_its_second_phase_resumes_to_the_same_bits(tmp_path):
    """A whole run, of batch norm and three phases, against one that was stopped."""
    run = presets.load(
        "configs/covidx_hyperrule.py:res=32,batch=16,phantom=64,steps=12"
    )
    run.model = TOYS["cbr_tiny"]
    run.init.kind, run.data.cache, run.keep = "random", str(tmp_path / "cache"), "all"
    run.eval.resamples, run.log.every, run.optim.lr = 0, 1, 1.0
    run.phase = Phase(until=(0.25, 0.5), bottom=(1.0, 0.5))
    run = config.resolve(run)
    job.execute(run, tmp_path / "whole")

    class AtStepFive(stopping.Stop):
        def __call__(self, step):
            return step == 5

    with pytest.raises(stopping.Preempted):
        job.execute(run, tmp_path / "stopped", AtStepFive())
    job.execute(run, tmp_path / "stopped")
    found = [
        (tmp_path / name / "params.npz").read_bytes() for name in ("whole", "stopped")
    ]
    assert found[0] == found[1]
