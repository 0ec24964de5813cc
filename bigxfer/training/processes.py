"""The processes of one run: how they find each other, wait, and fail together."""

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")
WAIT = 300  # seconds for all processes of a run to come
OVER = 0  # no signal has this number: the watcher of a wait returns
TOLD = 600  # bytes of an error's text that the other processes get


def arguments(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what `join` is to be called with, by the environment; None: do not.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID together say it in
    full. Inside `srun` with several tasks, and on a TPU pod that names its workers,
    jax finds everything by itself.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if all(environ.get(name) for name in names):
        address, processes, process = (environ[name] for name in names)
        return {
            "coordinator": address,
            "processes": int(processes),
            "process": int(process),
        }
    # Not SLURM_NTASKS, which is the job's: the shell of an `salloc` is one task of it.
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return {}
    # One name alone is a single host, which is one process.
    if "," in environ.get("TPU_WORKER_HOSTNAMES", ""):
        return {}
    return None


def join_by_environment() -> None:
    """Join the processes of one run where the environment says that there are any."""
    if (given := arguments(os.environ)) is not None:
        join(**given)


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    wait: float = WAIT,
) -> None:
    """Join this process to the others; before anything else asks jax for devices.

    All None: jax finds them by Slurm or the TPU pod. Where they have not all come after
    `wait` seconds the program ends with status 1 and a line that says who is missing.
    Raises ValueError where only some are given.
    """
    named = [coordinator, processes, process]
    if len({value is None for value in named}) > 1:
        raise ValueError(f"give coordinator, processes and process, or none: {named}")
    me = "as Slurm or the TPU pod numbers them"
    if coordinator:
        me = f"process {process} of {processes}, the first at {coordinator}"
    logging.getLogger("bigxfer").info(
        "waiting for the other processes of this run, %g s at most (%s)", wait, me
    )
    with guarded(wait, lambda: f"{missing(coordinator, process)} ({me})"):
        # A minute more than `guarded` waits: jax would end the program by an abort.
        jax.distributed.initialize(
            coordinator, processes, process, initialization_timeout=int(wait) + 60
        )
        # On CPUs the processes connect at their first collective, and wait 30 s for it:
        # now, since later the first one may open the data for longer.
        barrier("start")


@contextmanager
def guarded(wait: float, missing: Callable[[], str]) -> Iterator[None]:
    """End the program with a line of our own if the block takes longer than `wait`.

    Or at Ctrl-C.
    """
    # jax waits in C++, where Python runs no handler and raises nothing, and it ends a wait
    # by an abort with a stack trace: so a thread watches over it, and hears of a signal by
    # the byte that Python's own handler writes.
    heard, written = socket.socketpair()
    written.setblocking(False)  # as set_wakeup_fd wants it
    in_main = threading.current_thread() is threading.main_thread()
    # Python takes such a descriptor in the main thread only.
    before = signal.set_wakeup_fd(written.fileno()) if in_main else -1

    def watch() -> None:
        end = time.monotonic() + wait
        while select.select([heard], [], [], max(0, end - time.monotonic()))[0]:
            number = heard.recv(1)[0]
            if number == OVER:
                return
            if number == signal.SIGINT:
                leave("stopped by Ctrl-C before anything had begun", 130)
        leave(f"error: after {wait:g} s {missing()}", 1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        if in_main:
            signal.set_wakeup_fd(before)
        with suppress(OSError):
            written.send(bytes([OVER]))
        watcher.join()
        heard.close()
        written.close()


def missing(coordinator: str | None, process: int | None) -> str:
    """Say for whom this process waits, as far as it can know."""
    if coordinator and process:
        host, _, port = coordinator.rpartition(":")
        try:
            # The coordinator's port answers as soon as the first process is there.
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError):
            return f"the first process does not answer at {coordinator}"
        return "the first process is there, but another one has not come"
    return "another process of this run has not come"


def leave(line: str, status: int) -> None:
    """End the program at once: its main thread may never come back from C++."""
    print(line, file=sys.stderr, flush=True)
    # Not sys.exit, which only raises in the thread that calls it.
    os._exit(status)


def first() -> bool:
    """Whether this process speaks and writes for all."""
    return jax.process_index() == 0


def barrier(name: str = "barrier") -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def largest(value: int) -> int:
    """Return the largest value that a process of this run brings."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.array(value))))


def in_turn(make: Callable[[], T]) -> T:
    """Return make() of the first process, then of the others, who find its files there.

    Where it raises in one process, all raise: that one its error, the others a
    ValueError with its text. Otherwise they would wait for it until jax aborts.
    """
    if jax.process_count() == 1:
        return make()
    results: list[T] = []
    # Two rounds, and all meet after each: the others begin once the first is done.
    for mine in (first(), not first()):
        error = None
        try:
            results += [make()] if mine else []
        except Exception as raised:  # noqa: BLE001 whatever it is, the others wait
            error = raised
        agree(error)
    return results[0]


def agree(error: Exception | None) -> None:
    """Raise in every process where one of them brings an error."""
    # Cut to one length for all, since an all-gather needs arrays of one shape.
    text = f"{type(error).__name__}: {error}".encode()[:TOLD] if error else b""
    mine = np.zeros(TOLD, np.uint8)
    mine[: len(text)] = np.frombuffer(text, np.uint8)
    every = multihost_utils.process_allgather(mine)
    if error:
        raise error
    for process, row in enumerate(every):
        if row.any():
            # The cut may go through a letter of several bytes.
            told = bytes(row[row > 0]).decode(errors="replace")
            raise ValueError(f"process {process} of this run failed: {told}")
