"""The Keras nets: published sizes, Keras's own numbers, its files, sharding.

The reference is Keras itself, called in the ordinary way: a net with its classifier,
its own variables, `predict` and `preprocess_input`.
"""

import importlib
import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bigxfer import config, models, tree
from bigxfer.models import keras_zoo

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="keras is not installed"
)
os.environ.setdefault("KERAS_BACKEND", "jax")
PUBLISHED = {  # with 1000 classes and the moving averages: keras.io, and S004's slide
    "inception_v3": 23_851_784,
    "resnet50": 25_636_712,
    "resnet50_v2": 25_613_800,
    "densenet121": 8_062_504,
    "mobilenet": 4_253_864,
    "mobilenet_v2": 3_538_984,
}
LAYERS = {"inception_v3": 311, "resnet50_v2": 190, "densenet121": 427, "mobilenet": 86}


def build(name, classes=5, **kw):
    return models.build(config.Model(name, **kw), classes)


@pytest.mark.parametrize("name", keras_zoo.NETS)
def test_sizes_are_the_published_ones(name):
    model = build(name, 1000)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), (1, 96, 96, 3)))
    assert (
        tree.count(shapes["params"]) + tree.count(shapes["batch_stats"])
        == (PUBLISHED[name])
    )
    assert len(model.every) == LAYERS.get(name, len(model.every))


def first(model, seed=0):
    """Its first variables, by one program: each leaf's own take longer to compile."""
    return jax.jit(model.init, static_argnums=1)(jax.random.key(seed), (1, 96, 96, 3))


def random_variables(model, seed=0):
    """Every number drawn, so that none can be mistaken for another's default."""
    rng = np.random.default_rng(seed)
    flat = tree.flatten(first(model, seed))
    for name, leaf in flat.items():
        if not name.endswith("kernel") or "head" in name:
            flat[name] = leaf + rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32)
    return tree.unflatten(flat)


def ordinary(name, variables):
    """Keras's own net with these weights, made and filled as its users do."""
    keras = keras_zoo.keras()
    net = getattr(keras.applications, keras_zoo.NETS[name].maker)(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    names = keras_zoo.canonical([layer.name for layer in net.layers])
    if name == "inception_v3":
        names = keras_zoo.by_block(names)
    flat = {
        **tree.flatten(variables["params"]),
        **tree.flatten(variables["batch_stats"]),
    }
    for layer_name, layer in zip(names, net.layers):
        if layer.variables:
            layer.set_weights([flat[f"{layer_name}/{v.name}"] for v in layer.variables])
    return net


@pytest.mark.slow
@pytest.mark.parametrize("name", keras_zoo.NETS)
def test_outputs_and_statistics_are_kerass_own(name):
    model = build(name)
    variables = random_variables(model)
    net = ordinary(name, variables)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 96, 97, 3)).astype("f")
    prepared = keras_zoo.preprocess(images, model.net.pixels)

    _, out = jax.jit(lambda v, x: model.apply(v, x, False))(variables, images)
    features = np.asarray(jax.jit(lambda x: net(x, training=False))(prepared))
    want = features.mean((1, 2))
    scale = np.abs(want).max()
    np.testing.assert_allclose(out["pre_logits"], want, atol=1e-5 * scale)
    dense = variables["params"]["head"]["dense"]
    np.testing.assert_allclose(
        out["logits"],
        want @ dense["kernel"] + dense["bias"],
        atol=1e-5 * float(np.abs(out["logits"]).max()),
    )

    _, out = jax.jit(lambda v, x: model.apply(v, x, True))(variables, images)
    trained = [v.value for v in net.trainable_variables]
    others = [v.value for v in net.non_trainable_variables]
    _, new = jax.jit(lambda a, b, x: net.stateless_call(a, b, x, training=True))(
        trained, others, prepared
    )
    want = {id(v): x for v, x in zip(net.non_trainable_variables, new)}
    got, theirs = tree.flatten(out["batch_stats"]), model.variables(net, model.every)
    assert len(got) == len(new) == sum(n.endswith(keras_zoo.STATS) for n in theirs)
    for leaf, value in got.items():  # rounding grows through the small batch's norms
        np.testing.assert_allclose(
            value, want[id(theirs[leaf])], rtol=1e-3, atol=2e-4, err_msg=leaf
        )


@pytest.mark.parametrize("name", keras_zoo.NETS)
def test_pixels_are_those_of_kerass_preprocess_input(name):
    keras = keras_zoo.keras()
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype("f")
    mode = keras_zoo.NETS[name].pixels
    modules = {
        "resnet50": "resnet50",
        "resnet50_v2": "resnet_v2",
        "densenet121": "densenet",
    }
    module = getattr(keras.applications, modules.get(name, name))
    want = module.preprocess_input(images.copy())
    got = keras_zoo.preprocess(jnp.asarray(images / 127.5 - 1), mode)
    np.testing.assert_allclose(got, want, atol=2e-4 if mode == "caffe" else 1e-5)


