"""Which schedule makes a short upstream learn: chosen on its own validation images.

  python -m launch.local --config configs/study_upstream_tuning.py:root=DATA

DATA/tiny_imagenet holds the tar files of 200 classes, 250 photographs of 64 px each. R26x0.25 at
48 px in grey, 6,000 steps of 32 with a tenth of warm-up and a cosine, weight decay 1e-4: each
optimizer, rate and augmentation once, with the same budget. The choice is by 5% of the images:
by top-1, and by the loss where top-1 does not tell settings apart; the test split stays unseen
until it is made. The order is the likely best first, so that
a sweep that is cut short has tried those and both sides of them. What was found stands in
presets.set_recipe, "short".
"""

from collections.abc import Iterator
from itertools import product

from bigxfer import config, presets

FIRST = (  # the likely best
    ("crop", "sgd", 0.05),
    ("crop", "sgd", 0.1),
    ("crop", "adam", 0.001),
    ("inception", "sgd", 0.05),
    ("crop", "sgd", 0.025),
    ("crop", "adam", 0.002),
)
BATCH = 32  # 64 and 16 were worse for the same 128,000 images (presets.set_recipe)
RATES = {  # at BATCH; of sgd with a momentum of 0.9
    "sgd": (0.0125, 0.025, 0.05, 0.1, 0.2),
    "adam": (0.0005, 0.001, 0.002),
}
HERE = "configs/study_upstream_tuning.py"
ARGS = {"root": "", "optimizer": "sgd", "lr": 0.05, "augment": "crop", "steps": 6000}


def get_config(arg: str = "") -> config.Run:
    a = presets.parse_arg(arg, **ARGS)
    shape = f"model=R26x0.25,res=48,steps={a['steps']}"
    root = a["root"] and f",root={a['root']}/tiny_imagenet"
    run = presets.load(f"configs/upstream_imagenet.py:{shape}{root}")
    run.arg, run.keep = arg, "none"
    run.data.reader, run.data.split, run.data.size = (
        "imagenet21k",
        "patient",
        (45_125, 200),
    )
    run.data.channels, run.data.augment = 1, a["augment"]
    run.data.valid = run.data.test = 0.05
    o = run.optim = presets.small_schedule(a["steps"])
    o.batch = o.lr_batch = BATCH
    o.optimizer, o.lr, o.weight_decay = a["optimizer"], a["lr"], 1e-4
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    root = presets.parse_arg(arg, root="")["root"]
    for augment, optimizer, lr in (*FIRST, *every()):
        own = f"optimizer={optimizer},lr={lr},augment={augment}"
        yield {"config": f"{HERE}:root={root},{own}"}


def every() -> Iterator[tuple[str, str, float]]:
    for augment, optimizer in product(("crop", "inception"), RATES):
        for lr in RATES[optimizer]:
            yield augment, optimizer, lr
