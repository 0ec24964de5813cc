"""Memory that was freed goes back to the system."""

import ctypes
import os
from pathlib import Path

import pytest

from bigxfer import heap

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process in memory."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not STATM.exists(), reason="no /proc here")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_give_back():
    blocks = [b"x" * (1 << 16) for _ in range(2000)]  # 130 MB, each from the heap
    last = blocks[-1]  # lies behind them, so that free() alone returns nothing
    del blocks
    before = resident()
    heap.give_back()
    assert resident() < before - 100e6
    assert last
