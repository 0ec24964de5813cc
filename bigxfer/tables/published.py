"""The published runs of arXiv 2106.00116 as rows of our table, and rows in their form.

Source: results/*.csv of SLAMPAI/large-scale-pretraining-transfer @ fe6232b (MIT), 42
files of final test metrics without intervals or predictions; the limits are `limited`'s. Nearly every run stands
there twice with the same values.
"""

import csv
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from bigxfer.statistics import limits
from bigxfer.tables import cells
from bigxfer.tables.table import Row, metric_names, name_digest

STUDY = "arXiv 2106.00116"
COMMIT = "fe6232b"
BATCH = 128  # finetuning/bit_hyperrule.py there
SEEDS = 5  # seeds 0 to 4 of every cell, by the paper

ARCHITECTURES = {  # depth, width, parameters without head, features (BiT's own counts)
    "bit50x1": ("R50x1", 50, 1.0, 23_500_352, 2048),
    "bit152x4": ("R152x4", 152, 4.0, 928_340_224, 8192),
}
CLASSES = {
    "cifar10": 10,
    "cifar100": 100,
    "flowers_oversampling": 102,
    "pets": 37,
    "covidx_cxr2": 2,
    "tuberculosis_full": 2,
    "padchest": 27,  # the single-label subset, "PadChest-Cl"
}
TEST_IMAGES = {  # that the accuracies are multiples of 1/n of
    "cifar10": 10_000,
    "cifar100": 10_000,
    "flowers_oversampling": 2040,
    "pets": 3669,
    "covidx_cxr2": 400,
    "tuberculosis_full": 121,
    "padchest": 4153,
}
UPSTREAM_IMAGES = {  # arXiv 1912.11370 section 3.1; the X-ray counts are not published
    "imagenet1k": 1_280_000,
    "imagenet21k": 14_200_000,
}
LONG = (  # of results/*.csv in SLAMPAI/large-scale-pretraining-transfer @ fe6232b
    "metric_value",
    "metric",
    "path",
    "seed",
    "shot",
    "pretrained_model",
    "dataset",
    "last_step",
)
LONG_METRICS = {  # our name -> theirs
    "accuracy": "test/acc",
    "auroc_macro": "test/mean_auc",
    "auprc_macro": "test/mean_average_precision",
    "auprc/class_0": "test/average_precision_class_0",
    "f1/class_0": "test/f1_0",
    "recall/class_0": "test/recall_0",
}


@dataclass
class Published:
    """The rows, and what a reader of them must know."""

    rows: list[Row]
    lines: int  # in all files
    duplicates: int  # lines that repeat another
    short: list[str] = field(default_factory=list)  # runs stopped early, by path
    missing: list[str] = field(default_factory=list)  # cells that lack seeds


def read(folder: Path) -> Published:
    """Every run of the CSVs in FOLDER/results (or FOLDER), once.

    Raises FileNotFoundError where there are none, and ValueError, naming file and
    line, for another header, a value that is no number, an unknown metric,
    architecture or data set, or two lines that contradict each other.
    """
    files = sorted((folder / "results").glob("*.csv")) or sorted(folder.glob("*.csv"))
    if not files:
        raise FileNotFoundError(
            f"no CSV in {folder / 'results'}; it is the folder results/ of"
            f" SLAMPAI/large-scale-pretraining-transfer @ {COMMIT}"
        )
    ours = {theirs: name for name, theirs in LONG_METRICS.items()}
    runs: dict[str, Row] = {}
    first: dict[tuple[str, str], tuple] = {}
    lines = 0
    for file in files:
        with file.open(newline="") as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != LONG:
                raise ValueError(f"{file}: columns {reader.fieldnames}, not {LONG}")
            for line in reader:
                lines += 1
                where = f"{file} line {reader.line_num}"
                path, metric = line["path"], line["metric"]
                value = _number(line["metric_value"], where)
                cell = tuple(line.values())
                # 1,416 of 1,440 runs stand twice: evaluated by the way and at the end.
                before = first.setdefault((path, metric), cell)
                if before[1:] != cell[1:] or float(before[0]) != value:
                    raise ValueError(f"{where}: {path} has another {metric} elsewhere")
                if metric not in ours:
                    raise ValueError(f"{where}: unknown metric {metric!r}")
                if path not in runs:
                    runs[path] = _row(line, where)
                runs[path] |= limited(ours[metric], value, line["dataset"])
    rows = list(runs.values())
    return Published(rows, lines, lines - len(first), _short(rows), _missing(rows))


