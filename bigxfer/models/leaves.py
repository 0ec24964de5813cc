"""What a parameter is, told by its name: normalisation, or the first kernel."""

from collections.abc import Iterable, Sequence
from typing import Any

from bigxfer import tree
from bigxfer.tree import Tree


def norms(names: Iterable[str]) -> set[str]:
    """Return those of these names that belong to normalisation, averages too.

    They are gamma, beta and scale, a bias beside a scale, and running averages (mean, var,
    moving_*), whatever their layer is called. They start as the identity, and measures of
    weights leave them out.
    """
    every = set(names)
    endings = ("gamma", "beta", "scale", "mean", "var")
    normal = set()
    for name in every:
        layer, _, last = name.rpartition("/")
        # A bias without a scale is that of a convolution or a dense layer.
        beside = last == "bias" and f"{layer}/scale" in every
        if last in endings or last.startswith("moving_") or beside:
            normal.add(name)
    return normal


def first_kernel(params: Tree, layers: Sequence[str]) -> tuple[str, Any]:
    """Return (name, leaf [h, w, 3, n]) of the convolution that sees the pixels.

    `layers` are Model.layers(). ValueError where no kernel has three channels in.
    """
    flat = tree.flatten(params)
    # By depth: jax sorts the names of a tree, and block1 comes before root_block.
    for layer in layers:
        for name, leaf in flat.items():
            kernel = name.startswith(f"{layer}/") and name.endswith("kernel")
            if kernel and leaf.ndim == 4 and leaf.shape[2] == 3:
                return name, leaf
    raise ValueError("this net has no convolution of three channels")
