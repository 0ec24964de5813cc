"""Readers of images within other files: HDF5, tar, array_record, DICOM headers."""

import gzip
import io
import tarfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from test_readers import read, write

from bigxfer.data.readers import DataError


def pcam(root, h5py):
    rng = np.random.default_rng(0)
    for split, n in (("train", 4), ("valid", 2), ("test", 3)):
        stem = f"camelyonpatch_level_2_split_{split}"
        with h5py.File(root / f"{stem}_x.h5", "w") as file:
            file["x"] = rng.integers(0, 256, (n, 96, 96, 3), np.uint8)
        with h5py.File(root / f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(n) % 2).astype(np.uint8).reshape(n, 1, 1, 1)
        rows = [f"{i},0,0,False,False,camelyon_{split}_{i // 2}" for i in range(n)]
        head = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"
        write(root / f"{stem}_meta.csv", "\n".join([head, *rows]))


def test_pcam_addresses_rows_of_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    pcam(tmp_path, h5py)
    m = read("pcam", tmp_path)
    assert m.path[3] == "camelyonpatch_level_2_split_train_x.h5#3"
    assert list(m.labels) == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert Counter(m.split) == {"train": 4, "valid": 2, "test": 3}
    assert m.patient[0] == m.patient[1] != m.patient[2]
    for path in tmp_path.glob("*meta.csv"):
        path.unlink()
    assert "unknown" in read("pcam", tmp_path).notes["patients"]
    x = tmp_path / "camelyonpatch_level_2_split_test_x.h5"
    x.write_bytes(x.read_bytes()[:900])
    with pytest.raises(DataError, match="test_x.h5: no readable HDF5"):
        read("pcam", tmp_path)
    x.rename(f"{x}.gz")
    with pytest.raises(DataError, match="gunzip"):
        read("pcam", tmp_path)


def test_imagenet21k_paths_are_byte_ranges_of_the_tars(tmp_path):
    content = {}
    for synset in ("n00004475", "n00005787"):
        with tarfile.open(tmp_path / f"{synset}.tar", "w") as tar:
            for i in range(3):
                name = f"{synset}_{i}.JPEG"
                content[name] = f"{name}!".encode() * (100 * i + 1)
                info = tarfile.TarInfo(name)
                info.size = len(content[name])
                tar.addfile(info, io.BytesIO(content[name]))
    m = read("imagenet21k", tmp_path)
    assert list(m.labels) == [0, 0, 0, 1, 1, 1] and m.id[4] == "n00005787_1"
    for name, path in zip(m.id, m.path):
        file, where = path.split("#")
        offset, size = map(int, where.split("+"))
        data = (tmp_path / file).read_bytes()[offset : offset + size]
        assert data == content[f"{name}.JPEG"]
    tar = tmp_path / "n00005787.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: int(m.path[5].split("#")[1].split("+")[0]) + 10])
    with pytest.raises(DataError, match="n00005787.tar: cut off|readable"):
        read("imagenet21k", tmp_path)
    tar.write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match="no readable uncompressed tar"):
        read("imagenet21k", tmp_path)


@pytest.mark.filterwarnings("ignore")  # of tfds and what it imports
def test_tfds_array_record_without_tensorflow(tmp_path):
    import sys

    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(4, 4, 3)),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate(5), "test": self._generate(3)}

        def _generate_examples(self, n=0):
            raise NotImplementedError  # abstract in tfds; _generate takes its place

        def _generate(self, n):
            for i in range(n):
                file = io.BytesIO()  # an array would need TensorFlow to be encoded
                Image.new("RGB", (4, 4), (i, i, i)).save(file, "PNG")
                file.seek(0)
                yield i, {"image": file, "label": -1 if i == 4 else i % 2}

    Tiny(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    before = "tensorflow" in sys.modules
    m = read("tfds", tmp_path, version="tiny")
    assert ("tensorflow" in sys.modules) == before
    assert m.classes == ("cat", "dog") and m.name == "tiny" and m.labels.ndim == 1
    assert Counter(m.split) == {"train": 4, "test": 3}
    assert m.notes["dropped"]["examples without a label"]["count"] == 1
    for path, label in zip(m.path, m.labels):  # a path leads back to its example
        folder, _, key = path.rpartition("/tfds:")
        split, index = key.split("#")
        builder = tfds.builder_from_directory(tmp_path / folder)
        example = builder.as_data_source(split)[int(index)]
        assert example["label"] == label and example["image"][0, 0, 0] % 2 == label
    with pytest.raises(DataError, match="'cifar10'.*found.*tiny"):
        read("tfds", tmp_path, version="cifar10")


def test_dicom_headers_give_patient_and_view(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    for i, (split, name) in enumerate([("train", "a"), ("train", "b"), ("test", "a")]):
        data = pydicom.Dataset()
        data.PatientID, data.ViewPosition = f"P{i // 2}", ("PA", "LL", "")[i]
        data.SOPClassUID = SecondaryCaptureImageStorage
        data.SOPInstanceUID = f"1.2.3.{i}"
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = tmp_path / split / name / f"{i}.dcm"
        path.parent.mkdir(parents=True)
        data.save_as(path, enforce_file_format=True)
    m = read("dicom", tmp_path)
    assert m.name == "dicom" and list(m.labels) == [0, 1, 0]
    assert list(m.patient) == ["P0", "P0", "P1"] and list(m.view) == ["PA", "L", ""]
    write(tmp_path / "train" / "a" / "x.dcm", "no dicom at all")
    with pytest.raises(DataError, match="x.dcm: no DICOM"):
        read("dicom", tmp_path)
