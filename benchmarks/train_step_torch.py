"""PyTorch's side of train_step.py: timm's ResNet-v2 in the form of BiT.

    PYTHON benchmarks/train_step_torch.py '{...}'    (as train_step_jax.py)

Run by train_step.py in a Python that has torch and timm, with tests/ on its path for
the stub of torchvision. "way" is eager or compile, then channels_last or nothing.
"""

import json
import re
import resource
import sys
import time
from functools import partial

import torch
from machine import blocks
from make_timm_golden import stub_torchvision
from torch.nn.functional import cross_entropy

CLASSES = 1000
DEPTHS = {26: [2, 2, 2, 2], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}


def build(name: str) -> torch.nn.Module:
    """timm's net; groups as in ours, where 32 would leave a channel or less in each."""
    stub_torchvision()
    from timm.layers import GroupNormAct, StdConv2d
    from timm.models.resnetv2 import ResNetV2

    depth, width = re.fullmatch(r"R(\d+)x([\d.]+)", name).groups()

    def norm(channels: int, **options) -> torch.nn.Module:
        groups = max(g for g in range(1, 33) if channels % g == 0 and channels >= 2 * g)
        return GroupNormAct(channels, num_groups=groups, **options)

    return ResNetV2(
        DEPTHS[int(depth)],
        num_classes=CLASSES,
        width_factor=float(width),
        stem_type="fixed",
        conv_layer=partial(StdConv2d, eps=1e-8),  # resnetv2_50x1_bit's
        norm_layer=norm,
    )


def main() -> None:
    case = json.loads(sys.argv[1])
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX does by default
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    batch = case["batch"]
    while True:
        try:
            print(json.dumps(measure(case, batch, device)))
            return
        except torch.cuda.OutOfMemoryError:
            batch //= 2  # what fits; the table has the batch
            torch.cuda.empty_cache()


def measure(case: dict, batch: int, device: str) -> dict:
    dtype, seconds = getattr(torch, case["dtype"]), case["seconds"]
    last = "channels_last" in case["way"]
    layout = torch.channels_last if last else torch.contiguous_format
    images = torch.randn(batch, 3, case["res"], case["res"], device=device)
    images = images.to(memory_format=layout)
    labels = torch.randint(0, CLASSES, (batch,), device=device)
    net = build(case["model"]).to(device, memory_format=layout)
    found = {"batch": batch, "parameters": sum(p.numel() for p in net.parameters())}
    fast = torch.compile(net) if "compile" in case["way"] else net
    options = {"fused": True} if device == "cuda" else {}
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, **options)
    cast = partial(torch.autocast, device, dtype, enabled=dtype != torch.float32)

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def peak() -> int:
        if device == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def forwards(n: int) -> None:
        with torch.inference_mode(), cast():
            for _ in range(n):
                fast(images)
        wait()

    def steps(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            with cast():
                loss = cross_entropy(fast(images), labels)
            loss.backward()
            optimizer.step()
        wait()

    for mode, do, train in (("forward", forwards, False), ("train", steps, True)):
        net.train(train)
        began = time.perf_counter()
        do(1)
        first = time.perf_counter() - began
        wall, cpu = blocks(do, seconds)
        found[mode] = {
            "seconds": wall / batch,
            "cpu_seconds": cpu / batch,
            "compile_seconds": max(0.0, first - wall),
            "peak_bytes": peak(),
        }
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))

    def products(k: int) -> None:
        for _ in range(k):
            a @ b
        wait()

    wall, cpu = blocks(products, min(seconds, 2.0))
    found["matmul"] = {"seconds": 2 * n**3 / wall, "cpu_seconds": 2 * n**3 / cpu}
    return found


if __name__ == "__main__":
    main()
