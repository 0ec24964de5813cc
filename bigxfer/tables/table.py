"""The tidy table of a study: one row a run, from its config.json and result.json.

Columns are COLUMNS, then for every metric NAME its value (a fraction, not percent;
loss in nats), NAME_low and NAME_high, the 95% interval over test patients. What is
unknown is null. table.parquet is also the cache: a run whose result.json has not
changed since is not read again.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from bigxfer import config, durable
from bigxfer.presets import model_name
from bigxfer.runs import finished, folders
from bigxfer.statistics import metrics

Row = dict[str, Any]

COLUMNS: dict[str, pa.DataType] = {
    "study": pa.string(),
    "kind": pa.string(),  # upstream or transfer
    "upstream": pa.string(),  # data set the parameters come from; "scratch" for none
    "upstream_size": pa.int64(),  # its distinct training images
    "upstream_examples": pa.int64(),  # images seen in training on it
    "upstream_distance": pa.float64(),  # of the phantom's domain; null for real data
    "upstream_digest": pa.string(),
    "model": pa.string(),  # such as R50x1
    "depth": pa.int64(),
    "width": pa.float64(),
    "params": pa.int64(),  # head included
    "init": pa.string(),
    "start": pa.string(),  # what is taken of the upstream, what is fixed; null: all, none
    "target": pa.string(),
    "target_size": pa.int64(),  # training images, after the draw
    "target_distance": pa.float64(),
    "shots": pa.string(),  # a class, or "full"
    "seed": pa.int64(),  # of the draw and of training
    "fraction": pa.float64(),  # of the training set, before the draw
    "sampling": pa.string(),  # uniform, classes or covid_percent
    "mix": pa.string(),  # shares of a union's sets, "0.5:0.5"; null: by size
    "space": pa.string(),  # of a union's labels: union or intersection
    "protocol": pa.string(),
    "steps": pa.int64(),
    "images": pa.int64(),  # seen in training
    "flops": pa.float64(),
    "device_seconds": pa.float64(),
    "test_images": pa.int64(),
    "test_patients": pa.int64(),
    "leaked_patients": pa.int64(),  # of the test, that the upstream saw; null: unknown
    "leaked_images": pa.int64(),  # of the test, equal to one that the upstream saw
    "synthetic": pa.bool_(),
    "data": pa.string(),  # 16 hex digits of its content, wherever it lies
    "digest": pa.string(),
    "commit": pa.string(),
    "folder": pa.string(),
    "changed_ns": pa.int64(),  # mtime of result.json, by which the cache knows it
}


@dataclass
class Collected:
    """The rows found, and what was found that is no row."""

    rows: list[Row] = field(default_factory=list)
    read: int = 0  # folders opened, the others came from the cache
    unfinished: list[str] = field(default_factory=list)  # a config.json alone
    bad: dict[str, str] = field(default_factory=dict)  # folder -> what is wrong


def collect(runs: Sequence[Path], out: Path, study: str = "") -> Collected:
    """Rows of all finished runs in the folders `runs`, reading only what is new.

    `out` holds the table.parquet of an earlier call, if any. `study` names the study;
    "" takes the name of the folder that holds the runs. Raises FileNotFoundError
    where one of `runs` is no folder; a run that cannot be read is listed in `bad`.
    """
    try:
        known = {row["folder"]: row for row in load(out / "table.parquet")}
    except ValueError:  # damaged: every run is read anew
        known = {}
    found, sources = Collected(), []
    for root in runs:
        if not root.is_dir():
            raise FileNotFoundError(f"no folder of runs at {root}")
        name = study or root.resolve().name
        for entry in sorted(os.scandir(root), key=lambda e: e.name):
            folder = Path(entry.path)
            try:
                changed = os.stat(folder / "result.json").st_mtime_ns
            except (FileNotFoundError, NotADirectoryError):
                if (folder / "config.json").is_file():
                    found.unfinished.append(str(folder))
                continue
            row = known.get(str(folder))
            if row is None or row["changed_ns"] != changed:
                try:
                    row = read_run(folder)
                except (ValueError, OSError, KeyError, TypeError) as error:
                    found.bad[str(folder)] = said(error)
                    sources += config_alone(folder)
                    continue
                found.read += 1
            row.update(study=name, changed_ns=changed)
            found.rows.append(row)
    _join_upstreams(found.rows, [*sources, *found.rows])
    return found


def read_run(folder: Path) -> Row:
    """The row of one finished run; ValueError or KeyError for what is amiss in it.

    Files of a run of format 1 have no sums, see folders.py.
    """
    found = finished.read(folder)
    about, result = found.about, found.result
    run, cost, report = about["config"], result["cost"], about.get("data", {})
    model, data, init = run["model"], run["data"], run["init"]
    blocks = tuple(model["blocks"])
    bit = model["name"] == "bit"
    alone = init["kind"] in ("random", "gabor")
    leaks = result.get("leaks", {}).get("upstream", {}).get("test", {})
    phantom = result["synthetic"]
    row: Row = {
        "kind": run["kind"],
        "upstream": "scratch" if alone else _source(init),
        "upstream_digest": "" if alone else init["digest"],
        "model": net_name(model),
        "depth": 3 * sum(blocks) + 2 if bit else None,
        "width": model["width"] if bit else None,
        "params": cost.get("parameters"),
        "init": init["kind"],
        "start": start(init, run.get("freeze", {})),
        "target": data_name(data, phantom),
        "target_size": target_size(report),
        "target_distance": target_distance(data, phantom),
        "shots": data["shots"],
        "seed": run["seed"],
        "fraction": data.get("fraction", 1.0),  # runs may be older than these fields
        "sampling": data.get("sampling", "uniform"),
        "mix": ":".join(f"{share:g}" for share in data.get("mix", ())) or None,
        "space": data.get("space", "union") if "+" in data["reader"] else None,
        "protocol": protocol(run["optim"]),
        "steps": cost["steps"],
        "images": cost["images"],
        "flops": cost["flops"],
        "device_seconds": cost["device_seconds"],
        "test_images": result.get("images"),
        "test_patients": result.get("patients"),
        "leaked_patients": leaks.get("patients"),
        "leaked_images": leaks.get("exact"),
        "synthetic": phantom,
        "data": found.data_name,
        "digest": result["digest"],
        "commit": result["commit"],
        "folder": str(folder),
    }
    for name, metric in result["metrics"].items():
        check_range(name, metric, folder)
        row[name] = metric["value"]
        row[f"{name}_low"], row[f"{name}_high"] = metric["low"], metric["high"]
    return row


def said(error: Exception) -> str:
    """What an error says; a missing field's is its name alone."""
    return f"it lacks the field {error}" if type(error) is KeyError else str(error)


