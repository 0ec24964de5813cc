"""A study: the runs of a sweep, what each needs first, and how each of them stands.

A study config holds `get_config(arg) -> Run`, the base, and `sweep(arg)`, which
yields overrides of it as dicts of dotted fields; the key "config" takes another
file:arg as the base. A transfer names its upstream by config, so that dependencies
follow from digests, and a grid lists its runs without opening data. The decoded images
that runs share are nodes of their own.
"""

import copy
import dataclasses
import hashlib
import json
import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bigxfer import config, presets
from bigxfer.config import Data, Run
from bigxfer.data import identity
from bigxfer.protocols import features
from bigxfer.runs import finished, folders
from bigxfer.study import claims

PAUSE = 10.0  # seconds before a failed run is tried again, times its strikes


@dataclass(frozen=True)
class Node:
    """One run of a study, or a cache that its runs read."""

    run: Run  # resolved, with init.digest filled in; a cache: only its data counts
    digest: str  # of a cache "caches/HEX", so that no table takes it for a run
    needs: tuple[str, ...] = ()  # the digests of its cache and its upstream
    source: str = ""  # the reader of its upstream, in words for people

    @property
    def kind(self) -> str:
        """cache, upstream or transfer."""
        return "cache" if self.digest.startswith("caches/") else self.run.kind

    @cached_property
    def shape(self) -> str:
        """Equal for runs that can share programs, as far as their configs tell."""
        return json.dumps(config.values(self.run, "program", "images"))

    def folder(self, runs: Path) -> Path:
        return runs / self.digest

    def __str__(self) -> str:
        """Such as "R26x0.25 nih -> covidx, 5 shots, draw 0"."""
        data, init = self.run.data, self.run.init
        if self.kind == "cache":
            return f"images of {data.reader}"
        reader = f"{data.reader} {data.version}".rstrip()
        net = presets.net_name(vars(self.run.model))
        if init.kind == "features":
            net = Path(self.run.init.features).stem
        if self.kind == "upstream":
            return f"{net} upstream {data.reader}, seed {self.run.seed}"
        start = (self.source or "given") if init.kind == "pretrained" else init.kind
        start = "scratch" if start == "random" else start
        if (taken := config.taken(vars(init))) != "copy":
            start += f" ({taken})"
        shots = {"full": "all images", "1": "1 shot"}.get(
            data.shots, f"{data.shots} shots"
        )
        draw = f"draw {self.run.seed}"
        if data.draws > 1:
            draw = f"{data.draws} draws from {self.run.seed} on"
        return f"{net} {start} -> {reader}, {shots}, {draw}"


@dataclass(frozen=True)
class Standing:
    """How one node stands, as its folder says."""

    node: Node
    # done, running, ready, failed (to be tried again), waiting, given up, or unchecked:
    # finished, on data that nobody has compared with those of now
    state: str
    tries: list[claims.Try]
    error: str = ""  # of the last failed try, or the node for which it is given up
    step: int = 0  # reached, as metrics.jsonl says
    steps: int = 0  # of the whole run; 0: not known yet
    age: float | None = None  # seconds since the last sign of its last try
    where: str = ""  # host and Slurm job of its last try
    damage: str = ""  # what is wrong with the result that is there


def nodes(path: str) -> list[Node]:
    """Every run of the study once, caches and upstreams before what needs them.

    Raises ConfigError where the file has no sweep or an override no field.
    """
    module = presets.load_module(path)
    if not hasattr(module, "sweep"):
        raise config.ConfigError(f"{path} has no sweep(): it is no study")
    loaded, by_digest = Loaded(), {}
    for overrides in module.sweep(path.partition(":")[2]):
        for node in loaded.nodes(path, overrides):
            # Upstreams and caches come once for every run that needs them.
            before = by_digest.setdefault(node.digest, node)
            if _roots(before) != _roots(node):
                raise config.ConfigError(
                    f"{path}: two runs differ in data.root alone"
                    f" ({before.run.data.root!r}, {node.run.data.root!r}), which no"
                    " digest holds: they would be one run. Give each set its own"
                    ' data.version, such as {"data.root": "A", "data.version": "A"}'
                    " (readers csv, folder and dicom take any), or a study of its own"
                    " with --runs of its own"
                )
    return list(by_digest.values())


