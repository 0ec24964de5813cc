import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_analysis_gradcam import made

from bigxfer import tree
from bigxfer.analysis import movement
from bigxfer.models import leaves


def params(seed):
    rng = np.random.default_rng(seed)
    flat = {
        "block1/conv/kernel": rng.normal(size=(3, 3, 3, 4)),
        "block1/conv/bias": rng.normal(size=4),
        "block1/batch_norm/scale": rng.normal(size=4),
        "block2/group_norm/gamma": rng.normal(size=4),
        "head/kernel": rng.normal(size=(4, 2)) * seed,
    }
    return tree.unflatten(flat)


def test_distances_are_norms_without_normalisation():
    """The head of params(0) is zero; block2 has normalisation alone."""
    old, new = params(0), params(1)
    rows = movement.distances(old, new, ["block1", "block2", "head"])
    assert [row["layer"] for row in rows] == ["block1", "head"]
    a, b = (p["block1"]["conv"] for p in (old, new))
    kernel, bias = ((b[n] - a[n]).ravel().tolist() for n in ("kernel", "bias"))
    want = sum(x * x for x in kernel + bias) ** 0.5
    start = sum(x * x for n in a for x in a[n].ravel().tolist()) ** 0.5
    found = rows[0]
    assert found["l2"] == pytest.approx(want)
    assert found["relative"] == pytest.approx(want / start)
    each = [sum(x * x for x in v) ** 0.5 / len(v) for v in (kernel, bias)]
    assert found["l2_per_weight"] == pytest.approx(sum(each) / 2)
    assert found["weights"] == 3 * 3 * 3 * 4 + 4 and abs(found["cosine"]) < 0.5
    assert np.isnan(rows[1]["relative"]) and rows[1]["l2"] > 0
    assert movement.distances(old, old, ["block1"])[0]["l2"] == 0


def test_put_back_changes_the_layer_and_no_other():
    old, new = params(0), params(1)
    found = tree.flatten(movement.put_back(old, new, "block1"))
    for name, leaf in found.items():
        source = old if name.startswith("block1/") else new
        np.testing.assert_array_equal(leaf, tree.flatten(source)[name])


@pytest.mark.parametrize("name", ["cbr_tiny", "smallcnn"])
def test_new_averages_are_those_of_the_batch(name):
    """On the very images, evaluation is then what training would have computed."""
    model, variables, images = made(name)
    averaged = movement.averager(model)(variables, jnp.asarray(images))
    key = {"dropout": jax.random.key(1)}
    judge = jax.jit(lambda v: model.apply(v, images, False)[1])
    trained = jax.jit(lambda v: model.apply(v, images, True, key)[1])(variables)
    judged, before = judge(averaged), judge(variables)
    for layer in ("block1", "block4"):
        np.testing.assert_allclose(judged[layer], trained[layer], rtol=0.01, atol=2e-3)
    assert abs(before["block4"] - trained["block4"]).max() > 0.1


def test_without_batch_norm_there_is_nothing_to_average():
    model, variables, images = made("bit")
    assert movement.averager(model)(variables, images) is variables


def test_blocks():
    keras = [
        "conv1_conv",
        "conv2_block1_1_conv",
        "conv2_block1_2_bn",
        "conv2_block10_a",
    ]
    assert movement.blocks(keras) == {
        "conv1_conv": keras[:1],
        "conv2_block1": keras[1:3],
        "conv2_block10": keras[3:],
    }
    assert list(movement.blocks(["mixed1/conv2d_5", "mixed10/a"])) == [
        "mixed1",
        "mixed10",
    ]
    bit = ["root_block", "block1/unit01", "block1/unit02", "head"]
    assert list(movement.blocks(bit)) == bit


def test_filters_lie_in_a_square():
    kernel = np.zeros((2, 2, 3, 5))
    kernel[0, 1, 2, 1] = -4.0  # of the second filter
    found = movement.mosaic(kernel)
    assert found.shape == (5, 8, 3)  # two rows of three, with lines between
    assert (found[0, 4] == [0.5, 0.5, 0]).all() and (found[2] == 1).all()
    assert (found[3, 6:] == 1).all()  # no sixth filter
    name, leaf = leaves.first_kernel(params(1), ["block1", "head"])
    assert name == "block1/conv/kernel" and leaf.shape == (3, 3, 3, 4)
    with pytest.raises(ValueError, match="three channels"):
        leaves.first_kernel(params(1), ["head"])
