"""Initialisations: exactly the named leaves change, and to what is documented."""

import functools
import importlib
import importlib.util

import jax
import numpy as np
import pytest

from bigxfer import config, models, presets, tree
from bigxfer.models import cbr, keras_zoo
from bigxfer.models.leaves import norms
from bigxfer.protocols import gabor, init
from bigxfer.runs import job
from bigxfer.training import compiled

SHAPE = (1, 40, 40, 3)
CUTS = {  # model: (a small form, an upto, the layers that it takes)
    "bit": (
        config.Model(blocks=(1, 2, 1), width=0.25, narrow="fewer"),
        "block2",
        ("root_block/", "block1/", "block2/"),
    ),
    **{
        name: (
            config.Model(name, width=0.125),
            "block3",
            ("block1/", "block2/", "block3/"),
        )
        for name in cbr.SIZES
    },
    "smallcnn": (
        config.Model("smallcnn", width=0.125, hidden=6),
        "block1",
        ("block1/",),
    ),
}

KERAS = {  # model: (upto, the last layer that it takes, the first that it does not)
    "inception_v3": ("mixed2", "mixed2/batch_normalization_25", "mixed3/conv2d_27"),
    "resnet50": ("conv2", "conv2_block3_3_bn", "conv3_block1_1_conv"),
    "resnet50_v2": ("conv2", "conv2_block3_3_conv", "conv3_block1_preact_bn"),
    "densenet121": ("conv3_block2", "conv3_block2_2_conv", "conv3_block3_0_bn"),
    "mobilenet": ("conv_pw_3", "conv_pw_3_bn", "conv_dw_4"),
    "mobilenet_v2": ("block_2", "block_2_project_BN", "block_3_expand"),
}
# Of the same kinds of layers as cbr_large_t and cbr_tiny, in other numbers and sizes.
ALIKE = ("cbr_large_w", "cbr_small", "cbr_tiny_wide")
OURS = [pytest.param(n, marks=[pytest.mark.slow] * (n in ALIKE)) for n in CUTS]
needs_keras = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="keras is not installed"
)


@functools.cache
def keras_net(name):
    """Keras's net of four classes, built once."""
    return models.build(config.Model(name), 4)


def leaves(variables):
    """{part/name: leaf} of parameters and statistics together."""
    return tree.flatten(variables)


def save(path, variables):
    """params.npz as a run writes it."""
    stats = variables.get("batch_stats", {})
    tree.save_npz(path, {**variables["params"], "batch_stats": stats})
    return str(path)


def upstream(model):
    """Variables in which no number is that of any initialisation."""
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), SHAPE))
    return jax.tree.map(
        lambda leaf: rng.uniform(1, 3, leaf.shape).astype(np.float32), shapes
    )


@pytest.fixture(scope="module", params=OURS)
def case(request, tmp_path_factory):
    """(model, its random variables, a checkpoint, its variables, upto, taken)."""
    cfg, upto, taken = CUTS[request.param]
    model = models.build(cfg, 4)
    path = tmp_path_factory.mktemp("up") / "params.npz"
    source = upstream(model)
    fresh = model.init(jax.random.key(7), SHAPE)
    return model, leaves(fresh), save(path, source), leaves(source), upto, taken


def start(model, **kw):
    return leaves(
        init.start(config.Init("pretrained", **kw), model, jax.random.key(7), SHAPE)
    )


def changed(got, fresh):
    assert set(got) == set(fresh)
    return {n for n in got if not np.array_equal(got[n], fresh[n])}


def below(names, taken):
    return {n for n in names if n.partition("/")[2].startswith(taken)}


def test_pretrained_takes_all_but_the_head(case):
    model, fresh, path, source, _, _ = case
    got = start(model, checkpoint=path)
    for name, leaf in got.items():
        head = name.startswith("params/head/")
        np.testing.assert_array_equal(leaf, fresh[name] if head else source[name])


def test_transfusion_takes_the_named_layers_only(case):
    model, fresh, path, source, upto, taken = case
    got = start(model, checkpoint=path, upto=upto)
    assert changed(got, fresh) == below(fresh, taken)
    for name in below(fresh, taken):
        np.testing.assert_array_equal(got[name], source[name])


