"""Runs the tests of mutants, in a process that has the module and its tests imported.

A mutant in the body of a function is forked off that process, with the function's code
exchanged in memory; another one (a constant, a default) gets a process of its own. The tests
that call the function come first, the quick ones before the slow ones, as recorded in a run
without a mutant. Records are kept in .pytest_cache/mutants until a source file changes.
"""

import ast
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path

import pytest
from mutants_code import CALLED, exchange, note_calls

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / ".pytest_cache" / "mutants"
# CPU-seconds of the tests tried on one mutant, as recorded; what comes later is left out.
BUDGET = 60.0
# Of a file's tests that were not seen to call the function: what jax has compiled for one
# test is not called again by the next.
OTHERS = 3.0
MEASURED = 40.0  # CPU-seconds of a file's tests; those after it are not tried
LIMIT = int(10 * BUDGET)  # CPU-seconds after which a mutant hangs
WAIT = 900.0  # seconds by the clock after which a mutant hangs
NONE = 5  # pytest's status where no test is run
SAID = "said.txt"  # in a copy of the tree: the output of the latest tests
BROKEN = 70  # an error of ours in a fork
QUIET = ("-q", "--tb=no", "-p", "no:cacheprovider")
Record = dict[
    str, tuple[float, list[str]]
]  # {node id: (CPU-seconds, functions called)}


def measured(test: Callable[[], None]) -> tuple[float, list[str]]:
    """(CPU-seconds, functions called) of a test."""
    CALLED.clear()
    began = time.process_time()
    test()
    return time.process_time() - began, sorted(CALLED)


@cache
def meaning(path: Path) -> bytes:
    """A digest of a module without its comments and its layout; b"" where it has gone."""
    if not path.exists():
        return b""
    code = path.suffix == ".py"  # a template's functions are in no module
    text = ast.dump(ast.parse(path.read_text())) if code else path.read_text()
    return hashlib.sha256(text.encode()).digest()


def stamp(test: str, functions: list[str]) -> str:
    """Changes when the test file, or a module whose functions it calls, changes."""
    modules = sorted({function.partition(" ")[0] for function in functions})
    paths = [ROOT / test, *(ROOT / "bigxfer" / module for module in modules)]
    return hashlib.sha256(b"".join(map(meaning, paths))).hexdigest()


def forked(work: Callable[[], int], said: Path) -> int:
    """Runs `work` in a fork of this process; its exit status, -1 where it hangs."""
    child = os.fork()
    if not child:
        status = BROKEN
        try:
            os.setsid()
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            status = int(work())
        except BaseException:  # noqa: BLE001 - said below, and the fork must end here
            traceback.print_exc()
        finally:
            os._exit(status)
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def chosen(tests: Record, function: str) -> list[str]:
    """The tests of a file to try: those that call the function, then the others.

    None where none calls it. `function` ends with a space for any of that module.
    """
    calls = {
        node: any(
            f == function or (function[-1] == " " and function in f) for f in called
        )
        for node, (_, called) in tests.items()
    }
    if not any(calls.values()):
        return []
    nodes, others = [], 0.0
    for node in sorted(tests, key=lambda node: (not calls[node], tests[node][0])):
        others += 0 if calls[node] else tests[node][0]
        if others > OTHERS:
            break
        nodes.append(node)
    return nodes


def enter(tree: Path, said: str) -> None:
    """Turns this process to the copy of the tree, its output to a file there."""
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)


def put(path: Path, source: str) -> None:
    """Writes a module, so that the next import reads it."""
    path.write_text(source)
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)


@dataclass(frozen=True)
class Work:
    """One mutant, as the process needs it that tries it."""

    module: str  # beneath bigxfer/
    function: str  # qualified name, "" outside of functions
    syntax: ast.Module
    groups: Sequence[
        Sequence[str]
    ]  # test files; a later group where no former calls it


