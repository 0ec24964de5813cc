"""Who works on a run, and how its earlier tries ended: runs/DIGEST/tries/N.json.

A try is a file that exactly one process can make, so that nobody else writes the run
folder: it is linked into place, which is atomic on shared file systems too (NFS,
GPFS, Lustre) and needs no flock. Its owner touches it while the run gets on, and
writes into it how it ended. A try whose owner is gone has no end: on the owner's
machine that is seen at once by its process id, elsewhere after STALE seconds; then
the next number may be made, and the old owner, should it wake up, sees that number
and kills its worker.
"""

import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigxfer import durable

# Seconds without a touch. Clocks of a cluster agree better than this: munge, by which
# Slurm knows its nodes, refuses what is 300 s off.
STALE = 300.0
STRIKES = 3  # failures of one kind, at one place, after which a run is given up
# The same for tries whose end nobody saw: the launcher was killed, the node went down.
# That is seldom the run's own fault.
LOST = 20

UNKNOWN = {"host": "?", "machine": "", "pid": 0, "born": "", "job": "", "saved": 0}


@dataclass(frozen=True)
class Try:
    """One try of a run, as its file says."""

    path: Path
    owner: dict[str, Any]
    end: dict[str, Any] | None  # how, kind, message, saved; None: none seen
    touched: float  # seconds since the epoch

    @property
    def number(self) -> int:
        return int(self.path.stem)

    def alive(self, now: float) -> bool:
        """Whether its owner may still be at it."""
        if self.end is not None:
            return False
        # A process id means nothing on another machine, or after a reboot.
        if self.owner["machine"] == machine():
            return running(self.owner["pid"], self.owner["born"])
        return now - self.touched < STALE


@dataclass(frozen=True)
class Past:
    """What the tries of a run amount to."""

    tries: list[Try] = field(default_factory=list)
    strikes: int = 0  # failures of the last kind since it last got on
    given_up: bool = False

    @property
    def error(self) -> str:
        """How the last failure came about, on one line; "" where none did."""
        for tried in reversed(self.tries):
            if tried.end and tried.end["how"] == "failed":
                return f"{tried.end['kind']}: {tried.end['message']}".rstrip(": ")
        return "its launcher was killed" if self.given_up else ""


def read(folder: Path) -> list[Try]:
    """The tries of a run folder, by number; none where it does not exist."""
    names = []
    with suppress(FileNotFoundError):
        names = [
            n for n in os.listdir(folder / "tries") if re.fullmatch(r"\d+.json", n)
        ]
    claims = []
    # By number: 10 after 9.
    for path in sorted(
        (folder / "tries" / n for n in names), key=lambda p: int(p.stem)
    ):
        text, touched = contents(path), path.stat().st_mtime
        claims.append(Try(path, text["owner"], text["end"], touched))
    return claims


def contents(path: Path) -> dict[str, Any]:
    """What a try says. One that cannot be read is of an unknown owner, without an end."""
    try:
        text = durable.read_json(path)
        return {"owner": {**UNKNOWN, **text["owner"]}, "end": text["end"]}
    except (ValueError, KeyError, TypeError):
        # Where the power went in the middle; it holds the run for STALE seconds.
        return {"owner": dict(UNKNOWN), "end": None}


def past(folder: Path, tries: list[Try]) -> Past:
    """Counts the failures: those of one kind since the run last saved more."""
    if not tries:
        return Past()
    here, kinds, lost = saved(folder), Counter(), 0
    # Latest first: what failed before the run got on says nothing of today.
    for tried in reversed(tries):
        end = tried.end or {"how": "lost", "saved": tried.owner["saved"]}
        if end["how"] == "forgiven" or end["saved"] != here:
            break
        lost += end["how"] == "lost"
        if end["how"] == "failed":
            kinds[end["kind"]] += 1
    strikes = max(kinds.values(), default=0)
    return Past(tries, strikes, strikes >= STRIKES or lost > LOST)


def claim(folder: Path, tries: list[Try]) -> Path | None:
    """The file of this process's own new try; None where another was quicker.

    `tries` are those that were read when the run was judged to be free. A
    worker of a killed launcher, should it still run, is killed.
    """
    if tries and tries[-1].end is None:
        kill_orphan(tries[-1].owner)
    path = folder / "tries" / f"{tries[-1].number + 1 if tries else 1}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "born": born(os.getpid()),
        "job": job_id(os.environ),
        "saved": saved(folder),
    }
    text = durable.to_json({"owner": owner, "end": None})
    # The number makes it exclusive: two launchers that judged alike want the same file.
    return path if durable.create(path, text) else None


def add_worker(path: Path, pid: int) -> None:
    """Notes the process that does the work, for `claim` to find."""
    about = contents(path)
    about["owner"] |= {"worker": pid, "worker_born": born(pid)}
    durable.write_json(path, about)


def touch(path: Path) -> bool:
    """Says that the run gets on; False where it was taken over, or its folder is gone."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    # We may have slept longer than STALE, and another launcher made the next try.
    return not path.with_name(f"{int(path.stem) + 1}.json").exists()


def finish(path: Path, how: str, kind: str = "", message: str = "") -> None:
    """Writes how a try ended: done, failed, or released (stopped, to go on later)."""
    about = contents(path)
    where = saved(path.parents[1])
    about["end"] = {"how": how, "kind": kind, "message": message, "saved": where}
    durable.write_json(path, about)


def forgive(folder: Path) -> None:
    """Lets a run that was given up start afresh: its failures count no longer."""
    claims = read(folder)
    if past(folder, claims).given_up and (path := claim(folder, claims)):
        finish(path, "forgiven")


def saved(folder: Path) -> int:
    """The step from which the run would go on: that of its last whole checkpoint."""
    with suppress(FileNotFoundError):
        steps = [p for p in (folder / "checkpoints").iterdir() if p.name.isdigit()]
        return max((int(p.name) for p in steps if (p / "record").exists()), default=0)
    return 0


def kill_orphan(owner: Mapping[str, Any]) -> None:
    """Kills the worker that a killed launcher left on this machine, if it lives."""
    # With its start, since the id may be another process's by now.
    pid = owner.get("worker")
    if pid and owner["machine"] == machine() and running(pid, owner["worker_born"]):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def machine() -> str:
    """Names what process ids are unique in: a boot of a machine, and a namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Two containers of one machine can have the same process id.
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def born(pid: int) -> str:
    """When a process began, in clock ticks; tells it from a later one of its id."""
    try:
        # After the last ")": a program's name in it may hold spaces and brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def running(pid: int, since: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # It lives, as another user's.
    except PermissionError:
        pass
    return born(pid) == since and not zombie(pid)


def zombie(pid: int) -> bool:
    """Whether it is dead, but its parent has not looked yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"


def job_id(environ: Mapping[str, str]) -> str:
    """The Slurm job that this is, "17" or "17_3"; "" outside of Slurm."""
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environ.get('SLURM_ARRAY_TASK_ID', 0)}"
    return environ.get("SLURM_JOB_ID", "")
