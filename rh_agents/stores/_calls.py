"""Calls as people see them, read from a database with their checksums: one in a few words, and all of one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RecordedEvent
from rh_agents.core.ports.call_table import attempts_of, replaced_by, view_of, why_made
from rh_agents.core.ports.call_views import CallRecord, CallRef, CallView, Replaced
from rh_agents.core.ports.summary import RunSummary
from rh_agents.core.results import Outcome
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.stores._backend.rows import EventRow, RunRow, StoredEvent, StoredOutcome
from rh_agents.stores._backend.windows import TriedAgain
from rh_agents.stores._engine import Engine
from rh_agents.stores._parts import PART, Steps, parts
from rh_agents.stores._rows import fact_of
from rh_agents.stores._run_index import Ended, Moments, RunIndex, Tries
from rh_agents.stores._under_way import UnderWay
from rh_agents.stores._verified import VerifiedSession

_MOST_EVENTS: Final = 1000
"""Of one call; and rows that are read at a time."""
SHORT: Final = 400_000
"""Events. Of a longer run nobody who asks for a little waits until all its keys have been read: that takes seconds."""
_PER_STEP: Final = 16
"""Parts of a journal that are looked through in one step where an index says what is in them."""


class Known:
    """What is kept of a run between two windows of it."""

    def __init__(self, run: RunRow) -> None:
        self.ended: Ended = Ended(run.number)
        self.index: RunIndex = RunIndex(run.number, run.run_id, self.ended)
        self.noted: UnderWay | None = None
        """What the owner has written down of calls under way, and what has become of that."""
        self.tries: Tries = Tries()
        self.moments: Moments = Moments(run.number)
        self.lock: threading.Lock = threading.Lock()
        self.total: tuple[object, RunSummary] | None = None
        """The summary of its beginning, and what the run was then but for what has been added."""


class CallReader:
    """Reads calls of runs.

    Args:
        engine: where the runs are.
        read: reads the outcome of a run that is stored so.
    """

    def __init__(self, engine: Engine, read: Callable[[str, StoredOutcome], Outcome]) -> None:
        self._engine = engine
        self._read = read

    async def compare_keys(self, known: Known, run: RunRow, until: int | None = None) -> None:
        """Know which outcomes count for nothing, up to an event, or up to now."""
        await self._engine.read_in_steps(known.ended.extend(run.last_sequence if until is None else until))

    async def index_of(self, known: Known, run: RunRow) -> RunIndex:
        """What was read of all keys and groups, up to now."""
        await self.compare_keys(known, run)
        await self._engine.read_in_steps(known.index.extend(run.last_sequence))
        return known.index

    # -- one call -----------------------------------------------------------------------------------------------------

    async def record_of(self, known: Known, run: RunRow, key: bytes) -> CallRecord | None:
        """All that is recorded of the call with this key; None if there is nothing."""
        if known.index.until or run.last_sequence <= SHORT:
            await self.index_of(known, run)
        events = await self._events_of(known, run, key)
        if not events:
            return None
        ended = next((recorded.sequence for recorded in events if recorded.has_outcome), None)
        if ended is None:
            view = running_view(events[0], events[-1])
            return CallRecord(view, attempts_of(events), tuple(events), why=why_made(view, ()))
        stored = await self._engine.read(lambda session: session.outcome(run.number, run.run_id, ended))
        (view,) = await self.views_at(known, run, [ended], all_of_them=True)
        (view,) = await self._complete(known, run, [view])
        earlier = await self._earlier(known, run, key, ended)
        return CallRecord(
            view,
            attempts_of(events),
            tuple(events),
            await self._parents(known, run, stored),
            why_made(view, earlier),
            earlier,
            partial(self._engine.in_thread, self._read, run.run_id, stored),
        )

    async def _events_of(self, known: Known, run: RunRow, key: bytes) -> list[RecordedEvent]:
        """The events of a call, without values."""
        places = await self._engine.read_in_steps(_places_of(known, run, key, _MOST_EVENTS))
        rows = await self._engine.read(lambda session: session.events_at(run.number, run.run_id, places))
        return [recorded_event(row, run.run_id) for row in rows]

    async def _earlier(self, known: Known, run: RunRow, key: bytes, sequence: int) -> tuple[Replaced, ...]:
        """The outcomes of a call before this one."""
        place = known.tries.place_of(key)
        await self.find_first_tries(known, run, known.tries.unknown([place]))
        before = [each.sequence for each in known.tries.chain(place) if each.sequence < sequence]
        views = await self.views_at(known, run, before, all_of_them=True) if before else []
        return tuple(map(replaced_by, views))

    async def _parents(self, known: Known, run: RunRow, stored: StoredOutcome | None) -> tuple[CallRef, ...]:
        found: list[CallRef] = []
        while stored is not None and stored.row.parent:
            parent = stored.row.parent
            first = await self._engine.read_in_steps(_places_of(known, run, parent, 1))
            rows = await self._engine.read(lambda session, at=first: session.events_at(run.number, run.run_id, at))  # type: ignore[misc]
            found.append(CallRef(parent.hex(), rows[0].address if rows else ""))
            stored = await self._newest_outcome(known, run, parent)
        return tuple(reversed(found))

    async def sequences_of(self, known: Known, run: RunRow, keys: Collection[bytes]) -> list[int]:
        """Where the outcomes of these calls stand."""
        found = await self._engine.read_in_steps(_outcomes_of(known, run, keys)) if keys else []
        return [each.sequence for each in found]

    async def _newest_outcome(self, known: Known, run: RunRow, place: bytes) -> StoredOutcome | None:
        """The outcome of a place in the program that counts."""
        sequence = known.tries.newest(place)
        if not sequence:
            sequence = next(iter(await self.sequences_of(known, run, [place])), 0)
        if not sequence:
            return None
        return await self._engine.read(lambda session: session.outcome(run.number, run.run_id, sequence))

    # -- views --------------------------------------------------------------------------------------------------------

    async def views_at(
        self, known: Known, run: RunRow, sequences: Sequence[int], *, all_of_them: bool = False
    ) -> list[CallView]:
        """The calls whose outcomes stand there, in the same order: those that count, unless all of them are wanted."""
        views = await self._engine.read(partial(_read_views, run, sequences))
        if all_of_them:
            return views
        tries, repeated = known.tries, known.ended.repeated
        return [
            view
            for view in views
            if view.sequence not in repeated and not tries.is_replaced(view.sequence, bytes.fromhex(view.key))
        ]

    async def _complete(self, known: Known, run: RunRow, views: Sequence[CallView]) -> tuple[CallView, ...]:
        """The views with what calls were called with, and which outcomes they replace."""
        places = {view.sequence: known.tries.place_of(bytes.fromhex(view.key)) for view in views}
        await self.find_first_tries(known, run, known.tries.unknown(set(places.values())))
        before = {sequence: self._before(known, place, sequence) for sequence, place in places.items()}
        wanted = sorted({place for place in before.values() if place})
        found = await self.views_at(known, run, wanted, all_of_them=True) if wanted else []
        replaced = {view.sequence: replaced_by(view) for view in found}
        sequences = [view.sequence for view in views if view.damage is None]
        inputs = await self._engine.read(lambda session: session.inputs_at(run.number, run.run_id, sequences))
        return tuple(
            replace(view, input=inputs.get(view.sequence), replaces=replaced.get(before[view.sequence]))
            for view in views
        )

    def _before(self, known: Known, place: bytes, sequence: int) -> int:
        """The outcome that this one replaces; 0 if there is none."""
        earlier = [each.sequence for each in known.tries.chain(place) if each.sequence < sequence]
        return earlier[-1] if earlier else 0

    async def find_first_tries(self, known: Known, run: RunRow, places: Sequence[bytes]) -> None:
        """Where the first tries of calls stand that were made again: among the failures, nearly always."""
        if not places:
            return
        missing = set(places)
        found = await self._engine.read_in_steps(_failures_of(run, missing))
        missing -= {each.key for each in found}
        if missing:
            found += await self._engine.read_in_steps(_outcomes_of(known, run, missing))
        known.tries.add_first(places, found)


def _parts_with(known: Known, run: RunRow, keys: Collection[bytes]) -> Iterable[tuple[int, int]]:
    """The parts of the journal in which there may be something about these calls."""
    if known.index.until >= run.last_sequence:
        return known.index.parts_with(keys)
    return parts(0, run.last_sequence)


def _places_of(known: Known, run: RunRow, key: bytes, most: int) -> Steps[list[int]]:
    """The sequences of the first events of a call."""
    found: list[int] = []
    for low, high in _parts_with(known, run, [key]):
        if len(found) < most:
            session = yield
            found += session.inner.events_of_key(run.number, low, high, key, most - len(found))
    return found


def _outcomes_of(known: Known, run: RunRow, keys: Collection[bytes]) -> Steps[list[TriedAgain]]:
    """The outcomes of these calls, oldest first."""
    found: list[TriedAgain] = []
    for low, high in _parts_with(known, run, keys):
        session = yield
        found += session.inner.outcomes_of_keys(run.number, low, high, keys)
    return found


def _failures_of(run: RunRow, keys: Collection[bytes]) -> Steps[list[TriedAgain]]:
    """The failures among these calls, which have an index: several parts are looked through in one step."""
    found: list[TriedAgain] = []
    for start, end in parts(0, run.last_sequence, _PER_STEP * PART):
        session = yield
        for low, high in parts(start, end):
            found += session.inner.failures_of_keys(run.number, low, high, keys)
    return found


def _read_views(run: RunRow, sequences: Sequence[int], session: VerifiedSession) -> list[CallView]:
    """Calls as their outcomes say, in the order of these sequences. A damaged row says so, and no other is missing."""
    found: dict[int, CallView] = {}
    for start in range(0, len(sequences), _MOST_EVENTS):
        part = sequences[start : start + _MOST_EVENTS]
        try:
            views = [_view(row, run.run_id) for row in session.events_at(run.number, run.run_id, part)]
        except StoreError:
            views = [_view_or_damage(run, sequence, session) for sequence in part]
        found.update({view.sequence: view for view in views})
    return [found[sequence] for sequence in sequences]


def _view_or_damage(run: RunRow, sequence: int, session: VerifiedSession) -> CallView:
    try:
        (row,) = session.events_at(run.number, run.run_id, [sequence])
        return _view(row, run.run_id)
    except StoreError as error:
        return CallView(
            sequence,
            "",
            "",
            "",
            "",
            EventType.FUNCTION_CALL,
            ExecutionStatus.FAILED,
            message="damaged",
            damage=str(error),
        )


def _view(row: EventRow, run_id: str) -> CallView:
    return view_of(row.sequence, recorded_event(row, run_id).event, has_outcome=True)


def running_view(first: RecordedEvent, newest: RecordedEvent) -> CallView:
    """A call without an outcome, of its first and of its newest event."""
    view = view_of(newest.sequence, newest.event, has_outcome=False)
    return replace(view, began_at=first.event.timestamp)


def recorded_event(row: EventRow, run_id: str) -> RecordedEvent:
    """An event without its value."""
    event = fact_of(StoredEvent(row, None), None, run_id).event()
    return RecordedEvent(row.sequence, event, row.ok is not None)
