"""Audits a data set, alone or against an upstream: leaks, duplicates, shortcuts.

  python -m bigxfer.audit --config configs/covidx_hyperrule.py --config.data.root=FOLDER
  python -m bigxfer.audit --config configs/covidx_hyperrule.py:root=FOLDER \\
      --against configs/upstream_nih.py --against.data.root=FOLDER2 --workdir DIR

Prints verdicts and a table and writes audit.json and audit.html (with the image pairs) to
the workdir, runs/audit-DIGEST by default. Only the data part of a config is read.
Everything is found from the cached pixels, so the first run decodes the images. The page
names no folder of this machine unless --paths asks for it; audit.json does.
--dry-run opens the sets and compares no images.
"""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import config_flags

from bigxfer import cli, config, durable, presets
from bigxfer.config import dry_run
from bigxfer.data import dataset, duplicates, shortcuts, split
from bigxfer.data.dataset import Dataset
from bigxfer.data.manifest import Manifest
from bigxfer.report import audit_page, audit_verdicts

say = logging.getLogger("bigxfer").info


def main(run: config.Run, given: set[str], workdir: str, dry: bool = False) -> None:
    """Opens one data set or two, audits them, writes and prints what was found.

    With `dry` it stops when the sets are open.
    """
    runs = [ready(run, given)]
    if flags.FLAGS["against"].present:
        runs.append(ready(flags.FLAGS.against, cli.given("against")))
    sets = [ready_set(r.data) for r in runs]
    name = "-".join(config.digest(r) for r in runs)
    folder = Path(workdir or f"runs/audit-{name}")
    numbers, page = folder / "audit.json", folder / "audit.html"
    if dry:
        for data in sets:
            read = sum(map(len, data.rows.values()))
            print(f"would audit {data.manifest.name}: {read:,} images that decode")
        dry_run.end(numbers, page)
        return
    folder.mkdir(parents=True, exist_ok=True)
    report = audit(*sets)
    durable.write(numbers, json.dumps(report, indent=1))
    durable.write(page, audit_page.page(report, sets, flags.FLAGS.paths))
    print(table(report))
    print(f"\n{page} shows the pairs")


def ready(run: config.Run, given: set[str]) -> config.Run:
    """The run resolved; without a data root, the phantom that stands in."""
    if not run.data.root:
        print(cli.BANNER)
        run = run if "phantom" in given else presets.standin(run, given)
    return config.resolve(run)


def ready_set(data: config.Data) -> Dataset:
    """The whole set, whose images need not all decode.

    Raises ValueError where no image decodes.
    """
    # Every image, since a draw would hide leaks; what does not decode is on the page, and
    # must not stop the audit.
    opened = dataset.open(replace(data, shots="full", max_bad=1.0), 0, say)
    if not any(map(len, opened.rows.values())):
        _, path, reason = opened.report["undecodable"][0]
        where = f"{opened.manifest.name} at {opened.manifest.root}"
        raise ValueError(f"{where}: no image can be decoded, such as {path}: {reason}")
    return opened


def audit(a: Dataset, b: Dataset | None = None) -> dict[str, Any]:
    """What audit.json holds: of `a` and, where there is one, of `a` against `b`."""
    rows, prints = recognised(a)
    pairs = duplicates.near(a.images, prints, rows)
    leaks = split.check(a.manifest)
    # The probes are judged over folds of patients.
    few = len(set(a.manifest.patient[rows])) < shortcuts.FOLDS
    report = {
        "synthetic": a.manifest.synthetic,
        "sets": [describe(a, prints)],
        "within": {
            "patients in two splits": people(leaks, a.manifest),
            "pairs": [described(pair, a.manifest, a.manifest) for pair in pairs],
        },
        "probes": [
            asdict(p)
            for p in ([] if few else shortcuts.probe_all(a.manifest, a.images, rows))
        ],
    }
    if b is not None:
        rows_b, prints_b = recognised(b)
        pairs = duplicates.near(a.images, prints, rows, (b.images, prints_b, rows_b))
        shared = duplicates.shared_patients(a.manifest, b.manifest)
        report["synthetic"] |= b.manifest.synthetic
        report["sets"].append(describe(b, prints_b))
        report["against"] = {
            "patients in both": people(shared, a.manifest, b.manifest),
            "pairs": [described(pair, a.manifest, b.manifest) for pair in pairs],
        }
    return report


def people(names: list[str], *sets: Manifest) -> dict[str, Any]:
    """Return the number of these patients and the first 20; None where none is known."""
    for m in sets:
        if not m.known_patients().any():
            why = f"the patients of {m.name} are unknown"
            return {"count": None, "first": [], "why": why}
    return {"count": len(names), "first": names[:20]}


def recognised(data: Dataset) -> tuple[np.ndarray, duplicates.Prints]:
    """(the rows of all splits that have pixels, their prints)."""
    rows = np.sort(np.concatenate(list(data.rows.values())))
    prints = duplicates.fingerprint(data.images, rows)
    say(f"{data.manifest.name}: {len(rows)} images fingerprinted")
    return rows, prints


def describe(data: Dataset, prints: duplicates.Prints) -> dict[str, Any]:
    """Return the set, its splits, and its counts of classes by split, source and view."""
    m = data.manifest
    positive = split.positives(m)
    balance = {}
    for column in ("split", "source", "view"):
        values = getattr(m, column)
        balance[column] = {
            value: dict(zip(m.classes, positive[values == value].sum(0).tolist()))
            for value in sorted(set(values))
        }
    return {
        "name": m.name,
        "root": m.root,
        "hash": m.hash(),
        "images": len(m),
        # Readers give each image a patient of its own where none is known.
        "patients": len(set(m.patient)) if m.known_patients().any() else None,
        "flat images": int(prints.flat.sum()),
        "balance": balance,
        "report": data.report,
    }


