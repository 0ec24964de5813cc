"""The examples of docs/extending.md run, and do what the text says."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from bigxfer import config, models, tree
from bigxfer.data import readers
from bigxfer.models import MODELS
from bigxfer.protocols import optim, phases
from bigxfer.study import grid

TEXT = (Path(__file__).parents[1] / "docs/extending.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(number):
    """The names that an example defines."""
    names = {}
    exec(compile(BLOCKS[number], f"extending.md, example {number}", "exec"), names)  # noqa: S102
    return names


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    for known in (readers.READERS, MODELS):
        for name in ("grades", "toy"):
            monkeypatch.setitem(known, name, None)  # so that it is taken out again


def test_the_page_is_short_and_its_examples_are():
    prose = re.sub(r"```python\n.*?```", "", TEXT, flags=re.DOTALL).strip()
    assert len([line for line in prose.splitlines() if line]) <= 65
    assert len(BLOCKS) == 4
    assert all(len(block.splitlines()) <= 25 for block in BLOCKS)


def test_the_reader_reads(tmp_path):
    (tmp_path / "labels.csv").write_text("file,patient,grade\na.png,p,0\nb.png,q,2\n")
    run(0)
    manifest = readers.read(config.Data(reader="grades", root=str(tmp_path), views=()))
    assert manifest.labels.tolist() == [0, 2]
    assert manifest.path.tolist() == ["images/a.png", "images/b.png"]
    (tmp_path / "labels.csv").write_text("file,patient,grade\na.png,p,7\n")
    with pytest.raises(readers.DataError, match="labels.csv.*grade.*'7'"):
        readers.read(config.Data(reader="grades", root=str(tmp_path)))


def test_the_model_keeps_the_contract():
    run(1)
    model = models.build(config.Model("toy", width=0.25), 5)
    variables = model.init(jax.random.key(0), (2, 16, 16, 3))
    layers = tuple(f"{name}/" for name in model.layers())
    assert all(n.startswith(layers) for n in tree.flatten(variables["params"]))
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1))
    for train in (False, True):
        logits, out = model.apply(
            variables, images, train, {"dropout": jax.random.key(2)}
        )
        assert logits.shape == (2, 5) and not np.any(logits)
        assert out["pre_logits"].shape == (2, 8)


def test_the_protocol_trains_the_head_first():
    made = run(2)["get_config"]("model=R26x0.25,res=32")
    config.resolve(made)
    model = models.build(made.model, 3)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), (1, 32, 32, 3)))
    plan = optim.plan(made.optim, 100)
    first, last = phases.stages(
        made.optim, made.freeze, made.phase, plan, model, shapes["params"]
    )
    assert first.fixed == model.layers()[:-1] and last.fixed == []
    assert last.start == plan.steps // 2


def test_the_study_trains_each_upstream_once_before_its_transfers(tmp_path):
    (tmp_path / "study_mine.py").write_text(BLOCKS[3])
    study = grid.nodes(str(tmp_path / "study_mine.py"))
    kinds = [node.kind for node in study if node.kind != "cache"]
    assert kinds.count("upstream") == 2 and kinds.count("transfer") == 2 * 2 * 3 * 2
    place = {node.digest: i for i, node in enumerate(study)}
    for i, node in enumerate(study):
        assert all(place[need] < i for need in node.needs)
    widths = {node.run.model.width for node in study if node.kind == "transfer"}
    assert widths == {0.25, 0.5}
