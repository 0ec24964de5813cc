"""The notebooks run from top to bottom and say what they should.

Each is executed in a kernel of its own in which warnings are errors. A last cell, added
here, hands the values over, so that they are compared with independent references.
"""

import importlib.util
import json
import re
import runpy
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import COMPILE_FAST
from nbclient import NotebookClient
from scipy import stats as scipy_stats

from bigxfer.statistics import limits
from bigxfer.tables import compact, table
from bigxfer.tables import published as published_table

ROOT = Path(__file__).parents[1]
COLABS = ROOT / "colabs"
EXPLORE = COLABS / "explore_results.ipynb"
QUICKSTART = COLABS / "quickstart.ipynb"
PLOT = "application/vnd.plotly.v1+json"
LARGEST = "chexpert_mimic_nih_padchest"


def execute(path, folder, parameters="", probe=""):
    """(the executed notebook, what the expression `probe` gives, through JSON)."""
    book = nbformat.read(path, 4)
    at = [c.id for c in book.cells].index("parameters") + 1
    new = nbformat.v4.new_code_cell
    book.cells.insert(at, new("import warnings; warnings.simplefilter('error')"))
    book.cells.insert(at + 1, new(parameters))
    book.cells.append(new(f"import json; print(json.dumps(({probe or None})))"))
    book.cells.append(new("warnings.resetwarnings()"))  # ipykernel's own end warns
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=900, kernel_name="python3", resources=where).execute()
    noise = [o.text for o in outputs(book) if o.get("name") == "stderr"]
    assert noise == []
    return book, json.loads(book.cells[-2].outputs[-1].text)


def outputs(book):
    return [o for c in book.cells if c.cell_type == "code" for o in c.outputs]


def plots(book):
    return [o.data[PLOT] for o in outputs(book) if PLOT in o.get("data", {})]


def printed(book):
    return "".join(o.text for o in outputs(book) if o.output_type == "stream")


def source(path):
    cells = nbformat.read(path, 4).cells
    return "\n".join(c.source for c in cells if c.cell_type == "code")


@pytest.mark.parametrize("path", [EXPLORE, QUICKSTART], ids=lambda p: p.stem)
def test_what_is_committed_is_light_and_names_no_machine(path):
    book = nbformat.read(path, 4)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"  # or nbclient finds no kernel
    assert outputs(book) == []
    assert path.stat().st_size < 100_000
    assert not re.search(r"/(home|work|root|tmp|Users)/", path.read_text())
    assert "no diagnostic device" in path.read_text()


def test_the_explorer_asks_bigxfer_for_every_interval_and_p():
    code = source(EXPLORE)
    assert "differences.compare(" in code and "estimates.estimate(" in code
    for own in ("scipy", "t_quantile", "t_p_value", "def holm", "over_draws", "1.96 *"):
        assert own not in code.replace("(1.96 * found", ""), own


def test_without_a_table_the_explorer_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As in a fresh Colab, where bigxfer is not installed.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cells = {c.id: c.source for c in nbformat.read(EXPLORE, 4).cells}
    (tmp_path / "cells.py").write_text(cells["parameters"] + "\n" + cells["table"])
    with pytest.raises(FileNotFoundError, match="not inside the repository"):
        runpy.run_path("cells.py")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="table.csv lacks the columns study, kind"):
        compact.load(Path("table.csv"))


PROBE = """{
    "runs": len(runs), "short": len(short), "few": len(few),
    "domain": domain.drop(columns="comparison").to_dict("records"), "claims": judged.reset_index().to_dict("records"),
    "real": real.to_dict("records"),
    "agreement": agreement, "sure": sure.reset_index().to_dict("records"),
    "means": [
        cell_interval(pick(runs, target=t, upstream=u, model="R152x4", shots=s), m)
        .to_dict() for t, u, s, m in (
            ("covidx_cxr2", "chexpert_mimic_nih_padchest", "full", "accuracy"),
            ("padchest", "imagenet21k", "full", "auroc_macro"),
            ("cifar100", "imagenet21k", "10", "accuracy"),
        )
    ],
}"""


@pytest.fixture(scope="module")
def explored():
    return execute(EXPLORE, COLABS, probe=PROBE)


def test_all_runs_are_there_and_all_plots_are_drawn(explored):
    book, found = explored
    assert (found["runs"], found["short"], found["few"]) == (1440, 9, 5)
    figures = plots(book)
    assert len(figures) == 7 + 1 + 4 + 1 + 1
    assert all(any(len(trace["y"]) for trace in f["data"]) for f in figures)
    covidx = next(f for f in figures if "covidx" in f["layout"]["title"]["text"])
    names = {trace["name"] for trace in covidx["data"]}
    assert {"imagenet21k", LARGEST, "chexpert"} <= names
    assert "SYNTHETIC" not in printed(book) + json.dumps(figures)


