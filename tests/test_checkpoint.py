"""Checkpoints: exact on any devices, atomic under kill -9, loud about any damage."""

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_sharding import two_processes

from bigxfer import config
from bigxfer.training import checkpoint, loop, sharding
from bigxfer.training.checkpoint import CheckpointError, Checkpoints, Damaged
from bigxfer.training.log import RunLog


def state(seed=0, fsdp=1):
    """Parameters of several types under a real optimizer, on all eight devices."""
    rng = np.random.default_rng(seed)
    params = {
        "root": {"kernel": jnp.asarray(rng.standard_normal((3, 3, 8, 256)), "float32")},
        "block1/unit01": {"gamma": jnp.asarray(rng.standard_normal(7), "bfloat16")},
        "head": {"bias.0": jnp.asarray(rng.standard_normal(5), "float32")},
    }
    labels = {
        "root": {"kernel": "train"},
        "block1/unit01": {"gamma": "freeze"},
        "head": {"bias.0": "train"},
    }
    tx = optax.partition(
        {"train": optax.adam(lambda step: 0.1), "freeze": optax.set_to_zero()}, labels
    )
    tree = {
        "step": jnp.int32(seed),
        "seed": jnp.uint32(2**32 - 1),
        "params": params,
        "opt": tx.init(params),
    }
    return jax.device_put(tree, sharding.place_state(sharding.make(fsdp), tree))


def structs(tree):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("before, after", [(1, 1), (1, 8), (4, 2), (8, 1)])
def test_exact_on_any_placement(tmp_path, before, after):
    saved = Checkpoints(tmp_path / "c", "d")
    extra = {"best": {"step": 3, "loss": 0.1}, "clock": [1.5, None]}
    saved.save(3, state(3, before), extra)
    saved.wait()
    like = structs(state(9, after))
    got, back = Checkpoints(tmp_path / "c", "d").restore(3, like)
    same(got, state(3))
    assert back == extra
    for x, want in zip(jax.tree.leaves(got), jax.tree.leaves(like)):
        assert x.sharding == want.sharding


def test_arrays_of_numpy_are_a_form_too(tmp_path):
    saved = Checkpoints(tmp_path, "d")
    saved.save(1, {"a": np.arange(5), "b": {"c": np.float32(2)}}, {})
    got, _ = saved.restore(1, {"a": np.zeros(5, np.int64), "b": {"c": np.float32(0)}})
    np.testing.assert_array_equal(got["a"], np.arange(5))
    assert got["b"]["c"] == 2 and got["a"].devices() == {jax.local_devices()[0]}


def test_the_latest_two_and_the_best_are_kept(tmp_path):
    saved = Checkpoints(tmp_path / "c", "d")
    assert saved.steps() == [] and saved.latest() is None and saved.best() is None
    for step in range(10, 80, 10):
        saved.save(step, state(step), {"step": step})
        if step in (20, 30):
            saved.mark_best(step)
    saved.wait()
    assert saved.steps() == [30, 60, 70]
    assert saved.latest() == 70 and saved.best() == 30
    got, extra = saved.restore(30, structs(state()))
    same(got, state(30))
    assert extra == {"step": 30}
    saved.mark_best(70)
    saved.wait()
    assert saved.steps() == [60, 70] and saved.best() == 70
    saved.delete()
    assert not (tmp_path / "c").exists() and saved.steps() == []
    saved.delete()


def test_a_mark_without_its_step(tmp_path):
    saved = Checkpoints(tmp_path, "d")
    saved.save(1, {"a": np.ones(1)}, {})
    saved.mark_best(2)
    with pytest.raises(CheckpointError, match="no checkpoint of step 2"):
        saved.wait()


def test_a_step_saved_again_is_replaced(tmp_path):
    saved = Checkpoints(tmp_path, "d")
    for seed in (1, 2):
        saved.save(5, state(seed), {"seed": seed})
    got, extra = saved.restore(5, structs(state()))
    same(got, state(2))
    assert extra == {"seed": 2}


