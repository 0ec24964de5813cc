"""The contract of every model, BiT's published sizes, and the forms of the layers."""

import dataclasses
import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bigxfer import config, models, tree
from bigxfer.models import bit, keras_zoo, parts, parts_cpu

PUBLISHED = {  # parameters with a head of 1000 classes, facts of 1912.11370's npz files
    "R50x1": ((3, 4, 6, 3), 1, 25_549_352),
    "R50x3": ((3, 4, 6, 3), 3, 217_319_080),
    "R101x1": ((3, 4, 23, 3), 1, 44_541_480),
    "R101x3": ((3, 4, 23, 3), 3, 387_934_888),
    "R152x2": ((3, 8, 36, 3), 2, 236_335_208),
    "R152x4": ((3, 8, 36, 3), 4, 936_533_224),
}
SHAPE = (4, 33, 24, 3)  # odd and oblong, so that no axis can be mistaken
TOY = {
    "bit": config.Model("bit", blocks=(1, 2), width=0.25),
    "cbr_large_t": config.Model("cbr_large_t", width=0.125, slim_above="block2"),
    "smallcnn": config.Model("smallcnn", width=0.125, hidden=8),
    **{name: config.Model(name) for name in keras_zoo.NETS},
}
SHAPES = dict.fromkeys(keras_zoo.NETS, (4, 65, 48, 3))  # these halve it five times
SHAPES["inception_v3"] = (4, 79, 75, 3)  # and its stem does not pad


@functools.cache
def toy(name="bit", **kw):
    """(model, variables with a head that is not zero, images), once for all tests."""
    cfg = TOY.get(name, config.Model(name, width=0.125))
    model = models.build(dataclasses.replace(cfg, **kw), 5)
    shape = SHAPES.get(name, SHAPE)
    variables = model.init(jax.random.key(0), shape)
    flat = tree.flatten(variables["params"])
    for i, (path, leaf) in enumerate(flat.items()):
        if re.fullmatch(model.head, path):
            flat[path] = leaf + jax.random.normal(jax.random.key(i), leaf.shape)
    images = jax.random.uniform(jax.random.key(1), shape, minval=-1)
    return model, {**variables, "params": tree.unflatten(flat)}, images


@functools.cache  # the tests of one net trace and compile it once
def forward(model, train, hold):
    rngs = {"dropout": jax.random.key(2)}
    return jax.jit(lambda v, x: model.apply(v, x, train, rngs, hold))


def apply(model, variables, images, train=False, hold=()):
    return forward(model, train, tuple(hold))(variables, images)


@functools.cache
def loss_and_gradient(model):
    def loss(params, variables, images):
        rngs = {"dropout": jax.random.key(2)}
        logits, _ = model.apply({**variables, "params": params}, images, True, rngs)
        return jnp.sum(jnp.sin(logits + jnp.arange(logits.size).reshape(logits.shape)))

    return jax.jit(jax.value_and_grad(loss))


def gradients(model, variables, images):
    """(loss, flat gradients) of a loss that no parameter is idle in."""
    value, grads = loss_and_gradient(model)(variables["params"], variables, images)
    return value, tree.flatten(grads)


QUICK = [
    "bit",
    "cbr_large_t",
    "cbr_tiny",
    "smallcnn",
    "mobilenet",
]  # others take minutes


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in models.MODELS
    ],
)
def made(request):
    if request.param in keras_zoo.NETS and importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    return toy(request.param)


@pytest.fixture(scope="module")
def reference():
    """(variables, images, loss, gradients) of the toy BiT, float32, one device."""
    _, variables, images = toy()
    images = jnp.concatenate([images, images[:, ::-1]])
    return variables, images, *gradients(toy()[0], variables, images)


def test_layers_cover_every_parameter_once(made):
    model, variables, _ = made
    layers = model.layers()
    for name in tree.names(variables["params"]):
        assert sum(name.startswith(layer + "/") for layer in layers) == 1, name
    for layer in layers:
        assert tree.take(variables["params"], f"{layer}/.*")


