"""data.external: other labelled sets that a run is judged on."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from test_people import manifest

from bigxfer import config
from bigxfer.config import ConfigError, Data
from bigxfer.data import external, identity
from bigxfer.report import groups
from bigxfer.runs import card_groups, evaluate, folders, predictions
from bigxfer.statistics import by_group
from bigxfer.study import grid
from bigxfer.tables import cells, estimates, run_row
from bigxfer.training import feed

CLASSES = ("covid", "normal", "pneumonia")


def site(root, rows):
    """A csv set of 8 x 8 images; rows: (patient, label[, split])."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["file,patient,label,split"]
    for i, (patient, label, *rest) in enumerate(rows):
        lines.append(f"{i}.png,{patient},{label},{rest[0] if rest else ''}")
        pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def settings(tmp_path, **fields):
    return Data(
        reader="csv",
        root=str(tmp_path / "own"),
        resize=8,
        crop=8,
        valid=0.0,
        cache=str(tmp_path / "cache"),
        **fields,
    )


def own_set(tmp_path):
    rows = [(f"p{i}", CLASSES[i % 3], "train" if i < 6 else "test") for i in range(12)]
    site(tmp_path / "own", rows)


def test_a_set_is_read_under_the_classes_of_the_run(tmp_path):
    own_set(tmp_path)
    rows = [("p1", "COVID-19"), ("q1", "normal"), ("q2", "pneumonia"), ("q3", "mass")]
    site(tmp_path / "b", rows)
    said = []
    data = settings(
        tmp_path,
        external="csv",
        external_root=str(tmp_path / "b"),
        external_version="b",
        external_classes=("COVID-19=covid",),
    )
    found = external.open(data, 0, said.append)
    other = found.external["csv-b"]
    rows = other.rows["test"]
    assert other.manifest.labels[rows].tolist() == [0, 1, 2]  # mass is no class of ours
    assert other.manifest.classes == CLASSES
    assert other.report["left_out"] == 1 and other.report["of"] == "all its images"
    assert other.report["patients_in_training"] == 1
    assert "LEAK: 1 patients of csv-b are trained on" in said
    assert found.report["external"] == {"csv-b": other.report}
    assert list(found.rows) == ["train", "valid", "test"] and len(found.manifest) == 12
    assert other.images[:].shape == (4, 8, 8, 1)


def test_only_the_test_split_of_a_set_that_has_one(tmp_path):
    own_set(tmp_path)
    rows = [(f"q{i}", CLASSES[i % 3], ["train", "test"][i % 2]) for i in range(8)]
    site(tmp_path / "b", rows)
    data = settings(tmp_path, external="csv", external_root=str(tmp_path / "b"))
    other = external.open(data, 0, print).external["csv"]
    assert other.rows["test"].tolist() == [1, 3, 5, 7]
    assert other.report["of"] == "its test split"


def test_what_cannot_be_judged_on_is_named(tmp_path):
    own_set(tmp_path)
    site(tmp_path / "b", [("q1", "cat"), ("q2", "dog")])
    here = {"external": "csv", "external_root": str(tmp_path / "b")}

    def refused(message, error=ValueError, **fields):
        with pytest.raises(error, match=message):
            external.open(settings(tmp_path, **here | fields), 0, print)

    refused(r"csv has the classes \('cat', 'dog'\).*none is shared.*theirs=ours")
    refused(r"'fish' is none of", external_classes=("cat=fish",))
    refused("looked for the folder", external_root=str(tmp_path / "none"))
    refused("of config.data.external: .*holds 1 parts", ConfigError, external="csv+csv")
    roots = f"{tmp_path / 'b'}:{tmp_path / 'b'}"
    two = {"external": "csv+csv", "external_root": roots}
    refused("two sets are called 'csv'", ConfigError, **two)
    refused("there is no phantom for the reader 'csv'", ConfigError, external_root="")


def many(labels):
    """The manifest of test_people with these multi-label labels."""
    return replace(manifest(), labels=np.array(labels, np.float32))


