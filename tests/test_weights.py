"""Weights in the namings of BiT and timm, and agreement with timm itself."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from make_run import make_run
from make_timm_golden import CLASSES, NARROW, SHAPES, formula, images
from safetensors.numpy import save_file

from bigxfer import config, models, tree
from bigxfer.models import weights
from bigxfer.protocols import init

GOLDEN = Path(__file__).parent / "golden" / "timm_r50x1.npz"


@pytest.fixture(scope="module")
def params():
    model = models.build(config.Model(blocks=(1, 2), width=0.25), 5)
    params = model.init(jax.random.key(0), (1, 32, 32, 3))["params"]
    flat = tree.flatten(params)
    flat["head/conv2d/kernel"] += 1.0
    return jax.tree.map(np.asarray, tree.unflatten(flat))


def test_bit_file_and_back(tmp_path, params):
    weights.save_bit(tmp_path / "bit.npz", params)
    with np.load(tmp_path / "bit.npz") as arrays:
        assert "resnet/root_block/standardized_conv2d/kernel" in arrays.files
    back = weights.load(tmp_path / "bit.npz", params, keep_head=True)
    assert tree.digest(back) == tree.digest(params)


def test_run_folder_and_shape_structs(tmp_path, params):
    tree.save_npz(tmp_path / "params.npz", params)
    template = jax.eval_shape(lambda: params)
    back = weights.load(tmp_path, template, keep_head=True)
    assert tree.digest(back) == tree.digest(params)


def test_numbered_spelling(tmp_path, params):
    flat = {
        name.replace("standardized_conv2d", f"standardized_conv2d_{i}"): leaf
        for i, (name, leaf) in enumerate(tree.flatten(params).items())
    }
    tree.save_npz(tmp_path / "n.npz", flat)
    back = weights.load(tmp_path / "n.npz", params, keep_head=True)
    assert tree.digest(back) == tree.digest(params)


def test_two_arrays_of_one_name(tmp_path, params):
    name = "root_block/standardized_conv2d/kernel"
    kernel = tree.flatten(params)[name]
    tree.save_npz(tmp_path / "n.npz", {name: kernel, "resnet/" + name: kernel})
    with pytest.raises(ValueError, match="two arrays are named root_block"):
        weights.load(tmp_path / "n.npz", params, keep_head=True)


def test_new_head_stays(tmp_path, params):
    other = tree.flatten(params)
    other["head/conv2d/kernel"] = np.zeros((1, 1, 128, 21), np.float32)
    other["head/conv2d/bias"] = np.zeros(21, np.float32)
    other["root_block/standardized_conv2d/kernel"] = np.ones((7, 7, 3, 16), np.float32)
    tree.save_npz(tmp_path / "up.npz", other)
    got = weights.load(tmp_path / "up.npz", params, keep_head=False)
    np.testing.assert_array_equal(
        got["head"]["conv2d"]["kernel"], params["head"]["conv2d"]["kernel"]
    )
    np.testing.assert_array_equal(
        got["root_block"]["standardized_conv2d"]["kernel"],
        other["root_block/standardized_conv2d/kernel"],
    )


def test_every_mismatch_is_named(tmp_path, params):
    flat = tree.flatten(params)
    flat.pop("block1/unit01/a/group_norm/gamma")
    flat["block9/kernel"] = np.zeros(3)
    flat["group_norm/gamma"] = np.zeros(7)
    tree.save_npz(tmp_path / "bad.npz", flat)
    with pytest.raises(ValueError) as error:
        weights.load(tmp_path / "bad.npz", params, keep_head=True)
    for part in (
        "bad.npz",
        "missing: block1/unit01/a/group_norm/gamma",
        "extra: block9/kernel",
        "shape: group_norm/gamma is (7,)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["no.npz", "no.safetensors"])
def test_no_file(tmp_path, params, name):
    with pytest.raises(FileNotFoundError, match="no such parameter file"):
        weights.load(tmp_path / name, params, keep_head=True)


@pytest.mark.parametrize("name", ["bad.npz", "bad.safetensors"])
def test_damaged_file(tmp_path, params, name):
    (tmp_path / name).write_bytes(b"not what it says")
    with pytest.raises(ValueError, match="not (a )?readable"):
        weights.load(tmp_path / name, params, keep_head=True)


@pytest.mark.parametrize(
    "key", ["square", pytest.param("oblong", marks=pytest.mark.slow)]
)
def test_timm_is_the_same_function(tmp_path, key):
    """Deterministic weights, by way of timm's names and layout, against its outputs."""
    golden = tree.flatten(tree.load_npz(GOLDEN))
    model = models.build(config.Model(), CLASSES)
    template = jax.eval_shape(
        lambda: model.init(jax.random.key(0), (1, 64, 64, 3))["params"]
    )
    shapes = {name: leaf.shape for name, leaf in tree.flatten(template).items()}
    state = {}
    for timm in golden["timm_names"].tolist():
        ours = weights.timm_to_ours(timm)
        array = formula(ours, shapes[ours])
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        state[timm] = np.ascontiguousarray(array)
    save_file(state, tmp_path / "model.safetensors")
    params = weights.load(tmp_path / "model.safetensors", template, keep_head=True)

    # Not in one program: its units are compiled once each, not all sixteen together.
    logits, out = model.apply({"params": params}, images(SHAPES[key]), False)
    want = golden[f"{key}/logits"]
    assert np.abs(logits - want).max() < 1e-4 * np.abs(want).max()
    for end in ("stem", "block1", "block2", "block3", "block4", "pre_logits"):
        value = np.asarray(out[end], np.float64)
        mean, std, top = golden[f"{key}/{end}"]
        assert abs(value.mean() - mean) < 1e-4 * std, end
        assert abs(value.std() - std) < 1e-4 * std, end
        assert abs(np.abs(value).max() - top) < 1e-4 * top, end


