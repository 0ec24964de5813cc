"""`plan`: how many draws, upstream seeds and test patients a study needs, and their price."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bigxfer.study.commands.listing import TFLOPS
from bigxfer.tables import table_args

if TYPE_CHECKING:
    from bigxfer.study.design import Design, Goal, Variances
    from bigxfer.study.pilot import Pilot

SHOWN = 12  # designs that are printed
TIMES = (1, 2, 4, 8)  # the patients that are tried, as multiples of the pilot's
FACTORS = ("upstreams", "draws", "runs", "patients")


def add(commands) -> None:
    p = commands.add_parser("plan", help="how large a study must be, cheapest first")
    table_args.add_arguments(p)
    p.add_argument("--metric", default="auroc_macro", help="what is to be compared")
    for name in ("target", "model", "shots"):
        p.add_argument(
            f"--{name}", default="", help="of the pilot, where it has several"
        )
    text = (
        "a line of the pilot, as `collect` and the report name it; default: widest pair"
    )
    p.add_argument("--a", default="", help=text)
    p.add_argument("--b", default="", help="the line that it is compared with")
    p.add_argument("--half-width", type=float, default=0.0, help="wanted, of 95%%")
    p.add_argument("--effect", type=float, default=0.0, help="to be told from none")
    p.add_argument("--power", type=float, default=0.8, help="with this probability")
    p.add_argument(
        "--sd",
        nargs="+",
        default=[],
        metavar="FACTOR=SD",
        help="in place of a pilot: upstreams= and runs= of a side, draws= and patients="
        " of the difference, such as upstreams=.02 draws=.03 runs=.02 patients=.6",
    )
    p.add_argument("--patients", type=int, nargs="+", help="numbers that can be had")
    text = "probability that the study reaches it, given how uncertain a pilot is"
    p.add_argument("--assurance", type=float, default=0.8, help=text + "; 0: estimates")
    text = f"count hours by FLOPs at this speed ({TFLOPS:g}: an A100), not as measured"
    p.add_argument("--tflops", type=float, default=0.0, help=text)
    p.set_defaults(call=plan)


def plan(args: argparse.Namespace) -> None:
    """Print the designs that reach the goal, or the reason why none can be told."""
    from bigxfer.study import design

    if bool(args.half_width) == bool(args.effect):
        raise ValueError("give --half-width X or --effect X, one of them, such as 0.02")
    for name, top in (("half_width", 1), ("effect", 1), ("power", 1), ("assurance", 1)):
        value = getattr(args, name)
        if not 0 <= value < top:
            raise ValueError(
                f"--{name.replace('_', '-')} {value:g} is not within [0, 1)"
            )
    if args.sd:
        variances, sides, patients, family = _given(args)
        print(f"Planned from given standard deviations, {', '.join(args.sd)}.")
    else:
        pilot, sides, family, name = _pilot(args)
        variances, patients = pilot.variances, [n * pilot.patients for n in TIMES]
        print(f"{name}, by {args.metric}.\n{told(pilot)}")
    goal = design.Goal(args.half_width, args.effect, args.power, family)
    # Standard deviations that are given are taken as known.
    assurance = 0.0 if args.sd else args.assurance
    patients = sorted(set(args.patients or patients))
    designs = design.reaching(variances.upper(assurance), goal, patients)
    print(wanted(goal, assurance))
    print("\n".join(table(designs, sides, variances.draws is not None)))


# ---- what is known -----------------------------------------------------------------


@dataclass(frozen=True)
class Priced:
    """One side of a comparison: what it has, and the device-hours of more of it."""

    scratch: bool
    seeds: int  # upstream seeds that are run, or trainings from scratch at full data
    draws: int
    upstream: float  # hours of one upstream; 0 from scratch, NaN where unknown
    transfer: float

    def adds(self, d: "Design", full: bool) -> tuple[int, int, float]:
        """(upstreams, transfers, hours) that the design has beyond what is run."""
        # From scratch there is no upstream to repeat, but at full data a training to.
        seeds = 1 if self.scratch and not full else d.upstreams
        upstreams = 0 if self.scratch else max(seeds - self.seeds, 0)
        both = min(seeds, self.seeds) * min(d.draws, self.draws)
        # Runs of the pilot that fit the design count as done.
        transfers = seeds * d.draws - both
        price = upstreams * self.upstream if upstreams else 0.0
        # NaN, an unknown price, must not count where none of it is bought.
        return upstreams, transfers, price + (transfers and transfers * self.transfer)


def _given(
    args: argparse.Namespace,
) -> tuple["Variances", list[Priced], list[int], int]:
    """The variances of --sd, and the prices of a config that may be given with it."""
    from bigxfer.study import cost, grid
    from bigxfer.study.design import Variances

    full = args.shots == "full"
    # At full data no draw is shared, and each training is an upstream seed of its own.
    needed = [f for f in FACTORS if not (full and f in ("draws", "runs"))]
    try:
        sd = {k: float(v) for k, _, v in (text.partition("=") for text in args.sd)}
    # One pair may lack what another has: the first reason is told if none is left.
    except ValueError as error:
        raise ValueError(f"--sd takes FACTOR=NUMBER: {error}") from error
    if set(sd) != set(needed) or not all(0 <= v < math.inf for v in sd.values()):
        raise ValueError(
            f"--sd needs {', '.join(f + '=' for f in needed)} and no other, each 0 or more"
            + (
                " (at full data)"
                if full
                else " (with --shots full only upstreams= and patients=)"
            )
        )
    if not args.patients:
        raise ValueError("--sd needs --patients N: the numbers of test patients to try")
    upstream = transfer = math.nan
    if args.config:
        study = grid.nodes(args.config)
        hours = cost.hours(study, args.tflops or TFLOPS)
        shots = {args.shots} if args.shots else {n.run.data.shots for n in study}
        upstream = _mean([hours[n.digest] for n in study if n.kind == "upstream"])
        transfer = _mean(
            [
                hours[n.digest]
                for n in study
                if n.kind == "transfer" and n.run.data.shots in shots
            ]
        )
    side = Priced(False, 0, 0, upstream, transfer)
    return Variances.given(sd, full), [side, side], args.patients, 1


def _pilot(args: argparse.Namespace) -> tuple["Pilot", list[Priced], int, str]:
    """(the pilot, its sides, the size of its family, its name)."""
    from bigxfer.study.pilot import of_pilot
    from bigxfer.tables import cells, differences, families, lines

    study_table = table_args.given(args)
    rows, _ = lines.lines(study_table.rows)
    for column in ("target", "model", "shots"):
        # A plan is for one comparison, and variances differ between targets and shots.
        rows = _one(rows, column, getattr(args, column), study_table.path)
    predictions = cells.PredictionReader(study_table.find)
    compared = families.compare_all(rows, args.metric, predictions)
    every = [c for f in compared for c in f.found.values()]
    if not every:
        raise ValueError(
            f"{study_table.path} has no two lines to compare by {args.metric}"
        )
    names = sorted({side[1] for c in every for side in (c.a, c.b)})
    wanted = {args.a, args.b} - {""}
    if missing := sorted(wanted - set(names)):
        raise ValueError(f"no line {missing[0]!r}; there are {', '.join(names)}")
    every = [c for c in every if wanted <= {c.a[1], c.b[1]}]
    pilots, reason = [], None
    for c in every:
        sides = [
            cells.group(differences.select(rows, line=side[1]), args.metric, "line")
            for side in (c.a, c.b)
        ]
        a, b = (runs[side[1],] for runs, side in zip(sides, (c.a, c.b), strict=True))
        try:
            pilot_of_pair = of_pilot(a, b, args.metric, predictions)
        except ValueError as error:
            reason = reason or error
            continue
        pilots.append((c.difference.high - c.difference.low, c, pilot_of_pair))
    if not pilots:
        raise reason or ValueError("no pair of lines to plan from")
    # The widest pair: what is planned for it is enough for the others.
    _, c, pilot = max(pilots, key=lambda p: p[0])
    where = f"{c.about['target']}, {c.a[0]}, shots {c.about['shots']}"
    others = f", the widest of {len(pilots)} pairs" if len(pilots) > 1 else ""
    name = f"{c.a[1]} minus {c.b[1]} on {where}{others}"
    return pilot, _priced(pilot, _hours(args, study_table)), max(c.size, 1), name


def _one(rows: list, column: str, value: str, path: Path) -> list:
    """The rows with this value of the column; ValueError where it leaves a choice."""
    values = sorted({row[column] for row in rows})
    if value and value not in values:
        raise ValueError(f"{path} has no {column} {value!r}, but {', '.join(values)}")
    if not value and len(values) > 1:
        raise ValueError(f"say which: --{column} {' or '.join(values)}")
    return [row for row in rows if row[column] == (value or values[0])]


def _hours(args: argparse.Namespace, study_table: table_args.Given) -> dict[str, float]:
    """{digest: device-hours}: as measured, or by FLOPs where --tflops is given."""
    from bigxfer.study import cost, grid

    if args.tflops:
        if not args.config:
            raise ValueError("--tflops counts the FLOPs of a config: give --config too")
        return cost.hours(grid.nodes(args.config), args.tflops)
    return {
        row["digest"]: row["device_seconds"] / 3600
        for row in study_table.rows
        if row["device_seconds"] is not None
    }


def _priced(pilot: "Pilot", hours: dict[str, float]) -> list[Priced]:
    sides = []
    for i, grid in enumerate(pilot.pair.grids):
        sources = {row["upstream_digest"] for row in grid.rows}
        shared = i > 0 and len(pilot.pair.sides) == 1  # the first side pays for them
        scratch = not grid.upstreams
        sides.append(
            Priced(
                scratch,
                len(grid.places),
                max(len(grid.draws), 1),
                0.0 if scratch or shared else _mean([hours.get(s) for s in sources]),
                _mean([hours.get(row["digest"]) for row in grid.rows]),
            )
        )
    return sides


def _mean(values: Sequence[float | None]) -> float:
    """Return the mean of the values that are known; NaN if there are none."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else math.nan


