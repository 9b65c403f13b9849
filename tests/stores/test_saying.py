"""What a run is doing now, on its way to the disk: only what is new is written, and only by who holds the run."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from pathlib import Path

import apsw
import pytest

from rh_agents import ExecutionState, ExecutionStatus, open_store, parallel, tool
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunRequest
from rh_agents.core.ports.present import Present, present_of_run
from rh_agents.stores._backend.beside import PresentRow
from rh_agents.stores._saying import Saying
from rh_agents.stores._store import SqlStore
from rh_agents.stores._under_way import Noting
from rh_agents.testing.conformance.suite import until


def test_what_has_not_changed_is_said_again_only_now_and_then() -> None:
    said: deque[PresentRow] = deque()
    calls = {b"a": (3, 4)}
    saying, now = Saying(7, 3, said, Noting(lambda: calls)), [Present(100.0, in_flight=1)]
    saying.look(9, 9)
    assert not said, "nobody knows yet"
    saying.begin(lambda: now[0])
    for at, in_flight in [(100.0, 1), (101.0, 1), (102.0, 2), (106.9, 2), (107.0, 2), (108.0, 2), (90.0, 2)]:
        now[0] = Present(at, in_flight=in_flight)
        saying.look(9, 9)
    assert [row.at for row in said] == [100.0, 102.0, 107.0, 90.0], "clocks may be set back"
    assert {(row.number, row.fence) for row in said} == {(7, 3)}
    under_way = {"until": 9, "count": 1, "calls": [[3, 4]]}
    assert json.loads(said[0].facts) == {"at": 100.0, "in_flight": 1, "fence": 3, "under_way": under_way}
    saying.end()
    now[0] = Present(200.0)
    saying.look(9, 9)
    assert len(said) == 4


def test_who_does_not_hold_a_run_any_more_says_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        store = open_store(tmp_path / "runs.db")
        assert isinstance(store, SqlStore)
        journal = await store.open_run(RunRequest("r", "somebody"))
        for fence, at in [(journal.fence, 1.0), (journal.fence - 1, 2.0)]:
            facts = json.dumps({"fence": fence, "at": at})
            await store.engine.writer.done(
                lambda session, fence=fence, at=at, facts=facts: session.say(  # type: ignore[misc]
                    [PresentRow(journal.number, fence, at, facts)]
                )
            )
        present = await present_of_run(store, "r")
        assert present == Present(1.0)
        await journal.close(ExecutionStatus.COMPLETED)
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "change", ["at = at + 1", "facts = replace(facts, 'in_flight', 'in_fright')", "facts = '{'", "checksum = 1"]
)
def test_what_is_damaged_is_not_believed(tmp_path: Path, change: str) -> None:
    async def main() -> None:
        path = tmp_path / "runs.db"
        store = open_store(path)
        assert isinstance(store, SqlStore)
        journal = await store.open_run(RunRequest("r", "somebody"))
        facts = json.dumps({"fence": journal.fence, "at": 1.0, "in_flight": 2})
        row = PresentRow(journal.number, journal.fence, 1.0, facts)
        await store.engine.writer.done(lambda session: session.say([row]))
        apsw.Connection(str(path)).execute(f"UPDATE present SET {change}")
        with pytest.raises(StoreError, match="what run 'r' was last doing is damaged"):
            await present_of_run(store, "r")
        assert await store.find_run("r") is not None
        assert any("was last doing is damaged" in line for line in await store.check())
        await journal.close(ExecutionStatus.COMPLETED)
        await store.aclose()

    asyncio.run(main())


def test_a_run_in_a_file_is_seen_at_work_by_another_process(tmp_path: Path) -> None:
    url = str(tmp_path / "runs.db")
    done = asyncio.Event()

    @tool
    async def work(number: int) -> int:
        await done.wait()
        return number

    async def main() -> Present:
        looking = open_store(url, read_only=False)

        async def at_work() -> Present | None:
            found = await present_of_run(looking, "r")
            return found if found is not None and found.in_flight else None

        async with ExecutionState(store=url, run_id="r", lease=0.3), parallel(2, name="pages") as p:
            p.map(work, range(5))
            present = await until(at_work)
            done.set()
            await p.gather()
        await looking.aclose()
        return present

    present = asyncio.run(main())
    assert present.in_flight == 2
    assert [each.address for each in present.running] == ["pages[0]::work", "pages[1]::work"]
    assert [(group.in_use, group.slots, group.total) for group in present.groups] == [(2, 2, 5)]
