"""A data set is opened once a worker, and comes out as if opened anew."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_seen import csv_set

from bigxfer import durable
from bigxfer.config import Data
from bigxfer.data import dataset, readers
from bigxfer.runs import job
from launch import worker


@pytest.fixture
def data(tmp_path):
    root = str(csv_set(tmp_path / "set", 1, "u"))
    cache = str(tmp_path / "cache")
    return Data(reader="csv", root=root, views=(), resize=40, crop=32, cache=cache)


@pytest.fixture
def reads(monkeypatch):
    """The roots that the readers were asked for."""
    asked, real = [], readers.read
    monkeypatch.setattr(
        dataset.readers, "read", lambda d: asked.append(d.root) or real(d)
    )
    return asked


def test_draws_of_one_set_open_it_once_and_are_those_of_a_fresh_one(data, reads):
    wanted = [(replace(data, shots="1"), 0), (replace(data, shots="2"), 1), (data, 2)]
    fresh = [dataset.open(d, seed, print) for d, seed in wanted]
    reads.clear()
    kept = {}
    again = [dataset.open(d, seed, print, kept) for d, seed in wanted]
    assert len(reads) == 1
    for a, b in zip(fresh, again, strict=True):
        assert a.report == b.report
        for name in a.rows:
            np.testing.assert_array_equal(a.rows[name], b.rows[name])
    dataset.open(replace(data, split="patient"), 0, print, kept)
    assert len(reads) == 2 and len(kept) == 2  # another split is another set


def test_the_oldest_sets_go_where_they_are_many(data, reads, monkeypatch):
    monkeypatch.setattr(dataset, "KEPT", 50)  # rows; a set has 24
    kept, first, second = {}, data, replace(data, split="patient")
    for d in (first, second, first, replace(data, split="patient", split_seed=1)):
        dataset.open(d, 0, print, kept)
    assert len(reads) == 3 and len(kept) == 2
    dataset.open(first, 0, print, kept)
    assert len(reads) == 3
    dataset.open(second, 0, print, kept)
    assert len(reads) == 4


def test_a_worker_opens_a_target_once(data, reads, tmp_path, monkeypatch):
    """Its cache node, and two runs, whose training is left out here."""

    def execute(run, folder, stop, shared, kept):
        dataset.open(run.data, run.seed, print, kept)

    monkeypatch.setattr(job, "execute", execute)
    monkeypatch.setattr(durable, "write_json", lambda *_: None)
    kept = {}
    for seed, kind in enumerate(["cache", "transfer", "transfer"]):
        run = SimpleNamespace(data=replace(data, shots="1"), seed=seed)
        node = SimpleNamespace(
            kind=kind, run=run, digest=str(seed), needs=(), folder=lambda runs: runs
        )
        worker.perform(node, tmp_path, None, {}, kept)
    assert len(reads) == 1


def own_images(root, labels):
    """A csv set of noise with views, a column that is not read, and a page of text."""
    root.mkdir()
    lines = ["file,label,patient_id,view,height"]
    for k, label in enumerate(labels):
        lines.append(f"{k}.png,{label},p{k},{'PL'[k % 5 == 4]}{'A' * (k % 5 != 4)},7")
        noise = np.random.default_rng(k).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(noise).save(root / f"{k}.png")
    (root / "metadata.csv").write_text("\n".join(lines))
    return str(root)


def test_what_is_left_out_is_said_with_its_count(data, tmp_path):
    said = []
    root = own_images(tmp_path / "own", "ab" * 10 + "c")
    (tmp_path / "own" / "3.png").write_text("no image")
    mine = replace(data, root=root, views=("PA",), split="patient", max_bad=0.2)
    found = dataset.open(mine, 0, said.append)
    for line in (
        "csv: columns that are not read left out: 1 (height)",
        "csv: images of other views than PA (L 4) left out: 4",
        "csv: images that do not decode left out: 1",
    ):
        assert said.count(line) == 1
    assert sum(map(len, found.rows.values())) == 21 - 4 - 1
    (tmp_path / "own" / "20.png").write_text("no image")  # the only one of class c
    with pytest.raises(ValueError, match="do not decode no image of 'c' is left"):
        dataset.open(mine, 0, said.append)
