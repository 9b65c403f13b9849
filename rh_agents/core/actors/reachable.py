"""Which actors a program names, as far as its code says that without being executed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from rh_agents.core.actors import Agent, BaseActor

__all__ = ["actors_named_in"]

_MOST = 10_000
"""Values that are looked at. What else a program names is found out when it is called."""
_INSTALLED = ("site-packages", "dist-packages")


def actors_named_in(start: object) -> Iterator[BaseActor]:
    """The actors that a function (or an actor) leads to: those that its code names, and that the functions which it
    names do, in modules that are not installed packages.

    It is found by names in bytecode, closures, defaults, and in lists and dicts that have names. What is made or looked
    up while the program runs is not found.
    """
    todo, seen = [start], set[int]()
    while todo and len(seen) < _MOST:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        actor = _actor_of(value)
        if actor is not None:
            yield actor
            todo += _parts(actor)
        elif isinstance(value, FunctionType):
            if _is_of_the_program(value):
                todo += _named(value)
        elif isinstance(value, list | tuple | set | frozenset):
            todo += value
        elif isinstance(value, dict):
            todo += value.values()


def _actor_of(value: object) -> BaseActor | None:
    if isinstance(value, BaseActor):
        return value
    actor = _attributes(value).get("actor")  # of a decorated function
    return actor if isinstance(actor, BaseActor) else None


def _attributes(value: object) -> Mapping[str, Any]:
    try:
        found = object.__getattribute__(value, "__dict__")  # no code of the user's runs for that
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}


def _parts(actor: BaseActor) -> list[object]:
    parts: list[object] = [actor.handler, *actor.preconditions, *actor.postconditions]
    if isinstance(actor, Agent):
        parts += [tool for _, tool in actor.tools]
        parts += [actor.llm, *actor.handoffs]
    return parts


def _is_of_the_program(function: FunctionType) -> bool:
    top = (function.__module__ or "").partition(".")[0]
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return False
    return not any(each in function.__code__.co_filename for each in _INSTALLED)


def _named(function: FunctionType) -> Iterator[object]:
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is filled later
            continue
    names = _names_in(function.__code__)
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            yield from (vars(value)[each] for each in names if each in vars(value))
        else:
            yield value


def _names_in(code: CodeType) -> list[str]:
    """The names of globals and attributes, those in functions within it included."""
    names = list(code.co_names)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            names += _names_in(each)
    return names
