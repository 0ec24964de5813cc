"""The command line: names, help, shipped configs from anywhere, the wheel."""

import logging
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from test_launch_local import environment, toy

import bigxfer
from bigxfer import __main__ as console
from bigxfer import cli, config, presets
from bigxfer.runs import folders
from bigxfer.training.log import RunLog
from launch import profile

ROOT = Path(__file__).parents[1]
MODULES = [*console.MODULES.values()]
MODULES += [name for group in console.GROUPS.values() for name in group.values()]


def answer(capsys, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["bigxfer", *map(str, words)])
    console.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("module", ["launch.slurm", "bigxfer.audit"])
def test_help_is_no_error_and_names_every_flag(module):
    call = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = {
        "launch.slurm": ("--dry-run", "--profile"),
        "bigxfer.audit": ("--against",),
    }
    for name in ("--config", *names[module]):
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE), done.stdout


def test_against_takes_overrides(tmp_path):
    """As --config does: here of the reader and the root, which is not there."""
    shown, gone = "configs/covidx_small.py:phantom=8,res=16", str(tmp_path / "gone")
    call = [
        sys.executable,
        "-m",
        "bigxfer.audit",
        "--config",
        shown,
        "--against",
        shown,
    ]
    call += [f"--config.data.cache={tmp_path}", "--against.data.reader=csv"]
    call += [f"--against.data.root={gone}"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"looked for the folder '{gone}'" in done.stderr
    said = cli.unknown_field(["audit", "--against.data.roat=here"])
    assert said.startswith("there is no field against.data.roat; did you mean against.")


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_every_help_is_no_error(module):
    call = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and len(done.stdout) > 200, done.stderr


def test_the_version(capsys, monkeypatch):
    said = answer(capsys, monkeypatch, "--version")
    assert said == f"bigxfer {bigxfer.__version__}\n"


def test_a_wrong_command_names_its_neighbours(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bigxfer", "tran"])
    with pytest.raises(SystemExit, match="no command 'tran'; did you mean train"):
        console.main()


def test_the_difference_of_two_configs(capsys, monkeypatch):
    names = [f"configs/covidx_small.py:{arg}" for arg in ("res=32", "res=64,seed=3")]
    lines = answer(capsys, monkeypatch, "config", *names).splitlines()
    found = dict(re.split(r"\s+", line, maxsplit=1) for line in lines)
    assert found["config.seed"] == "0  ->  3"
    assert found["config.data.crop"] == "32  ->  64"
    assert "config.model.width" not in found
    digests = [config.digest(config.resolve(presets.load(n))) for n in names]
    assert found["digest"] == "  ->  ".join(digests)


def test_a_config_is_the_same_as_that_of_its_run_folder(tmp_path, capsys, monkeypatch):
    run = config.resolve(presets.load("configs/covidx_small.py:res=32"))
    folders.write(tmp_path / "config.json", {"config": config.to_dict(run)})
    name = "configs/covidx_small.py:res=32"
    said = answer(capsys, monkeypatch, "config", name, tmp_path)
    assert said == f"digest {config.digest(run)}  ->  {config.digest(run)}\n"
    every = answer(capsys, monkeypatch, "config", tmp_path)
    for field in config.flat(run):
        assert f"config.{field.replace('/', '.')} " in every


def test_the_lists_name_every_config_reader_and_net(capsys, monkeypatch):
    from bigxfer import models
    from bigxfer.data import readers

    said = answer(capsys, monkeypatch, "config")
    for path in (ROOT / "configs").glob("*.py"):
        assert f"configs/{path.name} " in said
    said = answer(capsys, monkeypatch, "datasets")
    assert all(re.search(rf"^{name} ", said, re.MULTILINE) for name in readers.READERS)
    said = answer(capsys, monkeypatch, "models").split()
    assert set(models.MODELS) - {"bit"} <= set(said)


def test_bash_completes_commands_configs_and_fields(capsys, monkeypatch):
    script = answer(capsys, monkeypatch, "completion", "bash")

    def completed(*words):
        line = " ".join(words)
        ask = f"COMP_WORDS=({line} ''); COMP_CWORD={len(words) - 1}"
        ask += '; _bigxfer; printf "%s\\n" "${COMPREPLY[@]}"'
        call = ["bash", "-c", f"{script}\n{ask}"]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        return sorted(set(done.stdout.split()))

    assert completed("bigxfer", "tr") == ["train", "transfer"]
    assert completed("bigxfer", "study", "li") == ["list"]
    assert completed("bigxfer", "study", "w") == ["watch"]
    assert completed("bigxfer", "train", "--config", "configs/upstream_n") == [
        "configs/upstream_nih.py"
    ]
    assert completed("bigxfer", "train", "--config.optim.mo") == [
        "--config.optim.momentum="
    ]
    # A command's own options are those of its --help, and other words ask nothing.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    assert completed("bigxfer", "study", "list", "--ru") == ["--runs"]
    assert completed("bigxfer", "audit", "--aga") == ["--against"]
    assert completed("bigxfer", "no-such", "--any") == []


def test_shipped_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("study_demo.py", "configs/study_demo.py"):
        assert presets.find(name) == ROOT / "configs" / "study_demo.py"
    with pytest.raises(config.ConfigError, match="no config file other/study_demo.py"):
        presets.find("other/study_demo.py")
    (tmp_path / "study_demo.py").write_text("")
    assert presets.find("study_demo.py") == Path(
        "study_demo.py"
    )  # one's own comes first
    assert profile.load("juwels_booster.py").partition == "booster"


def test_flags_may_have_hyphens_and_name_shipped_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with flagsaver.flagsaver():
        flags.DEFINE_bool("dry_run_here", False, "")
        given = ["--dry-run-here", "--config", "covidx_small.py:res=32", "--runs=a-b"]
        shipped = ROOT / "configs" / "covidx_small.py"
        wanted = ["--dry_run_here", f"--config={shipped}:res=32", "--runs=a-b"]
        assert cli.given_names(given) == wanted
        assert cli.given_names(["--dry_run_here"]) == ["--dry_run_here"]
        delattr(flags.FLAGS, "dry_run_here")


def test_the_parameters_are_listed_on_demand(tmp_path, caplog):
    log = RunLog(tmp_path, config.Log(), primary=True)
    params = {"stem": {"kernel": np.zeros((7, 7, 3, 16), np.float32)}}
    for level, lines in ((logging.INFO, 0), (logging.DEBUG, 1)):
        with caplog.at_level(level, "bigxfer"):
            log.parameters(params)
        assert caplog.text.count("stem/kernel") == lines
    assert cli.given_names(["-v"]) == ["--verbosity=1"]


def test_an_installed_package_within_a_repository_takes_no_commit_of_it(
    tmp_path, monkeypatch
):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    installed = tmp_path / "site-packages" / "bigxfer" / "runs"
    installed.mkdir(parents=True)
    (tmp_path / "mine.txt").write_text("")
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "add", "mine.txt"], check=True)
    subprocess.run([*git, "commit", "-qm", "mine"], check=True)
    monkeypatch.setattr(folders, "__file__", str(installed / "folders.py"))
    assert folders.commit() == "unknown"


