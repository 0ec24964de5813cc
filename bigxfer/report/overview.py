"""What was run, what it cost, and what a reader must know before the figures."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigxfer.report.style import METRICS, number, pretty
from bigxfer.runs import folders
from bigxfer.tables import cells
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.table import Row
from bigxfer.tables.table_args import Given

MOST = 12  # lines of one kind before the rest is only counted


@dataclass(frozen=True)
class Note:
    """What a reader must know; `lines` are shown on demand."""

    text: str
    lines: tuple[str, ...] = ()
    grave: bool = False


def tiles(given: Given, predictions: PredictionReader) -> dict[str, str]:
    """The study in a few numbers."""
    rows = given.rows
    runs = [r for r in rows if r["kind"] == "transfer"]
    # Looked for on the disk: a table may be read without its run folders.
    kept = sum(
        (predictions.find(r["folder"]) / "predictions.npz").is_file() for r in runs
    )
    return {
        "transfer runs": f"{len(runs):,}",
        "upstream runs": f"{len(rows) - len(runs):,}",
        "data": "SYNTHETIC" if any(r["synthetic"] for r in rows) else "real images",
        "targets": str(len({r["target"] for r in runs})),
        # Scratch is no upstream.
        "upstreams": str(len({r["upstream"] for r in runs} - {"scratch"})),
        "model sizes": str(len({r["model"] for r in runs})),
        "draws": str(len({r["seed"] for r in runs})),
        "labels that choose": _select_on(runs),
        "tuned": _tuned(runs),
        "upstream seeds": _upstream_seeds(runs),
        "device-hours": _total(rows, "device_seconds", 3600),
        "FLOPs": _total(rows, "flops", 1),
        "with predictions": f"{kept:,} of {len(runs):,}",
        "commit": _commits(rows),
    }


def _select_on(runs: Sequence[Row]) -> str:
    """By which labels the runs chose anything: "support (24), validation (6)"."""
    counts = Counter(r.get("select_on") or "not recorded" for r in runs)
    return ", ".join(f"{name} ({n:,})" for name, n in sorted(counts.items())) or "-"


def _tuned(runs: Sequence[Row]) -> str:
    """What was chosen in how many runs: "penalty of 10 (150), untuned (50)"."""
    counts = Counter(r.get("tuned") or "not recorded" for r in runs)
    return ", ".join(f"{name} ({n:,})" for name, n in sorted(counts.items())) or "-"


def _upstream_seeds(runs: Sequence[Row]) -> str:
    """How many seeds an upstream has; "1 to 3" where some have more."""
    seeds_of: dict[tuple, set] = defaultdict(set)
    for row in runs:
        if row["upstream"] != "scratch":
            # Each size and net of an upstream is a training of its own.
            place = row["upstream"], row["upstream_size"], row["model"]
            seeds_of[place].add(cells.seeds(row)[0])
    counts = sorted({len(seeds) for seeds in seeds_of.values()})
    return (
        " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "-"
    )


def _commits(rows: Sequence[Row]) -> str:
    counts = Counter((r["commit"] or "unknown")[:8] for r in rows).most_common()
    return counts[0][0] + (f" and {len(counts) - 1} more" if counts[1:] else "")


def _total(rows: Sequence[Row], column: str, unit: float) -> str:
    known = [r[column] for r in rows if r[column] is not None]
    if not known:
        return "not recorded"
    text = number(sum(known) / unit)
    return (
        text
        if len(known) == len(rows)
        else f"{text} ({len(rows) - len(known)} unknown)"
    )


def costs(rows: Sequence[Row]) -> dict[str, Sequence]:
    """A row for each kind of run, and the head of the table."""
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        name = row["upstream"] if row["kind"] == "transfer" else row["target"]
        groups[row["kind"], row["model"], name].append(row)
    lines = []
    for (kind, model, name), runs in sorted(groups.items()):
        steps = sorted({r["steps"] for r in runs if r["steps"] is not None})
        lines.append(
            (
                f"{kind} {'from' if kind == 'transfer' else 'on'} {pretty(name)}",
                model,
                f"{len(runs):,}",
                " to ".join(f"{n:,}" for n in dict.fromkeys(steps[:1] + steps[-1:])),
                _total(runs, "images", 1),
                _labels(runs),
                _tuned(runs),
                _total(runs, "flops", 1),
                _total(runs, "device_seconds", 3600),
            )
        )
    head = ("runs", "model", "number", "steps", "images seen")
    head += ("labels to train + to choose", "tuned", "FLOPs", "device-hours")
    return {"head": head, "rows": lines}


def _labels(rows: Sequence[Row]) -> str:
    """The images whose labels a run used, fewest to most: "3 to 30 + 0"."""
    words = []
    for column in ("labels_training", "labels_selection"):
        known = sorted({r[column] for r in rows if r.get(column) is not None})
        ends = dict.fromkeys(known[:1] + known[-1:])
        words.append(" to ".join(f"{n:,}" for n in ends) or "not recorded")
    return " + ".join(dict.fromkeys(words))


def notes(
    given: Given,
    predictions: PredictionReader,
    unfinished: Sequence[str],
    more: Sequence[str],
) -> list[Note]:
    """Everything that is amiss or missing; `more`: notes of other rooms, put last."""
    return [
        *_counted(_short(given.rows), "stopped before the others of its cell"),
        *_counted(_missing(given.rows), "fewer runs than most cells"),
        *_counted(unfinished, "not finished"),
        *_counted(predictions.unreadable, "predictions that cannot be read"),
        *_leaks(given.rows),
        *_edges(given.rows),
        *(Note(line) for line in more),
    ]


def _counted(texts: Sequence[str], what: str) -> list[Note]:
    """One note: how many, and the first of them on demand."""
    if not texts:
        return []
    uncounted = [f"and {len(texts) - MOST} more"] if len(texts) > MOST else []
    return [Note(f"{len(texts)} {what}", (*texts[:MOST], *uncounted))]


def _short(rows: Sequence[Row]) -> list[str]:
    cell = "study", "kind", "target", "model", "protocol", "shots"
    return [
        f"{row['folder']}: {row['steps']} of {usual} steps"
        for row, usual in cells.stopped_early(rows, *cell)
    ]


def _missing(rows: Sequence[Row]) -> list[str]:
    seeds: dict[tuple, set[tuple[int, int]]] = defaultdict(set)
    for row in rows:
        if row["kind"] == "transfer":
            key = tuple(row[k] for k in ("target", "upstream", "model", "shots"))
            seeds[key].add(cells.seeds(row))
    usual: dict[str, int] = {}  # at each number of shots: full data may have one draw
    for shots in {key[3] for key in seeds}:
        counts = Counter(len(s) for key, s in seeds.items() if key[3] == shots)
        # The usual number is what the study meant; what falls short of it is missing.
        usual[shots] = counts.most_common(1)[0][0]
    return [
        f"{' '.join(key)}: {len(done)} of {usual[key[3]]} runs"
        for key, done in sorted(seeds.items())
        if len(done) < usual[key[3]]
    ]


def unfinished_beside(given: Given) -> list[str]:
    """Runs without a result in the folders of the table's runs, and why."""
    done = {row["digest"] for row in given.rows}
    roots = {given.find(row["folder"]).parent for row in given.rows}
    return [
        f"{folder}: {_why(folder)}"
        for root in sorted(roots)
        if root.is_dir() and _holds_runs(root, done)
        for folder in sorted(root.iterdir())
        if folder.name not in done
        and (folder / "config.json").is_file()
        and not (folder / "result.json").is_file()
    ]


