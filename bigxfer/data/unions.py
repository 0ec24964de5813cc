"""Unions of data sets: data.reader="chexpert+mimic+nih", data.root="A:B:C"."""

import os
from dataclasses import replace

import numpy as np

from bigxfer.config import ConfigError, Data
from bigxfer.data import labels, split
from bigxfer.data.manifest import Manifest


def members(data: Data) -> list[Data]:
    """The settings of each set of a union; `data` itself where there is one set.

    reader names them, joined by "+". version and split are one for all or as many,
    joined by "+"; roots by the system's path separator (":" on Linux), or "" where
    all are phantoms. Raises ConfigError where the numbers differ.
    """
    names = data.reader.split("+")
    if len(names) == 1:
        return [data]

    def each(field: str, text: str, mark: str) -> list[str]:
        values = text.split(mark)
        # One root cannot hold two sets; "" is no folder but the phantoms of all.
        if len(values) == 1 and (field != "root" or not text):
            return values * len(names)
        if len(values) != len(names):
            raise ConfigError(
                f"config.data.{field}={text!r} holds {len(values)} parts (joined by"
                f" {mark!r}), config.data.reader={data.reader!r} names {len(names)}"
            )
        return values

    fields = zip(
        names,
        each("root", data.root, os.pathsep),
        each("version", data.version, "+"),
        each("split", data.split, "+"),
        strict=True,
    )
    return [
        # Classes are picked of the whole: a member may lack some of them.
        replace(data, reader=n, root=r, version=v, split=s, labels=())
        for n, r, v, s in fields
    ]


def join(sets: list[Manifest], data: Data) -> tuple[Manifest, list[Manifest]]:
    """(the union with its splits, the sets as they stand in it, one after another).

    The labels are those of data.space; data.labels then picks of them. Single-label
    sets among multi-label ones become one-hot over their own classes, so that their
    images teach nothing about the others' (NaN); intersections are of multi-label
    sets only. A random split is of all patients at once; otherwise each set is split
    by itself. A patient on two sides, be it in two sets, is counted in
    notes["leaks"].
    """
    space = {"union": labels.union, "intersection": labels.intersection}[data.space]
    if data.split == "patient":
        # Of all at once: a patient of two sets would else train in one and test in the other.
        return split.assign(picked(space(sets), data), data), sets
    kinds = [member.split for member in members(data)]
    sets = [split.assign(m, replace(data, split=k)) for m, k in zip(sets, kinds)]
    whole = picked(space(sets), data)
    # The members' own notes count their own rows; these are of the whole.
    notes = {**whole.notes, "split": split.summary(whole, data.split, 0)}
    if leaks := split.check(whole):
        notes["leaks"] = {"patients": len(leaks), "first": leaks[:10]}
    return replace(whole, notes=notes), sets


def picked(manifest: Manifest, data: Data) -> Manifest:
    """Only data.labels; a subset of single-label classes would drop rows."""
    if not data.labels:
        return manifest
    if not manifest.multilabel:
        raise ConfigError(
            "config.data.labels picks no classes of a union of single-label sets;"
            " set it to ()"
        )
    return labels.subset(manifest, data.labels)


class Stack:
    """The images of several caches as if they were one array, one after the other."""

    def __init__(self, parts: list) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape = (len(self), *parts[0].shape[1:])

    @property
    def sums(self) -> np.ndarray:
        """pixels.checked.SUM [n]: the checksums of all rows."""
        return np.concatenate([part.sums for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """uint8 [b, S, S, C] of int [b], or [S, S, C] of one row."""
        index = np.asarray(index)
        # searchsorted would give the last set for a row beyond all, and no error.
        if index.size and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"rows {index.min()} to {index.max()} of {len(self)}")
        if not index.ndim:
            return self[index[None]][0]
        # "right": the row that ends one set is the first of the next.
        which = np.searchsorted(self.ends, index, side="right")
        # One read of each cache for all its rows, not one a row.
        out = np.empty((len(index), *self.shape[1:]), np.uint8)
        for number, part in enumerate(self.parts):
            here = which == number
            out[here] = part[index[here] - (self.ends[number] - len(part))]
        return out
