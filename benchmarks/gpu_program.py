"""What a training step moves on an H200, by XLA's GPU compiler, on a machine without one.

    pip install --target FOLDER --no-deps jax-cuda12-plugin==VERSION \
        jax-cuda12-pjrt==VERSION nvidia-cuda-nvcc-cu12     # VERSION: that of jax
    JAX_PLATFORMS=cpu python benchmarks/gpu_program.py --cuda FOLDER \
        [--cases R50x1:256 R101x3:128 R152x4:64] [--norms plain closed kernel]

A case is MODEL:BATCH at 224 px in bfloat16 with 1000 classes, one piece of the whole
batch, no remat; a norm is a form of group norm + ReLU (norms.py). The step of `fit` is
compiled for a described H200. Nothing is run and nothing is measured. Counted are the
bytes that each operation of the compiled program reads and writes, one time each.

What that leaves out: a kernel that reads an array twice counts once. The candidate does
so with x forward and with x and dy backward, 8 passes for 5 if the L2 holds nothing; its
worst case is the second number. XLA's own reductions and convolutions may do so too. The
algorithms of the convolutions are not tuned (that needs the GPU) and their work space
is not counted. Images/s are ON PAPER, what bandwidth and matrix units allow at best; "in
turn" lets nothing run beside the convolutions.
"""

import argparse
import glob
import os
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import hlo_bytes
import machine
import memory
import norms

