"""What a study will cost before it starts: device-hours and disk, from its configs alone.

FLOPs are those of a forward pass, three times for training (forward, and backward in
activations and in weights): of BiT by arithmetic (bit_size.py), of others as jax counts. Steps follow from the schedule
and the size of the training set; a head that is fitted takes one forward pass of each
training image. Good to a factor of two: input, evaluation, compile
time and what a device reaches of its peak are guesses.
"""

import re
from dataclasses import dataclass, replace

from bigxfer import config
from bigxfer.config import Data, Model, Run
from bigxfer.data.readers import medmnist
from bigxfer.protocols import optim
from bigxfer.study import bit_size
from bigxfer.study.grid import Node

SETS = {  # reader, tfds builder or set of MedMNIST+: (training images, classes), rounded; docs/datasets.md
    "chexpert": (191_000, 13),
    "mimic": (237_000, 13),
    "nih": (86_500, 14),
    "padchest": (140_000, 27),
    "covidx": (30_000, 3),
    "tuberculosis": (680, 2),
    "imagenet": (1_281_000, 1000),
    "imagenet21k": (14_200_000, 21_841),
    "eyepacs": (35_100, 5),
    "aptos": (3_100, 5),
    "pcam": (262_000, 2),
    "histopathology": (187_000, 2),
    "proteins": (26_000, 28),
    "catsdogs": (20_000, 2),
    "cifar10": (50_000, 10),
    "cifar100": (50_000, 100),
    "oxford_flowers102": (1_020, 102),
    "oxford_iiit_pet": (3_680, 37),
    **{n: (s.images[0], len(s.classes)) for n, s in medmnist.SETS.items()},
}
UNKNOWN = (10_000, 10)  # of people's own images
PHANTOM_CLASSES = {"chexpert": 13, "nih": 14, "covidx": 3, "folder": 10}
CLASSES = 10  # of the head; another number changes a few percent at most
COPIES = 2 * 3  # two checkpoints of parameters and two averages of them, while it runs


@dataclass(frozen=True)
class Cost:
    """What one node costs."""

    flops: float = 0.0
    disk: float = 0.0  # bytes that stay
    scratch: float = 0.0  # bytes while it runs, beside those
    guessed: str = ""  # the data set whose size is not known
    kept: float = 0.0  # bytes of parameters, in `disk`
    trials: float = 0.0  # FLOPs of choosing the rate, in `flops`


def costs(study: list[Node]) -> list[Cost]:
    """Return each node's cost, in the order of the study; each model is traced once."""
    traced: dict[str, tuple[float, int]] = {}
    return [_cost(node, traced) for node in study]


def hours(study: list[Node], tflops: float) -> dict[str, float]:
    """{digest: device-hours} of every node on a device that reaches so many TFLOP/s."""
    return {
        node.digest: price.flops / tflops / 1e12 / 3600
        for node, price in zip(study, costs(study), strict=True)
    }


def _cost(node: Node, traced: dict[str, tuple[float, int]]) -> Cost:
    data = node.run.data
    images, classes, guessed = size(data)
    if node.kind == "cache":
        pixels = data.resize**2 * data.channels
        raw = images * (pixels if data.storage == "raw" else 100_000)  # a small JPEG
        return Cost(disk=raw, guessed=guessed)
    run = node.run
    images = round(images * data.fraction)
    if data.shots != "full":
        images = min(int(data.shots) * classes, images)
    if run.init.kind == "features":  # a head, of features that are there
        return Cost(disk=1e6 * data.draws, guessed=guessed)
    images *= data.draws
    forward, parameters = shape(run, traced)
    if run.freeze.head == "trained":
        steps = optim.plan(run.optim, max(images, 1)).steps
        # Backward in activations and in weights: each costs as much as forward.
        flops = 3 * forward * steps * run.optim.batch
        trials = flops * trainings(run)
    else:
        flops, trials = forward * images, 0.0
    # float32, whatever model.dtype is.
    kept = 4.0 * parameters if run.keep in ("all", run.kind) else 0.0
    scratch, disk = 4.0 * parameters * COPIES, (kept + 1e6) * data.draws
    return Cost(flops + trials, disk, scratch, guessed, kept, trials)


def trainings(run: Run) -> int:
    """How many trainings choose its rate or fix a threshold, beside the run itself."""
    each = {"none": 0, "support": config.FOLDS, "validation": 1}[config.select_on(run)]
    # Without a grid the folds train once, and only where they are asked for.
    alone = not run.optim.tune and run.eval.select_on == "support"
    return each * (len(run.optim.tune) or int(alone))


def size(data: Data) -> tuple[int, int, str]:
    """(training images, classes, the reader whose numbers are guesses or "").

    Phantoms are as large as they are drawn; then data.size counts, then SETS.
    """
    if data.size and not data.phantom.images:
        images, classes = data.size
        return images, classes, ""
    images = classes = 0
    guessed = ""
    for reader in data.reader.split("+"):
        name = reader
        if reader in ("tfds", "medmnist"):  # "cifar10/3.0.2", "chestmnist_64"
            name = re.split("/|_[0-9]+$", data.version)[0]
        if data.phantom.images:
            n, k = data.phantom.images, PHANTOM_CLASSES.get(name, UNKNOWN[1])
        elif name in SETS:
            n, k = SETS[name]
        else:
            (n, k), guessed = UNKNOWN, name
        images, classes = images + n, max(classes, k)
    return images, classes, guessed


def shape(run: Run, traced: dict[str, tuple[float, int]]) -> tuple[float, int]:
    """(FLOPs of a forward pass of one image, parameters), with a head of CLASSES.

    Nothing is computed. `traced` holds (FLOPs a pixel, parameters) of each model but
    BiT: the first crop stands for the others.
    """
    crop, key = run.data.crop, str(run.model)
    if run.model.name == "bit":
        return bit_size.flops_and_parameters(run.model, crop, CLASSES)
    if key not in traced:
        flops, count = _trace(run.model, crop)
        traced[key] = flops / crop**2, count
    each, parameters = traced[key]
    # Convolutions cost in proportion to the pixels.
    return each * crop**2, parameters


def _trace(cfg: Model, crop: int) -> tuple[float, int]:
    """(FLOPs of a forward pass of one image as jax counts them, parameters)."""
    import jax  # here: the grid of Cherti and Jitsev is listed in half the time without
    import jax.numpy as jnp

    from bigxfer import models, tree

    model = models.build(replace(cfg, remat=False), CLASSES)
    image = jax.ShapeDtypeStruct((1, crop, crop, 3), jnp.float32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image.shape))
    forward = jax.jit(lambda v, x: model.apply(v, x, False)[0])
    cost = forward.lower(variables, image).cost_analysis() or {}
    return cost.get("flops", 0.0), tree.count(variables["params"])
