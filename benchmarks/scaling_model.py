"""A model on paper: BiT training on JUWELS Booster and on a TPU v5e pod.

    python benchmarks/scaling_model.py

Nothing here is measured. ASSUMED below is all that enters besides the shapes of the
nets; scaling.py prints it above the tables. Forward and backward of the network only:
input, evaluation, checkpoints and stragglers are free here, so read upper bounds.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bigxfer import presets

SIZES = ("R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4")  # 1912.11370
NODES = (16, 64, 256)
BATCH = 4096  # BiT's upstream batch, for strong scaling: 1912.11370 section 3.3


@dataclass(frozen=True)
class Machine:
    """Bytes/s, FLOP/s and bytes of one device and of what joins them."""

    name: str
    devices: int  # of a node
    peak: float  # bf16 FLOP/s of a device
    memory: float
    bandwidth: float  # of that memory
    inside: float  # a device's links within a node, one direction; inf: one device
    between: float  # a node's links to the others, one direction
    latency: float  # seconds of one hop between nodes


MACHINES = (
    # NVIDIA A100 data sheet (SXM4 40 GB): 312 TFLOP/s, 1,555 GB/s, NVLink 600 GB/s both
    # ways; 4 x HDR200 a node (Juelich's description of JUWELS Booster, 936 nodes)
    Machine("JUWELS Booster", 4, 312e12, 40e9, 1555e9, 300e9, 4 * 25e9, 5e-6),
    # Google Cloud's page on TPU v5e: 197 TFLOP/s, 16 GB, 819 GB/s, 1,600 Gbit/s of
    # links a chip (both ways taken together); a pod has 256 chips, a node here is one
    Machine("TPU v5e pod", 1, 197e12, 16e9, 819e9, math.inf, 100e9, 1e-6),
)
ASSUMED = {
    "crop": 224,
    "conv_of_peak": 0.45,  # what good bf16 convolutions reach (a goal, not measured)
    "memory_of_peak": 0.8,  # of the memory's bandwidth
    "passes": 15,  # over each convolution's output, forward and backward, GN not fused
    "links_of_peak": 0.7,  # of the links' bandwidth in a ring
    "buckets": 32,  # all-reduces of a step after XLA has combined them
    "memory_used": 0.9,  # of a device; the rest is the allocator's and the compiler's
    "most_images": 64,  # a device and step
    "gradient_bytes": 4,  # as they are sent and summed: float32, as the parameters
    "state_bytes": 12,  # a parameter: itself, momentum, gradient, all float32
    "remat_cost": 4 / 3,  # a second forward pass
}


def layers(name: str, res: int) -> Iterator[tuple[int, int, int]]:
    """(output values of an image, MACs of an image, parameters) of each convolution."""
    model = presets.bit(name)
    side, before = res // 2, round(64 * model.width)
    yield conv(side, 7, 3, before)
    side //= 2
    for stage, units in enumerate(model.blocks):
        width = round(64 * model.width * 2**stage)
        for unit in range(units):
            after = side // 2 if stage and not unit else side
            yield conv(side, 1, before, width)
            yield conv(after, 3, width, width)
            yield conv(after, 1, width, 4 * width)
            if not unit:
                yield conv(after, 1, before, 4 * width)
            side, before = after, 4 * width


def conv(side: int, size: int, inputs: int, outputs: int) -> tuple[int, int, int]:
    kernel = size * size * inputs * outputs
    return side * side * outputs, side * side * kernel, kernel


@dataclass(frozen=True)
class Net:
    name: str
    values: int  # outputs of all convolutions for an image
    macs: int  # of an image, forward
    parameters: int  # in convolutions; the rest is below 1%
    unit_values: int  # what remat keeps of an image: inputs of the units
    unit_most: int  # the most that one unit makes

    @property
    def train_flops(self) -> float:
        return 3 * 2 * self.macs

    def activations(self, remat: bool) -> float:
        """Bytes of an image in bf16: each convolution's output and its normalised form."""
        kept = self.unit_values + 2 * self.unit_most if remat else 2 * self.values
        return 2 * kept


def net(name: str, res: int) -> Net:
    found = list(layers(name, res))
    values, macs, parameters = (sum(column) for column in zip(*found))
    model = presets.bit(name)
    side, kept, most = res // 4, 0, 0
    for stage, units in enumerate(model.blocks):
        width = round(64 * model.width * 2**stage)
        side = side // 2 if stage else side
        kept += units * side * side * 4 * width
        # the first unit: a at the size before, b, c, shortcut
        most = max(most, side * side * width * (9 + (4 if stage else 1)))
    return Net(name, values, macs, parameters, kept, most)


def state_bytes(n: Net, fsdp: int) -> float:
    """Of a device. Under fsdp a float32 copy of all kernels may be gathered at once."""
    gathered = 4 * n.parameters if fsdp > 1 else 0
    return ASSUMED["state_bytes"] * n.parameters / fsdp + gathered


