"""Exports open elsewhere and compute the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest
from make_run import CLASSES, make_run
from make_timm_golden import names_of

from bigxfer import export, tree
from bigxfer.data import augment
from bigxfer.models import weights
from bigxfer.models.bit import Groups
from bigxfer.runs import finished

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden" / "timm_r50x1.npz"
TIMM_PYTHON = os.environ.get("TIMM_PYTHON", "")


def run_export(folder, to, out, *flags, monkeypatch):
    call = ["export", f"--run={folder}", f"--to={to}", f"--out={out}", *flags]
    monkeypatch.setattr(sys, "argv", call)
    export.main(export.arguments())
    return json.loads(out.with_name(f"{out.name}.json").read_text())


def logits_of(folder, images):
    run = finished.open(folder)
    return jax.jit(lambda x: run.model.apply(run.variables, x, False)[0])(images)


def floats(n, side=32):
    return np.random.default_rng(0).uniform(-1, 1, (n, side, side, 3)).astype("f4")


def python(code, cwd, *args, executable=sys.executable):
    call = [executable, "-W", "ignore", "-c", code, *args]
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        call, cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_names_are_those_of_timm():
    names = np.load(GOLDEN)["timm_names"].tolist()
    ours = [weights.timm_to_ours(name) for name in names]
    assert [weights.ours_to_timm(name) for name in ours] == names
    for wrong in ("block1/unit01/d/group_norm/gamma", "block1/unit01/bias", "stem"):
        with pytest.raises(ValueError, match="no parameter of a BiT"):
            weights.ours_to_timm(wrong)


@pytest.mark.parametrize(
    ("to", "ending"), [("timm", "safetensors"), ("bit_npz", "npz")]
)
def test_there_and_back(tmp_path, monkeypatch, to, ending):
    """What is written is what our own loader reads, bit by bit."""
    folder = make_run(tmp_path / "run", "R1-2-1-1x1")
    out = tmp_path / f"net.{ending}"
    about = run_export(folder, to, out, monkeypatch=monkeypatch)
    params = finished.open(folder).variables["params"]
    back = weights.load(out, params, keep_head=True)
    assert tree.digest(back) == tree.digest(params)
    assert about["classes"] == list(CLASSES) and about["synthetic"] is True
    assert "SYNTHETIC" in about["notice"] and "no diagnostic" in about["notice"]
    assert 1 < about["temperature"] < 20  # the predictions are overconfident
    assert "[-1, 1]" in about["images"] and "40 x 40" in about["images"]


def test_bit_names(tmp_path, monkeypatch):
    """The names of BiT's files, from a list that was not made by weights.py."""

    stages = [SimpleNamespace(blocks=range(n)) for n in (1, 2, 1, 1)]
    named = names_of(SimpleNamespace(stages=stages))
    want = {f"resnet/{name}" for name in named.values()}
    folder, out = make_run(tmp_path / "run", "R1-2-1-1x1"), tmp_path / "net.npz"
    run_export(folder, "bit_npz", out, monkeypatch=monkeypatch)
    with np.load(out) as arrays:
        assert set(arrays.files) == want
        assert arrays["resnet/root_block/standardized_conv2d/kernel"].shape[-1] == 64
        assert arrays["resnet/head/conv2d/kernel"].shape == (1, 1, 2048, 3)


ALONE = """
import json, sys
sys.modules["bigxfer"] = None
import numpy as np
for kind in sys.argv[1:]:
    x = np.load(f"{kind}.npy")
    names = {"images": x[1:]}
    exec(json.load(open(f"{kind}.jaxexport.json"))["open"], names)
    both = [names["net"].call(x[:1]), names["logits"]]
    np.save(f"{kind}.npy", np.concatenate(both))
assert not [m for m in sys.modules if m.startswith("bigxfer.")]
"""


def test_stablehlo_runs_with_jax_alone(tmp_path, monkeypatch):
    """In another process, without bigxfer, one and four images at a time."""
    pytest.importorskip("flatbuffers")
    folder = make_run(tmp_path / "run")
    draw = np.random.default_rng(0).integers
    grey = draw(0, 256, (5, 40, 40, 1), np.uint8)
    images = {"float32": floats(5), "uint8": grey}
    seen = {"float32": images["float32"], "uint8": augment.eval_view(grey, 32)}
    said = {"float32": "[n, 32, 32, 3]", "uint8": "uint8 [n, 40, 40, 1]"}
    for kind, pixels in images.items():
        out, flags = tmp_path / f"{kind}.jaxexport", f"--input={kind}"
        about = run_export(folder, "stablehlo", out, flags, monkeypatch=monkeypatch)
        assert said[kind] in about["images"]
        np.save(tmp_path / f"{kind}.npy", pixels)
    python(ALONE, tmp_path, *images)
    for kind in images:
        want = np.asarray(logits_of(folder, seen[kind]))
        assert np.ptp(want) > 0.1
        found = np.load(tmp_path / f"{kind}.npy")
        np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())


IN_TIMM = """
import sys
sys.path.insert(0, sys.argv[1])
import make_timm_golden
make_timm_golden.stub_torchvision()
import json, numpy as np, torch
names = {}
exec(json.load(open(sys.argv[2] + ".json"))["open"], names)
net = names["net"].eval()
x = torch.tensor(np.load("images.npy").transpose(0, 3, 1, 2))
with torch.no_grad():
    np.save("logits.npy", net(x).numpy())
"""


