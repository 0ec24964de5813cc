"""A finished run's folder without its training, for the tests of what uses one."""

import dataclasses
import functools
import json

import jax
import numpy as np

from bigxfer import config, durable, models, presets, tree
from bigxfer.runs import folders
from bigxfer.statistics import metrics, operating_point

CLASSES = ("covid19", "normal", "pneumonia")


def seal(folder):
    """Gives a folder the sums that job.execute writes; without them it is of format 1."""
    about, result = (
        {k: v for k, v in durable.read_json(folder / name).items() if k != durable.SEAL}
        for name in ("config.json", "result.json")
    )
    folders.write(folder / "config.json", about)
    folders.write(folder / "result.json", result | {"files": folders.sums(folder)})
    return folder


def make_run(
    folder, model="R1-1x0.25", multilabel=False, synthetic=True, seed=0, **fields
):
    """Random parameters with a head that is not zero, 120 + 60 predictions."""
    run = config.Run(kind="transfer", seed=seed)
    run.model = presets.bit(model) if model[0] == "R" else config.Model(name=model)
    run.data.reader = "csv"
    presets.set_res(run.data, 32)
    for name, value in fields.items():
        section, field = name.split("__")
        setattr(getattr(run, section), field, value)
    run = config.from_dict(config.to_dict(run))
    variables = initial(dataclasses.astuple(run.model), run.data.crop)
    rng = np.random.default_rng(0)
    flat = tree.flatten(variables["params"])
    for name, leaf in flat.items():
        if name.startswith("head/"):
            flat[name] = rng.normal(size=leaf.shape).astype(np.float32)
    stats = variables.get("batch_stats", {})
    folder.mkdir(parents=True)
    params = {**tree.unflatten(flat), "batch_stats": stats}
    tree.save_npz(folder / "params.npz", params)
    digest = config.digest(run)
    about = {
        "digest": digest,
        "config": config.to_dict(run),
        "commit": "0" * 40,
        "manifest_hash": "f" * 64,
        "classes": CLASSES,
        "synthetic": synthetic,
        "plan": {"steps": 10, "lr": 0.1, "schedule": "cosine"},
        "data": {
            "counts": {"train": 100, "valid": 60, "test": 120},
            "labels": "made up",
        },
        "versions": {"jax": jax.__version__},
        "device": "cpu",
        "devices": 1,
    }
    (folder / "config.json").write_text(json.dumps(about))
    valid, test = (predictions(rng, n, multilabel) for n in (60, 120))
    tree.save_npz(folder / "predictions_valid.npz", valid)
    tree.save_npz(folder / "predictions.npz", test)
    result = result_of(valid, test, synthetic, digest)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@functools.lru_cache(4)
def initial(model, crop):
    """The first variables of a net; many tests begin with a run of the same one."""
    net = models.build(config.Model(*model), len(CLASSES))
    variables = net.init(jax.random.key(0), (1, crop, crop, 3))
    return jax.tree.map(np.asarray, variables)


def predicted(folder, labels, logits, classes, ids=None, patients=None):
    """A finished run's folder with these predictions, and next to nothing beside them."""
    ids = np.arange(len(labels)).astype(str) if ids is None else np.asarray(ids)
    columns = dict.fromkeys(("ids", "patients", "sources", "views"), ids)
    columns["patients"] = ids if patients is None else np.asarray(patients)
    saved = {"labels": labels, "logits": logits, "classes": np.array(classes)}
    folder.mkdir(parents=True)
    for name in ("predictions.npz", "predictions_valid.npz"):
        tree.save_npz(folder / name, columns | saved)
    for name in ("config.json", "result.json"):
        about = {"digest": folder.name, "synthetic": False}
        (folder / name).write_text(json.dumps(about))


def result_of(valid, test, synthetic, digest):
    """What job.execute puts into result.json."""
    of_valid, of_test = ([d["labels"], d["logits"]] for d in (valid, test))
    patients = test["patients"]
    point = operating_point.judge(*of_valid, *of_test, CLASSES, patients)
    nothing = {"patients": 0, "exact": 0}
    seen = {**nothing, "test": nothing, "checked": True, "first": [], "why": ""}
    return {
        **metrics.compute(*of_test, CLASSES, patients),
        "operating_point": point,
        "cost": {
            "steps": 10,
            "images": 1000,
            "flops": 1e9,
            "device_seconds": 1.0,
            "parameters": 12345,
        },
        "leaks": {"splits": seen},
        "synthetic": synthetic,
        "digest": digest,
        "commit": "0" * 40,
    }


def predictions(rng, n, multilabel):
    """Overconfident logits of two sources, the second of which has no normal image."""
    k = len(CLASSES)
    source = np.array(["a", "b"])[np.arange(n) % 2]
    label = np.where(
        source == "b", 2 * rng.integers(2, size=n), rng.integers(k, size=n)
    )
    one_hot = np.eye(k)[label]
    logits = 6 * (one_hot + rng.normal(size=(n, k)))
    labels = np.where(rng.random((n, k)) < 0.1, np.nan, one_hot).astype(np.float32)
    return {
        "ids": np.array([f"image{i}" for i in range(n)]),
        "patients": np.array([f"p{i // 2}" for i in range(n)]),
        "sources": source,
        "views": np.array(["PA"] * n),
        "labels": labels if multilabel else label.astype(np.int32),
        "logits": logits.astype(np.float32),
        "classes": np.array(CLASSES),
    }
