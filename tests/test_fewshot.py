import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_split import manifest, random_manifest

from bigxfer.config import Data
from bigxfer.data import dataset, fewshot, split


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 5))
def test_draws_are_nested_exact_and_blind_to_the_order(seed, multilabel, shots):
    m = random_manifest(seed, 150, 50, multilabel)
    negatives = ("shots", "share", "none")[seed % 3]
    rows = fewshot.draw(m, shots, seed, negatives)
    more = fewshot.draw(m, shots + 1, seed, negatives)
    assert set(rows) < set(more) and len(set(rows)) == len(rows)
    have = fewshot.counts(m, rows)
    if multilabel:
        assert min(have.values()) >= shots
        clean = fewshot.without_finding(m.labels[rows])
        assert len(rows[~clean]) <= 3 * shots
        alone = fewshot.draw(m, shots, seed, "none")
        assert rows[~clean].tolist() == alone.tolist()
    else:
        assert set(have.values()) == {shots}
    order = np.random.default_rng(seed).permutation(len(m))
    shuffled = m.select(order)
    again = fewshot.draw(shuffled, shots, seed, negatives)
    assert shuffled.id[again].tolist() == m.id[rows].tolist()


def test_every_image_is_drawn_equally_often():
    m = manifest(range(30), np.repeat([0, 1, 2], 10))
    times = np.zeros(30)
    for seed in range(600):
        times[fewshot.draw(m, 2, seed)] += 1
    assert times.sum() == 600 * 6
    assert abs(times - 120).max() < 5 * np.sqrt(600 * 0.2 * 0.8)


def test_overshoot_is_counted():
    labels = [[1, 1, 0], [1, 0, 1], [1, 0, 0]]
    m = manifest(range(3), np.array(labels, float))
    rows = fewshot.draw(m, 1, 0)  # there is no image without a finding
    assert rows.tolist() == [0, 1]
    assert fewshot.counts(m, rows) == {"c0": 2, "c1": 1, "c2": 1}


def test_images_without_a_finding_are_drawn():
    """As many as shots, or as many as their share of the training split, or none."""
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 4)) < 0.15).astype(float)
    labels[rng.random((400, 4)) < 0.2] = np.nan
    labels[:9] = np.nan  # of these nobody knows anything
    m = manifest(range(400), labels, classes=4)
    clean = fewshot.without_finding(m.labels)
    assert not clean[:9].any() and 0.4 < clean.mean() < 0.7
    sick = (m.labels == 1).any(axis=1)
    for seed in range(5):
        for shots in (1, 5, 10):
            have = {
                how: clean[fewshot.draw(m, shots, seed, how)]
                for how in ("shots", "share", "none")
            }
            assert have["shots"].sum() == shots and have["none"].sum() == 0
            share = clean.sum() / (clean.sum() + sick.sum())
            positives = (~have["share"]).sum()
            assert have["share"].sum() == round(positives * share / (1 - share))
    assert clean[fewshot.draw(m, 5, 0)].sum() == 5  # the default
    few = m.select(np.flatnonzero(sick | (np.arange(400) == np.flatnonzero(clean)[0])))
    assert fewshot.without_finding(few.labels[fewshot.draw(few, 5, 0)]).sum() == 1


def test_the_run_says_how_many_have_no_finding():
    labels = np.array([[1, 0], [0, 1], [0, 0], [0, 0], [np.nan, np.nan]] * 4)
    m = replace(
        manifest(range(20), labels, classes=2), split=np.full(20, "train", object)
    )
    rows, said = dataset.drawn(m, np.arange(20), Data(shots="2"), 0)
    want = {"negatives": "shots", "drawn": 2, "in_training": 8}
    assert said["without_finding"] == want and len(rows) == 6


def test_a_short_class_is_named_with_its_count():
    with pytest.raises(ValueError, match="3 shots.* has 2 images of class 'c2'"):
        fewshot.draw(manifest(range(8), [0, 0, 0, 1, 1, 1, 2, 2]), 3, 0)


def test_a_draw_of_21_thousand_classes_fits_in_memory():
    """ImageNet-21k's labels as an [n, classes] table would be 0.5 GB here."""
    n, classes = 25_000, 21_841
    m = manifest(range(n), np.arange(n) % classes, classes=classes)
    tracemalloc.start()
    rows = fewshot.draw(m, 1, 0)
    out = split.assign(m, Data(split="patient"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(m.labels[rows]) == list(range(classes))
    assert split.check(out) == [] and peak < 200e6


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["images", "patients"]),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
)
def test_fractions_are_nested_exact_and_blind_to_the_order(seed, of, a, b):
    m = random_manifest(seed, 120, 40)
    small, large = (fewshot.fraction(m, s, of, seed) for s in sorted((a, b)))
    assert set(small) <= set(large) and (np.diff(large) > 0).all()
    people = set(m.patient)
    if of == "patients":  # whole patients: nobody is cut in two
        kept = set(m.patient[large])
        assert len(kept) == max(round(max(a, b) * len(people)), 1)
        assert set(large) == set(np.flatnonzero(np.isin(m.patient, list(kept))))
    else:
        assert len(large) == max(round(max(a, b) * 120), 1)
    order = np.random.default_rng(seed).permutation(120)
    again = fewshot.fraction(m.select(order), max(a, b), of, seed)
    assert set(order[again]) == set(large)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from(["official", "patient"]),
    st.floats(0.3, 1.0),
    st.sampled_from(["full", "1", "2"]),
)
def test_no_split_or_draw_puts_a_patient_on_two_sides(seed, multi, kind, share, shots):
    m = random_manifest(seed, 200, 50, multi)
    if kind == "official":
        test = np.isin(m.patient, [str(p) for p in range(10)])
        m = replace(m, split=np.where(test, "test", "train"))
    data = Data(
        split=kind,
        split_seed=seed % 5,
        valid=0.2,
        fraction=share,
        fraction_of="patients" if seed % 2 else "images",
        shots=shots,
    )
    m = split.assign(m, data)
    sides = {s: np.flatnonzero(m.split == s) for s in ("train", "valid", "test")}
    sides["train"], _ = dataset.drawn(m, sides["train"], data, seed)
    people = [set(m.patient[rows]) for rows in sides.values()]
    assert all(people) and sum(map(len, people)) == len(set.union(*people))


def test_all_images_of_a_class_and_the_smallest_fraction():
    m = manifest(range(9), np.repeat([0, 1, 2], 3))
    assert fewshot.draw(m, 3, 0).tolist() == list(range(9))
    for of in ("images", "patients"):
        assert len(fewshot.fraction(m, 0.001, of, 0)) == 1
        assert len(fewshot.fraction(m, 0.5, of, 0)) == 4  # round(4.5), to even


def test_a_file_names_the_draw(tmp_path):
    m = manifest(range(5), [0, 1, 0, 1, 2])
    m = replace(m, path=np.array([f"x/{i}.png" for i in m.id], object))
    assert fewshot.support_file("s{seed}.txt", 7).name == "s7.txt"
    path = tmp_path / "s.txt"
    path.write_text("# ids or paths\n\ni3\nx/i0.png 1 0\n")
    assert fewshot.read_support(m, path).tolist() == [3, 0]
    for text, message in (
        ("i3\ni9 1\n", "line 2: 'i9 1' is neither"),
        ("# a\ni3\ni1\nx/i3.png\n", "line 4: 'x/i3.png' stands in line 2"),
        ("# a\n", "names no image"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            fewshot.read_support(m, path)
    with pytest.raises(FileNotFoundError, match="config.data.support"):
        fewshot.read_support(m, tmp_path / "none.txt")
