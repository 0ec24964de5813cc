"""audit.html: verdicts first, then the numbers behind them and the pairs of images."""

import base64
from collections.abc import Sequence
from typing import Any

from bigxfer.data import duplicates
from bigxfer.data.dataset import Dataset
from bigxfer.data.pixels import decode
from bigxfer.report import audit_verdicts, templates
from bigxfer.report.audit_verdicts import label

SHOWN = 60  # pairs of images, or undecodable files, on the page


def page(report: dict[str, Any], sets: Sequence[Dataset], paths: bool = False) -> str:
    """The page as a string, of what audit.audit gives of one or two sets.

    paths: whether it shows where the sets lie; else no folder of this machine is on it.
    """
    groups = []
    for where in ("within", "against"):
        if pairs := report.get(where, {}).get("pairs", []):
            # One set has pairs within it alone: sets[-1] would be the same one.
            both = sets[0], sets[-1 if where == "against" else 0]
            groups.append(
                {
                    "heading": _heading(where, report, len(pairs)),
                    "pairs": [shown_pair(pair, *both) for pair in pairs[:SHOWN]],
                }
            )
    return templates.render(
        "audit.html",
        title="Audit of " + " against ".join(map(label, report["sets"])),
        synthetic="This audit" if report["synthetic"] else "",
        verdicts=audit_verdicts.verdicts(report),
        rule=audit_verdicts.RULE,
        sets=[_tiles(s, paths) for s in report["sets"]],
        probes=_probes(report["probes"]),
        tables=[table for s in report["sets"] for table in _tables(s, paths)],
        pairs=groups,
        pair_rule=duplicates.RULE,
    )


def _heading(where: str, report: dict[str, Any], count: int) -> str:
    names = [label(s) for s in report["sets"]]
    place = f"within {names[0]}" if where == "within" else f"of {' and '.join(names)}"
    shown = f", the first {SHOWN} of {count:,}" if count > SHOWN else ""
    return f"Pairs of images {place}{shown}"


def _tiles(of_set: dict[str, Any], paths: bool) -> dict[str, str]:
    patients = of_set["patients"]
    return {
        "set": label(of_set),
        **({"folder": of_set["root"]} if paths else {"reader": of_set["name"]}),
        "images": f"{of_set['images']:,}",
        "patients": "unknown" if patients is None else f"{patients:,}",
        "of one value everywhere": f"{of_set['flat images']:,}",
        "undecodable": f"{len(of_set['report'].get('undecodable', [])):,}",
        "data": of_set["hash"][:12],
    }


def _probes(probes: Sequence[dict[str, Any]]) -> list[Sequence[str]]:
    """A row for each probe and class: (sees, tells, class, AUROC, train to test)."""
    rows: list[Sequence[str]] = []
    for p in probes:
        for name, entry in sorted(p["auroc"].items(), key=lambda i: i[0] != "macro"):
            macro = name == "macro"
            # It was computed for the mean of the classes alone.
            held_out = p["held_out"] if macro else None
            rows.append(
                (
                    f"{p['name']} → {p['target']}" if macro else "",
                    "mean" if macro else name,
                    audit_verdicts.cell(entry),
                    "" if held_out is None else f"{held_out:.2f}",
                )
            )
    return rows


def _tables(of_set: dict[str, Any], paths: bool) -> list[dict[str, Any]]:
    """The classes by split, source and view, and the files that gave no image."""
    tables: list[dict[str, Any]] = []
    name = label(of_set)
    for column, counts in of_set["balance"].items():
        head = (column, *next(iter(counts.values())))
        rows = [
            [value or "(unknown)", *(f"{n:,}" for n in by_class.values())]
            for value, by_class in counts.items()
        ]
        heading = f"{name}: images of each class by {column}"
        tables.append({"heading": heading, "head": head, "rows": rows})
    if bad := of_set["report"].get("undecodable", []):
        shown = (
            f"the first {SHOWN} of {len(bad):,}" if len(bad) > SHOWN else f"{len(bad)}"
        )
        # Without the id, which is first: the path says it.
        rows = [[_placed(text, of_set["root"], paths) for text in b[1:]] for b in bad]
        heading = f"{name}: undecodable images, {shown}"
        tables.append(
            {"heading": heading, "head": ("file", "reason"), "rows": rows[:SHOWN]}
        )
    return tables


def _placed(text: str, root: str, paths: bool) -> str:
    """An error's text without the folder that it names."""
    # Of the place alone: the rest of the path says which file it is.
    return text if paths or not root else text.replace(f"{root.rstrip('/')}/", "")


def shown_pair(pair: dict[str, Any], a: Dataset, b: Dataset) -> dict[str, Any]:
    """What the page shows of a pair: a caption, and both images with what is known."""
    what = "equal" if pair["exact"] else f"correlation {pair['correlation']:.3f}"
    share = pair["share of the usual difference"]
    notes = [what, f"hamming {pair['hamming']}/144"]
    notes.append(f"{share:.2f} of the usual difference")
    marks = [f for f in ("across splits", "labels differ") if pair[f]]
    if (same := pair["same patient"]) is not None:
        marks.insert(0, "same patient" if same else "two patients")
    sides = []
    # Rows count in the set of their own side.
    for side, data in zip(pair["sides"], (a, b), strict=True):
        # Within the page, which then is one file that can be passed on.
        png = base64.b64encode(decode.to_png(data.images[side["row"]])).decode()
        sides.append({"png": png, **side, "labels": ", ".join(side["labels"])})
    return {"caption": ", ".join(notes), "marks": marks, "sides": sides}
