"""Windows of calls that a database finds: a part of the journal at a time, so that nobody waits, and it can be left.

What is found is only where calls stand. Their events are then read with their checksums, as everything else.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Final, TypeVar

from rh_agents.core._base.failure_kinds import Failure, FailureKind, kinds_of
from rh_agents.core.errors import StoreError
from rh_agents.core.ports.call_views import (
    MOST,
    CallQuery,
    CallRecord,
    CallView,
    CallWindow,
    cursor,
    no_cursor,
    read_cursor,
)
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend.rows import RunRow, StoredOutcome
from rh_agents.stores._backend.windows import CallsWanted, FailedRow
from rh_agents.stores._calls import SHORT, CallReader, Known, recorded_event, running_view
from rh_agents.stores._engine import Engine
from rh_agents.stores._parts import PART, Steps, parts, parts_back
from rh_agents.stores._run_index import leave_out_ended, read_on
from rh_agents.stores._saying import noted_in
from rh_agents.stores._summing import failure_of
from rh_agents.stores._under_way import Begun, UnderWay
from rh_agents.stores._verified import VerifiedSession

T = TypeVar("T")

Span = tuple[int, int]
"""A part of a journal: from after one sequence up to another one."""
Ask = Callable[[VerifiedSession, int, int], list[int]]

_ROWS: Final = 1000
"""Rows that are read at a time."""
_PER_STEP: Final = 16
"""Parts of a journal that are looked through in one step where an index says what is in them."""
_MOST_RUNS: Final = 8
"""Of so many it is remembered what makes windows quick."""


class CallFinder(CallReader):
    """Finds calls of runs, and remembers of a few runs what makes that quick.

    Args:
        engine: where the runs are.
        read: reads the outcome of a run that stands at a sequence.
    """

    def __init__(self, engine: Engine, read: Callable[[str, StoredOutcome], Outcome]) -> None:
        super().__init__(engine, read)
        self._known: OrderedDict[tuple[int, float], Known] = OrderedDict()

    async def known_of(self, run: RunRow) -> Known:
        """What is known of a run, with all that was made again in it up to now."""
        name = (run.number, run.created_at)  # a number may be given again when its run has been deleted
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known(run)
            while len(self._known) > _MOST_RUNS:
                self._known.popitem(last=False)
        self._known.move_to_end(name)
        await self._engine.read_in_steps(_read_tries(known, run))
        if known.ended.until or run.last_sequence <= SHORT:
            await self.compare_keys(known, run)
        return known

    # -- windows ------------------------------------------------------------------------------------------------------

    async def window(self, run: RunRow, query: CallQuery) -> CallWindow:
        """See `rh_agents.core.ports.windows.calls_of_run`."""
        known = await self.known_of(run)
        if any(each.name == "time" for each in query.within):
            await self._engine.read_in_steps(_read_moments(known, run))
        if query.order != "journal":
            return await self._sorted(known, run, query)
        if query.first:
            return await self._from_offset(known, run, query)
        fits = known.moments.may_fit
        spans = (span for span in self._spans(run, query) if fits(*span, query.within))
        return await self._collected(known, run, query, self._found(run, query, spans))

    def _spans(self, run: RunRow, query: CallQuery) -> Iterable[tuple[int, int]]:
        """The parts of the journal in which calls may stand, in the order of a query."""
        position = query.position
        if query.descending:
            return parts_back(0, run.last_sequence if position is None else min(position[1] - 1, run.last_sequence))
        return parts(0 if position is None else position[1], run.last_sequence)

    async def _found(self, run: RunRow, query: CallQuery, spans: Iterable[Span]) -> AsyncGenerator[list[int], None]:
        """Sequences of calls that may be wanted."""
        wanted = _wanted(query, query.n + 1)
        ask = partial(_find, run.number, wanted)
        async for found in self._looked_through(spans, ask, wanted.limit, is_back=query.descending):
            yield found

    async def _looked_through(
        self, spans: Iterable[Span], ask: Ask, limit: int, *, is_back: bool = False
    ) -> AsyncGenerator[list[int], None]:
        """What `ask` finds in parts of a journal, at most `limit` at a time.

        What is in the first part is nearly always enough; behind it, more than one is looked through at a time.
        """
        left = iter(spans)
        for some in (islice(left, 1), left):
            works = (partial(_ask, ask, span) for span in some)
            async with aclosing(self._engine.read_each(works)) as answers:
                async for (low, high), found in answers:
                    yield found
                    while len(found) == limit:
                        low, high = (low, found[-1] - 1) if is_back else (found[-1], high)
                        _, found = await self._engine.read(partial(_ask, ask, (low, high)))
                        yield found

    async def _collected(
        self, known: Known, run: RunRow, query: CallQuery, found: AsyncGenerator[list[int], None]
    ) -> CallWindow:
        """The first calls that are wanted of those that may be."""
        calls: list[CallView] = []
        async with aclosing(found):
            async for sequences in found:
                if sequences:
                    calls += [view for view in await self.views_at(known, run, sequences) if query.fits(view)]
                if len(calls) > query.n:
                    break
        end = cursor(query.place(calls[query.n - 1])) if len(calls) > query.n else None
        return CallWindow(await self._complete(known, run, calls[: query.n]), end, run.last_sequence)

    async def _from_offset(self, known: Known, run: RunRow, query: CallQuery) -> CallWindow:
        """Members of a group behind so many others: parts of the journal are passed over by their counts."""
        assert query.group is not None
        index = await self.index_of(known, run)
        await self.find_first_tries(known, run, known.tries.all_unknown())
        left_out = known.tries.left_out_of(query.group)
        repeated = (
            await self.views_at(known, run, sorted(known.ended.repeated), all_of_them=True)
            if known.ended.repeated
            else []
        )
        left_out |= {view.sequence for view in repeated if view.group_id == query.group}
        skip, start = query.first, run.last_sequence
        for after, count in index.parts_of(query.group, left_out):
            if skip < count:
                start = after
                break
            skip -= count
        plain = replace(query, first=0, n=1)
        spans = parts(start, run.last_sequence)
        sequences: list[int] = []
        async with aclosing(self._found(run, replace(plain, n=min(skip + query.n, 199) + 1), spans)) as finding:
            async for found in finding:
                sequences += [sequence for sequence in found if sequence not in left_out]
                if len(sequences) > skip + query.n:
                    break
        views = await self.views_at(known, run, sequences[skip : skip + query.n + 1])
        end = cursor(query.place(views[query.n - 1])) if len(views) > query.n else None
        return CallWindow(await self._complete(known, run, views[: query.n]), end, run.last_sequence)

    async def _sorted(self, known: Known, run: RunRow, query: CallQuery) -> CallWindow:
        """Calls in another order than that of the journal: all of it is looked through, a part at a time."""
        calls: list[CallView] = []
        values: list[tuple[float | str, int]] = []
        behind = query.position
        if behind is not None and isinstance(behind[0], str) and _HALF.search(behind[0]):
            raise no_cursor(query.after or "")  # no database has given that
        while True:
            values = await self._least(known, run, _wanted(query, query.n + 1, behind))
            found = await self.views_at(known, run, [sequence for _, sequence in values])
            calls += [view for view in found if query.fits(view)]
            if len(calls) > query.n or len(values) <= query.n:
                break
            behind = values[-1]
        if len(calls) <= query.n:
            return CallWindow(await self._complete(known, run, calls), None, run.last_sequence)
        last = calls[query.n - 1]
        end = await self._place(run, query, last, dict(map(reversed, values)))  # type: ignore[arg-type]  # pairs
        return CallWindow(await self._complete(known, run, calls[: query.n]), cursor(end), run.last_sequence)

    async def _place(
        self, run: RunRow, query: CallQuery, call: CallView, values: dict[int, float | str]
    ) -> tuple[float | str, int]:
        """What a call is sorted by, as the database has it, and its sequence."""
        sequence = call.sequence
        if sequence not in values:  # it was in the part before
            one = partial(_sort, run.number, sequence - 1, sequence, _wanted(query, 1)._replace(behind=None))
            ((values[sequence], _),) = await self._engine.read(one)
        return values[sequence], sequence

    async def _least(self, known: Known, run: RunRow, wanted: CallsWanted) -> list[tuple[float | str, int]]:
        """Those that come first of all of a run."""
        best: list[tuple[float | str, int]] = []
        fits = known.moments.may_fit
        spans = (span for span in parts(0, run.last_sequence) if fits(*span, wanted.within))
        works = (partial(_sort, run.number, low, high, wanted) for low, high in spans)
        async with aclosing(self._engine.read_each(works)) as sorting:
            async for found in sorting:
                best += found
                if len(best) > wanted.limit:
                    best.sort(key=lambda place: place[1])
                    best.sort(key=_comparable, reverse=wanted.descending)
                    del best[wanted.limit :]
        return best

    async def running(self, run: RunRow, n: int, group: str | None) -> CallWindow:
        """See `rh_agents.core.ports.windows.running_calls`."""
        known = await self.known_of(run)
        under_way = await self._under_way(known, run)
        calls = await self._running_views(run, under_way, n, group)
        if len(calls) < n and not under_way.is_whole:
            calls = await self._running_views(run, (await self.index_of(known, run)).under_way, n, group)
        return CallWindow(tuple(calls), None, run.last_sequence)

    async def _under_way(self, known: Known, run: RunRow) -> UnderWay:
        """The calls under way: of what the owner has written down, if that is nearer than what was read."""
        if known.noted is None and known.index.until + PART < run.last_sequence:
            known.noted = await self._engine.read(partial(_noted, run))
        noted = known.noted
        if noted is None or noted.until < known.index.until:
            return (await self.index_of(known, run)).under_way
        await self._engine.read_in_steps(read_on(run.number, noted, run.last_sequence))
        if known.ended.until >= run.last_sequence:
            await self._engine.read_in_steps(leave_out_ended(run.number, noted, known.ended))
        return noted

    async def _running_views(self, run: RunRow, under_way: UnderWay, n: int, group: str | None) -> list[CallView]:
        calls: list[CallView] = []
        begun = under_way.begun
        for start in range(0, len(begun), MOST):
            some = [each for _, each in begun[start : start + MOST]]
            views = await self._engine.read(partial(_read_running, run, some))
            calls += [view for view in views if group is None or view.group_id == group]
            if len(calls) >= n:
                break
        return calls[:n]

    async def children(self, run: RunRow, key: bytes, after: str | None, n: int) -> CallWindow:
        """See `rh_agents.core.ports.windows.children_of_call`."""
        known = await self.known_of(run)
        place, query = known.tries.place_of(key), CallQuery(after=after, n=n)
        spans = parts(0 if query.after is None else read_cursor(query.after)[1], run.last_sequence)
        ask = partial(_find_children, run.number, place, query.n + 1)
        return await self._collected(known, run, query, self._looked_through(spans, ask, query.n + 1))

    # -- failures -----------------------------------------------------------------------------------------------------

    async def failure_kinds(self, run: RunRow) -> list[FailureKind]:
        """See `rh_agents.core.ports.windows.failure_kinds`."""
        known = await self.known_of(run)
        found: list[Failure] = []
        for row in await self._engine.read_in_steps(_failed_rows(run)):
            sequence = row.failure.sequence
            if sequence not in known.ended.repeated and not known.tries.is_replaced(sequence, row.key):
                found.append(failure_of(row.failure))
        return kinds_of(found)

    async def meant(self, run: RunRow, items: Sequence[str], unsuccessful: bool) -> list[StoredOutcome]:
        """See `rh_agents.core._replay.meant.FindsOutcomes.outcomes_named`."""
        known = await self.known_of(run)
        await self.compare_keys(known, run)
        sequences = await self._engine.read_in_steps(_meant(run, items, unsuccessful))
        found = await self._outcomes_at(run, sequences)
        tries, repeated = known.tries, known.ended.repeated
        return [
            each
            for each in found
            if each.sequence not in repeated and not tries.is_replaced(each.sequence, each.row.key)
        ]

    async def around(self, run: RunRow, keys: Collection[bytes]) -> list[StoredOutcome]:
        """See `rh_agents.core._replay.meant.outcomes_around`."""
        known = await self.known_of(run)
        await self.compare_keys(known, run)
        found: dict[bytes, StoredOutcome] = {}
        asked = {b""}
        sequences = await self.sequences_of(known, run, set(keys))
        while sequences:
            inner = await self._outcomes_at(run, [each for each in sequences if each not in known.ended.repeated])
            found.update({each.row.key: each for each in inner})
            places = {each.row.parent for each in inner} - asked
            asked |= places
            newest = {place: known.tries.newest(place) for place in places}
            first = {place for place, sequence in newest.items() if not sequence}
            sequences = [*filter(None, newest.values()), *await self.sequences_of(known, run, first)]
        return list(found.values())

    async def _outcomes_at(self, run: RunRow, sequences: Sequence[int]) -> list[StoredOutcome]:
        found: list[StoredOutcome] = []
        for start in range(0, len(sequences), _ROWS):
            found += await self._engine.read(partial(_outcomes_at, run, sequences[start : start + _ROWS]))
        return found

    async def record(self, run: RunRow, key: bytes) -> CallRecord | None:
        """See `rh_agents.core.ports.windows.call_of_run`."""
        return await self.record_of(await self.known_of(run), run, key)


_HALF: Final = re.compile("[\ud800-\udfff]")


def _wanted(query: CallQuery, limit: int, behind: tuple[float | str, int] | None = None) -> CallsWanted:
    status = None if query.status is None else query.status.value
    return CallsWanted(
        status, query.actor, query.group, query.text or None, query.order, query.descending, behind, limit, query.within
    )


def _comparable(place: tuple[float | str, int]) -> float | bytes:
    value = place[0]
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


# What is read in threads of the store.


def _read_tries(known: Known, run: RunRow) -> Steps[None]:
    while known.tries.until < run.last_sequence:
        session = yield
        with known.lock:
            after = known.tries.until
            if after < run.last_sequence:
                found = session.inner.tried_again(run.number, after, run.last_sequence, PART)
                known.tries.add(found, found[-1].sequence if len(found) == PART else run.last_sequence)


def _read_moments(known: Known, run: RunRow) -> Steps[None]:
    while known.moments.until + PART <= run.last_sequence:
        session = yield
        with known.lock:
            known.moments.extend(session)


def _ask(ask: Ask, span: Span, session: VerifiedSession) -> tuple[Span, list[int]]:
    return span, ask(session, *span) if span[0] < span[1] else []


def _find(number: int, wanted: CallsWanted, session: VerifiedSession, after: int, until: int) -> list[int]:
    return session.inner.find_calls(number, after, until, wanted)


def _find_children(
    number: int, parent: bytes, limit: int, session: VerifiedSession, after: int, until: int
) -> list[int]:
    return session.inner.find_children(number, after, until, parent, limit)


def _sort(
    number: int, after: int, until: int, wanted: CallsWanted, session: VerifiedSession
) -> list[tuple[float | str, int]]:
    return session.inner.sort_calls(number, after, until, wanted)


def _failed_rows(run: RunRow) -> Steps[list[FailedRow]]:
    """All failures, oldest first. They have an index, so that several parts are looked through in one step."""
    found: list[FailedRow] = []
    for start, end in parts(0, run.last_sequence, _PER_STEP * PART):
        session = yield
        for low, high in parts(start, end):
            found += session.inner.failed_rows(run.number, low, high, high - low)
    return found


def _meant(run: RunRow, items: Sequence[str], unsuccessful: bool) -> Steps[list[int]]:
    """Where outcomes stand that somebody may mean."""
    found: set[int] = set()
    failures = CallsWanted(status=ExecutionStatus.FAILED.value, limit=PART)
    for low, high in parts(0, run.last_sequence):
        session = yield
        if unsuccessful:
            cancelled = failures._replace(status=ExecutionStatus.CANCELLED.value)
            for wanted in (failures, cancelled):
                found.update(session.inner.find_calls(run.number, low, high, wanted))
        if items:
            found.update(session.inner.find_named(run.number, low, high, items))
    return sorted(found)


def _outcomes_at(run: RunRow, sequences: Sequence[int], session: VerifiedSession) -> list[StoredOutcome]:
    return sorted(session.outcomes_at(run.number, run.run_id, sequences), key=lambda each: each.sequence)


def _noted(run: RunRow, session: VerifiedSession) -> UnderWay | None:
    """The calls under way as the owner has written them down; None if it has not, or if that cannot be read."""
    try:
        row = session.present(run.number, run.run_id)
        noted = None if row is None else noted_in(row)
        if noted is None or noted.until > run.last_sequence:
            return None
        under_way = UnderWay(noted.until, is_whole=noted.count == len(noted.calls))
        newest = dict(noted.calls)
        for start in range(0, len(noted.calls), _ROWS):
            firsts = [first for first, _ in noted.calls[start : start + _ROWS]]
            rows = session.events_at(run.number, run.run_id, firsts)
            under_way.start_with((row.key, Begun(row.sequence, newest[row.sequence], True)) for row in rows if row.key)
    except (StoreError, ValueError):  # it is damaged, or another program wrote it: the journal says the same
        return None
    return under_way


def _read_running(run: RunRow, some: Sequence[Begun], session: VerifiedSession) -> list[CallView]:
    """Calls without an outcome as their events say."""
    wanted = sorted({sequence for each in some for sequence in (each.first, each.newest)})
    events = {
        row.sequence: recorded_event(row, run.run_id) for row in session.events_at(run.number, run.run_id, wanted)
    }
    return [running_view(events[each.first], events[each.newest]) for each in some]
