"""Transfers an upstream model to a target data set (BiT-HyperRule by default).

  python -m bigxfer.transfer --config configs/covidx_hyperrule.py
  python -m bigxfer.transfer --config configs/covidx_hyperrule.py:model=R26x0.5,res=64 \\
      --config.data.root=FOLDER --config.init.checkpoint=RUN_OR_NPZ \\
      --config.data.shots=5 --config.seed=1

Parameters start from --config.init.checkpoint, a run folder or an npz (BiT's or
timm's), with a new zero head; without it from the finished run of the config's own
upstream under runs/. --config.init.kind=random trains from scratch. A features file of
any other encoder stands in for an upstream (docs/encoders.md):

  ... --config.init.features=FILE --config.freeze.head=ridge

--dry-run says what a run would do: its data, steps, net, start and folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from bigxfer import cli, config, presets
from bigxfer.runs import finished

if TYPE_CHECKING:
    from bigxfer.training import stopping


def main(run: config.Run, given: set[str], workdir: str, dry: bool = False) -> None:
    """Finds where the parameters come from, then runs the transfer; not if `dry`."""
    cli.check_kind(run, "transfer")
    synthetic = not run.data.root
    if synthetic:
        print(cli.BANNER)
        run = run if "phantom" in given else presets.standin(run, given)
    run = config.resolve(run)

    # these import jax: --help should not wait for it
    from bigxfer import models
    from bigxfer.protocols import features
    from bigxfer.runs import job, rehearsal, terminal
    from bigxfer.training import processes, stopping

    models.maker(run.model)  # an unknown one should not wait for its upstream
    processes.join_by_environment()
    # From here on, since the upstream may be trained first and can be stopped too.
    with stopping.listen() as stop:
        if run.init.kind == "pretrained":
            run.init.checkpoint, run.init.digest = upstream(run, synthetic, stop, dry)
        # Before the folder is named: what the files hold is part of the digest.
        features.name_files(run)
        folder = Path(workdir or f"runs/{config.digest(run)}")
        if dry:
            rehearsal.show(run, folder)
            return
        result = job.execute(run, folder, stop)
    if processes.first():
        terminal.show(result, folder)


def upstream(
    run: config.Run, synthetic: bool, stop: "stopping.Stop", dry: bool = False
) -> tuple[str, str]:
    """(npz of the upstream's parameters, its digest); trains a phantom upstream.

    The file is "" where the upstream has yet to be trained and `dry` forbids that.
    """
    from bigxfer.runs import job

    if run.init.checkpoint:
        return finished.parameters(Path(run.init.checkpoint))
    if not (name := run.init.upstream):
        raise ValueError(
            "this config has no upstream of its own: name parameters with"
            " --config.init.checkpoint=RUN_OR_NPZ (its head says where to get them)"
        )
    source = presets.load(name)
    if synthetic:
        source = presets.standin(source, presets.arg_keys(run.arg) & {"model", "res"})
    source = config.resolve(source)
    folder = Path("runs") / config.digest(source)
    try:
        finished.read(folder)
    except (ValueError, OSError) as error:
        # On real data an upstream can take days: it is never trained unasked.
        if not synthetic:
            raise ValueError(
                f"no finished upstream run at {folder} ({error}). Make it with\n  python -m"
                f" bigxfer.train --config {name} --config.data.root=FOLDER\nor name"
                " parameters with --config.init.checkpoint=RUN_OR_NPZ, or train from"
                " scratch with --config.init.kind=random"
            )
        if dry:
            print(
                f"the upstream {name} would be trained on the phantom first: {folder}"
            )
            return "", config.digest(source)
        print(f"training the upstream {name} on the phantom first, in {folder}")
        job.execute(source, folder, stop)
    return finished.parameters(folder)


if __name__ == "__main__":
    cli.run(main)
