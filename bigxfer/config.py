"""A run's config: its checks, its derived names, its digest.

A config file holds `get_config(arg="") -> Run`; the fields stand in schema.py, and
`resolve` checks them. Nothing here imports jax: `--help` has to be quick.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
from dataclasses import MISSING
from typing import Any

from bigxfer.schema import (  # noqa: F401 others take the schema from here
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

STANDARDISED = ("bit",)  # models that standardise their kernels (tests/test_init.py)
FEWEST_FOR_FOLDS = 5  # shots; with fewer, folds of the shots choose nothing by default
WRITERS = ("tensorboard", "wandb", "mlflow")  # training/writers.py has one of each
SEEDS = ("seed",)  # all else, also split_seed and fold, changes what is asked


class ConfigError(ValueError):
    """A config that cannot be run; the message says what to change."""


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


def check_data(d: Data) -> None:
    """ConfigError for what can be told of the data section without data."""
    if d.crop > d.resize:
        raise ConfigError(f"config.data.crop={d.crop} exceeds resize={d.resize}")
    if not 0 <= d.valid < 1 or not 0 < d.test < 1:
        raise ConfigError("config.data.valid and test are fractions below 1")
    if not 0 < d.fraction <= 1 or not 0 < d.sampling_share < 1:
        raise ConfigError(
            "config.data.fraction lies in (0, 1], sampling_share between 0 and 1"
        )
    for kind in d.split.split("+"):
        if kind not in (allowed := ("official", "patient", "reference")):
            raise ConfigError(f"config.data.split is {d.split!r}; it may be {allowed}")
    if d.folds and (d.split != "patient" or d.folds < 2 or not 0 <= d.fold < d.folds):
        raise ConfigError(
            f"config.data.folds={d.folds}, fold={d.fold}, split={d.split!r}: folds are"
            " two or more, of split=patient, and fold lies in [0, folds)"
        )
    if len(d.size) not in (0, 2) or any(not str(n).isdigit() for n in d.size):
        raise ConfigError("config.data.size is two numbers: training images, classes")
    d.mix, d.size = tuple(map(float, d.mix)), tuple(map(int, d.size))
    if d.mix and (len(d.mix) != len(d.reader.split("+")) or min(d.mix) <= 0):
        raise ConfigError(
            f"config.data.mix={d.mix}: one weight above 0 for each set of"
            f" config.data.reader={d.reader!r}"
        )
    if bad := [pair for pair in d.external_classes if pair.count("=") != 1]:
        raise ConfigError(
            f"config.data.external_classes holds {bad[0]!r}; theirs=ours is expected"
        )
    if d.mix and d.sampling == "covid_percent":
        raise ConfigError("set one of config.data.mix and sampling=covid_percent")


def check_head(run: Run) -> None:
    """ConfigError for a head that cannot be; of a features file only a head is fitted.

    Of such a run, and of one with knn, there are no parameters to keep.
    """
    i, head, d = run.init, run.freeze.head, run.data
    if i.features:
        i.kind, run.model = "features", Model()
    elif i.kind == "features":
        raise ConfigError("config.init.kind=features needs config.init.features=FILE")
    if i.features and (head == "trained" or run.kind != "transfer"):
        raise ConfigError(
            "config.init.features gives no net to train: fit a head of a transfer with"
            " config.freeze.head=ridge, logistic, ncm or knn"
        )
    if i.features or head == "knn":
        run.keep = "none"
        if d.external:
            raise ConfigError(
                "config.data.external needs a net that predicts: neither features from a"
                " file nor config.freeze.head=knn give one"
            )
    if d.support and (d.shots == "full" or (d.draws > 1 and "{seed}" not in d.support)):
        raise ConfigError(
            f"config.data.support={d.support!r} is the draw of config.data.shots (here"
            f" {d.shots}); of {d.draws} draws its name must hold {{seed}}"
        )
    if d.draws < 1 or (d.draws > 1 and (head == "trained" or d.shots == "full")):
        raise ConfigError(
            f"config.data.draws={d.draws}: draws of config.data.shots, of a head that is"
            f" fitted (here shots={d.shots}, config.freeze.head={head})"
        )


def check_start(run: Run) -> None:
    """ConfigError for sections on the start and its phases that contradict themselves."""
    i, f, p = run.init, run.freeze, run.phase
    if i.kind in ("random", "gabor", "features") and (i.how, i.upto) != ("copy", ""):
        raise ConfigError(
            f"config.init.how={i.how!r} and upto={i.upto!r} say what is taken from a"
            f" checkpoint; they need config.init.kind=pretrained, not {i.kind}"
        )
    if i.above != "random" and not i.upto:
        raise ConfigError(
            "config.init.above needs config.init.upto: above which layer?"
        )
    drawn = "mean_var" in (i.how, i.above) and i.batch_norm == "identity"
    if drawn and run.model.name in STANDARDISED:
        raise ConfigError(
            f"config.init mean_var takes nothing into {run.model.name}: it standardises"
            " its kernels, so that their mean and variance are not in what it computes,"
            " and the start is a random one. Take a CBR, SmallCNN or Keras net; here"
            " init.kind=random, or init.batch_norm=copy for the norms alone"
        )
    if sum(map(bool, (f.bottom, f.top, f.top_layers))) > 1:
        raise ConfigError("set one of config.freeze.bottom, top and top_layers")
    if not (0 <= f.bottom <= 1 and 0 <= f.top <= 1 and f.top_layers >= 0):
        raise ConfigError("config.freeze.bottom and top are shares between 0 and 1")
    p.until, p.bottom = tuple(map(float, p.until)), tuple(map(float, p.bottom))
    ends = [0.0, *p.until, 1.0]
    if len(p.until) != len(p.bottom) or ends != sorted(set(ends)):
        raise ConfigError(
            f"config.phase.until={p.until} are rising fractions of the run, one for"
            f" each of config.phase.bottom={p.bottom}"
        )
    if f.head != "trained" and p.until:
        raise ConfigError(f"config.freeze.head={f.head} trains nothing: no phases")


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