def test_what_is_saved_is_what_was_passed(tmp_path):
    """Donating the buffers and changing `extra` right after changes nothing."""
    saved = Checkpoints(tmp_path, "d")
    rng = np.random.default_rng(0)
    first = rng.standard_normal((8, 2**18), np.float32)
    place = sharding.place_state(sharding.make(8), {"x": first, "y": first[0, :9]})
    add = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)
    tree = jax.device_put({"x": first, "y": first[0, :9]}, place)
    for step in range(4):
        want, extra = jax.tree.map(np.array, tree), {"n": step}
        saved.save(step, tree, extra)
        extra["n"] = -1
        for _ in range(3):
            tree = add(tree)
        got, back = saved.restore(step, tree)
        same(got, want)
        assert back == {"n": step}


# ---- refusals


def test_missing_step(tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint of step 4"):
        Checkpoints(tmp_path, "d").restore(4, structs(state()))


def test_another_runs_checkpoint(tmp_path):
    saved = Checkpoints(tmp_path, "run-a")
    saved.save(1, state(), {})
    saved.wait()
    with pytest.raises(CheckpointError, match="of the run run-a, not of run-b"):
        Checkpoints(tmp_path, "run-b").restore(1, structs(state()))


def test_leaves_that_do_not_fit_are_listed(tmp_path):
    saved = Checkpoints(tmp_path, "d")
    saved.save(1, {"a": np.ones(3), "b": np.ones(2), "c": np.ones(4)}, {})
    like = {"a": np.ones(3), "b": np.ones(5), "d": np.ones(4)}
    with pytest.raises(CheckpointError) as error:
        saved.restore(1, like)
    text = str(error.value)
    assert "missing: d [[4], 'float64']" in text
    assert "extra: c [[4], 'float64']" in text
    assert "b is [[2], 'float64'], the run wants [[5], 'float64']" in text
    assert ": a " not in text
    like = {"a": np.ones(3, "float32"), "b": np.ones(2), "c": np.ones(4)}
    with pytest.raises(CheckpointError, match="wants .*float32"):
        saved.restore(1, like)


def test_forty_bit_flips_of_forty_are_noticed(tmp_path):
    saved = Checkpoints(tmp_path, "d")
    for step in (1, 2):
        saved.save(step, state(step, fsdp=2), {"best": 0.5})
    saved.mark_best(2)
    saved.wait()
    like = structs(state())
    files = sorted(p for p in (tmp_path / "2").rglob("*") if p.is_file())
    assert len(files) > 10 and tmp_path / "2" / "record" in files
    rng = np.random.default_rng(0)
    flips = [(p, rng.integers(8 * p.stat().st_size)) for p in files]
    while len(flips) < 40:
        path = files[rng.integers(len(files))]
        flips.append((path, rng.integers(8 * path.stat().st_size)))
    for path, bit in flips:
        sound = path.read_bytes()
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(Damaged) as error:
            saved.restore(2, like)
        assert "damaged checkpoint" in str(error.value)
        assert str(path) in str(error.value)
        path.write_bytes(sound)
    same(saved.restore(2, like)[0], state(2))
    assert saved.best() == 2
    for damage in (lambda p: p.unlink(), lambda p: p.write_bytes(b"")):
        path = next(p for p in files if p.name == "manifest.ocdbt")
        sound = path.read_bytes()
        damage(path)
        with pytest.raises(CheckpointError, match="damaged .*manifest.ocdbt"):
            saved.restore(2, like)
        path.write_bytes(sound)


def test_a_damaged_mark_is_noticed(tmp_path):
    saved = Checkpoints(tmp_path, "d")
    saved.save(1, {"a": np.ones(1)}, {})
    saved.mark_best(1)
    saved.wait()
    (tmp_path / "best").write_bytes((tmp_path / "best").read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="best is damaged"):
        saved.best()


def test_the_only_checkpoint_damaged_means_from_the_start(tmp_path):
    saved = Checkpoints(tmp_path, "d")
    saved.save(1, {"a": np.ones(1)}, {})
    saved.wait()
    (tmp_path / "1" / "record").write_text("")
    like = {"a": np.ones(1)}
    for restore in (
        lambda: saved.restore(1, like),
        lambda: saved.restore_latest(like, print),
    ):
        with pytest.raises(Damaged, match=f"delete {tmp_path} to start from step 0"):
            restore()


def test_a_step_without_its_record_is_ignored_then_removed(tmp_path):
    saved = Checkpoints(tmp_path, "d")
    for step in (1, 2):
        saved.save(step, {"a": np.ones(1)}, {})
    saved.wait()
    (tmp_path / "2" / "record").unlink()
    (tmp_path / "3" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    again = Checkpoints(tmp_path, "d")
    assert again.steps() == [1] and again.latest() == 1
    again.save(4, {"a": np.ones(1)}, {})
    again.wait()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "4"]


def test_a_failure_in_the_background_is_raised(tmp_path, monkeypatch):
    saved = Checkpoints(tmp_path, "d")

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bigxfer.durable.sums", full)
    saved.save(1, {"a": np.ones(1)}, {})
    with pytest.raises(OSError, match="No space left"):
        saved.wait()
    assert saved.steps() == []


def test_a_full_disk_is_one_message(tmp_path, monkeypatch, caplog):
    """The limit on a file's size stands in for the disk: EFBIG in place of ENOSPC."""
    saved = Checkpoints(tmp_path, "d")
    saved.save(1, {"a": np.ones(1)}, {})
    saved.wait()
    noise = {"a": np.random.default_rng(0).standard_normal(10**5, "f4")}
    said = r"checkpoint of step 2 cannot be written to .*: {}.* goes on from step 1$"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, old[1]))
    try:
        with pytest.raises(OSError, match=said.format("File too large")):
            saved.save(2, noise, {})
            saved.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    usage = shutil.disk_usage(tmp_path)._replace(free=4 * 10**5 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=said.format("No space left on device")):
        saved.save(2, noise, {})
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [p.name for p in tmp_path.iterdir()] == ["1"]  # nothing fills the disk
    usage = usage._replace(free=4 * 10**5)  # just enough
    saved.save(2, noise, {})
    np.testing.assert_array_equal(saved.restore(2, noise)[0]["a"], noise["a"])


