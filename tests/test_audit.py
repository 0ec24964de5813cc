import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_leakage import copied, scenes
from test_split import manifest

from bigxfer import audit
from bigxfer.data.dataset import Dataset
from bigxfer.data.pixels import decode
from bigxfer.report import audit_page

ROOT = Path(__file__).parents[1]


def write(folder, images, labels, patients, splits):
    """A folder in the layout of the csv reader."""
    folder.mkdir()
    lines = ["file,label,patient_id,split"]
    for k, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{k}.png")
        lines.append(f"{k}.png,{labels[k]},{patients[k]},{splits[k]}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def test_an_audit_of_two_sets_finds_what_was_planted(tmp_path):
    rng = np.random.default_rng(0)
    a, b = scenes(60), scenes(50, seed=3)
    a[30] = a[0]  # exact, across splits, another patient, another label
    b[7] = copied(a[5], 0.03, 96, rng)[..., None]  # near, against
    labels = ["x", "y"] * 30
    labels[30] = "y"
    splits = ["train"] * 30 + ["test"] * 30
    patients = [f"p{k}" for k in range(60)]
    patients[40] = "p3"  # a patient in two splits
    write(tmp_path / "a", a, labels, patients, splits)
    with open(tmp_path / "a" / "metadata.csv", "a") as file:
        file.write("60.png,x,p60,train\n")
    (tmp_path / "a" / "60.png").touch()
    people = ["p9", *(f"q{k}" for k in range(49))]
    write(tmp_path / "b", b, ["x", "y"] * 25, people, ["train"] * 50)
    (tmp_path / "b.py").write_text(
        "from bigxfer import config\n"
        "def get_config(arg=''):\n"
        "    run = config.Run(arg=arg)\n"
        "    run.optim.steps, run.optim.schedule = 1, 'constant'\n"
        f"    run.data.reader, run.data.root = 'csv', arg.partition('=')[2]\n"
        f"    run.data.views, run.data.resize, run.data.crop = (), 80, 64\n"
        f"    run.data.cache = {str(tmp_path / 'cache')!r}\n"
        "    return run\n"
    )
    config = tmp_path / "b.py"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bigxfer.audit"),
            f"--config={config}:root={tmp_path / 'a'}",
            f"--against={config}:root={tmp_path / 'b'}",
            f"--workdir={tmp_path / 'out'}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert report["within"]["patients in two splits"] == {"count": 1, "first": ["p3"]}
    (pair,) = report["within"]["pairs"]
    assert pair["exact"] and pair["across splits"] and pair["labels differ"]
    assert not pair["same patient"]
    assert {side["id"] for side in pair["sides"]} == {"0.png", "30.png"}
    assert report["against"]["patients in both"] == {"count": 1, "first": ["p9"]}
    (pair,) = report["against"]["pairs"]
    assert [side["id"] for side in pair["sides"]] == ["5.png", "7.png"]
    assert not pair["exact"] and not report["synthetic"]
    page = (tmp_path / "out" / "audit.html").read_text()
    assert page.count("<img") == 4
    assert "of the usual difference" in page and "differs (1 - correlation)" in page
    assert "<td>60.png</td><td>empty file</td>" in page
    assert "undecodable images               1" in done.stdout
    assert "exact duplicates                 1" in done.stdout


@pytest.mark.parametrize("people", ["each image its own", "all images bear one id"])
def test_unknown_patients_are_not_counted_as_no_leak(people):
    """A count of 0 would say that somebody had looked."""
    images, n = scenes(24), 24
    images[20] = images[0]
    patients = ["ANON"] * n if "one" in people else [f"i{k}" for k in range(n)]
    m = manifest(patients, [k % 2 for k in range(n)])
    halves = np.array(["train"] * 12 + ["test"] * 12, object)
    known = replace(m, split=halves, patient=np.array([f"p{k % 20}" for k in range(n)]))
    m = replace(m, split=halves, notes={"patients": f"unknown: {people}"})
    rows = {"train": np.arange(12), "valid": np.arange(0), "test": np.arange(12, n)}
    a, b = (Dataset(x, images, rows, {}) for x in (m, known))
    report = audit.audit(a, b)
    text, page = audit.table(report), audit_page.page(report, [a, b])
    for line in (
        "patients in two splits           not known: the patients of toy are unknown",
        "patients in both                 not known: the patients of toy are unknown",
        "  of another patient             not known: the patients of toy are unknown",
        "patients                         unknown",
    ):
        assert line in text
        assert line.split()[-1] in page
    assert ("fewer than 5 patients" in text) == ("one" in people)
    assert report["within"]["pairs"][0]["same patient"] is None
    report = audit.audit(b)
    assert report["within"]["patients in two splits"]["count"] == 4
    assert report["within"]["pairs"][0]["same patient"] is True


def test_a_conflict_needs_a_class_that_both_know():
    one = manifest([1, 2], [[1, 0, np.nan], [0, 0, 1]])
    assert audit.conflict(one, 0, one, 1)
    two = manifest([1], [[1, np.nan, 0]])
    assert not audit.conflict(one, 0, two, 0)
    single = manifest([1, 2], [0, 2])
    assert audit.conflict(single, 0, single, 1)
    assert not audit.conflict(single, 0, single, 0)
    assert not audit.conflict(single, 0, two, 0)


def test_the_png_writer_is_read_back():
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (9, 9, channels), np.uint8)
        np.testing.assert_array_equal(
            decode.decode(decode.to_png(pixels), 9, channels), pixels
        )
