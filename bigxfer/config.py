"""The typed schema of a run, its arg strings, its derived numbers, its digest.

A config file holds `get_config(arg="") -> Run`. Only primary numbers stand in
it; `resolve` checks them, and what follows from the data is computed later and
written to config.json. Nothing here imports jax: `--help` has to be quick.
"""

import dataclasses
import difflib
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

DEPTHS = {  # units in each stage; R26 is big_vision's, the others BiT's (1912.11370)
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


@dataclass
class Model:
    name: str = "bit"  # a key of models.MODELS
    blocks: tuple[int, ...] = DEPTHS[50]  # units in each stage
    width: float = 1.0  # multiplies every channel count
    groups: int = 32  # of group normalisation
    dtype: str = "float32"  # of the compute, or bfloat16; parameters stay float32
    remat: bool = False  # recompute each unit in the backward pass to save memory
    slim_above: str = ""  # the last block of full width, such as block2; "": all are
    slim: float = 0.5  # multiplies the channels of the blocks above slim_above
    padding: str = "SAME"  # or VALID: of CBR's convolutions and pools
    hidden: int = 256  # units of SmallCNN's dense layer
    dropout: float = 0.5  # after it


@dataclass
class Phantom:
    """The synthetic stand-in for data that is not at hand (data/phantom/write.py)."""

    images: int = 0  # 0: real data from data.root
    pixels: int = 64  # side of the images on disk
    distance: float = 0.0  # of the domain from the default scanner, 0 to 1
    severity: float = 1.0  # of opacities: above 1 they are easier to see
    shortcut: float = 0.0  # probability that the source mark gives the class away
    seed: int = 0


@dataclass
class Data:
    reader: str = "chexpert"  # a key of data.readers.READERS, or a union: "nih+mimic"
    root: str = ""  # its folder (a union's: "A:B"); "" runs the phantom stand-in
    version: str = ""  # of the label files where a reader knows several
    size: tuple[
        int, ...
    ] = ()  # training images, classes; `study list` asks, () by reader
    views: tuple[str, ...] = ("PA", "AP")  # kept; () keeps all; "" is unknown
    labels: tuple[str, ...] = ()  # classes kept, in this order; () keeps all
    uncertain: str = "ignore"  # or zeros, ones: CheXpert's -1
    blank: str = "unknown"  # or negative: CheXpert's empty cells
    space: str = "union"  # of the labels of a union of sets, or intersection
    mix: tuple[float, ...] = ()  # shares of a union's sets in training; (): by size
    split: str = "official"  # or patient: random; reference: the predecessor's
    valid: float = 0.1  # of the training patients, held out for every selection
    test: float = 0.15  # of the patients, where split is patient
    folds: int = 0  # of cross-validation by patient, in place of `test`; 0: none
    fold: int = 0  # which of them is the test split
    split_seed: int = 0
    fraction: float = 1.0  # of the training set that is used, nested by run.seed
    fraction_of: str = "images"  # or patients
    shots: str = "full"  # or the number of images a class, such as "5"
    sampling: str = "uniform"  # or classes, covid_percent (data/sampling.py)
    sampling_class: str = ""  # that covid_percent puts into every batch; "": the rarest
    sampling_share: float = 0.3  # of the batch, by covid_percent
    resize: int = 280  # side of the cached square image, pixels
    crop: int = 224  # side of what the model sees
    channels: int = 1  # cached: 1 for radiographs, 3 for colour
    augment: str = "crop"  # or inception, affine, colour
    flip: bool = True  # horizontally, half of the images
    max_bad: float = 0.0  # fraction of images that may fail to decode
    cache: str = "cache"  # folder for decoded images
    storage: str = "raw"  # pixels; or encoded: bytes, decoded anew for every batch
    resident: bool = False  # the training images, on the devices
    phantom: Phantom = field(default_factory=Phantom)


@dataclass
class Init:
    kind: str = "random"  # or pretrained (`checkpoint`), imagenet (Keras's), gabor
    how: str = "copy"  # of what is pretrained, or mean_var, shuffle, resample
    upto: str = ""  # the last layer or block that is taken; "": all but the head
    above: str = "random"  # the layers above `upto`, or mean_var
    batch_norm: str = "identity"  # normalisation under mean_var, or copy
    checkpoint: str = ""  # a run folder, an npz or, of a Keras model, an .h5
    upstream: str = ""  # the config (file:arg) whose finished run is taken otherwise
    digest: str = ""  # of the upstream; filled in by the main


@dataclass
class Freeze:
    """Which layers stay as they start; the head always trains (protocols/freeze.py)."""

    bottom: float = 0.0  # share of the layers that is fixed, from the input up
    top: float = 0.0  # share of the layers that trains, from the head down; 0: all
    top_layers: int = 0  # how many layers train, the head among them; 0: all
    count_by: str = "layers"  # that have parameters; or keras_layers, params
    batch_norm: str = "inference"  # of fixed layers, or batch
    head: str = "trained"  # or ridge, logistic: fitted to features computed once


@dataclass
class Phase:
    """Phases before the one that Freeze describes, which is the last."""

    until: tuple[float, ...] = ()  # where each ends, fractions of the run
    bottom: tuple[float, ...] = ()  # the share of the layers that is fixed in each


@dataclass
class Optim:
    optimizer: str = "sgd"  # or adam
    lr: float = 0.003  # at a batch of lr_batch; scaled linearly with the batch
    lr_batch: int = 512
    batch: int = 512  # images a step, over all devices
    micro_batch: int = 0  # images at once; 0: as is fast; -1: the most that fits
    steps: int = 0  # one of steps and epochs, or neither where the rule sets them
    epochs: float = 0.0
    schedule: str = "hyperrule"  # or cosine, step, constant
    variant: str = "code"  # of the HyperRule, or paper
    warmup_steps: int = 0  # one of these two, linear from 0
    warmup_epochs: float = 0.0
    boundaries: tuple[float, ...] = ()  # fractions of the run, x0.1 each (step)
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0  # coupled: added to the gradient, as in BiT
    agc: float = 0.0  # adaptive gradient clipping (2102.06171); 0 is off
    mixup: float = 0.0  # alpha; -1: as the HyperRule says


@dataclass
class Eval:
    every: int = 0  # steps between validations; 0: only at the end
    select: str = ""  # a validation metric that picks the step; "": the last step
    batch: int = 128  # images at once; on a CPU fewer where they are large
    resamples: int = 1000  # of the bootstrap behind every interval


@dataclass
class Mesh:
    fsdp: int = 1  # devices that share one copy of the parameters
    memory_gb: float = 0.0  # a device's; 0: as the device reports


@dataclass
class Log:
    every: int = 20  # steps
    tensorboard: bool = False


@dataclass
class Run:
    kind: str = "upstream"  # or transfer
    seed: int = 0  # of the parameters, the order, the augmentation, the draw
    keep: str = "all"  # whose params.npz is kept: all, upstream, none
    checkpoints: int = 0  # at least so many in a run; 0: 4 or more, 20 s apart
    arg: str = ""  # what stood behind the colon of --config
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    init: Init = field(default_factory=Init)
    freeze: Freeze = field(default_factory=Freeze)
    phase: Phase = field(default_factory=Phase)
    optim: Optim = field(default_factory=Optim)
    eval: Eval = field(default_factory=Eval)
    mesh: Mesh = field(default_factory=Mesh)
    log: Log = field(default_factory=Log)


CHOICES = {
    "kind": ("upstream", "transfer"),
    "keep": ("all", "upstream", "none"),
    "model.dtype": ("float32", "bfloat16"),
    "data.uncertain": ("ignore", "zeros", "ones"),
    "data.blank": ("unknown", "negative"),
    "data.space": ("union", "intersection"),
    "data.fraction_of": ("images", "patients"),
    "data.sampling": ("uniform", "classes", "covid_percent"),
    "data.storage": ("raw", "encoded"),
    "data.augment": ("crop", "inception", "affine", "colour"),
    "data.channels": (1, 3),
    "model.padding": ("SAME", "VALID"),
    "init.kind": ("random", "pretrained", "imagenet", "gabor"),
    "init.how": ("copy", "mean_var", "shuffle", "resample"),
    "init.above": ("random", "mean_var"),
    "init.batch_norm": ("identity", "copy"),
    "freeze.count_by": ("layers", "keras_layers", "params"),
    "freeze.batch_norm": ("inference", "batch"),
    "freeze.head": ("trained", "ridge", "logistic"),
    "optim.optimizer": ("sgd", "adam"),
    "optim.schedule": ("hyperrule", "cosine", "step", "constant"),
    "optim.variant": ("code", "paper"),
}

NOT_IN_DIGEST = (  # where things lie and how they run, not what is computed
    r"arg|keep|checkpoints|data/(root|size|cache|storage|resident)|init/(checkpoint|upstream)|mesh/.*|log/.*"
)
LATER = (  # fields that came after the first runs: left out at their default
    r"data/(space|mix|fraction|fraction_of|sampling|sampling_class|sampling_share"
    r"|folds|fold|phantom/severity)|model/(slim_above|slim|padding|hidden|dropout)"
    r"|init/(how|upto|above|batch_norm)|freeze/.*|phase/.*"
)


class ConfigError(ValueError):
    """A config that cannot be run; the message says what to change."""


def nearest(key: str, known: list[str]) -> str:
    """The end of a message about an unknown key."""
    close = difflib.get_close_matches(key.split(".")[-1], known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{hint} (known: {', '.join(known)})"


def flat(run: Any) -> dict[str, Any]:
    """{"model/width": 1.0, ...} of every field."""
    out = {}
    for f in dataclasses.fields(run):
        value = getattr(run, f.name)
        if dataclasses.is_dataclass(value):
            out.update({f"{f.name}/{k}": v for k, v in flat(value).items()})
        else:
            out[f.name] = value
    return out


def resolve(run: Run) -> Run:
    """A checked deep copy of the run; ConfigError where a value cannot be."""
    run = from_dict(to_dict(run))
    values = flat(run)
    for name, allowed in CHOICES.items():
        if (value := values[name.replace(".", "/")]) not in allowed:
            raise ConfigError(f"config.{name} is {value!r}; it may be {allowed}")
    o, d = run.optim, run.data
    if o.schedule != "hyperrule" and (o.steps > 0) == (o.epochs > 0):
        raise ConfigError("set one of config.optim.steps and config.optim.epochs")
    if o.warmup_steps and o.warmup_epochs:
        raise ConfigError("set one of config.optim.warmup_steps and warmup_epochs")
    if o.batch < 1 or (o.micro_batch > 0 and o.batch % o.micro_batch):
        raise ConfigError(
            f"config.optim.micro_batch={o.micro_batch} must divide batch={o.batch}"
        )
    if d.shots != "full" and not (d.shots.isdigit() and int(d.shots) > 0):
        raise ConfigError(f'config.data.shots is {d.shots!r}; "full" or a number')
    check_data(d)
    check_start(run)
    if run.eval.select and not d.valid:
        raise ConfigError("config.eval.select needs a validation split: data.valid > 0")
    return run


def check_data(d: Data) -> None:
    """ConfigError for what can be told of the data section without data."""
    if d.crop > d.resize:
        raise ConfigError(f"config.data.crop={d.crop} exceeds resize={d.resize}")
    if not 0 <= d.valid < 1 or not 0 < d.test < 1:
        raise ConfigError("config.data.valid and test are fractions below 1")
    if not 0 < d.fraction <= 1 or not 0 < d.sampling_share < 1:
        raise ConfigError(
            "config.data.fraction lies in (0, 1], sampling_share between 0 and 1"
        )
    for kind in d.split.split("+"):
        if kind not in (allowed := ("official", "patient", "reference")):
            raise ConfigError(f"config.data.split is {d.split!r}; it may be {allowed}")
    if d.folds and (d.split != "patient" or d.folds < 2 or not 0 <= d.fold < d.folds):
        raise ConfigError(
            f"config.data.folds={d.folds}, fold={d.fold}, split={d.split!r}: folds are"
            " two or more, of split=patient, and fold lies in [0, folds)"
        )
    if len(d.size) not in (0, 2) or any(not str(n).isdigit() for n in d.size):
        raise ConfigError("config.data.size is two numbers: training images, classes")
    d.mix, d.size = tuple(map(float, d.mix)), tuple(map(int, d.size))
    if d.mix and (len(d.mix) != len(d.reader.split("+")) or min(d.mix) <= 0):
        raise ConfigError(
            f"config.data.mix={d.mix}: one weight above 0 for each set of"
            f" config.data.reader={d.reader!r}"
        )
    if d.mix and d.sampling == "covid_percent":
        raise ConfigError("set one of config.data.mix and sampling=covid_percent")


def check_start(run: Run) -> None:
    """ConfigError for sections on the start and its phases that contradict themselves."""
    i, f, p = run.init, run.freeze, run.phase
    if i.kind in ("random", "gabor") and (i.how, i.upto) != ("copy", ""):
        raise ConfigError(
            f"config.init.how={i.how!r} and upto={i.upto!r} say what is taken from a"
            f" checkpoint; they need config.init.kind=pretrained, not {i.kind}"
        )
    if i.above != "random" and not i.upto:
        raise ConfigError(
            "config.init.above needs config.init.upto: above which layer?"
        )
    if sum(map(bool, (f.bottom, f.top, f.top_layers))) > 1:
        raise ConfigError("set one of config.freeze.bottom, top and top_layers")
    if not (0 <= f.bottom <= 1 and 0 <= f.top <= 1 and f.top_layers >= 0):
        raise ConfigError("config.freeze.bottom and top are shares between 0 and 1")
    p.until, p.bottom = tuple(map(float, p.until)), tuple(map(float, p.bottom))
    ends = [0.0, *p.until, 1.0]
    if len(p.until) != len(p.bottom) or ends != sorted(set(ends)):
        raise ConfigError(
            f"config.phase.until={p.until} are rising fractions of the run, one for"
            f" each of config.phase.bottom={p.bottom}"
        )
    if f.head != "trained" and p.until:
        raise ConfigError(f"config.freeze.head={f.head} trains nothing: no phases")


def to_dict(run: Run) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(run)))


def from_dict(values: dict[str, Any], cls: type = Run) -> Any:
    """The inverse of to_dict; ConfigError for a field that the schema lacks."""
    out = cls()
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"unknown field {key!r}{nearest(key, list(known))}")
        default = getattr(out, key)
        if dataclasses.is_dataclass(default):
            value = from_dict(value, type(default))
        elif isinstance(default, tuple):
            value = _split(tuple(value))
        elif isinstance(default, float):
            value = float(value)
        setattr(out, key, value)
    return out


def _split(value: tuple) -> tuple:
    """The flag --config.data.views=PA,AP arrives as ("PA,AP",), and = as ("",)."""
    if value == ("",):
        return ()
    parts = [v.split(",") if isinstance(v, str) else [v] for v in value]
    return tuple(p for part in parts for p in part)


def digest(run: Run) -> str:
    """16 hex digits that name the run: of all that changes its numbers."""
    kept = {k: v for k, v in flat(run).items() if not re.fullmatch(NOT_IN_DIGEST, k)}
    for name, default in flat(Run()).items():
        if re.fullmatch(LATER, name) and kept[name] == default:
            del kept[name]
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
