"""Windows of a run that is longer than what is read of it at a time, and of one with a damaged row."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rh_agents.core.ports import Store
from rh_agents.core.ports.call_table import CallTable
from rh_agents.core.ports.windows import (
    CallView,
    call_of_run,
    calls_of_run,
    failure_kinds,
    failures_of_run,
    members_of_group,
    running_calls,
)
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._run_index import GRAIN
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.testing._records import completed, fact, key, listed, outcome
from tests.stores.sqlite_kit import RUN, call, request, sql

CALLS = 3 * GRAIN // 2


async def write(store: SqliteStore) -> None:
    """A run with calls of two groups one after the other, some of which fail and are made again, or do not end."""
    journal = await store.open_run(request())
    for number in range(CALLS):
        group = "small" if number % 700 < 3 or number > CALLS - 40 else "large"
        error = ValueError(f"no {number}") if number % 100 == 7 else None
        given = outcome(number, "x", error, group_id=group, seconds=float(number * 7919 % 1000))
        journal.note(fact(RUN, ExecutionStatus.STARTED, given))
        if number % 500 != 499:
            journal.note(completed(RUN, given), given)
        if number % 1000 == 107:
            again = outcome(f"{number} again", "y", group_id=group, base=key(number))
            journal.note(fact(RUN, ExecutionStatus.STARTED, again))
            journal.note(completed(RUN, again), again)
        if number % 1000 == 0:
            await journal.flush()
    await journal.close(ExecutionStatus.STARTED)


async def folded(store: Store) -> CallTable:
    """The calls as their events say."""
    table = CallTable(await listed(store.unread_outcomes(RUN)))
    for recorded in await listed(store.events(RUN, values=False)):
        table.add(recorded)
    return table


async def pages(store: Store, n: int, **options: Any) -> list[CallView]:
    """All calls, a window at a time."""
    found: list[CallView] = []
    after = None
    while True:
        window = await calls_of_run(store, RUN, after=after, n=n, **options)
        found += window.calls
        after = window.next
        if after is None:
            return found


def test_windows_of_a_long_run_are_what_a_fold_says(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "runs.db")
        await write(store)
        table = await folded(store)
        assert table.until > 2 * GRAIN
        everything = list(table.ended())
        assert await pages(store, 200) == everything
        for order in ("seconds", "message"):
            expected = sorted(everything, key=lambda view: view.value(order), reverse=True)
            assert await pages(store, 200, order=order, descending=True) == expected
        for group in ("large", "small"):
            its = [view for view in everything if view.group_id == group]
            assert await pages(store, 200, group=group) == its
            for first in (0, 1, len(its) // 2, len(its) - 3, len(its), len(its) + 7):
                found = await members_of_group(store, RUN, group, first)
                assert list(found.calls) == its[first : first + 200]
        assert (await running_calls(store, RUN)).calls == tuple(table.running(None))
        assert len((await running_calls(store, RUN)).calls) == CALLS // 500
        failed = [view for view in everything if view.status is ExecutionStatus.FAILED]
        assert list((await failures_of_run(store, RUN)).calls) == failed[::-1]
        assert not {key(number).hex() for number in range(107, CALLS, 1000)} & {view.key for view in failed}
        (kind,) = await failure_kinds(store, RUN)
        assert (kind.text, kind.count) == ("ValueError: no …", len(failed))
        assert (kind.first, kind.last) == (failed[0].sequence, failed[-1].sequence)
        journal = await store.open_run(request())
        await call(journal, "one more")
        await journal.close(ExecutionStatus.STARTED)
        assert (await calls_of_run(store, RUN, descending=True, n=1)).calls[0].key == key("one more").hex()
        assert (await running_calls(store, RUN)).calls == tuple(table.running(None))
        await store.aclose()

    asyncio.run(main())


def test_one_damaged_row_takes_no_other_call_out_of_a_window(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    async def main() -> None:
        store = SqliteStore(path)
        journal = await store.open_run(request())
        for number in range(3):
            await call(journal, number)
        await journal.close(ExecutionStatus.COMPLETED)
        sql(path, "UPDATE journal SET message = 'x' WHERE place = (1 << 40) + 4")
        found = (await calls_of_run(store, RUN)).calls
        assert [view.key for view in found] == [key(0).hex(), "", key(2).hex()]
        assert found[1].damage is not None
        assert "event 4 of run 'monday', or its outcome, is damaged" in found[1].damage
        with pytest.raises(Exception, match="event 4 of run 'monday', or its outcome, is damaged"):
            await call_of_run(store, RUN, key(1).hex())
        await store.aclose()

    asyncio.run(main())


def test_who_does_not_wait_for_a_window_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "runs.db")
        await write(store)
        for _ in range(3):
            asking = asyncio.create_task(calls_of_run(store, RUN, text="nowhere"))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert (await calls_of_run(store, RUN, text="nowhere")).calls == ()
        await store.aclose()

    asyncio.run(main())
