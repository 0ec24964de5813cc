"""The rate or the penalty of a run, chosen with equal budgets by labels that it may use."""

import csv
import json
import math
import os

import numpy as np
import pytest
from PIL import Image

from bigxfer import config, presets
from bigxfer.report import overview
from bigxfer.runs import choice, finished, job
from bigxfer.study import cost, grid
from bigxfer.tables import lines, table
from launch import slot

pytestmark = pytest.mark.usefixtures("single_device")

RATES = (0.001, 0.01, 0.03)
CLASSES = ("a", "b", "c")
COUNTS = {"train": 30, "valid": 9, "test": 18}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Small noisy squares of three classes, which differ in brightness."""
    root = tmp_path_factory.mktemp("target")
    rng, rows = np.random.default_rng(0), []
    for split, count in COUNTS.items():
        for i in range(count):
            name = f"{split}{i:02d}.png"
            pixels = rng.integers(0, 120, (16, 16)) + 40 * (i % 3)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
            rows.append([name, CLASSES[i % 3], f"{split}{i}", split])
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["file", "label", "patient_id", "split"], *rows])
    return root


@pytest.fixture(scope="module")
def shared():
    """Programs that the runs of this file share."""
    return {}


def make(target, shots="5", rates=RATES, head="trained", **optim):
    run = config.Run(kind="transfer", keep="all")
    presets.set_res(run.data, 16)
    d = run.data
    d.reader, d.root, d.cache, d.shots = (
        "csv",
        str(target),
        str(target / "cache"),
        shots,
    )
    run.model = config.Model("smallcnn", width=1 / 16, hidden=4)
    run.optim = config.Optim(lr=0.01, lr_batch=8, batch=8, steps=6, schedule="cosine")
    run.optim.tune, run.eval.resamples, run.eval.batch = rates, 0, 16
    run.freeze.head = head
    for name, value in optim.items():
        setattr(run.optim, name, value)
    return config.resolve(run)


def execute(run, folder, shared, stop=None):
    return job.execute(run, folder, stop, shared)


@pytest.fixture(scope="module")
def tuned(target, shared, tmp_path_factory):
    """(folder, result) of a run of 5 shots whose rate was chosen by five folds."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    return folder, execute(make(target), folder, shared)


def test_the_rate_of_the_least_loss_over_the_folds_is_chosen(tuned):
    folder, result = tuned
    found = result["tuned"]
    assert (found["what"], found["of"], found["folds"]) == ("rate", RATES, 5)
    assert found["value"] == RATES[int(np.argmin(found["scores"]))]
    assert len(set(found["scores"])) == 3 and found["metric"] == "loss"
    used = result["labels_used"]
    assert used == {"training": 15, "select_on": "support", "selection": 0}
    assert not (folder / "trials").exists() and len(result["operating_point"]) == 3
    about = finished.read(folder).about
    assert about["plan"]["lr"] == found["value"]
    assert about["config"]["optim"]["lr"] == 0.01


def test_a_tuned_run_is_the_run_of_its_rate_to_the_bit(target, tuned, shared, tmp_path):
    folder, result = tuned
    plain = make(target, rates=(), lr=result["tuned"]["value"])
    alone = execute(plain, tmp_path / "alone", shared)
    assert alone["tuned"] is None and alone["labels_used"]["select_on"] == "none"
    both = [np.load(f / "params.npz") for f in (folder, tmp_path / "alone")]
    for name in both[0].files:
        np.testing.assert_array_equal(both[0][name], both[1][name])
    assert result["cost"]["steps"] == alone["cost"]["steps"] == 6
    assert result["cost"]["flops"] == pytest.approx(16 * alone["cost"]["flops"])


def test_a_trial_is_a_training_without_its_fold(target, tuned, shared, tmp_path):
    """By a run of the kept images alone, judged on the images of the fold."""
    folder, result = tuned
    drawn = (folder / "support.txt").read_text().split()
    total = 0.0
    data = finished.read(folder)
    part = [i for i in drawn]
    manifest = job.external.open(data.run.data, 0, lambda _: None).manifest
    place = {name: row for row, name in enumerate(manifest.id)}
    rows = np.array([place[name] for name in part])
    held_out = data.predictions("folds")
    rate = result["tuned"]["value"]
    fold, count = choice.fold_of(manifest.select(rows))
    assert count == 5
    for number in range(count):
        held = [name for name, f in zip(drawn, fold, strict=True) if f == number]
        kept = [name for name in drawn if name not in held]
        root = tmp_path / f"fold{number}"
        root.mkdir()
        with (target / "metadata.csv").open() as file:
            wanted = [r for r in csv.DictReader(file) if r["file"] in drawn]
        with (root / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, wanted[0])
            writer.writeheader()
            for row in wanted:
                writer.writerow(
                    row | {"split": "test" if row["file"] in held else "train"}
                )
        for name in drawn:
            (root / name).write_bytes((target / name).read_bytes())
        run = make(root, shots="full", rates=(), lr=rate)
        run.data.valid = 0.0
        found = execute(run, tmp_path / f"run{number}", shared)
        assert len(kept) == found["labels_used"]["training"]
        total += len(held) * found["metrics"]["loss"]["value"]
        alone = finished.read(tmp_path / f"run{number}").predictions()
        order = [held_out.ids.tolist().index(name) for name in alone.ids]
        want = held_out.logits[order]
        np.testing.assert_allclose(alone.logits, want, atol=1e-4)
    score = min(result["tuned"]["scores"])
    assert total / len(drawn) == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("where", ["between", "within"])
