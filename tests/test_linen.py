"""A linen net without batch norm and without maps, as a transformer is."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bigxfer import tree
from bigxfer.analysis import gradcam
from bigxfer.config import Init
from bigxfer.models import leaves, linen
from bigxfer.protocols import init

SHAPE = (2, 16, 16, 3)


class Patches(nn.Module):
    """Patches of 8 x 8 as vectors, normalised, averaged."""

    @nn.compact
    def __call__(self, images, train, hold):
        del train, hold
        n, h, w, c = images.shape
        x = images.reshape(n, h // 8, 8, w // 8, 8, c).swapaxes(2, 3)
        x = nn.Dense(6, name="embed")(x.reshape(n, -1, 64 * c))
        x = nn.LayerNorm(name="norm")(x)
        out = {"embed": x, "pre_logits": x.mean(1)}
        out["logits"] = linen.Head(3, name="head")(out["pre_logits"])
        return out["logits"], out


@pytest.fixture(scope="module")
def net():
    model = linen.Linen(Patches(), ["embed", "norm", "head"])
    return model, model.init(jax.random.key(0), SHAPE)


def test_a_net_without_batch_norm_keeps_the_contract(net):
    model, variables = net
    assert set(variables) == {"params"}
    images = jax.random.uniform(jax.random.key(1), SHAPE, minval=-1.0)
    for given in (variables, {**variables, "batch_stats": {}}):
        for train in (False, True):
            logits, out = model.apply(given, images, train, {}, ("embed",))
            assert logits.shape == (2, 3) and not np.any(logits)
            assert out["pre_logits"].shape == (2, 6) and "batch_stats" not in out
    grey = model.apply(variables, images[..., :1], False)[1]["pre_logits"]
    same = model.apply(variables, jnp.repeat(images[..., :1], 3, -1), False)[1]
    np.testing.assert_array_equal(grey, same["pre_logits"])


def test_a_norm_named_scale_and_bias_starts_as_the_identity(net, tmp_path):
    """mean_var draws weights; a norm drawn at random would be no norm."""
    model, variables = net
    flat = tree.flatten(variables["params"])
    rng = np.random.default_rng(0)
    source = {n: rng.normal(2, 1, v.shape).astype("f4") for n, v in flat.items()}
    path = tmp_path / "params.npz"
    tree.save_npz(path, tree.unflatten(source))
    cfg = Init("pretrained", how="mean_var", checkpoint=str(path))
    got = tree.flatten(init.start(cfg, model, jax.random.key(3), SHAPE)["params"])
    np.testing.assert_array_equal(got["norm/scale"], 1)
    np.testing.assert_array_equal(got["norm/bias"], 0)
    assert got["embed/kernel"].std() > 0.5 and np.any(got["embed/bias"])


def test_norms_are_told_by_their_names():
    names = ["a/gamma", "a/beta", "b/scale", "b/bias", "c/kernel", "c/bias", "d/mean"]
    want = {"a/gamma", "a/beta", "b/scale", "b/bias", "d/mean", "e/moving_variance"}
    assert leaves.norms([*names, "e/moving_variance"]) == want


def test_a_net_without_maps_has_no_grad_cam(net):
    model, variables = net
    images, classes = np.zeros(SHAPE, "f4"), np.zeros(2, int)
    with pytest.raises(ValueError, match="'embed' has no maps"):
        gradcam.gradcam(model, variables, images, classes, "embed")