@pytest.mark.parametrize("how", ["mean_var", "shuffle", "resample"])
def test_reinitialised_layers_keep_what_they_should(case, how):
    model, fresh, path, source, upto, taken = case
    got = start(model, checkpoint=path, upto=upto, how=how)
    weights = below(fresh, taken) - norms(below(fresh, taken))
    assert weights and changed(got, fresh) == weights  # normalisation: the identity
    for name in weights:
        a, b = np.sort(got[name].ravel()), np.sort(source[name].ravel())
        assert not np.array_equal(got[name], source[name])
        if how == "shuffle":
            np.testing.assert_array_equal(a, b)
        elif how == "resample":
            assert set(a) <= set(b)
        else:
            error = b.std() / a.size**0.5
            assert abs(a.mean() - b.mean()) < 5 * error
            assert a.size < 100 or a.std() == pytest.approx(b.std(), rel=0.3)
    copied = start(model, checkpoint=path, upto=upto, how=how, batch_norm="copy")
    assert changed(copied, fresh) == below(fresh, taken)
    for name in below(fresh, taken) - weights:
        np.testing.assert_array_equal(copied[name], source[name])


def test_identity_has_no_negative_variance(case):
    """A public copy draws running variances from a normal too, and gets NaN."""
    model, _, path, _, _, _ = case
    got = start(model, checkpoint=path, how="mean_var")
    for name, leaf in got.items():
        if name.endswith(("/var", "/scale", "/gamma")):
            assert (np.asarray(leaf) == 1).all(), name
        if name.endswith(("norm/mean", "norm/bias", "/beta")):
            assert not np.asarray(leaf).any(), name


def test_mean_var_above_transfused_layers(case):
    model, fresh, path, source, upto, taken = case
    got = start(model, checkpoint=path, upto=upto, above="mean_var")
    for name in below(fresh, taken):
        np.testing.assert_array_equal(got[name], source[name])
    rest = set(fresh) - below(fresh, taken)
    kernels = {n for n in rest if n.endswith("kernel") and "/head/" not in n}
    assert kernels <= changed(got, fresh)
    for name in kernels:
        assert got[name].mean() == pytest.approx(source[name].mean(), abs=0.3)


EVERY = {"bit": CUTS["bit"][0], "cbr_tiny": CUTS["cbr_tiny"][0]}
EVERY |= {"smallcnn": CUTS["smallcnn"][0]}
EVERY |= {n: pytest.param(n, marks=needs_keras) for n in ("mobilenet",)}


@pytest.mark.parametrize("name", list(EVERY.values()), ids=list(EVERY))
def test_mean_var_is_refused_where_kernels_are_standardised(name):
    """Where every filter may be scaled and shifted, and the net computes the same."""
    known = isinstance(name, config.Model)
    cfg = name if known else config.Model(name)
    model = models.build(cfg, 4) if known else keras_net(name)
    flat = tree.flatten(dict(model.init(jax.random.key(0), (1, 40, 40, 3))))
    rng = np.random.default_rng(0)

    def moved(leaf):
        size = (*[1] * (leaf.ndim - 1), leaf.shape[-1])
        return leaf * rng.uniform(0.5, 2, size) + 0.1 * rng.normal(size=size)

    other = {
        n: moved(v).astype(np.float32) if n.endswith("kernel") and v.ndim == 4 else v
        for n, v in flat.items()
    }
    x = rng.uniform(-1, 1, (2, 40, 40, 3)).astype(np.float32)
    apply = jax.jit(lambda v: model.apply(v, x, False)[1]["pre_logits"])
    a, b = (np.asarray(apply(tree.unflatten(v))) for v in (flat, other))
    same = np.abs(a - b).max() < 1e-3 * np.abs(a).max()
    for start in ({"how": "mean_var"}, {"above": "mean_var", "upto": "block1"}):
        run = config.Run(model=cfg, init=config.Init("pretrained", **start))
        copied = config.Init("pretrained", **start, batch_norm="copy")
        config.resolve(config.Run(model=cfg, init=copied))
        if same:
            with pytest.raises(config.ConfigError, match="mean_var takes nothing"):
                config.resolve(run)
        else:
            config.resolve(run)


