"""The run folder: whose it is, when it is done, what made it.

config.json comes first, result.json last and atomically: a run is done exactly
when result.json exists.
"""

import json
import os
import shutil
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from bigxfer import durable

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
OPTIONAL = ("keras",)


def finished(folder: Path, digest: str) -> dict | None:
    """The result of the run in this folder, None if there is none yet."""
    for name in ("result.json", "config.json"):
        if (folder / name).exists():
            found = durable.read_json(folder / name)
            if found["digest"] != digest:
                raise ValueError(
                    f"{folder} holds another config's run ({found['digest']}, not"
                    f" {digest}); take another --workdir, or move that run away"
                )
            if name == "result.json":
                return found
    return None


def tidy(folder: Path) -> None:
    """Remove the checkpoints of a finished run, which was killed before it did so."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in PACKAGES}
    for name in OPTIONAL:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def commit() -> str:
    """The commit of this source tree, "-dirty" where it was changed since."""
    here = Path(__file__).parents[1]

    def git(*args: str) -> str:
        call = ["git", "-C", str(here), *args]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = "-dirty" if git("status", "--porcelain", "--", ".") else ""
    return git("rev-parse", "HEAD") + changed or "unknown"


def check_data(folder: Path, manifest_hash: str) -> None:
    """Raises ValueError where the run in this folder was begun with other data."""
    path = folder / "config.json"
    if path.exists():
        before = durable.read_json(path)["manifest_hash"]
        if before != manifest_hash:
            raise ValueError(
                f"{folder} was begun with other data (manifest {before[:12]}, now"
                f" {manifest_hash[:12]}); resume with the same data, or take another"
                " --workdir"
            )


def progress(folder: Path) -> tuple[int, int]:
    """(step reached, steps of the run), by metrics.jsonl and config.json; 0: unknown."""
    step = steps = 0
    with suppress(OSError, ValueError, IndexError, KeyError):
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(-min(4096, os.path.getsize(file.name)), os.SEEK_END)
            whole = file.read().rpartition(b"\n")[0]  # the last line may be half there
        step = json.loads(whole.splitlines()[-1])["step"]
    with suppress(OSError, ValueError, KeyError):
        steps = durable.read_json(folder / "config.json")["plan"]["steps"]
    return step, steps
