"""A study's nodes, what they need, and how they stand by their folders alone."""

import json
import textwrap
import time

import pytest

from bigxfer import config, durable
from bigxfer.runs import folders
from bigxfer.study import claims, grid
from bigxfer.study.commands import status

SHIPPED = "configs/study_demo.py"


def write(folder, sweep):
    path = folder / "study.py"
    path.write_text(
        textwrap.dedent("""
        from bigxfer import presets

        def get_config(arg=""):
            name = "upstream_nih.py" if arg else "covidx_small.py"
            run = presets.load(f"configs/{name}:model=R1-1-1-1x0.25,res=32,phantom=64")
            run.init.upstream = "" if arg else f"{__file__}:up"
            return run

        def sweep(arg=""):
        """)
        + textwrap.indent(textwrap.dedent(sweep), "    ")
    )
    return str(path)


def test_a_study_lists_what_is_needed_first(tmp_path):
    path = write(
        tmp_path,
        """
        for shots in ("1", "full"):
            for kind in ("pretrained", "random"):
                for seed in (0, 1):
                    yield {"data.shots": shots, "init.kind": kind, "seed": seed}
        yield {"data.shots": "1", "init.kind": "random"}
        """,
    )
    study = grid.nodes(path)
    kinds = [node.kind for node in study]
    assert [kinds.count(k) for k in ("cache", "upstream", "transfer")] == [2, 1, 8]
    seen = set()
    for node in study:
        assert set(node.needs) <= seen
        assert node.digest not in seen
        seen.add(node.digest)
    (upstream,) = (n for n in study if n.kind == "upstream")
    assert upstream.digest == config.digest(upstream.run)
    for node in study:
        if node.kind == "transfer":
            pretrained = node.run.init.kind == "pretrained"
            assert (upstream.digest in node.needs) == pretrained
            assert node.digest == config.digest(node.run)
            assert node.run.init.digest == (upstream.digest if pretrained else "")
    again = [node.digest for node in grid.nodes(path)]
    assert again == [node.digest for node in study]


@pytest.mark.parametrize(
    ("field", "value", "caches"),
    [
        ("seed", 3, 2),
        ("data.fraction", 0.5, 2),
        ("data.split_seed", 3, 2),
        ("data.augment", "inception", 2),
        ("optim.lr", 1.0, 2),
        ("data.resize", 64, 3),
        ("data.cache", "elsewhere", 3),
        ("data.storage", "encoded", 3),
        ("data.channels", 3, 3),
        ("data.phantom.seed", 1, 3),
        ("data.reader", "nih", 3),
    ],
)
def test_runs_share_a_cache_if_they_read_the_same_pixels(
    tmp_path, field, value, caches
):
    """The upstream's, the target's, and another one where the pixels are others."""
    path = write(tmp_path, f"yield {{}}\nyield {{{field!r}: {value!r}}}\n")
    assert [n.kind for n in grid.nodes(path)].count("cache") == caches


def test_mistakes_of_a_study_are_told(tmp_path):
    with pytest.raises(config.ConfigError, match=r"data\.shot, which is no field"):
        grid.nodes(write(tmp_path, 'yield {"data.shot": "1"}\n'))
    with pytest.raises(config.ConfigError, match="it is no study"):
        grid.nodes("configs/upstream_nih.py")
    with pytest.raises(config.ConfigError, match="no config file"):
        grid.nodes("configs/nowhere.py")


