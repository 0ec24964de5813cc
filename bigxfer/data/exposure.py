"""Which images a run has seen, so that a transfer from it knows what it is tested on.

images.npz lies beside the params.npz of a run: id, patient, split and a hash of the
pixels of every image that it trained on, was selected or tested by. A transfer
compares its own with its upstream's. Near-duplicates are found by bigxfer.audit only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer import tree
from bigxfer.data.dataset import Dataset
from bigxfer.data.manifest import Manifest
from bigxfer.data.pixels import checked, decode

FILE = "images.npz"
MOST = 1_000_000  # images: about 100 MB of ids and hashes
UNKNOWN = b""  # a patient nobody knows; the hash of an image of one value


@dataclass(frozen=True)
class Seen:
    """The n images of a run; columns of length 0 were not looked at, `why` says so."""

    name: str  # of the data set
    form: tuple[int, ...]  # side, channels, versions of the decoder and of the hash
    ids: np.ndarray  # bytes [n]
    splits: np.ndarray  # bytes [n]: train (after the draw), valid, test
    patients: np.ndarray  # bytes [n] or [0]
    pixels: np.ndarray  # bytes [n] or [0]: hashes
    why: str

    def save(self, folder: Path) -> None:
        tree.save_npz(folder / FILE, vars(self))

    @classmethod
    def load(cls, folder: Path) -> "Seen":
        """What `save` wrote; ValueError where it is damaged."""
        arrays: dict[str, Any] = tree.load_npz(folder / FILE)
        form = tuple(arrays.pop("form").tolist())
        name, why = str(arrays.pop("name")), str(arrays.pop("why"))
        return cls(name=name, form=form, why=why, **arrays)


def look(data: Dataset) -> Seen:
    """The images of the run's splits."""
    m, none = data.manifest, np.zeros(0, "S1")
    # Hashes of pixels compare only where the same code made the pixels and the hash.
    form = (*data.images.shape[1::2], decode.VERSION, checked.VERSION)
    rows = np.concatenate(list(data.rows.values()))
    if len(rows) > MOST:
        why = f"{len(rows)} images of {m.name} are more than {MOST}"
        return Seen(m.name, form, none, none, none, none, why)
    images, pixels, reasons = m.select(rows), none, []
    if data.codes is None:
        reasons = [f"the images of {m.name} are encoded: hashing would decode them all"]
    else:
        pixels = data.codes[rows]
    patients = known_patients(images)
    if not patients.any():
        patients = none
        reasons.append(f"the patients of {m.name} are unknown")
    ids, splits = as_bytes(images.id), as_bytes(images.split)
    return Seen(m.name, form, ids, splits, patients, pixels, "; ".join(reasons))


def known_patients(manifest: Manifest) -> np.ndarray:
    """bytes [n]: the patients, UNKNOWN where nobody knows them."""
    out = as_bytes(manifest.patient)
    out[~manifest.known_patients()] = UNKNOWN
    return out


def as_bytes(column: np.ndarray) -> np.ndarray:
    """UTF-8; numpy's own strings take four bytes a character."""
    return np.array([text.encode() for text in column])


def within(mine: Seen) -> dict[str, Any]:
    """Patients, and equal images, that stand in two splits of one run."""
    masks = {}
    for what, values in (("patients", mine.patients), ("exact", mine.pixels)):
        if len(values):
            value, index = np.unique(values, return_inverse=True)
            sides = [np.unique(index[mine.splits == s]) for s in set(mine.splits)]
            count = np.bincount(np.concatenate(sides), minlength=len(value))
            masks[what] = (count[index] > 1) & (values != UNKNOWN)
    return summary(mine, masks, mine.why)


def against(parameters: Path, mine: Seen) -> dict[str, Any]:
    """Count the images and patients of `mine` on which an upstream trained or chose."""
    folder = parameters.parent
    if parameters.name != "params.npz" or not (folder / FILE).exists():
        return summary(mine, {}, f"no {FILE} of a run lies beside {parameters}")
    try:
        other = Seen.load(folder)
    except ValueError as error:
        return summary(mine, {}, str(error))
    # The upstream's own test images taught it nothing and chose nothing.
    trained = np.isin(other.splits, (b"train", b"valid"))
    # A dict, so that a reason that both give stands once, in order.
    reasons, masks = {other.why: None, mine.why: None}, {}
    if len(mine.patients) and len(other.patients):
        masks["patients"] = shared(mine.patients, other.patients[trained])
    if len(mine.pixels) and len(other.pixels):
        if mine.form == other.form:
            masks["exact"] = shared(mine.pixels, other.pixels[trained])
        else:
            same = "the same data.resize and channels, in runs of one version"
            reasons[f"images compare only at {same}"] = None
    return summary(mine, masks, "; ".join(filter(None, reasons)))


def shared(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool [n]: the known values that stand among the others."""
    return np.isin(values, others) & (values != UNKNOWN)


def summary(mine: Seen, masks: dict[str, np.ndarray], why: str) -> dict[str, Any]:
    """What result.json holds: patients and images counted, None where not compared.

    "test" counts those of the test split; "first" gives the ids of up to ten images of
    the run that are concerned, those of the test split before others.
    """

    def count(what: str, split: np.ndarray) -> int | None:
        if what not in masks:
            return None
        hit = masks[what] & split
        return len(set(mine.patients[hit])) if what == "patients" else int(hit.sum())

    every = np.ones(len(mine.splits), bool)
    test = mine.splits == b"test"
    hits = np.any([~every, *masks.values()], axis=0)
    first = np.concatenate([mine.ids[hits & test], mine.ids[hits & ~test]])[:10]
    return {
        "checked": bool(masks),
        "patients": count("patients", every),
        "exact": count("exact", every),
        "test": {what: count(what, test) for what in ("patients", "exact")},
        "first": [i.decode() for i in first],
        "why": why,
    }


def line(where: str, found: dict[str, Any]) -> str:
    """What `within` ("splits") or `against` ("upstream") found, for people."""
    if not found["checked"]:
        return f"leaks ({where}): not checked; {found['why']}"
    counts = []
    for what, name in (("patients", "patients"), ("exact", "equal images")):
        if found[what] is not None:
            inside = f" ({found['test'][what]} of the test)" if found[what] else ""
            counts.append(f"{found[what]} shared {name}{inside}")
    such = f", such as {', '.join(found['first'][:3])}" if found["first"] else ""
    # Capitals where test images leak: only these make a result too good.
    head = "LEAK" if any(found["test"].values()) else "leaks"
    why = f"; {found['why']}" if found["why"] else ""
    return f"{head} ({where}): {', '.join(counts)}{such}{why}"
