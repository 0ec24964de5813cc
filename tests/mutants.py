"""Do the tests guard? Change one operator or number at a time and run the module's tests.

  python tests/mutants.py --seed 1 --count 100        # or: make mutants SEED=1

Draws mutants of the core modules at random by the seed, each in a copy of the source tree,
and runs the test files that import the module, the fast ones first. A mutant is killed when
a test fails (or takes ten times its usual time). Prints a line for each survivor, then the
share killed. Survivors that change nothing which matters stand in mutants_accepted.txt with
the reason, and are not drawn. Exit status 1 below 90%.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parents[1]
ACCEPTED = Path(__file__).with_name("mutants_accepted.txt")
# Rooms whose numbers reach a table; readers, mains and pages have other guards.
CORE = (
    *("models/parts.py", "models/parts_cpu.py", "models/bit.py", "models/weights.py"),
    *("data/split.py", "data/fewshot.py", "data/labels.py", "data/loader.py"),
    *("data/sampling.py", "data/exposure.py", "data/pixels/cache.py"),
    *("data/readers/csv.py", "data/readers/covidx.py"),
    *("protocols/*.py", "statistics/*.py", "tables/*.py", "scaling/*.py"),
    *("training/checkpoint.py", "training/loop.py"),
)
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
SLOWEST = 600.0  # seconds for the tests of one mutant


def sites(tree: ast.Module) -> Iterator[ast.expr | ast.AugAssign]:
    """The nodes that can be mutated; annotations and the text of messages are left out."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        words = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.JoinedStr):
            words.append(node)
        for word in filter(None, words):
            skipped |= {id(child) for child in ast.walk(word)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            yield from [node] if type(node.ops[0]) in SWAPS else []
        elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
            yield from [node] if type(node.op) in SWAPS else []
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield node


def mutate(node: ast.AST) -> None:
    """Changes the node in place: its operator, or its number (n + 1, or twice x)."""
    if isinstance(node, ast.Compare):
        node.ops = [SWAPS[type(node.ops[0])]()]
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Constant):
        whole = isinstance(node.value, int)
        node.value = node.value + 1 if whole else node.value * 2 or 1.0


def mutants(path: Path) -> list[tuple[int, str, str, str]]:
    """(line, expression before, after, source of the whole file) of each site."""
    source = path.read_text()
    out = []
    for number in range(len(list(sites(ast.parse(source))))):
        tree = ast.parse(source)
        node = list(sites(tree))[number]
        before = ast.unparse(node)
        mutate(node)
        line = node.lineno
        where = f"{before}  in  {source.splitlines()[line - 1].strip()}"
        out.append((line, where, ast.unparse(node), ast.unparse(tree)))
    return out


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def importers(name: str, files: Iterable[Path]) -> list[Path]:
    """The files that import a module by its dotted name."""
    package, _, last = name.rpartition(".")
    out = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (
                node.module == name
                or (node.module == package and last in {a.name for a in node.names})
            ):
                out.append(path)
                break
    return out


@cache
def own_tests(module: Path) -> tuple[str, ...]:
    """The test files of a module, the small ones first.

    Those that import it; else those that import what imports it in its room; else those
    with the name of its room.
    """
    tests = sorted((ROOT / "tests").glob("test_*.py"), key=lambda p: p.stat().st_size)
    room = [p for p in module.parent.glob("*.py") if p != module]
    own = importers(dotted(module), tests)
    if not own:
        users = importers(dotted(module), room)
        own = [t for t in tests if any(importers(dotted(u), [t]) for u in users)]
    own = own or [t for t in tests if module.parent.name in t.name]
    return tuple(str(t.relative_to(ROOT)) for t in own)


def killed(tree: Path, module: Path, source: str, tests: Iterable[str]) -> bool:
    """Whether a test fails with this source of the module in a copy of the tree."""
    target = tree / module.relative_to(ROOT)
    kept = target.read_text()
    target.write_text(source)
    call = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    try:
        done = subprocess.run(
            call, cwd=tree, capture_output=True, timeout=SLOWEST, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        target.write_text(kept)
    return done.returncode != 0


def draw(seed: int, count: int) -> list[tuple[Path, int, str, str, str]]:
    """`count` mutants, the modules in turn, none of those accepted."""
    rng = random.Random(seed)
    accepted = {
        tuple(line.split(" | ")[:3])
        for line in ACCEPTED.read_text().splitlines()
        if line and not line.startswith("#")
    }
    modules = sorted(
        {p for g in CORE for p in (ROOT / "bigxfer").glob(g) if p.name != "__init__.py"}
    )
    pools = {}
    for module in modules:
        pools[module] = mutants(module)
        rng.shuffle(pools[module])
    out = []
    while len(out) < count and any(pools.values()):
        for module in rng.sample(modules, len(modules)):
            while pools[module]:
                line, before, after, source = pools[module].pop()
                name = module.relative_to(ROOT / "bigxfer").as_posix()
                if (name, before, after) not in accepted:
                    out.append((module, line, before, after, source))
                    break
    return out[:count]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2, help="mutants at once")
    parser.add_argument("--only", default="", help="modules whose path contains this")
    args = parser.parse_args()
    drawn = [m for m in draw(args.seed, args.count) if args.only in str(m[0])]
    began, survivors = time.monotonic(), []
    trees: Queue[Path] = Queue()
    with tempfile.TemporaryDirectory() as scratch:
        if (ROOT.parent / "shared").is_dir():  # images that some tests read
            (Path(scratch) / "shared").symlink_to(ROOT.parent / "shared")
        for number in range(args.workers):
            tree = Path(scratch) / str(number)
            names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True)
            for name in names.splitlines():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, tree / name)
            trees.put(tree)

        def judge(mutant: tuple[Path, int, str, str, str]) -> None:
            module, line, before, after, source = mutant
            tests = own_tests(module)
            tree = trees.get()
            try:
                dead = bool(tests) and killed(tree, module, source, tests)
            finally:
                trees.put(tree)
            name = module.relative_to(ROOT / "bigxfer").as_posix()
            if not dead:
                survivors.append((name, before, after))
                print(f"survived: {name}:{line} | {before} | {after}", flush=True)

        with ThreadPoolExecutor(args.workers) as pool:
            list(pool.map(judge, drawn))
    share = 1 - len(survivors) / len(drawn)
    print(
        f"seed {args.seed}: {len(drawn) - len(survivors)} of {len(drawn)} mutants killed"
        f" ({share:.0%}) in {time.monotonic() - began:.0f} s"
    )
    return 0 if share >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
