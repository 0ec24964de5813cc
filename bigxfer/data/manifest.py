"""The manifest: one row an image, with the patient it belongs to."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ("id", "path", "patient", "source", "view", "split")


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
    split: np.ndarray  # "train", "valid", "test" or "" where nobody has split yet
    synthetic: bool = False
    notes: dict[str, Any] = field(default_factory=dict)  # label policy, rows dropped

    def __post_init__(self) -> None:
        for name in COLUMNS:
            object.__setattr__(self, name, np.asarray(getattr(self, name), object))
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
        return replace(self, labels=self.labels[rows], **columns)

    def validate(self) -> "Manifest":
        """Returns itself, or raises ValueError that names the first bad row."""
        where = f"data set {self.name} at {self.root}"
        if not len(self):
            raise ValueError(f"{where}: no image at all")
        for name in COLUMNS:
            if len(getattr(self, name)) != len(self):
                raise ValueError(f"{where}: column {name} has another length than id")
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
        """sha256 over every column, the labels and the classes; not the root."""
        sha = hashlib.sha256(json.dumps([self.name, self.classes]).encode())
        for name in COLUMNS:
            sha.update("\0".join(getattr(self, name)).encode())
            sha.update(b"\1")
        sha.update(np.ascontiguousarray(self.labels).tobytes())
        return sha.hexdigest()

    def save(self, path: Path | str) -> None:
        """Writes one Parquet file, whose metadata holds what is not a column."""
        columns = {name: pa.array(getattr(self, name), pa.string()) for name in COLUMNS}
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
        }
        table = pa.table(columns).replace_schema_metadata({"about": json.dumps(about)})
        part = Path(f"{path}.part")
        pq.write_table(table, part)
        part.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> "Manifest":
        """Reads what `save` wrote; ValueError where the hash does not fit."""
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"about"])
        classes = tuple(about["classes"])
        columns = {n: table[n].to_numpy(zero_copy_only=False) for n in COLUMNS}
        if "label" in table.column_names:
            labels = table["label"].to_numpy()
        else:
            labels = np.stack([table[f"label/{c}"].to_numpy() for c in classes], axis=1)
        manifest = cls(
            name=about["name"],
            root=about["root"],
            classes=classes,
            labels=labels,
            synthetic=about["synthetic"],
            notes=about["notes"],
            **columns,
        )
        if manifest.hash() != about["hash"]:
            raise ValueError(f"{path} is damaged: its rows do not fit its hash")
        return manifest
