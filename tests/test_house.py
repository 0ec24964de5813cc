"""The architecture, checked: floors, sizes, one file for each moving library."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = [
    "tree config presets stats ranking host",
    "models data losses metrics",
    "optim sharding checkpoint folders log evaluate sources resident",
    "protocols analysis finished card",
    "loop trained card",
    "programs",
    "job",
    "train transfer analyze audit predict export study cli",
]
FLOOR = {name: n for n, names in enumerate(FLOORS) for name in names.split()}
SAME_FLOOR = {  # the few who may look sideways
    ("presets", "config"),
    ("metrics", "losses"),
    ("train", "cli"),
    ("transfer", "cli"),
    ("audit", "cli"),
    ("analyze", "cli"),
    ("analyze", "study"),
    ("export", "cli"),
    ("predict", "cli"),
    ("predict", "cli"),
    ("export", "cli"),
    ("optim", "protocols"),  # the HyperRule is a schedule
    ("evaluate", "sharding"),
    ("resident", "sharding"),
}


def modules():
    return sorted((ROOT / "bigxfer").rglob("*.py"))


def imports(path):
    """(bigxfer part, line) of every import of the package in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "bigxfer"
        ):
            parts = node.module.split(".")[1:]
            yield from ([parts[0]] if parts else [alias.name for alias in node.names])


def test_no_import_goes_up():
    wrong = []
    for path in modules():
        own = path.relative_to(ROOT / "bigxfer").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for used in imports(path):
            sideways = used == own or (own, used) in SAME_FLOOR
            if not sideways and FLOOR[used] >= FLOOR[own]:
                wrong.append(f"{path.name} imports {used}")
    assert wrong == []


def test_one_file_for_each_library_that_may_move():
    phantoms = {p.name for p in modules() if p.name.startswith("phantom")}
    homes = {
        r"orbax": {"checkpoint.py"},
        r"clu": {"log.py"},
        r"tensorboardX": {"log.py"},
        r"PIL|pydicom": {"decode.py", "dicom.py", *phantoms},
    }
    wrong = []
    for path in modules():
        text = path.read_text()
        for library, home in homes.items():
            pattern = rf"^\s*(?:import|from) (?:{library})\b"
            if re.search(pattern, text, re.MULTILINE) and path.name not in home:
                wrong.append(f"{path.name} imports {library}")
        if "flax" in text and re.search(r"^(?:import|from) flax", text, re.MULTILINE):
            assert path.parent.name == "models", path
        if re.search(r"\bMesh\(|make_mesh\(", text):
            assert path.name == "sharding.py", path
        if "apply_updates(" in text:
            assert path.name == "loop.py", path
        if re.search(r"\bpickle\.|allow_pickle=True", text):
            wrong.append(f"{path.name} mentions pickle")
    assert wrong == []


def test_files_and_functions_stay_small():
    long = []
    for path in modules():
        text = path.read_text()
        if (lines := len(text.splitlines())) > 365:  # 300 is the aim
            long.append(f"{path.name} {lines}")
        for node in ast.walk(ast.parse(text)):
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if function and node.end_lineno - node.lineno > 75:  # 60 is the aim
                long.append(f"{path.name}:{node.name}")
    assert long == []


def test_import_does_no_work():
    """Importing every module starts no jax backend and defines no flag."""
    names = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for p in modules()
        if p.name != "__main__.py"
    ]
    code = (
        "import importlib\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, 'a backend was started'\n"
        "from absl import flags\n"
        "assert 'config' not in flags.FLAGS\n"
    )
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
