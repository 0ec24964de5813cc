"""Cores, and memory that was freed."""

import ctypes
import os
from pathlib import Path

import pytest

from bigxfer import host

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process in memory."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_cores():
    assert len(host.cores()) == len(set(host.cores())) >= 1
    if hasattr(os, "sched_setaffinity"):
        all_of_them = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {max(all_of_them)})
            assert host.cores() == [max(all_of_them)]
        finally:
            os.sched_setaffinity(0, all_of_them)


@pytest.mark.skipif(not STATM.exists(), reason="no /proc here")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_give_back():
    blocks = [b"x" * (1 << 16) for _ in range(2000)]  # 130 MB, each from the heap
    last = blocks[-1]  # lies behind them, so that free() alone returns nothing
    del blocks
    before = resident()
    host.give_back()
    assert resident() < before - 100e6
    assert last
