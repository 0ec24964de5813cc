"""The published runs give back the numbers recomputed in the facts and the claims.

The facts are not in the repository: the tests that read them skip where they are absent.
"""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bigxfer.tables import differences, estimates, families, lines, published, table
from bigxfer.tables.cells import PredictionReader

SHARED = Path(__file__).parents[2] / "shared"
DATA = Path(__file__).parent / "data" / "published.zip"
FACTS = SHARED / "facts" / "predecessors.md"
UNION = "chexpert_mimic_nih_padchest"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The CSVs as they were published, in results/."""
    folder = tmp_path_factory.mktemp("published")
    shutil.unpack_archive(DATA, folder)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return published.read(folder)


def test_every_run_once(found):
    assert len(found.rows) == 1440
    assert (found.lines, found.duplicates) == (17_136, 17_136 - 8640)
    assert len({row["digest"] for row in found.rows}) == 1440
    assert set(table.metric_names(found.rows)) == set(published.LONG_METRICS)
    assert all(row[m] is not None for row in found.rows for m in published.LONG_METRICS)


def test_short_runs_and_missing_seeds_are_reported(found):
    assert len(found.short) == 9
    assert all("1_shot" in line and "400 of 500" in line for line in found.short)
    assert len(found.missing) == 5
    assert sum(line.startswith("pets imagenet1k R50x1") for line in found.missing) == 4
    assert "padchest chexpert_mimic R50x1 10-shot lacks seed 4" in found.missing


def test_the_accuracies_are_multiples_of_one_over_the_test_images(found):
    for row in found.rows:
        hits = row["accuracy"] * row["test_images"]
        assert abs(hits - round(hits)) < 2e-3, row["folder"]


def test_parameters_are_those_of_the_published_heads(found):
    # facts section 4: R50x1 with 1000 classes has 25,549,352
    assert 23_500_352 + 2049 * 1000 == 25_549_352
    (row,) = differences.select(
        found.rows, target="cifar10", model="R50x1", upstream="imagenet1k", shots="1"
    )[:1]
    assert row["params"] == 23_500_352 + 2049 * 10


def fact_tables():
    """[(target, metric, model, upstream, {shots: "mean±std(n=4)"})] of section 2.2."""
    theirs = {theirs: ours for ours, theirs in published.LONG_METRICS.items()}
    target = metric = ""
    header: list[str] = []
    for line in FACTS.read_text().splitlines():
        if match := re.match(r"\*\*(\w+) — (test/\w+)\*\*", line):
            target, metric, header = match[1], theirs[match[2]], []
        elif line.startswith("### 2.3"):
            return
        elif target and line.startswith("| arch"):
            header = [c.strip() for c in line.strip("|\n").split("|")]
        elif header and line.startswith("| R"):
            cells = [c.strip() for c in line.strip("|\n").split("|")]
            short = {"C": "chexpert", "M": "mimic", "N": "nih", "P": "padchest"}
            upstream = "_".join(short.get(p, p) for p in cells[1].split("+"))
            yield target, metric, cells[0], upstream, dict(zip(header[2:], cells[2:]))


def spread(rows, metric):
    """{shots: mean, standard deviation and number of the runs}."""
    values = {}
    for row in rows:
        values.setdefault(row["shots"], []).append(row[metric])
    return {
        shots: {"mean": np.mean(x), "std": np.std(x, ddof=1), "n": len(x)}
        for shots, x in values.items()
    }


@pytest.mark.skipif(not FACTS.is_file(), reason="needs ../shared/facts")
def test_means_and_standard_deviations_are_those_of_the_facts(found):
    checked = 0
    for target, metric, model, upstream, cells in fact_tables():
        rows = differences.select(
            found.rows, target=target, model=model, upstream=upstream
        )
        ours = spread(rows, metric)
        assert ours.keys() == cells.keys()
        for shots, text in cells.items():
            mean, std, n = re.match(r"([\d.]+)±([\d.]+)(?:\(n=(\d)\))?", text).groups()
            assert ours[shots]["n"] == int(n or 5)
            where = (target, metric, model, upstream, shots)
            for want, key in ((mean, "mean"), (std, "std")):
                # Half of the last printed digit, and what float32 left of it.
                got = 100 * ours[shots][key]
                assert abs(got - float(want)) < 0.005 + 1e-5, (where, key)
            checked += 1
    assert checked > 350


def difference(found, target, metric, a, b, shots):
    rows = differences.select(found.rows, target=target, shots=shots)
    (result,) = differences.compare(rows, metric, a, b, PredictionReader())
    assert result.verdict == "" and np.isnan(result.p_holm)  # one upstream seed each
    return result.difference


def model(upstream, size):
    return {"upstream": upstream, "model": size}


def test_claim_1_holds_on_cifar_and_flowers_and_fails_on_pets(found):
    large, small = model("imagenet21k", "R152x4"), model("imagenet1k", "R50x1")
    for target in ("cifar10", "cifar100", "flowers_oversampling"):
        rows = differences.select(found.rows, target=target)
        cells = differences.compare(rows, "accuracy", large, small, PredictionReader())
        assert len(cells) == (4 if target.startswith("flowers") else 6)
        for c in cells:
            assert c.difference.low > 0 and c.difference.false < 0.01, c
            assert c.difference.lacks.startswith("one upstream seed")
    want = {
        "R50x1": {"1": -3.1, "5": -7.3, "10": -2.8},
        "R152x4": {"1": -3.2, "5": -2.2, "10": -2.0},
    }
    for size, by_shots in want.items():
        for shots, points in by_shots.items():
            d = difference(
                found,
                "pets",
                "accuracy",
                model("imagenet21k", size),
                model("imagenet1k", size),
                shots,
            )
            assert abs(100 * d.value - points) < 0.05 + 1e-3, (size, shots)
            draws = 4 if size == "R50x1" else 5
            assert d.covers == (
                f"over {draws} draws and 3669 test images, as in independent patients;"
                " about these two upstreams"
            )


@pytest.mark.parametrize(
    ("target", "metric", "shots", "points"),
    [
        ("tuberculosis_full", "accuracy", "100", 5.8),
        ("tuberculosis_full", "accuracy", "full", 11.9),
        ("covidx_cxr2", "accuracy", "100", 6.2),
        ("covidx_cxr2", "accuracy", "500", 5.4),
        ("covidx_cxr2", "accuracy", "full", 4.4),
        ("padchest", "auroc_macro", "1", 0.2),
        ("padchest", "auroc_macro", "5", 1.2),
        ("padchest", "auroc_macro", "10", 1.9),
        ("padchest", "auroc_macro", "100", 1.3),
        ("padchest", "auroc_macro", "full", 0.9),
    ],
)
def test_claim_2_more_xray_data_helps_above_10_shots(
    found, target, metric, shots, points
):
    union = "chexpert_mimic_nih" if target == "padchest" else UNION
    d = difference(
        found,
        target,
        metric,
        model(union, "R152x4"),
        model("chexpert", "R152x4"),
        shots,
    )
    assert abs(100 * d.value - points) < 0.05 + 1e-3


def test_claim_2_fails_at_few_shots_of_covidx_and_tuberculosis(found):
    rows = differences.select(
        found.rows,
        target=("covidx_cxr2", "tuberculosis_full"),
        shots=("1", "5", "10"),
    )
    sides = model(UNION, "R152x4"), model("chexpert", "R152x4")
    cells = differences.compare(rows, "accuracy", *sides, PredictionReader())
    assert len(cells) == 6
    for c in cells:
        assert abs(c.difference.value) < 0.05, c
        assert c.difference.low < 0 < c.difference.high


def test_claim_3_size_helps_xray_upstreams_at_full_data(found):
    def gap(target, metric, upstream):
        a, b = model(upstream, "R152x4"), model(upstream, "R50x1")
        return 100 * difference(found, target, metric, a, b, "full").value

    xray = ("chexpert", "chexpert_mimic", "chexpert_mimic_nih", UNION)
    covid = [gap("covidx_cxr2", "accuracy", u) for u in xray]
    assert 5 < min(covid) and max(covid) < 10.2
    tb = [gap("tuberculosis_full", "accuracy", u) for u in xray]
    assert abs(tb[0] + 0.8) < 0.06
    assert 5.75 < min(tb[1:]) and max(tb[1:]) < 9.35
    pad = [gap("padchest", "auroc_macro", u) for u in xray[:3]]
    assert abs(min(pad) - 4.4) < 0.1 and abs(max(pad) - 8.8) < 0.1
    natural = [
        gap(t, "accuracy", u)
        for t in ("covidx_cxr2", "tuberculosis_full")
        for u in ("imagenet1k", "imagenet21k")
    ]
    np.testing.assert_allclose(natural, [1.8, 0.55, 1.65, -2.64], atol=0.06)


def draws(found, target, metric, upstream, size, shots):
    rows = differences.select(
        found.rows, target=target, upstream=upstream, model=size, shots=shots
    )
    return {row["seed"]: row[metric] for row in rows}


CLAIM_4 = """
padchest auroc_macro R50x1 -1.7* -3.5** -1.6 +0.3 . +3.7**
padchest auroc_macro R152x4 -2.3** -5.1** -5.5** -3.1** . +1.3**
covidx_cxr2 accuracy R50x1 +7.7 -2.4 +0.7 -0.9 +0.5 +2.3*
covidx_cxr2 accuracy R152x4 +8.0 +2.6 +1.5 -0.9 -3.9* -4.1**
covidx_cxr2 auroc_macro R50x1 +12.1 +1.4 -0.5 -1.8 +4.1** +5.5**
covidx_cxr2 auroc_macro R152x4 +14.6 +12.5 +1.1 -3.1* -0.6 +1.3**
tuberculosis_full accuracy R50x1 +0.8 +7.3 +1.3 +1.8 . +1.8*
tuberculosis_full accuracy R152x4 +0.5 -4.6 +2.8 -3.5* . -10.1**
tuberculosis_full auroc_macro R50x1 -1.5 -4.2 -1.4 -1.9* . -1.0
tuberculosis_full auroc_macro R152x4 -9.4 -5.6 -0.1 -5.1** . -3.0**
"""  # i21k minus the largest X-ray union at 1 5 10 100 500 full; * p<.05, ** p<.01


@pytest.mark.parametrize("line", CLAIM_4.strip().splitlines())
def test_claim_4_imagenet21k_against_the_largest_xray_union(found, line):
    target, metric, size, *cells = line.split()
    union = "chexpert_mimic_nih" if target == "padchest" else UNION
    for shots, text in zip(("1", "5", "10", "100", "500", "full"), cells, strict=True):
        if text == ".":
            continue
        d = difference(
            found,
            target,
            metric,
            model("imagenet21k", size),
            model(union, size),
            shots,
        )
        assert abs(100 * d.value - float(text.rstrip("*"))) < 0.05 + 1e-3, shots
        x, y = (
            draws(found, target, metric, u, size, shots) for u in ("imagenet21k", union)
        )
        p = stats.ttest_rel(*zip(*((x[s], y[s]) for s in x.keys() & y.keys()))).pvalue
        assert int(p < 0.05) + int(p < 0.01) == text.count("*"), shots
        if d.low > 0 or d.high < 0:  # test images too: fewer than the stars of draws
            assert p < 0.05


def test_claim_4_accuracy_and_auroc_disagree_on_covidx(found):
    """As means of five trainings; 400 test images cannot tell it of patients."""
    a, b = model("imagenet21k", "R152x4"), model(UNION, "R152x4")
    accuracy = difference(found, "covidx_cxr2", "accuracy", a, b, "full")
    auroc = difference(found, "covidx_cxr2", "auroc_macro", a, b, "full")
    assert accuracy.value < 0 < auroc.value
    assert accuracy.high > 0 > auroc.low


def test_claim_5_five_draws_cannot_rank_upstreams_at_one_shot_of_covidx(found):
    rows = differences.select(found.rows, target="covidx_cxr2", model="R152x4")
    named, _ = lines.lines(rows)
    (family,) = families.compare_all(named, "accuracy", PredictionReader())
    pairs = [c for c in family.found.values() if c.about["shots"] == "1"]
    assert len(pairs) == 8 * 7 // 2 and family.judged == []
    inside = [c.difference.low < 0 < c.difference.high for c in pairs]
    assert sum(inside) == 27  # the one of 28 that 95% intervals miss by chance


def test_limits_of_a_published_run_hold_the_choice_of_test_images(found):
    """ "0.959 [0.955, 0.963]" on 121 images was nine times too narrow."""
    for row in found.rows[::50]:
        n = row["test_images"]
        exact = stats.binomtest(round(row["accuracy"] * n), n).proportion_ci()
        assert exact.low <= row["accuracy_low"] < row["accuracy"]
        assert row["accuracy"] < row["accuracy_high"] <= exact.high
    rows = differences.select(
        found.rows, target="tuberculosis_full", shots="full", model="R152x4"
    )
    runs = differences.select(rows, upstream="imagenet21k")
    e = estimates.estimate(runs, "auroc_macro", PredictionReader())
    assert e.high - e.low > 2 * 1.96 * np.sqrt(0.03 * 0.97 / 121) / 3
    assert e.covers.endswith(
        "121 test images, as in independent patients; about this one upstream"
    )


def as_tuple(line):
    value, *rest = line.values()
    return float(value), *rest


def test_the_long_export_gives_their_files_back(found, folder, tmp_path):
    assert published.export_long(found.rows, tmp_path / "long.csv") == 8640
    ours = set()
    with (tmp_path / "long.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            ours.add(as_tuple(line))
    theirs = set()
    for path in (folder / "results").glob("*.csv"):
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                theirs.add(as_tuple(line))
    assert ours == theirs


HEADER = ",".join(published.LONG)
LINE = "0.5,test/acc,p/seed_0,0,1_shot,imagenet1k_bit50x1,cifar10,500"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2", "columns"),
        (f"{HEADER}\nhalf{LINE[3:]}", "line 2: metric_value 'half' is not"),
        (f"{HEADER}\n{LINE.replace('test/acc', 'test/bac')}", "unknown metric"),
        (f"{HEADER}\n{LINE.replace('50x1', '101x1')}", "architecture 'bit101x1'"),
        (f"{HEADER}\n{LINE.replace('cifar10', 'mnist')}", "data set 'mnist'"),
        (f"{HEADER}\n{LINE}\n0.6{LINE[3:]}", "line 3: .* has another test/acc"),
    ],
)
def test_damaged_csvs_are_named(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text + "\n")
    with pytest.raises(ValueError, match=message):
        published.read(tmp_path)


def test_an_empty_folder_says_where_the_data_is_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="SLAMPAI"):
        published.read(tmp_path)


def test_limits_without_predictions():
    """Pets: 3669 test images of 37 classes, as if of equal size."""
    z, n = 1.959964, 3669 / 37

    def limited(metric, value):
        found = published.limited(metric, value, "pets")
        assert found[metric] == value
        return found[f"{metric}_low"], found[f"{metric}_high"]

    accuracy, recall = limited("accuracy", 0.9), limited("recall/class_0", 0.9)
    for (low, high), images in ((accuracy, 3669), (recall, n)):
        half = z * np.sqrt(0.9 * 0.1 / images)
        assert high - low == pytest.approx(2 * half, rel=0.05) and low < 0.9 < high
    centre, half = 0.9 + z**2 / (2 * n), z * np.sqrt(0.09 / n + z**2 / (4 * n**2))
    wilson = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    assert limited("auprc_macro", 0.9) == pytest.approx(wilson)
    low, high = limited("auroc_macro", 0.9)
    for end in (low, high):  # Hanley and McNeil's variance there, after Newcombe
        half = 3669 / 2 - 1
        spread = 1 + half * ((1 - end) / (2 - end) + end / (1 + end))
        variance = end * (1 - end) * spread / (n * (3669 - n))
        assert abs(end - 0.9) == pytest.approx(z * np.sqrt(variance), rel=1e-4)
    assert limited("f1/class_0", 0.9) == (None, None)


def test_the_columns_of_a_published_run(tmp_path):
    line = "0.5,test/acc,p/seed_3,3,5_shot,imagenet21k_bit152x4,{},400"
    classes = {"cifar100": 100, "flowers_oversampling": 102, "covidx_cxr2": 2}
    classes |= {"tuberculosis_full": 2, "padchest": 27, "pets": 37}
    for target, count in classes.items():
        (tmp_path / "one.csv").write_text(f"{HEADER}\n{line.format(target)}\n")
        found = published.read(tmp_path)
        (row,) = found.rows
        assert row["params"] == 928_340_224 + 8193 * count
        assert row["target_size"] == (None if target == "padchest" else 5 * count)
        assert (row["depth"], row["width"], row["seed"]) == (152, 4.0, 3)
        assert (row["upstream_size"], row["images"]) == (14_200_000, 400 * 128)
        assert found.missing == [
            f"{target} imagenet21k R152x4 5-shot lacks seed 0, 1, 2, 4"
        ]
    full = line.format("pets").replace("5_shot", "full_shot")
    (tmp_path / "one.csv").write_text(f"{HEADER}\n{full}\n")
    assert published.read(tmp_path).rows[0]["target_size"] is None