@pytest.mark.parametrize("name", ["a[1]", "b[é", "back\\slash", "s*r", "q?"])
def test_any_folders_name_will_do(tmp_path, name):
    """orbax looked for its files by a pattern, found none, and sealed an empty step."""
    other = Checkpoints(tmp_path / "star", "d")  # s*r would match it too
    other.save(1, {"a": np.zeros(3)}, {})
    other.wait()
    for n in (0, 1):  # the second is a run that resumes
        saved = Checkpoints(tmp_path / name / "checkpoints", "d")
        saved.save(n, {"a": np.full(3, n)}, {})
        saved.wait()
        step, tree, _ = saved.restore_latest({"a": np.zeros(3, int)}, print)
        assert step == n and tree["a"].tolist() == [n] * 3
    saved.delete()
    assert [*(tmp_path / name).iterdir()] == []


# ---- the one before


def tiny(step):
    """A loop.State with next to nothing in it."""
    return loop.State(np.int32(step), np.int32(0), {"a": np.full(9, step)}, {}, ())


@pytest.fixture
def two(tmp_path):
    """Checkpoints of steps 1 and 2, each of one array full of its number."""
    saved = Checkpoints(tmp_path, "d")
    for step in (1, 2):
        best = {"best": {"step": step, "loss": 0.1}, "clock": {"train": 1.0}}
        saved.save(step, tiny(step), best)
        saved.mark_best(step)
    saved.wait()
    return saved


def harm(folder, what):
    path = folder / "record" if what == "record" else next(folder.rglob("ocdbt*/d/*"))
    if what == "lost":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("what", ["state", "record", "lost"])
def test_the_one_before_serves_where_the_latest_is_damaged(two, tmp_path, what, caplog):
    harm(tmp_path / "2", what)
    log = RunLog(tmp_path, config.Log(), True)
    state, _, best = loop.restore(tiny(0), two, log)
    assert int(state.step) == 1 and state.params["a"].tolist() == [1] * 9
    assert best["step"] == 1
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert f"damaged checkpoint {tmp_path / '2'}: " in line
    assert "Going on from step 1" in line
    two.wait()
    assert two.steps() == [1] and two.best() == 1
    two.save(2, tiny(2), {})
    assert int(two.restore_latest(tiny(0), print)[1].step) == 2


def test_a_damaged_mark_is_made_again_on_resuming(two, tmp_path):
    (tmp_path / "best").write_text("{")
    loop.restore(tiny(0), two, RunLog(tmp_path, config.Log(), True))
    two.wait()
    assert two.best() == 2


