"""The run folder: whose it is, when it is done, what made it.

config.json comes first, result.json last and atomically. Each holds the sha256 of its own
content; result.json also that of every other file. A run is done exactly when both can
be read and fit their sums. Format 1 (no field "format") had no sums.
"""

import fcntl
import json
import logging
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from bigxfer import durable

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
OPTIONAL = ("keras",)
FORMAT = 2  # of config.json and result.json: since 2 they have sums
FILES = (  # that result.json has the sums of; card.md says only what these say
    *("config.json", "metrics.jsonl", "params.npz", "images.npz"),
    *("predictions.npz", "predictions_valid.npz", "predictions_folds.npz"),
    "support.txt",
)


def write(path: Path, value: dict[str, Any]) -> None:
    """Write config.json or result.json with the sum of its own content."""
    value = {"format": FORMAT, **value}
    durable.write_json(path, {**value, durable.SEAL: durable.seal(value)})


@contextmanager
def alone(folder: Path, primary: bool) -> Iterator[None]:
    """Hold a run folder against other commands, by its file `lock`, while within.

    Wait for the process that holds it, and name it. Of the processes of one run the
    first holds it for all. Where the file system knows no locks, nobody holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # One lock for all processes of a run: the others would wait for their own first.
    file = lock(folder) if primary else None
    try:
        yield
    finally:
        if file:
            # While it is held: who waits for this file then sees that it is gone.
            Path(file.name).unlink(missing_ok=True)
            file.close()


def lock(folder: Path) -> IO[str] | None:
    """The open lock file of a folder, once it is ours; None: there are no locks here."""
    path = folder / "lock"
    while True:
        # "a+" creates the file but keeps the holder's line, which is read below.
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            logging.getLogger("bigxfer").info(
                f"{folder}: {file.read().strip() or 'another process'} is at this run;"
                " waiting for it to end"
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        # Such as ENOLCK, of a network file system without locks.
        except OSError:
            file.close()
            return None
        with suppress(FileNotFoundError):
            # Else two commands could hold two files of this name, one of them removed.
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                break
        file.close()  # its holder has removed it
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def begin(folder: Path, about: dict[str, Any]) -> None:
    """Write config.json; a result.json that is there is damaged, and goes."""
    # First: a folder with a new config.json and an old result.json must never be seen.
    (folder / "result.json").unlink(missing_ok=True)
    write(folder / "config.json", about)


def read(path: Path) -> dict[str, Any]:
    """Read config.json or result.json; ValueError that names it where it is damaged."""
    value = durable.read_json(path)
    if "format" not in value and durable.SEAL not in value:
        return value  # older than the sums
    return durable.read_sealed(path)


def sums(folder: Path) -> dict[str, str]:
    """{name: sha256} of the files that a run has written, for result.json."""
    there = [folder / name for name in FILES if (folder / name).is_file()]
    there += sorted(folder.glob("predictions_external_*.npz"))
    return {path.name: durable.sha256(path) for path in there}


def tidy(folder: Path) -> None:
    """Remove what a run needs only until it is finished: checkpoints and trials."""
    for name in ("checkpoints", "trials"):
        # What is left costs disk, not results: it must not fail a finished run.
        shutil.rmtree(folder / name, ignore_errors=True)


def now() -> str:
    return datetime.now(UTC).isoformat(" ", "minutes")


def versions() -> dict[str, str]:
    packages = {name: metadata.version(name) for name in PACKAGES}
    # Keras is an extra, and only its models depend on it.
    for name in OPTIONAL:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return packages


def commit() -> str:
    """The commit of this source tree, "-dirty" where it was changed since.

    "unknown" for an installed wheel, also where it lies within somebody's repository, and
    where there is no git.
    """
    here = Path(__file__).parents[1]
    if not shutil.which("git"):
        return "unknown"

    def git(*args: str) -> str:
        call = ["git", "-C", str(here), *args]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    # In somebody's repository git finds a HEAD, but the wheel's files are not in it.
    if not git("ls-files", "--", "tree.py"):
        return "unknown"
    # "." alone: a changed README or a results folder does not change the package.
    changed = "-dirty" if git("status", "--porcelain", "--", ".") else ""
    return git("rev-parse", "HEAD") + changed


def progress(folder: Path) -> tuple[int, int]:
    """(step reached, steps of the run), by metrics.jsonl and config.json; 0: unknown."""
    step = steps = 0
    with suppress(OSError, ValueError, IndexError, KeyError):
        with (folder / "metrics.jsonl").open("rb") as file:
            # The end alone: status and watch ask this of every run of a study.
            file.seek(-min(4096, os.path.getsize(file.name)), os.SEEK_END)
            whole = file.read().rpartition(b"\n")[0]  # the last line may be half there
        step = json.loads(whole.splitlines()[-1])["step"]
    with suppress(OSError, ValueError, KeyError):
        steps = read(folder / "config.json")["plan"]["steps"]
    return step, steps
