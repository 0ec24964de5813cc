"""Features files: what any encoder says of a data set's images, in place of an upstream.

An npz or a Parquet file holds

    id or path    str [n]: the manifest's ids, or its paths relative to the root
    features      float [n, d] (Parquet: a column of lists of d numbers)
    name          of the encoder, such as "dinov3_vits16"
    parameters    their number, upstream_size: the images it was trained on, domain:
                  what they show, such as "imagenet"; each may be left out

In Parquet the last four are metadata of the schema. The file needs every image of the
run and no other: an error names the first that is missing, double or extra.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer import durable, tree
from bigxfer.config import Run, hash_of
from bigxfer.data import fewshot
from bigxfer.data.manifest import Manifest

ABOUT = ("name", "parameters", "upstream_size", "domain")


@dataclass(frozen=True)
class Features:
    """A features file that was read and checked."""

    path: Path
    key: str  # "id" or "path": what `images` are
    images: np.ndarray  # object [n]: strings, each once
    values: np.ndarray  # float32 [n, d], finite
    name: str
    parameters: int | None = None
    upstream_size: int | None = None  # images that the encoder was trained on
    domain: str = ""  # what these show; "": unknown

    def of(self, manifest: Manifest, rows: np.ndarray) -> np.ndarray:
        """Return the features float32 [len(rows), d] of these rows of the manifest.

        Raises ValueError that names the first row without features, or the first
        features that belong to no image of the manifest.
        """
        column = getattr(manifest, self.key)
        place = {image: i for i, image in enumerate(self.images.tolist())}
        lost = [image for image in column[rows] if image not in place]
        if lost:
            raise ValueError(
                f"{self.path} has no features of the {self.key} {lost[0]!r}, which the"
                f" run needs ({len(lost)} of {len(rows)} images are missing); make the"
                " file anew from all images of the data set"
            )
        # Extra images are an error: the file is then of another data set, or of an
        # older one.
        known = set(column.tolist())
        extra = [image for image in place if image not in known]
        if extra:
            raise ValueError(
                f"{self.path} has features of the {self.key} {extra[0]!r}, which is no"
                f" image of {manifest.name} ({len(extra)} of {len(place)} are extra);"
                " leave them out, or check that the file is of this data set"
            )
        return self.values[[place[image] for image in column[rows]]]

    def about(self) -> dict[str, Any]:
        """Return what config.json and the tables say of the encoder."""
        said = {name: getattr(self, name) for name in ABOUT}
        return {**said, "dimensions": self.values.shape[1]}


def read(path: Path | str) -> Features:
    """Read and check a features file.

    Raises FileNotFoundError, or ValueError that names the file and the first image of
    which something is wrong: it stands twice, a feature is NaN or infinite, there are
    more images than rows of features or fewer.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no features file {path} (--config.init.features);"
            " docs/encoders.md says how to make one"
        )
    check_ending(path)
    read_columns = tree.load_npz if path.suffix == ".npz" else _read_parquet
    columns = read_columns(path)
    keys = [key for key in ("id", "path") if key in columns]
    if len(keys) != 1 or "features" not in columns or "name" not in columns:
        raise ValueError(
            f"{path} holds {sorted(columns)}; a features file holds `id` or `path`,"
            " `features` and `name` (docs/encoders.md)"
        )
    images = columns[keys[0]].astype(str).astype(object)  # Python strings
    values = columns["features"]
    _check(path, keys[0], images, values)
    said = {name: _plain(columns[name]) for name in ABOUT if name in columns}
    for name in ("parameters", "upstream_size"):
        # An npz holds a number, the metadata of Parquet a text.
        if said.get(name) is not None and not str(said[name]).isdigit():
            raise ValueError(f"{path}: `{name}` is {said[name]!r}; a whole number")
        said[name] = int(said[name]) if said.get(name) is not None else None
    return Features(path, keys[0], images, np.asarray(values, np.float32), **said)


def check_ending(path: Path) -> None:
    """Raise ValueError where the path has not the ending of a features file."""
    if path.suffix not in (".npz", ".parquet"):
        raise ValueError(f"{path}: a features file ends in .npz or .parquet")


