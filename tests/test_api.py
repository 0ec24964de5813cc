"""`import bigxfer` from Python: load, predict, features, table."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_run import make_run
from PIL import Image

import bigxfer
from bigxfer import predict, tree

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("api") / "runs" / "one", eval__batch=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five files, and the same pixels as an array."""
    where = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48, 56), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(where / f"{i}.png")
    return where, pixels


def test_import_is_light():
    code = (
        "import sys, bigxfer; assert bigxfer.__version__;"
        "bad = {'jax', 'numpy', 'pyarrow', 'PIL'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        bigxfer.lod  # noqa: B018


def test_predict_gives_what_the_command_gives(folder, images, tmp_path, monkeypatch):
    where, pixels = images
    out = tmp_path / "out.csv"
    call = ["predict", "--run", str(folder), "--images", str(where), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", call)
    assert predict.main(predict.arguments()) == 0
    net = bigxfer.load(folder)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    wanted = [[float(r[f"probability/{name}"]) for name in net.classes] for r in rows]
    found = net.predict(where)
    assert found.shape == (5, 3) and found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(net.predict(pixels), found, atol=1e-6)
    backwards = sorted(where.glob("*.png"), reverse=True)
    np.testing.assert_allclose(net.predict(backwards), found[::-1], atol=1e-6)
    colour = np.repeat(pixels[..., None], 3, axis=3)
    np.testing.assert_allclose(net.predict(colour), found, atol=1e-6)


def test_the_head_makes_the_logits_of_the_features(folder, images):
    net = bigxfer.load(folder)
    features = net.features(images[0])
    head = tree.flatten(net.run.variables["params"]["head"])
    kernel = next(leaf for name, leaf in head.items() if name.endswith("kernel"))
    bias = next(leaf for name, leaf in head.items() if name.endswith("bias"))
    logits = features @ kernel.reshape(features.shape[1], -1) + bias
    found = net.run.probabilities(logits, net.run.calibration()[0])
    np.testing.assert_allclose(found, net.predict(images[0]), atol=1e-5)


def test_bad_images_are_named(folder, images, tmp_path):
    net = bigxfer.load(folder)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be read: .*bad\.png: "):
        net.predict([images[0] / "0.png", tmp_path / "bad.png"])
    with pytest.raises(ValueError, match="float32 .*expected uint8"):
        net.predict(np.zeros((2, 8, 8), np.float32))
    with pytest.raises(ValueError, match="4 channels; expected 1 or 3"):
        net.features(np.zeros((2, 8, 8, 4), np.uint8))


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder"):
        bigxfer.load(tmp_path / "none")


def test_the_table_has_a_row_a_run(folder):
    found = bigxfer.table(folder.parent)
    digest = bigxfer.load(folder).run.digest
    assert found.column("digest").to_pylist() == [digest]
    assert found.column("synthetic").to_pylist() == [True]
    with pytest.raises(FileNotFoundError, match="no table at"):
        bigxfer.table(folder / "table.parquet")


def test_a_report_of_all_runs_of_a_folder(folder, capsys, monkeypatch):
    from bigxfer.study.__main__ import main

    runs = folder.parent
    monkeypatch.setattr(sys, "argv", ["study", "report", "--runs", str(runs)])
    main()
    page = (runs / "report" / "report.html").read_text()
    assert "R1-1x0.25" in page and "SYNTHETIC" in page
    assert bigxfer.table(runs / "report" / "table.parquet").num_rows == 1
