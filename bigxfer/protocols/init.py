"""Where the parameters of a run start.

`kind` says from where: random; pretrained, from config.init.checkpoint; imagenet, the
weights that Keras publishes with its models; gabor, random with a synthetic first
layer. Of what is pretrained the layers up to `upto` are taken (weight transfusion,
1902.07208 section 5), and `how` says as what:

- copy: as they are, running averages of batch norm too.
- mean_var: each tensor drawn anew from the normal with its mean and variance (the
  same, section 4.1).
- shuffle, resample: controls that keep a tensor's own values, in another order or
  drawn from them with replacement (Matsoukas et al., 2203.01825, utils/wtst.py).

Under the last three, normalisation starts as the identity, which the paper found best,
or is copied (config.init.batch_norm). The layers above `upto` are random, or mean_var.

A net with weight standardisation (BiT) takes the mean away from each filter and divides
it by its standard deviation before it uses it. So of what these three keep there is left

- of mean_var nothing: the start is a random one in law, and the same for every
  checkpoint. The tensors' scales are left only in how far one step of the optimizer
  turns a kernel. `config.resolve` refuses it, unless the norms are copied;
- of shuffle and resample the shape of the distribution of a tensor's values (skewness,
  tails), mixed over its filters. Where the values look normal that is nothing either.

The head always starts anew, at zero. To re-initialise a data set's own upstream for
the same data, name that run as the checkpoint.
"""

import re
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bigxfer import tree
from bigxfer.config import ConfigError, Init, nearest
from bigxfer.models import Model, bit, keras_files, keras_zoo, leaves, weights
from bigxfer.protocols import gabor
from bigxfer.tree import Tree


def start(cfg: Init, model: Model, key: Any, image_shape: tuple[int, ...]) -> Tree:
    """The variables of step 0, with a zero head: {"params"[, "batch_stats"]}.

    Raises ValueError, with the difference, where the checkpoint does not fit, and
    ConfigError for an `upto` that is no layer.
    """
    # Of a pretrained start too: the head and the layers above `upto` keep these.
    fresh = model.init(key, image_shape)
    if cfg.kind == "random":
        return fresh
    if cfg.kind == "gabor":
        return {**fresh, "params": with_gabor(model, fresh["params"])}
    ways = taken(cfg, model)
    checkpoint = read(cfg, model, fresh, list(ways))
    seed = [int(n) for n in np.asarray(jax.random.key_data(key)).ravel()]
    variables = {}
    for kind, leaves_of_kind in fresh.items():  # params, batch_stats
        flat = tree.flatten(leaves_of_kind)
        source = tree.flatten(checkpoint.get(kind, {}))
        norms = leaves.norms(flat)
        for name in flat:
            layer = next((n for n in ways if name.startswith(n + "/")), None)
            if layer is None:
                continue
            how = ways[layer]
            if how != "copy" and name in norms:
                # Never drawn: a running variance from a normal may be below 0.
                if cfg.batch_norm == "identity":
                    continue  # fresh norms are the identity
                how = "copy"
            flat[name] = treat(how, seed, name, source[name])
        variables[kind] = tree.unflatten(flat)
    return variables


def check(cfg: Init, model: Model, shapes: Tree) -> None:
    """Raises what `start` would, before anything is compiled; shapes: of variables."""
    if cfg.kind == "gabor":
        _, kernel = leaves.first_kernel(shapes["params"], model.layers())
        gabor.bank(kernel.shape[0], kernel.shape[3], 1.0)
    elif cfg.kind != "random":
        read(cfg, model, shapes, list(taken(cfg, model)))


def taken(cfg: Init, model: Model) -> dict[str, str]:
    """Return {layer: how} of the layers that take something from the checkpoint."""
    below, above = split_at(model, cfg.upto)
    ways = dict.fromkeys(below, cfg.how)
    if cfg.above != "random":
        ways |= dict.fromkeys(above, cfg.above)
    return ways


