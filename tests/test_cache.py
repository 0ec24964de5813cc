import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from bigxfer.data.manifest import Manifest
from bigxfer.data.pixels import cache, cache_store, checked, decode, decode_pool

ROOT = Path(__file__).parents[1]


def manifest(root, names):
    n = len(names)
    blank = [""] * n
    people = [str(k) for k in range(n)]
    labels = np.zeros(n, int)
    return Manifest(
        "toy", str(root), ("a",), labels, names, names, people, blank, blank, blank
    )


def draw(root, n, side=40):
    """n images of noise as PNG; returns their manifest."""
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    names = [f"{k:04d}.png" for k in range(n)]
    for name in names:
        pixels = rng.integers(0, 256, (side, side), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    return manifest(root, names)


def bytes_of(built):
    return (built.folder / "pixels.u8").read_bytes()


def test_the_cache_holds_what_decode_gives_and_is_read_once(tmp_path):
    m = draw(tmp_path / "root", 10)
    lines = []
    first = cache.build(m, tmp_path / "c", 16, 3, progress=lines.append)
    assert first.images.shape == (10, 16, 16, 3) and first.images[0].dtype == np.uint8
    assert first.decoded == 10 and first.ok.all() and first.bad == []
    for image, path in zip(first.images, m.path, strict=True):
        np.testing.assert_array_equal(image, decode.load(m.root, path, 16, 3))
    assert "10 images" in lines[-1]
    again = cache.build(m, tmp_path / "c", 16, 3)
    assert again.decoded == 0 and (again.images[:] == first.images[:]).all()
    others = [
        cache.build(m, tmp_path / "c", 8, 3),
        cache.build(m, tmp_path / "c", 16, 1),
        cache.build(m.select(np.arange(5)), tmp_path / "c", 16, 3),
    ]
    assert len({c.folder for c in [first, again, *others]}) == 4
    assert len(first.folder.name) == 16
    seconds = float(lines[-1].split()[-4])
    assert lines[-1] == f"decoded 10 images in {seconds:.1f} s, 0 bad"
    assert 0 <= seconds < 60


def test_processes_give_the_same_bytes_as_one(tmp_path):
    m = draw(tmp_path / "root", 100)
    (tmp_path / "root" / "0003.png").write_bytes(b"not an image")
    one = cache.build(m, tmp_path / "a", 16, 1, workers=1, max_bad=0.1)
    two = cache.build(m, tmp_path / "b", 16, 1, workers=3, max_bad=0.1)
    assert bytes_of(one) == bytes_of(two)
    assert one.bad == two.bad and one.bad[0][:2] == ("0003.png", "0003.png")
    assert one.ok.sum() == two.ok.sum() == 99


def test_workers_do_not_import_the_main_module_or_jax():
    code = (
        "import sys, bigxfer.data.pixels.decode_pool; print([m for m in ('jax', 'flax')"
    )
    code += " if m in sys.modules])"
    out = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert out.strip() == "[]"


def test_a_changed_file_is_decoded_again(tmp_path):
    m = draw(tmp_path / "root", 10)
    before = np.array(cache.build(m, tmp_path / "c", 16, 1).images[:])
    path = tmp_path / "root" / "0004.png"
    Image.fromarray(np.full((40, 40), 77, np.uint8)).save(path)
    after = cache.build(m, tmp_path / "c", 16, 1)
    assert after.decoded == 1 and (after.images[4] == 77).all()
    kept = np.arange(10) != 4
    assert (after.images[kept] == before[kept]).all()
    path.write_bytes(b"now broken")
    broken = cache.build(m, tmp_path / "c", 16, 1, max_bad=0.1)
    assert not broken.ok[4] and (broken.images[4] == 0).all()
    path.unlink()
    absent = cache.build(m, tmp_path / "c", 16, 1, max_bad=0.1)
    assert absent.bad == [("0004.png", "0004.png", "absent")]


def test_bad_images_are_named_and_counted(tmp_path):
    m = draw(tmp_path / "root", 20)
    (tmp_path / "root" / "0002.png").write_bytes(b"")
    (tmp_path / "root" / "0007.png").unlink()
    with pytest.raises(ValueError, match="1 of 20 .*\n  0007.png: absent") as error:
        cache.build(m, tmp_path / "c", 16, 1)  # absence is told before decoding
    assert "--config.data.max_bad=0 " in str(error.value)
    with pytest.raises(ValueError, match="2 of 20") as error:
        cache.build(m, tmp_path / "c", 16, 1, max_bad=0.05)
    assert "0002.png: empty file" in str(error.value)
    assert "at least 0.1." in str(error.value)
    built = cache.build(m, tmp_path / "c", 16, 1, max_bad=0.1)
    assert built.decoded == 0 and [b[0] for b in built.bad] == ["0002.png", "0007.png"]
    assert np.flatnonzero(~built.ok).tolist() == [2, 7]
    shutil.copy(tmp_path / "root" / "0001.png", tmp_path / "root" / "0002.png")
    shutil.copy(tmp_path / "root" / "0001.png", tmp_path / "root" / "0007.png")
    assert cache.build(m, tmp_path / "c", 16, 1).ok.all()


def test_a_reason_that_went_away_is_tried_again(tmp_path, monkeypatch):
    m = draw(tmp_path / "root", 5)
    with monkeypatch.context() as patch:

        def fail(*_):
            raise decode.DecodeError("DICOM needs `pip install pydicom`")

        patch.setattr(decode, "load", fail)
        with pytest.raises(ValueError, match="5 of 5.*\n.*pip install"):
            cache.build(m, tmp_path / "c", 16, 1)
    assert cache.build(m, tmp_path / "c", 16, 1).ok.all()


BUILD = """
import sys
sys.path.insert(0, sys.argv[3])
import test_cache
from bigxfer.data.pixels import cache
m = test_cache.manifest(sys.argv[1], [f"{k:04d}.png" for k in range(int(sys.argv[4]))])
cache.FLUSH_SECONDS = 0.05
cache.build(m, sys.argv[2], 64, 1, workers=2, progress=lambda s: print(s, flush=True))
"""


def build_elsewhere(root, folder, n):
    command = [sys.executable, "-c", BUILD, str(root), str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    tests = str(ROOT / "tests")
    return subprocess.Popen(
        [*command, tests, str(n)], stdout=subprocess.PIPE, text=True, env=env
    )


def test_a_killed_build_goes_on_and_ends_in_the_same_bytes(tmp_path):
    n = 150
    m = draw(tmp_path / "root", n, side=400)
    whole = cache.build(m, tmp_path / "whole", 64, 1, workers=1)
    killed = build_elsewhere(tmp_path / "root", tmp_path / "c", n)
    for line in killed.stdout:
        if line.startswith("decoding"):
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    rest = cache.build(m, tmp_path / "c", 64, 1, workers=2)
    assert 0 < rest.decoded < n
    assert bytes_of(rest) == bytes_of(whole)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    draw(tmp_path / "root", 100, side=400)
    killed = build_elsewhere(tmp_path / "root", tmp_path / "c", 100)
    next(line for line in killed.stdout if line.startswith("decoding"))
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text()
    killed.kill()
    killed.communicate()
    assert children.split()
    for _ in range(100):
        alive = [p for p in children.split() if Path(f"/proc/{p}/cmdline").exists()]
        alive = [p for p in alive if Path(f"/proc/{p}/cmdline").read_bytes()]
        if not alive:
            return
        time.sleep(0.1)
    raise AssertionError(f"{alive} still run")


def test_a_second_process_waits_and_decodes_nothing(tmp_path):
    m = draw(tmp_path / "root", 80)
    folder = tmp_path / "c" / cache.digest(m, 64, 1)
    folder.mkdir(parents=True)
    with open(folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = build_elsewhere(tmp_path / "root", tmp_path / "c", 80)
        assert "waiting" in second.stdout.readline()
        assert not (folder / "pixels.u8").exists()
    assert "decoded 80 images" in second.communicate()[0]
    assert cache.build(m, tmp_path / "c", 64, 1).decoded == 0


def test_a_file_that_kills_its_decoder_costs_one_row(tmp_path, monkeypatch):
    m = draw(tmp_path / "root", 80)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, types\n"
        "from bigxfer.data.pixels import decode\n"
        "load = decode.load\n"
        "def deadly(root, path, *rest):\n"
        "    return os._exit(11) if path == '0030.png' else load(root, path, *rest)\n"
        "decode.load = deadly\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    built = cache.build(m, tmp_path / "c", 16, 1, workers=2, max_bad=0.02)
    assert [b[1:] for b in built.bad] == [
        ("0030.png", "the decoder died of it (exit status 11)")
    ]
    assert (built.images[31] == decode.load(m.root, "0031.png", 16, 1)).all()


def test_a_full_disk_is_told_before(tmp_path, monkeypatch):
    m = draw(tmp_path / "root", 10)
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(cache_store.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="--config.data.cache"):
        cache.build(m, tmp_path / "c", 16, 1)


@pytest.mark.parametrize("n, workers", [(20, 1), (80, 2)])
def test_a_disk_that_fills_up_keeps_what_is_decoded(tmp_path, n, workers):
    """The limit on a file's size stands in for the disk: errno EFBIG, not ENOSPC."""
    import resource

    m = draw(tmp_path / "root", n)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "c").mkdir()
    folder = tmp_path / "c" / cache.digest(m, 64, 1)
    folder.mkdir()
    with open(folder / "pixels.u8", "wb") as file:
        file.truncate(n * 64 * 64)
    (folder / "rows.bin").write_bytes(bytes(n * cache_store.RECORD.itemsize))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 * 64 * 64, old[1]))
    try:
        with pytest.raises(OSError, match="what is decoded is kept") as error:
            cache.build(m, tmp_path / "c", 64, 1, workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "File too large" in str(error.value)
    rest = cache.build(m, tmp_path / "c", 64, 1, workers=workers)
    assert n - 10 <= rest.decoded < n and rest.ok.all()


def test_enospc_in_this_process(tmp_path, monkeypatch):
    m = draw(tmp_path / "root", 20)
    real, count = os.pwrite, [0]

    def full(fd, data, at):
        count[0] += 1
        if count[0] == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(decode_pool.os, "pwrite", full)
        with pytest.raises(OSError, match="No space left.*--config.data.cache"):
            cache.build(m, tmp_path / "c", 16, 1)
    assert cache.build(m, tmp_path / "c", 16, 1).decoded == 13


def test_lost_pixels_are_noticed(tmp_path):
    m = draw(tmp_path / "root", 10)
    built = cache.build(m, tmp_path / "c", 16, 1)
    whole = bytes_of(built)
    (built.folder / "pixels.u8").write_bytes(whole[:1000])
    assert bytes_of(cache.build(m, tmp_path / "c", 16, 1)) == whole


def test_a_read_only_root_is_fine(tmp_path):
    m = draw(tmp_path / "root", 5)
    (tmp_path / "root").chmod(0o555)
    try:
        assert cache.build(m, tmp_path / "c", 16, 1).ok.all()
    finally:
        (tmp_path / "root").chmod(0o755)
    assert len(list((tmp_path / "root").iterdir())) == 5


def test_codes_follow_the_pixels(tmp_path):
    """One process or several, and a file that changes; one value has no code."""
    m = draw(tmp_path / "root", 70)
    Image.fromarray(np.full((40, 40), 9, np.uint8)).save(tmp_path / "root" / m.path[1])
    (tmp_path / "root" / m.path[2]).write_bytes(b"not an image")
    one, two = (
        cache.build(m, tmp_path / name, 16, 1, workers=w, max_bad=0.1)
        for name, w in (("a", 1), ("b", 2))
    )
    want = [checked.sum_of(image) for image in one.images]
    want[1] = want[2] = b""
    assert one.codes.tolist() == two.codes.tolist() == np.array(want).tolist()
    draw(tmp_path / "root", 1, side=44)
    changed = cache.build(m, tmp_path / "a", 16, 1, max_bad=0.1)
    assert changed.decoded == 1 and changed.codes[0] != one.codes[0]
    assert (changed.codes[3:] == one.codes[3:]).all()


def test_progress_is_told_every_two_seconds(monkeypatch):
    """By a clock of our own: 3 of 12 images after 6 s are one every two seconds."""
    clock = iter([1.0, 2.0, 6.0, 7.0])
    monkeypatch.setattr(cache.time, "monotonic", lambda: next(clock))
    said, finished = [], []
    report = cache.Pass(12, said.append, began=0.0, flushed=0.0)
    store = SimpleNamespace(finish=lambda rows: finished.append(sorted(rows)))
    for row in range(4):
        report.add(store, row, "", b"")
    assert said == ["decoding: 3 of 12 images, 0 images/s, 18 s left"]
    assert finished == [[0, 1, 2]] and list(report.fresh) == [3]


def test_ten_bad_images_are_named_and_the_others_counted(tmp_path):
    m = manifest(tmp_path, ["a"] * 30)
    for count in (10, 11):
        bad = [(f"i{k}", f"p{k}.png", "broken") for k in range(count)]
        made = cache.Cache(None, None, None, bad, tmp_path, 0)
        lines = cache.message(m, made, 0.0).splitlines()
        assert lines[1:11] == [f"  p{k}.png: broken" for k in range(10)]
        assert len(lines) == 12 + (count > 10)


def test_few_images_and_those_of_one_worker_are_decoded_in_this_process(
    tmp_path, monkeypatch
):
    class Spread(Exception):
        pass

    def spread(order, paths, workers):
        raise Spread(f"{len(paths)} by {workers}")
        yield

    monkeypatch.setattr(cache, "SMALL", 5)
    monkeypatch.setattr(decode_pool, "spread", spread)
    monkeypatch.setattr(cache.host, "cores", lambda: range(3))
    few, many = draw(tmp_path / "few", 4), draw(tmp_path / "many", 5)
    assert cache.build(few, tmp_path / "c", 16, 1, workers=2).decoded == 4
    for workers, told in ((2, "5 by 2"), (None, "5 by 3")):
        with pytest.raises(Spread, match=told):
            cache.build(many, tmp_path / "c", 16, 1, workers=workers)
    assert cache.build(many, tmp_path / "c", 16, 1, workers=1).decoded == 5
