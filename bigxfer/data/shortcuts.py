"""Shortcuts: what gives the class away without the picture.

A probe is a logistic regression that sees the rim of the image, the size of its file,
its view or its source, and nothing else. An AUROC far above 0.5 says that a model may
score as well without looking at the lungs (DeGrave et al. 2021, 2101.11277).
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bigxfer.data import registration, split
from bigxfer.data.loader import Images
from bigxfer.data.manifest import Manifest
from bigxfer.data.pixels import decode
from bigxfer.statistics import auroc, influence, limits
from bigxfer.statistics.influence import Patients

FOLDS = 5  # of the cross-validation, by patient
SIDE, RIM = 32, 4  # pixels: the image is shrunk to 32 x 32, its outer 4 are the rim
C = 0.01  # inverse strength of the penalty, on standardised features
MOST = 5000  # images looked at; of a larger set these are drawn by patient


@dataclass(frozen=True)
class Probe:
    """What one kind of evidence says about one target."""

    name: str  # rim, size, view, source, or pixels
    target: str  # "class", or "source"
    images: int
    auroc: dict[str, dict]  # {class or "macro": {"value", "low", "high"}}
    held_out: float | None  # macro, trained on the train split, judged on test


def probe_all(manifest: Manifest, images: Images, rows: np.ndarray) -> list[Probe]:
    """All probes that the manifest allows, of these rows of it and of the images."""
    rows = sampled(manifest, rows)
    looked_at = manifest.select(rows)
    small = registration.thumbnails(images, rows, SIDE)
    inside = slice(RIM, SIDE - RIM)
    rim = np.ones((SIDE, SIDE), bool)
    rim[inside, inside] = False
    pixels = small.reshape(len(rows), -1)
    evidence = {"rim": small[:, rim], "size": size_features(sizes(looked_at))}
    for name in ("view", "source"):
        column = getattr(looked_at, name).astype(str)
        if len(names := np.unique(column)) > 1:
            evidence[name] = (column[:, None] == names).astype(float)
    classes, labels = list(looked_at.classes), looked_at.labels
    if not looked_at.multilabel:
        labels = split.positives(looked_at).astype(float)
    probes = [
        probe(name, "class", features, labels, classes, looked_at)
        for name, features in evidence.items()
    ]
    if "source" in evidence:
        names = np.unique(looked_at.source.astype(str)).tolist()
        args = (evidence["source"], names, looked_at)
        probes.append(probe("rim", "source", evidence["rim"], *args))
        probes.append(probe("pixels", "source", pixels, *args))
    return [p for p in probes if p.auroc]


def sampled(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """At most about MOST of the rows, whole patients by hash."""
    if len(rows) <= MOST:
        return rows
    folds = split.folds(manifest.select(rows), -(-len(rows) // MOST), seed=0)
    return rows[folds == 0]


def probe(
    name: str,
    target: str,
    features: np.ndarray,  # [n, f]
    labels: np.ndarray,  # [n, k] of 0, 1, NaN
    classes: list[str],
    manifest: Manifest,
) -> Probe:
    """Cross-validated by patient; classes with too few patients are left out."""
    fold = split.folds(manifest, FOLDS, seed=0)
    scores = np.full(labels.shape, np.nan)
    for k in range(FOLDS):
        here = fold == k
        scores[here] = fit(features[~here], labels[~here], features[here])
    values = aurocs(labels, scores, manifest.patient, classes)
    held_out, test = None, manifest.split == "test"
    train = manifest.split == "train"
    if train.any() and test.any():
        judged = fit(features[train], labels[train], features[test])
        once = aurocs(labels[test], judged, manifest.patient[test], classes)
        held_out = once["macro"]["value"] if once else None
    return Probe(name, target, len(labels), values, held_out)


def fit(features: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[m, k]: scores of the others; NaN for a class with one side only.

    One softmax where each row has exactly one class, else one model a class. Scores
    are probabilities less the model's mean on its own rows: a fold that leaves out more
    positives predicts fewer, which put evidence of nothing at 0.45 when folds are pooled.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))
    out = np.full((len(others), labels.shape[1]), np.nan)
    single = np.isfinite(labels).all() and (labels.sum(axis=1) == 1).all()
    targets = [labels.argmax(axis=1)] if single else list(labels.T)
    for k, target in enumerate(targets):
        known = np.isfinite(target)
        if len(np.unique(target[known])) < 2:
            continue
        with threadpool_limits(1):  # these are too small to share
            fitted = model.fit(features[known], target[known])
        mean = fitted.predict_proba(features[known]).mean(axis=0)
        chances = (fitted.predict_proba(others) - mean).round(9)  # else 1e-17 ranks
        if single:
            out[:, fitted.classes_] = chances
        else:
            out[:, k] = chances[:, 1]
    return out


def aurocs(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray, classes: list[str]
) -> dict[str, dict]:
    """{class or "macro": value and 95% interval over patients}; {} if none has one.

    The limits are limits.auroc's, None below five patients of either side. The fits are
    taken as given: other folds would give other scores.
    """
    scores_of, people = {}, Patients.of(patients)
    one = np.ones((1, len(labels)))
    for k, name in enumerate(classes):
        truth = np.where(np.isfinite(scores[:, k]), labels[:, k], np.nan)
        order = auroc.rank(truth, scores[:, k])
        if not (len(order.positive) and len(order.negative)):
            continue
        value = float(order.areas(one)[0][0])
        effect = influence.of_auroc(truth, scores[:, k])
        scores_of[name] = limits.auroc(value, effect, truth, people)
    if scores_of:
        scores_of["macro"] = limits.average(list(scores_of.values()))
    return {name: score.entry() for name, score in scores_of.items()}


def sizes(manifest: Manifest) -> np.ndarray:
    """float [n, 2]: width and height of each image before anybody resized it.

    From the columns orig_w and orig_h of the root's metadata.csv where it has them,
    else from the files' headers.
    """
    table = Path(manifest.root) / "metadata.csv"
    known = {}
    if table.is_file():
        with open(table, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                if row.get("orig_w") and row.get("orig_h"):
                    name = row.get("file") or row.get("path") or ""
                    known[name] = (float(row["orig_w"]), float(row["orig_h"]))
    return np.array(
        [
            known.get(path) or decode.side_lengths(manifest.root, path)
            for path in manifest.path
        ],
        float,
    )


def size_features(wide_high: np.ndarray) -> np.ndarray:
    """float [n, f]: deciles of width, height and their ratio; the common sizes.

    One-hot, since what gives a source away is that its size is exactly 1024 x 1024.
    """
    width, height = wide_high.T
    out = []
    for values in (width, height, width / np.maximum(height, 1)):
        edges = np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9)))
        out.append(np.searchsorted(edges, values)[:, None] == np.arange(len(edges) + 1))
    _, which, count = np.unique(
        wide_high, axis=0, return_inverse=True, return_counts=True
    )
    out.append(which[:, None] == np.flatnonzero(count >= 10))
    return np.concatenate(out, axis=1).astype(float)
