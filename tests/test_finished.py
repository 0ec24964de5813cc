"""A finished run read back: every file has a sum that is compared when it is used."""

import json
import shutil

import numpy as np
import pytest
from make_run import make_run, seal

from bigxfer import durable, tree
from bigxfer.runs import finished, folders, provenance, resume

FLIPS = 20  # of each file


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "run", "R1-1x0.25")
    (folder / "metrics.jsonl").write_text('{"step": 1, "valid/auroc_macro": 0.7}\n')
    return seal(folder)


def used(folder):
    """All that the program takes from a run folder, as plain values."""
    run = finished.read(folder)
    saved = [vars(run.predictions(split)) for split in ("test", "valid")]
    arrays = [x for part in saved for x in part.values()]
    params = tree.flatten(tree.load_npz(run.parameters()))
    curve = run.file("metrics.jsonl").read_bytes()
    return [run.about, run.result, curve, *arrays, *params.items()]


def equal(found, want):
    pairs = zip(found, want, strict=True)
    return all(
        np.array_equal(a, b) if hasattr(a, "dtype") else str(a) == str(b)
        for a, b in pairs
    )


def test_no_flipped_bit_is_used_in_silence(whole, tmp_path):
    """Each flip is refused, or changes nothing that is used."""
    want, rng = used(whole), np.random.default_rng(17)
    folder = shutil.copytree(whole, tmp_path / "run")
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        silent = 0
        for _ in range(FLIPS):
            flipped = bytearray(data)
            flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
            path.write_bytes(flipped)
            try:
                silent += not equal(used(folder), want)
            except ValueError as error:
                assert path.name.removesuffix(".sha256") in str(error)
        path.write_bytes(data)
        assert not silent, f"{silent} of {FLIPS} flips in {path.name} are used"


@pytest.mark.parametrize(
    "name", ["params.npz", "predictions.npz", "predictions_valid.npz"]
)
def test_a_file_of_another_run_is_refused(whole, tmp_path, name):
    """It has a sum of its own beside it, so that result.json alone can tell."""
    mine = shutil.copytree(whole, tmp_path / "mine")
    other = make_run(tmp_path / "other", seed=1, data__crop=24)
    saved = tree.load_npz(other / name)
    first = next(iter(saved))
    tree.save_npz(
        mine / name,
        saved | {"new": np.zeros(1)}
        if name[:2] == "pa"
        else saved | {first: saved[first][::-1]},
    )
    with pytest.raises(ValueError, match=rf"{name} is damaged.*remove result.json"):
        used(mine)
    (mine / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is lost"):
        used(mine)


def test_a_run_from_before_the_sums_is_read(tmp_path):
    folder = make_run(tmp_path / "run")
    assert "format" not in json.loads((folder / "result.json").read_text())
    assert used_files(folder) == 120
    about = durable.read_json(folder / "config.json")
    folders.write(folder / "config.json", about)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"sha256"', '"sha257"'))
    with pytest.raises(ValueError, match="config.json is not as it was written"):
        finished.read(folder)


def used_files(folder):
    return len(finished.read(folder).predictions().ids)


def test_what_a_folder_holds(whole, tmp_path):
    """Nothing, a half-done run, a finished one, a damaged one, another config's."""
    digest = finished.read(whole).digest
    assert resume.begun(tmp_path, digest) == (None, None, "")
    half = shutil.copytree(whole, tmp_path / "half")
    (half / "result.json").unlink()
    about, found, damage = resume.begun(half, digest)
    assert about["digest"] == digest and found is None and damage == ""
    assert resume.begun(whole, digest)[1].result["images"] == 120
    for name in ("result.json", "config.json"):
        bad = shutil.copytree(whole, tmp_path / f"bad {name}")
        (bad / "result.json").write_text("")
        about, found, damage = resume.begun(bad, digest)
        assert about["digest"] == digest and found is None
        assert "result.json is empty" in damage
    with pytest.raises(ValueError, match="another config's run"):
        resume.begun(whole, "another")
    (half / "config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged.*remove"):
        resume.begun(half, digest)


def test_multi_label_shots_from_before_there_were_negatives(tmp_path):
    """They are read as what they are, and are no run of today's draw."""
    folder = make_run(tmp_path / "run", multilabel=True, data__shots="5")
    path = folder / "config.json"
    about = json.loads(path.read_text())
    del about["config"]["data"]["negatives"]
    about["data"]["drawn"] = ["a", "b"]
    path.write_text(json.dumps(about))
    run = finished.read(folder)
    assert run.run.data.negatives == "none"
    with pytest.raises(ValueError, match="before they had images without a finding"):
        resume.begun(folder, run.digest)
    now = {"manifest_hash": "f" * 64, "data": {"drawn": ["a", "b"]}}
    assert provenance.data_differs(about, now) == ""
    now["data"]["drawn"] += ["c"]
    assert "negatives=none" in provenance.data_differs(about, now)
    single = make_run(tmp_path / "single", data__shots="5")
    assert finished.read(single).run.data.negatives == "shots"
