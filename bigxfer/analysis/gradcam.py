"""Where a net looks: Grad-CAM and SmoothGrad, checked against truth and against chance.

Grad-CAM (Selvaraju et al. 2017, 1610.02391) weights the channels of a layer by the mean
gradient of the class's logit and keeps what is positive. A heatmap that looks sensible
proves nothing (Adebayo et al. 2018, 1810.03292), hence two tests: it has to change when
the weights are shuffled (`sanity`), and to point at what is there more often than the
place where such things usually are (pointing.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from scipy.stats import spearmanr

from bigxfer import tree
from bigxfer.analysis import movement
from bigxfer.models import Model
from bigxfer.tree import Tree

BATCH = 32  # images at once
ANOTHER = "another image"  # the entry of `sanity` that needs no shuffling
LEAST_SIDE = 4  # maps smaller than this point nowhere

Explain = Callable[[Tree, np.ndarray, np.ndarray], np.ndarray]


def from_endpoint(
    model: Model, variables: Tree, images: jax.Array, endpoint: str
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """(the function from an endpoint's value to the logits, the value it has here).

    The net is traced, and the trace replayed with the endpoint replaced: no model
    needs to know of it. ValueError for an unknown endpoint.
    """

    def forward(variables: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, out = model.apply(variables, images, train=False)
        if endpoint not in out:
            raise ValueError(f"no endpoint {endpoint!r}; the model has {list(out)}")
        return logits, out[endpoint]

    traced = jax.make_jaxpr(forward)(variables, images)
    jaxpr, inputs = traced.jaxpr, jax.tree.leaves((variables, images))
    logits, cut = jaxpr.outvars
    makers = [i for i, eqn in enumerate(jaxpr.eqns) if cut in eqn.outvars]
    below, above = jaxpr.eqns[: makers[0] + 1], jaxpr.eqns[makers[0] + 1 :]
    # What the upper part takes from below beside the endpoint, such as a shortcut.
    made_above = {v for eqn in above for v in eqn.outvars}
    used_above = {
        v for eqn in above for v in eqn.invars if not isinstance(v, core.Literal)
    }
    crossing = [
        v for v in used_above | {logits} if v not in made_above and v is not cut
    ]

    first = jaxpr.replace(eqns=below, outvars=[cut, *crossing])
    value, *crossing_values = core.jaxpr_as_fun(core.ClosedJaxpr(first, traced.consts))(
        *inputs
    )
    then = jaxpr.replace(
        # Constants come from the first part, as any other value that crosses the cut.
        constvars=[],
        invars=[cut, *crossing],
        eqns=above,
        outvars=[logits],
    )
    after = core.jaxpr_as_fun(core.ClosedJaxpr(then, []))
    return lambda value: after(value, *crossing_values)[0], value


def deepest(model: Model, variables: Tree, image_shape: Sequence[int]) -> str:
    """Return the last endpoint whose maps are LEAST_SIDE or more high.

    Of a BiT net at a large enough size that is the last norm and ReLU, which the head
    pools: there Grad-CAM is the head's own weighted sum of the maps (CAM, Zhou et al. 2016,
    1512.04150).
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def look(variables: Tree, images: jax.Array) -> None:
        out = model.apply(variables, images, train=False)[1]
        shapes.update({name: getattr(x, "shape", ()) for name, x in out.items()})

    jax.eval_shape(look, variables, jax.ShapeDtypeStruct(tuple(image_shape), "f4"))
    maps = [n for n, s in shapes.items() if len(s) == 4 and s[1] >= LEAST_SIDE]
    if not maps:
        raise ValueError(
            f"no endpoint has maps of 4 x 4 or more at {image_shape[1]} px"
        )
    return maps[-1]  # before the last norm an offset that it removes may lead the map


def gradcam(
    model: Model,
    variables: Tree,
    images: np.ndarray,
    classes: np.ndarray,
    endpoint: str,
) -> np.ndarray:
    """Grad-CAM heatmaps float32 [n, h, w] in [0, 1], at the size of the images.

    images: float [n, h, w, C] in [-1, 1], as augment.eval_view makes them. classes: int
    [n], the logit that each map explains (before softmax or sigmoid). endpoint: a
    layer with maps, such as "block4". Each map is divided by its largest value; one
    without positive evidence is 0 everywhere. Raises ValueError for an endpoint that
    has no maps or that there is none of.
    """
    return explainer(model, endpoint)(variables, images, classes)


