"""DICOM files in class folders; patient and view come from their headers."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest, is_age
from bigxfer.data.readers import files, folder, spellings
from bigxfer.data.readers.tables import DataError


def read(root: str | Path, data: Data) -> Manifest:
    """The folder reader, with patient, view, sex and age of each header.

    Files are found by their ending or, since DICOM often has none, by their content.
    For labels in a table use the csv reader, whose files may be DICOM too. Raises
    DataError for an image that is no DICOM, or has no PatientID.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise DataError("the dicom reader needs: pip install pydicom") from None

    def is_image(path: Path) -> bool:
        return files.is_image(path.name) or files.is_dicom(path)

    manifest = folder.read(root, data, is_image)
    patients, views, sexes, ages = [], [], [], []
    for path in manifest.path:
        # pydicom would wait for a FIFO without end.
        if not (Path(root) / path).is_file():
            raise DataError(f"{Path(root) / path}: no regular file")
        try:
            header = pydicom.dcmread(
                Path(root) / path,
                # A header has kilobytes, the pixels of a radiograph 20 MB.
                stop_before_pixels=True,
                specific_tags=["PatientID", "ViewPosition", "PatientSex", "PatientAge"],
            )
        except (InvalidDicomError, EOFError, ValueError) as error:
            raise DataError(f"{Path(root) / path}: no DICOM file ({error})") from None
        # str: pydicom has types of its own.
        patient = str(header.get("PatientID") or "").strip()
        if not patient:
            raise DataError(
                f"{Path(root) / path}: no PatientID in its header; use the csv reader"
            )
        patients.append(patient)
        views.append(spellings.view(str(header.get("ViewPosition") or "").strip()))
        sexes.append(spellings.sex(str(header.get("PatientSex") or "").strip()) or "")
        age = spellings.age(str(header.get("PatientAge") or "").strip()) or ""
        ages.append(age if is_age(age) else "")
    notes = {**manifest.notes, "patients": "PatientID"}
    return replace(
        manifest,
        name="dicom",
        notes=notes,
        patient=np.array(patients, object),
        view=np.array(views, object),
        sex=np.array(sexes, object),
        age=np.array(ages, object),
    ).validate()
