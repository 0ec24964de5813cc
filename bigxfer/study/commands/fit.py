"""`fit`: a law for every line of a study, and where the lines of two upstreams cross.

Writes DIR/fits.json (all of it), DIR/fits.csv (a row a parameter) and
DIR/crossovers.csv (a row a pair). Every line also says which scale reaches the wanted
metric (--reach). Along two scales at once (--x params,shots and so on)
the laws are joint ones, and there are no crossovers.
"""

import argparse
import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bigxfer import durable
from bigxfer.config import dry_run
from bigxfer.tables import table_args
from bigxfer.tables.table_args import SCALES

PAIRS = {
    "params,shots": ("params", "shots"),
    "params,upstream_size": ("params", "upstream_size"),
    "params,upstream_examples": ("params", "upstream_examples"),
    "upstream_size,shots": ("upstream_size", "shots"),
}
METRICS = ("auroc_macro", "accuracy")
REACH = 0.90
FILES = ("fits.json", "fits.csv", "crossovers.csv")


def add(commands) -> None:
    p = commands.add_parser("fit", help="scaling laws and crossovers, with intervals")
    table_args.add_arguments(p)
    p.add_argument("--out", type=Path, required=True, help="where the fits go")
    choices = (*SCALES, *PAIRS)
    p.add_argument("--x", choices=choices, default="shots", help="the scale, or two")
    p.add_argument(
        "--distances",
        type=Path,
        help="CSV of upstream,target,distance, a covariate of --x upstream_size,shots;"
        " the phantom's own distances are known",
    )
    p.add_argument("--metric", choices=METRICS, default=METRICS[0])
    words = "the metric whose scale is asked: how many labels, or images, reach it?"
    p.add_argument("--reach", type=float, default=REACH, help=words)
    dry_run.add(p)
    p.set_defaults(call=fit)


def fit(args: argparse.Namespace) -> None:
    from bigxfer.scaling import crossings, curves, surfaces
    from bigxfer.tables.cells import PredictionReader

    # Elsewhere the file would be ignored without a word.
    if args.distances and args.x != "upstream_size,shots":
        raise ValueError("--distances is read with --x upstream_size,shots only")
    if not 0 < args.reach < 1:
        raise ValueError(f"--reach {args.reach:g}: give a metric between 0 and 1")
    table = table_args.given(args)
    known = surfaces.read_distances(args.distances) if args.distances else {}
    if args.dry_run:
        transfers = sum(row["kind"] == "transfer" for row in table.rows)
        print(f"would fit laws along {args.x} to {transfers} transfers of {table.path}")
        dry_run.end(*(args.out / name for name in FILES))
        return
    predictions = PredictionReader(table.find)
    pairs: list = []
    if args.x in PAIRS:
        scales = PAIRS[args.x]
        fitted, notes = surfaces.fitted(
            table.rows, scales, args.metric, predictions, known
        )
    else:
        grouped, notes = curves.curves(table.rows, args.x, args.metric)
        fitted = [curves.law(curve, predictions) for curve in grouped]
        pairs = crossings.crossings(grouped, predictions)
    synthetic = any(row["synthetic"] for row in table.rows)
    pair_rows = [crossing_dict(c, args.x) for c in pairs]
    about = {
        "table": table.path.name,
        "synthetic": synthetic,
        "x": args.x,
        "error": f"1 - {args.metric}",
        "level": 0.95,
        "notes": [*notes, *predictions.unreadable],
        "reach": args.reach,
        "fits": [as_dict(law, args) for law in fitted],
        "crossovers": pair_rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    every, by_law, by_pair = (args.out / name for name in FILES)
    durable.write_json(every, about)
    _write(by_law, (r for law in fitted for r in parameter_rows(law, args)))
    _write(by_pair, pair_rows)
    if synthetic:
        print("SYNTHETIC data")
    for note in about["notes"]:
        print(note)
    for law in fitted:
        print(describe(law, args.x, args.metric, args.reach))
    for c in pairs:
        if c.found:
            print(sentence(c, args.x))
    apart = sum(c.found is None for c in pairs)
    if apart:
        print(f"{apart} pairs of lines cannot be compared; crossovers.csv says why")
    print(f"wrote fits.json, fits.csv and crossovers.csv to {args.out}")


def describe(law, x: str, metric: str, reach: float) -> str:
    """One line for the terminal: the law or why there is none, then what it reaches."""
    from bigxfer.scaling.curves import LEAST

    texts = [_law_text(law)]
    # From LEAST scales on the reason tells a slope that rises (trend.rises).
    if law.slope and (law.slope[0] > 0 or len(law.curve.x) < LEAST):
        slope = "{:.2g} [{:.2g}, {:.2g}]".format(*law.slope)
        texts.append(f"errors fall with the power {slope}")
    if law.flat:
        texts.append(f"no difference between the scales within {law.flat:g}")
    if reached := _reached(law, x, reach):
        texts.append(f"{metric} {reach:g} {reached.sentence(SCALES[x])}")
    return f"{' '.join(map(str, law.curve.about.values()))}: {'; '.join(texts)}"


def _law_text(law) -> str:
    if law.fit is None:
        return f"no law, {law.reason}"
    ends = law.band.parameters if law.band else {}
    values = ", ".join(
        f"{k} {v:.3g}"
        + (f" [{ends[k][1]:.3g}, {ends[k][2]:.3g}]" if ends else "")
        + " (at its bound)" * (k in law.fit.at_bounds)
        for k, v in law.fit.parameters.items()
    )
    held = f"held-out error {law.scores[0].held_out:.2g} in ln"
    reason = f"; {law.reason}" if law.reason else ""
    return f"{law.fit.form.name}, {values}; {held}{reason}"


def _reached(law, x: str, reach: float):
    """What scale reaches --reach; None for laws of two scales, or without scatter."""
    return law.reach(1 - reach) if x in SCALES else None


def sentence(c, x: str) -> str:
    """One line on a pair of lines."""
    where = " ".join(map(str, c.about.values()))
    return f"{where}: {c.sentence(SCALES[x])}" + (f"; {c.basis}" if c.found else "")


def as_dict(law, args: argparse.Namespace) -> dict[str, Any]:
    """A law as fits.json has it; null is what could not be had, or lies outside.

    reach_value null: not up to reach_asked_to; reach_low and reach_high 0: below the
    smallest scale.
    """
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
        "interval": law.words or None,
        "reason": law.reason or None,
        "flat_within": law.flat,
        **_triple("slope", law.slope),
    }
    reached = _reached(law, args.x, args.reach)
    ends = (reached.value, reached.low, reached.high) if reached else None
    entry |= _triple("reach", ends)
    entry["reach_asked_to"] = reached.end if reached else None
    entry["reach_says"] = reached.sentence(SCALES[args.x]) if reached else None
    if law.fit is not None:
        ends = law.band.parameters if law.band else {}
        entry["parameters"] = {
            name: {
                "value": _number(value),
                "low": _number(ends[name][1]) if name in ends else None,
                "high": _number(ends[name][2]) if name in ends else None,
                "at_bound": name in law.fit.at_bounds,
            }
            for name, value in law.fit.parameters.items()
        }
    return entry


