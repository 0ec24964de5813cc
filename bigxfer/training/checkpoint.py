"""Checkpoints that survive kill -9, another number of devices, and bad disks.

The only file that imports orbax. A step lies in FOLDER/STEP/: orbax's files in
`state/` and our `record`, written last. Orbax renames `state` into place when all of
it is written; the record holds the sha256 of every file and seals itself, because
orbax restores a flipped bit in silence. A step is complete exactly when its record
exists; anything else is left over from a killed run and is ignored. Where the latest
step is damaged, the one before it serves.
"""

import json
import logging
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from bigxfer import durable
from bigxfer.training import processes
from bigxfer.tree import unlike

KEEP = 2  # the latest: one more than needed, in case the last is damaged
PATTERNS = re.compile(r"[][*?\\]")  # orbax finds its own files by a glob of their path


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which and what to do."""


class Damaged(CheckpointError):
    """A checkpoint that is not as it was written; another one may serve."""


class Checkpoints:
    """The checkpoints of one run, in a folder that all its processes share.

    `digest` is the run's: checkpoints of another are refused. All processes call
    every method in the same order. Process 0 alone writes records and deletes.
    """

    def __init__(self, folder: Path | str, digest: str):
        self.folder = Path(folder).absolute()  # orbax refuses relative paths
        self.digest = digest
        self.orbax_folder = self.folder
        if PATTERNS.search(str(self.folder)):
            alias = Path(tempfile.mkdtemp(prefix="bigxfer-"))
            weakref.finalize(self, shutil.rmtree, alias, ignore_errors=True)
            self.orbax_folder = alias / "checkpoints"
            self.orbax_folder.symlink_to(self.folder)  # a path without such characters
        self.orbax = ocp.StandardCheckpointer()  # it writes in the background
        # It logs a traceback for each of its threads; what went wrong is raised here.
        logging.getLogger("absl").addFilter(_not_orbax)
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.pending: list[Future] = []

    def save(self, step: int, tree: Any, extra: dict[str, Any]) -> None:
        """Start to save a tree of arrays and a dict that json can hold.

        Returns when the arrays are copied, so that their buffers may be donated; the
        writing goes on in the background. Waits for the save before it, and raises
        what went wrong there. Latest, marked best, and this one are kept. Raises OSError
        where the step cannot be written; the steps before it stay.
        """
        self.wait()
        flat = _flatten(tree)
        record = {
            "step": step,
            "digest": self.digest,
            "extra": extra,
            "leaves": {name: _form(leaf) for name, leaf in flat.items()},
        }
        text = json.dumps(record)  # now: the caller may change `extra` afterwards
        path = self.folder / str(step)
        with self._told(step):
            if jax.process_index() == 0:
                self._clean()
                _remove(path)
                path.mkdir(parents=True)
            # nobody writes into a folder yet to be removed
            processes.barrier("checkpoint-folder")
            size = sum(leaf.nbytes for leaf in flat.values())
            if size > (free := shutil.disk_usage(self.folder).free):
                wanted = f"{size / 1e9:.2f} GB are needed, {free / 1e9:.2f} free"
                raise OSError(f"No space left on device: {wanted}")
            self.orbax.save(self.orbax_folder / str(step) / "state", flat)
        # One thread, so that a mark is made after the save that it is of.
        self.pending = [self.thread.submit(self._finish, step, json.loads(text))]

    def _finish(self, step: int, record: dict[str, Any]) -> None:
        """Seal the step, in the background, once orbax has written it."""
        with self._told(step):
            self.orbax.wait_until_finished()
            if jax.process_index() == 0:
                path = self.folder / str(step)
                record["sums"] = durable.sums(path / "state")
                durable.write_sealed(path / "record", record)
                # the step's own name too has to survive a crash
                durable.sync_folder(self.folder)
        if jax.process_index() == 0:
            self._prune()

    @contextmanager
    def _told(self, step: int) -> Iterator[None]:
        """Raise one OSError, which says what to do, for all that goes wrong in a write."""
        try:
            yield
        except (ValueError, OSError) as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            why = os.strerror(int(code[1])) if code else error
            if jax.process_index() == 0:  # what there is of it would fill the disk
                _remove(self.folder / str(step))
            there = f"step {self.latest()}" if self.steps() else "the start"
            raise OSError(
                f"the checkpoint of step {step} cannot be written to {self.folder}:"
                f" {why}. Mend that, and start the same command again: it goes on from"
                f" {there}"
            ) from error

    def _clean(self) -> None:
        """Remove what killed runs left: steps without a record."""
        complete = self.steps()
        for path in self._folders():
            if int(path.name) not in complete:  # orbax refuses a `state` that exists
                _remove(path)

    def _prune(self) -> None:
        keep = set(self.steps()[-KEEP:]) | {self.best()}
        for step in self.steps():
            if step not in keep:
                _remove(self.folder / str(step))

    def wait(self) -> None:
        """Wait until the save under way is complete; raise what went wrong in it."""
        pending, self.pending = self.pending, []
        for future in pending:
            future.result()
        if pending:
            processes.barrier("checkpoint-written")

    def mark_best(self, step: int) -> None:
        """Keep this step, saved or being saved, until another is marked.

        In the background, after the save under way; `wait` raises CheckpointError if
        there is no such step. A run killed between the two has the step but not the
        mark, so mark it again on resuming: twice does no harm.
        """
        self.pending.append(self.thread.submit(self._mark, step))

    def _mark(self, step: int) -> None:
        if jax.process_index() == 0:
            if step not in self.steps():
                raise CheckpointError(f"no checkpoint of step {step} in {self.folder}")
            durable.write_sealed(self.folder / "best", {"step": step})
            self._prune()

    def best(self) -> int | None:
        """The marked step; None if there is none, or it was deleted."""
        path = self.folder / "best"
        if not path.exists():
            return None
        try:
            step = durable.read_sealed(path)["step"]
        except ValueError as error:
            raise Damaged(f"damaged checkpoint: {error}; delete it") from error
        return step if step in self.steps() else None

    def steps(self) -> list[int]:
        """The complete steps, ascending."""
        complete = [p for p in self._folders() if (p / "record").is_file()]
        return sorted(int(path.name) for path in complete)

    def latest(self) -> int | None:
        """The last complete step; None if there is none."""
        return max(self.steps(), default=None)

    def restore_latest(
        self, like: Any, warn: Callable[[str], None]
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, tree, extra) of the last step that is sound; None if there is no step.

        A damaged step before it counts as no longer there, and `warn` gets a line. Raises
        CheckpointError where all are damaged, and as `restore` does.
        """
        self.wait()
        for step in reversed(self.steps()):
            try:
                return step, *self._restore(step, like)
            except Damaged as error:
                before = [s for s in self.steps() if s < step]
                if not before:
                    raise self._hopeless(error) from error
                warn(f"{error}. Going on from step {before[-1]} in its place")
            if jax.process_index() == 0:  # saved again later, it is a new one
                (self.folder / str(step) / "record").unlink()
            processes.barrier("checkpoint-unsealed")
        return None

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """(tree, extra) of a step, the tree in the form of `like`.

        `like` holds arrays or ShapeDtypeStructs; each leaf comes back, to the bit, with
        the sharding that its twin in `like` has (none: on the first device), whatever
        devices it was saved from. Raises CheckpointError for a missing step, one of
        another run, and leaves that do not fit, listed; Damaged for a damaged one.
        """
        try:
            return self._restore(step, like)
        except Damaged as error:
            raise self._hopeless(error) from error

    def _hopeless(self, error: Damaged) -> Damaged:
        return Damaged(f"{error}; delete {self.folder} to start from step 0")

    def _restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        self.wait()
        path = self.folder / str(step)
        record = self._verified(step)
        wanted = _flatten(like)
        _compare(path, record["leaves"], {n: _form(v) for n, v in wanted.items()})
        target = {name: _struct(leaf) for name, leaf in wanted.items()}
        flat = self.orbax.restore(self.orbax_folder / str(step) / "state", target)
        leaves = [flat[name] for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), record["extra"]

    def _verified(self, step: int) -> dict[str, Any]:
        """The record of a step whose files all have their sums.

        Process 0 reads the files for all; the others learn whether they are sound.
        """
        path, problem, record = self.folder / str(step), None, {}
        try:
            if step not in self.steps():
                raise CheckpointError(
                    f"no complete checkpoint of step {step} in {self.folder}; "
                    f"there are {self.steps()}"
                )
            with _damaged(path):
                record = durable.read_sealed(path / "record")
            if record["digest"] != self.digest:
                raise CheckpointError(
                    f"{path} is of the run {record['digest']}, not of {self.digest}: "
                    "give another workdir, or delete that folder"
                )
            if jax.process_index() == 0:
                with _damaged(path):
                    durable.check_sums(path / "state", record["sums"])
        except CheckpointError as error:
            problem = error
        kinds = [None, Damaged, CheckpointError]  # the worst one counts for all
        worst = kinds[
            # Who went on alone would wait for the others in orbax's restore.
            processes.largest(kinds.index(type(problem) if problem else None))
        ]
        if worst and type(problem) is not worst:
            problem = worst(f"{path} cannot be used: see the other processes' logs")
        if problem:
            raise problem
        return record

    def delete(self) -> None:
        """Remove all of it: the run is finished."""
        self.wait()
        if jax.process_index() == 0:
            for path in self._folders():
                _remove(path)
            shutil.rmtree(self.folder, ignore_errors=True)
        processes.barrier("checkpoint-deleted")

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [p for p in self.folder.iterdir() if re.fullmatch(r"\d+", p.name)]


