"""Near and far upstreams on public sets: MedMNIST+, sizes x fractions x upstream seeds.

  python -m bigxfer.data.fetch medmnist:chestmnist_64 medmnist:pathmnist_64 \\
      medmnist:octmnist_64 medmnist:pneumoniamnist_64 medmnist:breastmnist_64 \\
      medmnist:retinamnist_64 medmnist:dermamnist_64 --out DATA
  python -m bigxfer.study list --config configs/study_medmnist.py
  python -m launch.slurm --config configs/study_medmnist.py:root=DATA --profile FILE

Three BiT sizes, each pre-trained on 1/16, 1/4 and all of ChestMNIST (radiographs), PathMNIST
(stained tissue) and OCTMNIST (scans of the retina), with three seeds, and scratch. The three
have 78 to 97 thousand training images, and every pre-training sees as many images (5.1
million), so that domain, amount of data and compute do not change together. By the HyperRule
to PneumoniaMNIST (near ChestMNIST), RetinaMNIST (the organ of OCTMNIST, another camera),
DermaMNIST (colour, as PathMNIST) and BreastMNIST (ultrasound, near none), at 1, 5, 10 shots
with three draws and at full data. 81 upstreams and 3,384 transfers, 2.7 and 5.7 EFLOP, and 31
GB of parameters and pixels by `list`, which needs no data. Not run by us.

The files name no patients: intervals take each image for a patient of its own. ChestMNIST is
NIH ChestX-ray14, so no NIH upstream belongs into this table (docs/datasets.md).

small=1 is a grid of the same kind for two cores: the files of 28 px of ChestMNIST, PathMNIST,
PneumoniaMNIST and BreastMNIST, two small nets, two seeds, short schedules of our own.
"""

from collections.abc import Iterator

from bigxfer import config, presets

SIZES = ("R26x0.5", "R50x1", "R50x3")
SMALL = ("R1-1-1-1x0.25", "R26x0.25")
UPSTREAMS = ("chestmnist", "pathmnist", "octmnist")
TARGETS = ("pneumoniamnist", "breastmnist", "retinamnist", "dermamnist")
COLOUR = ("pathmnist", "retinamnist", "dermamnist")
FRACTIONS = (1 / 16, 1 / 4, 1.0)
SHOTS = ("1", "5", "10", "full")
STEPS = 20_000  # of an upstream, at a batch of 256
ARGS = {"root": "", "small": False}
ONE = {"model": "", "set": "pneumoniamnist", "upstream": False}
START = {"fraction": 1.0, "seed": 0}


def get_config(arg: str = "") -> config.Run:
    """A transfer to `set` or, with upstream=1, what it starts from: trained on `set`."""
    a = presets.parse_arg(arg, **ARGS, **ONE, **START)
    small = a["small"]
    run = config.Run(kind="upstream" if a["upstream"] else "transfer", arg=arg)
    run.model = presets.model(a["model"] or (SMALL if small else SIZES)[0])
    run.keep, run.seed = "upstream", a["seed"]
    d = run.data
    d.reader, d.version = "medmnist", a["set"] if small else f"{a['set']}_64"
    d.root, d.fraction, d.views = a["root"], a["fraction"], ()
    d.channels = 3 if a["set"] in COLOUR else 1
    d.resize, d.crop = (
        (28, 24) if small else (64, 56)
    )  # the stored pixels, not enlarged
    if small:
        run.optim = presets.small_schedule(900 if a["upstream"] else 100)
    elif a["upstream"]:
        presets.set_recipe(run, "bit")
        # Steps, not epochs, so that all fractions see as many images.
        presets.set_length(run.optim, 256, STEPS)
    else:
        run.optim.mixup = -1.0  # as the HyperRule says, by the size of the set
    if not a["upstream"]:
        run.init.kind = "pretrained"
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    """Each upstream seed crossed with each draw; at full data it is the run's seed too."""
    a = presets.parse_arg(arg, **ARGS)
    small = a["small"]
    seeds, draws = (2, 2) if small else (3, 3)
    common = f"configs/study_medmnist.py:root={a['root']},small={int(small)}"
    for model in SMALL if small else SIZES:
        for target in TARGETS[:2] if small else TARGETS:
            transfer = {"config": f"{common},model={model},set={target}"}
            for shots in SHOTS:
                for upstream_seed in range(seeds):
                    full = shots == "full"
                    for seed in [upstream_seed] if full else range(draws):
                        run = {**transfer, "data.shots": shots, "seed": seed}
                        for start in starts(common, model, small, upstream_seed):
                            yield {**run, **start}


def starts(common: str, model: str, small: bool, seed: int) -> Iterator[dict]:
    """Each upstream of this net and seed, then scratch."""
    for name in UPSTREAMS[:2] if small else UPSTREAMS:
        for fraction in FRACTIONS[::2] if small else FRACTIONS:
            args = (
                f"model={model},set={name},upstream=1,fraction={fraction},seed={seed}"
            )
            yield {"init.upstream": f"{common},{args}"}
    yield {"init.kind": "random"}
