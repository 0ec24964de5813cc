"""What a report draws from run folders: confusions, curves of training, upstreams' own tasks."""

import json
from pathlib import Path

import numpy as np
import pytest
from make_run import predicted
from sklearn.metrics import confusion_matrix, roc_curve
from test_report import CLASSES, data_in, drawing
from test_study_fit import run

from bigxfer.report import figures_roc, figures_training, overview, style, upstreams
from bigxfer.report.figures import Drawing
from bigxfer.report.page import build
from bigxfer.runs import history
from bigxfer.statistics import confusion, roc
from bigxfer.tables import lines, table
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.table_args import Given


def saved(root, seeds=2, n=90):
    """Runs of one cell with predictions: {folder: (labels, logits)}, and their rows."""
    rows, made = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % 3
        logits = rng.normal(0, 1, (n, 3)) + 1.2 * np.eye(3)[labels]
        folder = root / table.name_digest(f"run {seed}")
        ids = [f"i{i:03}" for i in range(n)]
        predicted(folder, labels, logits, CLASSES, ids, ids)
        rows.append(run("shapes", "5", seed) | {"folder": str(folder)})
        rows[-1]["digest"] = folder.name
        made.append((labels, logits))
    return rows, made


def test_curves_and_confusions_are_the_means_of_scikit_learns(tmp_path):
    rows, made = saved(tmp_path)
    found = figures_roc.panels(drawing(rows))
    by_label = {(p.section, p.label): p for p in found[::-1]}
    (curve,) = [t for t in by_label["roc", "covid"].figure["data"] if "meta" in t]
    each, matrices = [], []
    for labels, logits in made:
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        fpr, tpr, _ = roc_curve(labels == 0, p[:, 0], drop_intermediate=False)
        each.append(np.interp(roc.GRID, fpr, tpr))
        matrices.append(confusion_matrix(labels, p.argmax(1), normalize="true"))
    np.testing.assert_allclose(curve["y"], np.mean(each, axis=0))
    low, high = curve["meta"]["band"]
    assert np.isnan(low[0]) and (low[4:] < curve["y"][4:]).all()
    assert (high[4:] <= 1).all() and (low[4:] >= 0).all()
    (matrix,) = by_label["confusion", ""].figure["data"]
    np.testing.assert_allclose(matrix["z"], np.mean(matrices, axis=0))
    assert matrix["meta"]["confusion"][0][0].startswith("[")


def test_single_classes_are_drawn_at_the_most_shots_alone(tmp_path):
    rows, _ = saved(tmp_path)
    fewer = [r | {"shots": "1", "digest": f"{r['digest']}x"} for r in rows]
    found = figures_roc.panels(drawing([*rows, *fewer]))
    labels = {p.shots: set() for p in found}
    for p in found:
        if p.section == "roc":
            labels[p.shots].add(p.label)
    assert labels == {"1": {roc.MACRO}, "5": {roc.MACRO, *CLASSES}}
    # No skill: the diagonal, and the share of each class, a third.
    for p in found:
        if p.section == "roc":
            dots = [t["y"] for t in p.figure["data"] if "meta" not in t]
            precision = p.figure["layout"]["yaxis"]["title"]["text"] == "precision"
            third = [pytest.approx(1 / 3)] * 2
            assert dots == [third if precision else [0, 1]]


def test_findings_are_counted_at_the_thresholds_of_validation(tmp_path):
    from make_run import make_run

    folder = make_run(tmp_path / "run", multilabel=True)
    rows = [run("shapes", "full", 0) | {"folder": str(folder), "digest": "d"}]
    says = [p.html for p in figures_roc.panels(drawing(rows)) if p.html]
    result = json.loads((folder / "result.json").read_text())
    point, counts = result["operating_point"]["normal"], result["counts"]["normal"]
    hits = point["sensitivity"]["value"] * counts["positive"]
    alarms = (1 - point["specificity"]["value"]) * counts["negative"]
    cells = f"<td>normal</td><td>1</td><td>{hits:.0f}</td>"
    assert cells in says[0] and f"<td>{alarms:.0f}</td>" in says[0]


def test_a_confusion_of_many_classes_or_findings_is_not_drawn():
    labels, people = np.arange(40) % 13, np.arange(40).astype(str)
    names = [f"c{k}" for k in range(13)]
    assert confusion.scores(labels, np.zeros((40, 13)), names, people) == {}
    findings = np.zeros((40, 2))
    assert confusion.scores(findings, findings, ["a", "b"], people) == {}


# ---- training ----------------------------------------------------------------------


def write(folder, records):
    folder.mkdir()
    text = "".join(json.dumps(r) + "\n" for r in records)
    (folder / "metrics.jsonl").write_text(text)
    return str(folder)


