"""What a function is, by its source: the same digest wherever it says the same, however it is laid out."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import sys
import textwrap
import tokenize
import weakref
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

_LAYOUT: Final = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER})
_NAMED_ALONE: Final = frozenset({tokenize.INDENT, tokenize.DEDENT})
"""Blocks begin and end there; with how many spaces does not matter."""
_LENGTH: Final = 16
_DEPTH: Final = 3
"""So far are functions followed that a function names."""
_HAS_DOCSTRING: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_OURS: Final = __name__.partition(".")[0]
_PLAIN: Final = (str, bytes, int, float, complex, bool, type(None))

_Assigned = dict[str, str] | None
_known: weakref.WeakKeyDictionary[FunctionType | type, dict[bool, str | None]] = weakref.WeakKeyDictionary()
_known_assigned: weakref.WeakKeyDictionary[ModuleType, tuple[object, dict[str, str] | None]] = (
    weakref.WeakKeyDictionary()
)
_NEVER_READ: Final = object()


def fingerprint(function: Callable[..., Any]) -> str | None:
    """A digest of the tokens of a function's source, its decorators among them, without comments and layout.

    None where there is no source to be read, as in a notebook that is gone or in an extension. What the function calls
    is no part of it.
    """
    try:
        lines = textwrap.dedent(inspect.getsource(inspect.unwrap(function))).splitlines(keepends=True)
        tokens = [each for each in tokenize.generate_tokens(iter(lines).__next__) if each.type not in _LAYOUT]
    except (OSError, TypeError, ValueError, SyntaxError, tokenize.TokenError):
        return None
    texts = (f"{each.type}\x1f{'' if each.type in _NAMED_ALONE else each.string}" for each in tokens)
    return digest_of("\x1e".join(texts))


def digest_of(text: str) -> str:
    """A short digest of a text."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]


def code_digest(function: Callable[..., Any]) -> str | None:
    """A digest of what a function does, as far as its own module says it; equal on all versions of Python.

    It is made of the syntax of the function, without docstrings and without the decorators of the function itself, of
    its defaults, and of the functions, classes and constants of its own module that it names, as those are written
    there, and so on to depth 3. Comments and layout are no part of it; nor is what other modules do, what is looked up
    while it runs, what is in closures but for functions, and actors, whose results are recorded by themselves.

    Of a method that is its function, of a `partial` the function with the arguments, of another object its class.

    None where there is no source to be read: then nothing is known, and nothing may be called unchanged.
    """
    try:
        seen, given = _seen_of(function)
        digest = _digest_of_code(seen)
    except Exception:  # noqa: BLE001 - modules, classes and objects of the program are asked, and may raise anything
        return None
    return digest if digest is None or not given else digest_of(f"{digest}{given}")


def _seen_of(function: Callable[..., Any]) -> tuple[Any, str]:
    """Where the source of something is that can be called, and what it was given before. No address is part of it."""
    found: Any = inspect.unwrap(function)
    given = ""
    while isinstance(found, functools.partial | MethodType):
        if isinstance(found, MethodType):
            found = found.__func__
        else:
            given += _constant((*found.args, *sorted(found.keywords.items())))
            found = found.func
        found = inspect.unwrap(found)
    return (found if isinstance(found, FunctionType | type) else type(found)), given


def _digest_of_code(function: FunctionType | type) -> str | None:
    found: dict[str, str] = {}
    todo: list[tuple[str, Any, int]] = [("", function, 0)]
    while todo:
        name, value, depth = todo.pop()
        if name in found:
            continue
        if isinstance(value, FunctionType | type):
            syntax = _syntax(value, is_first=not name)
            if syntax is None and not name:
                return None
            found[name] = "unknown" if syntax is None else syntax + _defaults(value)
            if depth < _DEPTH and isinstance(value, FunctionType):
                todo += ((each, its, depth + 1) for each, its in _named_in(value) if each not in found)
        else:
            found[name] = str(value)
    return digest_of("\x1e".join(f"{name}\x1f{found[name]}" for name in sorted(found)))


def _syntax(value: FunctionType | type, *, is_first: bool) -> str | None:
    """What was read once is remembered: a program may open thousands of runs, and its file may be edited meanwhile."""
    try:
        known = _known.setdefault(value, {})
    except TypeError:  # the class of a class may say that it has no hash
        known = {}
    if is_first not in known:
        known[is_first] = _read_syntax(value, is_first=is_first)
    return known[is_first]


