"""Coverage and width of every printed kind of 95% interval, on simulated (synthetic) studies.

    python benchmarks/coverage.py [--simulations 2000] [--minutes 4] [--only mean family]
    python benchmarks/coverage.py --table > benchmarks/results/coverage.md

Truths come from the description of each simulation, never from the code that is judged.
Groups of rows are saved in results/coverage.json as they are done; a call goes on where the
last one stopped, and computes a group anew where fewer simulations are saved. `--table`
prints all tables; README.md shows the first. coverage_laws.py judges laws and crossovers.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import coverage_cells
import coverage_claims
import coverage_runs
import coverage_seeds

HERE = Path(__file__).parent
SAVED = HERE / "results" / "coverage.json"
HEAD = """\
| interval | settings | least | mean | most | outside .93 to .99 \
| width over ideal, mean and most | power at 100, 300 patients |
|---|---|---|---|---|---|---|---|"""
RUNS = ("run, one class", "run, multi-label", "run, operating point")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=1e9, help="start none after")
    parser.add_argument("--only", nargs="+", default=[], help="parts of kinds' names")
    parser.add_argument("--anew", action="store_true", help="also what is saved")
    parser.add_argument("--table", action="store_true", help="print, simulate nothing")
    args = parser.parse_args()
    saved = load()
    if args.table:
        print("\n".join(table(saved)))
        return
    commit = git("rev-parse", "--short", "HEAD")
    if git("status", "--porcelain", "--", "../bigxfer", "*.py"):
        commit += ", changed"
    start = time.monotonic()
    modules = coverage_cells, coverage_seeds, coverage_claims, coverage_runs
    for module in modules:
        for kind, setting, simulate in module.settings():
            name = f"{kind}: {setting}"
            done = saved.get(name, {}).get("asked", 0)
            if args.only and not any(word in name for word in args.only):
                continue
            if done >= args.simulations and not args.anew:
                continue
            if time.monotonic() - start > 60 * args.minutes:
                return
            began = time.process_time()
            rows = simulate(args.simulations)
            seconds = round(time.process_time() - began, 1)
            about = {"asked": args.simulations, "commit": commit, "seconds": seconds}
            saved = load()  # another call may have added to it
            saved[name] = {**about, "rows": rows}
            SAVED.write_text(json.dumps(saved, indent=1) + "\n")
            print(f"{name}: {seconds} s", flush=True)
    print("nothing left")


Found = list[tuple[str, str, dict]]  # (setting, row's name, numbers)


def git(*words: str) -> str:
    return subprocess.check_output(["git", *words], cwd=HERE, text=True).strip()


def load() -> dict:
    return json.loads(SAVED.read_text()) if SAVED.is_file() else {}


def table(saved: dict) -> list[str]:
    """All tables, from what is saved; first the intervals over all metrics and seeds."""
    found: dict[str, Found] = {}
    for name, group in saved.items():
        kind, _, setting = name.partition(": ")
        found.setdefault(kind, []).extend((setting, *r) for r in group["rows"].items())
    brief, out = [HEAD], [HEAD]
    for kind in (kind for kind in RUNS if kind in found):
        brief.append(_line(kind, found[kind]))
        for metric in dict.fromkeys(row for _, row, _ in found[kind]):
            rows = [f for f in found[kind] if f[1] == metric]
            out.append(_line(f"{kind}: {metric}", rows))
    for kind in ("mean", "difference"):
        places = list(dict.fromkeys(_place(row) for _, row, _ in found.get(kind, [])))
        for draws in sorted({place.split(", ")[1] for place in places}):
            rows = [f for f in found[kind] if _place(f[1]).endswith(draws)]
            brief.append(_line(f"{kind}, {draws}", rows))
        for place in places:
            rows = [f for f in found[kind] if _place(f[1]) == place]
            out.append(_line(f"{kind}: {place}", rows))
    out = [*brief, "", *out]
    for kind in ("few seeds, by normal luck", "few seeds, by scores"):
        if kind in found:
            out += ["", *_few(kind, found[kind])]
    for kind in ("family", "false claim", "false claim, two runs"):
        if kind in found:
            out += ["", *_shares(kind, found[kind])]
    return out


def _place(row: str) -> str:
    """ "auroc, 3 and 3 seeds, 5 draws" -> "3 and 3 seeds, 5 or 10 draws"."""
    seeds, draws = row.split(", ")[1:]
    several = {"5 draws": "5 or 10 draws", "10 draws": "5 or 10 draws"}
    return f"{seeds}, {several.get(draws, draws.replace('full draws', 'full data'))}"


def _line(what: str, rows: Found) -> str:
    """One line over all settings; the power is of finding 0.05 at an AUROC of .80."""
    numbers = [n for *_, n in rows if n["coverage"] is not None]
    covered = [n["coverage"] for n in numbers]
    least, most, mean = min(covered), max(covered), sum(covered) / len(covered)
    outside = sum(not 0.93 <= c <= 0.99 for c in covered)
    cells = [
        str(len(covered)),
        *(f"{c:.3f}" for c in (least, mean, most)),
        str(outside),
    ]
    wide = [n["over_ideal"] for n in numbers if "over_ideal" in n]
    cells.append(f"{sum(wide) / len(wide):.2f}, {max(wide):.2f}" if wide else "")
    power = [
        [n["power"] for s, _, n in rows if s.startswith(p) and "AUROC .80" in s]
        for p in ("100 ", "300 ")
    ]
    means = [f"{sum(x) / len(x):.2f}" if x else "?" for x in power]
    cells.append(", ".join(means) * what.startswith("difference"))
    return f"| {what} | {' | '.join(cells)} |"


def _few(kind: str, rows: Found) -> list[str]:
    """Over all settings; of the shares that are told from 0 the mean and the most."""
    levels = [name for name in rows[0][2] if name.startswith("told")]
    titles = [kind, "settings", "coverage, least and most", "width over ideal", *levels]
    out = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for place in dict.fromkeys(row for _, row, _ in rows):
        numbers = [n for _, row, n in rows if row == place]
        covered = [n["coverage"] for n in numbers]
        cells = [str(len(numbers)), f"{min(covered):.3f}, {max(covered):.3f}"]
        cells.append(f"{sum(n['over_ideal'] for n in numbers) / len(numbers):.2f}")
        for level in levels:
            told = [n[level] for n in numbers]
            cells.append(f"{sum(told) / len(told):.5f}, {max(told):.4f}")
        out.append(f"| {place} | {' | '.join(cells)} |")
    return out


def _shares(kind: str, rows: Found) -> list[str]:
    """Shares over all settings: the least and the most of each column."""
    columns = dict.fromkeys(name for *_, n in rows for name in n)
    columns.pop("simulations", None)
    out = [f"| {kind} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for place in dict.fromkeys(row for _, row, _ in rows):
        cells = []
        for column in columns:
            values = [
                value
                for _, row, numbers in rows
                for name, value in numbers.items()
                if row == place and name == column and value is not None
            ]
            span = f"{min(values):.3f} to {max(values):.3f}" if values else ""
            cells.append(span)
        out.append(f"| {place} | {' | '.join(cells)} |")
    return out


if __name__ == "__main__":
    main()
