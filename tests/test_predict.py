"""Predictions of files: the same numbers as in the run, and nothing lost."""

import csv
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pydicom
import pytest
from make_run import CLASSES, make_run
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from scipy.special import softmax

from bigxfer import predict, tree
from bigxfer.data import augment
from bigxfer.runs import finished

pytestmark = pytest.mark.usefixtures("single_device")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def pixels(i, side=48):
    return np.random.default_rng(i).integers(0, 256, (side, side), np.uint8)


def save_dicom(path, image):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    d.Rows, d.Columns = image.shape
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated = d.BitsStored = 8
    d.HighBit, d.PixelRepresentation = 7, 0
    d.PixelData = image.tobytes()
    d.save_as(path)


@pytest.fixture
def images(tmp_path):
    """The same picture as PNG and DICOM, a JPEG, two bad files and a text."""
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    Image.fromarray(pixels(0)).save(root / "a.png")
    save_dicom(root / "deep" / "1.2.840", pixels(0))
    Image.fromarray(pixels(1)).save(root / "b.JPG", format="JPEG")
    (root / "broken.png").write_bytes(b"\x89PNG but no more")
    Image.fromarray(np.full((48, 48), 7, np.uint8)).save(root / "flat.png")
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(b"")
    return root


def run_predict(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, flags)])
    return predict.main(predict.arguments())


