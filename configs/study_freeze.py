"""How many of the lowest layers may stay fixed? (PyData 2019, Kierzynka)

  python -m bigxfer.study list --config configs/study_freeze.py
  python -m launch.slurm --config configs/study_freeze.py:root=DATA --profile FILE
  python -m launch.local --config configs/study_freeze.py:phantom
  python -m launch.local --config configs/study_freeze.py:small=1,nih=A,covid=B

The talk fixes the lowest 100, 75, 50, 30, 20, 10 and 0% of the layers of four nets
that start from ImageNet, and shows the features of Inception-v3 at 100, 10 and 0%; our
sources keep no number of what it found. With R26x0.25 from NIH to COVID-19 at 32 px
we find AUROCs of 0.767, 0.734, 0.733, 0.722, 0.708, 0.673 and 0.611 as 0, 10, 20, 30,
50, 75 and 100% are fixed (docs/findings.md). A column for a net that starts at random
shows how much comes from the weights, and how much from the number of layers that train.

The recipe, the sets and what differs from the talk are those of study_init.py. Layers
are counted as Keras's model.layers, activations and pools among them; SmallCNN's and
BiT's as those that have parameters. Each run's log says the share of the parameters.
Not run by us at this size.

phantom: SYNTHETIC. small: R26x0.25 from NIH radiographs (nih64) to COVID-19, 32 px,
all seven shares from NIH, three of them at random: 30 transfers, some 12 processor
minutes.
"""

from collections.abc import Iterator
from typing import Any

from bigxfer import presets
from bigxfer.config import Run

BOTTOM = (1.0, 0.75, 0.5, 0.3, 0.2, 0.1, 0.0)
CONTROLS = (1.0, 0.5, 0.0)  # also from a random start


def get_config(arg: str = "") -> Run:
    run = recipe().get_config(arg)
    if run.model.name not in ("bit", "cbr_small", "smallcnn"):
        run.freeze.count_by = "keras_layers"
    return run


def recipe() -> Any:
    return presets.load_module("configs/study_init.py")


def sweep(arg: str = "") -> Iterator[dict]:
    init = recipe()
    a = presets.parse_arg(arg, **init.FORM)
    for run in init.sweep(arg):
        about = presets.parse_arg(run["config"].partition(":")[2], **init.ARGS)
        # Of study_init.py's three small nets the largest alone.
        if (a["phantom"] or a["small"]) and about["model"] != "bit":
            continue
        if "init.how" in run or "domain=natural" in run.get("init.upstream", ""):
            continue
        # This file's get_config, which counts the layers.
        run["config"] = run["config"].replace(init.HERE, "configs/study_freeze.py")
        for bottom in CONTROLS if run["init.kind"] == "random" else BOTTOM:
            yield run | {"freeze.bottom": bottom}
