"""The pointing game: whether heatmaps point at boxes, against chance and the prior.

Boxes come from where the truth is known: the phantom's truth.csv, or the boxes that
NIH's radiologists drew (BBox_List_2017.csv).
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigxfer.data.manifest import Manifest
from bigxfer.data.phantom.layouts import CHEXPERT, COVIDX, NIH
from bigxfer.data.pixels import decode
from bigxfer.statistics import crossed, influence, limits
from bigxfer.statistics.crossed import Side
from bigxfer.statistics.influence import Patients

# Zhang et al. (1608.00507) count a hit within 15 pixels, here of a side of 224: what tells
# a shadow from its surroundings is its edge, and maps are coarse.
TOLERANCE = 15 / 224
NIH_SIDE = 1024  # BBox_List_2017.csv counts pixels of images of this side


@dataclass(frozen=True)
class Box:
    """A finding on an image of a manifest; edges are fractions of width and height."""

    row: int
    label: int  # class
    x0: float
    y0: float
    x1: float
    y1: float

    def mask(self, side: int, around: float = 0.0) -> np.ndarray:
        """bool [side, side]: pixels whose centre is inside; at least the nearest.

        around: a share of the side by which the box is wider in every direction.
        """
        place = (np.arange(side) + 0.5) / side

        def within(low: float, high: float) -> np.ndarray:
            inside = (place >= low - around) & (place <= high + around)
            if not inside.any():
                # A box thinner than a pixel of the map would else have no place to hit.
                inside[np.argmin(abs(place - (low + high) / 2))] = True
            return inside

        return np.outer(within(self.y0, self.y1), within(self.x0, self.x1))


def boxes(manifest: Manifest) -> list[Box]:
    """What lies beside the images: the phantom's truth.csv or NIH's BBox_List_2017.csv.

    Of the classes and the images that the manifest has; [] where there is neither
    file. ValueError for a line of another form.
    """
    root = Path(manifest.root)
    truth, nih = root / "truth.csv", root / "BBox_List_2017.csv"
    file = truth if truth.is_file() else nih
    if not file.is_file():
        return []
    rows = {
        # NIH's list names files without their folders.
        p if file == truth else Path(p).name: i
        for i, p in enumerate(manifest.path)
    }
    labels = {name: i for i, name in enumerate(manifest.classes)}
    parse = phantom_box if file == truth else nih_box
    out, sides = [], {}
    with open(file, newline="", encoding="utf-8-sig") as table:
        lines = csv.reader(table)
        next(lines, None)
        for number, line in enumerate(lines, 2):
            try:
                name, findings, pixels = parse(line, manifest.name)
            except (ValueError, IndexError) as error:
                raise ValueError(f"{file}, line {number}: {error}") from None
            if name not in rows:
                continue
            row = rows[name]
            # Read once an image, which may have many boxes; NIH's have one size.
            if file == truth and row not in sides:
                sides[row] = decode.side_lengths(manifest.root, manifest.path[row])
            wide, high = sides.get(row, (NIH_SIDE, NIH_SIDE))
            place = (pixels[0] / wide, pixels[1] / high, pixels[2] / wide)
            out += [
                Box(row, labels[label], *place, pixels[3] / high)
                for label in findings
                if label in labels
            ]
    return out


def phantom_box(line: list[str], kind: str) -> tuple[str, list[str], list[float]]:
    """(file, classes, x0 y0 x1 y1) of a line of truth.csv, whose ends are inclusive."""
    findings_of = {
        "chexpert": {name: shown for name, (shown, _, _) in CHEXPERT.items()},
        "nih": {name: (finding,) for finding, name in NIH.items()},
        "covidx": {name: (finding,) for name, (finding, _) in COVIDX.items()},
    }.get(kind, {})
    x0, y0, x1, y1 = map(float, line[2:6])
    names = [name for name, shown in findings_of.items() if line[1] in shown]
    return line[0], names, [x0, y0, x1 + 1, y1 + 1]


def nih_box(line: list[str], kind: str) -> tuple[str, list[str], list[float]]:
    """The same of BBox_List_2017.csv: image, finding, x, y, width, height."""
    del kind
    x, y, w, h = map(float, line[2:6])
    # The list of boxes spells one finding otherwise than Data_Entry_2017.csv.
    name = {"Infiltrate": "Infiltration"}.get(line[1], line[1])
    return line[0], [name], [x, y, x + w, y + h]


def cases(found: Sequence[Box]) -> dict[tuple[int, int], list[Box]]:
    """{(row, class): its boxes}, sorted: what one heatmap is judged by."""
    out: dict[tuple[int, int], list[Box]] = {}
    for box in sorted(found, key=lambda b: (b.row, b.label)):
        out.setdefault((box.row, box.label), []).append(box)
    return out


def truth_masks(
    of: dict[tuple[int, int], list[Box]], side: int, around: float = 0.0
) -> np.ndarray:
    """bool [cases, side, side]: inside any box of the case, or within `around` of one."""
    return np.stack(
        [np.any([b.mask(side, around) for b in case], 0) for case in of.values()]
    )


def hits(heatmaps: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """float [n]: whether the brightest pixel of each map lies in the truth [n, h, w].

    The pointing game (Zhang et al. 2016, 1608.00507); its tolerance is the truth's.
    """
    # Ties share: a flat map scores the area of the truth, as a blind guess does.
    top = heatmaps == heatmaps.max(axis=(1, 2), keepdims=True)
    return (top & truth).sum(axis=(1, 2)) / top.sum(axis=(1, 2))


def box_prior(
    labels: np.ndarray,
    patients: np.ndarray,
    truth: np.ndarray,
    others: np.ndarray,
    theirs: np.ndarray,
) -> np.ndarray:
    """float [n, h, w]: where the boxes of that class lie in all other patients.

    labels and patients [n] are those of the cases; truth [m, h, w], others [m] and
    theirs [m] the boxes, classes and patients of all that is known, training images
    too. Flat where nobody else has the finding.
    """
    # The guess of somebody who knows the finding but not the image.
    out = np.zeros((len(labels), *truth.shape[1:]))
    for label in np.unique(labels):
        # Summed once, less each patient's own: no case is judged by its own box.
        total = truth[others == label].sum(axis=0)
        for i in np.flatnonzero(labels == label):
            of_patient = (others == label) & (theirs == patients[i])
            out[i] = total - truth[of_patient].sum(axis=0)
    return out


def pointing(
    scores: dict[str, np.ndarray], patients: np.ndarray
) -> dict[str, dict[str, float]]:
    """{name: {"value", "low", "high"}} of hits [n] by name, 95% over patients.

    For every name but the first also "above/NAME": the first less this one, paired. Limits
    of hits (0 and 1) are limits.proportion's, of shares in between limits.mean's, of
    differences Student's t over patients. NaN below five patients, and where all have
    one share.
    """
    people, known = Patients.of(patients), np.ones(len(patients))
    first, out = next(iter(scores)), {}
    sums = {}
    for name, hit in scores.items():
        value, effect = float(hit.mean()), influence.of_mean(hit, known)
        score = limits.mean(value, effect, known, people, highest=1.0)
        if np.isin(hit, (0, 1)).all():
            score = limits.proportion(hit, known, people)
        out[name] = {"value": value, "low": score.low, "high": score.high}
        sums[name] = people.sums(effect)[:, None, None]
    for name in list(scores)[1:]:
        pair = ((first, 1), (name, -1))
        sides = [Side(np.array([[out[n]["value"]]]), sums[n], sign) for n, sign in pair]
        value, ends = out[first]["value"] - out[name]["value"], (np.nan, np.nan)
        if people.count >= limits.LEAST:
            one = 1 / people.count**2
            ends = crossed.interval(value, crossed.parts(sides, one))
        out[f"above/{name}"] = {"value": value, "low": ends[0], "high": ends[1]}
    return out
