"""How fast a run learns, from the validations in its metrics.jsonl.

Runs need --config.eval.every; the resolution of every number here is that interval.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigxfer.statistics import intervals, metrics

METRIC = "auroc_macro"


@dataclass(frozen=True)
class LearningCurve:
    steps: np.ndarray  # int [v], rising
    values: np.ndarray  # float [v] of a validation metric, higher is better


def read(file: Path, metric: str = METRIC) -> LearningCurve:
    """The validations in a metrics.jsonl; ValueError where there are fewer than two.

    The values are the metric's negative where less of it is better.
    """
    by_step: dict[int, float] = {}
    for line in file.read_text().splitlines() if file.is_file() else ():
        row = json.loads(line)
        # null stands for a metric that could not be computed at that step.
        if row.get(f"valid/{metric}") is not None:
            by_step[row["step"]] = row[f"valid/{metric}"]
    if len(by_step) < 2:
        raise ValueError(
            f"{file}: {len(by_step)} validations of {metric}; a curve needs runs with"
            " --config.eval.every=STEPS"
        )
    steps = sorted(by_step)
    values = np.array([by_step[s] for s in steps])
    return LearningCurve(np.array(steps), metrics.sign(metric) * values)


def steps_to(curve: LearningCurve, target: float) -> float:
    """The first validated step at or above the target; infinity if there is none.

    Transfusion (1902.07208) counts so, on RETINA to an AUROC of 0.91. Times the batch it
    is the number of images.
    """
    there = np.flatnonzero(curve.values >= target)
    return float(curve.steps[there[0]]) if len(there) else math.inf


def speed_up(random: LearningCurve, pretrained: LearningCurve) -> float:
    """Steps to the random start's best value, over those of the pretrained start.

    Our reading of Kierzynka's talk, which does not define it. 0 where the pretrained
    net never gets there.
    """
    best = float(random.values.max())
    return steps_to(random, best) / steps_to(pretrained, best)


def speed_ups(
    random: Sequence[LearningCurve],
    pretrained: Sequence[LearningCurve],
) -> dict[str, float]:
    """The geometric mean of the speed-ups of pairs of one seed, 95% over pairs, and `never`.

    The interval is Student's, of the logarithms; NaN of one pair.
    Pairs that never get there are counted and left out: their speed-up has no number.
    """
    ratios = np.array([speed_up(*two) for two in zip(random, pretrained, strict=True)])
    # Ratios: twice as fast and half as fast should cancel.
    logs = np.log(ratios[ratios > 0])
    never = float((ratios == 0).sum())
    if not len(logs):
        return {"value": 0.0, "low": math.nan, "high": math.nan, "never": never}
    low, high = np.exp(intervals.t_interval(logs))
    value = float(np.exp(logs.mean()))
    return {"value": value, "low": float(low), "high": float(high), "never": never}


def overfit_onset(curve: LearningCurve) -> float:
    """The step of the best value, if a later one lies below it; else infinity."""
    best = int(curve.values.argmax())
    falls = best < len(curve.values) - 1 and curve.values[-1] < curve.values[best]
    return float(curve.steps[best]) if falls else math.inf
