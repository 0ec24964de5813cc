"""SmallCNN: the count on the slide, and what its layers are."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bigxfer import config, models, tree


def made(pixels, **kw):
    model = models.build(config.Model("smallcnn", **kw), 2)
    return model, lambda: model.init(jax.random.key(0), (1, pixels, pixels, 3))


def test_backbone_has_the_count_of_the_slide():
    """2,114,496, moving averages among them, without the dense layers."""
    variables = jax.eval_shape(made(128)[1])
    names = ("params", "batch_stats")
    found = [(n, v) for c in names for n, v in tree.flatten(variables[c]).items()]
    assert sum(v.size for n, v in found if n.startswith("block")) == 2_114_496


def test_four_pools_and_a_hidden_layer():
    model, init = made(128, hidden=7)
    images = jax.ShapeDtypeStruct((2, 128, 128, 3), jnp.float32)
    shapes = jax.eval_shape(init)
    call = jax.eval_shape(lambda v, x: model.apply(v, x, False)[1], shapes, images)
    assert [call[f"block{i}"].shape[1] for i in (1, 2, 3, 4)] == [128, 64, 32, 16]
    assert call["pre_logits"].shape == (2, 7)


def test_batch_norm_follows_the_relu():
    """So that it may give negative numbers, and a dead map gives its bias."""
    model, init = made(16, width=0.125)
    variables = init()
    variables["params"]["block1"]["conv"]["bias"] -= 100.0
    variables["params"]["block1"]["batch_norm"]["bias"] -= 3.0
    images = jnp.zeros((1, 16, 16, 3))
    out = jax.jit(lambda v: model.apply(v, images, False)[1])(variables)
    np.testing.assert_allclose(out["block1"], -3.0, rtol=1e-6)


def test_dropout_is_drawn_from_its_key_while_training():
    model, init = made(16, width=0.125, dropout=0.5)
    variables = init()
    variables["params"]["head"]["dense"]["kernel"] += 1.0
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3), minval=-1)
    every = model.layers()

    @partial(jax.jit, static_argnames="train")
    def logits(key, train=True):
        rngs = {"dropout": jax.random.key(key)}
        return model.apply(variables, images, train, rngs, hold=every)[0]

    assert (logits(0) == logits(0)).all() and (logits(0) != logits(1)).any()
    assert (logits(0, train=False) == logits(1, train=False)).all()
    many = jax.vmap(logits)(jnp.arange(100)).mean(0)
    np.testing.assert_allclose(many, logits(0, train=False), rtol=0.25)