# ---- what is said ------------------------------------------------------------------


def told(pilot: "Pilot") -> str:
    """The design of the pilot and its standard deviations."""
    v, p = pilot.variances, pilot.patients
    counts = [len(grid.places) for grid in pilot.pair.grids if grid.upstreams]
    seeds = " and ".join(map(str, dict.fromkeys(counts))) or "no"
    words = [f"{seeds} upstream seeds", f"{p} test patients"]
    if v.draws is not None:
        words.insert(1, f"{pilot.pair.sides[0].points.shape[1]} draws")
    sds = [("an upstream seed", s) for s in v.upstreams]
    if v.draws is not None:
        sds.append(("a draw", v.draws))
    sds += [("a run", s) for s in v.runs]
    said = [f"{name} {math.sqrt(s.at(p)):.3f}" for name, s in sds]
    said.append(f"a patient {math.sqrt(v.patients.own):.3f}")
    return f"Pilot: {', '.join(words)}. Standard deviations: {', '.join(said)}."


def wanted(goal: "Goal", assurance: float) -> str:
    sure = f", with {assurance:.0%} assurance from this pilot" if assurance else ""
    if goal.half_width:
        return f"Wanted: a 95% interval of ±{goal.half_width:g} on average{sure}.\n"
    holm = f" (Holm over {goal.family})" if goal.family > 1 else ""
    return (
        f"Wanted: a difference of {goal.effect:g} told from none in {goal.power:.0%} of"
        f" such studies{holm}{sure}.\n"
    )


