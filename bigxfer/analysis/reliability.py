"""What `analyze --what calibration` and `--what dropout` write: reliability,
temperature, referral."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer.analysis import ensembles, features, plots
from bigxfer.runs import finished, predictions
from bigxfer.runs.finished import WithData
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import calibration

PASSES = 20  # with dropout on


def write(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Judge the first run, and the ensemble where there are more; write calibration_*.*.

    The temperature of each is fitted on its own predictions of validation or of folds;
    ValueError where a run has none. Where none fits, "temperature" says why.
    """
    tests, valids = [], []
    runs = [finished.read(folder) for folder in folders]
    for run in runs:
        if not (split := run.calibrates):
            raise ValueError(
                f"{run.folder} has predictions of neither validation nor folds, by which a"
                " temperature is fitted. Run it with --config.data.valid above 0, or with"
                " --config.eval.select_on=support."
            )
        tests.append(run.predictions("test"))
        valids.append(run.predictions(split))
    test, valid = tests[0], valids[0]
    sets = {"run": (test.logits, valid.logits)}
    if len(folders) > 1:
        raw = ensembles.ensemble(test.labels, ensembles.aligned(tests))
        # Its own temperature: a mean of probabilities is less sure than its members.
        held = ensembles.ensemble(valid.labels, ensembles.aligned(valids))
        sets[f"ensemble of {len(folders)}"] = raw, held
    about = folders[0].name
    return judge(test, valid.labels, sets, about, out, runs[0].synthetic, "calibration")


def dropout(run: WithData, out: Path, passes: int = PASSES) -> dict[str, Any]:
    """Judge MC-dropout beside one pass without dropout; write dropout_*.*.

    ValueError where the net has no dropout, or the run no validation images.
    """
    manifests, once, many, plain = {}, {}, {}, features.predictor(run)
    for split in ("test", "valid"):
        rows = np.sort(run.data.rows[split])
        if not len(rows):
            raise ValueError(f"{run.folder}: the split {split!r} has no images")
        manifests[split] = manifest = run.data.manifest.select(rows)
        pixels, crop = np.asarray(run.data.images[rows]), run.run.data.crop
        net = run.model, run.variables, pixels, crop
        drawn = ensembles.mc_dropout(*net, passes)
        many[split] = ensembles.ensemble(manifest.labels, drawn)
        once[split] = plain(run.variables, rows)
    names = {"one pass": once, f"{passes} passes with dropout": many}
    sets = {name: (of["test"], of["valid"]) for name, of in names.items()}
    test, labels = manifests["test"], manifests["valid"].labels
    predicted = predictions.of(test, once["test"])
    return judge(
        predicted, labels, sets, run.folder.name, out, test.synthetic, "dropout"
    )


def judge(
    test: Predictions,
    valid_labels: np.ndarray,
    sets: dict[str, tuple[np.ndarray, np.ndarray]],
    about: str,
    out: Path,
    synthetic: bool,
    kind: str,
) -> dict[str, Any]:
    """{name: metrics} of sets of logits (test, valid), before and after a temperature
    fitted on validation; writes KIND_reliability.* and KIND_referral.*."""
    summaries: dict[str, Any] = {}
    logits: dict[str, np.ndarray] = {}
    for name, (raw, held) in sets.items():
        logits[name] = raw
        summaries[name] = ensembles.judged(test.labels, raw, test.patients)
        try:
            t = calibration.temperature(valid_labels, held)
        except ValueError as error:
            summaries[name]["temperature"] = f"none: {error}"
            # The others of `sets` are judged all the same.
            continue
        summaries[name]["temperature"] = t
        scaled = f"{name}, T = {t:.2f}"
        logits[scaled] = raw / t
        summaries[scaled] = ensembles.judged(test.labels, raw / t, test.patients)
    args = test, logits, about, out, synthetic, kind
    save_reliability(*args)
    summaries["referral"] = save_referral(*args)
    return summaries


def save_reliability(
    test: Predictions,
    logits: dict[str, np.ndarray],
    about: str,
    out: Path,
    synthetic: bool,
    kind: str,
) -> None:
    """One panel for each set of logits; multi-label classes are pooled in it."""
    figure, axes = plots.figure(3.4 * len(logits), 3.9, 1, len(logits))
    rows = []
    for ax, (name, values) in zip(axes.flat, logits.items(), strict=True):
        p = calibration.probabilities(test.labels, values)
        pairs = list(calibration.events(test.labels, p))
        confidence, hit = (np.concatenate(side) for side in zip(*pairs, strict=True))
        for way, binned in (
            ("equal width", calibration.binned),
            ("equal counts", calibration.equal_counts),
        ):
            table = binned(confidence, hit)
            rows += [{"of": name, "bins": way, **row} for row in table]
            if way == "equal width":
                error = calibration.ece(test.labels, p)
                plots.reliability(ax, table, f"{name}\nECE {error:.3f}")
    single = test.labels.ndim == 1
    axes[0, 0].set_ylabel("accuracy" if single else "frequency of the finding")
    figure.suptitle(f"Reliability on test: {about}")
    plots.save(figure, out, f"{kind}_reliability", rows, synthetic)


def save_referral(
    test: Predictions,
    logits: dict[str, np.ndarray],
    about: str,
    out: Path,
    synthetic: bool,
    kind: str,
) -> dict[str, Any]:
    """Accuracy over coverage; the summary is the accuracy at half coverage."""
    figure, axes = plots.figure(6.5, 4.5)
    ax, rows, half = axes[0, 0], [], {}
    raw = {name: x for name, x in logits.items() if ", T = " not in name}
    for k, (name, values) in enumerate(raw.items()):
        p = calibration.probabilities(test.labels, values)
        unsure = ensembles.uncertainty(test.labels, values)
        curve = ensembles.referral(test.labels, p, test.patients, unsure)
        x, y, low, high = (
            [row[key] for row in curve]
            for key in ("coverage", "accuracy", "low", "high")
        )
        ax.plot(x, y, color=plots.COLOURS[k], marker=plots.MARKS[k], label=name)
        ax.fill_between(x, low, high, color=plots.COLOURS[k], alpha=0.15, linewidth=0)
        rows += [{"of": name, **row} for row in curve]
        at = min(curve, key=lambda row: abs(row["coverage"] - 0.5))
        half[f"{name}, half kept"] = {
            "value": at["accuracy"],
            "low": at["low"],
            "high": at["high"],
        }
    ax.axhline(rows[0]["chance"], color="#999999", linestyle=":")
    ax.set(xlabel="share of the images that is kept, the surest", ylabel="accuracy")
    ax.legend(fontsize=8)
    figure.suptitle(f"Referral on test: {about} (95% over patients)")
    plots.save(figure, out, f"{kind}_referral", rows, synthetic)
    return half
