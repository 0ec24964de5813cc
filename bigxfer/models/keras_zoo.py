"""The ImageNet nets of the source documents, from keras.applications on JAX.

The architecture and the published weights are Keras's own; here they stand behind the
contract of models.Model. Keras holds no numbers: the net is built without values and
is called as a pure function of ours. Parameters are called as in Keras, LAYER/kernel
and so on; in Inception-v3 the block comes first, mixed3/conv2d_26/kernel. The
classifier is our own, zero at the start. Images in [-1, 1] become what the weights
were trained with (`preprocess`).
"""

import contextlib
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bigxfer import config, tree
from bigxfer.models import keras_files, parts
from bigxfer.tree import Tree

STATS = ("moving_mean", "moving_variance")


@dataclass(frozen=True)
class Backbone:
    maker: str  # in keras.applications
    pixels: str  # what the weights expect: tf, torch or caffe (`preprocess`)
    endpoints: str  # regular expression of the layers whose outputs are endpoints


NETS = {
    "inception_v3": Backbone("InceptionV3", "tf", r"max_pooling2d_1|mixed\d+"),
    "resnet50": Backbone("ResNet50", "caffe", r"conv1_relu|conv\d_block\d+_out"),
    "resnet50_v2": Backbone(
        "ResNet50V2", "tf", r"conv1_conv|conv\d_block\d+_out|post_relu"
    ),
    "densenet121": Backbone("DenseNet121", "torch", r"conv1_relu|pool\d_relu|relu"),
    "mobilenet": Backbone("MobileNet", "tf", r"conv1_relu|conv_pw_\d+_relu"),
    "mobilenet_v2": Backbone(
        "MobileNetV2", "tf", r"Conv1_relu|expanded_conv_project_BN|block_\d+_project_BN"
    ),
}


def keras() -> Any:
    """Keras on its JAX backend; ImportError that says what to do."""
    # Keras reads it once, when it is imported first, and would take TensorFlow.
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras
    except ImportError:
        raise ImportError("the Keras models need `pip install keras`") from None
    if keras.backend.backend() != "jax":
        raise ImportError(
            f"Keras runs on {keras.backend.backend()} here: set KERAS_BACKEND=jax, or"
            " unset it (and see backend in ~/.keras/keras.json)"
        )
    return keras


def preprocess(images: jax.Array, mode: str) -> jax.Array:
    """[-1, 1] RGB -> as keras.applications.imagenet_utils.preprocess_input(mode=).

    tf: [-1, 1]. torch: [0, 1] less ImageNet's mean, by its deviation. caffe: BGR in
    [0, 255] less the mean. (keras/src/applications/imagenet_utils.py)
    """
    if mode == "torch":
        mean, std = jnp.array([0.485, 0.456, 0.406]), jnp.array([0.229, 0.224, 0.225])
        return ((images + 1) / 2 - mean) / std
    if mode == "caffe":
        return (images[..., ::-1] + 1) * 127.5 - jnp.array([103.939, 116.779, 123.68])
    return images


def canonical(layers: list[str]) -> list[str]:
    """Keras's names of a net's layers as in a process that builds no other net.

    Layers that have no name of their own are numbered over the whole process.
    """
    auto = r"(input_layer|activation|concatenate|batch_normalization|[a-z_]+2d)"
    matches = [re.fullmatch(rf"{auto}(?:_(\d+))?", name) for name in layers]
    first: dict[str, int] = {}
    for match in filter(None, matches):
        number = int(match[2] or 0)  # the first of a process has no number
        first[match[1]] = min(first.get(match[1], number), number)
    names = []
    for name, match in zip(layers, matches):
        if match:
            number = int(match[2] or 0) - first[match[1]]
            name = f"{match[1]}_{number}" if number else match[1]
        names.append(name)
    return names


def by_block(layers: list[str]) -> list[str]:
    """Inception-v3's layers with their block before them: mixed3/conv2d_26.

    The stem ends at the second pool.
    """
    names, block = [], []
    for layer in layers:
        block.append(layer)
        # A block ends with its concatenation, the only layer that Keras names after it.
        if layer == "max_pooling2d_1" or re.fullmatch(r"mixed\d+", layer):
            prefix = "stem" if layer == "max_pooling2d_1" else layer
            names += [f"{prefix}/{name}" for name in block]
            block = []
    return names


