"""What `analyze --what gradcam` writes: overlays, sanity check, pointing game.

And `--what smoothgrad`, the same on fewer images, since each costs 25 gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from bigxfer import tree
from bigxfer.analysis import features, gradcam, movement, plots, pointing
from bigxfer.runs.finished import WithData
from bigxfer.tree import Tree

SHOWN = 3  # images of each class on the page of overlays
SANITY_IMAGES = {"gradcam": 32, "smoothgrad": 6}
MOST = {"gradcam": 10**9, "smoothgrad": 60}  # cases of the pointing game
DRAWS = {"gradcam": 8, "smoothgrad": 1}  # of shuffled weights: maps differ by draw
AVERAGED = 128  # images that batch norm's averages are taken from


@dataclass(frozen=True)
class Page:
    """What all plots of one explanation share."""

    run: WithData
    kind: str  # gradcam or smoothgrad, the beginning of the files' names
    title: str
    out: Path

    def save(self, figure: Any, name: str, rows: list[dict]) -> None:
        synthetic = self.run.data.manifest.synthetic
        plots.save(figure, self.out, f"{self.kind}_{name}", rows, synthetic)


def write(
    kind: str,
    run: WithData,
    begun: Tree,
    split: str,
    endpoint: str,
    most: int,
    out: Path,
) -> dict[str, Any]:
    """Writes KIND_*.png, .svg, .csv; returns the summary.

    kind: "gradcam" or "smoothgrad". begun: the variables at the start. endpoint: of
    Grad-CAM; "" takes gradcam.deepest. Where boxes are
    known the cases are the images with one, each for the box's class; else the first
    images, each for the class that the net calls.
    """
    explain, word = explanation(kind, run, endpoint)
    rows = np.sort(run.data.rows[split])
    place = {row: i for i, row in enumerate(rows.tolist())}
    every = pointing.boxes(run.data.manifest)
    known = [b for b in every if b.row in place]
    judged = some(pointing.cases(known), min(most, MOST[kind]))
    if judged:
        chosen, classes = (np.array(column) for column in zip(*judged))
        images = features.view(run, chosen)
    else:
        chosen = features.sample(run, split, SHOWN * len(run.data.manifest.classes))
        images = features.view(run, chosen)
        classes = called(run, images)
    trained = explain(run.variables, images, classes)
    # Several draws: by its shuffle a net may point at all that is bright, or dark.
    controls = [
        explain(untrained(run, begun, images, draw), images, classes)
        for draw in range(DRAWS[kind])
    ]
    few = SANITY_IMAGES[kind]
    summaries: dict[str, Any] = {"by": word, "images": len(set(chosen.tolist()))}
    checked = gradcam.sanity(
        explain, run.model, run.variables, images[:few], classes[:few], DRAWS[kind]
    )
    summaries["sanity"] = checked
    # A flat map points nowhere and scores as a blind guess: how many there are.
    summaries["flat maps"] = {
        "trained": flat(trained),
        "untrained": float(np.mean([flat(maps) for maps in controls])),
    }
    page = Page(run, kind, f"{word}, {run.folder.name}", out)
    save_sanity(page, checked)
    shown = {"trained": trained, "untrained": controls[0]}
    show(page, images, chosen, classes, shown, known)
    if judged:
        summaries |= play(page, judged, every, trained, controls)
    else:
        print(f"  no boxes beside {run.data.manifest.root}: no pointing game")
    return summaries


def explanation(kind: str, run: WithData, endpoint: str) -> tuple[gradcam.Explain, str]:
    """(what makes the maps, its name in words)."""
    if kind == "smoothgrad":
        return gradcam.smoothgrad(run.model), "SmoothGrad"
    net = run.model, run.variables, run.image_shape
    endpoint = endpoint or gradcam.deepest(*net)
    return gradcam.explainer(run.model, endpoint), f"Grad-CAM of {endpoint}"


def some(of: dict, most: int) -> dict:
    """At most `most` of the cases, spread evenly over them."""
    keys = list(of)
    if len(keys) > most:
        # Cases are sorted by row, so that the first ones would be of few patients.
        keys = [keys[i] for i in np.linspace(0, len(keys) - 1, most).astype(int)]
    return {key: of[key] for key in keys}


def called(run: WithData, images: np.ndarray) -> np.ndarray:
    """int [n]: the class of the largest logit."""
    logits, _ = run.model.apply(run.variables, jnp.asarray(images), train=False)
    return np.asarray(logits).argmax(axis=1)


def untrained(run: WithData, begun: Tree, images: np.ndarray, draw: int) -> Tree:
    """The start, with the trained head shuffled in place of its zeros, which see
    nothing, and batch norm's averages from the images, where a random start has none."""
    shuffled = gradcam.shuffled(run.variables, run.model.layers()[-1:], draw)
    balanced = gradcam.balanced(shuffled, run.model.head)
    head = tree.take(balanced["params"], run.model.head)
    flat = {**tree.flatten(begun["params"]), **tree.flatten(head)}
    net = {**begun, "params": tree.unflatten(flat)}
    return movement.averager(run.model)(net, jnp.asarray(images[:AVERAGED]))


def flat(maps: np.ndarray) -> float:
    """The share of maps [n, h, w] that have one value everywhere."""
    return float((np.ptp(maps, axis=(1, 2)) == 0).mean())


