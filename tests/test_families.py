"""Families of comparisons: which pairs, in which order, and who is named first."""

import pytest

from bigxfer.tables import families
from bigxfer.tables.cells import PredictionReader


class NoPredictions(PredictionReader):
    def load(self, folder):
        return None


def rows(model, line, value, shots=("5",), init="pretrained", params=1, target="t"):
    """Two draws of a cell at each number of shots, with limits."""
    known = {"model": model, "line": line, "upstream": "scratch", "init": init}
    known |= {"target": target, "params": params, "test_images": 100, "family": line}
    known |= {"upstream_seed": None, "accuracy": value}
    known |= {"accuracy_low": value - 0.01, "accuracy_high": value + 0.01}
    return [
        known | {"shots": s, "seed": seed, "folder": f"{model}{line}{s}{seed}"}
        for s in shots
        for seed in (0, 1)
    ]


def compared(rows):
    return families.compare_all(rows, "accuracy", NoPredictions())


def test_lines_of_a_net_at_all_shots_scratch_last():
    some = rows("m", "scratch", 0.5, ("5", "10", "full"))
    some += rows("m", "nih 10", 0.7, ("10", "5")) + rows("m", "nih 9", 0.8, ("5",))
    (family,) = compared(some)
    assert (family.target, family.metric, family.model) == ("t", "accuracy", "m")
    assert family.title == "pairs of lines of m"
    assert family.shots == ["5", "10", "full"]
    order = [(a[1], b[1]) for a, b in family.pairs]
    assert order == [("nih 9", "nih 10"), ("nih 9", "scratch"), ("nih 10", "scratch")]
    assert [(a[1], b[1], s) for a, b, s in family.found] == [
        ("nih 9", "nih 10", "5"),
        ("nih 9", "scratch", "5"),
        ("nih 10", "scratch", "5"),
        ("nih 10", "scratch", "10"),
    ]
    values = [c.difference.value for c in family.found.values()]
    assert values == pytest.approx([0.1, 0.3, 0.2, 0.2])
    words = {c.family for c in family.found.values()}
    assert words == {"pairs of lines of m on t at all shots, by accuracy"}
    assert family.judged == [c for c in family.found.values() if c.p_holm >= 0]
    assert {c.size for c in family.judged} == {4}


def test_of_two_nets_the_larger_is_first_whatever_its_name():
    some = rows("a-large", "x", 0.8, params=9) + rows("b-small", "x", 0.6, params=2)
    some += rows("c-unknown", "x", 0.5, params=None)
    titles = {f.title: next(iter(f.found.values())) for f in compared(some)}
    assert {t: round(c.difference.value, 9) for t, c in titles.items()} == {
        "b-small minus c-unknown": 0.1,
        "a-large minus c-unknown": 0.3,
        "a-large minus b-small": 0.2,
    }
    assert all(f.model == "" for f in compared(some))


def test_an_encoder_is_paired_with_what_shares_neither_net_nor_line():
    some = rows("net", "x", 0.8) + rows("net", "y", 0.7) + rows("dino", "x", 0.6)
    some += rows("clip", "z", 0.5)
    assert "pairs with an encoder" not in {f.title for f in compared(some)}
    for row in some:
        if row["model"] in ("dino", "clip"):
            row["init"] = "features"
    found = {f.title: f for f in compared(some)}["pairs with an encoder"]
    assert {frozenset((a, b)) for a, b in found.pairs} == {
        frozenset({("dino", "x"), ("net", "y")}),
        frozenset({("clip", "z"), ("net", "x")}),
        frozenset({("clip", "z"), ("net", "y")}),
        frozenset({("clip", "z"), ("dino", "x")}),
    }


def test_targets_are_families_of_their_own_and_the_csv_has_them_all(tmp_path):
    some = rows("m", "x", 0.8) + rows("m", "y", 0.7)
    some += rows("m", "x", 0.8, target="u") + rows("m", "y", 0.5, target="u")
    found = compared(some)
    assert [f.target for f in found] == ["t", "u"]
    assert families.write(found, tmp_path / "d.csv") == 2
    lines = (tmp_path / "d.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("target,metric,shots,a_model,a,")
    assert families.write([], tmp_path / "none.csv") == 0
