"""docs/coverage.md: every method has its row, and what stands in the rows is so."""

import argparse
import ast
import functools
import re
import runpy
import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from absl import app, flags
from absl.testing import flagsaver
from ml_collections import config_flags

from bigxfer import config, presets
from bigxfer.config import Run
from bigxfer.data.dataset import PHANTOMS
from bigxfer.models import keras_zoo
from bigxfer.runs import job
from bigxfer.study import grid

# of ml_collections, below Python 3.12, at every config file
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")
ROOT = Path(__file__).parents[1]
FACTS = ROOT.parent / "shared" / "facts" / "protocols.md"  # the list of the methods
ROW = re.compile(r"^\| (S00\d-[\w-]+) \| (.+) \|$", re.MULTILINE)
TEXT = (ROOT / "docs" / "coverage.md").read_text()
ROWS = [(name, cells.split(" | ")) for name, cells in ROW.findall(TEXT)]
COMMAND = re.compile(r"^ {4}(python -m .+)$|`(python -m [^`]+)`", re.MULTILINE)
COMMANDS = list(dict.fromkeys(a or b for a, b in COMMAND.findall(TEXT)))
MAKES = [c for c in COMMANDS if "--workdir" in c]  # what others read, in this order
TRAINS = [c for c in COMMANDS if c.split()[2] in ("bigxfer.train", "bigxfer.transfer")]


def studies():
    """The study configs that commands name, once each."""
    found = (re.search(r"--config (configs/study_\S+)", c) for c in COMMANDS)
    paths = dict.fromkeys(m[1] for m in found if m)
    runs = {re.search(r"--config (\S+)", c)[1] for c in TRAINS}
    return [p for p in paths if p not in runs]


def test_no_method_has_two_rows():
    names = [name for name, _ in ROWS]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.skipif(not FACTS.exists(), reason="needs ../shared/facts")
def test_every_method_has_its_row():
    section = FACTS.read_text().partition("\n## 2.")[0]
    ids = re.findall(r"^\| (S00\d-[\w-]+) \|", section, re.MULTILINE)
    assert ids and [name for name, _ in ROWS] == ids


def test_every_row_says_what_runs_it_what_guards_it_and_what_came_out():
    for name, cells in ROWS:
        what, commands, tests, result = cells
        assert what.strip() and result.strip(), name
        assert COMMAND.search(commands), f"{name} has no command"
        named = re.findall(r"`(\w+)/(\w+\.py)::(\w+)`", tests)
        assert named and len(named) == tests.count("`") // 2, name
        for folder, file, test in named:
            found = functions(ROOT / folder / file)
            assert test in found, f"{name}: {file} has no {test}"


@functools.cache
def functions(path):
    """The names of a file's functions."""
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_intervals_stand_where_they_were_found():
    """A number of ours that changes there has to change here."""
    found = [ROOT / "docs" / name for name in ("results.md", "findings.md")]
    known = " ".join(path.read_text() for path in found)
    known = " ".join(known.split())
    ours = re.findall(r"[+-]?\d\.\d+ \[[^\]]+\]", TEXT)
    assert ours and [n for n in ours if n not in known] == []


class Parsed(Exception):
    """No error: what the parser found."""


@contextmanager
def entered(command, monkeypatch, stop):
    """The command's own main in this process; `stop` after its flags are parsed."""
    _, _, module, *args = shlex.split(command)

    def run(main, flags_parser=None):
        rest = (flags_parser or flags.FLAGS)(sys.argv)
        assert rest[1:] == []
        if stop:
            raise Parsed(flags.FLAGS)
        main(rest)

    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *given):
        values = parse(self, *given)
        if stop:
            raise Parsed(values)
        return values

    for name in (module, f"{module}.__main__"):  # run anew, as by -m
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "argv", [module, *args])
    monkeypatch.setattr(app, "run", run)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with flagsaver.flagsaver():
        found = None
        try:
            runpy.run_module(module, run_name="__main__")
        except Parsed as parsed:
            found = parsed.args[0]
        except SystemExit as end:
            if end.code:
                raise
        yield found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command, monkeypatch):
    """Through its own parser; its config loads and resolves."""
    monkeypatch.chdir(ROOT)
    with entered(command, monkeypatch, stop=True) as found:
        if not isinstance(found, argparse.Namespace) and isinstance(found.config, Run):
            given = set(config_flags.get_override_values(found["config"]))
            given |= presets.arg_keys(found.config.arg)
            run = found.config
            run = run if run.data.root else presets.standin(run, given)
            config.resolve(run)
            if run.init.kind == "pretrained" and not run.init.checkpoint:
                config.resolve(presets.load(run.init.upstream))
        elif path := getattr(found, "config", ""):
            assert presets.load_module(path).sweep


