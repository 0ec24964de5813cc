"""Images unlike the training set: the distance, its rate of alarms, and what predict says."""

import csv
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from make_run import make_run
from PIL import Image
from scipy.stats import norm
from sklearn.covariance import LedoitWolf

from bigxfer import predict
from bigxfer.runs import finished
from bigxfer.runs import novelty as of_runs
from bigxfer.statistics import novelty


def test_the_distance_is_mahalanobis_by_scikit_learn():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12))
    training, validation, new = (
        3 + rng.normal(size=(n, 12)) @ mixing for n in (80, 99, 7)
    )
    known = novelty.fit(training, validation, np.arange(99))
    unit = [x / np.linalg.norm(x, axis=1)[:, None] for x in (training, validation, new)]
    model = LedoitWolf().fit(unit[0])
    far = np.sort(np.sqrt(model.mahalanobis(unit[1])))
    want = np.sqrt(model.mahalanobis(unit[2])) / far[95 - 1]  # 0.95 * (99 + 1)
    np.testing.assert_allclose(known.distances(new), want, rtol=1e-4)
    assert (known.distances(validation) > 1).sum() == 4
    assert known.false_alarms()[0] == pytest.approx(0.05)


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("patients", [25, 100])
def test_the_interval_of_the_rate_covers_the_true_rate(alike, patients):
    """2,000 simulated validation sets with two images of each patient, alike or not."""
    rng, images = np.random.default_rng(0), 2 * patients
    shared, own = (
        rng.normal(size=(2000, patients, 1)),
        rng.normal(size=(2000, patients, 2)),
    )
    far = (np.sqrt(alike) * shared + np.sqrt(1 - alike) * own).reshape(2000, images)
    true = norm.sf(np.sort(far)[:, novelty.rank(images) - 1])
    some = np.zeros(1, np.float32)
    rate, low, high = novelty.Known(
        some, some, 1.0, 99, images, patients
    ).false_alarms()
    covers = ((low <= true) & (true <= high)).mean()
    assert covers >= 0.94
    assert alike or abs(true.mean() - rate) < 0.002  # exact where they are independent


def test_too_few_images_are_said():
    with pytest.raises(ValueError, match="5 training and 39 validation images, and 10"):
        novelty.fit(np.ones((5, 2)), np.ones((39, 2)), np.arange(39))


def cloud(rng):
    """uint8 [40, 40]: 16 random grays, smoothly joined."""
    few = Image.fromarray(rng.integers(0, 256, (4, 4)).astype(np.uint8))
    return np.asarray(few.resize((40, 40), Image.Resampling.BICUBIC))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run whose data are clouds, and a folder of clouds and a chessboard."""
    folder = make_run(tmp_path / "run")
    rng = np.random.default_rng(0)
    pixels = np.stack([cloud(rng) for _ in range(120)])[..., None]
    rows = {"train": np.arange(60), "valid": np.arange(60, 120)}
    patients = SimpleNamespace(patient=np.arange(120).astype(str))
    data = SimpleNamespace(images=pixels, rows=rows, manifest=patients)

    def with_data(folder, root, say):
        trained = finished.open(folder)
        return finished.WithData(**vars(trained), data=data)

    monkeypatch.setattr(finished, "with_data", with_data)
    images = tmp_path / "images"
    images.mkdir()
    for i in range(8):
        Image.fromarray(cloud(rng)).save(images / f"cloud{i}.png")
    board = np.kron(np.indices((4, 4)).sum(0) % 2 * 255, np.ones((10, 10)))
    Image.fromarray(board.astype(np.uint8)).save(images / "board.png")
    return SimpleNamespace(folder=folder, images=images, out=tmp_path / "out.csv")


def predicted(monkeypatch, run):
    flags = f"--run={run.folder}", f"--images={run.images}", f"--out={run.out}"
    monkeypatch.setattr(sys, "argv", ["predict", *flags])
    assert predict.main(predict.arguments()) == 0
    with open(run.out, newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_predict_flags_what_is_unlike_and_keeps_what_it_knows(monkeypatch, capsys, run):
    table = predicted(monkeypatch, run)
    assert table["board.png"]["unlike"] == "yes"
    assert float(table["board.png"]["distance"]) > 1
    clouds = [row for name, row in table.items() if name != "board.png"]
    assert [row["unlike"] for row in clouds].count("no") >= 6
    said = capsys.readouterr().err
    assert "60 train and 60 valid images, kept in novelty.npz" in said
    assert "of 9 images, by distances between features (column unlike); it also" in said
    assert "like the 60 validation images of 60 patients" in said

    def gone(*args):
        raise FileNotFoundError("no data")

    monkeypatch.setattr(finished, "with_data", gone)
    assert predicted(monkeypatch, run) == table  # from the run folder
    (run.folder / of_runs.FILE).unlink()
    (run.folder / f"{of_runs.FILE}.sha256").unlink()
    bare = predicted(monkeypatch, run)
    assert {row["unlike"] for row in bare.values()} == {""}
    assert "unlike the training set: no data" in capsys.readouterr().err
    for name, row in table.items():
        for column in row:
            if column.startswith("probability"):
                assert float(row[column]) == pytest.approx(
                    float(bare[name][column]), abs=1e-5
                )
