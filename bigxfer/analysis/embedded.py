"""What `analyze --what embedding` writes: features by class and by source, the shift."""

from pathlib import Path
from typing import Any

import numpy as np

from bigxfer.analysis import embedding, features, plots
from bigxfer.data import split as splits
from bigxfer.runs.finished import WithData

LAYER = "pre_logits"


def report(run: WithData, split: str, most: int, out: Path) -> dict[str, Any]:
    """Writes embedding.* and shift.csv; returns the source probe and the shift."""
    rows = features.sample(run, split, most)
    extract = features.extractor(run, only=(LAYER,))
    values = extract(run.variables, rows)[LAYER]
    part = run.data.manifest.select(rows)
    synthetic = part.synthetic
    classes = np.array([named(shown, part.classes) for shown in splits.positives(part)])
    sources = part.source.astype(str)
    made, axes = plots.figure(10, 9, 2, 2)
    table = [
        {"id": i, "class": c, "source": s}
        for i, c, s in zip(part.id, classes, sources, strict=True)
    ]
    places = {"PCA": embedding.pca(values), "t-SNE": embedding.tsne(values)}
    for pair, (name, xy) in zip(axes, places.items(), strict=True):
        for ax, (what, groups) in zip(
            pair, (("class", classes), ("source", sources)), strict=True
        ):
            plots.scatter(ax, xy[:, 0], xy[:, 1], groups.tolist())
            ax.set(title=f"{name} by {what}", xticks=[], yticks=[])
        for row, (x, y) in zip(table, xy.tolist(), strict=True):
            row |= {f"{name} x": x, f"{name} y": y}
    made.suptitle(f"{LAYER} of {run.folder.name}, {part.name} {split}")
    plots.save(made, out, "embedding", table, synthetic)

    found: dict[str, Any] = {}
    if len(np.unique(sources)) > 1:
        found["source from features"] = embedding.source_leak(values, part).auroc
    shift = embedding.shift(run.predictions())
    plots.table(out / "shift.csv", shift, synthetic)
    for row in shift:
        if row["metric"] == "auroc_macro" and row["value"] is not None:
            name = f"{row['by']} {row['part'] or '(unknown)'}, auroc_macro"
            found[name] = {k: row[k] for k in ("value", "low", "high")}
    return found


def named(shown: np.ndarray, classes: tuple[str, ...]) -> str:
    """The class of an image; of several findings "several", of none "none"."""
    if shown.sum() > 1:
        return "several"
    return classes[int(shown.argmax())] if shown.any() else "none"
