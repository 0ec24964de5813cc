"""One device or eight: the same training, but for rounding.

In float32 that cannot be tested over many steps: a rounding error of the last bit grows
from step to step, and after ten steps of Adam the losses of one device and of eight are
as far apart as those of two runs whose first weights differ in their last bit. In float64
the unit of rounding is 5e8 times smaller, and what is more than rounding stays.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bigxfer import models, presets
from bigxfer.models import parts
from bigxfer.protocols import optim, phases
from bigxfer.training import loop, sharding
from bigxfer.training.task import Task

BATCH, STEPS = 16, 8
RECIPES = {
    "sgd": {"optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-3, "mixup": 0.2},
    "adam": {"optimizer": "adam", "lr": 1e-3},
}


@pytest.fixture
def double(monkeypatch):
    """Everything in float64, by the forms of the layers that are written for all dtypes."""
    monkeypatch.setattr(jnp, "float32", jnp.float64)
    monkeypatch.setattr(parts, "on_cpu", lambda: False)
    with jax.enable_x64():
        yield np.float64


def losses(recipe, devices, dtype):
    """float64 [STEPS], on this number of devices."""
    run = presets.load(f"configs/covidx_small.py:model=R1-1x0.25,res=16,batch={BATCH}")
    run.model.blocks = (1,)
    run.data.augment, run.model.dtype = "crop", np.dtype(dtype).name
    for name, value in {**RECIPES[recipe], "schedule": "constant"}.items():
        setattr(run.optim, name, value)
    run.optim.lr_batch, run.optim.steps, run.optim.warmup_steps = BATCH, STEPS, 0
    shape = (devices // 2, 2) if devices > 1 else (1, 1)
    mesh = Mesh(
        np.array(jax.devices()[:devices]).reshape(shape),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto,) * 2,
    )
    plan, model = optim.plan(run.optim, 100), models.build(run.model, 3)
    params = model.init(jax.random.key(0), (1, 16, 16, 3))["params"]
    params = jax.tree.map(lambda x: np.asarray(x, dtype), params)
    args = run.optim, run.freeze, run.phase, plan, model, params
    (stage,) = phases.stages(*args)
    state = loop.State(jnp.int32(0), jnp.int32(5), params, {}, stage.tx.init(params))
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    step = jax.jit(loop.make_step(Task(run, plan, 3, False, mesh), stage, BATCH))
    out, rng = [], np.random.default_rng(0)
    for _ in range(STEPS):
        batch = {
            "images": rng.integers(256, size=(BATCH, 20, 20, 1)).astype(np.uint8),
            "labels": rng.integers(3, size=BATCH).astype(np.int32),
            "mask": np.r_[np.ones(BATCH - 3), np.zeros(3)].astype(dtype),
            "index": np.arange(BATCH, dtype=np.int32),
            "position": np.arange(BATCH, dtype=np.int32),
        }
        state, metrics = step(state, jax.device_put(batch, sharding.batch(mesh)))
        out.append(float(metrics["loss"]))
    return np.array(out)


@pytest.mark.parametrize(
    "recipe", ["adam", pytest.param("sgd", marks=pytest.mark.slow)]
)
def test_devices_change_nothing_but_rounding(recipe, double):
    """With mixup, padding and weight decay; the losses move, so that steps matter."""
    one, eight = (losses(recipe, n, double) for n in (1, 8))
    assert np.ptp(one) > 1e-3
    np.testing.assert_allclose(eight, one, rtol=1e-10)
