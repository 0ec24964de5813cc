"""The layers of one net against those of another, or of itself at the start."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bigxfer.analysis import features, plots, similarity
from bigxfer.analysis.plots import Rows
from bigxfer.runs.finished import WithData
from bigxfer.tree import Tree

SIDE = 8  # maps are thinned to at most SIDE x SIDE points, which are folded
BATCH = 64  # datapoints a batch of minibatch CKA
POINTS = 10  # datapoints a neuron for CCA: 5 to 10 is the usual rule

Layers = dict[str, np.ndarray]  # endpoint -> float32 [n, ...], all of the same images
Side = Callable[[np.ndarray], np.ndarray]
MEASURES: dict[str, tuple[Side, similarity.Measure]] = {  # what is made of a side first
    "svcca": (
        partial(similarity.leading, keep=similarity.VARIANCE),
        similarity.mean_cca,
    ),
    "pwcca": (np.asarray, similarity.pwcca),
}


def write(
    run: WithData,
    begun: Tree,
    others: Sequence[tuple[WithData, Tree]],
    split: str,
    most: int,
    out: Path,
) -> dict[str, Any]:
    """Writes similarity_*.*; returns debiased CKA by pair of nets and layer.

    The run's layers against those of its start `begun`, and against each other run's
    and its start's. ValueError for a run on other data.
    """
    rows, reduce = features.sample(run, split, most), features.thinned(SIDE)
    extract = features.extractor(run, reduce)
    ended, start = extract(run.variables, rows), extract(begun, rows)
    names, pairs = list(ended), {"trained and its start": (ended, start)}
    matrices = {"trained and itself": (matrix(ended, ended), names, names)}
    matrices["trained and its start"] = matrix(ended, start), names, names
    for other, other_begun in others:
        # The rows are those of the run: on other data they would be other images.
        if other.data.manifest.hash() != run.data.manifest.hash():
            raise ValueError(f"{other.folder} had other data than {run.folder}")
        extract_other, name = features.extractor(other, reduce), other.folder.name
        b_ended, b_start = (
            extract_other(other.variables, rows),
            extract_other(other_begun, rows),
        )
        pairs[f"trained and {name}"] = ended, b_ended
        pairs[f"start and {name}'s"] = start, b_start
        matrices[f"trained and {name}"] = matrix(ended, b_ended), names, list(b_ended)
    layer_rows, scatter = by_layer(pairs, print), []
    for other, _ in others:
        name = other.folder.name
        for measure in ("cka_debiased", "svcca"):
            two = f"start and {name}'s", f"trained and {name}"
            drawn = scattered(layer_rows, *two, measure)
            scatter += [{**row, "against": name} for row in drawn]
    data = run.data.manifest
    about = f"{run.folder.name}, {data.name} {split}, {len(rows)} images"
    drawn = draw_layers(layer_rows, about)
    plots.save(drawn, out, "similarity_layers", layer_rows, data.synthetic)
    drawn = draw_matrices(matrices, f"debiased CKA: {about}")
    plots.save(drawn, out, "similarity_matrix", cells(matrices), data.synthetic)
    if scatter:
        drawn = draw_scatter(scatter, about)
        plots.save(drawn, out, "similarity_scatter", scatter, data.synthetic)
    # Debiased CKA alone, the one measure of the three that needs no baseline.
    summary: dict[str, Any] = {}
    for row in layer_rows:
        if row["measure"] == "cka_debiased":
            summary.setdefault(row["pair"], {})[row["layer"]] = float(row["value"])
    return summary


def cells(matrices: dict[str, tuple]) -> list[dict]:
    return [
        {"pair": pair, "row": a, "column": b, "cka_debiased": values[i, j]}
        for pair, (values, down, across) in matrices.items()
        for i, a in enumerate(down)
        for j, b in enumerate(across)
    ]


def points(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[m, p], [m, q] for CCA: folded maps of one spatial size, pooled of two.

    Of more than POINTS datapoints a neuron so many are drawn, the same on both sides.
    """
    if x.ndim == y.ndim == 4 and x.shape[1:3] == y.shape[1:3]:
        x, y = similarity.fold(x), similarity.fold(y)
    else:
        x, y = (similarity.pool(z) if z.ndim == 4 else z for z in (x, y))
    enough = POINTS * max(x.shape[1], y.shape[1])
    if len(x) > enough:
        drawn = np.random.default_rng(0).choice(len(x), enough, replace=False)
        x, y = x[drawn], y[drawn]
    return x, y


def matrix(a: Layers, b: Layers) -> np.ndarray:
    """[layers of a, layers of b]: debiased minibatch CKA of the flattened maps."""
    n = len(next(iter(a.values())))
    # Without the last, smaller batch; debiased CKA needs four datapoints in each.
    starts = range(0, max(n - n % BATCH, min(n, BATCH)), BATCH)

    def batch_of(layers: Layers, start: int) -> list[np.ndarray]:
        return [
            x[start : start + BATCH].reshape(-1, x[0].size) for x in layers.values()
        ]

    return similarity.minibatch_cka((batch_of(a, i), batch_of(b, i)) for i in starts)


