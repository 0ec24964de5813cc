"""Four kinds of upstream in one table: a net of ours, an ImageNet encoder, pixels, scratch.

  python -m bigxfer.predict --pixels 32 --images DATA/knee_oa --features FEATURES/pixels_knee_oa.npz
  python -m bigxfer.study list --config configs/study_encoders.py
  python -m launch.local --config configs/study_encoders.py:root=DATA,features=FEATURES

DATA holds knee_oa and covid_cxr, each with a metadata.csv, and tiny_imagenet, a folder of tar
files, one a synset. FEATURES holds encoder_SET.npz and pixels_SET.npz of both sets (docs/encoders.md;
benchmarks/lite0_features.py made ours); without features= the study has no such rows.

Ours is R26x0.25, trained on tiny_imagenet at 48 px with two seeds. It, the encoder and the pixels
take ridge heads, 50 draws of 1, 5 and 10 shots and all data; their penalty is chosen from ten
by folds of the shots, at full data on validation, at 1 shot not at all. Scratch trains, untuned,
with three draws and the schedule of covidx_small.py. What we found stands in docs/encoders.md.
"""

from collections.abc import Iterator

from bigxfer import config, presets

ARGS = {"root": "", "features": ""}
ONE = {"set": "knee_oa", "upstream": False, "seed": 0}
SETS = {  # data.version, which tells them apart; training images and classes, for `list`
    "knee_oa": ("96px", (5_778, 5)),
    "covid_cxr": ("256px", (862, 3)),
}
SHOTS = ("1", "5", "10", "full")
DRAWS = 50  # of a head
STEPS = 900  # of an upstream, and of scratch at full data
SHAPE = "model=R26x0.25,res=48"


def get_config(arg: str = "") -> config.Run:
    """A transfer to `set` or, with upstream=1, the training on tiny_imagenet."""
    a = presets.parse_arg(arg, **ARGS, **ONE)
    if a["upstream"]:
        recipe = f"{SHAPE},recipe=small,steps={STEPS},root={a['root']}/tiny_imagenet"
        run = presets.load(f"configs/upstream_imagenet.py:{recipe},seed={a['seed']}")
        # Its reader takes a tar file a class, with no split of their own.
        run.data.reader, run.data.split = "imagenet21k", "patient"
        # `list` opens no data and has to be told.
        run.data.size = (37_500, 200)
    else:
        shape = f"{SHAPE},root={a['root']}/{a['set']}"
        run = presets.load(f"configs/covidx_small.py:{shape}")
        run.data.reader, run.init.upstream = "csv", ""
        run.data.version, run.data.size = SETS[a["set"]]
    run.keep, run.arg = "upstream", arg
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    a = presets.parse_arg(arg, **ARGS)
    here = f"configs/study_encoders.py:root={a['root']}"
    for name in SETS:
        for shots in SHOTS:
            full = shots == "full"
            run = {"config": f"{here},set={name}", "data.shots": shots}
            # At full data there is no draw to repeat.
            head = {**run, "freeze.head": "ridge", "data.draws": 1 if full else DRAWS}
            for seed in (0, 1):
                upstream = {"init.upstream": f"{here},upstream=1,seed={seed}"}
                yield {**head, **upstream, "init.kind": "pretrained"}
            for file in ("encoder", "pixels") if a["features"] else ():
                path = f"{a['features']}/{file}_{name}.npz"
                yield {**head, "init.kind": "features", "init.features": path}
            short = {} if full else {"optim.steps": 100, "optim.warmup_steps": 10}
            for seed in range(1 if full else 3):
                yield {**run, "init.kind": "random", "seed": seed, **short}
