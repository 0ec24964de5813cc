"""What a transfer stamps: planted patients and copies are found, clean pairs are clean."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image
from test_bad_input import TOY, load
from test_leakage import scenes

from bigxfer import config, models, presets, transfer, tree
from bigxfer.config import Data
from bigxfer.data import dataset, exposure
from bigxfer.data.pixels import checked, decode

pytestmark = pytest.mark.usefixtures("single_device")

SPLITS = ["train"] * 12 + ["valid"] * 6 + ["test"] * 6


def csv_set(folder, seed, prefix):
    """24 own images, one a patient: 12 train, 6 valid, 6 test."""
    folder.mkdir()
    lines = ["file,label,patient_id,split"]
    for k, image in enumerate(scenes(24, seed=seed)):
        Image.fromarray(image[..., 0]).save(folder / f"{prefix}{k}.png")
        lines.append(f"{prefix}{k}.png,{'ab'[k % 2]},{prefix}{k},{SPLITS[k]}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def rename(folder, old, new):
    path = folder / "metadata.csv"
    path.write_text(path.read_text().replace(f",{old},", f",{new},"))


def opened(root, cache, resize=40, **kw):
    data = Data(reader="csv", root=str(root), views=(), resize=resize, crop=32, **kw)
    return dataset.open(replace(data, cache=str(cache)), 0, print)


def stamped(a, b, folder):
    folder.mkdir(exist_ok=True)
    exposure.look(a).save(folder)
    return exposure.against(folder / "params.npz", exposure.look(b))


@pytest.fixture
def pair(tmp_path):
    """Upstream, target: u3 is also t20 (test) by patient, u15 is t21 by pixels."""
    up, down = (csv_set(tmp_path / n, s, n) for n, s in (("u", 1), ("t", 2)))
    rename(down, "t20", "u3")
    shutil.copy(up / "u15.png", down / "t21.png")
    shutil.copy(up / "u20.png", down / "t22.png")  # from the upstream's test split
    rename(down, "t23", "u21")
    return up, down


def test_planted_ones_are_found_and_clean_sets_are_clean(pair, tmp_path):
    up, down = (opened(root, tmp_path / "cache") for root in pair)
    got = stamped(up, down, tmp_path / "run")
    assert got == {
        "checked": True,
        "patients": 1,
        "exact": 1,
        "test": {"patients": 1, "exact": 1},
        "first": ["t20.png", "t21.png"],
        "why": "",
    }
    assert exposure.line("upstream", got).startswith(
        "LEAK (upstream): 1 shared patients"
    )
    clean = opened(csv_set(tmp_path / "c", 3, "c"), tmp_path / "cache")
    got = stamped(clean, up, tmp_path / "run")
    assert (got["checked"], got["patients"], got["exact"]) == (True, 0, 0)
    assert got["first"] == [] and "LEAK" not in exposure.line("upstream", got)


def test_between_the_splits(tmp_path):
    root = csv_set(tmp_path / "u", 1, "u")
    rename(root, "u20", "u3")
    shutil.copy(root / "u0.png", root / "u13.png")  # train and valid
    Image.new("L", (96, 96), 9).save(root / "u5.png")  # one value: no duplicates
    Image.new("L", (96, 96), 9).save(root / "u22.png")
    got = exposure.within(exposure.look(opened(root, tmp_path / "cache")))
    assert (got["patients"], got["exact"]) == (1, 2)  # both images of the pair
    assert got["test"] == {"patients": 1, "exact": 0}
    assert got["first"] == ["u20.png", "u0.png", "u3.png", "u13.png"]


def test_ten_images_are_named_at_most_and_all_are_counted(pair, tmp_path):
    seen = exposure.look(opened(pair[0], tmp_path / "cache"))
    got = exposure.within(replace(seen, patients=np.full(24, b"one")))
    assert got["patients"] == 1 and got["test"]["patients"] == 1
    named = [*range(18, 24), *range(4)]  # those of the test split before others
    assert got["first"] == [f"u{k}.png" for k in named]


def test_hashes_come_with_the_cache_and_no_pixel_is_read_for_them(pair, tmp_path):
    data = opened(pair[0], tmp_path / "cache")
    seen = exposure.look(replace(data, images=data.images[:0]))
    rows = np.concatenate(list(data.rows.values()))
    want = [checked.sum_of(image) for image in data.images[rows]]
    assert seen.pixels.tolist() == np.array(want).tolist()
    again = exposure.look(opened(pair[0], tmp_path / "cache"))  # from rows.bin
    assert again.pixels.tolist() == seen.pixels.tolist()


def test_what_cannot_be_compared_says_so(pair, tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "run"
    up, down = (opened(root, cache) for root in pair)
    got = stamped(opened(pair[0], cache, resize=48), down, run)
    assert (got["patients"], got["exact"]) == (1, None)
    assert "same data.resize" in got["why"]
    got = stamped(replace(up, codes=None), down, run)
    assert (got["patients"], got["exact"]) == (1, None) and "encoded" in got["why"]
    notes = {**up.manifest.notes, "patients": "unknown: nobody wrote them down"}
    nobody = replace(up, manifest=replace(up.manifest, notes=notes))
    got = stamped(nobody, down, run)
    assert (got["patients"], got["exact"]) == (None, 1)
    assert "patients of csv are unknown" in got["why"]
    got = exposure.against(tmp_path / "BiT-M-R50x1.npz", exposure.look(down))
    assert got["checked"] is False and "images.npz" in got["why"]
    assert "not checked" in exposure.line("upstream", got)


def test_patients_of_one_member_of_a_union_may_be_unknown(tmp_path):
    m = opened(csv_set(tmp_path / "u", 1, "u"), tmp_path / "cache").manifest
    ids = np.array([f"{'x' if k < 20 else 'y'}/{i}" for k, i in enumerate(m.id)])
    members = {"x": {"patients": "unknown: each its own"}, "y": {}}
    got = exposure.known_patients(replace(m, id=ids, notes={"members": members}))
    assert got.tolist() == [b""] * 20 + [b"u20", b"u21", b"u22", b"u23"]


def test_too_many_images_are_not_looked_at(pair, tmp_path, monkeypatch):
    up, down = (opened(root, tmp_path / "cache") for root in pair)
    monkeypatch.setattr(exposure, "MOST", 23)
    got = stamped(up, down, tmp_path / "run")
    assert got["checked"] is False and "more than 23" in got["why"]


def test_a_transfer_stamps_its_result(pair, tmp_path, capsys):
    """From a run folder that is made up; tests/test_runs.py has a trained one."""
    up, down = pair
    run = load(f"configs/covidx_hyperrule.py:{TOY},phantom=8", tmp_path)
    run.data.reader, run.data.root, run.data.views = "csv", str(down), ()
    run.model.blocks = (1,)
    model = models.build(run.model, 2)
    shape = (1, run.data.crop, run.data.crop, 3)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), shape))["params"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    tree.save_npz(tmp_path / "params.npz", zeros)
    for name in ("config.json", "result.json"):
        about = {"digest": "made up", "config": config.to_dict(run)}
        (tmp_path / name).write_text(json.dumps(about))
    exposure.look(opened(up, tmp_path / "cache")).save(tmp_path)
    run.init.checkpoint, run.keep = str(tmp_path), "upstream"
    transfer.main(run, presets.arg_keys(run.arg), str(tmp_path / "run"))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    leaks = result["leaks"]["upstream"]
    assert leaks["checked"] and leaks["test"] == {"patients": 1, "exact": 1}
    assert result["leaks"]["splits"]["first"] == []
    assert "LEAK (upstream)" in capsys.readouterr().out
    assert not (tmp_path / "run" / "images.npz").exists()  # nobody starts from it


def test_the_form_is_the_side_the_channels_and_both_versions(pair, tmp_path):
    """What two sets of hashes must share, or equal images would not be told."""
    grey = opened(pair[0], tmp_path / "cache")
    seen = exposure.look(grey)
    assert seen.form == (40, 1, decode.VERSION, checked.VERSION)
    colour = replace(grey, images=np.repeat(np.asarray(grey.images), 3, axis=3))
    assert exposure.look(colour).form == (40, 3, decode.VERSION, checked.VERSION)
    got = stamped(colour, grey, tmp_path / "run")
    assert got["exact"] is None and "channels" in got["why"]


def test_a_line_for_people():
    found = {
        "checked": True,
        "patients": 12,
        "exact": 0,
        "test": {"patients": 2, "exact": 0},
        "first": ["a", "b", "c", "d"],
        "why": "",
    }
    assert exposure.line("upstream", found) == (
        "LEAK (upstream): 12 shared patients (2 of the test), 0 shared equal images,"
        " such as a, b, c"
    )
    found |= {"test": {"patients": 0, "exact": 0}, "exact": None, "why": "too many"}
    assert exposure.line("splits", found) == (
        "leaks (splits): 12 shared patients (0 of the test), such as a, b, c; too many"
    )


def test_as_many_images_as_allowed_are_looked_at(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(exposure, "MOST", 24)
    assert len(exposure.look(opened(pair[0], tmp_path / "cache")).ids) == 24
