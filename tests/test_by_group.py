"""Metrics within groups, against data whose groups are known to differ or not."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from bigxfer.statistics import by_group
from bigxfer.statistics.limits import Score

CLASSES = ("a", "b")


def make(rng, n=400, shift=(1.0, 1.0), groups=("F", "M"), images=1):
    """Patients of groups in turn; AUROC of group g is norm.cdf(shift[g] / sqrt 2)."""
    patient = np.repeat(np.arange(n), images)
    which = patient % len(groups)
    labels = rng.integers(0, 2, n)[patient]
    score = rng.normal(size=n * images) + np.array(shift)[which] * labels
    return {
        "labels": labels,
        "logits": np.stack([np.zeros(n * images), score], axis=1),
        "classes": CLASSES,
        "patients": patient.astype(str),
        "sexes": np.array(groups)[which],
        "ages": None,
        "sources": np.full(n * images, "one"),
        "views": np.full(n * images, ""),
    }


def test_the_values_are_scikit_learns():
    test = make(np.random.default_rng(0), shift=(0.5, 2.0))
    found = by_group.judge(test)
    assert list(found) == ["sex"]  # one site, no view, no age: nothing to compare
    for name, group in found["sex"]["groups"].items():
        rows = test["sexes"] == name
        want = roc_auc_score(test["labels"][rows], test["logits"][rows, 1])
        entry = group["metrics"]["auroc/b"]
        assert entry["value"] == pytest.approx(want, abs=1e-12)
        assert entry["low"] < want < entry["high"]
        assert group["images"] == group["patients"] == 200
    gap = found["sex"]["gaps"]["auroc_macro"]
    assert gap["of"] == ["M", "F"] and gap["pairs"] == 1
    assert 0 < gap["low"] < gap["value"] < gap["high"] <= 1


@pytest.mark.parametrize("groups", [("F", "M"), tuple("abcd")])
def test_the_interval_of_the_largest_gap_covers_none(groups):
    """Groups that do not differ: 95% of the intervals of the largest gap hold 0."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(60):
        test = make(rng, n=160, shift=(1.0,) * len(groups), groups=groups)
        gap = by_group.judge(test)["sex"]["gaps"]["auroc/b"]
        hits += gap["low"] <= 0 <= gap["high"]
    assert hits >= 52  # binomial: 95% of 60 less 2.9 standard deviations


def test_the_interval_of_a_gap_covers_the_truth():
    rng, shift, hits, found = np.random.default_rng(2), (0.5, 1.5), 0, []
    low, high = norm.cdf(np.array(shift) / np.sqrt(2))
    for _ in range(60):
        gap = by_group.judge(make(rng, n=200, shift=shift))["sex"]["gaps"]["auroc/b"]
        hits += gap["low"] <= high - low <= gap["high"]
        found.append((gap["value"], gap["high"] - gap["low"]))
    values, widths = np.array(found).T
    assert hits >= 52
    # Neither too narrow nor too wide; the deviation of 60 values is good to 9%.
    assert 0.75 < widths.mean() / (2 * 1.96 * values.std()) < 1.3


def test_patients_in_both_groups_are_paired():
    """The same patients from two sides, scored nearly alike: a narrow interval."""
    rng = np.random.default_rng(3)
    one = make(rng, n=200, groups=("x",), shift=(1.0,))
    both = {
        k: np.concatenate([v, v])
        for k, v in one.items()
        if k not in ("classes", "ages")
    }
    both |= {"classes": CLASSES, "ages": None}
    both["views"] = np.repeat(["PA", "AP"], 200)
    both["logits"] = both["logits"] + rng.normal(size=both["logits"].shape) * 0.05
    paired = by_group.judge(both)["view"]["gaps"]["auroc/b"]
    both["patients"] = np.arange(400).astype(str)
    apart = by_group.judge(both)["view"]["gaps"]["auroc/b"]
    assert paired["value"] == pytest.approx(apart["value"])
    assert paired["high"] - paired["low"] < (apart["high"] - apart["low"]) / 2


def test_fewer_than_five_patients_have_a_reason_and_no_number():
    test = make(np.random.default_rng(4), n=100, images=3)
    test["labels"][test["sexes"] == "F"] = 0
    few = np.flatnonzero((test["sexes"] == "F") & (test["patients"].astype(int) < 8))
    test["labels"][few] = 1  # 4 women, 12 images
    found = by_group.judge(test)["sex"]
    for name in ("auroc/a", "auroc/b", "auroc_macro"):
        entry = found["groups"]["F"]["metrics"][name]
        assert entry["value"] is entry["low"] is None
        assert (
            entry["reason"].startswith("4 patients ")
            and "5 are needed" in entry["reason"]
        )
    assert found["groups"]["F"]["metrics"]["accuracy"]["value"] is not None
    assert found["groups"]["M"]["metrics"]["auroc_macro"]["value"] is not None
    assert found["gaps"]["auroc_macro"]["value"] is None
    assert "fewer than two groups" in found["gaps"]["auroc_macro"]["reason"]


