"""Transfusion (Raghu et al., 1902.07208): what does ImageNet give to medical images?

  python -m bigxfer.study list --config configs/study_transfusion.py
  python -m launch.slurm --config configs/study_transfusion.py:root=DATA --profile FILE
  python -m launch.local --config configs/study_transfusion.py:phantom
  python -m launch.local --config configs/study_transfusion.py:small=1,nih=A,covid=B

The paper found that transfer hardly changes the final AUROC, for large nets (ResNet50,
Inception-v3) as for small CBR ones; that it does help at 5,000 images; that it speeds
up convergence, most of it by the first layers (weight transfusion), part of it by the
scale of the weights alone (Mean-Var); that a net pretrained up to Block2 and slim
above does as well; and that synthetic Gabor filters do what a pretrained conv1 does.
With two small nets at 32 px, from NIH radiographs to COVID-19, we find no start that
differs from a random one by more than the noise of three draws; on the phantom a near
upstream gains 0.18 AUROC, its first layer alone and Mean-Var nothing
(docs/findings.md).

As published: Adam, 1e-3, batch 8, 587 px (RETINA); SGD, batch 32, 0.1 x 32/256 after 5
epochs of warm-up, x0.1 at epochs 30, 60 and 90, five findings, 224 px (CheXpert);
three repetitions; speed as steps to a fixed AUROC. Not as published: EyePACS for
RETINA, which is private, and its five grades for referable or not; the number of
epochs, which the paper does not say (100 and 20); the slim hybrid on BiT R50x1 and on
CBR, as Keras's ResNet50 has one width. DATA/NAME holds eyepacs, chexpert and, for
CBR's and BiT's upstream, imagenet; those of Keras take its ImageNet weights. Beyond
the paper: the controls shuffle and resample, and Mean-Var of a run on the same data
(domain=own), a question of the seminar. BiT has no Mean-Var, which its weight
standardisation undoes (protocols/init.py); its slim nets are for the hybrid. Thousands of GPU hours (`list` estimates
them); not run by us.

phantom: SYNTHETIC, two small nets, from synthetic radiographs and from shapes. small:
NIH radiographs (nih64) to COVID-19, 32 px: 54 transfers, some 18 processor minutes.
"""

from collections.abc import Iterator

from bigxfer import config, presets
from bigxfer.config import Data, Model, Optim, Run

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
CBR = ("cbr_large_t", "cbr_large_w", "cbr_small", "cbr_tiny")
CUTS = {  # the last layer that is taken, from few to many; all but the head comes last
    "resnet50": ("conv1", "conv2", "conv3", "conv4"),
    "inception_v3": ("stem/conv2d", "stem", "mixed2", "mixed7"),
    "R50x1": ("root_block", "block1", "block2", "block3"),
    **dict.fromkeys(CBR, ("block1", "block2", "block3")),
}
FEW = {"eyepacs": 5000 / 31_600, "chexpert": 5000 / 172_000}  # of the training images
NETS = {  # of the forms for two cores: R26 in the place of ResNet50
    "large": presets.bit("R26x0.25"),
    "tiny": Model(name="cbr_tiny", width=0.25),
    "demo": presets.bit("R1-1-1-1x0.25"),
}
FIRST = {"large": "root_block", "tiny": "block1", "demo": "root_block"}
SEEDS = range(3)
HERE = "configs/study_transfusion.py"
FORM = {"phantom": False, "small": False, "nih": "", "covid": "", "root": ""}
ARGS = {**FORM, "model": "", "target": "eyepacs", "domain": "", "slim": False}


def get_config(arg: str = "") -> Run:
    """A transfer or, with domain=nih, natural, imagenet or own, what it starts from."""
    a = presets.parse_arg(arg, **ARGS)
    on_two_cores = a["phantom"] or a["small"]
    a["model"] = a["model"] or ("large" if on_two_cores else "resnet50")
    run = little(a) if on_two_cores else published(a)
    run.kind, run.arg = "upstream" if a["domain"] else "transfer", arg
    if a["slim"]:
        run.model.slim_above, run.model.slim = "block2", 0.5
    return run


def published(a: dict) -> Run:
    if a["domain"] == "imagenet":
        run = presets.load(f"configs/upstream_imagenet.py:batch=256,model={a['model']}")
        run.data.root = a["root"] and f"{a['root']}/imagenet"
        return run
    run = Run(keep="upstream", model=presets.model(a["model"]))
    run.data = Data(reader=a["target"], views=(), channels=3)
    o = run.optim = Optim()
    run.eval.select = "auroc_macro"
    # In place of RETINA, which is private; 20 epochs are our choice.
    if a["target"] == "eyepacs":
        run.data.resize = run.data.crop = 587
        o.optimizer, o.schedule, o.lr, o.lr_batch = "adam", "constant", 1e-3, 8
        o.batch, o.epochs, run.eval.every = 8, 20.0, 1000
    else:
        run.data.labels, run.data.channels = FIVE, 1
        run.data.views, run.data.resize = ("PA", "AP"), 224
        o.schedule, o.lr, o.lr_batch, o.batch = "step", 0.1, 256, 32
        # Epochs 30, 60 and 90 of a hundred, which is our choice.
        o.warmup_epochs, o.epochs, o.boundaries = 5.0, 100.0, (0.3, 0.6, 0.9)
        run.eval.every = 2000
    run.data.root = a["root"] and f"{a['root']}/{a['target']}"
    return run