def save_sanity(page: Page, found: dict[str, float]) -> None:
    figure, axes = plots.figure(7, 4)
    ax = axes[0, 0]
    shuffled = {k: v for k, v in found.items() if k != gradcam.ANOTHER}
    plots.lines(ax, list(shuffled), {"rank correlation": list(shuffled.values())})
    ax.axhline(found[gradcam.ANOTHER], color="#999999", linestyle=":")
    ax.set(ylim=(-1, 1.05), xlabel="shuffled from the head down to")
    ax.set_ylabel("with the trained net's maps\n(dotted: of another image)")
    figure.suptitle(f"Sanity check: {page.title}")
    rows = [{"layer": k, "rank_correlation": v} for k, v in found.items()]
    page.save(figure, "sanity", rows)


def show(
    page: Page,
    images: np.ndarray,
    chosen: np.ndarray,
    classes: np.ndarray,
    seen: dict[str, np.ndarray],
    known: Sequence[pointing.Box],
) -> None:
    """A row for each class: SHOWN images with their boxes, each beside its maps."""
    manifest = page.run.data.manifest
    names = manifest.classes
    present = np.unique(classes)
    width = 1 + len(seen)
    figure, axes = plots.figure(
        1.5 * width * SHOWN, 1.75 * len(present), len(present), width * SHOWN
    )
    for ax in axes.flat:
        ax.set_axis_off()
    rows = []
    for i, label in enumerate(present):
        for j, case in enumerate(np.flatnonzero(classes == label)[:SHOWN]):
            framed = [b for b in known if (b.row, b.label) == (chosen[case], label)]
            name = manifest.id[chosen[case]]
            views = {names[label]: None, **{k: m[case] for k, m in seen.items()}}
            for k, (net, hot) in enumerate(views.items()):
                ax = axes[i, j * width + k]
                plots.heatmap(ax, images[case].mean(-1), hot, net)
                for box in framed:
                    plots.frame(ax, box, images.shape[1])
                if hot is not None:
                    y, x = np.unravel_index(hot.argmax(), hot.shape)
                    place = {"peak_x": int(x), "peak_y": int(y), "mean": hot.mean()}
                    rows.append(
                        {"id": name, "class": names[label], "net": net, **place}
                    )
    figure.suptitle(f"{page.title}; frames: where the finding is")
    page.save(figure, "overlays", rows)


def play(
    page: Page,
    of: dict,
    every: Sequence[pointing.Box],
    trained: np.ndarray,
    controls: Sequence[np.ndarray],
) -> dict[str, Any]:
    """The pointing game over all cases and for each class, plotted; and strictly, over
    all cases, without the tolerance.

    trained: the net's maps [n, h, w]; controls: those of untrained nets, whose hits are
    averaged. No interval covers other draws of them.
    """
    manifest = page.run.data.manifest
    chosen, labels = (np.array(column) for column in zip(*of))
    side, owner = trained.shape[1], manifest.patient.astype(str)
    patients, others = owner[chosen], pointing.cases(every)
    whose, classes = (np.array(column) for column in zip(*others))
    boxes = pointing.truth_masks(others, side)
    prior = pointing.box_prior(labels, patients, boxes, classes, owner[whose])
    maps = {"trained": [trained], "untrained": controls, "box prior": [prior]}

    def scores(around: float) -> dict[str, np.ndarray]:
        truth = pointing.truth_masks(of, side, around)
        hits = {
            name: np.mean([pointing.hits(hot, truth) for hot in several], axis=0)
            for name, several in maps.items()
        }
        return {**hits, "chance": truth.mean(axis=(1, 2))}

    hits, names = scores(pointing.TOLERANCE), manifest.classes
    groups = {"all": np.ones(len(labels), bool)}
    groups |= {names[label]: labels == label for label in np.unique(labels)}
    tolerant = {
        group: pointing.pointing(
            {name: hit[here] for name, hit in hits.items()}, patients[here]
        )
        for group, here in groups.items()
    }
    strict = pointing.pointing(scores(0.0), patients)
    rows = [
        {"class": group, "cases": int(here.sum()), "by": by, "tolerance": around, **v}
        for group, here in groups.items()
        for around, values in ((pointing.TOLERANCE, tolerant[group]), (0.0, strict))
        for by, v in values.items()
        if around or group == "all"
    ]
    save_play(page, rows, list(hits))
    return {"pointing": tolerant, "pointing without tolerance": strict}


def save_play(page: Page, rows: list[dict], names: list[str]) -> None:
    groups = list(dict.fromkeys(row["class"] for row in rows))
    figure, axes = plots.figure(7, 1.2 + 1.3 * len(groups), len(groups), 1)
    for ax, group in zip(axes.flat, groups, strict=True):
        bars = [r for r in rows if r["class"] == group and r["by"] in names]
        bars = [r for r in bars if r["tolerance"]]
        plots.intervals(ax, bars, "by")
        ax.set(xlim=(0, 1))
        ax.set_title(f"{group} ({bars[0]['cases']} cases)", fontsize=9)
    label = "cases whose brightest pixel is in a box, or within 15/224 of the side, 95%"
    axes[-1, 0].set_xlabel(label)
    figure.suptitle(f"Pointing game: {page.title}")
    page.save(figure, "pointing", rows)
