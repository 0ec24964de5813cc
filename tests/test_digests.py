"""Golden digests and plans of all shipped configs, and the digest of the default run.

A digest names a run folder. One that changes orphans every run that users have, so it
changes only on purpose, and so does a plan (steps, warm-up, boundaries, rate, mixup): say
so under [numbers] in CHANGELOG.md and write them anew with

    python tests/test_digests.py
"""

import functools
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "digests.json"
CONFIGS = sorted(p.name for p in (ROOT / "configs").glob("*.py"))


def digests(name: str) -> dict[str, Any]:
    """{"base": its get_config()'s digest, "plan": of its training set's size as `study
    list` takes it[, "study": one hash over all its nodes]}."""
    from bigxfer import config, presets
    from bigxfer.protocols import optim
    from bigxfer.study import cost, grid

    path = f"configs/{name}"
    run = config.resolve(presets.load(path))
    plan = vars(optim.plan(run.optim, cost.size(run.data)[0]))
    out = {"base": config.digest(run), "plan": json.loads(json.dumps(plan))}
    if name.startswith("study_"):
        nodes = [[node.digest, *node.needs] for node in grid.nodes(path)]
        text = json.dumps(nodes)
        hashed = hashlib.sha256(text.encode()).hexdigest()[:16]
        out["study"] = f"{len(nodes)} nodes {hashed}"
    return out


@pytest.mark.parametrize("name", CONFIGS)
def test_no_shipped_digest_or_plan_changes(name, monkeypatch):
    from bigxfer import presets

    # a sweep loads one config a thousand times
    load_module = functools.cache(presets.load_module)
    monkeypatch.setattr(presets, "load_module", load_module)
    assert digests(name) == json.loads(GOLDEN.read_text())[name]


def test_the_digest_of_the_default_run_does_not_change():
    from bigxfer import config

    golden = json.loads(GOLDEN.read_text())
    assert config.digest(config.Run()) == golden.pop("Run()")
    assert sorted(golden) == CONFIGS


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from bigxfer import config

    found = {"Run()": config.digest(config.Run())}
    GOLDEN.write_text(
        json.dumps(found | {n: digests(n) for n in CONFIGS}, indent=1) + "\n"
    )
    print(GOLDEN.read_text())
