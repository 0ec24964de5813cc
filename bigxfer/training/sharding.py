"""The mesh, where the state and the batch lie on it, and how they get there.

The only file that makes a mesh. Its axes are always Auto: jax.make_mesh has other
defaults in other versions.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")
WAIT = 300  # seconds for all processes of a run to come
SMALL = 2**14  # elements; a smaller leaf costs more to gather than to copy


def arguments(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What `join` is to be called with, from the environment; None: do not.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID together say it in
    full. Inside `srun` with several tasks, and on a TPU pod that names its workers,
    jax finds everything by itself. SLURM_NTASKS is of the whole job, and the shell of an
    `salloc` is a step of one task: the number of this step's tasks is what counts.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if all(environ.get(name) for name in names):
        address, processes, process = (environ[name] for name in names)
        return {
            "coordinator": address,
            "processes": int(processes),
            "process": int(process),
        }
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return {}
    if "," in environ.get("TPU_WORKER_HOSTNAMES", ""):
        return {}
    return None


def join(
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
    me = f"process {process} of {processes}, the first at {coordinator}"
    logging.getLogger("bigxfer").info(
        "waiting for the other processes of this run, %d s at most (%s)",
        *(WAIT, me if coordinator else "as Slurm or the TPU pod numbers them"),
    )
    jax.distributed.initialize(
        coordinator, processes, process, initialization_timeout=WAIT
    )
    # On CPUs the processes connect at their first collective, and wait 30 s for it: now,
    # since later the first one may open the data for longer. A dead one ends all.
    barrier("start")


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
