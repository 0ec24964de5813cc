"""Whatever is not as it was written in a cache is noticed when it is used, and mended."""

import builtins
import errno
import json
import os

import numpy as np
import pytest
from test_cache import draw

from bigxfer import durable
from bigxfer.data.loader import Loader
from bigxfer.data.pixels import cache, cache_encoded, checked
from bigxfer.data.unions import Stack

ROWS = np.arange(30)


def damage(path, at, new):
    """Overwrite bytes in place, as a bad disk does: size and times stay."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(new)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip(path, bit):
    damage(path, bit // 8, bytes([path.read_bytes()[bit // 8] ^ 1 << bit % 8]))


@pytest.fixture
def built(tmp_path):
    """(a function that opens the cache of 30 images, its lines, what it holds)"""
    m, lines = draw(tmp_path / "root", len(ROWS)), []

    def build():
        lines.clear()
        return cache.build(m, tmp_path / "c", 16, 1, progress=lines.append)

    return build, lines, build().images[ROWS].copy()


@pytest.mark.parametrize("zeroed", [20, 0])
def test_pixels_that_changed_are_refused_then_decoded_again(built, zeroed):
    build, _, sound = built
    opened = build()
    pixels, size = opened.folder / "pixels.u8", sound[0].size
    if zeroed:
        damage(pixels, 5 * size, bytes(zeroed * size))
    else:
        flip(pixels, 8 * 7 * size + 3)
    labels = np.zeros(len(ROWS), np.int32)
    batches = Loader(opened.images, labels, ROWS, 10, 0).eval_batches(10)
    count = zeroed or 1
    with pytest.raises(ValueError, match=r"pixels.u8 is damaged.*\.png.*Start again"):
        list(batches)
    with pytest.raises(ValueError, match=f"of {count} images"):
        _ = opened.images[ROWS]
    for row in (ROWS[7:8], 7, slice(7, 8)):  # however they are asked for
        with pytest.raises(ValueError, match="of 1 images"):
            _ = opened.images[row]
    again = build()
    assert again.decoded == count
    np.testing.assert_array_equal(again.images[ROWS], sound)


def test_every_damaged_record_is_noticed(built):
    """A record says which rows are images: one flip dropped one from the test split."""
    build, lines, sound = built
    rows = build().folder / "rows.bin"
    whole, rng = rows.read_bytes(), np.random.default_rng(0)
    for bit in rng.integers(8 * len(whole), size=40):
        flip(rows, int(bit))
        opened = build()
        assert opened.decoded == 1 and opened.ok.all()
        assert "1 of 30 records" in lines[0] and "damaged" in lines[0]
        assert rows.read_bytes() == whole
    size = len(whole) // len(ROWS)
    damage(rows, 0, whole[size : 2 * size] + whole[:size])  # two records swapped
    assert build().decoded == 2 and rows.read_bytes() == whole
    damage(rows, 3 * size, bytes(size))
    opened = build()
    assert opened.decoded == 1 and rows.read_bytes() == whole
    np.testing.assert_array_equal(opened.images[ROWS], sound)


def test_a_damaged_list_of_reasons_is_noticed(tmp_path):
    m = draw(tmp_path / "root", 10)
    for k in (2, 7):
        (tmp_path / "root" / m.path[k]).write_bytes(b"not an image")
    lines = []

    def build():
        return cache.build(m, tmp_path / "c", 16, 1, max_bad=0.5, progress=lines.append)

    want = build()
    file = want.folder / "bad.json"
    sound = file.read_bytes()
    for new in (sound.replace(b'"7"', b'"3"'), sound[:9], b"", b"{}", None):
        file.unlink()
        if new is not None:
            file.write_bytes(new)
        opened = build()
        assert opened.bad == want.bad and opened.ok.tolist() == want.ok.tolist()
        assert opened.decoded == 2 and file.read_bytes() == sound
    assert sum("bad.json" in line for line in lines) == 4


def test_a_cache_without_checksums_is_decoded_again_and_says_so(built):
    build, lines, sound = built
    folder = build().folder
    old = np.zeros(len(ROWS), [("size", "<i8"), ("mtime_ns", "<i8"), ("state", "<i8")])
    old["state"] = 1
    (folder / "rows.bin").write_bytes(old.tobytes())
    (folder / "bad.json").write_text("{}")
    opened = build()
    assert opened.decoded == len(ROWS) and "without checksums" in lines[0]
    np.testing.assert_array_equal(opened.images[ROWS], sound)
    build()
    assert lines == []


def test_the_identity_follows_the_pixels(built, tmp_path):
    build, _, sound = built
    images = build().images
    rows = np.array([3, 1, 4])
    same = checked.identity(images.sums[rows])
    assert same == checked.identity(build().images.sums[rows])
    assert same != checked.identity(images.sums[rows[::-1]])
    both = Stack([images, images])
    assert checked.identity(both.sums[rows + len(ROWS)]) == same
    assert images.sums[3].tobytes() == checked.sum_of(sound[3])


# ---- a folder that cannot be written


@pytest.fixture
def unwritable(monkeypatch):
    """A folder is as on a disk that is mounted read-only, for root too."""

    def lock(folder):
        real_open, real_os, mkdir = builtins.open, os.open, os.mkdir

        def refuse(path):
            if str(path).startswith(str(folder)):
                raise OSError(errno.EROFS, "Read-only file system", str(path))

        def opened(file, mode="r", *rest, **more):
            if set(mode) & set("wax+"):
                refuse(file)
            return real_open(file, mode, *rest, **more)

        def opened_low(file, flags, *rest, **more):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                refuse(file)
            return real_os(file, flags, *rest, **more)

        def made(path, *rest):
            refuse(path)
            return mkdir(path, *rest)

        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(os, "open", opened_low)
        monkeypatch.setattr(os, "mkdir", made)

    return lock


@pytest.mark.parametrize("build", [cache.build, cache_encoded.build])
def test_a_complete_cache_need_not_be_writable(tmp_path, unwritable, build):
    m = draw(tmp_path / "root", 10)
    sound = build(m, tmp_path / "c", 16, 1).images[np.arange(10)]
    unwritable(tmp_path / "c")
    opened = build(m, tmp_path / "c", 16, 1)
    np.testing.assert_array_equal(opened.images[np.arange(10)], sound)
    (tmp_path / "root" / m.path[3]).write_bytes(b"changed")
    with pytest.raises(OSError, match=r"cannot be written, and .*--config.data.cache"):
        build(m, tmp_path / "c", 16, 1)
    with pytest.raises(OSError, match="cannot be made: .*Read-only.*data.cache=FOLDER"):
        build(m, tmp_path / "c" / "other", 16, 1)


# ---- encoded


def test_damaged_shards_are_refused_then_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_encoded, "SHARD", 16)
    m, lines = draw(tmp_path / "root", len(ROWS)), []

    def build():
        lines.clear()
        return cache_encoded.build(m, tmp_path / "c", 16, 1, progress=lines.append)

    first = build()
    sound, name = first.images[ROWS], first.folder / "00001.array_record"
    where = name.read_bytes().index((tmp_path / "root" / m.path[20]).read_bytes())
    flip(name, 8 * (where + 60))
    with pytest.raises(
        ValueError, match=r"00001.array_record is damaged .*Start again"
    ):
        _ = build().images[ROWS]
    assert build().decoded == 14
    for file, line in (
        ("00000.json", "sha256 does not fit"),
        ("00000.sums", "written"),
    ):
        path = first.folder / file
        if file.endswith("json"):
            about = json.loads(path.read_text())
            path.write_text(json.dumps(about | {"bad": {"3": "made up"}}))
        else:
            flip(path, 77)
        opened = build()
        assert opened.decoded == 16 and opened.ok.all() and line in lines[0]
    name.write_bytes(name.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="00001.array_record is damaged"):
        build()
    np.testing.assert_array_equal(build().images[ROWS], sound)


def test_sealed_json_says_what_it_said(tmp_path):
    path, value = tmp_path / "a.json", {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    durable.write_sealed(path, value)
    assert durable.read_sealed(path) == value
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text)))  # laid out in another way
    assert durable.read_sealed(path) == value
    for new in (text.replace("2.5", "2.4"), text.replace('"c"', '"d"'), '{"a": 1}'):
        path.write_text(new)
        with pytest.raises(ValueError, match="a.json is not as it was written"):
            durable.read_sealed(path)
