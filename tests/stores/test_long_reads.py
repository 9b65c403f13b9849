"""Who looks at a long run reads a part of it at a time, whatever is looked at: no transaction sees more than a part."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from rh_agents.core.errors import StoreError
from rh_agents.core.ports.activity import activity_of_run
from rh_agents.core.ports.keeping import size_of_run
from rh_agents.core.ports.outline import outline_of_run
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.core.ports.windows import (
    ORDERS,
    call_of_run,
    calls_of_run,
    children_of_call,
    failure_kinds,
    failures_of_run,
    members_of_group,
    running_calls,
)
from rh_agents.stores import open_store
from rh_agents.stores._backend.beside import PresentRow
from rh_agents.stores._backend.rows import Batch, EventRow, OutcomeRow, RunRow
from rh_agents.stores._parts import PART
from rh_agents.stores._store import SqlStore

T = TypeVar("T")

RUN = "long"
CALLS = 9_000
"""More than what is read at a time, with two events each."""
FLOW = sha256(b"flow").digest()


def key(number: int) -> bytes:
    return sha256(b"call %d" % number).digest()


def rows(number: int, first: int) -> tuple[list[EventRow], list[OutcomeRow]]:
    """A member of a group began, and has ended, one of a hundred with a failure."""
    its, address, ok = key(number), f"flow::pages[{number}]::page", number % 100 != 0
    about = ("tool_call", "page", address, its, "pages", number, None, 1)
    events = [EventRow(first, 1.0 * number, "started", *about, None, None, None, None)]
    ended = "completed" if ok else "failed"
    events.append(EventRow(first + 1, number + 0.5, ended, *about, 0.5, None if ok else "ValueError: no", ok, None))
    value = b"1" if ok else b'{"error":"ValueError"}'
    return events, [OutcomeRow(first + 1, its, ok, None, FLOW, 0, 0, 1, value, None, None)]


def write(session: Any) -> RunRow:
    """The run as its owner has left it: killed, with one call of the group under way, and the flow around it."""
    begun = EventRow(1, 0.0, "started", "agent_call", "flow", "flow", FLOW, None, None, None, 1, None, None, None, None)
    run: RunRow | None = session.create(RunRow(0, RUN, "started", owner="me", fence=1, created_at=1.0))
    assert run is not None
    about = ("group_started", "pages", "flow::pages", None, "pages", None, None, 0, None, None, None, None)
    session.write([Batch(run.number, 1, 0, [begun, EventRow(2, 0.0, "started", *about)], [])], 1.0)
    last = 2
    for start in range(0, CALLS, 1000):
        events: list[EventRow] = []
        outcomes: list[OutcomeRow] = []
        for number in range(start, min(start + 1000, CALLS)):
            its, ended = rows(number, last + len(events) + 1)
            events += its[:1] if number == 50 else its
            outcomes += [] if number == 50 else ended
        session.write([Batch(run.number, 1, last, events, outcomes)], 1.0)
        last += len(events)
    assert last > PART
    under_way = {"until": last - 200, "count": 2, "calls": [[1, 1], [103, 103]]}
    facts = f'{{"fence": 1, "at": 5.0, "under_way": {under_way}}}'.replace("'", '"')
    session.say([PresentRow(run.number, 1, 5.0, facts)])
    return run


class Counting:
    """A session that notes how many rows of a journal each of its transactions may look at."""

    def __init__(self, inner: Any, seen: list[tuple[int, str]]) -> None:
        self._inner, self._seen = inner, seen

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(self._note, name, found) if callable(found) else found

    def _note(self, name: str, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
        given = inspect.signature(method).bind(*args, **named).arguments
        self._seen.append((_rows_looked_at(name, given), name))
        return method(*args, **named)


_OF_ONE_ROW = {
    "find_run", "runs", "present", "requests", "questions", "find_question", "pieces", "watched_until", "has_changed",
    "close", "find_cached", "used_artifacts", "children", "is_in_place",
}  # fmt: skip
"""What looks at no journal."""


def _rows_looked_at(name: str, given: dict[str, Any]) -> int:
    if name in _OF_ONE_ROW:
        return 1
    if "sequences" in given:
        return len(given["sequences"])
    in_order = name in {"members", "calls", "events", "outcomes", "tried_again"}  # these look at what they give
    if in_order:
        return int(given["limit"])
    return int(given["until"] - given["after"])  # KeyError: it looks at everything


class CountingBackend:
    """A database whose reading sessions count."""

    def __init__(self, inner: Any, seen: list[tuple[int, str]]) -> None:
        self._inner, self._seen = inner, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def reading(self) -> Any:
        return Counting(self._inner.reading(), self._seen)


@asynccontextmanager
async def opened(url: str, seen: list[tuple[int, str]]) -> AsyncIterator[SqlStore]:
    inner: Any = open_store(url)
    store = SqlStore(cast("Any", CountingBackend(inner.engine.writer._backend, seen)))
    await store.runs()
    await store.engine.writer.done(lambda session: write(session))
    try:
        yield store
    finally:
        await store.aclose()
        await inner.aclose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")
    found: str = request.getfixturevalue("postgresql_url")
    return found


async def first_of(reading: AsyncIterator[T], count: int) -> list[T]:
    found: list[T] = []
    async for each in reading:
        found.append(each)
        if len(found) == count:
            break
    return found


async def look_at_everything(store: SqlStore) -> None:
    outline = await outline_of_run(store, RUN)
    given = [each async for each in outline.read(False)]
    assert len(given) + 2 * sum(map(len, outline.plain)) == outline.last == 2 * CALLS + 1
    assert len(given) < CALLS // 20
    summary = await summary_of_run(store, RUN)
    assert summary.outcomes == CALLS - 1
    activity = await activity_of_run(store, RUN, after=0, until=None, width=60.0)
    assert (activity.until, sum(its.failed for its in activity.buckets.values())) == (2 * CALLS + 1, CALLS // 100)
    running = await running_calls(store, RUN)
    assert [call.address for call in running.calls] == ["flow", "flow::pages[50]::page"]
    for order in ORDERS:
        for descending in (False, True):
            window = await calls_of_run(store, RUN, order=order, descending=descending, n=3)
            assert len(window.calls) == 3
    assert (await calls_of_run(store, RUN, text="nothing like it")).calls == ()
    last = await calls_of_run(store, RUN, text=f"[{CALLS - 1}]", actor="page", group="pages")
    assert [call.index for call in last.calls] == [CALLS - 1]
    assert len((await failures_of_run(store, RUN)).calls) == CALLS // 100
    assert [kind.count for kind in await failure_kinds(store, RUN)] == [CALLS // 100]
    members = await members_of_group(store, RUN, "pages", CALLS - 3, 5)
    assert [call.index for call in members.calls] == [CALLS - 2, CALLS - 1]
    assert len((await children_of_call(store, RUN, FLOW.hex())).calls) == 200
    record = await call_of_run(store, RUN, key(CALLS - 1).hex())
    assert record is not None
    assert [each.sequence for each in record.events] == [2 * CALLS, 2 * CALLS + 1]
    assert record.parents[0].address == "flow"
    assert await call_of_run(store, RUN, "0" * 64) is None
    assert len(await first_of(store.unread_outcomes(RUN), 600)) == 600
    assert len(await first_of(store.events(RUN, values=False), 600)) == 600
    size = await size_of_run(store, RUN)
    assert size is not None
    assert size.size > 64 * CALLS


def test_no_transaction_looks_at_more_of_a_run_than_a_part(url: str) -> None:
    seen: list[tuple[int, str]] = []

    async def main() -> None:
        async with opened(url, seen) as store:
            await look_at_everything(store)

    asyncio.run(main())
    assert max(seen) <= (PART, "~")
    assert len({name for _, name in seen}) > 15, "they were counted"


def test_what_runs_is_found_without_reading_the_journal_from_its_beginning(url: str) -> None:
    seen: list[tuple[int, str]] = []

    async def main() -> None:
        async with opened(url, seen) as store:
            run = await store.engine.run(RUN)
            known = await store._finder.known_of(run)
            seen.clear()
            found = await running_calls(store, RUN)
            assert [call.address for call in found.calls] == ["flow", "flow::pages[50]::page"]
            assert known.index.until == 0

    asyncio.run(main())
    assert sum(rows for rows, name in seen) < 300


@pytest.mark.parametrize("what", ["deleted", "erased"])
def test_what_becomes_of_a_run_while_it_is_read_is_noticed(url: str, what: str) -> None:
    seen: list[tuple[int, str]] = []

    async def main() -> None:
        async with opened(url, seen) as store:
            run = await store.engine.run(RUN)
            await store.engine.writer.done(lambda session: session.release(run.number, 1, "completed", None, 9.0))
            outline = await outline_of_run(store, RUN)
            reading = outline.read(False)
            await anext(reading)
            other: Any = open_store(url)
            await (other.delete_run(RUN) if what == "deleted" else other.erase_values(RUN))
            await other.aclose()
            with pytest.raises(StoreError, match=rf"{what} while it was read|of run 'long' is missing"):
                _ = [each async for each in reading]

    asyncio.run(main())


def test_a_reader_who_leaves_ends_what_is_looked_through_for_him(tmp_path: Path) -> None:
    looked: list[int] = []
    is_free = threading.Event()

    async def main() -> None:
        store = open_store(tmp_path / "runs.db")
        assert isinstance(store, SqlStore)
        await store.runs()
        loop, has_begun = asyncio.get_running_loop(), asyncio.Event()

        def look(part: int, _: object) -> int:
            looked.append(part)
            if part == 1:
                loop.call_soon_threadsafe(has_begun.set)
            assert is_free.wait(30) or part == 0
            return part

        async def read() -> list[int]:
            works = (partial(look, part) for part in range(100))
            return [found async for found in store.engine.read_each(works)]

        reading = asyncio.create_task(read())
        await has_begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        is_free.set()
        await store.runs()
        await store.aclose()

    asyncio.run(main())
    assert len(looked) <= 3, "those that had begun"
