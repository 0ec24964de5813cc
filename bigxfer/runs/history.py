"""The curves in a run's metrics.jsonl."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

MOST = 30  # points of a curve; of more steps those of a bin are averaged

History = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> steps, values


def read(folder: Path, names: Collection[str]) -> History:
    """The curves of those names that the file has; {} where it cannot be read."""
    values: dict[str, dict[int, float]] = {}
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        for record in map(json.loads, lines):
            for name in names:
                if record.get(name) is not None:
                    # By step: of a step that was logged twice the later line counts.
                    values.setdefault(name, {})[record["step"]] = record[name]
    # A curve is no result: a card or page goes on without it.
    except (OSError, ValueError, KeyError, AttributeError):
        return {}
    return {
        name: (np.array(list(by_step)), np.array(list(by_step.values())))
        for name, by_step in values.items()
    }


def thinned(runs: Sequence[History], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps [b], values [runs, b]) of at most MOST bins that all runs share.

    A bin's value is the mean of a run's steps in it, NaN where it has none.
    """
    # Bins of all runs' steps together, so that their curves can be averaged bin by bin.
    steps = np.unique(np.concatenate([run[name][0] for run in runs]))
    last = steps  # of each bin
    if len(steps) > MOST:
        last = np.linspace(steps[0] - 1, steps[-1], MOST + 1)[1:]
        # Bins end at steps that were logged, so that none is empty in all runs.
        last = steps[np.unique(np.searchsorted(steps, last, side="right") - 1)]
    bins = np.split(steps, np.searchsorted(steps, last[:-1], side="right"))
    values = np.full((len(runs), len(bins)), np.nan)
    for i, run in enumerate(runs):
        x, y = run[name]
        inside = np.searchsorted(last, x)
        count = np.bincount(inside, minlength=len(bins))
        total = np.bincount(inside, y, len(bins))
        values[i, count > 0] = total[count > 0] / count[count > 0]
    return np.array([b.mean() for b in bins]), values
