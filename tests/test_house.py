"""The architecture, checked: floors, sizes, one file for each moving library."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The house: rooms (packages and files of bigxfer/) from the ground up. A module imports
# only from the lines below its own, or from its own room in the order of INSIDE.
FLOORS = """\
durable
tree host
config
presets
cli models statistics
data
protocols
training
runs
tables
scaling
report
analysis study
train transfer audit analyze predict export
__main__ api""".splitlines()
# Within these rooms too: what stands on one line does not know its neighbours.
INSIDE = {
    "bigxfer.config": """
schema dry_run
checks
""",
    "bigxfer.data": """
manifest augment
split labels sampling npz
fewshot unions
readers pixels phantom
loader fetch
registration images
duplicates identity
dataset
exposure shortcuts external
""",
    "bigxfer.study": """
claims bit_size
grid
cost design
pilot
commands
__main__
""",
    "bigxfer.scaling": """
guesses laws
forms
solver
fit
bootstrap choice
scatter crossover
forecast trend
reach
curves
crossings surfaces
""",
    "bigxfer.report": """
style templates audit_verdicts
audit_page
figures findings overview groups upstreams
figures_pairs figures_predictions figures_ranking figures_scaling
figures_roc figures_training laws_table
page
""",
    "launch": """
profile shares slot
worker
pool
node profiles local
slurm tpu
""",
}


def modules():
    return sorted((ROOT / "bigxfer").rglob("*.py"))


def imported(source):
    """The dotted names that a source text imports from bigxfer, launch and configs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name


def floors(text):
    return {name: n for n, line in enumerate(text) for name in line.split()}


def imports_up(module, source):
    """What a module (dotted name) imports from its own floor or one above it."""
    rooms = {"bigxfer": floors(FLOORS)}
    rooms |= {room: floors(text.strip().split("\n")) for room, text in INSIDE.items()}
    wrong = []
    for used in imported(source):
        for room, floor in rooms.items():
            if not used.startswith(f"{room}.") or not module.startswith(f"{room}."):
                continue
            own, other = (x[len(room) + 1 :].split(".")[0] for x in (module, used))
            if other == "__version__" or own in (other, "__init__"):
                continue
            if other not in floor or own not in floor or floor[other] >= floor[own]:
                wrong.append(f"{module} imports {used}")
    return wrong


def test_no_import_goes_up():
    wrong = []
    for path in [*modules(), *sorted((ROOT / "launch").rglob("*.py"))]:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        wrong += imports_up(module, path.read_text())
    # A config knows the schema, the presets and the HyperRule, which is arithmetic.
    known = ("bigxfer.config.", "bigxfer.presets.", "bigxfer.protocols.hyperrule.")
    for path in sorted((ROOT / "configs").glob("*.py")):
        wrong += [
            f"{path.name} imports {used}"
            for used in imported(path.read_text())
            if used.startswith("bigxfer") and not f"{used}.".startswith(known)
        ]
    assert wrong == []


def test_every_room_has_its_floor():
    rooms = {p.name.removesuffix(".py") for p in (ROOT / "bigxfer").iterdir()}
    assert rooms - {"__pycache__", "__init__", "py.typed"} == set(floors(FLOORS))


def test_a_file_on_the_wrong_floor_is_found():
    assert imports_up("bigxfer.tree", "from bigxfer import models")
    assert imports_up("bigxfer.data.manifest", "from bigxfer.data.dataset import open")
    assert imports_up("bigxfer.data.split", "from bigxfer.data import fewshot")
    assert imports_up("bigxfer.newcomer", "from bigxfer import tree")
    assert not imports_up("bigxfer.data.loader", "from bigxfer.data import manifest")


def test_one_file_for_each_library_that_may_move():
    phantoms = {p.name for p in modules() if p.parent.name == "phantom"}
    homes = {
        r"orbax": {"checkpoint.py"},
        r"clu": {"log.py"},
        r"tensorboardX|wandb|mlflow": {"writers.py"},
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


def too_large(name, source):
    """The name, if a file has over 330 lines; its functions of over 60, or 8 arguments."""
    if (lines := len(source.splitlines())) > 330:  # 300 is the aim
        yield f"{name}: {lines} lines"
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if (lines := node.end_lineno - node.lineno + 1) > 60:  # 40 is the aim
            yield f"{name}:{node.name}: {lines} lines"
        a = node.args
        names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
        if (count := len({*names} - {"self", "cls"})) > 7:
            yield f"{name}:{node.name}: {count} arguments"


def test_files_and_functions_stay_small():
    rooms = (ROOT / x for x in ("launch", "configs", "benchmarks"))
    paths = [*modules(), *(path for room in rooms for path in room.glob("*.py"))]
    large = [x for path in paths for x in too_large(path.name, path.read_text())]
    assert large == []


def test_few_files_lie_outside_the_rooms():
    assert len(list((ROOT / "bigxfer").glob("*.py"))) <= 14


def test_what_is_too_large_is_found():
    assert [*too_large("a", "x = 1\n" * 331)] == ["a: 331 lines"]
    long = "def f(self, a, b, c, d, e, f, g):\n" + "    x = 1\n" * 60
    assert [*too_large("a", long)] == ["a:f: 61 lines"]
    assert [*too_large("a", "def f(a, b, c, d, e, f, *, g, h): ...")] == [
        "a:f: 8 arguments"
    ]


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


def test_the_lock_has_every_requirement_by_hash_and_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    locked = dict(
        re.findall(
            r"^([\w.-]+)==\S+.*? \\\n((?:    --hash=\S+.*\n?)+)", lock, re.MULTILINE
        )
    )
    assert lock.count("==") - lock.count(" == '") == len(locked)
    wanted = "".join((ROOT / f"requirements{x}.txt").read_text() for x in ("", "-dev"))
    for name in re.findall(r"^[A-Za-z][\w-]*", wanted, re.MULTILINE):
        assert name.lower().replace("_", "-") in locked, name
    assert "://" not in lock and "file:" not in lock
