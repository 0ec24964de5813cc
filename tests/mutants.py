"""Do the tests guard? Change one operator or number at a time and run the module's tests.

  python tests/mutants.py --seed 1 --count 100        # or: make mutants SEED=1

Draws mutants of the core modules at random by the seed, each in a copy of the source tree,
and runs the test files that import the module, that of its name first. A mutant is killed when
a test fails (or its tests take more than SLOWEST seconds). Prints a line for each,
then the share killed. Survivors that change nothing which matters stand in
mutants_accepted.txt with the reason, and are not drawn. Exit status 1 below 90%.
"""

import argparse
import ast
import multiprocessing
import os
import random
import re
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

import conftest  # noqa: F401 the environment of the tests, before jax is imported
import pytest

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
# Each mutant gets a process that has the libraries, but nothing of ours, imported already.
FORKS = multiprocessing.get_context("forkserver")
LIBRARIES = ("pytest", "flax.linen", "optax", "orbax.checkpoint", "sklearn.metrics")


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


def mutant(path: Path, number: int) -> tuple[int, str, str, str]:
    """(line, expression before, after, source of the whole file) of one site."""
    source = path.read_text()
    tree = ast.parse(source)
    node = list(sites(tree))[number]
    before = ast.unparse(node)
    mutate(node)
    where = f"{before}  in  {source.splitlines()[node.lineno - 1].strip()}"
    return node.lineno, where, ast.unparse(node), ast.unparse(tree)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    )


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
    """The test files of a module: that of its name, then the others, the small ones first.

    Those that import it; else those that import a module which imports it.
    """
    tests = sorted(
        (ROOT / "tests").glob("test_*.py"),
        key=lambda p: (module.stem not in p.stem, p.stat().st_size),
    )
    own = importers(dotted(module), tests)
    if not own:
        users = importers(dotted(module), (ROOT / "bigxfer").rglob("*.py"))
        own = [t for t in tests if any(importers(dotted(u), [t]) for u in users)]
    return tuple(str(t.relative_to(ROOT)) for t in own)


def run_tests(tree: Path, tests: tuple[str, ...], said: Path) -> None:
    """In a process of its own: run pytest in a copy of the tree, exit with its status."""
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))


def killed(tree: Path, module: Path, source: str, tests: tuple[str, ...]) -> bool:
    """Whether a test fails with this source of the module in a copy of the tree."""
    target = tree / module.relative_to(ROOT)
    kept = target.read_text()
    target.write_text(source)
    shutil.rmtree(target.parent / "__pycache__", ignore_errors=True)
    said = tree / "said.txt"
    try:
        process = FORKS.Process(target=run_tests, args=(tree, tests, said))
        process.start()
        process.join(SLOWEST)
        if process.is_alive():
            process.kill()
            process.join()
            return True
    finally:
        target.write_text(kept)
    if process.exitcode not in (0, 1, 2):  # neither passed nor failed
        raise RuntimeError(f"pytest {tests}: {process.exitcode}\n{said.read_text()}")
    return process.exitcode != 0


def draw(seed: int, count: int, only: str) -> list[tuple[Path, int, str, str, str]]:
    """`count` mutants of the modules whose path matches `only`, none of those accepted.

    One of each module in turn, the modules in an order of their own each time.
    """
    rng = random.Random(seed)
    accepted = {
        tuple(line.split(" | ")[:3])
        for line in ACCEPTED.read_text().splitlines()
        if line and not line.startswith("#")
    }
    core = {p for g in CORE for p in (ROOT / "bigxfer").glob(g)}
    modules = sorted(p for p in core if re.search(only, str(p.relative_to(ROOT))))
    pools = {}
    for module in modules:
        pools[module] = list(range(len(list(sites(ast.parse(module.read_text()))))))
        rng.shuffle(pools[module])
    out = []
    while len(out) < count and any(pools.values()):
        for module in rng.sample(modules, len(modules)):
            while pools[module]:
                line, before, after, source = mutant(module, pools[module].pop())
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
    parser.add_argument("--only", default="", help="regular expression for the modules")
    args = parser.parse_args()
    FORKS.set_forkserver_preload([*LIBRARIES])
    drawn = draw(args.seed, args.count, args.only)
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
            verdict = "killed" if dead else "SURVIVED"
            print(f"{verdict}: {name}:{line} | {before} | {after}", flush=True)

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
