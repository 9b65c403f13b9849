"""What can be given to a group, and how it becomes a member: an index, a key, and a way to start an attempt."""

from __future__ import annotations

import functools
import inspect
import weakref
from asyncio import Task
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sized
from contextvars import Context
from dataclasses import dataclass, field
from types import CoroutineType, FunctionType
from typing import Any, Final, Protocol

from rh_agents.core._base.foreign import noted
from rh_agents.core._loops.exits import FAILURES, failure_of
from rh_agents.core._replay.decision import Recorded
from rh_agents.core._replay.identity import again_key
from rh_agents.core._run.frame import Frame
from rh_agents.core._run.identifying import Identities
from rh_agents.core.actors import BaseActor
from rh_agents.core.actors.signature import expect_resolved
from rh_agents.core.calls import ActorCall, Call
from rh_agents.core.errors import DefinitionError, OptionError
from rh_agents.core.ports.executors import Placement
from rh_agents.core.redaction.described import short_repr
from rh_agents.core.results import ExecutionResult
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.values import function_below, learn_function
from rh_agents.core.values.rows import DataFrame, rows_of

__all__ = [
    "FUNCTION_ACTOR",
    "NO_ITEM",
    "RECOVERED",
    "Held",
    "Member",
    "Part",
    "Place",
    "Source",
    "Work",
    "check_work",
    "close_unstarted",
    "expect_name",
    "failed_source",
    "given_to",
    "label_of",
    "learn_types",
    "raising",
    "starter",
]

Work = Call[Any] | Awaitable[Any] | Callable[[], Awaitable[Any]]
"""What `add` takes."""

