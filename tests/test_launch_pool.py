"""The pool and its claims, with workers that are told how to misbehave."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from bigxfer import config, durable
from bigxfer.study import claims, grid
from launch import pool

# A worker without jax. What it does at the nth try of a digest stands in a file.
FAKE = textwrap.dedent("""
    import json, os, pathlib, signal, sys, time
    runs, plan = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    def tell(how, kind="", message=""):
        print(json.dumps({"how": how, "kind": kind, "message": message}), flush=True)
    if plan.get("broken"):
        sys.exit(3)
    tell("ready")
    for line in sys.stdin:
        digest = line.strip()
        folder = runs / digest
        with open(folder / "calls", "a") as file:
            print(os.getpid(), os.environ.get("SLOT", ""), file=file)
        calls = len((folder / "calls").read_text().split("\\n")) - 1
        what = (plan.get(digest, []) + ["done"] * 20)[calls - 1]
        if what == "fail":
            tell("failed", "ValueError", "no such thing")
            sys.exit(1)
        if what == "full disk":
            tell("failed", "OSError", "no space left")
            sys.exit(1)
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        if what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if what.startswith("save"):  # gets on, and dies
            (folder / "checkpoints" / what[4:]).mkdir(parents=True)
            (folder / "checkpoints" / what[4:] / "record").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "slow":
            for n in range(50):
                (folder / "metrics.jsonl").write_text(str(n))
                time.sleep(0.05)
        part = folder / "part"
        part.write_text(json.dumps({"digest": digest}))
        (folder / "config.json").write_text(part.read_text())
        part.replace(folder / "result.json")
        tell("done")
