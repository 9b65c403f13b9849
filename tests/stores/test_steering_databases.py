"""Items of a run in a database are cancelled and made again by another store object, and later starts know of it."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rh_agents import EventType, ExecutionState, open_store, tool
from rh_agents.core.errors import ControlRefused, RunStopped
from rh_agents.stores._checksums import request_checksum
from rh_agents.stores.sqlite import SqliteStore
from tests.stores.sqlite_kit import sql

RUN = "monday"


def test_items_are_cancelled_and_made_again_by_another_process_that_has_the_file_open(tmp_path: Path) -> None:
    steer_items(str(tmp_path / "runs.db"))


def test_items_are_cancelled_and_made_again_from_another_machine(postgresql_url: str) -> None:
    steer_items(postgresql_url)


def steer_items(place: str) -> None:
    calls: list[str] = []
    down = {"bad"}
    runs = asyncio.Event()

    @tool
    async def fetch(name: str) -> str:
        calls.append(name)
        if name in down:
            raise ConnectionError(name)
        if name == "slow" and down:
            runs.set()
            await asyncio.sleep(60)
        return name

    async def execute() -> list[Any]:
        state = ExecutionState(store=place, run_id=RUN, retry_failed=False)
        async with state, state.parallel(max_workers=2, name="pages") as pages:
            pages.map(fetch, ["bad", "slow", "last"], name=str)
            return [result.result if result.ok else str(result.error) for result in await pages.gather()]

    async def main() -> None:
        other = open_store(place)
        task = asyncio.create_task(execute())
        await runs.wait()
        control = other.control(RUN)  # type: ignore[attr-defined]
        assert (await control.cancel(["slow"], author="ann")).text.startswith("1 cancelled now")
        assert await task == ["bad", "slow was cancelled by ann", "last"]
        assert sorted(calls) == ["bad", "last", "slow"]
        calls.clear()
        assert await execute() == ["bad", "slow was cancelled by ann", "last"]
        assert calls == []
        assert (await control.requeue(failed=True)).calls == 1
        assert (await control.requeue(["slow"])).calls == 1
        down.clear()
        assert await execute() == ["bad", "slow", "last"]
        assert sorted(calls) == ["bad", "slow"], "what has succeeded is not made again"
        calls.clear()
        assert await execute() == ["bad", "slow", "last"]
        assert calls == []
        with pytest.raises(ControlRefused, match="no call of run 'monday' has failed"):
            await control.requeue(failed=True)
        await other.aclose()

    asyncio.run(main())


def test_a_stream_gives_a_further_result_that_another_process_asks_for(tmp_path: Path) -> None:
    requeue_live(str(tmp_path / "runs.db"))


def test_a_stream_gives_a_further_result_that_another_machine_asks_for(postgresql_url: str) -> None:
    requeue_live(postgresql_url)


def requeue_live(place: str) -> None:
    calls: list[str] = []
    down, given = {"bad"}, asyncio.Event()

    @tool
    async def fetch(name: str) -> str:
        calls.append(name)
        if name in down:
            raise ConnectionError(name)
        if name == "last":
            await given.wait()
        return name

    async def execute(ask: Any) -> list[tuple[str, bool, bool]]:
        found = []
        async with (
            ExecutionState(store=place, run_id=RUN) as state,
            state.parallel(name="pages", requeue=True) as pages,
        ):
            pages.map(fetch, ["bad", "last"], name=str)
            async for result in pages.stream():
                found.append((result.name, result.ok, result.requeued))
                if len(found) == 1:
                    await ask()
        return found

    async def main() -> None:
        other = open_store(place)

        async def ask() -> None:
            down.clear()
            control = other.control(RUN)  # type: ignore[attr-defined]
            answer = await control.requeue(["bad"], author="ann")
            assert (answer.is_applied, answer.now, answer.later) == (True, 1, 0)
            given.set()

        async def nothing() -> None: ...

        first = await execute(ask)
        assert first[0] == ("bad", False, False)
        assert sorted(first[1:]) == [("bad", True, True), ("last", True, False)]
        assert sorted(calls) == ["bad", "bad", "last"]
        calls.clear()
        assert sorted(await execute(nothing)) == [("bad", True, False), ("last", True, False)], "the newest, once"
        assert calls == []
        await other.aclose()

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("verb", ["pause", "dance"], ids=["damaged", "of a newer version"])
def test_a_request_that_cannot_be_read_keeps_no_run_from_going_on_and_no_other_request_from_being_applied(
    verb: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.db"

    @tool
    async def fetch(name: str) -> str:
        return name

    async def main() -> None:
        store = SqliteStore(path)
        with pytest.raises(RunStopped):
            async with ExecutionState(store=store, run_id=RUN) as state:
                await fetch("a")
                state.request_interrupt("enough")
                await fetch("b")
        control = store.control(RUN)
        first = (await control.set({"retry": 5}, author="ann")).request
        assert first is not None
        await control.set({"retry": 3}, author="ben")
        asked = (first.id, verb, json.dumps(dict(first.arguments)), "ann", first.reason, first.asked_at)
        checksum = 7 if verb == "pause" else request_checksum(*asked)
        sql(path, "UPDATE control SET verb = ?, checksum = ? WHERE id = ?", verb, checksum, first.id)
        async with ExecutionState(store=store, run_id=RUN) as state:
            assert await fetch("b") == "b"
            applied = [e.event.control async for e in store.events(RUN) if e.event.event_type is EventType.CONTROL]
        assert [each["author"] for each in applied if each is not None] == ["ben"]
        await store.aclose()

    with caplog.at_level(logging.WARNING, "rh_agents.stores"):
        asyncio.run(main())
    reason = "is damaged" if verb == "pause" else "wants 'dance': this version of rh_agents does not know what that is"
    assert reason in caplog.text
    assert "It is left open, and nothing is done for it" in caplog.text
