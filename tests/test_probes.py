"""The published probes of arXiv 2212.07143: their rows, their ranking, what luck adds.

The data are not in the repository: the tests of it skip where it is absent.
"""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bigxfer.report import figures_ranking
from bigxfer.report.page import build
from bigxfer.tables import probes, table
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.table_args import Given

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "laion_probes"
PCAM, DR = "vtab/pcam", "vtab/diabetic_retinopathy"


@pytest.fixture(scope="module")
def rows():
    if not DATA.is_dir():
        pytest.skip("needs ../shared/data/laion_probes")
    return probes.read(DATA)


def record(accuracy=0.5, dataset="vtab/dtd", **more):
    out = {"k": 10, "lr": 0.1, "bs": 256, "epochs": 10, "model": "V", "pretrained": "p"}
    out |= {"dataset": dataset, "seed": 0, "samples_seen": 1e9, "lp_acc1": accuracy}
    return out | {"lp_mean_per_class_recall": accuracy} | more


def written(folder, records):
    (folder / probes.FILE).write_text(json.dumps(records))
    return folder


def test_every_run_once_with_its_limits(rows):
    assert len(rows) == 4752 == len({r["digest"] for r in rows})
    assert len({(r["model"], r["upstream"]) for r in rows}) == 12
    assert len({r["target"] for r in rows}) == 21
    assert {len(found) for found in probes.cells(rows).values()} == {9}
    row = next(r for r in rows if r["target"] == PCAM and r["shots"] == "10")
    hits = round(row["accuracy"] * 32_768)
    exact = stats.binomtest(hits, 32_768).proportion_ci(method="wilson")
    assert row["accuracy_low"] == pytest.approx(exact.low)
    assert row["accuracy_high"] == pytest.approx(exact.high)
    assert "balanced_accuracy_low" not in row  # the sizes of the classes are not known


def test_the_best_of_nine_is_what_is_reported(rows):
    kept = probes.reported(rows)
    assert len(kept) == 4752 // 9
    for row in kept[::40]:
        alike = [
            r["accuracy"]
            for r in rows
            if all(r[k] == row[k] for k in ("target", "shots", "model", "upstream"))
        ]
        assert row["accuracy"] == max(alike) and len(alike) == 9
    other = {"protocol": "hyperrule"}
    assert probes.reported([other]) == [other]


def test_what_survives_of_the_medical_rankings(rows):
    """PCam and retinopathy; docs/findings.md and the page have these numbers."""
    told = {}
    for target in (PCAM, DR):
        for shots in ("10", "full"):
            r = probes.ranking(rows, target, shots)
            told[target, shots] = (r.survive, r.at_all, r.reversed)
            assert r.pairs == 66 and len(r.encoders) == 12
            values = [e.value for e in r.encoders]
            assert values == sorted(values, reverse=True)
    assert told == {
        (PCAM, "10"): (57, 15, 8),
        (PCAM, "full"): (40, 39, 8),
        (DR, "10"): (64, 3, 36),
        (DR, "full"): (25, 4, 0),
    }


def test_a_pair_survives_by_a_pooled_z_test_after_holm(rows):
    r = probes.ranking(rows, PCAM, "full")
    value, n = np.array([e.value for e in r.encoders]), r.images
    i, j = np.triu_indices(12, 1)
    mean = (value[i] + value[j]) / 2
    p = 2 * stats.norm.sf((value[i] - value[j]) / np.sqrt(2 * mean * (1 - mean) / n))
    holm = np.maximum.accumulate(np.sort(p) * np.arange(66, 0, -1))
    assert r.survive == (holm < 0.05).sum()
    apart = dict(zip(zip(i, j), p < np.sort(p)[r.survive]))
    for k, e in enumerate(r.encoders):
        assert e.first == 1 + sum(apart[x, k] for x in range(k))
        assert e.last == 12 - sum(apart[k, x] for x in range(k + 1, 12))