def test_every_parameter_has_a_gradient(made):
    _, grads = gradients(*made)
    assert set(grads) == set(tree.names(made[1]["params"]))
    for name, grad in grads.items():
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, name


def test_head_starts_at_zero(made):
    model, _, images = made
    fresh = model.init(jax.random.key(3), images.shape)
    for leaf in tree.flatten(tree.take(fresh["params"], model.head)).values():
        assert not leaf.any()
    assert not apply(model, fresh, images)[0].any()


def test_outputs_and_endpoints(made):
    model, variables, images = made
    logits, out = apply(model, variables, images)
    assert logits.shape == (4, 5) and logits.dtype == jnp.float32
    assert out["pre_logits"].shape[0] == 4 and out["pre_logits"].ndim == 2
    assert out["pre_logits"].dtype == jnp.float32
    others = images.at[1:].set(0)
    alone, _ = apply(model, variables, others)
    np.testing.assert_allclose(alone[0], logits[0], rtol=1e-4, atol=1e-5)
    trained, _ = apply(model, variables, images, train=True)
    if "batch_stats" not in variables and not has_dropout(model):
        np.testing.assert_array_equal(logits, trained)


def has_dropout(model):
    return bool(getattr(getattr(model, "net", None), "dropout", 0))


def test_endpoints_come_in_order_of_depth(made):
    """As `apply` gives them; what has passed through jit is sorted by name."""
    model, variables, images = made
    names = []

    def endpoints(variables):
        out = model.apply(variables, images, False)[1]
        names.extend(out)
        return out

    shapes = jax.eval_shape(endpoints, variables)
    assert names[-2:] == ["pre_logits", "logits"]
    maps = [shapes[n].shape[1] for n in names if len(shapes[n].shape) == 4]
    assert len(maps) > 2 and maps == sorted(maps, reverse=True)