def test_a_killed_tuning_goes_on_to_the_same_bits(
    target, tuned, shared, tmp_path, monkeypatch, where
):
    """Killed after four trials, or in the middle of the fifth, with its step saved."""
    taken, train = [], job.Job.train

    def killed(own, *args):
        taken.append(own.folder.name)
        if len(taken) == 5 and where == "between":
            raise KeyboardInterrupt
        if len(taken) == 5:
            stop = args[-1]
            monkeypatch.setattr(type(stop), "__call__", lambda _, step: step == 3)
        return train(own, *args)

    monkeypatch.setattr(job.Job, "train", killed)
    folder = tmp_path / "killed"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        execute(make(target), folder, shared)
    monkeypatch.undo()
    assert len(list(folder.glob("trials/*/trial.json"))) == 4
    saved = list(folder.glob("trials/*/checkpoints/3/record"))
    assert len(saved) == (where == "within")
    if where == "between":  # as a trial of before predictions were kept: done again
        min(folder.glob("trials/*/held.npz")).unlink()
    again = []
    monkeypatch.setattr(
        job.Job, "train", lambda own, *args: (again.append(own), train(own, *args))[1]
    )
    result = execute(make(target), folder, shared)
    assert len(again) == 15 - 4 + 1 + (where == "between")
    assert result["tuned"] == tuned[1]["tuned"]
    for file in ("params.npz", "predictions_folds.npz"):
        both = [np.load(f / file) for f in (folder, tuned[0])]
        for name in both[0].files:
            np.testing.assert_array_equal(both[0][name], both[1][name])


def test_folds_that_are_asked_for_fix_a_threshold_and_choose_nothing(
    target, tuned, shared, tmp_path
):
    """At the rate that `tuned` chose: the same trials of it, and the same net."""
    run = make(target, rates=(), lr=tuned[1]["tuned"]["value"])
    run.eval.select_on = "support"
    result = execute(run, tmp_path / "run", shared)
    assert result["tuned"] is None
    assert result["labels_used"]["select_on"] == "support"
    assert result["operating_point"] == tuned[1]["operating_point"]
    assert result["cost"]["flops"] == pytest.approx(tuned[1]["cost"]["flops"] * 6 / 16)
    both = [finished.read(f).predictions("folds") for f in (tmp_path / "run", tuned[0])]
    np.testing.assert_array_equal(both[0].logits, both[1].logits)
    counted = [cost.trainings(r) for r in (run, make(target), make(target, rates=()))]
    assert counted == [5, 15, 0]


def test_at_full_data_validation_chooses_and_is_told(target, shared, tmp_path):
    run = make(target, shots="full")
    run.data.valid = 0.2
    result = execute(run, tmp_path / "run", shared)
    assert result["tuned"]["folds"] == 0 and len(result["tuned"]["scores"]) == 3
    assert result["labels_used"]["select_on"] == "validation"
    assert result["labels_used"]["selection"] == COUNTS["valid"]
    valid = finished.read(tmp_path / "run").predictions("valid")
    rows = np.arange(len(valid.labels))
    odds = valid.logits - np.logaddexp.reduce(valid.logits, axis=1, keepdims=True)
    best = -odds[rows, valid.labels].mean()
    assert min(result["tuned"]["scores"]) == pytest.approx(best, rel=1e-5)


def test_at_one_shot_no_label_chooses(target, shared, tmp_path):
    result = execute(make(target, shots="1"), tmp_path / "run", shared)
    assert result["tuned"] is None and result["labels_used"]["select_on"] == "none"


def test_a_rate_that_diverges_counts_as_the_worst(target, shared, tmp_path):
    run = make(target, rates=(0.01, 1e8))
    found = execute(run, tmp_path / "run", shared)["tuned"]
    assert found["value"] == 0.01 and found["scores"][1] is None
    assert found["edge"] == "lowest"
    with pytest.raises(ValueError, match="no rate of .* gives a finite loss"):
        choice.best("rate", (1.0, 2.0), (math.nan, math.nan), "loss", 5)


