"""What a file of Keras weights holds: its layers in order, of both its formats.

Keras 3 reads its own format with or without a classifier above the backbone, but the
older one (.h5 of Keras 2, and of `model.save` to .h5) only where every layer fits. Most
published nets, CheXNet's among them, have a head of their own: here it is left out.
"""

import io
import zipfile
from typing import Any

import numpy as np

FILES = (".h5", ".hdf5", ".keras")  # what Keras writes weights to


def open_file(path: str) -> Any:
    """The HDF5 file, also of the archive that .keras is."""
    import h5py  # comes with Keras

    if not path.endswith(".keras"):
        return h5py.File(path)
    # HDF5 wants to seek in a file of its own, which a member of a zip is not.
    with zipfile.ZipFile(path) as archive:
        return h5py.File(io.BytesIO(archive.read("model.weights.h5")))


def older(path: str) -> list[tuple[str, list[np.ndarray]]]:
    """Return (layer, its arrays) in order, without layers that have none.

    [] for a file in Keras 3's format.

    The layout is that of keras/src/legacy/saving/legacy_h5_format.py.
    """
    with open_file(path) as file:
        # model.save puts the layers below this group, save_weights at the top.
        top = file.get("model_weights", file)
        layers = [(text(n), top[text(n)]) for n in top.attrs.get("layer_names", [])]
        # weight_names keep the order of layer.variables, which `in_order` relies on.
        saved = [
            (name, [np.asarray(group[text(w)]) for w in group.attrs["weight_names"]])
            for name, group in layers
        ]
    return [(name, arrays) for name, arrays in saved if arrays]


def text(name: str | bytes) -> str:
    # h5py gives an attribute as it was written: fixed length as bytes, other as str.
    return name.decode() if isinstance(name, bytes) else name


def count(path: str) -> int:
    """How many layers with arrays a file in Keras 3's format holds."""
    with open_file(path) as file:
        return sum(len(layer.get("vars", ())) > 0 for layer in file["layers"].values())


def in_order(
    saved: list[tuple[str, list[np.ndarray]]], wanted: dict[str, list[tuple[int, ...]]]
) -> list[np.ndarray]:
    """The arrays of the first layers that were saved, which must fit `wanted`.

    wanted: {layer: shapes of its arrays}, in order. ValueError at the first that does
    not fit; layers above the last stay where they are.
    """
    # By order, not by name: Keras numbers the layers without a name over the process.
    if len(saved) < len(wanted):
        raise ValueError(f"it has {len(saved)} layers, this net {len(wanted)}")
    out = []
    for (theirs, arrays), (ours, shapes) in zip(saved, wanted.items()):
        if (held := [a.shape for a in arrays]) != shapes:
            raise ValueError(f"its layer {theirs} is {held}, not {shapes} as {ours}")
        out += arrays
    return out
