"""Who waits for a slot in a group: members in their order, and iterables from which more are pulled."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from rh_agents.core._exits import FAILURES, failure_of
from rh_agents.core._former import known_place
from rh_agents.core._members import Member, Source, Work, close_unstarted, failed_source, label_of, raising
from rh_agents.core._order import RecordedOrder
from rh_agents.core._unstarted import Use
from rh_agents.core.calls import Call, report_undefined_order
from rh_agents.core.codec import canonical
from rh_agents.core.errors import CallCancelled, DefinitionError, StopRun
from rh_agents.core.keys import again_key, child_key, identity_of_item, identity_of_unseen

if TYPE_CHECKING:
    from rh_agents.core.groups import GroupEnding
    from rh_agents.core.ports import RunHandle
    from rh_agents.core.scope import Scope

__all__ = ["Roster"]


class Roster:
    """Enrols members: gives each its index and, in a run that records, its key."""

    def __init__(self, run: RunHandle, scope: Scope, group: str, group_id: str, order: RecordedOrder) -> None:
        self._run = run
        self._scope = scope
        self._group = group
        self._group_id = group_id
        self._order = order
        self._waiting: deque[Member] = deque()
        self._sources: deque[Source] = deque()
        self._is_discarded = False
        self.enrolled: int = 0
        """How many members there are so far."""
        self.sealed_by: GroupEnding | None = None
        """How the group ended before, if that binds."""
        self.known: int = 0
        """How many members of a sealed group the journal knows."""

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits, and nobody can come but through `add` and `map`."""
        return not self._waiting and not self._sources

    @property
    def waiting(self) -> int:
        """How many members wait for a slot."""
        return len(self._waiting)

    @property
    def has_sources(self) -> bool:
        """Whether an iterable has not been read to its end."""
        return bool(self._sources)

    @property
    def async_source(self) -> Source | None:
        """The iterable whose turn it is, if reading it may have to wait."""
        return self._sources[0] if self._sources and self._sources[0].is_async else None

    @property
    def is_known(self) -> bool:
        """Whether as many members are enrolled that the journal knows as had begun when the group ended."""
        return self.sealed_by is not None and self.known >= self.sealed_by.known

    @property
    def is_full(self) -> bool:
        """Whether, besides, as many members are enrolled as there were then."""
        return self.is_known and self.sealed_by is not None and self.enrolled >= self.sealed_by.enrolled

    def total(self) -> int | None:
        """How many members there will be; None if an iterable does not tell its length."""
        total = self.enrolled
        for source in self._sources:
            if source.length is None:
                return None
            total += source.length
        return total

    def enrol(self, work: Work, name: str | None, key: str | None, context: Context, now: float) -> Member:
        """Make a member of a call, a coroutine or a callable."""
        return self._enrol(work, name, key, context, now, None)

    def enrol_item(self, source: Source, item: Any, now: float) -> Member:
        """Make a member of an item that an iterable gave. Whatever goes wrong here is the failure of that item."""
        source.count_pulled()
        context = source.context.copy()
        work: Work | None = None
        try:
            work = source.work_for(item)
            name = None if source.name is None else source.name(item)
            key = None if source.key is None else source.key(item)
            return self._enrol(work, name, key, context, now, (source, item))
        except FAILURES as raised:  # the functions are the user's, and it is the item that fails
            if work is not None:
                close_unstarted(work)
            return self._enrol(raising(failure_of(raised)), None, None, context, now, None)

    def enrol_failure(self, source: Source, error: Exception, now: float) -> Member:
        """Make a failed member of the rest of an iterable that raised."""
        return self._enrol(failed_source(error, source.pulled), "map", None, source.context, now, None)

    def _enrol_cancelled(self, source: Source, now: float) -> Member:
        return self.enrol_failure(source, CallCancelled("the iterable was cancelled, but not by its group"), now)

    def wait(self, member: Member) -> None:
        """Let a member wait for a slot."""
        self._waiting.append(member)

    def wait_first(self, member: Member) -> None:
        """Let a member wait before all others: its turn came too early."""
        self._waiting.appendleft(member)

    def add_source(self, source: Source) -> None:
        """Read this iterable when those before it have been read."""
        self._sources.append(source)

    def next_waiting(self) -> Member | None:
        """The member that has waited longest."""
        return self._waiting.popleft() if self._waiting else None

    def pull(self, now: float) -> Member | None:
        """The next item of the iterables that can be read without waiting; None if there is none."""
        while self._sources and not self._sources[0].is_async:
            source = self._sources[0]
            try:
                item = source.context.run(next, source.items)  # type: ignore[arg-type]
            except StopIteration:
                self._end(source)
            except StopRun:
                self._end(source)
                raise
            except asyncio.CancelledError:  # for instance of a future that it looks at
                self._end(source)
                return None if self._is_discarded else self._enrol_cancelled(source, now)
            except FAILURES as raised:  # the iterable is the user's; its failure is a member's
                self._end(source)
                return None if self._is_discarded else self.enrol_failure(source, failure_of(raised), now)
            else:
                return None if self._is_discarded else self.enrol_item(source, item, now)
        return None

    async def pull_async(self, source: Source, clock: Callable[[], float]) -> Member | None:
        """The next item of an async iterable; None if it has been read to its end."""
        try:
            item = await anext(source.items)  # type: ignore[arg-type]
        except StopAsyncIteration:
            self._end(source)
        except StopRun:
            self._end(source)
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._end(source)  # nobody cancelled us: it is what the iterable raised
            return self._enrol_cancelled(source, clock())
        except FAILURES as raised:  # the iterable is the user's; its failure is a member's
            self._end(source)
            if not self._is_discarded:
                return self.enrol_failure(source, failure_of(raised), clock())
        else:
            if not self._is_discarded:
                return self.enrol_item(source, item, clock())
        return None

    def _end(self, source: Source) -> None:
        if self._sources and self._sources[0] is source:
            self._sources.popleft()

    def discard(self, *, keep: Callable[[Member], bool] | None = None, keep_sources: bool = False) -> list[Exception]:
        """Forget what has not started, for good, but for the members that `keep` names and, for now, the iterables.

        Returns what iterables raised when they were closed.
        """
        waiting, self._waiting = self._waiting, deque()
        for member in waiting:
            if keep is not None and keep(member):
                self._waiting.append(member)
            else:
                close_unstarted(member.work)
        if keep_sources:
            return []
        self._is_discarded = True
        sources, self._sources = self._sources, deque()
        return [error for source in sources if (error := source.close()) is not None]

    def _enrol(
        self,
        work: Work,
        name: str | None,
        key: str | None,
        context: Context,
        now: float,
        origin: tuple[Source, Any] | None,
    ) -> Member:
        if name is not None:
            label = name
        elif origin is not None and not isinstance(work, Call):
            label = origin[0].label
        else:
            label = label_of(work)
        member = Member(self.enrolled, work, name, label, context, now)
        if isinstance(work, Call):
            work.use = Use.GIVEN
        if self._run.records:
            same = self._identity(member, key, origin)
            first = child_key(self._scope.key, self._group, same, 0)
            occurrence = self._scope.count(first)
            if occurrence and self._scope.has_other_open_group(self._group, self):
                report_undefined_order(self._scope, member.label, self._run)
            sealed_by = self.sealed_by
            member.base = child_key(self._scope.key, self._group, same, occurrence) if occurrence else first
            if isinstance(work, Call) and (former := work.former_identities(key)):
                actor = work.actor
                member.base = known_place(self._scope, actor.name, self._group, member.base, former, actor.keys_since)
            member.key, member.tries = self._scope.resolve(
                member.base, keeps_cut_off=sealed_by is not None, ending=sealed_by
            )
            if sealed_by is not None:
                self.known += self._run.knows(member.key)
            self._order.enrolled(member.key, member.index)
            if isinstance(work, Call) and not work.actor.is_stored:
                member.key = None
            failed = member.base
            for _ in range(member.tries):
                self._order.passed(failed)
                failed = again_key(failed)
        self.enrolled += 1
        return member

    def _identity(self, member: Member, key: str | None, origin: tuple[Source, Any] | None) -> bytes:
        work = member.work
        if isinstance(work, Call):
            _ = work.actor.has_known_types
            return work.identity() if key is None else work.identity_for(key)
        if key is None and member.name is None and origin is not None:
            source, item = origin
            try:
                return identity_of_item(self._group_id, getattr(source.function, "__qualname__", ""), canonical(item))
            except DefinitionError:  # the item is no data: its index is all there is
                pass
        return identity_of_unseen(self._group_id, member.name, key, member.index)
