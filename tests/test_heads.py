"""Heads on fixed features, against scikit-learn's on the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from test_split import manifest

from bigxfer import config, models, tree
from bigxfer.protocols import heads, newton, probe
from bigxfer.protocols.space import Products
from bigxfer.runs import heads as of_run

SIZES = [(15, 64), (200, 20)]  # images of the draw, dimensions: by each decomposition
TEST = 80


def data(m, d, classes=3, seed=0):
    """Features of m + TEST images that lie far from 0, and their labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3, np.geomspace(0.3, 3, d), (m + TEST, d)).astype(np.float32)
    y = np.argmax((x - 3) @ rng.normal(size=(d, classes)), 1)
    y[: 2 * classes] = np.arange(2 * classes) % classes
    return x, y


def multilabel(m, d, seed=0):
    """Three labels with unknown ones; the second lacks none of the draw."""
    x, _ = data(m, d, seed=seed)
    rng = np.random.default_rng(seed)
    labels = ((x - 3)[:, -3:] + rng.normal(size=(m + TEST, 3)) > 0.5) * 1.0
    labels[:2], labels[2:4] = 0, 1
    unknown = rng.random(labels.shape) < 0.3
    unknown[:4], unknown[:m, 1] = False, False
    labels[unknown] = np.nan
    return x, labels


def spaces(x, m):
    """(the Space of the first m images, their features in its units, the others')."""
    rows = np.arange(m), np.arange(m, len(x))
    space = Products(x, m).space(*rows)
    mean = x[:m].mean(0, dtype=float)
    scale = np.sqrt(np.square(x[:m] - mean).sum() / m)
    assert space.scale == pytest.approx(scale, rel=1e-5)
    return space, (x[:m] - mean) / scale, (x[m:] - mean) / scale


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def test_the_strengths_that_may_be_chosen_and_the_one_that_is_taken_unseen():
    powers = 10 ** np.arange(2, -3, -0.5)  # from 100 down to 0.00316
    assert heads.strengths("ridge", 9) == pytest.approx(powers)
    assert heads.strengths("logistic", 9, (0.1, 10)) == (10, 0.1)
    assert heads.strengths("ncm", 9) == (0.0,)
    assert heads.strengths("knn", 30) == (30, 20, 15, 10, 7, 5, 4, 3, 2, 1)
    assert heads.strengths("knn", 5) == (5, 4, 3, 2, 1)
    assert heads.strengths("knn", 4, (2, 9, 4)) == (4, 2)
    assert heads.strengths("knn", 4, (9,)) == (1,)
    assert [heads.fixed("knn", n) for n in (0, 1, 24, 25)] == [1, 1, 4, 5]
    assert heads.fixed("ridge", 9) == heads.fixed("logistic", 9) == 1
    assert heads.fixed("ncm", 9) == 0


def test_a_strength_is_chosen_by_the_heads_own_loss():
    rng = np.random.default_rng(0)
    y, z = np.array([0, 2, 1, 2]), rng.normal(size=(2, 4, 3))
    p = softmax(z)
    want = [log_loss(y, one) for one in p]
    assert heads.loss("logistic", z, y) == pytest.approx(want)
    want = np.square(z - (2 * np.eye(3)[y] - 1)).mean((1, 2))
    assert heads.loss("ridge", z, y) == pytest.approx(want)
    labels = np.array([[1, 0, np.nan], [0, 0, 1], [1, np.nan, 0], [0, 1, 1.0]])
    known = ~np.isnan(labels)
    want = [log_loss(labels[known], 1 / (1 + np.exp(-one[known]))) for one in z]
    assert heads.loss("knn", z, labels) == pytest.approx(want)
    want = np.square(z[:, known] - (2 * labels[known] - 1)).mean(1)
    assert heads.loss("ridge", z, labels) == pytest.approx(want)


@pytest.mark.parametrize(("m", "d"), SIZES)
def test_ridge_is_scikit_learns(m, d):
    x, y = data(m, d)
    space, train, test = spaces(x, m)
    found = heads.scores("ridge", space, y[:m], 3, heads.PENALTIES)
    for scores, penalty in zip(found, heads.PENALTIES, strict=True):
        other = Ridge(alpha=penalty).fit(train, 2 * np.eye(3)[y[:m]] - 1)
        np.testing.assert_allclose(scores, other.predict(test), atol=1e-4)


@pytest.mark.parametrize(("m", "d"), SIZES)
def test_ridge_of_labels_takes_the_known_rows(m, d):
    x, labels = multilabel(m, d)
    space, train, test = spaces(x, m)
    found = heads.scores("ridge", space, labels[:m], 3, (0.1, 1.0))
    for i, penalty in enumerate((0.1, 1.0)):
        for k in range(3):
            known = ~np.isnan(labels[:m, k])
            other = Ridge(alpha=penalty).fit(train[known], 2 * labels[:m][known, k] - 1)
            np.testing.assert_allclose(found[i, :, k], other.predict(test), atol=1e-4)