def test_what_weight_standardisation_leaves_of_a_start(tmp_path):
    """Of mean_var nothing: two checkpoints, one start. Of shuffle the values' shape."""
    model = models.build(CUTS["bit"][0], 4)
    one = upstream(model)
    rng = np.random.default_rng(1)
    two = jax.tree.map(lambda v: rng.exponential(3, v.shape).astype("f4") - 7, one)
    affine = jax.tree.map(lambda v: 3 * v - 5, one)
    x = rng.uniform(-1, 1, (2, 40, 40, 3)).astype(np.float32)
    apply = jax.jit(lambda v: model.apply(v, x, False)[1]["pre_logits"])

    def features(source, how):
        path = save(tmp_path / "params.npz", source)
        flat = start(model, checkpoint=path, how=how)
        return np.asarray(apply(tree.unflatten(flat)))

    want = {how: features(one, how) for how in ("mean_var", "shuffle", "resample")}
    for how, known in want.items():
        top = np.abs(known).max()
        assert np.abs(features(affine, how) - known).max() < 1e-3 * top, how
        apart = np.abs(features(two, how) - known).max() / top
        assert apart < 1e-3 if how == "mean_var" else apart > 0.05, how


def test_draws_depend_on_seed_and_name(case):
    model, _, path, _, _, _ = case
    cfg = config.Init("pretrained", how="mean_var", checkpoint=path)
    a, b, c = (
        leaves(init.start(cfg, model, jax.random.key(k), SHAPE)) for k in (0, 0, 1)
    )
    assert not changed(a, b) and changed(a, c)


def test_a_checkpoint_that_does_not_fit_is_refused(case, tmp_path):
    model, _, _, source, upto, taken = case
    flat = {n: v for n, v in source.items()}
    low = next(n for n in below(flat, taken) if n.endswith("kernel"))
    flat[low] = np.zeros((1, 2))
    path = save(tmp_path / "bad.npz", tree.unflatten(flat))
    name = low.removeprefix("params/")
    with pytest.raises(ValueError, match=rf"shape: {name} is \(1, 2\)"):
        start(model, checkpoint=path, upto=upto)
    with pytest.raises(config.ConfigError, match="blok1' is no layer"):
        start(model, checkpoint=path, upto="blok1")


@pytest.mark.parametrize("name", [p for p in OURS if p.values != ("smallcnn",)])
def test_slim_hybrid_takes_the_full_blocks(name, tmp_path):
    """Pretrained up to block2 at full width, slim and random above (1902.07208)."""
    cfg, _, _ = CUTS[name]
    values = {**vars(cfg), "slim_above": "block2", "slim": 0.5}
    full, slim = models.build(cfg, 4), models.build(config.Model(**values), 4)
    source = upstream(full)
    path = save(tmp_path / "params.npz", source)
    fresh = leaves(slim.init(jax.random.key(7), SHAPE))
    got = start(slim, checkpoint=path, upto="block2")
    taken = below(fresh, ("root_block/", "block1/", "block2/"))
    assert changed(got, fresh) == taken
    for leaf in taken:
        np.testing.assert_array_equal(got[leaf], leaves(source)[leaf])
    with pytest.raises(ValueError, match="shape: block3/"):
        start(slim, checkpoint=path)
    sizes = [sum(np.size(v) for v in x.values()) for x in (got, leaves(source))]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("name", OURS)
def test_gabor_changes_the_first_kernel_only(name):
    model = models.build(CUTS[name][0], 4)
    fresh = leaves(model.init(jax.random.key(7), SHAPE))
    got = leaves(init.start(config.Init("gabor"), model, jax.random.key(7), SHAPE))
    (kernel,) = changed(got, fresh)
    first = model.layers()[0]
    assert kernel.startswith(f"params/{first}/") and kernel.endswith("kernel")
    each = got[kernel].std((0, 1, 2))
    np.testing.assert_allclose(each, np.std(fresh[kernel]), rtol=1e-4)