def test_labels_of_other_forms():
    nan = np.nan
    own = many([[0, 1]] * 4)  # classes a, b
    theirs = external.labelled(many([[1, 0], [0, 1], [nan, 1], [0, 0]]), own, (), "x")
    np.testing.assert_equal(theirs.labels, [[1, 0], [0, 1], [nan, 1], [0, 0]])
    one = replace(manifest(), classes=("b", "c"))  # one class an image: 0, 1, 0, 1
    told = external.labelled(one, own, (), "x")
    np.testing.assert_equal(told.labels[:, 0], [nan] * 4)
    np.testing.assert_equal(told.labels[:, 1], [1, 0, 1, 0])
    told = external.labelled(one, own, ("c=a",), "x")
    np.testing.assert_equal(told.labels, [[0, 1], [1, 0]] * 2)
    with pytest.raises(ValueError, match="has several labels an image"):
        external.labelled(many([[0, 1]] * 4), manifest(), (), "x")
    effusion = replace(many([[0, 1]] * 4), classes=("Effusion", "z"))
    pleural = replace(own, classes=("Pleural Effusion", "q"))
    told = external.labelled(effusion, pleural, (), "x")  # a known alias
    np.testing.assert_equal(told.labels, [[0, nan]] * 4)
    assert told.classes == ("Pleural Effusion", "q")


def test_external_names_the_run_and_its_folder_does_not():
    plain, run = config.Run(), config.Run()
    run.data.external_root = "/somewhere"
    assert config.digest(run) == config.digest(plain)
    digests = {config.digest(plain)}
    for name, value in (
        ("external", "csv"),
        ("external_version", "b"),
        ("external_classes", ("a=b",)),
    ):
        setattr(run.data, name, value)
        digests.add(config.digest(run))
    assert len(digests) == 4
    run.data.external_classes = ("a",)
    with pytest.raises(ConfigError, match="holds 'a'; theirs=ours"):
        config.resolve(run)


def test_two_runs_that_differ_in_an_external_root_alone_are_refused():
    a, b = (
        grid.Node(config.from_dict({"data": {"external_root": r}}), "x") for r in "ab"
    )
    assert grid._roots(a) != grid._roots(b)


def test_the_data_of_the_other_sets_are_compared_on_reuse():
    one = {"images": "1", "labels": "2", "split": "3", "pixels": "4"}
    before = {**one, **identity.of_external([one])}
    now = {**one, **identity.of_external([{**one, "labels": "9"}])}
    assert identity.differences(before, now) == ["the sets of data.external"]
    assert identity.differences(before, one) == []
    assert identity.of_external([]) == {}
    assert identity.name(before) == identity.name(now)  # of the run's own set


# The gap


def sample(rng, n, shift, prefix=""):
    labels = np.arange(n) % 2
    score = rng.normal(size=n) + shift * labels
    return {
        "labels": labels,
        "logits": np.stack([np.zeros(n), score], axis=1),
        "classes": ("a", "b"),
        "patients": np.array([f"{prefix}{i}" for i in range(n)]),
    }


def test_the_gap_is_other_less_own_and_covers_the_truth():
    rng, hits = np.random.default_rng(0), 0
    high, low = norm.cdf(np.array([1.5, 0.5]) / np.sqrt(2))
    for _ in range(60):
        own, other = sample(rng, 150, 1.5), sample(rng, 100, 0.5, "x")
        found = by_group.against(other, own)
        gap = found["gaps"]["auroc_macro"]
        hits += gap["low"] <= low - high <= gap["high"]
    assert hits >= 52  # 95% of 60 less 2.9 deviations
    want = roc_auc_score(other["labels"], other["logits"][:, 1])
    assert found["metrics"]["auroc/b"]["value"] == pytest.approx(want)
    assert gap["value"] == pytest.approx(
        found["metrics"]["auroc_macro"]["value"] - found["own"]["auroc_macro"]["value"]
    )
    assert gap["value"] < 0 and found["shared_patients"] == 0


def test_the_gap_is_paired_where_patients_are_the_same():
    rng = np.random.default_rng(1)
    own = sample(rng, 200, 1.0)
    noise = rng.normal(size=200) * 0.1
    other = own | {"logits": own["logits"] + np.stack([0 * noise, noise], axis=1)}
    paired = by_group.against(other, own)
    apart = by_group.against(
        other | {"patients": np.char.add("x", other["patients"])}, own
    )
    widths = [
        f["gaps"]["auroc_macro"]["high"] - f["gaps"]["auroc_macro"]["low"]
        for f in (paired, apart)
    ]
    assert paired["shared_patients"] == 200 and widths[0] < widths[1] / 2


def test_a_class_with_fewer_than_five_patients_has_no_gap_but_the_reason():
    rng = np.random.default_rng(2)
    other = sample(rng, 60, 1.0, "x")
    other["labels"] = (np.arange(60) < 3).astype(int)
    found = by_group.against(other, sample(rng, 60, 1.0))
    assert found["classes"] == [] and found["gaps"]["auroc_macro"]["value"] is None
    assert "3 patients" in found["gaps"]["auroc_macro"]["reason"]
    assert found["gaps"]["accuracy"]["value"] is not None


