"""The GPU kernel of benchmarks/: its numbers, interpreted, and that it lowers for CUDA."""

import argparse
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bigxfer.models import parts

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def as_scripts(monkeypatch):
    """They import each other as scripts do, by the folder they lie in."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def results(form, x, gamma, beta, dy):
    """(y, dx, dgamma, dbeta)."""
    y, back = jax.vjp(form, x, gamma, beta)
    return y, *back(dy)


@pytest.mark.parametrize(
    ("shape", "groups", "dtype"),
    [
        ((2, 3, 2, 2048), 32, "float32"),
        ((2, 20, 31, 64), 32, "float32"),  # 2 tiles forward and 3 backward, not full
        ((2, 5, 5, 24), 8, "float32"),  # groups of 3 channels in 4 lanes
        ((1, 34, 31, 64), 32, "bfloat16"),  # 3 tiles and 5
        ((2, 5, 4, 48), 6, "bfloat16"),  # 6 groups, 4 a program
    ],
)
def test_values_and_gradients_are_those_of_the_plain_form(shape, groups, dtype):
    import group_norm_kernel as kernel

    keys, channels = jax.random.split(jax.random.key(0), 4), shape[-1]
    x, dy = (jax.random.normal(k, shape, jnp.dtype(dtype)) for k in keys[:2])
    gamma, beta = (jax.random.normal(k, (channels,)) for k in keys[2:])
    ours = partial(kernel.group_norm_relu, groups=groups, eps=1e-5, interpret=True)
    plain = partial(parts.group_norm_relu_plain, groups=groups, eps=1e-5)
    found, wanted = (
        jax.jit(partial(results, form))(2 * x + 0.5, gamma, beta, dy)
        for form in (ours, plain)
    )
    rounded = 1e-2 if dtype == "bfloat16" else 1e-6
    for a, b, share in zip(found, wanted, [rounded, rounded, 1e-6, 1e-6], strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=share * np.abs(b).max())


def test_groups_have_one_size():
    import group_norm_kernel as kernel

    with pytest.raises(ValueError, match="50 channels do not make 32 groups"):
        kernel.group_norm_relu(jnp.ones((1, 2, 2, 50)), *jnp.ones((2, 50)), 32, 1e-5)


def test_it_lowers_for_cuda():
    """To Triton's IR, which XLA compiles further on a GPU (jaxlib 0.10.2)."""
    import group_norm
    import group_norm_kernel as kernel

    cases = [((64, s, s, c), 32, jnp.bfloat16) for s, c in group_norm.SHAPES]
    cases += [((64, 56, 56, 64), 32, jnp.float32), ((4, 5, 5, 24), 8, jnp.float32)]
    for shape, groups, dtype in cases:
        form = partial(kernel.group_norm_relu, groups=groups, eps=1e-5)
        x = jax.ShapeDtypeStruct(shape, dtype)
        line = jax.ShapeDtypeStruct(shape[-1:], jnp.float32)
        traced = jax.jit(partial(results, form)).trace(x, line, line, x)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert len(re.findall(r"custom_call @\S*triton", text)) == 2


def test_the_benchmark_s_column(monkeypatch):
    import group_norm
    import group_norm_kernel as kernel

    interpreted = partial(kernel.group_norm_relu, interpret=True)
    monkeypatch.setattr(kernel, "group_norm_relu", interpreted)
    monkeypatch.setattr(group_norm, "SHAPES", ((3, 64),))
    args = argparse.Namespace(batch=2, dtype="float32", seconds=0.01, kernel=True)
    [without] = group_norm.measure(args)
    assert "kernel" not in without and "left out" in group_norm.table([without])
    assert without["plain"] > 0 and without["closed"] > 0
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    [row] = group_norm.measure(args)
    assert row["kernel"] > 0 and row["kernel_apart"] < 1e-6
    assert "left out" not in group_norm.table([row])
