"""The report: its numbers against scipy and scikit-learn, its page in Chromium."""

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from make_run import predicted
from scipy import stats
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve
from test_leakage import scenes
from test_split import manifest
from test_study_fit import run, study

from bigxfer import audit
from bigxfer.data.dataset import Dataset
from bigxfer.report import (
    audit_page,
    figures,
    figures_pairs,
    figures_predictions,
    figures_scaling,
    laws_table,
    style,
)
from bigxfer.report.page import build
from bigxfer.runs import finished
from bigxfer.runs.predictions import Predictions as Predicted
from bigxfer.scaling import curves
from bigxfer.statistics import metrics
from bigxfer.study.commands import report
from bigxfer.study.commands.report import LIMIT
from bigxfer.tables import families, lines, table
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.table_args import Given

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "tests" / "data" / "published.zip"
CLASSES = np.array(["covid", "normal", "pneumonia"])
SIZES = (100, 1000, 10_000)


def predictions(folder, skill, seed, n=80):
    """Made-up predictions.npz of two images a patient; returns its metrics."""
    labels = np.arange(n) % 3
    rng = np.random.default_rng([seed, round(100 * skill)])
    logits = rng.normal(0, 1, (n, 3)) + skill * np.eye(3)[labels]
    patients = np.array([f"p{i // 2:03}" for i in range(n)])
    ids = [f"i{i:03}" for i in range(n)]
    predicted(folder, labels, logits, CLASSES, ids, patients)
    found = metrics.compute(labels, logits, CLASSES.tolist(), patients, False)
    return {name: m["value"] for name, m in found["metrics"].items()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A synthetic study with predictions, and beside it a run that failed."""
    root = tmp_path_factory.mktemp("toy") / "runs"
    rows = []
    for model, params in (("R26x0.5", 2e6), ("R50x1", 2.3e7)):
        for size in (None, *SIZES):
            name = f"{model} {size}"
            for shots in ("1", "5", "10", "full"):
                for seed in range(2):
                    folder = root / table.name_digest(f"{name} {shots} {seed}")
                    skill = 0.3 + 0.4 * ("1", "5", "10", "full").index(shots)
                    skill += 0.1 * np.log10(size or 10) + 0.1 * (model == "R50x1")
                    row = run("shapes" if size else "scratch", shots, seed)
                    row |= {"model": model, "params": int(params), "synthetic": True}
                    row |= {"upstream_size": size, "folder": str(folder)}
                    row |= predictions(folder, skill, seed)
                    rows.append(row | {"digest": folder.name})
    failed = root / "0123456789abcdef"
    failed.mkdir()
    (failed / "config.json").write_text("{}")
    (failed / "error.txt").write_text("Traceback\nValueError: no <image>\n")
    table.save(rows, root / "study_toy")
    return Given(rows, root / "study_toy" / "table.parquet", "")


@pytest.fixture(scope="module")
def page(toy):
    path = toy.path.with_name("report.html")
    path.write_text(build(toy, PredictionReader(toy.find)), "utf-8")
    return path


def data_of(path):
    return data_in(path.read_text("utf-8"))


def data_in(text):
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


# ---- numbers -----------------------------------------------------------------------


def drawing(rows):
    named, _ = lines.lines(rows)
    styles = style.styles(r["line"] for r in named)
    return figures.Drawing(named, styles, PredictionReader())


def test_curves_without_predictions_have_students_interval_over_draws():
    rows = study({"a": lambda s: 0.5 * s**-0.3}, shots=(1, 5))
    (panel,) = figures.curves(drawing(rows), "auroc_macro")
    (trace,) = panel.figure["data"]
    x = np.array([r["auroc_macro"] for r in rows if r["shots"] == "5"])
    expected = stats.ttest_1samp(x, 0).confidence_interval()
    meta = trace["meta"]
    got = trace["y"][1] - meta["down"][1], trace["y"][1] + meta["up"][1]
    np.testing.assert_allclose(got, expected)
    assert trace["text"][1].startswith("5 shots: 0.69") and "n=5" in trace["text"][1]


def test_no_mean_is_called_the_best_where_their_order_is_open():
    near = {"a": lambda s: 0.5 * s**-0.3, "b": lambda s: 0.499 * s**-0.3}
    far = {"a": lambda s: 0.2 * s**-0.3, "b": lambda s: 0.5 * s**-0.3}
    for laws, noise, words in (
        (near, 0.2, "which of them is better is open"),
        (far, 0.01, "That the first is better than the last is false with"),
    ):
        rows = study(laws, noise=noise, shots=(1, 5))
        # published runs have limits over test images, and so a probability
        limited = [
            r | {"auroc_macro_low": r["auroc_macro"] - 0.01}
            | {"auroc_macro_high": r["auroc_macro"] + 0.01}
            for r in rows
        ]  # fmt: skip
        (said,) = figures.curves_say(drawing(limited), "auroc_macro")
        assert said.html.count(words) == 2 and "best mean" not in said.html


def test_differences_on_the_same_draws_have_the_interval_of_the_paired_t_test():
    laws = {"a": lambda s: 0.5 * s**-0.3, "b": lambda s: 0.49 * s**-0.29}
    rows = study(laws, shots=(1, 5))
    drawn = drawing(rows)
    found = families.compare_all(drawn.rows, "auroc_macro", PredictionReader())
    says, panel = figures_pairs.differences(drawn, found)
    (trace,) = panel.figure["data"]
    for i, shots in enumerate(("1", "5")):
        a, b = (
            [
                r["auroc_macro"]
                for r in rows
                if (r["upstream"], r["shots"]) == (u, shots)
            ]
            for u in "ab"
        )
        low, high = stats.ttest_rel(a, b).confidence_interval()
        assert trace["hovertext"][0][i] == f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        got = trace["z"][0][i]
        assert got == pytest.approx(100 * (np.mean(a) - np.mean(b)), abs=0.051)
    assert trace["meta"]["marks"] == [["", ""]]  # one upstream seed: no star
    assert "2 have no p (one upstream seed" in says.html


def laws_of(rows):
    drawn = drawing(rows)
    grouped, _ = curves.curves(rows, "shots", "auroc_macro")
    laws = [curves.law(c, PredictionReader()) for c in grouped]
    (panel,) = figures_scaling.scaling(drawn, laws, "shots", "laws")
    says, _ = laws_table.laws_table(drawn, laws, "shots", "laws")
    return panel.figure["data"], says.html


def test_a_law_is_drawn_from_six_scales_on_and_says_what_it_reaches():
    six = (1, 5, 10, 50, 100, 500)
    drawn, says = laws_of(study({"a": lambda s: 0.5 * s**-0.3}, shots=six))
    _, _, beyond, band = drawn
    assert beyond["x"][-1] == 4 * 500 and band["fill"] == "toself"
    assert min(band["y"]) < 0.5 * 2000**-0.3 < max(band["y"])
    assert "a reaches macro AUROC 0.90 first, at 2" in says  # 0.1 at 214 shots
    (points,), says = laws_of(study({"a": lambda s: 0.5 * s**-0.3}, shots=six[:5]))
    assert points["mode"] == "lines+markers"
    assert "5 scales on a line have a slope; a forecast needs 6." in says
    assert "No line is known to reach macro AUROC 0.90" in says


def test_bins_of_several_labels_leave_out_the_unknown():
    labels = np.array([[1.0, 0.0], [np.nan, 1.0], [0.0, 0.0]])
    logits = np.array([[3.0, -3.0], [3.0, 0.5], [-0.5, -3.0]])
    none = np.empty(3, str)
    saved = Predicted(none, none, none, none, labels, logits, ("a", "b"))
    count, sure, right = figures_predictions._binned(saved)
    p = expit(logits)
    assert count.sum() == 5 and sure.sum() == pytest.approx(p.sum() - p[1, 0])
    known = np.isfinite(labels)
    expected = calibration_curve(labels[known], p[known], n_bins=10)[0]
    filled = count.sum(0) > 0
    np.testing.assert_allclose((right.sum(0) / count.sum(0).clip(1))[filled], expected)


@pytest.mark.parametrize(
    "rows",
    [
        [run()],
        [run(auroc_macro=None)],
        [run(shots="full", seed=s) for s in range(3)],
        [
            run(shots=s, seed=d, auroc_macro=1.0)
            for s in ("1", "5", "10")
            for d in (0, 1)
        ],
        [run("a", "1"), run("b", "5"), run("a", "5", 1), run("c", "full")],
        [run(u, auroc_macro=None, ece=0.1) for u in "ab"],
    ],
    ids=["one run", "no metric", "full data", "no error", "no pair", "ece alone"],
)
def test_poor_tables_make_a_page_too(rows):
    assert "</html>" in build(
        Given(rows, Path("t/table.parquet"), ""), PredictionReader()
    )


def test_reliability_agrees_with_scikit_learn(page, toy):
    panels = [p for p in data_of(page)["panels"] if p["section"] == "calibration"]
    panel = next(p for p in panels if p["model"] == "R50x1" and p["shots"] == "full")
    (trace,) = [
        t for t in panel["figure"]["data"] if t.get("meta", {}).get("line") == "scratch"
    ]
    hits, sure = [], []
    for row in toy.rows:
        place = row["model"], row["shots"], row["upstream"]
        if place == ("R50x1", "full", "scratch"):
            saved = finished.read(Path(row["folder"])).predictions()
            p = softmax(saved.logits, axis=1)
            hits += list(p.argmax(1) == saved.labels)
            sure += list(p.max(1))
    right, confidence = calibration_curve(hits, sure, n_bins=10)
    count = np.histogram(sure, np.linspace(0, 1, 11))[0]
    kept = count[count > 0] >= 10
    np.testing.assert_allclose(trace["x"], confidence[kept], atol=1e-3)
    np.testing.assert_allclose(trace["y"], right[kept], atol=1e-3)


def test_intervals_with_predictions_count_the_patients(page):
    data = data_of(page)
    curve = next(
        p for p in data["panels"] if p["section"] == "curves" and "figure" in p
    )
    source = curve["figure"]["data"][0]["meta"]["sources"][0]
    text = data["strings"][source].replace("<br>", "")
    assert "over 2 draws and 40 test patients" in text and "/runs/" in text


def test_every_section_is_there_and_every_figure_is_plotlys(page):
    data = data_of(page)
    drawn = {p["section"] for p in data["panels"] if "figure" in p}
    assert drawn >= {"curves", "differences", "laws", "upstream", "size"}
    assert drawn >= {"calibration", "classes"}
    for panel in data["panels"]:
        if "figure" in panel:
            go.Figure(panel["figure"])  # raises for what plotly does not know
    drawn = [
        t["meta"]["line"]
        for p in data["panels"]
        if p["section"] == "upstream" and "figure" in p
        for t in p["figure"]["data"]
    ]
    assert set(drawn) == {"shapes", "scratch"}  # one line over its three sizes


def test_the_page_is_whole_and_says_what_it_is(page):
    text = page.read_text("utf-8")
    assert page.stat().st_size < LIMIT
    assert "SYNTHETIC: the images" in text and "[[" not in text.partition("<script>")[0]
    assert "failed: ValueError: no &lt;image&gt;" in text
    own = re.sub(r"<script>/\*\*\n\* plotly.*?</script>", "", text, flags=re.DOTALL)
    assert len(own) < len(text) - 3e6
    assert not re.search(r"(src|href)\s*=|url\(|https?://", own)
    assert "default-src 'none'" in own


def test_real_studies_have_no_banner_and_leaks_are_said(toy):
    rows = [r | {"synthetic": False, "leaked_patients": 3} for r in toy.rows[:8]]
    text = build(Given(rows, toy.path, ""), PredictionReader(toy.find))
    assert "SYNTHETIC" not in text.partition("<script>")[0]
    assert "8 transfers were tested on patients or images" in text


def test_a_config_says_which_runs_are_missing(toy, monkeypatch):
    monkeypatch.chdir(ROOT)
    missing = report.unfinished(toy._replace(config="configs/study_demo.py"))
    assert missing and all(": waiting" in m or ": ready" in m for m in missing)
    assert any(
        m.startswith("R26x0.25 nih -> covidx, 1 shot, 12 draws ") for m in missing
    )
    assert not any("caches/" in m for m in missing)


def test_names_cannot_break_out_of_the_page(toy):
    rows = [r | {"upstream": "</script><b>x", "study": "<i>"} for r in toy.rows[:8]]
    text = build(Given(rows, Path("elsewhere/table.parquet"), ""), PredictionReader())
    assert "</script><b>" not in text and "<i>" not in text
    said = [p["html"] for p in data_in(text)["panels"] if "html" in p]
    assert said and not any("<b>x" in html for html in said)


# ---- in the browser ----------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One browser for all tests: to start it takes longer than most of them."""
    selenium = pytest.importorskip("selenium.webdriver")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    options = selenium.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1280,900",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = selenium.ChromeService(shutil.which("chromedriver"))
    driver = selenium.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, tmp_path):
    """The browser with a wide screen and a folder of the test's own."""
    place = {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", place)
    yield chromium
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.get_log("browser")  # what one test has said is no matter of the next


UNDRAWN = """return [...document.querySelectorAll('.plot')].filter(
  (p) => !p.querySelector('.main-svg') ||
         !p.querySelector('.scatterlayer .trace path, .heatmaplayer image, .heatmaplayer rect')
).map((p) => p.parentNode.textContent)"""


def panels(driver, section="main"):
    return driver.execute_script(
        f"return [...document.querySelectorAll('{section} .panel figcaption span')]"
        ".map((s) => s.textContent)"
    )


def choose(driver, key, value):
    driver.execute_script(
        "const s = document.getElementById(`choose-${arguments[0]}`);"
        "s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
        key,
        value,
    )


def check_drawn(driver):
    assert driver.execute_script("return document.body.dataset.ready") == "true"
    assert driver.execute_script(UNDRAWN) == []
    errors = [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    assert errors == []
    names = "return performance.getEntriesByType('resource').map((r) => r.name)"
    assert [n for n in driver.execute_script(names) if n.startswith("http")] == []


def test_the_page_in_chromium(page, browser, tmp_path):
    browser.get(page.as_uri())
    check_drawn(browser)
    assert len(panels(browser, "#curves")) == 2  # a panel for each model
    choose(browser, "model", "R50x1")
    assert panels(browser, "#curves") == ["SYNTHETIC covidx, R50x1"]
    assert panels(browser, "#calibration") == ["SYNTHETIC covidx, R50x1, full data"]
    choose(browser, "shots", "")
    assert len(panels(browser, "#calibration")) == 4
    choose(browser, "metric", "brier")
    assert panels(browser, "#laws") == []  # which says why
    none = "return document.querySelector('#laws .none').checkVisibility()"
    assert browser.execute_script(none)
    choose(browser, "metric", "accuracy")
    check_drawn(browser)

    count = "return document.querySelectorAll('#curves .scatterlayer .trace').length"
    before = browser.execute_script(count)
    browser.execute_script("document.querySelector('#curves .legend button').click()")
    assert browser.execute_script(count) < before
    matrix = "return document.querySelector('#differences .plot').data[0].y.length"
    assert browser.execute_script(matrix) == 3  # of 4 lines the pairs of 3

    colour = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(colour)
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(colour) != light
    ink = "return document.querySelector('.plot .xtick text').style.fill"
    assert browser.execute_script(ink) == "rgb(230, 234, 240)"
    check_drawn(browser)

    browser.execute_script(
        "document.querySelector('#curves figcaption button').click()"
    )
    saved = tmp_path / "saved" / "curves_SYNTHETIC_covidx_R50x1_accuracy.svg"
    deadline = time.monotonic() + 20
    while not saved.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (
        saved.read_text().startswith("<svg")
        and "SYNTHETIC covidx, R50x1" in saved.read_text()
    )


@pytest.mark.slow
def test_the_published_runs(tmp_path, browser):
    study = [sys.executable, "-m", "bigxfer.study"]
    out = ["--out", str(tmp_path)]
    shutil.unpack_archive(PUBLISHED, tmp_path / "published")
    given = ["--published", str(tmp_path / "published")]
    subprocess.run([*study, "collect", *given, *out], cwd=ROOT, check=True)
    path = tmp_path / "report.html"
    given = ["--table", str(tmp_path / "table.parquet"), "--out", str(path)]
    subprocess.run([*study, "report", *given], cwd=ROOT, check=True)
    assert path.stat().st_size < LIMIT
    browser.get(path.as_uri())
    for target in data_of(path)["choices"]["target"]:
        choose(browser, "target", target)
        choose(browser, "shots", "")
        check_drawn(browser)
        assert len(panels(browser, "#curves")) == 2
        assert panels(browser, "#size")


# ---- every kind of page on a narrow screen ------------------------------------------


def narrow(driver):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
    )


def test_intervals_of_a_matrix_are_there_for_the_keyboard_and_on_paper(page, browser):
    browser.get(page.as_uri())
    first = "document.querySelector('#differences .numbers')"
    assert browser.execute_script(f"return {first}.querySelector('table')") is None
    focus = f"{first}.querySelector('summary').focus(); return document.activeElement.tagName"
    assert browser.execute_script(focus) == "SUMMARY"
    ActionChains = pytest.importorskip("selenium.webdriver").ActionChains
    ActionChains(browser).send_keys("\ue007").perform()  # Enter
    deadline = time.monotonic() + 10
    text = ""
    while not text and time.monotonic() < deadline:
        text = browser.execute_script(
            f"return {first}.querySelector('table')?.innerText"
        )
    cells = re.findall(r"[+-]?\d+\.\d\S? \[[+-]\d+\.\d, [+-]\d+\.\d\]", text)
    assert len(cells) == 6 * 4  # pairs of four lines, at four numbers of shots
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    opened = "return [...document.querySelectorAll('.numbers')].every((d) => d.open"
    assert browser.execute_script(f"{opened} && d.querySelector('td').innerText)")


@pytest.mark.parametrize("kind", ["report", "audit"])
def test_no_page_scrolls_sideways_on_a_narrow_screen(kind, page, browser, tmp_path):
    """Whatever is wide, such as a table of 14 classes, scrolls by itself."""
    if kind == "audit":
        page = tmp_path / "audit.html"
        page.write_text(wide_audit(), "utf-8")
    narrow(browser)
    browser.get(page.as_uri())
    if kind == "report":
        check_drawn(browser)
    for dark in (False, True):
        browser.execute_script(f"theme.set({str(dark).lower()})")
        browser.execute_script(
            "document.querySelectorAll('details').forEach((d) => d.open = true)"
        )
        wide = "return document.documentElement.scrollWidth"
        assert browser.execute_script(wide) == 390
        ink = "return getComputedStyle(document.body).color"
        assert (browser.execute_script(ink) == "rgb(230, 234, 240)") == dark


def wide_audit():
    """An audit of 14 findings with long names, leaks and pairs."""
    names = [f"a finding with a long name {k}" for k in range(14)]
    m = manifest([k // 2 for k in range(40)], np.eye(14)[np.arange(40) % 14])
    halves = np.array(["train", "test"] * 20, object)
    m = replace(m, split=halves, classes=tuple(names))
    images = scenes(40)
    images[21] = images[0]
    rows = {"train": np.arange(40), "valid": np.arange(0), "test": np.arange(0)}
    bad = [["x", "x" * 80, "cannot be read " * 20]]
    data = Dataset(m, images, rows, {"undecodable": bad})
    return audit_page.page(audit.audit(data), [data])