def little(a: dict) -> Run:
    """The forms for two cores: a net of NETS, 32 px, Adam."""
    shape = "res=32,batch=32"
    if a["domain"] in ("nih", "natural"):
        file = "upstream_nih" if a["domain"] == "nih" else "upstream_imagenet"
        steps = "steps=600" + (",phantom=3000" if a["phantom"] else "")
        run = presets.load(f"configs/{file}.py:{shape},recipe=small,{steps}")
        run.data.augment, run.data.root = "affine", a["nih"]
    else:
        size = "steps=100,phantom=600" if a["phantom"] else "steps=160"
        run = presets.load(f"configs/covidx_small.py:{shape},{size}")
        if a["small"]:
            run.data.reader, run.data.root = "csv", a["covid"]
        # covidx_small.py has an upstream of its own; here `sweep` names each start.
        run.init = config.Init()
        run.keep, run.eval.every = "all", 10  # kept for bigxfer.analyze
        run.data.valid = 0.2
    if a["phantom"]:
        run.data.phantom.severity = 2.0
    run.model = config.from_dict(vars(NETS[a["model"]]), Model)
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    a = presets.parse_arg(arg, **FORM)
    form = ",".join(f"{k}={int(v) if v is True else v}" for k, v in a.items() if v)
    here = f"{HERE}:{form}" + ("," if form else "")
    arms = little_arms(a) if a["phantom"] or a["small"] else published_arms()
    for model, more, start, size in arms:
        run = {"config": f"{here}model={model}{more}", **start, **size}
        if domain := run.pop("from", ""):
            # "own" trains on the target, whose args it needs; no upstream is slim.
            target_args = "" if domain == "imagenet" else more.replace(",slim=1", "")
            run["init.kind"] = "pretrained"
            run["init.upstream"] = f"{here}model={model}{target_args},domain={domain}"
        for seed in SEEDS:
            yield run | {"seed": seed}


def published_arms() -> Iterator[tuple[str, str, dict, dict]]:
    """(model, more args, start, size of the training set)."""
    for model, cuts in CUTS.items():
        keras = model in ("resnet50", "inception_v3")
        whole = {"init.kind": "imagenet"} if keras else {"from": "imagenet"}
        for target, few in FEW.items():
            to = f",target={target}"
            for start in starts(whole, cuts):
                if not nothing(model, start):
                    yield model, to, start, {}
            for start in ({"init.kind": "random"}, whole):
                yield model, to, start, {"data.fraction": few}
            if not keras:
                for start in ({"init.kind": "random"}, whole | {"init.upto": "block2"}):
                    yield model, f"{to},slim=1", start, {}


def starts(whole: dict, cuts: tuple[str, ...]) -> Iterator[dict]:
    """Every start of the paper, and the controls, from what is pretrained."""
    yield {"init.kind": "random"}
    yield whole
    for how in ("mean_var", "shuffle", "resample"):
        yield whole | {"init.how": how}
    yield whole | {"init.how": "mean_var", "init.batch_norm": "copy"}
    for cut in cuts:
        yield whole | {"init.upto": cut}
    yield whole | {"init.upto": cuts[0], "init.above": "mean_var"}
    if not cuts[0].startswith("stem"):  # Inception-v3 begins with 3 x 3
        yield {"init.kind": "gabor"}
    yield {"from": "own", "init.how": "mean_var"}


def nothing(model: str, start: dict) -> bool:
    """Whether a start is Mean-Var on a BiT, which standardises its kernels."""
    copied = start.get("init.batch_norm") == "copy"
    return model == "R50x1" and "mean_var" in start.values() and not copied


def little_arms(a: dict) -> Iterator[tuple[str, str, dict, dict]]:
    """The same for two nets, from nih and, on the phantom, from natural."""
    nets = ("demo", "tiny") if a["phantom"] else ("large", "tiny")
    for model in nets:
        scratch, near = {"init.kind": "random"}, {"from": "nih"}
        yield model, "", scratch, {}
        yield model, "", near, {}
        if model == "tiny":  # the others are BiT
            yield model, "", near | {"init.how": "mean_var"}, {}
        yield model, "", near | {"init.upto": FIRST[model]}, {}
        yield model, "", {"init.kind": "gabor"}, {}
        if a["phantom"]:
            yield model, "", {"from": "natural"}, {}
            continue
        yield model, "", near | {"init.upto": "block2"}, {}
        if model == "tiny":
            yield model, "", {"from": "own", "init.how": "mean_var"}, {}
        for start in (scratch, near):
            yield model, "", start, {"data.shots": "10"}
        if model == "large":
            yield model, ",slim=1", scratch, {}
            yield model, ",slim=1", near | {"init.upto": "block2"}, {}
