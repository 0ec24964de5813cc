"""A study: the runs of a sweep, what each needs first, and which are done.

A study config holds `get_config(arg) -> Run`, the base, and `sweep(arg)`, which
yields overrides of it as dicts of dotted fields; the key "config" takes another
file:arg as the base. A transfer names its upstream by config, so that dependencies follow from
digests, and a grid lists its runs without opening data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bigxfer import config, presets
from bigxfer.config import Run


@dataclass(frozen=True)
class Node:
    """One run of a study."""

    run: Run  # resolved, with init.digest filled in
    digest: str
    needs: str  # the digest of its upstream, or ""

    def folder(self, runs: Path) -> Path:
        return runs / self.digest

    def done(self, runs: Path) -> bool:
        return (self.folder(runs) / "result.json").exists()


def nodes(path: str) -> list[Node]:
    """Every run of the study once, upstreams before what needs them.

    Raises ConfigError where the file has no sweep or an override no field.
    """
    module = presets.load_module(path)
    if not hasattr(module, "sweep"):
        raise config.ConfigError(f"{path} has no sweep(): it is no study")
    found: dict[str, Node] = {}
    for overrides in module.sweep(path.partition(":")[2]):
        for node in _with_upstream(_apply(path, overrides)):
            found.setdefault(node.digest, node)
    return list(found.values())


def _apply(path: str, overrides: dict) -> Run:
    """The base with these overrides."""
    run = presets.load(overrides.get("config", path))
    for name, value in overrides.items():
        if name == "config":
            continue
        *sections, last = name.split(".")
        part = run
        for section in sections:
            part = getattr(part, section)
        if not hasattr(part, last):
            raise config.ConfigError(f"the sweep overrides {name}, which is no field")
        setattr(part, last, value)
    return config.resolve(run)


def _with_upstream(run: Run) -> Iterator[Node]:
    """The upstream of a run, if it names one, and the run itself."""
    if run.init.kind == "pretrained" and run.init.upstream:
        source = config.resolve(presets.load(run.init.upstream))
        digest = config.digest(source)
        yield Node(source, digest, "")
        run.init.digest = digest
        yield Node(run, config.digest(run), digest)
    else:
        yield Node(run, config.digest(run), "")
