"""Who executes a run: one owner at a time, and how it is known that there is none any more."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rh_agents.core._loops.sleeping import since_boot
from rh_agents.core.errors import LeaseLost, RunIsLive, StoreError
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores import _owner
from rh_agents.stores._backend.rows import LeaseState
from rh_agents.stores._delivery import Held
from rh_agents.stores._journal import SqlJournal
from rh_agents.stores._owner import Process
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.testing._records import key, listed
from tests.stores.sqlite_kit import RUN, call, change_runs, python, request, sql

STARTED = ExecutionStatus.STARTED

_OWNER = """
import asyncio, sys
from tests.stores.sqlite_kit import *
async def main():
    store = SqliteStore(sys.argv[1])
    journal = await store.open_run(request("the other", lease=float(sys.argv[2])))
    await call(journal, 1)
    print("open", flush=True)
    await asyncio.to_thread(input)
    try:
        await call(journal, 2)
        await journal.close(ExecutionStatus.COMPLETED)
    except Exception as error:
        print(type(error).__name__)
    await store.aclose()
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def execute(path: Path, test: Callable[[SqliteStore], Any], **facts: Any) -> None:
    async def main() -> None:
        store = SqliteStore(path, **facts)
        try:
            await test(store)
        finally:
            await store.aclose()

    asyncio.run(main())


def left_by(path: Path, process: Process, *, lease: float, age: float = 0.0) -> None:
    """Make the run look as if that process executed it and gave its last sign of life so many seconds ago."""
    change_runs(
        path,
        "UPDATE run SET owner = 'the other', process = ?, lease = ?, heartbeat_at = unixepoch('subsec') - ?",
        process.text,
        lease,
        age,
    )


ELSEWHERE = Process("another-machine", "another-boot", "pid:[1]", 4711, "1")


async def _written(store: SqliteStore) -> None:
    journal = await store.open_run(request())
    await call(journal, 1)
    await journal.close(STARTED)


async def _taken_over(store: SqliteStore) -> SqlJournal:
    async with asyncio.timeout(60):
        while True:
            try:
                return await store.open_run(request())
            except RunIsLive:
                await asyncio.sleep(0.05)


# -- processes ---------------------------------------------------------------------------------------------------------


def test_a_process_is_read_as_it_was_written_and_says_who_it_is() -> None:
    here = Process.here()
    assert Process.read(here.text) == here
    assert str(here) == f"process {os.getpid()} on {here.host}"
    assert here.is_here
    assert not here.is_gone
    assert Process.here().opening != here.opening
    for text in ("", "{}", "[]", "4711@host", '{"pid": 1}', "null"):
        assert Process.read(text) is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells when a process started")
def test_a_process_is_gone_only_if_that_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Process.here()
    child = python("input()")
    with child:
        other = dataclasses.replace(here, pid=child.pid, started=_owner._started(child.pid) or "")
        assert (other.is_gone, other.is_here) == (False, False)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert other.is_gone, "it has ended, though its parent has not asked for its status yet"
    assert other.is_gone
    assert dataclasses.replace(here, started="1").is_gone, "the id was given again"
    for elsewhere in (
        dataclasses.replace(other, host="another"),
        dataclasses.replace(other, boot="another"),
        dataclasses.replace(other, namespace="another"),
        dataclasses.replace(other, started=""),
    ):
        assert not elsewhere.is_gone
    monkeypatch.setattr(_owner, "_machine", lambda: (here.host, "", ""))
    assert not dataclasses.replace(other, boot="", namespace="").is_gone, "this system does not tell"


# -- taking over -------------------------------------------------------------------------------------------------------


