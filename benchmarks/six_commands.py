"""Time the README's six commands as they are written there.

  python benchmarks/six_commands.py --data KNEES --nih NIH --into FOLDER --bin .venv/bin

Takes the block of README.md between the heading of the six commands and the next text,
cuts it at its `# N.` comments, and runs each piece with bash in FOLDER, so that one piece
may be a loop. $NEW is a folder of eight test images, copied there. Prints a Markdown
table of wall time, processor time and the most memory of each, with the load of the
machine before and after, and keeps what each printed in FOLDER/N.txt.

--steps N shortens the trainings: to see that all works, not to time. It needs the
standard library only: BIN holds the environment that is tried, of a wheel or a clone.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).parents[1] / "README.md"
HEADING = "## Your own images in six commands\n"
NEW = 8  # images to predict


class Took(NamedTuple):
    title: str
    code: int
    wall: float  # seconds
    processor: float
    memory: float  # MB, of the largest process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="$DATA")
    parser.add_argument("--nih", type=Path, required=True, help="$NIH")
    parser.add_argument("--into", type=Path, required=True, help="a new folder")
    parser.add_argument("--bin", type=Path, required=True, help="where bigxfer is")
    parser.add_argument("--steps", type=int, help="of each training, to shorten it")
    args = parser.parse_args()
    # What a former try left would make the trainings return at once.
    args.into.mkdir(parents=True)
    copy_new(args.data, args.into / "new")
    paths = {"DATA": args.data.resolve(), "NIH": args.nih.resolve()}
    paths |= {"NEW": (args.into / "new").resolve()}
    env = os.environ | {name: str(path) for name, path in paths.items()}
    env["PATH"] = f"{args.bin.resolve()}{os.pathsep}{env['PATH']}"
    load, rows = os.getloadavg(), []
    for number, (title, command) in enumerate(pieces(README.read_text()), 1):
        if args.steps:
            command = command.replace("root=$", f"steps={args.steps},root=$")
        print(f"$ {command}", flush=True)
        rows.append(timed(title, command, args.into, env, number))
        print(f"  {rows[-1].wall:.0f} s", flush=True)
        if rows[-1].code:
            print((args.into / f"{number}.txt").read_text()[-3000:])
            break
    print_table(rows, load)
    sys.exit(any(row.code for row in rows))


def pieces(readme: str) -> list[tuple[str, str]]:
    """(title, command) of each numbered comment of the block, the command unindented."""
    block = readme.partition(HEADING)[2].partition("\n[docs/")[0]
    lines = re.findall(r"^    (.*)$|^$", block, re.MULTILINE)
    cut = re.split(r"^# \d+\. (.+)$", "\n".join(lines), flags=re.MULTILINE)[1:]
    return [(t, c.strip()) for t, c in zip(cut[::2], cut[1::2], strict=True)]


def copy_new(data: Path, into: Path) -> None:
    """Copy the first images of the test split, of a set that has split folders."""
    into.mkdir()
    images = sorted(p for p in (data / "test").rglob("*") if p.is_file())[:NEW]
    if not images:
        sys.exit(f"error: no images below {data / 'test'}")
    for image in images:
        shutil.copy(image, into)


def timed(title: str, command: str, into: Path, env: dict, number: int) -> Took:
    """Run one piece in a shell of its own and wait for it."""
    began = time.monotonic()
    with open(into / f"{number}.txt", "w") as said:
        # -e: in a loop, the first failure is the piece's.
        call = ["bash", "-ec", command]
        process = subprocess.Popen(
            call, cwd=into, env=env, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)  # the children's use with it
    code = process.returncode = os.waitstatus_to_exitcode(status)
    seconds = used.ru_utime + used.ru_stime
    return Took(title, code, time.monotonic() - began, seconds, used.ru_maxrss / 1024)


def print_table(rows: list[Took], load: tuple[float, ...]) -> None:
    print("\n| command | wall time | processor time | memory |")
    print("|---|---|---|---|")
    for number, row in enumerate(rows, 1):
        failed = f" (exit {row.code})" if row.code else ""
        times = f"{clock(row.wall)} | {clock(row.processor)} | {row.memory:,.0f} MB"
        print(f"| {number}. {row.title}{failed} | {times} |")
    wall, processor = (sum(r[i] for r in rows) for i in (2, 3))
    print(f"| all | {clock(wall)} | {clock(processor)} | |")
    ends = " and ".join(f"{each[0]:.1f}" for each in (load, os.getloadavg()))
    print(f"\nLoad before and after: {ends}, on {len(os.sched_getaffinity(0))} cores.")


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


if __name__ == "__main__":
    main()