def config_alone(folder: Path) -> list[Row]:
    """What transfers tell of an upstream whose result cannot be read; [] if nothing."""
    try:
        about = folders.read(folder / "config.json")
        run = about["config"]
        source = {
            "digest": about["digest"],
            "target": data_name(run["data"], about["synthetic"]),
            "target_size": target_size(about["data"]),
            "images": about["plan"]["steps"] * run["optim"]["batch"],
            "target_distance": target_distance(run["data"], about["synthetic"]),
        }
    except (ValueError, OSError, KeyError, TypeError):
        return []
    return [source]


def target_size(report: dict) -> int | None:
    """Training images, after the draw."""
    drawn = report.get("drawn")
    return len(drawn) if drawn else report.get("counts", {}).get("train")


def target_distance(data: dict, synthetic: bool) -> float | None:
    return data["phantom"]["distance"] if synthetic else None


def check_range(name: str, metric: dict[str, Any], folder: Path) -> None:
    """ValueError where a value, or an end of its interval, is none that can be."""
    most = metrics.largest(name)
    for end in ("value", "low", "high"):
        value = metric[end]
        if value is not None and not 0 <= value <= most:
            raise ValueError(
                f"{folder / 'result.json'}: {end} of {name} is {value:g}, outside"
                f" [0, {most:g}]; do the run again"
            )


def net_name(model: dict) -> str:
    """As model_name for BiT, else "cbr_tiny" or "cbr_tiny x0.5"; then what is slim."""
    if model["name"] == "bit":
        name = model_name(tuple(model["blocks"]), model["width"])
    else:
        name = model["name"]
        name += f" x{model['width']:g}" if model["width"] != 1 else ""
    above = model.get("slim_above")
    return f"{name} slim above {above}" if above else name