@pytest.mark.parametrize("exact", [0, 1000])  # unknowns: by gradients, by solving
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("m", "d"), SIZES)
def test_logistic_is_scikit_learns(m, d, classes, exact, monkeypatch):
    monkeypatch.setattr(newton, "EXACT", exact)
    x, y = data(m, d, classes)
    space, train, test = spaces(x, m)
    penalties = heads.PENALTIES[::3]
    found = heads.scores("logistic", space, y[:m], classes, penalties)
    for scores, penalty in zip(found, penalties, strict=True):
        other = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10000)
        other.fit(train, y[:m])
        p = softmax(scores.astype(float))
        np.testing.assert_allclose(p, other.predict_proba(test), atol=1e-4)


@pytest.mark.parametrize("exact", [0, 1000])  # unknowns: by gradients, by solving
@pytest.mark.parametrize(("m", "d"), SIZES)
def test_logistic_of_labels_is_scikit_learns(m, d, exact, monkeypatch):
    monkeypatch.setattr(newton, "EXACT", exact)
    x, labels = multilabel(m, d)
    space, train, test = spaces(x, m)
    found = heads.scores("logistic", space, labels[:m], 3, (1.0, 0.01))
    for i, penalty in enumerate((1.0, 0.01)):
        for k in range(3):
            known = ~np.isnan(labels[:m, k])
            other = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10000)
            other.fit(train[known], labels[:m][known, k])
            want = other.decision_function(test)
            np.testing.assert_allclose(found[i, :, k], want, rtol=1e-3, atol=1e-3)


def test_penalties_in_parts_are_the_penalties_at_once(monkeypatch):
    x, y = data(15, 8)
    one_hot, of = np.eye(3)[y[:15]], np.geomspace(0.1, 100, 5)
    whole = newton.fit(x[:15] - x[:15].mean(0), one_hot, of, softmax=True)
    monkeypatch.setattr(newton, "AT_ONCE", 40)  # less than one penalty takes
    parts = newton.fit(x[:15] - x[:15].mean(0), one_hot, of, softmax=True)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_equal_images_leave_the_bias_alone():
    """A balanced label is at its optimum from the start: a gradient of 0, not 0 / 0."""
    labels = np.array([[1.0, 1], [0, 1], [1, 1], [0, 0]])
    w, b = newton.fit(np.zeros((4, 2)), labels, np.array([1.0]), softmax=False)
    np.testing.assert_array_equal(w, 0)
    np.testing.assert_allclose(b, [[0, np.log(3)]], atol=1e-6)


@pytest.mark.parametrize(("m", "d"), SIZES)
def test_the_nearest_mean_is_scikit_learns(m, d):
    x, y = data(m, d)
    space, train, test = spaces(x, m)
    (found,) = heads.scores("ncm", space, y[:m], 3, (0.0,))
    other = NearestCentroid().fit(train, y[:m])
    assert found.argmax(1).tolist() == other.predict(test).tolist()
    distance = np.square(test[:, None] - other.centroids_).sum(2)
    gaps = (distance[:, :1] - distance) / 2
    np.testing.assert_allclose(found - found[:, :1], gaps, atol=1e-4)


def test_the_nearest_mean_of_labels():
    x, labels = multilabel(15, 64)
    space, train, test = spaces(x, 15)
    found = heads.scores("ncm", space, labels[:15], 3, (0.0,))[0]
    for k in range(3):
        known = ~np.isnan(labels[:15, k])
        other = NearestCentroid().fit(train[known], labels[:15][known, k])
        assert (found[:, k] > 0).tolist() == (other.predict(test) == 1).tolist()


@pytest.mark.parametrize(("m", "d"), SIZES)
def test_neighbours_are_scikit_learns(m, d):
    x, y = data(m, d)
    space, train, test = spaces(x, m)
    found = heads.scores("knn", space, y[:m], 3, (7.0, 3.0, 1.0))
    for scores, k in zip(found, (7, 3, 1), strict=True):
        other = KNeighborsClassifier(n_neighbors=k).fit(train, y[:m])
        votes = np.exp(scores.astype(float)) * (k + 1) - 1 / 3
        np.testing.assert_allclose(votes / k, other.predict_proba(test), atol=1e-5)


def test_neighbours_of_labels_are_those_that_are_known():
    x, labels = multilabel(15, 64)
    space, train, test = spaces(x, 15)
    found = heads.scores("knn", space, labels[:15], 3, (5.0,))[0]
    nearest = np.argsort(np.square(test[:, None] - train).sum(2), axis=1)[:, :5]
    votes = labels[:15][nearest]
    up, down = (votes == 1).sum(1), (votes == 0).sum(1)
    np.testing.assert_allclose(found, np.log((up + 0.5) / (down + 0.5)), atol=1e-6)
    assert (up + down).min() < 5


