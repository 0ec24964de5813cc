"""What `analyze --what overlap` writes."""

from pathlib import Path
from typing import Any

import numpy as np

from bigxfer.analysis import features, overlap, plots
from bigxfer.runs.finished import WithData
from bigxfer.statistics import calibration

LAYER = "pre_logits"
SUMMARY = 6  # pairs of classes that the summary names
TITLES = {
    "labels": "labels: phi over images",
    "mistaken": "mean probability of the\ncolumn on images of the row",
    "agreement": "correlation of logits over\nimages of neither class",
    "features": "AUROC of the row's probe\nfor the column",
}


def report(run: WithData, split: str, most: int, out: Path) -> dict[str, Any]:
    """Writes overlap.*: four matrices of classes, each with 95% over patients.

    Labels are those of the whole set; of a set with one class an image a patient's
    images are taken together. Probes are fitted to training images.
    """
    manifest, names = run.data.manifest, run.data.manifest.classes
    every = overlap.truths(manifest.labels, len(names))
    owners = manifest.patient.astype(str)
    titles = dict(TITLES)
    if not manifest.multilabel:
        every, owners = overlap.by_patient(every, owners), np.unique(owners)
        titles["labels"] = "labels: phi over patients"
    rows = features.sample(run, split, most)
    fitted = features.sample(run, "train", most)
    extract = features.extractor(run, only=(LAYER,))
    part, logits = manifest.select(rows), features.predictor(run)(run.variables, rows)
    truth = overlap.truths(part.labels, len(names))
    p = calibration.probabilities(part.labels, logits)
    known = overlap.truths(manifest.select(fitted).labels, len(names))
    ends, others = (extract(run.variables, r)[LAYER] for r in (fitted, rows))
    patients = part.patient.astype(str)
    found = {
        "labels": overlap.measured(overlap.co_occurrence(every), owners),
        "mistaken": overlap.measured(overlap.mistaken(truth, p), patients),
        "agreement": overlap.measured(overlap.agreement(logits, truth), patients),
        "features": overlap.measured(
            overlap.shared(ends, known, others, truth), patients
        ),
    }
    table = [
        {"measure": measure, "row": a, "column": b}
        | dict(zip(("value", "low", "high"), values[:, i, j].tolist(), strict=True))
        for measure, values in found.items()
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    drawn = draw(found, titles, names, f"{run.folder.name}, {manifest.name} {split}")
    plots.save(drawn, out, "overlap", table, manifest.synthetic)
    return summary(found, names)


def draw(
    found: dict[str, np.ndarray], titles: dict, names: tuple[str, ...], about: str
) -> object:
    k = len(names)
    side = max(3.6, 1.5 + 0.42 * k)
    made, axes = plots.figure(2 * side + 1, 2 * side, 2, 2)
    for ax, (measure, values) in zip(axes.flat, found.items(), strict=True):
        low = -1 if measure in ("labels", "agreement") else 0
        plots.matrix(ax, values[0], names, names, low)
        ax.invert_yaxis()  # rows read down, as in a table
        ax.set_title(titles[measure], fontsize=9)
    made.suptitle(f"What classes have in common: {about}")
    return made


def summary(
    found: dict[str, np.ndarray], names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """The pairs whose probes tell each other best, in either direction."""
    values = np.nan_to_num(found["features"][0])
    np.fill_diagonal(values, -1)
    order = np.dstack(np.unravel_index(np.argsort(-values, axis=None), values.shape))[0]
    out: dict[str, dict[str, Any]] = {}
    for i, j in order[: min(SUMMARY, len(names) ** 2 - len(names))].tolist():
        pair = {}
        for measure, matrix in found.items():
            if np.isfinite(matrix[0, i, j]):
                keys = ("value", "low", "high")
                pair[measure] = dict(zip(keys, matrix[:, i, j].tolist(), strict=True))
        out[f"{names[i]} and {names[j]},"] = pair
    return out
