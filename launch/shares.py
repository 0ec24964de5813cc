"""What each of several workers of one machine gets of it."""

from collections.abc import Mapping
from pathlib import Path

from bigxfer import cli, config, host

# Huge pages where the program asks malloc for memory: 10 to 15% off a training step on
# a CPU (benchmarks/NOTES.md). glibc reads it when a process starts; others ignore it.
TUNABLES = "glibc.malloc.hugetlb=1"


def share_out(environ: Mapping[str, str], workers: int) -> list[dict[str, str]]:
    """Return the environment of each worker: one GPU each, where there are GPUs.

    Without, each has its own cores, if there are enough. All have TUNABLES, unless
    GLIBC_TUNABLES is set. ConfigError where there are more workers than GPUs that were
    named.
    """
    environ = {"GLIBC_TUNABLES": TUNABLES, **environ}
    named = environ.get("CUDA_VISIBLE_DEVICES", "")
    # Those that Slurm or a person has left to us, by their own numbers.
    gpus = named.split(",") if named else [str(n) for n in range(count_gpus())]
    if workers == 1:
        return [environ]
    if not gpus:
        # On its own core a net of few operations takes less processor time: no thread
        # waits for another (NOTES.md, first round).
        cores = host.cores()
        shares = [cores[k::workers] for k in range(workers)]
        if not all(shares):
            return [environ] * workers
        return [{**environ, cli.CORES: ",".join(map(str, s))} for s in shares]
    if workers > len(gpus):
        raise config.ConfigError(f"--workers={workers}, but the GPUs are {gpus}")
    return [{**environ, "CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:workers]]


def count_gpus() -> int:
    # By the driver's files: jax would take the GPUs' memory from the workers.
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