def _roots(node: Node) -> list[str]:
    """Where the data of a node lie, however it is written; one for each set of a union."""
    data = node.run.data
    roots = [*data.root.split(os.pathsep), *data.external_root.split(os.pathsep)]
    # Else "data" and "./data" would count as two places.
    return [os.path.abspath(root) if root else "" for root in roots]


class Loaded:
    """What the runs of one study share, worked out once: a grid has few of each."""

    def __init__(self) -> None:
        self.bases: dict[str, Run] = {}  # by file:arg
        self.upstreams: dict[str, list[Node]] = {}  # with what they need, by file:arg
        self.caches: dict[str, Node] = {}  # by the text of their data section
        self.files: dict[str, str] = {}  # digests of the files that runs name

    def nodes(self, path: str, overrides: dict) -> list[Node]:
        """A run of the sweep, after its cache and its upstream with all it needs."""
        name = overrides.get("config", path)
        if name not in self.bases:
            self.bases[name] = presets.load(name)
        fields = {k: v for k, v in overrides.items() if k != "config"}
        return self.with_needs(config.resolve(_override(self.bases[name], fields)))

    def with_needs(self, run: Run) -> list[Node]:
        # One worker builds a cache, before any run that reads it: a shared file system may
        # know no flock across machines.
        cache, before, reader = self.cache(run), [], ""
        needs = (cache.digest,)
        if run.init.kind == "pretrained" and (name := run.init.upstream):
            if name not in self.upstreams:
                source = config.resolve(presets.load(name))
                self.upstreams[name] = self.with_needs(source)
            before = self.upstreams[name]
            run.init.digest, reader = before[-1].digest, before[-1].run.data.reader
            needs += (run.init.digest,)
        features.name_files(run, self.files)
        return [cache, *before, Node(run, config.digest(run), needs, reader)]

    def cache(self, run: Run) -> Node:
        if (text := f"{run.kind} {_whole_set(run.data)}") not in self.caches:
            self.caches[text] = _cache(run)
        return self.caches[text]


def _override(base: Run, values: dict) -> Run:
    """A copy of the base with these values of dotted fields; the base stays."""
    # Only the sections on the way are copied: a grid has thousands of runs.
    run = dataclasses.replace(base)
    for name, value in values.items():
        *sections, last = name.split(".")
        holder = run
        for section in sections:
            setattr(holder, section, copy.copy(getattr(holder, section, None)))
            holder = getattr(holder, section)
        if not hasattr(holder, last):
            raise config.ConfigError(f"the sweep overrides {name}, which is no field")
        setattr(holder, last, value)
    return run