@pytest.mark.slow
@pytest.mark.parametrize("path", studies())
def test_every_study_lists_its_runs(path):
    kinds = {node.kind for node in grid.nodes(path)}
    assert "transfer" in kinds


SIDES = {**dict.fromkeys(keras_zoo.NETS, 64), "inception_v3": 80}  # else 32 pixels
SHARED: dict = {}  # compiled programs


def shrunk(run, cache, least=False):
    """The run with everything small: two steps of eight images of the phantom.

    least: with MobileNet in the place of Keras's other nets, which compile for long.
    """
    run = config.from_dict(config.to_dict(run))
    if least and run.model.name in keras_zoo.NETS:
        run.model.name = "mobilenet"
    if run.model.name not in keras_zoo.NETS:
        run.model.width = 0.25 if run.model.name == "bit" else 0.125
    if run.model.name == "bit":
        run.model.blocks, run.model.groups = (1, 1, 1), 4
    d, o = run.data, run.optim
    if not set(d.reader.split("+")) <= set(PHANTOMS):
        d.reader, d.split, d.labels = "covidx", "official", ()
        d.views, d.sampling_class = (), ""
    d.resize = d.crop = d.phantom.pixels = SIDES.get(run.model.name, 32)
    d.root, d.version, d.cache, d.valid = "", "", str(cache), 0.3
    d.phantom.images = 96
    o.batch, o.steps, o.epochs, o.warmup_steps, o.warmup_epochs = 8, 2, 0.0, 0, 0.0
    o.micro_batch = min(o.micro_batch, 0)
    if stages := len(run.phase.until):
        o.steps = stages + 1
        run.phase.until = tuple((i + 1) / o.steps for i in range(stages))
    run.eval.resamples, run.eval.every = 20, min(run.eval.every, 1)
    if run.init.kind == "imagenet":  # which is not at hand
        run.init = config.Init()
    return config.resolve(run)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the configs, in which the runs that others read are made."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("configs", "launch"):
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        for command in MAKES:
            perform(command, folder, patch)
    drawn = folder / "cache" / "phantom"  # what `predict` is told to read: a few
    drawn.mkdir(parents=True)
    for path in sorted((folder / "toys").glob("phantom/*/test/*.png"))[:8]:
        shutil.copy(path, drawn)
    return folder


def perform(command, folder, monkeypatch):
    """The whole command in this folder, with toy runs in the place of its runs."""
    execute = job.execute

    def toy(run, where, *args):
        return execute(shrunk(run, folder / "toys"), where, None, SHARED)

    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(job, "execute", toy)
        with entered(command, patch, stop=False):
            pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in MAKES])
def test_every_command_takes_a_toy_step(command, world, monkeypatch):
    if command.split()[2].startswith("launch."):
        pytest.skip("starts processes: its study is tried by the next test")
    perform(command, world, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", studies())
def test_a_transfer_of_every_study_takes_a_toy_step(path, world):
    """The first that starts from another run, and that run."""
    nodes = {node.digest: node for node in grid.nodes(path)}
    transfers = [n for n in nodes.values() if n.kind == "transfer"]
    node = next((n for n in transfers if n.run.init.kind == "pretrained"), transfers[0])
    for need in (nodes[n] for n in (*node.needs, node.digest)):
        if need.kind != "cache":
            run, where = shrunk(need.run, world / "toys", True), world / need.digest
            if need is node and need.run.init.kind == "pretrained":
                run.init.checkpoint = str(world / need.run.init.digest / "params.npz")
            job.execute(run, where, None, SHARED)
            assert (where / "result.json").exists()
