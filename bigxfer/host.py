"""The machine that this process runs on: its cores, and the memory that malloc keeps."""

import ctypes
import gc
import os


def cores() -> list[int]:
    """The cores that this process may run on (fewer than there are under Slurm)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def give_back() -> None:
    """Returns to the system what was freed: 90 MB after a step was compiled.

    glibc by itself returns only what lies at the end of its heap; other libraries
    have no such call, and nothing happens.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
