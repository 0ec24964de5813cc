"""Readers: from a data set as its authors publish it to a Manifest.

docs/datasets.md says for each how to obtain it, its layout, labels and traps.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bigxfer.config import Data, nearest
from bigxfer.data import labels
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import (
    aptos,
    catsdogs,
    chexpert,
    covidx,
    csv,
    dicom,
    eyepacs,
    folder,
    histopathology,
    imagenet,
    medfmc,
    medimeta,
    medmnist,
    mimic,
    nih,
    padchest,
    pcam,
    proteins,
    saved,
    tables,
    tfds,
    tuberculosis,
)
from bigxfer.data.readers.tables import DataError

READERS = {
    "chexpert": chexpert.read,
    "nih": nih.read,
    "mimic": mimic.read,
    "padchest": padchest.read,
    "covidx": covidx.read,
    "tuberculosis": tuberculosis.read,
    "eyepacs": eyepacs.read,
    "aptos": aptos.read,
    "pcam": pcam.read,
    "histopathology": histopathology.read,
    "proteins": proteins.read,
    "medmnist": medmnist.read,
    "medfmc": medfmc.read,
    "medimeta": medimeta.read,
    "catsdogs": catsdogs.read,
    "imagenet": imagenet.read_1k,
    "imagenet21k": imagenet.read_21k,
    "tfds": tfds.read,
    "folder": folder.read,
    "csv": csv.read,
    "dicom": dicom.read,
    "manifest": saved.read,
}

OBTAIN = {  # the one line that a missing root prints; more in docs/datasets.md
    "chexpert": "register at https://stanfordmlgroup.github.io/competitions/chexpert",
    "nih": "download from https://nihcc.app.box.com/v/ChestXray-NIHCC",
    "mimic": "credentialed access, https://physionet.org/content/mimic-cxr-jpg",
    "padchest": "request at https://bimcv.cipf.es/bimcv-projects/padchest",
    "tuberculosis": "https://lhncbc.nlm.nih.gov, Tuberculosis Chest X-ray Image Data",
    "eyepacs": "https://kaggle.com/c/diabetic-retinopathy-detection",
    "aptos": "https://kaggle.com/c/aptos2019-blindness-detection",
    "pcam": "https://github.com/basveeling/pcam",
    "histopathology": "https://kaggle.com/c/histopathologic-cancer-detection",
    "proteins": "https://kaggle.com/c/human-protein-atlas-image-classification",
    "medmnist": "python -m bigxfer.data.fetch medmnist:chestmnist_64 --out ROOT",
    "medfmc": "https://doi.org/10.6084/m9.figshare.c.6476047; lists: github.com/openmedlab/MedFM",
    "medimeta": "see 2404.16000 and github.com/StefanoWoerner/medimeta-pytorch",
    "catsdogs": "Microsoft's kagglecatsanddogs archive, or kaggle.com/c/dogs-vs-cats",
    "imagenet": "register at https://image-net.org",
    "imagenet21k": "register at https://image-net.org",
    "tfds": "tfds.builder(NAME, data_dir=ROOT, file_format='array_record')",
    "dicom": "your own images: ROOT/[train|valid|test/]CLASS/IMAGE.dcm",
    "covidx": "github.com/lindawangg/COVID-Net, or Kaggle andyczhao/covidx-cxr2",
    "folder": "your own images: ROOT/[train|valid|test/]CLASS/IMAGE",
    "csv": "your own images: ROOT/metadata.csv with file, label, patient_id",
    "manifest": "readers.read(...).save(ROOT/manifest.parquet)",
}


def read(data: Data) -> Manifest:
    """The manifest of data.root, of the wanted views and classes.

    Raises DataError for an unknown reader, a missing root, and whatever is wrong
    in the label files. A file SYNTHETIC.txt in the root marks the set synthetic.
    """
    if data.reader not in READERS:
        hint = nearest(data.reader, list(READERS))
        raise DataError(f"config.data.reader: no reader {data.reader!r}{hint}")
    # Path("") is the working folder, which nobody means.
    root = Path(data.root)
    if not data.root or not root.is_dir():
        raise DataError(
            f"config.data.root: looked for the folder {data.root!r}, found none."
            f" To obtain {data.reader}: {OBTAIN[data.reader]} (docs/datasets.md)"
        )
    manifest = READERS[data.reader](root, data)
    # Before any image is opened.
    if not data.outside:
        check_inside(manifest)
    # The mark lies with the pixels, so that no reader can forget it.
    synthetic = manifest.synthetic or (root / "SYNTHETIC.txt").exists()
    manifest = replace(manifest, root=str(root), synthetic=synthetic)
    try:
        # Classes first: a class that no view shows is then an error only if it is wanted.
        if data.labels:
            manifest = labels.subset(manifest, data.labels)
        if data.views:
            manifest = keep_views(manifest, data.views)
    except ValueError as error:
        raise DataError(str(error)) from None
    return manifest.validate()


def check_inside(manifest: Manifest) -> None:
    """DataError for the first path that leads out of the root.

    A label file of strangers must not make us read any file of this machine; links
    within the root are the user's own and may lead anywhere.
    """
    for name, path in zip(manifest.id, manifest.path, strict=True):
        if tables.outside(path):
            raise DataError(
                f"{manifest.name}: image {name!r} lies at {path!r}, outside the root;"
                " correct its label file, or set --config.data.outside=true"
            )


def keep_views(manifest: Manifest, views: tuple[str, ...]) -> Manifest:
    """The rows of these views; all of them where the set records no view at all.

    Raises ValueError where no image of a class is left.
    """
    # The default, PA and AP, would keep no image of a set that records none.
    if not (manifest.view != "").any():
        note = {"views": "none recorded, all kept"}
        return replace(manifest, notes={**manifest.notes, **note})
    # A lateral film among frontal ones is another task.
    kept = np.isin(manifest.view, views)
    have, counts = np.unique(manifest.view.astype(str), return_counts=True)
    by_view = dict(zip(have.tolist(), counts.tolist()))
    if not kept.any():
        raise DataError(
            f"config.data.views={views} keeps no image of {manifest.name}, which has"
            f" {by_view}; set config.data.views=() to keep all"
        )
    other = [
        f"{view or 'unknown'} {n}" for view, n in by_view.items() if view not in views
    ]
    notes = {**manifest.notes, "views": list(views)}
    what = f"images of other views than {', '.join(views)} ({', '.join(other)})"
    return replace(manifest, notes=notes).keeping(kept, what)