def start(init: dict, freeze: dict) -> str | None:
    """What of a start its upstream does not tell: "mean_var up to block2, 50% fixed".

    None where the whole upstream is taken as it is, and all trains. Runs may be older
    than some of the fields.
    """
    words = ["gabor"] if init["kind"] == "gabor" else []
    taken = config.taken(init)
    words += [taken] if taken != "copy" else []
    if freeze.get("bottom"):
        words.append(f"{freeze['bottom']:.0%} fixed")
    if freeze.get("top"):
        words.append(f"top {freeze['top']:.0%} trains")
    if freeze.get("top_layers"):
        words.append(f"top {freeze['top_layers']} layers train")
    if freeze.get("head", "trained") != "trained":
        words.append(f"{freeze['head']} head")
    return ", ".join(words) or None


def data_name(data: dict, synthetic: bool) -> str:
    """What a data set is called: its reader, or the folder of own images."""
    if synthetic:
        if data["reader"] == "folder":
            return "phantom-natural"  # shapes, which none of the knobs change
        plain = {"distance": 0, "severity": 1, "shortcut": 0}
        knobs = {k: data["phantom"].get(k, v) for k, v in plain.items()}
        marks = [f"{k}={v:g}" for k, v in knobs.items() if v != plain[k]]
        return " ".join([f"phantom-{data['reader']}", *marks])
    if data["reader"] in ("csv", "folder"):
        return "-".join(filter(None, (Path(data["root"]).name, data["version"])))
    return "-".join(filter(None, (data["reader"], data["version"])))


def protocol(optim: dict) -> str:
    """How the run was trained: "hyperrule-code", or the schedule of an own recipe."""
    schedule, variant = optim["schedule"], optim["variant"]
    return f"{schedule}-{variant}" if schedule == "hyperrule" else schedule


def _source(init: dict) -> str:
    """The best name of an upstream that is not in the table: its file, or config."""
    if init.get("kind") == "imagenet":
        return "imagenet"
    checkpoint = Path(init["checkpoint"])
    if checkpoint.suffix == ".npz" and checkpoint.stem != "params":
        return checkpoint.stem
    return Path(init["upstream"].partition(":")[0]).stem or init["digest"]


def _join_upstreams(rows: list[Row], sources: list[Row]) -> None:
    """Fills what a transfer's row takes from the row of its upstream, in place."""
    by_digest = {row["digest"]: row for row in sources}
    for row in rows:
        if source := by_digest.get(row["upstream_digest"] or None):
            row["upstream"] = source["target"]
            row["upstream_size"] = source["target_size"]
            row["upstream_examples"] = source["images"]
            row["upstream_distance"] = source["target_distance"]


def metric_names(rows: Iterable[Row]) -> list[str]:
    """The metrics (without _low and _high) that any of the rows has a value of."""
    names = dict.fromkeys(
        n for row in rows for n, v in row.items() if v is not None and n not in COLUMNS
    )
    ends = {f"{n}{end}" for n in names for end in ("_low", "_high")}
    return [n for n in names if n not in ends]


def to_arrow(rows: list[Row]) -> pa.Table:
    """The table in the order of COLUMNS, then the metrics by name."""
    fields = list(COLUMNS.items())
    for name in sorted(metric_names(rows)):
        fields += [(f"{name}{end}", pa.float64()) for end in ("", "_low", "_high")]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def load(path: Path) -> list[Row]:
    """The rows of a table.parquet; none where there is none of these COLUMNS.

    ValueError where it is damaged: its pages have checksums.
    """
    if not path.is_file():
        return []
    try:
        found = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it, and collect again"
        ) from error
    if found.column_names[: len(COLUMNS)] != list(COLUMNS):
        return []  # of another version of this file
    return found.to_pylist()


def save(rows: list[Row], out: Path) -> None:
    """Writes table.parquet and table.csv into the folder `out`, each atomically."""
    out.mkdir(parents=True, exist_ok=True)
    table = to_arrow(rows)
    for name, write in (
        ("table.csv", pa.csv.write_csv),
        ("table.parquet", partial(pq.write_table, write_page_checksum=True)),
    ):
        with durable.replacing(out / name) as temporary:
            write(table, temporary)


def name_digest(text: str) -> str:
    """16 hex digits for a run that has no config of ours."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
