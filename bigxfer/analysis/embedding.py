"""What features know: the class or the image's source; performance by source and view.

`analyze --what embedding` writes embedding.* and shift.csv. Features are such as the
pre_logits of a test split; the shift is of saved predictions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from bigxfer.analysis import features, plots
from bigxfer.data import shortcuts
from bigxfer.data import split as splits
from bigxfer.data.manifest import Manifest
from bigxfer.runs.finished import WithData
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import metrics

PERPLEXITY = 30.0  # scikit-learn's default


def pca(features: np.ndarray) -> np.ndarray:
    """[n, 2]: the first two principal components of features [n, f]."""
    # scikit-learn takes a random solver for large matrices.
    reducer: Any = PCA(2, random_state=0)
    return reducer.fit_transform(features)


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """[n, 2]: t-SNE from the principal components; distances between groups mean little.

    ValueError for fewer than 10 images; the perplexity is lowered where they are few.
    """
    if len(features) < 10:
        raise ValueError(f"{len(features)} images are too few for t-SNE")
    # scikit-learn asks for fewer neighbours than images.
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    reducer: Any = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):
        return reducer.fit_transform(np.asarray(features, np.float32))


def source_leak(features: np.ndarray, manifest: Manifest) -> shortcuts.Probe:
    """How well the source is told from features [n, f], cross-validated by patient.

    Features of a net that learnt the class alone may tell it too, where class and
    source go together: compare runs, and read it beside the audit's probes of pixels.
    ValueError where there is one source only.
    """
    sources = manifest.source.astype(str)
    names = np.unique(sources)
    if len(names) < 2:
        raise ValueError(
            f"all images of {manifest.name} are of one source: '{names[0]}'"
        )
    # One column a source, so that several sources are told as several findings are.
    labels = (sources[:, None] == names).astype(float)
    return shortcuts.probe(
        "features", "source", features, labels, names.tolist(), manifest
    )


def shift(
    predicted: Predictions, by: Sequence[str] = ("sources", "views")
) -> list[dict]:
    """Performance by source and by view: rows of by, value, images, metric, ...

    auroc_macro, auprc_macro and balanced_accuracy with 95% intervals over patients; a
    metric that a part has no images for has no value but a reason.
    """
    out = []
    for column in by:
        values = getattr(predicted, column).astype(str)
        for value in np.unique(values):
            here = values == value
            args = predicted.labels[here], predicted.logits[here], predicted.classes
            scores = metrics.compute(*args, predicted.patients[here])["metrics"]
            about = {"by": column, "part": value, "images": int(here.sum())}
            for name in ("auroc_macro", "auprc_macro", "balanced_accuracy"):
                out.append({**about, "metric": name, **scores[name]})
    return out


LAYER = "pre_logits"


def write(run: WithData, split: str, most: int, out: Path) -> dict[str, Any]:
    """Write embedding.* and shift.csv; return the source probe and the shift."""
    rows = features.sample(run, split, most)
    extract = features.extractor(run, only=(LAYER,))
    values = extract(run.variables, rows)[LAYER]
    manifest = run.data.manifest.select(rows)
    synthetic = manifest.synthetic
    classes = np.array(
        [named(shown, manifest.classes) for shown in splits.positives(manifest)]
    )
    sources = manifest.source.astype(str)
    figure, axes = plots.figure(10, 9, 2, 2)
    table = [
        {"id": i, "class": c, "source": s}
        for i, c, s in zip(manifest.id, classes, sources, strict=True)
    ]
    places = {"PCA": pca(values), "t-SNE": tsne(values)}
    for pair, (name, xy) in zip(axes, places.items(), strict=True):
        for ax, (what, groups) in zip(
            pair, (("class", classes), ("source", sources)), strict=True
        ):
            plots.scatter(ax, xy[:, 0], xy[:, 1], groups.tolist())
            # No ticks: distances on these axes have no unit.
            ax.set(title=f"{name} by {what}", xticks=[], yticks=[])
        for row, (x, y) in zip(table, xy.tolist(), strict=True):
            row |= {f"{name} x": x, f"{name} y": y}
    figure.suptitle(f"{LAYER} of {run.folder.name}, {manifest.name} {split}")
    plots.save(figure, out, "embedding", table, synthetic)

    summaries: dict[str, Any] = {}
    if len(np.unique(sources)) > 1:
        summaries["source from features"] = source_leak(values, manifest).auroc
    # Of the whole test split, not of the images that were sampled for the plot.
    shifted = shift(run.predictions())
    plots.table(out / "shift.csv", shifted, synthetic)
    for row in shifted:
        if row["metric"] == "auroc_macro" and row["value"] is not None:
            name = f"{row['by']} {row['part'] or '(unknown)'}, auroc_macro"
            summaries[name] = {k: row[k] for k in ("value", "low", "high")}
    return summaries


def named(shown: np.ndarray, classes: tuple[str, ...]) -> str:
    """The class of an image; of several findings "several", of none "none"."""
    if shown.sum() > 1:
        return "several"
    return classes[int(shown.argmax())] if shown.any() else "none"
