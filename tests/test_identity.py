"""A run's numbers are of the data that it names: other data are refused, moved data are known."""

import dataclasses
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigxfer import config, presets, transfer
from bigxfer.data import dataset, identity
from bigxfer.runs import finished, folders
from bigxfer.study import grid
from launch import worker

pytestmark = pytest.mark.usefixtures("single_device")

CASES = Path(__file__).parents[2] / "shared" / "cases"


def hospital(folder, seed=0):
    """24 noise images of two classes in a csv."""
    folder.mkdir(parents=True)
    rng, lines = np.random.default_rng(seed), ["file,label,patient_id,split"]
    for i in range(24):
        pixels = rng.integers(0, 256, (32, 32), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.bmp")  # all of one size
        lines.append(f"{i}.bmp,{'ab'[i % 2]},p{i},{'test' if i > 15 else 'train'}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def of(root, cache, seed=0, **fields):
    data = config.Data(reader="csv", root=str(root), resize=32, crop=32, **fields)
    data = dataclasses.replace(data, cache=str(cache), valid=0.25)
    return dataset.open(data, seed, lambda line: None).identity


def edit(root, old, new):
    table = root / "metadata.csv"
    table.write_text(table.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda a: edit(a, "3.bmp,b", "3.bmp,a"), ["labels"]),
        (lambda a: edit(a, ",p3,", ",p4,"), ["images"]),
        (lambda a: edit(a, "p3,train", "p3,test"), ["split", "rows"]),
        (lambda a: Image.new("L", (32, 32), 9).save(a / "3.bmp"), ["pixels"]),
        (lambda a: os.utime(a / "3.bmp", (1, 1)), []),
    ],
    ids=["label", "patient", "split", "pixels", "touched"],
)
def test_each_part_is_told_apart(tmp_path, change, what):
    root = hospital(tmp_path / "a")
    before = of(root, tmp_path / "cache")
    there = {*identity.WORDS, "form"} - {"people", "external"}  # this set has neither
    assert set(before) == there
    change(root)
    now = of(root, tmp_path / "cache")
    parts = [part for part in identity.WORDS if part in before]
    differs = [part for part in parts if before[part] != now[part]]
    assert set(what) <= set(differs) <= {*what, "rows", "split"}
    assert identity.differences(before, now) == [identity.WORDS[p] for p in differs]
    assert (identity.name(before) == identity.name(now)) == (not what)


