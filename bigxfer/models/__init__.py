"""Models by name, and the contract that all of them keep."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from bigxfer import config
from bigxfer.models import cbr, keras_zoo, smallcnn
from bigxfer.models.bit import Bit
from bigxfer.tree import Tree


class Model(Protocol):
    """What the rest of bigxfer knows of a network."""

    head: str  # regular expression of the names of the head's parameters

    def init(self, key: jax.Array, image_shape: tuple[int, ...]) -> Tree:
        """{"params": nested dict[, "batch_stats"]}; image_shape is (n, h, w, 3).

        The head is zero. Normalisation is named as leaves.norms says (gamma and beta, or
        scale and bias); kernels end in kernel.
        """
        ...

    def apply(
        self,
        variables: Tree,
        images: jax.Array,
        train: bool,
        rngs: Any = None,
        hold: Sequence[str] = (),
    ) -> tuple[jax.Array, Tree]:
        """(logits float32 [n, classes], endpoints by name, pre_logits among them).

        pre_logits is [n, features], what a head is fitted to; every net has it. Layers
        with maps give [n, h, w, c]. Grad-CAM refuses a net without maps; similarity
        compares its endpoints as vectors.
        images: float [n, h, w, 3] in [-1, 1], or [n, h, w, 1], which stands for three
        equal channels: grey images. The endpoints are in order of depth. With `train`
        they also hold the new batch statistics of a model that has any, as
        "batch_stats". `hold` names layers whose batch norm uses, and keeps, its running
        averages in training too. rngs: {"dropout": key} where the model has dropout.
        """
        ...

    def layers(self) -> list[str]:
        """Prefixes of parameter names in order of depth; they cover every leaf."""
        ...


class Around:
    """Wraps a model; what a subclass does not override is delegated."""

    def __init__(self, model: Model) -> None:
        # No `apply` below: to change it is what every wrapper is for.
        self.model, self.head = model, model.head

    def init(self, key: jax.Array, image_shape: tuple[int, ...]) -> Tree:
        return self.model.init(key, image_shape)

    def layers(self) -> list[str]:
        return self.model.layers()


MODELS: dict[str, Callable[[config.Model, int], Model]] = {
    "bit": Bit,
    **dict.fromkeys(cbr.SIZES, cbr.build),
    "smallcnn": smallcnn.build,
    **dict.fromkeys(keras_zoo.NETS, keras_zoo.KerasNet),
}


def maker(cfg: config.Model) -> Callable[[config.Model, int], Model]:
    """Return what builds the network of a config; ConfigError if it is unknown."""
    if cfg.name not in MODELS:
        hint = config.nearest(cfg.name, list(MODELS))
        raise config.ConfigError(f"unknown model {cfg.name!r}{hint}")
    return MODELS[cfg.name]


def build(cfg: config.Model, classes: int) -> Model:
    """The network of a config with `classes` outputs; ConfigError if unknown."""
    return maker(cfg)(cfg, classes)