def test_gabor_filters_are_what_they_say():
    size, std = 15, 0.3  # larger than any first layer, so that the FFT resolves them
    bank = gabor.bank(size, 64, std)
    assert bank.shape == (size, size, 3, 64) and bank.dtype == np.float32
    np.testing.assert_array_equal(bank[:, :, 0], bank[:, :, 2])
    np.testing.assert_allclose(bank.mean((0, 1)), 0, atol=1e-7)
    np.testing.assert_allclose(bank[:, :, 0].std((0, 1)), std, rtol=1e-5)
    grey = bank[:, :, 0].reshape(size, size, 4, 8, 2)
    even, odd = grey[..., 0], grey[..., 1]
    dots = (even * odd).sum((0, 1)) / (size**2 * std**2)
    np.testing.assert_allclose(dots, 0, atol=1e-6)  # in quadrature
    np.testing.assert_allclose(even, even[::-1, ::-1], atol=1e-6)
    np.testing.assert_allclose(odd, -odd[::-1, ::-1], atol=1e-6)
    waves = np.geomspace(3, size, 4)
    for w in range(3):  # the longest has only one period in the kernel
        for k in range(8):
            power = np.abs(np.fft.fft2(even[..., w, k], (256, 256)))
            fy, fx = np.unravel_index(power.argmax(), power.shape)
            fy, fx = np.fft.fftfreq(256)[[fy, fx]]
            angle = np.degrees(np.arctan2(fy, fx)) % 180
            off = abs(angle - 22.5 * k)
            assert min(off, 180 - off) < 3, (w, k)
            assert np.hypot(fx, fy) == pytest.approx(1 / waves[w], rel=0.15)


LARGE = ("inception_v3", "resnet50", "resnet50_v2", "densenet121")  # to compile


@needs_keras
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in KERAS],
)
def test_gabor_in_the_keras_models(name):
    """The three with a first kernel of 7 x 7; the others have no room for a wave."""
    model = keras_net(name)
    cfg, key = config.Init("gabor"), jax.random.key(7)
    if name not in ("resnet50", "resnet50_v2", "densenet121"):
        with pytest.raises(config.ConfigError, match="5 pixels or more, not 3"):
            init.start(cfg, model, key, SHAPE)
        return
    fresh = leaves(model.init(jax.random.key(7), SHAPE))
    got = leaves(init.start(cfg, model, key, SHAPE))
    assert changed(got, fresh) == {"params/conv1_conv/kernel"}


def test_gabor_needs_room():
    with pytest.raises(config.ConfigError, match="5 pixels or more, not 3"):
        gabor.bank(3, 32, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"how": "mean_var"}, "need config.init.kind=pretrained"),
        ({"upto": "block1"}, "need config.init.kind=pretrained"),
        ({"kind": "pretrained", "above": "mean_var"}, "needs config.init.upto"),
        ({"how": "meanvar"}, "config.init.how is 'meanvar'"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(config.ConfigError, match=message):
        config.resolve(config.Run(init=config.Init(**change)))


def test_keras_files_are_for_keras_models():
    model = models.build(CUTS["bit"][0], 4)
    for cfg in (
        config.Init("imagenet"),
        config.Init("pretrained", checkpoint="net.weights.h5"),
    ):
        with pytest.raises(config.ConfigError, match="inception_v3.*BiT takes an npz"):
            init.start(cfg, model, jax.random.key(0), SHAPE)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def never_compiles(monkeypatch):
    def fail(*args):
        raise AssertionError("compiled before the start was looked at")

    monkeypatch.setattr(compiled, "compile_step", fail)


def toy_run(cache, model, **kw):
    run = presets.load("configs/covidx_small.py:res=32,batch=8,phantom=32,steps=2")
    run.model, run.data.cache = model, str(cache)
    run.init = config.Init(**kw)
    return config.resolve(run)


@needs_keras
@pytest.mark.usefixtures("never_compiles")
def test_no_download_is_found_before_anything_is_compiled(tmp_path, cache, monkeypatch):
    keras_zoo.keras()
    module = importlib.import_module("keras.src.applications.mobilenet")

    def fail(*args, **kw):
        raise OSError("URL fetch failure on https://...: None")

    monkeypatch.setattr(module.file_utils, "get_file", fail)
    run = toy_run(cache, config.Model("mobilenet"), kind="imagenet")
    with pytest.raises(ValueError, match="URL fetch failure[^$]*save_weights"):
        job.execute(run, tmp_path / "run")


@pytest.mark.usefixtures("never_compiles")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "pretrained", "checkpoint": "none.npz"}, "no such parameter file"),
        ({"kind": "pretrained", "upto": "blok1"}, "blok1' is no layer"),
        ({"kind": "imagenet"}, "are for the models of Keras"),
    ],
)
def test_a_start_that_cannot_be_is_found_before_anything_is_compiled(
    tmp_path, cache, change, message
):
    model = CUTS["cbr_tiny"][0]
    with pytest.raises((ValueError, OSError), match=message):
        job.execute(toy_run(cache, model, **change), tmp_path / "run")


