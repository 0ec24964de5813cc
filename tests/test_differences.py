"""Comparisons of cells: what is averaged, what has a p, one answer everywhere.

Studies are simulated: upstream seeds, draws and patients with known effects.
"""

import csv
import os
from dataclasses import replace

import numpy as np
import pytest
from make_run import predicted

from bigxfer.report import findings, page
from bigxfer.scaling import curves
from bigxfer.statistics import metrics
from bigxfer.tables import (
    cells,
    differences,
    estimates,
    families,
    lines,
    summary,
    table,
)
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.table_args import Given

CLASSES = ["a", "b"]
IDS = [f"p{i:03}" for i in range(120)]
LABELS = (np.arange(120) % 2).astype(np.int32)


def row(folder, upstream, seed, source=None, shots="5", **more):
    """A run as table.py writes it."""
    out = dict.fromkeys(table.COLUMNS) | {
        "study": "toy",
        "kind": "transfer",
        "upstream": upstream,
        "upstream_digest": "" if upstream == "scratch" else f"{upstream}{source}",
        "upstream_seed": source,
        "model": "R50x1",
        "params": 1000,
        "target": "phantom-covidx",
        "shots": shots,
        "seed": seed,
        "family": f"{upstream} {shots}",
        "settings": "{}",
        "steps": 10,
        "test_images": 120,
        "test_patients": 120,
        "synthetic": True,
        "digest": table.name_digest(f"{upstream} {source} {seed} {shots} {more}"),
        "folder": str(folder),
        "commit": "abc",
    }
    return out | more


def study(root, skill, sources=3, draws=4, shots=("5",)):
    """Runs with saved predictions; `skill` {upstream: mean gap of the classes}."""
    rng, rows = np.random.default_rng(0), []
    patient = rng.normal(0, 1, len(IDS))
    for k in shots:
        draw = rng.normal(0, 0.1, draws)
        for name, gap in skill.items():
            seeds = [None] if name == "scratch" else range(sources)
            for source in seeds:
                luck = rng.normal(0, 0.05)
                for d in range(draws):
                    at = root / f"{name}-{source}-{d}-{k}"
                    noise = patient + 0.5 * rng.normal(0, 1, len(IDS))
                    score = (gap + luck + draw[d]) * (2 * LABELS - 1) + noise
                    logits = np.stack([-score, score], 1).astype(np.float32)
                    predicted(at, LABELS, logits, CLASSES, IDS, IDS)
                    found = metrics.compute(LABELS, logits, CLASSES, IDS)["metrics"]
                    own = row(at, name, d, source, k)
                    for metric in ("auroc_macro", "accuracy"):
                        own[metric] = found[metric]["value"]
                        own[f"{metric}_low"] = found[metric]["low"]
                        own[f"{metric}_high"] = found[metric]["high"]
                    rows.append(own)
    return rows


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    skill = {"nih": 1.2, "same": 1.2, "scratch": 0.5}
    return study(root, skill, shots=("5", "full"))


def family(rows, metric="auroc_macro"):
    named, notes = lines.lines(rows)
    assert notes == []
    (found,) = families.compare_all(named, metric, PredictionReader())
    return found


def pair(found, a, b, shots="5"):
    return found.found[("R50x1", a), ("R50x1", b), shots]


def test_all_runs_of_several_upstream_seeds_are_in_the_mean(toy):
    """2 upstreams x 3 upstream seeds x 4 draws: none of 24 is left out."""
    rows = [r for r in toy if r["shots"] == "5"]
    named, notes = lines.lines(rows)
    assert len(named) == len(rows) == 28 and notes == []
    assert {r["line"] for r in named} == {"nih", "same", "scratch"}
    groups = cells.group(named, "auroc_macro", "line")
    assert len(groups["nih",]) == 12 and len(groups["scratch",]) == 4
    e = estimates.estimate(
        list(groups["nih",].values()), "auroc_macro", PredictionReader()
    )
    mean = np.mean([r["auroc_macro"] for r in groups["nih",].values()])
    assert e.value == pytest.approx(mean) and e.low < mean < e.high
    assert e.covers == "over 3 upstream seeds, 4 draws and 120 test patients"


