"""The grid of Cherti and Jitsev (arXiv 2106.00116), run anew.

  python -m bigxfer.study list --config configs/study_cherti_jitsev.py
  python -m launch.slurm --config configs/study_cherti_jitsev.py:root=DATA \\
      --profile launch/profiles/juwels_booster.py

DATA/NAME holds each set as docs/datasets.md says: chexpert, mimic, nih, padchest,
imagenet, imagenet21k, covidx, tuberculosis, and tfds for cifar10, cifar100,
oxford_flowers102 and oxford_iiit_pet. R50x1 and R152x4, upstreams of radiographs and
of photographs, seven targets at 1, 5, 10, 100, 500 shots and at full data as far as
they were run, five draws. The published results are in colabs/published_runs.csv.

As published: the upstream recipe at a batch of 1024, labels of unions intersected, the
fine-tuning at a batch of 128 with AGC, the HyperRule's steps, no validation split, and
their split of images for PadChest and tuberculosis, which leaks patients and says so.
Not as published: draws are nested; squares, not the shorter side, are resized; flowers
train on the official training split; PadChest's images go through the same crops as the
others. Thousands of GPU hours (`list` estimates them); not run by us.
"""

from collections.abc import Iterator

from bigxfer import config, presets

MODELS = ("R50x1", "R152x4")
FEW = ("1", "5", "10")
XRAYS = ("chexpert", "chexpert+mimic", "chexpert+mimic+nih")
LARGEST = "chexpert+mimic+nih+padchest"
PHOTOS = ("imagenet", "imagenet21k")
TARGETS = {  # reader, version, shots, the X-ray upstreams that were tried on it
    "covidx": ("covidx", "", (*FEW, "100", "500", "full"), (*XRAYS, LARGEST)),
    "tuberculosis": ("tuberculosis", "", (*FEW, "100", "full"), (*XRAYS, LARGEST)),
    "padchest": ("padchest", "single", (*FEW, "100", "full"), XRAYS),
    "cifar10": ("tfds", "cifar10", (*FEW, "100", "500", "full"), ()),
    "cifar100": ("tfds", "cifar100", (*FEW, "100", "500", "full"), ()),
    "flowers": ("tfds", "oxford_flowers102", (*FEW, "full"), ()),
    "pets": ("tfds", "oxford_iiit_pet", (*FEW, "full"), ()),
}
ALONE = {  # upstreams of one set that were tried at R152x4 only
    "covidx": ("mimic", "padchest"),
    "tuberculosis": ("mimic", "nih", "padchest"),
    "padchest": (),
}
ARGS = {"root": "", "model": MODELS[0], "upstream": "", "target": "covidx"}


def get_config(arg: str = "") -> config.Run:
    """A transfer to `target`, or the upstream run."""
    a = presets.parse_arg(arg, **ARGS)
    if a["upstream"]:
        return upstream(a["upstream"], a["model"], a["root"], arg)
    reader, version, _, _ = TARGETS[a["target"]]
    run = presets.load("configs/covidx_hyperrule.py")
    run.arg, run.model, run.keep = arg, presets.bit(a["model"]), "upstream"
    # valid=0: the published runs held no validation images out.
    run.data = config.Data(reader=reader, version=version, views=(), valid=0.0)
    # CIFAR's 32 px lie below the rule's border of 96 x 96 pixels.
    run.data.resize, run.data.crop = (
        (160, 128) if "cifar" in a["target"] else (512, 480)
    )
    if reader == "tfds":
        run.data.channels = 3
    if reader in ("padchest", "tuberculosis"):
        run.data.split = "reference"
    place(run.data, a["root"])
    o = run.optim
    o.batch, o.lr, o.lr_batch, o.nesterov, o.agc = 128, 0.001, 128, True, 0.01
    return run


def upstream(name: str, model: str, root: str, arg: str) -> config.Run:
    photos = name in PHOTOS
    file = f"configs/upstream_{'imagenet' if photos else 'chexpert'}.py"
    recipe = "bit" if photos else "predecessor"
    run = presets.load(f"{file}:model={model},recipe={recipe}")
    # As published: a union has the findings that all its sets know.
    run.arg, run.data.reader, run.data.space = arg, name, "intersection"
    # BiT's batch, and the predecessor's 16 x 64 GPUs.
    run.optim.batch = 4096 if photos else 1024
    # Raw, ImageNet-21k would fill 3.3 TB: 14.2 million images of 280 x 280 x 3 bytes.
    if photos:
        run.data.storage = "encoded"
    # It has no official split, and each image counts as a patient.
    if name == "imagenet21k":
        run.data.split = "patient"
    if "padchest" in name:
        splits = [
            "reference" if s == "padchest" else "official" for s in name.split("+")
        ]
        run.data.split = "+".join(splits)
        run.data.views = ("PA", "AP", "AP Supine", "L", "COSTAL")
    place(run.data, root)
    return run


def place(data: config.Data, root: str) -> None:
    """Every set in its folder of root; without root, none yet."""
    if root:
        # One root for each set of a union, as config.data.root wants them.
        data.root = ":".join(f"{root}/{name}" for name in data.reader.split("+"))


def sweep(arg: str = "") -> Iterator[dict]:
    root = presets.parse_arg(arg, root="")["root"]
    here = f"configs/study_cherti_jitsev.py:root={root}"
    for target, (_, _, shots, xrays) in TARGETS.items():
        for model in MODELS:
            alone = ALONE.get(target, ()) if model == "R152x4" else ()
            for source in (*PHOTOS, *xrays, *alone):
                for k in shots:
                    for seed in range(5):
                        yield {
                            "config": f"{here},model={model},target={target}",
                            "init.upstream": f"{here},model={model},upstream={source}",
                            "data.shots": k,
                            "data.sampling": balanced(target, k),
                            "seed": seed,
                        }


def balanced(target: str, shots: str) -> str:
    """COVIDx and Flowers are oversampled at full data (their finetune configs)."""
    return (
        "classes" if shots == "full" and target in ("covidx", "flowers") else "uniform"
    )