NARROW = ("R1-1-1-1x0.5", "R1-2-1-1x0.25", "R1-1-1-1x0.125")


@pytest.mark.slow
@pytest.mark.skipif(not TIMM_PYTHON, reason="TIMM_PYTHON names no Python with timm")
@pytest.mark.parametrize(
    ("model", "ending", "fields"),
    [
        *((m, "safetensors", {}) for m in ("R1-2-1-1x1", "R1-1-1-1x1.5", "R50x1")),
        *((m, ending, {}) for m in NARROW for ending in ("safetensors", "npz")),
        ("R1-1-1-1x0.5", "npz", {"model__narrow": "same"}),
        ("R1-1-1-1x1", "safetensors", {"model__groups": 16}),
    ],
)
def test_timm_gives_the_same_logits(tmp_path, monkeypatch, model, ending, fields):
    """Real timm, by the lines that the export itself says open the file."""
    folder = make_run(tmp_path / "run", model, **fields)
    out = tmp_path / f"net.{ending}"
    to = "timm" if ending == "safetensors" else "bit_npz"
    about = run_export(folder, to, out, monkeypatch=monkeypatch)
    assert ("resnetv2_50x1_bit" in about["open"]) == (model == "R50x1")
    if to == "bit_npz" and fields:  # BiT's own rule, so that its own code is named
        assert "load_from" in about["open"]
        return
    images = floats(2, 64)
    np.save(tmp_path / "images.npy", images)
    python(IN_TIMM, tmp_path, str(TESTS), out.name, executable=TIMM_PYTHON)
    want = np.asarray(logits_of(folder, images))
    found = np.load(tmp_path / "logits.npy")
    assert np.abs(found - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("to", ["timm", "bit_npz"])
def test_the_groups_of_a_narrow_net_are_in_what_opens_it(tmp_path, monkeypatch, to):
    """And in the file's JSON, so that it is a start for a net of the same groups."""
    folder = make_run(tmp_path / "run", "R1-1-1-1x0.25")
    out = tmp_path / ("net.safetensors" if to == "timm" else "net.npz")
    about = run_export(folder, to, out, monkeypatch=monkeypatch)
    groups = {"16": 8, "32": 16, "64": 32, "128": 32, "256": 32, "512": 32}
    assert about["groups"] == groups
    built, loaded = opened_by_stubs(about["open"])
    norm = built["norm_layer"]
    assert {str(c): norm(c, eps=1)["num_groups"] for c in map(int, groups)} == groups
    assert norm(16, eps=1)["eps"] == 1  # whatever else timm passes on
    assert built["channels"] == [64, 128, 256, 512] and built["stem_chs"] == 16
    assert loaded == out.name
    params = finished.open(folder).variables["params"]
    weights.check_groups(out, params, Groups(32))
    with pytest.raises(ValueError, match="8 groups at 16 channels"):
        weights.check_groups(out, params, Groups(4))


def opened_by_stubs(lines):
    """(what ResNetV2 is given, the file that is loaded) by lines that open an export."""
    built, loaded = {}, []

    def net(blocks, **kw):
        built.update(kw)
        load = {"load_state_dict": loaded.append, "load_pretrained": loaded.append}
        return SimpleNamespace(**load)

    def norm(channels, num_groups, **kw):
        return {"num_groups": num_groups, **kw}

    timm = SimpleNamespace(
        models=SimpleNamespace(resnetv2=SimpleNamespace(ResNetV2=net)),
        layers=SimpleNamespace(GroupNormAct=norm, StdConv2d=norm),
    )
    torch = SimpleNamespace(load_file=lambda name: name)
    stubs = {"timm": timm, "safetensors": SimpleNamespace(torch=torch)}
    with mock.patch.dict(sys.modules, {**stubs, "safetensors.torch": torch}):
        exec(lines, {})  # noqa: S102 - the lines are ours
    return built, loaded[0]


@pytest.mark.parametrize(
    ("model", "fields", "to", "out", "why"),
    [
        ("cbr_tiny", {}, "timm", "n.safetensors", "cbr_tiny is no BiT"),
        ("cbr_tiny", {}, "bit_npz", "n.npz", "take --to stablehlo"),
        ("R1-1-1-1x0.3", {}, "timm", "n.safetensors", "timm rounds channels"),
        ("R1-1-1-1x0.3", {}, "bit_npz", "n.npz", "timm rounds channels"),
        (
            "R1-1-1-1x0.5",
            {"model__slim_above": "block1"},
            "timm",
            "n.safetensors",
            "four stages",
        ),
        ("R1-1x0.5", {}, "timm", "n.safetensors", "four stages"),
        ("R1-1-1-1x0.25", {}, "timm", "n.pth", "must end in .safetensors"),
    ],
)
def test_refusals(tmp_path, monkeypatch, model, fields, to, out, why):
    folder = make_run(tmp_path / "run", model, **fields)
    with pytest.raises(ValueError, match=why) as error:
        run_export(folder, to, tmp_path / out, monkeypatch=monkeypatch)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("n.*"))


def test_a_run_without_parameters_says_what_to_do(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    (folder / "params.npz").unlink()
    with pytest.raises(ValueError, match="--config.keep=all"):
        run_export(folder, "bit_npz", tmp_path / "n.npz", monkeypatch=monkeypatch)
    (folder / "result.json").unlink()
    with pytest.raises(ValueError, match="no finished run"):
        run_export(folder, "bit_npz", tmp_path / "n.npz", monkeypatch=monkeypatch)