""")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(grid, "PAUSE", 0.05)


def study(*names, **needs):
    run = config.Run(kind="transfer")
    return [grid.Node(run, name, tuple(needs.get(name, ()))) for name in names]


def start(nodes, runs, plan=(), slots=1, hang=60.0, **more):
    command = [sys.executable, "-c", FAKE, str(runs), json.dumps(dict(plan))]
    environs = [{**os.environ, "SLOT": str(n)} for n in range(slots)]
    return pool.Pool(nodes, runs, command, environs, hang, **more)


def states(nodes, runs):
    return {s.node.digest: s for s in grid.states(nodes, runs)}


def calls(runs, name):
    return len((runs / name / "calls").read_text().splitlines())


def ends(runs, name):
    return [t.end and (t.end["how"], t.end["kind"]) for t in claims.read(runs / name)]


def test_runs_in_order_of_their_needs_on_every_slot(tmp_path):
    nodes = study("a", "b", "c", "d", c=("a",), d=("a", "c"))
    said = []
    start(nodes, tmp_path, slots=2, say=said.append).run()
    assert {s.state for s in states(nodes, tmp_path).values()} == {"done"}
    assert len(said) == 4 and said[-1].startswith("[4/4]")
    assert all(re.match(r"\[[123]/4\] \d+ s, about \d+ s left  R", s) for s in said[:3])
    assert "left" not in said[-1] and "R50x1 scratch -> chexpert, all" in said[-1]
    made = [(tmp_path / n / "result.json").stat().st_mtime_ns for n in "acd"]
    assert made == sorted(made)
    again = start(nodes, tmp_path, say=said.append)
    again.run()
    assert len(said) == 4 and again.slots[0].process is None  # nothing was started


def test_checkpoints_that_a_kill_left_of_a_finished_run_go(tmp_path):
    nodes = study("a", "b")
    start(nodes, tmp_path, {"b": ["save4"] + ["fail"] * 9}, say=list).run()
    (tmp_path / "a" / "checkpoints" / "8").mkdir(parents=True)
    start(nodes, tmp_path, say=list).run()
    assert not (tmp_path / "a" / "checkpoints").exists()
    assert (tmp_path / "b" / "checkpoints" / "4").exists()  # it may yet go on


def test_a_worker_keeps_to_the_shape_that_it_has_compiled(tmp_path):
    nodes = []
    for seed in range(4):
        for reader in ("covidx", "nih", "chexpert"):
            run = config.Run(kind="transfer", seed=seed)
            run.data.reader = reader
            nodes.append(grid.Node(run, f"{reader}-{seed}"))
    upstream = config.Run(kind="upstream", model=config.Model(width=2.0))
    nodes.append(grid.Node(upstream, "up"))
    order = []
    start(nodes, tmp_path, say=lambda line: order.append(line.split()[-1])).run()
    assert order[0] == "up", "others may wait for it"
    readers = [name.partition("-")[0] for name in order[1:]]
    assert readers == ["covidx"] * 4 + ["nih"] * 4 + ["chexpert"] * 4
    work = start(nodes, tmp_path / "two", slots=2)
    first, second = work.slots
    first.shapes, second.shapes = {nodes[0].shape}, {nodes[1].shape}
    assert nodes[0].shape == nodes[3].shape != nodes[1].shape
    assert work.best(first, nodes[1:-1]) == 2, "what it has compiled"
    assert work.best(first, nodes[1:3]) == 1, "what the other has not"


def test_three_strikes_give_a_run_up_and_those_that_need_it(tmp_path):
    nodes = study("a", "b", "c", "d", b=("a",), c=("b",))
    start(nodes, tmp_path, {"a": ["fail"] * 9}).run()
    found = states(nodes, tmp_path)
    assert calls(tmp_path, "a") == 3
    assert found["a"].state == found["b"].state == found["c"].state == "given up"
    assert (
        found["a"].error == "ValueError: no such thing" and len(found["a"].tries) == 3
    )
    assert " a, given up" in found["b"].error and " b, given up" in found["c"].error
    assert found["d"].state == "done"
    start(nodes, tmp_path).run()
    assert calls(tmp_path, "a") == 3  # given up it stays
    claims.forgive(tmp_path / "a")
    start(nodes, tmp_path).run()
    assert {s.state for s in states(nodes, tmp_path).values()} == {"done"}


def test_transient_faults_are_overcome(tmp_path):
    """Another kind of failure, or a checkpoint in between, is no repetition."""
    nodes = study("a", "b", "c")
    plan = {
        "a": ["fail", "full disk", "die", "fail", "full disk", "die"],
        "b": ["die", "die", "save10", "die", "save20", "die"],
        "c": ["hang", "stop"],
    }
    start(nodes, tmp_path, plan, slots=3, hang=2.0).run()
    assert {s.state for s in states(nodes, tmp_path).values()} == {"done"}
    assert ends(tmp_path, "a")[2] == ("failed", "killed by SIGKILL")
    assert [calls(tmp_path, n) for n in "abc"] == [7, 7, 3]
    assert ends(tmp_path, "c")[:2] == [("failed", "hung")] * 2


def test_a_slow_run_is_no_hanging_one(tmp_path):
    nodes = study("a")
    start(nodes, tmp_path, {"a": ["slow"]}, hang=1.0).run()
    assert ends(tmp_path, "a") == [("done", "")]


def test_workers_that_do_not_start_cost_no_run_its_tries(tmp_path):
    nodes = study("a", "b")
    with pytest.raises(OSError, match="ended with status 3"):
        start(nodes, tmp_path, {"broken": True}).run()
    assert {s.state for s in states(nodes, tmp_path).values()} == {"ready"}


def test_stopping_releases_what_runs(tmp_path):
    nodes = study("a", "b")
    workers = start(nodes, tmp_path, {"a": ["slow"], "b": ["hang"]}, slots=2, grace=2)

    def stop():
        while not (tmp_path / "b" / "calls").exists():
            time.sleep(0.05)
        time.sleep(0.2)
        workers.stopping = True

    threading.Thread(target=stop, daemon=True).start()
    workers.run()
    assert ends(tmp_path, "a") == ends(tmp_path, "b") == [("released", "")]
    found = states(nodes, tmp_path)
    assert found["a"].state == found["b"].state == "ready"


def test_only_one_of_two_pools_gets_a_run(tmp_path):
    nodes = study(*(f"n{i}" for i in range(20)))
    pools = [start(nodes, tmp_path, slots=2) for _ in range(2)]
    threads = [threading.Thread(target=p.run) for p in pools]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [calls(tmp_path, node.digest) for node in nodes] == [1] * 20


def test_racing_for_one_claim_has_one_winner(tmp_path):
    """Also for one that a dead process has left."""
    for folder in (tmp_path / "new", dead(tmp_path / "dead")):
        left, won, barrier = claims.read(folder), [], threading.Barrier(16)

        def race(folder=folder, left=left, won=won, barrier=barrier):
            barrier.wait()
            won.append(claims.claim(folder, left))

        threads = [threading.Thread(target=race) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert sum(path is not None for path in won) == 1


def dead(folder):
    """A run folder with the claim of a process that is no more."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = claims.claim(folder, [])
    assert path
    about = json.loads(path.read_text())
    about["owner"]["pid"] = gone.pid
    durable.write_json(path, about)
    return folder


