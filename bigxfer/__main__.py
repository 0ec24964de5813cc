"""bigxfer: scaling studies of transfer learning in medical imaging.

  bigxfer train --config configs/upstream_chexpert.py     the same as python -m bigxfer.train
  bigxfer launch local --config configs/study_demo.py     the same as python -m launch.local
  bigxfer COMMAND --help                                  what a command does and takes
  bigxfer COMMAND ... --dry-run     check the input, say what would be done and written, and
                                    do nothing: of every command that writes
  bigxfer config                    the shipped configs; all commands find them by name
  bigxfer config FILE[:args]        every field of its run; FILE may be a run folder
  bigxfer config FILE FILE2         the fields in which two runs differ
  bigxfer models                    the nets that --config.model.name or model= takes
  bigxfer datasets                  the readers, and where to obtain their data
  bigxfer completion bash           completes commands, options, configs and fields; for zsh too:
                                    source <(bigxfer completion bash)

Research software, no diagnostic device.
"""

import argparse
import ast
import runpy
import sys
from importlib import util
from pathlib import Path
from types import SimpleNamespace

from bigxfer import __version__, config, durable, presets

MODULES = {  # the commands that are modules of their own
    "train": "bigxfer.train",
    "transfer": "bigxfer.transfer",
    "audit": "bigxfer.audit",
    "analyze": "bigxfer.analyze",
    "predict": "bigxfer.predict",
    "export": "bigxfer.export",
    "study": "bigxfer.study",
}
GROUPS = {  # the commands whose next word names the module
    "launch": {name: f"launch.{name}" for name in ("local", "slurm", "tpu")},
    "data": {"fetch": "bigxfer.data.fetch"},
}

BASH = """
_bigxfer() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  case "$before $word" in
    "bigxfer "*) COMPREPLY=($(compgen -W "{commands}" -- "$word")) ;;
    "study "*) COMPREPLY=($(compgen -W "{study}" -- "$word")) ;;
    "launch "*) COMPREPLY=($(compgen -W "{launch}" -- "$word")) ;;
    "data "*) COMPREPLY=($(compgen -W "{data}" -- "$word")) ;;
    "--config "*|"--against "*|"config "*)
      COMPREPLY=($(compgen -W "{configs}" -- "$word") $(compgen -f -- "$word")) ;;
    *" --config."*) compopt -o nospace 2>/dev/null
      COMPREPLY=($(compgen -W "{fields}" -- "$word")) ;;
    *" -"*)  # a command's own options: asked of it once, then kept
      local asked=("${{COMP_WORDS[1]}}") kept options
      case "${{COMP_WORDS[1]}}" in {groups}) asked+=("${{COMP_WORDS[2]}}") ;; esac
      kept="_bigxfer_${{asked[*]}}"; kept="${{kept//[^a-z]/_}}"
      eval "options=\\$$kept"
      if [ -z "$options" ]; then
        options=$(bigxfer "${{asked[@]}}" --help 2>/dev/null |
          grep -oE -e '--[a-z][a-z_-]+' | sort -u)
        eval "$kept=\\$options"
      fi
      COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}}
[ -n "$ZSH_VERSION" ] && autoload -U bashcompinit && bashcompinit
complete -F _bigxfer bigxfer
"""


def main() -> None:
    """Hand the words after the command to its module, or answer it here."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help", "help"):
        print(__doc__)
    elif command in ("--version", "version"):
        print(f"bigxfer {__version__}")
    elif command in MODULES:
        run_module(MODULES[command], rest)
    elif command in GROUPS:
        run_group(command, rest)
    elif command in OWN:
        try:
            OWN[command](rest)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
    else:
        known = [*MODULES, *GROUPS, *OWN]
        sys.exit(f"error: no command {command!r}{config.nearest(command, known)}")


def run_module(name: str, args: list[str]) -> None:
    """Run the module as `python -m NAME ARGS` does."""
    # absl and argparse take their words, and the name of the program, from here.
    sys.argv = [name, *args]
    # As __main__, since each command defines its flags only then.
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_group(command: str, args: list[str]) -> None:
    """Run the module that the next word names; without one, list them."""
    members = GROUPS[command]
    if not args or args[0] not in members:
        for name, module in members.items():
            print(f"  bigxfer {command} {name:8} {headline(module)}")
        wanted = not args or args[0] in ("-h", "--help")
        sys.exit(0 if wanted else f"error: no command {command} {args[0]}")
    run_module(members[args[0]], args[1:])


def headline(module: str) -> str:
    """Return the first line of a module's docstring, without importing it."""
    spec = util.find_spec(module)
    assert spec and spec.origin
    # To import every launcher for a line of help would take seconds.
    tree = ast.parse(Path(spec.origin).read_text())
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def parsed(command: str, args: list[str], about: str, *words: dict) -> SimpleNamespace:
    """Parse the words of one of our own commands."""
    parser = argparse.ArgumentParser(prog=f"bigxfer {command}", description=about)
    for word in words:
        parser.add_argument(**word)
    return parser.parse_args(args, SimpleNamespace())