# In the run folder, on the card and in the table


def test_the_run_saves_what_it_predicted_and_says_the_gap(tmp_path):
    own_set(tmp_path)
    site(tmp_path / "b", [(f"q{i}", CLASSES[i % 3]) for i in range(24)])
    data = settings(tmp_path, external="csv", external_root=str(tmp_path / "b"))
    found = external.open(data, 0, print)
    rng = np.random.default_rng(3)
    run = config.Run()
    run.data, run.optim.batch = data, 4

    def predict(loader):
        logits = rng.normal(size=(len(loader.rows), 3))
        return loader.rows, logits

    task = SimpleNamespace(
        data=found, run=run, folder=tmp_path / "run", judged=("test",)
    )
    task.folder.mkdir()
    task.loader = lambda split: feed.loader(found, split, run)
    result = evaluate.judge(task, None, predict, None)
    of = result["external"]["csv"]
    assert of["images"] == of["patients"] == 24 and of["data"]["images"] == 24
    saved = predictions.read(task.folder / predictions.external("csv"))
    assert saved.ids.tolist() == [f"{i}.png" for i in range(24)]
    assert predictions.external("csv") in folders.sums(task.folder)
    # Three test images a class have no AUROC: the own test split lacks patients.
    assert of["gaps"]["auroc_macro"]["value"] is None
    assert "patients" in of["gaps"]["auroc_macro"]["reason"]
    json.dumps(result)  # it goes to result.json
    text = "\n".join(card_groups.external(result))
    assert "## On other sets" in text and "no patient is in both" in text
    row = run_row.of_external(result)
    assert row["external/csv/accuracy"] == of["metrics"]["accuracy"]["value"]
    assert row["gap/csv/accuracy_low"] == of["gaps"]["accuracy"]["low"]
    assert set(row) == {
        f"{kind}/csv/{metric}{end}"
        for kind in ("external", "gap")
        for metric in ("auroc_macro", "accuracy")
        for end in ("", "_low", "_high")
    }


def test_a_run_without_other_sets_says_nothing_of_them():
    assert card_groups.external({}) == [] and run_row.of_external({}) == {}
    assert external.members(Data()) == {}


def external_rows(rng, upstreams=3, draws=5, gap=-0.05):
    """Runs of a cell whose gap has a part of the upstream seed, the draw and the patients."""
    by_seed, by_draw = rng.normal(0, 0.03, upstreams), rng.normal(0, 0.02, draws)
    patients = rng.normal(
        0, 0.02
    )  # the same of all runs: they share their test patients
    rows = []
    for u in range(upstreams):
        for d in range(draws):
            value = gap + by_seed[u] + by_draw[d] + patients + rng.normal(0, 0.01)
            row = {"target": "own", "model": "net", "line": "nih", "shots": "5"}
            row |= {"upstream": "nih", "upstream_seed": u, "seed": d, "fraction": 1.0}
            row |= {"folder": f"{u}-{d}", "family": "f", "test_images": 100}
            for kind, at in (("external", 0.7 + value), ("gap", value)):
                ends = ("", at), ("_low", at - 1.96 * 0.02), ("_high", at + 1.96 * 0.02)
                row |= {f"{kind}/csv-b/auroc_macro{end}": v for end, v in ends}
            rows.append(row)
    return rows


def test_the_gap_over_seeds_and_draws_covers_the_truth(tmp_path):
    reader = cells.PredictionReader(lambda folder: tmp_path / "none" / folder)
    rng, held, studies = np.random.default_rng(0), 0, 150
    for _ in range(studies):
        found = estimates.estimate(external_rows(rng), "gap/csv-b/auroc_macro", reader)
        held += found.low <= -0.05 <= found.high
    assert held >= 0.92 * studies  # each run's own interval holds it in 65% of them
    assert found.low < 0 and found.covers == (
        "over 3 upstream seeds, 5 draws and the patients of both sets, by the limits of"
        " each run"
    )


def test_the_page_has_a_line_for_each_cell_and_other_set(tmp_path):
    reader = cells.PredictionReader(lambda folder: tmp_path / "none" / folder)
    rows = external_rows(np.random.default_rng(1))
    html = groups.pooled(rows, reader)
    value = np.mean([row["gap/csv-b/auroc_macro"] for row in rows])
    for cell in (
        "csv-b</td><td>NIH, net</td><td>5 shots</td><td>15</td>",
        f"{value:.3f} [",
    ):
        assert cell in html
    assert html.count("<tr>") == 2
    assert groups.pooled([{"accuracy": 0.5}], reader) == ""
