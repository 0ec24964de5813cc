"""Real radiographs: does a small NIH upstream help a three-class COVID target?

  python -m launch.local --config configs/study_covid_cxr.py:root=DATA

DATA/nih64 holds NIH images in the official layout, DATA/covid_cxr a metadata.csv (file,
label, patient_id, split). 1, 5, 10 shots and full data, pre-trained and from scratch,
five draws of the shots, R26x0.25 at 64 px: 33 runs, about 10 minutes on two cores. The
schedule is that of covidx_small.py, 100 steps for the shots and 900 for full data. What
we found stands in docs/results.md.
"""

from collections.abc import Iterator

from bigxfer import config, presets

SHAPE = "model=R26x0.25,res=64"


def get_config(arg: str = "") -> config.Run:
    root = presets.parse_arg(arg, root="")["root"]
    run = presets.load(f"configs/covidx_small.py:{SHAPE},root={root}/covid_cxr")
    run.data.reader, run.keep = "csv", "upstream"
    upstream = f"{SHAPE},recipe=small,root={root}/nih64"
    run.init.upstream = f"configs/upstream_nih.py:{upstream}"
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    for shots in ("1", "5", "10", "full"):
        # At full data there is no draw to repeat.
        for seed in range(1 if shots == "full" else 5):
            for kind in ("pretrained", "random"):
                few = {"optim.steps": 100, "optim.warmup_steps": 10}
                short = {} if shots == "full" else few
                yield {"data.shots": shots, "seed": seed, "init.kind": kind, **short}
