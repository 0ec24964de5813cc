"""Human Protein Atlas, Kaggle 2018: 28 places in the cell, four stains an image."""

from pathlib import Path

import numpy as np

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import Columns, DataError, Table, build, find, read_csv

PLACES = (  # in the order of the competition's numbers, 0 to 27
    *("Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center"),
    *("Nuclear speckles", "Nuclear bodies", "Endoplasmic reticulum"),
    *("Golgi apparatus", "Peroxisomes", "Endosomes", "Lysosomes"),
    *("Intermediate filaments", "Actin filaments", "Focal adhesion sites"),
    *("Microtubules", "Microtubule ends", "Cytokinetic bridge", "Mitotic spindle"),
    *("Microtubule organizing center", "Centrosome", "Lipid droplets"),
    *("Plasma membrane", "Cell junctions", "Mitochondria", "Aggresome", "Cytosol"),
    *("Cytoplasmic bodies", "Rods & rings"),
)


def read(root: str | Path, data: Data) -> Manifest:
    """Labels float32 [n, 28]; with data.version "single", int32 of the rows with one.

    A path names three files at once, ID_{red,green,blue}.png: the planes of an RGB
    image (microtubules, protein, nucleus); yellow (ER) is left out. Raises DataError.
    """
    if data.version not in ("", "single"):
        raise DataError(f"config.data.version is {data.version!r}; 'single' or ''")
    root = Path(root)
    table = read_csv(find(root, "train.csv"), ("Id", "Target"))
    table.check_unique("Id")
    table.groups("Id", r"[0-9a-f-]{36}", "a UUID")
    labels, classes = targets(table), PLACES
    kept = np.ones(len(table), bool)
    if data.version == "single":
        kept = labels.sum(axis=1) == 1
        # A class without an image could be neither drawn nor judged.
        present = np.flatnonzero(labels[kept].any(axis=0))
        classes = tuple(PLACES[i] for i in present)
        labels = labels[kept][:, present].argmax(axis=1) if kept.any() else labels[:0]
    names = [name for name, keep in zip(table["Id"], kept) if keep]
    return build(
        name="proteins",
        root=root,
        classes=classes,
        labels=labels,
        columns=Columns(
            id=names,
            # Yellow is left out: the nets take three planes.
            path=[f"train/{name}_{{red,green,blue}}.png" for name in names],
            patient=[f"proteins-{name}" for name in names],
        ),
        notes={"patients": NOBODY, "split": "none is official"},
        dropped={"images with several places": int((~kept).sum())},
    )


def targets(table: Table) -> np.ndarray:
    """ "25 0" -> float32 [n, 28] of 0 and 1."""
    known = {str(i): i for i in range(len(PLACES))}
    labels = np.zeros((len(table), len(PLACES)), np.float32)
    for row, text in enumerate(table["Target"]):
        if not text or not set(text.split()) <= known.keys():
            table.fail(row, f"Target is {text!r}; numbers of 0 to 27 expected")
        labels[row, [known[number] for number in text.split()]] = 1
    return labels
