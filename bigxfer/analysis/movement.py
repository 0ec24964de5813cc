"""How far training moved the weights, and which layers' starts it could have kept.

Three measures, beside the similarity of activations (similarity.py): the distance of
each layer's weights from its start; the first filters, to be looked at; and what the
trained net loses where one layer's start is put back into it (Zhang et al. 2019,
1902.01996, section 2; ChrisMats/feature-reuse, layer_importance).

`analyze --what weights` writes weights_moved.* and filters.*, `--what reuse` reuse.*.
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bigxfer import tree
from bigxfer.analysis import features, layer_pairs, plots
from bigxfer.models import Model, leaves
from bigxfer.runs.finished import WithData
from bigxfer.statistics import crossed, metrics
from bigxfer.statistics.crossed import Side
from bigxfer.statistics.limits import Score
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
        # In float64, since a small movement is the difference of two large numbers.
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
        # A filter of zeros is gray all over.
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
        # z is (1 - m) batch, and o - z is m.
        averages = jax.tree.map(lambda z, o: np.asarray(z / (1 - (o - z))), zeros, ones)
        return {**variables, "batch_stats": averages}

    return averaged


def blocks(layers: Sequence[str]) -> dict[str, list[str]]:
    """{block: its layers} in order of depth: Keras's blocks, units of BiT, or layers."""
    named = r"conv\d+_block\d+|mixed\d+|stem|block_\d+|conv_[dp]w_\d+"
    out: dict[str, list[str]] = {}
    for layer in layers:
        # Not within a number: "conv2_block1" is not "conv2_block12".
        match = re.match(rf"({named})(?!\d)", layer)
        out.setdefault(match[1] if match else layer, []).append(layer)
    return out


Nets = Sequence[tuple[WithData, Tree]]  # (run, the variables of its start)
AVERAGED = 256  # training images that batch norm's averages are taken anew from
METRIC = "auroc_macro"
ENDS = ("value", "low", "high")


def weights(nets: Nets, split: str, most: int, out: Path) -> dict[str, Any]:
    """Writes weights_moved.* and filters.*: all nets beside each other."""
    rows: list[dict] = []
    for run, begun in nets:
        moved = distances(begun["params"], run.variables["params"], run.model.layers())
        rows += [{"net": run.folder.name, **row} for row in moved]
    synthetic = nets[0][0].data.manifest.synthetic
    plots.save(draw_moved(rows), out, "weights_moved", rows, synthetic)
    scores = save_filters(nets, split, most, out)
    summary: dict[str, Any] = {}
    for row in rows:
        summary.setdefault(f"{row['net']} relative", {})[row["layer"]] = row["relative"]
    return summary | {"first layer": scores}


def draw_moved(rows: plots.Rows) -> object:
    """Two panels over depth: l2_per_weight and the relative distance."""
    figure, axes = plots.figure(12, 4.8, 1, 2)
    titles = {
        "l2_per_weight": "||w1 - w0|| / number of weights",
        "relative": "||w1 - w0|| / ||w0||",
    }
    nets = list(dict.fromkeys(row["net"] for row in rows))
    for ax, (key, title) in zip(axes.flat, titles.items(), strict=True):
        for k, net in enumerate(nets):
            values = [row[key] for row in rows if row["net"] == net]
            place = np.linspace(0, 1, len(values))
            style = {"color": plots.COLOURS[k % 7], "marker": plots.MARKS[k % 7]}
            ax.plot(place, values, label=net, **style)
        # Divided by the size of its tensor it spans several powers of ten over a net.
        ax.set(title=title, yscale="log" if key == "l2_per_weight" else "linear")
        named = [row["layer"] for row in rows if row["net"] == nets[0]]
        if len(nets) == 1 and len(named) <= 24:
            turned = {"rotation": 45, "ha": "right", "fontsize": 8}
            ax.set_xticks(np.linspace(0, 1, len(named)), named, **turned)
        else:
            ax.set_xlabel("depth, from the first layer (0) to the head (1)")
    axes[0, 0].legend(fontsize=8)
    figure.suptitle("How far weights moved from their start; a head starts at zero")
    return figure