def random_params(key: jax.Array, shapes: dict[str, tuple[int, ...]]) -> Tree:
    """{name: float32}: glorot_uniform kernels, no biases, the identity as batch norm.

    Keras's defaults.
    """
    kernels = [n for n in shapes if n.endswith("/kernel")]
    sizes = [math.prod(shapes[n]) for n in kernels]
    # One draw for all kernels, since XLA compiles each for up to half a second.
    draw = jax.random.uniform(key, (sum(sizes),), minval=-1.0)
    out = {}
    for name, size, start in zip(kernels, sizes, accumulate(sizes, initial=0)):
        # Keras's fans. A depthwise kernel [h, w, c, 1] counts its channels in as well.
        *field, fan_in, fan_out = shapes[name]
        limit = math.sqrt(6 / (math.prod(field) * (fan_in + fan_out)))
        piece = jax.lax.slice(draw, (start,), (start + size,))
        out[name] = limit * piece.reshape(shapes[name])
    for name, shape in shapes.items():
        if name not in out:
            one = name.endswith(("/gamma", "/moving_variance"))
            out[name] = jnp.full(shape, float(one))
    return out


class KerasNet:
    """The contract of models.Model around one of NETS."""

    head = r"head/.*"

    def __init__(self, cfg: config.Model, classes: int) -> None:
        if cfg.width != 1 or cfg.slim_above or cfg.remat:
            raise config.ConfigError(
                f"{cfg.name} comes as Keras has it: config.model.width is 1, slim_above"
                ' "" and remat false'
            )
        self.net, self.classes, self.dtype = NETS[cfg.name], classes, cfg.dtype
        base = self.make(None)
        names = canonical([layer.name for layer in base.layers])
        # Keras's other nets have the block in the layer's own name.
        full = by_block(names) if cfg.name == "inception_v3" else names
        self.every = full  # all layers in Keras's order, those without weights too
        self.keras_layers = dict(zip(full, base.layers))
        self.vars = self.variables(base, full)
        ends = [
            (name, layer.output)
            for name, layer in zip(names, base.layers)
            if re.fullmatch(self.net.endpoints, name)
        ]
        self.endpoints = [name for name, _ in ends]
        # base.output again where it is an endpoint (ResNet50): pre_logits are its mean.
        outputs = [*(output for _, output in ends), base.output]
        self.features = base.output.shape[-1]
        self.call = keras().Model(base.input, outputs)

    def make(self, weights: str | None) -> Any:
        """Keras's net without its classifier; numbers only where `weights` has them."""
        k = keras()
        policy = k.config.dtype_policy()
        mixed = "mixed_bfloat16" if self.dtype == "bfloat16" else "float32"
        # A global of Keras, put back below: other nets of the process keep theirs.
        k.config.set_dtype_policy(mixed)
        try:
            # Inside this scope Keras only notes what a variable would be given.
            with k.StatelessScope(initialize_variables=False) as scope:
                make = getattr(k.applications, self.net.maker)
                side = 224 if weights else None  # without one MobileNet's files warn
                base = make(
                    include_top=False, weights=weights, input_shape=(side, side, 3)
                )
                # Within the scope, which alone holds what the variables were given.
                base.loaded = [scope.get_current_value(v) for v in base.variables]
            return base
        finally:
            k.config.set_dtype_policy(policy)

    @staticmethod
    def variables(base: Any, layers: list[str]) -> dict[str, Any]:
        """{name: Keras variable} in Keras's order of layers."""
        return {
            f"{name}/{variable.name}": variable
            for name, layer in zip(layers, base.layers)
            for variable in layer.variables
        }

    def init(self, key: jax.Array, image_shape: tuple[int, ...]) -> Tree:
        del image_shape  # a convolutional net is the same for all
        flat = random_params(key, {n: tuple(v.shape) for n, v in self.vars.items()})
        return self.variables_of(flat)

    def variables_of(self, flat: Tree) -> Tree:
        """{"params", "batch_stats"} of {name: array}, with a zero head."""
        stats = {n: v for n, v in flat.items() if n.endswith(STATS)}
        params = {n: v for n, v in flat.items() if n not in stats}
        params["head/dense/kernel"] = jnp.zeros((self.features, self.classes))
        params["head/dense/bias"] = jnp.zeros(self.classes)
        return {"params": tree.unflatten(params), "batch_stats": tree.unflatten(stats)}

    def load(self, weights: str) -> Tree:
        """Variables from a file of Keras's, or "imagenet", with a zero head.

        A head in the file, whatever its classes, is left out; the log says so.
        FileNotFoundError or ValueError that says what to do where that does not work.
        """
        if weights != "imagenet" and not os.path.isfile(weights):
            raise FileNotFoundError(f"no such weights file: {weights}")
        try:
            flat, more = self.read(weights)
        except Exception as error:  # Keras raises bare ones when a download fails
            hint = (
                "this machine has to reach storage.googleapis.com, once; or save them"
                f" on one that does, with keras.applications.{self.net.maker}"
                "(include_top=False).save_weights('FILE.weights.h5'), and name FILE"
                if weights == "imagenet"
                else f"it has to begin with keras.applications.{self.net.maker}"
                "(include_top=False); a net that holds this as one of its layers, save"
                " by net.layers[i].save_weights('FILE.weights.h5')"
            )
            raise ValueError(f"{weights}: {error}\n{hint}") from error
        if more:
            logging.getLogger("bigxfer").info(
                "%s: the backbone is taken, %d layers above it are not", weights, more
            )
        return self.variables_of(flat)

    def read(self, weights: str) -> tuple[Tree, int]:
        """({name: float32}, how many layers the file has above these)."""
        # Keras cuts off no head of its older files; of its newer ones it does.
        saved = [] if weights == "imagenet" else keras_files.older(weights)
        layers = self.layers()[:-1]
        if saved:
            shapes = {
                n: [tuple(v.shape) for v in self.keras_layers[n].variables]
                for n in layers
            }
            arrays: Any = keras_files.in_order(saved, shapes)
            names, more = list(self.vars), len(saved) - len(layers)
        else:
            base = self.make(weights)
            # By identity: Keras compares variables number by number and hashes none.
            values = {id(v): x for v, x in zip(base.variables, base.loaded)}
            named = self.variables(base, self.every)
            names, arrays = list(named), [values[id(v)] for v in named.values()]
            more = 0 if weights == "imagenet" else keras_files.count(weights)
            more = max(0, more - len(layers))
        return {n: np.asarray(a, np.float32) for n, a in zip(names, arrays)}, more

    def apply(
        self,
        variables: Tree,
        images: jax.Array,
        train: bool,
        rngs: Any = None,
        hold: Sequence[str] = (),
    ) -> tuple[jax.Array, Tree]:
        del rngs  # there is no dropout below the classifier
        params, stats = variables["params"], variables["batch_stats"]
        flat = {**tree.flatten(params), **tree.flatten(stats)}
        values = [(variable, flat[name]) for name, variable in self.vars.items()]
        scope = keras().StatelessScope(state_mapping=values)
        with scope, self.held(hold):
            # three channels first, since `preprocess` shifts each by another number
            pixels = preprocess(parts.alike(images, 3), self.net.pixels)
            maps = self.call(pixels, training=train)
            new = {n: scope.get_current_value(v) for n, v in self.vars.items()}
        # Keras checks a size only where `make` names one; the mean of nothing is NaN.
        if maps[-1].size == 0:
            raise ValueError(
                f"images of {images.shape[1:3]} are too small for {self.net.maker}: take"
                " a larger config.data.crop, 75 for Inception-v3 and 32 for the others"
            )
        out = dict(zip(self.endpoints, maps))
        x = out["pre_logits"] = maps[-1].mean((1, 2), dtype=jnp.float32)
        dense = params["head"]["dense"]
        out["logits"] = x @ dense["kernel"] + dense["bias"]
        if train:
            new = {n: v for n, v in new.items() if n.endswith(STATS)}
            out["batch_stats"] = tree.unflatten(new)
        return out["logits"], out

    @contextlib.contextmanager
    def held(self, layers: Sequence[str]) -> Iterator[None]:
        """Batch norm that is not trainable uses, and keeps, its running averages.

        (keras/src/layers/normalization/batch_normalization.py)
        """
        held = [self.keras_layers[n] for n in layers if n in self.keras_layers]
        for layer in held:
            layer.trainable = False
        try:
            yield
        finally:
            for layer in held:
                layer.trainable = True

    def layers(self) -> list[str]:
        return [n for n in self.every if self.keras_layers[n].variables] + ["head"]
