"""Weights in and out: BiT's npz files, those of timm, and our own.

Own parameters are named as in BiT's files without their prefix, such as
"block1/unit01/a/standardized_conv2d/kernel". Nothing is ever unpickled.
"""

import re
from pathlib import Path

import numpy as np

from bigxfer import durable, tree
from bigxfer.config import ConfigError
from bigxfer.models.bit import HEAD, Groups
from bigxfer.tree import Tree

# timm's name -> ours (timm/models/resnetv2.py, ResNetV2._load_npz there)
TIMM = {
    # timm counts stages and units from 0, BiT from 1; its conv1 to 3 are layers a to c
    r"stem\.conv\.weight": "root_block/standardized_conv2d/kernel",
    r"stages\.(\d+)\.blocks\.(\d+)\.conv(\d)\.weight": "standardized_conv2d/kernel",
    r"stages\.(\d+)\.blocks\.(\d+)\.norm(\d)\.weight": "group_norm/gamma",
    r"stages\.(\d+)\.blocks\.(\d+)\.norm(\d)\.bias": "group_norm/beta",
    r"stages\.(\d+)\.blocks\.(\d+)\.downsample\.conv\.weight": (
        "a/proj/standardized_conv2d/kernel"
    ),
    r"norm\.weight": "group_norm/gamma",
    r"norm\.bias": "group_norm/beta",
    r"head\.fc\.weight": "head/conv2d/kernel",
    r"head\.fc\.bias": "head/conv2d/bias",
}


def load(path: Path | str, template: Tree, keep_head: bool) -> Tree:
    """Parameters from a file, in the form of `template` (arrays or shape structs).

    path: a run folder (its params.npz), an npz with names of BiT, of timm or of
    ours, or timm's safetensors. Without `keep_head` the template's head stays.
    Raises ValueError with the whole difference where a name or a shape does not
    fit, FileNotFoundError where there is no file.
    """
    path = Path(path)
    path = path / "params.npz" if path.is_dir() else path
    params = rename(read(path))
    try:
        # HEAD is left out of the file as well: it may have any number of classes.
        return tree.merge(template, params, keep="" if keep_head else HEAD)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def save_bit(path: Path | str, params: Tree) -> str:
    """Writes BiT's npz ("resnet/" before each name); returns the file's sha256."""
    return tree.save_npz(path, {"resnet": params})


def read(path: Path) -> Tree:
    """The named arrays of a file, nested; names as they are in it."""
    if path.suffix != ".safetensors":
        return tree.load_npz(path)
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise ImportError(f"{path} needs `pip install safetensors`") from None
    if not path.is_file():
        raise FileNotFoundError(f"no such parameter file: {path}")
    try:
        return load_file(path)
    except Exception as error:  # the library has no public base class of errors
        raise ValueError(f"{path} is not readable safetensors: {error}") from error


def check_groups(path: Path, params: Tree, groups: Groups) -> None:
    """ConfigError where the norms of a file have other groups than ours, or may have.

    params: what is taken of it, in our names. No array says in how many groups a norm
    is computed. A run folder's config.json does, and FILE.json of bigxfer.export; of
    any other file the user has to say it where the usual rules differ (`bit.Groups`).
    """
    flat = tree.flatten(params)
    # By channels, not by layer: the rules give norms of one width the same groups.
    sizes = {len(v) for n, v in flat.items() if n.endswith("group_norm/gamma")}
    ours, told = {c: groups.of(c) for c in sorted(sizes)}, told_groups(path, sizes)
    if told is not None and told != ours:
        raise ConfigError(
            f"{path} has norms of {phrase(told)}, this model {phrase(ours)}: set"
            " config.model.groups and narrow as they were for it"
        )
    few = {c: g for c, g in ours.items() if g != groups.most}
    if told is None and few and not groups.narrow:
        raise ConfigError(
            f"{path} does not say in how many groups its norms are computed, and this"
            f" net has narrow ones. timm and BiT's own code take {groups.most} groups"
            " everywhere: --config.model.narrow=same. bigxfer's own nets have"
            f" {phrase(few)}: --config.model.narrow=fewer"
        )


