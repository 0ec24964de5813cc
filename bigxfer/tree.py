"""Named trees: parameters are nested dicts, and surgery on them is algebra.

A *name* is the path of a leaf joined by "/", such as
"block1/unit01/a/standardized_conv2d/kernel". A *flat* tree is {name: leaf}.
"""

import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer import durable

Tree = dict[str, Any]
LINES = 30  # of differences, which an error lists at most


def flatten(tree: Tree, prefix: str = "") -> Tree:
    """Nested dict -> {name: leaf}, in the order of the dicts."""
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(flatten(value, name + "/"))
        else:
            flat[name] = value
    return flat


def unflatten(flat: Tree) -> Tree:
    """{name: leaf} -> nested dict."""
    tree: Tree = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def names(tree: Tree) -> list[str]:
    """The names of all leaves, in the order of the dicts."""
    return list(flatten(tree))


def count(tree: Tree) -> int:
    """The number of scalars in a tree of arrays or of shape structs."""
    return sum(int(np.prod(leaf.shape)) for leaf in flatten(tree).values())


def label(tree: Tree, rules: dict[str, Any]) -> Tree:
    """A tree of the same form with rules[pattern] at each leaf.

    Patterns are regular expressions that must match the whole name; the first
    that matches wins. Raises ValueError where a leaf has no rule, or a rule
    matches no leaf.
    """
    used, labels = set(), {}
    for name in names(tree):
        pattern = next((p for p in rules if re.fullmatch(p, name)), None)
        if pattern is None:
            raise ValueError(f"no rule matches the parameter {name}: {list(rules)}")
        used.add(pattern)
        labels[name] = rules[pattern]
    # A typing error would otherwise freeze nothing, in silence.
    if unused := [p for p in rules if p not in used]:
        raise ValueError(f"rules {unused} match none of {names(tree)[:20]} ...")
    return unflatten(labels)


def take(tree: Tree, pattern: str) -> Tree:
    """The leaves whose whole name matches; ValueError if there are none."""
    flat = {n: v for n, v in flatten(tree).items() if re.fullmatch(pattern, n)}
    if not flat:
        raise ValueError(f"no parameter matches {pattern!r}: {names(tree)[:20]} ...")
    return unflatten(flat)


def merge(target: Tree, source: Tree, keep: str = "") -> Tree:
    """`target` with every leaf replaced by that of `source` of the same name.

    Leaves of the target whose whole name matches `keep` stay, whatever the
    source holds for them. Everything else must fit exactly: a missing leaf, an
    extra one or another shape raises ValueError with the whole difference.
    """
    new, old = flatten(source), flatten(target)
    if keep:
        new = {n: v for n, v in new.items() if not re.fullmatch(keep, n)}
        wanted = {n: v for n, v in old.items() if not re.fullmatch(keep, n)}
    else:
        wanted = old
    shapes, model = ({n: tuple(v.shape) for n, v in t.items()} for t in (new, wanted))
    if lines := unlike(shapes, model, "shape", "the model"):
        raise ValueError(f"these parameters do not fit this model:\n{lines}")
    # In the order of the target, whatever that of the source.
    return unflatten({n: new.get(n, v) for n, v in old.items()})


def unlike(have: dict[str, Any], want: dict[str, Any], kind: str, who: str) -> str:
    """Lines on what two {name: shape or other form} differ in; "" if in nothing.

    kind: what the values are, such as "shape"; who: wants `want`, such as "the model".
    """
    lines = [f"  missing: {n} {v}" for n, v in want.items() if n not in have]
    lines += [f"  extra: {n} {v}" for n, v in have.items() if n not in want]
    lines += [
        f"  {kind}: {n} is {have[n]}, {who} wants {v}"
        for n, v in want.items()
        if n in have and have[n] != v
    ]
    more = [f"  ... and {len(lines) - LINES} more"] if len(lines) > LINES else []
    return "\n".join(lines[:LINES] + more)


def digest(tree: Tree) -> str:
    """sha256 over names, dtypes, shapes and bytes, independent of the order."""
    sha = hashlib.sha256()
    # Dicts of equal trees may be in another order, by the library that made them.
    for name, leaf in sorted(flatten(tree).items()):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def save_npz(path: Path | str, tree: Tree) -> str:
    """Writes {name: array} as npz, durably, with a `sha256sum -c` file beside.

    Returns the sha256 of the file. No pickle: arrays of objects raise ValueError.
    """
    path = Path(path)
    arrays: dict[str, Any] = {n: np.asarray(x) for n, x in flatten(tree).items()}
    # numpy's own allow_pickle=False is new in 2.2; 2.1 saves it as one more array.
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise ValueError(f"{path}: Object arrays are not saved: {', '.join(objects)}")
    # In memory, so that the sum is of what is written, whatever the disk does.
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    data = buffer.getvalue()
    sha = hashlib.sha256(data).hexdigest()
    beside = path.with_name(path.name + ".sha256")
    # A kill between the two writes must not leave a sound file beside the sum of the
    # former one; without a sum it is read by the arrays' own checksums.
    beside.unlink(missing_ok=True)
    durable.write(path, data)
    durable.write(beside, f"{sha}  {path.name}\n")
    return sha


def load_npz(path: Path | str) -> Tree:
    """Reads an npz of named arrays. Raises ValueError on any damage.

    A file beside it called NAME.sha256 is checked where it exists; the CRC of
    each array is checked always.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such parameter file: {path}")
    # Once: what is checked is what is used.
    data = path.read_bytes()
    beside = path.with_name(path.name + ".sha256")
    if beside.is_file():
        got = hashlib.sha256(data).hexdigest()
        if beside.read_bytes().split()[:1] != [got.encode()]:
            raise ValueError(
                f"{path} or {beside.name} is damaged: its sha256 is {got}, which is not"
                " what stands there. Copy or make it again."
            )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if bad := archive.testzip():  # numpy reads flipped bits in silence
                raise ValueError(f"the array {bad} fails its checksum")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return unflatten({name: arrays[name] for name in arrays.files})
    except Exception as error:
        raise ValueError(f"{path} is not a readable npz: {error}") from error
