"""CBR: the published sizes, and the same numbers from Keras's layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bigxfer import config, models, tree
from bigxfer.models import cbr, linen

PUBLISHED = {  # 1902.07208 table 1; it counts neither the first convolution nor norms
    "cbr_large_t": 8_532_480,
    "cbr_large_w": 8_432_128,
    "cbr_small": 2_108_672,
    "cbr_tiny": 1_076_480,
}
WHOLE = {  # all parameters with a head of 5, batch norm's scale and bias among them
    "cbr_large_t": 8_539_173,
    "cbr_large_w": 8_443_461,
    "cbr_small": 2_114_341,
    "cbr_tiny": 1_079_845,
    "cbr_tiny_wide": 4_310_085,
}


def shapes(pixels=224, **kw):
    model = models.build(config.Model(**kw), 5)
    init = jax.eval_shape(lambda: model.init(jax.random.key(0), (1, pixels, pixels, 3)))
    return model, init


@pytest.mark.parametrize("name", cbr.SIZES)
def test_sizes_are_the_published_ones(name):
    flat = tree.flatten(shapes(name=name)[1]["params"])
    assert sum(leaf.size for leaf in flat.values()) == WHOLE[name]
    counted = [leaf.size for n, leaf in flat.items() if "conv/" in n][1:]
    counted.append(flat["head/dense/kernel"].size)
    assert sum(counted) == PUBLISHED.get(name, 4_303_360)


def test_maps_at_224_pixels():
    model, variables = shapes(name="cbr_large_t")
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    out = jax.eval_shape(lambda v, x: model.apply(v, x, False)[1], variables, images)
    sides = [out[f"block{i}"].shape[1] for i in range(1, 6)]
    assert sides == [224, 112, 56, 28, 14]
    valid, variables = shapes(name="cbr_large_t", padding="VALID")
    out = jax.eval_shape(lambda v, x: valid.apply(v, x, False)[1], variables, images)
    assert out["block5"].shape == (2, 1, 1, 512)


def test_valid_padding_says_when_images_are_too_small():
    with pytest.raises(ValueError, match="too small.*config.data.crop"):
        shapes(pixels=100, name="cbr_large_t", padding="VALID")


def test_slim_keeps_the_blocks_below():
    full = tree.flatten(shapes(name="cbr_small")[1]["params"])
    _, variables = shapes(name="cbr_small", slim_above="block2", slim=0.25)
    slim = tree.flatten(variables["params"])
    same = {n for n in full if full[n].shape == slim[n].shape}
    below = {n for n in full if n.startswith(("block1/", "block2/"))}
    assert same == below | {"head/dense/bias"}
    assert slim["block3/conv/kernel"].shape == (7, 7, 64, 32)
    with pytest.raises(config.ConfigError, match="blok2.*did you mean block2"):
        shapes(name="cbr_small", slim_above="blok2")


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("train", [False, True])
def test_numbers_are_those_of_keras_layers(monkeypatch, padding, train):
    """The architecture said again in Keras, with our weights (KERAS_BACKEND=jax)."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    kernel, channels, last_pools = 5, (4, 6, 8), False
    net = cbr.Cbr(kernel, channels, last_pools, padding, 5, jnp.float32, False)
    model = linen.Linen(net, [])
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape) - 0.4, jnp.float32),
        jax.eval_shape(lambda: model.init(jax.random.key(0), (1, 43, 43, 3))),
    )
    images = rng.uniform(-1, 1, (3, 43, 43, 3)).astype(np.float32)

    layers = []
    for i, width in enumerate(channels, 1):
        p, s = variables["params"][f"block{i}"], variables["batch_stats"][f"block{i}"]
        conv = keras.layers.Conv2D(
            width, kernel, padding=padding.lower(), use_bias=False
        )
        norm = keras.layers.BatchNormalization()
        x = keras.Input((43, 43, 3 if i == 1 else channels[i - 2]))
        norm(conv(x))
        conv.set_weights([p["conv"]["kernel"]])
        norm.set_weights(
            [
                *(p["batch_norm"][n] for n in ("scale", "bias")),
                *(s["batch_norm"][n] for n in ("mean", "var")),
            ]
        )
        layers += [conv, norm, keras.layers.ReLU()]
        if i < len(channels):
            layers.append(keras.layers.MaxPooling2D(3, 2, padding.lower()))
    theirs = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D()])
    want = theirs(images, training=train)

    _, out = model.apply(variables, images, train)
    np.testing.assert_allclose(out["pre_logits"], want, rtol=1e-4, atol=1e-5)
    if train:  # and the running averages after it
        for i in range(len(channels)):
            got = out["batch_stats"][f"block{i + 1}"]["batch_norm"]
            norm = layers[4 * i + 1]
            mean, var = norm.moving_mean.value, norm.moving_variance.value
            np.testing.assert_allclose(got["mean"], mean, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(got["var"], var, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("held", [(), ("block1", "block2")])
def test_batch_statistics_on_eight_devices_are_those_of_one(held):
    """Over the whole batch, not over each device's share; held averages stay."""
    model = models.build(config.Model("cbr_tiny", width=0.125), 3)
    variables = model.init(jax.random.key(0), (1, 16, 16, 3))
    images = jax.random.normal(jax.random.key(1), (16, 16, 16, 3))
    images *= jnp.arange(1.0, 17.0)[:, None, None, None]  # no share is like the whole
    step = jax.jit(lambda v, x: model.apply(v, x, True, hold=held)[1])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    one, eight = step(variables, images), step(variables, spread)
    for name in ("block4", "pre_logits"):
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-4, atol=1e-5)
    before = tree.flatten(variables["batch_stats"])
    got = tree.flatten(eight["batch_stats"])
    for name, want in tree.flatten(one["batch_stats"]).items():
        np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=1e-6, err_msg=name)
        assert name.startswith(held) == (got[name] == before[name]).all()
