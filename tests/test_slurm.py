"""launch.slurm on a real Slurm of two nodes on this machine, and much goes wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import COMPILE_FAST

from bigxfer import config
from bigxfer.runs import folders
from bigxfer.study import claims, grid
from launch import slurm as slurm_launcher
from launch.profile import Profile

ROOT = Path(__file__).parents[1]
LOOP = ROOT.parent / "shared" / "tools" / "loopslurm.sh"
HOSTS = Path("/etc/hosts")
NAMES = "127.0.0.1 n1 n2\n"  # jax resolves the first name of SLURM_STEP_NODELIST
DEVICES = "--xla_force_host_platform_device_count="

STUDY = '''
"""SYNTHETIC: 12 runs, to be disturbed."""
from bigxfer import presets

SHAPE = "model=R1-1x0.25,res=32,batch=16,phantom=64"

def get_config(arg=""):
    name, _, steps = (arg or "covidx_small.py,300").partition(",")
    recipe = "" if name == "covidx_small.py" else "recipe=small,"
    run = presets.load(f"configs/{{name}}:{{SHAPE}},{{recipe}}steps={{steps}}")
    run.data.cache = "{cache}"
    run.eval.resamples, run.log.every = 50, 1
    return run

def sweep(arg=""):
    for shots in ("1", "5", "10"):
        yield {{"data.shots": shots, "init.kind": "random"}}
        for upstream in ("chexpert.py,1000", "nih.py,40"):
            name = f"{{__file__}}:upstream_{{upstream}}"
            yield {{"data.shots": shots, "init.upstream": name}}
    yield {{"init.kind": "random"}}
'''
PROFILE = """
from launch.profile import Profile

def tasks(run):
    return 2 if run.kind == "upstream" and run.data.reader == "chexpert" else 1

