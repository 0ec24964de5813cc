"""What the command lines share: flags, XLA settings, errors without tracebacks."""

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from bigxfer import config, presets
from bigxfer.config import dry_run

# Tuned on 2 CPU cores (benchmarks/NOTES.md): other fusions take 10 to 40% off a step,
# Eigen's convolutions, which use all cores, in place of YNN's, which often use one, 5 to
# 13%. XLA aborts on a flag that it does not know, so each where it was tried.
FUSIONS = "--xla_cpu_use_fusion_emitters=false"
LIBRARY = (
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,"
    "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
)
CPU_FLAGS = {  # by the version of jaxlib from which on they hold
    (0, 7): FUSIONS,
    (0, 10): f"{FUSIONS} {LIBRARY}",
    (0, 11): "",
}
CORES = "BIGXFER_CORES"  # such as "0,1": the cores that a launcher gives to a worker

BANNER = """
  ====================================================================
  SYNTHETIC: no --config.data.root, so this runs on the phantom, small
  drawings of radiographs. Its numbers say nothing of real images.
  ====================================================================
"""

# A flag that names a config file: (--config=, the file, its args).
CONFIG = re.compile(r"(--?(?:config|against)=)([^:]*)(.*)")

Main = Callable[..., object]  # takes the run, what the user set, workdir and dry


def run(main: Main) -> None:
    """Parse the common flags, set XLA up, then main(run, given, workdir, dry).

    `given` holds the dotted fields and the arg keys that the user set, such as
    {"optim.lr", "model"}; `workdir` is "" where the flag was not given; `dry` says
    whether --dry-run was.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        "FILE[:key=value,...]; then --config.FIELD=VALUE overrides any field,"
        " such as --config.optim.lr=0.01 (fields: bigxfer/config/schema.py).",
    )
    flags.DEFINE_string("workdir", "", "The run folder itself; default runs/DIGEST.")
    flags.DEFINE_bool("dry_run", False, dry_run.HELP)

    def start(argv: list[str]) -> None:
        # absl leaves words that are no flags here, and would pass over them in silence.
        if argv[1:]:
            raise app.UsageError(f"not a flag: {argv[1]} (--config FILE is one)")
        flag = flags.FLAGS["config"]
        if not flag.present:
            raise app.UsageError("--config FILE is missing; see configs/")
        set_up_logging()
        set_xla_flags()
        try:
            asked = flags.FLAGS
            main(asked.config, given("config"), asked.workdir, asked.dry_run)
        # ArithmeticError: FloatingPointError, by which a training that diverges ends.
        except (ValueError, OSError, ArithmeticError) as error:
            if os.environ.get("BIGXFER_TRACEBACK"):
                raise
            # A new line first, since a progress bar may stand on this one.
            sys.exit(f"\nerror: {error}\n(BIGXFER_TRACEBACK=1 shows where)")

    try:
        app.run(start, flags_parser=parse)
    except KeyboardInterrupt:  # before stopping.listen: imports, the config's own code
        print("stopped by Ctrl-C before anything had begun", file=sys.stderr)
        sys.exit(130)


def check_kind(run: config.Run, kind: str) -> None:
    """Raise ConfigError where the config is not of the kind that a main takes."""
    if run.kind != kind:
        main = {"upstream": "train", "transfer": "transfer"}[run.kind]
        raise config.ConfigError(
            f"this config is of kind={run.kind}; give it to python -m bigxfer.{main}"
        )


def given(flag: str) -> set[str]:
    """Return the dotted fields and the arg keys that the user set of a config flag."""
    # What was set by hand stays where the phantom stands in for data (presets.standin).
    fields = set(config_flags.get_override_values(flags.FLAGS[flag]))
    return fields | presets.arg_keys(getattr(flags.FLAGS, flag).arg)


def set_up_logging() -> None:
    """Send our own lines to stderr, and of absl (so orbax) and jax warnings alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    ours = logging.getLogger("bigxfer")
    # absl's own handler would print each line a second time.
    ours.handlers = [handler]
    ours.propagate = False
    verbose = flags.FLAGS.verbosity > 0  # absl's flag; -v sets it
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.WARNING)