def _check(path: Path, key: str, images: np.ndarray, values: np.ndarray) -> None:
    if values.ndim != 2 or values.dtype.kind != "f" or not values.shape[1]:
        raise ValueError(
            f"{path}: `features` is {values.dtype} {list(values.shape)}; it must be"
            " float [images, dimensions]"
        )
    if images.ndim != 1 or len(images) != len(values):
        first = f"; the first without features is {images[len(values)]!r}"
        raise ValueError(
            f"{path}: {len(images)} of `{key}`, but {len(values)} rows of `features`"
            + first * (images.ndim == 1 and len(images) > len(values))
        )
    _, first, count = np.unique(images, return_index=True, return_counts=True)
    if (count > 1).any():
        # np.unique sorts by name; people look for the first in the file.
        row = first[count > 1].min()
        again = np.flatnonzero(images == images[row])[1]
        raise ValueError(
            f"{path}: the {key} {images[row]!r} stands twice, in rows {row} and {again}"
        )
    if not (finite := np.isfinite(values).all(axis=1)).all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"{path}: the features of the {key} {images[row]!r} (row {row}) hold NaN or"
            " infinity; check that the image and the encoder are sound"
        )


def _plain(value: np.ndarray) -> Any:
    """Return the text or number of an array of one; None of an empty text."""
    one = np.asarray(value).reshape(-1)
    return None if len(one) != 1 or one[0] in ("", b"") else one[0].item()


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    import pyarrow as pa  # here: 26 MB that most runs do without
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged or no Parquet file: {error}") from error
    said = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    columns = {name: np.asarray(said[name]) for name in ABOUT if name in said}
    for key in ("id", "path"):
        if key in table.column_names:
            columns[key] = np.asarray(table[key].to_pylist(), str)
    if "features" in table.column_names:
        rows = [np.asarray(row) for row in table["features"].to_numpy()]
        long = {row.size for row in rows}
        if len(long) > 1:
            odd = next(i for i, row in enumerate(rows) if row.size != rows[0].size)
            raise ValueError(
                f"{path}: row {odd} of `features` has {rows[odd].size} numbers, row 0"
                f" has {rows[0].size}"
            )
        columns["features"] = np.stack(rows) if rows else np.empty((0, 0))
    return columns


def write(encoder: Features) -> None:
    """Write a features file at `encoder.path`, npz or Parquet by its ending."""
    path, key = encoder.path, encoder.key
    images = np.asarray(encoder.images, object)
    values = np.asarray(encoder.values, np.float32)
    said = {name: getattr(encoder, name) for name in ABOUT}
    said = {k: v for k, v in said.items() if v not in (None, "")}
    # Before writing: no reader would take the file.
    check_ending(path)
    _check(path, key, images, values)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        tree.save_npz(path, {key: images.astype(str), "features": values, **said})
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(values.ravel())
    lists = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    table = pa.table({key: images.tolist(), "features": lists})
    text = {k: str(v) for k, v in said.items()}
    with durable.replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(text), temporary)


def name_files(run: Run, known: dict[str, str] | None = None) -> None:
    """Fill in the digests of the files that a run names: its features, its support.

    They are 16 hex digits of each file's sha256; of several draws the support is several
    files. `known` keeps those of other runs. FileNotFoundError where one is not there.
    """
    known = {} if known is None else known

    def digest(path: str, field: str) -> str:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"there is no file {path} (--config.{field}); docs/encoders.md says how"
                " to make one"
            )
        if path not in known:
            known[path] = durable.sha256(Path(path))[:16]
        return known[path]

    # The digest of a run takes these in place of the paths: other content, another run.
    if run.init.kind == "features":
        run.init.digest = digest(run.init.features, "init.features")
    if run.data.support:
        seeds = range(run.seed, run.seed + run.data.draws)
        files = [str(fewshot.support_file(run.data.support, seed)) for seed in seeds]
        sums = [digest(file, "data.support") for file in files]
        run.data.support_digest = sums[0] if len(sums) == 1 else hash_of(sums)
