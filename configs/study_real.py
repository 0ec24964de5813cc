"""Does a larger upstream help on a medical target, and does its domain matter? Real images.

  python -m bigxfer.study list --config configs/study_real.py:root=DATA --tflops 0.05
  python -m launch.local --config configs/study_real.py:root=DATA,part=contrast --workers 2

DATA holds tiny_imagenet (50,000 photographs of 200 classes), mednist (12,000 images of six
modalities), nih64 (640 chest films to train on), knee_oa (8,260 knee radiographs, five grades)
and covid_cxr (1,277 chest films, three classes). The parts, in the order in which they are run;
part= left out is all of them. Each goes seed by seed, so that what is done when it is stopped is
whole rows of one upstream seed.

  pilot      contrast with three of its seeds: for `study plan`
  rates      four rates of fine-tuning: by validation, seed 0 of them set FINE; seeds 1 and 2, added
             after the pilot, show how far its finding hangs on that choice
  contrast   R26x0.25, tiny_imagenet 705 against 45,125 images, and scratch, to knee_oa, five seeds
  sizes      the two sizes between, five seeds
  fractions  the smallest net at seven fractions, 1/64 to 1, three seeds
  nets       R26x0.125 at four sizes, R26x0.5 at the smallest and the largest, five seeds
  domains    mednist, nih64, the control; covid_cxr too
  shots      fine-tuning at 1, 5 and 10 shots, ten draws; the HyperRule's 500 steps of 512
  encoders   heads on each TARGET_NAME.npz of features=FOLDER: pixels, encoders of others

Fixed: 48 px in grey, every upstream 6,000 steps of 32 by the recipe "short" (presets.py), whatever
its net or its number of images; shares of 1/64, 1/16, 1/4 and 1 of tiny_imagenet's 45,125
training images (the rest of its 50,000 are held out for its own metric), and the same counts of
the others as far as they have them. Subsets are nested within a seed; a seed of an upstream is also the
seed of its fine-tuning at full data. Fine-tuning: 900 steps of 64 at full data and 100 at few
shots, FINE's rate, chosen on knee_oa's validation patients with one budget for every start. Heads:
ridge on frozen features, 50 draws; its penalty by folds of the shots from 5 on, by validation at full data.
Domain and label space change together (200 objects, six modalities, five grades, 14 findings) but
in the control: six classes, 220 images each, of photographs and of modalities.

WHAT COUNTS, written before any of its runs. Metric: macro AUROC on the test patients of knee_oa (828).
Primary: two slopes of the AUROC at full data, fine-tuned, over tiny_imagenet's sizes and the nets: per
fourfold upstream images and per doubling of the width, by least squares within each upstream seed
over all its cells; the seeds are the units (five), test patients are crossed with them, and Holm goes over
the two. A slope "rises" (falls) where its p is below 0.05, "is flat" where it is shown (TOST) to lie
within 0.005 of 0 (0.015 over the range of 64), and else "is not told from none".
Secondary, R26x0.25, thirteen comparisons with a margin of 0.02 and Holm over them, by the
verdicts of `study report` (better, equivalent, not told apart): 45,125 images against scratch, fine-tuned at full data
("pre-training helps"); and, by heads at 1, 5 and 10 shots and fine-tuned at full data, 45,125 images
against 705 ("scale helps"), mednist against as many photographs, 11,281 ("the domain matters",
with its labels) and the same of the control (the domain, with six classes on both sides). covid_cxr is told beside it and decides
nothing: a border alone gives 0.82 there, and mednist's chest films are in part its own
(`bigxfer audit --against`). A law over upstream images is told where six fractions allow one, with
the largest held out. An upstream whose own test metric is near chance has not learned: its row says so.
Asked of the contrast, set from its first three seeds (the pilot, which stays in the study): a 95%
interval of 45,125 less 705 images, fine-tuned at full data, of +-0.01. By `study plan` five seeds
reach it with 80% assurance. What the pilot showed was seen then; nothing above was changed after it.

Cost: R26x0.25 trains 650 images a second on one core of an Intel Xeon (width 0.125 takes 0.4 and 0.5
2.7 times its time), an upstream of it 5 minutes, a fine-tuning at full data 100 seconds. Run so far: rates 1.1
core-hours, contrast 1.4, sizes 1.2, fractions 1.0. Reckoned: nets 4.1, domains 4, shots 2.4; in all 15,
about 8 hours on two cores. docs/answer.md says which parts are run.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from bigxfer import config, presets

HERE = "configs/study_real.py"
NETS = ("R26x0.25", "R26x0.125", "R26x0.5")
IMAGES = (705, 2_820, 11_281, 45_125)  # 1/64, 1/16, 1/4 and all of tiny_imagenet
MORE = (1_410, 5_641, 22_563)  # 1/32, 1/8, 1/2: of the smallest net
STEPS = 6000  # of an upstream, at the 32 of its recipe
FULL, FEW = 900, 100  # of fine-tuning, at a batch of 64
RATES = (0.001, 0.002, 0.004, 0.008)  # of Adam, tried on validation
FINE = 0.004  # macro AUROC, mean of the three starts: .737, .750, .751, .746; loss likewise
SHOTS = ("1", "5", "10")
SEEDS = range(5)  # of the primary contrast; three of the rest
SETS = {  # reader, split, share that validates and that tests, (training images, classes)
    "tiny_imagenet": ("imagenet21k", "patient", 0.05, (45_125, 200)),
    "mednist": ("folder", "patient", 0.03, (11_291, 6)),
    "nih64": ("nih", "official", 0.1, (640, 14)),
    "knee_oa": ("csv", "official", 0.1, (5_778, 5)),
    "covid_cxr": ("csv", "official", 0.1, (857, 3)),
}
VERSIONS = {"tiny_imagenet": "tiny", "covid_cxr": "v1"}  # no digest holds a root
SIX = (  # every 33rd of the 200, by name
    "n01443537",
    "n02125311",
    "n02793495",
    "n03250847",
    "n03976657",
    "n04486054",
)
EACH = "220"  # images of each of six classes
ARGS = {"root": "", "part": "", "features": ""}
ONE = {"model": NETS[0], "set": "knee_oa", "upstream": False, "images": 0}
ONE |= {"six": False, "seed": 0}


def get_config(arg: str = "") -> config.Run:
    """A transfer to `set` or, with upstream=1, what it starts from: `images` of `set`."""
    a = presets.parse_arg(arg, **ARGS, **ONE)
    run = config.Run(kind="upstream" if a["upstream"] else "transfer", arg=arg)
    run.model, run.seed, run.keep = presets.model(a["model"]), a["seed"], "upstream"
    d = run.data
    d.reader, d.split, d.valid, d.size = SETS[a["set"]]
    d.root, d.views, d.test = a["root"] and f"{a['root']}/{a['set']}", (), d.valid
    presets.set_res(d, 48)
    d.version = VERSIONS.get(a["set"], "")
    if a["six"]:
        d.version, d.shots = "-".join(filter(None, (d.version, "six"))), EACH
        d.labels = SIX if a["set"] == "tiny_imagenet" else ()
    if a["images"]:
        d.fraction = min(a["images"] / d.size[0], 1.0)
    if a["upstream"]:
        presets.set_recipe(run, "short")
        presets.set_length(run.optim, 0, STEPS)
    else:
        run.optim, d.augment = presets.small_schedule(FULL), "affine"
        run.optim.lr = FINE
        run.init.kind = "pretrained"
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    a = presets.parse_arg(arg, **ARGS)
    here = f"{HERE}:root={a['root']}"
    parts = {
        "contrast": lambda: contrast(here, SEEDS),
        "sizes": lambda: sizes(here),
        "fractions": lambda: fractions(here),
        "nets": lambda: nets(here),
        "domains": lambda: domains(here),
        "shots": lambda: shots(here),
        "encoders": lambda: encoders(here, a["features"]),
    }
    asked = {"rates": lambda: rates(here), "pilot": lambda: contrast(here, SEEDS[:3])}
    known = parts | asked
    if a["part"] and a["part"] not in known:
        raise config.ConfigError(f"part={a['part']}; it may be {', '.join(known)}")
    for part in [known[a["part"]]] if a["part"] else parts.values():
        yield from part()


# ---- the parts ---------------------------------------------------------------------


def rates(here: str) -> Iterator[dict]:
    """The smallest and the largest upstream, and scratch, at each rate."""
    for seed in SEEDS[:3]:
        for start, lr in product((tiny(45_125), tiny(705), {}), RATES):
            yield tuned(here, start, seed) | {"optim.lr": lr}


def contrast(here: str, seeds: range) -> Iterator[dict]:
    for seed in seeds:
        for start in (tiny(45_125), tiny(705), {}):
            yield from full(here, start, seed)
            yield from heads(here, start, seed)


def sizes(here: str) -> Iterator[dict]:
    for seed in SEEDS:
        for images in IMAGES[1:-1]:
            yield from full(here, tiny(images), seed)


def fractions(here: str) -> Iterator[dict]:
    for seed in SEEDS[:3]:
        for images in (*IMAGES, *MORE):
            yield from full(here, tiny(images), seed, model=NETS[1])


def nets(here: str) -> Iterator[dict]:
    """The widest at both ends alone: a slope needs no more, and it costs most."""
    small, wide = NETS[1:]
    for seed in SEEDS:
        for start in (*map(tiny, IMAGES), {}):
            yield from full(here, start, seed, model=small)
        for start in (tiny(IMAGES[-1]), tiny(IMAGES[0]), {}):
            yield from full(here, start, seed, model=wide)


def domains(here: str) -> Iterator[dict]:
    photographs = {"set": "tiny_imagenet", "six": 1}
    for seed in SEEDS[:3]:
        for start in (*modalities(), photographs, {"set": "nih64"}):
            yield from full(here, start, seed)
            yield from heads(here, start, seed)
        yield from heads(here, tiny(11_281), seed)
        for start in to_chests():
            yield from full(here, start, seed, set="covid_cxr")


def modalities() -> Iterator[dict]:
    for images in IMAGES[:-1]:
        yield {"set": "mednist", "images": images}
    yield {"set": "mednist", "six": 1}


def to_chests() -> Iterator[dict]:
    """What covid_cxr starts from, each seed."""
    yield from map(tiny, IMAGES)
    yield from modalities()
    for images in (*IMAGES[:2], SETS["knee_oa"][3][0]):
        yield {"set": "knee_oa", "images": images}
    yield {"set": "nih64"}
    yield {}


def shots(here: str) -> Iterator[dict]:
    """Fine-tuning at few shots, each upstream seed on the same draws; the HyperRule."""
    for seed in SEEDS[:3]:
        for start in (tiny(45_125), tiny(705), {"set": "mednist", "images": 11_281}):
            for number in SHOTS:
                for draw in range(10):
                    yield few(here, start, seed, number, draw)
        for start in (tiny(45_125), {}):
            rule = {"optim.schedule": "hyperrule", "optim.optimizer": "sgd"}
            rule |= {"optim.lr": 0.003, "optim.lr_batch": 512, "optim.batch": 512}
            rule |= {"optim.steps": 0, "optim.warmup_steps": 0, "optim.mixup": -1.0}
            rule |= {"data.augment": "crop"}
            yield tuned(here, start, seed) | rule
    for number in SHOTS:
        for draw in range(10):
            yield few(here, {}, 0, number, draw)


# ---- rows --------------------------------------------------------------------------


def tiny(images: int) -> dict:
    return {"set": "tiny_imagenet", "images": images}


def full(here: str, start: dict, seed: int, **target: str) -> Iterator[dict]:
    """A start at full data: fine-tuned, and by a head."""
    run = tuned(here, start, seed, **target)
    yield run
    yield run | {"freeze.head": "ridge"}


def heads(here: str, start: dict, seed: int) -> Iterator[dict]:
    """Heads at each number of shots; none on random weights, which differ by the draw."""
    for number in SHOTS if start else ():
        shots = {"data.shots": number, "data.draws": 50, "seed": 0}
        yield tuned(here, start, seed) | shots | {"freeze.head": "ridge"}


def tuned(here: str, start: dict, seed: int, **target: str) -> dict:
    """Fine-tuning at full data from an upstream, or from {}: from scratch."""
    args = "".join(f",{k}={v}" for k, v in target.items())
    run = {"config": f"{here}{args}", "seed": seed}
    if not start:
        return run | {"init.kind": "random"}
    of = f"model={target['model']}," if "model" in target else ""
    of += ",".join(f"{k}={v}" for k, v in start.items())
    return run | {"init.upstream": f"{here},upstream=1,{of},seed={seed}"}


def few(here: str, start: dict, seed: int, number: str, draw: int) -> dict:
    run = tuned(here, start, seed) | {"data.shots": number, "seed": draw}
    return run | {"optim.steps": FEW, "optim.warmup_steps": FEW // 10}


def encoders(here: str, folder: str) -> Iterator[dict]:
    for target in ("knee_oa", "covid_cxr"):
        for file in sorted(Path(folder).glob(f"{target}_*.npz")) if folder else []:
            run = {"config": f"{here},set={target}", "freeze.head": "ridge"}
            run |= {"init.kind": "features", "init.features": str(file)}
            yield run
            for number in SHOTS:
                yield run | {"data.shots": number, "data.draws": 50}