def test_nothing_depends_on_when_a_file_was_touched(toy):
    rows = [r | {"changed_ns": 5} for r in toy]
    late = [r | {"changed_ns": -i} for i, r in enumerate(toy)][::-1]
    assert summary.text(rows, PredictionReader()) == summary.text(
        late, PredictionReader()
    )


def test_a_p_needs_two_upstream_seeds_of_each_side(toy):
    few = [r for r in toy if r["shots"] == "5"]
    found = family(few)
    clear, alike = pair(found, "nih", "scratch"), pair(found, "nih", "same")
    assert clear.verdict == "A better" and clear.p_holm < 0.05
    assert clear.difference.low > 0 and clear.size == 3
    assert alike.difference.low < 0 < alike.difference.high
    assert alike.verdict in ("equivalent", "not told apart")
    one = family([r for r in few if r["upstream_seed"] in (None, 1)])
    d = pair(one, "nih", "scratch").difference
    assert d.lacks == "one upstream seed: no p speaks of others" and np.isnan(d.p)
    assert d.covers == "over 4 draws and 120 test patients; about this one upstream"
    assert pair(one, "nih", "scratch").verdict == "" and d.false < 0.05
    both = pair(one, "nih", "same").difference
    assert both.covers.endswith("about these two upstreams")


def test_a_p_needs_two_draws_at_few_shots(toy):
    rows = [r for r in toy if r["shots"] == "5" and r["seed"] == 2]
    d = pair(family(rows), "nih", "scratch").difference
    assert d.lacks == "one draw: no p speaks of others" and np.isnan(d.p)
    assert "about this one draw" in d.covers and d.low < d.value < d.high


def test_at_full_data_there_is_no_factor_of_draws(toy):
    """Each upstream seed carries its fine-tunings; seeds need not be the same."""
    full = [r for r in toy if r["shots"] == "full"]
    moved = [
        r | {"seed": r["seed"] + 9} if r["upstream"] == "same" else r for r in full
    ]
    a, b = (
        pair(family(rows), "nih", "same", "full").difference for rows in (full, moved)
    )
    assert a == b and {p.factor for p in a.parts} == {"upstreams", "patients"}
    assert a.covers == "over 3 upstream seeds and 120 test patients"
    x, y = (
        [
            np.mean(
                [
                    r["auroc_macro"]
                    for r in full
                    if (r["upstream"], r["upstream_seed"]) == (u, s)
                ]
            )
            for s in range(3)
        ]
        for u in ("nih", "same")
    )
    assert a.value == pytest.approx(np.mean(x) - np.mean(y))
    parts = [p for p in a.parts if p.factor == "upstreams"]
    for part, values in zip(parts, (x, y), strict=True):
        assert part.low == pytest.approx(np.var(values, ddof=1) / 3)
        assert part.freedom == 2
    scratch = pair(family(full), "nih", "scratch", "full").difference
    assert np.isfinite(scratch.p) and "4 trainings at full data" in scratch.covers


def test_two_ways_to_transfer_the_same_upstreams_are_paired_on_them(toy):
    few = [r for r in toy if r["shots"] == "5" and r["upstream"] == "nih"]
    frozen = [
        r
        | {"start": "50% fixed", "family": "frozen", "digest": f"x{r['digest']}"}
        | {"auroc_macro": r["auroc_macro"] - 0.02}
        for r in few
    ]
    found = family([*few, *frozen])
    ((_, _, _),) = found.found
    (d,) = (c.difference for c in found.found.values())
    assert abs(d.value) == pytest.approx(0.02)
    # the same runs less a constant: neither upstreams nor draws vary
    assert sum(p.low for p in d.parts if p.factor != "patients") < 1e-12


