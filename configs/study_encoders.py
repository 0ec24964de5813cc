"""Four kinds of upstream in one table: a net of ours, an ImageNet encoder, pixels, scratch.

  python -m bigxfer.predict --pixels 32 --images DATA/knee_oa --features FEATURES/knee_oa_pixels.npz
  python -m bigxfer.study list --config configs/study_encoders.py:root=DATA --tflops 0.05
  python -m launch.local --config configs/study_encoders.py:root=DATA,features=FEATURES

DATA holds knee_oa and covid_cxr, each with a metadata.csv, and tiny_imagenet, a folder of tar
files, one a synset. FEATURES holds files TARGET_NAME.npz of both sets, such as
knee_oa_efficientnet_lite0.npz (docs/encoders.md; benchmarks/lite0_features.py made ours); without
features= the study has no such rows.

The runs are those of study_real.py, so that what either study has done the other need not do in
the same --runs folder. Ours is R26x0.25 trained on 45,125 photographs at 48 px with five seeds, 6,000
steps of 32. It, the encoder and the pixels take ridge heads, 50 draws of 1, 5 and 10 shots and
all data; their penalty is chosen from ten by folds of the shots, at full data on validation,
at 1 shot not at all. Scratch trains, untuned: 900 steps of 64 with five seeds at full data, 100
steps with three draws at few shots. What we found stands in docs/encoders.md.

Cost: five upstreams of 5 minutes of one core, ten fine-tunings of 100 seconds, the rest in 10 minutes.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

from bigxfer import config, presets

ARGS = {"root": "", "features": ""}
TARGETS = ("knee_oa", "covid_cxr")
DRAWS = 50  # of a head; a training at few shots costs more, and has SCRATCH_DRAWS
SCRATCH_DRAWS = 3


def get_config(arg: str = "") -> config.Run:
    return real().get_config(arg)


def real() -> Any:
    """The study of real images, whose nets, splits and schedules these are."""
    return presets.load_module("configs/study_real.py")


def sweep(arg: str = "") -> Iterator[dict]:
    a, study = presets.parse_arg(arg, **ARGS), real()
    here = f"{study.HERE}:root={a['root']}"
    photographs = study.tiny(study.IMAGES[-1])
    yield from study.encoders(here, a["features"])
    for target, seed in product(TARGETS, study.SEEDS):
        ours = study.tuned(here, photographs, seed, set=target)
        ours |= {"freeze.head": "ridge"}
        yield ours
        for number in study.SHOTS:
            yield ours | {"data.shots": number, "data.draws": DRAWS, "seed": 0}
    # What trains comes last, draw by draw: it takes the most time.
    few = {"optim.steps": study.FEW, "optim.warmup_steps": study.FEW // 10}
    for draw, target, number in product(range(SCRATCH_DRAWS), TARGETS, study.SHOTS):
        scratch = study.tuned(here, {}, draw, set=target)
        yield scratch | few | {"data.shots": number}
    for seed, target in product(study.SEEDS, TARGETS):
        yield study.tuned(here, {}, seed, set=target)
