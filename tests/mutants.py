"""Do the tests guard? Change one operator or number at a time and run the module's tests.

  python tests/mutants.py --seed 1 --count 100        # or: make mutants SEED=1

Draws mutants of the core modules at random by the seed, each in a copy of the source tree,
and runs the tests of the files that import the module (mutants_run.py). A mutant is killed
when a test fails or takes ten times what it may. Prints a line for each, then the share
killed. Survivors that change nothing which matters stand in mutants_accepted.txt with the
reason, and are not drawn. Exit status 1 below 90%.
"""

import argparse
import ast
import json
import multiprocessing
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import conftest  # noqa: F401 the environment of the tests, before jax is imported
import mutants_run
from mutants_run import SAID, Work

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
# Of a search the numbers set its pace and where it starts; where it ends is tested.
SEARCHES = ("scaling/guesses.py", "scaling/solver.py", "protocols/newton.py")
FILES = 3  # test files that are tried on a module
# Each mutant gets a process that has the libraries, but nothing of ours, imported already.
FORKS = multiprocessing.get_context("forkserver")
LIBRARIES = ("pytest", "flax.linen", "optax", "orbax.checkpoint", "sklearn.metrics")


def sites(module: Path, tree: ast.Module) -> Iterator[ast.expr | ast.AugAssign]:
    """The nodes of a module that can be mutated.

    Annotations, the text of messages and the numbers of SEARCHES are left out.
    """
    numbers = module.relative_to(ROOT / "bigxfer").as_posix() not in SEARCHES
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
            yield from [node] if numbers else []


def mutate(node: ast.AST) -> None:
    """Changes the node in place: its operator, or its number (n + 1, or twice x)."""
    if isinstance(node, ast.Compare):
        node.ops = [SWAPS[type(node.ops[0])]()]
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Constant):
        whole = isinstance(node.value, int)
        node.value = node.value + 1 if whole else node.value * 2 or 1.0


@dataclass(frozen=True)
class Mutant:
    """A module with one site changed."""

    module: Path
    line: int
    before: str
    after: str
    function: str  # the qualified name of the function that it stands in, or ""
    tree: ast.Module

    def name(self) -> str:
        return self.module.relative_to(ROOT / "bigxfer").as_posix()


def function_of(tree: ast.Module, node: ast.AST) -> str:
    """The qualified name of the function in whose body a node stands, or "".

    Defaults and decorators belong to the import of the module, not to a body.
    """

    def search(parent: ast.AST, prefix: str, function: str) -> str | None:
        if parent is node:
            return function
        for field, value in ast.iter_fields(parent):
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST):
                    continue
                inner, named = prefix, function
                if field == "body" and isinstance(
                    parent, ast.FunctionDef | ast.Lambda | ast.AsyncFunctionDef
                ):
                    named = prefix + getattr(parent, "name", "<lambda>")
                    inner = f"{named}.<locals>."
                elif field == "body" and isinstance(parent, ast.ClassDef):
                    inner, named = f"{prefix}{parent.name}.", ""
                found = search(child, inner, named)
                if found is not None:
                    return found
        return None

    return search(tree, "", "") or ""


def mutant(module: Path, number: int) -> Mutant:
    """One site of a module changed."""
    source = module.read_text()
    tree = ast.parse(source)
    node = list(sites(module, tree))[number]
    before = ast.unparse(node)
    mutate(node)
    where = f"{before}  in  {source.splitlines()[node.lineno - 1].strip()}"
    function = function_of(tree, node)
    return Mutant(module, node.lineno, where, ast.unparse(node), function, tree)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    )


