"""Who waits for a slot in a group: members in their order, and iterables from which more are pulled."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from rh_agents.core._group.members import (
    RECOVERED,
    Member,
    Part,
    Place,
    Source,
    Work,
    close_unstarted,
    failed_source,
    label_of,
    raising,
)
from rh_agents.core._loops.beside import beside
from rh_agents.core._loops.exits import FAILURES, failure_of
from rh_agents.core._replay.identity import again_key, child_key, child_prefix, identity_of_item, identity_of_unseen
from rh_agents.core._replay.order import RecordedOrder
from rh_agents.core._run.frame import Frame
from rh_agents.core._run.identifying import Identities, known_key
from rh_agents.core._run.parts import RunParts
from rh_agents.core.calls import GIVEN, Call, report_undefined_order
from rh_agents.core.errors import CallCancelled, DefinitionError, StopRun
from rh_agents.core.groups import GroupEnding
from rh_agents.core.values.inputs import CanonicalInput

__all__ = ["Recover", "Roster", "RosterListener"]


Recover = Callable[[Call[Any], Any, str | None, str | None, Context, float], Member | None]
"""Of a call with its item, a name and a key: `RECOVERED`, a member that has its number, or None if nothing was done."""


@dataclass(slots=True, frozen=True, eq=False)
class _Unnumbered:
    """A member that has no key yet."""

    member: Member
    identify: Callable[[], Identities]
    fails_alone: bool
    is_large: bool


class RosterListener(Protocol):
    """Who wants to know what becomes of members whose identity takes long to find out."""

    def numbered(self) -> None:
        """They have been numbered."""

    def failed(self, error: BaseException) -> None:
        """One cannot be enrolled: this is what `add` would have raised, had it been known then."""


class Roster:
    """Enrols members: gives each its index and, in a run that records, its key.

    That key needs the member's identity, which takes long to find out if its input is large (see
    `rh_agents.core._run.identifying`). Such members, and all that are enrolled before that is done, are numbered later,
    in the same order. They cannot begin before.
    """

    def __init__(
        self,
        run: RunParts,
        frame: Frame,
        group: str,
        group_id: str,
        order: RecordedOrder,
        sealed_by: GroupEnding | None,
    ) -> None:
        self.group_id: str = group_id
        self._begins_with = child_prefix(frame.base, group)
        self._run = run
        self._frame = frame
        self._group = group
        self._order = order
        self.waiting: deque[Member] = deque()
        """Members that wait for a slot."""
        self._sources: deque[Source] = deque()
        self._is_discarded = False
        self.unnumbered: deque[_Unnumbered] = deque()
        """Members that have no key yet. The next one that waits is then one of them, or comes before them."""
        self._is_identifying = False
        self._listener: RosterListener | None = None
        self.enrolled: int = 0
        """How many members there are so far."""
        self.total: int | None = 0
        """How many members there will be; None if an iterable does not tell its length."""
        self.async_source: Source | None = None
        """The iterable whose turn it is, if reading it may have to wait."""
        self.sealed_by: GroupEnding | None = sealed_by
        """How the group ended before, if that binds."""
        self.known: int = 0
        """How many members of a sealed group the journal knows."""
        self.recover: Recover | None = None
        """Gives items their recorded results before they become members; see `Recovery.recover_call`."""

    def report_to(self, listener: RosterListener | None) -> None:
        """Tell this one from now on; None tells nobody."""
        self._listener = listener

    def reopen(self) -> None:
        """It is another group than the one that ended before."""
        self.sealed_by = None

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits, and nobody can come but through `add` and `map`."""
        return not self.waiting and not self._sources

    @property
    def has_sources(self) -> bool:
        """Whether an iterable has not been read to its end."""
        return bool(self._sources)

    @property
    def is_known(self) -> bool:
        """Whether as many members are enrolled that the journal knows as had begun when the group ended."""
        return self.sealed_by is not None and self.known >= self.sealed_by.known

    @property
    def is_full(self) -> bool:
        """Whether, besides, as many members are enrolled as there were then."""
        return self.is_known and self.sealed_by is not None and self.enrolled >= self.sealed_by.enrolled

    def has_other_sources(self, source: Source) -> bool:
        """Whether another iterable has not been read to its end."""
        return any(each is not source for each in self._sources)

    def _recount(self) -> None:
        """What is left of the iterables has changed, and not because an item that was expected has become a member."""
        sources = self._sources
        lengths = [source.length for source in sources]
        known = [length for length in lengths if length is not None]
        self.total = self.enrolled + sum(known) if len(known) == len(lengths) else None
        self.async_source = sources[0] if sources and sources[0].is_async else None

    def enrol(self, work: Work, name: str | None, key: str | None, context: Context, now: float) -> Member:
        """Make a member of a call, a coroutine or a callable."""
        member = self._enrol(work, name, key, context, now, None)
        self._recount()
        return member

    def enrol_item(self, source: Source, item: Any, now: float) -> Member:
        """Make a member of an item that an iterable gave. Whatever goes wrong here is the failure of that item."""
        source.pulled += 1
        is_expected = bool(source.length)
        if source.length:
            source.length -= 1
        context = source.context.copy()
        work: Work | None = None
        part: Part | None = item if source.is_part else None
        try:
            item = item if part is None else part.value()
            work = source.work_for(item)
            name = None if source.name is None else source.name(item)
            key = None if source.key is None else source.key(item)
            if part is not None:
                member = self._enrol(work, part.name, None, context, now, (source, item), part.place)
            elif self.recover is None or source.elsewhere is not None or not isinstance(work, Call):
                member = self._enrol(work, name, key, context, now, (source, item))
            else:
                found = self.recover(work, item, name, key, context, now)
                member = self._enrol(work, name, key, context, now, (source, item)) if found is None else found
        except FAILURES as raised:  # the functions are the user's, and it is the item that fails
            if work is not None:
                close_unstarted(work)
            place = None if part is None else part.place
            member = self._enrol(raising(failure_of(raised)), None, None, context, now, None, place)
        else:
            if source.elsewhere is not None:
                member.elsewhere = functools.partial(source.elsewhere.result_of, item)
        finally:
            if not is_expected and self.total is not None:
                self._recount()
        if part is None:
            spans, index = source.spans, self.enrolled - 1  # it is the newest one
            if member is not RECOVERED:  # which stands for many, and whose result has its item
                member.item = item
            if spans and spans[-1][1] == index:
                spans[-1][1] = index + 1
            else:
                spans.append([index, index + 1])
        return member

    def enrol_failure(self, source: Source, error: Exception, now: float) -> Member:
        """Make a failed member of the rest of an iterable that raised."""
        member = self.enrol(failed_source(error, source.pulled), "map", None, source.context, now)
        source.spans.append([member.index, member.index + 1])
        return member

    def _enrol_cancelled(self, source: Source, now: float) -> Member:
        return self.enrol_failure(source, CallCancelled("the iterable was cancelled, but not by its group"), now)

    def enrol_again(self, member: Member, now: float) -> None:
        """A member whose failure a stream has given is made once more, under the key of the next try that counts."""
        member.make_again()
        member.enrolled_at, member.is_requeued = now, True
        assert member.key is not None
        recording, rules = self._run.recording, self._run.recording.rules.in_group(self.sealed_by)
        key, skipped = recording.try_of(member.key, self._frame.generation, rules)
        for _ in range(skipped):
            self._order.passed(member.key)
            member.key, member.tries = again_key(member.key), member.tries + 1
        self._order.enrolled(key, member.index)

    def wait(self, member: Member) -> None:
        """Let a member wait for a slot."""
        self.waiting.append(member)

    def wait_first(self, member: Member) -> None:
        """Let a member wait before all others: its turn came too early."""
        self.waiting.appendleft(member)

    def add_source(self, source: Source) -> None:
        """Read this iterable when those before it have been read."""
        self._sources.append(source)
        self._recount()

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
            self._recount()

    def discard(self, *, keep: Callable[[Member], bool] | None = None, keep_sources: bool = False) -> list[Exception]:
        """Forget what has not started, for good, but for the members that `keep` names and, for now, the iterables.

        Returns what iterables raised when they were closed.
        """
        waiting, self.waiting = self.waiting, deque()
        for member in waiting:
            if keep is not None and keep(member):
                self.waiting.append(member)
            else:
                close_unstarted(member.work)
        if keep_sources:
            return []
        self._is_discarded = True
        sources, self._sources = self._sources, deque()
        self._recount()
        return [error for source in sources if (error := source.close()) is not None]

    def _enrol(
        self,
        work: Work,
        name: str | None,
        key: str | None,
        context: Context,
        now: float,
        origin: tuple[Source, Any] | None,
        place: Place | None = None,
    ) -> Member:
        if name is not None:
            label = name
        elif origin is not None and not isinstance(work, Call):
            label = origin[0].label
        else:
            label = work.actor.name if isinstance(work, Call) else label_of(work)
        member = Member(self.enrolled, work, name, label, context, now)
        if place is not None:
            member.place = place
            member.index = place.index
        if isinstance(work, Call):
            work.use = GIVEN
        if self._run.records or (isinstance(work, Call) and work.actor.cache is not None):
            self._identify(member, key, origin)
        self.enrolled += 1
        return member

    def _identify(self, member: Member, key: str | None, origin: tuple[Source, Any] | None) -> None:
        """Find out who a member is and number it, unless that takes long, or others have to be numbered before it."""
        work = member.work
        data: bytes | CanonicalInput = b""
        if isinstance(work, Call):
            _ = work.actor.has_known_types
            key = work.key if key is None else key
            try:
                data = work.input_for(key)
            except DefinitionError:
                if self._run.records:
                    raise
                return  # what is wrong with it is its own failure, when it is begun
        elif key is None and member.name is None and origin is not None:
            data = CanonicalInput(origin[1])
        is_large = not isinstance(data, bytes) and data.is_large
        if not self._run.records and not is_large:
            return
        if self.unnumbered or is_large:
            identify = functools.partial(self._identities, member, key, origin, data, in_pieces=is_large)
            member.is_numbered = False
            fails_alone = origin is not None or not self._run.records
            self.unnumbered.append(_Unnumbered(member, identify, fails_alone, is_large))
            self._go_on_numbering()
        elif isinstance(work, Call):
            self._number(member, work.identities(key, data if isinstance(data, bytes) else data.whole()))
        else:
            self._number(member, self._identities(member, key, origin, data, in_pieces=False))

    def _identities(
        self,
        member: Member,
        key: str | None,
        origin: tuple[Source, Any] | None,
        data: bytes | CanonicalInput,
        *,
        in_pieces: bool,
    ) -> Identities:
        work = member.work
        if isinstance(work, Call):
            return work.identities(key, data) if isinstance(data, bytes) else work.identities_of_large(key, data)
        if not isinstance(data, bytes) and origin is not None:
            try:
                canonical = data.pieces() if in_pieces else data.whole()
                function = getattr(origin[0].function, "__qualname__", "")
                return Identities(identity_of_item(self.group_id, function, canonical))
            except DefinitionError:  # the item is no data: its index is all there is
                pass
        return Identities(identity_of_unseen(self.group_id, member.name, key, member.index))

    def _number(self, member: Member, identities: Identities) -> None:
        """Give a member its number among identical ones, and with it its key."""
        member.is_numbered = True
        member.identities = identities
        work, sealed_by = member.work, self.sealed_by
        if not self._run.records:
            return
        if member.place is not None:
            place = member.place
            member.base, member.key, member.tries = place.base, place.key, place.tries
            self._order.enrolled(member.key, member.index)
            return
        if member.base is None:
            member.base = self.place_of(identities.same, member.label)
        if identities.former and isinstance(work, Call):
            actor = work.actor
            member.base = known_key(
                self._frame, actor.name, self._group, member.base, identities.former, actor.keys_since
            )
        member.key, member.tries = self._frame.try_of(member.base, sealed_by, is_member=True)
        if sealed_by is not None:
            self.known += self._run.recording.recorded.knows(member.key)
        if self._order.has_members:
            self._order.enrolled(member.key, member.index)
        if isinstance(work, Call) and not work.actor.is_stored:
            member.key = None
        if member.tries:
            failed = member.base
            for _ in range(member.tries):
                self._order.passed(failed)
                failed = again_key(failed)

    def place_of(self, same: bytes, label: str) -> bytes:
        """The key that the place in the program gives the next member with this identity.

        Raises:
            UndefinedOrderError: nothing says which of two identical ones it is, and the run is strict.
        """
        frame, group = self._frame, self._group
        base = sha256(b"%b%b0" % (self._begins_with, same)).digest()  # as `child_key` does it, for each member
        occurrence = frame.count(base)
        if occurrence:
            if frame.has_other_open_group(group, self):
                report_undefined_order(frame, label, self._run)
            base = child_key(frame.base, group, same, occurrence)
        return base

    def enrol_at(
        self, base: bytes, same: bytes, work: Call[Any], name: str | None, label: str, context: Context, now: float
    ) -> Member:
        """Make a member of a call whose place in the program is known: it has been counted among identical ones."""
        member = Member(self.enrolled, work, name, label, context, now)
        member.base, work.use = base, GIVEN
        self._number(member, Identities(same, (), same))
        self.enrolled += 1
        return member

    # -- members whose identity takes long to find out -----------------------------------------------------------------

    def _go_on_numbering(self) -> None:
        """Number those who can be numbered, and begin to find out who the next one is."""
        while self.unnumbered and not self._is_identifying:
            next_one = self.unnumbered[0]
            if next_one.is_large:
                self._is_identifying = True
                self._run.interruption.under_way.callers[next_one] = None  # else nobody waits for it
                future = next_one.member.context.copy().run(beside, next_one.identify)
                future.add_done_callback(functools.partial(self._identified, next_one))
            else:
                self._number_next(next_one.identify)

    def _identified(self, whom: _Unnumbered, future: asyncio.Future[Identities]) -> None:
        self._is_identifying = False
        error = None if future.cancelled() else future.exception()
        if self.unnumbered and self.unnumbered[0] is whom:  # else the run is being stopped
            is_to_be_done_here = future.cancelled() or isinstance(error, RuntimeError)  # it was changed meanwhile
            self._number_next(whom.identify if is_to_be_done_here else future.result)
            self._go_on_numbering()
            if self._listener is not None:
                self._listener.numbered()
        under_way = self._run.interruption.under_way
        del under_way.callers[whom]
        under_way.wake()

    def _number_next(self, identify: Callable[[], Identities]) -> None:
        """Number the next one. What has no identity fails, if it was added, with its group, since `add` would."""
        waiting = self.unnumbered.popleft()
        member = waiting.member
        try:
            self._number(member, identify())
        except FAILURES as raised:
            close_unstarted(member.work)
            member.work, member.name = raising(failure_of(raised)), None
            self._number(member, Identities(identity_of_unseen(self.group_id, None, None, member.index)))
            if not waiting.fails_alone and self._listener is not None:
                self._listener.failed(failure_of(raised))
