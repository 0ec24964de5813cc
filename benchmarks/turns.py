"""Processes that take turns on one machine, so that its moods strike all of them alike.

On a shared machine the speed of a process changes by tens of per cent from one minute to
the next. Each of the things that are compared lives in a process of its own, asleep
but for its turns of a second or two, and ratios are taken within a round of turns.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Self

from bigxfer import host

Steps = Callable[[int], Any]  # (n) does n steps and returns when they are done
# () -> the steps, and what is known of them
Make = Callable[[], tuple[Steps, dict[str, Any]]]


class Worker:
    """A process that runs `serve` or `reply`; a context manager that ends it."""

    def __init__(self, call: list[str], env: Mapping[str, str]):
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            call, stdin=pipe, stdout=pipe, stderr=self.said, text=True, env=env
        )

    def ask(self, what: str) -> dict[str, Any]:
        """Its answer; RuntimeError with its last words if it fails."""
        self.tell(what)
        return self.answer()

    def tell(self, what: str) -> None:
        """Asks without waiting: for processes that work together."""
        assert self.process.stdin
        with suppress(BrokenPipeError):  # where it has ended no answer comes either
            print(what, file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """The answer to what was told first of what is not answered yet."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries print, too
                return json.loads(line)
        self.said.seek(0)
        raise RuntimeError(f"{self.process.args}:\n{self.said.read()[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()


def serve(makes: Mapping[str, Make], seconds: float, peak: Callable[[], int]) -> None:
    """Answers a name by making it, and "turn" by running it for the seconds given.

    To a name: what is known of the steps. To "turn": {"seconds", "cpu_seconds"} of a
    step, and the peak of memory in bytes up to then.
    """
    steps: Steps | None = None

    def answer(what: str) -> dict[str, Any]:
        nonlocal steps
        if what == "turn":
            assert steps is not None, "nothing was made"
            return turn(steps, seconds) | {"peak_bytes": peak()}
        steps = None  # before the next are made
        steps, known = makes[what]()
        host.give_back()  # what making it has left in memory
        steps(1)
        return known

    reply(answer)


def reply(answer: Callable[[str], dict[str, Any]]) -> None:
    """Answers each line of stdin with a line of json."""
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), flush=True)


def turn(steps: Steps, seconds: float) -> dict[str, float]:
    """Of one step. The first does not count: others have used the caches since."""
    began = time.perf_counter()
    steps(1)
    count = max(1, round(seconds / (time.perf_counter() - began)))
    began, worked = time.perf_counter(), time.process_time()
    steps(count)
    wall, cpu = time.perf_counter() - began, time.process_time() - worked
    return {"seconds": wall / count, "cpu_seconds": cpu / count}


def median(values: Iterable[float]) -> tuple[float, float, float]:
    """And its 95% interval, by ranks: of fewer than six values all of their range."""
    from scipy.stats import binom  # here: not every worker's Python has it

    ranked = sorted(values)
    least = max(0, int(binom.ppf(0.025, len(ranked), 0.5)) - 1)
    return statistics.median(ranked), ranked[least], ranked[-1 - least]