def set_xla_flags() -> None:
    """Set the flags that help on the CPU, unless the user has set any; before jax is used."""
    if os.environ.get(CORES):
        # XLA counts the cores that it may use when it starts.
        os.sched_setaffinity(0, map(int, os.environ[CORES].split(",")))
    if ours := xla_flags():
        os.environ.setdefault("XLA_FLAGS", ours)


def xla_flags() -> str:
    """Return the entry of CPU_FLAGS for the jaxlib that is installed."""
    version = tuple(int(n) for n in metadata.version("jaxlib").split(".")[:2])
    tried = [flags for least, flags in CPU_FLAGS.items() if version >= least]
    return tried[-1] if tried else ""


def parse(argv: list[str]) -> list[str]:
    """absl's parser with a help text of our own, one-line errors and `given_names`."""
    argv = [argv[0], *given_names(argv[1:])]
    if {"-h", "-help", "--help", "--helpshort"} & set(argv[1:]):
        print(sys.modules["__main__"].__doc__)
        of_main = flags.FLAGS.get_flags_for_module(sys.argv[0])
        for flag in [*of_main, *flags.FLAGS.get_flags_for_module(__name__)]:
            print(f"  --{flag.name.replace('_', '-'):12} {flag.help}")
        print("  -v             Say more, such as the table of parameters.")
        sys.exit(0)
    try:
        for item in argv[1:]:
            if match := CONFIG.fullmatch(item):
                presets.find(match[2])
        return flags.FLAGS(argv)
    except (KeyError, AttributeError, config.ConfigError) as error:
        sys.exit(f"error: {unknown_field(argv) or error}")
    except (flags.Error, OSError) as error:
        # config_flags hands on the whole traceback of a config file that raises
        sys.exit(f"error: {str(error).rpartition('ConfigError: ')[2].strip()}")


def given_names(args: list[str]) -> list[str]:
    """Return the flags in the form that absl takes.

    -v becomes --verbosity=1, --dry-run becomes --dry_run, `--config FILE` becomes --config=FILE, and a shipped
    config that is named from anywhere becomes its path.
    """
    out: list[str] = []
    for item in args:
        name, equals, value = item.partition("=")
        if item == "-v":
            item = name = "--verbosity=1"
        if (known := name.lstrip("-").replace("-", "_")) in flags.FLAGS:
            item = f"--{known}{equals}{value}" if name.startswith("-") else item
        if out and out[-1] in ("--config", "--against"):
            item = f"{out.pop()}={item}"
        if (match := CONFIG.fullmatch(item)) and not Path(match[2]).is_file():
            # A file that is nowhere is told by `parse`, in one line.
            with suppress(config.ConfigError):
                item = f"{match[1]}{presets.find(match[2])}{match[3]}"
        out.append(item)
    return out


def unknown_field(argv: list[str]) -> str:
    """The message for the first --config.FIELD or --against.FIELD that the schema lacks, or ""."""
    known = [name.replace("/", ".") for name in config.flat(config.Run())]
    for item in argv[1:]:
        match = re.match(r"--?(?:no)?(config|against)\.([\w.]+)", item)
        if match and match[2] not in known:
            flag, field = match[1], match[2]
            near = " or ".join(f"{flag}.{n}" for n in neighbours(field, known))
            hint = (
                f"; did you mean {near}?" if near else "; see bigxfer/config/schema.py"
            )
            return f"there is no field {flag}.{field}{hint}"
    return ""


def neighbours(field: str, known: list[str]) -> list[str]:
    """The fields that a wrong one may mean: spelled alike, or abbreviated.

    Without any, all fields of its section.
    """
    section, _, last = field.rpartition(".")
    lasts = {name.split(".")[-1]: name for name in known}
    near = difflib.get_close_matches(field, known, n=3, cutoff=0.7)
    near += [lasts[n] for n in difflib.get_close_matches(last, lasts, n=2)]
    initials = "".join(word[0] for word in last.split("_") if word)
    if initials in lasts:  # learning_rate is lr
        near.insert(0, lasts[initials])
    return list(dict.fromkeys(near)) or [
        n for n in known if n.startswith(f"{section}.")
    ]
