"""The phantom: real layouts, known truth, the same drawing every time."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from bigxfer.config import Data, Phantom
from bigxfer.data import readers
from bigxfer.data.phantom import draw, film, findings, write

SMALL = Phantom(images=40, pixels=32)
READER = {"natural": "folder"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("phantoms")
    return {kind: write.write(kind, top / kind, SMALL) for kind in write.LAYOUTS}


def manifest(folder: Path, kind: str):
    data = Data(reader=READER.get(kind, kind), root=str(folder))
    return readers.read(data)


@pytest.mark.parametrize("kind", list(write.LAYOUTS))
def test_the_real_reader_reads_it(folders, kind):
    read = manifest(folders[kind], kind)
    assert read.synthetic
    assert (read.split == "train").sum() == 40
    assert (read.split == "test").sum() >= 200
    for path in read.path[:: len(read) // 20]:
        with Image.open(folders[kind] / path) as image:
            assert image.size == (32, 32)
            assert image.mode == ("RGB" if kind == "natural" else "L")
    assert len({*read.path}) == len(read)
    train, test = (set(read.patient[read.split == s]) for s in ("train", "test"))
    assert not train & test
    if kind in ("chexpert", "nih"):
        assert len(train) < 40  # some have several studies
        assert set(read.view) == {"AP", "PA"}


def test_chexpert_has_its_header_and_every_kind_of_cell(folders):
    with open(folders["chexpert"] / "train.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert ",".join(header) == (
        "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,"
        "Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
        "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
        "Support Devices"
    )
    assert {cell for row in rows for cell in row[6:]} == {"1.0", "0.0", "-1.0", ""}
    for row in rows:  # as in the real train.csv
        assert row[5] in ("1.0", "")
        if row[5]:
            assert not {"1.0", "-1.0"} & {*row[6:-1]}
    with open(folders["chexpert"] / "valid.csv", newline="") as file:
        exact = [row[5:] for row in list(csv.reader(file))[1:]]
    assert {cell for row in exact for cell in row} == {"1.0", "0.0"}


def test_labels_say_what_was_drawn(folders):
    """truth.csv comes from the drawing, the labels from the layout."""
    with open(folders["nih"] / "truth.csv", newline="") as file:
        truth = list(csv.DictReader(file))
    drawn: dict[str, set[str]] = {}
    for row in truth:
        x0, y0, x1, y1 = (int(row[k]) for k in ("x0", "y0", "x1", "y1"))
        assert 0 <= x0 <= x1 < 32 and 0 <= y0 <= y1 < 32
        drawn.setdefault(row["file"], set()).add(write.layouts.NIH[row["finding"]])
    read = manifest(folders["nih"], "nih")
    for path, labels in zip(read.path, read.labels, strict=True):
        said = {c for c, v in zip(read.classes, labels, strict=True) if v}
        assert drawn.get(path, set()) <= said
        # at 32 pixels a fine line may leave no box, nothing else is missed
        assert said - drawn.get(path, set()) <= {"Atelectasis", "Nodule"}


def test_covidx_test_set_is_balanced_and_shortcut_ties_source_to_class(tmp_path):
    def agreement(shortcut: float, images: int = 150) -> float:
        made = Phantom(images=images, pixels=16, shortcut=shortcut)
        folder = write.write("covidx", tmp_path / str(shortcut), made)
        read = manifest(folder, "covidx")
        test = read.labels[read.split == "test"]
        assert len({*np.bincount(test)}) == 1 and len({*test}) == 3
        own = [write.layouts.COVIDX[read.classes[k]][1] for k in read.labels]
        return float((read.source == own).mean())

    assert agreement(1.0, images=9) == 1.0
    assert abs(agreement(0.0) - 1 / 3) < 0.07
    assert abs(agreement(0.5) - 2 / 3) < 0.07


def test_the_same_settings_give_the_same_bytes_and_another_seed_does_not(
    folders, tmp_path
):
    a = folders["covidx"]
    b = write.write("covidx", tmp_path / "b", SMALL)
    c = write.write("covidx", tmp_path / "c", Phantom(images=40, pixels=32, seed=4))
    files = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(b) for p in b.rglob("*") if p.is_file())
    assert all((a / f).read_bytes() == (b / f).read_bytes() for f in files)
    assert (a / "truth.csv").read_bytes() != (c / "truth.csv").read_bytes()


def test_processes_draw_what_one_draws(tmp_path, monkeypatch):
    made = Phantom(images=70, pixels=16)
    one = write.write("natural", tmp_path / "one", made)
    monkeypatch.setattr(write, "WORTH_IT", 0)
    more = write.write("natural", tmp_path / "more", made)
    for path in one.rglob("*.jpg"):
        assert (more / path.relative_to(one)).read_bytes() == path.read_bytes()


def test_done_is_kept_other_settings_replaced_foreign_files_refused(tmp_path):
    folder, made = tmp_path / "set", Phantom(images=3, pixels=16)
    write.write("natural", folder, made)
    note = (folder / "SYNTHETIC.txt").read_text()
    assert "not radiographs" in note and '"pixels": 16' in note
    when = (folder / "SYNTHETIC.txt").stat().st_mtime_ns
    write.write("natural", folder, made)
    assert (folder / "SYNTHETIC.txt").stat().st_mtime_ns == when
    (folder / "stale.jpg").touch()
    write.write("natural", folder, Phantom(images=4, pixels=16))
    assert not (folder / "stale.jpg").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"mine holds files but no SYNTHETIC\.txt"):
        write.write("natural", tmp_path / "mine", made)
    assert [p.name for p in tmp_path.iterdir() if ".part" in p.name] == []


def test_a_failed_drawing_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(write, "natural", broken)
    with pytest.raises(OSError, match="No space"):
        write.write("natural", tmp_path / "set", Phantom(images=3, pixels=16))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind,made,message",
    [
        ("mri", SMALL, "there are chexpert"),
        ("nih", Phantom(images=0), "images > 0"),
        ("nih", Phantom(images=9, distance=2.0), "between 0 and 1"),
    ],
)
def test_settings_that_cannot_be(tmp_path, kind, made, message):
    with pytest.raises(ValueError, match=message):
        write.write(kind, tmp_path / "x", made)


def drawing(names: list[str], distance: float = 0.0, seed: int = 0, size: int = 96):
    body = draw.person(np.random.default_rng(seed), distance)
    style, rng = film.scanner(0, distance), np.random.default_rng(seed)
    return findings.radiograph(size, body, style, names, rng)


@pytest.mark.parametrize("name", list(findings.OF_THE_SCENE))
def test_a_finding_changes_pixels_mostly_inside_its_box(name):
    """Drawn on bare solids, without noise: the difference lies where truth says."""
    hits = []
    for seed in range(8):
        body = draw.person(np.random.default_rng(seed), 0.0)
        scenes = []
        for sick in (False, True):
            rng = np.random.default_rng([seed, 1])
            scene = draw.scene(96, body, rng)
            if sick:
                scene.found(name, findings.OF_THE_SCENE[name](scene))
            air = (scene.lung[0] + scene.lung[1]) * (1 - scene.opacity)
            solid = scene.soft + scene.bone - air + 0.1 * scene.vessels
            scenes.append((solid, scene.boxes))
        changed = np.abs(scenes[1][0] - scenes[0][0])
        if name in ("cardiomegaly", "enlarged_mediastinum", "emphysema"):
            assert not changed.any()  # these change the body
            continue
        if not scenes[1][1]:
            continue
        ((_, (x0, y0, x1, y1)),) = scenes[1][1]
        inside = changed[y0 : y1 + 1, x0 : x1 + 1]
        hits.append(inside.mean() > 2 * changed.mean() and changed.max() > 0.02)
    assert all(hits)


def test_lungs_are_dark_and_the_spine_is_bright():
    image, boxes = drawing([])
    lung, spine = image[35:50, 20:30].mean(), image[60:80, 46:52].mean()
    assert boxes == [] and image.dtype == np.uint8
    assert spine - lung > 80


def test_distance_moves_the_images_away():
    near = np.mean([drawing([], 0.0, s)[0] for s in range(12)], axis=0)
    again = np.mean([drawing([], 0.0, s)[0] for s in range(12, 24)], axis=0)
    half = np.mean([drawing([], 0.5, s)[0] for s in range(12)], axis=0)
    far = np.mean([drawing([], 1.0, s)[0] for s in range(12)], axis=0)
    moved = [np.abs(other - near).mean() for other in (again, half, far)]
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.slow
def test_the_target_is_learnable_but_not_by_a_glance(tmp_path):
    """Logistic regression on 32 px pixels, 1,000 training images, no shortcut."""
    folder = write.write("covidx", tmp_path / "x", Phantom(images=1000, pixels=64))
    read = manifest(folder, "covidx")
    pixels = np.stack(
        [
            np.asarray(Image.open(folder / p).resize((32, 32), Image.Resampling.BOX))
            for p in read.path
        ]
    ).reshape(len(read), -1)
    x = (pixels - pixels.mean(0)) / pixels.std(0).clip(1)
    train = read.split == "train"
    model = LogisticRegression(C=0.01, max_iter=500).fit(x[train], read.labels[train])
    chance = model.predict_proba(x[~train])
    score = roc_auc_score(read.labels[~train], chance, multi_class="ovr")
    assert 0.75 < score < 0.90
