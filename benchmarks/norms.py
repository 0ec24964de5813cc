"""The forms of group norm + ReLU that a benchmark may put in place of parts.py's."""

from collections.abc import Callable
from typing import Any

NAMES = ("plain", "closed", "kernel")


def forms() -> dict[str, Callable]:
    """{name: (x, gamma, beta, groups) -> y}: as it is written, with its gradient in
    closed form, and the GPU kernel that is a candidate."""
    from bigxfer.models import parts, parts_cpu

    def plain(x: Any, gamma: Any, beta: Any, groups: int) -> Any:
        return parts.group_norm_relu_plain(x, gamma, beta, groups, parts.GN_EPS)

    def closed(x: Any, gamma: Any, beta: Any, groups: int) -> Any:
        return parts_cpu.group_norm_relu(x, gamma, beta, groups, parts.GN_EPS)

    def kernel(x: Any, gamma: Any, beta: Any, groups: int) -> Any:
        import group_norm_kernel  # here: not every jax has Pallas for Triton

        return group_norm_kernel.group_norm_relu(x, gamma, beta, groups, parts.GN_EPS)

    return dict(zip(NAMES, (plain, closed, kernel), strict=True))
