from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigxfer.config import ConfigError, Data, Run, resolve
from bigxfer.data import split
from bigxfer.data.manifest import Manifest


def manifest(patients, labels, splits="", classes=3):
    n = len(patients)
    ids = [f"i{k}" for k in range(n)]
    splits = [splits] * n if isinstance(splits, str) else splits
    names = tuple(f"c{k}" for k in range(classes))
    labels, patients = np.asarray(labels), [str(p) for p in patients]
    blank = [""] * n
    return Manifest(
        "toy", "/r", names, labels, ids, ids, patients, blank, blank, splits
    )


def random_manifest(seed, n, people, multilabel=False):
    rng = np.random.default_rng(seed)
    if multilabel:
        labels = rng.choice([0, 1, np.nan], (n, 3), p=[0.6, 0.2, 0.2])
    else:
        labels = rng.integers(0, 3, n)
    return manifest(rng.integers(0, people, n), labels)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(60, 200), st.integers(20, 60), st.booleans())
def test_a_random_split_keeps_patients_together_whatever_the_order(seed, n, p, multi):
    m = random_manifest(seed, n, p, multi)
    data = Data(split="patient", valid=0.2, test=0.2, split_seed=seed % 7)
    out = split.assign(m, data)
    assert split.check(out) == []
    assert set(out.split) == {"train", "valid", "test"}
    order = np.random.default_rng(seed).permutation(n)
    again = split.assign(m.select(order), data)
    assert (again.split == out.split[order]).all()
    everyone = len(set(m.patient))
    count = {s: len(set(m.patient[out.split == s])) for s in set(out.split)}
    assert abs(count["test"] - 0.2 * everyone) <= 1
    assert abs(count["valid"] - 0.2 * (everyone - count["test"])) <= 1
    assert out.notes["split"]["test"]["patients"] == count["test"]


def test_each_class_gets_its_share_where_a_patient_has_one_image():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    out = split.assign(
        manifest(range(1000), labels), Data(split="patient", valid=0.1, test=0.15)
    )
    for label, n in enumerate([700, 200, 100]):
        mine = out.split[labels == label]
        assert abs((mine == "test").sum() - 0.15 * n) <= 1
        assert abs((mine == "valid").sum() - 0.1 * 0.85 * n) <= 1.5


def test_another_seed_splits_otherwise():
    m = random_manifest(0, 100, 50)
    a, b = (
        split.assign(m, Data(split="patient", split_seed=s)).split.tolist()
        for s in (0, 1)
    )
    assert a != b


def test_official_is_kept_and_a_validation_carved_out_of_the_training_patients():
    splits = ["train"] * 80 + ["test"] * 20 + [""] * 5
    m = manifest([k // 2 for k in range(100)] + [90, 91, 92, 93, 94], [0] * 105, splits)
    out = split.assign(m, Data(valid=0.1))
    assert len(out) == 100 and out.notes["split"]["dropped"] == 5
    assert (out.split[80:] == "test").all()
    assert out.notes["split"]["valid"] == {"images": 8, "patients": 4}
    assert split.check(out) == [] and "leaks" not in out.notes
    assert "valid" not in split.assign(m, Data(valid=0.0)).split


def test_an_official_validation_split_is_left_alone():
    splits = ["train"] * 50 + ["valid"] * 10
    out = split.assign(manifest(range(60), [0] * 60, splits), Data(valid=0.5))
    assert out.split.tolist() == splits


def test_an_official_split_that_leaks_says_so():
    splits = ["train", "test", "train", "valid"]
    out = split.assign(manifest([7, 7, 8, 9], [0] * 4, splits), Data())
    assert out.notes["leaks"] == {"patients": 1, "first": ["7"]}


@pytest.mark.parametrize(
    "splits, word",
    [("", "split=patient"), ("val", "'val' is none"), ("test", "split=patient")],
)
def test_no_official_split_is_an_error(splits, word):
    with pytest.raises(ValueError, match=word):
        split.assign(manifest([1, 2, 3], [0, 1, 2], splits), Data())


def test_too_few_patients_is_an_error():
    with pytest.raises(ValueError, match="too few to hold out .* are of one, '1'"):
        split.assign(manifest([1, 1, 1], [0, 1, 2]), Data(split="patient"))
    with pytest.raises(
        ValueError, match=r"2 patients are too few .*\(--config.data.test\)$"
    ):
        split.assign(manifest([1, 2, 1], [0, 1, 2]), Data(split="patient", test=0.1))


def test_folds_part_the_patients_evenly():
    m = random_manifest(3, 200, 40)
    fold = split.folds(m, 5, seed=1)
    people = len(set(m.patient))
    sizes = [len(set(m.patient[fold == k])) for k in range(5)]
    assert sum(sizes) == people and max(sizes) - min(sizes) <= 1
    with pytest.raises(ValueError, match="cannot be made"):
        split.folds(m, people + 1, seed=1)


def test_the_folds_of_a_config_are_its_test_splits():
    m = random_manifest(3, 200, 40)
    seen = []
    for fold in range(4):
        data = Data(split="patient", folds=4, fold=fold, valid=0.2, split_seed=1)
        out = split.assign(m, data)
        assert split.check(out) == [] and "valid" in out.split
        seen += m.id[out.split == "test"].tolist()
    assert sorted(seen) == sorted(m.id)


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"folds": 3, "fold": 3}])
def test_impossible_folds_are_an_error(wrong):
    with pytest.raises(ConfigError, match="fold lies in"):
        resolve(Run(data=Data(split="patient", **wrong)))


