"""The code of our functions exchanged in memory: by a mutant's, or to note their calls."""

import ast
import contextlib
import gc
import importlib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def exchange(trees: Mapping[Path, ast.Module]) -> None:
    """Gives the functions of modules' files their code by other syntax trees."""
    new = {
        (str(path), code.co_qualname, code.co_firstlineno): code
        for path, tree in trees.items()
        for code in codes(compile(tree, str(path), "exec"))
    }
    files = {str(path) for path in trees}
    for function in gc.get_objects():
        if isinstance(function, types.FunctionType):
            code = function.__code__
            if code.co_filename in files:
                key = code.co_filename, code.co_qualname, code.co_firstlineno
                function.__code__ = new[key]


CALLED: set[str] = set()  # "path qualname" of the functions called since it was cleared


class Noting(ast.NodeTransformer):
    """Makes every function of a module note in CALLED that it is called.

    A trace of all calls would do without, and takes several times as long.
    """

    def __init__(self, module: str) -> None:
        self.module, self.prefix = module, ""

    def call(self, name: str) -> ast.expr:
        text = f"__import__('mutants_code').CALLED.add({f'{self.module} {name}'!r})"
        return ast.parse(text, mode="eval").body

    def within(self, node: ast.AST, prefix: str) -> None:
        outer, self.prefix = self.prefix, prefix
        self.generic_visit(node)
        self.prefix = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.within(node, f"{self.prefix}{node.name}.")
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        name = self.prefix + node.name
        self.within(node, f"{name}.<locals>.")
        note = ast.copy_location(ast.Expr(self.call(name)), node.body[0])
        node.body.insert(1 if ast.get_docstring(node) else 0, note)
        return ast.fix_missing_locations(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        name = self.prefix + "<lambda>"
        self.within(node, f"{name}.<locals>.")
        both = ast.Tuple([self.call(name), node.body], ast.Load())
        body = ast.Subscript(both, ast.Constant(1), ast.Load())
        node.body = ast.copy_location(body, node.body)
        return ast.fix_missing_locations(node)


def note_calls(package: Path) -> None:
    """Has every function of the package note its calls, in this process."""
    trees = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        with contextlib.suppress(ImportError):  # where an optional library is lacking
            importlib.import_module(name.removesuffix(".__init__"))
            module = path.relative_to(package).as_posix()
            trees[path] = Noting(module).visit(ast.parse(path.read_text()))
    exchange(trees)
