"""What a run says: metrics.jsonl, other writers, progress, the parameter table."""

import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

from bigxfer import durable
from bigxfer.config import Log
from bigxfer.training import writers


class RunLog:
    """One JSON object a line in folder/metrics.jsonl, by the first process only.

    Raises ConfigError where a package that config.log.writers needs is absent.
    """

    def __init__(self, folder: Path, cfg: Log, primary: bool) -> None:
        self.every, self.primary = cfg.every, primary
        self.path = folder / "metrics.jsonl"
        # One curve a run: other processes would write the same into the same place.
        self._asked = cfg.writers if primary else ()
        self._writers: dict[str, writers.Writer] = {}
        writers.check(self._asked)

    def begin(self, about: dict[str, Any]) -> None:
        """Open the writers of config.log.writers; about: what config.json holds."""
        for name in self._asked:
            self._writers[name] = writers.OPEN[name](self.path.parent, about)

    def end(self, metrics: dict[str, dict]) -> None:
        """Give the test metrics to the writers, as result.json has them, and close them."""
        final = {
            f"test/{name}{end}": entry[key]
            for name, entry in metrics.items()
            for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))
            if entry.get(key) is not None
        }
        self._write("end", final)
        self._writers = {}

    def _write(self, call: str, *args: Any) -> None:
        """Call all writers. One that fails is left out: it must not end the training."""
        # A copy of the list, since a writer that fails is taken out.
        for name, writer in list(self._writers.items()):
            try:
                getattr(writer, call)(*args)
            except Exception as error:  # noqa: BLE001 they raise whatever they like
                del self._writers[name]
                self.warn(f"{name} gets no more: {error}; {self.path} has all")

    def sum(self) -> str:
        """The sha256 of what was written so far, for `rewind`; "" where nothing was."""
        there = self.primary and self.path.exists()
        return durable.sha256(self.path) if there else ""

    def rewind(self, step: int, wanted: str = "") -> None:
        """Drop what a killed process wrote after the step that is resumed.

        `wanted` is the sum at that step: a line is said where the rest does not fit it.
        """
        if not self.primary or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                break  # the line that the kill cut in two
        # Before the sum is taken, which is of these lines exactly.
        durable.write(self.path, "".join(kept))
        if wanted and self.sum() != wanted:
            self.warn(
                f"{self.path} is damaged: its curves differ from what was trained"
            )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write finite numbers as numbers and others as null."""
        if not self.primary:
            return
        # JSON has no NaN, and json.dumps would write one that others cannot read.
        clean = {k: v if math.isfinite(v) else None for k, v in values.items()}
        # Opened for each line: a kill then cuts one line at most, which rewind drops.
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **clean}) + "\n")
        self._write("scalars", step, {k: v for k, v in clean.items() if v is not None})

    def say(self, text: str) -> None:
        if self.primary:
            logging.getLogger("bigxfer").info(text)

    def warn(self, text: str) -> None:
        if self.primary:
            logging.getLogger("bigxfer").warning("warning: %s", text)

    def parameters(self, params: dict) -> None:
        """With -v, the table of names, shapes and sizes."""
        if not logging.getLogger("bigxfer").isEnabledFor(logging.DEBUG):
            return
        from clu import parameter_overview  # imports flax; 0.5 s

        table = parameter_overview.get_parameter_overview(
            params, include_stats=False, max_lines=20
        )
        if self.primary:
            logging.getLogger("bigxfer").debug("parameters:\n%s", table)


class Progress:
    """A line every few seconds with step, loss, images/s and ETA; a bar on a tty."""

    def __init__(self, log: RunLog, start: int, stop: int, batch: int) -> None:
        self.log, self.start, self.stop, self.batch = log, start, stop, batch
        self.began = self.said = time.monotonic()
        self.tty = sys.stderr.isatty()

    def update(self, step: int, loss: float) -> None:
        """Say something if it is time to: `step` steps are done."""
        now = time.monotonic()
        # A terminal overwrites its line; in a log file each line stays.
        if now - self.said < (0.5 if self.tty else 10) and step < self.stop:
            return
        self.said = now
        # Of this process alone: the steps before a resume took none of its time.
        rate = (step - self.start) / max(now - self.began, 1e-9)
        left = time.strftime("%H:%M:%S", time.gmtime((self.stop - step) / rate))
        text = (
            f"step {step}/{self.stop} loss {loss:.4f}"
            f" {rate * self.batch:.0f} images/s ETA {left}"
        )
        if not self.tty:
            self.log.say(text)
        elif self.log.primary:
            done = 20 * step // self.stop
            end = "\n" if step == self.stop else ""
            bar = f"\r[{'#' * done}{'.' * (20 - done)}] {text} "
            print(bar, end=end, file=sys.stderr, flush=True)
