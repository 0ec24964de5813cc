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
    from bigxfer.presets import net_name
    from bigxfer.runs import terminal
    from bigxfer.study import cost, grid
    from bigxfer.study.commands import status

    study = grid.nodes(args.config)
    states = grid.states(study, args.runs)
    prices = cost.costs(study)
    took = [price.flops / args.tflops / 1e12 / 3600 for price in prices]
    if args.all:
        titles = "digest", "device time", "disk", "run"
        lines = [
            (node.digest, hours(h), size(price.disk), str(node))
            for node, price, h in zip(study, prices, took, strict=True)
        ]
        print(terminal.columns(titles, lines, left=(0, 3)) + "\n")
    groups: dict[str, list[int]] = defaultdict(list)
    for i, node in enumerate(study):
        name = (
            node.kind
            if node.kind == "cache"
            else f"{node.kind} {net_name(vars(node.run.model))}"
        )
        groups[name].append(i)
    groups["all"] = list(range(len(study)))
    lines = []
    for name, members in groups.items():
        done = sum(states[i].state == "done" for i in members)
        h, disk = sum(took[i] for i in members), sum(prices[i].disk for i in members)
        lines.append((name, len(members), done, hours(h), size(disk)))
    print(terminal.columns(("", "runs", "done", "device time", "disk"), lines))
    # The largest alone: how many run at once is the launcher's.
    peak = max(price.scratch for price in prices)
    print(
        f"\nAn estimate, good to a factor of two: at {args.tflops:g} TFLOP/s a device"
        " (--tflops), without input, evaluation and compile time. A run that is under"
        f" way needs up to {size(peak)} more for its checkpoints."
    )
    if trials := sum(price.trials for price in prices):
        count = sum(price.trials > 0 for price in prices)
        print(
            f"Of this, {hours(trials / args.tflops / 1e12 / 3600)} are trials beside the"
            f" trainings of {count} runs (config.optim.tune, config.eval.select_on)."
        )
    print(kept(study, prices))
    for line in status.damages(states):
        print(line)
    if guessed := sorted({price.guessed for price in prices} - {""}):
        print(
            f"The size of {', '.join(guessed)} is not known: 10,000 images assumed. Give"
            " it as data.size=IMAGES,CLASSES."
        )


def kept(study, prices) -> str:
    """Whose parameters stay when a run is done, and the disk that they take."""
    words = []
    for kind in ("upstream", "transfer"):
        runs = [(n, p) for n, p in zip(study, prices, strict=True) if n.kind == kind]
        stay = [p.kept for n, p in runs if n.run.keep in ("all", kind)]
        if runs:
            some = f"{len(stay)} of " if 0 < len(stay) < len(runs) else ""
            words.append(
                f"{some}{len(runs)} {kind}s ({size(sum(stay))})"
                if stay
                else f"none of the {len(runs)} {kind}s"
            )
    return (
        f"Parameters are kept of {' and '.join(words)} (config.keep); without them a run"
        " can be collected, not predicted with or exported."
    )


def hours(h: float) -> str:
    """A time in hours as people say it: 6,460 h, 2.5 h, 12 min, 3 s or < 1 s."""
    if h >= 1:
        return f"{h:,.0f} h" if h >= 10 else f"{h:.1f} h"
    seconds = h * 3600
    if seconds >= 1:
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return "< 1 s" if h else "0 s"


def size(count: float) -> str:
    """Bytes as people say them: 6,460 GB, 2.5 GB, 12 MB or < 1 MB."""
    if count >= 1e9:
        return f"{count / 1e9:,.0f} GB" if count >= 1e10 else f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else "< 1 MB" if count else "0 MB"
