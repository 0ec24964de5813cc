"""Cells of runs: who stands in one, who stopped early, and what their predictions give."""

import numpy as np
import pytest
from make_run import predicted

from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import metrics
from bigxfer.statistics.limits import Score
from bigxfer.tables import cells
from bigxfer.tables.cells import PredictionReader

CLASSES = ("a", "b")


def row(folder="f", seed=0, source=None, **more):
    plain = {"folder": folder, "seed": seed, "upstream_seed": source, "family": "x"}
    return plain | {"target": "t", "steps": 10, "accuracy": 0.5} | more


def saved(seed=0, patients=20):
    """40 predictions; other numbers of patients are other test sets."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"i{k:02d}" for k in range(40)])
    people = np.array([f"p{k % patients}" for k in range(40)])
    none, labels = np.full(40, ""), np.arange(40) % 2
    logits = rng.normal(size=(40, 2)) + np.eye(2)[labels]
    return Predictions(ids, people, none, none, labels, logits, CLASSES)


class Folders(PredictionReader):
    """Predictions by folder, as if they were on disk."""

    def __init__(self, of, **how):
        super().__init__(**how)
        self.of, self.loads = of, []

    def load(self, folder):
        self.loads.append(folder)
        return self.of.get(folder)


def test_a_run_without_an_upstream_has_the_seed_minus_one():
    assert cells.seeds(row(seed=3)) == (-1, 3)
    assert cells.seeds(row(seed=3, source=0)) == (0, 3)


def test_runs_with_fewer_steps_than_most_of_their_cell_stopped_early():
    steps = [("t", 10), ("t", 10), ("t", 9), ("t", 11), ("u", 9), ("u", None)]
    rows = [row(target=t, steps=s) for t, s in steps]
    found = cells.stopped_early(rows, "target")
    assert [(r["target"], r["steps"], most) for r, most in found] == [("t", 9, 10)]


def test_a_cell_holds_runs_that_differ_in_seeds_alone():
    rows = [row("b", 1, 0), row("a", 0, 0), row("c", 0, 1), row("d", 0, target="u")]
    found = cells.group([*rows, row(accuracy=None)], "accuracy", "target")
    assert [r["folder"] for r in found["t",].values()] == ["a", "b", "c"]
    assert [*found["t",]] == [(0, 0), (0, 1), (1, 0)] and [*found["u",]] == [(-1, 0)]
    with pytest.raises(ValueError, match=r"e and a stand in one .*\(t\).* same seeds"):
        cells.group([*rows, row("e", 0, 0)], "accuracy", "target")
    with pytest.raises(ValueError, match="e and a stand in one cell.*other settings"):
        cells.group([*rows, row("e", 9, 9, family="y")], "accuracy", "target")


def test_samples_of_runs_are_on_the_same_resampled_patients():
    of = {"a": saved(0), "b": saved(1), "c": saved(2, patients=10)}
    reader = Folders(of, resamples=7, seed=3)
    samples, patients = reader.samples([row("a"), row("b")], "accuracy")
    assert samples.shape == (7, 2) and patients == 20
    for i, name in enumerate("ab"):
        one = of[name]
        args = one.labels, one.logits, list(CLASSES), one.patients
        want = metrics.resampled(*args, resamples=7, seed=3)["accuracy"]
        np.testing.assert_array_equal(samples[:, i], want)
    again, _ = reader.samples([row("b")], "accuracy")
    np.testing.assert_array_equal(again[:, 0], samples[:, 1])
    for others in ("c", "lost"):  # other patients, or none
        assert reader.samples([row("a"), row(others)], "accuracy") == (None, 0)
    assert reader.samples([row("a")], "no such metric") == (None, 0)
    assert Folders(of).samples([row("a")], "accuracy")[0].shape == (500, 1)


def test_scores_are_of_runs_on_the_same_images_and_each_is_read_once():
    of = {"a": saved(0), "b": saved(1), "c": saved(2, patients=10)}
    reader = Folders(of)
    a, b = reader.scores([row("a"), row("b")], "accuracy")
    for score, one in ((a, of["a"]), (b, of["b"])):
        args = one.labels, one.logits, CLASSES, one.patients
        assert score.value == metrics.scores(*args)["accuracy"].value
    both, lost = [row("a"), row("c")], [row("a"), row("lost")]
    assert reader.scores(both, "accuracy") is reader.scores(lost, "accuracy") is None
    assert (
        reader.apart(both) and not reader.apart(lost) and not reader.apart([row("a")])
    )
    assert [reader.patients([row(f)]) for f in ("a", "c", "lost")] == [20, 10, 0]
    assert reader.loads == ["a", "b", "c", "lost"]


def test_what_cannot_be_judged_is_named():
    bad = saved(0)
    bad.logits[3, 1] = np.nan
    reader = Folders({"bad": bad})
    assert reader.scores([row("bad")], "accuracy") is None
    assert reader.unreadable == [
        f"bad: the logits of row 3 are not finite: {bad.logits[3]}"
    ]


def test_predictions_are_in_the_order_of_the_ids(tmp_path):
    one, order = saved(0), np.random.default_rng(0).permutation(40)
    args = one.labels[order], one.logits[order], list(CLASSES), one.ids[order]
    predicted(tmp_path / "a", *args, one.patients[order])
    found = PredictionReader(lambda folder: tmp_path / folder).load("a")
    assert found.ids.tolist() == one.ids.tolist()
    np.testing.assert_allclose(found.logits, one.logits, rtol=1e-6)
    assert PredictionReader().load(str(tmp_path / "none")) is None


def test_of_many_patients_the_influences_are_kept_in_a_thousand_groups():
    def judge(*sizes):
        return {str(n): Score(0.5, sums=np.arange(n) + 1.0) for n in sizes}

    found = cells._grouped(judge, 1000, 1001, 2500)
    np.testing.assert_array_equal(found["1000"].sums, np.arange(1000) + 1.0)
    assert found["1001"].sums[:2].tolist() == [1 + 1001, 2] and len(found["2500"].sums)
    assert len(found["2500"].sums) == 1000 and found["2500"].sums[499] == 4500
    assert cells._grouped(lambda: {"x": Score(0.5)})["x"].sums is None


def test_words_for_folders_intervals_and_scales():
    assert cells.source([row("runs/ab")]) == "runs/ab"
    assert cells.source([row("runs/ab"), row("runs/ac")]) == "runs/a{b, c}"
    assert cells.interval(0.9081, 0.8784, 0.9352) == "0.908 [0.878, 0.935]"
    assert cells.interval(0.1, 0.05, 0.15, "+") == "+0.100 [+0.050, +0.150]"
    assert cells.interval(0.5, np.nan, np.nan) == "0.500"
    told = [cells.amount(x) for x in (5, 0.25, 2685, 999_499, 999_500, 23.5e6)]
    assert told == ["5", "0.25", "2,685", "999,499", "1 million", "23.5 million"]
    assert cells.amount(999.4e6) == "999 million" and cells.amount(1.5e9) == (
        "1.5 billion"
    )
    assert cells.amount(0.9995e9) == "1 billion"


def test_a_reader_keeps_what_it_read_while_it_has_room(tmp_path, monkeypatch):
    for name, seed in (("a", 0), ("b", 1)):
        one = saved(seed)
        args = one.labels, one.logits, list(CLASSES), one.ids, one.patients
        predicted(tmp_path / name, *args)
    reader = PredictionReader(lambda folder: tmp_path / folder)
    other = reader.judging(lambda *_: {"own": Score(0.5)})
    a, b = reader.load("a"), other.load("b")
    assert reader.load("b") is b and other.load("a") is a
    assert a.ids is b.ids and a.labels is b.labels and a.logits is not b.logits
    assert other.judged(row("a")).keys() == {"own"}
    assert "accuracy" in reader.judged(row("a"))
    monkeypatch.setattr(cells, "KEPT", a.logits.nbytes)
    c = PredictionReader(lambda folder: tmp_path / folder)
    first = c.load("a")
    assert c.load("a") is first and c.load("b") is not None
    assert c.load("a") is not first  # b has taken its place
