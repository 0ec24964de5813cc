"""A place for one worker of a pool: its process, what that says, and how it ended."""

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bigxfer.study import grid

KILLED = "killed by SIGKILL"


@dataclass
class Slot:
    """A place for one worker: its process, what it does, and since when."""

    environ: Mapping[str, str]
    process: subprocess.Popen | None = None
    node: grid.Node | None = None
    claim: Path = Path()
    ready: bool = False  # it has imported all that it needs, and found its device
    touched: float = 0.0  # time.monotonic(), as `moved`
    moved: float = 0.0  # when the run folder last changed
    newest: float = 0.0  # the mtime by which that is known
    verdict: str = ""  # why the pool itself has killed it
    shapes: set[str] = field(default_factory=set)  # of what its process has run

    def start(self, command: Sequence[str], inbox: queue.Queue) -> subprocess.Popen:
        """Start a worker, whose answers go to `inbox`."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=dict(self.environ)
        )
        self.process, self.ready = process, False
        self.shapes = set()  # a new process has compiled nothing
        threading.Thread(target=pump, args=(process, inbox), daemon=True).start()
        return process

    def end(self) -> None:
        """Kill the worker, at once."""
        process, self.process = self.process, None
        if process:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                assert process.stdin
                process.stdin.close()


def pump(process: subprocess.Popen, inbox: queue.Queue) -> None:
    """In a thread: what the worker prints goes to the inbox, and then its end."""
    assert process.stdout
    with process.stdout as lines, suppress(ValueError):  # a line that was cut
        for line in lines:
            inbox.put((process, json.loads(line)))
    inbox.put((process, None))


def newest(folder: Path) -> float:
    """The latest change of a file of a run, its checkpoints or its trials; 0: none."""
    latest = 0.0
    for path in (*(folder, folder / "checkpoints"), *folder.glob("trials/*/**/")):
        with suppress(FileNotFoundError):
            for entry in os.scandir(path):
                # The pool touches these itself: they tell nothing of the run.
                if entry.name != "tries":
                    with suppress(FileNotFoundError):
                        latest = max(latest, entry.stat().st_mtime)
    return latest


def describe(status: int) -> str:
    """How a worker ended, such as "killed by SIGKILL"."""
    number = -status if status < 0 else status - 128  # srun reports as a shell does
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"ended with status {status}"