def explainer(model: Model, endpoint: str) -> Explain:
    """`gradcam` of a model and endpoint, to be called often: compiled once a shape."""

    @jax.jit
    def maps(variables: Tree, images: jax.Array, classes: jax.Array) -> jax.Array:
        onward, value = from_endpoint(model, variables, images, endpoint)
        if value.ndim != 4:
            raise ValueError(
                f"the endpoint {endpoint!r} has no maps: its shape is {value.shape}"
            )

        def score(value: jax.Array) -> jax.Array:
            return jnp.take_along_axis(onward(value), classes[:, None], 1).sum()

        # Of the sum: the images do not touch each other, so each has its own gradient.
        slope = jax.grad(score)(value).astype(jnp.float32)
        weight = slope.mean((1, 2), keepdims=True)
        cam = jax.nn.relu((weight * value).sum(-1))
        size = (len(images), *images.shape[1:3])
        cam = jax.image.resize(cam, size, "linear")
        top = cam.max((1, 2), keepdims=True)
        # A map without positive evidence stays 0 in place of NaN.
        return cam / jnp.where(top > 0, top, 1)

    def explain(variables: Tree, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        images, classes = np.asarray(images, "float32"), np.asarray(classes, "int32")
        if images.ndim != 4 or classes.shape != images.shape[:1]:
            raise ValueError(
                f"images {images.shape} and classes {classes.shape}: [n, h, w, C], [n]"
            )
        out = []
        for start in range(0, len(images), BATCH):
            batch, batch_classes = images[start:][:BATCH], classes[start:][:BATCH]
            pad = [(0, BATCH - len(batch))]  # one shape, one compilation
            heat = maps(
                variables,
                np.pad(batch, [*pad, *[(0, 0)] * 3]),
                np.pad(batch_classes, pad),
            )
            out.append(np.asarray(heat)[: len(batch)])
        return np.concatenate(out)

    return explain


def smoothgrad(model: Model, samples: int = 25) -> Explain:
    """SmoothGrad (Smilkov et al. 2017, 1706.03825), to be called as `explainer`'s.

    By PAIR's `saliency`, with its defaults: the mean of squared gradients of the logit
    on `samples` copies with noise of 15% of the image's range, the brightest 1%
    clipped. Maps float32 [n, h, w] in [0, 1]. ImportError that says what to install.
    """
    try:
        from saliency import core as pair
    except ImportError:
        raise ImportError("SmoothGrad needs `pip install saliency`") from None

    @jax.jit
    def slopes(variables: Tree, images: jax.Array, chosen: jax.Array) -> jax.Array:
        def score(images: jax.Array) -> jax.Array:
            return model.apply(variables, images, train=False)[0][:, chosen].sum()

        return jax.grad(score)(images)

    def call(images: Any, call_model_args: Any, expected_keys: Any) -> dict:
        (key,), (variables, chosen) = expected_keys, call_model_args
        gradient = slopes(variables, jnp.asarray(images, jnp.float32), chosen)
        return {key: np.asarray(gradient)}

    def explain(variables: Tree, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        np.random.seed(0)  # the library draws its noise from numpy's global state
        out, masker = [], pair.GradientSaliency()
        for image, chosen in zip(images, classes, strict=True):
            args = variables, int(chosen)
            mask = masker.GetSmoothedMask(image, call, args, nsamples=samples)
            out.append(pair.VisualizeImageGrayscale(mask))
        return np.asarray(out, np.float32)

    return explain


def shuffled(variables: Tree, layers: Sequence[str], seed: int = 0) -> Tree:
    """The variables with each leaf of these layers permuted within itself.

    A net that has learnt nothing, with weights as large as the trained one's.
    """
    flat = tree.flatten(variables["params"])
    for i, name in enumerate(sorted(flat)):
        if any(name.startswith(f"{layer}/") for layer in layers):
            values = np.asarray(flat[name])
            # By the leaf's number among all: what else is shuffled changes nothing.
            rng = np.random.default_rng([seed, i])
            flat[name] = rng.permutation(values.ravel()).reshape(values.shape)
    return {**variables, "params": tree.unflatten(flat)}


def balanced(variables: Tree, head: str) -> Tree:
    """The variables with each class's weights of the head less their mean: for a head
    that was shuffled."""
    # Of a rare class nearly all weights are negative: shuffled, they see evidence against
    # it everywhere, and a flat map is no control.
    flat = tree.flatten(variables["params"])
    for name in tree.names(tree.take(variables["params"], head)):
        if name.endswith("kernel"):
            kernel = np.asarray(flat[name])
            places = tuple(range(kernel.ndim - 1))
            flat[name] = kernel - kernel.mean(places, keepdims=True)
    return {**variables, "params": tree.unflatten(flat)}


def sanity(
    explain: Explain,
    model: Model,
    variables: Tree,
    images: np.ndarray,
    classes: np.ndarray,
    draws: int = 1,
) -> dict[str, float]:
    """{block: mean rank correlation with the trained net's maps}, from the head down.

    Weights are shuffled in cascade: at each block its own and those of all above it
    (Adebayo et al. 2018, section 3), `draws` times anew. Maps that explain the net fall to what ANOTHER, the last entry, says: how alike the trained maps of two
    images are. Maps that stay near 1 show the image, not the net. NaN where all are flat.
    """
    want, averaged = explain(variables, images, classes), movement.averager(model)
    scores: dict[str, list[float]] = {}
    for seed in range(draws):
        mixed = variables
        for block, layers in reversed(movement.blocks(model.layers()).items()):
            # Batch norm's old averages fit nothing now, and leave every ReLU dead.
            mixed = averaged(shuffled(mixed, layers, seed), jnp.asarray(images))
            maps = explain(balanced(mixed, model.head), images, classes)
            scores.setdefault(block, []).append(correlation(want, maps))
    means = {block: float(np.mean(values)) for block, values in scores.items()}
    # Each image's map against that of the next.
    return means | {ANOTHER: correlation(want, np.roll(want, 1, axis=0))}


def correlation(some: np.ndarray, others: np.ndarray) -> float:
    """Mean rank correlation of maps [n, h, w] with others; pairs with a flat one left out."""
    # The rank correlation with a constant is not defined.
    alive = [(a, b) for a, b in zip(some, others) if np.ptp(a) and np.ptp(b)]
    ranks = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in alive]
    return float(np.mean(ranks)) if ranks else float("nan")
