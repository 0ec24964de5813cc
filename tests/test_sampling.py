"""Oversampling, COVID-Net's batches and mixing weights: frequencies and purity."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_split import manifest, random_manifest

from bigxfer.config import ConfigError, Data
from bigxfer.data.loader import Loader
from bigxfer.data.sampling import Sampling, choose

NONE = np.zeros(0, int)


def loader(train, sampling, batch, seed=0, process=0, of=1):
    n = len(train)
    images = np.zeros((n, 1, 1, 1), np.uint8)
    return Loader(
        images, train.labels, np.arange(n), batch, seed, (process, of), sampling
    )


def skewed(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return manifest(range(len(labels)), labels, classes=len(sizes))


def frequencies(train, sampling, batch, steps):
    mine = loader(train, sampling, batch)
    index = np.concatenate([mine.batch(s)["index"] for s in range(steps)])
    return np.bincount(index, minlength=len(train)) / len(index)


def test_classes_come_equally_often_and_images_of_a_class_too():
    sizes = (160, 30, 10)
    train = skewed(sizes)
    sampling = choose(train, NONE, Data(sampling="classes"))
    found = frequencies(train, sampling, 50, 2000)  # 100,000 draws
    expected = np.repeat([1 / 3 / n for n in sizes], sizes)
    np.testing.assert_allclose(sampling.weights, expected)
    sigma = np.sqrt(expected / 1e5)
    assert (abs(found - expected) < 5 * sigma).all()
    # torch's WeightedRandomSampler takes unnormalised weights N / n_c: the same
    raw = 200 / np.bincount(train.labels)[train.labels]
    np.testing.assert_allclose(sampling.weights, raw / raw.sum())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["classes", "covid_percent"]),
    st.integers(0, 99),
)
def test_a_batch_is_a_function_of_the_step_on_any_number_of_processes(b, of, kind, s):
    train = skewed((20, 9, 12))
    sampling = choose(train, NONE, Data(sampling=kind, sampling_share=0.25))
    whole = loader(train, sampling, b * of, s)
    parts = [loader(train, sampling, b * of, s, p, of) for p in range(of)]
    want = {step: whole.batch(step)["index"] for step in range(9)}
    for step in (7, 0, 8, 3):  # another order, other processes, another object
        got = [part.batch(step)["index"] for part in parts]
        np.testing.assert_array_equal(np.concatenate(got), want[step])


@pytest.mark.parametrize("batch, count", [(8, 2), (32, 9), (64, 19), (2, 1)])
def test_covid_percent_is_that_of_covid_net(batch, count):
    """int(batch * 0.3) in every batch, none twice in it; the share in facts: 25%
    of 8, 28.1% of 32, 29.7% of 64; and never less than one."""
    train = skewed((70, 50, 25))
    sampling = choose(train, NONE, Data(sampling="covid_percent"))
    mine = loader(train, sampling, batch)
    positions = np.zeros(batch)
    for step in range(60):
        index = mine.batch(step)["index"]
        rare = train.labels[index] == 2
        assert rare.sum() == count == len(set(index[rare]))
        positions += rare
    if batch == 8:  # no position is preferred: 60 batches, 15 each
        assert abs(positions - 15).max() < 5 * np.sqrt(60 * 0.25 * 0.75)


def test_the_three_bugs_of_covid_net_are_not_here():
    train = skewed((60, 41, 8))
    mine = loader(train, choose(train, NONE, Data(sampling="covid_percent")), 8, seed=3)
    batches = [mine.batch(step) for step in range(26)]
    # 1: the last batch of the 101 others is a whole one of real images
    assert {len(b["index"]) for b in batches} == {8}
    assert all((b["labels"] == train.labels[b["index"]]).all() for b in batches)
    # 2: the next epoch comes in another order
    orders = [mine.order(epoch).tolist() for epoch in (0, 1)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    # the others are read once an epoch; those a rare image displaced are passed over
    seen = np.concatenate([b["index"] for b in batches])[:101]
    others = seen[train.labels[seen] < 2]
    assert len(others) == len(set(others)) > 60
    # 3 is the readers': the label is the token that is one (test_readers_covidx)


def test_the_rare_class_is_the_rarest_or_the_one_named():
    train = skewed((5, 30, 20))
    data = Data(sampling="covid_percent")
    assert choose(train, NONE, data).rare.sum() == 5
    named = choose(train, NONE, replace(data, sampling_class="c2"))
    assert named.rare.sum() == 20 and (train.labels[named.rare] == 2).all()
    with pytest.raises(ConfigError, match="no class 'c9'.*c0, c1, c2"):
        choose(train, NONE, replace(data, sampling_class="c9"))
    with pytest.raises(ConfigError, match="there must be others"):
        choose(skewed((9,)), NONE, data)
    greedy = choose(train, NONE, replace(data, sampling_share=0.9))
    with pytest.raises(ValueError, match="28 images of the rare class.* only 5"):
        loader(train, greedy, 32)


def test_sets_are_mixed_by_their_weights():
    train = skewed((40, 10, 50))
    member = np.repeat([0, 1], [50, 50])
    data = Data(reader="nih+mimic", mix=(3.0, 1.0))
    found = frequencies(train, choose(train, member, data), 50, 1000)
    assert found[:50].sum() == pytest.approx(0.75, abs=0.01)
    even = choose(train, member, data).weights
    np.testing.assert_allclose(even, np.repeat([0.015, 0.005], 50))
    both = choose(train, member, replace(data, sampling="classes")).weights
    want = np.repeat([0.375 / 40, 0.375 / 10, 0.25 / 50], [40, 10, 50])
    np.testing.assert_allclose(both, want)
    with pytest.raises(ConfigError, match="no training image is left of mimic"):
        choose(train, np.zeros(100, int), data)


def test_what_samplings_leave_alone():
    train = skewed((9, 3))
    assert choose(train, NONE, Data()) == Sampling()
    assert choose(train, NONE, Data(sampling="classes", shots="3")) == Sampling()
    multi = random_manifest(0, 30, 10, multilabel=True)
    with pytest.raises(ConfigError, match="multi-label; set it to uniform"):
        choose(multi, NONE, Data(sampling="classes"))
    mine = loader(train, choose(train, NONE, Data(sampling="classes")), 4)
    seen = np.concatenate([b["index"][b["mask"] > 0] for b in mine.eval_batches(5)])
    assert seen.tolist() == list(range(12))  # evaluation: each once


def test_a_class_of_one_image_may_be_the_rare_one():
    data = Data(sampling="covid_percent")
    assert choose(skewed((9, 1, 0)), NONE, data).rare.tolist() == [False] * 9 + [True]
    assert (
        choose(skewed((0, 2, 2)), NONE, data).rare.tolist() == [True] * 2 + [False] * 2
    )
    whole = choose(skewed((5, 30)), NONE, replace(data, sampling_share=5 / 8))
    assert loader(skewed((5, 30)), whole, 8).rare_in_batch == 5  # all five, no more
