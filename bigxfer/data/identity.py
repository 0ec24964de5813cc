"""Which data a run's numbers are of, told by content and compared before anything is reused.

{"images": ids, paths, patients, sources and views as the reader gives them,
 "labels": classes and labels, "split": the split of the files themselves,
 "people": sexes and ages, where a reader knows them,
 "pixels": the checksums of every row of the cache, "form": what these are of,
 "external": the sets that it is judged on beside its own,
 "rows": the images of this run: train (after the draw), valid, test}

Each but "form" is the start of a sha256. Where the data lie is no part of it, so that
data that moved are the same data. "pixels" costs nothing beyond decoding: the cache holds
a checksum for each row (pixels/checked.py), and decodes again what has another size or
mtime. Two forms (another decoder, raw and encoded storage) cannot be compared.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from bigxfer.data.manifest import Manifest
from bigxfer.data.pixels import checked, decode

LENGTH = 16  # hex digits
SET = ("images", "labels", "split", "pixels")  # what all runs on a set share
WORDS = {
    "images": "ids, files, patients, sources or views",
    "labels": "labels",
    "split": "the split that the files give",
    "people": "sexes or ages",
    "external": "the sets of data.external",
    "pixels": "pixels",
    "rows": "the images that train, validate or test",
}

Identity = dict[str, str]


def of_sets(sets: Sequence[Manifest], images: Any, storage: str) -> Identity:
    """Of the sets of a run as their readers give them, and their decoded images.

    images: an array with `sums` (pixels.checked.SUM [n]); storage: data.storage.
    """
    # The split stands by itself: data.split=patient does not look at it.
    columns = ("id", "path", "patient", "source", "view")
    about = [(m.name, getattr(m, column)) for m in sets for column in columns]
    labels = [(list(m.classes), m.labels) for m in sets]
    people = [(m.name, column) for m in sets for column in m.people().values()]
    return {
        # Younger than the first runs. A part that one side lacks is not compared.
        **({"people": _hash(people)} if people else {}),
        "images": _hash(about),
        "labels": _hash(labels),
        "split": _hash([("", m.split) for m in sets]),
        "pixels": checked.identity(images.sums)[:LENGTH],
        "form": f"{storage}, decoder {decode.VERSION}",
    }


def of_rows(manifest: Manifest, rows: dict[str, np.ndarray]) -> Identity:
    """The part that tells one run on a set from another."""
    return {"rows": _hash([(name, manifest.id[rows[name]]) for name in sorted(rows)])}


def of_external(sets: Sequence[Identity]) -> Identity:
    """The part that says which sets a run is judged on beside its own."""
    if not sets:
        return {}
    text = " ".join(f"{name(one)} {one.get('people', '')}" for one in sets)
    return {"external": hashlib.sha256(text.encode()).hexdigest()[:LENGTH]}


def _hash(parts: Sequence[tuple[Any, np.ndarray]]) -> str:
    sha = hashlib.sha256()
    for name, values in parts:
        # With the length, so that two columns cannot run into one another.
        sha.update(f"{name} {len(values)}\n".encode())
        if values.dtype == object:
            sha.update("\0".join(values.tolist()).encode())
        else:
            sha.update(np.ascontiguousarray(values).data)
    return sha.hexdigest()[:LENGTH]


def differences(before: Identity, now: Identity) -> list[str]:
    """What differs, in words; a part that one of the two lacks is not compared."""
    parts = [p for p in WORDS if p in before and p in now and before[p] != now[p]]
    # Other decoders give other pixels of the same files.
    if before.get("form") != now.get("form"):
        parts = [p for p in parts if p != "pixels"]
    return [WORDS[part] for part in parts]


def of_set(identity: Identity) -> Identity:
    """The part that all runs on a set share, whatever each draws of it."""
    return {part: v for part, v in identity.items() if part in (*SET, "form")}


def name(identity: Identity) -> str:
    """One name, 16 hex digits, of the set without the rows that a run uses of it."""
    text = " ".join(identity.get(part, "") for part in SET)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
