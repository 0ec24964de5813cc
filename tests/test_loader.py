import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigxfer.data.loader import Loader, prefetch


def loader(rows, batch, seed=0, process=0, of=1, n=40):
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] + np.zeros(
        (1, 2, 2, 1), np.uint8
    )
    return Loader(
        images, np.arange(n) * 10, np.asarray(rows), batch, seed, (process, of)
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 99))
def test_the_stream_is_one_permutation_after_the_other(n, batch, seed):
    rows = np.random.default_rng(seed).choice(40, n, replace=False)
    steps = -(-3 * n // batch)
    mine = loader(rows, batch, seed)
    stream = np.concatenate([mine.batch(s)["index"] for s in range(steps)])
    for epoch in range(3):
        part = stream[epoch * n : (epoch + 1) * n]
        expected = np.random.default_rng([seed, epoch]).permutation(n)
        np.testing.assert_array_equal(part, rows[expected])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.sampled_from([2, 3, 4]))
def test_processes_share_the_global_batch_in_order(n, share, count):
    batch, rows = share * count, np.arange(n)
    whole = loader(rows, batch)
    parts = [loader(rows, batch, process=p, of=count) for p in range(count)]
    for step in (0, 7, 2):  # in any order: it is a function of the step
        want = whole.batch(step)
        got = [part.batch(step) for part in parts]
        for key in want:
            np.testing.assert_array_equal(
                np.concatenate([g[key] for g in got]), want[key]
            )
    assert want["position"].tolist() == list(range(batch))


def test_a_batch_holds_what_its_rows_hold():
    batch = loader([3, 5, 8], 4, seed=1).batch(2)
    assert batch["images"].dtype == np.uint8 and batch["mask"].dtype == np.float32
    assert batch["index"].dtype == batch["position"].dtype == np.int32
    np.testing.assert_array_equal(batch["images"][:, 0, 0, 0], batch["index"])
    np.testing.assert_array_equal(batch["labels"], batch["index"] * 10)
    assert set(batch["index"]) <= {3, 5, 8} and batch["mask"].tolist() == [1] * 4


@pytest.mark.parametrize("n, batch, count", [(10, 4, 1), (10, 4, 2), (3, 8, 4)])
def test_evaluation_covers_each_row_once(n, batch, count):
    rows = np.arange(n) + 7
    seen, shapes = [], []
    for p in range(count):
        for part in loader(rows, 4, process=p, of=count).eval_batches(batch):
            seen += part["index"][part["mask"] > 0].tolist()
            shapes.append((p, part["images"].shape))
    assert sorted(seen) == rows.tolist()
    assert len({shape for _, shape in shapes}) == 1
    assert len({[p for p, _ in shapes].count(q) for q in range(count)}) == 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        loader([], 4)
    with pytest.raises(ValueError, match="5 cannot be shared by 2"):
        loader([1], 5, of=2)


def test_prefetch_gives_the_same_batches():
    mine = loader(np.arange(20), 8)
    for step, batch in enumerate(prefetch(mine, 3, 9), 3):
        np.testing.assert_array_equal(batch["index"], mine.batch(step)["index"])
    assert step == 8 and list(prefetch(mine, 3, 3)) == []


def test_prefetch_counts_the_waiting():
    class Slow(Loader):
        def batch(self, step):
            time.sleep(0.05)
            return super().batch(step)

    mine = loader(np.arange(20), 8)
    mine.__class__ = Slow
    batches = prefetch(mine, 0, 4)
    assert len(list(batches)) == 4 and 0.1 < batches.waited < 5
    batches = prefetch(mine, 0, 4, busy=lambda: True)  # with a step, all the while
    assert len(list(batches)) == 4 and batches.waited == 0
    batches = prefetch(mine, 0, 2)
    time.sleep(0.5)
    assert len(list(batches)) == 2 and batches.waited < 0.1


def test_prefetch_passes_errors_on_and_ends_its_thread():
    class Broken(Loader):
        def batch(self, step):
            if step == 2:
                raise RuntimeError("the disk is gone")
            return super().batch(step)

    mine = loader(np.arange(20), 8)
    mine.__class__ = Broken
    batches = prefetch(mine, 0, 9)
    assert next(batches) and next(batches)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(batches)
    assert not batches.thread.is_alive()
    left = prefetch(loader(np.arange(20), 8), 0, 10**9)
    next(left)
    thread = left.thread
    del left  # nobody reads on: the thread ends by itself
    thread.join(5)
    assert not thread.is_alive() and threading.active_count() < 20


def test_a_loader_checks_its_sizes_and_keeps_two_epochs():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    with pytest.raises(ValueError, match="3 images, 4 labels"):
        Loader(images, np.zeros(4), np.arange(3), 2, 0)
    with pytest.raises(ValueError, match="batch of 0"):
        Loader(images, np.zeros(3), np.arange(3), 0, 0)
    mine = loader(np.arange(6), 3)
    for step in range(8):
        mine.batch(step)
    assert len(mine) == 6 and sorted(mine.epochs) == [2, 3]


def test_padding_repeats_the_first_row():
    (batch,) = loader([7, 9, 8], 4).eval_batches(5)
    assert batch["index"].tolist() == [7, 9, 8, 7, 7]
    assert batch["mask"].tolist() == [1, 1, 1, 0, 0]