def test_it_is_of_the_content_not_of_the_place(tmp_path):
    root = hospital(tmp_path / "a")
    before = of(root, tmp_path / "cache")
    moved = shutil.copytree(root, tmp_path / "elsewhere" / "b")
    assert of(moved, tmp_path / "other cache") == before
    drawn = of(root, tmp_path / "cache", shots="2")
    assert {p for p in before if before[p] != drawn[p]} == {"rows"}
    assert drawn["rows"] != of(root, tmp_path / "cache", seed=1, shots="2")["rows"]
    other = {**before, "pixels": "x", "form": "raw, decoder 0"}
    assert identity.differences(before, other) == []  # these cannot be compared


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(folder of a finished transfer on hospital A, its config, what it said)."""
    top = tmp_path_factory.mktemp("done")
    root = hospital(top / "A")
    run = presets.load(
        "configs/covidx_small.py:model=R1-1x0.125,res=32,batch=8,steps=2"
    )
    run.data.reader, run.data.root, run.data.cache = (
        "csv",
        str(root),
        str(top / "cache"),
    )
    run.init.kind, run.init.upstream, run.eval.resamples = "random", "", 0
    run.model.blocks = (1,)
    transfer.main(run, {"data.root"}, str(top / "run"))
    return top, run


def again(done, tmp_path, root, caplog, change=lambda folder: None):
    """The same command with another root, in a copy of the folder; what it says."""
    top, run = done
    folder = shutil.copytree(top / "run", tmp_path / "run")
    change(folder)
    mine = config.from_dict(config.to_dict(run))
    mine.data.root = str(root)
    caplog.clear()
    logging.getLogger("bigxfer").propagate = True
    with caplog.at_level(logging.INFO, "bigxfer"):
        transfer.main(mine, {"data.root"}, str(folder))
    return folder, caplog.text


def test_a_finished_run_is_reused_on_its_data_and_says_so(done, tmp_path, caplog):
    top, _ = done
    result = (top / "run" / "result.json").read_bytes()
    folder, said = again(done, tmp_path / "1", top / "A", caplog)
    assert (folder / "result.json").read_bytes() == result
    name = finished.read(folder).data_name
    assert (
        "finished already" in said and f"(data {name})" in said and "24 images" in said
    )
    assert "differs now: nothing" in said and "compiled" not in said

    moved = shutil.copytree(top / "A", tmp_path / "moved" / "B")
    folder, said = again(done, tmp_path / "2", moved, caplog)
    assert (folder / "result.json").read_bytes() == result
    assert f"data.root {moved}" in said

    def older(folder):
        about = folders.read(folder / "config.json")
        about |= {"commit": "0123456789"}
        about["versions"]["numpy"] = "1.0"
        folders.write(folder / "config.json", about)
        text = folders.read(folder / "result.json")
        text["files"] = folders.sums(folder)
        folders.write(folder / "result.json", text)

    _, said = again(done, tmp_path / "3", top / "A", caplog, older)
    assert "(then 0123456789)" in said and "numpy" in said and "(then 1.0)" in said

    def without(folder):
        (folder / "params.npz").unlink()
        text = folders.read(folder / "result.json")
        text["files"] = folders.sums(folder)
        folders.write(folder / "result.json", text)

    _, said = again(done, tmp_path / "4", top / "A", caplog, without)
    assert "kept no params.npz" in said and "remove result.json" in said


@pytest.mark.parametrize("half", [False, True], ids=["finished", "half-done"])
def test_other_data_are_refused(done, tmp_path, caplog, half):
    """Noise of the same names and sizes; a label corrected in place; no root at all."""
    top, _ = done

    def halve(folder):
        if half:
            (folder / "result.json").unlink()

    other = hospital(tmp_path / "B", seed=1)
    how = "begun" if half else "done"
    with pytest.raises(ValueError, match=f"was {how} with other data: pixels differ"):
        again(done, tmp_path / "1", other, caplog, halve)
    corrected = shutil.copytree(top / "A", tmp_path / "A")
    edit(corrected, "20.bmp,a", "20.bmp,b")
    with pytest.raises(ValueError, match=f"was {how} with other data: labels differ"):
        again(done, tmp_path / "2", corrected, caplog, halve)
    with pytest.raises(ValueError, match="nowhere"):
        again(done, tmp_path / "3", tmp_path / "nowhere", caplog, halve)


def test_analyses_refuse_other_data_too(done, tmp_path):
    top, _ = done
    found = finished.with_data(top / "run", "", print)
    assert found.data_name in found.line
    with pytest.raises(ValueError, match="other data: pixels differ"):
        finished.with_data(top / "run", str(hospital(tmp_path / "B", 1)), print)


def study(folder, *sweep):
    path = folder / "study_two.py"
    path.write_text(
        "from bigxfer import presets\n\ndef get_config(arg=''):\n"
        "    run = presets.load('configs/covidx_small.py:model=R1-1x0.25,res=32')\n"
        "    run.data.reader, run.init.kind, run.init.upstream = 'csv', 'random', ''\n"
        f"    return run\n\ndef sweep(arg=''):\n    yield from {list(sweep)!r}\n"
    )
    return str(path)


def test_two_roots_in_a_sweep_are_named_apart_or_refused(tmp_path):
    a, b = ({"data.root": str(tmp_path / x)} for x in "ab")
    with pytest.raises(config.ConfigError, match=r"differ in data\.root alone"):
        grid.nodes(study(tmp_path, a, b))
    dotted = {"data.root": f"{tmp_path}/./a"}
    assert len(grid.nodes(study(tmp_path, a, dotted))) in (2, 3)  # one run
    named = [r | {"data.version": n} for r, n in ((a, "a"), (b, "b"))]
    kinds = [n.kind for n in grid.nodes(study(tmp_path, *named))]
    assert kinds.count("transfer") == kinds.count("cache") == 2


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
def test_the_case_of_two_hospitals():
    with pytest.raises(config.ConfigError, match="D_hospitalA.*D_hospitalB"):
        grid.nodes(str(CASES / "study_two_hospitals.py"))


def test_a_cache_tells_nothing_of_draws(tmp_path):
    """Few-shot runs of one set share its cache, and none of their rows."""
    hospital(tmp_path / "a")
    shots = [{"data.root": str(tmp_path / "a"), "data.shots": s} for s in ("1", "2")]
    base = study(tmp_path, *shots)
    cache = grid.nodes(base)[0]
    cache.run.data.cache = str(tmp_path / "cache")
    known = worker.build_cache(cache, {})["identity"]
    assert set(known) == {*identity.SET, "form"}
    for node in grid.nodes(base)[1:]:
        data = dataclasses.replace(node.run.data, cache=str(tmp_path / "cache"))
        mine = dataset.open(data, 3, lambda line: None).identity
        assert "rows" in mine and identity.differences(mine, known) == []


def test_a_study_compares_its_finished_runs_with_the_data_of_now(tmp_path):
    """By the identity that its cache found when a launcher opened it last."""
    nodes = grid.nodes(study(tmp_path, {"data.root": str(tmp_path / "a")}))
    cache, run = nodes
    known = {"images": "1", "labels": "2", "split": "3", "pixels": "4", "form": "raw"}
    about = {
        "digest": run.digest,
        "identity": known | {"rows": "5"},
        "config": config.to_dict(run.run),
    }
    run.folder(tmp_path).mkdir()
    cache.folder(tmp_path).mkdir(parents=True)
    folders.write(run.folder(tmp_path) / "config.json", about)
    files = {"files": folders.sums(run.folder(tmp_path)), "digest": run.digest}
    folders.write(run.folder(tmp_path) / "result.json", files)

    def now(**changes):
        result = {"digest": cache.digest, "identity": known | changes}
        folders.write(cache.folder(tmp_path) / "result.json", result)
        return grid.states(nodes, tmp_path)

    assert [s.state for s in now()] == ["done", "done"]
    assert [s.state for s in now(rows="of the whole set")] == ["done", "done"]
    assert [s.state for s in now(form="raw, later", pixels="9")] == ["done", "done"]
    for part in ("images", "labels", "split", "pixels"):
        states = now(**{part: "other"})
        assert [s.state for s in states] == ["done", "given up"]
        assert f"{identity.WORDS[part]} differ" in states[1].error
    grid.reopen(nodes, tmp_path)
    assert [s.state for s in grid.states(nodes, tmp_path)] == ["ready", "unchecked"]
    later = dataclasses.replace(run, digest="later", needs=(cache.digest, run.digest))
    states = grid.states([*nodes, later], tmp_path)
    assert [s.state for s in states] == ["ready", "unchecked", "waiting"]
    old = {k: v for k, v in about.items() if k != "identity"}  # from before identities
    (run.folder(tmp_path) / "config.json").write_text(json.dumps(old))
    result = run.folder(tmp_path) / "result.json"
    result.write_text(json.dumps({"digest": run.digest}))
    assert [s.state for s in grid.states(nodes, tmp_path)] == ["ready", "done"]