def told_groups(path: Path, channels: set[int]) -> dict[int, int] | None:
    """{channels: groups} by what lies beside the file; None where nothing says so."""
    run, export = path.with_name("config.json"), path.with_name(f"{path.name}.json")
    if path.name == "params.npz" and run.is_file():
        model = durable.read_json(run)["config"]["model"]
        # `narrow` is younger than the first run folders, which all had "fewer"
        groups = Groups(model["groups"], model.get("narrow", ""))
        return {c: groups.of(c) for c in channels}
    if export.is_file() and (told := durable.read_json(export).get("groups")):
        return {c: told[str(c)] for c in channels if str(c) in told}
    return None


def phrase(groups: dict[int, int]) -> str:
    """ "16 groups at 32 channels, 32 at 64" of {32: 16, 64: 32}."""
    words = [f"{g} at {c} channels" for c, g in sorted(groups.items())]
    return ", ".join(words).replace(" at", " groups at", 1)


def rename(params: Tree) -> Tree:
    """BiT's or timm's names -> ours, float32."""
    flat = tree.flatten(params)
    # Its names are joined by dots, so that a file of timm is flat, and has a stem.
    if "stem.conv.weight" in flat:
        return from_timm(flat)
    renamed = {}
    for name, array in flat.items():
        # some published files number their layers: standardized_conv2d_17
        ours = re.sub(r"(standardized_conv2d)_\d+/", r"\1/", name)
        ours = ours.removeprefix("resnet/")
        # With the numbers gone two names may meet; the last would win in silence.
        if ours in renamed:
            raise ValueError(f"two arrays are named {ours}")
        renamed[ours] = np.asarray(array, np.float32)
    return tree.unflatten(renamed)


def from_timm(flat: Tree) -> Tree:
    """The state dict of a timm `resnetv2_*_bit` (kernels OIHW) -> our parameters."""
    renamed = {}
    for name, array in flat.items():
        array = np.asarray(array, np.float32)
        renamed[timm_to_ours(name)] = (
            array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        )
    return tree.unflatten(renamed)


def timm_to_ours(name: str) -> str:
    """One of timm's names in our spelling; ValueError for one it does not have."""
    for pattern, ours in TIMM.items():
        if match := re.fullmatch(pattern, name):
            numbers = [int(n) for n in match.groups()]
            if numbers:
                ours = (
                    f"{'' if len(numbers) == 2 else 'abc'[numbers[2] - 1] + '/'}{ours}"
                )
                ours = f"block{numbers[0] + 1}/unit{numbers[1] + 1:02d}/{ours}"
            return ours
    raise ValueError(f"{name} is no parameter of a timm resnetv2_*_bit")


def to_timm(params: Tree) -> Tree:
    """Our parameters -> the flat state dict of timm, kernels OIHW: from_timm undone."""
    flat = {ours_to_timm(n): np.asarray(x) for n, x in tree.flatten(params).items()}
    return {n: x.transpose(3, 2, 0, 1) if x.ndim == 4 else x for n, x in flat.items()}


def ours_to_timm(name: str) -> str:
    """One of our names in timm's spelling; ValueError for one that BiT does not have."""
    # a/proj is no layer of its own in timm: the downsample of the unit has no number
    unit = re.fullmatch(r"block(\d+)/unit(\d+)/(?:([abc])/(?!proj))?(.*)", name)
    numbers, ending = [], name
    if unit:
        numbers, ending = [int(unit[1]) - 1, int(unit[2]) - 1], unit[4]
        if unit[3]:
            numbers.append("abc".index(unit[3]) + 1)
    for pattern, ours in TIMM.items():
        holes = re.split(r"\(\\d\+?\)", pattern.replace(r"\.", "."))
        # group_norm/gamma stands there twice: the number of holes tells the last norm
        if ours == ending and len(holes) == len(numbers) + 1:
            return "".join(f"{a}{b}" for a, b in zip(holes, [*numbers, ""]))
    raise ValueError(f"{name} is no parameter of a BiT")
