"""The linear probe, against scikit-learn and against big_vision's formulae."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from bigxfer import config, models, tree
from bigxfer.protocols import probe


def data(n, d=7, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = (rng.normal(3, 2, (n, d)) * np.geomspace(0.1, 10, d)).astype(np.float32)
    y = np.argmax((x / x.std(0)) @ rng.normal(size=(d, classes)), 1)
    y[rng.random(n) < 0.2] = rng.integers(0, classes)
    y[:classes] = np.arange(classes)
    return x, y


def big_vision(x, y, x_test, classes):
    """fewshot_lsr.py said again: scores of the test features."""
    mean, std = x.mean(0, keepdims=True), x.std(0, keepdims=True) + 1e-5
    x, x_test = (
        np.pad((v - mean) / std, ((0, 0), (0, 1)), constant_values=100.0)
        for v in (x, x_test)
    )
    y = 2.0 * np.eye(classes)[y] - 1.0
    if len(x) >= x.shape[1]:
        eigs, q = np.linalg.eigh(x.T @ x)
        lhs, rhs = q, q.T @ (x.T @ y)
    else:
        eigs, q = np.linalg.eigh(x @ x.T)
        lhs, rhs = x.T @ q, q.T @ y
    return x_test @ ((lhs / (eigs + 2.0**10)) @ rhs)


@pytest.mark.parametrize("n", [5, 200])
def test_ridge_is_big_visions(n):
    x, y = data(n)
    test, _ = data(50, seed=1)
    kernel, bias = probe.fit("ridge", (x, y), None, 3)
    want = big_vision(x.astype(float), y, test.astype(float), 3)
    np.testing.assert_allclose(test @ kernel + bias, want, rtol=1e-3, atol=1e-4)


def test_ridge_of_labels_takes_the_known_rows():
    """Against scikit-learn, which does not penalise the bias at all."""
    x, _ = data(200)
    rng = np.random.default_rng(3)
    labels = (x[:, :2] / x[:, :2].std(0) + rng.normal(size=(200, 2)) > 1.5) * 1.0
    labels[rng.random((200, 2)) < 0.3] = np.nan
    kernel, bias = probe.fit("ridge", (x, labels), None, 2)
    z = (x - x.mean(0)) / (x.std(0) + 1e-5)
    for k in range(2):
        known = ~np.isnan(labels[:, k])
        other = Ridge(alpha=2.0**10).fit(z[known], 2 * labels[known, k] - 1)
        np.testing.assert_allclose(
            x @ kernel[:, k] + bias[k], other.predict(z), atol=2e-3
        )


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_is_scikit_learns(classes):
    x, y = data(150, classes=classes)
    kernel, bias = probe.fit("logistic", (x, y), None, classes)
    logits = x @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scaler = StandardScaler().fit(x)
    other = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(x), y)
    np.testing.assert_allclose(p, other.predict_proba(scaler.transform(x)), atol=1e-3)


def test_strength_has_the_least_loss_on_validation():
    (x, y), valid = data(40, seed=4), data(300, seed=5)
    kernel, bias = probe.fit("logistic", (x, y), valid, 3)
    scaler = StandardScaler().fit(x)
    scores = []
    for c in probe.STRENGTHS:
        other = LogisticRegression(C=c, max_iter=5000).fit(scaler.transform(x), y)
        p = other.predict_proba(scaler.transform(valid[0]))
        scores.append(log_loss(valid[1], p))
    logits = valid[0] @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert log_loss(valid[1], p) == pytest.approx(min(scores), rel=1e-3)


def test_labels_with_unknowns_and_without_examples():
    x, y = data(60)
    labels = np.stack([y == 0, y == 1, y == 9, y < 9], 1).astype(float)
    labels[::3, 0] = np.nan
    kernel, bias = probe.fit("logistic", (x, labels), None, 4)
    logits = x @ kernel + bias
    assert logits.shape == (60, 4) and (logits[:, 2] < -20).all()
    assert (logits[:, 3] > 20).all()
    known = ~np.isnan(labels[:, 0])
    positive = labels[known, 0] == 1
    assert logits[known, 0][positive].mean() > logits[known, 0][~positive].mean()


def test_a_class_without_example_is_never_predicted():
    x, y = data(30, classes=2)
    kernel, bias = probe.fit("logistic", (x, y), None, 3)
    assert ((x @ kernel + bias).argmax(1) < 2).all()


def test_features_that_are_not_finite_are_refused():
    x, y = data(30)
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        probe.fit("ridge", (x, y), None, 3)


@pytest.mark.parametrize("name", ["bit", "cbr_tiny", "smallcnn"])
def test_the_head_goes_where_the_model_reads_it(name):
    """Logits of the model with this head are the probe's own scores of its features."""
    cfg = config.Model(name, blocks=(1, 1), width=0.25, hidden=6)
    model = models.build(cfg, 3)
    variables = model.init(jax.random.key(0), (1, 24, 24, 3))
    images = jax.random.uniform(jax.random.key(1), (9, 24, 24, 3), minval=-1)
    features, _ = probe.Features(model).apply(variables, images, False)
    y = np.arange(9) % 3
    head = probe.fit("ridge", (np.asarray(features), y), None, 3)
    params = probe.put(variables["params"], model.head, head)
    logits, _ = model.apply({**variables, "params": params}, images, False)
    want = np.asarray(features) @ head[0] + head[1]
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-4)
    a, b = tree.flatten(variables["params"]), tree.flatten(params)
    same = {n for n in a if not n.startswith("head/")}
    assert all(a[n] is b[n] for n in same)
    assert jnp.abs(b[next(n for n in a if n.startswith("head/"))]).max() > 0
