"""The mesh, where the state and the batch lie on it, and how they get there.

The only file that makes a mesh. Its axes are always Auto: jax.make_mesh has other
defaults in other versions.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bigxfer.config import ConfigError

T = TypeVar("T")
SMALL = 2**14  # elements; a smaller leaf costs more to gather than to copy
IMAGES, PIXELS = 32, 2**19  # of a part of a step, that suit a CPU (benchmarks/NOTES.md)


def arguments(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What `start` is to be called with, from the environment; None: do not.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID together say it in
    full. Inside `srun` with several tasks, and on a TPU pod that names its workers,
    jax finds everything by itself. Slurm's variables outlive a step (an ssh to a
    node, `sbatch` without `srun`), hence the two that are asked for.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if all(environ.get(name) for name in names):
        address, processes, process = (environ[name] for name in names)
        return {
            "coordinator": address,
            "processes": int(processes),
            "process": int(process),
        }
    if environ.get("SLURM_STEP_NODELIST") and int(environ.get("SLURM_NTASKS", 1)) > 1:
        return {}
    if "," in environ.get("TPU_WORKER_HOSTNAMES", ""):
        return {}
    return None


def start(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> None:
    """Joins this process to the others; before anything else asks jax for devices.

    All None: jax finds them by Slurm or the TPU pod. Raises ValueError where only
    some are given.
    """
    given = [coordinator, processes, process]
    if len({value is None for value in given}) > 1:
        raise ValueError(f"give coordinator, processes and process, or none: {given}")
    jax.distributed.initialize(coordinator, processes, process)


def make(fsdp: int = 1, batch: int = 0) -> Mesh:
    """The mesh (data, fsdp) over all devices of all processes.

    One process on a CPU takes only as many of its devices, which are threads, as
    divide the batch.

    Devices are in the order of their processes, so that the rows of the global
    batch are those of process 0, then 1, ...: the order the loader counts in.
    Raises ValueError where fsdp does not divide the number of devices.
    """
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    if batch and jax.process_count() == 1 and devices[0].platform == "cpu":
        devices = devices[: math.gcd(batch, len(devices))]
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(
            f"config.mesh.fsdp={fsdp} must divide the {len(devices)} devices"
        )
    grid = np.array(devices).reshape(-1, fsdp)
    return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh) -> NamedSharding:
    """The first axis spread over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def place_state(mesh: Mesh, shapes: Any) -> Any:
    """The sharding of every leaf of a state (arrays or ShapeDtypeStructs).

    Leaves of at least 2**14 elements are split over `fsdp` along their largest axis
    that it divides; the others are replicated.
    """
    fsdp = mesh.shape["fsdp"]

    def place(leaf: Any) -> NamedSharding:
        shape = leaf.shape
        axes = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
        if fsdp == 1 or not axes or np.prod(shape) < SMALL:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))

    return jax.tree.map(place, shapes)