def by_layer(
    pairs: dict[str, tuple[Layers, Layers]], say: Callable[[str], None]
) -> list[dict]:
    """Rows of pair, layer, measure, value, noise and points for the shared layers.

    `noise` is the measure on Gaussian noise of the same shapes. A measure that refuses a
    layer has no row, and `say` is told why.
    """
    out: list[dict] = []
    noises: dict[tuple, float] = {}
    for pair, (a, b) in pairs.items():
        for layer in [name for name in a if name in b]:
            debiased = matrix({layer: a[layer]}, {layer: b[layer]})[0, 0]
            about = {"pair": pair, "layer": layer}
            measured = {"measure": "cka_debiased", "value": debiased, "noise": 0.0}
            out.append({**about, **measured, "points": len(a[layer])})
            x, y = points(a[layer], b[layer])
            for name, (side, measure) in MEASURES.items():
                # The noise then has as many directions as SVCCA kept.
                u, v = side(x), side(y)
                shapes = name, u.shape, v.shape
                try:
                    with threadpool_limits(1):  # small, and threads wait on each other
                        value = measure(u, v)
                        # Noise depends on shapes alone, and costs as much.
                        if shapes not in noises:
                            noises[shapes] = similarity.baseline(measure, u, v)
                except ValueError as error:
                    say(f"  {layer}: no {name}: {error}")
                    continue
                measured = {"measure": name, "value": value, "noise": noises[shapes]}
                out.append({**about, **measured, "points": len(x)})
    return out


def draw_layers(found: Rows, title: str) -> object:
    """One panel a measure: its value by layer for each pair, over the noise."""
    measures = ["cka_debiased", *MEASURES]
    layers = list(dict.fromkeys(row["layer"] for row in found))
    pairs = list(dict.fromkeys(row["pair"] for row in found))
    figure, axes = plots.figure(14, 4.5, 1, 3)
    for ax, measure in zip(axes.flat, measures, strict=True):
        at = {(r["pair"], r["layer"]): r for r in found if r["measure"] == measure}

        def curve(pair: str, key: str, at: dict = at) -> list[float]:
            return [at.get((pair, n), {}).get(key, np.nan) for n in layers]

        curves: dict[str, Sequence[float]]
        curves = {pair: curve(pair, "value") for pair in pairs}
        plots.lines(ax, layers, curves)
        for line, pair in zip(list(ax.lines), pairs, strict=True):
            ax.plot(curve(pair, "noise"), "--", color=line.get_color(), alpha=0.6)
        ax.set(title=measure, ylim=(-0.05, 1.05))
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(f"{title}; dashed: Gaussian noise of the same shapes")
    return figure


def draw_matrices(found: dict[str, tuple], title: str) -> object:
    """One heatmap for each {name: (matrix, names down, names across)}."""
    figure, axes = plots.figure(5.2 * len(found), 4.8, 1, len(found))
    for ax, (name, (values, down, across)) in zip(axes.flat, found.items()):
        plots.matrix(ax, values, down, across)
        ax.set_title(name, fontsize=9)
    figure.suptitle(title)
    return figure


def scattered(found: Rows, start: str, end: str, measure: str) -> list[dict]:
    """Rows of layer, at_start, at_end: two nets' similarity before and after training.

    start, end: the pairs of `by_layer` that are meant.
    Transfusion (1902.07208), the scatter of its section 4.
    """
    before, after = (
        {r["layer"]: r["value"] for r in found if (r["pair"], r["measure"]) == key}
        for key in ((start, measure), (end, measure))
    )
    return [
        {"layer": name, "measure": measure, "at_start": x, "at_end": after[name]}
        for name, x in before.items()
        if name in after
    ]


def draw_scatter(found: Rows, title: str) -> object:
    figure, axes = plots.figure(5.5, 5)
    ax = axes[0, 0]
    measures: Sequence[str] = list(dict.fromkeys(row["measure"] for row in found))
    for k, measure in enumerate(measures):
        points = [row for row in found if row["measure"] == measure]
        x, y = ([row[key] for row in points] for key in ("at_start", "at_end"))
        ax.scatter(x, y, 30, plots.COLOURS[k], marker=plots.MARKS[k], label=measure)
        for row in points:
            at = row["at_start"], row["at_end"]
            shift = {"xytext": (5, 3 - 10 * k), "textcoords": "offset points"}
            ax.annotate(row["layer"], at, fontsize=7, color=plots.COLOURS[k], **shift)
    ax.plot([0, 1], [0, 1], color="#999999", linestyle=":")
    ax.set(xlabel="similarity of the two starts", ylabel="of the two trained nets")
    ax.set(xlim=(-0.05, 1.1), ylim=(-0.05, 1.1))
    ax.legend(fontsize=8)
    figure.suptitle(title)
    return figure
