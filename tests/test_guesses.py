"""Starting points: of many, some lie near the law that the data come from."""

import numpy as np
import pytest
from test_fits import PLANTED, curve

from bigxfer.scaling import guesses

# Of the scatter of ln y: what a tenth of the starts, and a half, miss it by at most, of
# laws of one scale, of two, and of two and a distance.
NEAR = {1: (0.1, 0.3), 2: (0.55, 2.0), 3: (0.4, 1.1)}


@pytest.mark.parametrize(
    "form,x,natural", PLANTED, ids=lambda p: getattr(p, "name", "")
)
def test_the_best_starts_nearly_fit_data_without_noise(form, x, natural):
    y = curve(form, x, natural)
    starts = form.starts(np.random.default_rng(0), 4000, y, *form.columns(x))
    off = form.log_y(starts, x) - np.log(y)
    rms = np.sort(np.sqrt((off**2).mean(1)))
    assert rms[0] < 0.08  # 8% of the error
    tenth, half = NEAR[len(form.inputs)]
    assert rms[len(rms) // 10] < tenth * np.log(y).std()
    assert rms[len(rms) // 2] < half * np.log(y).std()
    low, high = np.array(form.bounds(y, *form.columns(x)), float).T
    assert ((low <= starts) & (starts <= high)).all()  # and so none is NaN


def test_floors_are_spread_from_0_to_the_smallest_error():
    floors = guesses._floors(np.random.default_rng(0), 4000, np.array([0.5, 0.2]))
    assert floors.shape == (4000, 1) and 0 <= floors.min() < 0.001
    assert 0.199 < floors.max() < 0.2  # below it: the logarithm of the rest is taken
    assert np.median(floors) == pytest.approx(0.1, abs=0.01)
