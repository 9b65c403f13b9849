"""What `add` and `map` of a group give: the ways to the results of just these members, with their types.

`p.gather()` and `p.stream()` give the results of whatever is in the group, so nothing can be said of their types. A
handle knows them from the call or the function that it stands for.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeAlias, TypedDict, TypeVar

from rh_agents.core._base.mistakes import AsyncLoop
from rh_agents.core._base.tracebacks import trimmed
from rh_agents.core._group.members import Held, Source
from rh_agents.core._group.stream import ResultStream
from rh_agents.core.errors import UsageError
from rh_agents.core.results import ExecutionResult, ItemT, MemberResult, ValueT
from rh_agents.core.values.names import PlainInt

__all__ = ["HandlesOf", "Items", "MapHandle", "MapOptions", "MapStream", "MemberHandle", "RowOptions"]

T = TypeVar("T")
NamedT = TypeVar("NamedT")


class MapOptions(TypedDict, Generic[NamedT], total=False):
    """The options of `map`, for type checkers; what they mean, `ParallelExecutionManager.map` says."""

    name: Callable[[NamedT], str] | None
    key: Callable[[NamedT], str] | None
    shard: int | None
    on: str | None
    workers: int | None


RowOptions: TypeAlias = MapOptions[Mapping[str, Any]]
"""The same for the rows of a data frame."""

Items: TypeAlias = Iterable[NamedT] | AsyncIterable[NamedT]
"""What `map` takes its items from."""


class HandlesOf(Protocol):
    """The group, as its handles use it."""

    def __repr__(self) -> str: ...

    async def outcome_of(self, index: int, held: Held) -> ExecutionResult[Any]:
        """Wait for the result of a member."""
        ...

    def outcome_now(self, index: int, held: Held) -> ExecutionResult[Any]:
        """The result of a member that has ended."""
        ...

    async def results_of(self, source: Source) -> list[ExecutionResult[Any]]:
        """Wait for the results of the items of a `map`."""
        ...

    def stream_of(self, source: Source, *, ordered: bool) -> ResultStream:
        """A stream of the group, which has no other members yet."""
        ...


class MemberHandle(PlainInt, Generic[T]):
    """What `add` gives: the index of the member, an int as ever, and the way to its value, whose type is known.

        page, count = p.add(fetch(url)), p.add(count_words(text))
        await p.gather()
        page.result(), count.result()        # a str and an int

    A failure that was raised here, or given by `outcome`, counts as read.
    """

    _group: HandlesOf
    _held: Held

    @classmethod
    def of(cls, index: int, group: HandlesOf, held: Held) -> MemberHandle[Any]:
        """A handle of the member with this index."""
        handle = int.__new__(cls, index)
        handle._group, handle._held = group, held
        return handle

    def __repr__(self) -> str:
        return f"<member {int(self)} of {self._group!r}>"

    def __str__(self) -> str:
        return str(int(self))

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """In other processes, and in copies, it is the plain index."""
        return int, (int(self),)

    @property
    def index(self) -> int:
        """Its place in the group, counted from 0, as a plain int."""
        return int(self)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the member; its value.

        Raises:
            BaseException: it failed: its own exception, as when the call itself is awaited; or the group has ended
                early, and this is why.
            CallCancelled: it was cancelled with its group, or never began.
            UsageError: a member of the group waits for another one, which might never get a slot.
        """
        return self._value().__await__()

    async def _value(self) -> Any:
        return _unwrapped(await self._group.outcome_of(int(self), self._held))

    def outcome(self) -> Coroutine[Any, Any, MemberResult[T, None]]:
        """Wait for the member; its result, which holds the failure if it failed. The errors are those of the group."""
        return self._group.outcome_of(int(self), self._held)  # type: ignore[return-value]

    def result(self) -> T:
        """The value of a member that has ended, without waiting, also after the block.

        Raises:
            UsageError: it has not ended yet: `await` the handle, or `p.gather()` first.
            BaseException: it failed: its own exception.
            CallCancelled: it was cancelled with its group, or never began.
        """
        value: T = _unwrapped(self._group.outcome_now(int(self), self._held))
        return value


def _unwrapped(result: ExecutionResult[Any]) -> Any:
    try:
        return result.unwrap()
    except BaseException as error:
        trimmed(error)
        raise
    finally:
        del result  # an error in it leads to this frame, and would be held by it


class MapHandle(Generic[ValueT, ItemT]):
    """What `map` gives: the results of its items, whose types are known.

    pages = p.map(fetch, urls)
    for page in await pages:             # or: async for page in pages.stream()
        print(page.item, page.unwrap())  # a URL, and what `fetch` returned for it
    """

    def __init__(self, group: HandlesOf, source: Source) -> None:
        self._group = group
        self._source = source

    def __repr__(self) -> str:
        return f"<map({self._source.label or '...'}, ...) of {self._group!r}>"

    def __await__(self) -> Generator[Any, None, list[MemberResult[ValueT, ItemT]]]:
        """Wait for all members of the group, as `gather` does; the results of these items, in their order.

        Raises: as `gather`.
        """
        return self._group.results_of(self._source).__await__()  # type: ignore[return-value]

    def stream(self, *, ordered: bool = False) -> MapStream[ValueT, ItemT]:
        """The results as they are completed, or in the order of the items, as `stream` of the group gives them.

        Args:
            ordered: in the order of the items.

        Raises:
            UsageError: the group has other members, too, whose results would be lost: use `p.stream()`.
        """
        return MapStream(self._group.stream_of(self._source, ordered=ordered), self._source)


class MapStream(AsyncLoop["MemberResult[ValueT, ItemT]"], Generic[ValueT, ItemT]):  # quoted, as `ResultStream`
    """The results of the items of one `map`: `MapHandle.stream` makes one."""

    def __init__(self, results: ResultStream, source: Source) -> None:
        self._results = results
        self._source = source

    async def __anext__(self) -> MemberResult[ValueT, ItemT]:
        result = await anext(self._results)
        if not self._source.has(result.index):
            raise UsageError(
                f"the stream of a map() has met member {result.index}, which was enrolled by something else: "
                "read the results of all with p.stream()"
            )
        return result
