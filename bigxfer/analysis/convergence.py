"""What `analyze --what convergence` writes: curves, steps to a target, speed-up.

Needs no data and no net, only metrics.jsonl, config.json and result.json.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer import config, presets
from bigxfer.analysis import learning_curves, plots
from bigxfer.analysis.learning_curves import LearningCurve
from bigxfer.config import Init, Run
from bigxfer.runs import finished
from bigxfer.statistics import intervals, metrics

RANDOM = "random"
# matplotlib labels a log axis at powers of ten only; speed-ups lie between two of them.
TICKS = [n * 10.0**k for k in range(-3, 4) for n in (1, 2, 5)]


@dataclass(frozen=True)
class Learnt:
    """The validations of one run, and what it shares with its twins."""

    name: str
    net: str  # the model, in short
    start: str  # "random", "pretrained", "pretrained mean_var up to block2", ...
    twin: str  # equal for runs that differ in their start alone
    batch: int
    curve: LearningCurve
    test: float  # the metric on the test split, NaN where there is none
    synthetic: bool

    @property
    def images(self) -> np.ndarray:
        return self.curve.steps * self.batch


def read(folder: Path, metric: str) -> Learnt:
    """Read a run; ValueError where it is not finished or has fewer than two validations."""
    done = finished.read(folder)
    run, result = done.run, done.result
    if metric not in result["metrics"]:
        raise ValueError(
            f"no metric {metric!r}; {folder} has {list(result['metrics'])}"
        )
    value = result["metrics"][metric]["value"]
    file = folder / "metrics.jsonl"  # a run whose head is fitted has none
    file = done.file(file.name) if done.kept(file.name) else file
    return Learnt(
        folder.name,
        presets.net_name(vars(run.model)),
        origin(run.init),
        config.digest(alone(run)),
        run.optim.batch,
        learning_curves.read(file, metric),
        math.nan if value is None else metrics.sign(metric) * value,
        result["synthetic"],
    )


def origin(init: Init) -> str:
    """The start in words, without the args of an upstream that follow the net: model, res."""
    file, _, arg = init.upstream.partition(":")
    # Nets of all sizes from one upstream are one start.
    items = [a for a in arg.split(",") if not a.startswith(("model=", "res="))]
    words = [init.kind, *([Path(file).stem, *items] if init.kind != RANDOM else [])]
    taken = config.taken(vars(init))
    words.append(taken if taken != "copy" else "")
    return " ".join(filter(None, words))


def alone(run: Run) -> Run:
    """The run as if it had started at random."""
    out = config.from_dict(config.to_dict(run))
    # The digests of two runs then agree where nothing but the start differs.
    out.init = Init()
    return out


def write(
    folders: Sequence[Path], metric: str, target: float, out: Path
) -> dict[str, Any]:
    """Writes convergence_*.*; returns steps to the target, speed-up and onsets by start.

    target: a value of the metric; 0 takes the best that every run reaches. Speed-up
    and gain pair runs that differ in their start alone (so of one net and one seed).
    For a metric where less is better, everything refers to its negative. ValueError for a
    run without a curve.
    """
    # A folder that is named twice would count as two runs.
    runs = [read(folder, metric) for folder in dict.fromkeys(folders)]
    target *= metrics.sign(metric)
    # Without a target of their own all runs arrive, and all count.
    target = target or min(float(run.curve.values.max()) for run in runs)
    metric = ("minus " if metrics.sign(metric) < 0 else "") + metric
    synthetic = any(run.synthetic for run in runs)
    # Random first: it has the first colour, and the others are compared with it.
    starts = sorted({r.start for r in runs}, key=lambda s: (s != RANDOM, s))
    by_start = {s: [r for r in runs if r.start == s] for s in starts}
    table = [row(run, target) for run in runs]
    plots.table(out / "convergence_runs.csv", table, synthetic)
    drawn, points = draw_curves(by_start, metric, target)
    plots.save(drawn, out, "convergence_curves", points, synthetic)
    plots.save(
        draw_onsets(by_start, metric), out, "convergence_overfit", table, synthetic
    )
    summaries: dict[str, Any] = {"target": target}
    for name, group in by_start.items():
        summaries[name] = arrival(group, target)
    if pairs := paired(by_start):
        ratios = [r for p in pairs.values() for r in p[1]]
        drawn = draw_speedups(pairs)
        plots.save(drawn, out, "convergence_speedup", ratios, synthetic)
        for name, (summary, _) in pairs.items():
            summaries[f"{name} against {RANDOM}"] = summary
    elif len(starts) > 1:
        print("  no two runs differ in their start alone: no speed-up")
    return summaries


def row(run: Learnt, target: float) -> dict[str, Any]:
    steps = learning_curves.steps_to(run.curve, target)
    best = int(run.curve.values.argmax())
    onset = learning_curves.overfit_onset(run.curve)
    return {
        "run": run.name,
        "net": run.net,
        "start": run.start,
        "target": target,
        "steps_to_target": words(steps),
        "images_to_target": words(steps * run.batch),
        "best": float(run.curve.values[best]),
        "best_step": int(run.curve.steps[best]),
        "last": float(run.curve.values[-1]),
        "overfit_onset": words(onset),
        "test": run.test,
    }


def words(number: float) -> int | str:
    return int(number) if math.isfinite(number) else "never"


def arrival(group: Sequence[Learnt], target: float) -> dict[str, Any]:
    """Over the runs of one start that reach the target; how many never do."""
    steps = np.array([learning_curves.steps_to(r.curve, target) for r in group])
    there = np.isfinite(steps)
    onsets = [learning_curves.overfit_onset(r.curve) for r in group]
    out: dict[str, Any] = {"runs": len(group), "never": int((~there).sum())}
    if there.any():
        batches = np.array([r.batch for r in group])[there]
        # Over ratios, as the speed-ups are: one late run does not outweigh the others.
        out["steps to the target"] = geometric(steps[there])
        out["images to the target"] = geometric(steps[there] * batches)
    out["runs that fall after their best"] = int(np.isfinite(onsets).sum())
    return out


def geometric(values: np.ndarray) -> float:
    return float(np.exp(np.log(values).mean()))


def paired(
    of: dict[str, list[Learnt]],
) -> dict[str, tuple[dict[str, Any], list[dict]]]:
    """{start: (summary, rows of its pairs)} against random starts; {} without pairs."""
    base = {run.twin: run for run in of.get(RANDOM, [])}
    out = {}
    for name, group in of.items():
        pairs = [(base[r.twin], r) for r in group if r.twin in base and name != RANDOM]
        if not pairs:
            continue
        a, b = zip(*pairs, strict=True)
        rows = [
            {
                "start": name,
                "net": after.net,
                "random": before.name,
                "run": after.name,
                # 0 stands for never: as a number it would be averaged.
                "speed_up": learning_curves.speed_up(before.curve, after.curve)
                or "never",
                "test_random": before.test,
                "test": after.test,
            }
            for before, after in pairs
        ]
        before, after = (np.array([r.test for r in side]) for side in (a, b))
        speed = learning_curves.speed_ups([r.curve for r in a], [r.curve for r in b])
        summary = {
            "pairs": len(pairs),
            "pairs that never get there": int(speed["never"]),
            "speed-up": speed,
            "gain on test": mean(after - before),
            "gain on test, relative": mean((after - before) / abs(before)),
        }
        out[name] = summary, rows
    return out


def mean(values: np.ndarray) -> dict[str, float]:
    low, high = intervals.t_interval(values)
    return {"value": float(values.mean()), "low": low, "high": high}


def bands(group: Sequence[Learnt]) -> list[dict[str, float]]:
    """Rows of images, mean, low, high, units: 95% (t) over nets, or runs of one net.

    Runs of one net are averaged first. At the numbers of images that all have.
    """
    nets = sorted({r.net for r in group})
    common = set.intersection(*(set(r.images.tolist()) for r in group))
    out = []
    for images in sorted(common):
        at = {
            r.name: float(r.curve.values[list(r.images).index(images)]) for r in group
        }
        # Runs of one net are alike: each as a unit would make the band too narrow.
        units = [np.mean([at[r.name] for r in group if r.net == n]) for n in nets]
        units = list(at.values()) if len(nets) == 1 else units
        low, high = intervals.t_interval(np.array(units))
        point = {"images": images, "mean": float(np.mean(units))}
        out.append({**point, "low": low, "high": high, "units": len(units)})
    return out


def draw_curves(
    of: dict[str, list[Learnt]], metric: str, target: float
) -> tuple[object, list[dict]]:
    """(figure, its rows): every run thin, the mean of each start thick in its band."""
    figure, axes = plots.figure(7.5, 4.8 + 0.2 * len(of))
    ax, rows = axes[0, 0], []
    for k, (name, group) in enumerate(of.items()):
        colour = plots.COLOURS[k % 7]
        for run in group:
            ax.plot(run.images, run.curve.values, color=colour, alpha=0.3, linewidth=1)
            about = {"start": name, "net": run.net, "run": run.name}
            for images, value in zip(run.images.tolist(), run.curve.values.tolist()):
                rows.append({**about, "images": images, metric: value})
        band = bands(group)
        x, y, low, high = (
            [p[c] for p in band] for c in ("images", "mean", "low", "high")
        )
        over = "nets" if len({r.net for r in group}) > 1 else "runs"
        shown = band and band[0]["units"] > 2  # of two the interval spans all there is
        label = f"{name} ({len(group)} runs, {'' if shown else 'no '}band over {over})"
        ax.plot(x, y, color=colour, linewidth=2.5, label=label)
        if shown:
            ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        rows += [{"start": name, "run": f"mean over {over}", **p} for p in band]
    ax.axhline(target, color="#999999", linestyle=":")
    ax.set(xlabel="images seen", ylabel=f"{metric}, validation")
    values = np.concatenate([r.curve.values for group in of.values() for r in group])
    # By the curves alone: a band of three nets can be wider than the whole axis.
    edge = 0.1 * np.ptp(values) + 1e-3
    ax.set_ylim(min(values.min(), target) - edge, values.max() + edge)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.suptitle(f"Learning curves; dotted: the target {target:.3f}; bands: 95%")
    return figure, rows


def draw_speedups(pairs: dict[str, tuple[dict, list[dict]]]) -> object:
    """A line for each start: its pairs, their geometric mean and its interval."""
    figure, axes = plots.figure(7.5, 1.8 + 0.8 * len(pairs))
    ax, labels = axes[0, 0], []
    for k, (name, (summary, rows)) in enumerate(pairs.items()):
        speed_up, colour = summary["speed-up"], plots.COLOURS[k % 7]
        ratios = [r["speed_up"] for r in rows if r["speed_up"] != "never"]
        ax.plot(ratios, [k - 0.15] * len(ratios), "o", color=colour, alpha=0.4)
        if ratios:
            ax.plot(
                [speed_up["low"], speed_up["high"]], [k, k], color=colour, linewidth=2
            )
            ax.plot(speed_up["value"], k, "D", color=colour)
        never = f"\n{speed_up['never']:.0f} of {len(rows)} never" * bool(
            speed_up["never"]
        )
        labels.append("\n".join(textwrap.wrap(name, 32)) + never)
    ax.axvline(1, color="#999999", linestyle=":")
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(-0.5, len(labels) - 0.5)
    # Twice as fast and half as fast are equally far from 1.
    ax.set_xscale("log")
    ticks = [n for n in TICKS if ax.get_xlim()[0] <= n <= ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{n:g}" for n in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("times fewer steps than random to its best")
    figure.suptitle("Speed-up: pairs (dots), geometric mean (diamond), 95% over pairs")
    return figure


def draw_onsets(of: dict[str, list[Learnt]], metric: str) -> object:
    """When each run is best, and how much it has lost by its last validation."""
    figure, axes = plots.figure(7, 4.5 + 0.2 * len(of))
    ax = axes[0, 0]
    for k, (name, group) in enumerate(of.items()):
        best = [int(r.curve.values.argmax()) for r in group]
        # As a share, since runs of one start may be of different lengths.
        x = [r.images[b] / r.images[-1] for r, b in zip(group, best, strict=True)]
        y = [r.curve.values[-1] - r.curve.values.max() for r in group]
        ax.plot(x, y, plots.MARKS[k % 7], color=plots.COLOURS[k % 7], label=name)
    ax.axhline(0, color="#999999", linestyle=":")
    ax.set(xlabel="when the run was best, share of its training", xlim=(-0.03, 1.03))
    ax.set_ylabel(f"{metric} lost by the end, validation")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.suptitle("Overfitting: below 0, validation fell after its best step")
    return figure
