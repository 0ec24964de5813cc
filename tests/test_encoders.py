"""The recipe of docs/encoders.md for timm runs, with random weights."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigxfer.protocols import features
from bigxfer.tables import cells, families

DOCS = Path(__file__).parents[1] / "docs" / "encoders.md"
TIMM_PYTHON = os.environ.get("TIMM_PYTHON", "")
ENCODERS_PYTHON = os.environ.get("ENCODERS_PYTHON", "")  # transformers, torchxrayvision
SMALL_DINO = """
import sys
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model
small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
Dinov2Model(Dinov2Config(**small, image_size=28)).save_pretrained(sys.argv[1])
crop = {"height": 28, "width": 28}
view = BitImageProcessor(size={"shortest_edge": 28}, crop_size=crop)
view.save_pretrained(sys.argv[1])
"""


def recipe(title):
    """The indented block under a heading."""
    section = re.split(rf"^## {title}$", DOCS.read_text(), flags=re.MULTILINE)[1]
    lines = section.split("\n## ")[0].splitlines()
    return "\n".join(line[4:] for line in lines if line.startswith("    "))


@pytest.mark.parametrize(
    "title", ["timm", "Hugging Face transformers", "torchxrayvision"]
)
def test_a_recipe_is_python_of_15_lines(title):
    code = recipe(title)
    compile(code, title, "exec")
    assert len(code.splitlines()) <= 15


def rows_of(model, line, init, value):
    """Two draws of a cell, with limits and no predictions."""
    known = {"model": model, "line": line, "upstream": line, "init": init, "shots": "5"}
    known |= {"target": "own", "params": 1, "test_images": 100, "family": model}
    ends = {"auroc_macro_low": value - 0.01, "auroc_macro_high": value + 0.01}
    ends |= {"auroc_macro": value, "upstream_seed": None}
    return [known | ends | {"seed": s, "folder": f"{model}-{s}"} for s in (0, 1)]


def test_an_encoder_is_compared_with_every_other_start(tmp_path):
    """It shares neither net nor line with them, so that no other family has the pair."""
    rows = rows_of("dino", "photographs", "features", 0.8)
    rows += rows_of("pixels 32 x 32", "pixels", "features", 0.6)
    rows += rows_of("R26x0.25", "scratch", "random", 0.7)
    rows += rows_of("R50x1", "scratch", "random", 0.75)
    reader = cells.PredictionReader(lambda folder: tmp_path / "none" / folder)
    every = families.compare_all(rows, "auroc_macro", reader)
    found = {
        (c.a[0], c.b[0]): (f.title, c.difference.value)
        for f in every
        for c in f.found.values()
    }
    assert len(found) == 6 and sum(len(f.found) for f in every) == 6
    title, value = found["R50x1", "R26x0.25"]
    assert title == "R50x1 minus R26x0.25" and value == pytest.approx(0.05)
    others = {pair: f for pair, f in found.items() if f[0] == "pairs with an encoder"}
    assert len(others) == 5
    sign = 1 if ("dino", "pixels 32 x 32") in others else -1
    pair = ("dino", "pixels 32 x 32")[::sign]
    assert others[pair][1] == pytest.approx(sign * 0.2)


@pytest.mark.slow
@pytest.mark.skipif(not TIMM_PYTHON, reason="TIMM_PYTHON names no Python with timm")
def test_the_timm_recipe_with_random_weights(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    for name in ("a.jpg", "deep/b.jpg"):
        Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(tmp_path / name)
    out = tmp_path / "timm.npz"
    stub = "from make_timm_golden import stub_torchvision; stub_torchvision()\n"
    call = [TIMM_PYTHON, "-c", stub + recipe("timm"), tmp_path, out, "--random"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = features.read(out)
    assert (found.key, found.images.tolist()) == ("path", ["a.jpg", "deep/b.jpg"])
    assert found.values.shape == (2, 512) and found.values.std() > 0
    assert found.parameters == 11176512 and found.domain == "imagenet"


@pytest.mark.slow
@pytest.mark.skipif(not ENCODERS_PYTHON, reason="ENCODERS_PYTHON names no Python")
@pytest.mark.parametrize("title", ["Hugging Face transformers", "torchxrayvision"])
def test_the_other_recipes_with_random_weights(tmp_path, title):
    rng = np.random.default_rng(0)
    (tmp_path / "images/deep").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.jpg"):
        image = Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8))
        image.save(tmp_path / "images" / name)
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    own = ["--random"]
    if "transformers" in title:
        own = [str(tmp_path / "model")]
        subprocess.run([ENCODERS_PYTHON, "-c", SMALL_DINO, *own], check=True, env=env)
    out = tmp_path / "out.npz"
    call = [ENCODERS_PYTHON, "-c", recipe(title), tmp_path / "images", out, *own]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = features.read(out)
    assert (found.key, found.images.tolist()) == ("path", ["a.jpg", "deep/b.jpg"])
    want = 32 if "transformers" in title else 1024
    assert found.values.shape == (2, want) and found.values.std() > 0
    assert found.domain == "chest X-rays" and found.parameters > 1000
