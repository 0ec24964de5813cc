"""Probes against scikit-learn and against shortcuts that were put in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from test_split import manifest

from bigxfer.config import Data
from bigxfer.data import readers, shortcuts
from bigxfer.data.pixels import cache

COVID = Path(__file__).parents[2] / "shared" / "data" / "covid_cxr"


def test_a_rim_that_gives_the_class_away_is_found():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    images = rng.integers(0, 200, (300, 40, 40, 1), dtype=np.uint8)
    m = manifest(rng.integers(0, 150, 300), labels, classes=2)
    probes = {p.name: p for p in shortcuts.probe_all(m, images, np.arange(300))}
    clean = probes["rim"].auroc["macro"]
    assert 0.35 < clean["value"] < 0.65 and set(probes) == {"rim", "size"}
    images[:, :4] += (40 * labels[:, None, None, None]).astype(np.uint8)
    (rim, _) = shortcuts.probe_all(m, images, np.arange(300))
    assert rim.auroc["macro"]["low"] > 0.9
    images[:, :4] -= (40 * labels[:, None, None, None]).astype(np.uint8)
    images[:, 15:25, 15:25] += (40 * labels[:, None, None, None]).astype(np.uint8)
    (rim, _) = shortcuts.probe_all(m, images, np.arange(300))  # inside: not its matter
    assert rim.auroc["macro"]["value"] < 0.65


def test_view_and_source_are_probed_where_there_are_several():
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1, np.nan], (200, 3))
    m = manifest(range(200), labels)
    view = np.where(labels[:, 0] == 1, "AP", "PA").astype(object)
    m = replace(m, view=view, source=np.array(["x", "y"] * 100, object))
    images = rng.integers(0, 255, (200, 32, 32, 1), dtype=np.uint8)
    images[1::2] //= 2
    probes = {
        (p.name, p.target): p for p in shortcuts.probe_all(m, images, np.arange(200))
    }
    assert probes["view", "class"].auroc["c0"]["value"] == 1
    assert abs(probes["view", "class"].auroc["c1"]["value"] - 0.5) < 0.2
    assert probes["pixels", "source"].auroc["macro"]["value"] > 0.95
    assert probes["source", "class"].auroc["macro"]["high"] < 0.7


def test_evidence_of_nothing_is_at_chance():
    """Pooled over folds without their means it was at 0.45, interval below 0.5."""
    rng = np.random.default_rng(3)
    labels = (rng.random((250, 4)) < 0.1).astype(float)
    labels[rng.random((250, 4)) < 0.1] = np.nan
    for truth in (labels, np.eye(3)[rng.integers(0, 3, 250)]):
        names = list("abcd"[: truth.shape[1]])
        m = manifest(range(250), labels)
        got = shortcuts.probe("x", "class", np.ones((250, 2)), truth, names, m)
        assert {a["value"] for a in got.auroc.values()} == {0.5}


def test_aurocs_are_those_of_scikit_learn():
    rng = np.random.default_rng(2)
    labels = rng.choice([0, 1, np.nan], (80, 3))
    labels[:, 2] = 0  # one side only
    scores = rng.normal(size=(80, 3)).round(1)
    got = shortcuts.aurocs(labels, scores, np.arange(80).astype(str), list("abc"))
    assert set(got) == {"a", "b", "macro"}
    for k, name in enumerate("ab"):
        known = np.isfinite(labels[:, k])
        want = roc_auc_score(labels[known, k], scores[known, k])
        assert got[name]["value"] == pytest.approx(want)
        assert got[name]["low"] < want < got[name]["high"]
    truth = np.repeat([[1.0], [0.0]], 6, axis=0)  # all in order: not [1, 1]
    people = np.arange(12).astype(str)
    got = shortcuts.aurocs(truth, truth, people, ["a"])["a"]
    assert got["value"] == got["high"] == 1 and 0.5 < got["low"] < 0.9
    few = shortcuts.aurocs(truth[2:], truth[2:], people[2:], ["a"])["a"]
    assert few == {"value": 1, "low": None, "high": None}


def test_large_sets_are_sampled_by_patient(monkeypatch):
    monkeypatch.setattr(shortcuts, "MOST", 50)
    m = manifest(np.arange(300) // 3, np.zeros(300, int))
    rows = shortcuts.sampled(m, np.arange(300))
    assert 40 <= len(rows) <= 60
    people = m.patient[rows]
    assert all((people == p).sum() == 3 for p in set(people))


@pytest.mark.skipif(not COVID.is_dir(), reason="needs ../shared/data/covid_cxr")
def test_the_known_shortcuts_of_covid_cxr(tmp_path):
    """Its README: the rim of 4 px 0.82, the original size for covid19 0.98."""
    m = readers.read(Data(reader="csv", root=str(COVID), views=()))
    built = cache.build(m, tmp_path, 64, 1)
    probes = shortcuts.probe_all(m, built.images, np.arange(len(m)))
    found = {(p.name, p.target): p for p in probes}
    rim = found["rim", "class"]
    assert rim.held_out == pytest.approx(0.82, abs=0.01)
    assert rim.auroc["covid19"]["value"] == pytest.approx(0.82, abs=0.02)
    size = found["size", "class"].auroc["covid19"]
    assert size["low"] <= 0.98 <= size["high"]
