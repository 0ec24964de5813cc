"""`list` and `status`: what a study will cost, and how it stands."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bigxfer import config, presets
from bigxfer.config import Data, Run
from bigxfer.runs import folders
from bigxfer.study import cost, grid
from bigxfer.study.commands import listing, status

ROOT = Path(__file__).parents[1]


def study(*args, **environ):
    command = [sys.executable, "-m", "bigxfer.study", *args]
    environ = {**os.environ, **environ}
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )


def test_flops_and_parameters_of_r50x1_are_the_published_ones():
    """4.1 GMAC (1603.05027's net, as timm counts resnetv2_50x1_bit) and 23.5 M."""
    run = Run(model=presets.bit("R50x1"))
    flops, parameters = cost.shape(run, {})
    assert flops == pytest.approx(2 * 4.1e9, rel=0.06)
    assert parameters == 23_500_352 + 2048 * 10 + 10


def test_a_transfer_costs_its_rules_steps_and_an_upstream_its_epochs():
    hyper = presets.load("configs/covidx_hyperrule.py:model=R26x0.25,res=32")
    hyper.data.shots, hyper.data.reader = "5", "covidx"
    few = grid.Node(config.resolve(hyper), "a")
    chexpert = presets.load("configs/upstream_chexpert.py:model=R26x0.25,res=32")
    whole = grid.Node(config.resolve(chexpert), "b")
    per_image = 3 * cost.shape(few.run, {})[0]
    a, b = cost.costs([few, whole])
    assert a.flops == pytest.approx(per_image * 500 * 512)  # of under 20,000 images
    assert b.flops == pytest.approx(per_image * 191_000 * 90, rel=1e-3)
    assert a.kept == b.kept > 0
    few.run.keep = "upstream"
    assert cost.costs([few])[0].disk == a.disk - a.kept


@pytest.mark.parametrize(
    "data, expected",
    [
        (Data(reader="chexpert+mimic"), (191_000 + 237_000, 13, "")),
        (Data(reader="tfds", version="cifar10/3.0.2"), (50_000, 10, "")),
        (Data(reader="csv"), (10_000, 10, "csv")),
    ],
)
def test_sizes_are_those_of_the_sets_or_said_to_be_guesses(data, expected):
    assert cost.size(data) == expected


def test_a_config_says_how_large_its_own_folder_is(tmp_path):
    """ImageNet is read as a folder: its size is the config's word, in no digest."""
    run = config.resolve(presets.load("configs/upstream_imagenet.py"))
    assert cost.size(run.data) == (1_281_167, 1000, "")
    node, cache = grid.Node(run, "a"), grid._cache(run)
    flops = 3 * cost.shape(run, {})[0] * 1_281_167 * 90
    found, pixels = cost.costs([node, cache])
    assert found.flops == pytest.approx(flops, rel=1e-3)
    assert pixels.disk == 1_281_167 * 280 * 280 * 3
    digests = config.digest(run), cache.digest
    run.data.size = ()
    assert digests == (config.digest(run), grid._cache(run).digest)
    assert cost.size(run.data) == (10_000, 10, "folder")
    drawn = presets.load("configs/upstream_imagenet.py:phantom=300")
    assert cost.size(config.resolve(drawn).data) == (300, 10, "")
    for bad in [("many", 3), (5,), (-1, 3)]:
        run.data.size = bad
        with pytest.raises(config.ConfigError, match=r"data\.size"):
            config.resolve(run)


@pytest.mark.parametrize(
    "h, text",
    [
        (6464.2, "6,464 h"),
        (2.46, "2.5 h"),
        (0.2, "12 min"),
        (0.02, "72 s"),
        (6.98e-07, "< 1 s"),
        (0.0, "0 s"),
    ],
)
def test_hours_are_readable(h, text):
    assert listing.hours(h) == text


@pytest.mark.parametrize(
    "count, text",
    [(6.46e12, "6,460 GB"), (2.46e9, "2.5 GB"), (1.2e7, "12 MB"), (9, "< 1 MB")],
)
def test_sizes_are_readable(count, text):
    assert listing.size(count) == text


def test_list_and_status_of_the_demo(tmp_path):
    runs = ("--config", "configs/study_demo.py", "--runs", str(tmp_path))
    # Nor does it import jax, which would take longer than all the rest.
    (tmp_path / "jax.py").write_text("raise SystemExit('jax was imported')")
    found = study("list", *runs, PYTHONPATH=str(tmp_path))
    assert found.returncode == 0, found.stderr
    last = next(line for line in found.stdout.splitlines() if line.startswith("all"))
    assert last.split()[1:3] == ["93", "0"]
    states = grid.states(grid.nodes("configs/study_demo.py"), tmp_path)
    count = Counter(s.state for s in states)
    words = study("status", *runs).stdout.split()
    assert words[:2] == [str(count["ready"]), "ready,"] and sum(count.values()) == 93


def test_status_says_when_the_data_were_compared(tmp_path):
    nodes = grid.nodes("configs/study_demo.py")
    states = [grid.Standing(node, "done", []) for node in nodes]
    assert status.compared(states, tmp_path) == ""
    caches = [node for node in nodes if node.kind == "cache"]
    for day, node in enumerate(caches, 1):  # by the file's word, not by its time
        node.folder(tmp_path).mkdir(parents=True)
        when = f"2026-01-0{day} 12:30+00:00"
        path = node.folder(tmp_path) / "result.json"
        folders.write(path, {"digest": node.digest, "finished": when})
    assert status.compared(states, tmp_path) == "2026-01-01 12:30+00:00"
    path.write_text("")  # of a damaged one nothing is known
    assert status.compared(states, tmp_path) == "2026-01-01 12:30+00:00"


def test_the_grid_of_cherti_and_jitsev_is_the_published_one(monkeypatch):
    """1,440 published runs and the five seeds that are missing from them.

    14 bases and 15 upstreams, each of two files, are loaded once: this is the time of
    `list`.
    """
    loaded = counted(monkeypatch, presets, "load_module")
    nodes = grid.nodes("configs/study_cherti_jitsev.py")
    kinds = Counter(node.kind for node in nodes)
    assert kinds["transfer"] == 1445 and kinds["upstream"] == 15
    assert len(loaded) == 1 + 2 * (14 + 15)
    assert len(cost.costs(nodes)) == len(nodes)


def test_other_nets_than_bit_are_traced_once_each(monkeypatch):
    traced = counted(monkeypatch, cost, "_trace")
    runs = [Run(model=presets.model(name)) for name in ("cbr_tiny", "smallcnn") * 2]
    runs[0].data.crop = 64
    nodes = [grid.Node(config.resolve(run), "a") for run in runs]
    assert len({price.flops for price in cost.costs(nodes)}) == 3
    assert [net.name for net, _ in traced] == ["cbr_tiny", "smallcnn"]


def counted(monkeypatch, module, name):
    """The arguments of each call of a function from now on."""
    calls, real = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a: calls.append(a) or real(*a))
    return calls


