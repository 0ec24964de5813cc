"""Golden numbers: the loss after 3 steps of every shipped config at toy size.

A change of these numbers is a change of what every user's runs compute: say so under
[numbers] in CHANGELOG.md and write them anew with

    python tests/test_golden.py
"""

import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest

pytestmark = pytest.mark.usefixtures("single_device")

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "losses.json"
CONFIGS = sorted(p.name for p in (ROOT / "configs").glob("*.py"))


def toy(name: str):
    """The resolved run of a config, shrunk to seconds: one net, one size, three steps."""
    from bigxfer import config, presets

    run = presets.load(f"configs/{name}")
    run.model = presets.bit("R1-1-1-1x0.125")
    presets.set_res(run.data, 32)
    presets.set_length(run.optim, 8, 3)
    run.optim.warmup_steps = min(run.optim.warmup_steps, 1)
    run.data.phantom.images, run.data.phantom.pixels = 48, 40
    run.data.root, run.init.kind = "", "random"
    run.log.every, run.eval.resamples = 1, 0
    run.freeze, run.phase = config.Freeze(), config.Phase()  # a phase needs its steps
    if run.data.reader not in ("chexpert", "nih", "covidx", "folder"):
        run.data.reader, run.data.version = "covidx", ""
    return config.resolve(run)


class Trained(Exception):
    """The steps are done: what follows them is no matter of the loss."""


def toy_loss(name: str, folder: Path, programs: dict) -> float:
    """The loss of the third step of a shrunk config."""
    from bigxfer.runs import job
    from bigxfer.training import loop

    run = toy(name)
    run.data.cache = str(folder / "cache")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Trained):
        patch.setattr(loop, "chosen", mock.Mock(side_effect=Trained))
        job.execute(run, folder / name, shared=programs)
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    return next(v["loss"] for v in map(json.loads, lines) if v["step"] == 3)


def alike() -> dict[str, list[str]]:
    """{digest of the shrunk run: the configs that shrink to it}."""
    from bigxfer import config

    names: dict[str, list[str]] = {}
    for name in CONFIGS:
        names.setdefault(config.digest(toy(name)), []).append(name)
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("golden")  # one cache for all


@pytest.fixture(scope="module")
def programs():
    """Configs that differ in their data, say, train by one program."""
    return {}


# Of configs that shrink to one run only the first is trained.
@pytest.mark.parametrize("names", alike().values(), ids=lambda names: names[0])
def test_loss_after_three_steps(names, folder, programs):
    golden = json.loads(GOLDEN.read_text())
    assert {golden[name] for name in names} == {golden[names[0]]}
    # other CPUs sum in another order; another libjpeg may move a pixel by one
    loss = toy_loss(names[0], folder, programs)
    assert loss == pytest.approx(golden[names[0]], rel=1e-4)


def test_no_golden_number_without_its_config():
    assert sorted(json.loads(GOLDEN.read_text())) == CONFIGS


if __name__ == "__main__":
    import conftest  # noqa: F401 the flags of the tests

    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as scratch:
        losses = {name: toy_loss(name, Path(scratch), {}) for name in CONFIGS}
    GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
    print(GOLDEN.read_text())
