import numpy as np
import pytest
from test_split import manifest

from bigxfer.analysis import embedding
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import metrics


def drawn(n=240, leak=0.0, seed=0):
    """Features of two classes, and of two sources where `leak` is above 0."""
    rng = np.random.default_rng(seed)
    labels, source = rng.integers(0, 2, n), rng.integers(0, 2, n)
    features = rng.normal(size=(n, 8))
    features[:, 0] += 3 * labels
    features[:, 1] += leak * source
    part = manifest(np.arange(n), labels)
    object.__setattr__(part, "source", np.array(["a", "b"], "O")[source])
    return features, labels, part


def test_the_probe_finds_a_planted_leak_and_no_other():
    features, _, part = drawn(leak=3)
    found = embedding.source_leak(features, part).auroc["macro"]
    assert found["low"] > 0.9
    features, _, part = drawn(leak=0)
    found = embedding.source_leak(features, part).auroc["macro"]
    assert found["low"] < 0.5 < found["high"] < 0.65
    object.__setattr__(part, "source", np.array(["a"] * 240, "O"))
    with pytest.raises(ValueError, match="one source: 'a'"):
        embedding.source_leak(features, part)


def test_pca_is_the_singular_value_decomposition():
    features, _, _ = drawn()
    centred = features - features.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(abs(embedding.pca(features)), abs(u[:, :2] * s[:2]))


def test_tsne_parts_what_is_apart():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5))
    features[30:] += 20
    found = embedding.tsne(features)
    left, right = found[:30], found[30:]
    gap = np.linalg.norm(left.mean(0) - right.mean(0))
    assert gap > 2 * max(left.std(), right.std()) and found.shape == (60, 2)
    with pytest.raises(ValueError, match="too few"):
        embedding.tsne(features[:5])


def test_the_shift_table_is_that_of_the_parts():
    _, labels, part = drawn()
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(240, 2))
    good = part.source == "a"
    logits[good, 1] += 3 * labels[good]
    ids, views = part.id.astype(str), np.array(["PA"] * 240)
    args = ids, ids, part.source.astype(str), views, labels, logits, ("x", "y")
    rows = embedding.shift(Predictions(*args))
    found = {(r["part"], r["metric"]): r for r in rows}
    assert found["a", "auroc_macro"]["low"] > found["b", "auroc_macro"]["high"]
    want = metrics.compute(labels[good], logits[good], "xy", ids[good], 0)["metrics"]
    for name in ("auroc_macro", "auprc_macro", "balanced_accuracy"):
        assert found["a", name]["value"] == pytest.approx(want[name]["value"])
    assert found["PA", "auroc_macro"]["images"] == 240