def test_random_kernels_are_kerass_glorot_uniform():
    """The same bound and deviation as Keras's initializer, depthwise kernels too."""
    keras = keras_zoo.keras()
    model = build("mobilenet")
    flat = tree.flatten(first(model)["params"])
    for name in ("conv_pw_11/kernel", "conv_dw_12/kernel", "conv1/kernel"):
        kernel = np.asarray(flat[name])
        theirs = np.asarray(keras.initializers.GlorotUniform(0)(kernel.shape))
        assert kernel.std() == pytest.approx(theirs.std(), rel=0.1)
        assert np.abs(kernel).max() == pytest.approx(np.abs(theirs).max(), rel=0.03)
    assert (flat["conv_pw_11_bn/gamma"] == 1).all()
    assert not flat["conv_pw_11_bn/beta"].any()


def filled(name, variables, head=None):
    """Keras's own net with these weights; `head`: with a classifier of its own kind."""
    keras = keras_zoo.keras()
    net = ordinary(name, variables)
    if head == "beside":  # as CheXNet-Keras has it
        x = keras.layers.GlobalAveragePooling2D()(net.output)
        return keras.Model(net.input, keras.layers.Dense(14, name="findings")(x))
    if head == "around":
        pool, dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(14)
        return keras.Sequential([net, pool, dense])
    return net


def check_loaded(model, variables, path):
    found = model.load(path)
    for part in ("params", "batch_stats"):
        got, want = tree.flatten(found[part]), tree.flatten(variables[part])
        assert set(got) == set(want)
        for name, value in got.items():
            expected = 0 * want[name] if name.startswith("head/") else want[name]
            np.testing.assert_array_equal(value, expected, err_msg=name)


ARRAYS = pytest.mark.filterwarnings("ignore:__array__ implementation")  # keras 3.15
ENDS = (".weights.h5", ".h5", ".keras")  # Keras 3's, Keras 2's, the archive


@pytest.fixture(scope="module")
def mobilenet():
    """(model, variables, Keras's net with a head of 14 classes)."""
    model = build("mobilenet")
    variables = random_variables(model, seed=3)
    return model, variables, filled("mobilenet", variables, "beside")


@ARRAYS
def test_weights_come_from_kerass_file(tmp_path, mobilenet, caplog):
    model, variables, _ = mobilenet
    path = str(tmp_path / "net.weights.h5")
    filled("mobilenet", variables).save_weights(path)
    with caplog.at_level("INFO", "bigxfer"):
        check_loaded(model, variables, path)
    assert not caplog.text
    with pytest.raises(ValueError, match=r"applications.MobileNetV2\(include_top"):
        build("mobilenet_v2").load(path)
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        model.load(str(tmp_path / "none.weights.h5"))


@ARRAYS
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("end", ENDS)
def test_the_head_of_a_file_is_left_out_and_said_to_be(
    tmp_path, mobilenet, caplog, end
):
    """A head of other classes than ours, in every format."""
    model, variables, net = mobilenet
    path = str(tmp_path / f"net{end}")
    (net.save_weights if end == ".weights.h5" else net.save)(path)
    with caplog.at_level("INFO", "bigxfer"):
        check_loaded(model, variables, path)
    assert f"{path}: the backbone is taken, 1 layers above it are not" in caplog.text