@cache
def imports(path: Path) -> frozenset[str]:
    """The dotted names that a file imports, from `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return frozenset(names)


def importers(name: str, files: Iterable[Path]) -> list[Path]:
    """The files that import a module by its dotted name."""
    return [path for path in files if name in imports(path)]


@cache
def test_files(module: Path) -> list[list[str]]:
    """Two groups of test files: those that import the module, then its users.

    Those of its name first, then those that name it most often. The second group is tried
    where no test of the first calls what was changed.
    """

    def named(test: Path) -> tuple[bool, int]:
        mentions = re.findall(rf"\b{module.stem}\b", test.read_text())
        return module.stem not in test.stem, -len(mentions)

    tests = sorted((ROOT / "tests").glob("test_*.py"), key=named)
    users = importers(dotted(module), (ROOT / "bigxfer").rglob("*.py"))
    own = [t for t in tests if t.stem.startswith(f"test_{module.stem}")]
    own += [t for t in importers(dotted(module), tests) if t not in own]
    theirs = [t for t in tests if any(importers(dotted(u), [t]) for u in users)]
    every = own + [t for t in theirs if t not in own]
    groups = every[:FILES], every[FILES : 2 * FILES]
    return [[str(t.relative_to(ROOT)) for t in group] for group in groups]


def run_in(target: Callable[..., None], *args: object) -> int:
    """The exit status of a function in a process of its own; -1 where it hangs."""
    process = FORKS.Process(target=target, args=args)
    process.start()
    process.join(mutants_run.WAIT)
    if process.is_alive():
        process.kill()
        process.join()
        return -1
    return process.exitcode or 0


def judge(tree: Path, mutants: list[Mutant]) -> Iterator[tuple[Mutant, bool]]:
    """Whether each mutant is killed, by tests in a copy of the tree; as they are known."""
    verdicts = tree / "verdicts.json"
    verdicts.unlink(missing_ok=True)
    work = [Work(m.name(), m.function, m.tree, test_files(m.module)) for m in mutants]
    process = FORKS.Process(target=mutants_run.judge, args=(tree, work, verdicts))
    process.start()
    alone: list[tuple[Mutant, list[str]]] = []
    known, ended = 0, False
    while known < len(mutants) and not ended:
        process.join(1)
        ended = process.exitcode is not None
        found = json.loads(verdicts.read_text()) if verdicts.exists() else []
        for mutant, verdict in zip(mutants[known:], found[known:], strict=False):
            if isinstance(verdict, int):
                yield mutant, verdict not in (0, mutants_run.NONE)
            else:
                alone.append((mutant, verdict))
        known = len(found)
    process.join()
    if process.exitcode:
        # The second is not there where the first tests did not even collect.
        files = [tree / name for name in ("collected.txt", SAID)]
        said = [file.read_text() for file in files if file.exists()]
        raise RuntimeError("\n".join(text[-3000:] for text in said))
    for mutant, nodes in alone:
        target = tree / mutant.module.relative_to(ROOT)
        source = target.read_text()
        mutants_run.put(target, ast.unparse(mutant.tree))
        yield mutant, bool(nodes and run_in(mutants_run.judge_fresh, tree, nodes))
        mutants_run.put(target, source)


def draw(seed: int, count: int, only: str) -> list[Mutant]:
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
        pools[module] = list(
            range(len(list(sites(module, ast.parse(module.read_text())))))
        )
        rng.shuffle(pools[module])
    out = []
    while len(out) < count and any(pools.values()):
        for module in rng.sample(modules, len(modules)):
            while pools[module]:
                drawn = mutant(module, pools[module].pop())
                if (drawn.name(), drawn.before, drawn.after) not in accepted:
                    out.append(drawn)
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
    began, verdicts = time.monotonic(), []
    with tempfile.TemporaryDirectory() as scratch:
        above = (p / "shared" for p in ROOT.parents if (p / "shared").is_dir())
        if shared := next(above, None):  # images that some tests read
            (Path(scratch) / "shared").symlink_to(shared)
        for number in range(args.workers):
            tree = Path(scratch) / str(number)
            names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True)
            for name in names.splitlines():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, tree / name)

        def judge_some(number: int) -> None:
            for m, dead in judge(
                Path(scratch) / str(number), drawn[number :: args.workers]
            ):
                verdicts.append(dead)
                verdict = "killed" if dead else "SURVIVED"
                print(
                    f"{verdict}: {m.name()}:{m.line} | {m.before} | {m.after}",
                    flush=True,
                )

        with ThreadPoolExecutor(args.workers) as pool:
            list(pool.map(judge_some, range(args.workers)))
    share = sum(verdicts) / len(verdicts)
    print(
        f"seed {args.seed}: {sum(verdicts)} of {len(verdicts)} mutants killed"
        f" ({share:.0%}) in {time.monotonic() - began:.0f} s"
    )
    return 0 if share >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
