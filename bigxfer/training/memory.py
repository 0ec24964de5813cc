"""How much memory a program takes on a device, and the micro-batch that fits."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from bigxfer.config import ConfigError

IMAGES, PIXELS = 32, 2**19  # of a part of a step, that suit a CPU (benchmarks/NOTES.md)


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
    # Every device gets as many images of each micro-batch.
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
        # Other devices have no such caches: there memory alone bounds a part.
        return batch

    def suits(size: int) -> bool:
        images = size / mesh.size
        pixels = images * side * side
        enough = images >= IMAGES / 2 or pixels >= PIXELS / 2
        return enough and images <= IMAGES and pixels <= PIXELS

    # Two parts of 32 in place of 64 took 3 to 6% longer (NOTES.md, fourth round).
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

    `candidates` descend, and need less memory as they do.
    """
    # The largest first, then by bisection: compiling a large network takes minutes.
    best, low, high, middle = None, 0, len(candidates), 0
    while low < high:
        try:
            compiled = compile_fn(candidates[middle])
        except jax.errors.JaxRuntimeError as error:
            # A TPU's compiler runs out of memory itself, where the size does not fit.
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            compiled = None
        if compiled is not None and memory_needed(compiled) <= limit_bytes:
            best, high = (compiled, candidates[middle]), middle
        else:
            low = middle + 1
        middle = (low + high) // 2
    return best


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
    if micro_batch >= 0 and (fitting := largest_that_fits(compile_fn, [asked], limit)):
        return fitting
    # Where a size was asked for, smaller ones are tried only to name one that fits.
    below = [size for size in sizes if size < asked or micro_batch < 0]
    fitting = largest_that_fits(compile_fn, below, limit)
    where = f"the {limit / 1e9:.1f} GB of a device"
    if fitting is None:
        raise ConfigError(
            f"not even a micro-batch of {sizes[-1]} fits {where}: take more devices"
            " with config.mesh.fsdp, config.model.remat, a smaller model or crop"
        )
    if micro_batch >= 0:
        raise ConfigError(
            f"a micro-batch of {asked} exceeds {where}: --config.optim.micro_batch="
            f"{fitting[1]} fits (gradients add up to the same batch); -1 picks it by itself"
        )
    return fitting
