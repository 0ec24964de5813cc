"""The rows that docs/answer.md tells of: which, and how they are compared."""

import csv
import functools
from collections.abc import Sequence
from pathlib import Path

from bigxfer import config
from bigxfer.runs import cells as runs_of_cells
from bigxfer.study import grid
from bigxfer.tables import bundle, cells, compact, differences, slopes, table
from bigxfer.tables.cells import PredictionReader, Runs
from bigxfer.tables.differences import Comparison
from bigxfer.tables.table import Row

ROOT = Path(__file__).parents[1]
TABLE, BUNDLE, AUDITS = (
    ROOT / "colabs" / f"real_{name}"
    for name in ("runs.csv", "bundle.npz", "audits.csv")
)
STUDY = "configs/study_real.py"
PARTS = ("contrast", "sizes", "fractions", "nets", "domains", "shots")
DRAWS, MOST_SEEDS = 8, 3  # of heads at few shots whose predictions are kept
METRIC, TARGET, NET = "auroc_macro", "knee_oa", "R26x0.25"
MARGIN, FLAT = 0.02, 0.005  # of a comparison, and of a slope: as the study says
TINY, SIX, MODALITIES = "imagenet21k-tiny", "imagenet21k-tiny-six", "mednist"
HEAD, TUNED = "ridge head", ""
CELLS = [(width, n) for width in (0.125, 0.25) for n in (705, 2_820, 11_281, 45_125)]
CELLS += [(0.5, 705), (0.5, 45_125)]  # of the primary slopes: widths, photographs
SHOTS = (("1", HEAD), ("5", HEAD), ("10", HEAD), ("full", TUNED))
Line = tuple[str, int | None]  # upstream, images; None: all there are
CLAIMS: tuple[tuple[str, Line, Line, tuple], ...] = (
    ("Pre-training", (TINY, 45_125), ("scratch", None), SHOTS[-1:]),
    ("Scale", (TINY, 45_125), (TINY, 705), SHOTS),
    ("Domain and labels", (MODALITIES, 11_281), (TINY, 11_281), SHOTS),
    ("Domain, six classes each", ("mednist-six", None), (SIX, None), SHOTS),
)
COMPARED = {line for _, a, b, _ in CLAIMS for line in (a, b)}


def gather(runs: Path, features: str) -> None:
    """Add the study's runs in a folder to the table, those that `kept` names to the bundle.

    What both files have of other machines stays, also where a run was done here again:
    what is published does not change unnoticed. Remove both files to begin anew.
    """
    digests = {*of_parts(), *planned("encoders", features), *planned("rates")}
    found = table.collect([runs], runs / "answer", "real")
    rows, former = [], None
    if TABLE.exists():
        rows, former = compact.load(TABLE), bundle.BundleReader(BUNDLE)
    known = {row["digest"] for row in rows}
    rows += [
        r for r in found.rows if r["digest"] in digests and r["digest"] not in known
    ]
    print(f"{len(rows) - len(known)} runs of the study are new, {len(rows)} in {TABLE}")
    compact.write(rows, TABLE)
    few = [row for row in rows if kept(row)]
    written = bundle.write(few, PredictionReader(), BUNDLE, former)
    print(
        f"{written.runs} runs in {BUNDLE}, {written.size:,} bytes; float16 moves a macro"
        f" AUROC by {written.moved:.1e} at most"
    )


def read_audits() -> list[list[str]]:
    """The lines of the audits that are done, without their head."""
    if not AUDITS.is_file():
        return []
    with AUDITS.open(newline="") as file:
        return list(csv.reader(file))[1:]


def kept(row: Row) -> bool:
    """Whether the bundle has a run: all at full data, of heads the first draws of the page."""
    if row["kind"] != "transfer" or row["shots"] == "full":
        return row["kind"] == "transfer"
    few = row["seed"] < DRAWS and (row["upstream_seed"] or 0) < MOST_SEEDS
    of_page = row["width"] is None or any(is_of(row, line) for line in COMPARED)
    return few and head_of(row) == HEAD and of_page


def of_parts() -> set[str]:
    """The digests of all runs of PARTS."""
    return {digest for part in PARTS for digest in planned(part)}


@functools.cache
def planned(part: str, features: str = "") -> dict[str, config.Run]:
    """The runs of a part by digest; of a cell of several draws, each draw."""
    out = {}
    for node in grid.nodes(f"{STUDY}:part={part},features={features}"):
        if node.kind == "cache":
            continue
        several = node.run.data.draws > 1
        for run in runs_of_cells.draws(node.run) if several else [node.run]:
            out[config.digest(run) if several else node.digest] = run
    return out


