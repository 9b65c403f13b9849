"""What can be given to a group, and how it becomes a member: an index, a key, and a way to start an attempt."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sized
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import Call
from rh_agents.core.errors import DefinitionError
from rh_agents.core.types import EventType

__all__ = ["FUNCTION_ACTOR", "Member", "Source", "Work", "check_work", "close_unstarted", "starter"]

Work = Call[Any] | Awaitable[Any] | Callable[[], Awaitable[Any]]
"""What `add` takes."""

FUNCTION_ACTOR = BaseActor(
    name="function",
    event_type=EventType.FUNCTION_CALL,
    handler=lambda: None,
    description="Stands for plain coroutines and callables in the events about them.",
)


class Member:
    """One item of a group, from its enrolment until it is started."""

    __slots__ = ("base", "context", "enrolled_at", "index", "key", "name", "work")

    def __init__(self, index: int, work: Work, name: str | None, context: Context, enrolled_at: float) -> None:
        self.index: int = index
        self.work: Work = work
        self.name: str | None = name
        self.context: Context = context
        self.enrolled_at: float = enrolled_at
        self.base: bytes | None = None
        self.key: bytes | None = None

    @property
    def actor(self) -> BaseActor:
        """The actor that is called, or the one that stands for plain functions."""
        return self.work.actor if isinstance(self.work, Call) else FUNCTION_ACTOR

    @property
    def label(self) -> str:
        """The name that people see."""
        if self.name is not None:
            return self.name
        if isinstance(self.work, Call):
            return self.work.actor.name
        name = getattr(self.work, "__name__", "")
        return "" if name == "<lambda>" else name


@dataclass(slots=True)
class Source:
    """The items of one `map` that have not been pulled yet."""

    function: Callable[[Any], Any]
    items: Iterator[Any] | AsyncIterator[Any]
    name: Callable[[Any], str] | None
    key: Callable[[Any], str] | None
    context: Context
    length: int | None
    """How many items are left, if that is known."""
    pulled: int = 0

    @classmethod
    def of(
        cls,
        function: Callable[[Any], Any],
        items: Iterable[Any] | AsyncIterable[Any],
        name: Callable[[Any], str] | None,
        key: Callable[[Any], str] | None,
        context: Context,
    ) -> Source:
        """Begin to iterate; the first item is pulled when a slot is free."""
        if not callable(function):
            raise DefinitionError(f"map() takes a function and the items for it, but {function!r} cannot be called")
        length = len(items) if isinstance(items, Sized) else None
        if isinstance(items, AsyncIterable):
            return cls(function, aiter(items), name, key, context, length)
        if isinstance(items, Iterable):
            return cls(function, iter(items), name, key, context, length)
        raise DefinitionError(f"map() takes an iterable or an async iterable of items, not {type(items).__name__}")

    @property
    def is_async(self) -> bool:
        """Whether pulling an item may have to wait."""
        return isinstance(self.items, AsyncIterator)

    def count_pulled(self) -> None:
        """One item has been pulled."""
        self.pulled += 1
        if self.length is not None:
            self.length = max(0, self.length - 1)

    def work_for(self, item: Any) -> Work:
        """Apply the function. An exception of it becomes the failure of the item."""
        try:
            work = self.context.run(self.function, item)
        except Exception as error:  # noqa: BLE001 - it is the item that fails, not the group
            return _raising(error)
        if isinstance(work, Call):
            return work
        if inspect.iscoroutine(work):
            return _Repeatable(work, self.function, item)
        if inspect.isawaitable(work):
            return work
        name = getattr(self.function, "__name__", repr(self.function))
        return _raising(
            DefinitionError(
                f"map({name}, ...): {name} returned {type(work).__name__}, which cannot be awaited; write `async def`, "
                "or decorate the function with @tool, which runs plain functions in a thread"
            )
        )


class _Repeatable:
    """A coroutine that a function made for an item: another attempt asks the function for another one."""

    __slots__ = ("first", "function", "item")

    def __init__(self, first: Coroutine[Any, Any, Any], function: Callable[[Any], Any], item: Any) -> None:
        self.first: Coroutine[Any, Any, Any] | None = first
        self.function = function
        self.item = item

    @property
    def __name__(self) -> str:
        return getattr(self.function, "__name__", "")

    def __call__(self) -> Awaitable[Any]:
        first, self.first = self.first, None
        return first if first is not None else self.function(self.item)

    def close(self) -> None:
        if self.first is not None:
            self.first.close()


def _raising(error: Exception) -> Callable[[], Awaitable[Any]]:
    async def fail() -> Any:
        raise error

    return fail


def failed_source(error: Exception, pulled: int) -> Callable[[], Awaitable[Any]]:
    """What stands for the rest of an iterable that raised: a member that fails with the iterable's error."""
    error.add_note(f"raised by the iterable given to map(), after {pulled} items")
    return _raising(error)


def check_work(work: Work, retries: bool) -> None:
    """Refuse what cannot work, before anything of it has started.

    Raises:
        DefinitionError: it can be neither awaited nor called, or it is a bare coroutine in a group that retries.
    """
    if isinstance(work, Call):
        return
    if inspect.isawaitable(work):
        if retries:
            close_unstarted(work)
            name = getattr(work, "__qualname__", "f")
            raise DefinitionError(
                f"this group retries, but a coroutine can run only once: instead of add({name}(...)) write "
                f"add(functools.partial({name}, ...)), or map({name}, items), or decorate {name} with @tool"
            )
        return
    if callable(work):
        return
    raise DefinitionError(
        f"add() takes a call, a coroutine, or a callable without arguments that returns an awaitable, not "
        f"{type(work).__name__}; for a plain function f write @tool above it, then add(f(...))"
    )


def starter(work: Awaitable[Any] | Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """How to start an attempt of work that is no `Call`."""
    if inspect.isawaitable(work):
        return lambda: work
    return lambda: _awaitable(work)


def _awaitable(function: Callable[[], Any]) -> Awaitable[Any]:
    made = function()
    if inspect.isawaitable(made):
        return made
    name = getattr(function, "__qualname__", repr(function))
    raise DefinitionError(
        f"add({name}): {name} returned {type(made).__name__}, which cannot be awaited; write `async def`, or decorate "
        "it with @tool, which runs plain functions in a thread"
    )


def close_unstarted(work: Work) -> None:
    """Say to a coroutine that it will never run, so that Python does not warn that nobody awaited it."""
    close = getattr(work, "close", None)
    if close is not None and (inspect.iscoroutine(work) or isinstance(work, _Repeatable)):
        close()
