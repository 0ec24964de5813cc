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
from collections.abc import Callable
from functools import partial

import torch
import turns
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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX does by default
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    layout = torch.contiguous_format
    if "channels_last" in case["way"]:
        layout = torch.channels_last
    net = build(case["model"]).to(device, memory_format=layout)
    if "compile" in case["way"]:
        net = torch.compile(net)
    makes = {
        mode: partial(make, steps, net, case, device, layout)
        for mode, steps in (("forward", forward), ("train", train))
    }
    makes["matmul"] = partial(matmul, getattr(torch, case["dtype"]), device)
    turns.serve(makes, case["seconds"], peak_bytes)


def make(
    mode: Callable,
    net: torch.nn.Module,
    case: dict,
    device: str,
    layout: torch.memory_format,
) -> tuple[turns.Steps, dict]:
    """Steps of the case's batch, halved until it fits."""
    batch = case["batch"]
    while True:
        images = torch.randn(batch, 3, case["res"], case["res"], device=device)
        images = images.to(memory_format=layout)
        steps = mode(net, images, case["dtype"])
        times = []
        try:
            for _ in range(2):
                began = time.perf_counter()
                steps(1)
                times.append(time.perf_counter() - began)
        except torch.cuda.OutOfMemoryError:
            batch //= 2
            torch.cuda.empty_cache()
            continue
        return steps, {
            "batch": batch,
            "parameters": sum(p.numel() for p in net.parameters()),
            "compile_seconds": max(0.0, times[0] - times[1]),
        }


def cast(device: str, dtype: str) -> torch.autocast:
    kind = getattr(torch, dtype)
    return torch.autocast(device, kind, enabled=kind != torch.float32)


def forward(net: torch.nn.Module, images: torch.Tensor, dtype: str) -> turns.Steps:
    net.eval()

    def steps(n: int) -> None:
        with torch.inference_mode(), cast(images.device.type, dtype):
            for _ in range(n):
                net(images)
        wait(images.device.type)

    return steps


def train(net: torch.nn.Module, images: torch.Tensor, dtype: str) -> turns.Steps:
    net.train()
    device = images.device.type
    labels = torch.randint(0, CLASSES, (len(images),), device=device)
    options = {"fused": True} if device == "cuda" else {}
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, **options)

    def steps(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            with cast(device, dtype):
                loss = cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
        wait(device)

    return steps


def matmul(dtype: torch.dtype, device: str) -> tuple[turns.Steps, dict]:
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))

    def products(k: int) -> None:
        for _ in range(k):
            a @ b
        wait(device)

    return products, {"flops": 2 * n**3}


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Of the device's allocator, or on a CPU of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
