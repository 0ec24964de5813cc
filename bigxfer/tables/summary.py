"""What a finished study says, as two small tables on the terminal.

Intervals are 95%; the words beside a difference say what they cover. Verdict, interval and
p are those of the page and of differences.csv (tables/families.py).
"""

from collections.abc import Sequence

from bigxfer.runs import terminal
from bigxfer.tables import cells, differences, estimates, families, lines
from bigxfer.tables.lines import order
from bigxfer.tables.table import Row

ABREAST = 4  # more lines of runs than this stand below each other


def text(
    rows: Sequence[Row],
    predictions: cells.PredictionReader,
    metric: str = "auroc_macro",
) -> str:
    """Shots by line of runs, then each line against scratch on the same draws."""
    runs, notes = lines.lines(rows)
    if not runs:
        return "no finished transfer"
    compared = families.compare_all(runs, metric, predictions)
    synthetic = "SYNTHETIC " if any(row["synthetic"] for row in runs) else ""
    out = [*notes]
    for target in sorted({row["target"] for row in runs}):
        for model in sorted({row["model"] for row in runs}):
            own = differences.select(runs, target=target, model=model)
            if own:
                out += [f"\n{synthetic}{metric} on {target}, {model}, 95% intervals"]
                out += [*_lacking(own, metric)]
                out += [*_means(own, metric, predictions)]
                of_target = [f for f in compared if f.target == target]
                out += [*_against_scratch(of_target, model)]
    for line in predictions.unreadable:
        out.append(
            f"\ncannot be read, so its cell has the limits of result.json: {line}"
        )
    return "\n".join(out)


def _lacking(rows: list[Row], metric: str) -> list[str]:
    """Why runs have no macro mean: the classes that their test split lacks."""
    without = [row for row in rows if row.get(metric) is None]
    reasons = dict.fromkeys(row.get("lacking") or "not known" for row in without)
    return [f"  - stands for no {metric}: {reason}" for reason in reasons]


def _means(
    rows: list[Row], metric: str, predictions: cells.PredictionReader
) -> list[str]:
    sources = sorted({row["line"] for row in rows})
    if len(sources) > ABREAST:
        return _one_a_line(rows, sources, metric, predictions)
    table = []
    for shots in order({row["shots"] for row in rows}):
        by_source = (differences.select(rows, shots=shots, line=s) for s in sources)
        table.append([shots, *(_mean(cell, metric, predictions) for cell in by_source)])
    text = terminal.columns(["shots", *sources], table)
    return [f"  {line}" for line in text.split("\n")]


def _one_a_line(
    rows: list[Row],
    sources: list[str],
    metric: str,
    predictions: cells.PredictionReader,
) -> list[str]:
    out = []
    for shots in order({row["shots"] for row in rows}):
        for source in sources:
            if cell := differences.select(rows, shots=shots, line=source):
                out.append(
                    f"  {shots:>6}  {_mean(cell, metric, predictions)}  {source}"
                )
    return out


def _mean(rows: list[Row], metric: str, predictions: cells.PredictionReader) -> str:
    if not rows or any(row.get(metric) is None for row in rows):
        return "-"
    e = estimates.estimate(rows, metric, predictions)
    return f"{cells.interval(e.value, e.low, e.high)} n={len(rows)}"


def _against_scratch(compared: Sequence[families.Family], model: str) -> list[str]:
    """Each line less scratch, as the page has it: p within the same family."""
    out = []
    for family in (f for f in compared if f.model == model):
        names = {side[1] for pair in family.pairs for side in pair}
        for a, b in family.pairs:
            # The whole matrix is on the page; here only what pre-training brought.
            if b[1] != rival(a[1], names):
                continue
            out.append(f"  {a[1]} minus {b[1]}, same draws and same test images:")
            for shots in family.shots:
                if c := family.found.get((a, b, shots)):
                    out.append(f"  {shots:>6}  {_told(c)}")
    return out


def _told(c: differences.Comparison) -> str:
    d = c.difference
    words = cells.interval(d.value, d.low, d.high, "+")
    if c.verdict:
        return (
            f"{words}  p {c.p_holm:.3g} (Holm over {c.size}): {c.verdict}; {d.covers}"
        )
    return f"{words}  {d.covers}; no p: {d.lacks}"


def rival(line: str, names: set[str]) -> str:
    """The line from scratch that differs from `line` in its upstream alone, or scratch."""
    upstream, _, rest = line.partition(", ")
    # A label begins with the upstream; what follows is how else the line differs.
    twin = f"scratch, {rest}"
    return twin if upstream != "scratch" and twin in names else "scratch"
