"""The demo: does pre-training help, at 1, 5, 10 shots and at full data?

  make demo        (or: python -m launch.local --config configs/study_demo.py)

SYNTHETIC: upstream and target are the phantom, drawings with known findings. The
schedule is a short one of its own, far from HyperRule length, so that 25 runs fit two
cores in about four minutes. Expect pre-training ahead of scratch.
"""

from collections.abc import Iterator

from bigxfer import config, presets

SHAPE = "model=R26x0.25,res=48,batch=32"
UPSTREAM = f"configs/upstream_chexpert.py:{SHAPE},recipe=small,steps=400,phantom=3000"


def get_config(arg: str = "") -> config.Run:
    presets.parse_arg(arg)
    run = presets.load(f"configs/covidx_small.py:{SHAPE},steps=100,phantom=600")
    run.init.upstream = UPSTREAM
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    for shots in ("1", "5", "10", "full"):
        for seed in range(3):
            for kind in ("pretrained", "random"):
                yield {"data.shots": shots, "seed": seed, "init.kind": kind}
