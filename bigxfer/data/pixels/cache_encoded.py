"""Sets too large to hold raw: their encoded bytes, decoded anew for every batch.

A folder beside the raw caches, named by a digest of what is in it, holds for every
32,768 rows of the manifest

    00000.array_record   the bytes of each file, in the order of the rows; b"" if bad
    00000.sums           the checksum of the bytes of each row (checked.py)
    00000.json           {"source": digest of sizes and mtimes, "bad": {row: reason},
                         "sums": identity of the sums}, sealed

Bytes are compared with their checksums whenever they are read. The .json comes last, so a build that was killed goes on with the shard it was at, and a
shard whose source files have changed is made again. Every image is decoded once while
its shard is made: what training will read is known to decode.

Decoding runs in threads of this process: Pillow lets go of the interpreter's lock while
it decodes and resizes, 94% of the time for ImageNet-sized JPEGs (0.11 of 1.89 ms held).
Grain's workers are no faster at it (benchmarks/README.md: within the noise of its own
threads and of ours), each is another process that imports jax, and a resumed run would
need their state; these threads need none, since batch(step) is a function of the step.
"""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigxfer import durable, host
from bigxfer.data.manifest import Manifest
from bigxfer.data.pixels import cache, cache_store, checked, containers, decode

SHARD = 1 << 15  # rows in a file: 434 files for ImageNet-21k
BLOCK = 256  # rows whose bytes are held at once while a shard is made
CHECKED = 8  # side of the image that a file is decoded to for a check, pixels


def build(
    manifest: Manifest,
    folder: Path | str,
    size: int,
    channels: int,
    workers: int | None = None,
    max_bad: float = 0.0,
    progress: cache_store.Say | None = None,
) -> cache.Cache:
    """As cache.build, but `images` is an Encoded; the shards serve every size.

    Raises also ValueError where an image is no file: rows of HDF5, three-plane images.
    """
    say = progress or (lambda line: None)
    refuse(manifest)
    # Size 0: the encoded bytes serve every size.
    folder = Path(folder) / cache.digest(manifest, 0, channels)
    allowed, workers = max_bad * len(manifest), workers or len(host.cores())
    with cache_store.locked(folder, say) as writable:
        stats = cache_store.stats(manifest)
        maker = ShardMaker(manifest, folder, channels, stats, workers, say)
        starts = range(0, len(manifest), SHARD)
        shards = {s: maker.known(s) for s in starts}
        # Perhaps the reason of the bad rows has gone: a codec is installed since.
        if writable and sum(len(s.bad) for s in shards.values() if s) > allowed:
            shards = {s: k if k and not k.bad else None for s, k in shards.items()}
        todo = [s for s, known in shards.items() if known is None]
        if todo and not writable:
            raise OSError(cache_store.read_only(folder, len(todo) * SHARD, manifest))
        for left in folder.glob("*.part") if todo else ():  # by a build that was killed
            left.unlink()
        for start in todo:
            shards[start] = maker.make(start)
    whole = [s for s in shards.values() if s]
    reasons = {row: why for s in whole for row, why in s.bad.items()}
    ok = np.ones(len(manifest), bool)
    ok[list(reasons)] = False
    sums = np.concatenate([s.sums for s in whole])
    images = Encoded(folder, sums, manifest.path, size, channels, workers)
    rows = [(manifest.id[r], manifest.path[r], reasons[r]) for r in sorted(reasons)]
    decoded = sum(min(SHARD, len(manifest) - start) for start in todo)
    built = cache.Cache(images, ok, None, rows, folder, decoded)
    if len(rows) > allowed:
        raise ValueError(cache.message(manifest, built, max_bad))
    return built


def refuse(manifest: Manifest) -> None:
    """ValueError where a path names something other than one encoded image."""
    for path in manifest.path:
        if containers.parse(path).is_array:
            raise ValueError(
                f"config.data.storage=encoded keeps the bytes of image files, and"
                f" {path} of {manifest.name} is none; set it to raw"
            )


@dataclass(frozen=True)
class Shard:
    """What is known of the rows of a finished shard."""

    bad: dict[int, str]  # {row: reason}
    sums: np.ndarray  # checked.SUM [rows of the shard]


