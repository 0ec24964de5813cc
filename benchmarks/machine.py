"""What every benchmark writes beside its numbers: machine, load, commit, versions."""

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from bigxfer.runs import folders


def about() -> dict[str, Any]:
    """As json holds it; call it before the measurement, for the load."""
    return {
        "commit": folders.commit(),
        "versions": folders.versions() | {"python": platform.python_version()},
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "began": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "load": os.getloadavg(),
    }


def processor() -> str:
    """Model, family and stepping: cloud machines hide the name."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    found = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    numbers = " ".join(f"{k} {found[k]}" for k in ("cpu family", "model") if k in found)
    return f"{found.get('model name', platform.machine())} ({numbers})"


def gpu() -> str:
    """Name and memory of the first NVIDIA GPU, "" where there is none."""
    call = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.partition("\n")[0]


def save(path: Path, found: dict[str, Any]) -> None:
    """As indented json, with the load that the measurement ended under."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {**found, "load_at_end": os.getloadavg()}
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written: {path}")