PROFILE = Profile(
    "low", gpus=2, workers=2, cpus=2, nodes=2, minutes=30, lead=50, poll=1.0,
    patience=5.0, tasks=tasks,
    # two devices in all, however many processes they are in
    setup=('[ "$SLURM_NTASKS" = 2 ] && export XLA_FLAGS="{flags}1"',),
)
"""


@pytest.fixture
def slurm(tmp_path):
    """The environment of a running cluster; everything is ended afterwards."""
    missing = [n for n in ("slurmctld", "slurmd", "munged") if not shutil.which(n)]
    if missing or not LOOP.exists():
        pytest.skip(f"needs {missing or LOOP} (apt-get install slurm-wlm munge)")
    if os.geteuid():
        pytest.skip("Slurm on loopback is started as root")
    folder = tmp_path / "slurm"
    environ = environment(SLURM_CONF=str(folder / "slurm.conf"))
    before, munged = HOSTS.read_text(), run("pidof", "munged", check=False)
    HOSTS.write_text(before + NAMES)
    try:
        run("bash", str(LOOP), str(folder), "2", "4")
        yield environ
    finally:
        run("scancel", "--user=root", env=environ, check=False)
        run("scontrol", "shutdown", env=environ, check=False)
        for pid in daemons(environ["SLURM_CONF"]):
            end(pid)
        if not munged:
            end(int(Path("/run/munge/munged.pid").read_text()))
        HOSTS.write_text(HOSTS.read_text().replace(NAMES, ""))


def daemons(conf):
    """The processes of this cluster."""
    wanted = f"SLURM_CONF={conf}".encode()
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if wanted in read(path) and b"slurm" in read(path.with_name("comm"))
    ]


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def end(pid):
    """Waits for a daemon to leave, then makes it."""
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        for _ in range(50):
            if not claims.running(pid, claims.born(pid)):
                return
            os.kill(pid, number)
            time.sleep(0.1)


def environment(**more):
    flags = f"{COMPILE_FAST} {DEVICES}2"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **more}


def run(*call, check=True, **how):
    done = subprocess.run(call, check=False, capture_output=True, text=True, **how)
    assert not check or done.returncode == 0, (call, done.stdout, done.stderr[-3000:])
    return done.stdout


class Cluster:
    """The study on the cluster, and ways to disturb it."""

    def __init__(self, tmp_path, environ):
        self.environ, self.runs = environ, tmp_path / "slurm_runs"
        self.config, self.profile = tmp_path / "study.py", tmp_path / "profile.py"
        self.config.write_text(textwrap.dedent(STUDY).format(cache=tmp_path / "cache"))
        flags = f"{COMPILE_FAST} {DEVICES}"
        self.profile.write_text(PROFILE.format(flags=flags))
        self.study = grid.nodes(str(self.config))
        self.log = (tmp_path / "launcher.txt").open("a")
        self.launcher = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.launcher.kill()
        self.launcher.wait()
        self.log.close()

    def launch(self):
        names = ["--config", self.config, "--runs", self.runs]
        self.launcher = subprocess.Popen(
            [sys.executable, "-m", "launch.slurm", *names, "--profile", self.profile],
            cwd=ROOT,
            env=self.environ,
            stdout=self.log,
            stderr=self.log,
        )

    def call(self, *command):
        return run(*command, env=self.environ, check=False)

    def until(self, what, seconds=400):
        """Waits for what() to be true; requeued jobs need not wait their two minutes."""
        deadline = time.monotonic() + seconds
        while not (found := what()):
            said = self.call("tail", "-n", "20", self.log.name)
            assert time.monotonic() < deadline, (what, self.call("squeue"), said)
            assert self.launcher.poll() in (None, 0), said
            for job in self.jobs("PENDING"):
                self.call("scontrol", "update", f"JobId={job}", "StartTime=now")
            time.sleep(0.2)
        return found

    def jobs(self, state, name=""):
        out = self.call("squeue", "-h", "-r", "-t", state, "-o", "%i %j").split("\n")
        return [line.split()[0] for line in out if line and line.endswith(name)]

    def ends(self, node):
        return [t.end and t.end["how"] for t in claims.read(node.folder(self.runs))]

    def running(self):
        """[(node, owner)] of the small runs under way that have a worker."""
        states = grid.states(self.study, self.runs)
        found = [(s.node, s.tries[-1].owner) for s in states if s.state == "running"]
        return [
            (node, owner)
            for node, owner in found
            if node.kind != "cache" and node.run.data.reader != "chexpert"
            if "worker" in owner
        ]

    def count(self, how):
        return sum(ends.count(how) for ends in map(self.ends, self.study))


def of_one_job(running):
    """Two of them that share a job, if there are any."""
    for _, owner in running:
        same = [pair for pair in running if pair[1]["job"] == owner["job"]]
        if len(same) == 2:
            return same
    return []


def variable(pid, name):
    lines = read(Path(f"/proc/{pid}/environ")).decode().split("\0")
    return dict(line.partition("=")[::2] for line in lines).get(name)


def pids_of_rank(job, rank):
    """The processes of this rank of a Slurm job that are workers."""
    wanted = {b"SLURM_JOB_ID=%d" % job, b"SLURM_PROCID=%d" % rank}
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"launch.worker" in (line := read(path)) and b"srun" not in line
        if wanted <= set(read(path.with_name("environ")).split(b"\0"))
    ]


def disturb(c, tmp_path):
    """All that a cluster does to a study: to its jobs, workers and launcher."""
    runs = [n for n in c.study if n.kind != "cache"]
    (large,) = (n for n in runs if n.kind == "upstream" and "chex" in n.run.data.reader)
    folder = large.folder(c.runs)
    c.launch()

    # Two workers of one node have a GPU each; one of them is killed.
    both = c.until(lambda: of_one_job(c.running()))
    gpus = {variable(owner["worker"], "CUDA_VISIBLE_DEVICES") for _, owner in both}
    assert len(gpus) == 2 and gpus <= set("0123"), "the nodes have four each"
    node, owner = both[0]
    os.kill(owner["worker"], signal.SIGKILL)
    c.until(lambda: "failed" in c.ends(node))

    # The run of two tasks is told to save, and puts itself back into the queue.
    c.until(lambda: folders.progress(folder)[0] > 10)
    (job,) = c.jobs("RUNNING", large.digest)
    c.call("scancel", "--signal=TERM", job)
    c.until(lambda: c.ends(large)[:1] == ["released"])
    saved = claims.saved(folder)
    assert 10 < saved < 250, "before the first of its four regular checkpoints"

    # A node is requeued.
    node, owner = c.until(c.running)[0]
    c.call("scontrol", "requeue", owner["job"])
    c.until(lambda: c.ends(node)[-1])

    # A rank of the two is killed.
    c.until(lambda: folders.progress(folder)[0] > saved + 10)
    os.kill(pids_of_rank(int(job), 1)[0], signal.SIGKILL)
    c.until(lambda: "failed" in c.ends(large))
    assert f"resumed from step {saved}" in (folder / "log.txt").read_text()

    # So is the launcher.
    c.launcher.kill()
    c.launcher.wait()
    c.launch()

    # A node reaches its time limit, and both are taken away.
    node, owner = c.until(c.running)[0]
    c.call("scontrol", "update", f"JobId={owner['job']}", "TimeLimit=1")
    c.until(lambda: c.ends(node)[-1])
    node, owner = c.until(c.running)[0]
    released = c.count("released")
    wrap = ("--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 2")
    c.call("sbatch", *wrap, f"--output={tmp_path}/high.txt")
    c.until(lambda: c.count("released") > released or not c.running())


@pytest.mark.slow
def test_twelve_runs_finish_whatever_happens(tmp_path, slurm):
    with Cluster(tmp_path, slurm) as c:
        runs = [node for node in c.study if node.kind != "cache"]
        assert len(runs) == 12
        disturb(c, tmp_path)
        c.until(lambda: c.launcher.poll() is not None, 900)
        said = Path(c.log.name).read_text()
        assert c.launcher.returncode == 0 and "table:" in said, said
        assert c.jobs("RUNNING,PENDING") == []
    # Everything is as it would have been in peace.
    local = tmp_path / "local_runs"
    names = ("--config", str(c.config), "--runs", str(local))
    call = (sys.executable, "-m", "launch.local", *names)
    run(*call, cwd=ROOT, env=environment())
    for node in runs:
        one, other = (node.folder(r) for r in (local, c.runs))
        results = [json.loads((f / "result.json").read_text()) for f in (one, other)]
        assert results[0]["metrics"] == results[1]["metrics"], node
        for name in ("predictions.npz", "metrics.jsonl"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), node


def test_dry_run_prints_the_scripts(tmp_path):
    """Without any Slurm: what sbatch would be given on JUWELS Booster."""
    config = tmp_path / "study.py"
    text = textwrap.dedent(STUDY).format(cache=tmp_path)
    config.write_text(text.replace("x0.25", "x3"))
    said = run(
        *(sys.executable, "-m", "launch.slurm", "--config", config, "--dry_run"),
        *("--profile", "launch/profiles/juwels_booster.py", "--account=mine"),
        cwd=ROOT,
    )
    nodes, large, *_ = said.split("#!/bin/bash")[1:]
    for script in (nodes, large):
        for option in ("account=mine", "partition=booster", "gres=gpu:4", "requeue"):
            assert f"#SBATCH --{option}\n" in script
        assert "#SBATCH --signal=TERM@300\n#SBATCH --time=1440\n" in script
        assert "export JAX_COORDINATOR_ADDRESS=${first}i:" in script
    assert "--nodes=1\n#SBATCH --ntasks-per-node=1\n" in nodes
    assert "srun --unbuffered" in nodes and "srun --unbuffered" not in large
    assert "--nodes=4\n#SBATCH --ntasks-per-node=4\n" in large
    assert "#SBATCH --cpus-per-task=12\n" in large


@pytest.mark.parametrize("text", ["", "PROFILE = 1", None])
def test_a_bad_profile_is_one_line(tmp_path, text):
    profile = tmp_path / "profile.py"
    if text is not None:
        profile.write_text(text)
    call = [sys.executable, "-m", "launch.slurm", "--config", "configs/study_demo.py"]
    done = subprocess.run(
        [*call, "--profile", profile, "--dry_run"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "rofile" in done.stderr.strip().splitlines()[-1]


def test_a_root_with_blanks_is_quoted_and_a_line_break_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_launcher, "__file__", "/a b/$(id)/launch/slurm.py")
    profile = Profile("low", account="mine")
    launch = slurm_launcher.Launch("c.py", tmp_path, [], profile, 60)
    line = launch.parameters("name")["setup"][0] + ' && echo "$PYTHONPATH"'
    assert run("bash", "-c", line, env={"PYTHONPATH": "x y"}) == "/a b/$(id):x y\n"
    for bad in ({"account": "me\n#SBATCH --x"}, {"sbatch": {"mail-user": "a\nb"}}):
        launch.profile = Profile("low", **bad)
        with pytest.raises(config.ConfigError, match="line break"):
            launch.parameters("name")


def test_importing_the_launchers_sets_no_environment():
    code = (
        "import os; before = dict(os.environ)\n"
        "from launch import local, node, pool, profile, shares, slurm, tpu, worker\n"
        "assert dict(os.environ) == before"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SUBMITIT")}
    run(sys.executable, "-c", code, cwd=ROOT, env=environ)
