"""Runs the tests of mutants, in a process that has the module and its tests imported.

A mutant in the body of a function is forked off that process, with the function's code
exchanged in memory; another one (a constant, a default) gets a process of its own. The tests
that call the function come first, the quick ones before the slow ones, as recorded in a run
without a mutant. Records are kept in .pytest_cache/mutants until a source file changes.
"""

import ast
import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / ".pytest_cache" / "mutants"
# CPU-seconds of the tests tried on one mutant, as recorded; what comes later is left out.
BUDGET = 60.0
LIMIT = int(10 * BUDGET)  # CPU-seconds after which a mutant hangs
WAIT = 3600.0  # seconds by the clock after which a mutant hangs
NONE = 5  # pytest's status where no test is run
QUIET = ("-q", "-p", "no:cacheprovider")


class Recorder:
    """Notes the CPU-seconds of each test and the functions of ours that it calls."""

    def __init__(self, package: Path) -> None:
        self.package = f"{package}/"
        self.tests: dict[str, tuple[float, list[str]]] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        called: set[str] = set()

        def note(frame: types.FrameType, event: str, value: object) -> None:
            code = frame.f_code
            if code.co_filename.startswith(self.package):
                path = code.co_filename.removeprefix(self.package)
                called.add(f"{path} {code.co_qualname}")

        threading.settrace(note)
        sys.settrace(note)
        began = time.process_time()
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # pyrefly: ignore
            self.tests[item.nodeid] = time.process_time() - began, sorted(called)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)


def stamp(test: str, functions: list[str]) -> str:
    """Changes when the test file, or a module whose functions it calls, changes."""
    modules = sorted({function.partition(" ")[0] for function in functions})
    paths = [ROOT / test, *(ROOT / "bigxfer" / module for module in modules)]
    return hashlib.sha256(
        b"".join(p.read_bytes() for p in paths if p.exists())
    ).hexdigest()


def forked(work: Callable[[], int], said: Path) -> int:
    """Runs `work` in a fork of this process; its exit status, -1 where it hangs."""
    child = os.fork()
    if not child:
        status = 70
        try:
            os.setsid()
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            status = int(work())
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


def record(tree: Path, test: str) -> dict[str, tuple[float, list[str]]]:
    """{node id: (CPU-seconds, functions called)} of a test file's tests that pass."""
    kept = RECORDS / f"{Path(test).stem}.json"
    if kept.exists():
        old = json.loads(kept.read_text())
        functions = [f for _, called in old["tests"].values() for f in called]
        if old["stamp"] == stamp(test, functions):
            return old["tests"]

    def work() -> int:
        recorder = Recorder(tree / "bigxfer")
        pytest.main([*QUIET, test], plugins=[recorder])
        tests = {n: t for n, t in recorder.tests.items() if n not in recorder.failed}
        functions = [f for _, called in tests.values() for f in called]
        RECORDS.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"stamp": stamp(test, functions), "tests": tests}))
        for node in recorder.failed:
            print(f"fails without a mutant, left out: {node}", file=sys.stderr)
        return 0

    if forked(work, tree / "said.txt"):
        raise RuntimeError(f"{test}:\n{(tree / 'said.txt').read_text()[-3000:]}")
    return json.loads(kept.read_text())["tests"]


def chosen(records: Sequence[dict], function: str) -> list[str]:
    """The tests to try: those that call the function, then the others of their files.

    `function` ends with a space for any function of that module.
    """
    ranked = []
    for tests in records:
        calls = [
            any(
                f == function or (function[-1] == " " and function in f) for f in called
            )
            for _, called in tests.values()
        ]
        if any(calls):
            ranked += [
                (not call, seconds, node)
                for call, (node, (seconds, _)) in zip(calls, tests.items(), strict=True)
            ]
    nodes, spent = [], 0.0
    for _, seconds, node in sorted(ranked):
        spent += seconds
        if nodes and spent > BUDGET:
            break
        nodes.append(node)
    return nodes


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def exchange(path: Path, tree: ast.Module) -> None:
    """Gives the functions of a module's file their code by another syntax tree."""
    new = {
        (code.co_qualname, code.co_firstlineno): code
        for code in codes(compile(tree, str(path), "exec"))
    }
    for function in gc.get_objects():
        if isinstance(function, types.FunctionType):
            code = function.__code__
            if code.co_filename == str(path):
                function.__code__ = new[code.co_qualname, code.co_firstlineno]


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


def judge(
    tree: Path,
    module: str,
    mutants: list[tuple[str, ast.Module]],
    groups: Sequence[Sequence[str]],
    verdicts: Path,
) -> None:
    """Tries mutants of functions, each (the function's name, syntax tree).

    `groups` are test files; a later group is tried where no test of the former calls the
    function. Writes {"statuses": pytest's exit status for each mutant, NONE without a
    test, "nodes": the tests for mutants outside of functions}.
    """
    enter(tree, "collected.txt")
    pytest.main([*QUIET, "--collect-only", *(t for group in groups for t in group)])
    from jax._src import xla_bridge  # a fork of a process with a backend would hang

    if xla_bridge.backends_are_initialized():
        raise RuntimeError(f"importing one of {groups} starts JAX: move it into a test")

    def tests_of(function: str) -> list[str]:
        for group in groups:
            if nodes := chosen(
                [record(tree, t) for t in group], f"{module} {function}"
            ):
                return nodes
        return []

    statuses = []
    path = tree / "bigxfer" / module
    source = path.read_text()
    for function, syntax in mutants:
        nodes = tests_of(function)

        def work(syntax: ast.Module = syntax, nodes: list[str] = nodes) -> int:
            exchange(path, syntax)
            return pytest.main([*QUIET, "-x", *nodes])

        put(path, ast.unparse(syntax))  # for the processes that a test starts
        status = forked(work, tree / "said.txt") if nodes else NONE
        if status in (3, 4, 70):  # an error of pytest or of ours
            raise RuntimeError(f"{function}: {status}")
        statuses.append(status)
        put(path, source)
    verdicts.write_text(json.dumps({"statuses": statuses, "nodes": tests_of("")}))


def judge_fresh(tree: Path, nodes: Sequence[str]) -> None:
    """Tries one mutant that stands in the tree, from the import of its module on."""
    enter(tree, "said.txt")
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    sys.exit(pytest.main([*QUIET, "-x", *nodes]))
