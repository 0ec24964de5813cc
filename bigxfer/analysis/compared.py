"""The layers of one net against those of another, or of itself at the start."""

from collections.abc import Callable, Sequence

import numpy as np

from bigxfer.analysis import plots, similarity
from bigxfer.analysis.plots import Rows

SIDE = 8  # maps are thinned to at most SIDE x SIDE points, which are folded
BATCH = 64  # datapoints a batch of minibatch CKA

Layers = dict[str, np.ndarray]  # endpoint -> float32 [n, ...], all of the same images
MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "svcca": similarity.svcca,
    "pwcca": similarity.pwcca,
    "cka": similarity.cka,
}


def points(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[m, p], [m, q] for CCA: folded maps of one spatial size, pooled of two."""
    if x.ndim == y.ndim == 4 and x.shape[1:3] == y.shape[1:3]:
        return similarity.fold(x), similarity.fold(y)
    return rows(x), rows(y)


def rows(x: np.ndarray) -> np.ndarray:
    return similarity.pool(x) if x.ndim == 4 else x


def matrix(a: Layers, b: Layers) -> np.ndarray:
    """[layers of a, layers of b]: debiased minibatch CKA of the flattened maps."""
    n = len(next(iter(a.values())))
    starts = range(0, max(n - n % BATCH, min(n, BATCH)), BATCH)

    def part(layers: Layers, start: int) -> list[np.ndarray]:
        return [
            x[start : start + BATCH].reshape(-1, x[0].size) for x in layers.values()
        ]

    return similarity.minibatch_cka((part(a, i), part(b, i)) for i in starts)


def by_layer(pair: str, a: Layers, b: Layers, say: Callable[[str], None]) -> list[dict]:
    """Rows of pair, layer, measure, value, noise and points for the shared layers.

    `noise` is the measure on Gaussian noise of the same shapes. A measure that refuses a
    layer has no row, and `say` is told why.
    """
    out = []
    for layer in [name for name in a if name in b]:
        debiased = matrix({layer: a[layer]}, {layer: b[layer]})[0, 0]
        about = {"pair": pair, "layer": layer}
        out.append(
            {**about, "measure": "cka_debiased", "value": debiased, "noise": 0.0}
        )
        x, y = points(a[layer], b[layer])
        for name, measure in MEASURES.items():
            try:
                value, noise = measure(x, y), similarity.baseline(measure, x, y)
            except ValueError as error:
                say(f"{pair}, {layer}: no {name}: {error}")
                continue
            found = {"measure": name, "value": value, "noise": noise, "points": len(x)}
            out.append({**about, **found})
    return out


def draw_layers(found: Rows, title: str) -> object:
    """One panel a measure: its value by layer for each pair, over the noise."""
    measures = ["cka_debiased", *MEASURES]
    layers = list(dict.fromkeys(row["layer"] for row in found))
    pairs = list(dict.fromkeys(row["pair"] for row in found))
    made, axes = plots.figure(11, 7, 2, 2)
    for ax, measure in zip(axes.flat, measures, strict=True):
        at = {(r["pair"], r["layer"]): r for r in found if r["measure"] == measure}

        def curve(pair: str, key: str, at: dict = at) -> list[float]:
            return [at.get((pair, n), {}).get(key, np.nan) for n in layers]

        curves: dict[str, Sequence[float]]
        curves = {pair: curve(pair, "value") for pair in pairs}
        curves["Gaussian noise"] = curve(pairs[0], "noise")
        plots.lines(ax, layers, curves)
        ax.set(title=measure, ylim=(-0.05, 1.05))
    axes[0, 0].legend(fontsize=8)
    made.suptitle(title)
    return made


def draw_matrices(found: dict[str, tuple], title: str) -> object:
    """One heatmap for each {name: (matrix, names down, names across)}."""
    made, axes = plots.figure(5.2 * len(found), 4.8, 1, len(found))
    for ax, (name, (values, down, across)) in zip(axes.flat, found.items()):
        plots.matrix(ax, values, down, across)
        ax.set_title(name, fontsize=9)
    made.suptitle(title)
    return made


def scattered(start: Rows, end: Rows, measure: str) -> list[dict]:
    """Rows of layer, at_start, at_end: two nets' similarity before and after training.

    Transfusion (1902.07208), the scatter of its section 4.
    """
    before, after = (
        {row["layer"]: row["value"] for row in part if row["measure"] == measure}
        for part in (start, end)
    )
    return [
        {"layer": name, "measure": measure, "at_start": x, "at_end": after[name]}
        for name, x in before.items()
        if name in after
    ]


def draw_scatter(found: Rows, title: str) -> object:
    made, axes = plots.figure(5.5, 5)
    ax = axes[0, 0]
    measures: Sequence[str] = list(dict.fromkeys(row["measure"] for row in found))
    for k, measure in enumerate(measures):
        part = [row for row in found if row["measure"] == measure]
        x, y = ([row[key] for row in part] for key in ("at_start", "at_end"))
        ax.scatter(x, y, 30, plots.COLOURS[k], marker=plots.MARKS[k], label=measure)
        for row in part:
            at = row["at_start"], row["at_end"]
            shift = {"xytext": (5, 3 - 10 * k), "textcoords": "offset points"}
            ax.annotate(row["layer"], at, fontsize=7, color=plots.COLOURS[k], **shift)
    ax.plot([0, 1], [0, 1], color="#999999", linestyle=":")
    ax.set(xlabel="similarity of the two starts", ylabel="of the two trained nets")
    ax.set(xlim=(-0.05, 1.1), ylim=(-0.05, 1.1))
    ax.legend(fontsize=8)
    made.suptitle(title)
    return made