@pytest.mark.parametrize("how", heads.FITTED)
def test_a_gram_matrix_of_all_serves_a_draw(how):
    """The same scores, whether the products are shared or computed for one draw."""
    x, y = data(60, 100)
    train, test = np.arange(0, 60, 4), np.arange(60, 140)
    of = (heads.fixed(how, len(train)),)
    shared, alone = (
        heads.scores(how, Products(x, pool).space(train, test), y[train], 3, of)
        for pool in (60, 0)
    )
    np.testing.assert_allclose(shared, alone, atol=1e-5)


def test_the_dot_products_of_any_rows():
    x, _ = data(12, 5)
    centred = (x - x[:12].mean(0)).astype(float)
    products = Products(x, 12)
    for train in ([0, 3], [2, 12]):  # the latter is beyond the pool
        for rows in ([4, 5, 6], [4, 6, 5, 7], [7, 3], [20, 2, 40]):
            found = products.between(np.array(train), np.array(rows))
            want = centred[train] @ centred[rows].T
            np.testing.assert_allclose(found, want, atol=1e-4)


@pytest.mark.parametrize("m", [4, 9])
def test_images_that_are_all_alike_have_no_direction_and_are_not_scaled(m):
    x = np.tile(np.float32([3, 1, 2, 5, 4]), (m + 2, 1))
    x[m:] += 1
    space = Products(x, m).space(np.arange(m), np.arange(m, m + 2))
    assert space.scale == 1 and space.train.shape == (m, 0)
    w, b = heads.weights("ridge", space, np.arange(m) % 3, 3, (1.0,))
    kernel, bias = space.head(w[0], b[0])
    assert not kernel.any()
    share = np.bincount(np.arange(m) % 3) / m
    assert bias == pytest.approx(2 * share - 1)


@pytest.mark.parametrize("exact", [0, 1000])  # unknowns: by gradients, by solving
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize(("m", "d"), SIZES)
def test_newtons_method_is_done_in_ten_steps(m, d, softmax, exact, monkeypatch):
    """The gradient of scikit-learn's objective there is nothing beside that at 0."""
    monkeypatch.setattr(newton, "EXACT", exact)
    monkeypatch.setattr(newton, "STEPS", 10)
    x, y = data(m, d)
    x, y = spaces(x, m)[1], np.eye(3)[y[:m]]
    for strength in (0.01, 1.0, 100.0):
        w, b = newton.fit(x, y, np.array([strength]), softmax)
        sizes = []
        for v, level in ((w[0], b[0]), (0 * w[0], 0 * b[0])):
            z = x @ v + level
            p = np.exp(z) if softmax else 1 / (1 + np.exp(-z))
            p = p / p.sum(1, keepdims=True) if softmax else p
            off = strength * (p - y)
            sizes.append(
                np.hypot(np.linalg.norm(x.T @ off + v), np.abs(off.sum(0)).max())
            )
        assert sizes[0] < 1e-6 * sizes[1]


@pytest.mark.parametrize("how", heads.LINEAR)
@pytest.mark.parametrize(("m", "d"), SIZES)
def test_a_linear_head_reads_features_as_they_are(how, m, d):
    x, y = data(m, d)
    space, _, _ = spaces(x, m)
    w, b = heads.weights(how, space, y[:m], 3, (0.5,))
    kernel, bias = space.head(w[0], b[0])
    np.testing.assert_allclose(
        x[m:] @ kernel + bias, space.scores(w, b)[0], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("how", ["ridge", "logistic", "ncm"])
def test_labels_without_examples(how):
    x, y = data(60, 7)
    labels = np.stack([y == 0, y == 9, y < 9], 1).astype(float)
    space, _, _ = spaces(x, 60)
    found = heads.scores(how, space, labels[:60], 3, (1.0,))[0]
    least = 1 if how == "ridge" else 30
    assert found[:, 1] == pytest.approx(-least) and found[:, 2] == pytest.approx(least)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("how", ["logistic", "ncm"])
def test_a_class_without_example_is_never_predicted(how):
    x, y = data(30, 7, classes=2)
    space, _, _ = spaces(x, 30)
    (found,) = heads.scores(how, space, y[:30], 3, (1.0,))
    assert found.argmax(1).max() < 2 and found[:, 2] == pytest.approx(-30)
    (alone,) = heads.scores(how, space, np.ones(30, int), 3, (1.0,))
    assert (alone.argmax(1) == 1).all() and alone[:, [0, 2]] == pytest.approx(-30)


def seen(x, labels, patients, classes=3):
    m = manifest(patients, labels, classes=classes)
    return of_run.look(lambda rows: x[rows], m, np.arange(len(x)), np.arange(0))


def fit(how, images, train, judged, valid, select_on):
    """The head of `train`, and over how many folds its strength was chosen."""
    of = heads.strengths(how, len(train), ())
    chosen, held = of_run.choose(how, images, train, valid, select_on, of)
    assert (held is not None) == (select_on == "support")
    fitted = of_run.fit(how, images, train, judged, chosen)
    return fitted, chosen.folds if chosen else 0


def test_the_strength_has_the_least_loss_on_validation():
    x, y = data(40, 30, seed=4)
    found = seen(x, y, range(len(y)))
    train, valid, test = np.split(np.arange(len(y)), [40, 80])
    fitted, folds = fit("logistic", found, train, test, valid, "validation")
    _, part, _ = spaces(x[:80], 40)
    held = (x[40:80] - x[:40].mean(0)) / found.products.space(train, valid).scale
    losses = []
    for penalty in heads.PENALTIES:
        other = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10000)
        other.fit(part, y[:40])
        losses.append(log_loss(y[40:80], other.predict_proba(held)))
    assert fitted.strength == heads.PENALTIES[int(np.argmin(losses))]
    assert 0 < int(np.argmin(losses)) < len(losses) - 1 and folds == 0


