"""Eight virtual CPU devices for the whole test process, set before jax is imported."""

import gc
import os
from collections import Counter
from pathlib import Path

import pytest

# Unoptimised programs compile five times as fast, and tests run each only a few times.
# In one piece they take a fifth less processor time again: both cores are busy anyway.
COMPILE_FAST = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {COMPILE_FAST}"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["KERAS_BACKEND"] = "jax"
# No test reads where in the source an operation stands, and to write it takes time.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
# Programs are compiled once for all tests, their subprocesses and the next `make test`.
# Their names hold the program, the flags, jax's version and the CPU's features.
PROGRAMS = Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(PROGRAMS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# A worker has one core: threads of one product would wait for each other, and burn time.
for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

# They begin, so that neither worker has the longest left when the other is done.
LONGEST = (
    *("test_runs", "test_colabs", "test_golden", "test_bad_input", "test_tune"),
    *("test_models", "test_freeze", "test_export"),
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish():
    """What is imported lives to the end: it is not searched for garbage each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def single_device():
    """Runs train on one of the eight devices: eight on two cores take twice as long.

    That devices change nothing is shown by test_devices, test_resident, test_runs and
    test_sharding, which do without this.
    """
    import jax

    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: first)
        yield


def pytest_terminal_summary(terminalreporter):
    """Name what was skipped, by reason: a clone without ../shared proves less."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in skipped
    )
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count:4} {reason}")