def limited(metric: str, value: float, target: str) -> Row:
    """The metric with its 95% limits over test images, {} of them where none is known.

    Without predictions the test set is taken as independent patients, and its classes as
    of equal size. Shares (accuracy, recall) are binomial; an AUROC has the variance of
    Hanley and McNeil, average precision that of a share of the positives. The mean over
    classes is taken to vary as much as one of them, which is the most that it can.
    """
    n, k = TEST_IMAGES[target], CLASSES[target]
    low = high = None
    if metric == "accuracy":
        low, high = limits.mid_p(value * n, n)
    elif metric.startswith("recall/"):
        low, high = limits.mid_p(value * n / k, n / k)
    elif metric.startswith("auroc"):
        low, high = limits.newcombe(value, n / k, n - n / k)
    elif metric.startswith("auprc"):
        low, high = limits.wilson(value, n / k)
    return {metric: value, f"{metric}_low": low, f"{metric}_high": high}


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: metric_value {text!r} is not a number")
    return value


def _row(line: dict[str, str], where: str) -> Row:
    """The columns of a run, without its metrics."""
    upstream, _, architecture = line["pretrained_model"].rpartition("_")
    target = line["dataset"]
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{where}: architecture {architecture!r} is not known")
    if target not in CLASSES:
        raise ValueError(f"{where}: data set {target!r} is not known")
    model, depth, width, backbone, features = ARCHITECTURES[architecture]
    steps, shots = int(line["last_step"]), line["shot"].removesuffix("_shot")
    # Their PadChest draw silently takes fewer where a class is short.
    drawn = shots != "full" and target != "padchest"
    about = (upstream, model, target, line["shot"])
    return {
        "study": STUDY,
        "kind": "transfer",
        "upstream": upstream,
        "upstream_size": UPSTREAM_IMAGES.get(upstream),
        "upstream_digest": "",
        "upstream_seed": None,  # each upstream was trained once
        "model": model,
        "depth": depth,
        "width": width,
        "params": backbone + (features + 1) * CLASSES[target],
        "init": "pretrained",
        "target": target,
        "target_size": int(shots) * CLASSES[target] if drawn else None,
        "shots": shots,
        "seed": int(line["seed"]),
        "family": name_digest(" ".join(about)),
        "protocol": "hyperrule-predecessor",
        "steps": steps,
        "images": steps * BATCH,
        "test_images": TEST_IMAGES[target],
        "synthetic": False,
        "digest": name_digest(line["path"]),
        "commit": COMMIT,
        "folder": line["path"],
    }


def _short(rows: list[Row]) -> list[str]:
    """Runs that stopped before the others of the same target and shots."""
    return sorted(
        f"{row['folder']} ({row['steps']} of {usual} steps)"
        for row, usual in cells.stopped_early(rows, "target", "shots")
    )


def _missing(rows: list[Row]) -> list[str]:
    """Cells with fewer than five seeds."""
    seeds = defaultdict(set)
    for row in rows:
        cell = (row["target"], row["upstream"], row["model"], row["shots"])
        seeds[cell].add(row["seed"])
    return sorted(
        f"{' '.join(cell)}-shot lacks seed"
        f" {', '.join(map(str, sorted(set(range(SEEDS)) - there)))}"
        for cell, there in seeds.items()
        if len(there) < SEEDS
    )


def export_long(rows: list[Row], path: Path) -> int:
    """Writes the predecessor's form: one line a run and metric; returns the lines.

    Their six metrics keep their names, ours are called test/NAME.
    """
    names = metric_names(rows)
    lines = 0
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(LONG)
        for row in rows:
            shots = f"{row['shots']}_shot"
            model = f"{row['upstream']}_{row['model'].replace('R', 'bit')}"
            about = (row["folder"], row["seed"], shots, model, row["target"])
            for name in names:
                if (value := row.get(name)) is not None:
                    metric = LONG_METRICS.get(name, f"test/{name}")
                    writer.writerow((repr(value), metric, *about, row["steps"]))
                    lines += 1
    return lines