@functools.cache
def narrow_net(groups):
    """A net half as wide as R50x1 and its parameters by the formula."""
    cfg = config.Model(blocks=(1, 1, 1, 1), width=0.5, narrow=groups)
    model = models.build(cfg, CLASSES)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), (1, 64, 64, 3)))
    flat = tree.flatten(shapes["params"])
    params = {name: formula(name, leaf.shape) for name, leaf in flat.items()}
    return model, tree.unflatten(params)


@pytest.mark.parametrize("groups", NARROW)
def test_narrow_nets_have_the_groups_that_were_asked_for(groups):
    """Logits of timm's own net with 32 groups everywhere, and with 16 of 32 channels."""
    model, params = narrow_net(groups)
    x = images(SHAPES["square"])
    logits = jax.jit(lambda x: model.apply({"params": params}, x, False)[0])(x)
    golden = np.load(GOLDEN.with_name("timm_narrow.npz"))
    top = np.abs(golden[groups]).max()
    assert np.abs(logits - golden[groups]).max() < 1e-4 * top
    assert np.abs(golden["same"] - golden["fewer"]).max() > 0.2 * top


@pytest.mark.parametrize("naming", ["timm", "BiT"])
def test_a_file_of_a_narrow_net_needs_a_word_on_its_groups(tmp_path, naming):
    _, params = narrow_net("")
    path = tmp_path / ("net.safetensors" if naming == "timm" else "net.npz")
    if naming == "timm":
        state = weights.to_timm(params)
        save_file({n: np.ascontiguousarray(x) for n, x in state.items()}, path)
    else:
        weights.save_bit(path, params)

    def start(groups, upto=""):
        model, _ = narrow_net(groups)
        cfg = config.Init("pretrained", checkpoint=str(path), upto=upto)
        return init.start(cfg, model, jax.random.key(0), (1, 64, 64, 3))

    for upto in ("", "block1"):
        with pytest.raises(config.ConfigError) as error:
            start("", upto)
        message = str(error.value)
        assert path.name in message and "16 groups at 32 channels" in message
        assert "narrow=same" in message and "narrow=fewer" in message
    for groups in ("same", "fewer"):
        got = tree.flatten(start(groups)["params"])
        for name, leaf in tree.flatten(params).items():
            if not name.startswith("head/"):
                np.testing.assert_array_equal(got[name], leaf)


def test_a_run_folder_says_its_groups(tmp_path):
    """A run with 16 groups everywhere is no start for a net with 32 where they fit."""
    folder = make_run(tmp_path / "run", "R1-1x0.5", model__groups=16)

    def start(**kw):
        model = models.build(config.Model(blocks=(1, 1), width=0.5, **kw), 3)
        cfg = config.Init("pretrained", checkpoint=str(folder / "params.npz"))
        return init.start(cfg, model, jax.random.key(0), (1, 32, 32, 3))

    start(groups=16)
    with pytest.raises(config.ConfigError, match="norms of 16 groups at 32 channels"):
        start()
    for name in ("config.json", "result.json"):
        (folder / name).unlink()
    with pytest.raises(config.ConfigError, match="does not say"):
        start()


def test_timm_unknown_name(tmp_path, params):
    flat = {"stem.conv.weight": np.zeros((16, 3, 7, 7)), "fc.weight": np.zeros(3)}
    tree.save_npz(tmp_path / "t.npz", flat)
    with pytest.raises(ValueError, match=r"fc\.weight is no parameter of a timm"):
        weights.load(tmp_path / "t.npz", params, keep_head=True)
