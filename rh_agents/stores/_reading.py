"""What a store with a database behind it gives to read: runs, journals, outcomes and questions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from rh_agents.core._base.failure_kinds import FailureKind
from rh_agents.core.errors import StoreError
from rh_agents.core.policies.child_runs import ChildLeft, ChildRun
from rh_agents.core.ports import Clock, JournalEntry, Question, RecordedEvent, RunInfo
from rh_agents.core.ports.activity import Activity
from rh_agents.core.ports.call_views import CallQuery, CallRecord, CallWindow
from rh_agents.core.ports.control import ControlRequest
from rh_agents.core.ports.keeping import RunSize
from rh_agents.core.ports.outline import OutlinedEvent, RunOutline, outline_of_events
from rh_agents.core.ports.present import Present
from rh_agents.core.ports.streaming import WATCHED_FOR, StreamedText
from rh_agents.core.ports.summary import RunSummary
from rh_agents.core.ports.windows import RunQuery, RunWindow
from rh_agents.core.results import Outcome, UnreadOutcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend import Backend, WriteSession
from rh_agents.stores._backend.rows import OutcomeRow, RunRow, RunsWanted, StoredEvent, StoredOutcome
from rh_agents.stores._checking import check
from rh_agents.stores._children import Left, as_of_parent, child_of, left_of
from rh_agents.stores._describing import activity
from rh_agents.stores._engine import Engine, Readers
from rh_agents.stores._entries import entries_of
from rh_agents.stores._erasing import read_or_erased
from rh_agents.stores._finding import CallFinder
from rh_agents.stores._listing import RunLister, info_of
from rh_agents.stores._outlining import outlining
from rh_agents.stores._ownership import is_held
from rh_agents.stores._parts import PART, Steps, parts
from rh_agents.stores._rows import fact_of, header_of, outcome_of
from rh_agents.stores._saying import present_of
from rh_agents.stores._streamed import key_of, text_of_rows, time_in
from rh_agents.stores._summing import mean_costs
from rh_agents.stores._totals import Totals
from rh_agents.stores._verified import OutcomePlaces, VerifiedSession, damaged, with_outcomes, with_outcomes_at

T = TypeVar("T")

_CHUNK = 256
"""Events or outcomes that are read at a time; for people, so that the first ones come soon."""
_FOLLOW_EVERY = 0.05
"""Seconds between two looks whether somebody has written."""
_LOOKS = 20
"""After so many a follower sees whether the owner has died."""


class ReadableStore:
    """Runs in a database, for those who look at them. Connects when it is first used.

    Args:
        backend: the database.
        clock: the time of day in seconds since 1970. (How long others were silent is measured by another clock.)
    """

    def __init__(self, backend: Backend, *, clock: Clock = time.time) -> None:
        self.engine: Engine = Engine(backend, clock)
        self._backend = backend
        self._finder = CallFinder(self.engine, partial(self._outcome, unknown_ok=True))
        self._totals = Totals(self.engine, self._finder)
        self._lister = RunLister(self.engine)
        self._is_closed = False
        self._is_ready = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._backend.name!r})"

    @property
    def place(self) -> str:
        """Where it is, for people, without a password."""
        return self._backend.name

    async def _get_ready(self) -> None:
        """Connect and bring the schema up to date, the first time; refuse to work when that is no longer possible."""
        self.engine.writer.expect_own_process()
        if self._is_closed:
            raise StoreError(f"the store {self._backend.name} has been closed")
        if not self._is_ready:
            if self._backend.is_read_only:
                await self.engine.read(_nothing)
            else:
                await self.engine.writer.done(_connect)
            self._is_ready = True

    # -- runs ---------------------------------------------------------------------------------------------------------

    def _info(self, row: RunRow) -> RunInfo:
        return info_of(row, self.engine.clock())

    async def find_run(self, run_id: str) -> RunInfo | None:
        """The run of this name, if there is one."""
        await self._get_ready()
        row = await self.engine.read(lambda session: session.find_run(run_id))
        return None if row is None else self._info(row)

    async def runs(
        self,
        *,
        status: ExecutionStatus | None = None,
        tag: str | None = None,
        updated_before: float | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[RunInfo]:
        """The runs that fit, newest first."""
        await self._get_ready()
        wanted = RunsWanted(None if status is None else status.value, tag, updated_before, limit=limit)
        return await self._lister.every(wanted, before)

    async def run_window(self, query: RunQuery) -> RunWindow:
        """See `rh_agents.core.ports.windows.list_runs`."""
        await self._get_ready()
        return await self._lister.window(query)

    async def run_count(self, query: RunQuery) -> int:
        """See `rh_agents.core.ports.windows.count_runs`."""
        await self._get_ready()
        return await self._lister.count(query)

    async def run_tags(self) -> Sequence[str]:
        """See `rh_agents.core.ports.windows.tags_of_runs`."""
        await self._get_ready()
        return sorted(await self._lister.tags())

    # -- journals -----------------------------------------------------------------------------------------------------

    async def events(
        self, run_id: str, *, after: int = 0, follow: bool = False, values: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        """The journal of a run in its order, from after the place `after`."""
        await self._get_ready()
        number, begins_at = (await self.engine.run(run_id)).number, after
        places = OutcomePlaces(number, run_id)
        changes = _Changes(self.engine.readers) if follow else None
        try:
            while True:
                # Looked at before the events are read: what the owner wrote before it let go is among them.
                run = await self.engine.run(run_id)
                may_grow = follow and is_held(run, self.engine.clock())
                chunk = await self.engine.read(partial(self._events, places, after, values))
                for event in chunk:
                    yield event
                if chunk:
                    after = chunk[-1].sequence
                elif after < run.last_sequence:
                    raise self.engine.missing(run_id, f"event {after + 1}")
                elif changes is None or not may_grow:
                    break
                else:
                    await changes.wait()
        finally:
            if changes is not None:
                changes.stop()
        if begins_at == 0 and not follow:
            async for event in self._events_of_children(run, values):
                yield event

    async def _events_of_children(self, run: RunRow, values: bool) -> AsyncIterator[RecordedEvent]:
        """What child runs have recorded beside what their parent has, numbered as if it came after that."""
        sequence = run.last_sequence
        for left in await self._left(run):
            places, after = OutcomePlaces(left.row.number, left.row.run_id), left.after
            while rows := await self.engine.read(partial(self._rows_of_child, places, after)):
                after = rows[-1].row.sequence
                for stored in rows:
                    its = as_of_parent(stored.row, left.about)
                    if its is not None:
                        sequence += 1
                        row = StoredEvent(its, stored.outcome)
                        event = await self.engine.in_thread(self._event, row, run.run_id, values)
                        yield RecordedEvent(sequence, event, its.ok is not None)

    def _rows_of_child(self, places: OutcomePlaces, after: int, session: VerifiedSession) -> list[StoredEvent]:
        rows = session.events(places.number, places.run_id, after, _CHUNK)
        return with_outcomes(session, places, rows)

    async def _left(self, run: RunRow) -> list[Left]:
        return await self.engine.read(lambda session: left_of(session, run, self.engine.clock()))

    async def children(self, run_id: str) -> list[ChildRun]:
        """How the child runs of a run stand."""
        await self._get_ready()
        number, now = (await self.engine.run(run_id)).number, self.engine.clock()
        return [child_of(row, now) for row in await self.engine.read(lambda session: session.children(number))]

    async def children_left(self, run_id: str) -> list[ChildLeft]:
        """The child runs of which the journal of their parent does not have all."""
        await self._get_ready()
        return [ChildLeft(each.row.run_id, each.after) for each in await self._left(await self.engine.run(run_id))]

    def _events(self, places: OutcomePlaces, after: int, values: bool, session: VerifiedSession) -> list[RecordedEvent]:
        rows = session.events(places.number, places.run_id, after, _CHUNK)
        return [
            RecordedEvent(stored.row.sequence, self._event(stored, places.run_id, values), stored.row.ok is not None)
            for stored in with_outcomes(session, places, rows)
        ]

    def _event(self, stored: StoredEvent, run_id: str, values: bool) -> Any:
        try:
            data = self._data(run_id, stored.outcome) if values and stored.outcome is not None else None
            return fact_of(stored, data, run_id).event()
        except Exception as error:
            raise self.engine.unreadable(run_id, stored.row.sequence, error) from error

    def _data(self, run_id: str, row: OutcomeRow) -> bytes | None:
        """The value of an outcome, from wherever it is."""
        return read_or_erased(self.engine, run_id, row)

    async def outcomes(self, run_id: str, *, unknown_ok: bool = False) -> AsyncIterator[Outcome]:
        """What the calls of a run came to, in the order in which that was recorded."""
        async for outcome in self._outcomes(
            run_id, lambda stored, _: self._outcome(run_id, stored, unknown_ok=unknown_ok)
        ):
            yield outcome

    async def unread_outcomes(self, run_id: str) -> AsyncIterator[UnreadOutcome]:
        """The same without decoding any value."""
        async for outcome in self._outcomes(run_id, partial(self._unread, run_id), reads_inputs=True):
            yield outcome

    async def journal_entries(self, run_id: str, *, after: int = 0) -> AsyncIterator[JournalEntry]:
        """The journal of a run as its owner wrote it, from after the place `after`, as it is now."""
        await self._get_ready()
        async for entry in entries_of(self.engine, run_id, after):
            yield entry

    async def _outcomes(
        self, run_id: str, make: Callable[[StoredOutcome, str | None], T], *, reads_inputs: bool = False
    ) -> AsyncIterator[T]:
        """What `make` makes of the stored outcomes of a run and their inputs, in a thread of those who read."""
        await self._get_ready()
        run = await self.engine.run(run_id)
        known = await self._finder.known_of(run)
        await self._finder.compare_keys(known, run)
        later = known.ended.repeated
        after = count = 0
        while True:
            chunk = await self.engine.read(partial(_made, make, run.number, run_id, after, later, reads_inputs))
            for _, outcome in chunk:
                if outcome is not None:
                    yield outcome
            count += len(chunk)
            if len(chunk) < _CHUNK:
                break
            after = chunk[-1][0]
        if count < run.outcomes:  # it may be more by now
            raise self.engine.missing(run_id, f"one of {run.outcomes} outcomes")
        for left in await self._left(run):
            for outcome in await self.engine.read(partial(_made_of_child, make, left, reads_inputs)):
                yield outcome

    def _outcome(self, run_id: str, stored: StoredOutcome, *, unknown_ok: bool = False) -> Outcome:
        try:
            return outcome_of(stored, self._data(run_id, stored.row), unknown_ok=unknown_ok)
        except Exception as error:
            raise self.engine.unreadable(run_id, stored.row.sequence, error) from error

    def _unread(self, run_id: str, stored: StoredOutcome, given: str | None) -> UnreadOutcome:
        is_large = stored.row.artifact is not None
        return UnreadOutcome(header_of(stored), partial(self._outcome, run_id, stored), is_large, given)

    async def summary(self, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
        """The events of a run in numbers, computed by the database."""
        await self._get_ready()
        run = await self.engine.run(run_id)
        return await self._totals.of(run, after, until)

    async def activity(self, run_id: str, *, after: int, until: int | None, width: float) -> Activity:
        """What happened in a run and when, counted by the database."""
        await self._get_ready()
        run = await self.engine.run(run_id)
        until = max(after, run.last_sequence if until is None else min(until, run.last_sequence))
        found = await self.engine.read(lambda session: activity(session, run, after, min(after + PART, until), width))
        works = (partial(_activity, run, low, high, width) for low, high in parts(found.until, until))
        async with aclosing(self.engine.read_each(works)) as counting:
            async for part in counting:
                found = found.merge(part)
        return found

    async def outline(self, run_id: str) -> RunOutline:
        """A run without what there is too much of: the database says which members of groups are plain."""
        await self._get_ready()
        run = await self.engine.run(run_id)
        if await self._left(run):
            return await outline_of_events(self, run_id)
        plain, sequences, uses, below, groups = await self.engine.read_in_steps(outlining(run))
        await self.engine.expect_unchanged(run)
        return RunOutline(plain, run.last_sequence, uses, partial(self._events_at, run, sequences), below, groups)

    async def _events_at(self, run: RunRow, sequences: Sequence[int], values: bool) -> AsyncIterator[OutlinedEvent]:
        places = OutcomePlaces(run.number, run.run_id)
        for start in range(0, len(sequences), _CHUNK):
            part = sequences[start : start + _CHUNK]
            for each in await self.engine.read(partial(self._outlined, places, part, values)):
                yield each
        await self.engine.expect_unchanged(run)

    def _outlined(
        self, places: OutcomePlaces, sequences: Sequence[int], values: bool, session: VerifiedSession
    ) -> list[OutlinedEvent]:
        found = []
        for stored, outcome in with_outcomes_at(session, places, sequences):
            event = self._event(stored, places.run_id, values)
            recorded = RecordedEvent(stored.row.sequence, event, stored.row.ok is not None)
            found.append(OutlinedEvent(recorded, None if outcome is None else header_of(outcome)))
        return found

    async def is_executed(self, run_id: str) -> bool:
        """Whether a process executes the run, as far as is known."""
        await self._get_ready()
        return is_held(await self.engine.run(run_id), self.engine.clock())

    async def version(self, run_id: str) -> Hashable:
        """Another value whenever something has been added to the journal of a run, or somebody else has it."""
        await self._get_ready()
        run = await self.engine.run(run_id)
        left = [(each.row.number, each.row.last_sequence) for each in await self._left(run)]
        return run.number, run.created_at, run.fence, run.last_sequence, *left

    async def control_requests(self, run_id: str, *, is_open: bool | None = None) -> list[ControlRequest]:
        """The requests to a run, oldest first."""
        await self._get_ready()
        number = (await self.engine.run(run_id)).number
        return await self.engine.read(lambda session: session.requests(number, run_id, is_open))

    async def inputs(self, run_id: str, sequences: Sequence[int]) -> dict[int, str]:
        """What calls were called with, by the sequences of their outcomes."""
        await self._get_ready()
        number, found = (await self.engine.run(run_id)).number, dict[int, str]()
        for start in range(0, len(sequences), _CHUNK):
            chunk = sequences[start : start + _CHUNK]
            found |= await self.engine.read(lambda session, chunk=chunk: session.inputs_at(number, run_id, chunk))  # type: ignore[misc]
        return found

    async def present(self, run_id: str) -> Present | None:
        """What a run is doing now, as far as is known."""
        await self._get_ready()
        run = await self.engine.run(run_id)
        row = await self.engine.read(lambda session: session.present(run.number, run_id))
        try:
            return present_of(row, run)
        except ValueError as error:
            raise damaged(self._backend.name, f"what run {run_id!r} was last doing", error) from error

    async def streamed(self, run_id: str, key: str | None = None, *, after: str = "") -> StreamedText:
        """What is new of the text of calls under way."""
        await self._get_ready()
        wanted = None if key is None else key_of(key)
        time_in(after, 0)  # what is none is refused here: where rows are read, any error is taken for damage
        found = await self.engine.read(partial(_streamed, run_id, wanted, after))
        if found is None:
            await self.engine.run(run_id)  # it says that there is none
        return found or StreamedText((), after)

    async def watch(self, run_id: str, key: str | None = None) -> bool:
        """Say that somebody looks at text of calls under way; False if nobody executes the run.

        Of many that look, one says so: the rest see that it has been said.
        """
        await self._get_ready()
        wanted = key_of(key)
        run, now = await self.engine.run(run_id), self.engine.clock()
        if not is_held(run, now) or self._backend.is_read_only:
            return False
        left = await self.engine.read(lambda session: session.watched_until(run.number, wanted)) - now
        if not WATCHED_FOR / 2 < left <= WATCHED_FOR:
            until = now + WATCHED_FOR
            await self.engine.writer.done(lambda session: session.watch(run.number, wanted, now, until))
        return True

    async def run_size(self, run_id: str) -> RunSize:
        """How much is kept of a run."""
        await self._get_ready()
        run = await self.engine.run(run_id)
        size, own = await self.engine.read_in_steps(_size_and_artifacts(run))
        return RunSize(size + len(run.input or b""), len(own), sum(own.values()))

    async def outcomes_named(self, run_id: str, items: Sequence[str], unsuccessful: bool) -> list[UnreadOutcome]:
        """The newest outcomes of calls that one of these names may mean, and if asked for, all that are no values."""
        await self._get_ready()
        found = await self._finder.meant(await self.engine.run(run_id), items, unsuccessful)
        return [self._unread(run_id, each, None) for each in found]

    async def outcomes_around(self, run_id: str, keys: Sequence[bytes]) -> list[UnreadOutcome]:
        """The outcomes with these keys, and the newest ones of the calls around them."""
        await self._get_ready()
        found = await self._finder.around(await self.engine.run(run_id), keys)
        return [self._unread(run_id, each, None) for each in found]

    async def costs(self, run_id: str) -> dict[str, float]:
        """What calls that have succeeded cost on average, by group or name."""
        await self._get_ready()
        return await self.engine.read_in_steps(mean_costs(await self.engine.run(run_id)))

    # -- windows ------------------------------------------------------------------------------------------------------

    async def call_window(self, run_id: str, query: CallQuery) -> CallWindow:
        """See `rh_agents.core.ports.windows.calls_of_run`."""
        await self._get_ready()
        return await self._finder.window(await self.engine.run(run_id), query)

    async def running_window(self, run_id: str, n: int, group: str | None) -> CallWindow:
        """See `rh_agents.core.ports.windows.running_calls`."""
        await self._get_ready()
        return await self._finder.running(await self.engine.run(run_id), n, group)

    async def children_window(self, run_id: str, key: str, after: str | None, n: int) -> CallWindow:
        """See `rh_agents.core.ports.windows.children_of_call`."""
        await self._get_ready()
        return await self._finder.children(await self.engine.run(run_id), bytes.fromhex(key), after, n)

    async def call_record(self, run_id: str, key: str) -> CallRecord | None:
        """See `rh_agents.core.ports.windows.call_of_run`."""
        await self._get_ready()
        return await self._finder.record(await self.engine.run(run_id), bytes.fromhex(key))

    async def failure_kinds(self, run_id: str) -> list[FailureKind]:
        """See `rh_agents.core.ports.windows.failure_kinds`."""
        await self._get_ready()
        return await self._finder.failure_kinds(await self.engine.run(run_id))

    # -- questions, and damage ----------------------------------------------------------------------------------------

    async def questions(self, run_id: str | None = None, *, is_open: bool = True) -> list[Question]:
        """The questions of a run or of all, oldest first."""
        await self._get_ready()
        return await self.engine.read(lambda session: session.questions(run_id, is_open))

    async def check(self) -> list[str]:
        """Look for damage: one line for each finding, none if all is well."""
        await self._get_ready()
        return await self.engine.read(lambda session: check(session, self.engine.artifacts))


class _Changes:
    """Waits until somebody may have written, with a session of its own: what is news depends on what it saw before."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._session: VerifiedSession | None = None

    async def wait(self) -> None:
        """Return after a change, or after a while: that an owner has died changes nothing in the database."""
        for _ in range(_LOOKS):
            if await self._readers.in_thread(self._has_changed):
                return
            await asyncio.sleep(_FOLLOW_EVERY)

    def _has_changed(self) -> bool:
        if self._session is None:
            self._session = self._readers.connect()
        return self._session.has_changed()

    def stop(self) -> None:
        """Let go of the session."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _made(
    make: Callable[[StoredOutcome, str | None], T],
    number: int,
    run_id: str,
    after: int,
    later: set[int],
    reads_inputs: bool,
    session: VerifiedSession,
) -> list[tuple[int, T | None]]:
    """What is made of outcomes, by their places; None of those that count for nothing."""
    found = session.outcomes(number, run_id, after, _CHUNK)
    inputs = session.inputs(number, run_id, after, found[-1].sequence) if found and reads_inputs else {}
    return [
        (stored.sequence, None if later and stored.sequence in later else make(stored, inputs.get(stored.sequence)))
        for stored in found
    ]


def _made_of_child(
    make: Callable[[StoredOutcome, str | None], T], left: Left, reads_inputs: bool, session: VerifiedSession
) -> list[T]:
    """What is made of the outcomes of a child run that its parent does not have. There are a few hundred of them."""
    run, found, after = left.row, list[T](), left.after
    while rows := session.outcomes(run.number, run.run_id, after, _CHUNK):
        inputs = session.inputs(run.number, run.run_id, after, rows[-1].sequence) if reads_inputs else {}
        found += [make(stored, inputs.get(stored.sequence)) for stored in rows]
        after = rows[-1].sequence
    return found


def _streamed(run_id: str, key: bytes | None, after: str, session: VerifiedSession) -> StreamedText | None:
    """Text of calls under way, all of one owner of the run; None if there is no such run. Many ask this often."""
    run = session.find_run(run_id)
    while run is not None:
        since = time_in(after, run.fence)
        rows = session.pieces(run.number, key, since)
        before, run = run, session.find_run(run_id)
        if run is not None and run.fence == before.fence:
            return text_of_rows(rows, run.fence, since)
    return None


def _size_and_artifacts(run: RunRow) -> Steps[tuple[int, dict[str, int]]]:
    size, own = 0, dict[str, int]()
    for low, high in parts(0, run.last_sequence):
        session = yield
        size += session.inner.size_of_journal(run.number, low, high)
        own |= session.inner.own_artifacts(run.number, low, high)
    return size, own


def _activity(run: RunRow, after: int, until: int, width: float, session: VerifiedSession) -> Activity:
    return activity(session, run, after, until, width)


def _connect(_: WriteSession) -> None:
    """The writer connects before it does anything, which is all that is wanted."""


def _nothing(_: VerifiedSession) -> None:
    """Whoever reads connects before, which says whether there is anything to be read."""