def _read_syntax(value: FunctionType | type, *, is_first: bool) -> str | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except (OSError, TypeError, ValueError, SyntaxError):
        return None
    if isinstance(value, FunctionType) and value.__name__ == "<lambda>":
        lambdas = [each for each in ast.walk(tree) if isinstance(each, ast.Lambda)]
        return _written(lambdas[0]) if len(lambdas) == 1 else None
    node = tree.body[0]
    if is_first and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node.decorator_list = []
    return _written(node)


def _written(node: Any) -> str:
    """Syntax as text, however deep it is. `ast.dump` differs between versions in which fields it leaves out."""
    parts: list[str] = []
    todo: list[tuple[Any, bool]] = [(node, False)]
    while todo:
        each, is_text = todo.pop()
        if is_text:
            parts.append(each)
        elif isinstance(each, ast.AST):
            named = ((f"{name}=", value) for name, value in _fields_of(each).items())
            todo += reversed(_joined(f"{type(each).__name__}(", named, ")"))
        elif isinstance(each, list):
            todo += reversed(_joined("[", (("", value) for value in each), "]"))
        else:
            parts.append(repr(each))
    return "".join(parts)


def _joined(begin: str, items: Iterable[tuple[str, Any]], end: str) -> list[tuple[Any, bool]]:
    """Values that are to be written, each behind its name, with the texts around them."""
    found: list[tuple[Any, bool]] = [(begin, True)]
    for name, value in items:
        found += [(name if len(found) == 1 else f",{name}", True), (value, False)]
    return [*found, (end, True)]


def _fields_of(node: ast.AST) -> dict[str, Any]:
    pairs = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
    fields = {name: value for name, value in pairs if name not in ("kind", "type_comment", "type_ignores")}
    if isinstance(node, _HAS_DOCSTRING) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):  # some versions end it with an empty text
        fields["values"] = [each for each in node.values if not (isinstance(each, ast.Constant) and not each.value)]
    return fields


def _defaults(value: FunctionType | type) -> str:
    if not isinstance(value, FunctionType):
        return ""
    return _constant((*(value.__defaults__ or ()), *sorted((value.__kwdefaults__ or {}).items())))


def _constant(value: Any) -> str:
    """A value as text, if it is one that does not change; else the name of its class, whatever it holds."""
    if type(value) in _PLAIN:
        return repr(value)
    if isinstance(value, tuple):
        return f"({','.join(map(_constant, value))})"
    return f"<{type(value).__qualname__}>"


def _named_in(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function names of its own module: functions and classes, and for data the syntax that makes it."""
    assigned = _assigned_in(sys.modules.get(function.__module__ or ""))
    for name in _names_of(function.__code__):
        value = function.__globals__.get(name)
        if isinstance(value, FunctionType | type):
            if value.__module__ == function.__module__:
                yield name, value
        elif type(value).__module__.partition(".")[0] == _OURS:
            continue  # actors have a code of their own, and policies are none
        elif assigned is None:
            yield name, _constant(value)  # in a notebook there is nothing but the value
        elif name in assigned:
            yield name, assigned[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # it is filled later
            if isinstance(cell.cell_contents, FunctionType):
                yield f"closure {name}", cell.cell_contents


def _assigned_in(module: ModuleType | None) -> dict[str, str] | None:
    """What a module assigns to its names, as it is written: what it has become since is a state, and no code."""
    if module is None:
        return None
    spec, assigned = _known_assigned.get(module, (_NEVER_READ, None))
    if spec is not module.__spec__:  # a module that is loaded anew has another one
        try:
            assigned = _assignments(inspect.getsource(module))
        except (OSError, TypeError, ValueError, SyntaxError):
            assigned = None
        _known_assigned[module] = module.__spec__, assigned
    return assigned


def _assignments(source: str) -> dict[str, str]:
    found: dict[str, str] = {}
    todo: list[ast.AST] = [*ast.parse(source).body]
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for each in (name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)):
                found[each.id] = found.get(each.id, "") + _written(node.value)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            todo += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)]
    return found


def _names_of(code: CodeType) -> set[str]:
    """The names of globals, those in functions within it included."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names_of, inner))
