"""card.md of a run folder: what the net is, what it was judged on, what it is not for.

  python -m bigxfer.runs.card DIR [DIR ...]     # again, or for runs from before there were cards

Every run writes it before its result.json. It needs config.json, the result and the
saved predictions, neither the data nor the parameters. After Mitchell et al. 2019, Model
Cards for Model Reporting (arXiv 1810.03993).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer import config, durable, presets
from bigxfer.data import exposure
from bigxfer.runs import card_groups, finished, folders
from bigxfer.runs.finished import Finished
from bigxfer.runs.markdown import Lines, cell, table
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import by_source

SOURCES = 5  # columns of the table by source: the largest
WHOLE = {  # metric -> how the card calls it
    "auroc_macro": "macro AUROC",
    "auprc_macro": "macro AUPRC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
    "ece": "ECE",
    "loss": "loss",
}
TOLD = ("external", "counts", "split", "undecodable", "drawn", "positives", "leaks")
NOTES = {
    "uncertain": "uncertain labels",
    "blank": "blank labels",
    "labels": "label policy",
}
LARGEST_EXPORT = 2**31  # bytes of parameters that `export --to stablehlo` can hold

LONG = 160  # characters of a note

SYNTHETIC = (
    "**SYNTHETIC DATA: drawings, not patients. The numbers below say nothing of real"
    " images.**"
)
NO_DEVICE = (
    "**Research software, no diagnostic device. Not for decisions about patients.**"
)
USE = (
    "Research on transfer learning: to compare starts, protocols and amounts of data. Not"
    " for diagnosis, triage or any decision about a person. Nothing is known of other"
    " hospitals, scanners, ages or diseases than those of the test split, and labels may"
    " come from the text of reports, not from readers."
)
POINT = (
    "Thresholds on the probability as the net gives it, fixed on validation where"
    " sensitivity + specificity is largest, judged on test. bigxfer.predict gives"
    " calibrated probabilities, for which they are others."
)


def write(folder: Path, result: dict[str, Any]) -> None:
    """Write folder/card.md; `result` is what result.json holds."""
    run = Finished(folder, folders.read(folder / "config.json"), result)
    about, test = run.about, run.predictions("test")
    valid = run.predictions("valid") if run.has("valid") else None
    sections = [
        head(run),
        data(about, result),
        protocol(about, result),
        results(result),
        source_lines(test),
        card_groups.lines(result),
        card_groups.external(result),
        operating_point(result),
        shortcuts(about, result, test, valid),
        use(run),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
    durable.write(folder / "card.md", text)


def head(of_run: Finished) -> Lines:
    about, result, classes = of_run.about, of_run.result, of_run.classes
    run = about["config"]
    d, m = run["data"], run["model"]
    bit = m["name"] == "bit"
    name = ("BiT ResNet " if bit else "") + presets.net_name(m)
    net = f"{name}, {'-'.join(map(str, m['blocks']))} units" if bit else name
    if encoder := about.get("features"):
        name = encoder["name"]
        net = f"{name}, not ours: {encoder['dimensions']} features an image"
    kind = "findings, a sigmoid each" if of_run.multilabel else "one class an image"
    lines = [f"# {d['reader']}, {name}, run {about['digest']}", ""]
    if about["synthetic"]:
        lines += [SYNTHETIC, ""]
    side, colour = d["crop"], "gray" if d["channels"] == 1 else "colour"
    return [
        *lines,
        NO_DEVICE,
        "",
        f"- Net: {net}; {result['cost']['parameters']:,} parameters",
        f"- Input: {side} x {side} pixels, a square of {d['resize']} before; {colour}",
        f"- Output: {len(classes)} classes ({kind}): {', '.join(classes)}",
        f"- Start: {origin(run['init'], about.get('features'))}",
        f"- Trained: {trained(run)}",
    ]


def origin(init: dict, encoder: dict | None) -> str:
    if encoder:
        size = encoder["upstream_size"]
        seen = f"{size:,} images" if size is not None else "an unknown number of images"
        where = f"{seen} of {encoder['domain'] or 'an unknown domain'}"
        return f"features of {encoder['name']}, trained on {where} ({init['digest']})"
    if init["kind"] != "pretrained":
        return init["kind"]
    return f"pretrained, from the upstream {init['digest']} ({config.taken(init)})"


def trained(run: dict) -> str:
    freeze = run.get("freeze", {})
    if freeze.get("head", "trained") != "trained":
        return f"the head alone, {freeze['head']} on features of the fixed net"
    shares = [
        f"{k} {freeze[k]:g}" for k in ("bottom", "top", "top_layers") if freeze.get(k)
    ]
    return f"in part: config.freeze {', '.join(shares)}" if shares else "all layers"


def data(about: dict, result: dict) -> Lines:
    run, found = about["config"], about["data"]
    d = run["data"]
    lines = ["## Data", "", f"- Set: {d['reader']} {d['version']}".rstrip()]
    lines += [
        f"- {NOTES.get(name, name.replace('_', ' '))}: {short(value)}"
        for name, value in found.items()
        if name not in TOLD and value not in ({}, [], "", 0)
    ]
    if d["shots"] != "full":
        drawn = f"{len(found.get('drawn', []))} training images, drawn with"
        lines.append(f"- Shots: {d['shots']} a class, {drawn} seed {run['seed']}")
    if used := result.get("labels_used"):
        lines.append(
            f"- Labels used: of {used['training']} images to train, of"
            f" {used['selection']} more to choose; chosen on: {used['select_on']}"
        )
    if bad := len(found.get("undecodable", [])):
        lines.append(f"- Images that could not be decoded, left out: {bad}")
    split, hash_ = found.get("split", {}), about["manifest_hash"][:16]
    lines.append(f"- Split: {split.get('kind', d['split'])}; manifest {hash_}")
    rows = []
    for name, images in found["counts"].items():
        of = split.get(name, {})  # before the draw and what could not be decoded
        rows.append(
            [name, images, of["patients"] if of.get("images") == images else ""]
        )
    rows[-1][-1] = result["patients"]
    return [*lines, "", *table(["split", "images", "patients"], rows)]


def protocol(about: dict, result: dict) -> Lines:
    run, plan, cost = about["config"], about["plan"], result["cost"]
    o, d, e = run["optim"], run["data"], run["eval"]
    if head := result.get("head"):
        how = f"by {head['folds']} folds of the shots" if head["folds"] else ""
        how = how or f"on {result['labels_used']['select_on']}"
        return [
            "## Protocol and cost",
            "",
            f"- Head: {head['how']}, strength {head['strength']:.4g}, chosen {how}",
            f"- {cost['images']:,} images; {cost['device_seconds']:,.1f} device-seconds",
        ]
    extras = {
        "momentum": o["momentum"] if o["optimizer"] == "sgd" else 0,
        "weight decay": o["weight_decay"],
        "mixup": plan.get("mixup", 0),
        "AGC": o["agc"],
    }
    more = "".join(f", {name} {value:g}" for name, value in extras.items() if value)
    flip = " and flips" if d["flip"] else ""
    chosen = f"the best {e['select']} on validation" if e["select"] else "the last"
    rate = f"peak rate {plan['lr']:g}, {plan['schedule']} schedule"
    spent = f"{cost['flops']:.3g} FLOP, {cost['device_seconds']:,.0f} device-seconds"
    return [
        "## Protocol and cost",
        "",
        f"- {o['optimizer']}, {rate}, batch {o['batch']}{more}",
        f"- Augmentation: {d['augment']}{flip}; seed {run['seed']}; step kept: {chosen}",
        f"- {cost['steps']:,} steps, {cost['images']:,} images; {spent} on"
        + f" {about['devices']} x {about['device']}",
    ]


def results(result: dict) -> Lines:
    found, counts = result["metrics"], result["counts"]
    whole = [
        [title, cell(found[name])] for name, title in WHOLE.items() if name in found
    ]
    by_class = [
        [name, n["positive"], n["negative"], n["unknown"]]
        + [cell(found[f"{kind}/{name}"]) for kind in ("auroc", "auprc")]
        for name, n in counts.items()
    ]
    many = f"{result['images']:,} images of {result['patients']:,} patients"
    how = "95% intervals over patients"
    heads = ["class", "positive", "negative", "unknown", "AUROC", "AUPRC"]
    lines = ["## Results on the test split", "", f"{many}; in brackets {how}.", ""]
    lines += [*table(["metric", "value"], whole), "", *table(heads, by_class)]
    return [*lines, *reasons(found)]


def reasons(found: dict[str, Any]) -> Lines:
    """Why metrics have no interval or no value: a macro mean names what it lacks."""
    told: dict[str, list[str]] = {}
    for name, title in WHOLE.items():
        if why := found.get(name, {}).get("reason"):
            told.setdefault(why, []).append(title)
    lines = [f"- {', '.join(titles)}: {why}" for why, titles in told.items()]
    return ["", *lines] if lines else []


def source_lines(test: Predictions) -> Lines:
    """The metrics within each source: those over all may come from telling them apart."""
    names, title = np.unique(test.sources), "## By source"
    if len(names) < 2:
        return [
            title,
            "",
            f"All test images are of one source: {names[0] or 'unknown'}.",
        ]
    found = by_source.within(vars(test), SOURCES)
    counts = [f"{f['images']}, {f['patients']}" for f in found.values()]
    wanted = {name: WHOLE[name] for name in ("accuracy", "auroc_macro", "brier")}
    wanted |= {f"auroc/{name}": f"AUROC {name}" for name in test.classes}
    rows = [["images, patients", *counts]]
    for metric, label in wanted.items():
        entries = [f["metrics"].get(metric) for f in found.values()]
        if entries[0]:
            rows.append([label, *map(cell, entries)])
    rest = len(test.labels) - sum(f["images"] for f in found.values())
    more = (
        f" Not shown: {rest} images of {len(names) - SOURCES} sources." if rest else ""
    )
    note = f"A dash: the source lacks a positive or a negative label.{more}"
    heads = ["", *(name or "(unknown)" for name in found)]
    return [title, "", *table(heads, rows), "", note]


def operating_point(result: dict) -> Lines:
    lines = ["## Operating point", ""]
    points = result.get("operating_point")
    if not points:
        return [
            *lines,
            "None: there is no validation split, or its labels were not used.",
        ]
    rows = []
    for name, p in points.items():
        if p["threshold"] is None:
            rows.append([name, p["reason"], "-", "-"])
        else:
            values = [cell(p[k]) for k in ("sensitivity", "specificity")]
            rows.append([name, f"{p['threshold']:.3g}", *values])
    titles = ["class", "threshold", "sensitivity", "specificity"]
    return [*lines, POINT, "", *table(titles, rows)]


def shortcuts(
    about: dict, result: dict, test: Predictions, valid: Predictions | None
) -> Lines:
    lines = ["## Known leaks and shortcuts", ""]
    for where, found in result.get("leaks", {}).items():
        lines.append(f"- {exposure.line(where, found)}")
    if leaks := about["data"].get("leaks"):
        lines.append(
            f"- LEAK: the {about['data']['split']['kind']} split has {leaks['patients']}"
            " patients on two sides"
        )
    for source, name, images in by_source.one_class(vars(test)):
        lines.append(f"- All {images} test images of {source} are {name}")
    for column, name in (("sources", "source"), ("views", "view")):
        if valid is None or len(np.unique(getattr(test, column))) < 2:
            continue
        guess, own = (
            by_source.guessed(column, vars(test), vars(valid)),
            result["metrics"],
        )
        if guess["value"] is not None:
            lines.append(
                f"- Knowing nothing but the {name}, and the classes by {name} on"
                f" validation, has a macro AUROC of {cell(guess)}; the net has"
                f" {cell(own['auroc_macro'])}"
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
        if run.about.get("features") or run.run.freeze.head == "knn":
            return ["There are no parameters of a net to predict with or to export."]
        text = (
            "No parameters were kept: nothing can be predicted or exported. To have them,"
            " remove result.json and give the run's command again with"
            " --config.keep=all."
        )
        return [text]
    lines = ["    python -m bigxfer.predict --run DIR --images FOLDER --out FILE.csv"]
    size = 4 * run.result["cost"]["parameters"]
    if size < LARGEST_EXPORT:
        lines.append("    python -m bigxfer.export --run DIR --to stablehlo --out FILE")
    elif run.about["config"]["model"]["name"] == "bit":
        lines.append(
            "    python -m bigxfer.export --run DIR --to timm --out FILE.safetensors"
        )
    return lines


def short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONG else f"{text[:LONG]} ..."


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.runs.card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", type=Path, nargs="+", help="finished runs")
    for folder in parser.parse_args().folders:
        try:
            write(folder, finished.read(folder).result)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
        print(folder / "card.md")


if __name__ == "__main__":
    main()
