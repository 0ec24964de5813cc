"""The files of one cache folder, and what is known of each row.

    pixels.u8    uint8 [n, S, S, C], row by row as in the manifest
    rows.bin     a RECORD a row: size and mtime of its source file, its state, the
                 checksum of its pixels, and the record's own
    bad.json     {row: reason} of the rows that could not be decoded, sealed
    lock         held (flock) by the process that builds; freed when it dies

Pixels are on disk before the record that says so, hence a build that was killed goes on
where it was. A record or a bad.json that is not as it was written counts for nothing:
its rows are decoded again.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import xxhash

from bigxfer import durable
from bigxfer.data.manifest import Manifest
from bigxfer.data.pixels import checked, containers
from bigxfer.data.pixels.checked import SUM, Checked

Say = Callable[[str], None]

SOURCE = np.dtype([("size", "<i8"), ("mtime_ns", "<i8")])
RECORD = np.dtype([("source", SOURCE), ("state", "<i8"), ("sum", SUM), ("seal", "<u8")])
TODO, OK, BAD = 0, 1, 2
ABSENT = -1  # the size of a file that is not there


@contextmanager
def locked(folder: Path, say: Say) -> Iterator[bool]:
    """Hold the lock of a cache folder; yields whether the folder can be written.

    The kernel frees the lock when its holder dies, however it dies. Raises OSError where
    the folder neither exists nor can be made.
    """
    # flock, not a file that exists: a killed process leaves none behind.
    lock = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file, how = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666), fcntl.LOCK_EX
    except OSError as error:
        if not folder.is_dir():
            raise OSError(f"the cache cannot be made: {error}; {ELSEWHERE}") from error
        # A folder that cannot be written and that nobody locks, such as one on a read-only disk.
        if not lock.is_file():
            yield False
            return
        file, how = os.open(lock, os.O_RDONLY), fcntl.LOCK_SH
    try:
        try:
            # Without waiting first, so that a wait can be announced.
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process builds the cache {folder}; waiting for it")
            fcntl.flock(file, how)
        yield how == fcntl.LOCK_EX
    finally:
        os.close(file)


class Store:
    """Opens a folder as it is; nothing is written before `begin`."""

    def __init__(
        self, folder: Path, manifest: Manifest, shape: tuple, say: Say
    ) -> None:
        self.folder, self.manifest, self.shape = folder, manifest, shape
        self.pixels, self.rows = folder / "pixels.u8", folder / "rows.bin"
        self.row_bytes = int(np.prod(shape))
        # Rows that did not decode hold zeros, and are read like all others.
        self.black = checked.sum_of(bytes(self.row_bytes))
        self.found = stats(manifest)
        self.bad: dict[int, str] = {}
        n = len(manifest)
        self.records = np.zeros(n, RECORD)
        sizes = [
            p.stat().st_size if p.exists() else 0 for p in (self.pixels, self.rows)
        ]
        self.whole = sizes == [n * self.row_bytes, self.records.nbytes]
        if not self.whole:
            if sizes[0]:
                say(
                    f"{folder} is cut short, or of a version without checksums: its"
                    " images are decoded again"
                )
            return
        self.records = np.fromfile(self.rows, RECORD)
        # All zeros is a record that was never written, not a damaged one.
        written = self.records.view(np.uint8).reshape(n, -1).any(axis=1)
        damaged = written & (self.records["seal"] != seals(self.records, np.arange(n)))
        self.records[damaged] = np.zeros((), RECORD)
        if damaged.any():
            say(
                f"{damaged.sum()} of {n} records in {self.rows} are damaged: those"
                " images are decoded again"
            )
        # Only of records that can be believed.
        self.read_reasons(say)

    def read_reasons(self, say: Say) -> None:
        """Read bad.json; a row whose reason is lost is to be decoded again."""
        file, state = self.folder / "bad.json", self.records["state"]
        try:
            known = durable.read_sealed(file) if file.exists() else {}
        except ValueError as error:
            say(f"{error}; the images that did not decode are tried again")
            known = {}
        self.bad = {int(r): why for r, why in known.items() if state[int(r)] == BAD}
        # Without its reason a bad row could not be told to the user.
        lost = state == BAD
        lost[list(self.bad)] = False
        state[lost] = TODO

    def outdated(self) -> np.ndarray:
        """bool [n]: never decoded, or the source file has changed since."""
        # By size and mtime: a checksum would read every file on each opening.
        changed = self.records["source"] != self.found
        return changed | (self.records["state"] == TODO)

    def begin(self, count: int, writable: bool) -> None:
        """Make ready to write `count` images; OSError where they cannot be written."""
        if not writable:
            raise OSError(read_only(self.folder, count, self.manifest))
        if not self.whole:
            self.rows.write_bytes(bytes(self.records.nbytes))
        with open(self.pixels, "ab") as file:
            # A sparse file: rows that are never decoded take no room.
            file.truncate(len(self.manifest) * self.row_bytes)

    def make_room(self, count: int) -> None:
        """OSError where `count` more images would not fit on the disk."""
        # What the sparse file really takes; st_size is what it will.
        held = self.pixels.stat().st_blocks * 512
        room = len(self.manifest) * self.row_bytes - held
        need = min(count * self.row_bytes, max(room, 0))
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise OSError(full_disk(self.folder, need, free))

    def finish(self, results: dict[int, tuple[str, bytes]]) -> None:
        """Record (reason, sum of the pixels) of rows: decoded (reason "") or bad.

        The pixels of the decoded ones are written.
        """
        if not results:
            return
        with open(self.pixels, "r+b") as file:
            for row, (reason, _) in results.items():
                if reason and self.records["state"][row] == OK:  # stale pixels
                    at = row * self.row_bytes
                    os.pwrite(file.fileno(), bytes(self.row_bytes), at)
            # Pixels before records: a record must never promise pixels that a crash lost.
            os.fsync(file.fileno())
        for row, (reason, total) in results.items():
            state, total = (BAD, self.black) if reason else (OK, total)
            self.records[row] = (self.found[row], state, total, 0)
            self.bad.pop(row, None)
            if reason:
                self.bad[row] = reason
        rows = np.array(list(results))
        self.records["seal"][rows] = seals(self.records[rows], rows)
        reasons = {str(row): why for row, why in sorted(self.bad.items())}
        # Before the records too: a bad row is never without its reason.
        durable.write_sealed(self.folder / "bad.json", reasons)
        with open(self.rows, "r+b") as file:
            for row in results:
                record = self.records[row].tobytes()
                os.pwrite(file.fileno(), record, row * RECORD.itemsize)
            os.fsync(file.fileno())

    def forget(self, rows: list[int]) -> None:
        """Have rows decoded again when the cache is next opened, where it can be written.

        Records that another process has written since are left alone.
        """
        size = RECORD.itemsize
        with suppress(OSError), open(self.rows, "r+b") as file:
            for row in rows:
                there = os.pread(file.fileno(), size, row * size)
                # Else another process has decoded the row again meanwhile.
                if there == self.records[row].tobytes():
                    os.pwrite(file.fileno(), bytes(size), row * size)
            os.fsync(file.fileno())

    def images(self) -> Checked:
        shape = (len(self.manifest), *self.shape)
        sums, names = np.ascontiguousarray(self.records["sum"]), self.manifest.path
        return Checked(self.pixels, shape, sums, names, self.forget)

    def codes(self) -> np.ndarray:
        """bytes [n]: the sums of the pixels; b"" where all have one value, or none."""
        sums = np.ascontiguousarray(self.records["sum"])
        # Images of one value are no duplicates: broken films are often black.
        flat = {
            checked.sum_of(np.full(self.row_bytes, value, np.uint8))
            for value in range(256)
        }
        out = sums.view("S16")
        out[[total in flat for total in sums.tolist()]] = b""
        return out


def seals(records: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """uint64 [n]: the checksums of RECORD [n]; a checksum depends on the row too."""
    data, size = records.tobytes(), RECORD.itemsize
    end = size - RECORD["seal"].itemsize
    return np.array(
        [
            # The row is the seed: two records that changed places are noticed.
            xxhash.xxh3_64_intdigest(data[i * size : i * size + end], seed=row)
            for i, row in enumerate(rows.tolist())
        ],
        "<u8",
    )


ELSEWHERE = "put it elsewhere with --config.data.cache=FOLDER"


def read_only(folder: Path, count: int, manifest: Manifest) -> str:
    """The message where rows are to be written to a folder that cannot be written."""
    count = min(count, len(manifest))
    return (
        f"the cache {folder} cannot be written, and {count} of {len(manifest)} images of"
        f" {manifest.name} are not in it, or have changed since; {ELSEWHERE}"
    )


def full_disk(folder: Path, need: int, free: int) -> str:
    return (
        f"the cache {folder} cannot be written: {need / 1e9:.2f} GB are needed,"
        f" {free / 1e9:.2f} GB are free. Make room, or {ELSEWHERE}; what is decoded is"
        " kept."
    )


def stats(manifest: Manifest) -> np.ndarray:
    """SOURCE [n]: size and mtime of each image's source file; ABSENT where there is none.

    Of an image in several files, the sums over them: a change of one changes these.

    In threads, because a network file system answers slowly but in parallel.
    """

    def part(paths: np.ndarray) -> np.ndarray:
        out = []
        for path in paths:
            try:
                files = containers.parse(path).sources(manifest.root)
                each = [os.stat(file) for file in files]
                size = sum(stat.st_size for stat in each)
                # Three times in nanoseconds stay below 2^63 until 2067.
                out.append((size, sum(stat.st_mtime_ns for stat in each)))
            except OSError:
                out.append((ABSENT, 0))
        return np.array(out, SOURCE)

    with ThreadPoolExecutor(8) as pool:
        return np.concatenate(list(pool.map(part, np.array_split(manifest.path, 8))))
