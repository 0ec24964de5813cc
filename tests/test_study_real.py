"""The study of real images, as its docstring promises it; no data are needed."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

from bigxfer import config, presets
from bigxfer.data import fewshot
from bigxfer.data.manifest import Manifest
from bigxfer.study import grid

STUDY = "configs/study_real.py"
PARTS = ("contrast", "sizes", "fractions", "nets", "domains", "shots")


@pytest.fixture(scope="module")
def module():
    return presets.load_module(STUDY)


@pytest.fixture(scope="module")
def parts():
    return {p: grid.nodes(f"{STUDY}:root=D,part={p}") for p in (*PARTS, "pilot")}


def upstream(nodes, digest):
    return next(n for n in nodes if n.digest == digest)


def test_the_parts_are_the_whole_in_their_order(parts):
    whole = [n.digest for n in grid.nodes(f"{STUDY}:root=D")]
    joined = dict.fromkeys(n.digest for p in PARTS for n in parts[p])
    assert whole == list(joined)
    assert {n.digest for n in parts["pilot"]} <= {n.digest for n in parts["contrast"]}
    with pytest.raises(config.ConfigError, match="part=all; it may be contrast"):
        grid.nodes(f"{STUDY}:part=all")


def test_every_cell_of_the_slopes_has_five_upstream_seeds(parts, module):
    every = [n for p in PARTS for n in parts[p]]
    seeds = defaultdict(set)
    for node in {n.digest: n for n in every if n.kind == "transfer"}.values():
        run = node.run
        if (run.data.shots, run.freeze.head, run.init.kind) != (
            "full",
            "trained",
            "pretrained",
        ) or run.optim.schedule == "hyperrule":
            continue
        source = upstream(every, run.init.digest).run
        if source.data.version == "tiny" and run.data.version == "":
            assert run.seed == source.seed  # its own seed of fine-tuning
            images = round(source.data.fraction * source.data.size[0])
            seeds[images, run.model.width].add(source.seed)
    for images in module.IMAGES:
        for width in (0.125, 0.25):
            assert seeds[images, width] == set(range(5)), (images, width)
    for images in (min(module.IMAGES), max(module.IMAGES)):
        assert seeds[images, 0.5] == set(range(5)), images
    assert {images for images, width in seeds if width == 0.5} == {705, 45_125}
    smallest = {images for images, width in seeds if width == 0.125}
    assert len(smallest) == 7 and min(smallest) == 705 and max(smallest) == 45_125


def test_what_is_compared_differs_in_nothing_else(parts):
    """All upstreams of a net have one budget, all fine-tunings of a target too."""
    every = {n.digest: n.run for p in PARTS for n in parts[p]}.values()
    budgets = {str(vars(r.optim)) for r in every if r.kind == "upstream" and r.arg}
    assert len(budgets) == 1
    full = [r for r in every if r.kind == "transfer" and r.data.shots == "full"]
    tuned = {str(vars(r.optim)) for r in full if r.optim.schedule != "hyperrule"}
    assert len(tuned) == 1
    assert {(r.data.resize, r.data.crop, r.data.channels) for r in every if r.arg} == {
        (60, 48, 1)
    }


def test_subsets_of_a_seed_are_strictly_nested(module):
    ids = np.array([f"n{i:05d}" for i in range(5000)], object)
    none, labels = np.full(5000, "", object), np.zeros(5000, np.int32)
    m = Manifest("toy", "", ("a", "b"), labels, ids, ids, ids, none, none, none)
    shares = [n / 45_125 for n in sorted((*module.IMAGES, *module.MORE))]
    for seed in range(2):
        taken = [set(fewshot.fraction(m, s, "images", seed)) for s in shares]
        assert all(a < b for a, b in itertools.pairwise(taken))
    other = [set(fewshot.fraction(m, shares[0], "images", seed)) for seed in range(2)]
    assert other[0] != other[1]


def test_the_control_has_equal_counts_and_classes(parts):
    six = [
        n.run
        for n in parts["domains"]
        if n.kind == "upstream" and n.run.data.shots != "full"
    ]
    assert len(six) == 6 and {r.data.shots for r in six} == {"220"}
    assert {len(r.data.labels) or r.data.size[1] for r in six} == {6}


def test_a_part_ends_with_whole_rows_of_one_seed(parts):
    """Upstreams come seed by seed, so that what is done is whole."""
    for part in ("contrast", "domains"):
        seeds = [n.run.seed for n in parts[part] if n.kind == "upstream"]
        assert seeds == sorted(seeds), part