class Trial:
    """A pytest plugin that tries mutants in place of running the tests it collected.

    The file `verdicts` grows with it, as JSON: `found` has for each mutant of a function 1 where a test fails, -9 or so where one
    hangs, NONE without a test; of another mutant it has the tests to try.
    """

    def __init__(self, tree: Path, mutants: Sequence[Work], verdicts: Path) -> None:
        self.tree, self.mutants, self.verdicts = tree, mutants, verdicts
        self.failed: set[str] = set()
        self.noting = False  # whether the functions note their calls
        self.found: list[int | list[str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        from jax._src import xla_bridge  # a fork of a process with a backend would hang

        if xla_bridge.backends_are_initialized():
            raise RuntimeError("importing one of the test files starts JAX")
        self.items = {item.nodeid: item for item in session.items}
        for mutant in self.mutants:
            tests = self.tests_of(mutant)
            if mutant.function:
                self.found.append(self.status(mutant, tests))
            else:
                self.found.append([node for nodes in tests for node in nodes])
            new = self.verdicts.with_suffix(".new")
            new.write_text(json.dumps(self.found))
            new.replace(self.verdicts)
        return True

    def status(self, mutant: Work, tests: Iterator[list[str]]) -> int:
        path = self.tree / "bigxfer" / mutant.module
        source, status = path.read_text(), NONE
        for nodes in tests:
            put(
                path, ast.unparse(mutant.syntax)
            )  # for the processes that a test starts
            work = partial(self.judge, path, mutant.syntax, nodes)
            status = forked(work, self.tree / SAID)
            put(path, source)
            if status == BROKEN:
                said = (self.tree / SAID).read_text()[-3000:]
                raise RuntimeError(f"{mutant.module} {mutant.function}: {said}")
            if status:
                break
        return status

    def run(self, node: str, following: str | None = None) -> None:
        item, after = self.items[node], self.items.get(following or "")
        item.ihook.pytest_runtest_protocol(item=item, nextitem=after)

    def judge(self, path: Path, syntax: ast.Module, nodes: list[str]) -> int:
        exchange({path: syntax})
        for node, following in zip_longest(nodes, nodes[1:]):
            self.run(node, following)
            if self.failed:
                return 1
        return 0

    def tests_of(self, mutant: Work) -> Iterator[list[str]]:
        """File by file, so that no more are recorded than it takes to kill."""
        function, spent = f"{mutant.module} {mutant.function}", 0.0
        for group in mutant.groups:
            for test in group:
                tests, nodes = self.record(test), []
                for node in chosen(tests, function):
                    spent += tests[node][0]
                    if spent > BUDGET and spent > tests[node][0]:
                        break
                    nodes.append(node)
                if nodes:
                    yield nodes
            if spent:
                return

    def record(self, test: str) -> Record:
        """Of a test file's tests that pass without a mutant."""
        kept = RECORDS / f"{Path(test).stem}.json"
        if kept.exists():
            old = json.loads(kept.read_text())
            functions = [f for _, called in old["tests"].values() for f in called]
            if old["stamp"] == stamp(test, functions):
                return old["tests"]
        if not self.noting:
            note_calls(self.tree / "bigxfer")
            self.noting = True
        if forked(partial(self.measure, test, kept), self.tree / SAID):
            raise RuntimeError(f"{test}:\n{(self.tree / SAID).read_text()[-3000:]}")
        return json.loads(kept.read_text())["tests"]

    def measure(self, test: str, kept: Path) -> int:
        nodes = [node for node in self.items if node.startswith(f"{test}::")]
        tests: Record = {}
        began = time.process_time()
        for node, following in zip_longest(nodes, nodes[1:]):
            tests[node] = measured(partial(self.run, node, following))
            if time.process_time() > began + MEASURED:
                break
        tests = {
            node: found for node, found in tests.items() if node not in self.failed
        }
        functions = [f for _, called in tests.values() for f in called]
        RECORDS.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"stamp": stamp(test, functions), "tests": tests}))
        return 0


def judge(tree: Path, mutants: Sequence[Work], verdicts: Path) -> None:
    """Tries mutants in this process; the file `verdicts` gets what Trial found."""
    enter(tree, "collected.txt")
    trial = Trial(tree, mutants, verdicts)
    files = sorted({test for m in mutants for group in m.groups for test in group})
    if pytest.main([*QUIET, "-s", *files], plugins=[trial]) not in (0, NONE):
        sys.exit(1)


def judge_fresh(tree: Path, nodes: Sequence[str]) -> None:
    """Tries one mutant that stands in the tree, from the import of its module on."""
    enter(tree, SAID)
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    sys.exit(pytest.main([*QUIET, "-x", *nodes]))