def images_that_fit(n: Net, m: Machine, fsdp: int, remat: bool) -> int:
    """A power of two up to most_images; 0 where not even one image fits."""
    left = ASSUMED["memory_used"] * m.memory - state_bytes(n, fsdp)
    most = min(left / n.activations(remat), ASSUMED["most_images"])
    return 2 ** int(math.log2(most)) if most >= 1 else 0


def compute_seconds(n: Net, m: Machine, images: float, remat: bool) -> float:
    """Of a device and step: the later of arithmetic and of memory traffic."""
    flops = n.train_flops * images / (ASSUMED["conv_of_peak"] * m.peak)
    traffic = ASSUMED["passes"] * 2 * n.values * images
    memory = traffic / (ASSUMED["memory_of_peak"] * m.bandwidth)
    return max(flops, memory) * (ASSUMED["remat_cost"] if remat else 1)


def ring_seconds(size: float, members: int, bandwidth: float) -> float:
    """All-reduce: each member sends 2 (k - 1) / k of the bytes."""
    rate = ASSUMED["links_of_peak"] * bandwidth
    return 2 * (members - 1) / members * size / rate


def links_seconds(n: Net, m: Machine, nodes: int, fsdp: int) -> float:
    """Gradients summed inside each node, then between nodes, all links of a node used.

    Under fsdp the kernels are gathered forward and backward and the gradients
    scattered: three halves of an all-reduce within the group, in place of one of all
    its devices; other groups then sum their shards.
    """
    size = ASSUMED["gradient_bytes"] * n.parameters
    members, shard, inside = nodes, size, ring_seconds(size, m.devices, m.inside)
    if fsdp > 1 and m.devices == fsdp:
        inside *= 1.5
    elif fsdp > 1:  # a device a node: the group is one of nodes
        inside = 1.5 * ring_seconds(size, fsdp, m.between)
        members, shard = nodes // fsdp, size / fsdp
    hops = 2 * math.log2(nodes) * m.latency * ASSUMED["buckets"]
    return inside + ring_seconds(shard, members, m.between) + hops


def efficiency(compute: float, links: float) -> tuple[float, float]:
    """(nothing overlaps, links run beside the backward pass: two thirds of compute)."""
    hidden = max(0.0, links - 2 / 3 * compute)
    return compute / (compute + links), compute / (compute + hidden)


def row(n: Net, m: Machine, fsdp: int, remat: bool) -> dict[str, Any]:
    images = images_that_fit(n, m, fsdp, remat)
    found: dict[str, Any] = {"machine": m.name, "net": n.name, "fsdp": fsdp}
    found |= {"remat": remat, "images_per_device": images, "weak": {}, "strong": {}}
    found["state_gb"] = state_bytes(n, fsdp) / 1e9
    found["activation_mb_per_image"] = n.activations(remat) / 1e6
    if not images:
        return found
    found["gb"] = found["state_gb"] + images * n.activations(remat) / 1e9
    step = compute_seconds(n, m, images, remat)
    found["step_ms"] = 1e3 * step
    found["images_per_s_of_a_device"] = images / step
    for nodes in NODES:
        links = links_seconds(n, m, nodes, fsdp)
        found["weak"][nodes] = efficiency(step, links)
        share = BATCH / (nodes * m.devices)
        whole = compute_seconds(n, m, share, remat)
        found["strong"][nodes] = efficiency(whole, links)
        found.setdefault("links_ms", {})[nodes] = 1e3 * links
    return found


def rows() -> list[dict[str, Any]]:
    nets = [net(name, ASSUMED["crop"]) for name in SIZES]
    return [
        row(n, m, fsdp, remat)
        for m in MACHINES
        for n in nets
        for fsdp in (1, 4)
        for remat in (False, True)
    ]


def table(found: list[dict[str, Any]]) -> str:
    head = (
        "net | fsdp | remat | state GB | MB an image | images a device | GB | step ms"
    )
    ends = " | ".join(f"weak {n} | strong {n}" for n in NODES)
    lines = [f"| machine | {head} | {ends} |", "|---" * 15 + "|"]
    for r in found:
        cells = [r["machine"], r["net"], str(r["fsdp"]), "yes" if r["remat"] else "no"]
        cells += [f"{r['state_gb']:.1f}", f"{r['activation_mb_per_image']:.0f}"]
        if not r["images_per_device"]:
            cells += ["none"] + ["-"] * 8
        else:
            cells += [str(r["images_per_device"]), f"{r['gb']:.1f}"]
            cells += [f"{r['step_ms']:.0f}"]
            for nodes in NODES:
                for kind in ("weak", "strong"):
                    low, high = r[kind][nodes]
                    cells.append(f"{low:.0%} to {high:.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def assumptions() -> str:
    lines = [f"  {name} = {value}" for name, value in ASSUMED.items()]
    lines += [f"  {asdict(m)}" for m in MACHINES]
    return "\n".join(["assumed:", *lines])


def main() -> None:
    print(assumptions())
    print(table(rows()))


if __name__ == "__main__":
    main()