def test_the_real_study_stands_beside_as_its_page_tells_it(explored):
    """The cells of docs/answer.md, which benchmarks/answer.py writes in its own way."""
    page = (ROOT / "docs" / "answer.md").read_text()
    _, block = page.split("<!-- answer: cells -->")
    rows = re.findall(r"^\| (R\S+) \| (.+?) \| (.+?) \| (\d+) \|$", block, re.MULTILINE)
    want = {
        (net, 0 if "scratch" in n else int(n.replace(",", ""))): (value, int(seeds))
        for net, n, value, seeds in rows[
            : block.partition("<!-- end -->")[0].count("| R")
        ]
    }
    found = {
        (r["model"], r["photographs"]): (
            f"{r['auroc']:.3f} [{r['low']:.3f}, {r['high']:.3f}]",
            r["seeds"],
        )
        for r in explored[1]["real"]
    }
    assert len(want) >= 5 and want == {key: found[key] for key in want}
    assert all(
        "upstream seeds" in r["covers"] for r in explored[1]["real"] if r["photographs"]
    )


def test_it_gives_the_means_of_the_published_results(explored):
    """facts/predecessors.md section 2.2, in percent."""
    _, found = explored
    np.testing.assert_allclose([m["mean"] for m in found["means"]], [83.0, 84.02, 75.45], atol=0.0051)  # fmt: skip
    words = (
        "over 5 trainings at full data and 400 test images, as in independent patients"
    )
    assert found["means"][0]["covers"] == f"{words}; about this one upstream"


def test_its_differences_are_of_draws_and_test_images(explored):
    """Every interval of accuracies "natural or in-domain", by its description.

    Draws: Student's t of the paired differences. Test images of both sides: binomial
    (mid-P), without a covariance. t^2 V and z^2 V are put together as crossed.py says.
    """
    _, found = explored
    published = table.pa.csv.read_csv(COLABS / "published_runs.csv").to_pylist()
    z, checked = scipy_stats.norm.ppf(0.975), 0
    for d in found["domain"]:
        if d["metric"] != "accuracy":
            continue
        sides = [
            {
                row["seed"]: row["accuracy"]
                for row in published
                if row["upstream"] == upstream
                and all(str(row[k]) == d[k] for k in ("target", "model", "shots"))
            }
            for upstream in d["what"].split(" minus ")
        ]
        if d["shots"] != "full":  # draws are paired, trainings at full data are not
            shared = sides[0].keys() & sides[1].keys()
            sides = [{k: side[k] for k in shared} for side in sides]
        a, b = (np.array(list(side.values())) for side in sides)
        luck = [a, b] if d["shots"] == "full" else [a - b]
        n = published_table.TEST_IMAGES[d["target"]]
        far = [
            np.abs([limits.mid_p(v * n, n) for v in side] - side[:, None])
            for side in (a, b)
        ]
        (a_low, a_high), (b_low, b_high) = (((x / z) ** 2).mean(axis=0) for x in far)
        parts = np.array([x.var(ddof=1) / len(x) for x in luck])
        freedom = np.array([len(x) - 1 for x in luck])
        freedom = parts.sum() ** 2 / (parts**2 / freedom).sum()  # Welch's
        t = scipy_stats.t.ppf(0.975, freedom)
        excess = (t**2 - z**2) * parts.sum()
        for end, images, to in (
            ("low", a_low + b_high, -1),
            ("high", a_high + b_low, 1),
        ):
            half = np.sqrt(z**2 * (parts.sum() + images) + excess)
            want = 100 * (a.mean() - b.mean() + to * half)
            assert d[end] == pytest.approx(want, abs=2e-3)
        assert d["p_holm"] is None and d["verdict"] == ""
        checked += 1
    assert checked == 2 * (6 + 5 + 5)


def test_it_says_which_claims_hold(explored):
    """facts/predecessors.md section 2.3: the signs, and where there is no effect."""
    _, found = explored
    cell = {
        (d["target"], d["metric"], d["model"], d["shots"]): d["value"]
        for d in found["domain"]
    }
    for key, points in {
        ("covidx_cxr2", "accuracy", "R152x4", "full"): -4.1,
        ("covidx_cxr2", "auroc_macro", "R152x4", "full"): 1.3,
        ("tuberculosis_full", "accuracy", "R152x4", "full"): -10.1,
        ("padchest", "auroc_macro", "R152x4", "10"): -5.5,
    }.items():
        assert abs(cell[key] - points) < 0.051, key
    assert round(found["agreement"]["covidx_cxr2"], 2) == 0.62

    verdict = {line["compared"].partition(":")[0]: line for line in found["claims"]}
    assert verdict["cifar100"]["verdict"] == "holds in every cell"
    both = [line for line in found["claims"] if line["compared"].startswith("pets")]
    assert [line["worse"] for line in both] == [0, 1]
    assert verdict["covidx_cxr2, 1 to 10 shots"]["verdict"] == "not told apart"
    tuberculosis = verdict["tuberculosis_full, 100 shots and more"]
    assert (tuberculosis["least"], tuberculosis["most"]) == (5.8, 11.9)
    xray, _ = (
        line
        for line in found["claims"]
        if line["compared"].startswith("tuberculosis_full, full: R152x4 minus R50x1")
    )
    assert (xray["cells"], xray["better"], xray["least"]) == (4, 0, -0.8)
    assert found["claims"][-1]["cells"] == 28 + 36 and not found["claims"][-1]["better"]


