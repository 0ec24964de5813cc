"""The manifest: one row an image, with the patient it belongs to."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer import durable

COLUMNS = ("id", "path", "patient", "source", "view", "split")
SPLITS = ("train", "valid", "test")
PEOPLE = ("sex", "age")  # columns that a set may lack
SEXES = ("F", "M", "")
OLDEST = 120  # years; more is a slip, as the ages above 400 of NIH's table of 2017
BLOCK = 1 << 16  # rows that are read or hashed at once


@dataclass(frozen=True)
class Manifest:
    """What is known of each image before one pixel is read.

    Columns are arrays of n Python strings (dtype object); "" is unknown.
    """

    name: str  # of the data set, such as "nih"
    root: str  # folder that `path` is relative to; not part of the hash
    classes: tuple[str, ...]
    labels: np.ndarray  # int32 [n], or float32 [n, classes] of 0, 1, NaN = unknown
    id: np.ndarray  # unique
    path: np.ndarray
    patient: np.ndarray  # never ""
    source: np.ndarray
    view: np.ndarray
    split: np.ndarray  # one of SPLITS, or "" where nobody has split yet
    synthetic: bool = False
    notes: dict[str, Any] = field(default_factory=dict)  # label policy, rows dropped
    # None where nobody knows one: 14 million images of ImageNet need no such columns.
    sex: np.ndarray | None = None  # "F", "M" or ""
    age: np.ndarray | None = None  # years as text, "57", or ""

    def __post_init__(self) -> None:
        for name in COLUMNS:
            object.__setattr__(self, name, np.asarray(getattr(self, name), object))
        for name in PEOPLE:
            values = getattr(self, name)
            if values is not None:
                known = np.asarray(values, object)
                # A column without one known value is no column: it would cost 8 bytes an image.
                object.__setattr__(self, name, known if (known != "").any() else None)
        # float32 holds NaN, for labels that nobody knows.
        dtype = np.int32 if np.ndim(self.labels) == 1 else np.float32
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype))

    def __len__(self) -> int:
        return len(self.id)

    @property
    def multilabel(self) -> bool:
        return self.labels.ndim == 2

    def select(self, rows: np.ndarray) -> "Manifest":
        """The manifest of these rows (indices or a boolean mask), in this order."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        columns |= {name: column[rows] for name, column in self.people().items()}
        return replace(self, labels=self.labels[rows], **columns)

    def people(self) -> dict[str, np.ndarray]:
        """{"sex": ..., "age": ...}: those of PEOPLE that the set knows."""
        columns = {name: getattr(self, name) for name in PEOPLE}
        return {name: c for name, c in columns.items() if c is not None}

    def dropping(self, what: str, out: int | Sequence[str]) -> "Manifest":
        """Itself with notes["dropped"][what]: how many (or which) were left out.

        `what` is a plural, such as "files that are no image". Nothing left out is no
        note.
        """
        # Three names show what kind of thing was left out; the count says how much.
        count, first = (out, []) if isinstance(out, int) else (len(out), out[:3])
        if not count:
            return self
        about = {"count": count, "first": list(first)}
        dropped = {**self.notes.get("dropped", {}), what: about}
        return replace(self, notes={**self.notes, "dropped": dropped})

    def keeping(self, rows: np.ndarray, what: str) -> "Manifest":
        """The manifest of these rows (bool [n]); the others are noted as `what`.

        Raises ValueError where a class of a single-label set loses all its images.
        """
        if not self.multilabel:
            lost = set(self.labels[~rows].tolist()) - set(self.labels[rows].tolist())
            if lost:
                names = ", ".join(repr(self.classes[label]) for label in sorted(lost))
                raise ValueError(
                    f"data set {self.name} at {self.root}: without the {what} no image"
                    f" of {names} is left; keep them, or leave the class out by"
                    " config.data.labels"
                )
        return self.select(rows).dropping(what, int((~rows).sum()))

    def known_patients(self) -> np.ndarray:
        """bool [n]: whether somebody knows whose image it is.

        Where notes["patients"] begins with "unknown", in a union those of its member,
        each image stands for a patient, or one for all.
        """
        known = np.ones(len(self), bool)
        for name, notes in {"": self.notes, **self.notes.get("members", {})}.items():
            if str(notes.get("patients", "")).startswith("unknown"):
                if not name:
                    return ~known
                known[[i.startswith(f"{name}/") for i in self.id]] = False
        return known

    def remarks(self) -> list[str]:
        """A line for each kind of row, column or file that is left out (notes["dropped"]),
        and one where no patient is known.
        """
        people = str(self.notes.get("patients", ""))
        lines = [f"{self.name}: patients {people}"] * people.startswith("unknown")
        for what, about in self.notes.get("dropped", {}).items():
            more = ", ..." if about["count"] > len(about["first"]) else ""
            names = f" ({', '.join(about['first'])}{more})" if about["first"] else ""
            lines.append(f"{self.name}: {what} left out: {about['count']}{names}")
        return lines

    def validate(self) -> "Manifest":
        """Returns itself, or raises ValueError that names the first bad row."""
        where = f"data set {self.name} at {self.root}"
        if not len(self):
            raise ValueError(f"{where}: no image at all")
        for name in COLUMNS:
            if len(getattr(self, name)) != len(self):
                raise ValueError(f"{where}: column {name} has another length than id")
        for name, column in self.people().items():
            if len(column) != len(self):
                raise ValueError(f"{where}: column {name} has another length than id")
            allowed = is_sex if name == "sex" else is_age
            if bad := [value for value in set(column) if not allowed(value)]:
                row = column.tolist().index(bad[0])
                raise ValueError(f"{where}: row {row} has the {name} {bad[0]!r}")
        for name in ("id", "path", "patient"):
            if len(bad := np.flatnonzero(getattr(self, name) == "")):
                raise ValueError(f"{where}: row {bad[0]} has an empty {name}")
        if len(set(self.id)) != len(self):
            values, counts = np.unique(self.id.astype(str), return_counts=True)
            raise ValueError(f"{where}: id {values[counts > 1][0]!r} stands twice")
        self._validate_labels(where)
        return self

    def _validate_labels(self, where: str) -> None:
        k = len(self.classes)
        if self.multilabel:
            if self.labels.shape != (len(self), k):
                raise ValueError(f"{where}: labels {self.labels.shape}, {k} classes")
            known = np.nan_to_num(self.labels)
            bad = np.flatnonzero(((known != 0) & (known != 1)).any(axis=1))
        else:
            if self.labels.shape != (len(self),):
                raise ValueError(
                    f"{where}: labels {self.labels.shape}, {len(self)} ids"
                )
            bad = np.flatnonzero((self.labels < 0) | (self.labels >= k))
        if len(bad):
            raise ValueError(
                f"{where}: {self.id[bad[0]]!r} has the label {self.labels[bad[0]]},"
                f" outside {self.classes}"
            )

    def hash(self) -> str:
        """sha256 over COLUMNS, the labels and the classes; not the root.

        PEOPLE stay out of it: runs from before they were read keep their data's name.
        `people_hash` is theirs.
        """
        sha = hashlib.sha256(json.dumps([self.name, self.classes]).encode())
        for name in COLUMNS:
            for start in range(0, len(self), BLOCK):
                block = getattr(self, name)[start : start + BLOCK].tolist()
                sha.update(b"\0" * (start > 0) + "\0".join(block).encode())
            sha.update(b"\1")
        sha.update(np.ascontiguousarray(self.labels).data)
        return sha.hexdigest()

    def people_hash(self) -> str:
        """sha256 over PEOPLE; "" where nothing is known of them."""
        if not (people := self.people()):
            return ""
        parts = ["\0".join([name, *column]) for name, column in people.items()]
        return hashlib.sha256("\1".join(parts).encode()).hexdigest()

    def save(self, path: Path | str) -> None:
        """Writes one Parquet file, whose metadata holds what is not a column.

        `patient` is left out where every image is its own, as in ImageNet: 14 million
        strings are held once, not twice.
        """
        import pyarrow as pa  # here: 26 MB that most runs do not need
        import pyarrow.parquet as pq

        # Where no patient is known.
        alone = np.array_equal(self.patient, self.id)
        names = [n for n in COLUMNS if not (alone and n == "patient")]
        names += self.people()
        columns = {name: pa.array(getattr(self, name), pa.string()) for name in names}
        if self.multilabel:
            for i, name in enumerate(self.classes):
                columns[f"label/{name}"] = pa.array(self.labels[:, i])
        else:
            columns["label"] = pa.array(self.labels)
        about = {
            "name": self.name,
            "root": self.root,
            "classes": self.classes,
            "synthetic": self.synthetic,
            "notes": self.notes,
            "hash": self.hash(),
            "people": self.people_hash(),
        }
        table = pa.table(columns).replace_schema_metadata({"about": json.dumps(about)})
        with durable.replacing(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path | str) -> "Manifest":
        """Reads what `save` wrote; ValueError where the hash does not fit."""
        import pyarrow.parquet as pq  # here, as in `save`

        with pq.ParquetFile(path) as file:
            about = json.loads(file.schema_arrow.metadata[b"about"])
            classes = tuple(about["classes"])
            sha = hashlib.sha256(json.dumps([about["name"], classes]).encode())
            columns: dict[str, np.ndarray] = {}
            for name in COLUMNS:
                if name in file.schema_arrow.names:
                    columns[name] = _strings(file, name, sha)
                else:
                    _strings(file, "id", sha, hash_only=True)
                    columns[name] = columns["id"]
            if "label" in file.schema_arrow.names:
                labels = file.read(["label"])["label"].to_numpy()
            else:
                labels = np.empty((len(columns["id"]), len(classes)), np.float32)
                for i, name in enumerate(f"label/{c}" for c in classes):
                    labels[:, i] = file.read([name])[name].to_numpy()
            there = [name for name in PEOPLE if name in file.schema_arrow.names]
            people = {n: _strings(file, n, hashlib.sha256()) for n in there}
        sha.update(np.ascontiguousarray(labels).data)
        manifest = cls(
            name=about["name"],
            root=about["root"],
            classes=classes,
            labels=labels,
            synthetic=about["synthetic"],
            notes=about["notes"],
            **columns,
            **people,
        )
        sums = sha.hexdigest(), manifest.people_hash()
        if sums != (about["hash"], about.get("people", "")):
            raise ValueError(f"{path} is damaged: its rows do not fit its hash")
        return manifest


