"""The published linear probes of arXiv 2212.07143 as rows of our table, and their ranking.

Source: probe_benchmark/scaling_experiment_data2.json of LAION-AI/CLIP_benchmark @
48de38c1 (MIT, Copyright (c) 2022 Mehdi Cherti): 4,752 runs of 12 image encoders, one
seed, nine settings of rate and epochs for each encoder, set and number of shots. Its
authors report the best of the nine, chosen on the test images themselves: `reported`
keeps those, `luck` says how much that choice alone adds.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import scipy

from bigxfer.statistics import intervals, limits
from bigxfer.tables.table import Row, name_digest

FILE = "scaling_experiment_data2.json"
STUDY = "arXiv 2212.07143"
COMMIT = "48de38c1"
PROTOCOL = "linear-probe"
CHOSEN = "linear-probe, best setting on the test set"
TEST_IMAGES = {  # that every accuracy is a multiple of 1/n of: a test holds them to it
    "cifar100": 10_000,
    "imagenet1k-unverified": 50_000,
    "vtab/caltech101": 6084,
    "vtab/cifar10": 10_000,
    "vtab/cifar100": 10_000,
    "vtab/clevr_closest_object_distance": 15_000,
    "vtab/clevr_count_all": 15_000,
    "vtab/diabetic_retinopathy": 42_670,
    "vtab/dmlab": 22_735,
    "vtab/dsprites_label_orientation": 73_728,
    "vtab/dsprites_label_x_position": 73_728,
    "vtab/dtd": 1880,
    "vtab/eurosat": 5400,
    "vtab/flowers": 6149,
    "vtab/kitti_closest_vehicle_distance": 711,
    "vtab/pcam": 32_768,
    "vtab/pets": 3669,
    "vtab/resisc45": 6300,
    "vtab/smallnorb_label_azimuth": 12_150,
    "vtab/smallnorb_label_elevation": 12_150,
    "vtab_svhn": 26_032,
}
FIELDS = ("k", "lr", "bs", "epochs", "model", "pretrained", "dataset", "seed")
FIELDS += ("samples_seen", "lp_acc1", "lp_mean_per_class_recall")


def read(folder: Path) -> list[Row]:
    """Every run of FOLDER/scaling_experiment_data2.json.

    Raises ValueError, naming file and record, for one that lacks a field, has an
    accuracy that is no share of its test images, or repeats another.
    """
    path = folder / FILE
    try:
        with path.open() as file:
            records = json.load(file)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    rows: dict[str, Row] = {}
    for i, record in enumerate(records):
        where = f"{path} record {i}"
        if missing := [name for name in FIELDS if name not in record]:
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        row = _row(record, where)
        if row["digest"] in rows:
            raise ValueError(f"{where} repeats the run {row['folder']}")
        rows[row["digest"]] = row
    return list(rows.values())


def _row(record: dict, where: str) -> Row:
    target, accuracy = record["dataset"], record["lp_acc1"]
    if target not in TEST_IMAGES:
        raise ValueError(f"{where}: data set {target!r} is not known")
    n = TEST_IMAGES[target]
    if not 0 <= accuracy <= 1 or abs(accuracy * n - round(accuracy * n)) > 1e-3:
        raise ValueError(f"{where}: accuracy {accuracy} is no share of {n} test images")
    shots = "full" if record["k"] == -1 else str(record["k"])
    settings = {"optim/lr": record["lr"], "optim/epochs": record["epochs"]}
    encoder = f"{record['model']} {record['pretrained']}"
    name = f"{encoder} {target} {shots} {settings} {record['bs']}"
    low, high = limits.wilson(accuracy, n)  # n is large: as mid-P, and quicker
    return {
        "study": STUDY,
        "kind": "transfer",
        "upstream": record["pretrained"],
        "upstream_examples": int(record["samples_seen"]),
        "upstream_digest": "",
        "upstream_seed": None,  # each encoder was trained once
        "model": record["model"],
        "init": "pretrained",
        "target": target,
        "shots": shots,
        "seed": record["seed"],
        "family": name_digest(name),
        "settings": json.dumps(settings),
        "protocol": PROTOCOL,
        "test_images": n,
        "synthetic": False,
        "digest": name_digest(f"{name} {record['seed']}"),
        "commit": COMMIT,
        "folder": f"{target}, {shots} shots, {encoder}, lr {record['lr']:g},"
        f" {record['epochs']} epochs",
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        # Its limits need the sizes of the classes, which are not published.
        "balanced_accuracy": record["lp_mean_per_class_recall"],
    }


Cell = tuple[str, str, str, str]  # target, shots, model, upstream


def cells(rows: Iterable[Row]) -> dict[Cell, list[Row]]:
    """The runs of each cell, which differ in their settings alone."""
    by_cell: dict[Cell, list[Row]] = defaultdict(list)
    for row in rows:
        if row["protocol"] == PROTOCOL:
            cell = row["target"], row["shots"], row["model"], row["upstream"]
            by_cell[cell].append(row)
    return dict(by_cell)


def reported(rows: Sequence[Row]) -> list[Row]:
    """The rows with the best probe of each cell alone, as the authors report it.

    Rows of other protocols stay as they are.
    """
    kept = [row for row in rows if row["protocol"] != PROTOCOL]
    for cell, runs in cells(rows).items():
        best = max(runs, key=lambda r: r["accuracy"])
        same = {"protocol": CHOSEN, "settings": "{}", "family": name_digest(f"{cell}")}
        kept.append(best | same)
    return kept


# ---- what the choice adds ----------------------------------------------------------


@cache
def _normal(settings: int, simulations: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(simulations, settings))


def luck(accuracies: Sequence[float], images: int, alike: float = 0.0) -> float:
    """How much the best of several settings, chosen on the test images, is too good.

    The expected accuracy on these images of the setting that is chosen on them, less its
    true accuracy. `alike` is the correlation of the settings' errors over test images;
    without predictions it is unknown, and 0 gives the most. The true accuracies are
    taken as the observed ones, drawn together by as much as sampling spreads them.
    """
    observed = np.asarray(accuracies, float)
    # What the errors have in common moves all settings alike, and no choice.
    noise = observed.mean() * (1 - observed.mean()) / images * (1 - alike)
    spread = float(observed.var(ddof=1))
    # Sampling adds to the spread of the true accuracies: it is taken off.
    keep = math.sqrt(max(1 - noise / spread, 0)) if spread else 0.0
    true = observed.mean() + keep * (observed - observed.mean())
    errors = math.sqrt(noise) * _normal(len(observed))
    chosen = (true + errors).argmax(axis=1)
    return float(np.take_along_axis(errors, chosen[:, None], 1).mean())


def elsewhere(rows: Sequence[Row]) -> dict[Cell, float]:
    """The accuracy of each cell by the setting that is best on all other sets.

    For one encoder and number of shots: the setting with the highest mean accuracy over
    the other targets, which no test image of this one had a say in.
    """
    grid: dict[tuple, dict[str, dict[str, float]]] = defaultdict(dict)
    for (target, shots, *encoder), runs in cells(rows).items():
        of_target = {row["settings"]: row["accuracy"] for row in runs}
        grid[(shots, *encoder)][target] = of_target
    chosen = {}
    for (shots, model, upstream), targets in grid.items():
        for target, by_setting in targets.items():
            others = [a for t, a in targets.items() if t != target]
            if others:
                best = max(by_setting, key=lambda s: sum(a.get(s, 0.0) for a in others))
                chosen[target, shots, model, upstream] = by_setting[best]
    return chosen


# ---- the ranking -------------------------------------------------------------------


@dataclass(frozen=True)
class Ranked:
    """One encoder in a ranking: its best setting, and what is sure of its place."""

    name: str
    value: float
    low: float
    high: float
    luck: float  # the most that the choice of the setting adds to it by chance
    elsewhere: float  # its accuracy by the setting that is best on the other sets
    first: int  # the places that test sampling leaves it
    last: int


@dataclass(frozen=True)
class Ranking:
    """The encoders by the accuracy that is reported, best first."""

    target: str
    shots: str
    images: int
    encoders: list[Ranked]
    pairs: int
    survive: int  # of the pairs: told apart by test sampling alone
    at_all: int  # of these: in the same order at each of the settings
    reversed: int  # of the pairs: the other way round by `elsewhere`


def ranking(rows: Sequence[Row], target: str, shots: str) -> Ranking:
    """How the encoders rank on one set, and which of their order survives.

    A pair survives where its difference is told from none, p below 0.05 after Holm over
    all pairs, by the binomial sampling of the test images alone, as if each encoder had
    images of its own: on shared images, whose errors agree, more would. It is about these
    very probes: one seed, so neither another training nor another draw is covered.
    """
    other = elsewhere(rows)
    runs = {c: r for c, r in cells(rows).items() if c[:2] == (target, shots)}
    if len(runs) < 2:
        raise ValueError(f"fewer than two encoders were probed on {target} at {shots}")
    best = {c: max(r, key=lambda row: row["accuracy"]) for c, r in runs.items()}
    order = sorted(runs, key=lambda c: -best[c]["accuracy"])
    value = [best[c]["accuracy"] for c in order]
    n = best[order[0]]["test_images"]
    pairs = list(combinations(range(len(order)), 2))
    p = [_p_value(value[i], value[j], n) for i, j in pairs]
    sure = [q < 0.05 for q in intervals.holm(p)]
    apart = {pair for pair, told in zip(pairs, sure, strict=True) if told}
    encoders = []
    for i, c in enumerate(order):
        above = sum((j, i) in apart for j in range(i))
        below = sum((i, j) in apart for j in range(i + 1, len(order)))
        every = [row["accuracy"] for row in runs[c]]
        encoders.append(
            Ranked(
                f"{c[2]} {c[3]}",
                value[i],
                best[c]["accuracy_low"],
                best[c]["accuracy_high"],
                luck(every, n),
                other.get(c, math.nan),
                above + 1,
                len(order) - below,
            )
        )
    by_setting = [{r["settings"]: r["accuracy"] for r in runs[c]} for c in order]
    at_all = sum(
        all(by_setting[i][s] > by_setting[j].get(s, 1.0) for s in by_setting[i])
        for i, j in apart
    )
    turned = sum(encoders[i].elsewhere < encoders[j].elsewhere for i, j in pairs)
    return Ranking(target, shots, n, encoders, len(pairs), len(apart), at_all, turned)


def _p_value(a: float, b: float, n: int) -> float:
    """Of no difference of two shares, each of n images (pooled z test)."""
    mean = (a + b) / 2
    error = math.sqrt(2 * mean * (1 - mean) / n)
    return 2 * float(scipy.special.ndtr(-abs(a - b) / error)) if error else 1.0