HERE = Path(__file__).parent
CASES = ("R50x1:256", "R101x3:128", "R152x4:64")
BANDWIDTH = 4.3e12  # bytes/s that a program may reach: 90% of the 4.8 TB/s published
PEAK = 790e12  # and bfloat16 FLOP/s: 80% of the 989 published
ROOFLINE = {"R50x1": 13_000}  # images/s if nothing is fused, the estimate before this
# NVIDIA's data sheet of the H200 SXM (141 GB, 4.8 TB/s), its white paper on the H100,
# whose chip it has (132 SMs, 50 MB of L2), and the CUDA programming guide's table for
# compute capability 9.0 (threads, registers, shared memory)
H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  name: "NVIDIA H200" device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability 9.0" device_address_bits: 64 ecc_enabled: true
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 l2_cache_size: 52428800
  device_memory_size: 151397597184 memory_bandwidth: 4800000000000
  pcie_bandwidth: 34359738368
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  driver_version: "12.8.0" runtime_version: "12.8.0" dnn_version: "9.10.0"
  compile_time_toolkit_version: "12.8.0"
}
platform_name: "CUDA" device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 10 }
"""


def prepare(cuda: Path, toolkit: Path) -> None:
    """Before jax is imported: its plugin, and what XLA looks for in a CUDA toolkit."""
    version = metadata.version("jax")
    for package in ("jax_cuda12_plugin", "jax_cuda12_pjrt"):
        if not (cuda / f"{package}-{version}.dist-info").is_dir():
            sys.exit(f"--cuda {cuda} has no {package} {version} (that of jax)")
    for place in ("bin/ptxas", "nvvm/libdevice/libdevice.10.bc"):
        name = Path(place).name
        found = glob.glob(f"{glob.escape(str(cuda))}/**/{name}", recursive=True)
        if not found:
            sys.exit(
                f"--cuda {cuda} has no {name}: install nvidia-cuda-nvcc-cu12 there"
            )
        (toolkit / place).parent.mkdir(parents=True)
        (toolkit / place).symlink_to(Path(found[0]).resolve())
    sys.path.insert(0, str(cuda))
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # of libraries that run things
    os.environ["PATH"] = f"{toolkit / 'bin'}:{os.environ['PATH']}"
    flags = (f"--xla_gpu_cuda_data_dir={toolkit}", "--xla_gpu_autotune_level=0")
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])


def compiled(case: str, norm: str) -> dict[str, Any]:
    """A row: bytes of a step by kind, temporaries, seconds to compile."""
    import train_step_jax
    from jax.experimental import topologies

    from bigxfer.models import parts

    model, batch = case.split(":")
    words = {"model": model, "res": 224, "batch": int(batch), "dtype": "bfloat16"}
    run = train_step_jax.settings(words)
    run.mesh.memory_gb = 1e9  # whatever it takes, in one piece
    parts.group_norm_relu = norms.forms()[norm]
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="", topology="1x1x1", target_config=H200
    )
    began = time.monotonic()
    step = memory.compiled_step(run, train_step_jax.CLASSES, topology.devices)
    return {
        "model": model,
        "batch": int(batch),
        "norm": norm,
        **hlo_bytes.moved(step.as_text()),
        "temporaries": step.memory_analysis().temp_size_in_bytes,
        "compile_seconds": time.monotonic() - began,
    }


def on_paper(row: dict[str, Any]) -> dict[str, float]:
    """Images/s if bytes are the bound, the same at worst, and if FLOP are.

    "in_turn": convolutions by the slower of the two, and after them the rest by bytes,
    since operations of a GPU seldom run at once.
    """
    import scaling_model

    whole = sum(row["bytes"].values())
    flops = scaling_model.net(row["model"], 224).train_flops
    convolved = row["bytes"]["convolutions"] / BANDWIDTH
    seconds = max(convolved, row["batch"] * flops / PEAK) - convolved
    return {
        "by_bytes": BANDWIDTH * row["batch"] / whole,
        "by_bytes_worst": BANDWIDTH * row["batch"] / (whole + row["again"]),
        "by_flop": PEAK / flops,
        "in_turn": row["batch"] / (whole / BANDWIDTH + seconds),
    }


def table(rows: list[dict[str, Any]]) -> str:
    head = ["net, batch", "norm", *(f"{k} GB" for k in hlo_bytes.KINDS), "all GB"]
    head += ["MB an image", "temporaries GB", "compiled in s"]
    head += ["on paper: images/s by bytes", "by FLOP", "the lower", "in turn"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in rows:
        paper, whole = on_paper(r), sum(r["bytes"].values())
        found = f"{paper['by_bytes']:,.0f}"
        size, image = f"{whole / 1e9:.1f}", f"{whole / r['batch'] / 1e6:.0f}"
        if again := r["again"]:
            found += f" ({paper['by_bytes_worst']:,.0f} at worst)"
            size += f" ({(whole + again) / 1e9:.1f})"
            image += f" ({(whole + again) / r['batch'] / 1e6:.0f})"
        kinds = " | ".join(f"{r['bytes'][k] / 1e9:.1f}" for k in hlo_bytes.KINDS)
        lines.append(
            f"| {r['model']}, {r['batch']} | {r['norm']} | {kinds} | {size} | {image}"
            f" | {r['temporaries'] / 1e9:.1f} | {r['compile_seconds']:.0f} | {found}"
            f" | {paper['by_flop']:,.0f}"
            f" | {min(paper['by_bytes'], paper['by_flop']):,.0f}"
            f" | {paper['in_turn']:,.0f} |"
        )
    lines += [
        f"\nThe roofline of {model} was {ROOFLINE[model]:,} images/s, nothing fused."
        for model in dict.fromkeys(r["model"] for r in rows)
        if model in ROOFLINE
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cuda", type=Path, required=True, help="the folder of pip")
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--norms", nargs="*", default=norms.NAMES, choices=norms.NAMES)
    parser.add_argument("--out", type=Path, default=HERE / "results/gpu_program.json")
    args = parser.parse_args()
    about, rows = machine.about(), []
    with tempfile.TemporaryDirectory() as toolkit:
        prepare(args.cuda.resolve(), Path(toolkit))
        for case in args.cases:
            for norm in args.norms:
                row = compiled(case, norm)
                rows.append(row | {"paper": on_paper(row)})
                print(rows[-1], flush=True)
                machine.save(args.out, {"about": about, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