@ARRAYS
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_an_old_file_has_its_names_in_bytes(tmp_path, mobilenet):
    """As Keras 2 wrote them, the weights alone and not within model_weights."""
    h5py = pytest.importorskip("h5py")
    model, variables, net = mobilenet
    net.save(tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5") as new, h5py.File(tmp_path / "o.h5", "w") as o:
        for layer in new["model_weights"]:
            new.copy(f"model_weights/{layer}", o)
        layers = new["model_weights"].attrs["layer_names"]
        o.attrs["layer_names"] = [str(n).encode() for n in layers]
        for layer in layers:
            names = o[layer].attrs["weight_names"]
            o[layer].attrs["weight_names"] = [str(n).encode() for n in names]
    check_loaded(model, variables, str(tmp_path / "o.h5"))


@ARRAYS
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("end", ENDS)
def test_a_file_of_another_net_is_refused(tmp_path, mobilenet, end):
    """One that holds the backbone as a single layer, and one with other shapes."""
    model, variables, _ = mobilenet
    net = filled("mobilenet", variables, "around")
    path = str(tmp_path / f"net{end}")
    (net.save_weights if end == ".weights.h5" else net.save)(path)
    with pytest.raises(ValueError, match=r"by net.layers\[i\].save_weights"):
        model.load(path)
    if end == ".h5":
        half = keras_zoo.keras().applications.MobileNet(
            include_top=False, weights=None, alpha=0.5, input_shape=(64, 64, 3)
        )
        half.save(path)
        with pytest.raises(ValueError, match=r"its layer conv1 is .*, not .* as conv1"):
            model.load(path)


@ARRAYS
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("name", [n for n in keras_zoo.NETS if n != "mobilenet"])
def test_old_files_with_a_head_for_every_net(tmp_path, name):
    model = build(name)
    variables = random_variables(model, seed=4)
    path = str(tmp_path / "net.h5")
    filled(name, variables, "beside").save(path)
    check_loaded(model, variables, path)


def test_no_download_says_what_to_do(monkeypatch):
    """As on a machine without network."""
    keras_zoo.keras()

    def fail(*args, **kw):
        raise OSError("URL fetch failure on https://...: None")

    module = importlib.import_module("keras.src.applications.mobilenet")
    monkeypatch.setattr(module.file_utils, "get_file", fail)
    with pytest.raises(ValueError, match="URL fetch failure[^$]*save_weights"):
        build("mobilenet").load("imagenet")


def test_another_backend_is_refused(monkeypatch):
    keras = keras_zoo.keras()
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ImportError, match="set KERAS_BACKEND=jax"):
        keras_zoo.keras()


def test_keras_keeps_its_own_shape():
    for change in ({"width": 2.0}, {"slim_above": "mixed0"}, {"remat": True}):
        with pytest.raises(config.ConfigError, match="comes as Keras has it"):
            build("mobilenet", **change)


def test_names_do_not_depend_on_what_was_built_before():
    first, second = build("inception_v3"), build("inception_v3")
    assert first.layers() == second.layers()
    assert first.layers()[0] == "stem/conv2d"
    blocks = list(dict.fromkeys(n.split("/")[0] for n in first.layers()))
    assert blocks == ["stem", *(f"mixed{i}" for i in range(11)), "head"]
    assert "mixed10/conv2d_93" in first.layers()


def initial(model):
    """The shapes of its variables: their numbers need a program each."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), (1, 64, 64, 3)))


def test_small_images_are_refused():
    model = build("mobilenet")
    variables = initial(model)
    with pytest.raises(ValueError, match="too small for MobileNet"):
        jax.eval_shape(
            lambda v: model.apply(v, jnp.zeros((1, 20, 20, 3)), True)[0], variables
        )


@pytest.mark.slow
def test_statistics_and_gradients_on_eight_devices():
    """Batch norm over a batch that is spread: over all of it, not over each share."""
    model = build("mobilenet")
    variables = model.init(jax.random.key(0), (1, 64, 64, 3))
    head = variables["params"]["head"]["dense"]
    head["kernel"] = jax.random.normal(jax.random.key(2), head["kernel"].shape)
    images = jax.random.uniform(jax.random.key(1), (16, 64, 64, 3), minval=-1)

    @jax.jit
    def step(params, images):
        def loss(params):
            logits, out = model.apply({**variables, "params": params}, images, True)
            return (logits**2).mean(), out["batch_stats"]

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, stats), grads = step(variables["params"], images)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    (loss8, stats8), grads8 = step(variables["params"], spread)
    np.testing.assert_allclose(loss8, loss, rtol=1e-4)
    # float32 gradients through 27 batch norms agree to some percent; batch norm over
    # each device's two images would be another function
    for most, want, got in ((1e-3, stats, stats8), (0.05, grads, grads8)):
        got = tree.flatten(got)
        for name, value in tree.flatten(want).items():
            off = jnp.linalg.norm(got[name] - value)
            assert off <= most * jnp.linalg.norm(value), name


def test_bfloat16_computes_in_half_and_keeps_parameters_whole():
    keras = keras_zoo.keras()
    before = keras.config.dtype_policy()
    model = build("mobilenet", dtype="bfloat16")
    assert keras.config.dtype_policy() == before
    variables = initial(model)
    assert {v.dtype for v in tree.flatten(variables).values()} == {jnp.dtype("float32")}
    shapes = jax.eval_shape(
        lambda v: model.apply(v, jnp.zeros((1, 64, 64, 3)), True)[1], variables
    )
    assert shapes["conv_pw_3_relu"].dtype == jnp.bfloat16
    assert shapes["logits"].dtype == shapes["pre_logits"].dtype == jnp.float32
    stats = tree.flatten(shapes["batch_stats"]).values()
    assert {v.dtype for v in stats} == {jnp.dtype("float32")}
