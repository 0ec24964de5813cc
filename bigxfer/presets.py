"""What config files are made of: model names, arg strings, recipes, the stand-in.

Nothing here is state: each function takes a Run or a section of it and changes or
returns it, so that a config file reads as a short difference from the defaults.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

from bigxfer.config import (
    DEPTHS,
    ConfigError,
    Data,
    Model,
    Optim,
    Run,
    from_dict,
    nearest,
    to_dict,
)


def model(name: str) -> Model:
    """The Model of the arg model=: a BiT such as R50x1, or a key of models.MODELS."""
    return bit(name) if re.match(r"R\d", name) else Model(name=name)


def bit(name: str, **kw: Any) -> Model:
    """The Model of "R50x1", "R26x0.5" or, by its stages, "R2-2-2-2x0.25"."""
    match = re.fullmatch(r"R(\d+(?:-\d+)*)x(\d+(?:\.\d+)?)", name)
    if not match:
        raise ConfigError(f"model {name!r} is not of the form R50x1 or R2-2-2-2x0.25")
    depth, width = match.groups()
    if "-" in depth:
        blocks = tuple(int(n) for n in depth.split("-"))
    elif int(depth) in DEPTHS:
        blocks = DEPTHS[int(depth)]
    else:
        raise ConfigError(f"model {name!r}: the depths are {list(DEPTHS)}, or stages")
    return Model(blocks=blocks, width=float(width), **kw)


def model_name(blocks: tuple[int, ...], width: float) -> str:
    """The inverse of `bit`: "R50x1" of (3, 4, 6, 3) and 1.0, else by the stages."""
    named = [str(depth) for depth, stages in DEPTHS.items() if stages == blocks]
    return f"R{named[0] if named else '-'.join(map(str, blocks))}x{width:g}"


def net_name(model: dict[str, Any]) -> str:
    """Return the net in words: "R50x1" of BiT, else "cbr_tiny" or "cbr_tiny x0.5".

    `model` holds the fields of config.Model; those of an old run may lack some. A slim
    net says so at the end.
    """
    if model["name"] == "bit":
        name = model_name(tuple(model["blocks"]), model["width"])
    else:
        name = model["name"]
        name += f" x{model['width']:g}" if model["width"] != 1 else ""
    above = model.get("slim_above")
    return f"{name} slim above {above}" if above else name


def slim_factors(cfg: Model, blocks: list[str]) -> list[float]:
    """What multiplies the channels of each block: cfg.slim above cfg.slim_above.

    The slim hybrid of Transfusion (1902.07208 section 5): blocks up to one of them at
    full width, to take pretrained weights, and lighter ones above. ConfigError for a
    block that the model does not have.
    """
    if not cfg.slim_above:
        return [1.0] * len(blocks)
    if cfg.slim_above not in blocks:
        raise ConfigError(
            f"config.model.slim_above={cfg.slim_above!r} is no block of"
            f" {cfg.name}{nearest(cfg.slim_above, blocks)}"
        )
    full = blocks.index(cfg.slim_above) + 1
    return [1.0] * full + [cfg.slim] * (len(blocks) - full)


def bit_widths(cfg: Model) -> tuple[int, ...]:
    """Return the channels inside the units of each stage of a BiT net.

    64 * 2^stage in R50x1; the output of a unit has 4 times as many. A fractional width is
    rounded to whole channels.
    """
    names = [f"block{stage}" for stage in range(1, len(cfg.blocks) + 1)]
    factors = slim_factors(cfg, names)
    return tuple(round(64 * cfg.width * f * 2**s) for s, f in enumerate(factors))


def parse_arg(arg: str, **defaults: Any) -> dict[str, Any]:
    """ "model=R26x0.5,res=64" -> defaults with these values, typed as they are.

    Raises ConfigError for an unknown key (and names its neighbours) and for a
    value that does not convert.
    """
    values = dict(defaults)
    for item in filter(None, arg.split(",")):
        key, _, text = item.partition("=")
        if key not in defaults:
            raise ConfigError(f"unknown arg {key!r}{nearest(key, list(defaults))}")
        # A default says its type, so that no config declares its args twice.
        kind = type(defaults[key])
        try:
            values[key] = (
                text in ("", "1", "true", "True") if kind is bool else kind(text)
            )
        except ValueError:
            raise ConfigError(f"arg {item!r}: {kind.__name__} expected") from None
    return values


COMMON: dict[str, Any] = {  # the args that every config takes
    "model": "R50x1",
    "res": 224,  # resize to 5R/4, crop R; 0 leaves the config's own pair
    "batch": 0,
    "steps": 0,
    "phantom": 0,
    "root": "",
    "seed": 0,  # of an upstream that a study names: "FILE.py:res=64,seed=3"
}


def apply(run: Run, a: dict[str, Any]) -> Run:
    """The run with the args of COMMON; to be called last in a config."""
    run.model = model(a["model"])
    if a["res"]:
        set_res(run.data, a["res"])
    set_length(run.optim, a["batch"], a["steps"])
    run.data.phantom.images = a["phantom"]
    run.data.phantom.pixels = run.data.resize
    run.data.root = a["root"]
    run.seed = a["seed"]
    return run


def set_res(data: Data, res: int) -> None:
    """The arg res=R: resize to 5R/4, crop R."""
    # The HyperRule's proportion for small images, 160 to 128.
    data.resize, data.crop = res * 5 // 4, res


def set_recipe(run: Run, recipe: str) -> None:
    """The published upstream recipes, at a batch that a small set can fill.

    "bit": 1912.11370 section 3.3: SGD, lr 0.03 at a batch of 256, weight decay 1e-4,
    90 epochs, x0.1 at 30, 60 and 80, Inception crop, 16 epochs of warm-up. Its batch is
    4096 (batch=4096).
    "predecessor": SLAMPAI/large-scale-pretraining-transfer configs/*.yaml at fe6232b
    for its X-ray upstreams: SGD with AGC 0.01, nesterov, lr 0.01 at 256, 15 epochs
    of warm-up, the affine "cohen" augmentation. Its batch is 16 x 64 GPUs
    (batch=1024).
    "small": our own, for thousands of images and two cores: Adam, cosine, affine.
    "short": our own, for tens of thousands of images and some thousand steps: SGD, cosine,
    plain crops. Chosen by configs/study_upstream_tuning.py: R26x0.25 on 45,125 grey photographs
    of 200 classes at 48 px, 6,000 steps of 32 (4.3 passes), one seed; by 2,375 validation images:

        optimizer, crops        top-1    loss    top-1 of 2,500 test images
        SGD 0.05, plain         0.090    4.399   0.083 [0.072, 0.094]
        SGD 0.1, plain          0.091    4.374   0.093 [0.082, 0.105]
        SGD 0.2, plain          0.092    4.410   0.081 [0.071, 0.093]
        SGD 0.05, Inception     0.048    4.800   0.042 [0.035, 0.051]
        Adam 0.001, plain       0.064   4.574   0.068 [0.058, 0.078]

    Top-1 does not tell the three rates of SGD apart (its standard error is 0.006); the loss has 0.1
    below its neighbours on both sides. Of batches at equal images (128,000: 16, 32 and 64) 32 had the
    lowest loss (4.66, 4.54 and 4.66), and Adam at 0.002 of 64 had 4.80. Not tried: other weight decays and
    schedules, Adam at other rates, Inception crops at others. 192,000 images are four and a half
    minutes of an idle core. It is little: with one pass over 100,000 images in colour at 64 px a
    wider net of public code has 0.148 (github.com/Clockware/nn-tiny-imagenet-200, README), and
    trained to the end a ResNet about 0.55 (H. Yu, Stanford CS231n report, Tiny ImageNet).
    """
    if recipe == "small":
        run.optim, run.data.augment = small_schedule(900), "affine"
        return
    if recipe == "short":
        run.optim, run.data.augment = small_schedule(6000), "crop"
        o = run.optim
        o.optimizer, o.lr, o.weight_decay = "sgd", 0.1, 1e-4
        o.batch = o.lr_batch = 32
        return
    o = run.optim
    o.schedule, o.epochs, o.weight_decay = "step", 90.0, 1e-4
    o.boundaries, o.lr_batch, o.batch = (30 / 90, 60 / 90, 80 / 90), 256, 256
    if recipe == "bit":
        # The paper's 5000 steps of 4096 images are 16 epochs of ILSVRC-2012.
        o.lr, o.warmup_epochs = 0.03, 16.0
        run.data.augment = "inception"
    elif recipe == "predecessor":
        o.lr, o.warmup_epochs = 0.01, 15.0
        o.nesterov, o.agc = True, 0.01
        run.data.augment = "affine"
    else:
        raise ConfigError(
            f"recipe {recipe!r}; it may be bit, predecessor, small or short"
        )


def small_schedule(steps: int) -> Optim:
    """Adam with a cosine, for small nets on small sets; not from any paper.

    The rate and the affine augmentation that goes with it were chosen on validation
    patients of a thousand radiographs (configs/covidx_small.py).
    """
    return Optim(
        optimizer="adam",
        lr=4e-3,
        lr_batch=64,
        batch=64,
        steps=steps,
        schedule="cosine",
        warmup_steps=steps // 10,
    )


def set_length(optim: Optim, batch: int, steps: int) -> None:
    """The args batch= and steps=; 0 leaves the recipe's."""
    optim.batch = batch or optim.batch
    if steps:
        # Another length keeps the recipe's share of warm-up.
        share = optim.warmup_epochs / optim.epochs if optim.epochs else 0
        share = optim.warmup_steps / optim.steps if optim.steps else share
        optim.steps, optim.epochs = steps, 0.0
        optim.warmup_steps, optim.warmup_epochs = round(share * steps), 0.0


def standin(run: Run, given: set[str]) -> Run:
    """The run on synthetic drawings, at a size for two cores.

    Changes only what the user did not set: `given` holds the dotted fields and
    the arg keys that were on the command line.
    """
    # A copy: the config's own Run may serve again.
    run = from_dict(to_dict(run))
    small = bit("R26x0.25", dtype=run.model.dtype, remat=run.model.remat)
    images = 3000 if run.kind == "upstream" else 1000
    if "data.phantom.images" not in given:
        run.data.phantom.images = images
    model_fields = {
        "model",
        "model.name",
        "model.blocks",
        "model.width",
        "init.checkpoint",
    }
    if not model_fields & given:
        run.model = small
    if not {"res", "data.resize", "data.crop"} & given:
        set_res(run.data, 64)
    if "data.phantom.pixels" not in given:
        run.data.phantom.pixels = run.data.resize
    if not {"batch", "optim.batch"} & given:
        run.optim.batch = 64
    if not {"steps", "optim.steps", "optim.epochs"} & given:
        set_length(run.optim, 0, 300)
    return run


def find(path: str) -> Path:
    """Return where a config file lies: at this path, or else among the shipped ones.

    configs/x.py and x.py both name the shipped config x.py. Raises ConfigError.
    """
    name = Path(path)
    if name.is_file():
        return name
    if (
        str(name.parent) in (".", "configs")
        and (ours := shipped() / name.name).is_file()
    ):
        return ours
    raise ConfigError(f"no config file {path}; `bigxfer config` lists the shipped ones")


def shipped() -> Path:
    """Return the folder of shipped configs: in an installed package, or beside it in a clone."""
    room = Path(__file__).resolve().parent
    within = room / "configs"
    return within if within.is_dir() else room.parent / "configs"


def load_module(name: str) -> Any:
    """Return the config module of "FILE.py:arg"; `find` says where it is looked for."""
    file = find(name.partition(":")[0])
    # Not into sys.modules, where two files of one name would be one module.
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(name: str) -> Run:
    """The Run of "FILE.py:arg"."""
    return load_module(name).get_config(name.partition(":")[2])


def arg_keys(arg: str) -> set[str]:
    """The keys of an arg string: {"model", "res"} of "model=R50x1,res=64"."""
    return {item.partition("=")[0] for item in arg.split(",") if item}