def test_a_machine_without_git_has_no_commit_to_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert folders.commit() == "unknown"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of an environment that has the wheel and no source.

    What bigxfer needs comes from the site-packages of these tests, by a .pth file, since
    a second installation of jax would take minutes; bigxfer itself comes from the wheel.
    """
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    how = ["--no-deps", "--no-build-isolation", "-q", "-w", folder, folder / "source"]
    subprocess.run([*pip, "wheel", *how], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    into = ["--python", str(folder / "env"), "install", "--no-deps", "-q", wheel]
    subprocess.run([*pip, *into], check=True)
    return folder / "env" / "bin"


@pytest.mark.slow
def test_a_study_runs_from_the_wheel_alone(installed, tmp_path):
    """With the shipped configs, the launcher and the page, outside the repository."""
    env = {k: v for k, v in environment().items() if k != "PYTHONPATH"}

    def call(*words):
        done = subprocess.run(
            [installed / "bigxfer", *map(str, words)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        return done.stdout

    where = "import bigxfer, launch; print(bigxfer.__file__, launch.__file__)"
    python = [installed / "python", "-c", where]
    said = subprocess.check_output(python, cwd=tmp_path, env=env, text=True)
    assert said.count(str(installed.parent)) == 2
    assert "configs/study_demo.py" in call("config")
    (site,) = (installed.parent / "lib").glob("python*/site-packages")
    source = installed.parent.parent / "source"
    for room, within in (("bigxfer", ""), ("launch", ""), ("configs", "bigxfer")):
        for file in (source / room).rglob("*.*"):
            assert (site / within / file.relative_to(source)).is_file(), file
    study = toy(tmp_path, shots=("5",), upstream_steps=2)
    call("study", "list", "--config", study)
    said = call("launch", "local", "--config", study, "--runs", "runs")
    assert "auroc_macro" in said and "SYNTHETIC" in said
    page = tmp_path / "runs" / "study_toy" / "report.html"
    assert page.stat().st_size > 100_000
    typed = installed.parent.glob("lib/python*/site-packages/bigxfer/py.typed")
    assert list(typed)
    logs = [path.read_text() for path in (tmp_path / "runs").glob("*/log.txt")]
    first = next(text for text in logs if "compiled in" in text)
    assert first.index("compiling") < first.index("compiled in")
    assert not re.search(r"Plan\(|\d+s$|parameters:", first, re.MULTILINE)
