"""`list`: the runs of a study and what they will cost, before anything starts."""

import argparse
from collections import defaultdict
from pathlib import Path

# What one device reaches in training, for an estimate: a third of the bfloat16 peak of
# an A100 (312 TFLOP/s, NVIDIA's data sheet). Two CPU cores reach 0.05 to 0.1.
TFLOPS = 100.0


def add(commands) -> None:
    p = commands.add_parser("list", help="the runs of a study, device-hours and disk")
    p.add_argument("--config", required=True, help="configs/study_NAME.py[:args]")
    p.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    text = f"TFLOP/s that a device reaches (default {TFLOPS:g}, an A100)"
    p.add_argument("--tflops", type=float, default=TFLOPS, help=text)
    p.add_argument("--all", action="store_true", help="a line for each run too")
    p.set_defaults(call=show)


def show(args: argparse.Namespace) -> None:
    from bigxfer.study import cost, grid

    study = grid.nodes(args.config)
    prices = cost.costs(study)
    hours = [price.flops / args.tflops / 1e12 / 3600 for price in prices]
    if args.all:
        for node, price, h in zip(study, prices, hours, strict=True):
            print(f"{node.digest:24} {h:9.3g} h {price.disk / 1e9:8.3g} GB  {node}")
        print()
    groups: dict[str, list[int]] = defaultdict(list)
    for i, node in enumerate(study):
        name = node.kind if node.kind == "cache" else f"{node.kind} {model(node)}"
        groups[name].append(i)
    print(f"{'':28}{'runs':>6}{'done':>6}{'device-hours':>14}{'disk, GB':>10}")
    groups["all"] = list(range(len(study)))
    for name, members in groups.items():
        done = sum(study[i].done(args.runs) for i in members)
        h, disk = sum(hours[i] for i in members), sum(prices[i].disk for i in members)
        print(f"{name:28}{len(members):6}{done:6}{h:14,.3g}{disk / 1e9:10,.3g}")
    peak = max(price.scratch for price in prices)
    print(
        f"\nAn estimate, good to a factor of two: at {args.tflops:g} TFLOP/s a device"
        " (--tflops), without input, evaluation and compile time. A run that is under"
        f" way needs up to {peak / 1e9:.2g} GB more for its checkpoints."
    )
    if guessed := sorted({price.guessed for price in prices} - {""}):
        print(f"The size of {', '.join(guessed)} is not known: 10,000 images assumed.")


def model(node) -> str:
    from bigxfer.tables.table import model_name

    if node.run.model.name != "bit":
        return node.run.model.name
    return model_name(node.run.model.blocks, node.run.model.width)