def test_the_run_of_a_process_that_was_killed_is_taken_over_at_once(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        with python(_OWNER, path, 3600) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "open\n"
            with pytest.raises(RunIsLive, match=rf"executed by the other \(process {owner.pid} on ") as caught:
                await store.open_run(request())
            assert caught.value.owner == "the other"
            owner.kill()
        info = await store.find_run(RUN)
        assert info is not None
        assert (info.owner, info.status) == (None, STARTED), "nobody executes it, and it has not ended"
        async with asyncio.timeout(60):
            journal = await store.open_run(request())
        assert list(journal.recorded.finished) == [key(1)]
        await call(journal, 2)

    execute(path, test)


def test_a_process_that_was_suspended_for_too_long_writes_nothing_more(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        with python(_OWNER, path, 0.3) as owner:
            assert owner.stdout is not None
            owner.stdout.readline()
            os.kill(owner.pid, 19)  # SIGSTOP
            journal = await _taken_over(store)
            await call(journal, "2 of the successor")
            os.kill(owner.pid, 18)  # SIGCONT
            assert owner.communicate("\n", timeout=60) == ("LeaseLost\n", "")
        await call(journal, 3)
        assert list(journal.recorded.finished) == [key(1), key("2 of the successor"), key(3)]
        assert len(await listed(store.events(RUN))) == 6

    execute(path, test)


def test_an_owner_elsewhere_that_gave_a_sign_of_life_just_now_keeps_the_run(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await _written(store)
        left_by(path, ELSEWHERE, lease=3600)
        for refused in (store.open_run(request()), store.supersede(RUN, [key(1)]), store.delete_run(RUN)):
            with pytest.raises(RunIsLive, match=r"the other \(process 4711 on another-machine\)"):
                await refused
        info = await store.find_run(RUN)
        assert info is not None
        assert info.owner == "the other"

    execute(path, test)


def test_an_owner_elsewhere_that_stays_silent_for_its_lease_loses_the_run(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await _written(store)
        left_by(path, ELSEWHERE, lease=0.3, age=10)
        loop = asyncio.get_running_loop()
        began = loop.time()
        journal = await store.open_run(request())
        assert loop.time() - began >= 0.3, "its clock may be wrong: it is watched for a lease by ours"
        await call(journal, 2)

    execute(path, test)


def test_who_asks_again_and_again_has_the_run_of_a_dead_owner_elsewhere_after_one_lease(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await _written(store)
        lease = 2.0
        left_by(path, ELSEWHERE, lease=lease)
        began = asyncio.get_running_loop().time()
        with pytest.raises(RunIsLive):
            await store.open_run(request())
        journal = await _taken_over(store)
        assert lease <= asyncio.get_running_loop().time() - began < 1.8 * lease
        await call(journal, 2)

    execute(path, test)


def test_a_sign_of_life_between_two_who_ask_counts_from_anew(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await _written(store)
        left_by(path, ELSEWHERE, lease=1.0)
        with pytest.raises(RunIsLive):
            await store.open_run(request())
        await asyncio.sleep(1.0)
        change_runs(path, "UPDATE run SET heartbeat = heartbeat + 1, heartbeat_at = unixepoch('subsec')")
        with pytest.raises(RunIsLive):
            await store.open_run(request())

    execute(path, test)


@pytest.mark.parametrize("age", [1e6, -1e6])
def test_an_owner_whose_clock_is_wrong_keeps_the_run_by_its_signs_of_life(path: Path, age: float) -> None:
    async def test(store: SqliteStore) -> None:
        await _written(store)
        left_by(path, ELSEWHERE, lease=30, age=age)
        opening = asyncio.ensure_future(store.open_run(request()))
        while not opening.done():
            sql(path, "UPDATE run SET heartbeat = heartbeat + 1")
            await asyncio.sleep(0.01)
        with pytest.raises(RunIsLive):
            await opening

    execute(path, test)


def test_a_run_that_is_let_go_while_it_is_watched_is_opened_at_once(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await _written(store)
        left_by(path, ELSEWHERE, lease=30, age=100)
        opening = asyncio.ensure_future(store.open_run(request()))
        await asyncio.sleep(0.05)
        change_runs(path, "UPDATE run SET owner = NULL, process = NULL, fence = fence + 1")
        async with asyncio.timeout(20):
            await call(await opening, 2)

    execute(path, test)


def test_of_two_who_watch_one_gets_the_run(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await _written(store)
        left_by(path, ELSEWHERE, lease=0.2, age=100)
        other = SqliteStore(path)
        opened = await asyncio.gather(
            store.open_run(request("a")), other.open_run(request("b")), return_exceptions=True
        )
        assert sorted(type(each).__name__ for each in opened) == ["RunIsLive", "SqlJournal"]
        await other.aclose()

    execute(path, test)


def test_a_journal_that_nobody_has_any_more_does_not_keep_the_run(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request("forgetful", lease=3600))
        await call(journal, 1)
        with pytest.raises(RunIsLive):
            await store.open_run(request())
        del journal
        gc.collect()
        async with asyncio.timeout(20):
            await call(await store.open_run(request()), 2)

    execute(path, test)


# -- signs of life -----------------------------------------------------------------------------------------------------


def test_an_owner_whose_event_loop_is_blocked_still_gives_signs_of_life(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request(lease=0.06))
        (before,) = sql(path, "SELECT heartbeat FROM run")
        is_over = threading.Event()
        for _ in range(400):  # a lease is real time
            is_over.wait(0.01)
            if sql(path, "SELECT heartbeat FROM run")[0][0] > before[0] + 2:
                break
        else:
            pytest.fail("there were no signs of life")
        await call(journal, 1)

    execute(path, test)


def test_who_has_nothing_to_write_learns_that_the_run_was_taken_over(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request(lease=0.1))
        change_runs(path, "UPDATE run SET owner = 'somebody', fence = fence + 1")
        async with asyncio.timeout(20):
            while journal._broken is None:  # noqa: ASYNC110 - a thread finds it out
                await asyncio.sleep(0.01)
        with pytest.raises(LeaseLost, match="taken over by somebody else"):
            await call(journal, 1)
        await journal.close(ExecutionStatus.COMPLETED)
        assert sql(path, "SELECT owner, status FROM run") == [("somebody", "started")]

    execute(path, test)


def test_the_fence_is_checked_in_the_transaction_that_writes(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request())
        other = await store.open_run(request(run_id="tuesday"))
        await call(journal, 1)
        change_runs(path, "UPDATE run SET fence = fence + 1 WHERE run_id = ?", RUN)
        calls = call(journal, 2), call(other, 2)
        given: list[object] = list(await asyncio.gather(*calls, return_exceptions=True))
        assert isinstance(given[0], LeaseLost)
        assert not isinstance(given[1], BaseException), "the other run shares the transaction, and goes on"
        assert sql(path, "SELECT last_sequence, outcomes FROM run ORDER BY number") == [(2, 1), (2, 1)]
        assert sql(path, "SELECT count(*) FROM journal") == [(4,)]
        assert await store.check() == []

    execute(path, test)


def test_who_writes_must_know_the_whole_journal(path: Path) -> None:
    """The same fence is not enough: a sequence is given once."""

    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request())
        await call(journal, 1)
        sql(path, "UPDATE run SET last_sequence = 7")
        with pytest.raises(LeaseLost):
            await call(journal, 2)
        assert sql(path, "SELECT count(*) FROM journal") == [(2,)]

    execute(path, test)


def test_a_run_cannot_be_stopped_by_waiting_for_an_owner_that_is_dead(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        await _written(store)
        left_by(path, ELSEWHERE, lease=1.0, age=100)
        assert not await store.request_stop(RUN, "enough")
        assert sql(path, "SELECT status, owner, reason FROM run") == [("cancelled", None, "enough")]
        left_by(path, ELSEWHERE, lease=3600.0)
        assert await store.request_stop(RUN, "enough")
        assert sql(path, "SELECT stop_requested FROM run") == [("enough",)]

    execute(path, test)


def test_an_owner_that_writes_nothing_is_asked_to_stop_through_the_store_itself_and_through_another_one(
    path: Path,
) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request(lease=3600))  # so that no sign of life brings the news
        told = asyncio.Queue[str]()
        journal.when_stop_requested(told.put_nowait)
        other = SqliteStore(path)
        async with asyncio.timeout(20):
            for asking, reason in ((store, "first"), (other, "second"), (store, "third")):
                assert await asking.request_stop(RUN, reason)
                assert await told.get() == reason == journal.stop_requested
        await other.aclose()

    execute(path, test)


def test_a_failed_sign_of_life_costs_nothing_as_long_as_the_run_is_ours(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(store: SqliteStore) -> None:
        journal = await store.open_run(request(lease=0.1))
        session: Any = store.engine.writer._session

        def failing(*_: Any) -> Any:
            raise StoreError("runs.db: locked")

        session.renew = failing
        async with asyncio.timeout(20):
            while not caplog.records:  # noqa: ASYNC110 - a thread writes it
                await asyncio.sleep(0.01)
        await call(journal, 1)
        assert store.engine.writer._session is not session

    execute(path, test)
    assert "no sign of life could be given" in caplog.text


class AtOnce:
    """Stands for an event loop: what is called on it is called at once, in the thread of the writer."""

    def call_soon_threadsafe(self, function: Callable[..., None], *args: Any) -> None:
        function(*args)

    def is_closed(self) -> bool:
        return False


class Holding:
    """Has a run of which the database knows nothing, so that its first sign of life finds it lost."""

    def __init__(self, lease: float) -> None:
        self.number, self.fence, self.lease = 999, 1, lease
        self.loop: Any = AtOnce()
        self.held: Held | None = None
        self.certain_until: list[float] = []
        self.has_heard = threading.Event()

    def look_at_run(self) -> None:
        """It does nothing."""

    def lease_changed(self, state: LeaseState) -> None:
        if not state.is_ours and self.held is not None:
            self.certain_until.append(self.held.certain_until)
            self.has_heard.set()


def test_a_sign_of_life_that_came_too_late_makes_nothing_certain(path: Path) -> None:
    """Else calls could begin in the moment between the answer of the database and the loop that hears it."""

    async def main(store: SqliteStore) -> None:
        await _written(store)
        holding = Holding(lease=0.0)  # its sign of life is due at once
        holding.held = store.engine.writer.hold(holding, since_boot())
        before = holding.held.certain_until
        assert await asyncio.to_thread(holding.has_heard.wait, 10.0)
        assert holding.certain_until == [before]

    execute(path, main)


def test_the_lease_of_a_run_counts_from_before_it_was_claimed(path: Path) -> None:
    async def main(store: SqliteStore) -> None:
        now = since_boot()
        held = store.engine.writer.hold(Holding(lease=30.0), now - 31.0)  # the process stood still after the claim
        assert held.certain_until == now - 1.0

    execute(path, main)
