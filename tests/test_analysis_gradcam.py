import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_split import manifest

from bigxfer import config, models, tree
from bigxfer.analysis import gradcam, pointing
from bigxfer.config import Phantom
from bigxfer.data import readers
from bigxfer.data.phantom import write
from bigxfer.models import parts

NETS = {
    "bit": config.Model(blocks=(1, 1), width=0.25, groups=4),
    "cbr_tiny": config.Model(name="cbr_tiny", width=0.25),
    "smallcnn": config.Model(name="smallcnn", width=0.25, hidden=16),
}


@functools.cache
def made(name, side=32):
    """(model, variables with a head that is not zero, images), once for all tests."""
    model = models.build(NETS[name], 3)
    key = jax.random.key(0)
    variables = model.init(key, (1, side, side, 3))
    flat = tree.flatten(variables["params"])
    rng = np.random.default_rng(0)
    for leaf in flat:
        if leaf.startswith("head/") and leaf.endswith("kernel"):
            flat[leaf] = jnp.asarray(rng.normal(size=flat[leaf].shape), "float32")
    images = rng.uniform(-1, 1, (4, side, side, 3)).astype("float32")
    return model, {**variables, "params": tree.unflatten(flat)}, images


def block2(model, variables, images):
    """(logits, maps of block2) by the net itself, compiled as one program."""

    @jax.jit
    def forward(variables, images):
        logits, out = model.apply(variables, images, train=False)
        return logits, out["block2"]

    return forward(variables, images)


@pytest.mark.parametrize("name", NETS)
def test_the_net_from_an_endpoint_on_is_the_net(name):
    model, variables, images = made(name)
    logits, maps = block2(model, variables, images)

    @jax.jit  # as `explainer` has it; else each operation is a program of its own
    def replayed(variables, images):
        onward, value = gradcam.from_endpoint(model, variables, images, "block2")
        return value, onward(value), onward(value**2)

    value, same, other = replayed(variables, images)
    np.testing.assert_allclose(value, maps, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(same, logits, rtol=1e-5, atol=1e-5)
    assert abs(other - logits).max() > 1e-3


def test_gradients_equal_those_of_the_net_written_out():
    """BiT after its last block: norm, ReLU, mean, head."""
    model, variables, images = made("bit")
    _, value = block2(model, variables, images)
    p = variables["params"]

    def tail(x):
        norm = p["group_norm"]
        x = parts.group_norm_relu(x, norm["gamma"], norm["beta"], 4).mean((1, 2))
        return x @ p["head"]["conv2d"]["kernel"][0, 0] + p["head"]["conv2d"]["bias"]

    def replayed(x):
        onward, _ = gradcam.from_endpoint(model, variables, images, "block2")
        return onward(x)

    want, found = (
        jax.jit(jax.grad(lambda x, f=f: f(x)[:, 1].sum()))(value)
        for f in (tail, replayed)
    )
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)


def test_gradcam_is_the_papers_formula():
    """By a head on pooled maps the channel weights are known: the head's own."""
    kernel = np.array([[1.0, -1], [0.5, 2], [-3, 0]], "float32")

    class Toy:
        head = "head/.*"

        def apply(self, variables, images, train, rngs=None, hold=()):
            maps = jax.image.resize(images, (len(images), 4, 4, 3), "linear") ** 2
            pooled = maps.mean((1, 2))
            logits = pooled @ variables["params"]["head"]["kernel"]
            return logits, {"maps": maps, "pre_logits": pooled}

    images = np.random.default_rng(0).uniform(-1, 1, (40, 8, 8, 3)).astype("float32")
    classes = np.arange(40) % 2
    variables = {"params": {"head": {"kernel": kernel}}}
    found = gradcam.gradcam(Toy(), variables, images, classes, "maps")
    assert found.shape == (40, 8, 8) and found.dtype == np.float32
    maps = np.asarray(Toy().apply(variables, images, False)[1]["maps"])
    cam = np.maximum(np.einsum("nhwc,cn->nhw", maps, kernel[:, classes]), 0)
    cam = np.asarray(jax.image.resize(cam, (40, 8, 8), "linear"))
    want = cam / np.maximum(cam.max((1, 2), keepdims=True), 1e-20)
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert found.min() >= 0 and found.max() == 1


