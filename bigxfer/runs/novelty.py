"""Whether images are unlike what a run was trained on, kept in its folder once known."""

from collections.abc import Callable

import numpy as np

from bigxfer import tree
from bigxfer.data.images import unlabelled
from bigxfer.protocols import probe
from bigxfer.runs import finished
from bigxfer.runs.finished import PARAMETERS, Trained, WithData
from bigxfer.statistics import novelty
from bigxfer.training import sharding
from bigxfer.training.predictor import make_predict

FILE = "novelty.npz"
MOST = 2000  # images of a split: each costs a forward pass


def of_run(run: Trained, root: str, say: Callable[[str], None]) -> novelty.Known:
    """Read FILE of the run folder, or compute it from the run's data and write it.

    root: where the data lie now; "" is where they lay. Raises ValueError, OSError or
    ImportError, which say why it cannot be known: no data, too few images.
    """
    path, names = run.folder / FILE, novelty.Known.__dataclass_fields__
    # The sum of params.npz: a run that was done again has other features.
    parameters = run.result.get("files", {}).get(PARAMETERS, "")
    if path.is_file():
        kept = tree.load_npz(path)
        if (
            parameters == str(kept.pop("parameters", ""))
            and kept.keys() == names.keys()
        ):
            values = {n: v if v.ndim else v.item() for n, v in kept.items()}
            return novelty.Known(**values)
    known = compute(finished.with_data(run.folder, root, say), say)
    # predict must work on a shared folder that it may not write to.
    try:
        tree.save_npz(path, {**vars(known), "parameters": np.asarray(parameters)})
    except OSError as error:
        say(f"{path} cannot be written and is computed anew each time: {error}")
    return known


def compute(run: WithData, say: Callable[[str], None]) -> novelty.Known:
    """Fit the features of at most MOST training and validation images of the run."""
    rng = np.random.default_rng(0)
    rows = {
        # At random, since files of one kind lie together; sorted to read forwards.
        split: np.sort(rng.permutation(run.data.rows[split])[:MOST])
        for split in ("train", "valid")
    }
    # Before the forward passes, which take the time.
    novelty.check(*(len(chosen) for chosen in rows.values()))
    counts = " and ".join(f"{len(chosen)} {split}" for split, chosen in rows.items())
    say(f"once for this run: the features of {counts} images, kept in {FILE}")
    batch = run.run.eval.batch
    mesh = sharding.make(1, batch)
    features = make_predict(probe.Headless(run.model), run.run, mesh)
    training, validation = (
        features(run.variables, unlabelled(run.data.images, chosen, batch))[1]
        for chosen in rows.values()
    )
    return novelty.fit(training, validation, run.data.manifest.patient[rows["valid"]])