def test_table_page_and_card_say_what_was_chosen(target, tuned, shared, tmp_path):
    folder, result = tuned
    execute(make(target, rates=()), folder.parent / "plain", shared)
    rows = table.collect([folder.parent], tmp_path).rows
    table.save(rows, tmp_path)
    said = {r["tuned"]: (r["chosen"], r["edge"]) for r in rows}
    edge = result["tuned"]["edge"] or None
    assert said == {
        "rate of 3": (result["tuned"]["value"], edge),
        "untuned": (None, None),
    }
    names = {row["line"] for row in lines.lines(rows)[0]}
    assert names == {"scratch, rate of 3", "scratch, untuned"}
    assert overview._tuned(rows) == "rate of 3 (1), untuned (1)"
    about = overview.costs(rows)
    place = about["head"].index("tuned")
    assert [r[place] for r in about["rows"]] == ["rate of 3 (1), untuned (1)"]
    at_edge = [rows[0] | {"tuned": "rate of 3", "chosen": 1.0, "edge": "highest"}]
    (note,) = overview._edges(at_edge)
    assert note.text.startswith(
        "1 of 1 tuned runs chose an end of their grid (rate of 3:"
    )
    card = (folder / "card.md").read_text()
    assert f"Tuned: rate {result['tuned']['value']:.4g} of 3, chosen by 5 folds" in card
    assert "Untuned: no label chose" in (folder.parent / "plain/card.md").read_text()


def test_heads_choose_from_the_same_grid(target, shared, tmp_path):
    run = make(target, rates=(0.1, 1.0, 10.0), head="ridge")
    result = execute(run, tmp_path / "run", shared)
    found = result["tuned"]
    assert found["what"] == "penalty" and found["of"] == (10.0, 1.0, 0.1)
    assert result["head"]["strength"] == found["value"]
    text = (tmp_path / "run/card.md").read_text()
    assert "Tuned: penalty" in text and "of 3, chosen by 5 folds of the shots" in text


def test_of_neighbours_those_that_every_fold_has(target, shared, tmp_path):
    run = make(target, rates=(1.0, 3.0, 14.0), head="knn")
    found = execute(run, tmp_path / "run", shared)["tuned"]
    assert found["what"] == "neighbours" and found["of"] == (3.0, 1.0)


@pytest.mark.parametrize(
    ("rates", "head", "message"),
    [
        ((0.01,), "trained", "two different values above 0"),
        ((0.01, 0.01), "trained", "two different values above 0"),
        ((0.01, -1.0), "trained", "two different values above 0"),
        ((0.01, math.nan), "trained", "two different values above 0"),
        (("fast", 0.01), "trained", "are numbers"),
        ((0.1, 0.2), "trained", "lr=0.01, the untuned rate, must be one of them"),
        ((0.1, 0.2), "ncm", "has no strength to choose"),
        ((1.0, 2.5), "knn", "numbers of neighbours"),
    ],
)
def test_a_grid_that_cannot_be(target, rates, head, message):
    run = make(target, rates=())
    run.optim.tune, run.freeze.head = rates, head
    with pytest.raises(config.ConfigError, match=f"config.optim.tune=.*{message}"):
        config.resolve(run)


def test_the_flag_arrives_as_numbers(target):
    run = make(target)
    run.optim.tune = ("0.01,0.1",)
    assert config.resolve(run).optim.tune == (0.01, 0.1)
    assert config.digest(make(target, rates=())) != config.digest(make(target))


@pytest.mark.parametrize(("shots", "times"), [("1", 1), ("5", 16), ("full", 4)])
def test_list_knows_what_the_trials_cost(target, shots, times):
    prices = []
    for rates in ((), RATES):
        run = make(target, shots=shots, rates=rates)
        run.data.size = (30, 3)
        (price,) = cost.costs([grid.Node(run, "a")])
        prices.append(price)
    assert prices[1].flops == pytest.approx(times * prices[0].flops)
    assert prices[1].trials == prices[1].flops - prices[0].flops
    assert prices[0].trials == 0


def test_sampling_of_a_fold_keeps_the_proportions():
    from bigxfer.data.sampling import Sampling

    whole = Sampling(weights=np.array([0.5, 0.3, 0.2]))
    kept = whole.only(np.array([True, False, True]))
    np.testing.assert_allclose(kept.weights, [5 / 7, 2 / 7])


def test_a_damaged_trial_is_done_again(target, tuned, shared, tmp_path, monkeypatch):
    folder, train = tmp_path / "run", job.Job.train
    names = []

    def watched(own, *args):
        names.append(own.folder.name)
        if own.folder == folder:
            raise KeyboardInterrupt
        return train(own, *args)

    monkeypatch.setattr(job.Job, "train", watched)
    with pytest.raises(KeyboardInterrupt):
        execute(make(target), folder, shared)
    file = folder / "trials/0.01-2/trial.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"score": 0.0}))
    names.clear()
    monkeypatch.setattr(
        job.Job,
        "train",
        lambda own, *args: (names.append(own.folder.name), train(own, *args))[1],
    )
    result = execute(make(target), folder, shared)
    assert names == ["0.01-2", "run"] and result["tuned"] == tuned[1]["tuned"]


@pytest.mark.parametrize(
    "place", ["", "checkpoints", "trials/0.01-2", "trials/a/checkpoints"]
)
def test_a_run_at_its_trials_does_not_count_as_hung(tmp_path, place):
    """launch.pool kills a run in whose folder nothing changes for half an hour."""
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    file = tmp_path / place / "3"
    file.write_text("")
    os.utime(file, (4e9, 4e9))
    assert slot.newest(tmp_path) == 4e9