def save_filters(
    nets: Nets, split: str, most: int, out: Path
) -> dict[str, dict[str, float]]:
    """A row for each net: its first filters before and after, and their likeness.

    Likeness is that of the activations of the first endpoint on the run's own images
    (SVCCA, PWCCA, debiased CKA), as in Transfusion's figure of filters.
    """
    figure, axes = plots.figure(7.2, 0.8 + 3.7 * len(nets), len(nets), 2)
    table: list[dict] = []
    scores: dict[str, dict[str, float]] = {}
    for pair, (run, begun) in zip(axes, nets, strict=True):
        name = run.folder.name
        likeness = first_likeness(run, begun, split, most)
        scores[name] = likeness
        label = ", ".join(f"{k} {v:.3f}" for k, v in likeness.items())
        sides = {"at the start": begun, "trained": run.variables}
        for ax, (when, variables) in zip(pair, sides.items(), strict=True):
            layers = run.model.layers()
            leaf, kernel = leaves.first_kernel(variables["params"], layers)
            ax.imshow(mosaic(kernel))
            ax.set_title(f"{name}, {when}", fontsize=9)
            ax.set(xticks=[], yticks=[])
            ax.spines[["left", "bottom"]].set_visible(False)
            h, w, _, n = kernel.shape
            for y, x, k in np.ndindex(h, w, n):
                values = dict(zip("rgb", kernel[y, x, :, k].tolist(), strict=True))
                about = {"net": name, "leaf": leaf, "when": when}
                table.append({**about, "filter": k, "y": y, "x": x, **values})
        pair[0].set_xlabel(label, fontsize=9, loc="left")
    figure.suptitle("First filters, each by its own largest weight (gray is 0)")
    plots.save(figure, out, "filters", table, nets[0][0].data.manifest.synthetic)
    return scores


def first_likeness(
    run: WithData, begun: Tree, split: str, most: int
) -> dict[str, float]:
    """{measure: value} of the first endpoint's activations, start against trained."""
    first = features.names(run.model, run.variables, run.image_shape)[0]
    rows = features.sample(run, split, most)
    extract = features.extractor(run, features.thinned(layer_pairs.SIDE), only=(first,))
    both = extract(begun, rows), extract(run.variables, rows)
    return {
        row["measure"]: float(row["value"])
        for row in layer_pairs.by_layer({"filters": both}, print)
    }


def reuse(run: WithData, begun: Tree, split: str, out: Path) -> dict[str, Any]:
    """Writes reuse.*: the test metric with one block's start put back at a time.

    The difference from the trained net is paired by patient (Student's t, crossed.py).
    ValueError where the split lacks a class.
    """
    manifest, rows = run.data.manifest, np.sort(run.data.rows[split])
    predict, tested = features.predictor(run), manifest.select(rows)
    # Training images, as the averages that they replace.
    images = jnp.asarray(features.view(run, features.sample(run, "train", AVERAGED)))
    averaged = averager(run.model)

    def judged(variables: Tree) -> Score:
        args = tested.labels, predict(variables, rows), tested.classes, tested.patient
        return metrics.scores(*args)[METRIC]

    trained = judged(run.variables)
    if np.isnan(trained.value):
        raise ValueError(f"the {split} split lacks a class: no {METRIC} to compare")
    table: list[dict[str, Any]] = [
        {"block": "none (trained)", **dict(zip(ENDS, trained))}
    ]
    # Without the head: it starts at zero, and put back it would predict nothing.
    layers = [n for n in run.model.layers() if not re.match(run.model.head, n + "/")]
    for block, names in blocks(layers).items():
        params = run.variables["params"]
        for name in names:
            params = put_back(begun["params"], params, name)
        # Batch norm's old averages fit nothing above a block that changed.
        net = averaged({**run.variables, "params": params}, images)
        now = judged(net)
        ends = now.value - trained.value, *difference(now, trained)
        row = {"block": block, **dict(zip(ENDS, ends, strict=True))}
        table.append({**row, METRIC: now.value})
    save_reuse(run, table, split, out)
    return {
        "trained": {k: table[0][k] for k in ENDS},
        **{r["block"]: {k: r[k] for k in ENDS} for r in table[1:]},
    }


def difference(a: Score, b: Score) -> tuple[float, float]:
    """The 95% interval of a - b, of two nets on the same patients; NaN where few."""
    # Where few patients leave a metric without limits, so they do its difference.
    if a.sums is None or b.sums is None or not math.isfinite(a.low + b.low):
        return math.nan, math.nan
    sides = [
        Side(np.array([[s.value]]), s.sums[:, None, None], sign)
        for s, sign in ((a, 1), (b, -1))
        if s.sums is not None
    ]
    return crossed.interval(a.value - b.value, crossed.parts(sides, max(a.one, b.one)))


def save_reuse(run: WithData, table: list[dict], split: str, out: Path) -> None:
    figure, axes = plots.figure(7, 1.6 + 0.32 * len(table))
    ax = axes[0, 0]
    plots.intervals(ax, table[1:], "block")
    ax.axvline(0, color="#999999", linestyle=":")
    ax.set_xlabel(f"{METRIC} on {split} less the trained net's, 95%")
    figure.suptitle(
        f"One block's start put back: {run.folder.name}, {METRIC}"
        f" {table[0]['value']:.3f} as trained",
        fontsize=10,
    )
    plots.save(figure, out, "reuse", table, run.data.manifest.synthetic)
