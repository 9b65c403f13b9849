"""What is left out or misspelt, and says so itself: `await`, `async` before `with` and `for`, the name of something."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rh_agents.core._base.errors import UsageError

T = TypeVar("T")


class Unstarted:
    """Work that begins when it is awaited. A function that returns it has forgotten to."""

    __slots__ = ()

    @property
    def described(self) -> str:
        """The work as its user wrote it, in short: `fetch(3)`."""
        raise NotImplementedError

    def discard(self) -> None:
        """No one will await it, and that is right."""
        raise NotImplementedError


class AsyncBlock:
    """Something for `async with`."""

    written: ClassVar[str]
    """How users write it."""

    if not TYPE_CHECKING:  # checkers know that there is no such thing

        def __enter__(self):
            raise UsageError(f"`async` is missing: write `{self.written}:`, in an `async def`")

        def __exit__(self, *about: object) -> None:
            """Python looks for it before it enters."""


class AsyncLoop(AsyncIterator[T]):
    """The results of a group, for `async for`."""

    if not TYPE_CHECKING:

        def __iter__(self):
            raise UsageError("`async` is missing: write `async for result in p.stream():`")


def unknown_name(package: str, name: str, known: Sequence[str], elsewhere: Sequence[str]) -> AttributeError:
    """The error of a name that a package does not have.

    Args:
        package: its name.
        name: what was asked for.
        known: what it has.
        elsewhere: those of its modules that may have the name instead. They are imported for the name of a class.
    """
    said = f"module {package!r} has no attribute {name!r}"
    if name.startswith("_"):
        return AttributeError(said)
    for each in elsewhere if name[0].isupper() else ():
        module = f"{package}.{each}"
        if name in _public_names(module):
            return AttributeError(f"{said}: write `from {module} import {name}`")
    near = difflib.get_close_matches(name, known, n=1)
    return AttributeError(f"{said}{f'; did you mean {near[0]!r}?' if near else ''}")


def moved(package: str, name: str, module: str) -> Any:
    """What a name means that a package has no more: it is in a module of it. Warns at the line that asks for it."""
    warnings.warn(
        f"{name} has moved: write `from {module} import {name}`; {package!r} has it for one more release",
        DeprecationWarning,
        stacklevel=3,
    )
    return getattr(importlib.import_module(module), name)


def _public_names(module: str) -> Sequence[str]:
    """What a module has for users; nothing if it needs a package that is not there."""
    try:
        names: Sequence[str] = getattr(importlib.import_module(module), "__all__", ())
    except ImportError:
        return ()
    return names
