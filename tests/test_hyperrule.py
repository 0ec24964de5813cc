"""The HyperRule at its borders, against the published function."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from test_split import manifest

from bigxfer import presets
from bigxfer.data import dataset
from bigxfer.protocols import optim
from bigxfer.protocols.hyperrule import branch, rule
from bigxfer.runs import config_json


def published_lr(step, dataset_size, base_lr=0.003):
    """google-research/big_transfer at 140de6e, bit_hyperrule.py, retold."""
    if dataset_size < 20_000:
        supports = [100, 200, 300, 400, 500]
    elif dataset_size < 500_000:
        supports = [500, 3000, 6000, 9000, 10_000]
    else:
        supports = [500, 6000, 12_000, 18_000, 20_000]
    if step < supports[0]:
        return base_lr * step / supports[0]
    if step >= supports[-1]:
        return None
    for s in supports[1:]:
        if s < step:
            base_lr /= 10
    return base_lr


SCHEDULES = {
    # examples: (steps, warm-up, boundaries of code, boundaries of paper, mixup)
    1: (500, 100, (200, 300, 400), (150, 300, 450), 0.0),
    19_999: (500, 100, (200, 300, 400), (150, 300, 450), 0.0),
    20_000: (10_000, 500, (3000, 6000, 9000), (3000, 6000, 9000), 0.1),
    499_999: (10_000, 500, (3000, 6000, 9000), (3000, 6000, 9000), 0.1),
    500_000: (20_000, 500, (6000, 12_000, 18_000), (6000, 12_000, 18_000), 0.1),
    1_281_167: (20_000, 500, (6000, 12_000, 18_000), (6000, 12_000, 18_000), 0.1),
}


@pytest.mark.parametrize("examples", SCHEDULES)
def test_schedule_at_the_borders(examples):
    steps, warmup, code, paper, mixup = SCHEDULES[examples]
    for variant, boundaries in (("code", code), ("paper", paper)):
        got = rule(examples, 224 * 224, variant)
        assert (got.steps, got.warmup_steps, got.mixup) == (steps, warmup, mixup)
        assert got.boundaries == boundaries
        assert (got.lr, got.batch, got.momentum) == (0.003, 512, 0.9)


PIXELS = {
    # (area, variant, R152x4): (resize, crop)
    (32 * 32, "code", False): (160, 128),
    (96 * 96 - 1, "code", False): (160, 128),
    (96 * 96, "code", False): (512, 480),
    (224 * 224, "code", True): (512, 480),
    (96 * 96 - 1, "paper", False): (160, 128),
    (96 * 96 - 1, "paper", True): (160, 128),
    (96 * 96, "paper", False): (448, 384),
    (96 * 96, "paper", True): (512, 480),
}


@pytest.mark.parametrize("area, variant, big", PIXELS)
def test_pixels_at_the_borders(area, variant, big):
    got = rule(1000, area, variant, big)
    assert (got.resize, got.crop) == PIXELS[area, variant, big]


@pytest.mark.parametrize("examples", SCHEDULES)
def test_code_is_the_published_schedule_at_every_step(examples):
    got = rule(examples, 1, "code")
    for step in range(got.steps):
        lr = got.lr * min(step / got.warmup_steps, 1)
        lr *= 0.1 ** sum(b < step for b in got.boundaries)
        assert lr == pytest.approx(published_lr(step, examples), rel=1e-12)
    assert published_lr(got.steps, examples) is None


@pytest.mark.parametrize(
    ("area", "pair", "variant", "says"),
    [
        (64 * 64, (512, 480), "code", "about 64 x 64 pixels: ITS PAIR FOR THEM IS 160"),
        (64 * 64, (448, 384), "paper", "ITS PAIR FOR THEM IS 160, crop 128"),
        (64 * 64, (160, 128), "code", "below 96 x 96 pixels: 160, crop 128"),
        (1000 * 900, (160, 128), "code", "ITS PAIR FOR THEM IS 512, crop 480"),
        (1000 * 900, (512, 480), "code", "about 949 x 949"),
        (0, (512, 480), "code", "not known"),
        (64 * 64, (80, 64), "code", ""),
    ],
)
def test_the_branch_of_the_resolution_is_told(area, pair, variant, says):
    line = branch(area, *pair, variant)
    assert says in line and bool(says) == bool(line)
    assert ("ITS PAIR" in line) == ("ITS PAIR" in says)


def test_the_config_takes_the_area_that_it_is_told():
    def pair(arg):
        data = presets.load(f"configs/covidx_hyperrule.py:{arg}").data
        return data.resize, data.crop

    assert pair("pixels=64") == pair("pixels=64,variant=paper") == (160, 128)
    assert (pair("pixels=96"), pair("")) == ((512, 480), (512, 480))
    assert pair("pixels=64,res=64") == (80, 64)


def test_the_area_of_a_sets_images_is_read_from_their_headers(tmp_path):
    names = [f"i{k}" for k in range(40)]  # manifest's ids are its paths
    for k, name in enumerate(names[:-1]):
        Image.new("L", (64, 48) if k % 3 else (300, 300)).save(tmp_path / name, "PNG")
    m = dataclasses.replace(manifest(range(40), [0, 1] * 20), root=str(tmp_path))
    assert dataset.image_area(m, np.arange(40)) == 64 * 48
    assert dataset.image_area(m, np.array([39])) == 0  # there is no such file


def test_bad_input():
    with pytest.raises(ValueError, match="at least 1"):
        rule(0, 1)
    with pytest.raises(ValueError, match="at least 1"):
        rule(1, 0)
    with pytest.raises(ValueError, match="code or paper"):
        rule(1, 1, "papers")
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule(1, 1).steps = 2


def test_a_run_says_its_branch(tmp_path):
    """A set of 100 px under a config that takes images for small."""
    run = presets.load("configs/covidx_hyperrule.py:pixels=64")
    Image.new("L", (100, 100)).save(tmp_path / "i0", "PNG")
    m = dataclasses.replace(manifest([0], [1]), root=str(tmp_path))
    rows = dict.fromkeys(("train", "valid", "test"), np.arange(1))
    data = dataset.Dataset(m, None, rows, {})
    plan = optim.plan(run.optim, 1)
    said = config_json.of(run, "d", plan, data)["data"]["resolution"]
    assert "160, crop 128" in said and "ITS PAIR FOR THEM IS 512" in said
