"""Decode in several processes; each writes its pixels itself.

Plain subprocesses (`python -m bigxfer.data.pixels.decode_pool`), not multiprocessing: that
imports the main module again in every worker, and with it jax. A worker reads its
order from a file and prints a line for each row; when its parent dies it ends at the
next line it cannot print. A file that kills a decoder costs its own row only.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from bigxfer.data.pixels import checked, decode


@dataclass(frozen=True)
class Decoding:
    root: str
    pixels: str  # the file that row r is written to at r * S * S * C
    shape: tuple[int, int, int]  # S, S, C


Result = tuple[int, str, str]  # row, the reason why it is bad or "", sum in hex


def here(order: Decoding, paths: dict[int, str]) -> Generator[Result, None, None]:
    """Decodes in this process. OSError where the pixels cannot be written."""
    size, _, channels = order.shape
    with open(order.pixels, "r+b") as file:
        for row, path in paths.items():
            try:
                image = decode.load(order.root, path, size, channels)
            except decode.DecodeError as error:
                yield row, str(error), ""
                continue
            total = checked.sum_of(image)  # now: what is written may be damaged later
            write(file.fileno(), image.tobytes(), row * image.nbytes)
            yield row, "", total.hex()


def write(fd: int, data: bytes, at: int) -> None:
    """All of it: where the disk is nearly full pwrite may write a part."""
    while data:
        n = os.pwrite(fd, data, at)
        data, at = data[n:], at + n


def spread(
    order: Decoding, paths: dict[int, str], workers: int
) -> Generator[Result, None, None]:
    """Decodes in subprocesses. OSError where the pixels cannot be written."""
    left = dict(paths)
    while left:
        rows = list(left)
        shares = [rows[k::workers] for k in range(min(workers, len(rows)))]
        lines: queue.Queue = queue.Queue()
        running = [
            Worker(order, {r: left[r] for r in share}, lines) for share in shares
        ]
        try:
            ended = 0
            while ended < len(running):
                row, reason, coded = lines.get()
                if row == "end":
                    ended += 1
                elif row == "error":
                    raise OSError(reason)
                else:
                    del left[row]
                    yield row, reason, coded
        finally:
            for worker in running:
                worker.stop()
        crashed = [w.process.returncode for w in running if w.process.returncode]
        if left and not crashed:
            raise AssertionError(f"{len(left)} images were not reported on")
        for worker, share in zip(running, shares, strict=True):
            first = next((r for r in share if r in left), None)
            if first is not None:  # what it was at when it died
                status = worker.process.returncode
                del left[first]
                yield first, f"the decoder died of it (exit status {status})", ""


class Worker:
    """One subprocess, and the thread that passes on what it prints."""

    def __init__(
        self, order: Decoding, paths: dict[int, str], lines: queue.Queue
    ) -> None:
        self.lines = lines
        with tempfile.TemporaryFile("w+") as task:
            json.dump(
                [order.root, order.pixels, order.shape, list(paths.items())], task
            )
            task.seek(0)
            home = str(Path(__file__).parents[3])
            path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bigxfer.data.pixels.decode_pool"],
                stdin=task,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        self.thread = threading.Thread(target=self.pump, daemon=True)
        self.thread.start()

    def pump(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.process.wait()
        self.lines.put(("end", "", ""))

    def stop(self) -> None:
        self.process.kill()
        self.thread.join()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


def main() -> None:
    """A worker: its task comes by stdin, a Result a line goes out by stdout."""
    # They are for the parent, which ends us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    root, pixels, shape, paths = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a decoder prints is no result
    try:
        for result in here(Decoding(root, pixels, shape), dict(paths)):
            print(json.dumps(result), file=out, flush=True)
    except BrokenPipeError:  # the parent has died
        os._exit(1)
    except OSError as error:
        print(json.dumps(["error", str(error), ""]), file=out, flush=True)


if __name__ == "__main__":
    main()
