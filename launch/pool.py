"""Workers on this machine: gives them ready runs, watches them, starts them anew.

A pool claims a run (study/claims.py) before it hands it to one of its workers, touches
the claim while the run gets on, and writes down how the try ended. A worker that dies
is started anew; one whose run folder has not changed for `hang` seconds is killed
first, whatever it is stuck in: a thread of its own that lives on proves nothing. When
the pool dies, however it dies, its workers do at once: the pipes to them close.
"""

import queue
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bigxfer.runs import folders
from bigxfer.study import claims, grid
from launch.slot import KILLED, Slot, describe, newest

RELEASED = (75, -signal.SIGTERM, 128 + signal.SIGTERM)  # exit statuses; 75: run saved
TOUCH = 10.0  # seconds between touches of a claim; far below claims.STALE


def show(line: str) -> None:
    print(line, flush=True)


@dataclass
class Pool:
    """Runs of one study, on as many workers as there are environments.

    `command` starts a worker, `hang` is in seconds, `say` takes a line for people. The
    pool ends when nothing is left to do, or after `patience` seconds without work of its
    own. Set `stopping` (a signal handler may) to make all workers save and exit; after
    `grace` seconds they are killed. With `leave` the pool also stops once somebody else
    stopped a worker: the machine is about to go.
    """

    study: list[grid.Node]
    runs: Path
    command: Sequence[str]
    environs: Sequence[Mapping[str, str]]
    hang: float
    say: Callable[[str], None] = show
    patience: float = float("inf")
    grace: float = 60.0
    leave: bool = False
    pass_on: bool = True  # SIGTERM; srun would kill its tasks, which get Slurm's own
    stopping: bool = False

    def __post_init__(self) -> None:
        self.slots = [Slot(environ) for environ in self.environs]
        self.inbox: queue.Queue = queue.Queue()  # (process, its answer or None: ended)
        self.done: set[str] = set()
        self.began = self.idle_since = time.monotonic()
        self.next_look, self.unready = 0.0, 0
        self.finished = 0  # runs, without caches, that this launch did
        self.deadline = float("inf")  # for those that were asked to leave

    def run(self) -> None:
        """Work until there is nothing left to do, or until `stopping` is set.

        Raises OSError when workers die again and again before they are ready to work.
        """
        try:
            while self.busy() or not self.stopping:
                if self.stopping:
                    self.ask_to_leave()
                elif time.monotonic() >= self.next_look and self.hand_out():
                    break
                self.listen(0.5)
                for slot in self.busy():
                    self.watch(slot)
        finally:
            for slot in self.slots:
                slot.end()

    def busy(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.node]

    def ask_to_leave(self) -> None:
        """SIGTERM to every worker, once; those that do not leave in time are killed."""
        if self.deadline == float("inf"):
            self.deadline = time.monotonic() + self.grace
            for slot in self.slots:
                if slot.process and self.pass_on:
                    # a worker saves its step and exits with 75
                    slot.process.terminate()
        elif time.monotonic() > self.deadline:
            for slot in self.busy():
                self.finish(slot, "released")
                slot.end()

    def hand_out(self) -> bool:
        """Gives each idle slot a ready run; True when there is nothing left to do."""
        idle = [slot for slot in self.slots if not slot.node]
        if not idle:
            return False
        began = time.monotonic()
        known = set(self.done)
        states = grid.states(self.study, self.runs, self.done)
        for state in states:
            if state.state == "done" and state.node.digest not in known:
                # of a kill after result.json
                folders.tidy(state.node.folder(self.runs))
        ready = [state for state in states if state.state == "ready"]
        ready.sort(key=lambda state: bool(state.error))  # those that failed: last
        while ready and idle:
            state = ready.pop(self.best(idle[0], [s.node for s in ready]))
            claim = claims.claim(state.node.folder(self.runs), state.tries)
            if claim and state.damage:
                self.say(f"{state.node.digest}: {state.damage}; it is done again")
            if claim:
                self.give(idle.pop(0), state.node, claim)
        now = time.monotonic()
        self.next_look = now + 20 * (now - began)  # spares the file system
        if self.busy():
            self.idle_since = now
            return False
        # A run is unchecked only while its cache is left to be opened.
        over = ("done", "given up", "unchecked")
        left = [s for s in states if s.state not in over]
        return not left or now - self.idle_since > self.patience

    def best(self, slot: Slot, ready: list[grid.Node]) -> int:
        """Which of these a slot should get, of equal ones the first.

        What others wait for comes first, then what shares programs that the worker has
        compiled, then what no other worker has.
        """
        others = set().union(*(s.shapes for s in self.slots if s is not slot))

        def rank(n: int) -> tuple[bool, bool, bool]:
            node = ready[n]
            last = node.kind == "transfer", node.shape not in slot.shapes
            return *last, node.shape in others

        return min(range(len(ready)), key=rank)

    def give(self, slot: Slot, node: grid.Node, claim: Path) -> None:
        process = slot.process or slot.start(self.command, self.inbox)
        claims.add_worker(claim, process.pid)
        slot.node, slot.claim, slot.verdict = node, claim, ""
        slot.shapes.add(node.shape)
        slot.moved = slot.touched = time.monotonic()
        slot.newest = 0.0
        with suppress(BrokenPipeError):  # its end is on its way to the inbox
            assert process.stdin
            process.stdin.write(f"{node.digest}\n")
            process.stdin.flush()

    def listen(self, seconds: float) -> None:
        """Takes what the workers say, waiting for it for so long at most."""
        try:
            process, answer = self.inbox.get(timeout=seconds)
        except queue.Empty:
            return
        slot = next((s for s in self.slots if s.process is process), None)
        if slot is None:  # killed by ourselves
            return
        if answer is None:
            self.ended(slot, process.wait())
        elif answer["how"] == "ready":
            slot.ready, slot.moved, self.unready = True, time.monotonic(), 0
        else:
            self.stopping |= self.leave and answer["how"] == "released"
            self.finish(slot, **answer)
            if answer["how"] == "failed":  # it is leaving: no more runs for it
                slot.end()

    def ended(self, slot: Slot, status: int) -> None:
        """A worker has ended: what that means for its run, if it had one."""
        slot.end()
        if not self.pass_on and describe(status) == KILLED:
            time.sleep(5)  # Slurm kills srun first, if the whole job is to end
        if slot.verdict:
            self.finish(slot, "failed", "hung", slot.verdict)
        elif status in RELEASED or self.stopping:
            self.stopping |= self.leave
            self.finish(slot, "released")
        elif slot.ready:
            why = "out of memory?" if describe(status) == KILLED else ""
            self.finish(slot, "failed", describe(status), why)
        else:  # not the run's fault
            self.finish(slot, "released")
            self.unready += 1
            if self.unready == claims.STRIKES:
                raise OSError(
                    f"{self.unready} workers in a row died before they were ready"
                    f" ({describe(status)}); see above, or try\n  {shlex.join(self.command)}"
                )

    def finish(self, slot: Slot, how: str, kind: str = "", message: str = "") -> None:
        """Writes down how the try ended, and says so."""
        node, slot.node = slot.node, None
        if node is None:
            return
        with suppress(FileNotFoundError):  # somebody has removed the folder
            claims.finish(slot.claim, how, kind, message)
        self.next_look = 0  # what waited for this run may be ready now
        if how == "done":
            self.done.add(node.digest)
        note = "" if how == "done" else f"  {how} {kind}: {message}".rstrip(": ")
        self.finished += how == "done" and node.kind != "cache"
        self.say(f"{self.progress()}  {node}  {node.digest}{note[:300]}")

    def progress(self) -> str:
        """How many of all are done, the time since the start, and about how long is left.

        The time left is that of the mean run of this launch, so that it is rough where
        an upstream takes longer than its transfers.
        """
        elapsed = time.monotonic() - self.began
        text = f"[{len(self.done)}/{len(self.study)}] {clock(elapsed)}"
        left = sum(n.kind != "cache" and n.digest not in self.done for n in self.study)
        if left and self.finished:
            text += f", about {clock(elapsed / self.finished * left)} left"
        return text

    def watch(self, slot: Slot) -> None:
        """Touches the claim of a run that gets on; kills the worker of one that hangs."""
        assert slot.node
        now = time.monotonic()
        if now - slot.touched < min(TOUCH, self.hang / 4):
            return
        slot.touched = now
        if not claims.touch(slot.claim):  # we slept, and it was taken over
            self.say(f"{slot.node.digest}: another launcher has it now, or it is gone")
            slot.node = None
            slot.end()
            return
        latest = newest(slot.node.folder(self.runs))
        if latest != slot.newest:
            slot.newest, slot.moved = latest, now
        if now - slot.moved > self.hang and slot.process:
            slot.verdict = f"nothing new in its folder for {self.hang:.0f} s"
            slot.process.kill()


def clock(seconds: float) -> str:
    """A time for people: 45 s, 12 min or 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def worker_command(path: str, runs: Path) -> list[str]:
    """What starts a worker of this study."""
    names = ["--config", path, "--runs", str(runs)]
    return [sys.executable, "-m", "launch.worker", *names]
