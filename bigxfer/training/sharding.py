"""The mesh, where the state and the batch lie on it, and how they get there.

The only file that makes a mesh. Its axes are always Auto: jax.make_mesh has other
defaults in other versions.
"""

import math
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SMALL = 2**14  # elements; a smaller leaf costs more to gather than to copy


def make(fsdp: int = 1, batch: int = 0) -> Mesh:
    """The mesh (data, fsdp) over all devices of all processes.

    One process on a CPU takes only as many of its devices, which are threads, as
    divide the batch. Raises ValueError where fsdp does not divide the number of devices.
    """
    # By process, so that the rows of the global batch are those of process 0, then 1,
    # ...: the order in which the loader counts.
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    if batch and jax.process_count() == 1 and devices[0].platform == "cpu":
        # So a batch of 10 runs on 2 of 4 threads in place of being refused.
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
        # The whole of it lies here: no word to the other processes is needed.
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(fetch, values)
