"""Which layers stay as they start, and a model in which they do.

Shares count from the input up (bottom: 100, 75, 50, 30, 20, 10, 0% in the PyData 2019
study of Kierzynka et al.) or from the head down (top, top_layers: one layer, 18%, 50%
in Lo & Elezabi's CheXNet for COVID-19). The head always trains and is in no share.
`count_by` says what is counted:

- layers: those of Model.layers(), which have parameters. One of BiT's is a unit.
- keras_layers: those of Keras's model.layers without its top, activations, pools and
  paddings too, as the PyData study did; int(share * number) of them are fixed.
- params: as many layers as have no more than that share of the parameters.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax

from bigxfer import tree
from bigxfer.config import ConfigError, Freeze
from bigxfer.models import Around, Model, keras_zoo
from bigxfer.tree import Tree


def fixed(cfg: Freeze, model: Model, params: Tree) -> list[str]:
    """The layers that stay, in order of depth; params: arrays or shape structs.

    Raises ConfigError for counts that the model does not have.
    """
    layers = [n for n in model.layers() if not re.fullmatch(model.head, n + "/")]
    counted = layers
    if cfg.count_by == "keras_layers":
        if not isinstance(model, keras_zoo.KerasNet):
            raise ConfigError(
                "config.freeze.count_by=keras_layers is for the models of Keras"
                f" ({', '.join(keras_zoo.NETS)}); others count by layers or params"
            )
        counted = model.every
    share = 1 - cfg.top if cfg.top else cfg.bottom
    if cfg.top_layers > len(counted) + 1:
        raise ConfigError(
            f"config.freeze.top_layers={cfg.top_layers}, but there are"
            f" {len(counted) + 1}, the head among them"
        )
    if cfg.top_layers:
        # The head counts here: `top_layers=1` is the one trainable layer of Lo &
        # Elezabi.
        number = len(counted) + 1 - cfg.top_layers
    elif cfg.count_by == "params":
        # A layer that ends at the share itself is in, whatever the sums round to.
        number = sum(done <= share + 1e-9 for done in shares(layers, params))
    else:
        number = int(round(share * len(counted), 9))  # 0.7 * 10 is 6.99... in floats
    # Keras's layers without parameters count, but there is nothing of them to fix.
    below = set(counted[:number])
    return [n for n in layers if n in below]


def shares(layers: list[str], params: Tree) -> list[float]:
    """Return the cumulative share of the parameters up to and with each layer."""
    sizes = dict.fromkeys(layers, 0)
    for name, leaf in tree.flatten(params).items():
        layer = next((n for n in layers if name.startswith(n + "/")), None)
        if layer is not None:
            sizes[layer] += leaf.size
    total, done, ends = sum(sizes.values()), 0, []
    for size in sizes.values():
        done += size
        ends.append(done / total)
    return ends


def labels(layers: Sequence[str], params: Tree) -> Tree:
    """ "freeze" at every leaf of these layers, "train" at the others (tree.label)."""
    rules = {f"{re.escape(layer)}/.*": "freeze" for layer in layers}
    return tree.label(params, {**rules, ".*": "train"})


class Fixed(Around):
    """A model, for training, in which some layers stay as they are.

    Their batch norm uses and keeps its running averages, as in Keras 3. With
    `batch_norm` "batch" it normalises by the batch and its averages move, as in Keras
    2.2.4 (keras-team/keras pull 9965).
    """

    def __init__(self, model: Model, layers: Sequence[str], batch_norm: str) -> None:
        super().__init__(model)
        self.fixed = tuple(layers)
        self.hold = self.fixed if batch_norm == "inference" else ()

    def apply(
        self,
        variables: Tree,
        images: jax.Array,
        train: bool,
        rngs: Any = None,
        hold: Sequence[str] = (),
    ) -> tuple[jax.Array, Tree]:
        prefixes = tuple(f"{layer}/" for layer in self.fixed)
        flat = tree.flatten(variables["params"])
        # So XLA drops their part of the backward pass (the labels alone would leave it
        # in), and the norm of the gradient is that of what trains.
        flat = {
            name: jax.lax.stop_gradient(leaf) if name.startswith(prefixes) else leaf
            for name, leaf in flat.items()
        }
        variables = {**variables, "params": tree.unflatten(flat)}
        hold = (*self.hold, *hold)
        return self.model.apply(variables, images, train, rngs, hold)


def hold(model: Model, layers: Sequence[str], batch_norm: str) -> Model:
    """`model` with these layers fixed; itself where there are none."""
    return Fixed(model, layers, batch_norm) if layers else model


def line(layers: Sequence[str], model: Model, params: Tree) -> str:
    """Say what is fixed: how many layers, the last one, their share of parameters."""
    if not layers:
        return "all layers train"
    flat = tree.flatten(params)
    inside = tuple(f"{n}/" for n in layers)
    size = sum(leaf.size for n, leaf in flat.items() if n.startswith(inside))
    every = sum(leaf.size for leaf in flat.values())
    return (
        f"{len(layers)} of {len(model.layers())} layers are fixed, up to {layers[-1]}:"
        f" {size / every:.1%} of the parameters"
    )