def test_lost_predictions_never_narrow_an_interval(toy):
    few = [r for r in toy if r["shots"] == "5"]
    whole = pair(family(few), "nih", "scratch").difference
    lost = [r | {"folder": f"nowhere/{i}"} for i, r in enumerate(few)]
    table_only = pair(family(lost), "nih", "scratch").difference
    assert table_only.high - table_only.low > whole.high - whole.low
    assert "by the limits of each run" in table_only.covers
    ends = ("auroc_macro_low", "auroc_macro_high")
    bare = [r | dict.fromkeys(ends) for r in lost]
    nothing = pair(family(bare), "nih", "scratch").difference
    assert "the choice of test patients is not covered" in nothing.covers
    assert np.isnan(nothing.p) and np.isnan(nothing.false)


def test_runs_of_other_settings_are_not_averaged(toy):
    few = [r for r in toy if r["shots"] == "5" and r["upstream"] == "nih"]
    other = [
        r
        | {"family": "faster", "settings": '{"optim/lr": 0.01}', "seed": r["seed"] + 4}
        | {"digest": f"x{r['digest']}", "auroc_macro": 0.5}
        for r in few
    ]
    named, notes = lines.lines([*few, *other])
    assert {r["line"] for r in named} == {"nih, optim.lr=0.003", "nih, optim.lr=0.01"}
    unnamed = [r | {"line": "nih"} for r in named]
    with pytest.raises(ValueError, match="other settings or data"):
        cells.group(unnamed, "auroc_macro", "line")
    with pytest.raises(ValueError, match="the same seeds"):
        cells.group([*few, few[0] | {"folder": "elsewhere"}], "auroc_macro", "upstream")
    data = [r | {"family": "data", "digest": f"y{r['digest']}"} for r in few]
    named, _ = lines.lines([*few, *data])
    assert {r["line"] for r in named} == {"nih, family nih 5", "nih, family data"}
    twice = [*few, few[0] | {"folder": "zzz"}]
    named, notes = lines.lines(twice)
    assert len(named) == len(few) and "1 runs stand twice, such as zzz" in notes[0]


def test_lines_are_told_apart_by_what_varies():
    rows = [
        row("f", "nih", s, 0, upstream_size=n, upstream_examples=9 * n, family=f"{n}")
        for s in range(2)
        for n in (100, 1000)
    ]
    named, notes = lines.lines(rows)
    assert notes == []
    assert {r["line"] for r in named} == {"nih, 100 images", "nih, 1,000 images"}
    assert {r["line"] for r in lines.lines(rows, "upstream_size")[0]} == {"nih"}
    short = [*rows, rows[0] | {"seed": 7, "steps": 5, "digest": "short"}]
    named, _ = lines.lines(short)  # of the same family: it stopped early
    assert {r["line"] for r in named} == {"nih, 100 images", "nih, 1,000 images"}


def test_terminal_page_and_csv_say_the_same(toy, tmp_path):
    given = Given(toy, tmp_path / "study_toy" / "table.parquet", "")
    predictions = PredictionReader()
    found = page.comparisons(given, predictions)
    path = tmp_path / "differences.csv"
    families.write(found, path)
    with path.open(newline="") as file:
        wrote = {
            (r["metric"], r["shots"], r["a"], r["b"]): r for r in csv.DictReader(file)
        }
    text = summary.text(toy, predictions)
    told = findings.opening(found, ["auroc_macro"])
    assert told and findings.of_rows(toy, predictions) == told
    for shots in ("5", "full"):
        c = wrote["auroc_macro", shots, "nih", "scratch"]
        value, low, high, p = (float(c[k]) for k in ("value", "low", "high", "p_holm"))
        told = f"{value:+.3f} [{low:+.3f}, {high:+.3f}]  p {p:.3g} (Holm over 6)"
        assert f"{told}: {c['verdict']}" in text
        assert c["family"].startswith("pairs of lines of R50x1 on phantom-covidx")
    html = page.build(given, predictions, families=found)
    assert f'"{100 * float(c["low"]):+.1f}' in html or f"[{100 * low:+.1f}" in html
    assert f"Holm {p:.2g} of 6: {c['verdict']}" in html
    opening = html.partition('id="findings"')[2].partition("</section>")[0]
    assert 1 <= opening.count("<li>") <= 5
    assert "is better than scratch" in opening and "test patients" in opening


