import json
import math

import numpy as np
import pytest

from bigxfer.analysis import convergence
from bigxfer.analysis.convergence import Curve


def curve(*values):
    return Curve(np.arange(1, len(values) + 1) * 10, np.array(values))


def test_a_curve_is_read_from_metrics(tmp_path):
    rows = [
        {"step": 5, "loss": 1.0},
        {"step": 10, "valid/auroc_macro": 0.6},
        {"step": 20, "valid/auroc_macro": None},
        {"step": 30, "valid/auroc_macro": 0.7},
    ]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = convergence.read(tmp_path)
    assert found.steps.tolist() == [10, 30] and found.values.tolist() == [0.6, 0.7]
    file.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(ValueError, match="1 validations of auroc_macro"):
        convergence.read(tmp_path)


def test_steps_to_a_target():
    assert convergence.steps_to(curve(0.5, 0.9, 0.8, 0.95), 0.9) == 20
    assert convergence.steps_to(curve(0.5, 0.6), 0.9) == math.inf


def test_speed_up():
    random = curve(0.5, 0.6, 0.7, 0.8, 0.7)
    assert convergence.speed_up(random, curve(0.8, 0.9)) == 4
    assert convergence.speed_up(random, curve(0.5, 0.6, 0.7)) == 0
    assert convergence.speed_up(random, random) == 1
    found = convergence.speed_ups(
        [random] * 3, [curve(0.8), curve(0.7, 0.7, 0.7, 0.9), curve(0.5)]
    )
    assert found["value"] == pytest.approx(2)  # geometric mean of 4 and 1
    assert found["never"] == 1 and found["low"] == 1 and found["high"] == 4
    none = convergence.speed_ups([random], [curve(0.1)])
    assert none["never"] == 1 and math.isnan(none["low"])


def test_overfit_onset():
    assert convergence.overfit_onset(curve(0.5, 0.8, 0.7)) == 20
    assert convergence.overfit_onset(curve(0.5, 0.7, 0.8)) == math.inf
    assert convergence.overfit_onset(curve(0.8, 0.8)) == math.inf
