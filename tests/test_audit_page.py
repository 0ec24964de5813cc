"""audit.html: the verdicts and their rule, and what the page must not show."""

from dataclasses import replace

import numpy as np
import pytest
from test_leakage import scenes
from test_split import manifest

from bigxfer import audit
from bigxfer.data import shortcuts
from bigxfer.data.dataset import Dataset
from bigxfer.report import audit_page, audit_verdicts


def probe(macro, *classes, name="rim", target="class"):
    """(value, low, high) of the mean, and of classes where there are three or more."""
    found = {f"c{k}": entry for k, entry in enumerate(classes)} | {"macro": macro}
    keys = "value", "low", "high"
    by_class = {k: dict(zip(keys, v, strict=True)) for k, v in found.items()}
    return {"name": name, "target": target, "auroc": by_class, "held_out": None}


NOTHING = (0.5, 0.45, 0.55)


@pytest.mark.parametrize(
    "found, mark",
    [
        (probe((0.82, 0.79, 0.85)), "SHORTCUT"),
        (probe((0.82, 0.59, 0.95)), "TRACE"),
        (probe((0.56, 0.52, 0.59)), "TRACE"),
        (probe((0.52, 0.47, 0.57)), "CLEAR"),
        (probe((0.55, 0.40, 0.70)), "OPEN"),
        (probe((0.90, None, None)), "OPEN"),
        (probe((0.55, 0.52, 0.58), (0.8, 0.75, 0.85), NOTHING, NOTHING), "SHORTCUT"),
        # 0.601 alone, 0.585 as one of three
        (probe((0.55, 0.52, 0.58), (0.67, 0.601, 0.74), NOTHING, NOTHING), "TRACE"),
    ],
)
def test_the_rule(found, mark):
    verdict = audit_verdicts.shortcut(found)
    assert verdict.mark == mark and verdict.grave == (mark == "SHORTCUT")


def test_sources_matter_only_where_they_tell_the_classes():
    high = (0.9, 0.88, 0.92)
    sees = probe(high, target="source")
    report = {"sets": [], "probes": [sees, probe(NOTHING, name="source")]}
    assert [v.mark for v in audit_verdicts.verdicts(report)] == ["TRACE", "CLEAR"]
    report["probes"][1] = probe(high, name="source")
    assert all(v.grave for v in audit_verdicts.verdicts(report))


def test_noise_is_rarely_called_a_shortcut():
    """14 rare findings and nothing to see: at most 5% of 100 audits, a class included."""
    rng, wrong, traces = np.random.default_rng(0), 0, 0
    people = np.arange(300).astype(str)
    names = [f"c{k}" for k in range(14)]
    for _ in range(100):
        labels = (rng.random((300, 14)) < 0.03).astype(float)
        found = shortcuts.aurocs(labels, rng.normal(size=(300, 14)), people, names)
        p = {"name": "rim", "target": "class", "auroc": found, "held_out": None}
        mark = audit_verdicts.shortcut(p).mark
        wrong, traces = wrong + (mark == "SHORTCUT"), traces + (mark == "TRACE")
    assert wrong <= 5 and traces <= 7


@pytest.fixture(scope="module")
def audited():
    images, n = scenes(24), 24
    images[20] = images[0]
    m = manifest([f"p{k % 22}" for k in range(n)], [k % 2 for k in range(n)])
    halves = np.array(["train"] * 12 + ["test"] * 12, object)
    m = replace(m, split=halves, root="/home/somebody/films", name="csv")
    rows = {"train": np.arange(12), "valid": np.arange(0), "test": np.arange(12, n)}
    bad = [["x.png", "x.png", "/home/somebody/films/x.png is empty"]]
    data = Dataset(m, images, rows, {"undecodable": bad})
    return audit.audit(data), data


def test_the_page_opens_with_verdicts(audited):
    report, data = audited
    text = audit_page.page(report, [data])
    start = text.index("What was found")
    assert start < text.index("2 patients are in two splits of films (p0, p1)")
    assert start < text.index("1 pair of equal images within films: 1 across splits")
    assert text.index("1 image of films cannot be decoded") < text.index("<img")
    assert "Verdicts\n  LEAK " in audit.table(report)


def test_no_folder_of_the_machine_is_shown_unless_asked_for(audited):
    report, data = audited
    assert "/home" not in audit_page.page(report, [data])
    assert "/home/somebody/films" in audit_page.page(report, [data], paths=True)