def test_an_override_of_a_run_leaves_its_base(tmp_path):
    path = tmp_path / "study.py"
    path.write_text(
        "from bigxfer import presets\n"
        "def get_config(arg=''):\n"
        "    return presets.load('configs/covidx_small.py')\n"
        "def sweep(arg=''):\n"
        "    yield {'optim.lr': 0.5, 'init.kind': 'random'}\n"
        "    yield {'seed': 1, 'init.kind': 'random'}\n"
    )
    _, first, second = grid.nodes(str(path))
    assert first.run.optim.lr == 0.5 and first.run.seed == 0
    assert second.run.optim.lr != 0.5 and second.run.seed == 1


def test_one_size_of_image_stands_for_the_others():
    """FLOPs of 128 from those of 64, against FLOPs counted at 128."""
    small, large = (Run(model=presets.model("cbr_tiny")) for _ in range(2))
    small.data.crop, large.data.crop = 64, 128
    traced = {}
    cost.shape(small, traced)
    guess, count = cost.shape(large, traced)
    assert (guess, count) == (pytest.approx(cost.shape(large, {})[0], rel=0.1), count)


def test_a_fitted_head_costs_one_pass_over_its_images():
    """Ridge on 5 shots of three classes: 15 forward passes in place of a training."""
    run = presets.load("configs/covidx_hyperrule.py:model=R26x0.25,res=32")
    run.data.shots, run.data.reader, run.freeze.head = "5", "covidx", "ridge"
    (price,) = cost.costs([grid.Node(config.resolve(run), "a")])
    assert price.flops == pytest.approx(15 * cost.shape(run, {})[0])


@pytest.mark.parametrize("arg, transfers", [("", 6 * 2 * 7 * 20), (":small=1", 252)])
def test_the_grid_of_sizes(arg, transfers):
    nodes = grid.nodes(f"configs/study_sizes.py{arg}")
    assert Counter(node.kind for node in nodes)["transfer"] == transfers


@pytest.mark.parametrize("command", ["list", "status"])
def test_a_config_that_is_not_there_is_one_line(command):
    found = study(command, "--config", "configs/nothing.py")
    assert found.returncode == 1 and found.stderr.startswith("error: no config file")
    assert found.stderr.count("\n") == 1


def test_collect_takes_the_runs_of_a_study_alone(tmp_path):
    nodes = grid.nodes("configs/study_demo.py")
    digest = next(node.digest for node in nodes if node.kind == "upstream")
    for name in (digest, "0" * 16):
        write_run(tmp_path / name)
    found = study(
        "collect", "--config", "configs/study_demo.py", "--runs", str(tmp_path)
    )
    assert found.returncode == 0, found.stderr
    lines = (tmp_path / "study_demo" / "table.csv").read_text().splitlines()
    assert len(lines) == 2 and digest in lines[1] and "study_demo" in lines[1]


def write_run(folder):
    """What collect reads of a finished run."""
    folder.mkdir()
    run = config.to_dict(presets.load("configs/study_demo.py"))
    about = {"digest": folder.name, "config": run, "commit": "c", "synthetic": True}
    about |= {"plan": {"steps": 1}, "data": {"counts": {"train": 3}}, "classes": []}
    result = {"metrics": {"auroc_macro": {"value": 0.5, "low": 0.4, "high": 0.6}}}
    result |= {"cost": {"steps": 1, "images": 3, "flops": 1.0, "device_seconds": 1.0}}
    result |= {"synthetic": True, "digest": folder.name, "commit": "c"}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "result.json").write_text(json.dumps(result))
