"""The mean of summed gradients and its norm, in the forms that XLA runs well on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bigxfer.tree import Tree


def mean(sums: Tree, count: jax.Array, split: bool) -> tuple[Any, jax.Array]:
    """(sums / count, its Euclidean norm float32 []); count: float32 [], 1 or more.

    split: whether leaves are spread over devices.
    """
    # Split over devices, vectors in one would each be gathered for it.
    length = optax.tree.norm(sums) if split else norm(sums)
    # Plus 0, so that no update comes before all gradients are there: XLA copies
    # kernels that are yet to be read, 74 of 102 MB in a step of R50x1 on a CPU.
    after = count + jnp.minimum(length, 0)
    return jax.tree.map(lambda g: g / after, sums), length / count


def norm(grads: Tree) -> jax.Array:
    """Their Euclidean norm, float32 []."""
    leaves = jax.tree.leaves(grads)
    # All vectors as one: XLA's CPU compiler has three kernels for the sum of each, and
    # takes a time for them that grows with the square of their number.
    vectors = [g.ravel() for g in leaves if g.ndim < 2]
    others = [g for g in leaves if g.ndim >= 2]
    return optax.tree.norm([*others, jnp.concatenate(vectors)] if vectors else others)
