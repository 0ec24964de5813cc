"""The arithmetic of `study list` against the nets themselves, traced."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from bigxfer import config, models, presets, tree
from bigxfer.models import parts
from bigxfer.study import bit_size, grid

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
ODD = {  # (net, crop): what no published net has
    "one size of image that never halves evenly": (presets.bit("R2-1-2x0.25"), 47),
    "a width that rounds": (presets.bit("R1-1-1-1x0.13"), 32),
    "slim above": (presets.bit("R1-1-1-1x0.5", slim_above="block2", slim=0.3), 33),
    "no room for a shortcut": (presets.bit("R1-1x0.25"), 1),
    "R50x1": (presets.bit("R50x1"), 224),
}


def traced(cfg, crop, classes):
    """(FLOPs of all convolutions, parameters) of the net as it stands in models/bit.py."""
    model = models.build(replace(cfg, remat=False), classes)
    image = jax.ShapeDtypeStruct((1, crop, crop, 3), jnp.float32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image.shape))
    forward = jax.make_jaxpr(lambda v, x: model.apply(v, x, False)[0])
    return counted(forward(variables, image).jaxpr), tree.count(variables["params"])


def counted(jaxpr):
    """Two FLOPs for each tap of each number that a convolution gives."""
    total = 0
    for step in jaxpr.eqns:
        assert step.primitive.name != "dot_general", "counted as a convolution"
        if step.primitive.name == "conv_general_dilated":
            h, w, channels, _ = step.invars[1].aval.shape
            total += 2 * h * w * channels * step.outvars[0].aval.size
        for inner in step.params.values():
            if isinstance(inner, jax.extend.core.ClosedJaxpr):
                total += counted(inner.jaxpr)
    return total


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Each convolution as one operation."""
    monkeypatch.setattr(parts, "on_cpu", lambda: False)


@pytest.mark.parametrize("net, crop", ODD.values(), ids=ODD)
def test_a_net_is_as_large_as_its_trace_says(net, crop):
    assert bit_size.flops_and_parameters(net, crop, 7) == traced(net, crop, 7)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_so_is_every_net_of_the_shipped_configs(path):
    name = f"configs/{path.name}"
    runs = [presets.load(name)]
    if hasattr(presets.load_module(name), "sweep"):
        runs += [node.run for node in grid.nodes(name) if node.kind != "cache"]
    shapes = {(str(r.model), r.data.crop): (r.model, r.data.crop) for r in runs}
    for net, crop in shapes.values():
        if net.name == "bit":
            found = bit_size.flops_and_parameters(net, crop, 10)
            assert found == traced(net, crop, 10), (net, crop)


def test_a_slim_block_that_is_none_is_refused():
    net = presets.bit("R1-1x1", slim_above="block3")
    with pytest.raises(config.ConfigError, match="is no block"):
        bit_size.flops_and_parameters(net, 32, 10)
