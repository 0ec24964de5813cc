"""The cache of decoded images: each file is decoded once, in parallel, resumably.

A folder named by a digest of what is in it holds

    pixels.u8    uint8 [n, S, S, C], row by row as in the manifest
    rows.bin     a record a row: size and mtime of its source file, state, code
    bad.json     {row: reason} of the rows that could not be decoded
    lock         held (flock) by the process that builds; freed when it dies

Pixels are on disk before the record that says so, hence a build that was killed
goes on where it was. On every opening each source file's size and mtime are compared
with the record; rows that differ are decoded again. Workers (data/pixels/decode_pool.py) are
plain subprocesses that know numpy and Pillow, never jax.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bigxfer import durable, host
from bigxfer.data.manifest import Manifest
from bigxfer.data.pixels import containers, decode, decode_pool

Say = Callable[[str], None]

SOURCE = np.dtype([("size", "<i8"), ("mtime_ns", "<i8")])
RECORD = np.dtype([("source", SOURCE), ("state", "<i8"), ("code", "V16")])
TODO, OK, BAD = 0, 1, 2
ABSENT = -1  # the size of a file that is not there
SMALL = 64  # images; fewer are decoded in this process
FLUSH_SECONDS = 2.0  # between records written, and lines of progress


@dataclass(frozen=True)
class Cache:
    images: np.ndarray  # uint8 memmap [n, S, S, C], read-only; zeros where not ok
    ok: np.ndarray  # bool [n]
    codes: np.ndarray | None  # bytes [n]: decode_pool.code; None where not computed
    bad: list[tuple[str, str, str]]  # id, path, reason
    folder: Path
    decoded: int  # rows decoded by this call; 0 when all was there


def build(
    manifest: Manifest,
    folder: Path | str,
    size: int,
    channels: int,
    workers: int | None = None,
    max_bad: float = 0.0,
    progress: Say | None = None,
) -> Cache:
    """The pixels of every row of the manifest, decoded where they are not yet.

    `folder` holds the caches, one subfolder each; manifest.root is only read.
    `progress` gets lines of text. A second process that wants the same cache waits
    for the first. Build it for a whole manifest and select rows afterwards: another
    set of rows is another cache.

    Raises ValueError, naming the first files, where more than max_bad of the images
    are absent or do not decode, OSError where the disk is or gets full; what was
    decoded is kept and the next call goes on from there.
    """
    say = progress or (lambda line: None)
    folder = Path(folder) / digest(manifest, size, channels)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", say):
        store = Store(folder, manifest, (size, size, channels))
        todo = store.outdated()
        allowed = max_bad * len(manifest)
        if len(store.bad) > allowed:  # perhaps their reason has gone: try again
            todo |= store.records["state"] == BAD
        absent = todo & (store.found["size"] == ABSENT)
        store.finish({int(row): ("absent", b"") for row in np.flatnonzero(absent)})
        todo &= ~absent
        if absent.sum() > allowed:  # a wrong root is told at once
            todo[:] = False
        store.make_room(int(todo.sum()))
        run(store, np.flatnonzero(todo), workers or len(host.cores()), say)
        cache = store.open(int(todo.sum()))
    if len(cache.bad) > allowed:
        raise ValueError(message(manifest, cache, max_bad))
    return cache


def digest(manifest: Manifest, size: int, channels: int) -> str:
    """16 hex digits: the rows, where they come from, and how they are decoded.

    The root is part of it: two roots with the same names must not share a folder.
    """
    root = os.path.abspath(manifest.root) if manifest.root else ""
    sha = hashlib.sha256(json.dumps([root, size, channels, decode.VERSION]).encode())
    for column in (manifest.id, manifest.path):
        sha.update("\0".join(column).encode() + b"\1")
    return sha.hexdigest()[:16]


def message(manifest: Manifest, cache: Cache, max_bad: float) -> str:
    """What is wrong with which files, and what to do about it."""
    count, total = len(cache.bad), len(manifest)
    head = f"{count} of {total} images of {manifest.name} at {manifest.root}"
    lines = [f"  {path}: {reason}" for _, path, reason in cache.bad[:10]]
    if count > 10:
        lines.append(f"  ... all of them in {cache.folder / 'bad.json'}")
    what = (
        f"Mend or remove them, or raise --config.data.max_bad={max_bad:g} to at least"
        f" {np.ceil(count / total * 1000) / 1000:g}."
    )
    return "\n".join([f"{head} cannot be decoded:", *lines, what])


@contextmanager
def locked(path: Path, say: Say) -> Iterator[None]:
    """Holds the lock; the kernel frees it when the holder dies, however it dies."""
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process builds the cache {path.parent}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Store:
    """The files of one cache folder, and what is known of each row."""

    def __init__(self, folder: Path, manifest: Manifest, shape: tuple) -> None:
        self.folder, self.manifest, self.shape = folder, manifest, shape
        self.pixels, self.rows = folder / "pixels.u8", folder / "rows.bin"
        n, self.row_bytes = len(manifest), int(np.prod(shape))
        whole = (
            self.pixels.exists() and self.pixels.stat().st_size == n * self.row_bytes
        )
        if not whole:  # new, or damaged: everything is to be done
            self.rows.write_bytes(bytes(n * RECORD.itemsize))
        with open(self.pixels, "ab") as file:
            file.truncate(n * self.row_bytes)
        self.records = np.fromfile(self.rows, RECORD)
        reasons = folder / "bad.json"
        known = durable.read_json(reasons) if reasons.exists() else {}
        state = self.records["state"]
        self.bad = {int(r): why for r, why in known.items() if state[int(r)] == BAD}
        self.found = stats(manifest)

    def outdated(self) -> np.ndarray:
        """bool [n]: never decoded, or the source file has changed since."""
        changed = self.records["source"] != self.found
        return changed | (self.records["state"] == TODO)

    def make_room(self, count: int) -> None:
        """OSError where `count` more images would not fit on the disk."""
        held = self.pixels.stat().st_blocks * 512
        room = len(self.manifest) * self.row_bytes - held
        need = min(count * self.row_bytes, max(room, 0))
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise OSError(full_disk(self.folder, need, free))

    def finish(self, results: dict[int, tuple[str, bytes]]) -> None:
        """Records (reason, code) of rows: decoded (reason "") or bad.

        Their pixels are written.
        """
        if not results:
            return
        with open(self.pixels, "r+b") as file:
            for row, (reason, _) in results.items():
                if reason and self.records["state"][row] == OK:  # stale pixels
                    at = row * self.row_bytes
                    os.pwrite(file.fileno(), bytes(self.row_bytes), at)
            os.fsync(file.fileno())
        for row, (reason, code) in results.items():
            self.records[row] = (self.found[row], BAD if reason else OK, code)
            self.bad.pop(row, None)
            if reason:
                self.bad[row] = reason
        reasons = {str(row): why for row, why in sorted(self.bad.items())}
        durable.write_json(self.folder / "bad.json", reasons)
        with open(self.rows, "r+b") as file:
            for row in results:
                record = self.records[row].tobytes()
                os.pwrite(file.fileno(), record, row * RECORD.itemsize)
            os.fsync(file.fileno())

    def open(self, decoded: int) -> Cache:
        shape = (len(self.manifest), *self.shape)
        m = self.manifest
        return Cache(
            images=np.memmap(self.pixels, np.uint8, "r", shape=shape),
            ok=self.records["state"] == OK,
            codes=np.ascontiguousarray(self.records["code"]).view("S16"),
            bad=[(m.id[r], m.path[r], self.bad[r]) for r in sorted(self.bad)],
            folder=self.folder,
            decoded=decoded,
        )


def full_disk(folder: Path, need: int, free: int) -> str:
    return (
        f"the cache {folder} cannot be written: {need / 1e9:.2f} GB are needed,"
        f" {free / 1e9:.2f} GB are free. Make room, or put the cache elsewhere with"
        " --config.data.cache=FOLDER; what is decoded is kept."
    )


def stats(manifest: Manifest) -> np.ndarray:
    """SOURCE [n]: size and mtime of each source file; ABSENT where there is none.

    In threads, because a network file system answers slowly but in parallel.
    """

    def part(paths: np.ndarray) -> np.ndarray:
        out = []
        for path in paths:
            try:
                stat = os.stat(containers.parse(path).source(manifest.root))
                out.append((stat.st_size, stat.st_mtime_ns))
            except OSError:
                out.append((ABSENT, 0))
        return np.array(out, SOURCE)

    with ThreadPoolExecutor(8) as pool:
        return np.concatenate(list(pool.map(part, np.array_split(manifest.path, 8))))


@dataclass
class Pass:
    """What one run over the rows has reported so far."""

    total: int
    say: Say
    began: float = field(default_factory=time.monotonic)
    flushed: float = field(default_factory=time.monotonic)
    done: int = 0
    fresh: dict[int, tuple[str, bytes]] = field(default_factory=dict)

    def add(self, store: Store, row: int, reason: str, code: bytes) -> None:
        self.fresh[row] = reason, code
        self.done += 1
        now = time.monotonic()
        if now - self.flushed > FLUSH_SECONDS:
            self.flush(store)
            rate = self.done / (now - self.began)
            left = (self.total - self.done) / rate
            self.say(
                f"decoding: {self.done} of {self.total} images, {rate:.0f} images/s,"
                f" {left:.0f} s left"
            )
            self.flushed = now

    def flush(self, store: Store) -> None:
        store.finish(self.fresh)
        self.fresh = {}


def run(store: Store, todo: np.ndarray, workers: int, say: Say) -> None:
    """Decodes these rows, here or in subprocesses, and records each."""
    if not len(todo):
        return
    job = decode_pool.Job(str(store.manifest.root), str(store.pixels), store.shape)
    paths = {int(row): store.manifest.path[row] for row in todo}
    report = Pass(len(todo), say)
    few = len(todo) < SMALL or workers == 1
    results = (
        decode_pool.here(job, paths) if few else decode_pool.spread(job, paths, workers)
    )
    try:
        with closing(results):  # ends the workers
            for row, reason, code in results:
                report.add(store, row, reason, bytes.fromhex(code))
        report.flush(store)
    except BaseException as error:
        with suppress(OSError):
            report.flush(store)
        if not isinstance(error, OSError):
            raise
        free = shutil.disk_usage(store.folder).free
        need = (len(todo) - report.done) * store.row_bytes
        raise OSError(f"{error}; {full_disk(store.folder, need, free)}") from error
    seconds = time.monotonic() - report.began
    say(f"decoded {len(todo)} images in {seconds:.1f} s, {len(store.bad)} bad")
