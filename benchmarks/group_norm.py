"""GroupNorm + ReLU, forward and backward, beside the time to move its bytes.

    python benchmarks/group_norm.py [--dtype bfloat16] [--batch 64] [--seconds 2]

The shapes are those of R50x1 at 224 px. Bound: forward reads x and writes y, backward
reads x and dy and writes dx, five passes, at the bandwidth of a copy of the same array
measured in the same run (a copy reads and writes). Asked on an H200: 70% of the bound.
These take turns: the copy, the plain form, the one with its gradient in closed form
and, on a GPU, the kernel that is a candidate there (norms.py; --no-kernel without).
parts.py picks the closed form on a CPU and the plain one elsewhere.

On a GPU a turn queues 20 calls and waits for the last, since to start one may take
longer than its work. Of arrays smaller than the L2 the bound is that of the L2, and
starting them may still be what is timed: --batch 256 makes all of them larger.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import machine
import norms

HERE = Path(__file__).parent
SHAPES = ((112, 64), (56, 64), (56, 256), (28, 512), (14, 1024), (7, 2048))
GROUPS = 32
PASSES = 5


def forms(x: Any, dy: Any, kernel: bool) -> dict[str, Callable[[], Any]]:
    """{name: a call that gives arrays before they are computed}."""
    import jax
    import jax.numpy as jnp

    channels = x.shape[-1]
    gamma, beta = jnp.ones(channels), jnp.zeros(channels)

    def both(form: Callable) -> Callable[[], Any]:
        def step(x: Any, dy: Any) -> Any:
            y, back = jax.vjp(lambda x: form(x, gamma, beta, GROUPS), x)
            return y, back(dy)[0]

        return partial(jax.jit(step), x, dy)

    copy = partial(jax.jit(lambda x: x + jnp.ones((), x.dtype)), x)
    names = [name for name in norms.NAMES if kernel or name != "kernel"]
    return {"copy": copy} | {name: both(norms.forms()[name]) for name in names}


def seconds(call: Callable[[], Any], times: int) -> float:
    """Of one call, when so many are queued."""
    import jax

    began = time.perf_counter()
    for _ in range(times):
        last = call()
    jax.block_until_ready(last)
    return (time.perf_counter() - began) / times


def apart(ours: Any, theirs: Any) -> float:
    """The largest difference in pairs of arrays, as a share of the largest value."""
    import jax.numpy as jnp

    pairs = [[a.astype(jnp.float32) for a in p] for p in zip(ours, theirs, strict=True)]
    return max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of each form for each shape, the least of its turns."""
    import jax
    import jax.numpy as jnp

    gpu, rows = jax.default_backend() == "gpu", []
    for side, channels in SHAPES:
        shape = (args.batch, side, side, channels)
        keys = jax.random.split(jax.random.key(0))
        x, dy = (jax.random.normal(k, shape, jnp.dtype(args.dtype)) for k in keys)
        calls = forms(x, dy, gpu and args.kernel)
        results = {name: jax.block_until_ready(call()) for name, call in calls.items()}
        row = {"shape": shape, "bytes": x.nbytes}
        if "kernel" in calls:
            row["kernel_apart"] = apart(results["kernel"], results["plain"])
        del results
        least = dict.fromkeys(calls, float("inf"))
        end = time.perf_counter() + args.seconds
        while time.perf_counter() < end:
            for name, call in calls.items():
                least[name] = min(least[name], seconds(call, 20 if gpu else 1))
        rows.append(row | least | {"bound": least["copy"] * PASSES / 2})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    head = ["shape", "copy GB/s", "bound ms"]
    for name in norms.NAMES:
        head += [f"{name} ms", "of the bound"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in rows:
        speed = 2 * r["bytes"] / r["copy"] / 1e9
        cells = [
            f"{1e3 * r[name]:.2f} | {r['bound'] / r[name]:.0%}"
            if name in r
            else "- | -"
            for name in norms.NAMES
        ]
        lines.append(
            f"| {'x'.join(map(str, r['shape']))} | {speed:.0f} | {1e3 * r['bound']:.2f}"
            f" | {' | '.join(cells)} |"
        )
    if "kernel" in rows[0]:
        worst = max(r["kernel_apart"] for r in rows)
        lines.append(f"\nThe kernel differs from plain by {worst:.1e} of the largest.")
    else:
        lines.append("\nkernel: left out (no GPU here, or --no-kernel)")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="a shape")
    parser.add_argument("--no-kernel", dest="kernel", action="store_false")
    parser.add_argument("--out", type=Path, default=HERE / "results/group_norm.json")
    args = parser.parse_args()
    from bigxfer import cli

    cli.set_xla_flags()
    about = machine.about()
    rows = measure(args)
    machine.save(args.out, {"about": about, "dtype": args.dtype, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
