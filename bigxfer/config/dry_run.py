"""`--dry-run`, the same of every command that writes: check all input, say what would be done.

It computes nothing and writes nothing, but that images which no cache holds are decoded
where a command reads a data set, and stay decoded.
"""

import argparse
import os
import sys
from pathlib import Path

HELP = "Check all input and say what would be done and written; do nothing."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the flag, which argparse stores as `dry_run`."""
    parser.add_argument("--dry-run", action="store_true", help=HELP)


def end(*paths: Path, to_stderr: bool = False) -> None:
    """Say which files or folders would be written, and that nothing was done.

    Raises OSError where one of them could not be written. `to_stderr` is for a command
    whose standard output is a file of the user's.
    """
    out = sys.stderr if to_stderr else sys.stdout
    for path in paths:
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        # Above the path a file is in the way; the path itself may be one.
        if there != path and not there.is_dir():
            raise NotADirectoryError(f"{path}: {there} is no folder")
        if not os.access(there, os.W_OK):
            raise PermissionError(f"{path}: no permission to write at {there}")
        new = "write into" if path.is_dir() else "replace" if there == path else "write"
        print(f"would {new} {path}", file=out)
    print("nothing was done: the same command without --dry-run does it", file=out)
