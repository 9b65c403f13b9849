"""The results of a group as an async iterator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from rh_agents.core._base.mistakes import AsyncLoop
from rh_agents.core._group.scheduler import Scheduler
from rh_agents.core.results import ExecutionResult, MemberResult

__all__ = ["ResultStream"]

_GIVEN_AT_ONCE = 256


class ResultStream(AsyncLoop["MemberResult[Any, Any]"]):  # quoted: Pydantic would build a model for it at import
    """The results of a group, each one given once. `ParallelExecutionManager.stream` makes one.

    A member that failed, and that a person asks to be made again, has a further result (`requeued`) if the group takes
    such requests. The stream ends when nothing that was asked for by then is left to be made.

    It only reads: the tasks belong to the group, so leaving the loop early leaves nothing running behind the block.

    Args:
        scheduler: has the results.
        conclude: sees whether the group has ended early, when nothing runs any more.
        end: then says what became of it, if that is not just its results.
        ordered: whether results come in the order in which the members were enrolled.
    """

    def __init__(
        self, scheduler: Scheduler, conclude: Callable[[], None], end: Callable[[], Awaitable[None]], *, ordered: bool
    ) -> None:
        self._scheduler = scheduler
        self._conclude = conclude
        self._end = end
        self._take = self._next_enrolled if ordered else scheduler.take_completed
        self._next_index = 0
        self._given = 0
        self.is_exhausted: bool = False
        """Whether all results have been given."""
        scheduler.is_streamed = scheduler.finished.is_streaming = True

    async def __anext__(self) -> MemberResult[Any, Any]:
        scheduler = self._scheduler
        while (result := self._take()) is None:
            if not scheduler.is_idle:
                await scheduler.change()
            elif scheduler.finished and not scheduler.has_more_later:
                scheduler.order.skip_unfinished()
            elif not self._ends_early():
                await self._end()
                if _goes_on(scheduler):
                    continue  # somebody has asked meanwhile for a failure to be made again
                self.is_exhausted = True
                scheduler.finished.reading_ended()
                raise StopAsyncIteration
        self.is_exhausted = False
        self._given += 1
        if self._given % _GIVEN_AT_ONCE == 0:  # recorded results are there without waiting, thousands of them
            await asyncio.sleep(0)
        return result  # type: ignore[return-value]  # `MemberResult` says why

    def _ends_early(self) -> bool:
        """Whether it turns out now that the group has ended early: then what it has is given, whatever is missing."""
        had_ended = self._scheduler.has_ended_early
        self._conclude()
        return self._scheduler.has_ended_early and not had_ended

    def _next_enrolled(self) -> ExecutionResult[Any] | None:
        scheduler = self._scheduler
        index = self._next_index
        if not scheduler.finished.has_first(index):
            # When the run goes on, what its stop left without a result is there, and comes before all later ones.
            if not scheduler.is_idle or scheduler.has_more_later:
                return None
            # What was cancelled has no result; what was added after this stream had passed its place comes last.
            if (first := scheduler.finished.first_index) is None:
                return self._next_further()
            index = first
        self._next_index = index + 1
        return scheduler.take(index)

    def _next_further(self) -> ExecutionResult[Any] | None:
        """All members have one result: the next one of those that were made again, as they came to it."""
        index = self._scheduler.finished.next_when_idle()
        return None if index is None else self._scheduler.take(index)


def _goes_on(scheduler: Scheduler) -> bool:
    """Whether there is something to do again, though there was nothing a moment ago."""
    return not scheduler.is_idle
