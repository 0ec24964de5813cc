"""Starting points: of many, some lie near the law that the data come from."""

import numpy as np
import pytest
from test_fits import PLANTED, curve


@pytest.mark.parametrize(
    "form,x,natural", PLANTED, ids=lambda p: getattr(p, "name", "")
)
def test_the_best_starts_nearly_fit_data_without_noise(form, x, natural):
    y = curve(form, x, natural)
    starts = form.starts(np.random.default_rng(0), 4000, y, *form.columns(x))
    off = form.log_y(starts, x) - np.log(y)
    rms = np.sort(np.sqrt((off**2).mean(1)))
    assert rms[0] < 0.08  # 8% of the error
    assert rms[len(rms) // 10] < np.log(y).std()  # a tenth beats a constant
