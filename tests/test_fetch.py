"""Downloads from a server on loopback, which answers as Zenodo's does or worse."""

import fcntl
import hashlib
import http.server
import socket
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from test_readers import read
from test_readers_collections import mnist

from bigxfer.data import fetch
from bigxfer.data.readers import medmnist

NAME = "pneumoniamnist_64"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, data = self.server, self.server.data
        asked = self.headers.get("Range", "")
        server.asked.append(asked)
        if server.status:
            self.send_error(server.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and server.ranges and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        partial = bool(asked) and server.ranges
        rest = data[start:] if partial else data
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: server.breaks_after])
        server.breaks_after = None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of one file of MedMNIST+, whose MD5 the table knows."""
    mnist(tmp_path / "made", NAME, 64)
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.data = (tmp_path / "made" / f"{NAME}.npz").read_bytes()
    found.asked, found.ranges, found.breaks_after, found.status = [], True, None, 0
    known = medmnist.SETS["pneumoniamnist"]
    md5 = [*known.md5]
    md5[1] = hashlib.md5(found.data).hexdigest()
    changed = {"pneumoniamnist": replace(known, md5=tuple(md5))}
    monkeypatch.setattr(medmnist, "SETS", medmnist.SETS | changed)
    address = f"http://127.0.0.1:{found.server_port}/files/{{name}}.npz?download=1"
    monkeypatch.setattr(fetch, "ADDRESS", address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def run(monkeypatch, out, *sets):
    monkeypatch.setattr(sys, "argv", ["fetch", *sets, "--out", str(out)])
    fetch.main()


def test_a_file_is_downloaded_once_and_then_read(server, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    for _ in range(2):
        run(monkeypatch, out, f"medmnist:{NAME}")
    assert server.asked == [""]  # the second command found it whole
    assert (out / f"{NAME}.npz").read_bytes() == server.data
    assert [p.name for p in out.iterdir()] == [f"{NAME}.npz"]
    assert f"--config.data.version={NAME}" in capsys.readouterr().out
    assert np.bincount(read("medmnist", out).labels).tolist() == [7, 5]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_goes_on(server, tmp_path, monkeypatch, ranges):
    server.ranges, server.breaks_after = ranges, 1000
    monkeypatch.setattr(fetch, "BLOCK", 500)
    with pytest.raises(SystemExit, match="goes on where it stopped"):
        run(monkeypatch, tmp_path, f"medmnist:{NAME}")
    assert (tmp_path / f"{NAME}.npz.partial").stat().st_size == 1000
    assert not (tmp_path / f"{NAME}.npz").exists()
    run(monkeypatch, tmp_path, f"medmnist:{NAME}")
    assert server.asked == ["", "bytes=1000-"]
    assert (tmp_path / f"{NAME}.npz").read_bytes() == server.data
    assert not (tmp_path / f"{NAME}.npz.partial").exists()


def test_a_part_that_is_whole_or_of_another_file(server, tmp_path, monkeypatch):
    part = tmp_path / f"{NAME}.npz.partial"
    part.write_bytes(server.data)  # killed before it was renamed
    run(monkeypatch, tmp_path, f"medmnist:{NAME}")
    (tmp_path / f"{NAME}.npz").unlink()
    part.write_bytes(server.data + b"more")
    run(monkeypatch, tmp_path, f"medmnist:{NAME}")
    assert (tmp_path / f"{NAME}.npz").read_bytes() == server.data
    assert server.asked[1:] == [f"bytes={len(server.data) + 4}-", ""]


def test_another_checksum_is_refused_and_the_file_removed(
    server, tmp_path, monkeypatch
):
    data, server.data = server.data, server.data[:-1] + b"!"
    with pytest.raises(SystemExit, match="is not the published file, and was removed"):
        run(monkeypatch, tmp_path, f"medmnist:{NAME}")
    assert list(tmp_path.glob("*.npz*")) == []
    (tmp_path / f"{NAME}.npz").write_bytes(b"half a file of long ago")
    server.data = data
    run(monkeypatch, tmp_path, f"medmnist:{NAME}")
    assert (tmp_path / f"{NAME}.npz").read_bytes() == data


def test_no_network_says_what_to_do(server, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(fetch, "ADDRESS", f"http://127.0.0.1:{port}/{{name}}.npz")
    with pytest.raises(SystemExit) as error:
        run(monkeypatch, tmp_path, f"medmnist:{NAME}")
    for words in ("cannot be reached", f"put it at {tmp_path / NAME}.npz", "MD5, "):
        assert words in str(error.value)
    # What was put there by hand is compared, not downloaded.
    (tmp_path / f"{NAME}.npz").write_bytes(server.data)
    run(monkeypatch, tmp_path, f"medmnist:{NAME}")


@pytest.mark.parametrize("status", [404, 429, 503])
def test_a_server_that_refuses_is_named(server, tmp_path, monkeypatch, status):
    server.status = status
    with pytest.raises(SystemExit, match=f"cannot be reached.*{status}"):
        run(monkeypatch, tmp_path, f"medmnist:{NAME}")


def test_a_second_process_does_not_write_into_the_download(
    server, tmp_path, monkeypatch
):
    with open(tmp_path / f"{NAME}.npz.partial", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="another process downloads"):
            run(monkeypatch, tmp_path, f"medmnist:{NAME}")
    assert server.asked == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("medmnist:chestmnist_65", "did you mean chestmnist_64"),
        ("medmnist:organmnist3d", "nothing to fetch"),
        ("chexpert", "How to obtain other sets stands in docs/datasets.md"),
    ],
)
def test_what_cannot_be_fetched_is_told_before_any_download(
    server, tmp_path, monkeypatch, text, message
):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, tmp_path, f"medmnist:{NAME}", text)
    assert server.asked == []


def test_every_file_has_its_own_checksum():
    names = [n for set_name in medmnist.SETS for n in medmnist.names(set_name)]
    assert len({fetch.checksum(name) for name in names}) == len(names) == 48
    assert fetch.checksum("chestmnist_64") == "9de6cd0b934ebb5b7426cfba5efbae16"