def test_gradcam_after_the_last_norm_is_cam_by_numpy():
    """A BiT net's last norm, ReLU, mean and head written out in numpy (1512.04150)."""
    model, variables, images = made("bit")
    assert gradcam.deepest(model, variables, images.shape) == "group_norm"
    classes = np.array([0, 1, 2, 1])
    found = gradcam.gradcam(model, variables, images, classes, "group_norm")
    p = variables["params"]
    x = np.asarray(block2(model, variables, images)[1], float)
    n, h, w, c = x.shape
    groups = x.reshape(n, h, w, 4, c // 4)  # of made's groups=4
    mean = groups.mean((1, 2, 4), keepdims=True)
    spread = np.sqrt(groups.var((1, 2, 4), keepdims=True) + 1e-5)
    norm = ((groups - mean) / spread).reshape(x.shape)
    maps = np.maximum(norm * p["group_norm"]["gamma"] + p["group_norm"]["beta"], 0)
    weights = np.asarray(p["head"]["conv2d"]["kernel"])[0, 0][:, classes]
    cam = np.maximum(np.einsum("nhwc,cn->nhw", maps, weights), 0)
    places = (np.arange(32) + 0.5) * h / 32 - 0.5  # linear, pixel centres, edges held
    low = np.clip(np.floor(places), 0, h - 1).astype(int)
    high, share = np.minimum(low + 1, h - 1), np.clip(places - low, 0, 1)
    rows = cam[:, low] * (1 - share)[:, None] + cam[:, high] * share[:, None]
    want = rows[..., low] * (1 - share) + rows[..., high] * share
    want /= np.maximum(want.max((1, 2), keepdims=True), 1e-20)
    np.testing.assert_allclose(found, want, atol=2e-4)


def test_gradcam_is_pairs_library_on_slopes_by_finite_differences():
    """`saliency`'s GradCam, which gets the maps and the slopes from its caller."""
    pair = pytest.importorskip("saliency.core")
    model, variables, images = made("bit", side=16)
    maps = np.asarray(block2(model, variables, images[:1])[1])
    many, step = np.repeat(images[:1], maps.size, 0), 1e-2

    @jax.jit
    def onward(maps):
        return gradcam.from_endpoint(model, variables, many, "block2")[0](maps)

    three = np.repeat(images[:1], 3, 0)
    found = gradcam.gradcam(model, variables, three, np.arange(3), "block2")
    label = found.mean((1, 2)).argmax()  # of another class the map may be flat
    moved = step * np.eye(maps.size, dtype="float32").reshape(-1, *maps.shape[1:])
    up, down = (np.asarray(onward(maps + s * moved))[:, label] for s in (1, -1))
    slopes = ((up - down) / (2 * step)).reshape(maps.shape)

    def call(images, call_model_args, expected_keys):
        values, gradients = expected_keys
        return {values: maps, gradients: slopes}

    mask = pair.GradCam().GetMask(
        images[0], call, should_resize=False, three_dims=False
    )
    mask = np.asarray(jax.image.resize(mask, (16, 16), "linear"))
    np.testing.assert_allclose(found[label], mask / mask.max(), atol=0.01)


def test_gradcam_errors():
    model, variables, images = made("smallcnn")
    classes = np.zeros(4, int)
    with pytest.raises(ValueError, match="no endpoint 'block9'; the model has"):
        gradcam.gradcam(model, variables, images, classes, "block9")
    with pytest.raises(ValueError, match="'pre_logits' has no maps"):
        gradcam.gradcam(model, variables, images, classes, "pre_logits")
    with pytest.raises(ValueError, match=r"\(3,\)"):
        gradcam.gradcam(model, variables, images, classes[:3], "block4")


def test_a_net_that_says_nothing_has_flat_maps():
    model, variables, images = made("bit")
    flat = tree.flatten(variables["params"])
    flat["head/conv2d/kernel"] = jnp.zeros_like(flat["head/conv2d/kernel"])
    silent = {"params": tree.unflatten(flat)}
    found = gradcam.gradcam(model, silent, images, np.zeros(4, int), "block2")
    assert (found == 0).all()


def test_shuffling_permutes_the_named_layers_alone():
    _, variables, _ = made("cbr_tiny")
    found = tree.flatten(gradcam.shuffled(variables, ["block4", "head"])["params"])
    for name, before in tree.flatten(variables["params"]).items():
        after, before = np.asarray(found[name]), np.asarray(before)
        np.testing.assert_allclose(np.sort(after.ravel()), np.sort(before.ravel()))
        same = np.array_equal(after, before)
        assert same == (not name.startswith(("block4/conv", "head/"))) or (
            np.ptp(before) == 0  # all one value: nothing to permute
        )


def test_sanity_falls_from_the_head_down(monkeypatch):
    monkeypatch.setattr(
        gradcam, "BATCH", 4
    )  # as many as there are; else 28 are padding
    model, variables, images = made("cbr_tiny")
    explain = gradcam.explainer(model, "block4")
    found = gradcam.sanity(explain, model, variables, images, np.zeros(4, int), 2)
    blocks = ["head", "block4", "block3", "block2", "block1"]
    assert list(found) == [*blocks, gradcam.ANOTHER]
    assert all(np.isnan(v) or -1 <= v < 0.95 for v in found.values())


def test_sanity_tells_maps_of_the_net_from_maps_of_the_image():
    """One explanation is the image itself; the other is a cell that the weights choose."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (16, 8, 8, 3)).astype("float32")
    kernel = rng.normal(size=(8, 64)).astype("float32")

    class Net:
        head = "head/.*"

        def layers(self):
            return ["body", "head"]

    weights = {"body": {"kernel": kernel}, "head": {"kernel": kernel[:, :3]}}
    variables, classes = {"params": weights}, np.zeros(16, int)

    def of_image(variables, images, classes):
        return images[..., 0]

    def of_net(variables, images, classes):
        body = np.asarray(variables["params"]["body"]["kernel"])
        return np.repeat(body.mean(0).reshape(1, 8, 8), len(images), 0)

    found = gradcam.sanity(of_image, Net(), variables, images, classes, 3)
    assert found["head"] == found["body"] == pytest.approx(1)
    assert abs(found[gradcam.ANOTHER]) < 0.1
    found = gradcam.sanity(of_net, Net(), variables, images, classes, 3)
    assert found["head"] == pytest.approx(1) and abs(found["body"]) < 0.3
    assert found[gradcam.ANOTHER] == pytest.approx(1)


def test_a_balanced_head_sees_something_where_a_negative_one_sees_nothing():
    model, variables, images = made("bit")
    flat = tree.flatten(variables["params"])
    kernel = flat["head/conv2d/kernel"]
    flat["head/conv2d/kernel"] = kernel - 1 - kernel.max()
    against = {"params": tree.unflatten(flat)}
    explain, classes = gradcam.explainer(model, "group_norm"), np.zeros(4, int)
    assert np.ptp(explain(against, images, classes)) == 0
    mended = gradcam.balanced(against, model.head)
    assert (np.ptp(explain(mended, images, classes), axis=(1, 2)) > 0).all()
    weights = np.asarray(mended["params"]["head"]["conv2d"]["kernel"])
    np.testing.assert_allclose(weights.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(weights, kernel - kernel.mean((0, 1, 2)), atol=1e-5)


def test_smoothgrad_finds_the_pixels_that_count():
    pytest.importorskip("saliency")

    class Toy:
        def apply(self, variables, images, train, rngs=None, hold=()):
            score = (images[:, 2:4, 5:7] * variables["w"]).sum((1, 2, 3))
            return jnp.stack([score, -score], 1), {}

    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype("float32")
    explain = gradcam.smoothgrad(Toy(), 3)
    found = explain({"w": 2.0}, images, np.array([0, 1]))
    want = np.zeros((8, 8))
    want[2:4, 5:7] = 1
    np.testing.assert_allclose(found, np.stack([want, want]), atol=1e-5)


def test_smoothgrad_is_the_mean_square_of_gradients_on_noisy_copies():
    """Of a net whose gradient depends on the image, by the library's own constants."""
    pytest.importorskip("saliency")
    model, variables, images = made("cbr_tiny")
    explain = gradcam.smoothgrad(model, 2)
    found = explain(variables, images[:2], np.array([0, 1]))
    again = explain(variables, images[:2], np.array([0, 1]))
    np.testing.assert_array_equal(found, again)  # the noise is the same every time
    rng = np.random.RandomState(0)

    @jax.jit
    @jax.grad
    def slope(x, label):
        return model.apply(variables, x[None], train=False)[0][0, label]

    for image, label, mask in zip(images[:2], (0, 1), found, strict=True):
        noise = [rng.normal(0, 0.15 * np.ptp(image), image.shape) for _ in range(2)]

        slopes = [slope(jnp.asarray(image + n, "float32"), label) for n in noise]
        want = np.mean([np.asarray(s) ** 2 for s in slopes], axis=0)
        want = abs(want).sum(axis=-1)
        top, low = np.percentile(want, 99), want.min()
        want = np.clip((want - low) / (top - low), 0, 1)
        np.testing.assert_allclose(mask, want, atol=1e-3)


def test_hits_share_ties():
    truth = np.zeros((3, 4, 4), bool)
    truth[:, :2, :2] = True
    maps = np.zeros((3, 4, 4))
    maps[1, 1, 1], maps[2, 3, 3] = 1, 1
    np.testing.assert_allclose(pointing.hits(maps, truth), [0.25, 1, 0])


def test_the_box_prior_leaves_the_patient_out():
    truth = np.zeros((4, 2, 2), bool)
    truth[0, 0, 0] = truth[1, 0, 1] = truth[2, 1, 1] = truth[3, 1, 0] = True
    labels, patients = np.array([0, 0, 0, 1]), np.array(["a", "a", "b", "c"])
    prior = pointing.box_prior(labels, patients, truth, labels, patients)
    np.testing.assert_array_equal(prior[0], truth[2])
    np.testing.assert_array_equal(prior[2], truth[0].astype(int) + truth[1])
    np.testing.assert_array_equal(prior[3], 0)
    assert pointing.hits(prior, truth)[3] == 0.25  # flat: chance


def test_a_box_covers_its_pixels():
    box = pointing.Box(0, 0, 0.25, 0.5, 0.75, 1.0)
    want = np.zeros((4, 4), bool)
    want[2:, 1:3] = True
    np.testing.assert_array_equal(box.mask(4), want)
    assert pointing.Box(0, 0, 0.5, 0.5, 0.501, 0.501).mask(4).sum() == 1
    want[1:, :] = True  # a pixel wider
    np.testing.assert_array_equal(box.mask(4, 0.25), want)


def test_boxes_of_the_phantom_are_of_its_labels(tmp_path):
    """Every box is of a class that its image is labelled with, and inside it."""
    root = write.write("nih", tmp_path / "p", Phantom(images=20, pixels=24))
    part = readers.read(config.Data(reader="nih", root=str(root), views=()))
    found = pointing.boxes(part)
    assert len(found) > 60
    names = np.array(part.classes)
    for box in found:
        assert part.labels[box.row, box.label] == 1, names[box.label]
        assert 0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1
    assert len({box.label for box in found}) > 8


def test_boxes_of_nih(tmp_path):
    part = manifest([1, 2], [[1, 0], [0, 1]])
    object.__setattr__(part, "root", str(tmp_path))
    object.__setattr__(part, "classes", ("Mass", "Infiltration"))
    object.__setattr__(part, "path", np.array(["images/a.png", "images/b.png"], "O"))
    assert pointing.boxes(part) == []
    file = tmp_path / "BBox_List_2017.csv"
    head = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    file.write_text(head + "b.png,Infiltrate,256,512,128,256,,,\nc.png,Mass,1,1,1,1\n")
    (box,) = pointing.boxes(part)
    assert box == pointing.Box(1, 1, 0.25, 0.5, 0.375, 0.75)
    file.write_text(head + "b.png,Mass,256,x,128,256\n")
    with pytest.raises(ValueError, match="BBox_List_2017.csv, line 2: could not"):
        pointing.boxes(part)


def test_pointing_pairs_the_comparison():
    rng = np.random.default_rng(0)
    good, bad = (rng.random(200) < 0.7) * 1.0, np.full(200, 0.3)
    patients = np.arange(200).astype(str)
    found = pointing.pointing({"net": good, "chance": bad}, patients)
    assert found["net"]["low"] < good.mean() < found["net"]["high"]
    assert found["above/chance"]["low"] > 0.2
    assert np.isnan(found["chance"]["low"])  # of one share for all, no interval
    sure = pointing.pointing({"net": np.ones(6), "other": np.ones(6)}, patients[:6])
    assert sure["net"]["high"] == 1 and 0.5 < sure["net"]["low"] < 0.9
    # two of six more or less: they may differ on a patient who is not among the six
    assert sure["above/other"]["high"] == -sure["above/other"]["low"] > 0.3
    few = pointing.pointing({"net": np.ones(4), "other": np.ones(4)}, patients[:4])
    assert np.isnan([few["net"]["low"], few["above/other"]["low"]]).all()
