"""Golden numbers: google-research representation_similarity/Demo.ipynb and google/svcca
where they have the measure, else computed once by another formula (Sxx^-1/2 Sxy
Syy^-1/2)."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from bigxfer.analysis import similarity


@pytest.fixture(scope="module")
def pair():
    rng = np.random.RandomState(1337)
    x = rng.randn(100, 10)
    return x, rng.randn(100, 10) + x


def test_goldens_of_the_toy(pair):
    x, y = pair
    assert similarity.cka(x, y) == pytest.approx(0.5576132566, abs=1e-9)
    assert similarity.debiased_cka(x, y) == pytest.approx(0.5134564895, abs=1e-9)
    rho, _ = similarity.cca(x, y)
    assert rho[:3] == pytest.approx([0.885111, 0.861961, 0.833302], abs=1e-6)
    assert rho[-1] == pytest.approx(0.542370, abs=1e-6)
    assert rho.mean() == pytest.approx(0.7310139588, abs=1e-9)
    assert np.mean(rho**2) == pytest.approx(0.5453963322, abs=1e-9)
    assert similarity.pwcca(x, y) == pytest.approx(0.7346677196, abs=1e-9)
    assert similarity.pwcca(y, x) == pytest.approx(0.7368405676, abs=1e-9)


@pytest.mark.parametrize(
    ("size", "golden"),
    [
        (100, 0.5134564895),
        (50, 0.5308439528),
        (25, 0.5132675064),
        (20, 0.5337183634),
        (10, 0.5437308120),
    ],
)
def test_goldens_of_minibatch_cka(pair, size, golden):
    x, y = pair
    batches = (([x[i : i + size]], [y[i : i + size]]) for i in range(0, 100, size))
    found = similarity.minibatch_cka(batches)
    assert found == pytest.approx(np.array([[golden]]), abs=1e-9)


GAUSSIAN = {101: 1.0, 200: 0.637, 500: 0.388, 1000: 0.269, 2000: 0.191, 5000: 0.120}


def test_goldens_of_gaussian_noise():
    """One RandomState(0) draws x and y of all sizes, one after the other."""
    for n, golden in GAUSSIAN.items():
        rng = np.random.RandomState(0)
        x, y = rng.randn(n, 100), rng.randn(n, 100)
        # below the check, so that the sizes that it refuses are seen as well
        rho, _ = similarity.correlate(similarity.basis(x), similarity.basis(y))
        assert rho.mean() == pytest.approx(golden, abs=0.004), n
        if n <= 200:
            with pytest.raises(ValueError, match="too few for CCA"):
                similarity.mean_cca(x, y)
        else:
            assert similarity.baseline(similarity.mean_cca, x, y) == pytest.approx(
                golden, abs=0.006
            )


def test_cca_equals_the_textbook_formula():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 7)) @ rng.normal(size=(7, 7)) + 3
    y = np.tanh(x[:, :5]) + rng.normal(size=(300, 5))
    s = np.cov(x.T, y.T)
    sxx, sxy, syy = s[:7, :7], s[:7, 7:], s[7:, 7:]
    roots = (np.linalg.inv(np.asarray(scipy.linalg.sqrtm(m))) for m in (sxx, syy))
    left, right = roots
    want = np.linalg.svd(left @ sxy @ right, compute_uv=False)
    rho, variates = similarity.cca(x, y)
    np.testing.assert_allclose(rho, want, atol=1e-9)
    np.testing.assert_allclose(variates.T @ variates, np.eye(5), atol=1e-9)


def test_debiased_cka_equals_the_sum_over_distinct_datapoints():
    """The U-statistic as its definition has it, over all (i, j, q, r) distinct."""
    from itertools import permutations

    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    y[:, 0] += x[:, 0]

    def hsic(k, m):
        terms = [
            k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
            for i, j, q, r in permutations(range(7), 4)
        ]
        return np.mean(terms)

    k, m = x @ x.T, y @ y.T
    want = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert similarity.debiased_cka(x, y) == pytest.approx(want, abs=1e-10)


def test_cka_is_the_same_by_either_product():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(20, 200)), rng.normal(size=(20, 30))
    wide = similarity.cka(x, y)
    zero = np.zeros((2000, 200))  # rows of the mean change no product, but the branch
    xx, yy = x - x.mean(0), y - y.mean(0)
    tall = similarity.cka(np.vstack([xx, zero]), np.vstack([yy, zero[:, :30]]))
    assert wide == pytest.approx(tall, abs=1e-10)


seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25, deadline=None)


def representations(seed):
    rng = np.random.default_rng(seed)
    n, p, q = rng.integers(40, 80), rng.integers(2, 8), rng.integers(2, 8)
    x = rng.normal(size=(n, p)) + rng.normal(size=p)
    y = x @ rng.normal(size=(p, q)) + rng.normal(size=(n, q))
    return rng, x, y


def affine(rng, x):
    """An invertible map that is not far from singular, and a shift."""
    p = x.shape[1]
    u, _, v = np.linalg.svd(rng.normal(size=(p, p)))
    return x @ (u * rng.uniform(0.2, 5, p) @ v) + rng.normal(size=p)


@quick
@given(seeds)
def test_cca_is_affine_invariant_and_symmetric(seed):
    rng, x, y = representations(seed)
    want = similarity.mean_cca(x, y)
    assert similarity.mean_cca(affine(rng, x), affine(rng, y)) == pytest.approx(want)
    assert similarity.mean_cca(y, x) == pytest.approx(want)
    assert 0 <= want <= 1


@quick
@given(seeds)
def test_pwcca_is_invariant_to_affine_maps_of_the_other_side(seed):
    rng, x, y = representations(seed)
    want = similarity.pwcca(x, y)
    assert similarity.pwcca(x, affine(rng, y)) == pytest.approx(want)
    assert similarity.pwcca(3 * x + 1, y) == pytest.approx(want)


def test_pwcca_changes_with_the_neurons_that_it_weights_by(pair):
    x, y = pair
    mixed = affine(np.random.default_rng(0), x)
    assert abs(similarity.pwcca(mixed, y) - similarity.pwcca(x, y)) > 1e-3
    assert similarity.pwcca(x, y) != pytest.approx(similarity.pwcca(y, x), abs=1e-4)


@quick
@given(seeds)
def test_cka_is_invariant_to_rotation_and_scale(seed):
    rng, x, y = representations(seed)
    turn = np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0]
    moved = 7 * x @ turn + rng.normal(size=x.shape[1])
    for measure in (similarity.cka, similarity.debiased_cka):
        want = measure(x, y)
        assert measure(moved, y) == pytest.approx(want)
        assert measure(y, x) == pytest.approx(want)


@quick
@given(seeds)
def test_every_measure_is_one_on_equal_representations(seed):
    _, x, _ = representations(seed)
    for measure in (
        similarity.mean_cca,
        similarity.svcca,
        similarity.pwcca,
        similarity.cka,
        similarity.debiased_cka,
    ):
        assert measure(x, x) == pytest.approx(1)


def test_what_is_not_invariant(pair):
    x, y = pair
    rng = np.random.default_rng(3)
    scale = np.geomspace(1e-3, 1e3, 10)
    assert similarity.cka(x, y) - similarity.cka(x * scale, y) > 0.1
    turned = x @ np.linalg.qr(rng.normal(size=(10, 10)))[0] * scale
    assert similarity.leading(turned, 0.99).shape[1] < 10  # SVCCA truncates by scale
    assert similarity.mean_cca(turned, y) == pytest.approx(similarity.mean_cca(x, y))


def test_svcca_keeps_what_it_says():
    rng = np.random.default_rng(4)
    u = np.linalg.qr(similarity.centred(rng.normal(size=(50, 4))))[0]
    x = u * [10, 5, 1, 0.1]  # squares 100, 25, 1, 0.01: shares 79, 99, 99.99 ...
    assert similarity.leading(x, 0.7).shape == (50, 1)
    assert similarity.leading(x, 0.99).shape == (50, 2)
    assert similarity.leading(x, 0.995).shape == (50, 3)
    assert similarity.leading(x, 3).shape == (50, 3)
    shared = u[:, :1] * 10
    y = np.hstack([shared, rng.normal(size=(50, 2)) * 1e-3])
    assert similarity.svcca(x[:, :1], y) == pytest.approx(1, abs=1e-6)


def test_dead_and_doubled_neurons_count_for_nothing(pair):
    x, y = pair
    padded = np.hstack([x, x[:, :2], np.full((100, 3), 0.1), np.zeros((100, 1))])
    rho, _ = similarity.cca(padded, y)
    assert rho == pytest.approx(similarity.cca(x, y)[0])
    float32 = padded.astype(np.float32)
    assert similarity.mean_cca(float32, y) == pytest.approx(rho.mean(), abs=1e-5)


def test_errors_say_what_to_do(pair):
    x, y = pair
    with pytest.raises(ValueError, match="15 datapoints are too few for CCA of 10"):
        similarity.pwcca(x[:15], y[:15])
    with pytest.raises(ValueError, match="too few"):
        similarity.svcca(x[:20], y[:20], keep=10)
    with pytest.raises(ValueError, match="second representation is constant"):
        similarity.mean_cca(x, np.ones((100, 2)))
    with pytest.raises(ValueError, match="constant"):
        similarity.cka(x, np.ones((100, 2)))
    with pytest.raises(ValueError, match="constant"):
        similarity.debiased_cka(x, np.ones((100, 2)))
    with pytest.raises(ValueError, match=r"\(100, 10\) and \(99, 10\)"):
        similarity.cka(x, y[1:])
    with pytest.raises(ValueError, match="fold, pool or flat"):
        similarity.cka(x[None], y[None])
    with pytest.raises(ValueError, match="4 datapoints"):
        similarity.debiased_cka(x[:3], y[:3])
    broken = x.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="first representation is not finite"):
        similarity.cka(broken, y)


def test_maps_become_matrices():
    maps = np.arange(2 * 4 * 4 * 3, dtype=float).reshape(2, 4, 4, 3)
    assert similarity.fold(maps).shape == (32, 3)
    np.testing.assert_array_equal(similarity.fold(maps, 2)[1], maps[0, 0, 2])
    np.testing.assert_allclose(similarity.pool(maps), maps.mean((1, 2)))
    np.testing.assert_array_equal(similarity.flat(maps)[1], maps[1].ravel())


def test_a_matrix_of_layers_is_that_of_the_pairs(pair):
    x, y = pair
    a, b = [x, x[:, :3]], [y, y[:, :4], y[:, 5:]]
    found = similarity.minibatch_cka([(a, b)])
    want = [[similarity.debiased_cka(i, j) for j in b] for i in a]
    np.testing.assert_allclose(found, want)
