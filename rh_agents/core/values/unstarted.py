"""Work that begins when it is awaited: what says that no one did."""

from __future__ import annotations

import sys
import warnings
from enum import StrEnum
from types import CoroutineType
from typing import Any

from rh_agents.core.errors import DefinitionError
from rh_agents.core.redaction import RedactingRepr

__all__ = ["Unstarted", "Use", "forgotten_await", "is_unstarted", "short_repr"]


class Use(StrEnum):
    """What has become of a call."""

    NOT_STARTED = "not started"
    AWAITED = "awaited"
    GIVEN = "given to a group"
    HANDED_OVER = "given to asyncio"
    """Which makes a task that awaits it, unless that is cancelled before its first step."""
    DISCARDED = "discarded"
    """No one awaits it, and no one forgot to: another one stands for it, or it was refused."""


_NOT_STARTED = Use.NOT_STARTED


class Unstarted:
    """Warns like a coroutine if it is thrown away before anybody has awaited it."""

    __slots__ = ("use",)

    def __init__(self) -> None:
        self.use: Use = _NOT_STARTED

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.described}: {self.use.value}>"

    def __del__(self) -> None:
        try:
            if self.use is not _NOT_STARTED:
                return
        except AttributeError:  # its own `__init__` raised
            return
        if not sys.is_finalizing():  # then there may be nobody left to tell
            warnings.warn(f"{self.described} was never awaited", RuntimeWarning, stacklevel=2, source=self)

    @property
    def described(self) -> str:
        """The call as its user wrote it, in short: `fetch(3)`."""
        raise NotImplementedError

    @property
    def _asyncio_future_blocking(self) -> None:
        """Asked for by `asyncio.isfuture`, with which asyncio begins whatever it does with something awaitable.

        It is none: what has it must give something else than None. But whoever hands a call to `asyncio.wait_for` or
        `asyncio.gather` has not forgotten it, even where asyncio itself cancels its task before that awaits the call.
        """
        if self.use is _NOT_STARTED:
            self.use = Use.HANDED_OVER

    def discard(self) -> None:
        """No one will await it, and that is right."""
        self.use = Use.DISCARDED


_short = RedactingRepr()
_short.maxstring = _short.maxother = 40
_short.maxlevel = 2


def short_repr(value: object) -> str:
    """A value in one short line, without secrets, whatever its own `repr` does."""
    text = _short.repr(value)
    return text if text.isprintable() else ascii(text)


_WORK = (Unstarted, CoroutineType)
_SEQUENCES = (list, tuple)


def is_unstarted(value: Any) -> bool:
    """Whether a function returned work that no one has awaited, or a list of it."""
    if type(value) in _SEQUENCES and value:
        value = value[0]
    return isinstance(value, _WORK)


def forgotten_await(name: str, value: Any) -> DefinitionError:
    """The error of a function that returned such work, which is then never started."""
    is_many = type(value) in _SEQUENCES
    works = value if is_many else [value]
    first = works[0]
    if isinstance(first, Unstarted):
        kind, shown = "call", first.described
    else:
        kind, shown = "coroutine", f"{first.__qualname__}(...)"
    for work in works:
        if isinstance(work, Unstarted):
            work.discard()
        elif isinstance(work, CoroutineType):
            work.close()
    if is_many:
        return DefinitionError(
            f"{name} returned a {type(value).__name__} of {kind}s that have not started, {shown} first: await them, or "
            "give them to a group, and return what comes of them"
        )
    return DefinitionError(f"{name} returned the {kind} {shown}, which has not started: write `return await {shown}`")
