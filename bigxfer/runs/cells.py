"""All draws of a cell in one folder: one upstream, one kind of head, one number of shots.

CELL/draws/DIGEST is the folder of each draw, as it would be if the draw were run alone:
it has the same digest and files, the same numbers up to rounding, and is a row of the table. CELL/result.json
says which draws there are and gives their point metrics.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bigxfer import config
from bigxfer.config import Run
from bigxfer.data import dataset
from bigxfer.data.dataset import Dataset
from bigxfer.protocols import features
from bigxfer.runs import folders, resume

DRAWS = "draws"


def draws(cell: Run) -> Iterator[Run]:
    """The run of each draw: of one seed, from the cell's on."""
    for seed in range(cell.seed, cell.seed + cell.data.draws):
        one = replace(cell, seed=seed, data=replace(cell.data, draws=1))
        # Each draw has its own support file, and the digest names it.
        features.name_files(one)
        yield one


def tell(cell: Run, folder: Path, one: Callable[[Run, Path], dict]) -> dict:
    """Do every draw by `one` (run, folder), then write the cell's own two files."""
    digest = config.digest(cell)
    # For its errors only: each draw decides by itself whether it is done.
    resume.begun(folder, digest)
    results: list[dict[str, Any]] = []
    for run in draws(cell):
        draw_folder = folder / DRAWS / config.digest(run)
        draw_folder.mkdir(parents=True, exist_ok=True)
        result = one(run, draw_folder)
        results.append({"seed": run.seed, **result})
    names = results[0]["metrics"]
    values = {
        name: [r["metrics"][name]["value"] for r in results if name in r["metrics"]]
        for name in names
    }
    result = {
        "metrics": {name: mean(each) for name, each in values.items()},
        "draws": [
            {k: r[k] for k in ("seed", "digest", "head", "tuned")} for r in results
        ],
        "labels_used": results[0]["labels_used"],
        "cost": {k: sum(r["cost"][k] for r in results) for k in results[0]["cost"]},
        "synthetic": results[0]["synthetic"],
        "digest": digest,
        # Draws that were done before a kill may be of an earlier commit.
        "commit": results[-1]["commit"],
        "finished": folders.now(),
    }
    if jax.process_index() == 0:
        # The first draw's config.json tells what all share: data, versions, device.
        first = folder / DRAWS / results[0]["digest"]
        about = {**folders.read(first / "config.json"), "digest": digest}
        about["config"] = config.to_dict(cell)
        folders.begin(folder, about)
        result["files"] = folders.sums(folder)
        folders.write(folder / "result.json", result)
    return result


def mean(values: list[float | None]) -> dict:
    """The mean over the draws, without an interval: the table has those."""
    known = [value for value in values if value is not None]
    why = "the mean of the draws; the table of the study has its interval"
    if len(known) < len(values):
        return {"value": None, "low": None, "high": None, "reason": "not of every draw"}
    return {"value": float(np.mean(known)), "low": None, "high": None, "reason": why}


def pool(
    cell: Run, data: Dataset, kept: dict[str, dataset.Opened] | None
) -> np.ndarray:
    """The rows that any draw of the cell trains on, sorted."""
    if cell.data.draws == 1:
        return data.rows["train"]
    drawn = [
        # Cheap: the set is among `kept`, and only the shots are drawn again.
        dataset.open(run.data, run.seed, lambda _: None, kept).rows["train"]
        for run in draws(cell)
    ]
    return np.unique(np.concatenate(drawn))
