"""Makes a program that fails smaller, as long as it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from tests.random_programs.programs import Agent, Chains, Group, Plain, Program, everything_in

__all__ = ["shrink"]


def shrink(program: Program, fails: Callable[[Program], bool], seconds: float = 60.0) -> Program:
    """The smallest program that is found in so many seconds and still fails."""
    deadline = time.monotonic() + seconds
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for smaller in _smaller(program):
            if time.monotonic() > deadline:
                return program
            if _is_whole(smaller) and fails(smaller):
                program, is_smaller = smaller, True
                break
    return program


def _is_whole(program: Program) -> bool:
    """Whether no group has lost all its members, and all chains are blocks."""
    parts = list(everything_in(program))
    return all(part.members for part in parts if isinstance(part, Group)) and all(
        isinstance(branch, tuple) for part in parts if isinstance(part, Chains) for branch in part.branches
    )


def _smaller(part: Any, *, is_block: bool = True) -> Iterator[Any]:
    """Programs that are one step smaller, those with the largest step first."""
    if isinstance(part, tuple):
        for place, each in enumerate(part):
            yield part[:place] + part[place + 1 :]
            if is_block:
                yield from (part[:place] + inner + part[place + 1 :] for inner in _insides(each))
        for place, each in enumerate(part):
            yield from ((*part[:place], less, *part[place + 1 :]) for less in _smaller(each))
    elif is_dataclass(part) and not isinstance(part, type):
        for each in fields(part):
            value = getattr(part, each.name)
            if isinstance(value, tuple):
                yield from (
                    replace(part, **{each.name: less})
                    for less in _smaller(value, is_block=each.name in ("body", "inside"))
                )
            elif each.name not in ("label", "name") and value != each.default:
                yield replace(part, **{each.name: each.default})


def _insides(part: Any) -> Iterator[Any]:
    """What a statement could be replaced with."""
    if isinstance(part, Agent):
        yield part.body
    elif isinstance(part, Chains):
        yield from part.branches
    elif isinstance(part, Group):
        yield part.inside
        yield tuple(member for member in part.members if not isinstance(member, Plain))