def test_batch_norm_moves_in_training_but_where_it_is_held(made):
    """All of the statistics move, none of the held layers', none when not training."""
    model, variables, images = made
    if "batch_stats" not in variables:
        pytest.skip("the net has no batch norm")
    before = tree.flatten(variables["batch_stats"])
    assert "batch_stats" not in apply(model, variables, images)[1]
    after = tree.flatten(apply(model, variables, images, True)[1]["batch_stats"])
    assert set(after) == set(before)
    assert all((after[n] != before[n]).any() for n in before)

    layers = [n for n in model.layers() if any(s.startswith(n + "/") for s in before)]
    held, free = layers[: len(layers) // 2], layers[len(layers) // 2 :]
    _, out = apply(model, variables, images, True, held)
    for name, new in tree.flatten(out["batch_stats"]).items():
        layer = next(n for n in layers if name.startswith(n + "/"))
        assert (new != before[name]).any() == (layer in free), name
    still, _ = apply(model, variables, images, True, layers)
    if not has_dropout(model):
        logits, _ = apply(model, variables, images)
        np.testing.assert_allclose(still, logits, rtol=1e-5, atol=1e-5)


def test_grey_images_are_three_equal_channels(made):
    """In values and, of each of the first kernel's three channels, in gradients.

    Not in those of deep nets with batch norm, which four images leave to rounding.
    """
    model, variables, images = made
    grey = images[..., :1]
    wide = jnp.repeat(grey, 3, axis=-1)
    one, three = (apply(model, variables, x)[0] for x in (grey, wide))
    np.testing.assert_allclose(one, three, atol=1e-4 * float(np.abs(three).max()))
    if "batch_stats" in variables:
        return
    found, wanted = (gradients(model, variables, x)[1] for x in (grey, wide))
    for name, grad in wanted.items():
        scale = float(np.abs(grad).max())
        np.testing.assert_allclose(found[name], grad, atol=1e-3 * scale, err_msg=name)


def test_init_depends_on_the_key_only(made):
    model, _, _ = made
    a, b, c = (model.init(jax.random.key(k), SHAPE)["params"] for k in (0, 0, 1))
    assert tree.digest(a) == tree.digest(b) != tree.digest(c)


def test_unknown_model_names_its_neighbours():
    with pytest.raises(config.ConfigError, match="did you mean bit"):
        models.build(config.Model("bits"), 2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    blocks, width, count = PUBLISHED[name]
    model = models.build(config.Model(blocks=blocks, width=width), 1000)
    shapes = jax.eval_shape(
        lambda key: model.init(key, (1, 224, 224, 3)), jax.random.key(0)
    )
    assert tree.count(shapes["params"]) == count


def test_kernels_are_lecun_normal():
    """By scipy, over kernels of more than one of the loop's draws."""
    model = models.build(config.Model(blocks=(1, 1, 1, 1), width=0.25), 2)
    flat = tree.flatten(model.init(jax.random.key(0), (1, 32, 32, 3))["params"])
    kernels = [
        flat[n] for n in sorted(flat) if n.endswith("standardized_conv2d/kernel")
    ]
    scaled = [np.ravel(k) * np.prod(k.shape[:3]) ** 0.5 for k in kernels]
    drawn, at_once = np.concatenate(scaled), bit.DRAWN_AT_ONCE
    assert drawn.size > at_once + 1000
    assert np.abs(drawn[:1000] - drawn[at_once : at_once + 1000]).max() > 1
    expected = scipy.stats.truncnorm(-2, 2, scale=1 / 0.87962566)
    assert expected.std() == pytest.approx(1, abs=1e-6)
    assert scipy.stats.kstest(drawn, expected.cdf).pvalue > 0.01
    assert not (flat["block2/unit01/a/group_norm/gamma"] != 1).any()


@pytest.mark.parametrize(
    "channels, groups", [(64, 32), (32, 16), (16, 8), (48, 24), (10, 5), (7, 1)]
)
def test_norm_groups(channels, groups):
    assert bit.Groups(32).of(channels) == bit.Groups(32, "fewer").of(channels) == groups


def test_norms_of_the_same_groups_everywhere():
    """As timm and BiT's own code have them; 32 of 32 channels is allowed there."""
    same = bit.Groups(32, "same")
    assert [same.of(c) for c in (32, 64, 96)] == [32, 32, 32]
    with pytest.raises(config.ConfigError, match="48 channels do not divide into"):
        same.of(48)
    cfg = config.Model(blocks=(1, 1), width=0.25, narrow="same")
    with pytest.raises(config.ConfigError, match="16 channels do not divide"):
        models.build(cfg, 3)
    assert bit.Groups(8, "same").of(16) == 8


def test_bfloat16_stays_close():
    model, variables, images = toy()
    logits, _ = apply(model, variables, images)
    half, out = apply(toy(dtype="bfloat16")[0], variables, images)
    assert out["block1"].dtype == jnp.bfloat16 and half.dtype == jnp.float32
    np.testing.assert_allclose(half, logits, atol=0.05 * float(logits.std()))


@pytest.mark.parametrize("change", ["remat", "eight devices"])
def test_gradients_stay(reference, change):
    variables, images, loss, grads = reference
    if change == "eight devices":
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        images = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    other = toy(remat=True)[0] if change == "remat" else toy()[0]
    loss2, grads2 = gradients(other, variables, images)
    np.testing.assert_allclose(loss, loss2, rtol=1e-5)
    for name, grad in grads.items():
        scale = float(np.abs(grad).max())
        np.testing.assert_allclose(grads2[name], grad, atol=1e-3 * scale)


FORMS = {  # (plain form, form for the CPU, shapes of the arguments)
    "standardize": (
        lambda k: parts.standardize_plain(k + 1, 1e-10),
        lambda k: parts_cpu.standardize(k + 1, 1e-10),
        [(3, 3, 6, 5)],
    ),
    "conv 1x1": (
        lambda x, k: parts.conv_plain(x, k, 1),
        lambda x, k: parts_cpu.conv(x, k, 1),
        [(2, 5, 7, 6), (1, 1, 6, 4)],
    ),
    "conv 1x1 stride 2": (
        lambda x, k: parts.conv_plain(x, k, 2),
        lambda x, k: parts_cpu.conv(x, k, 2),
        [(2, 5, 8, 4), (1, 1, 4, 6)],
    ),
    "conv 3x3": (
        lambda x, k: parts.conv_plain(x, k, 1),
        lambda x, k: parts_cpu.conv(x, k, 1),
        [(2, 1, 7, 6), (3, 3, 6, 4)],
    ),
    "conv 3x3 stride 2": (
        lambda x, k: parts.conv_plain(x, k, 2),
        lambda x, k: parts_cpu.conv(x, k, 2),
        [(2, 5, 8, 2), (3, 3, 2, 40)],
    ),
    "conv 7x7 stride 2": (
        lambda x, k: parts.conv_plain(x, k, 2),
        lambda x, k: parts_cpu.conv(x, k, 2),
        [(2, 11, 12, 3), (7, 7, 3, 5)],
    ),
    "conv 1x1 that widens": (
        lambda x, k: parts.conv_plain(x, k, 1),
        lambda x, k: parts_cpu.conv(x, k, 1),
        [(2, 5, 7, 4), (1, 1, 4, 6)],
    ),
    "conv 3x3 of 16 images": (
        lambda x, k: parts.conv_plain(x, k, 1),
        lambda x, k: parts_cpu.conv(x, k, 1),
        [(16, 5, 4, 6), (3, 3, 6, 5)],
    ),
    "conv 3x3 stride 2 of 16 images": (
        lambda x, k: parts.conv_plain(x, k, 2),
        lambda x, k: parts_cpu.conv(x, k, 2),
        [(16, 8, 7, 6), (3, 3, 6, 5)],
    ),
    "conv 7x7 stride 2 to an odd number of columns": (
        lambda x, k: parts.conv_plain(x, k, 2),
        lambda x, k: parts_cpu.conv(x, k, 2),
        [(2, 16, 10, 3), (7, 7, 3, 32)],
    ),
    "conv 5x5 of gray images": (
        lambda x, k: parts.conv_plain(x, k, 1),
        lambda x, k: parts_cpu.conv(x, k, 1),
        [(2, 6, 8, 1), (5, 5, 1, 3)],
    ),
    "group_norm_relu": (
        lambda x, g, b: parts.group_norm_relu_plain(3 * x + 2, g, b, 4, 1e-5),
        lambda x, g, b: parts_cpu.group_norm_relu(3 * x + 2, g, b, 4, 1e-5),
        [(3, 5, 7, 12), (12,), (12,)],
    ),
    "max_pool": (parts.max_pool_plain, parts_cpu.max_pool, [(2, 9, 12, 3)]),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_agree_in_values_and_gradients(name):
    plain, fast, shapes = FORMS[name]
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]
    dy = jnp.asarray(rng.normal(size=jax.eval_shape(plain, *args).shape), jnp.float32)

    @jax.jit
    def both(args, dy):
        outs = (jax.vjp(form, *args) for form in (plain, fast))
        return [(value, *pull(dy)) for value, pull in outs]

    want, got = both(args, dy)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_forms_take_bfloat16(name):
    plain, fast, shapes = FORMS[name]
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in shapes]
    want, got = jax.jit(lambda args: (plain(*args), fast(*args)))(args)
    assert got.dtype == want.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        got.astype(np.float32), want.astype(np.float32), rtol=0.02, atol=0.05
    )


@pytest.mark.parametrize(
    "shape, devices, steps",
    [((8, 32, 34, 64), 1, 2), ((8, 32, 34, 64), 2, 1), ((8, 5, 4, 64), 1, 1)],
)
def test_images_last(monkeypatch, shape, devices, steps):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    x = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    form = jax.jit(lambda x: parts_cpu.images_last(x))  # a trace of its own
    assert form.lower(x).as_text().count("stablehlo.transpose") == steps
    np.testing.assert_array_equal(form(x), np.transpose(x, (3, 1, 2, 0)))


def test_pool_pads_with_zeros():
    pooled = parts.max_pool(jnp.full((1, 4, 4, 1), -1.0))
    assert pooled[0, :, :, 0].tolist() == [[0, 0], [0, -1]]


def test_standardize():
    kernel = np.random.default_rng(0).normal(3, 2, (3, 3, 8, 5))
    got = parts.standardize(jnp.asarray(kernel, jnp.float32))
    want = (kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
