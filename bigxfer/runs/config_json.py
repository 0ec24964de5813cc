"""What config.json of a run folder holds."""

import os

import jax
import numpy as np

from bigxfer import config
from bigxfer.config import Run
from bigxfer.data import dataset, fewshot
from bigxfer.data.dataset import Dataset
from bigxfer.protocols import features, hyperrule, optim
from bigxfer.runs import folders


def of(
    run: Run,
    digest: str,
    plan: optim.Plan,
    data: Dataset,
    encoder: features.Features | None = None,
) -> dict:
    """Return what config.json holds of a run that is about to begin.

    encoder: the features file that stands in place of a net, if there is one.
    """
    about, d = dict(data.report), run.data
    if run.optim.schedule == "hyperrule":
        area = dataset.image_area(data.manifest, data.rows["train"])
        # The paper's rule gives R152x4 larger images than any other net.
        big = (run.model.blocks, run.model.width) == (config.DEPTHS[152], 4.0)
        about["resolution"] = hyperrule.branch(
            area, d.resize, d.crop, run.optim.variant, big
        )
    if run.data.shots != "full":  # what is above the shots is overshoot
        drawn = data.manifest.select(data.rows["train"])
        about["positives"] = fewshot.counts(drawn, np.arange(len(drawn)))
    return {
        "digest": digest,
        "config": config.to_dict(run),
        "commit": folders.commit(),
        "manifest_hash": data.manifest.hash(),
        "identity": data.identity,
        "classes": data.manifest.classes,
        "synthetic": data.manifest.synthetic,
        "plan": vars(plan),
        **({"features": encoder.about()} if encoder else {}),
        "data": about,
        "versions": folders.versions(),
        # Only the same flags give the same bits again (docs/run_folder.md).
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
    }
