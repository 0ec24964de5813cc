"""From a config to pixels: reader, split, draw and cache in one call."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer.config import ConfigError, Data
from bigxfer.data import fewshot, identity, readers, split, unions
from bigxfer.data.identity import Identity
from bigxfer.data.loader import Loader
from bigxfer.data.manifest import SPLITS, Manifest
from bigxfer.data.phantom import write
from bigxfer.data.pixels import cache, cache_encoded, decode
from bigxfer.data.sampling import UNIFORM, Sampling, choose
from bigxfer.data.unions import Stack

LATER = {  # settings that `open` uses after the set is read, split and decoded, or never
    name: getattr(Data(), name)
    for name in (
        *("fraction", "fraction_of", "shots", "negatives", "draws", "mix", "sampling"),
        *(
            "support",
            "support_digest",
            "sampling_class",
            "sampling_share",
            "crop",
            "augment",
            "flip",
            "resident",
        ),
        *("external", "external_root", "external_version", "external_classes"),
    )
}
KEPT = 2_000_000  # rows of the sets that a worker keeps open, about 1 GB

PHANTOMS = {  # reader: the drawing that stands in for its data
    "chexpert": "chexpert",
    "nih": "nih",
    "covidx": "covidx",
    "folder": "natural",
}


@dataclass(frozen=True)
class Dataset:
    """The images of a run; `rows[split]` index the manifest and the pixels alike."""

    manifest: Manifest
    images: Any  # uint8 [n, resize, resize, channels]: an array, or loader.Images
    rows: dict[str, np.ndarray]  # train (after the draw), valid, test
    report: dict  # what was dropped, drawn or leaked; goes to config.json
    sampling: Sampling = UNIFORM  # of the training rows
    identity: Identity = field(default_factory=dict)
    codes: np.ndarray | None = None  # bytes [n]: cache.Cache.codes
    # Further sets to judge on, by name (data/external.py fills it in).
    external: "dict[str, Dataset]" = field(default_factory=dict)

    def loader(self, name: str, batch: int, seed: int, process: int, of: int) -> Loader:
        labels, rows = self.manifest.labels, self.rows[name]
        how = self.sampling if name == "train" else UNIFORM
        return Loader(self.images, labels, rows, batch, seed, (process, of), how)


@dataclass(frozen=True)
class Opened:
    """A set read, split and decoded: what neither a seed nor LATER changes."""

    manifest: Manifest
    images: Any  # as in Dataset
    ok: np.ndarray  # int: the rows that have pixels
    codes: np.ndarray | None
    identity: Identity
    bad: list[list[str]]  # id, path, reason
    member: np.ndarray  # int [n]: which set of a union a row is of


def open(
    data: Data,
    seed: int,
    say: Callable[[str], None],
    kept: dict[str, Opened] | None = None,
) -> Dataset:
    """Reads, splits, decodes (once) and draws; everything bad in it raises here.

    `kept` holds the sets that this process has opened, the last used last: one of them
    serves again as it was then. The oldest go where there are more than KEPT rows.
    """
    kept = {} if kept is None else kept
    # By all that was used to read it, so that nothing else can be served for it.
    key = repr(replace(data, **LATER))
    # Popped and put back: the dict keeps the order of use.
    opened = kept.pop(key, None) or read(data, say)
    kept[key] = opened
    while len(kept) > 1 and sum(len(o.manifest) for o in kept.values()) > KEPT:
        del kept[next(iter(kept))]
    return draw(opened, data, seed)


def read(data: Data, say: Callable[[str], None]) -> Opened:
    """The set or the union, split, with the pixels of every row that decodes."""
    # Where there is no data, drawings take their place, and say so.
    members = [replace(d, root=d.root or standin(d)) for d in unions.members(data)]
    sets = as_read = [readers.read(member) for member in members]
    if len(sets) == 1:
        manifest = split.assign(sets[0], data)
        sets = [manifest]
    else:
        manifest, sets = unions.join(sets, data)
    for line in [line for member in sets for line in member.remarks()]:
        say(line)
    # Each set has its own cache, which other unions share.
    pixels = [decoded(member, data, say) for member in sets]
    images = pixels[0].images if len(sets) == 1 else Stack([p.images for p in pixels])
    # Rows without pixels stay in the manifest, so that rows and caches keep their numbers.
    ok = np.concatenate([p.ok for p in pixels])
    if not ok.all():
        say(manifest.keeping(ok, "images that do not decode").remarks()[-1])
    codes = [p.codes for p in pixels if p.codes is not None]
    return Opened(
        manifest=manifest,
        images=images,
        ok=np.flatnonzero(ok),
        codes=np.concatenate(codes) if len(codes) == len(pixels) else None,
        identity=identity.of_sets(as_read, images, data.storage),
        bad=[list(map(str, bad)) for p in pixels for bad in p.bad],
        member=np.repeat(np.arange(len(sets)), [len(m) for m in sets]),
    )


def draw(opened: Opened, data: Data, seed: int) -> Dataset:
    """Return the splits; of the training rows only those that the seed draws."""
    manifest, ok = opened.manifest, opened.ok
    rows = {name: ok[manifest.split[ok] == name] for name in SPLITS}
    report = {"counts": {name: len(r) for name, r in rows.items()}, **manifest.notes}
    report["undecodable"] = opened.bad
    rows["train"], draws = drawn(manifest, rows["train"], data, seed)
    if "fraction" in draws:  # the size of the training set, as the tables know it
        report["counts"]["train"] = draws["fraction"]["images"]
    # After the draw: the shares of the classes are those of what trains.
    train = rows["train"]
    sampling = choose(manifest.select(train), opened.member[train], data)
    report |= draws
    known = {**opened.identity, **identity.of_rows(manifest, rows)}
    images, codes = opened.images, opened.codes
    return Dataset(manifest, images, rows, report, sampling, known, codes)


def standin(data: Data) -> str:
    """The folder of the phantom that stands in for the set, drawn where need be."""
    if data.reader not in PHANTOMS:
        raise ConfigError(
            f"there is no phantom for the reader {data.reader!r}; set"
            " --config.data.root=FOLDER"
        )
    kind = PHANTOMS[data.reader]
    name = f"{kind}-{'-'.join(map(str, vars(data.phantom).values()))}"
    folder = Path(data.cache) / "phantom" / name
    return str(write.write(kind, folder, data.phantom))


def decoded(manifest: Manifest, data: Data, say: Callable[[str], None]) -> cache.Cache:
    """The pixels of one set, from its own cache."""
    build = {"raw": cache.build, "encoded": cache_encoded.build}[data.storage]
    folder, size, channels = Path(data.cache), data.resize, data.channels
    return build(manifest, folder, size, channels, max_bad=data.max_bad, progress=say)


def image_area(manifest: Manifest, rows: np.ndarray) -> int:
    """The median of width x height, in pixels, of 32 of these images as they are stored.

    0 where no file tells. Reads their headers, not their pixels.
    """
    # 32 headers: sizes differ little within a set, and a file may lie on a slow disk.
    some = rows[np.linspace(0, len(rows) - 1, min(32, len(rows))).astype(int)]
    sides = [decode.side_lengths(manifest.root, path) for path in manifest.path[some]]
    areas = [width * height for width, height in sides if width and height]
    return int(np.median(areas)) if areas else 0


def drawn(
    manifest: Manifest, train: np.ndarray, data: Data, seed: int
) -> tuple[np.ndarray, dict]:
    """(the training rows that data.fraction and data.shots leave, what to report)."""
    report: dict = {}
    # The fraction first: shots are drawn from the images that it leaves.
    if data.fraction < 1:
        training = manifest.select(train)
        train = train[fewshot.fraction(training, data.fraction, data.fraction_of, seed)]
        report["fraction"] = {
            "of": data.fraction_of,
            "images": len(train),
            "patients": len(set(manifest.patient[train])),
        }
    if data.shots != "full":
        training, shots = manifest.select(train), int(data.shots)
        if data.support:
            file = fewshot.support_file(data.support, seed)
            train = train[fewshot.read_support(training, file)]
            report["support"] = f"{file.name} ({data.support_digest})"
        else:
            train = train[fewshot.draw(training, shots, seed, data.negatives)]
        report["drawn"] = manifest.id[train].tolist()
        if manifest.multilabel:
            report["without_finding"] = {
                "negatives": data.negatives,
                "drawn": int(fewshot.without_finding(manifest.labels[train]).sum()),
                "in_training": int(fewshot.without_finding(training.labels).sum()),
            }
    return train, report