@pytest.mark.parametrize("how", heads.FITTED)
def test_folds_use_no_label_but_those_of_the_shots(how):
    x, y = data(30, 12, seed=1)
    found = seen(x, y, range(len(y)))
    train, valid, test = np.split(np.arange(len(y)), [30, 70])
    fitted, folds = fit(how, found, train, test, valid, "support")
    other = y.copy()
    other[30:] = 2 - other[30:]
    others = seen(x, other, range(len(y)))
    again, _ = fit(how, others, train, test, valid, "support")
    np.testing.assert_array_equal(fitted.logits, again.logits)
    assert fitted.strength == again.strength
    assert folds == (0 if how == "ncm" else 5)
    unseen, folds = fit(how, found, train, test, valid, "none")
    assert unseen.strength == heads.fixed(how, 30) and folds == 0


def test_folds_hold_out_whole_patients(monkeypatch):
    x, y = data(40, 7)
    people = np.arange(len(y)) // 4
    sides, scores = [], of_run._scores

    def watched(how, found, train, held, of):
        sides.append((set(people[train]), set(people[held])))
        return scores(how, found, train, held, of)

    monkeypatch.setattr(of_run, "_scores", watched)
    rows = np.arange(40)
    fit("ridge", seen(x, y, people), rows, rows, rows, "support")
    assert len(sides) == 5 and not any(train & held for train, held in sides)
    assert set().union(*(held for _, held in sides)) == set(people[:40])


def test_one_patient_makes_no_folds():
    x, y = data(30, 7)
    found = seen(x, y, [0] * len(y))
    rows = np.arange(30)
    with pytest.raises(ValueError, match="of one patient.*select_on=none"):
        fit("ridge", found, rows, rows, rows, "support")


def test_features_that_are_not_finite_are_refused():
    x, y = data(30, 7)
    x[3, 2] = np.nan
    with pytest.raises(
        ValueError, match=r"features of '.*3' are not finite \(1 of 110"
    ):
        seen(x, y, range(len(y)))


@pytest.mark.parametrize("name", ["bit", "cbr_tiny", "smallcnn"])
def test_the_head_goes_where_the_model_reads_it(name):
    """Logits of the model with this head are the head's own scores of its features."""
    cfg = config.Model(name, blocks=(1,), width=0.25, hidden=6)
    model = models.build(cfg, 3)
    variables = model.init(jax.random.key(0), (1, 24, 24, 3))
    images = jax.random.uniform(jax.random.key(1), (9, 24, 24, 3), minval=-1)
    net = jax.jit(lambda v: model.apply(v, images, False)[0])
    headless = jax.jit(lambda v: probe.Headless(model).apply(v, images, False)[0])
    features = headless(variables)
    space = Products(np.asarray(features)).space(np.arange(9), np.arange(9))
    w, b = heads.weights("ridge", space, np.arange(9) % 3, 3, (0.1,))
    params = probe.put(variables["params"], model.head, space.head(w[0], b[0]))
    logits = net({**variables, "params": params})
    np.testing.assert_allclose(logits, space.scores(w, b)[0], rtol=1e-3, atol=1e-3)
    a, b = tree.flatten(variables["params"]), tree.flatten(params)
    same = {n for n in a if not n.startswith("head/")}
    assert all(a[n] is b[n] for n in same)
    assert jnp.abs(b[next(n for n in a if n.startswith("head/"))]).max() > 0
