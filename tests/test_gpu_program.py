"""benchmarks/gpu_program.py: what it counts, what it sets up, its table; no compiler."""

import os
from pathlib import Path

import jax
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TEXT = """HloModule jit_step

%both (p: bf16[2,8]) -> (bf16[2,8], f32[2]) {
  %a = bf16[2,8]{1,0} add(%p, %p), metadata={op_name="jit(step)/add_any"}
  %b = f32[2,8]{1,0} convert(%a), metadata={op_name="jit(step)/group_norm/convert"}
  ROOT %c = f32[2]{0} reduce(%b), metadata={op_name="jit(step)/group_norm/sum"}
}

ENTRY %main (x: bf16[2,8]) -> bf16[2,8] {
  %x.1 = bf16[2,8]{1,0} parameter(0), metadata={op_name="x"}
  %w.1 = f32[8]{0} parameter(1), metadata={op_name="state['standardized_conv2d']"}
  %ws.1 = bf16[8]{0} fusion(%w.1), kind=kLoop, calls=%w, metadata={op_name="jit(step)/standardized_conv2d/sub"}
  %conv.1 = (bf16[2,8]{1,0}, u8[0]{0}) custom-call(%x.1, /*index=1*/%ws.1), custom_call_target="__cudnn$convForward", metadata={op_name="jit(step)/a/conv_general_dilated"}
  %gte.1 = bf16[2,8]{1,0} get-tuple-element(%conv.1), index=0
  %gn.1 = (bf16[2,8]{1,0}, f32[2]{0}) custom-call(%gte.1), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(step)/a/group_norm/pallas_call"}, backend_config={ir = "conv\\\\"}
  %gte.2 = bf16[2,8]{1,0} get-tuple-element(%gn.1), index=0
  %two.1 = (bf16[2,8]{1,0}, f32[2]{0}) fusion(%gte.2), kind=kInput, calls=%both
  %gte.3 = bf16[2,8]{1,0} get-tuple-element(%two.1), index=0
  %new.1 = f32[8]{0} fusion(%w.1), kind=kLoop, calls=%w, metadata={op_name="state['standardized_conv2d']"}
  ROOT %copy.1 = bf16[2,8]{0,1} copy(%gte.3)
}
"""


@pytest.fixture(autouse=True)
def as_scripts(monkeypatch):
    """They import each other as scripts do, by the folder they lie in."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_bytes_of_a_program_by_kind():
    import hlo_bytes

    x, w, line = 2 * 8 * 2, 8 * 4, 2 * 4
    assert hlo_bytes.moved(TEXT) == {
        "bytes": {
            "group norm": 2 * (x + x + line),  # Pallas, and a fusion by its majority
            "convolutions": x + 16 + x,
            "weight standardisation": w + 16,
            "rest": 2 * w + 2 * x,
        },
        "again": x,
    }


def test_the_table_has_a_worst_case_for_the_kernel_alone():
    import gpu_program
    import hlo_bytes

    row = {
        "model": "R50x1",
        "batch": 256,
        "bytes": dict.fromkeys(hlo_bytes.KINDS, 20 * 10**9),
        "temporaries": 10**10,
        "compile_seconds": 60.0,
    }
    rows = [row | {"norm": "plain", "again": 0}]
    rows += [row | {"norm": "kernel", "again": 20 * 10**9}]
    lines = gpu_program.table(rows).splitlines()
    assert "| 80.0 | 312 | 10.0 | 60 | 13,760 | 32,2" in lines[2]
    assert lines[2].endswith("| 13,760 | 11,689 |")  # 20 GB of convolutions: by FLOP
    assert (
        "| 80.0 (100.0) | 312 (391) | 10.0 | 60 | 13,760 (11,008 at worst)" in lines[3]
    )
    assert "13,000 images/s" in lines[-1]
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    import gpu_program

    monkeypatch.setattr(os, "environ", dict(os.environ))
    cuda, toolkit = tmp_path / "cuda", tmp_path / "toolkit"
    with pytest.raises(SystemExit, match="no jax_cuda12_plugin"):
        gpu_program.prepare(cuda, toolkit)
    for package in ("jax_cuda12_plugin", "jax_cuda12_pjrt"):
        (cuda / f"{package}-{jax.__version__}.dist-info").mkdir(parents=True)
    with pytest.raises(SystemExit, match="no ptxas: install nvidia-cuda-nvcc-cu12"):
        gpu_program.prepare(cuda, toolkit)
    (cuda / "deep").mkdir()
    for name in ("ptxas", "libdevice.10.bc"):
        (cuda / "deep" / name).touch()
    gpu_program.prepare(cuda, tmp_path / "again")
    assert (tmp_path / "again/nvvm/libdevice/libdevice.10.bc").exists()


def test_the_forms_agree():
    import jax.numpy as jnp
    import norms

    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 64))
    forms = norms.forms()
    assert tuple(forms) == norms.NAMES
    plain, closed = (forms[n](x, *jnp.ones((2, 64)), 32) for n in ("plain", "closed"))
    assert jnp.abs(plain - closed).max() < 1e-5
