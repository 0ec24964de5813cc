"""What card.md says of groups: sex, age, site and view, the source, other sets."""

import numpy as np

from bigxfer.runs.markdown import METRICS, Lines, cell, table
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import by_source

SOURCES = 5  # columns of the table by source: the largest


def lines(result: dict) -> Lines:
    """Macro AUROC by sex, age band, site and view, and the largest gap of each."""
    head = ["## By group of patients", ""]
    groups = result.get("groups", {})
    if not groups:
        return [
            *head,
            "Neither sex, age, site nor view tells two groups of the test set.",
        ]
    rows, notes = [], []
    for factor, judged in groups.items():
        for name, group in judged["groups"].items():
            macro = group["metrics"]["auroc_macro"]
            counts = f"{group['images']:,}, {group['patients']:,}"
            rows.append([factor, name, counts, cell(macro)])
            if macro["value"] is None:
                notes.append(f"- {factor} {name}: {macro['reason']}")
        gap = judged["gaps"]["auroc_macro"]
        if gap["value"] is None:
            notes.append(f"- {factor}: no gap, {gap['reason']}")
        else:
            counts = f", the largest of {gap['pairs']}; its interval covers them all"
            notes.append(
                f"- {factor}: the largest gap is {cell(gap)}, {' above '.join(gap['of'])}"
                f"{counts if gap['pairs'] > 1 else ''}; over {', '.join(judged['classes'])}"
            )
    heads = ["", "group", "images, patients", "macro AUROC"]
    return [*head, *table(heads, rows), "", *notes]


def external(result: dict) -> Lines:
    """The sets of data.external, beside the run's own test split."""
    sets = result.get("external", {})
    if not sets:
        return []
    rows, notes = [], []
    for name, judged in sets.items():
        gap = judged["gaps"]["auroc_macro"]
        counts = f"{judged['images']:,}, {judged['patients']:,}"
        values = judged["metrics"]["auroc_macro"], judged["own"]["auroc_macro"], gap
        rows.append([name, counts, *map(cell, values)])
        paired = f"paired over {judged['shared_patients']:,} patients that are in both"
        how = paired if judged["shared_patients"] else "no patient is in both"
        notes.append(
            f"- {name}: {judged['data']['of']}; over {', '.join(judged['classes']) or 'no class'};"
            f" {how}"
        )
        if why := gap.get("reason"):
            notes.append(f"- {name}: no gap, {why}")
        if leaked := judged["data"]["patients_in_training"]:
            notes.append(f"- LEAK: {leaked} patients of {name} are trained on")
    heads = ["", "images, patients", "macro AUROC", "own test split", "gap"]
    return ["## On other sets", "", *table(heads, rows), "", *notes]


def sources(test: Predictions) -> Lines:
    """The metrics within each source: those over all may come from telling them apart."""
    names, title = np.unique(test.sources), "## By source"
    if len(names) < 2:
        return [
            title,
            "",
            f"All test images are of one source: {names[0] or 'unknown'}.",
        ]
    within = by_source.within(vars(test), SOURCES)
    counts = [f"{f['images']}, {f['patients']}" for f in within.values()]
    wanted = {name: METRICS[name] for name in ("accuracy", "auroc_macro", "brier")}
    wanted |= {f"auroc/{name}": f"AUROC {name}" for name in test.classes}
    rows = [["images, patients", *counts]]
    for metric, label in wanted.items():
        # Some metrics do not exist for all data: findings have no accuracy.
        entries = [f["metrics"].get(metric) for f in within.values()]
        if entries[0]:
            rows.append([label, *map(cell, entries)])
    hidden = len(test.labels) - sum(f["images"] for f in within.values())
    more = (
        f" Not shown: {hidden} images of {len(names) - SOURCES} sources."
        if hidden
        else ""
    )
    note = f"A dash: the source lacks a positive or a negative label.{more}"
    heads = ["", *(name or "(unknown)" for name in within)]
    return [title, "", *table(heads, rows), "", note]
