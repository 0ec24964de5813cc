"""What saved predictions say by source: metrics within each, and what a source gives away.

`test` and `valid` hold the fields of runs.predictions.Predictions by name: ids,
patients, sources, views, labels (int [n], or 0, 1 and NaN [n, classes]), logits
[n, classes], classes.
"""

from typing import Any

import numpy as np

from bigxfer.statistics import auroc, metrics
from bigxfer.tree import Tree


def within(test: Tree, most: int) -> dict[str, dict[str, Any]]:
    """{source: metrics.compute of its images}, of the `most` largest sources."""
    names, counts = np.unique(test["sources"], return_counts=True)
    out = {}
    for name in names[np.argsort(-counts, kind="stable")][:most].tolist():
        rows = test["sources"] == name
        labels, logits, patients = (
            test[k][rows] for k in ("labels", "logits", "patients")
        )
        classes = list(map(str, test["classes"]))
        out[name] = metrics.compute(labels, logits, classes, patients)
    return out


def one_class(test: Tree) -> list[tuple[str, str, int]]:
    """(source, class, images) where all test images of a source have the one class."""
    if test["labels"].ndim == 2:
        return []
    out = []
    for name in filter(None, np.unique(test["sources"]).tolist()):
        of_source = test["labels"][test["sources"] == name]
        labels = np.unique(of_source)
        if len(labels) == 1:
            out.append((name, str(test["classes"][labels[0]]), len(of_source)))
    return out


def guessed(column: str, test: Tree, valid: Tree) -> dict[str, Any]:
    """The macro AUROC on test of knowing the source (or view) of an image alone.

    column: "sources" or "views". An image's scores are the shares of the classes in its
    source on validation, with one image of the mean over all sources added to each.
    """
    classes = list(map(str, test["classes"]))
    known = auroc.one_hot(valid["labels"], len(classes))
    total, number = np.nansum(known, axis=0), np.sum(~np.isnan(known), axis=0)
    # Half a count: a class that validation lacks has a share above 0, and a logarithm.
    mean = (total + 0.5) / (number + 1)
    share = np.empty(test["logits"].shape)
    for name in np.unique(test[column]):
        # A source that validation lacks gets the mean: it gives nothing away.
        there = known[valid[column] == name]
        positive = np.nansum(there, axis=0) + mean
        share[test[column] == name] = positive / (np.sum(~np.isnan(there), axis=0) + 1)
    logits = np.log(share)
    if test["labels"].ndim == 2:
        logits -= np.log1p(-share)
    args = test["labels"], logits, classes, test["patients"]
    return metrics.compute(*args)["metrics"]["auroc_macro"]
