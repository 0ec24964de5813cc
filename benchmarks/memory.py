"""Memory of a training step per device, by the compiler, for TPUs that are not there.

    pip install libtpu
    JAX_PLATFORMS=cpu python benchmarks/memory.py [--cases R152x4:64:1:remat ...]

A case is MODEL:BATCH:FSDP[:remat]: the net at 224 px in bfloat16 with 21,843 classes, the
global batch, and over how many devices parameters and optimizer are split. The step is
lowered as in compiled.py and compiled by XLA's TPU compiler for a described v5p (95 GB
a chip); nothing is allocated or run. A GPU's compiler keeps other temporaries: read
these as the memory of the net, within tens of percent. Prints a table, writes
results/memory.json.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np

HERE = Path(__file__).parent
CASES = (
    "R50x1:64:1",
    "R101x3:64:1",
    "R101x3:64:1:remat",
    "R152x4:64:1",
    "R152x4:64:1:remat",
    "R152x4:64:4",
    "R152x4:64:4:remat",
)
CLASSES = 21_843  # ImageNet-21k, the largest head


def settings(case: str) -> Any:
    """The run of a case."""
    from bigxfer import config, presets

    model, batch, fsdp, *more = case.split(":")
    run = presets.load(
        f"configs/upstream_imagenet.py:model={model},res=224,batch={batch},steps=10"
    )
    run.model.dtype, run.model.remat = "bfloat16", "remat" in more
    run.mesh.fsdp, run.mesh.memory_gb = int(fsdp), 1e9
    return config.resolve(run)


def compiled_step(run: Any, classes: int, devices: Any) -> Any:
    """The step of a run, compiled for devices that are only described."""
    import train_step_jax as ours
    from jax.sharding import AxisType, Mesh

    from bigxfer.models import parts

    parts.on_cpu = lambda: False  # the forms of accelerators
    grid = np.array(devices).reshape(-1, run.mesh.fsdp)
    mesh = Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    return ours.build(run, mesh, classes).step


def compile_case(case: str) -> dict[str, Any]:
    """Bytes on each device, seconds to compile."""
    from jax.experimental import topologies

    run = settings(case)
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1")
    began = time.monotonic()
    step = compiled_step(run, CLASSES, chips.devices[: run.mesh.fsdp])
    memory = step.memory_analysis()
    return {
        "case": case,
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "whole": memory.memory_needed(step),
        "compile_seconds": time.monotonic() - began,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| net, batch, fsdp | state and batch | temporaries | whole | compiled in |"
    ]
    lines.append("|---" * 5 + "|")
    for r in rows:
        if "error" in r:
            lines.append(f"| {r['case']} | | | {r['error']} | |")
            continue
        gb = [f"{r[k] / 1e9:.1f} GB" for k in ("arguments", "temporaries", "whole")]
        lines.append(
            f"| {r['case']} | {' | '.join(gb)} | {r['compile_seconds']:.0f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--out", type=Path, default=HERE / "results/memory.json")
    args = parser.parse_args()
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5p-8",
    }.items():
        os.environ.setdefault(name, value)
    import jax

    if jax.default_backend() != "cpu":
        sys.exit("set JAX_PLATFORMS=cpu: this only compiles")
    about, rows = machine.about(), []
    for case in args.cases:
        try:
            rows.append(compile_case(case))
        except jax.errors.JaxRuntimeError as error:  # more than a chip holds
            said = next(line for line in str(error).splitlines() if line.strip())
            rows.append({"case": case, "error": said[:200]})
        print(rows[-1], flush=True)
    machine.save(args.out, {"about": about, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