@needs_keras
def test_imagenet_weights_are_treated_as_any_others(monkeypatch):
    model = keras_net("mobilenet")
    source = upstream(model)
    monkeypatch.setattr(model, "load", {"imagenet": source}.__getitem__)
    cfg = config.Init("imagenet", how="shuffle", upto="conv_pw_1")
    got = leaves(init.start(cfg, model, jax.random.key(7), SHAPE))
    fresh = leaves(model.init(jax.random.key(7), SHAPE))
    kernels = {f"params/{n}/kernel" for n in ("conv1", "conv_dw_1", "conv_pw_1")}
    assert changed(got, fresh) == kernels


@needs_keras
@pytest.mark.parametrize("name", KERAS)
def test_cut_points_of_the_keras_models(name):
    upto, last, first = KERAS[name]
    below, above = init.split_at(keras_net(name), upto)
    assert (below[-1], above[0]) == (last, first)


@needs_keras
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n == "mobilenet" else pytest.mark.slow)
        for n in KERAS
    ],
)
def test_transfusion_into_the_keras_models(name, tmp_path):
    upto, last, _ = KERAS[name]
    model = keras_net(name)
    layers = model.layers()
    taken = tuple(f"{n}/" for n in layers[: layers.index(last) + 1])
    source, path = upstream(model), tmp_path / "params.npz"
    fresh = leaves(model.init(jax.random.key(7), SHAPE))
    got = start(model, checkpoint=save(path, source), upto=upto)
    assert changed(got, fresh) == below(fresh, taken)
    kernels = {n for n in below(fresh, taken) if n.endswith("kernel")}
    drawn = start(model, checkpoint=str(path), upto=upto, how="mean_var")
    assert (
        kernels
        <= changed(drawn, fresh)
        <= kernels | {n for n in below(fresh, taken) if n.endswith("bias")}
    )


def test_a_layer_is_cut_without_its_numbered_sisters():
    class Net:
        head = "head/.*"

        def layers(self):
            return ["stem/conv2d", "stem/conv2d_1", "conv1", "conv1_bn", "head"]

    def cut(upto):
        return init.split_at(Net(), upto)[0][-1]

    assert cut("stem/conv2d") == "stem/conv2d"
    assert (cut("stem"), cut("conv1")) == ("stem/conv2d_1", "conv1_bn")


@pytest.mark.parametrize(("size", "fits"), [(5, True), (4, False)])
def test_a_first_kernel_without_room_is_found_by_its_shape(size, fits):
    class Net:
        def layers(self):
            return ["conv", "head"]

    kernel = jax.ShapeDtypeStruct((size, size, 3, 16), np.float32)
    shapes = {"params": {"conv": {"kernel": kernel}}}
    if fits:
        init.check(config.Init("gabor"), Net(), shapes)
        return
    with pytest.raises(config.ConfigError, match="5 pixels or more, not 4"):
        init.check(config.Init("gabor"), Net(), shapes)


def test_a_checkpoint_may_be_a_run_folder_and_hold_more_above_what_is_taken(tmp_path):
    model = models.build(CUTS["smallcnn"][0], 4)
    source = upstream(model)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), SHAPE))
    more = {"block9": {"kernel": np.ones((2, 2), np.float32)}}
    save(tmp_path / "params.npz", {**source, "params": {**source["params"], **more}})
    part = config.Init("pretrained", upto="block1", checkpoint=str(tmp_path))
    found = init.read(part, model, shapes, list(init.taken(part, model)))
    kernel = next(n for n in tree.names(found["params"]) if n.startswith("block1/"))
    np.testing.assert_array_equal(
        tree.flatten(found["params"])[kernel], tree.flatten(source["params"])[kernel]
    )
    every = config.Init("pretrained", checkpoint=str(tmp_path))
    with pytest.raises(ValueError, match="block9/kernel"):
        init.read(every, model, shapes, list(init.taken(every, model)))