def test_the_macro_is_over_the_classes_that_all_groups_have():
    rng = np.random.default_rng(5)
    n = 300
    labels = rng.integers(0, 2, (n, 3)).astype(np.float32)
    sexes = np.array(["F", "M"])[np.arange(n) % 2]
    labels[sexes == "F", 1] = 0
    labels[:4, 2] = np.nan
    test = {
        "labels": labels,
        "logits": rng.normal(size=(n, 3))
        + labels.clip(0, 1) * 0
        + labels[:, [0, 0, 0]],
        "classes": ("x", "y", "z"),
        "patients": np.arange(n).astype(str),
        "sexes": sexes,
        "sources": np.full(n, ""),
        "views": np.full(n, ""),
    }
    test["logits"] = np.nan_to_num(test["logits"])
    found = by_group.judge(test)["sex"]
    assert found["classes"] == ["x", "z"]
    entry = found["groups"]["M"]["metrics"]
    mean = (entry["auroc/x"]["value"] + entry["auroc/z"]["value"]) / 2
    assert entry["auroc_macro"]["value"] == pytest.approx(mean)
    assert entry["auroc/y"]["value"] is not None  # told for those who have it
    assert found["groups"]["F"]["metrics"]["auroc/y"]["value"] is None
    assert "accuracy" not in entry


def test_bands_of_age():
    ages = np.array(
        ["", "0", "0.5", "17.9", "18", "39", "40", "59", "60", "79", "80", "95"]
    )
    assert by_group.bands(ages).tolist() == [
        *("", "0-17", "0-17", "0-17", "18-39", "18-39", "40-59", "40-59"),
        *("60-79", "60-79", "80+", "80+"),
    ]


def test_many_sites_are_left_out_and_counted():
    rng = np.random.default_rng(6)
    test = make(rng, n=600)
    test["sources"] = np.array([f"s{i}" for i in np.minimum(np.arange(600) // 55, 10)])
    found = by_group.judge(test)["site"]
    assert len(found["groups"]) == 8 and found["left_out"] == 3
    assert found["gaps"]["auroc/b"]["pairs"] == 28


def test_the_interval_is_wider_by_the_number_of_pairs():
    """Bonferroni: the largest of six pairs has the limits of 1 - 0.05 / 6."""
    a, b = Score(0.8, 0.7, 0.88), Score(0.6, 0.5, 0.7)
    none = np.array([], str)
    one = by_group.difference(a, none, b, none)
    half = np.hypot(0.1, 0.1), np.hypot(0.08, 0.1)  # the distances to the limits
    assert one["low"] == pytest.approx(0.2 - half[0])
    assert one["high"] == pytest.approx(0.2 + half[1])
    six = by_group.difference(a, none, b, none, pairs=6)
    wider = norm.ppf(1 - 0.025 / 6) / norm.ppf(0.975)
    assert six["low"] == pytest.approx(0.2 - wider * half[0])
    assert six["high"] == pytest.approx(0.2 + wider * half[1])
    test = make(np.random.default_rng(7), n=240, shift=(1.0,) * 4, groups=tuple("abcd"))
    gap = by_group.judge(test)["sex"]["gaps"]["auroc/b"]
    assert gap["pairs"] == 6
    entries = by_group.judge(test)["sex"]["groups"]
    high, low = (entries[name]["metrics"]["auroc/b"] for name in gap["of"])
    down = np.hypot(high["value"] - high["low"], low["high"] - low["value"])
    assert gap["value"] - gap["low"] == pytest.approx(wider * down)


def test_a_gap_by_hand():
    """Zou and Donner 2008, of independent groups: distances add as squares."""
    a, b = Score(0.8, 0.7, 0.85), Score(0.6, 0.5, 0.75)
    one = by_group.difference(a, np.array([]), b, np.array([]))
    assert one["value"] == pytest.approx(0.2)
    assert one["low"] == pytest.approx(0.2 - np.hypot(0.1, 0.15))
    assert one["high"] == pytest.approx(0.2 + np.hypot(0.05, 0.1))
    three = by_group.difference(a, np.array([]), b, np.array([]), pairs=3)
    wider = norm.ppf(1 - 0.025 / 3) / norm.ppf(0.975)
    assert three["low"] == pytest.approx(0.2 - wider * np.hypot(0.1, 0.15))
    assert three["high"] == pytest.approx(0.2 + wider * np.hypot(0.05, 0.1))
    far = by_group.difference(
        Score(0, 0, 0.9), np.array([]), Score(1, 0.1, 1), np.array([])
    )
    assert far["low"] == -1 and -1 < far["high"] < 1
    far = by_group.difference(
        Score(1, 0.1, 1), np.array([]), Score(0, 0, 0.9), np.array([])
    )
    assert far["high"] == 1 and -1 < far["low"] < 1


def test_patients_in_both_groups_correlate_by_their_influences():
    people, others = np.array(["p", "q", "r"]), np.array(["q", "r", "s"])
    a = Score(0.8, 0.7, 0.9, sums=np.array([2.0, 1.0, -2.0]))
    assert by_group.correlation(a, people, a, people) == pytest.approx(1)
    b = Score(0.6, 0.4, 0.8, sums=np.array([3.0, 0.0, 4.0]))
    assert by_group.correlation(a, people, b, others) == pytest.approx(3 / (3 * 5))
    assert by_group.correlation(a, people, b, np.array(["x", "y", "z"])) == 0
    same = by_group.difference(a, people, a._replace(low=0.75), people)
    assert same["high"] - same["value"] == pytest.approx(0.05)  # 0.1 - 0.05


def test_five_patients_are_enough():
    labels = np.array([1, 0] * 5)
    part = {"labels": labels, "patients": np.arange(10).astype(str)}
    every = np.ones(10, bool)
    assert by_group.lacking(part, every, ["a", "b"]) == {}
    every[0] = False
    assert by_group.lacking(part, every, ["a", "b"]) == {
        "a": "4 patients without a; 5 are needed",
        "b": "4 patients with b; 5 are needed",
    }
