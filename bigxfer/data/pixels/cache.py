"""The cache of decoded images: each file is decoded once, in parallel, resumably.

A folder named by a digest of what is in it holds the files of cache_store.py: the pixels,
and a record a row. On every opening each source file's size and mtime are compared with
the record; rows that differ are decoded again. Pixels are compared with their checksums
whenever they are read (checked.py). Workers (decode_pool.py) are plain subprocesses that
know numpy and Pillow, never jax.
"""

import hashlib
import json
import os
import shutil
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer import host
from bigxfer.data.manifest import Manifest
from bigxfer.data.pixels import decode, decode_pool
from bigxfer.data.pixels.cache_store import (
    ABSENT,
    BAD,
    OK,
    Say,
    Store,
    full_disk,
    locked,
)

SMALL = 64  # images; fewer are decoded in this process
FLUSH_SECONDS = 2.0  # between records written, and lines of progress


@dataclass(frozen=True)
class Cache:
    images: Any  # Checked or cache_encoded.Encoded; zeros where not ok
    ok: np.ndarray  # bool [n]
    codes: np.ndarray | None  # bytes [n]: Store.codes; None where not computed
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
    for the first. A cache that cannot be written serves where it holds all rows. Build it
    for a whole manifest and select rows afterwards: another set of rows is
    another cache.

    Raises ValueError, naming the first files, where more than max_bad of the images
    are absent or do not decode, OSError where the disk is or gets full; what was
    decoded is kept and the next call goes on from there.
    """
    say = progress or (lambda line: None)
    folder = Path(folder) / digest(manifest, size, channels)
    with locked(folder, say) as writable:
        store = Store(folder, manifest, (size, size, channels), say)
        todo = store.outdated()
        allowed = max_bad * len(manifest)
        if writable and len(store.bad) > allowed:  # perhaps their reason has gone
            todo |= store.records["state"] == BAD
        if todo.any():
            store.begin(int(todo.sum()), writable)
        absent = todo & (store.found["size"] == ABSENT)
        store.finish({int(row): ("absent", b"") for row in np.flatnonzero(absent)})
        todo &= ~absent
        if absent.sum() > allowed:  # a wrong root is told at once
            todo[:] = False
        run(store, np.flatnonzero(todo), workers or len(host.cores()), say)
    cache = Cache(
        images=store.images(),
        ok=store.records["state"] == OK,
        codes=store.codes(),
        bad=[
            (manifest.id[r], manifest.path[r], store.bad[r]) for r in sorted(store.bad)
        ],
        folder=folder,
        decoded=int(todo.sum()),
    )
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


@dataclass
class Pass:
    """What one run over the rows has reported so far."""

    total: int
    say: Say
    began: float = field(default_factory=time.monotonic)
    flushed: float = field(default_factory=time.monotonic)
    done: int = 0
    fresh: dict[int, tuple[str, bytes]] = field(default_factory=dict)

    def add(self, store: Store, row: int, reason: str, total: bytes) -> None:
        self.fresh[row] = reason, total
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
    store.make_room(len(todo))
    order = decode_pool.Decoding(
        str(store.manifest.root), str(store.pixels), store.shape
    )
    paths = {int(row): store.manifest.path[row] for row in todo}
    report = Pass(len(todo), say)
    few = len(todo) < SMALL or workers == 1
    results = (
        decode_pool.here(order, paths)
        if few
        else decode_pool.spread(order, paths, workers)
    )
    try:
        with closing(results):  # ends the workers
            for row, reason, total in results:
                report.add(store, row, reason, bytes.fromhex(total))
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
