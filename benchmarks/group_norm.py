"""GroupNorm + ReLU, forward and backward, beside the time to move its bytes.

    python benchmarks/group_norm.py [--dtype bfloat16] [--batch 64] [--seconds 2]

The shapes are those of R50x1 at 224 px. Bound: forward reads x and writes y, backward
reads x and dy and writes dx, five passes, at the bandwidth of a copy of the same array
measured in the same run (a copy reads and writes). Asked on an H200: 70% of the bound.
Three forms take turns: the one that parts.py picks here, the plain one, and the copy.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).parent
SHAPES = ((112, 64), (56, 64), (56, 256), (28, 512), (14, 1024), (7, 2048))
GROUPS = 32
PASSES = 5


def forms(x: Any) -> dict[str, Callable[[], Any]]:
    """{name: a call that ends when the device is done}."""
    import jax
    import jax.numpy as jnp

    from bigxfer.models import parts

    channels = x.shape[-1]
    gamma, beta = jnp.ones(channels), jnp.zeros(channels)
    plain = partial(parts.group_norm_relu_plain, eps=parts.GN_EPS)

    def both(form: Callable) -> Callable[[], Any]:
        def step(x: Any, dy: Any) -> Any:
            y, back = jax.vjp(lambda x: form(x, gamma, beta, GROUPS), x)
            return y, back(dy)[0]

        run = jax.jit(step)
        return lambda: jax.block_until_ready(run(x, x))

    copy = jax.jit(lambda x: x + jnp.ones((), x.dtype))
    return {
        "copy": lambda: copy(x).block_until_ready(),
        "chosen": both(parts.group_norm_relu),
        "plain": both(plain),
    }


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of each form for each shape, the least of its turns."""
    import jax
    import jax.numpy as jnp

    rows = []
    for side, channels in SHAPES:
        shape = (args.batch, side, side, channels)
        x = jax.random.normal(jax.random.key(0), shape, jnp.dtype(args.dtype))
        calls = forms(x)
        for call in calls.values():
            call()
        least = dict.fromkeys(calls, float("inf"))
        end = time.perf_counter() + args.seconds
        while time.perf_counter() < end:
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                least[name] = min(least[name], time.perf_counter() - began)
        bound = least["copy"] * PASSES / 2
        rows.append({"shape": shape, "bytes": x.nbytes, **least, "bound": bound})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| shape | copy GB/s | bound ms | chosen ms | of the bound | plain |"]
    lines.append("|---" * 6 + "|")
    for r in rows:
        speed = 2 * r["bytes"] / r["copy"] / 1e9
        lines.append(
            f"| {'x'.join(map(str, r['shape']))} | {speed:.0f} | {1e3 * r['bound']:.2f}"
            f" | {1e3 * r['chosen']:.2f} | {r['bound'] / r['chosen']:.0%}"
            f" | {r['bound'] / r['plain']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="a shape")
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