def test_states_from_folders_alone(tmp_path):
    study = grid.nodes(write(tmp_path, "yield {}\n"))
    runs = tmp_path / "runs"

    def now():
        return [s.state for s in grid.states(study, runs)]

    target_cache, upstream_cache, upstream, transfer = study
    assert [n.kind for n in study] == ["cache", "cache", "upstream", "transfer"]
    assert now() == ["ready", "ready", "waiting", "waiting"]
    done(target_cache, runs)
    done(upstream_cache, runs)
    assert now() == ["done", "done", "ready", "waiting"]

    folder = upstream.folder(runs)
    claim = claims.claim(folder, [])
    state = grid.states(study, runs)[2]
    assert state.state == "running" and state.age < 60 and state.where
    assert (state.step, state.steps) == (0, 0)
    durable.write_json(folder / "config.json", {"plan": {"steps": 500}})
    lines = [json.dumps({"step": n, "loss": 1.0}) for n in range(1, 300)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 300, "lo')
    state = grid.states(study, runs)[2]
    assert (state.step, state.steps) == (299, 500)

    claims.finish(claim, "failed", "OSError", "disk full")
    state = grid.states(study, runs)[2]
    assert (state.state, state.error) == ("failed", "OSError: disk full")
    for number in (2, 3):
        claim = claims.claim(folder, claims.read(folder))
        claims.finish(claim, "failed", "OSError", f"disk full {number}")
    up, down = grid.states(study, runs)[2:]
    assert up.state == down.state == "given up" and len(up.tries) == 3
    assert up.error == "OSError: disk full 3"
    assert upstream.digest in down.error
    claims.forgive(folder)
    assert now() == ["done", "done", "ready", "waiting"]
    done(upstream, runs)
    assert now() == ["done", "done", "done", "ready"]
    assert [s.state for s in grid.states([transfer], runs)] == ["ready"]
    done(transfer, runs)
    assert now() == ["done"] * 4


def done(node, runs):
    node.folder(runs).mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "result.json"):
        (node.folder(runs) / name).write_text(json.dumps({"digest": node.digest}))


def test_states_of_a_thousand_runs_take_no_time(tmp_path):
    run = config.Run(kind="transfer")
    study = [grid.Node(run, f"{n:016x}") for n in range(2000)]
    for node in study[:1000]:
        done(node, tmp_path)
    for node in study[1000:1200]:
        claim = claims.claim(node.folder(tmp_path), [])
        claims.finish(claim, "released")
    known = set()
    grid.states(study, tmp_path, known)
    assert len(known) == 1000
    began = time.process_time()
    grid.states(study, tmp_path, known)
    assert time.process_time() - began < 1


def test_the_shipped_demo_is_a_study():
    kinds = [node.kind for node in grid.nodes(SHIPPED)]
    assert kinds.count("transfer") >= 24 and kinds.count("upstream") >= 1


def test_a_result_that_cannot_be_read_is_no_result(tmp_path):
    """Emptied, or changed: the run is named and is to be done again."""
    study = grid.nodes(write(tmp_path, "yield {}\n"))
    runs = tmp_path / "runs"
    for node in study:
        done(node, runs)
    cache, _, upstream, transfer = study
    (cache.folder(runs) / "result.json").write_text("")
    (upstream.folder(runs) / "result.json").write_text("")
    folders.write(transfer.folder(runs) / "result.json", {"digest": transfer.digest})
    text = (transfer.folder(runs) / "result.json").read_text()
    other = text.replace(transfer.digest, transfer.digest[::-1])
    (transfer.folder(runs) / "result.json").write_text(other)
    states = {s.node.digest: s for s in grid.states(study, runs)}
    assert (
        states[cache.digest].state == "ready"
        and "is empty" in states[cache.digest].damage
    )
    assert (
        states[upstream.digest].state == "ready"
        and "is empty" in states[upstream.digest].damage
    )
    assert (
        states[transfer.digest].state == "waiting"
        and "sha256" in states[transfer.digest].damage
    )
    lines = "\n".join(status.damages(states.values()))
    assert upstream.digest in lines and "does it again" in lines


def test_a_node_says_its_net_its_upstream_its_target_shots_and_draw():
    said = [str(node) for node in grid.nodes("configs/study_demo.py")]
    assert "images of covidx" in said
    assert "R26x0.25 upstream nih, seed 0" in said
    assert "R26x0.25 nih -> covidx, 1 shot, 12 draws from 0 on" in said
    assert "R26x0.25 scratch -> covidx, all images, draw 0" in said
    taken = [str(node) for node in grid.nodes("configs/study_transfusion.py:phantom")]
    assert any("(copy up to block" in line for line in taken)