def described(pair: duplicates.Pair, a: Manifest, b: Manifest) -> dict[str, Any]:
    """The pair with what the manifests say of both sides."""
    i, j = pair.a, pair.b
    sides = [
        {
            "row": row,
            "id": m.id[row],
            "patient": m.patient[row],
            "split": m.split[row],
            "labels": named(m, row),
        }
        for row, m in ((i, a), (j, b))
    ]
    return {
        "exact": pair.exact,
        "hamming": pair.hamming,
        "correlation": round(pair.correlation, 4),
        "share of the usual difference": round(pair.likeness, 4),
        "same patient": same_patient(a, i, b, j),
        "across splits": bool(a.split[i] != b.split[j]),
        "labels differ": conflict(a, i, b, j),
        "sides": sides,
    }


def same_patient(a: Manifest, i: int, b: Manifest, j: int) -> bool | None:
    """Whether both rows are of one patient; None where one of the two is unknown."""
    known = [m.select(np.array([row])).known_patients() for m, row in ((a, i), (b, j))]
    return bool(a.patient[i] == b.patient[j]) if all(known) else None


def named(m: Manifest, row: int) -> list[str]:
    """The classes that the row shows."""
    shown = split.positives(m.select(np.array([row])))[0]
    return [name for name, there in zip(m.classes, shown, strict=True) if there]


def conflict(a: Manifest, i: int, b: Manifest, j: int) -> bool:
    """Whether a class that both sets know is present on one side, absent on the other."""

    def known(m: Manifest, row: int) -> dict[str, float]:
        if m.multilabel:
            return dict(zip(m.classes, m.labels[row].tolist(), strict=True))
        return {name: float(k == m.labels[row]) for k, name in enumerate(m.classes)}

    # A sum of 1: present here, absent there. NaN, unknown, is equal to nothing.
    left, right = known(a, i), known(b, j)
    return any(left[c] + right[c] == 1 for c in left.keys() & right.keys())


def pair_rows(report: dict[str, Any], where: str) -> list[tuple[str, object]]:
    """(what, how many) of the pairs within the set, or against the other."""
    pairs = report[where]["pairs"]
    # The count of patients, whose name differs within a set and between two.
    first = next(k for k in report[where] if k != "pairs")
    shared = report[where][first]
    # Without known patients a pair may be of one person: no count is better than 0.
    none = f"not known: {shared.get('why')}"
    other = sum(p["same patient"] is False for p in pairs)
    return [
        (first, none if shared["count"] is None else shared["count"]),
        ("exact duplicates", sum(p["exact"] for p in pairs)),
        ("near-duplicates", sum(not p["exact"] for p in pairs)),
        ("  of another patient", none if shared["count"] is None else other),
        ("  across splits", sum(p["across splits"] for p in pairs)),
        ("  whose labels differ", sum(p["labels differ"] for p in pairs)),
    ]


def probe_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """(probe, AUROC with its interval) of the mean over classes and of the highest."""
    if not report["probes"]:
        few = f"fewer than {shortcuts.FOLDS} patients, or no class with both sides"
        return [("none", few)]
    lines = []
    for p in report["probes"]:
        parts = []
        names = sorted(
            # The mean first, then the class that gives most away.
            p["auroc"],
            key=lambda n: (n != "macro", -p["auroc"][n]["value"]),
        )
        for name in names[:2]:
            v = p["auroc"][name]
            none = v["low"] is None
            ends = "" if none else f" ({v['low']:.3f}-{v['high']:.3f})"
            parts.append(f"{name} {v['value']:.3f}{ends}")
        if p["held_out"] is not None:
            parts.append(f"train -> test {p['held_out']:.3f}")
        lines.append((f"{p['target']} from {p['name']} alone", ", ".join(parts)))
    return lines


def sections(report: dict[str, Any]) -> list[tuple[str, list]]:
    """(title, rows) of everything but the pairs themselves."""
    out = []
    for s in report["sets"]:
        many = "unknown" if s["patients"] is None else s["patients"]
        counts = [("images", s["images"]), ("patients", many)]
        counts.append(("flat images (one value)", s["flat images"]))
        counts.append(("undecodable images", len(s["report"].get("undecodable", []))))
        out.append((f"{s['name']} at {s['root']}", counts))
    out.append((f"Within {report['sets'][0]['name']}", pair_rows(report, "within")))
    if "against" in report:
        names = " against ".join(s["name"] for s in report["sets"])
        out.append((names, pair_rows(report, "against")))
    out.append(("Shortcuts (AUROC; 0.5 is chance)", probe_rows(report)))
    return out


def table(report: dict[str, Any]) -> str:
    """The verdicts and the sections as plain text."""
    lines = ["SYNTHETIC DATA"] if report["synthetic"] else []
    verdicts = audit_verdicts.verdicts(report)
    lines += ["", "Verdicts", *(f"  {v.mark:<9} {v.text}" for v in verdicts)]
    for title, rows in sections(report):
        lines += ["", title, *(f"  {what:<32} {value}" for what, value in rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    config_flags.DEFINE_config_file(
        "against",
        None,
        "A second FILE[:key=value,...]; --against.FIELD=VALUE overrides its fields.",
    )
    flags.DEFINE_bool("paths", False, "Name the sets' folders in full on the page.")
    cli.run(main)