def test_training_curves_are_means_of_bins_over_the_runs(tmp_path):
    rows = []
    for seed in range(2):
        records = [{"step": s, "loss": s + seed, "lr": 0.1} for s in range(1, 301)]
        records.append({"step": 300, "valid/auroc_macro": 0.7})
        folder = write(tmp_path / f"{seed}", records)
        rows.append(run("a", "5", seed) | {"folder": folder, "digest": f"{seed}"})
    loss, validation, rate = figures_training.panels(drawing(rows), rows)
    (trace,) = loss.figure["data"]
    want = np.arange(1, 301).reshape(history.MOST, 10).mean(axis=1)
    np.testing.assert_allclose(trace["x"], want)
    np.testing.assert_allclose(trace["y"], want + 0.5)
    np.testing.assert_allclose(trace["meta"]["band"], [want, want + 1])
    assert validation.figure["data"][0]["y"] == [0.7]
    assert "learning rate" in rate.title


def test_runs_that_end_sooner_and_damaged_files_leave_the_others(tmp_path):
    long = write(tmp_path / "a", [{"step": s, "loss": 1.0} for s in (1, 2, 3)])
    short = write(tmp_path / "b", [{"step": 1, "loss": 3.0}])
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "metrics.jsonl").write_text('{"step": 1, "lo')
    rows = [
        run("a", "5", seed) | {"folder": f, "digest": f"{seed}"}
        for seed, f in enumerate([long, short, str(tmp_path / "c"), "nowhere"])
    ]
    (panel,) = figures_training.panels(drawing(rows), rows)
    (trace,) = panel.figure["data"]
    np.testing.assert_allclose(trace["y"], [2, 1, 1])
    assert trace["meta"]["runs"] == 2


def test_the_page_says_what_it_could_not_draw():
    rows = [run("a", "5")]
    text = build(Given(rows, PATH, ""), PredictionReader())
    assert "Not drawn: training curves. They need the run folders" in text
    assert "Not drawn: ROC, precision-recall" in text
    assert overview.absent({"roc", "training"}) == []


# ---- upstreams ---------------------------------------------------------------------


def upstream(low, value, high, seed=0, **more):
    row = run("scratch", "full", seed) | {"kind": "upstream", "target": "nih"}
    row |= {"auroc_macro": value, "auroc_macro_low": low, "auroc_macro_high": high}
    return row | {"digest": f"up{seed}", "target_size": 100} | more


PATH = Path("t/table.parquet")


@pytest.mark.parametrize(
    "row, learned",
    [
        (upstream(0.55, 0.6, 0.65), True),
        (upstream(0.49, 0.55, 0.6), False),
        (upstream(None, 0.9, None), None),
        (upstream(None, None, None), None),
        # the mean over the classes that have limits
        (upstream(None, 0.7, None, **{"auroc/a": 0.7, "auroc/a_low": 0.6, "auroc/a_high": 0.8,
         "auroc/b": 0.5, "auroc/b_low": 0.41, "auroc/b_high": 0.6}), True),
        (upstream(None, 0.7, None, **{"auroc/a": 0.7, "auroc/a_low": 0.58, "auroc/a_high": 0.8,
         "auroc/b": 0.5, "auroc/b_low": 0.41, "auroc/b_high": 0.6}), False),
    ],
)  # fmt: skip
def test_an_upstream_has_learned_where_its_limit_is_above_chance(row, learned):
    assert upstreams.of_row(row).learned is learned
    ((_, _, _, _, word),) = upstreams.table([row])
    assert word == {True: "yes", False: "NO", None: "not told"}[learned]
    assert bool(upstreams.failed([row])) == (learned is False)


def test_its_own_metric_stands_beside_every_line_of_an_upstream():
    rows = [upstream(0.47, 0.52, 0.57, 0), upstream(0.6, 0.7, 0.8, 1)]
    other = run("mimic", "5") | {"upstream_digest": "elsewhere", "digest": "t2"}
    assert upstreams.missing([*rows, other, run("scratch", "5")]) == [
        "How well these upstreams do their own task is not in the table: MIMIC."
    ]
    rows += [
        run("nih", "5", s) | {"upstream_digest": f"up{s}", "digest": f"t{s}"}
        for s in (0, 1)
    ]
    text = build(Given(rows, PATH, ""), PredictionReader())
    own = data_in(text)["lines"]["nih"]["own"]
    assert own == "own test macro AUROC 0.520 to 0.700; 1 of 2 NOT LEARNED"
    assert "NIH of 100 images, R50x1 (1 of 2 trainings, macro AUROC 0.520" in text
    named, _ = lines.lines(rows)
    drawn = Drawing(named, style.styles(["nih"]), PredictionReader())
    assert drawn.models