def to_global(mesh: Mesh, rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows [n, ...] -> global arrays [n * processes, ...].

    Raises ValueError where the devices of this process cannot share n rows evenly.
    """
    here, n = len(mesh.local_devices), len(next(iter(rows.values())))
    if n % here:
        raise ValueError(
            f"a batch of {n} images a process does not spread over its {here} devices: "
            f"use a multiple of {here}"
        )
    place = batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(place, value)
        for name, value in rows.items()
    }


def to_host(values: Any) -> Any:
    """The whole tree as numpy, on every process; all of them have to call it."""

    def fetch(leaf: Any) -> np.ndarray:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(fetch, values)


def barrier(name: str = "barrier") -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def in_turn(make: Callable[[], T]) -> T:
    """make() by the first process, then by the others, who find its files made."""
    made = make() if jax.process_index() == 0 else None
    barrier("first made")
    return make() if made is None else made


def memory_needed(compiled: jax.stages.Compiled) -> int:
    """Bytes that the program occupies on each device while it runs."""
    m = compiled.memory_analysis()
    if m is None:  # a backend that does not say
        return 0
    shared = m.alias_size_in_bytes  # donated: arguments that become outputs
    return (
        m.argument_size_in_bytes
        + m.output_size_in_bytes
        + m.temp_size_in_bytes
        - shared
    )


def memory_limit(mesh: Mesh, memory_gb: float) -> float:
    """Bytes of each device: memory_gb * 1e9 where set, else what the device reports.

    Infinite where it reports nothing, as CPUs do.
    """
    if memory_gb:
        return memory_gb * 1e9
    stats = mesh.local_devices[0].memory_stats() or {}
    return stats.get("bytes_limit", float("inf"))


def micro_batches(batch: int, devices: int) -> list[int]:
    """The sizes that divide the batch and spread over the devices, descending."""
    sizes = range(batch - batch % devices, 0, -devices)
    return [size for size in sizes if batch % size == 0]


def cache_sized(batch: int, side: int, mesh: Mesh) -> int:
    """The micro-batch of images `side` px wide that suits the caches of a CPU.

    On each device at most 32 images and half a million pixels, and not so few that what
    a part costs anyhow shows. Two cores train up to 10% faster than on larger parts, at
    worst 2% slower, in half the memory (benchmarks/NOTES.md). The whole batch where it is
    no more than 64 images and as many pixels, where no divisor of it suits, and on
    anything but a CPU.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return batch

    def suits(size: int) -> bool:
        images = size / mesh.size
        pixels = images * side * side
        enough = images >= IMAGES / 2 or pixels >= PIXELS / 2
        return enough and images <= IMAGES and pixels <= PIXELS

    images = batch / mesh.size
    if images <= 2 * IMAGES and images * side * side <= PIXELS:
        return batch
    return next((s for s in micro_batches(batch, mesh.size) if suits(s)), batch)


def largest_that_fits(
    compile_fn: Callable[[int], jax.stages.Compiled],
    candidates: list[int],
    limit_bytes: float,
) -> tuple[jax.stages.Compiled, int] | None:
    """(compiled, size) of the largest candidate within the limit; None if none is.

    `candidates` descend, and need less memory as they do: the first is tried, then
    the rest by bisection, since compiling a large network takes minutes. A compiler
    that itself runs out of memory (TPU) says that the size does not fit.
    """
    found, low, high, middle = None, 0, len(candidates), 0
    while low < high:
        try:
            compiled = compile_fn(candidates[middle])
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            compiled = None
        if compiled is not None and memory_needed(compiled) <= limit_bytes:
            found, high = (compiled, candidates[middle]), middle
        else:
            low = middle + 1
        middle = (low + high) // 2
    return found


def fit_memory(
    compile_fn: Callable[[int], jax.stages.Compiled],
    batch: int,
    micro_batch: int,
    mesh: Mesh,
    memory_gb: float,
) -> tuple[jax.stages.Compiled, int]:
    """(compiled, micro-batch) for config.optim.micro_batch.

    0 is the batch, -1 the most that fits. Raises ConfigError, with the micro-batch
    that fits, where the asked one does not.
    """
    sizes = micro_batches(batch, mesh.size)
    asked = micro_batch if micro_batch > 0 else batch
    if asked not in sizes:
        raise ConfigError(
            f"a micro-batch of {asked} has to divide config.optim.batch={batch} and"
            f" spread over {mesh.size} devices; these do: {sizes}"
        )
    limit = memory_limit(mesh, memory_gb)
    if micro_batch >= 0 and (found := largest_that_fits(compile_fn, [asked], limit)):
        return found
    below = [size for size in sizes if size < asked or micro_batch < 0]
    found = largest_that_fits(compile_fn, below, limit)
    where = f"the {limit / 1e9:.1f} GB of a device"
    if found is None:
        raise ConfigError(
            f"not even a micro-batch of {sizes[-1]} fits {where}: take more devices"
            " with config.mesh.fsdp, config.model.remat, a smaller model or crop"
        )
    if micro_batch >= 0:
        raise ConfigError(
            f"a micro-batch of {asked} exceeds {where}: --config.optim.micro_batch="
            f"{found[1]} fits (gradients add up to the same batch); -1 picks it by itself"
        )
    return found
