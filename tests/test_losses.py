"""Losses against torch-free references: float64 numpy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from bigxfer.protocols import losses

NAN = np.nan


def test_sigmoid_is_the_mean_over_known_entries():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 3)).astype(np.float32) * 3
    targets = rng.integers(0, 2, (6, 3)).astype(np.float32)
    targets[rng.random((6, 3)) < 0.3] = NAN
    mask = np.array([1, 1, 0, 1, 1, 1], np.float32)
    total, count = losses.sigmoid(logits, targets, mask)
    known = ~np.isnan(targets) & (mask > 0)[:, None]
    want = log_loss(targets[known], expit(logits[known].astype(np.float64)))
    assert count == known.sum()
    np.testing.assert_allclose(total / count, want, rtol=1e-6)


def test_softmax_is_the_mean_over_unmasked_examples():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(5, 4)).astype(np.float32)
    labels, mask = np.array([0, 3, 1, 2, 1]), np.array([1, 1, 1, 1, 0])
    total, count = losses.softmax(logits, np.eye(4)[labels], mask)
    p = np.exp(logits[:4].astype(np.float64))
    p /= p.sum(1, keepdims=True)
    assert count == 4
    np.testing.assert_allclose(
        total / count, log_loss(labels[:4], p, labels=range(4)), rtol=1e-6
    )


@pytest.mark.parametrize("loss", [losses.sigmoid, losses.softmax])
def test_any_cut_of_the_batch_gives_the_same_sums_and_gradient(loss):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(8, 3)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 8)]
    if loss is losses.sigmoid:
        targets[rng.random((8, 3)) < 0.4] = NAN
    mask = (rng.random(8) < 0.8).astype(np.float32)
    total, count = loss(logits, targets, mask)
    parts = [
        loss(logits[i : i + 2], targets[i : i + 2], mask[i : i + 2])
        for i in range(0, 8, 2)
    ]
    np.testing.assert_allclose(sum(p[0] for p in parts), total, rtol=1e-6)
    assert sum(p[1] for p in parts) == count
    whole = jax.grad(lambda z: loss(z, targets, mask)[0])(logits)
    piece = jax.grad(lambda z: loss(z, targets[:2], mask[:2])[0])(logits[:2])
    np.testing.assert_allclose(whole[:2], piece, rtol=1e-6)


def test_sigmoid_gradient_is_p_minus_t_and_zero_where_unknown():
    logits = jnp.array([[0.0, 90.0, -90.0, 5.0], [1.0, 2.0, 3.0, 4.0]])
    targets = jnp.array([[1.0, 0.0, 1.0, NAN], [1.0, 0.0, NAN, 1.0]])
    grad = jax.grad(lambda z: losses.sigmoid(z, targets, jnp.array([1, 0]))[0])(logits)
    np.testing.assert_allclose(grad[0], [-0.5, 1.0, -1.0, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(grad[1], 0)


def test_padding_may_hold_anything():
    logits = jnp.array([[1.0, 2.0], [NAN, jnp.inf]])
    for loss in (losses.sigmoid, losses.softmax):
        for targets in (jnp.eye(2), jnp.array([[1.0, 0.0], [NAN, NAN]])):
            value, grad = jax.value_and_grad(
                lambda z: loss(z, targets, jnp.array([True, False]))[0]  # noqa: B023
            )(logits)
            assert np.isfinite(value)
            np.testing.assert_array_equal(grad[1], 0)
            assert np.isfinite(grad[0]).all()


@pytest.mark.parametrize("loss", [losses.sigmoid, losses.softmax])
def test_a_diverged_logit_is_not_hidden(loss):
    total, _ = loss(jnp.array([[NAN, 0.0]]), jnp.array([[1.0, 0.0]]), jnp.ones(1))
    assert np.isnan(total)


def test_confident_logits_keep_their_digits():
    total, _ = losses.sigmoid(jnp.full((1, 1), 20.0), jnp.ones((1, 1)), jnp.ones(1))
    np.testing.assert_allclose(total, np.log1p(np.exp(-20.0)), rtol=1e-5)
    total, _ = losses.softmax(
        jnp.array([[1e4, -1e4]]), jnp.array([[0.0, 1.0]]), jnp.ones(1)
    )
    np.testing.assert_allclose(total, 2e4)


def test_half_precision_logits_are_summed_in_float32():
    logits = jnp.zeros((4096, 2), jnp.bfloat16)
    for loss in (losses.sigmoid, losses.softmax):
        total, count = loss(logits, jnp.tile(jnp.eye(2), (2048, 1)), jnp.ones(4096))
        assert total.dtype == count.dtype == jnp.float32
        np.testing.assert_allclose(total / count, np.log(2), rtol=1e-6)


def test_hits_are_counted_among_what_counts():
    logits = jnp.array([[2.0, -1.0], [-3.0, 0.5], [1.0, 1.0], [9.0, 9.0]])
    targets = jnp.array([[1.0, 1.0], [0.0, NAN], [0.3, 0.7], [1.0, 1.0]])
    mask = jnp.array([1, 1, 1, 0])
    assert losses.right_signs(logits, targets, mask) == 1 + 1 + 1
    zero = jnp.zeros((1, 2))  # a logit of 0, and a target of a half, are no yes
    assert losses.right_signs(zero, jnp.array([[0.5, 0.6]]), jnp.ones(1)) == 1
    assert losses.right_signs(zero, jnp.array([[0.5, 0.5]]), jnp.ones(1)) == 2
    one_hot = jnp.array([[1.0, 0.0], [0.2, 0.8], [0.0, 1.0], [1.0, 0.0]])
    assert losses.right_classes(logits, one_hot, mask) == 2  # of equals the first