def upstream_of(row: Row) -> str:
    """Its upstream; of features from a file, which have no width, the encoder's name."""
    return row["model"] if row["width"] is None else row["upstream"]


def images_of(row: Row) -> int | None:
    """How many images its upstream was trained on; not told of an encoder's."""
    return None if row["width"] is None else row["upstream_size"]


def is_of(row: Row, line: Line) -> bool:
    upstream, images = line
    ours = row["model"] == NET or row["width"] is None
    same = ours and upstream_of(row) == upstream
    return same and images in (None, row["upstream_size"])


def head_of(row: Row) -> str:
    return row["start"] or TUNED


def line_name(line: Line) -> str:
    names = {TINY: "photographs", SIX: "photographs of six classes"}
    names |= {MODALITIES: "modalities", "mednist-six": "six modalities"}
    names |= {"nih": "chest films", TARGET: "knees"}
    name = names.get(line[0], line[0])
    return f"{line[1]:,} {name}" if line[1] else name


class Answer:
    """The rows of the study and their predictions, and what they say."""

    def __init__(self, rows: Sequence[Row], predictions: PredictionReader) -> None:
        self.rows, self.predictions = list(rows), predictions
        tried = planned("rates")  # a run at the study's own rate is in its cell too
        own = of_parts()
        self.known = [
            r
            for r in self.rows
            if r["kind"] == "transfer"
            and kept(r)
            and (r["digest"] not in tried or r["digest"] in own)
        ]
        self.tried: dict[float, list[Row]] = {}  # rate: fine-tunings at full data
        for row in self.rows:
            if row["digest"] in tried and row["kind"] == "transfer":
                rate = tried[row["digest"]].optim.lr
                self.tried.setdefault(rate, []).append(row)

    def select(self, line: Line, shots: str, head: str, target: str = TARGET) -> Runs:
        """{(upstream seed, seed): run} of one cell of NET."""
        every = [
            row
            for row in self.known
            if row["target"] == target
            and is_of(row, line)
            and (row["shots"], head_of(row)) == (shots, head)
            and row["protocol"] != "hyperrule-code"
        ]
        return {cells.seeds(row): row for row in every}

    def of_one_net(self) -> list[slopes.Slope]:
        """The slope over images of NET alone, no primary one; [] where a cell is missing."""
        by_net = self.by_net()
        places = [place for place in CELLS if place[0] == 0.25]  # the width of NET
        if not set(places) <= set(by_net):
            return []
        rows = [row for place in places for row in by_net[place]]
        return slopes.slopes(rows, METRIC, self.predictions, FLAT)

    def slopes(self) -> tuple[list[slopes.Slope], str]:
        """The primary slopes, or why there are none."""
        by_net = self.by_net()
        places = [place for place in CELLS if place in by_net]
        if len(places) < len(CELLS):
            return [], f"{len(places)} of its {len(CELLS)} cells are there"
        rows = [row for place in places for row in by_net[place]]
        return slopes.slopes(rows, METRIC, self.predictions, FLAT), ""

    def comparisons(self) -> dict[tuple[str, str], Comparison]:
        """{(claim, shots): comparison}, Holm over all of them."""
        found = {}
        for name, a, b, places in CLAIMS:
            for shots, head in places:
                sides = (self.select(line, shots, head) for line in (a, b))
                d = differences.difference(*sides, METRIC, self.predictions, MARGIN)
                if d:
                    about = {"target": TARGET, "metric": METRIC, "shots": shots}
                    names = (NET, line_name(a)), (NET, line_name(b))
                    found[name, shots] = Comparison(
                        about, *names, d, "the claims", margin=MARGIN
                    )
        return differences.adjusted(found)

    def by_net(self) -> dict[tuple[float, int], list[Row]]:
        """{(width, photographs or 0 from scratch): fine-tuned at full data}, sorted."""
        found: dict[tuple[float, int], list[Row]] = {}
        for row in self.known:
            tuned = (row["shots"], head_of(row)) == ("full", TUNED)
            start = row["upstream"] in (TINY, "scratch") and row["protocol"] == "cosine"
            if row["target"] == TARGET and tuned and start:
                place = row["width"], row["upstream_size"] or 0
                found.setdefault(place, []).append(row)
        return dict(sorted(found.items()))
