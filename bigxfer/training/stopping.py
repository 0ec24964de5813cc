"""How a run is asked to stop, and how all its processes agree on a step.

SIGTERM comes from a scheduler that needs the machine, SIGINT (Ctrl-C) from a person. In
training the run finishes the step that it is at, saves it and leaves. Elsewhere one
process has nothing to save and leaves at once; several go on until a step of training,
since those that wait for the others would wait in vain. A second signal of the same kind
does what it does to any program.
"""

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

STATUS = {  # exit statuses by signal
    signal.SIGTERM: 75,  # EX_TEMPFAIL of sysexits.h: the same command goes on later
    signal.SIGINT: 130,  # as shells report it
}


class Preempted(SystemExit):
    """The run was asked to stop; the mains end with this status, so that a batch script
    can tell it from a failure. `step` is what was saved, None where nothing was."""

    def __init__(self, status: int, step: int | None = None) -> None:
        super().__init__(status)
        self.step = step


class Stop:
    """Whether a run was asked to stop; `ask` is the handler of the signals."""

    def __init__(self) -> None:
        self.number: int | None = None  # the signal that this process got
        self.held = False  # within `training`

    def __call__(self, step: int) -> bool:
        """Whether to save and leave after this step: to be asked at every step.

        Of several processes all have to ask. They stop at the same step though the
        signal came to one of them: jax passes it on, and picks a step that none is past.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.number is not None

    @property
    def status(self) -> int:
        """The exit status; that of SIGTERM where another process got the signal."""
        return STATUS[signal.Signals(self.number or signal.SIGTERM)]

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Note the signal, or raise Preempted where nothing has to be saved first."""
        # So that a second one ends the program at once, whatever it is doing.
        signal.signal(number, signal.SIG_DFL)
        self.number = number
        if jax.process_count() > 1:
            signal.raise_signal(signal.SIGTERM)  # for which jax has a handler
        elif not self.held:
            raise Preempted(self.status)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within, signals are only noted, and the training loop acts on them."""
        self.held = True
        try:
            yield
        finally:
            self.held = False
        if self.number is not None and jax.process_count() == 1:  # after the last step
            raise Preempted(self.status)


@contextmanager
def listen(signals: Sequence[int] = tuple(STATUS)) -> Iterator[Stop]:
    """A Stop that gets these signals, once all processes of the run have met.

    Outside of the main thread, where Python takes no handlers, it gets none.
    """
    stop, before = Stop(), {}
    alone = jax.process_count() == 1  # otherwise SIGTERM has jax's own handler
    if threading.current_thread() is threading.main_thread():
        for number in signals:
            if alone or number != signal.SIGTERM:
                before[number] = signal.signal(number, stop.ask) or signal.SIG_DFL
    try:
        yield stop
    except Preempted as error:
        if error.step is None:
            logging.getLogger("bigxfer").info(
                "asked to stop outside of training: there was nothing to save, and the"
                " same command goes on from what there is"
            )
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
