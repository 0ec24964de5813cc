"""The demo: does a larger upstream help, does its domain matter, and at how many shots?

  make demo        (or: python -m launch.local --config configs/study_demo.py)

SYNTHETIC: all images are the phantom's, drawings with known findings, here drawn
plainer than radiographs show them (severity). Upstreams of three sizes (1/16, 1/4 and all of
2,700 images) in two domains, radiographs with the 14 findings of NIH and unrelated shapes
and textures, two upstream seeds each; a larger net from the largest ones. Each is transferred to
three classes, as in COVIDx: at 1, 5 and 10 shots by ridge heads on frozen features, twelve
draws, and at full data by fine-tuning, beside nets of random weights and training from
scratch. 6 min 0 s on two idle cores with --workers 2, as `make demo` has it, and 11 CPU-minutes.
The schedules are short ones of our own: scratch at full data has not converged, so its last row
holds for that number of steps only. With two upstream seeds few differences are told apart
(docs/results.md), and three sizes are too few for a law.
"""

from collections.abc import Iterator

from bigxfer import config, presets

HERE = "configs/study_demo.py"
MODELS = ("R1-1-1-1x0.25", "R26x0.25")
FRACTIONS = (1 / 16, 1 / 4, 1.0)  # of the smaller net; the larger has the last alone
UPSTREAMS = {
    "nih": "configs/upstream_nih.py",
    "natural": "configs/upstream_imagenet.py",
}
# As many as keep the demo within six minutes on two cores.
SEEDS, DRAWS = 2, 12
ONE = {"model": MODELS[0], "upstream": "", "fraction": 1.0, "seed": 0}


def get_config(arg: str = "") -> config.Run:
    """A transfer, or with upstream=nih or natural what it starts from."""
    a = presets.parse_arg(arg, **ONE)
    shape = f"model={a['model']},res=48,batch=32"
    if a["upstream"]:
        shape += f",recipe=small,steps=450,phantom=3000,seed={a['seed']}"
        run = presets.load(f"{UPSTREAMS[a['upstream']]}:{shape}")
        run.data.augment, run.data.fraction = "affine", a["fraction"]
    else:
        run = presets.load(f"configs/covidx_small.py:{shape},steps=150,phantom=600")
        run.optim.lr, run.keep = 0.002, "upstream"
    run.data.phantom.severity = 2.0
    return run


def sweep(arg: str = "") -> Iterator[dict]:
    for model in MODELS:
        run = {"config": f"{HERE}:model={model}"}
        fractions = FRACTIONS if model == MODELS[0] else FRACTIONS[-1:]
        for seed in range(SEEDS):
            for start in starts(run["config"], fractions, seed):
                yield from transfers({**run, **start}, seed)


def starts(name: str, fractions: tuple[float, ...], seed: int) -> Iterator[dict]:
    for upstream in UPSTREAMS:
        for fraction in fractions:
            args = f"upstream={upstream},fraction={fraction},seed={seed}"
            yield {"init.upstream": f"{name},{args}"}
    yield {"init.kind": "random"}


def transfers(run: dict, seed: int) -> Iterator[dict]:
    """Fine-tuned at full data with the seed of its upstream, heads at few shots."""
    yield run | {"seed": seed}
    for shots in ("1", "5", "10"):
        yield run | {
            "data.shots": shots,
            "data.draws": DRAWS,
            "freeze.head": "ridge",
        }
