"""Where the parameters of a run start."""

from typing import Any

from bigxfer.config import Init
from bigxfer.models import Model, weights
from bigxfer.tree import Tree


def start(cfg: Init, model: Model, key: Any, image_shape: tuple[int, ...]) -> Tree:
    """The variables of step 0: random, or pretrained with a new (zero) head.

    Raises ValueError, with the difference, where the checkpoint does not fit.
    """
    variables = model.init(key, image_shape)
    if cfg.kind == "random":
        return variables
    params = weights.load(cfg.checkpoint, variables["params"], keep_head=False)
    return {**variables, "params": params}
