"""What `analyze --what calibration` writes: reliability, temperature, referral."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer.analysis import calibration, plots
from bigxfer.analysis.calibration import Predictions


def report(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Of the first run, and of the ensemble where there are more; calibration_*.*.

    The temperature of each is fitted on its own validation predictions; ValueError
    where a run has none. Where none fits, "temperature" says why.
    """
    tests, valids = [], []
    for folder in folders:
        if not (folder / "predictions_valid.npz").is_file():
            raise ValueError(
                f"{folder} has no predictions_valid.npz: a temperature is fitted on"
                " validation only. Run it with --config.data.valid above 0."
            )
        tests.append(calibration.read(folder / "predictions.npz"))
        valids.append(calibration.read(folder / "predictions_valid.npz"))
    synthetic = json.loads((folders[0] / "result.json").read_text())["synthetic"]
    test, valid = tests[0], valids[0]
    found: dict[str, Any] = {}
    logits: dict[str, np.ndarray] = {}
    sets = {"run": (test.logits, valid.logits)}
    if len(folders) > 1:
        raw = calibration.ensemble(test.labels, calibration.aligned(tests))
        held = calibration.ensemble(valid.labels, calibration.aligned(valids))
        sets[f"ensemble of {len(folders)}"] = raw, held
    for name, (raw, held) in sets.items():
        logits[name] = raw
        found[name] = calibration.judged(test.labels, raw, test.patients)
        try:
            t = calibration.temperature(valid.labels, held)
        except ValueError as error:
            found[name]["temperature"] = f"none: {error}"
            continue
        found[name]["temperature"] = t
        scaled = f"{name}, T = {t:.2f}"
        logits[scaled] = raw / t
        found[scaled] = calibration.judged(test.labels, raw / t, test.patients)
    save_reliability(test, logits, folders[0].name, out, synthetic)
    found["referral"] = save_referral(test, logits, folders[0].name, out, synthetic)
    return found


def save_reliability(
    test: Predictions,
    logits: dict[str, np.ndarray],
    about: str,
    out: Path,
    synthetic: bool,
) -> None:
    """One panel for each set of logits; multi-label classes are pooled in it."""
    made, axes = plots.figure(3.4 * len(logits), 3.9, 1, len(logits))
    rows = []
    for ax, (name, values) in zip(axes.flat, logits.items(), strict=True):
        p = calibration.probabilities(test.labels, values)
        pairs = list(calibration.events(test.labels, p))
        confidence, hit = (np.concatenate(side) for side in zip(*pairs, strict=True))
        for kind, binned in (
            ("equal width", calibration.binned),
            ("equal counts", calibration.equal_counts),
        ):
            table = binned(confidence, hit)
            rows += [{"of": name, "bins": kind, **row} for row in table]
            if kind == "equal width":
                error = calibration.ece(test.labels, p)
                plots.reliability(ax, table, f"{name}\nECE {error:.3f}")
    single = test.labels.ndim == 1
    axes[0, 0].set_ylabel("accuracy" if single else "frequency of the finding")
    made.suptitle(f"Reliability on test: {about}")
    plots.save(made, out, "calibration_reliability", rows, synthetic)


def save_referral(
    test: Predictions,
    logits: dict[str, np.ndarray],
    about: str,
    out: Path,
    synthetic: bool,
) -> dict[str, Any]:
    """Accuracy over coverage; the summary is the accuracy at half coverage."""
    made, axes = plots.figure(6.5, 4.5)
    ax, rows, half = axes[0, 0], [], {}
    raw = {name: x for name, x in logits.items() if ", T = " not in name}
    for k, (name, values) in enumerate(raw.items()):
        p = calibration.probabilities(test.labels, values)
        unsure = calibration.uncertainty(test.labels, p)
        curve = calibration.referral(test.labels, p, test.patients, unsure)
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
    made.suptitle(f"Referral on test: {about} (95% over patients)")
    plots.save(made, out, "calibration_referral", rows, synthetic)
    return half
