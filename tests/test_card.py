"""card.md says what the predictions and the result say."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from make_run import CLASSES, make_run
from sklearn.metrics import confusion_matrix, roc_auc_score

from bigxfer import tree
from bigxfer.runs import card, card_groups
from bigxfer.statistics import auroc, by_source


def text_of(folder):
    card.write(folder, json.loads((folder / "result.json").read_text()))
    return (folder / "card.md").read_text()


def change(folder, file, **fields):
    about = json.loads((folder / file).read_text())
    for name, value in fields.items():
        section, _, field = name.partition("__")
        if field:
            about[section][field] = value
        elif value is None:
            del about[section]
        else:
            about[section] = value
    (folder / file).write_text(json.dumps(about))


def section(text, title):
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text):
    """{first cell: the others} of the tables of a section."""
    cells = [
        [c.strip() for c in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return {first: rest for first, *rest in cells}


@pytest.mark.parametrize(
    ("optimizer", "name"), [("sgd", "momentum"), ("adam", "beta1")]
)
def test_config_optim_momentum_goes_by_the_optimizers_name_for_it(
    tmp_path, optimizer, name
):
    folder = make_run(tmp_path / "run", optim__optimizer=optimizer, optim__momentum=0.8)
    assert f", {name} 0.8" in section(text_of(folder), "Protocol and cost")


def test_what_it_says_of_every_run(tmp_path):
    folder = make_run(tmp_path / "run")
    text = text_of(folder)
    about = json.loads((folder / "config.json").read_text())
    assert text.startswith("# csv, BiT ResNet")
    assert "SYNTHETIC" in text and "no diagnostic device" in text
    for part in (about["digest"], "commit " + "0" * 40, "12,345 parameters"):
        assert part in text
    assert "label policy: made up" in section(text, "Data")
    assert "leaks (splits): 0 shared patients" in text
    assert "- 10 steps, 1,000 images" in section(text, "Protocol and cost")
    assert len(text.splitlines()) < 120
    wide = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in wide)


def test_a_real_run_is_not_called_synthetic(tmp_path):
    assert "SYNTHETIC" not in text_of(make_run(tmp_path / "run", synthetic=False))


def test_numbers_by_class_and_by_source(tmp_path):
    """scikit-learn's, of all images and of one source's."""
    folder = make_run(tmp_path / "run")
    text, saved = text_of(folder), tree.load_npz(folder / "predictions.npz")
    p = np.exp(saved["logits"] - saved["logits"].max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    for i, name in enumerate(CLASSES):
        want = roc_auc_score(saved["labels"] == i, p[:, i])
        found = rows(section(text, "Results on the test split"))[name]
        assert found[3].startswith(f"{want:.3f} [")
        assert found[0] == str((saved["labels"] == i).sum())
    table = rows(section(text, "By source"))
    here = saved["sources"] == "a"
    want = roc_auc_score(saved["labels"][here] == 1, p[here, 1])
    assert table["AUROC normal"][0].startswith(f"{want:.3f} [")
    assert table["AUROC normal"][1] == "-"  # source b has no normal image
    assert table["images, patients"][0].startswith("60, ")


@pytest.mark.parametrize("multilabel", [False, True])
def test_what_the_source_gives_away(multilabel, tmp_path):
    """A planted shortcut is found, and none where sources are shuffled."""
    folder = make_run(tmp_path / "run", multilabel=multilabel)
    test = tree.load_npz(folder / "predictions.npz")
    valid = tree.load_npz(folder / "predictions_valid.npz")
    planted = by_source.guessed("sources", test, valid)
    assert planted["low"] > 0.55
    rng = np.random.default_rng(1)
    for part in (test, valid):
        part["sources"] = rng.permutation(part["sources"])
    none = by_source.guessed("sources", test, valid)
    assert none["low"] < 0.5 < planted["value"] - 0.05 and none["value"] < 0.58
    assert "Knowing nothing but the source" in text_of(folder)


def test_the_guess_by_hand():
    """Two sources, shares of validation: scores rank as the shares do."""
    test = {
        "labels": np.array([0, 1, 1, 0]),
        "sources": np.array(["a", "a", "b", "b"]),
        "patients": np.arange(4).astype(str),
        "logits": np.zeros((4, 2)),
        "classes": np.array(["x", "y"]),
    }
    valid = {"labels": np.array([0, 0, 1, 1, 1]), "sources": np.array([*"aabbb"])}
    found = by_source.guessed("sources", test, valid)
    assert found["value"] == roc_auc_score([0, 1, 1, 0], [0, 0, 1, 1])


def test_a_source_of_one_class_is_told(tmp_path):
    folder = make_run(tmp_path / "run")
    saved = tree.load_npz(folder / "predictions.npz")
    saved["sources"] = np.where(saved["labels"] == 2, "c|d", saved["sources"])
    tree.save_npz(folder / "predictions.npz", saved)
    text = text_of(folder)
    n = int((saved["labels"] == 2).sum())
    assert f"All {n} test images of c|d are pneumonia" in text
    assert r"c\|d" in section(text, "By source")  # a bar would end the cell


def test_many_sources_are_counted_not_shown(tmp_path):
    folder = make_run(tmp_path / "run")
    saved = tree.load_npz(folder / "predictions.npz")
    saved["sources"] = np.array([f"s{i % 8}" for i in range(120)])
    tree.save_npz(folder / "predictions.npz", saved)
    found = section(text_of(folder), "By source")
    assert "Not shown: 45 images of 3 sources" in found
    assert len(rows(found)["accuracy"]) == card_groups.SOURCES


def test_no_validation_no_source_no_leaks(tmp_path):
    """What an early or odd run lacks is said, not assumed."""
    folder = make_run(tmp_path / "run", multilabel=True)
    (folder / "predictions_valid.npz").unlink()
    saved = tree.load_npz(folder / "predictions.npz")
    saved["sources"] = np.array([""] * 120)
    tree.save_npz(folder / "predictions.npz", saved)
    change(folder, "result.json", operating_point=None, leaks=None)
    text = text_of(folder)
    assert "no labels of validation or of folds" in section(text, "Operating point")
    assert "one source: unknown" in section(text, "By source")
    assert "accuracy" not in rows(section(text, "Results on the test split"))


def test_start_freezing_shots_and_leaks_are_told(tmp_path):
    folder = make_run(tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())["config"]
    config["init"] |= {"kind": "pretrained", "digest": "abc", "upto": "block2"}
    config["freeze"]["head"] = "ridge"
    config["data"]["shots"] = "5"
    config["eval"]["select"] = "auroc_macro"
    change(folder, "config.json", config=config)
    change(folder, "config.json", data__leaks={"patients": 7, "first": []})
    change(folder, "config.json", data__split={"kind": "official"})
    change(folder, "config.json", data__drawn=["x"] * 15)
    change(folder, "config.json", data__undecodable=[["a", "b", "c"]])
    text = text_of(folder)
    for part in (
        "from the upstream abc (copy up to block2)",
        "the head alone, ridge",
        "Shots: 5 a class, 15 training images, drawn with seed 0",
        "the best auroc_macro on validation",
        "LEAK: the official split has 7 patients",
        "could not be decoded, left out: 1",
    ):
        assert part in text


def test_a_threshold_that_validation_could_not_give(tmp_path):
    folder = make_run(tmp_path / "run")
    point = json.loads((folder / "result.json").read_text())["operating_point"]
    point["normal"] = {"threshold": None, "reason": "validation lacks it"}
    change(folder, "result.json", operating_point=point)
    assert re.search(r"normal +\| validation lacks it", text_of(folder))


def test_it_prints_only_commands_that_work(tmp_path, monkeypatch, capsys):
    """Both are run as they stand; a run without parameters says that it has none."""
    import shlex
    import sys

    from PIL import Image

    from bigxfer import export, predict

    folder = make_run(tmp_path / "run", "R1-1x0.25")
    Image.new("L", (40, 40), 9).save(tmp_path / "a.png")
    names = {"DIR": folder, "FOLDER": tmp_path, "FILE.csv": tmp_path / "out.csv"}
    names["FILE"] = tmp_path / "net"
    lines = [x.strip() for x in text_of(folder).splitlines() if "    python -m" in x]
    assert [line.split()[2] for line in lines] == ["bigxfer.predict", "bigxfer.export"]
    for line, main in zip(lines, (predict, export), strict=True):
        words = [str(names.get(word, word)) for word in shlex.split(line)]
        monkeypatch.setattr(sys, "argv", words[2:])
        main.main(main.arguments())
    assert (tmp_path / "out.csv").is_file() and (tmp_path / "net").is_file()
    (folder / "params.npz").unlink()
    text = text_of(folder)
    assert "python -m bigxfer.predict" not in text and "--config.keep=all" in text


# ---- curves ------------------------------------------------------------------------


def test_the_confusion_matrix_is_scikit_learns(tmp_path):
    folder = make_run(tmp_path / "run")
    saved = tree.load_npz(folder / "predictions.npz")
    want = confusion_matrix(
        saved["labels"], saved["logits"].argmax(1), normalize="true"
    )
    found = rows(section(text_of(folder), "Curves"))
    for name, shares in zip(CLASSES, want, strict=True):
        assert [float(c[:4]) for c in found[name][1:]] == [
            pytest.approx(share, abs=0.006) for share in shares
        ]
        assert all("[" in c for c in found[name][1:])


def test_the_picture_shows_both_curves_and_what_the_log_has(tmp_path):
    folder = make_run(tmp_path / "run", multilabel=True)
    assert "called" not in section(text_of(folder), "Curves")  # findings have none
    chart = {"{http://www.w3.org/2000/svg}text"}

    def root():
        return ElementTree.fromstring((folder / "card.svg").read_text()).iter()

    def titles():
        return {e.text for e in root() if e.tag in chart and e.get("font-weight")}

    assert titles() == {"ROC, test split", "precision-recall, test split"}
    dots = [e.get("d") for e in root() if e.get("stroke-dasharray")]
    # No skill: rising in ROC, level in precision.
    heights = [[float(p.split(",")[1]) for p in d[1:].split(" L")] for d in dots]
    assert len(heights) == 2 and heights[0][0] > heights[0][1]
    assert heights[1][0] == heights[1][1]
    one = json.dumps({"step": 20, "loss": 1.0})
    (folder / "metrics.jsonl").write_text(f"{one}\n")
    text_of(folder)
    assert sum(e.tag.endswith("circle") for e in root()) == 1  # no line has one place
    records = [{"step": s, "loss": 1 / s, "accuracy": 0.5} for s in (1, 2, 3)]
    log = "".join(json.dumps(r) + "\n" for r in records)
    (folder / "metrics.jsonl").write_text(log)
    text_of(folder)
    assert {"loss by step", "share by step"} < titles()


def test_a_head_on_features_has_curves_only_where_they_are_asked_for(tmp_path):
    folder = make_run(tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())["config"]
    config["freeze"]["head"] = "ridge"
    change(folder, "config.json", config=config)
    assert "## Curves" not in text_of(folder) and not (folder / "card.svg").exists()
    result = json.loads((folder / "result.json").read_text())
    card.write(folder, result, drawn=True)
    assert (folder / "card.svg").is_file()


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_four_counts_at_a_threshold(multilabel, tmp_path):
    folder = make_run(tmp_path / "run", multilabel=multilabel)
    text, test = text_of(folder), tree.load_npz(folder / "predictions.npz")
    point = json.loads((folder / "result.json").read_text())["operating_point"]
    odds = auroc.log_odds(test["labels"], test["logits"].astype(float))
    for i, name in enumerate(CLASSES):
        truth = test["labels"][:, i] if multilabel else test["labels"] == i
        called = odds[:, i] >= point[name]["log_odds"]
        want = [
            ((truth == y) & (called == c)).sum()
            for y, c in ((1, True), (1, False), (0, True), (0, False))
        ]
        found = rows(section(text, "Operating point"))[name]
        assert list(map(int, found[3:])) == want
