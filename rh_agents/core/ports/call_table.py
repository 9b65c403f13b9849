"""The calls of a run as a table, folded from its events: the reference for stores that let a database find them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rh_agents.core._base.failure_kinds import Failure, FailureKind, kinds_of
from rh_agents.core.events import ExecutionEvent, spender_of
from rh_agents.core.ports import RecordedEvent, Store
from rh_agents.core.ports.call_views import (
    Attempt,
    CallQuery,
    CallRecord,
    CallRef,
    CallView,
    CallWindow,
    Replaced,
    read_cursor,
    window_of,
)
from rh_agents.core.results import Outcome, UnreadOutcome
from rh_agents.core.types import ExecutionStatus

__all__ = ["CallTable", "Folding", "attempts_of", "is_behind", "replaced_by", "view_of", "why_made", "window_in"]

_ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)


def view_of(
    sequence: int,
    event: ExecutionEvent[Any],
    *,
    has_outcome: bool,
    text: str | None = None,
    its: Replaced | None = None,
) -> CallView:
    """A call as the event says that decides how it stands.

    Args:
        sequence, event: the event.
        has_outcome: whether it reports the outcome.
        text: what the call was called with.
        its: the outcome that this one replaces.
    """
    seconds = event.execution_time if has_outcome else None
    at = event.timestamp
    return CallView(
        sequence,
        event.key or "",
        event.address,
        event.name,
        spender_of(event.actor, event.name),
        event.event_type,
        event.execution_status,
        at - (seconds or 0.0) if has_outcome else at,
        at if has_outcome else None,
        seconds,
        event.attempt,
        event.message,
        event.group_id,
        event.parallel_index,
        event.usage,
        event.from_cache,
        text,
        its,
        waited=event.waited if has_outcome else 0.0,
    )


def replaced_by(view: CallView) -> Replaced:
    """What is said of an outcome by the one that replaces it."""
    return Replaced(view.sequence, view.status, view.seconds, None if view.usage is None else view.usage.cost)


@dataclass(slots=True)
class _Call:
    """What is known of one key.

    Attributes:
        events: all that there are, oldest first.
        ended: the number among them of the one with the outcome that counts.
    """

    events: list[RecordedEvent] = field(default_factory=list)
    ended: int | None = None


class CallTable:
    """The calls of one run.

    Args:
        outcomes: what its calls came to, as the store gives it.
    """

    def __init__(self, outcomes: Sequence[UnreadOutcome]) -> None:
        self.until: int = 0
        self._unread = {outcome.header.key.hex(): outcome for outcome in outcomes}
        self._calls: dict[str, _Call] = {}
        self._tries: dict[bytes, list[str]] = {}
        """The keys of calls that have an outcome, by their places in the program, in the order in which they ended."""

    def add(self, recorded: RecordedEvent) -> None:
        """The next event."""
        self.until, event = recorded.sequence, recorded.event
        if event.key is None:
            return
        call = self._calls.setdefault(event.key, _Call())
        call.events.append(recorded)
        if recorded.has_outcome and call.ended is None:
            call.ended = len(call.events) - 1
            self._tries.setdefault(self._place(event.key), []).append(event.key)

    def covers(self, recorded: RecordedEvent) -> bool:
        """Whether the outcome that an event reports, if it does, is among those that were given."""
        return not recorded.has_outcome or recorded.event.key is None or recorded.event.key in self._unread

    def _place(self, key: str) -> bytes:
        """Where the call stands in the program, whichever try of it this is."""
        unread = self._unread.get(key)
        return bytes.fromhex(key) if unread is None else unread.header.base

    def ended(self) -> Iterator[CallView]:
        """The calls that have ended and have not been made again, in the order in which they did."""
        newest = (keys[-1] for keys in self._tries.values())
        yield from sorted((self._ended_view(key) for key in newest), key=lambda view: view.sequence)

    def _ended_view(self, key: str) -> CallView:
        call = self._calls[key]
        assert call.ended is not None
        recorded = call.events[call.ended]
        tries = self._tries[self._place(key)]
        before = tries[: tries.index(key)]
        its = replaced_by(self._ended_view(before[-1])) if before else None
        text = self._unread[key].input
        return view_of(recorded.sequence, recorded.event, has_outcome=True, text=text, its=its)

    def running(self, group: str | None) -> Iterator[CallView]:
        """The calls that have begun and have no outcome, in the order in which they began."""
        for call in self._calls.values():
            if call.ended is None and _has_begun(call.events):
                view = _running_view(call.events)
                if group is None or view.group_id == group:
                    yield view

    def children(self, key: str) -> Iterator[CallView]:
        """The calls that a call made."""
        place = self._place(key)
        for view in self.ended():
            if self._unread[view.key].header.parent == place:
                yield view

    def record(self, key: str) -> CallRecord | None:
        """All that there is of one call."""
        call = self._calls.get(key)
        if call is None:
            return None
        is_ended = call.ended is not None
        tries = self._tries.get(self._place(key), [])
        before = tries[: tries.index(key)] if is_ended else []
        earlier = tuple(replaced_by(self._ended_view(each)) for each in before)
        unread = self._unread.get(key)
        view = self._ended_view(key) if is_ended else _running_view(call.events)
        return CallRecord(
            view,
            attempts_of(call.events),
            tuple(call.events),
            self._parents(unread),
            why_made(view, earlier),
            earlier,
            None if unread is None else partial(_read, unread),
        )

    def _parents(self, unread: UnreadOutcome | None) -> tuple[CallRef, ...]:
        """The calls around one that has ended, outermost first."""
        found: list[CallRef] = []
        while unread is not None and unread.header.parent:
            key = unread.header.parent.hex()
            call = self._calls.get(key)
            found.append(CallRef(key, call.events[0].event.address if call else ""))
            tries = self._tries.get(bytes.fromhex(key), [])
            unread = self._unread.get(tries[-1]) if tries else None
        return tuple(reversed(found))


def _has_begun(events: Sequence[RecordedEvent]) -> bool:
    statuses = {recorded.event.execution_status for recorded in events}
    return ExecutionStatus.STARTED in statuses or ExecutionStatus.RETRYING in statuses


def _running_view(events: Sequence[RecordedEvent]) -> CallView:
    newest = events[-1]
    view = view_of(newest.sequence, newest.event, has_outcome=False)
    return replace(view, began_at=events[0].event.timestamp)


def attempts_of(events: Sequence[RecordedEvent]) -> tuple[Attempt, ...]:
    """The attempts of a call, of its events: of those that followed the last time at which it was begun."""
    found: list[Attempt] = []
    for recorded in events:
        event = recorded.event
        status = event.execution_status
        if status is ExecutionStatus.RETRYING:
            its = (event.timestamp, event.retry_delay, event.message, event.usage)
            found.append(Attempt(event.attempt, status, *its))
        elif recorded.has_outcome:
            if event.attempt:  # else it was never called
                found.append(Attempt(event.attempt, status, event.timestamp, None, event.message, event.usage))
            break
    else:
        if events and events[-1].event.execution_status in (ExecutionStatus.STARTED, ExecutionStatus.RETRYING):
            found.append(Attempt(found[-1].number + 1 if found else 1, ExecutionStatus.STARTED))
    return tuple(found)


def why_made(view: CallView, earlier: Sequence[Replaced]) -> str:
    """Why a call was made, in a few words."""
    if view.from_cache:
        return "from a cache"
    if not earlier:
        return "new"
    reasons = {
        ExecutionStatus.FAILED: "it had failed",
        ExecutionStatus.CANCELLED: "it was cut off",
    }
    return f"made again: {reasons.get(earlier[-1].status, 'somebody asked for that')}"


async def _read(unread: UnreadOutcome) -> Outcome:
    return unread.read(unknown_ok=True)


class Folding:
    """Windows of a store that has only events: all of them are read for each question.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def _table(self, run_id: str) -> CallTable:
        table = CallTable([unread async for unread in self._store.unread_outcomes(run_id)])
        async for recorded in self._store.events(run_id, values=False):
            if not table.covers(recorded):  # written since the outcomes were read
                break
            table.add(recorded)
        return table

    async def call_window(self, run_id: str, query: CallQuery) -> CallWindow:
        """See `calls_of_run`."""
        return window_in(await self._table(run_id), query)

    async def running_window(self, run_id: str, n: int, group: str | None) -> CallWindow:
        """See `running_calls`."""
        table = await self._table(run_id)
        return CallWindow(tuple(table.running(group))[:n], None, table.until)

    async def children_window(self, run_id: str, key: str, after: str | None, n: int) -> CallWindow:
        """See `children_of_call`."""
        table = await self._table(run_id)
        last = 0 if after is None else read_cursor(after)[1]
        found = [view for view in table.children(key) if view.sequence > last]
        return window_of(found, CallQuery(n=n), table.until)

    async def call_record(self, run_id: str, key: str) -> CallRecord | None:
        """See `call_of_run`."""
        return (await self._table(run_id)).record(key)

    async def failure_kinds(self, run_id: str) -> list[FailureKind]:
        """See `failure_kinds`."""
        failed = (view for view in (await self._table(run_id)).ended() if view.status is ExecutionStatus.FAILED)
        return kinds_of(Failure(view.sequence, view.address, view.actor, view.message) for view in failed)


def window_in(table: CallTable, query: CallQuery) -> CallWindow:
    """The window of a table that a query describes."""
    found = [view for view in table.ended() if query.fits(view)][query.first :]
    found.sort(key=query.place)
    if query.descending:  # what is equal stays in the order of the journal
        found.sort(key=lambda view: view.value(query.order), reverse=True)
    position = query.position
    if position is not None:
        found = [view for view in found if is_behind(query, view, position)]
    return window_of(found, query, table.until)


def is_behind(query: CallQuery, view: CallView, position: tuple[float | str, int]) -> bool:
    """Whether a call stands behind a position in the order of a query."""
    value, (its, sequence) = view.value(query.order), position
    if value == its:
        return view.sequence > sequence
    return (value < its) if query.descending else (value > its)  # type: ignore[operator]  # of one order
