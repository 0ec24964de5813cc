"""The HyperRule at its borders, against the published function."""

import dataclasses

import pytest

from bigxfer.protocols.hyperrule import rule


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


def test_bad_input():
    with pytest.raises(ValueError, match="at least 1"):
        rule(0, 1)
    with pytest.raises(ValueError, match="at least 1"):
        rule(1, 0)
    with pytest.raises(ValueError, match="code or paper"):
        rule(1, 1, "papers")
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule(1, 1).steps = 2