@pytest.mark.parametrize("spread, alike", [(0, 0), (0, 0.5), (1, 0), (1, 0.5), (4, 0)])
def test_luck_is_what_the_best_of_nine_is_too_good_by(spread, alike):
    """Known truth: nine true accuracies, errors that correlate over the settings."""
    rng, n, mean = np.random.default_rng(5), 32_768, 0.7
    error, true, found = np.sqrt(mean * (1 - mean) / n), [], []
    for _ in range(150):
        truth = mean + spread * error * rng.normal(size=9)
        own = np.sqrt(alike) * rng.normal() + np.sqrt(1 - alike) * rng.normal(size=9)
        seen = truth + error * own
        true.append(error * own[seen.argmax()])
        found.append(probes.luck(seen, n, alike))
    slack = 4 * np.std(true) / np.sqrt(150)
    assert np.mean(found) == pytest.approx(np.mean(true), abs=slack)
    if not spread and not alike:  # E max of nine normals is 1.485 standard deviations
        assert np.mean(true) == pytest.approx(1.485 * error, abs=slack)
    assert np.mean(found) <= np.mean([probes.luck(seen, n)]) + 2 * slack


def test_the_setting_of_the_other_sets_sees_no_test_image_of_its_own(tmp_path):
    """On two sets rate 0.1 is best, on dtd 0.01: there 0.1 counts."""
    records = [
        record(a, dataset, lr=lr)
        for dataset, high, low in (
            ("vtab/dtd", 0.25, 0.75),
            ("vtab/cifar10", 0.9, 0.3),
            ("vtab/eurosat", 0.8, 0.7),
        )
        for lr, a in ((0.1, high), (0.01, low))
    ]
    found = probes.elsewhere(probes.read(written(tmp_path, records)))
    assert found["vtab/dtd", "10", "V", "p"] == 0.25
    assert found["vtab/cifar10", "10", "V", "p"] == 0.3  # 1.45 of the others to 1.05


@pytest.mark.parametrize(
    "records, message",
    [
        ([record(0.50001)], "record 0: accuracy 0.50001 is no share of 1880"),
        ([record(1.5)], "accuracy 1.5"),
        ([record(), record()], "record 1 repeats the run vtab/dtd, 10 shots, V p"),
        ([record(dataset="x")], "data set 'x' is not known"),
        ([{"k": 1}], "record 0 lacks lr, bs"),
    ],
)
def test_damaged_records_are_named(tmp_path, records, message):
    with pytest.raises(ValueError, match=message):
        probes.read(written(tmp_path, records))


def test_no_json_is_named(tmp_path):
    (tmp_path / probes.FILE).write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        probes.read(tmp_path)


def test_the_page_ranks_and_says_what_choosing_adds(tmp_path):
    records = [
        record(a / 1880, pretrained=name, lr=lr)
        for name, values in (("a", (1400, 1300)), ("b", (850, 1350)), ("<c>", (900, 901)))
        for lr, a in zip((0.1, 0.01), values)
    ]  # fmt: skip
    found = [
        dict.fromkeys(table.COLUMNS) | r
        for r in probes.read(written(tmp_path, records))
    ]
    page = build(Given(found, tmp_path / "t" / "table.parquet", ""), PredictionReader())
    assert "3 transfer" not in page and "<c>" not in page.partition("<script>")[0]
    (panel,) = figures_ranking.panels(figures_ranking.rankings(found))
    opening = page.partition('id="findings"')[2].partition("</section>")[0]
    assert "tells 2 of 3 pairs" in opening and "would settle the order" in opening
    assert 0 < opening.count("<li>") <= 5
    assert "1 of these keep their order at every setting" in panel.html
    assert "V &lt;c&gt;" in panel.html and "<td>1 to 2</td>" in panel.html
    json_of = page.partition('id="data">')[2].partition("</script>")[0]
    assert "tells 2 of 3 pairs of encoders apart" in json_of


def test_the_notebook_says_the_same(rows, tmp_path):
    table.save(rows, tmp_path)
    book = json.loads((ROOT / "colabs" / "explore_results.ipynb").read_text())
    cells = {c["id"]: "".join(c["source"]) for c in book["cells"]}
    assert 'PROBES = ""' in cells["parameters"]
    imports = (
        "from pathlib import Path\n"
        "import numpy as np\nimport pandas as pd\n"
        "from bigxfer.tables import compact\n"
        f"PROBES = {str(tmp_path / 'table.parquet')!r}\n"
    )
    (tmp_path / "cells.py").write_text(imports + cells["probes"])
    told = runpy.run_path(str(tmp_path / "cells.py"))["survived"]
    survive = told.set_index(["target", "shots"])["survive"].to_dict()
    assert survive == {
        (PCAM, "10"): 57, (PCAM, "full"): 40, (DR, "10"): 64, (DR, "full"): 25
    }  # fmt: skip
    assert told["choosing"].tolist() == [1.9, 0.2, 9.9, 0.0]