def test_the_four_verdicts():
    def told(value, half, count=1):
        c = comparison(("m", "a"), ("m", "b"), value, half)
        return differences.adjusted(dict.fromkeys(range(count), c))[0]

    assert told(0.10, 0.05).verdict == "A better"
    assert told(-0.10, 0.05).verdict == "B better"
    assert told(0.00, 0.01).verdict == "equivalent"
    assert told(0.03, 0.05).verdict == "not told apart"
    assert told(0.10, 0.08).verdict == "A better"
    assert told(0.10, 0.08, count=9).verdict == "not told apart"  # Holm
    few, many = told(0.1, 0.05).detectable, told(0.1, 0.05, count=9).detectable
    # (1.96 + 0.84) standard errors; over nine by Bonferroni's 2.77
    assert few == pytest.approx(0.05 / 1.96 * 2.8016, rel=1e-3)
    assert many == pytest.approx(0.05 / 1.96 * (2.7729 + 0.8416), rel=1e-3)


def test_the_effect_is_that_of_the_first_named():
    c = comparison(("s", "a"), ("s", "b"), -0.10, 0.05)
    told = findings.sentence(differences.adjusted({0: c})[0])
    assert "b (s) is better than a (s): macro AUROC +0.100 [+0.050, +0.150]" in told


def test_the_opening_says_what_would_settle_what_is_open(toy):
    found = family([r for r in toy if r["shots"] == "5"])
    told = findings.sentences(list(found.found.values()))
    assert len(told) <= 5
    assert told[0].startswith("Upstream: on phantom-covidx at 5 shots, ")
    single = family([r for r in toy if r["upstream_seed"] in (None, 0)])
    told = findings.sentences(list(single.found.values()))
    count = len(single.found)
    assert f"({count} comparisons: {count} without a p" in told[0]
    assert told[1].startswith(f"Open: {count} of {count} comparisons have no p, one up")
    assert told[1].endswith("upstream seeds of each side or more would allow one.")
    parts = [
        differences.Part.even("upstreams", 0.04**2, 2),
        differences.Part.even("patients", 1e-6**2, 300),
    ]
    # t of 2n degrees times 0.04 / sqrt(n): 0.046 at n = 4, 0.036 at n = 6
    assert findings.settled(parts, 0.04) == (
        "6 times the upstream seeds would bring it to ±0.040."
    )
    # of two sides, one of whose seeds agree, and beside patients; Welch's degrees
    parts = [
        differences.Part.even("upstreams", 0.04**2, 2),
        differences.Part.less("upstreams", 1e-6**2, 1e-5**2, 2),
        differences.Part.even("patients", 0.01**2, 300),
    ]
    assert findings.settled(parts, 0.052) == (
        "4 times the upstream seeds would bring it to ±0.052."
    )


