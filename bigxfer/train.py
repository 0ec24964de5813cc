"""Pre-trains an upstream model: one config file in, one run folder out.

  python -m bigxfer.train --config configs/upstream_chexpert.py
  python -m bigxfer.train --config configs/upstream_nih.py:model=R26x0.5,res=64 \\
      --config.data.root=FOLDER --config.optim.lr=0.01 --workdir DIR

It starts at random, or from another run: --config.init.kind=pretrained with
--config.init.checkpoint=RUN_OR_NPZ, after natural images, or to scale its own weights.

Without --config.data.root it runs on synthetic drawings (the phantom), small.
The run folder holds config.json, metrics.jsonl, params.npz, predictions.npz and,
last, result.json. The same command again resumes a run that was killed. --dry-run says
what a run would do.
"""

from pathlib import Path

from bigxfer import cli, config, presets
from bigxfer.runs import finished


def main(run: config.Run, given: set[str], workdir: str, dry: bool = False) -> None:
    """Resolves the config, then runs it; `dry` only says what it would do."""
    cli.check_kind(run, "upstream")
    if not run.data.root:
        print(cli.BANNER)
        run = run if "phantom" in given else presets.standin(run, given)
    run = config.resolve(run)

    from bigxfer.runs import job, rehearsal, terminal  # not for --help: they import jax
    from bigxfer.training import processes, stopping

    if run.init.kind == "pretrained":
        if not run.init.checkpoint:
            raise ValueError("name what to start from: --config.init.checkpoint=RUN")
        parameters = finished.parameters(Path(run.init.checkpoint))
        run.init.checkpoint, run.init.digest = parameters
    folder = Path(workdir or f"runs/{config.digest(run)}")
    if dry:
        rehearsal.show(run, folder)
        return
    # After a rehearsal has left, which needs one process only.
    processes.join_by_environment()
    with stopping.listen() as stop:
        result = job.execute(run, folder, stop)
    if processes.first():
        terminal.show(result, folder)


if __name__ == "__main__":
    cli.run(main)
