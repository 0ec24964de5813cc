"""From a config to pixels: reader, split, draw and cache in one call."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bigxfer.config import ConfigError, Data
from bigxfer.data import cache, fewshot, phantom, readers, split
from bigxfer.data.loader import Loader
from bigxfer.data.manifest import Manifest

PHANTOMS = {  # which drawing stands in for the data of which reader
    "chexpert": "chexpert",
    "nih": "nih",
    "covidx": "covidx",
    "folder": "natural",
}


@dataclass(frozen=True)
class Dataset:
    """The images of a run; `rows[split]` index the manifest and the pixels alike."""

    manifest: Manifest
    images: np.ndarray  # uint8 [n, resize, resize, channels]
    rows: dict[str, np.ndarray]  # train (after the draw), valid, test
    report: dict  # what was dropped, drawn or leaked; goes to config.json

    def loader(self, name: str, batch: int, seed: int, process: int, of: int) -> Loader:
        labels = self.manifest.labels
        return Loader(self.images, labels, self.rows[name], batch, seed, process, of)


def open(data: Data, seed: int, say: Callable[[str], None]) -> Dataset:
    """Reads, splits, decodes (once) and draws; everything bad in it raises here."""
    root = data.root
    if not root:
        if data.reader not in PHANTOMS:
            raise ConfigError(
                f"there is no phantom for the reader {data.reader!r}; set"
                " --config.data.root=FOLDER"
            )
        name = (
            f"{PHANTOMS[data.reader]}-{'-'.join(map(str, vars(data.phantom).values()))}"
        )
        folder = Path(data.cache) / "phantom" / name
        root = str(phantom.write(PHANTOMS[data.reader], folder, data.phantom))
    manifest = split.assign(readers.read(replace(data, root=root)), data)
    pixels = cache.build(
        manifest,
        Path(data.cache),
        data.resize,
        data.channels,
        max_bad=data.max_bad,
        progress=say,
    )
    ok = np.flatnonzero(pixels.ok)
    rows = {name: ok[manifest.split[ok] == name] for name in ("train", "valid", "test")}
    report = {"counts": {name: len(r) for name, r in rows.items()}, **manifest.notes}
    report["undecodable"] = [list(map(str, bad)) for bad in pixels.bad]
    if data.shots != "full":
        drawn = fewshot.draw(manifest.select(rows["train"]), int(data.shots), seed)
        rows["train"] = rows["train"][drawn]
        report["drawn"] = manifest.id[rows["train"]].tolist()
    return Dataset(manifest, pixels.images, rows, report)
