"""The schema of a run: every option, what it means, and what depends on it.

Only primary numbers stand here; what follows from them or from the data is computed
later and written to config.json. A field's comment is its documentation.
"""

from dataclasses import dataclass, field
from typing import Any

DEPTHS = {  # units in each stage; R26 is big_vision's, the others BiT's (1912.11370)
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def one_of(default: Any, *others: Any) -> Any:
    """A field that has one of these values."""
    return field(default=default, metadata={"one of": (default, *others)})


@dataclass
class Model:
    name: str = "bit"  # a key of models.MODELS (bigxfer models lists them)
    blocks: tuple[int, ...] = DEPTHS[50]  # number of units in each stage (BiT)
    width: float = 1.0  # factor on every channel count; Keras's nets ignore it
    groups: int = 32  # number of groups in group normalisation (BiT)
    narrow: str = one_of("", "fewer", "same")  # groups of narrow norms (models/bit.py)
    dtype: str = one_of("float32", "bfloat16")  # to compute in; parameters stay float32
    remat: bool = False  # recompute each unit in the backward pass, to save memory
    slim_above: str = ""  # last block of full width, such as block2; "": none is slim
    slim: float = 0.5  # factor on the channels of the blocks above slim_above
    padding: str = one_of("SAME", "VALID")  # in CBR's convolutions and pools
    hidden: int = 256  # number of units in SmallCNN's dense layer
    dropout: float = 0.5  # rate after SmallCNN's dense layer


@dataclass
class Phantom:
    """The synthetic stand-in for data that is not at hand (data/phantom/write.py)."""

    images: int = 0  # number of images; 0: real data from data.root
    pixels: int = 64  # side of the images on disk
    distance: float = 0.0  # how far the domain lies from the default scanner, 0 to 1
    severity: float = 1.0  # strength of opacities; above 1 they are easier to see
    shortcut: float = 0.0  # probability that the source mark gives the class away
    seed: int = 0


@dataclass
class Data:
    reader: str = "chexpert"  # a key of data.readers.READERS, or a union: "nih+mimic"
    root: str = ""  # folder of the data (of a union "A:B"); "": the phantom stands in
    version: str = ""  # which label files, where a reader knows several
    size: tuple[int, ...] = ()  # images, classes (study list); (): the reader knows
    views: tuple[str, ...] = ("PA", "AP")  # views to keep; (): all; "" is unknown
    labels: tuple[str, ...] = ()  # classes to keep, in this order; (): all
    uncertain: str = one_of("ignore", "zeros", "ones")  # how to read CheXpert's -1
    blank: str = one_of("unknown", "negative")  # how to read CheXpert's empty cells
    space: str = one_of("union", "intersection")  # which labels a union of sets has
    mix: tuple[float, ...] = ()  # weights of a union's sets; (): by size
    split: str = "official"  # patient: at random; reference: as the predecessor split
    valid: float = 0.1  # share of the training patients held out for selection
    test: float = 0.15  # share of the patients in the test split (split=patient)
    folds: int = 0  # number of folds by patient, in place of `test`; 0: none
    fold: int = 0  # which fold is the test split
    split_seed: int = 0  # for split=patient and valid
    fraction: float = 1.0  # share of the training set to use, nested by run.seed
    fraction_of: str = one_of("images", "patients")
    shots: str = "full"  # images a class, such as "5"; full: all images
    negatives: str = one_of("shots", "share", "none")  # in shots (data/fewshot.py)
    draws: int = 1  # number of draws, seeds from run.seed on; above 1: a fitted head
    support: str = ""  # file of the ids that a draw takes; {seed} stands for its seed
    support_digest: str = ""  # sha256 of that file; the mains fill it in
    sampling: str = one_of("uniform", "classes", "covid_percent")  # data/sampling.py
    sampling_class: str = ""  # class that covid_percent adds to a batch; "": the rarest
    sampling_share: float = 0.3  # share of the batch that class has
    resize: int = 280  # side of the cached square image, pixels
    crop: int = 224  # side of the image that the model sees, pixels
    channels: int = one_of(1, 3)  # of cached images: 1 for radiographs, 3 for colour
    augment: str = one_of("crop", "inception", "affine", "colour")  # data/augment.py
    flip: bool = True  # mirror each image with probability 0.5
    max_bad: float = 0.0  # largest share of images that may fail to decode
    cache: str = "cache"  # folder that keeps decoded images
    storage: str = one_of("raw", "encoded")  # encoded: decode anew for every batch
    resident: bool = False  # keep the training images in device memory
    outside: bool = False  # let label files name images outside the root
    # Sets that the run is judged on too, and never trains on (data/external.py).
    external: str = ""  # their readers: "csv+nih"
    external_root: str = ""  # their folders: "A:B"
    external_version: str = ""  # one for all, or joined by "+"; it is part of the name
    external_classes: tuple[str, ...] = ()  # "theirs=ours", where names differ
    phantom: Phantom = field(default_factory=Phantom)


@dataclass
class Init:
    """Where the parameters start (protocols/init.py explains each value)."""

    kind: str = one_of("random", "pretrained", "imagenet", "gabor", "features")
    how: str = one_of("copy", "mean_var", "shuffle", "resample")  # of the layers taken
    upto: str = ""  # last layer or block to take; "": all but the head
    above: str = one_of("random", "mean_var")  # start of the layers above `upto`
    batch_norm: str = one_of("identity", "copy")  # start of norms, where how != copy
    checkpoint: str = ""  # a run folder, an npz or, of a Keras model, an .h5
    upstream: str = ""  # without `checkpoint`: config (FILE:args) of the run to take
    features: str = ""  # features file in place of a net (docs/encoders.md)
    digest: str = ""  # of the upstream or the features; the mains fill it in


@dataclass
class Freeze:
    """Which layers stay as they start; the head always trains (protocols/freeze.py)."""

    bottom: float = 0.0  # share of the layers to fix, counted from the input
    top: float = 0.0  # share of the layers to train, counted from the head; 0: all
    top_layers: int = 0  # number of layers to train, with the head; 0: all
    count_by: str = one_of("layers", "keras_layers", "params")  # unit of both shares
    batch_norm: str = one_of("inference", "batch")  # statistics that fixed layers use
    # "trained" learns by gradients; the others are fitted to features of the fixed net.
    head: str = one_of("trained", "ridge", "logistic", "ncm", "knn")


@dataclass
class Phase:
    """Phases before the one that Freeze describes, which is the last."""

    until: tuple[float, ...] = ()  # end of each phase, as a fraction of the run
    bottom: tuple[float, ...] = ()  # share of the layers to fix in each phase


@dataclass
class Optim:
    optimizer: str = one_of("sgd", "adam")
    lr: float = 0.003  # peak rate at a batch of lr_batch; scales with the batch
    lr_batch: int = 512  # batch size that lr is for
    batch: int = 512  # images in a step, over all devices
    micro_batch: int = 0  # images at once; 0: the fastest; -1: the most that fit
    steps: int = 0  # set steps or epochs; neither where the HyperRule sets them
    epochs: float = 0.0  # passes over the training set
    schedule: str = one_of("hyperrule", "cosine", "step", "constant")
    variant: str = one_of("code", "paper")  # which published HyperRule
    warmup_steps: int = 0  # linear rise from 0; set warmup_steps or warmup_epochs
    warmup_epochs: float = 0.0
    # schedule=step: fractions of the run at which the rate falls to a tenth.
    boundaries: tuple[float, ...] = ()
    momentum: float = 0.9  # of SGD; of Adam its beta1
    nesterov: bool = False  # Nesterov momentum
    weight_decay: float = 0.0  # added to the gradient (coupled), as in BiT
    agc: float = 0.0  # threshold of adaptive gradient clipping (2102.06171); 0: off
    mixup: float = 0.0  # alpha of the Beta; 0: off; -1: as the HyperRule says
    tune: tuple[
        float, ...
    ] = ()  # what eval.select_on chooses from: peak rates or, of a fitted head, penalties


@dataclass
class Eval:
    every: int = 0  # steps between validations; 0: only at the end
    select: str = ""  # validation metric that picks the step; "": the last step
    # Labels that choose settings; "": none below 5 shots, support from 5, validation at full.
    select_on: str = one_of("", "none", "support", "validation")
    batch: int = 128  # images at once; a CPU takes fewer where they are large
    resamples: int = 1000  # 0: no intervals; any other number: intervals
    margin: float = 0.02  # two cells that differ by less count as equal in reports


@dataclass
class Mesh:
    fsdp: int = 1  # number of devices that share one copy of the parameters
    memory_gb: float = 0.0  # memory of a device; 0: as it reports


@dataclass
class Log:
    every: int = 20  # steps between lines of metrics.jsonl
    writers: tuple[str, ...] = ()  # tensorboard, wandb, mlflow (docs/run_folder.md)


@dataclass
class Run:
    kind: str = one_of("upstream", "transfer")
    seed: int = 0  # for the parameters, the order, the augmentation and the draw
    keep: str = one_of("all", "upstream", "none")  # which runs keep their params.npz
    checkpoints: int = 0  # minimum number; 0: at least 4, never closer than 20 s
    arg: str = ""  # the text behind the colon of --config
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    init: Init = field(default_factory=Init)
    freeze: Freeze = field(default_factory=Freeze)
    phase: Phase = field(default_factory=Phase)
    optim: Optim = field(default_factory=Optim)
    eval: Eval = field(default_factory=Eval)
    mesh: Mesh = field(default_factory=Mesh)
    log: Log = field(default_factory=Log)


# What depends on each field: (section, fields, words, since). Every field stands here
# once. The words:
#   digest    its value names the run
#   program   what is compiled depends on it, and on no field without this word
#   images    says which images there are, and how they are stored: names a cache
#   rows      says which of these images are used, and how
# `since` is the date of a field that came after the first runs. At its default it is left
# out of the digest: otherwise each new field would give every old run another name.
SECOND, THIRD, FOURTH = "2026-11-22", "2026-11-30", "2026-12-01"
PLACES = (
    ("", "kind seed", "digest", ""),
    ("", "keep checkpoints arg", "", ""),
    ("model/", "name blocks width groups dtype remat", "digest program", ""),
    ("model/", "slim_above slim padding hidden dropout", "digest program", SECOND),
    ("model/", "narrow", "digest program", THIRD),
    ("data/", "reader version views labels uncertain", "digest images", ""),
    ("data/", "blank split max_bad", "digest images", ""),
    ("data/", "root size cache storage outside", "images", ""),
    ("data/", "resize channels", "digest images program", ""),
    ("data/", "crop augment flip", "digest rows program", ""),
    ("data/", "resident", "rows program", ""),
    ("data/", "valid test split_seed shots", "digest rows", ""),
    ("data/", "folds fold fraction fraction_of", "digest rows", SECOND),
    ("data/", "space mix", "digest rows", SECOND),
    ("data/", "negatives draws support_digest", "digest rows", THIRD),
    ("data/", "support", "rows", ""),
    ("data/", "sampling sampling_class sampling_share", "digest rows", SECOND),
    ("data/", "external external_version external_classes", "digest rows", FOURTH),
    ("data/", "external_root", "rows", FOURTH),
    ("data/phantom/", "images pixels distance", "digest images", ""),
    ("data/phantom/", "shortcut seed", "digest images", ""),
    ("data/phantom/", "severity", "digest images", SECOND),
    ("init/", "kind digest", "digest", ""),
    ("init/", "how upto above batch_norm", "digest", SECOND),
    ("init/", "checkpoint upstream features", "", ""),
    ("freeze/", "bottom top top_layers count_by", "digest program", SECOND),
    ("freeze/", "batch_norm head", "digest program", SECOND),
    ("phase/", "until bottom", "digest program", SECOND),
    ("optim/", "optimizer lr lr_batch batch micro_batch", "digest program", ""),
    ("optim/", "steps epochs schedule variant", "digest program", ""),
    ("optim/", "warmup_steps warmup_epochs boundaries", "digest program", ""),
    ("optim/", "momentum nesterov weight_decay agc mixup", "digest program", ""),
    ("optim/", "tune", "digest", FOURTH),
    ("eval/", "every select resamples", "digest", ""),
    ("eval/", "select_on", "digest", THIRD),
    ("eval/", "batch", "digest program", ""),
    ("eval/", "margin", "", ""),
    ("mesh/", "fsdp memory_gb", "program", ""),
    ("log/", "every writers", "", ""),
)