def _flatten(tree: Any) -> dict[str, Any]:
    """{name: leaf} in the order of jax.tree.leaves."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    flat = {jax.tree_util.keystr(p, simple=True, separator="/"): v for p, v in paths}
    if len(flat) != len(paths):
        raise ValueError("two leaves of the tree have the same name")
    return flat


def _form(leaf: Any) -> list:
    return [list(leaf.shape), str(leaf.dtype)]


def _struct(leaf: Any) -> jax.ShapeDtypeStruct:
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place = getattr(leaf, "sharding", None) or first
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def _compare(path: Path, have: dict[str, list], want: dict[str, list]) -> None:
    """Raise CheckpointError where names or forms differ: orbax pads them in silence."""
    if lines := unlike(have, want, "form", "the run"):
        raise CheckpointError(f"{path} does not fit this run:\n{lines}")


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Raise Damaged, which names the step's folder, for what cannot be read in it."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise Damaged(f"damaged checkpoint {path}: {error}") from error


def _not_orbax(record: logging.LogRecord) -> bool:
    """Whether a line of absl's log is not one of orbax's tracebacks."""
    return not (record.exc_info and "orbax" in record.pathname)


def _remove(path: Path) -> None:
    """Remove the folder of a step, if it is there."""
    (path / "record").unlink(missing_ok=True)  # first: half a step must not look whole
    shutil.rmtree(path, ignore_errors=True)