def test_the_opening_has_a_sentence_for_each_question():
    """Lines, nets and shots; what is open comes last, with what it would take."""
    made = [
        comparison(("s", "a"), ("s", "b"), 0.10, 0.05),
        comparison(("s", "a"), ("s", "c"), 0.20, 0.05),
        comparison(("s", "b"), ("s", "c"), 0.03, 0.05),
        comparison(("l", "a"), ("s", "a"), 0.00, 0.01),
        comparison(("l", "b"), ("s", "b"), 0.04, 0.06),
    ]
    x = np.array([1.0, 10.0, 5e6])
    about = {"target": "t", "model": "s", "line": "a"}
    law = curves.Law(curves.Curve(about, x, [], "auroc_macro"), slope=(1.0, 0.5, 2.0))
    open_law = replace(law, slope=tuple(np.array([0.1, -0.5, 1.0])))
    told = findings.sentences(
        made, {"shots": [open_law, law, replace(law, slope=None)]}
    )
    assert [t.partition(":")[0] for t in told] == [
        "Upstream", "Model scale", "Shots", "Also", "Open",
    ]  # fmt: skip
    assert "a (s) is better than c (s)" in told[0]
    assert told[0].endswith("(3 comparisons: 2 told apart, 1 open.)")
    assert "are equivalent within 0.02" in told[1]
    assert "falls on 1 of 2 lines, the others are open" in told[2]
    assert "each doubling takes 50% [29%, 75%] of the error off" in told[2]
    assert "from 1 to 5 million shots" in told[2]
    assert "a (s) is better than b (s)" in told[3]
    assert "not told apart" in told[4] and "would bring it to" in told[4]


def comparison(a, b, value, half):
    """One of a family of its own, as if of many patients."""
    part = differences.Part.even("patients", (half / 1.96) ** 2, 1e9)
    p = differences.crossed
    d = differences.Difference(
        value, value - half, value + half, p.p_value(value, [part]),
        p.outside(value, [part], 0.02), p.tail_beyond(value, [part]), (part,), "", "",
    )  # fmt: skip
    about = {"target": "t", "metric": "auroc_macro", "shots": "5"}
    return differences.adjusted({0: differences.Comparison(about, a, b, d, "f")})[0]


def test_a_missing_run_costs_a_draw_and_is_said(toy):
    few = [r for r in toy if r["shots"] == "5" and r["upstream"] == "nih"]
    part = [r for r in few if (r["upstream_seed"], r["seed"]) != (1, 3)]
    e = estimates.estimate(part, "auroc_macro", PredictionReader())
    kept = [r["auroc_macro"] for r in part if r["seed"] != 3]
    assert e.value == pytest.approx(np.mean(kept))
    assert "3 draws" in e.covers and "2 runs are left out" in e.covers


def test_runs_on_other_test_images_are_said(toy, tmp_path):
    few = [r for r in toy if r["shots"] == "5"]
    moved = []
    for r in few:
        if r["upstream"] == "scratch":
            at = tmp_path / os.path.basename(r["folder"])
            logits = np.stack([-LABELS, LABELS], 1).astype(np.float32)
            predicted(at, LABELS, logits, CLASSES, [f"q{i}" for i in IDS], IDS)
            r = r | {"folder": str(at)}
        moved.append(r)
    d = pair(family(moved), "nih", "scratch").difference
    assert "the test patients of each run, which are not the same" in d.covers


def test_a_loss_has_no_margin_and_is_never_equivalent():
    """The margin is of a fraction; of a loss less is better."""
    limits = {"loss": 1.0, "loss_low": 0.95, "loss_high": 1.05}
    a = [row("nowhere", "nih", d, s, **limits) for s in (0, 1) for d in (0, 1)]
    b = [r | {"upstream": "same", "loss": 1.0 + 1e-4 * i} for i, r in enumerate(a)]
    cells_of = [{cells.seeds(r): r for r in side} for side in (a, b)]
    found = differences.difference(*cells_of, "loss", PredictionReader())
    assert np.isnan(found.outside) and found.p > 0.5
    accuracy = [
        {k: r | {"accuracy": r["loss"] / 2} for k, r in side.items()}
        for side in cells_of
    ]
    for side in accuracy:
        for r in side.values():
            r |= {"accuracy_low": 0.475, "accuracy_high": 0.525}
    assert differences.difference(*accuracy, "accuracy", PredictionReader()).outside < 1
    less = comparison(("m", "a"), ("m", "b"), -0.10, 0.05)
    about = less.about | {"metric": "loss"}
    assert replace(less, about=about).verdict == "A better"
