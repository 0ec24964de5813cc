"""The bank of Gabor filters against its formula, a filter at a time."""

import itertools
import math

import numpy as np
import pytest

from bigxfer.config import ConfigError
from bigxfer.protocols import gabor


def filters(size, wavelengths):
    """Petkov & Kruizinga 1997, equations 1 and 4, at a bandwidth of one octave."""
    ratio = (2**1 + 1) / (2**1 - 1)
    for length, turn, quarter in itertools.product(wavelengths, range(8), range(2)):
        sigma = length / math.pi * math.sqrt(math.log(2) / 2) * ratio
        theta, out = turn * math.pi / 8, np.empty((size, size))
        for row, column in itertools.product(range(size), range(size)):
            y, x = row - (size - 1) / 2, column - (size - 1) / 2
            along = x * math.cos(theta) + y * math.sin(theta)
            wave = math.cos(2 * math.pi * along / length - quarter * math.pi / 2)
            out[row, column] = wave * math.exp(-(x * x + y * y) / (2 * sigma * sigma))
        yield (out - out.mean()) / out.std()


@pytest.mark.parametrize(
    "size, count, wavelengths",
    [
        (7, 64, [3, 3 * (7 / 3) ** (1 / 3), 3 * (7 / 3) ** (2 / 3), 7]),
        (5, 20, [3, 5]),
        (6, 16, [3]),
    ],
)
def test_the_bank_is_its_formula(size, count, wavelengths):
    bank = gabor.bank(size, count, 0.25)
    assert bank.shape == (size, size, 3, count) and bank.dtype == np.float32
    want = list(filters(size, wavelengths))[:count]
    for colour in range(3):
        for i, one in enumerate(want):
            np.testing.assert_allclose(bank[:, :, colour, i], 0.25 * one, atol=1e-5)


def test_four_pixels_hold_no_wave():
    with pytest.raises(ConfigError, match="5 pixels or more, not 4"):
        gabor.bank(4, 16, 1.0)
