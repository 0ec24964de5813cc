"""Random or ImageNet start on four medical and natural sets (PyData 2019, Kierzynka).

  python -m bigxfer.study list --config configs/study_init.py
  python -m launch.slurm --config configs/study_init.py:root=DATA --profile FILE
  python -m launch.local --config configs/study_init.py:phantom
  python -m launch.local --config configs/study_init.py:small=1,nih=A,covid=B

The talk found that ImageNet's weights let Inception-v3, ResNet50-v2, DenseNet-121 and
MobileNet converge 7 times faster on average, and gain 5.5% (histopathologic cancer),
4.9% (retina), 2.1% (proteins) and 25.7% (cats and dogs) of test AUC; that they may
overfit earlier; and that a SmallCNN is on par with the large nets from scratch. With
three small nets from NIH to COVID-19 at 32 px we find no speed-up (x0.6 to x1.1) and
no gain that three draws could tell, and SmallCNN not behind the largest net
(docs/findings.md).

As published: the four nets at their default sizes and SmallCNN at 128 px, Adam at the
set's rate (LR), 3 epochs of the head alone, then 50 of all, 8:1:1, the best checkpoint
of the validation AUC; flips both ways, noise, brightness, saturation, hue and
contrast. Not as published: AUROC is macro; the split keeps patients together; the
amounts of the augmentations and the batch, which the talk does not say, are ours;
images go to each net's own range; all 28 places of proteins with one label each, not
its 17. Both starts go through the same 53 epochs. DATA/NAME holds histopathology,
aptos, proteins, catsdogs. The talk says 4 days on 16 V100; not run by us.

phantom: SYNTHETIC, from synthetic radiographs and from shapes. small: from NIH
radiographs (nih64) to COVID-19, 32 px; three nets, 24 transfers, some 14 processor
minutes.
"""

from collections.abc import Iterator

from bigxfer import config, presets
from bigxfer.config import Data, Model, Optim, Run

LR = {"histopathology": 1e-5, "aptos": 1e-4, "proteins": 1e-4, "catsdogs": 1e-5}
EPOCH = {"histopathology": 5500, "aptos": 92, "proteins": 364, "catsdogs": 625}  # steps
NETS = {  # pixels: Keras's defaults; SmallCNN's input as the slide draws it
    "inception_v3": 299,
    "resnet50_v2": 224,
    "densenet121": 224,
    "mobilenet": 224,
    "smallcnn": 128,
}
HEAD, ALL = 3, 50  # epochs
SMALL = {
    "smallcnn": Model(name="smallcnn", width=0.25, hidden=64),
    "cbr_small": Model(name="cbr_small", width=0.25),
    "bit": presets.bit("R26x0.25"),
}
SEEDS = range(3)
HERE = "configs/study_init.py"
FORM = {"phantom": False, "small": False, "nih": "", "covid": "", "root": ""}
ARGS = {**FORM, "model": "", "target": "aptos", "domain": ""}


def get_config(arg: str = "") -> Run:
    """A transfer or, with domain=nih or natural, what it starts from."""
    a = presets.parse_arg(arg, **ARGS)
    run = little(a) if a["phantom"] or a["small"] else published(a)
    run.kind, run.arg = "upstream" if a["domain"] else "transfer", arg
    return run


def published(a: dict) -> Run:
    model, target = a["model"] or "mobilenet", a["target"]
    run = Run(keep="all", model=Model(name=model))
    # 8:1:1: a ninth of the nine tenths that test leaves.
    run.data = Data(reader=target, split="patient", test=0.1, valid=1 / 9, views=())
    # Proteins with one label each, of 28 places.
    run.data.channels, run.data.version = 3, "single" if target == "proteins" else ""
    run.data.resize = run.data.crop = NETS[model]
    run.data.augment = "colour"
    run.data.root = a["root"] and f"{a['root']}/{target}"
    run.optim = Optim(optimizer="adam", lr=LR[target], lr_batch=32, batch=32)
    run.optim.schedule, run.optim.epochs = "constant", float(HEAD + ALL)
    # First the head alone: bottom=1 fixes all that lies below it.
    run.phase.until, run.phase.bottom = (HEAD / (HEAD + ALL),), (1.0,)
    run.eval.select, run.eval.every = "auroc_macro", EPOCH[target]
    return run


def little(a: dict) -> Run:
    """The forms for two cores: 32 px, the same phases in 212 steps of Adam, 1e-3."""
    shape = "res=32,batch=32"
    if a["domain"]:
        file = "upstream_nih" if a["domain"] == "nih" else "upstream_imagenet"
        images = ",phantom=3000" if a["phantom"] else ""
        run = presets.load(f"configs/{file}.py:{shape},recipe=small,steps=600{images}")
        run.data.augment, run.data.root = "affine", a["nih"]
    else:
        run = presets.load(f"configs/covidx_small.py:{shape},phantom=600")
        if a["small"]:
            run.data.reader, run.data.root, run.data.phantom.images = (
                "csv",
                a["covid"],
                0,
            )
        run.data.valid, run.init, run.keep = 0.2, config.Init(), "all"
        # 53 epochs of 4 steps.
        run.optim = Optim(optimizer="adam", lr=1e-3, lr_batch=32, batch=32, steps=212)
        run.optim.schedule = "constant"
        run.phase.until, run.phase.bottom = (HEAD / (HEAD + ALL),), (1.0,)
        run.eval.select, run.eval.every = "auroc_macro", 20
    if a["phantom"]:
        run.data.phantom.severity = 2.0
    run.model = config.from_dict(vars(SMALL[a["model"] or "smallcnn"]), Model)
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    a = presets.parse_arg(arg, **FORM)
    little = a["phantom"] or a["small"]
    form = ",".join(f"{k}={int(v) if v is True else v}" for k, v in a.items() if v)
    here = f"{HERE}:{form}" + ("," if form else "")
    for model in SMALL if little else NETS:
        for target in ("covidx",) if little else LR:
            run = {"config": f"{here}model={model},target={target}"}
            for start in starts(a, model, f"{here}model={model}"):
                for seed in SEEDS:
                    yield run | start | {"seed": seed}


def starts(a: dict, model: str, upstream: str) -> Iterator[dict]:
    """Random, pretrained and Mean-Var; SmallCNN has no weights from ImageNet.

    No Mean-Var of BiT: its weight standardisation undoes it (protocols/init.py).
    """
    yield {"init.kind": "random"}
    published = not (a["phantom"] or a["small"])
    if published and model == "smallcnn":
        return
    whole = (
        {"init.kind": "imagenet"} if published else pretrained(f"{upstream},domain=nih")
    )
    yield whole
    if model != "bit":
        yield whole | {"init.how": "mean_var"}
    if a["phantom"]:
        yield pretrained(f"{upstream},domain=natural")


def pretrained(upstream: str) -> dict:
    return {"init.kind": "pretrained", "init.upstream": upstream}
