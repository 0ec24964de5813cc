"""Few-shot draws and fractions: nested in K or the share, and the same images for every upstream.

Images are ranked by sha256(seed, id), so that a draw depends on the ids, the
labels and the seed alone: not on the order of the rows, not on numpy. The draws of
K and K + 1 shots of one seed differ only by what is added (the predecessor's were
not nested: "the last K seen" of a shuffled loader).

In a multi-label set an image may have no finding at all. The positives of K shots leave
such images out, though they are half of a training split or more; so config.data.negatives
adds some, in the order of the seed, nested in K as well:

- shots (the default): as many as shots. "No finding" is one more class, as "normal" is
  in a single-label set.
- share: as many as give them the share of the draw that they have of the training split.
- none: none; all runs before 2026-11-30 had none.
"""

import hashlib
from pathlib import Path

import numpy as np

from bigxfer.data.manifest import Manifest
from bigxfer.data.split import by_label


def draw(
    manifest: Manifest, shots: int, seed: int, negatives: str = "shots"
) -> np.ndarray:
    """int [m]: the rows drawn from a training manifest, in the order of their ids.

    Single-label: `shots` images of each class. Multi-label: at least `shots`
    positives of each label, reached greedily, the rarest label first; an image
    counts for all its labels, so common labels overshoot (see `counts`). Images without
    a finding come to them as `negatives` says ("shots", "share" or "none"), or all there
    are where that is fewer. Raises ValueError that names the class that has too few.
    """
    # Each class in the order of the seed: more shots only go further along a queue.
    queues = by_label(manifest, ranked(manifest.id, seed))
    total = [len(queue) for queue in queues]
    if short := [i for i, n in enumerate(total) if n < shots]:
        raise ValueError(
            f"{shots} shots asked (--config.data.shots), but the training split of"
            f" {manifest.name} has {total[short[0]]} images of class"
            f" {manifest.classes[short[0]]!r}"
        )
    # The images of rare findings show common ones too; the other way round common classes
    # would overshoot further.
    rarest_first = sorted(
        range(len(total)), key=lambda i: (total[i], manifest.classes[i])
    )
    nexts = [iter(queue) for queue in queues]
    taken, have = set(), np.zeros(len(total), int)
    for shot in range(1, shots + 1):  # one level after the other, hence nested
        for label in rarest_first:
            while have[label] < shot:
                # Taken already for another label of the same image.
                row = next(r for r in nexts[label] if r not in taken)
                taken.add(row)
                shown = manifest.labels[row]
                have[np.flatnonzero(shown == 1) if manifest.multilabel else shown] += 1
    if manifest.multilabel:
        # After the positives, so that `negatives` moves none of them.
        clean = np.flatnonzero(without_finding(manifest.labels))
        others = (manifest.labels == 1).any(axis=1).sum()
        number = {
            "shots": shots,
            "share": round(len(taken) * len(clean) / others),
            "none": 0,
        }[negatives]
        order = ranked(manifest.id[clean], seed)
        taken.update(clean[order][:number].tolist())
    # By id: the batches then do not depend on the order of the drawing.
    return np.array(sorted(taken, key=lambda r: manifest.id[r]), int)


def support_file(name: str, seed: int) -> Path:
    """The file that data.support names for the draw of a seed."""
    return Path(name.replace("{seed}", str(seed)))


def read_support(manifest: Manifest, path: Path) -> np.ndarray:
    """int [m]: the rows of a training manifest that a file names, in its order.

    A line is an id or a path relative to the root, alone or before labels that are not
    read, as MedFMC's lists have them; empty lines and lines that begin with # are passed
    over. Raises FileNotFoundError, or ValueError with the line that names no training
    image, or an image that another line names too.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} (--config.data.support)")
    place = {image: row for row, image in enumerate(manifest.path)}
    place |= {image: row for row, image in enumerate(manifest.id)}
    lines: dict[int, int] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name = text.strip()
        if not name or name.startswith("#"):
            continue
        row = place.get(name, place.get(name.split()[0]))
        if row is None:
            raise ValueError(
                f"{path}, line {number}: {name!r} is neither an id nor a path of the"
                f" training split of {manifest.name}"
            )
        if row in lines:
            raise ValueError(
                f"{path}, line {number}: {name!r} stands in line {lines[row]} already"
            )
        lines[row] = number
    if not lines:
        raise ValueError(f"{path} names no image")
    return np.array(list(lines), int)


def without_finding(labels: np.ndarray) -> np.ndarray:
    """bool [n]: images that show none of the classes, so far as labels [n, k] tell.

    At least one label is known to be 0, and none is 1; unknown ones (NaN) may be left.
    """
    return (labels == 0).any(axis=1) & ~(labels == 1).any(axis=1)


def fraction(manifest: Manifest, share: float, of: str, seed: int) -> np.ndarray:
    """int [m]: the rows of this share of the images or, whole, of the "patients".

    In the order of the manifest. The first round(share * n), at least one, in the
    order of the seed: a smaller share of the same seed is part of a larger one.
    """
    if of == "images":
        # Image by image; patients may be cut in two, which leaks nothing within training.
        names, index = manifest.id, np.arange(len(manifest))
    else:
        names, index = np.unique(manifest.patient.astype(str), return_inverse=True)
    kept = np.zeros(len(names), bool)
    kept[ranked(names, seed)[: max(round(share * len(names)), 1)]] = True
    return np.flatnonzero(kept[index])


def ranked(ids: np.ndarray, seed: int) -> np.ndarray:
    """int [n]: the rows in the random order of this seed."""
    # numpy promises no stream of its shuffles across versions.
    key = [hashlib.sha256(f"{seed}/{i}".encode()).digest() for i in ids]
    return np.argsort(np.array(key, "S32"), kind="stable")


def counts(manifest: Manifest, rows: np.ndarray) -> dict[str, int]:
    """{class: positives among these rows}; above the shots is the overshoot."""
    by_class = by_label(manifest, rows)
    return {name: len(r) for name, r in zip(manifest.classes, by_class, strict=True)}