# ---- kill -9 and two processes

SAVER = """
import sys, time
import numpy as np
from bigxfer.training.checkpoint import Checkpoints
saved = Checkpoints(sys.argv[1], "d")
step = (saved.latest() or 0) + 1
print("start", step, flush=True)
while True:
    saved.save(step, {"x": np.full(2**21, step), "y": np.full(3, step)}, {"step": step})
    if step % 3 == 0:
        saved.mark_best(step)
    print(step, flush=True)
    step += 1
"""


@pytest.mark.slow
def test_kill_at_any_moment_leaves_the_last_complete_one(tmp_path):
    rng = np.random.default_rng(0)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    like = {"x": np.zeros(2**21, np.int64), "y": np.zeros(3, np.int64)}
    reached = 0
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path)],
            env=environ, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert int(child.stdout.readline().split()[1]) == reached + 1
        for _ in range(2):  # a save returns when the one before it is complete
            child.stdout.readline()
        time.sleep(rng.uniform(0, 0.4))
        child.send_signal(signal.SIGKILL)
        printed = child.communicate()[0].split()
        saved = Checkpoints(tmp_path, "d")
        latest = saved.latest() or 0
        # All before the last save that began; that one may or may not be complete.
        assert latest >= (int(printed[-1]) - 1 if printed else reached + 1)
        for step in saved.steps():
            got, extra = saved.restore(step, like)
            assert extra == {"step": step}
            assert (np.asarray(got["x"]) == step).all()
        reached = latest
    assert reached >= 8


PAIR = """
import sys, json
import jax, numpy as np
from bigxfer.training import processes, sharding
from bigxfer.training.checkpoint import Checkpoints
address, process, folder, digest = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
processes.join(address, 2, process)
mesh = sharding.make(2)
values = {"w": np.arange(2.0**15, dtype=np.float32).reshape(64, 512), "n": np.int32(3)}
place = sharding.place_state(mesh, values)
make = jax.jit(lambda: values, out_shardings=place)
saved = Checkpoints(folder, digest)
if saved.latest() is None:
    for step in (1, 2, 3, 4):
        saved.save(step, make(), {"step": step})
        if step == 1:
            saved.mark_best(step)
    saved.wait()
assert saved.steps() == [1, 3, 4], saved.steps()
try:
    got, extra = saved.restore(4, make())
except ValueError as error:
    print("REFUSED", error)
    step, got, _ = saved.restore_latest(make(), print)
    assert np.array_equal(sharding.to_host(got)["w"], values["w"])
    print("LATEST", step)
else:
    host = sharding.to_host(got)
    assert all(np.array_equal(host[k], values[k]) for k in values)
    print(json.dumps(extra))
"""


@pytest.mark.slow
def test_two_processes_save_and_any_number_restores(tmp_path):
    folder = tmp_path / "c[1]"
    out = two_processes(PAIR, folder, "d")
    assert all(json.loads(text.splitlines()[-1]) == {"step": 4} for text in out)
    like = {
        "w": jax.ShapeDtypeStruct((64, 512), np.float32),
        "n": jax.ShapeDtypeStruct((), np.int32),
    }
    place = sharding.place_state(sharding.make(8), like)
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, place
    )
    got, _ = Checkpoints(folder, "d").restore(4, like)
    want = np.arange(2.0**15, dtype=np.float32).reshape(64, 512)
    np.testing.assert_array_equal(got["w"], want)
    # Both stop, and say why, when one of them finds damage.
    path = next((folder / "4" / "state").rglob("manifest.ocdbt"))
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    out = two_processes(PAIR, folder, "d")
    assert "REFUSED damaged checkpoint" in out[0] and "REFUSED" in out[1]
    assert [text.splitlines()[-1] for text in out] == ["LATEST 3"] * 2


def test_of_absls_log_the_tracebacks_of_orbax_alone_are_dropped():
    def kept(path, exc_info):
        about = "absl", logging.ERROR, path, 1, "failed", (), exc_info
        return checkpoint._not_orbax(logging.LogRecord(*about))

    error = (OSError, OSError(), None)
    assert not kept("/lib/orbax/checkpoint/async.py", error)
    assert kept("/lib/orbax/checkpoint/async.py", None)
    assert kept("/lib/jax/core.py", error)
