"""CheXNet to COVID-19: how many layers should train? (Lo and Elezabi)

  python -m bigxfer.study list --config configs/study_chexnet_covid.py
  python -m launch.slurm --config configs/study_chexnet_covid.py:root=DATA --profile FILE
  python -m launch.local --config configs/study_chexnet_covid.py:phantom
  python -m launch.local --config configs/study_chexnet_covid.py:small=1,nih=A,covid=B

The report takes a DenseNet-121 trained on ChestX-ray14 to COVIDx in three classes,
with 30% of each batch COVID-19, and trains one layer, 18% or 50% of the layers from
the top. It found training accuracies of .6514, .8923 and .9545 and test accuracies of
.2545, .3571 and .3346; a MobileNetV2 from ImageNet had .855 and .456. (Its test
batches were rebalanced too.) With a small BiT at 32 px we find test accuracies of
.385, .395 and .494, and .604 where all layers train (docs/findings.md).

As published: covid_percent 0.3, batch 32, Adam 1e-3, 10 epochs, COVIDx2's files
(7,966, 5,451 and 152 training images; data.version=2), 224 px; upstream as CheXNet:
Adam 1e-3, batch 16, flips, 14 findings. Not as published: the upstream's rate falls at
fixed epochs (5 and 8 of 10), not on a plateau; accuracy on the test set as it is; the
intensity shift is left out (the affine view shifts, turns and mirrors). Beyond the
report: all layers, a random start, and uniform batches. Layers are counted as Keras's.
DATA/NAME holds nih and covidx. Under an hour a run on a GPU, the upstream some hours;
not run by us at this size. **An NIH upstream has seen most of COVIDx's normal and
pneumonia images**: result.json's `leaks` count them.

phantom: SYNTHETIC. small: R26x0.25 on NIH radiographs (nih64), then COVID-19, 32 px,
the same 10 epochs: 18 transfers, some 6 processor minutes.
"""

from collections.abc import Iterator

from bigxfer import presets
from bigxfer.config import Data, Model, Optim, Run

TOP = ({"top_layers": 1}, {"top": 0.18}, {"top": 0.5}, {})  # what trains; {}: all
SEEDS = range(3)
HERE = "configs/study_chexnet_covid.py"
FORM = {"phantom": False, "small": False, "nih": "", "covid": "", "root": ""}
ARGS = {**FORM, "model": "densenet121", "domain": ""}


def get_config(arg: str = "") -> Run:
    """A transfer to COVIDx or, with domain=nih, the CheXNet that it starts from."""
    a = presets.parse_arg(arg, **ARGS)
    run = Run(arg=arg, keep="all", model=Model(name=a["model"]))
    run.kind = "upstream" if a["domain"] else "transfer"
    o = run.optim = Optim(optimizer="adam", lr=1e-3)
    o.schedule, o.epochs = "constant", 10.0
    if a["domain"]:
        run.data = Data(reader="nih", augment="crop")
        # Equal, so that the published rate is not scaled.
        o.batch = o.lr_batch = 16
        # In place of a plateau: at 5 and 8 of the 10 epochs.
        o.schedule, o.boundaries = "step", (0.5, 0.8)
        run.data.root = a["nih"] or (a["root"] and f"{a['root']}/nih")
    else:
        run.data = Data(reader="covidx", views=(), augment="affine")
        # As published: covid_percent=0.3 of each batch.
        run.data.sampling, run.data.sampling_share = "covid_percent", 0.3
        run.data.sampling_class = "COVID-19"
        o.batch = o.lr_batch = 32
        run.freeze.count_by = "keras_layers"
        run.eval.every = 430  # an epoch of 13,569 images less the validation's
        run.data.root = a["covid"] or (a["root"] and f"{a['root']}/covidx")
    run.data.resize = run.data.crop = 224
    return shrink(run, a) if a["phantom"] or a["small"] else run


def shrink(run: Run, a: dict) -> Run:
    """R26x0.25 at 32 px; the same rate, batch, epochs and share of COVID-19."""
    if a["domain"]:
        shape = "model=R26x0.25,res=32,batch=32,recipe=small,steps=600"
        size = ",phantom=3000" if a["phantom"] else f",root={a['nih']}"
        run = presets.load(f"configs/upstream_nih.py:{shape}{size}")
    else:
        run.model = presets.bit("R26x0.25")
        # Keras's layers are those of Keras's nets; BiT's are counted by its own.
        run.freeze.count_by, run.eval.every, run.data.valid = "layers", 24, 0.2
        presets.set_res(run.data, 32)
        run.data.phantom.images = 600 if a["phantom"] else 0
        if a["small"]:
            run.data.reader, run.data.sampling_class = "csv", "covid19"
    if a["phantom"]:
        run.data.phantom.pixels, run.data.phantom.severity = 40, 2.0
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    a = presets.parse_arg(arg, **FORM)
    little = a["phantom"] or a["small"]
    form = ",".join(f"{k}={int(v) if v is True else v}" for k, v in a.items() if v)
    here = f"{HERE}:{form}" + ("," if form else "")
    base = {"config": here.removesuffix(",")}
    base |= {} if little else {"data.version": "2"}
    chexnet = {"init.kind": "pretrained"}
    chexnet |= {"init.upstream": f"{here}domain=nih"}
    for seed in SEEDS:
        for top in TOP:
            fixed = {f"freeze.{name}": value for name, value in top.items()}
            yield base | chexnet | fixed | {"seed": seed}
        yield base | chexnet | {"data.sampling": "uniform", "seed": seed}
        yield base | {"init.kind": "random", "seed": seed}
        if not little:  # no weights of ImageNet at hand
            mobile = {"config": f"{here}model=mobilenet_v2", "init.kind": "imagenet"}
            yield base | mobile | {"seed": seed}
