"""`--dry-run` of train and transfer: what the run would do, before anything is computed."""

from pathlib import Path

import jax

from bigxfer import config, models, tree
from bigxfer.config import dry_run
from bigxfer.data import external
from bigxfer.presets import net_name
from bigxfer.protocols import optim
from bigxfer.runs import finished
from bigxfer.training import writers


def show(run: config.Run, folder: Path) -> None:
    """Print the run's data, steps, net and folder; train nothing, write no run folder.

    Reads the data as the run would: images that no cache holds are decoded, and stay
    decoded. Raises what the run would raise for its config and its data.
    """
    # No RunLog is made here, which checks this in a real run.
    writers.check(run.log.writers)
    data = external.open(run.data, run.seed, print)
    counts = ", ".join(f"{len(rows):,} {name}" for name, rows in data.rows.items())
    print(f"data     {data.manifest.name}: {counts} images")
    print(f"classes  {', '.join(data.manifest.classes)}")
    if run.init.kind == "features":
        print(f"net      none: the features of {run.init.features}")
    else:
        model = models.build(run.model, len(data.manifest.classes))
        shape = (1, run.data.crop, run.data.crop, 3)
        # Shapes are enough to count, and no weights are drawn.
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), shape))
        size = tree.count(variables["params"])
        print(
            f"net      {net_name(vars(run.model))}, {size:,} parameters, {shape[1]} px"
        )
    start = run.init.kind
    if start == "pretrained":
        start += f" from {run.init.checkpoint or run.init.upstream}"
    print(f"start    {start}; head {run.freeze.head}")
    plan = optim.plan(run.optim, len(data.rows["train"]))
    print(f"steps    {plan}")
    print(f"folder   {folder}, {state(folder)}; digest {config.digest(run)}")
    dry_run.end(folder)


def state(folder: Path) -> str:
    """What lies in the folder of a run, in words."""
    if not (folder / "config.json").exists():
        return "not begun"
    try:
        return f"finished: {finished.read(folder).line}"
    except ValueError as error:
        return f"begun ({error})"
