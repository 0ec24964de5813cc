"""What card.md says of groups of patients: sex, age, site and view."""

from bigxfer.runs.markdown import Lines, cell, table


def lines(result: dict) -> Lines:
    """Macro AUROC by sex, age band, site and view, and the largest gap of each."""
    head = ["## By group of patients", ""]
    found = result.get("groups", {})
    if not found:
        return [
            *head,
            "Neither sex, age, site nor view tells two groups of the test set.",
        ]
    rows, notes = [], []
    for factor, of in found.items():
        for name, group in of["groups"].items():
            macro = group["metrics"]["auroc_macro"]
            many = f"{group['images']:,}, {group['patients']:,}"
            rows.append([factor, name, many, cell(macro)])
            if macro["value"] is None:
                notes.append(f"- {factor} {name}: {macro['reason']}")
        gap = of["gaps"]["auroc_macro"]
        if gap["value"] is None:
            notes.append(f"- {factor}: no gap, {gap['reason']}")
        else:
            many = f", the largest of {gap['pairs']}; its interval covers them all"
            notes.append(
                f"- {factor}: the largest gap is {cell(gap)}, {' above '.join(gap['of'])}"
                f"{many if gap['pairs'] > 1 else ''}; over {', '.join(of['classes'])}"
            )
    heads = ["", "group", "images, patients", "macro AUROC"]
    return [*head, *table(heads, rows), "", *notes]


def external(result: dict) -> Lines:
    """The sets of data.external, beside the run's own test split."""
    found = result.get("external", {})
    if not found:
        return []
    rows, notes = [], []
    for name, of in found.items():
        gap = of["gaps"]["auroc_macro"]
        many = f"{of['images']:,}, {of['patients']:,}"
        values = of["metrics"]["auroc_macro"], of["own"]["auroc_macro"], gap
        rows.append([name, many, *map(cell, values)])
        paired = f"paired over {of['shared_patients']:,} patients that are in both"
        how = paired if of["shared_patients"] else "no patient is in both"
        notes.append(
            f"- {name}: {of['data']['of']}; over {', '.join(of['classes']) or 'no class'};"
            f" {how}"
        )
        if why := gap.get("reason"):
            notes.append(f"- {name}: no gap, {why}")
        if leaked := of["data"]["patients_in_training"]:
            notes.append(f"- LEAK: {leaked} patients of {name} are trained on")
    heads = ["", "images, patients", "macro AUROC", "own test split", "gap"]
    return ["## On other sets", "", *table(heads, rows), "", *notes]
