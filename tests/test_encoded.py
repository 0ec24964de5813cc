"""Encoded storage: the batches of the raw cache to the bit, resumably."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cache import draw, manifest

from bigxfer import config
from bigxfer.config import Data, Phantom
from bigxfer.data import dataset
from bigxfer.data.pixels import cache, cache_encoded

ODD = Path(__file__).parents[2] / "shared/data/odd_files"


def both(m, folder, size=16, channels=1, **kw):
    builds = (cache.build, cache_encoded.build)
    return [build(m, folder, size, channels, **kw) for build in builds]


@pytest.mark.parametrize("reader", ["chexpert", "nih+folder"])
def test_batches_of_both_backends_are_equal_to_the_bit(tmp_path, reader):
    """JPEG and PNG phantoms, one set and a union, in training and evaluation."""
    data = Data(
        reader=reader,
        resize=20,
        crop=16,
        channels=3,
        cache=str(tmp_path),
        phantom=Phantom(images=24, pixels=32),
    )
    raw, stored = (
        dataset.open(replace(data, storage=s), 0, lambda line: None)
        for s in ("raw", "encoded")
    )
    assert isinstance(raw.report, dict) and raw.report == stored.report
    a, b = (d.loader("train", 16, 3, 1, 2) for d in (raw, stored))
    pairs = [(a.batch(step), b.batch(step)) for step in (0, 5, 2)]
    a, b = (d.loader("test", 16, 3, 0, 1).eval_batches(7) for d in (raw, stored))
    for x, y in [*pairs, *zip(a, b, strict=True)]:
        assert x.keys() == y.keys()
        for key in x:
            assert x[key].dtype == y[key].dtype
            np.testing.assert_array_equal(x[key], y[key])


def test_the_digest_does_not_know_the_storage():
    runs = [config.Run(data=Data(storage=s)) for s in ("raw", "encoded")]
    assert config.digest(runs[0]) == config.digest(runs[1])


@pytest.mark.skipif(not ODD.exists(), reason="needs ../shared/data/odd_files")
@pytest.mark.parametrize("channels", [1, 3])
def test_odd_files_come_out_as_from_the_raw_cache(tmp_path, channels):
    names = sorted(p.name for p in ODD.iterdir() if p.is_file())
    m = manifest(ODD, [*names, "absent.png"])
    raw, stored = both(m, tmp_path, channels=channels, max_bad=1.0)
    assert raw.bad == stored.bad and 0 < len(raw.bad) < len(names)
    np.testing.assert_array_equal(raw.ok, stored.ok)
    np.testing.assert_array_equal(raw.images, stored.images[np.arange(len(m))])


def test_killed_it_goes_on_and_notices_changed_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_encoded, "SHARD", 4)
    m = draw(tmp_path / "root", 10)
    stop = cache_encoded.ShardMaker.fetched

    def dies(self, rows):
        for item in stop(self, rows):
            if item[0] == 6:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cache_encoded.ShardMaker, "fetched", dies)
        cache_encoded.build(m, tmp_path / "c", 16, 1)
    built = cache_encoded.build(m, tmp_path / "c", 16, 1)
    assert built.decoded == 6 and built.ok.all()  # rows 4 to 9: not the first shard
    assert cache_encoded.build(m, tmp_path / "c", 24, 1).decoded == 0  # of any size
    raw = cache.build(m, tmp_path / "c", 16, 1)
    np.testing.assert_array_equal(raw.images, built.images[np.arange(10)])
    np.testing.assert_array_equal(raw.images[9], built.images[9])
    path = tmp_path / "root" / m.path[5]
    Image.fromarray(np.full((9, 9), 77, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    again = cache_encoded.build(m, tmp_path / "c", 16, 1)
    assert again.decoded == 4 and (again.images[5] == 77).all()
    with pytest.raises(IndexError, match="of 10"):
        again.images[np.array([0, 10])]


BUILD = """
import sys
sys.path.insert(0, sys.argv[3])
import test_cache
from bigxfer.data.pixels import cache_encoded
cache_encoded.SHARD = cache_encoded.BLOCK = 8
m = test_cache.manifest(sys.argv[1], [f"{k:04d}.png" for k in range(80)])
cache_encoded.build(m, sys.argv[2], 64, 1, workers=1)
"""


def test_a_build_killed_with_kill_9_ends_in_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_encoded, "SHARD", 8)
    monkeypatch.setattr(cache_encoded, "BLOCK", 8)
    m = draw(tmp_path / "root", 80, side=600)
    whole = cache_encoded.build(m, tmp_path / "whole", 64, 1)
    tests = Path(__file__).parent
    command = [sys.executable, "-c", BUILD, tmp_path / "root", tmp_path / "c", tests]
    killed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": tests.parent})
    while not list((tmp_path / "c").glob("*/00008.json")) and killed.poll() is None:
        time.sleep(0.005)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    rest = cache_encoded.build(m, tmp_path / "c", 64, 1)
    assert 0 < rest.decoded < 80
    names = sorted(p.name for p in whole.folder.glob("*.array_record"))
    assert len(names) == 10
    for name in names:
        assert (whole.folder / name).read_bytes() == (rest.folder / name).read_bytes()


def test_bad_files_are_named_and_tried_again_when_mended(tmp_path):
    m = draw(tmp_path / "root", 10)
    path = tmp_path / "root" / m.path[5]
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    (tmp_path / "root" / m.path[7]).unlink()
    with pytest.raises(ValueError, match=r"2 of 10 .*\n  0005.png: .*\n  0007.*absent"):
        cache_encoded.build(m, tmp_path / "c", 16, 1, max_bad=0.1)
    kept = cache_encoded.build(m, tmp_path / "c", 16, 1, max_bad=0.2)
    assert np.flatnonzero(~kept.ok).tolist() == [5, 7] and kept.decoded == 0
    assert (kept.images[5] == 0).all()
    path.write_bytes(whole)
    mended = cache_encoded.build(m, tmp_path / "c", 16, 1, max_bad=0.2)
    assert np.flatnonzero(~mended.ok).tolist() == [7]


@pytest.mark.parametrize("path", ["x.h5#3", "a_{red,green,blue}.png"])
def test_what_is_no_image_file_is_refused(tmp_path, path):
    with pytest.raises(ValueError, match="set it to raw"):
        cache_encoded.build(manifest(tmp_path, ["a.png", path]), tmp_path / "c", 8, 1)


def test_decoding_needs_no_jax(tmp_path):
    code = (
        "import sys\n"
        "from bigxfer.data import loader\nfrom bigxfer.data.pixels import cache_encoded\n"
        "from array_record.python import array_record_module\n"
        "assert not {'jax', 'tensorflow', 'grain'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
