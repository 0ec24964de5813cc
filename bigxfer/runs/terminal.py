"""What the mains print of a run that is done."""

from pathlib import Path
from typing import Any

from bigxfer.data import exposure
from bigxfer.runs.markdown import cell


def show(result: dict[str, Any], folder: Path) -> None:
    """Print what result.json says: metrics with their intervals, leaks, the folder."""
    mark = "SYNTHETIC " if result["synthetic"] else ""
    print(f"\n{mark}test metrics with 95% intervals over patients")
    for name, entry in result["metrics"].items():
        reason = entry.get("reason", "" if entry["low"] is not None else "no interval")
        print(f"  {name:28} {cell(entry):5}  {reason}".rstrip())
    for where, leaks in result.get("leaks", {}).items():
        if leaks["first"]:
            print(exposure.line(where, leaks))
    print(f"run folder: {folder}")
