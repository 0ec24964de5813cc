"""A run's config: its derived names, its digest.

A config file holds `get_config(arg="") -> Run`; the fields stand in schema.py, and
`resolve` checks them (checks.py). Nothing here imports jax: `--help` has to be quick.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
from dataclasses import MISSING
from typing import Any

from bigxfer.config.checks import (
    ConfigError,
    check_data,
    check_head,
    check_start,
    check_tune,
)
from bigxfer.config.schema import (  # noqa: F401 others take the schema from here
    DEPTHS,
    PLACES,
    Data,
    Eval,
    Freeze,
    Init,
    Log,
    Mesh,
    Model,
    Optim,
    Phantom,
    Phase,
    Run,
)

FEWEST_FOR_FOLDS = 5  # shots; with fewer, folds of the shots choose nothing by default
WRITERS = ("tensorboard", "wandb", "mlflow")  # training/writers.py has one of each
FOLDS = 5  # of the shots by patient, at most, where they choose
SEEDS = ("seed",)  # all else, also split_seed and fold, changes what is asked


def nearest(key: str, known: list[str]) -> str:
    """The end of a message about an unknown key."""
    close = difflib.get_close_matches(key.split(".")[-1], known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{hint} (known: {', '.join(known)})"


def flat(run: Any) -> dict[str, Any]:
    """{"model/width": 1.0, ...} of every field."""
    out = {}
    for name, section, _ in fields(type(run)):
        value = getattr(run, name)
        if section:
            out.update({f"{name}/{k}": v for k, v in flat(value).items()})
        else:
            out[name] = value
    return out


@functools.cache  # `study list` asks for those of thousands of runs
def fields(cls: type) -> tuple[tuple[str, bool, tuple], ...]:
    """(name, whether it is a section, the values that it may have; (): any) of a class."""
    return tuple(
        (f.name, f.default_factory is not MISSING, f.metadata.get("one of", ()))
        for f in dataclasses.fields(cls)
    )


@functools.cache
def places() -> dict[str, tuple[frozenset[str], str]]:
    """{"model/width": (its words, its date)} of PLACES."""
    return {
        section + name: (frozenset(words.split()), since)
        for section, names, words, since in PLACES
        for name in names.split()
    }


def values(run: Run, *words: str) -> dict[str, Any]:
    """`flat`, of the fields that have one of these words in PLACES."""
    known = places()
    return {k: v for k, v in flat(run).items() if not known[k][0].isdisjoint(words)}


def only(run: Run, word: str) -> Run:
    """The run with every field that lacks this word in PLACES at its default."""
    out = Run()
    for name, value in values(run, word).items():
        *sections, last = name.split("/")
        setattr(functools.reduce(getattr, sections, out), last, value)
    return out


def resolve(run: Run) -> Run:
    """A checked deep copy of the run; ConfigError where a value cannot be."""
    run = from_dict(to_dict(run))
    check_choices(run, "config")
    o, d = run.optim, run.data
    if o.schedule != "hyperrule" and (o.steps > 0) == (o.epochs > 0):
        raise ConfigError("set one of config.optim.steps and config.optim.epochs")
    if o.warmup_steps and o.warmup_epochs:
        raise ConfigError("set one of config.optim.warmup_steps and warmup_epochs")
    if o.batch < 1 or (o.micro_batch > 0 and o.batch % o.micro_batch):
        raise ConfigError(
            f"config.optim.micro_batch={o.micro_batch} must divide batch={o.batch}"
        )
    if d.shots != "full" and not (d.shots.isdigit() and int(d.shots) > 0):
        raise ConfigError(f'config.data.shots is {d.shots!r}; "full" or a number')
    if unknown := [name for name in run.log.writers if name not in WRITERS]:
        raise ConfigError(
            f"config.log.writers holds {unknown[0]!r}; there are {', '.join(WRITERS)}"
        )
    check_data(d)
    check_head(run)
    check_tune(run)
    check_start(run)
    if run.eval.select and not d.valid:
        raise ConfigError("config.eval.select needs a validation split: data.valid > 0")
    if run.eval.select and select_on(run) != "validation":
        raise ConfigError(
            f"config.eval.select={run.eval.select} picks the step on validation;"
            f" config.eval.select_on={run.eval.select_on} rules it out"
        )
    return run


def select_on(run: Run) -> str:
    """The labels by which the run may choose anything: none, support or validation."""
    if run.eval.select_on:
        return run.eval.select_on
    if run.data.shots == "full" or run.eval.select:
        return "validation"
    return "support" if int(run.data.shots) >= FEWEST_FOR_FOLDS else "none"


def check_choices(section: Any, name: str) -> None:
    """ConfigError for a field that is not one of its values."""
    for field, is_section, allowed in fields(type(section)):
        if is_section:
            check_choices(getattr(section, field), f"{name}.{field}")
        elif allowed and (value := getattr(section, field)) not in allowed:
            raise ConfigError(f"{name}.{field} is {value!r}; it may be {allowed}")


def taken(init: dict[str, Any]) -> str:
    """Return what a start takes of its upstream, in words: "mean_var up to block2".

    `init` is the section as config.json holds it; runs may be older than some fields. "copy"
    is the whole upstream as it is.
    """
    words = init.get("how", "copy")
    words += f" up to {init['upto']}" if init.get("upto") else ""
    for name, default, what in (
        ("above", "random", "above"),
        ("batch_norm", "identity", "batch norm"),
    ):
        if init.get(name, default) != default:
            words += f", {init[name]} {what}"
    return words


def to_dict(run: Run) -> dict[str, Any]:
    return json.loads(json.dumps(run, default=vars))


def from_dict(values: dict[str, Any], cls: type = Run) -> Any:
    """The inverse of to_dict; ConfigError for a field that the schema lacks."""
    out = cls()
    sections = {name: section for name, section, _ in fields(cls)}
    for key, value in values.items():
        if cls is Log and key == "tensorboard":  # its name until December 2026
            key, value = "writers", ("tensorboard",) if value else ()
        if key not in sections:
            raise ConfigError(f"unknown field {key!r}{nearest(key, list(sections))}")
        default = getattr(out, key)
        if sections[key]:
            value = from_dict(value, type(default))
        elif isinstance(default, tuple):
            value = _split(tuple(value))
        elif isinstance(default, float):
            value = float(value)
        setattr(out, key, value)
    return out


def _split(value: tuple) -> tuple:
    """The flag --config.data.views=PA,AP arrives as ("PA,AP",), and = as ("",)."""
    if value == ("",):
        return ()
    parts = [v.split(",") if isinstance(v, str) else [v] for v in value]
    return tuple(p for part in parts for p in part)


def digest(run: Run) -> str:
    """16 hex digits that name the run: of all that changes its numbers."""
    return hash_of(_digested(run))


def settings(run: Run) -> dict[str, Any]:
    """{"optim/lr": 0.003, ...}: what runs have in common that differ in a seed alone.

    These are the fields of the digest without SEEDS and without the digest of the
    upstream, which holds the upstream's own seed. Fields newer than a run stay out of
    it at their default, as they stay out of the digest.
    """
    kept = _digested(run)
    return {k: v for k, v in kept.items() if k not in (*SEEDS, "init/digest")}


def hash_of(value: Any) -> str:
    """16 hex digits of a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digested(run: Run) -> dict[str, Any]:
    """The fields that name the run, those newer than it where they are not default."""
    default, known = defaults(), places()
    return {
        name: value
        for name, value in values(run, "digest").items()
        if not known[name][1] or value != default[name]
    }


@functools.cache
def defaults() -> dict[str, Any]:
    """`flat` of a run in which nothing is set."""
    return flat(Run())
