"""SYNTHETIC. The few-shot grid that study_throughput.py counts runs per hour of.

  python -m launch.local --config benchmarks/throughput_grid.py:draws=2 --workers 2

One backbone, four targets, 1, 5 and 10 shots, ten draws, at the size of
configs/study_demo.py. arg head=ridge fits heads to features, and trains nothing.
"""

from collections.abc import Iterator

from bigxfer import config, presets

TARGETS = ("covidx", "chexpert", "nih", "folder")
SHAPE = "model=R1-1-1-1x0.25,res=48,batch=32,steps=60,phantom=600"


def get_config(arg: str = "") -> config.Run:
    a = presets.parse_arg(arg, draws=10, head="trained")
    run = presets.load(f"configs/covidx_small.py:{SHAPE}")
    run.data.split, run.data.phantom.severity = "patient", 2.0
    run.optim.lr = 0.002
    run.init.upstream = f"configs/upstream_imagenet.py:{SHAPE},recipe=small"
    if a["head"] != "trained":
        run.freeze.bottom, run.freeze.head = 1.0, a["head"]
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    for seed in range(presets.parse_arg(arg, draws=10, head="trained")["draws"]):
        for shots in ("1", "5", "10"):
            for target in TARGETS:
                yield {"data.reader": target, "data.shots": shots, "seed": seed}
