"""A public function names in its docstring the errors that it raises."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tests.documents.kit import ROOT

PACKAGE = ROOT / "rh_agents"
NOT_FOR_USERS = {"cli", "web", "sharding"}
"""Packages that no program imports."""
STATED_ELSEWHERE = {
    "MemoryStore": "the protocol `Store` states them for every store",
    "BaseActor.model_post_init": "a hook of Pydantic: the class says what its constructor raises",
    "Agent.model_post_init": "the same",
    "Asking.answer": "caught there: an answer that does not fit leaves the question open",
    "Waiting.event": "caught there: a signal that does not fit is refused",
    "Worker.run": "caught there: what cannot be executed is left to other workers",
    "FileArtifacts": "errors of the system become the `StoreError` that is named",
    "price_of": "the library's own table has no such errors, a test reads it",
    "price_in": "the same",
    "encode_error": "its own failure is encoded in place of the error",
    "main": "a command",
}
NO_FAILURES = {
    "AssertionError",
    "StopRun",
    "StopAsyncIteration",
    "NotQuick",
    "KeyError",
    "AttributeError",
    "NotImplementedError",
}
"""Raised for the code around: bugs, the end of an iteration, the unwinding of a run that is being stopped."""

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Public(NamedTuple):
    """A public class, function or method: where it is, and what it is called there."""

    path: Path
    name: str
    node: Function | ast.ClassDef


def public_definitions() -> Iterator[Public]:
    """Classes, functions and methods without an underscore, of modules without one."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in NOT_FOR_USERS and not any(part.startswith("_") and part != "__init__" for part in parts):
            yield from _definitions_in(path, tree_of(path), "")


def _definitions_in(path: Path, parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[Public]:
    for node in parent.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield Public(path, f"{prefix}{node.name}", node)
            if isinstance(node, ast.ClassDef):
                yield from _definitions_in(path, node, f"{node.name}.")


def public_functions() -> Iterator[tuple[Path, str, Function]]:
    """Those of them that are functions and have a docstring of their own."""
    for path, name, node in public_definitions():
        if isinstance(node, Function) and ast.get_docstring(node):
            yield path, name, node


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The code of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def raised_by(node: Function, path: Path, seen: frozenset[str] = frozenset()) -> set[str]:
    """The errors that a function raises itself, or that functions raise which it calls in its own module."""
    errors = set(_raised_in(node))
    for name in _called_in(node):
        found = _functions_named(path).get(name, [])
        if len(found) == 1 and name not in seen:
            errors |= raised_by(found[0], path, seen | {name, node.name})
    return errors - NO_FAILURES


@functools.cache
def _functions_named(path: Path) -> dict[str, list[Function]]:
    named: dict[str, list[Function]] = {}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, Function):
            named.setdefault(node.name, []).append(node)
    return named


def _raised_in(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            error = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            if isinstance(error, ast.Name) and error.id[0].isupper():
                yield error.id
        yield from _raised_in(child)


def _called_in(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Call):
            if isinstance(child.func, ast.Name):
                yield child.func.id
            elif isinstance(child.func, ast.Attribute) and ast.unparse(child.func.value) in {"self", "cls"}:
                yield child.func.attr


def test_a_public_function_names_the_errors_that_it_raises() -> None:
    unnamed = {}
    for path, name, node in public_functions():
        missing = {error for error in raised_by(node, path) if error not in (ast.get_docstring(node) or "")}
        if missing and not {name, name.partition(".")[0]} & set(STATED_ELSEWHERE):
            unnamed[f"{path.relative_to(ROOT)}:{node.lineno} {name}"] = missing
    assert unnamed == {}


def test_there_are_functions_that_raise() -> None:
    assert sum(bool(raised_by(node, path)) for path, _, node in public_functions()) > 100