def show_config(args: list[str]) -> None:
    """Print every field of a run, or those in which two differ, or the shipped configs."""
    about = (
        "Print the resolved config of FILE[:args] or a run folder, or how two differ."
    )
    files = parsed("config", args, about, {"dest": "file", "nargs": "*"}).file
    if not files:
        for path in sorted(presets.shipped().glob("*.py")):
            words = ast.get_docstring(ast.parse(path.read_text())) or ""
            print(f"configs/{path.name:24} {words.partition(chr(10))[0]}")
        return
    if len(files) > 2:
        raise ValueError(f"one FILE or two, not {len(files)}")
    runs = [opened(file) for file in files]
    columns = [config.flat(run) for run in runs]
    for name in columns[0]:
        # repr tells "1" from 1, and shows an empty text.
        values = [repr(column[name]) for column in columns]
        if len(files) == 1 or values[0] != values[1]:
            print(f"config.{name.replace('/', '.'):24} {'  ->  '.join(values)}")
    print("digest", "  ->  ".join(config.digest(run) for run in runs))


def opened(name: str) -> config.Run:
    """Return the resolved run of FILE[:args], of a run folder or of its config.json."""
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    if path.suffix != ".json":
        return config.resolve(presets.load(name))
    try:
        return config.from_dict(durable.read_sealed(path)["config"])
    except KeyError as error:
        raise ValueError(f"{path} is no config.json of a run: {error!r}") from None


def show_models(args: list[str]) -> None:
    """Print the nets by name."""
    parsed("models", args, "List the nets.")
    from bigxfer import models

    print("R50x1, R26x0.5, ...       BiT: depth 26, 50, 101 or 152, any width")
    print("R2-2-2-2x0.25, ...        BiT: units of each stage, any width")
    for name in models.MODELS:
        if name != "bit":
            print(name)


def show_datasets(args: list[str]) -> None:
    """Print the readers and where their data come from."""
    parsed("datasets", args, "List the readers, and where to obtain their data.")
    from bigxfer.data import readers

    for name in readers.READERS:
        print(f"{name:16} {readers.OBTAIN[name]}")
    print("\nSet one by --config.data.reader=NAME --config.data.root=FOLDER.")


def show_completion(args: list[str]) -> None:
    """Print the completion of bash, which zsh reads too."""
    parsed(
        "completion",
        args,
        "Print what completes bigxfer's commands: source <(bigxfer completion bash)",
        {"dest": "shell", "choices": ("bash", "zsh")},
    )
    from bigxfer.study import __main__ as study

    # Asked of the commands themselves, so that a new one is completed too.
    words = argparse.ArgumentParser().add_subparsers()
    for command in study.COMMANDS:
        command.add(words)
    fields = (name.replace("/", ".") for name in config.flat(config.Run()))
    print(
        BASH.format(
            commands=" ".join([*MODULES, *GROUPS, *OWN]),
            study=" ".join(words.choices),
            groups="|".join(["study", *GROUPS]),
            **{command: " ".join(members) for command, members in GROUPS.items()},
            configs=" ".join(
                f"configs/{p.name}" for p in presets.shipped().glob("*.py")
            ),
            fields=" ".join(f"--config.{name}=" for name in fields),
        )
    )


OWN = {
    "config": show_config,
    "models": show_models,
    "datasets": show_datasets,
    "completion": show_completion,
}

if __name__ == "__main__":
    main()
