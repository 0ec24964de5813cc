"""The demo: when does pre-training help, and does it matter on what?

  make demo        (or: python -m launch.local --config configs/study_demo.py)

SYNTHETIC: all images are the phantom's, drawings with known findings, here drawn
plainer than radiographs show them (severity). Two upstreams, radiographs with the 14
findings of NIH and unrelated shapes and textures, and two sizes of net; each is
transferred to three classes, as in COVIDx, at 1, 5, 10 shots and at full data, three
draws each, beside training from scratch: 76 runs, under ten minutes on two cores. The
schedules are short ones of our own, far from HyperRule length: scratch at full data has
not converged, so its last row holds for that number of steps only. Expect the radiographs ahead
of scratch at every shot, and the shapes near scratch.
"""

from collections.abc import Iterator

from bigxfer import config, presets

MODELS = ("R1-1-1-1x0.25", "R26x0.25")
UPSTREAMS = {
    "nih": "configs/upstream_nih.py",
    "natural": "configs/upstream_imagenet.py",
}


def get_config(arg: str = "") -> config.Run:
    """A transfer, or with upstream=nih or natural what it starts from."""
    a = presets.parse_arg(arg, model=MODELS[0], upstream="")
    shape = f"model={a['model']},res=48,batch=32"
    if a["upstream"]:
        file = UPSTREAMS[a["upstream"]]
        run = presets.load(f"{file}:{shape},recipe=small,steps=1000,phantom=3000")
        run.data.augment = "affine"
    else:
        run = presets.load(f"configs/covidx_small.py:{shape},steps=60,phantom=600")
        run.optim.lr, run.keep = 0.002, "upstream"
    run.data.phantom.severity = 2.0
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    for model in MODELS:
        for upstream in ("", *UPSTREAMS):
            for shots in ("1", "5", "10", "full"):
                for seed in range(3):
                    run = {"config": f"configs/study_demo.py:model={model}"}
                    if upstream:
                        run["init.upstream"] = f"{run['config']},upstream={upstream}"
                    else:
                        run["init.kind"] = "random"
                    if shots == "full":
                        run |= {"optim.steps": 150, "optim.warmup_steps": 15}
                    yield run | {"data.shots": shots, "seed": seed}