def _triple(name: str, ends: tuple[float, float, float] | None) -> dict[str, Any]:
    keys = (f"{name}_value", f"{name}_low", f"{name}_high")
    return dict(zip(keys, map(_number, ends) if ends else (None,) * 3, strict=True))


def _mean(runs: dict, metric: str) -> float:
    return sum(row[metric] for row in runs.values()) / len(runs)


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if math.isfinite(value) else None


def parameter_rows(law, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a parameter of the chosen form, or one that says why there is none."""
    entry = as_dict(law, args)
    # Lists fit no cell of a CSV; fits.json has them.
    row = entry.copy()
    for name in ("scales", "draws", "error", "scores", "left_out", "parameters"):
        del row[name]
    row["n_scales"] = len(entry["scales"])
    held_out = {s["form"]: s["held_out"] for s in entry["scores"]}
    row["held_out"] = held_out.get(entry["chosen"])
    empty = dict.fromkeys(("parameter", "value", "low", "high", "at_bound"))
    if not entry["parameters"]:
        return [row | empty]
    return [row | {"parameter": k, **v} for k, v in entry["parameters"].items()]


def crossing_dict(c, x: str) -> dict[str, Any]:
    """A pair of lines; `ahead` leads at the largest common scale.

    at, low and high are of the last overtaking, null where none is told; first_at of
    the one before it, where the lines cross twice.
    """
    last = c.overtakings[-1] if c.overtakings else None
    first = c.overtakings[0] if len(c.overtakings) > 1 else None
    return {
        **c.about,
        "ahead": c.a,
        "behind": c.b,
        "verdict": c.verdict,
        "at": last.at if last else None,
        "low": last.low if last else None,
        "high": last.high if last else None,
        "first_at": first.at if first else None,
        "family": c.pairs,
        "sign_changes": c.found.sign_changes if c.found else None,
        "interval": c.basis,
        "says": sentence(c, x),
    }


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A CSV; with nothing but a line end where there is no row."""
    written = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, written[0] if written else (), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(written)