def _holds_runs(root: Path, done: set[str]) -> bool:
    # By three of them: a table can have thousands, and none may be here.
    return any((root / digest / "result.json").is_file() for digest in list(done)[:3])


def _why(folder: Path) -> str:
    """The last line of error.txt, or how far the run came."""
    if (folder / "error.txt").is_file():
        lines = (folder / "error.txt").read_text(errors="replace").strip().splitlines()
        return f"failed: {lines[-1] if lines else 'without a message'}"
    step, steps = folders.progress(folder)
    return f"stands at step {step} of {steps or '?'}"


def _leaks(rows: Sequence[Row]) -> list[Note]:
    leaked = [
        r for r in rows if (r["leaked_patients"] or 0) + (r["leaked_images"] or 0)
    ]
    if not leaked:
        return []
    names = ", ".join(sorted({f"{r['upstream']} → {r['target']}" for r in leaked}))
    line = (
        f"{len(leaked)} transfers were tested on patients or images that their"
        f" upstream had seen ({names}): their scores are too good."
    )
    return [Note(line, grave=True)]


def _edges(rows: Sequence[Row]) -> list[Note]:
    """How many runs chose an end of their grid, beyond which a better value may lie."""
    tuned = [r for r in rows if r.get("chosen") is not None]
    ends = Counter(f"{r['tuned']}: the {r['edge']}" for r in tuned if r.get("edge"))
    if not ends:
        return []
    words = ", ".join(f"{name} ({n:,})" for name, n in sorted(ends.items()))
    line = (
        f"{ends.total():,} of {len(tuned):,} tuned runs chose an end of their grid"
        f" ({words}): a wider one (config.optim.tune) may give better values."
    )
    return [Note(line)]


def lacking(rows: Sequence[Row]) -> list[str]:
    """The targets whose macro means lack a class, and which."""
    counts = Counter(
        (row["target"], row["lacking"]) for row in rows if row.get("lacking")
    )
    return [
        f"{n} runs on {pretty(target)} have no macro mean: {why}."
        for (target, why), n in counts.items()
    ]


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """The metrics of METRICS that a transfer has a value of."""
    runs = [r for r in rows if r["kind"] == "transfer"]
    return [m for m in METRICS if any(r.get(m) is not None for r in runs)]


def absent(sections: set[str]) -> list[str]:
    """What is not on the page because no run folder is at hand."""
    files = {
        "roc": (
            "ROC, precision-recall and calibration curves, confusions",
            "predictions.npz",
        ),
        "training": ("training curves", "metrics.jsonl"),
    }
    return [
        f"Not drawn: {what}. They need the run folders beside the table, with their {file}."
        for section, (what, file) in files.items()
        if section not in sections
    ]
