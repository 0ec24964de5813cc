"""Does upstream scale help more when the domain is near? Sizes x fractions x targets.

  python -m bigxfer.study list --config configs/study_sizes.py
  python -m launch.slurm --config configs/study_sizes.py:root=DATA --profile FILE
  python -m launch.local --config configs/study_sizes.py:small=1

The six BiT sizes, each pre-trained on 1/16, 1/4 and all of CheXpert and of ImageNet-1k,
transferred by the HyperRule to COVIDx and to tuberculosis at 1, 5, 10 shots and at full
data, five draws, beside scratch. DATA/NAME holds chexpert, imagenet, covidx and
tuberculosis (docs/datasets.md). For the fits of error over upstream size, shots and
parameters. Tens of thousands of GPU hours (`list` estimates them); not run by us.

small=1 is the same grid on the SYNTHETIC phantom with three small nets, NIH's findings
in CheXpert's place, one target, three draws and short schedules of our own: about three
hours on two cores.
"""

from collections.abc import Iterator

from bigxfer import config, presets

SIZES = ("R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4")  # 1912.11370
SMALL = ("R1-1-1-1x0.25", "R26x0.25", "R26x0.5")
FRACTIONS = (1 / 16, 1 / 4, 1.0)
ARGS = {"root": "", "small": False, "model": "", "target": "covidx"}
UPSTREAM = {"upstream": "", "fraction": 1.0}


def get_config(arg: str = "") -> config.Run:
    """A transfer, or with upstream=chexpert, nih or imagenet what it starts from."""
    a = presets.parse_arg(arg, **ARGS, **UPSTREAM)
    model = a["model"] or (SMALL if a["small"] else SIZES)[0]
    shape = f"model={model}" + (",res=48,batch=32" if a["small"] else "")
    if a["upstream"]:
        # 4096 is the batch of BiT's own recipe.
        short = ",recipe=small,steps=1000,phantom=4800" if a["small"] else ",batch=4096"
        run = presets.load(f"configs/upstream_{a['upstream']}.py:{shape}{short}")
        run.data.fraction = a["fraction"]
    elif a["small"]:
        run = presets.load(f"configs/covidx_small.py:{shape},steps=60,phantom=600")
        run.optim.lr, run.keep = 0.002, "upstream"
    else:
        run = presets.load(f"configs/covidx_hyperrule.py:{shape}")
        run.data.reader, run.keep = a["target"], "upstream"
        # It has no official split.
        if a["target"] == "tuberculosis":
            run.data.split = "patient"
    if a["small"]:
        run.data.phantom.severity = 2.0
    elif a["root"]:
        run.data.root = f"{a['root']}/{a['upstream'] or a['target']}"
    run.arg = arg
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    a = presets.parse_arg(arg, **ARGS)
    near = "nih" if a["small"] else "chexpert"
    targets = ("covidx",) if a["small"] else ("covidx", "tuberculosis")
    for model in SMALL if a["small"] else SIZES:
        here = f"configs/study_sizes.py:root={a['root']},small={int(a['small'])}"
        here += f",model={model}"
        starts = [{"init.kind": "random"}] + [
            {"init.upstream": f"{here},upstream={name},fraction={fraction}"}
            for name in (near, "imagenet")
            for fraction in FRACTIONS
        ]
        for target in targets:
            for start in starts:
                for shots in ("1", "5", "10", "full"):
                    for seed in range(3 if a["small"] else 5):
                        about = {"config": f"{here},target={target}", **start}
                        yield about | {"data.shots": shots, "seed": seed}
