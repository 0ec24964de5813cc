"""card.md of a run folder: what the net is, what it was judged on, what it is not for.

  python -m bigxfer.runs.card DIR [DIR ...]     # again, or for runs from before there were cards

Every run writes it before its result.json. It needs config.json, the result and the
saved predictions, neither the data nor the parameters. After Mitchell et al. 2019, Model
Cards for Model Reporting (arXiv 1810.03993).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer import durable
from bigxfer.data import exposure
from bigxfer.runs import card_curves, card_groups, card_training, finished, folders
from bigxfer.runs.finished import Finished
from bigxfer.runs.markdown import METRICS, Lines, cell, table
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import by_source

LARGEST_EXPORT = 2**31  # bytes of parameters that `export --to stablehlo` can hold
USE = (
    "Research on transfer learning: to compare starts, protocols and amounts of data. Not"
    " for diagnosis, triage or any decision about a person. Nothing is known of other"
    " hospitals, scanners, ages or diseases than those of the test split, and labels may"
    " come from the text of reports, not from readers."
)
POINT = (
    "Thresholds on the probability as the net gives it, fixed on {on} where"
    " sensitivity + specificity is largest, judged on test. bigxfer.predict gives"
    " calibrated probabilities, for which they are others."
)


def write(folder: Path, result: dict[str, Any], drawn: bool | None = None) -> None:
    """Write folder/card.md, and card.svg; `result` is what result.json holds.

    drawn: whether with curves and the confusion matrix; None: where the net was trained.
    """
    run = Finished(folder, folders.read(folder / "config.json"), result)
    about, test = run.about, run.predictions("test")
    head = about["config"].get("freeze", {}).get("head", "trained")
    # A fitted head takes less time than its curves, and has a thousand draws.
    drawn = head == "trained" if drawn is None else drawn
    picture = card_curves.picture(run, test) if drawn else ""
    if picture:
        durable.write(folder / "card.svg", picture)
    # Validation is predicted only where its labels were allowed to choose something.
    valid = run.predictions("valid") if run.has("valid") else None
    sections = [
        card_training.head(run),
        card_training.data(about, result),
        card_training.protocol(about, result),
        results(result),
        card_curves.lines(test, bool(picture)) if drawn else [],
        card_groups.sources(test),
        card_groups.lines(result),
        card_groups.external(result),
        operating_point(result),
        shortcuts(about, result, test, valid),
        use(run),
    ]
    # A section without lines is left out.
    text = "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
    durable.write(folder / "card.md", text)


def results(result: dict) -> Lines:
    values, counts = result["metrics"], result["counts"]
    whole = [
        [title, cell(values[name])] for name, title in METRICS.items() if name in values
    ]
    by_class = [
        [name, n["positive"], n["negative"], n["unknown"]]
        + [cell(values[f"{kind}/{name}"]) for kind in ("auroc", "auprc")]
        for name, n in counts.items()
    ]
    size = f"{result['images']:,} images of {result['patients']:,} patients"
    how = "95% intervals over patients"
    heads = ["class", "positive", "negative", "unknown", "AUROC", "AUPRC"]
    lines = ["## Results on the test split", "", f"{size}; in brackets {how}.", ""]
    lines += [*table(["metric", "value"], whole), "", *table(heads, by_class)]
    return [*lines, *reasons(values)]


def reasons(values: dict[str, Any]) -> Lines:
    """Why metrics have no interval or no value: a macro mean names what it lacks."""
    told: dict[str, list[str]] = {}
    for name, title in METRICS.items():
        # Metrics that share a reason share a line: in a small set that is most of them.
        if why := values.get(name, {}).get("reason"):
            told.setdefault(why, []).append(title)
    lines = [f"- {', '.join(titles)}: {why}" for why, titles in told.items()]
    return ["", *lines] if lines else []


def operating_point(result: dict) -> Lines:
    lines = ["## Operating point", ""]
    points = result.get("operating_point")
    if not points:
        return [
            *lines,
            "None: no labels of validation or of folds of the shots were used.",
        ]
    rows = []
    for name, p in points.items():
        if p["threshold"] is None:
            rows.append([name, p["reason"], *["-"] * 6])
        else:
            values = [cell(p[k]) for k in ("sensitivity", "specificity")]
            counts = two_by_two(p, result["counts"][name])
            rows.append([name, f"{p['threshold']:.3g}", *values, *counts])
    titles = ["class", "threshold", "sensitivity", "specificity"]
    titles += ["found", "missed", "false alarms", "rightly not called"]
    folds = result.get("labels_used", {}).get("select_on") == "support"
    on = "folds of the shots, each image judged without its own," * folds
    return [*lines, POINT.format(on=on or "validation"), "", *table(titles, rows)]


def two_by_two(point: dict, counts: dict) -> list[int | str]:
    """Images found, missed, called falsely, and rightly not called, at a threshold."""
    # result.json has shares and no counts here: rounding undoes the division.
    out: list[int | str] = []
    for kind, label in (("sensitivity", "positive"), ("specificity", "negative")):
        share, n = point[kind]["value"], counts[label]
        right = 0 if share is None else round(share * n)
        out += ["-", "-"] if share is None else [right, n - right]
    found, missed, not_called, alarms = out
    return [found, missed, alarms, not_called]


def shortcuts(
    about: dict, result: dict, test: Predictions, valid: Predictions | None
) -> Lines:
    lines = ["## Known leaks and shortcuts", ""]
    for where, leak in result.get("leaks", {}).items():
        lines.append(f"- {exposure.line(where, leak)}")
    if leaks := about["data"].get("leaks"):
        lines.append(
            f"- LEAK: the {about['data']['split']['kind']} split has {leaks['patients']}"
            " patients on two sides"
        )
    for source, name, images in by_source.one_class(vars(test)):
        lines.append(f"- All {images} test images of {source} are {name}")
    # If the origin of an image alone predicts as well as the net, the net may have
    # learned nothing else.
    for column, name in (("sources", "source"), ("views", "view")):
        # With one source, or one view, there is nothing to guess by.
        if valid is None or len(np.unique(getattr(test, column))) < 2:
            continue
        by_column, of_net = (
            by_source.guessed(column, vars(test), vars(valid)),
            result["metrics"],
        )
        if by_column["value"] is not None:
            lines.append(
                f"- Knowing nothing but the {name}, and the classes by {name} on"
                f" validation, has a macro AUROC of {cell(by_column)}; the net has"
                f" {cell(of_net['auroc_macro'])}"
            )
    lines.append(
        "- Not looked at here: near-duplicates, the rim of the image, its size;"
        " `python -m bigxfer.audit` does"
    )
    return lines


def use(run: Finished) -> Lines:
    about = run.about
    return [
        "## Intended use",
        "",
        USE,
        "",
        *commands(run),
        "",
        f"Run {about['digest']}, commit {about['commit']}, "
        + ", ".join(f"{name} {v}" for name, v in about["versions"].items()),
    ]


def commands(run: Finished) -> Lines:
    """What can be done with the run as it is; DIR is the folder of the card."""
    if not run.keeps:
        # config/checks.py refuses config.keep for both: neither has a net's parameters.
        if run.about.get("features") or run.run.freeze.head == "knn":
            return ["There are no parameters of a net to predict with or to export."]
        text = (
            "No parameters were kept: nothing can be predicted or exported. To have them,"
            " remove result.json and give the run's command again with"
            " --config.keep=all."
        )
        return [text]
    lines = ["    python -m bigxfer.predict --run DIR --images FOLDER --out FILE.csv"]
    # Parameters are saved as float32.
    size = 4 * run.result["cost"]["parameters"]
    if size < LARGEST_EXPORT:
        lines.append("    python -m bigxfer.export --run DIR --to stablehlo --out FILE")
    # timm has names for BiT's layers only.
    elif run.about["config"]["model"]["name"] == "bit":
        lines.append(
            "    python -m bigxfer.export --run DIR --to timm --out FILE.safetensors"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.runs.card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", type=Path, nargs="+", help="finished runs")
    for folder in parser.parse_args().folders:
        try:
            # Whoever asks for the card by hand gets the curves of a fitted head too.
            write(folder, finished.read(folder).result, drawn=True)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
        print(folder / "card.md")


if __name__ == "__main__":
    main()
