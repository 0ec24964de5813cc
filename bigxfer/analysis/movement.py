"""How far training moved the weights, and which layers' starts it could have kept.

Three measures, beside the similarity of activations (similarity.py): the distance of
each layer's weights from its start; the first filters, to be looked at; and what the
trained net loses where one layer's start is put back into it (Zhang et al. 2019,
1902.01996, section 2; ChrisMats/feature-reuse, layer_importance).
"""

import math
import re
from collections.abc import Callable, Sequence

import jax
import numpy as np

from bigxfer import tree
from bigxfer.models import Model, leaves
from bigxfer.tree import Tree


def distances(begun: Tree, ended: Tree, layers: Sequence[str]) -> list[dict]:
    """Rows of layer, weights, l2_per_weight, l2, relative, cosine, in order of depth.

    begun, ended: params of one net. l2_per_weight is ||w1 - w0|| / size of each tensor,
    mean over the layer's tensors (ChrisMats/feature-reuse, trainer.py, of 2203.01825);
    it falls with the size of the tensor alone. l2 and relative, ||w1 - w0|| / ||w0||,
    and the cosine of w0 and w1 are of the whole layer; the last two are NaN where it
    starts at zero, as heads do. Normalisation is left out, and so are layers that have
    nothing else.
    """
    old, new, out = tree.flatten(begun), tree.flatten(ended), []
    norms = leaves.norms(new)
    for layer in layers:
        names = [n for n in new if n.startswith(f"{layer}/")]
        names = [n for n in names if n not in norms]
        if not names:
            continue
        pairs = [(np.asarray(old[n], float), np.asarray(new[n], float)) for n in names]
        each = [np.linalg.norm(b - a) / a.size for a, b in pairs]
        a, b = (np.concatenate([x.ravel() for x in side]) for side in zip(*pairs))
        moved, first, last = (float(np.linalg.norm(x)) for x in (b - a, a, b))
        row = {"layer": layer, "weights": a.size, "l2_per_weight": float(np.mean(each))}
        row |= {"l2": moved, "relative": ratio(moved, first)}
        out.append({**row, "cosine": ratio(float(a @ b), first * last)})
    return out


def ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")


def mosaic(kernel: np.ndarray) -> np.ndarray:
    """float [H, W, 3] in [0, 1]: the filters [h, w, 3, n] in a square.

    Each is divided by its own largest weight, so that gray is 0 and sizes do not show;
    lines of white part them.
    """
    h, w, _, n = kernel.shape
    columns = math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    out = np.ones((rows * (h + 1) - 1, columns * (w + 1) - 1, 3))
    for k in range(n):
        filt = kernel[..., k]
        top, left = k // columns * (h + 1), k % columns * (w + 1)
        largest = abs(filt).max() or 1.0
        out[top : top + h, left : left + w] = 0.5 + 0.5 * filt / largest
    return out


def put_back(begun: Tree, ended: Tree, layer: str) -> Tree:
    """The params `ended` with all of one layer's from `begun`, normalisation too."""
    old, new = tree.flatten(begun), tree.flatten(ended)
    return tree.unflatten(
        {n: old[n] if n.startswith(f"{layer}/") else v for n, v in new.items()}
    )


def averager(model: Model) -> Callable[[Tree, jax.Array], Tree]:
    """averaged(variables, images): batch norm's running averages taken anew.

    images: float [n, h, w, C]. After one layer was changed the old averages fit
    nothing above it. The model's momentum m is not known here, but its new averages
    are m old + (1 - m) batch: of old ones all 0 and all 1 both m and the batch follow.
    Variables without batch norm are returned as they are. Compiled once.
    """

    @jax.jit
    def train(variables: Tree, images: jax.Array) -> Tree:
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, images, True, rngs)[1]["batch_stats"]

    def averaged(variables: Tree, images: jax.Array) -> Tree:
        if not (stats := variables.get("batch_stats")):
            return variables
        zeros, ones = (
            train(
                {**variables, "batch_stats": jax.tree.map(fill, stats)},
                images,
            )
            for fill in (np.zeros_like, np.ones_like)
        )
        found = jax.tree.map(lambda z, o: np.asarray(z / (1 - (o - z))), zeros, ones)
        return {**variables, "batch_stats": found}

    return averaged


def blocks(layers: Sequence[str]) -> dict[str, list[str]]:
    """{block: its layers} in order of depth: Keras's blocks, units of BiT, or layers."""
    named = r"conv\d+_block\d+|mixed\d+|stem|block_\d+|conv_[dp]w_\d+"
    out: dict[str, list[str]] = {}
    for layer in layers:
        match = re.match(rf"({named})(?!\d)", layer)
        out.setdefault(match[1] if match else layer, []).append(layer)
    return out