def test_it_says_how_sure_one_can_be(explored):
    """Seed spread against test-set error: section 2.3, cautions (ii) and (iii)."""
    _, found = explored
    sure = {(s["target"], s["shots"]): s for s in found["sure"]}
    assert 1.9 <= sure["covidx_cxr2", "full"]["test_error"] <= 2.3
    assert 2.6 <= sure["tuberculosis_full", "full"]["test_error"] <= 3.7
    assert sure["covidx_cxr2", "full"]["error_by_spread"] > 1.3
    assert sure["covidx_cxr2", "1"]["draws_for_2_points"] > 100


def row(seed, upstream, shots, value):
    """A run as table.py writes it, of a synthetic study."""
    kind = "random" if upstream == "scratch" else "pretrained"
    about = {"kind": "transfer", "upstream": upstream, "init": kind, "shots": shots}
    about |= {"family": f"{upstream} {shots}", "upstream_digest": upstream}
    where = {"target": "phantom-covidx", "model": "R26x0.25", "seed": seed}
    size = {"params": 900, "steps": 5, "test_images": 200, "synthetic": True}
    name = f"{upstream}-{shots}-{seed}"
    score = {"auroc_macro": value, "auroc_macro_low": 0.1, "auroc_macro_high": 0.9}
    digest = {"digest": name, "folder": name, "changed_ns": 1, "study": "own"}
    return {**about, **where, **size, **score, **digest}


@pytest.mark.slow
def test_it_opens_a_table_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    value = {"scratch": 0.55, "phantom-chexpert": 0.65, "phantom-natural": 0.6}
    rows = [
        row(seed, name, shots, value[name] + rng.normal(0, 0.01))
        for name in value
        for shots, draws in (("1", 3), ("full", 1))
        for seed in range(draws)
    ]
    table.save([*rows, {**rows[0], "kind": "upstream", "seed": 7}], tmp_path)
    book, found = execute(
        EXPLORE, tmp_path, probe='domain.drop(columns="comparison").to_dict("records")'
    )
    assert printed(book).startswith("12 runs from table.parquet\nSYNTHETIC")
    assert {d["what"] for d in found} == {"phantom-natural minus phantom-chexpert"}
    (one,) = [d for d in found if d["shots"] == "1"]
    assert "3 draws" in one["covers"] and one["no_p"] and one["low"] < -5 < one["high"]
    *own, real = (f["layout"]["title"]["text"] for f in plots(book))
    assert own and all("SYNTHETIC" in title for title in own)
    assert real.startswith("Real images")  # the published study, beside any table


TOY = """
FOLDER = {folder!r}
SHAPE = "model=R1-1x0.25,res=32,batch=8"
UPSTREAM_IMAGES, UPSTREAM_STEPS, TARGET_IMAGES, TARGET_STEPS = 80, 5, 240, 5
SHOTS = {shots!r}
"""


def quickstart(folder, parameters):
    probe = 'results.to_dict("records"), paired.reset_index().to_dict("records")'
    book, (runs, pairs) = execute(QUICKSTART, COLABS, parameters, probe)
    assert "Warning" not in printed(book)  # of the commands, whose stderr it prints
    made = len({r["run"] for r in runs}) + 1  # and the upstream
    assert printed(book).count("\nSYNTHETIC test metrics") == made
    (sheet,) = [o for o in outputs(book) if "image/png" in o.get("data", {})]
    assert len(sheet.data["image/png"]) > 10_000
    losses, bars = plots(book)
    for figure in (losses, bars):
        assert figure["layout"]["title"]["text"].startswith("SYNTHETIC")
    for r in runs:
        result = json.loads((folder / r["run"] / "result.json").read_text())
        metric = result["metrics"][r["metric"]]
        assert result["synthetic"] and metric["value"] == r["value"]
        assert r["low"] <= r["value"] <= r["high"]
    auroc = {
        (r["start"], r["shots"]): r["value"]
        for r in runs
        if r["metric"] == "auroc_macro"
    }
    for p in pairs:
        gap = auroc["pre-trained", p["shots"]] - auroc["from scratch", p["shots"]]
        assert abs(p["pre-trained minus scratch"] - gap) < 1e-9
        assert p["low"] <= gap <= p["high"]
    return runs, pairs


def test_quickstart_at_toy_size(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", COMPILE_FAST)  # and one device, not eight
    runs, pairs = quickstart(tmp_path, TOY.format(folder=str(tmp_path), shots=["1"]))
    assert len(runs) == 2 * 3 and len(pairs) == 1


@pytest.mark.slow
def test_quickstart_as_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # of conftest.py: quick to compile, slow to run
    runs, pairs = quickstart(tmp_path, f"FOLDER = {str(tmp_path)!r}")
    assert [p["shots"] for p in pairs] == ["1", "10", "full"]
    assert len(runs) == 6 * 3
