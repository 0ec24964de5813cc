"""Processes that take turns on one machine, so that its moods strike all of them alike.

On a shared machine the speed of a process changes by tens of per cent from one minute to
the next. Each of the things that are compared lives in a process of its own, asleep
but for its turns of a second or two, and ratios are taken within a round of turns.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

from bigxfer import host

Steps = Callable[[int], Any]  # (n) does n steps and returns when they are done
# () -> the steps, and what is known of them
Make = Callable[[], tuple[Steps, dict[str, Any]]]


class Worker:
    """A process that runs `serve`; a context manager that ends it."""

    def __init__(self, call: list[str], env: Mapping[str, str]):
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            call, stdin=pipe, stdout=pipe, stderr=self.said, text=True, env=env
        )

    def ask(self, what: str) -> dict[str, Any]:
        """Its answer to a name or "turn"; RuntimeError with its last words if it fails."""
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):  # where it has ended no answer comes either
            print(what, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries print, too
                return json.loads(line)
        self.said.seek(0)
        raise RuntimeError(f"{self.process.args}, {what}:\n{self.said.read()[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()


def serve(makes: Mapping[str, Make], seconds: float, peak: Callable[[], int]) -> None:
    """Answers a name by making that, and "turn" by doing it for so many seconds.

    To a name: what is known of the steps. To "turn": {"seconds", "cpu_seconds"} of a
    step, and the peak of memory in bytes up to then.
    """
    steps: Steps | None = None
    for line in sys.stdin:
        if (name := line.strip()) == "turn":
            assert steps is not None, "nothing was made"
            answer = turn(steps, seconds) | {"peak_bytes": peak()}
        else:
            steps = None  # before the next are made
            steps, answer = makes[name]()
            host.give_back()  # what making it has left in memory
            steps(1)
        print(json.dumps(answer), flush=True)


def turn(steps: Steps, seconds: float) -> dict[str, float]:
    """Of one step. The first does not count: others have used the caches since."""
    began = time.perf_counter()
    steps(1)
    count = max(1, round(seconds / (time.perf_counter() - began)))
    began, worked = time.perf_counter(), time.process_time()
    steps(count)
    wall, cpu = time.perf_counter() - began, time.process_time() - worked
    return {"seconds": wall / count, "cpu_seconds": cpu / count}
