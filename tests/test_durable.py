"""Files are written whole and durably, and read with an error that names them."""

import errno
import os
import re
from pathlib import Path

import pytest

from bigxfer import durable

PACKAGE = Path(durable.__file__).parent


@pytest.fixture
def calls(monkeypatch):
    """The fsync, rename and link calls in their order, each with the file's name."""
    made = []

    def traced(name, real, path_of):
        def call(*args, **kwargs):
            made.append((name, path_of(*args)))
            return real(*args, **kwargs)

        return call

    def opened(fd, *_):
        return Path(os.readlink(f"/proc/self/fd/{fd}")).name

    def target(_, path):
        return Path(path).name

    monkeypatch.setattr(os, "fsync", traced("fsync", os.fsync, opened))
    monkeypatch.setattr(os, "link", traced("link", os.link, target))
    monkeypatch.setattr(Path, "replace", traced("replace", Path.replace, target))
    return made


def test_a_file_is_on_the_disk_before_its_name_and_then_its_folder(tmp_path, calls):
    durable.write(tmp_path / "a.txt", "grün")
    assert (tmp_path / "a.txt").read_bytes() == "grün".encode()
    (first, temporary), *rest = calls
    assert first == "fsync" and re.fullmatch(r"a\.txt\.\w{8}\.part", temporary)
    assert rest == [("replace", "a.txt"), ("fsync", tmp_path.name)]
    calls.clear()
    assert durable.create(tmp_path / "b.txt", b"1")
    assert [name for name, _ in calls] == ["fsync", "link", "fsync"]
    assert calls[-1] == ("fsync", tmp_path.name)
    assert not durable.create(tmp_path / "b.txt", b"2")
    assert (tmp_path / "b.txt").read_bytes() == b"1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    durable.write(tmp_path / "a", "old")
    with (
        pytest.raises(OSError, match="No space"),
        durable.replacing(tmp_path / "a") as temporary,
    ):
        temporary.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_two_writers_do_not_share_a_temporary(tmp_path):
    path = tmp_path / "a"
    with durable.replacing(path) as one, durable.replacing(path) as two:
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"  # the one that ended last


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    durable.write(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


@pytest.mark.parametrize(
    "damage, message",
    [
        (b"", "is empty"),
        (bytes(40), "is empty"),  # what some file systems leave after a crash
        (b'{"digest": "ab', "is damaged.*column"),
        (b'{"digest": "\xff"}', "is damaged"),
        (b"[1, 2]", "is damaged: a JSON object"),
    ],
)
def test_json_that_cannot_be_read_is_named(tmp_path, damage, message):
    path = tmp_path / "result.json"
    path.write_bytes(damage)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} {message}"):
        durable.read_json(path)


def test_json_goes_round_and_nan_is_refused(tmp_path):
    durable.write_json(tmp_path / "a.json", {"x": [1.5, None], "ä": "ü"})
    assert durable.read_json(tmp_path / "a.json") == {"x": [1.5, None], "ä": "ü"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        durable.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert durable.read_json(tmp_path / "a.json") == {"x": [1.5, None], "ä": "ü"}


def test_no_other_file_renames_a_temporary_or_reads_json_by_itself():
    """The phantom renames a whole folder: it is drawn anew where it is not whole."""
    own = r'\.part"\)?$|json\.loads\(.*read_(text|bytes)'
    wrong = [
        f"{path.name}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "durable.py"
        for line in path.read_text().splitlines()
        if re.search(own, line)
    ]
    assert wrong == []