def test_a_claim_of_another_machine_is_stale_after_a_while(tmp_path):
    nodes = study("a")
    path = claims.claim(tmp_path / "a", [])
    about = json.loads(path.read_text())
    about["owner"]["machine"] = "another boot"
    durable.write_json(path, about)
    assert states(nodes, tmp_path)["a"].state == "running"
    old = time.time() - claims.STALE - 1
    os.utime(path, (old, old))
    assert states(nodes, tmp_path)["a"].state == "ready"
    start(nodes, tmp_path).run()
    assert states(nodes, tmp_path)["a"].state == "done"


def test_who_was_overtaken_lets_go(tmp_path):
    """A pool that slept finds its run taken over: it kills its worker, writes nothing."""
    nodes = study("a")
    workers = start(nodes, tmp_path, {"a": ["slow"]}, hang=0.4)

    def overtake():
        while not (tmp_path / "a" / "calls").exists():
            time.sleep(0.02)
        (tmp_path / "a" / "tries" / "2.json").write_text(
            (tmp_path / "a" / "tries" / "1.json").read_text()
        )
        time.sleep(1)
        workers.stopping = True

    threading.Thread(target=overtake, daemon=True).start()
    workers.run()
    assert not (tmp_path / "a" / "result.json").exists()
    assert claims.read(tmp_path / "a")[0].end is None


def test_a_lost_try_is_no_strike_but_twenty_are(tmp_path):
    nodes = study("a")
    for _ in range(claims.LOST):
        found = claims.read(tmp_path / "a")
        assert states(nodes, tmp_path)["a"].state == "ready"
        path = claims.claim(tmp_path / "a", found)
        about = json.loads(path.read_text())
        about["owner"]["born"] = "another process"
        durable.write_json(path, about)
    assert states(nodes, tmp_path)["a"].state == "ready"
    found = claims.read(tmp_path / "a")
    path = claims.claim(tmp_path / "a", found)
    about = json.loads(path.read_text())
    about["owner"]["born"] = "another process"
    durable.write_json(path, about)
    assert states(nodes, tmp_path)["a"].state == "given up"


def test_an_orphan_is_killed_by_who_takes_over(tmp_path):
    """A worker that is stopped outlives its pool; its successor ends it."""
    nodes = study("a")
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests')\n"
        "import test_launch_pool as t\n"
        f"t.start(t.study('a'), pathlib.Path({str(tmp_path)!r}), {{'a': ['stop']}}).run()"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code])
    worker = None
    while worker is None or not stopped(worker):
        found = claims.read(tmp_path / "a")
        worker = found[-1].owner.get("worker") if found else None
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    assert stopped(worker)
    start(nodes, tmp_path).run()
    assert states(nodes, tmp_path)["a"].state == "done"
    assert not claims.running(worker, claims.born(worker))


def stopped(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def test_workers_die_with_their_pool(tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests')\n"
        "import test_launch_pool as t\n"
        "from launch import pool\n"
        "command = [sys.executable, '-m', 'launch.worker', '--config',"
        " 'configs/study_demo.py']\n"
        f"runs = pathlib.Path({str(tmp_path)!r})\n"
        "pool.Pool(t.study('a'), runs, command, [dict(t.os.environ)], 60).run()"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code])
    while not (found := claims.read(tmp_path / "a")) or "worker" not in found[-1].owner:
        time.sleep(0.05)
    worker = found[-1].owner
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    for _ in range(200):
        if not claims.running(worker["worker"], worker["worker_born"]):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the worker lives on")


@pytest.mark.parametrize("text", ["", "\0\0\0", '{"owner"'])
def test_a_try_that_the_power_cut_short_stops_nobody(tmp_path, text):
    """It may be somebody's for a while; then the run goes on, with the next number."""
    nodes = study("a")
    path = tmp_path / "a" / "tries" / "1.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert states(nodes, tmp_path)["a"].state == "running"
    old = time.time() - claims.STALE - 1
    os.utime(path, (old, old))
    start(nodes, tmp_path).run()
    assert states(nodes, tmp_path)["a"].state == "done"
    assert ends(tmp_path, "a") == [None, ("done", "")]


def test_times_are_for_people():
    times = (0.4, 45, 89, 91, 3600, 89.4 * 60, 200 * 60)
    words = "0 s, 45 s, 89 s, 2 min, 60 min, 89 min, 3 h 20 min"
    assert ", ".join(pool.clock(t) for t in times) == words
