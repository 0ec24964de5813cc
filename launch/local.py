"""Runs a study on this machine, in one worker process or several.

  python -m launch.local --config configs/study_demo.py
  python -m launch.local --config configs/study_demo.py --workers 4  # a GPU each

Runs that are done are not done again, half-done ones go on: after a kill, give the
command once more. A worker that dies or hangs is started anew; a run that fails three
times in the same way is given up and reported at the end, with those that needed it;
the others go on. Ctrl-C saves first. Several launchers may share the folder of runs.
Without GPUs several workers have their own cores each: results of another number of
workers are then equal to rounding, of the same number to the bit.

Prints a line a run, then the table and the path of the report; exit status 1 if any
run was given up. It costs a second over the runs themselves; compiled programs are kept
in cache/xla beside the runs.
"""

import os
import signal
import sys
from pathlib import Path

from absl import app, flags

from bigxfer import cli, config
from bigxfer.study import claims, grid
from launch import pool, shares


def main(argv: list[str]) -> None:
    if argv[1:] or not flags.FLAGS.config:
        raise app.UsageError("--config FILE is missing; see configs/study_*.py")
    path, runs = flags.FLAGS.config, Path(flags.FLAGS.runs)
    try:
        study = grid.nodes(path)
        environs = shares.share_out(os.environ, flags.FLAGS.workers)
    except config.ConfigError as error:
        sys.exit(f"error: {error}")
    if flags.FLAGS.dry_run:
        print(rehearsal(grid.states(study, runs)))
        return
    if flags.FLAGS.retry:
        for node in study:
            claims.forgive(node.folder(runs))
    if not flags.FLAGS.only:
        grid.reopen(study, runs)
    todo = [n for n in study if flags.FLAGS.only in ("", n.digest)]
    workers = pool.Pool(
        todo, runs, pool.worker_command(path, runs), environs, flags.FLAGS.hang
    )

    def on_signal(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second one is not to be argued with
        print("saving what is running; once more to leave at once", file=sys.stderr)
        workers.stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        workers.run()
    except OSError as error:
        sys.exit(f"error: {error}")
    sys.exit(conclude(study, path, runs))


def rehearsal(states: list[grid.Standing]) -> str:
    """A line for each run that a launch would do, in the order of the study."""
    todo = [s for s in states if s.state not in ("done", "given up")]
    lines = [f"{s.state:8} {s.node.digest}  {s.node}" for s in todo]
    hint = (
        "bigxfer study list says what they cost; --retry also takes what was given up"
    )
    return "\n".join([*lines, f"{len(todo)} of {len(states)} would be done; {hint}"])


def conclude(study: list[grid.Node], path: str, runs: Path) -> int:
    """Writes table and report, prints what they say and what failed; the exit status."""
    # Here, since the workers come first: these import pyarrow and plotly.
    from bigxfer.report import findings
    from bigxfer.study.commands import report, status
    from bigxfer.tables import cells, summary, table, table_args

    states = grid.states(study, runs)
    for state in states:
        if state.state == "given up":
            folder = state.node.folder(runs)
            print(f"failed: {folder}: {state.node}: {state.error}", file=sys.stderr)
    for line in status.damages(states):
        print(line, file=sys.stderr)
    done = {state.node.digest for state in states if state.state == "done"}
    name = Path(path.partition(":")[0]).stem
    collected = table.collect([runs], runs / name)
    # Of this study alone, and of it what was compared with the data of now.
    rows = [row for row in collected.rows if table.node_of(row) in done]
    digests = {node.digest for node in study}
    bad = {f: why for f, why in collected.bad.items() if Path(f).name in digests}
    for folder, why in bad.items():
        print(f"not in the table: {folder}: {why}", file=sys.stderr)
    table.save(rows, runs / name)
    predictions = cells.PredictionReader()
    for sentence in findings.of_rows(rows, predictions):
        print(f"- {sentence}")
    print(summary.text(rows, predictions))
    print(f"\nrun folders: {runs}/DIGEST; table: {runs}/{name}/table.csv")
    if any(row["kind"] == "transfer" for row in rows):
        whole = table.load(runs / name / "table.parquet")  # every column of every row
        study_table = table_args.Given(whole, runs / name / "table.parquet", path)
        report.write(study_table, runs / name / "report.html", predictions)
    for line in predictions.unreadable:
        print(f"left out of intervals: {line}", file=sys.stderr)
    unfinished = [state for state in states if state.state != "done"]
    if unfinished:
        print(f"{len(unfinished)} of {len(states)} are not done; --retry tries again")
    return 1 if unfinished or bad or predictions.unreadable else 0


if __name__ == "__main__":
    flags.DEFINE_string("config", "", "The study: a config file with a sweep().")
    flags.DEFINE_string("runs", "runs", "The folder of all run folders.")
    flags.DEFINE_integer(
        "workers", 1, "Worker processes; a GPU, or a share of the cores, each.", 1
    )
    flags.DEFINE_float("hang", 1800, "Seconds without a sign of a run that hangs.", 1)
    flags.DEFINE_bool("retry", False, "Try again what was given up.")
    flags.DEFINE_string("only", "", "The digest of one run, whose needs are done.")
    flags.DEFINE_bool("dry_run", False, "Name the runs that would be done, start none.")
    app.run(main, flags_parser=cli.parse)