FUNCTION_ACTOR: BaseActor = BaseActor.model_construct(
    name="function",
    event_type=EventType.FUNCTION_CALL,
    handler=lambda: None,
    description="Stands for plain coroutines and callables in the events about them.",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member stands in a group that another process has open, which has numbered it."""

    index: int
    base: bytes
    key: bytes
    tries: int


class Part(Protocol):
    """An item that another process has numbered."""

    @property
    def place(self) -> Place:
        """Where it stands."""
        ...

    @property
    def name(self) -> str | None:
        """What the program calls it; None if it has no name."""
        ...

    def value(self) -> Any:
        """What the function is applied to."""
        ...


NO_ITEM: Final = object()
"""Stands for: the member is not one of an item of `map`."""


class Held:
    """The result of a member that `add` enrolled, for its handle; freed with it."""

    __slots__ = ("result",)

    def __init__(self) -> None:
        self.result: ExecutionResult[Any] | None = None


class Member:
    """One item of a group: what to run, and where it stands."""

    # What most members never have is set only where it matters, as in a `Frame`.

    is_numbered: bool = True
    """Whether it has its key, if it is to have one. Who it is may have to be found out first, in a thread."""
    item: Any = NO_ITEM
    """The item of `map` that its function is applied to."""
    held: Held | None = None
    """Where its result is put for the handle that `add` gave."""
    place: Place | None = None
    """Where it stands in the group of another process of which this one is a part."""
    elsewhere: Callable[[Frame], Awaitable[ExecutionResult[Any]]] | None = None
    """Has it made in another process, which records its outcome; None if it is made here."""
    identities: Identities | None = None
    """What it has in common with others, if that was found out."""
    base: bytes | None = None
    """The key that its place in the program gives it."""
    key: bytes | None = None
    """The key of this try, see `Frame.try_of`."""
    tries: int = 0
    frame: Frame | None = None
    """What is executed, from when a task is made for it."""
    task: Task[None] | None = None
    has_begun: bool = False
    """Whether its task has made a step."""
    holds_slot: bool = False
    recorded: Recorded | None = None
    """What is recorded of it; None until its turn has come."""
    is_recovering: bool = False
    """Whether its recorded outcome is being fetched."""
    is_settled: bool = False
    """Whether its outcome counts, so that its place in the order of completion is known."""
    is_counted: bool = False
    """Whether the group has been told that it has started."""
    ended_as: ExecutionStatus | None = None
    """How its end was counted."""
    is_judged: bool = False
    """Whether its failure counts among those that may end the group."""
    is_requeued: bool = False
    """Whether a stream has given an earlier result of it."""

    def __init__(
        self, index: int, work: Work, name: str | None, label: str, context: Context, enrolled_at: float
    ) -> None:
        self.index: int = index
        self.work: Work = work
        self.name: str | None = name
        """The name that it was given."""
        self.label: str = label
        """The name that people see: the given one, or that of what is called."""
        self.context: Context = context
        self.enrolled_at: float = enrolled_at

    def make_again(self) -> None:
        """It failed or was cut off, and is to be made once more, under its next key."""
        assert self.key is not None
        self.key, self.tries = again_key(self.key), self.tries + 1
        self.frame = self.task = self.recorded = self.ended_as = None
        self.has_begun = self.is_recovering = self.is_settled = self.is_judged = False
        if self.held is not None:
            self.held.result = None


def _never() -> Awaitable[Any]:
    raise AssertionError("it stands for members that are not made")


RECOVERED: Member = Member(-1, _never, None, "", Context(), 0.0)
"""Stands for a member that has had its recorded result at once, so that none was made of it."""

_learned: weakref.WeakSet[FunctionType] = weakref.WeakSet()


def learn_types(function: Callable[..., Any]) -> None:
    """Make the classes that a function's annotations name known to stores, before it is called in a run that records.

    Raises:
        DefinitionError: its result is annotated with a name that means nothing.
    """
    actor = getattr(function, "actor", function)
    if isinstance(actor, BaseActor):
        _ = actor.has_known_types
        return
    below = function_below(function)
    if below is None or not below.__annotations__ or below in _learned:
        return
    learn_function(below)
    expect_resolved(below, below.__name__)
    _learned.add(below)


def label_of(work: object) -> str:
    """The name of what is called, as people see it; "" if it has none."""
    if isinstance(work, Call):
        return work.actor.name
    name = getattr(work, "__name__", "")
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
    is_async: bool
    """Whether pulling an item may have to wait."""
    label: str
    """What people call the members, unless they are calls of actors."""
    pulled: int = 0
    elsewhere: Placement | None = None
    """Who has the members made in other processes; None if they are made here."""
    spans: list[list[int]] = field(default_factory=list)
    """The indexes of its members: the first of each stretch, and the one behind its last."""
    is_part: bool = False
    """Whether its items are each a `Part` of a group that another process has open."""

    @classmethod
    def of(
        cls,
        function: Callable[[Any], Any] | BaseActor,
        items: Iterable[Any] | AsyncIterable[Any] | DataFrame,
        name: Callable[[Any], str] | None,
        key: Callable[[Any], str] | None,
        context: Context,
    ) -> Source:
        """Begin to iterate; the first item is pulled when a slot is free."""
        if isinstance(function, BaseActor) and not callable(function):
            function = functools.partial(ActorCall, function, extra_context=None)
        if not callable(function):
            raise DefinitionError(f"map() takes a function and the items for it, but {function!r} cannot be called")
        if isinstance(items, str | bytes):
            text = short_repr(items)
            raise DefinitionError(
                "map() was given one text, whose characters would be the items: write "
                f"map({label_of(function) or 'f'}, [{text}]), or list({text}) if they are meant"
            )
        length = len(items) if isinstance(items, Sized) else None
        label = label_of(function)
        rows = rows_of(items)
        if rows is not None:
            return cls(function, rows, name, key, context, length, False, label)
        if isinstance(items, AsyncIterable):
            return cls(function, aiter(items), name, key, context, length, True, label)
        if isinstance(items, Iterable):
            return cls(function, iter(items), name, key, context, length, False, label)
        raise DefinitionError(f"map() takes an iterable or an async iterable of items, not {type(items).__name__}")

    @property
    def enrolled(self) -> int:
        """How many members came of it."""
        return sum(behind - first for first, behind in self.spans)

    def has(self, index: int) -> bool:
        """Whether the member with this index is one of its items."""
        return any(first <= index < behind for first, behind in self.spans)

    def close(self) -> Exception | None:
        """Let a generator that is left in the middle come to its `finally`; returns what it raised there."""
        close = getattr(self.items, "close", None)
        if close is None or self.is_async or getattr(self.items, "gi_running", False):
            return None
        try:
            self.context.run(close)
        except FAILURES as raised:  # the iterable is the user's, and the group has to end all the same
            return failure_of(raised)
        return None

    async def aclose(self) -> None:
        """Let an async generator that has been begun come to its `finally`."""
        close = getattr(self.items, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except SystemExit as raised:
            raise failure_of(raised) from raised

    def work_for(self, item: Any) -> Work:
        """Apply the function, in the context in which `map` was called."""
        work = self.context.run(self.function, item)
        if isinstance(work, Call):
            return work
        if isinstance(work, CoroutineType):
            return _Repeatable(work, self.function, item)
        if inspect.isawaitable(work):
            return work
        name = getattr(self.function, "__name__", repr(self.function))
        return raising(
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

    def given(self) -> Any:
        """The item."""
        return self.item

    def __call__(self) -> Awaitable[Any]:
        first, self.first = self.first, None
        return first if first is not None else self.function(self.item)

    def close(self) -> None:
        first, self.first = self.first, None
        if first is not None:
            first.close()


def given_to(work: object) -> Callable[[], Any] | None:
    """Tells with which item a function was called that is no actor; None where nobody sees what is called with what."""
    return work.given if isinstance(work, _Repeatable) else None


def raising(error: Exception) -> Callable[[], Awaitable[Any]]:
    """Work that fails with this error."""

    async def fail() -> Any:
        raise error

    return fail


def failed_source(error: Exception, pulled: int) -> Callable[[], Awaitable[Any]]:
    """What stands for the rest of an iterable that raised: a member that fails with the iterable's error."""
    return raising(noted(error, f"raised by the iterable given to map(), after {pulled} items"))


def check_work(work: Work, makes_again: str | None) -> None:
    """Refuse what cannot work, before anything of it has started.

    Args:
        work: what was given to the group.
        makes_again: what the group does for which it has to be called again ("retries"); None for nothing.

    Raises:
        DefinitionError: it can be neither awaited nor called, or it is a bare coroutine in a group that retries, or
            takes requests to make members again.
    """
    if isinstance(work, Call):
        return
    if inspect.isawaitable(work):
        if makes_again is not None:
            close_unstarted(work)
            name = getattr(work, "__qualname__", "f")
            raise DefinitionError(
                f"this group {makes_again}, but a coroutine can run only once: instead of add({name}(...)) write "
                f"add(functools.partial({name}, ...)), or map({name}, items), or decorate {name} with @tool"
            )
        return
    if callable(work):
        return
    raise DefinitionError(
        f"add() takes a call, a coroutine, or a callable without arguments that returns an awaitable, not "
        f"{type(work).__name__}; for a plain function f write @tool above it, then add(f(...))"
        f"{'; several are added one by one, or with map(f, items)' if isinstance(work, list | tuple) else ''}"
    )


def expect_name(work: object, name: object) -> None:
    """Refuse `add(fetch, url)`.

    Raises:
        OptionError: what stands behind the work is no name.
    """
    if not isinstance(name, str):
        called = label_of(work) or "fetch"
        raise OptionError(f"add() takes a call: write add({called}({name!r})), not the function and its arguments")


def starter(work: Awaitable[Any] | Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """How to start an attempt of work that is no `Call`."""
    if isinstance(work, _Repeatable):
        return work
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


def callable_again(work: Work) -> bool:
    """Whether it can be made again: a coroutine can be awaited only once."""
    return isinstance(work, Call) or callable(work)


def close_unstarted(work: Work) -> None:
    """Say to a coroutine or a call that it will never run, so that Python does not warn that nobody awaited it."""
    if isinstance(work, Call):
        work.discard()
        return
    close = getattr(work, "close", None)
    if close is not None and (inspect.iscoroutine(work) or isinstance(work, _Repeatable)):
        close()
