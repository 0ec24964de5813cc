"""docs/answer.md is made from a table and a bundle, and tells of nothing that was not run."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import metrics
from bigxfer.tables import bundle, compact, table
from bigxfer.tables.cells import PredictionReader

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import answer
import answer_figures
import answer_rows

CLASSES = ("KL0", "KL1", "KL2")
SHOTS = (("full", None, 1), ("1", "ridge head", 2), ("10", "ridge head", 2))


class Folders(PredictionReader):
    def __init__(self, of):
        super().__init__()
        self.of = of

    def load(self, folder):
        return self.of.get(folder)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """An Answer of a table and a bundle: five upstream seeds, three nets, four sizes.

    The AUROC rises by fourfold images and not by width; heads know more photographs too.
    """
    folder = tmp_path_factory.mktemp("answer")
    rng, n = np.random.default_rng(0), 160
    y = rng.integers(0, 3, n).astype(np.int32)
    people = np.array([f"p{i // 2}" for i in range(n)])
    ids, none = np.array([f"{p}{i % 2}" for i, p in enumerate(people)]), np.full(n, "")
    noise = rng.normal(0, 1, (n, 3))
    rows, of = [], {}

    def add(upstream, images, width, source, skill, shots, start, seed):
        digest = f"{len(rows):016x}"
        z = noise + rng.normal(0, 0.3, (n, 3)) + skill * np.eye(3)[y]
        saved = Predictions(ids, people, none, none, y, z, CLASSES)
        row = dict.fromkeys(table.COLUMNS) | {"kind": "transfer", "synthetic": False}
        row |= {"upstream": upstream, "upstream_size": images, "width": width}
        row |= {
            "upstream_seed": source,
            "model": f"R26x{width:g}" if width else "pixels",
        }
        row |= {"upstream_digest": f"{upstream}{images}{width}{source}"}
        row |= {"target": "knee_oa", "shots": shots, "seed": seed, "start": start}
        row |= {"family": f"{upstream}{images}{width}{shots}{start}", "data": "d" * 16}
        row |= {
            "digest": digest,
            "folder": digest,
            "steps": 900,
            "commit": "c0ffee",
            "protocol": "cosine",
        }
        row |= {"fraction": 1.0, "test_images": n, "device_seconds": 60.0}
        told = metrics.compute(y, z, CLASSES, people, limits=False)["metrics"]
        row["auroc_macro"] = told["auroc_macro"]["value"]
        of[digest] = saved
        rows.append(row)

    for source in range(5):
        for width in (0.125, 0.25, 0.5):
            add("scratch", None, width, None, 0.4, "full", None, source)
            for i, images in enumerate((705, 2_820, 11_281, 45_125)):
                if (width, images) not in answer_rows.CELLS:
                    continue
                args = "imagenet21k-tiny", images, width, source, 0.5 + 0.3 * i
                add(*args, "full", None, source)
                for shots, start, draws in SHOTS[1:] if width == 0.25 else ():
                    for seed in range(draws):
                        add(*args, shots, start, seed)
    for seed in (0, 1, 8):  # the ninth draw is beyond those whose predictions are kept
        add("grey", 0, None, None, 0.5, "5", "ridge head", seed)
    up = dict.fromkeys(table.COLUMNS) | {"kind": "upstream", "synthetic": False}
    up |= {"target": "imagenet21k-tiny", "target_size": 705, "model": "R26x0.25"}
    up |= {"digest": "f" * 16, "device_seconds": 7200.0, "upstream_digest": ""}
    up |= {"accuracy": 0.006, "accuracy_low": 0.003, "shots": "full", "seed": 0}
    compact.write([*rows, up], folder / "t.csv")
    few = [row for row in rows if answer_rows.kept(row)]
    bundle.write(few, Folders(of), folder / "b.npz")
    read = compact.load(folder / "t.csv")
    return answer_rows.Answer(read, bundle.BundleReader(folder / "b.npz")), folder


def test_the_planted_slope_is_a_finding_and_the_other_is_none(toy):
    images, width = toy[0].slopes()[0]
    assert images.verdict == "rises" and (images.seeds, images.cells) == (5, 10)
    assert width.verdict != "rises" and abs(width.value) < images.value / 5
    lines = answer.findings(toy[0])
    assert (
        "Per fourfold upstream images, the AUROC of knees at full data rises"
        in lines[0]
    )
    assert f"[{images.low:+.4f}, {images.high:+.4f}] over 5 upstream seeds" in lines[0]
    assert sum(line.startswith("- ") for line in lines) <= 5


def test_the_comparisons_are_those_that_were_named_and_holm_goes_over_them(toy):
    found = toy[0].comparisons()
    assert list(found) == [
        ("Pre-training", "full"),
        ("Scale", "1"),
        ("Scale", "10"),
        ("Scale", "full"),
    ]
    assert {c.size for c in found.values()} == {4}
    scale = found["Scale", "full"]
    assert scale.verdict == "A better" and "5 upstream seeds" in scale.difference.covers
    assert "3 upstream seeds, 2 draws" in found["Scale", "10"].difference.covers


def test_the_smallest_net_has_a_slope_and_below_six_scales_no_law(toy):
    (line,) = answer.law(toy[0])
    assert "4 of the 6 scales" in line and "4 numbers of photographs" in line
    slope = re.search(r"fall with the power ([.\d]+) \[([.\d]+), ([.\d]+)\]", line)
    value, low, high = map(float, slope.groups())
    assert 0 < low < value < high  # the AUROC was planted to rise
    assert "over 5 upstream seeds and 80 test patients" in line
    nothing = answer_rows.Answer([], PredictionReader())
    assert answer.law(nothing) == answer.NOT_RUN


def test_a_part_of_the_runs_says_what_is_missing_and_an_empty_page_finds_nothing(toy):
    rows = [r for r in toy[0].rows if r["width"] != 0.5]
    less = answer_rows.Answer(rows, toy[0].predictions)
    assert "cannot be told yet: 8 of its 10 cells are there" in answer.findings(less)[0]
    text = answer.PAGE.read_text()
    page = answer.rewritten(text, answer_rows.Answer([], PredictionReader()))
    assert "0 of its 10 cells are there" in page and "Not run yet." in page
    assert not [word for word in ("rises", "better") if f" {word}**" in page]
    assert answer.BLOCK.sub("", page) == answer.BLOCK.sub("", text)  # only the blocks


def test_an_encoder_stands_by_its_name_with_the_draws_that_are_kept(toy):
    (line,) = [x for x in answer.starts(toy[0]) if "pixels" in x]
    value = line.split("|")[4]
    assert line.startswith("| knee_oa | pixels |") and "[" in value
    rows = [r for r in toy[0].known if r["model"] == "pixels"]
    assert [r["seed"] for r in rows] == [0, 1]
    assert f"{np.mean([r['auroc_macro'] for r in rows]):.3f}" in value
    assert answer.state(toy[0])[-1].startswith("| encoders | - | 3,")


def test_audits_stand_as_they_were_written(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(answer_rows, "AUDITS", tmp_path / "a.csv")
    assert answer.audits(toy[0]) == answer.NOT_RUN
    text = "upstream,target,seen,test,patients,equal,near\nmednist,covid_cxr,11640,319,unknown,0,5\n"
    (tmp_path / "a.csv").write_text(text)
    line = "| mednist (11,640) | covid_cxr | 319 | unknown | 0 | 5 |"
    assert answer.audits(toy[0])[-1] == line


def test_an_upstream_that_learned_nothing_is_said(toy):
    (line,) = [x for x in answer.upstreams(toy[0]) if "705" in x]
    assert "top-1 0.006" in line and "not told from chance" in line


def test_page_and_figures_are_the_same_again(toy):
    text = answer.rewritten(answer.PAGE.read_text(), toy[0])
    assert answer.rewritten(text, toy[0]) == text
    assert "| upstreams, R26x0.25 | 1 | 2.00 |" in text
    drawn = []
    for name in ("a", "b"):
        (toy[1] / name).mkdir()
        answer_figures.draw(toy[0], toy[1] / name)
        drawn.append([(toy[1] / name / n).read_bytes() for n in answer_figures.NAMES])
    assert drawn[0] == drawn[1]


def test_the_bundle_has_full_data_and_the_first_draws_of_what_is_compared():
    row = {
        "kind": "transfer",
        "shots": "5",
        "seed": 7,
        "upstream_seed": 2,
        "width": 0.25,
    }
    row |= {"upstream": "mednist", "upstream_size": 11_281, "model": "R26x0.25"}
    row |= {"start": "ridge head"}
    assert answer_rows.kept(row) and answer_rows.kept(
        {**row, "seed": 49, "shots": "full"}
    )
    for other in (
        {"seed": 8},
        {"upstream_seed": 3},
        {"upstream_size": 705},
        {"start": None},
    ):
        assert not answer_rows.kept({**row, **other})
    assert not answer_rows.kept({**row, "kind": "upstream", "shots": "full"})