def table(path):
    with open(path, newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def probabilities(row):
    return np.array([float(row[f"probability/{name}"]) for name in CLASSES])


def test_the_run_is_checked_before_the_images_are_listed(monkeypatch, tmp_path):
    listed = "bigxfer.data.images.listed"
    monkeypatch.setattr(listed, lambda *_: pytest.fail("listed"))
    flags = f"--run={tmp_path / 'nothing'}", f"--images={tmp_path}"
    with pytest.raises(FileNotFoundError, match="no run folder"):
        run_predict(monkeypatch, *flags)


def test_rows_errors_and_exit_status(tmp_path, monkeypatch, capsys, folder, images):
    out = tmp_path / "out.csv"
    flags = f"--run={folder}", f"--images={images}", f"--out={out}", "--batch=2"
    assert run_predict(monkeypatch, *flags) == 1
    found = table(out)
    assert list(found) == ["a.png", "b.JPG", "broken.png", "deep/1.2.840", "flat.png"]
    for name in ("broken.png", "flat.png"):
        assert found[name]["error"] and not found[name]["probability/normal"]
    assert "one value" in found["flat.png"]["error"]
    good = ["a.png", "b.JPG", "deep/1.2.840"]
    for name in good:
        assert not found[name]["error"]
        assert probabilities(found[name]).sum() == pytest.approx(1, abs=1e-5)
    same = [probabilities(found[name]) for name in ("a.png", "deep/1.2.840")]
    np.testing.assert_allclose(*same, atol=1e-5)
    for row in found.values():
        assert "SYNTHETIC" in row["notice"] and "no diagnostic" in row["notice"]
        assert "fitted on 60 validation images, which are few" in row["calibration"]
        low, high = map(float, row["calibration"].split()[-3::2])
        assert low < float(row["calibration"].split()[1]) < high
    said = capsys.readouterr().err
    assert "not read: broken.png" in said and "not read: flat.png" in said
    assert "1 files" in said and "3 images predicted, 2 not read" in said
    assert not list(tmp_path.glob("*.part"))


def test_the_numbers_are_the_nets(tmp_path, monkeypatch, folder, images):
    """By the decoder, the net and the temperature put together by hand."""
    from bigxfer.data.pixels import decode

    out = tmp_path / "out.csv"
    flags = f"--run={folder}", f"--images={images / 'a.png'}", f"--out={out}"
    assert run_predict(monkeypatch, *flags) == 0
    run = finished.open(folder)
    temperature = float(table(out)["a.png"]["calibration"].split()[1])
    assert temperature == pytest.approx(run.calibration()[0], rel=1e-3)
    assert temperature > 1  # the predictions of make_run are overconfident
    seen = augment.eval_view(decode.load(images, "a.png", 40, 1)[None], 32)
    net = jax.jit(lambda x: run.model.apply(run.variables, x, train=False)[0])
    logits = np.asarray(net(seen))[0]
    found = probabilities(table(out)["a.png"])
    np.testing.assert_allclose(found, softmax(logits / temperature), atol=1e-3)


def test_a_list_of_files_keeps_its_order(tmp_path, monkeypatch, folder, images):
    (images / "list.csv").write_text("path,label\nb.JPG,1\na.png,\nb.JPG,2\nno.png,\n")
    out = tmp_path / "out.csv"
    flags = f"--run={folder}", f"--images={images / 'list.csv'}", f"--out={out}"
    assert run_predict(monkeypatch, *flags) == 1
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["b.JPG", "a.png", "b.JPG", "no.png"]
    assert rows[3]["error"] == "absent"
    assert rows[0] == rows[2]


def test_without_validation_it_says_uncalibrated(tmp_path, monkeypatch, images):
    folder = make_run(tmp_path / "run", synthetic=False)
    (folder / "predictions_valid.npz").unlink()
    out = tmp_path / "out.csv"
    flags = f"--run={folder}", f"--images={images / 'a.png'}", f"--out={out}"
    run_predict(monkeypatch, *flags)
    row = table(out)["a.png"]
    want = "none: the run has no predictions of validation or of folds"
    assert row["calibration"] == want
    assert "SYNTHETIC" not in row["notice"] and "no diagnostic" in row["notice"]


def test_findings_have_a_sigmoid_each(tmp_path, monkeypatch, images):
    folder = make_run(tmp_path / "run", multilabel=True)
    out = tmp_path / "out.csv"
    flags = f"--run={folder}", f"--images={images / 'a.png'}", f"--out={out}"
    run_predict(monkeypatch, *flags)
    assert abs(probabilities(table(out)["a.png"]).sum() - 1) > 0.01


def test_heatmaps_lie_on_the_image_pixel_for_pixel(
    tmp_path, monkeypatch, folder, images
):
    """Its own pixels, not those that the net saw; enlarged by a whole number."""
    pytest.importorskip("matplotlib")
    (images / "b").mkdir()
    Image.fromarray(pixels(2, 500)[:400]).save(images / "b" / "a.png")
    out, maps = tmp_path / "out.csv", tmp_path / "maps"
    flags = f"--run={folder}", f"--images={images}", f"--out={out}"
    assert run_predict(monkeypatch, *flags, f"--heatmaps={maps}") == 1
    names = sorted(path.name for path in maps.iterdir())
    assert names == [
        *("00000_a.png.png", "00001_b.JPG.png", "00002_b_a.png.png"),
        "00004_deep_1.2.840.png",
    ]
    small, large = (
        np.asarray(Image.open(maps / name).convert("RGB"), int)
        for name in (names[0], names[2])
    )
    enlarged = np.kron(pixels(0), np.ones((7, 7), int))
    np.testing.assert_array_equal(small[:336, :336].max(-1), enlarged)
    np.testing.assert_array_equal(large[:400, :500].max(-1), pixels(2, 500)[:400])
    for shown, width in ((small, 336), (large, 500)):
        assert np.ptp(shown[:, :width], axis=2).max() == 0
        assert np.ptp(shown[:, width:], axis=2).max() > 50  # colours: there is a map
    with Image.open(maps / names[0]) as image:
        assert "SYNTHETIC" in image.info["Description"]


def test_batch_norm_travels(tmp_path):
    """The running averages of a Keras net come back as they were saved."""
    pytest.importorskip("keras")
    folder = make_run(tmp_path / "run", "mobilenet")
    run = finished.open(folder)
    saved = tree.load_npz(folder / "params.npz")
    assert tree.digest(run.variables["batch_stats"]) == tree.digest(
        saved["batch_stats"]
    )


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda f: (f / "params.npz").unlink(), "--config.keep=all"),
        (lambda f: (f / "result.json").unlink(), "no finished run"),
    ],
)
def test_unusable_runs(tmp_path, monkeypatch, images, make, why):
    folder = make_run(tmp_path / "run")
    make(folder)
    with pytest.raises(ValueError, match=why) as error:
        run_predict(monkeypatch, f"--run={folder}", f"--images={images}")
    assert "\n" not in str(error.value)


def test_nothing_to_predict(tmp_path, monkeypatch, folder):
    for images, kind, why in (
        (tmp_path / "no", FileNotFoundError, "no such folder"),
        (tmp_path, ValueError, "no image among 0 files"),
    ):
        with pytest.raises(kind, match=why):
            run_predict(monkeypatch, f"--run={folder}", f"--images={images}")


@pytest.mark.parametrize("main", ["predict", "export"])
def test_help_without_jax(main):
    """--help is quick because it imports neither jax nor numpy's friends."""
    code = (
        "import runpy, sys, atexit\n"
        "atexit.register(lambda: print('jax' in sys.modules, file=sys.stderr))\n"
        f"sys.argv = ['x', '--help']; runpy.run_module('bigxfer.{main}', None, '__main__')"
    )
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "no diagnostic device" in done.stdout
    assert done.stderr.strip() == "False"
