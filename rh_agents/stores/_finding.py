"""Windows of calls that a database finds: a part of the journal at a time, so that nobody waits, and it can be left.

What is found is only where calls stand. Their events are then read with their checksums, as everything else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from rh_agents.core._base.failure_kinds import Failure, FailureKind, kinds_of
from rh_agents.core.ports.call_views import (
    CallQuery,
    CallRecord,
    CallView,
    CallWindow,
    cursor,
    read_cursor,
)
from rh_agents.core.results import Outcome
from rh_agents.stores._backend import CallsWanted, RunRow, StoredOutcome
from rh_agents.stores._calls import CallReader, Known
from rh_agents.stores._engine import Engine
from rh_agents.stores._run_index import RunIndex
from rh_agents.stores._summing import failure_of
from rh_agents.stores._verified import VerifiedSession

T = TypeVar("T")

_FOUND_AT_ONCE: Final = 32_768
"""Events that are looked through at a time: some hundredths of a second."""
_SORTED_AT_ONCE: Final = 16_384
_PARTS_AT_ONCE: Final = 8
_SHORT: Final = 400_000
"""Events. Of a longer run the first windows do not wait until all keys have been compared: that takes a second."""
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
        self._known: OrderedDict[int, Known] = OrderedDict()

    async def known_of(self, run: RunRow) -> Known:
        """What is known of a run, with all that was made again in it up to now."""
        known = self._known.get(run.number)
        if known is None:
            known = self._known[run.number] = Known(run)
            while len(self._known) > _MOST_RUNS:
                self._known.popitem(last=False)
        self._known.move_to_end(run.number)
        if known.tries.until < run.last_sequence:
            await self._engine.read(partial(_read_tries, known, run))
        if known.ended.until or run.last_sequence <= _SHORT:
            await self.compare_keys(known, run)
        return known

    async def compare_keys(self, known: Known, run: RunRow) -> None:
        """Know which outcomes count for nothing, up to now."""
        while known.ended.until < run.last_sequence:
            await self._engine.read(partial(_extend_ended, known, run.last_sequence))

    async def index_of(self, known: Known, run: RunRow) -> RunIndex:
        """What was read of all keys and groups, up to now."""
        await self.compare_keys(known, run)
        while known.index.until < run.last_sequence:
            await self._engine.read(partial(_extend, known, run.last_sequence))
        return known.index

    # -- windows ------------------------------------------------------------------------------------------------------

    async def window(self, run: RunRow, query: CallQuery) -> CallWindow:
        """See `rh_agents.core.ports.windows.calls_of_run`."""
        known = await self.known_of(run)
        if query.order != "journal":
            return await self._sorted(known, run, query)
        if query.first:
            return await self._from_offset(known, run, query)
        spans = self._spans(run, query)
        return await self._collected(known, run, query, self._found(run, query, spans))

    def _spans(self, run: RunRow, query: CallQuery) -> Iterable[tuple[int, int]]:
        """The parts of the journal in which calls may stand, in the order of a query."""
        position = query.position
        if not query.descending:
            start = 0 if position is None else position[1]
            for after in range(start, run.last_sequence, _FOUND_AT_ONCE):
                yield after, min(after + _FOUND_AT_ONCE, run.last_sequence)
            return
        end = run.last_sequence if position is None else min(position[1] - 1, run.last_sequence)
        while end > 0:
            yield max(end - _FOUND_AT_ONCE, 0), end
            end -= _FOUND_AT_ONCE

    async def _found(
        self, run: RunRow, query: CallQuery, spans: Iterable[tuple[int, int]]
    ) -> AsyncIterator[tuple[list[int], None]]:
        """Sequences of calls that may be wanted."""
        wanted = _wanted(query, query.n + 1)
        if wanted.is_of_failures:
            spans = _joined(spans)
        for after, until in spans:
            low, high = after, until
            while low < high:
                span = partial(_find, run.number, low, high, wanted)
                found = await self._engine.read(span)
                yield found, None
                if len(found) < wanted.limit:
                    break
                low, high = (low, found[-1] - 1) if query.descending else (found[-1], high)

    async def _collected(
        self, known: Known, run: RunRow, query: CallQuery, found: AsyncIterator[tuple[list[int], Any]]
    ) -> CallWindow:
        """The first calls that are wanted of those that may be."""
        calls: list[CallView] = []
        async for sequences, _ in found:
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
        spans = [(after, min(after + _FOUND_AT_ONCE, run.last_sequence)) for after in
                 range(start, run.last_sequence, _FOUND_AT_ONCE)]  # fmt: skip
        sequences: list[int] = []
        async for found, _ in self._found(run, replace(plain, n=min(skip + query.n, 199) + 1), spans):
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
        while True:
            values = await self._least(run, _wanted(query, query.n + 1, behind))
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

    async def _least(self, run: RunRow, wanted: CallsWanted) -> list[tuple[float | str, int]]:
        """Those that come first of all of a run."""
        best: list[tuple[float | str, int]] = []
        for after in range(0, run.last_sequence, _SORTED_AT_ONCE):
            until = min(after + _SORTED_AT_ONCE, run.last_sequence)
            best += await self._engine.read(partial(_sort, run.number, after, until, wanted))
            if len(best) > wanted.limit:
                best.sort(key=lambda place: place[1])
                best.sort(key=_comparable, reverse=wanted.descending)
                del best[wanted.limit :]
        return best

    async def running(self, run: RunRow, n: int, group: str | None) -> CallWindow:
        """See `rh_agents.core.ports.windows.running_calls`."""
        known = await self.known_of(run)
        index = await self.index_of(known, run)
        calls: list[CallView] = []
        for key in index.under_way:
            view = await self._running(run, key)
            if group is None or view.group_id == group:
                calls.append(view)
            if len(calls) == n:
                break
        return CallWindow(tuple(calls), None, run.last_sequence)

    async def children(self, run: RunRow, key: bytes, after: str | None, n: int) -> CallWindow:
        """See `rh_agents.core.ports.windows.children_of_call`."""
        known = await self.known_of(run)
        place, query = known.tries.place_of(key), CallQuery(after=after, n=n)
        return await self._collected(known, run, query, self._found_children(run, place, query))

    async def _found_children(
        self, run: RunRow, place: bytes, query: CallQuery
    ) -> AsyncIterator[tuple[list[int], None]]:
        start = 0 if query.after is None else read_cursor(query.after)[1]
        for after in range(start, run.last_sequence, _FOUND_AT_ONCE):
            low, until = after, min(after + _FOUND_AT_ONCE, run.last_sequence)
            while low < until:
                found = await self._engine.read(partial(_find_children, run.number, low, until, place, query.n + 1))
                yield found, None
                if len(found) <= query.n:
                    break
                low = found[-1]

    # -- failures -----------------------------------------------------------------------------------------------------

    async def failure_kinds(self, run: RunRow) -> list[FailureKind]:
        """See `rh_agents.core.ports.windows.failure_kinds`."""
        known = await self.known_of(run)
        found: list[Failure] = []
        after = 0
        while True:
            rows = await self._engine.read(partial(_failed, run.number, after, run.last_sequence))
            for row in rows:
                sequence = row.failure.sequence
                if sequence not in known.ended.repeated and not known.tries.is_replaced(sequence, row.key):
                    found.append(failure_of(row.failure))
            if len(rows) < _SORTED_AT_ONCE:
                return kinds_of(found)
            after = rows[-1].failure.sequence

    async def record(self, run: RunRow, key: bytes) -> CallRecord | None:
        """See `rh_agents.core.ports.windows.call_of_run`."""
        return await self.record_of(await self.known_of(run), run, key)


def _wanted(query: CallQuery, limit: int, behind: tuple[float | str, int] | None = None) -> CallsWanted:
    status = None if query.status is None else query.status.value
    return CallsWanted(
        status, query.actor, query.group, query.text or None, query.order, query.descending, behind, limit
    )


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """All spans as one: what has an index need not be looked for a part at a time."""
    ends = [end for span in spans for end in span]
    return [(min(ends), max(ends))] if ends else []


def _comparable(place: tuple[float | str, int]) -> float | bytes:
    value = place[0]
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


# What is read in threads of the store.


def _extend_ended(known: Known, until: int, session: VerifiedSession) -> None:
    with known.lock:
        known.ended.extend(session, until, 2 * _PARTS_AT_ONCE)


def _extend(known: Known, until: int, session: VerifiedSession) -> None:
    with known.lock:
        known.index.extend(session, until, _PARTS_AT_ONCE)


def _read_tries(known: Known, run: RunRow, session: VerifiedSession) -> None:
    with known.lock:
        after = known.tries.until
        if after < run.last_sequence:
            known.tries.add(session.inner.tried_again(run.number, after, run.last_sequence), run.last_sequence)


def _find(number: int, after: int, until: int, wanted: CallsWanted, session: VerifiedSession) -> list[int]:
    return session.inner.find_calls(number, after, until, wanted)


def _sort(
    number: int, after: int, until: int, wanted: CallsWanted, session: VerifiedSession
) -> list[tuple[float | str, int]]:
    return session.inner.sort_calls(number, after, until, wanted)


def _find_children(
    number: int, after: int, until: int, parent: bytes, limit: int, session: VerifiedSession
) -> list[int]:
    return session.inner.find_children(number, after, until, parent, limit)


def _failed(number: int, after: int, until: int, session: VerifiedSession) -> Any:
    return session.inner.failed_rows(number, after, until, _SORTED_AT_ONCE)
