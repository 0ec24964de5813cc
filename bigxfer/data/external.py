"""Further labelled sets that a run is judged on (data.external); it never trains on them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bigxfer.config import ConfigError, Data
from bigxfer.data import dataset, identity, labels, readers, unions
from bigxfer.data.dataset import Dataset
from bigxfer.data.manifest import Manifest
from bigxfer.statistics import auroc


def members(data: Data) -> dict[str, Data]:
    """{name: settings} of each set of data.external; {} without one.

    The name is the reader and the version: "csv-siteB". Settings are the run's own but for
    reader, root and version. Raises ConfigError where the parts do not fit each other.
    """
    if not data.external:
        return {}
    whole = replace(
        data,
        reader=data.external,
        root=data.external_root,
        version=data.external_version,
        # Nothing is drawn here; what the reader calls "test" is taken.
        split="official",
        labels=(),
        external="",
    )
    try:
        parts = unions.members(whole)
    except ConfigError as error:
        raise ConfigError(f"of config.data.external: {error}") from None
    names = ["-".join(filter(None, (p.reader, p.version))) for p in parts]
    # They become names of files: "oct/Disease".
    names = [name.replace("/", "-") for name in names]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"config.data.external: two sets are called {max(names, key=names.count)!r};"
            " tell them apart by config.data.external_version (csv, folder and dicom take"
            " any)"
        )
    return dict(zip(names, parts, strict=True))


def open(
    data: Data,
    seed: int,
    say: Callable[[str], None],
    kept: dict[str, dataset.Opened] | None = None,
) -> Dataset:
    """What dataset.open gives, with the sets of data.external in its `external`.

    Of these, rows["test"] are the images that the reader gives as "test", or all where it
    gives none. Raises ValueError also where a set shares no class with the run's.
    """
    # First: what is wrong in the config is told before the data are read.
    parts = members(data)
    own = dataset.open(data, seed, say, kept)
    others = {name: read(part, own, name, say) for name, part in parts.items()}
    if not others:
        return own
    reports = {name: other.report for name, other in others.items()}
    return replace(
        own,
        external=others,
        report={**own.report, "external": reports},
        identity={
            **own.identity,
            **identity.of_external([other.identity for other in others.values()]),
        },
    )


def read(data: Data, own: Dataset, name: str, say: Callable[[str], None]) -> Dataset:
    """One set, its labels written for the run's classes, its pixels from its own cache."""
    rooted = replace(data, root=data.root or dataset.standin(data))
    manifest = readers.read(rooted)
    for line in manifest.remarks():
        say(line)
    # The whole set, so that runs with other classes share the cache.
    cache = dataset.decoded(manifest, data, say)
    told = labelled(manifest, own.manifest, data.external_classes, name)
    where = (told.split == "test") if "test" in told.split else np.ones(len(told), bool)
    # A set may have classes that the run lacks: an image of these alone judges nothing.
    known = cache.ok & where
    if told.multilabel:
        known &= ~np.isnan(told.labels).all(axis=1)
    else:
        known &= told.labels >= 0
    rows = np.flatnonzero(known)
    if not len(rows):
        raise ValueError(f"config.data.external: {name} has no image to judge on")
    # Of the training rows alone: patients of the own test split are what pairs the gap.
    trained = own.manifest.patient[own.rows["train"]]
    known_here = told.known_patients()[rows]
    leaked = np.isin(told.patient[rows], trained) & known_here
    report: dict[str, Any] = {
        "images": len(rows),
        "of": "its test split" if "test" in told.split else "all its images",
        "classes": sorted(set(map(str, manifest.classes))),
        "patients_in_training": len(set(told.patient[rows][leaked])),
        "left_out": int((~known).sum()),
    }
    if report["patients_in_training"]:
        say(f"LEAK: {report['patients_in_training']} patients of {name} are trained on")
    about = identity.of_sets([manifest], cache.images, data.storage)
    return Dataset(told, cache.images, {"test": rows}, report, identity=about)


def labelled(
    found: Manifest, own: Manifest, renamed: tuple[str, ...], name: str
) -> Manifest:
    """The set under the classes of `own`, by their names or by "theirs=ours".

    What the set does not label is NaN or, of single-label sets, -1. Raises ValueError for
    a name that neither has, and where nothing is shared.
    """
    ours = dict(pair.split("=", 1) for pair in renamed)
    if unknown := [c for c in ours.values() if c not in own.classes]:
        raise ValueError(
            f"config.data.external_classes: {unknown[0]!r} is none of {own.classes}"
        )
    if found.multilabel and not own.multilabel:
        raise ValueError(
            f"config.data.external: {name} has several labels an image, the run's set one"
        )
    classes = tuple(ours.get(c, c) for c in found.classes)
    wanted = tuple(map(labels.canonical, own.classes))
    shared = set(map(labels.canonical, classes)) & set(wanted)
    if not shared:
        raise ValueError(
            f"config.data.external: {name} has the classes {found.classes}, the run"
            f" {own.classes}: none is shared; name pairs by"
            " --config.data.external_classes=theirs=ours,..."
        )
    told = replace(found, classes=classes)
    # One label an image also says that its other classes are absent: 0, not NaN.
    if own.multilabel and not found.multilabel:
        truth = auroc.one_hot(found.labels, len(classes)).astype(np.float32)
        told = replace(told, labels=truth)
    return replace(
        told, classes=own.classes, labels=labels.under(told, wanted, own.multilabel)
    )