@dataclass(frozen=True)
class ShardMaker:
    """What making a shard needs to know."""

    manifest: Manifest
    folder: Path
    channels: int
    found: np.ndarray  # cache_store.SOURCE [n]
    workers: int
    say: cache_store.Say

    def known(self, start: int) -> Shard | None:
        """A finished shard; None if it is to be made."""
        path = shard(self.folder, start)
        about, sums = path.with_suffix(".json"), path.with_suffix(".sums")
        if not about.exists() or not path.exists():
            return None
        try:
            known = durable.read_sealed(about)
            read = np.fromfile(sums, checked.SUM)
            if checked.identity(read) != known["sums"]:
                raise ValueError(f"{sums} is not as it was written")
        except (ValueError, OSError) as error:
            self.say(f"damaged, or without checksums: {error}; {path} is made again")
            return None
        if known["source"] != self.source(start):
            return None
        return Shard({int(row): why for row, why in known["bad"].items()}, read)

    def source(self, start: int) -> str:
        """Changes with the size or mtime of any source file of the shard."""
        return hashlib.sha256(self.found[start : start + SHARD].tobytes()).hexdigest()

    def make(self, start: int) -> Shard:
        """Write a shard."""
        from array_record.python.array_record_module import ArrayRecordWriter

        path, bad, sums = shard(self.folder, start), {}, []
        path.with_suffix(".json").unlink(missing_ok=True)  # of the shard before it
        began = told = time.monotonic()
        stop = min(start + SHARD, len(self.manifest))
        with durable.replacing(path) as temporary:
            # Single records, since an epoch reads rows in random order.
            writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
            for row, data, reason in self.fetched(range(start, stop)):
                writer.write(data)
                sums.append(checked.sum_of(data))
                if reason:
                    bad[row] = reason
                if (now := time.monotonic()) > told + cache.FLUSH_SECONDS:
                    rate, told = (row + 1 - start) / (now - began), now
                    left = (len(self.manifest) - row - 1) / rate
                    self.say(
                        f"storing: {row + 1} of {len(self.manifest)} images,"
                        f" {rate:.0f} images/s, {left:.0f} s left"
                    )
            writer.close()
        finished = Shard(bad, np.array(sums, checked.SUM))
        durable.write(path.with_suffix(".sums"), finished.sums.tobytes())
        about = {
            "source": self.source(start),
            "bad": {str(r): w for r, w in bad.items()},
        }
        about["sums"] = checked.identity(finished.sums)
        # Last: a shard without it counts as not made.
        durable.write_sealed(path.with_suffix(".json"), about)
        return finished

    def fetched(self, rows: range) -> Iterator[tuple[int, bytes, str]]:
        """(row, its bytes or b"", the reason why it is bad or "") in order."""

        def one(row: int) -> tuple[int, bytes, str]:
            if self.found["size"][row] == cache_store.ABSENT:
                return row, b"", "absent"
            try:
                place = containers.parse(self.manifest.path[row])
                data = decode.fetched(self.manifest.root, place)
                assert isinstance(data, bytes)
                # Whole, if small: what training will read is known to decode.
                decode.decode(data, CHECKED, self.channels)
            except decode.DecodeError as error:
                return row, b"", str(error)
            return row, data, ""

        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(rows), BLOCK):
                yield from pool.map(one, rows[start : start + BLOCK])


def shard(folder: Path, start: int) -> Path:
    """The file that holds this row and those after it."""
    return folder / f"{start // SHARD:05d}.array_record"


class Encoded:
    """uint8 [n, S, S, C] whose rows are decoded when asked for; zeros if bad."""

    def __init__(
        self,
        folder: Path,
        sums: np.ndarray,  # checked.SUM [n], of the encoded bytes
        names: np.ndarray,  # str [n], for messages
        size: int,
        channels: int,
        workers: int,
    ) -> None:
        from array_record.python.array_record_module import ArrayRecordReader

        n = len(sums)
        self.shape = (n, size, size, channels)
        self.folder, self.sums, self.names, self.workers = folder, sums, names, workers
        self.readers = []
        for start in range(0, n, SHARD):
            try:
                # Groups are single records here: reading ahead reads the wrong ones.
                path = str(shard(folder, start))
                reader = ArrayRecordReader(path, "readahead_buffer_size:0")
                if reader.num_records() != min(SHARD, n - start):
                    raise RuntimeError(f"{reader.num_records()} records")
            except RuntimeError as error:
                raise self.damage(start, str(error)) from error
            self.readers.append(reader)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """uint8 [b, S, S, C] of int [b], or [S, S, C] of one row."""
        rows = np.asarray(index)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        if not rows.ndim:
            return self.one(int(rows))
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        with ThreadPoolExecutor(self.workers) as pool:
            for place, image in enumerate(pool.map(self.one, rows.tolist())):
                out[place] = image
        return out

    def one(self, row: int) -> np.ndarray:
        _, size, _, channels = self.shape
        try:
            data = self.readers[row // SHARD].read([row % SHARD])[0]
        except RuntimeError as error:  # it has a checksum of its own
            raise self.damage(row, str(error)) from error
        if checked.sum_of(data) != self.sums[row].tobytes():
            raise self.damage(row, "its bytes are not those that were stored")
        if not data:
            return np.zeros(self.shape[1:], np.uint8)
        return decode.decode(data, size, channels)

    def damage(self, row: int, reason: str) -> ValueError:
        """The error for a damaged shard, which is made again when it is next opened."""
        path = shard(self.folder, row)
        # Without its .json the shard is made again; a read-only cache stays as it is.
        with suppress(OSError):
            path.with_suffix(".json").unlink()
        return ValueError(
            f"{path} is damaged ({self.names[row]}: {reason}). Start again: it is made"
            " anew. Where the cache cannot be written, take another with"
            " --config.data.cache=FOLDER."
        )
