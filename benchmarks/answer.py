"""Rewrite docs/answer.md and its two figures from the table and the bundle of study_real.py.

  PYTHONPATH=. python benchmarks/answer.py --gather RUNS   # first both files, from run folders
  PYTHONPATH=. python benchmarks/answer.py                 # the page, from both files alone

colabs/real_runs.csv has a line for each run, colabs/real_bundle.npz the predictions of those at full
data and of the first draws of the heads that are compared (8 MB in all). Between the marks of
docs/answer.md stand the state of the study, at most five findings, tables and costs; the
text around them is written by hand. What is not run is not told.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import answer_figures
import numpy as np
from answer_rows import (
    BUNDLE,
    HEAD,
    MARGIN,
    METRIC,
    PARTS,
    ROOT,
    SHOTS,
    TABLE,
    TARGET,
    TINY,
    Answer,
    gather,
    images_of,
    is_of,
    line_name,
    planned,
    read_audits,
    upstream_of,
)

from bigxfer import durable
from bigxfer.report.style import shots_name
from bigxfer.scaling import curves
from bigxfer.study.commands import fit
from bigxfer.tables import bundle, cells, compact, differences, estimates
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.differences import BETTER, EQUIVALENT, WORSE, Comparison
from bigxfer.tables.table import Row

PAGE = ROOT / "docs" / "answer.md"
BLOCK = re.compile(r"(<!-- answer: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FINDINGS = 5  # at most
CLASSES = {TINY: 200, "imagenet21k-tiny-six": 6, "mednist": 6, "mednist-six": 6}
NOT_RUN = ["Not run yet."]
SMALL = 0.125  # the width whose upstreams have seven sizes
REACH = 0.75  # macro AUROC: a little above the best that any start here came to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    text = "a folder of runs: writes the table and the bundle first"
    parser.add_argument("--gather", type=Path, help=text)
    text = "with --gather: the folder that the study's features= named"
    parser.add_argument("--features", default="", help=text)
    args = parser.parse_args()
    if args.gather:
        gather(args.gather, args.features)
    answer = Answer([], PredictionReader())
    if TABLE.is_file():
        answer = Answer(compact.load(TABLE), bundle.BundleReader(BUNDLE))
        if answer.comparisons():
            answer_figures.draw(answer, ROOT / "docs" / "images")
    durable.write(PAGE, rewritten(PAGE.read_text(), answer))


def rewritten(text: str, answer: Answer) -> str:
    """The page with its blocks made anew."""
    made = {
        "state": state,
        "findings": findings,
        "cells": nets,
        "law": law,
        "comparisons": compared,
        "rates": rates,
        "starts": starts,
        "upstreams": upstreams,
        "audits": audits,
        "cost": cost,
    }

    def put(match: re.Match) -> str:
        body = "\n".join(["", *made[match[2]](answer), "", ""])
        return f"{match[1]}{body}{match[3]}"

    return BLOCK.sub(put, text)


def state(answer: Answer) -> list[str]:
    """How much of each part is done."""
    done = {row["digest"] for row in answer.rows}
    lines = ["| part | upstreams done | transfers done |", "|---|---|---|"]
    for part in PARTS:
        every = planned(part)
        counts = []
        for kind in ("upstream", "transfer"):
            own = {digest for digest, run in every.items() if run.kind == kind}
            counts.append(f"{len(done & own):,} of {len(own):,}")
        lines.append(f"| {part} | {' | '.join(counts)} |")
    encoders = sum(r["kind"] == "transfer" and r["width"] is None for r in answer.rows)
    return [*lines, f"| encoders | - | {encoders:,}, as many as files were given |"]


def findings(answer: Answer) -> list[str]:
    """The primary slopes, then each claim with its comparisons, as they fall."""
    found, why = answer.slopes()
    lines = [
        f"- **Per {s.scale}, the AUROC of knees at full data {s.verdict}**:"
        f" {s.value:+.4f} [{s.low:+.4f}, {s.high:+.4f}] over {s.seeds} upstream seeds and"
        f" {s.patients} test patients (p {s.holm:.2g} after Holm over the two)."
        for s in found
    ]
    if why:
        lines = [f"- The primary slopes cannot be told yet: {why}."]
        lines += [
            f"- R26x0.25 alone, which is not what was asked: per {s.scale} the AUROC of"
            f" knees at full data moves by {s.value:+.4f} [{s.low:+.4f}, {s.high:+.4f}]"
            f" over {s.seeds} upstream seeds and {s.patients} test patients."
            for s in answer.of_one_net()
        ]
    by_claim: dict[str, list[Comparison]] = defaultdict(list)
    for (name, _), c in answer.comparisons().items():
        by_claim[name].append(c)
    for name, every in list(by_claim.items())[: FINDINGS - len(lines)]:
        lines.append(f"- **{name}**, {every[0].a[1]} less {every[0].b[1]}:")
        lines += [f"    - {told(c)}" for c in every]
    return lines


def told(c: Comparison) -> str:
    """One comparison in words."""
    d, shots = c.difference, c.about["shots"]
    at = "full data, fine-tuned" if shots == "full" else f"{shots_name(shots)}, heads"
    value = f"{cells.interval(d.value, d.low, d.high, '+')} {d.covers}"
    if not c.verdict:
        return f"at {at}: {value}; no verdict: {d.lacks}"
    verdict = {BETTER: "the first is better", WORSE: "the second is better"}
    verdict[EQUIVALENT] = f"equivalent within {c.margin:g}"
    said = verdict.get(c.verdict, c.verdict)
    return f"at {at}: {said}, {value} (p {c.p_holm:.2g} after Holm over {c.size})"


def nets(answer: Answer) -> list[str]:
    """AUROC at full data, fine-tuned, of each net and number of photographs."""
    lines = ["| net | photographs | AUROC | runs |", "|---|---|---|---|"]
    for (width, images), rows in answer.by_net().items():
        e = estimates.estimate(rows, METRIC, answer.predictions)
        name = f"{images:,}" if images else "none (scratch)"
        value = cells.interval(e.value, e.low, e.high)
        lines.append(f"| R26x{width:g} | {name} | {value} | {len(rows)} |")
    figure = f"![AUROC over upstream images](images/{answer_figures.NAMES[0]})"
    return [figure, "", *lines] if len(lines) > 2 else NOT_RUN


def law(answer: Answer) -> list[str]:
    """The error of the smallest net over upstream images, by the study's own rule for laws.

    The rule chooses a form by the largest scales, held out; fewer than six have a slope alone.
    """
    cells_of = {n: rows for (w, n), rows in answer.by_net().items() if n and w == SMALL}
    if len(cells_of) < 2:
        return NOT_RUN
    runs = [{cells.seeds(row): row for row in rows} for rows in cells_of.values()]
    about = {"line": f"R26x{SMALL:g}, {len(cells_of)} numbers of photographs"}
    curve = curves.Curve(about, np.array([*cells_of], float), runs, METRIC)
    found = curves.law(curve, answer.predictions)
    said = fit.describe(found, "upstream_size", METRIC, REACH)
    return [f"{said}. Intervals are over {found.words}."]


def compared(answer: Answer) -> list[str]:
    """The thirteen comparisons that were named beforehand."""
    lines = [
        "| claim | shots | difference | verdict | p (Holm) |",
        "|---|---|---|---|---|",
    ]
    for (name, shots), c in answer.comparisons().items():
        d = c.difference
        value = cells.interval(d.value, d.low, d.high, "+")
        p = f"{c.p_holm:.2g}" if np.isfinite(c.p_holm) else "-"
        verdict = c.verdict or f"none: {d.lacks}"
        lines.append(f"| {name} | {shots} | {value} | {verdict} | {p} |")
    return lines if len(lines) > 2 else NOT_RUN


def rates(answer: Answer) -> list[str]:
    """AUROC at each rate of fine-tuning, and what the primary contrast would be there."""
    head = "| rate | scratch | 705 photographs | 45,125 photographs | 45,125 less 705 |"
    lines = [head, "|---|---|---|---|---|"]
    for rate, rows in sorted(answer.tried.items()):
        by_size = {
            size: {
                cells.seeds(r): r for r in rows if (r["upstream_size"] or None) == size
            }
            for size in (None, 705, 45_125)
        }
        values = []
        for runs in by_size.values():
            every = list(runs.values())
            e = estimates.estimate(every, METRIC, answer.predictions) if runs else None
            values.append(cells.interval(e.value, e.low, e.high) if e else "")
        d = differences.difference(
            by_size[45_125], by_size[705], METRIC, answer.predictions, MARGIN
        )
        gap = cells.interval(d.value, d.low, d.high, "+") if d else ""
        lines.append(f"| {rate:g} | {' | '.join([*values, gap])} |")
    return lines if answer.tried else NOT_RUN


def starts(answer: Answer) -> list[str]:
    """AUROC of every start of NET and of every encoder, at each number of shots."""
    columns = (*SHOTS[:-1], ("full", HEAD), SHOTS[-1])
    body = []
    own = [r for r in answer.known if is_of(r, (upstream_of(r), None))]
    places = {
        (r["target"] != TARGET, r["target"], upstream_of(r), images_of(r) or 0)
        for r in own
    }
    for _, target, upstream, images in sorted(places):
        of, values = (upstream, images or None), []
        for shots, head in columns:
            runs = list(answer.select(of, shots, head, target).values())
            e = estimates.estimate(runs, METRIC, answer.predictions) if runs else None
            values.append(cells.interval(e.value, e.low, e.high) if e else "")
        body.append(f"| {target} | {line_name(of)} | {' | '.join(values)} |")
    head = "| target | start | 1 shot | 5 shots | 10 shots | full, head | full, fine-tuned |"
    figure = f"![AUROC over shots](images/{answer_figures.NAMES[1]})"
    table = [head, "|---|---|---|---|---|---|---|", *body]
    drawn = [figure, ""] if answer.comparisons() else []
    return [*drawn, *table] if body else NOT_RUN


def upstreams(answer: Answer) -> list[str]:
    """Each upstream's own test metric, the mean and range over its seeds."""
    found: dict[tuple, list[Row]] = defaultdict(list)
    for row in answer.rows:
        if row["kind"] == "upstream":
            found[row["target"], row["model"], row["target_size"]].append(row)
    lines = ["| upstream | net | images | own test metric | seeds | learned |"]
    lines.append("|---|---|---|---|---|---|")
    for (name, model, images), rows in sorted(found.items()):
        one = rows[0].get("accuracy") is not None
        column, what = ("accuracy", "top-1") if one else (METRIC, "macro AUROC")
        known = [row for row in rows if row.get(column) is not None]
        if not known:
            lines.append(
                f"| {name} | {model} | {images:,} | none | {len(rows)} | unknown |"
            )
            continue
        values = [row[column] for row in known]
        chance = 1 / CLASSES.get(name, 5) if one else 0.5
        sure = min(row.get(f"{column}_low") or 0.0 for row in known) > chance
        span = f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        learned = "yes" if sure else "**no: not told from chance**"
        lines.append(
            f"| {name} | {model} | {images:,} | {what} {span} | {len(known)} | {learned} |"
        )
    return lines if found else NOT_RUN


def audits(answer: Answer) -> list[str]:
    """Test images of the targets that upstreams were trained on."""
    head = "| upstream | target | test images | patients in both | equal images | near-duplicates |"
    lines = [
        f"| {upstream} ({int(seen):,}) | {target} | {int(test):,} | {shared} | {equal} | {near} |"
        for upstream, target, seen, test, shared, equal, near in read_audits()
    ]
    return [head, "|---|---|---|---|---|---|", *lines] if lines else NOT_RUN


def cost(answer: Answer) -> list[str]:
    """Hours as the runs measured them, of the wall clock of each."""
    by_kind: dict[tuple, list[float]] = defaultdict(list)
    for row in answer.rows:
        if row["device_seconds"] is not None:
            by_kind[row["kind"], row["model"]].append(row["device_seconds"])
    lines = ["| runs | number | hours |", "|---|---|---|"]
    for (kind, model), seconds in sorted(by_kind.items()):
        hours = sum(seconds) / 3600
        lines.append(f"| {kind}s, {model} | {len(seconds):,} | {hours:.2f} |")
    return lines if by_kind else NOT_RUN


if __name__ == "__main__":
    main()