def split_at(model: Model, upto: str) -> tuple[list[str], list[str]]:
    """The layers up to and including `upto`, and those above, both without the head.

    `upto` is a layer, or the common beginning of several (block2, conv2_block3,
    mixed4); the last of them counts. "" takes all. ConfigError where there is none.
    """
    layers = [n for n in model.layers() if not re.fullmatch(model.head, n + "/")]
    # a layer's own parts count (conv1_bn), its numbered sisters (conv2d_1) do not
    ending = r"(/.*|_\D.*)?" if upto in layers else r"[/_].*"
    hits = [
        i
        for i, n in enumerate(layers)
        if not upto or re.fullmatch(re.escape(upto) + ending, n)
    ]
    if not hits:
        raise ConfigError(
            f"config.init.upto={upto!r} is no layer{nearest(upto, layers)}"
        )
    return layers[: hits[-1] + 1], layers[hits[-1] + 1 :]


def read(cfg: Init, model: Model, fresh: Tree, layers: list[str]) -> Tree:
    """Return {"params", "batch_stats"} of the checkpoint; `layers` must fit exactly.

    Where `layers` are all but the head, the checkpoint must hold no others. Otherwise
    its layers above them may be another net's. ValueError with the whole difference.
    """
    weights_of_keras = "imagenet" if cfg.kind == "imagenet" else cfg.checkpoint
    if cfg.kind == "imagenet" or cfg.checkpoint.endswith(keras_files.FILES):
        if not isinstance(model, keras_zoo.KerasNet):
            raise ConfigError(
                f"the weights {weights_of_keras} are for the models of Keras"
                f" ({', '.join(keras_zoo.NETS)}); BiT takes an npz, all a run folder"
            )
        return model.load(weights_of_keras)
    path = Path(cfg.checkpoint)
    path = path / "params.npz" if path.is_dir() else path
    # rename leaves the names of other nets as they are: only BiT's and timm's have
    # rules.
    source = tree.flatten(weights.rename(weights.read(path)))
    stats = fresh.get("batch_stats", {})
    target = tree.flatten({**fresh["params"], "batch_stats": stats})
    if layers != split_at(model, "")[0]:
        pattern = rf"(batch_stats/)?({'|'.join(map(re.escape, layers))})/.*"
        source = {n: v for n, v in source.items() if re.fullmatch(pattern, n)}
        target = {n: v for n, v in target.items() if re.fullmatch(pattern, n)}
    try:
        merged = tree.merge(tree.unflatten(target), tree.unflatten(source), model.head)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if isinstance(model, bit.Bit):
        weights.check_groups(path, tree.unflatten(target), model.groups)
    return {"batch_stats": merged.pop("batch_stats", {}), "params": merged}


def treat(how: str, seed: list[int], name: str, old: np.ndarray) -> np.ndarray:
    """One tensor of the checkpoint as `how` says; the draw depends on seed and name."""
    # By name, so that no other layer's draw moves this one's; crc32, since Python's
    # hash of a string is another in each process.
    rng = np.random.default_rng([*seed, zlib.crc32(name.encode())])
    if how == "mean_var":
        # 1902.07208 section 4.1: one mean and variance for the whole tensor.
        drawn = rng.normal(old.mean(), old.std(), old.shape)
    elif how == "shuffle":
        drawn = rng.permutation(old.ravel()).reshape(old.shape)
    elif how == "resample":
        drawn = rng.choice(old.ravel(), old.shape)
    else:
        drawn = old
    return np.asarray(drawn, np.float32)


def with_gabor(model: Model, params: Tree) -> Tree:
    """`params` with Gabor filters as first kernel, as large as its random numbers."""
    name, kernel = leaves.first_kernel(params, model.layers())
    size, _, _, count = kernel.shape
    # At this deviation the first activations keep the scale of a random start.
    bank = gabor.bank(size, count, float(np.std(kernel)))
    return tree.unflatten({**tree.flatten(params), name: bank})