def table(
    designs: "Sequence[tuple[Design, float]]", sides: Sequence[Priced], drawn: bool
) -> list[str]:
    """A line a design, cheapest first."""
    from bigxfer.runs import terminal
    from bigxfer.study import design
    from bigxfer.study.commands.listing import hours

    if not designs:
        line = (
            f"No study of up to {design.MOST} upstream seeds and {design.MOST} draws"
            " reaches it with these patients. Want less, or give --patients more."
        )
        return [line]
    lines = []
    for d, reached in designs:
        upstreams, transfers, price = (
            sum(values) for values in zip(*(s.adds(d, not drawn) for s in sides))
        )
        lines.append((price, upstreams + transfers, d, reached, upstreams, transfers))
    # NaN, of hours that nobody recorded, sorts by the number of runs.
    lines.sort(key=lambda x: (0.0 if math.isnan(x[0]) else x[0], x[1], x[2].patients))
    titles = ["upstream seeds", "draws", "patients", "reaches"]
    titles += ["upstreams more", "transfers more", "device time"]
    rows = []
    for price, _, d, reached, upstreams, transfers in lines[:SHOWN]:
        seeds, draws = d.upstreams, d.draws if drawn else "-"
        time = "unknown" if math.isnan(price) else hours(price)
        row = [seeds, draws, d.patients, f"{reached:.3f}", upstreams, transfers, time]
        rows.append(row)
    out = terminal.columns(titles, rows).split("\n")
    if len(lines) > SHOWN:
        out.append(f"and {len(lines) - SHOWN} dearer ones")
    return [*out, "\nTest patients cost no device time here, but labels."]