def _cache(run: Run) -> Node:
    """What decodes the whole set that a run takes its images from."""
    data = _whole_set(run.data)
    default = dataclasses.asdict(Data())  # left out: a field that is new changes no key
    default["size"] = data.size  # what `list` reckons with changes no pixel
    kept = {k: v for k, v in dataclasses.asdict(data).items() if v != default[k]}
    key = json.dumps(kept, sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Node(config.Run(kind=run.kind, data=data), f"caches/{digest}")


def _whole_set(data: Data) -> Data:
    """These images, without what chooses among them or says how they are used."""
    default, whole = Data(), copy.copy(data)
    for name, (words, _) in config.places().items():
        # Fields that only choose among the rows leave the decoded images as they are.
        if "rows" in words:
            field = name.removeprefix("data/")
            setattr(whole, field, getattr(default, field))
    whole.crop = data.resize
    return whole


def states(
    study: list[Node], runs: Path, done: set[str] | None = None
) -> list[Standing]:
    """How every node stands, in the order of `study`, read from the folders alone.

    `done` are digests known to be done, which are not looked at; those found now are
    added to it.
    """
    done, dead, out = set() if done is None else done, {}, []
    caches: dict[str, dict | None] = {}
    here = {node.digest for node in study}
    for node in study:
        state = _state(node, runs, done, dead, caches, here)
        if state.state == "done":
            done.add(node.digest)
        if state.state == "given up":
            dead[node.digest] = state
        out.append(state)
    return out


def reopen(study: list[Node], runs: Path) -> None:
    """Have the data of a study compared anew: its caches count as done no longer.

    A launcher begins so. Opening a set whose images are decoded takes seconds; then each
    finished run is compared with what its data are now.
    """
    for node in study:
        if node.kind == "cache":
            (node.folder(runs) / "result.json").unlink(missing_ok=True)


def outcome(runs: Path, digest: str) -> tuple[dict | None, str]:
    """(the result of a cache or config.json of a finished run, what is damaged there).

    None for one that is not finished, or damaged.
    """
    folder = runs / digest
    if not (folder / "result.json").exists():
        return None, ""
    try:
        if digest.startswith("caches/"):
            return folders.read(folder / "result.json"), ""
        return finished.read(folder).about, ""
    except (ValueError, OSError) as error:
        return None, str(error)


def _compared(
    node: Node, about: dict, runs: Path, caches: dict[str, dict | None]
) -> tuple[str, str]:
    """(done, unchecked or given up; why) of a finished run, by its data and those of now.

    The data of now are those that the cache found when it was last opened. A run from
    before the identities, or without a cache, cannot be compared and is done.
    """
    names = [need for need in node.needs if need.startswith("caches/")]
    if "identity" not in about or not names:
        return "done", ""
    # Read once for all the runs of a set.
    if names[0] not in caches:
        caches[names[0]] = outcome(runs, names[0])[0]
    now = (caches[names[0]] or {}).get("identity")
    if now is None:
        return "unchecked", "its data are not compared yet with those of now"
    if differs := identity.differences(about["identity"], identity.of_set(now)):
        return "given up", (
            f"{node.folder(runs)} was done with other data, at"
            f" {about['config']['data']['root']!r}: {' and '.join(differs)} differ from"
            f" those at {node.run.data.root!r}. Take other --runs, or move it away"
        )
    return "done", ""


def _state(
    node: Node,
    runs: Path,
    done: set[str],
    dead: dict[str, Standing],
    caches: dict[str, dict | None],
    here: set[str],
) -> Standing:
    # Known for good within a launch: not even its folder is looked at.
    if node.digest in done:
        return Standing(node, "done", [])
    about, damage = outcome(runs, node.digest)
    if about is not None:
        lost = next((need for need in node.needs if need in dead), "")
        if lost.startswith("caches/"):
            return Standing(node, "given up", [], f"its data: {dead[lost].error}")
        name, why = _compared(node, about, runs, caches)
        return Standing(node, name, [], why)
    folder, now = node.folder(runs), time.time()
    claimed = claims.read(folder)
    past, last = claims.past(folder, claimed), claimed[-1] if claimed else None
    step, steps = folders.progress(folder) if claimed else (0, 0)
    age = now - last.touched if last else None
    where = f"{last.owner['host']} {last.owner['job']}".strip() if last else ""

    def state(name: str, error: str = past.error) -> Standing:
        place = step, steps, age, where
        return Standing(node, name, claimed, error, *place, damage)

    if last and last.alive(now):
        return state("running")
    if past.given_up:
        return state("given up")
    for need in node.needs:
        if need in dead:
            return state("given up", f"it needs {dead[need].node} {need}, given up")
    for need in node.needs:  # which may be no part of this list of nodes
        if need not in done and (need in here or outcome(runs, need)[0] is None):
            return state("waiting")
    if past.strikes and age is not None and age < PAUSE * past.strikes:
        return state("failed")
    return state("ready")