def test_a_ranking_by_hand(tmp_path):
    """Three encoders on two sets of 1880 and 5400 images, at two rates."""
    hits = {  # of dtd at rates 0.1 and 0.01, of eurosat
        "a": ((1400, 1390), (5000, 4000)),
        "b": ((1300, 1380), (4000, 5000)),
        "c": ((1310, 900), (3000, 4500)),
    }
    records = [
        record(k / n, dataset, pretrained=name, lr=lr)
        for name, both in hits.items()
        for dataset, n, counts in zip(("vtab/dtd", "vtab/eurosat"), (1880, 5400), both)
        for lr, k in zip((0.1, 0.01), counts)
    ]
    found = probes.read(written(tmp_path, records))
    r = probes.ranking(found, "vtab/dtd", "10")
    assert (r.target, r.shots, r.images, r.pairs) == ("vtab/dtd", "10", 1880, 3)
    assert [e.name for e in r.encoders] == ["V a", "V b", "V c"]
    best = np.array([1400, 1380, 1310]) / 1880
    assert [e.value for e in r.encoders] == pytest.approx(best)
    # by the rate that is best on eurosat: 0.1 for a, 0.01 for the others
    assert [e.elsewhere for e in r.encoders] == pytest.approx(
        np.array([1400, 1380, 900]) / 1880
    )
    assert r.reversed == 0
    p = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        mean = (best[i] + best[j]) / 2
        error = np.sqrt(2 * mean * (1 - mean) / 1880)
        p.append(2 * stats.norm.sf((best[i] - best[j]) / error))
    assert 3 * p[1] < 0.05 < p[0] and 2 * p[2] < 0.05
    assert (r.survive, r.at_all) == (2, 1)  # c is ahead of b at the rate 0.1
    assert [(e.first, e.last) for e in r.encoders] == [(1, 2), (1, 2), (3, 3)]
    exact = stats.binomtest(1400, 1880).proportion_ci(method="wilson")
    assert r.encoders[0].low == pytest.approx(exact.low)
    assert r.encoders[0].high == pytest.approx(exact.high)
    lucky = [probes.luck(np.array(hits[n][0]) / 1880, 1880) for n in "abc"]
    assert [e.luck for e in r.encoders] == lucky and lucky[0] > lucky[1] > lucky[2]
    other = probes.ranking(found, "vtab/eurosat", "10")
    assert [e.name for e in other.encoders] == ["V a", "V b", "V c"]
    assert [e.elsewhere for e in other.encoders] == pytest.approx(
        np.array([5000, 5000, 3000]) / 5400
    )
    kept = probes.reported(found)
    assert len(kept) == 6 and {row["protocol"] for row in kept} == {probes.CHOSEN}
    with pytest.raises(ValueError, match="fewer than two encoders"):
        probes.ranking(found, "vtab/dtd", "full")


def test_luck_of_equal_settings_is_the_mean_of_the_largest_of_normals():
    """Of two it is 1 / sqrt(pi) standard deviations, of three 1.5 of that."""
    error = np.sqrt(0.6 * 0.4 / 1000)
    for settings, share in ((2, 1), (3, 1.5)):
        found = probes.luck([0.6] * settings, 1000)
        assert found == pytest.approx(share * error / np.sqrt(np.pi), rel=0.05)
        alike = probes.luck([0.6] * settings, 1000, 0.75)
        assert alike == pytest.approx(found / 2)
    assert probes.luck([0.9, 0.1], 1000) == pytest.approx(0, abs=error / 10)


def test_no_difference_of_shares():
    assert probes._p_value(1.0, 1.0, 50) == 1 and probes._p_value(0.5, 0.5, 50) == 1
    assert probes._p_value(0.6, 0.4, 100) == pytest.approx(
        2 * stats.norm.sf(0.2 / np.sqrt(0.5 / 100))
    )


def test_all_training_images_are_no_number_of_shots(tmp_path):
    (row,) = probes.read(written(tmp_path, [record(k=-1)]))
    assert row["shots"] == "full" and row["folder"].startswith("vtab/dtd, full shots")