def is_sex(value: str) -> bool:
    return value in SEXES


def is_age(value: str) -> bool:
    """Whether this is "" or a number of years from 0 to OLDEST."""
    try:
        return value == "" or 0 <= float(value) <= OLDEST
    except ValueError:
        return False


def _strings(file: Any, name: str, sha: Any, hash_only: bool = False) -> np.ndarray:
    """One column [n] of a pq.ParquetFile as Python strings; on the way it is hashed as
    Manifest.hash does.

    Block by block, so that Arrow's copy never stands beside the whole; what repeats
    (all but id and path) is one object a block and value.
    """
    import pyarrow as pa  # here, as in `save`
    import pyarrow.compute as pc

    out = np.empty(0 if hash_only else file.metadata.num_rows, object)
    start = 0
    for batch in file.iter_batches(BLOCK, columns=[name]):
        block = batch.column(0)
        ends = pa.array([0, len(block)], pa.int32())
        lists = pa.ListArray.from_arrays(ends, block)
        joined = pc.binary_join(lists, "\0")  # type: ignore[missing-attribute]
        sha.update(b"\0" * (start > 0))
        sha.update(joined[0].as_buffer())
        if not hash_only:
            stop = start + len(block)
            if name in ("id", "path"):
                out[start:stop] = block.to_numpy(zero_copy_only=False)
            else:
                few = block.dictionary_encode()
                values = few.dictionary.to_numpy(zero_copy_only=False)
                out[start:stop] = values[few.indices.to_numpy()]
        start += len(block)
    sha.update(b"\1")
    return out
