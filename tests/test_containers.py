import io
import os
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bigxfer.data.pixels import cache_store, containers, decode

RNG = np.random.default_rng(0)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_row_of_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    pixels = RNG.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = pixels
    np.testing.assert_array_equal(decode.load(tmp_path, "x.h5#1", 16, 3), pixels[1])
    assert decode.side_lengths(tmp_path, "x.h5#1") == (16, 16)
    assert containers.parse("x.h5#1").source(tmp_path) == str(tmp_path / "x.h5")
    with pytest.raises(decode.DecodeError, match="out of range"):
        decode.load(tmp_path, "x.h5#3", 16, 3)
    with pytest.raises(decode.DecodeError, match="absent"):
        decode.load(tmp_path, "y.h5#0", 16, 3)


def test_bytes_within_a_tar(tmp_path):
    images = [RNG.integers(0, 256, (8, 9), dtype=np.uint8) for _ in range(3)]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for k, image in enumerate(images):
            member = tarfile.TarInfo(f"{k}.png")
            member.size = len(data := png(image))
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(tmp_path / "a.tar") as tar:
        for member, image in zip(tar.getmembers(), images, strict=True):
            path = f"a.tar#{member.offset_data}+{member.size}"
            want = decode.decode(png(image), 8, 1)
            np.testing.assert_array_equal(decode.load(tmp_path, path, 8, 1), want)
    with pytest.raises(decode.DecodeError):
        decode.load(tmp_path, "a.tar#99999999+10", 8, 1)


def test_three_files_are_the_planes_of_one_image(tmp_path):
    planes = RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    for name, plane in zip(("red", "green", "blue"), planes, strict=True):
        (tmp_path / f"a_{name}.png").write_bytes(png(plane))
    path = "a_{red,green,blue}.png"
    np.testing.assert_array_equal(
        decode.load(tmp_path, path, 8, 3), planes.transpose(1, 2, 0)
    )
    gray = decode.load(tmp_path, path, 8, 1)[..., 0].astype(float)
    want = np.array([0.299, 0.587, 0.114]) @ planes.reshape(3, -1)
    assert abs(gray.ravel() - want).max() <= 1
    assert containers.parse(path).source(tmp_path) == str(tmp_path / "a_red.png")
    (tmp_path / "a_blue.png").unlink()
    with pytest.raises(decode.DecodeError, match="absent"):
        decode.load(tmp_path, path, 8, 3)


@pytest.mark.parametrize("changed", ["red", "green", "blue"])
def test_a_change_of_any_plane_is_a_change_of_the_image(tmp_path, changed):
    for name in ("red", "green", "blue"):
        (tmp_path / f"a_{name}.png").write_bytes(b"12345")
    paths = np.array(["a_{red,green,blue}.png", "a_red.png"], object)
    manifest = SimpleNamespace(root=str(tmp_path), path=paths)
    before = cache_store.stats(manifest)
    file = tmp_path / f"a_{changed}.png"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    after = cache_store.stats(manifest)
    assert after[0] != before[0] and before[0]["size"] == 15
    assert (after[1] != before[1]) == (changed == "red")
    file.unlink()
    assert cache_store.stats(manifest)["size"][0] == cache_store.ABSENT


def test_a_builder_of_tfds(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core import example_serializer

    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(8, 8, 3)), "label": np.int64}
    )
    folder = tmp_path / "toy" / "1.0.0"
    folder.mkdir(parents=True)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    images = RNG.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    name = "toy-train.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(folder / name), "group_size:1")
    for k, image in enumerate(images):
        encoded = features.encode_example({"image": png(image), "label": k})
        writer.write(serializer.serialize_example(encoded))
    writer.close()
    size = (folder / name).stat().st_size
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[4],
        num_bytes=size,
        filename_template=tfds.core.ShardedFileTemplate(
            data_dir=folder,
            dataset_name="toy",
            split="train",
            filetype_suffix="array_record",
        ),
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[split],
        filename_template=None,
        check_data=False,
    )
    for k in range(4):
        got = decode.load(tmp_path, f"toy/1.0.0/tfds:train#{k}", 8, 3)
        np.testing.assert_array_equal(got, images[k])


def test_a_hash_in_a_plain_name_is_a_name(tmp_path):
    (tmp_path / "a#1.png").write_bytes(png(np.full((4, 4), 9, np.uint8)))
    assert (decode.load(tmp_path, "a#1.png", 4, 1) == 9).all()


@pytest.mark.parametrize(
    "path, kind, source, is_array",
    [
        ("a/b.png", "Plain", "a/b.png", False),
        ("a#1.png", "Plain", "a#1.png", False),
        ("a.h5", "Plain", "a.h5", False),
        ("a/x.hdf5#7", "HDF5", "a/x.hdf5", True),
        ("a/x.npz#train_images:7", "NPZ", "a/x.npz", True),
        ("a.npz", "Plain", "a.npz", False),
        ("a.tar#512+10", "Tar", "a.tar", False),
        ("toy/1.0.0/tfds:train#3", "TFDS", "toy/1.0.0/dataset_info.json", False),
        ("tfds:train#3", "TFDS", "dataset_info.json", False),
        ("a/b_{red,green,blue}.png", "Planes", "a/b_red.png", True),
    ],
)
def test_each_kind_says_what_it_is(path, kind, source, is_array):
    place = containers.parse(path)
    assert type(place).__name__ == kind and place.is_array == is_array
    assert place.source("root") == f"root/{source}"
    if place.planes:
        assert place.planes == tuple(f"a/b_{c}.png" for c in ("red", "green", "blue"))
