"""Runs a study on this machine, in one process that shares compiled programs.

  python -m launch.local --config configs/study_demo.py

Runs that are done are not done again: after a kill, give the command once more. A run
that fails is reported at the end, with those that needed it; the others go on.
"""

import logging
import sys
import time
import traceback
from pathlib import Path

from absl import app, flags

from bigxfer import cli
from bigxfer.study import grid


def main(argv: list[str]) -> None:
    import jax

    from bigxfer import job
    from bigxfer.study import summary, table

    if argv[1:] or not flags.FLAGS.config:
        raise app.UsageError("--config FILE is missing; see configs/study_*.py")
    for name in ("absl", "bigxfer", "jax"):  # a line a run is enough
        logging.getLogger(name).setLevel(logging.WARNING)
    runs = Path(flags.FLAGS.runs)
    jax.config.update("jax_compilation_cache_dir", str(runs.parent / "cache" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    study, failed = grid.nodes(flags.FLAGS.config), {}
    began = time.monotonic()
    for number, node in enumerate(study, 1):
        if node.done(runs):
            continue
        if node.needs in failed:
            failed[node.digest] = f"its upstream {node.needs} failed"
            continue
        if node.needs:
            node.run.init.checkpoint = str(runs / node.needs / "params.npz")
        try:
            job.execute(node.run, node.folder(runs))
        except (Exception, SystemExit) as error:  # noqa: BLE001 the others go on
            failed[node.digest] = f"{type(error).__name__}: {error}"
            (node.folder(runs) / "error.txt").write_text(traceback.format_exc())
        jax.clear_caches()
        print(
            f"[{number}/{len(study)}] {time.monotonic() - began:5.0f} s  {node.digest}"
            f"  {describe(node)}  {failed.get(node.digest, '')}",
            flush=True,
        )
    for digest, why in failed.items():
        print(f"failed: {runs / digest}: {why}", file=sys.stderr)
    digests = {node.digest for node in study}
    rows = [r for r in table.collect([runs], runs).rows if r["digest"] in digests]
    name = Path(flags.FLAGS.config.partition(":")[0]).stem
    table.save(rows, runs / name)
    print(summary.text(rows))
    print(f"\nrun folders: {runs}/DIGEST; table: {runs}/{name}/table.csv")
    sys.exit(1 if failed else 0)


def describe(node: grid.Node) -> str:
    run = node.run
    if run.kind == "upstream":
        return f"upstream {run.data.reader}"
    return f"{run.data.reader} {run.init.kind} {run.data.shots}-shot draw {run.seed}"


if __name__ == "__main__":
    flags.DEFINE_string("config", "", "The study: a config file with a sweep().")
    flags.DEFINE_string("runs", "runs", "The folder of all run folders.")
    cli.set_xla_flags()
    app.run(main)
