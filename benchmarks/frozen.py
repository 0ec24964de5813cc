"""What a frozen run costs: the whole net, the head in the loop, the head on features.

    python benchmarks/frozen.py [--model R50x1] [--res 224] [--images 5000] [--batch 64]

All do the 53 epochs of the PyData study's 3 + 50 on synthetic drawings from the same
start; the linear probes look at each image once. Device-seconds of training: of the
two that train, of --steps steps, scaled to 53 epochs, without compiling; of the
probes, all of it, compiling too. Asked: a probe at least 20 times as fast. Measured
on two shared cores under load 11 to 18, R26x0.25 at 64 px, the defaults (read ratios):
the lower half fixed 1.3 to 1.8 times as fast as the whole net, the head alone in the
loop 3.5 to 4.1, ridge on features 34 to 41, logistic on features 51.
"""

import argparse
import tempfile
from pathlib import Path

EPOCHS = 53
WAYS = {  # name: (freeze.bottom, freeze.head)
    "whole net": (0.0, "trained"),
    "lower half fixed": (0.5, "trained"),
    "head alone, in the loop": (1.0, "trained"),
    "ridge on features": (1.0, "ridge"),
    "logistic on features": (1.0, "logistic"),
}


def measure(args: argparse.Namespace, name: str, folder: Path) -> dict[str, float]:
    """The cost that a run of one of the ways reports."""
    from bigxfer import config, presets
    from bigxfer.runs import job  # imports jax: after the flags are set

    run = presets.load(
        f"configs/covidx_hyperrule.py:model={args.model},res={args.res},"
        f"batch={args.batch},steps={args.steps},phantom={args.images}"
    )
    run.freeze.bottom, run.freeze.head = WAYS[name]
    run.data.cache, run.data.root, run.init.kind = str(folder / "cache"), "", "random"
    run.eval.resamples, run.keep = 0, "none"
    return job.execute(config.resolve(run), folder / name.replace(" ", "_"))["cost"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="R26x0.25")
    parser.add_argument("--res", type=int, default=64)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    from bigxfer import cli

    cli.set_xla_flags()
    with tempfile.TemporaryDirectory() as folder:
        costs = {name: measure(args, name, Path(folder)) for name in WAYS}
    images = EPOCHS * costs["ridge on features"]["images"]  # it sees each once
    whole = 0.0
    print(f"\n{args}\n{'':26} device-s  times as fast     FLOP")
    for name, cost in costs.items():
        scale = images / cost["images"] if WAYS[name][1] == "trained" else 1.0
        seconds = scale * cost["device_seconds"]
        whole = whole or seconds  # the first way
        flops = scale * cost["flops"]
        print(f"{name:26} {seconds:8.1f} {whole / seconds:10.1f}     {flops:10.3g}")


if __name__ == "__main__":
    main()
