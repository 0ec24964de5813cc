"""What features know: the class, or where the image comes from; and who pays for it.

Of features, such as the pre_logits of a test split, and of saved predictions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from bigxfer.data import shortcuts
from bigxfer.data.manifest import Manifest
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import metrics

PERPLEXITY = 30.0  # scikit-learn's default
RESAMPLES = 500


def pca(features: np.ndarray) -> np.ndarray:
    """[n, 2]: the first two principal components of features [n, f]."""
    made: Any = PCA(2, random_state=0)
    return made.fit_transform(features)


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """[n, 2]: t-SNE from the principal components; distances between groups mean little.

    ValueError for fewer than 10 images; the perplexity is lowered where they are few.
    """
    if len(features) < 10:
        raise ValueError(f"{len(features)} images are too few for t-SNE")
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    made: Any = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):
        return made.fit_transform(np.asarray(features, np.float32))


def source_leak(features: np.ndarray, part: Manifest) -> shortcuts.Probe:
    """How well the source is told from features [n, f], cross-validated by patient.

    Features of a net that learnt the class alone may tell it too, where class and
    source go together: compare runs, and read it beside the audit's probes of pixels.
    ValueError where there is one source only.
    """
    sources = part.source.astype(str)
    names = np.unique(sources)
    if len(names) < 2:
        raise ValueError(f"all images of {part.name} are of one source: '{names[0]}'")
    labels = (sources[:, None] == names).astype(float)
    return shortcuts.probe("features", "source", features, labels, names.tolist(), part)


def shift(found: Predictions, by: Sequence[str] = ("sources", "views")) -> list[dict]:
    """Performance by source and by view: rows of by, value, images, metric, ...

    auroc_macro, auprc_macro and balanced_accuracy with 95% intervals over patients; a
    metric that a part has no images for has no value but a reason.
    """
    out = []
    for column in by:
        values = getattr(found, column).astype(str)
        for value in np.unique(values):
            here = values == value
            args = found.labels[here], found.logits[here], found.classes
            scores = metrics.compute(*args, found.patients[here], RESAMPLES)["metrics"]
            about = {"by": column, "part": value, "images": int(here.sum())}
            for name in ("auroc_macro", "auprc_macro", "balanced_accuracy"):
                out.append({**about, "metric": name, **scores[name]})
    return out