def test_folds_need_a_random_split():
    with pytest.raises(ConfigError, match="split=patient"):
        resolve(Run(data=Data(folds=3)))


def test_the_predecessors_tuberculosis_split_is_given_back():
    """Its own procedure, step by step: a list of files, shuffled, cut at 85%."""
    files = {
        "shenzhen": [f"CHNCXR_{k:04d}_{k % 2}.png" for k in range(1, 663)],
        "montgomery": [f"MCUCXR_{k:04d}_{k % 2}.png" for k in range(1, 139)],
    }
    train = set()
    for names in files.values():
        names = list(names)
        np.random.RandomState(42).shuffle(names)
        train |= set(names[: int(len(names) * 0.85)])
    ids = files["shenzhen"] + files["montgomery"]
    sources = ["shenzhen"] * 662 + ["montgomery"] * 138
    blank = [""] * 800
    m = Manifest(
        "tuberculosis", "/r", ("n", "t"), np.zeros(800, int), ids, ids, ids, sources,
        blank, blank,
    )  # fmt: skip
    out = split.assign(m, Data(split="reference", valid=0.0))
    assert set(m.id[out.split == "train"]) == train and len(train) == 562 + 117
    assert (out.split == "test").sum() == 121 and "leaks" not in out.notes


def test_padchests_reference_split_leaks_and_says_so():
    m = replace(random_manifest(5, 300, 60), name="padchest")
    out = split.assign(m, Data(split="reference", valid=0.0))
    assert (out.split == "test").sum() == 30
    assert out.notes["leaks"]["patients"] == len(split.check(out)) > 0
    assert out.notes["split"]["kind"] == "reference"


def test_other_sets_have_no_reference_split():
    with pytest.raises(ValueError, match="toy has no reference split .*padchest"):
        split.assign(random_manifest(0, 10, 5), Data(split="reference"))


@pytest.mark.parametrize("multilabel", [False, True])
def test_rows_by_label_are_the_columns_of_positives(multilabel):
    m = random_manifest(2, 50, 20, multilabel)
    order = np.random.default_rng(0).permutation(50)[:40]
    for column, rows in zip(
        split.positives(m).T, split.by_label(m, order), strict=True
    ):
        assert rows.tolist() == [r for r in order if column[r]]


def test_rows_are_dropped_only_where_an_official_list_leaves_them_out():
    m = random_manifest(1, 90, 40)
    for data in (Data(split="patient"), Data(split="patient", folds=3)):
        out = split.assign(m, data)
        assert out.notes["split"]["dropped"] == 0 and len(out) == 90
    whole = split.assign(replace(m, split=np.full(90, "train", object)), Data())
    assert whole.notes["split"]["dropped"] == 0


def test_leaks_are_all_counted_and_ten_are_named():
    splits = ["train", "test"] * 12
    out = split.assign(manifest(np.arange(24) // 2, [0] * 24, splits), Data(valid=0.0))
    names = sorted(str(k) for k in range(12))
    assert out.notes["leaks"] == {"patients": 12, "first": names[:10]}


@pytest.mark.parametrize(
    "people, share, held", [(37, 0.2, 7), (38, 0.2, 8), (13, 0.5, 7), (6, 0.25, 2)]
)
def test_the_share_held_out_is_rounded_to_the_nearest_patient(people, share, held):
    out = split.assign(
        manifest(range(people), [0] * people),
        Data(split="patient", test=share, valid=0.0),
    )
    assert (out.split == "test").sum() == held


def test_two_folds_are_the_fewest_and_one_a_patient_the_most():
    m = manifest(range(4), [0, 1, 0, 1])
    assert np.bincount(split.folds(m, 2, 0)).tolist() == [2, 2]
    assert sorted(split.folds(m, 4, 0)) == [0, 1, 2, 3]
    for k in (0, 1, 5):
        with pytest.raises(ValueError, match="cannot be made"):
            split.folds(m, k, 0)
