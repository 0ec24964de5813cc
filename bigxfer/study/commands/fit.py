"""`fit`: a law for every line of a study, and where the lines of two upstreams cross.

Writes DIR/fits.json (all of it), DIR/fits.csv (a row a parameter) and
DIR/crossovers.csv (a row a pair). Along two scales at once (--x params,shots and so on)
the laws are joint ones, and there are no crossovers.
"""

import argparse
import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bigxfer import durable
from bigxfer.tables import table_args

UNITS = {  # of the scales that a line may run along
    "shots": "shots",
    "upstream_examples": "upstream images seen",
    "upstream_size": "upstream images",
    "params": "parameters",
}
PAIRS = {
    "params,shots": ("params", "shots"),
    "params,upstream_size": ("params", "upstream_size"),
    "params,upstream_examples": ("params", "upstream_examples"),
    "upstream_size,shots": ("upstream_size", "shots"),
}
METRICS = ("auroc_macro", "accuracy")


def add(commands) -> None:
    p = commands.add_parser("fit", help="scaling laws and crossovers, with intervals")
    table_args.add_arguments(p)
    p.add_argument("--out", type=Path, required=True, help="where the fits go")
    choices = (*UNITS, *PAIRS)
    p.add_argument("--x", choices=choices, default="shots", help="the scale, or two")
    p.add_argument(
        "--distances",
        type=Path,
        help="CSV of upstream,target,distance, a covariate of --x upstream_size,shots;"
        " the phantom's own distances are known",
    )
    p.add_argument("--metric", choices=METRICS, default=METRICS[0])
    p.set_defaults(call=fit)


def fit(args: argparse.Namespace) -> None:
    from bigxfer.scaling import curves, surfaces
    from bigxfer.tables.cells import PredictionReader

    if args.distances and args.x != "upstream_size,shots":
        raise ValueError("--distances is read with --x upstream_size,shots only")
    table = table_args.given(args)
    predictions = PredictionReader(table.find)
    crossings: list = []
    if args.x in PAIRS:
        known = surfaces.read_distances(args.distances) if args.distances else {}
        scales = PAIRS[args.x]
        fitted, notes = surfaces.fitted(
            table.rows, scales, args.metric, predictions, known
        )
    else:
        grouped, notes = curves.curves(table.rows, args.x, args.metric)
        fitted = [curves.law(curve, predictions) for curve in grouped]
        crossings = curves.crossings(grouped, predictions)
    synthetic = any(row["synthetic"] for row in table.rows)
    pairs = [crossing_dict(c, args.x) for c in crossings]
    about = {
        "table": table.path.name,
        "synthetic": synthetic,
        "x": args.x,
        "error": f"1 - {args.metric}",
        "level": 0.95,
        "notes": [*notes, *predictions.unreadable],
        "fits": [as_dict(law) for law in fitted],
        "crossovers": pairs,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "fits.json"
    durable.write_json(path, about)
    _write(args.out / "fits.csv", (r for law in fitted for r in parameter_rows(law)))
    _write(args.out / "crossovers.csv", pairs)
    if synthetic:
        print("SYNTHETIC data")
    for note in about["notes"]:
        print(note)
    for law in fitted:
        print(describe(law))
    for c in crossings:
        if c.found:
            print(sentence(c, args.x))
    apart = sum(c.found is None for c in crossings)
    if apart:
        print(f"{apart} pairs of lines cannot be compared; crossovers.csv says why")
    print(f"wrote fits.json, fits.csv and crossovers.csv to {args.out}")


def describe(law) -> str:
    """One line for the terminal."""
    name = " ".join(map(str, law.curve.about.values()))
    if law.fit is None:
        return f"{name}: no law, {law.reason}"
    score = next(s for s in law.scores if s.form is law.fit.form)
    found = law.fit.parameters
    ends = law.band.parameters if law.band else {}
    values = ", ".join(
        f"{k} {v:.3g}" + (f" [{ends[k][1]:.3g}, {ends[k][2]:.3g}]" if ends else "")
        for k, v in found.items()
    )
    held = f"held-out error {score.held_out:.2g} in ln"
    return f"{name}: {law.fit.form.name}, {values}; {held}{_tail(law.reason)}"


def _tail(reason: str) -> str:
    return f"; {reason}" if reason else ""


def sentence(c, x: str) -> str:
    """One line on a pair of lines."""
    where = " ".join(map(str, c.about.values()))
    return f"{where}: {c.sentence(UNITS[x])}" + (f"; {c.basis}" if c.found else "")


def as_dict(law) -> dict[str, Any]:
    """A law as fits.json has it; null is what could not be had."""
    curve = law.curve
    entry: dict[str, Any] = {
        **curve.about,
        "scales": curve.x.tolist(),
        "draws": [len(runs) for runs in curve.runs],
        "error": [1 - _mean(runs, curve.metric) for runs in curve.runs],
        "held_out_above": _number(law.cutoff),
        "chosen": law.fit.form.name if law.fit else None,
        "scores": [
            {
                "form": s.form.name,
                "held_out": s.held_out,
                "in_sample": s.in_sample,
                "agreement": s.agreement,
            }
            for s in law.scores
        ],
        "left_out": law.left_out,
        "parameters": {},
        "interval": law.band.method if law.band else None,
        "reason": law.reason or None,
    }
    if law.fit is not None:
        ends = law.band.parameters if law.band else {}
        entry["parameters"] = {
            name: {
                "value": _number(value),
                "low": _number(ends[name][1]) if name in ends else None,
                "high": _number(ends[name][2]) if name in ends else None,
            }
            for name, value in law.fit.parameters.items()
        }
    return entry


def _mean(runs: dict, metric: str) -> float:
    return sum(row[metric] for row in runs.values()) / len(runs)


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if math.isfinite(value) else None


def parameter_rows(law) -> list[dict[str, Any]]:
    """A row a parameter of the chosen form, or one that says why there is none."""
    entry = as_dict(law)
    row = entry.copy()
    for name in ("scales", "draws", "error", "scores", "left_out", "parameters"):
        del row[name]
    row["n_scales"] = len(entry["scales"])
    held_out = {s["form"]: s["held_out"] for s in entry["scores"]}
    row["held_out"] = held_out.get(entry["chosen"])
    empty = {"parameter": None, "value": None, "low": None, "high": None}
    if not entry["parameters"]:
        return [row | empty]
    return [row | {"parameter": k, **v} for k, v in entry["parameters"].items()]


def crossing_dict(c, x: str) -> dict[str, Any]:
    """A crossing; low null: below the smallest scale, high null: above the largest."""
    found = c.found
    entry = {
        **c.about,
        "ahead": c.a,
        "behind": c.b,
        "within_the_data": bool(found and found.measured),
        "at": found.value if found and found.measured else None,
        "low": None,
        "high": None,
        "low_is_below_the_data": None,
        "high_is_above_the_data": None,
        "share_inside": None,
        "sign_changes": None,
        "interval": c.basis,
        "says": sentence(c, x),
    }
    if found:
        entry |= {
            "low": found.low if 0 < found.low < math.inf else None,
            "high": found.high if 0 < found.high < math.inf else None,
            "low_is_below_the_data": found.low == 0,
            "high_is_above_the_data": found.high == math.inf,
            "share_inside": found.inside,
            "sign_changes": found.sign_changes,
        }
    return entry


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A CSV; with nothing but a line end where there is no row."""
    found = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0] if found else (), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
