"""What becomes of runs in PostgreSQL when the server, the wire to it or the disk below it fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from rh_agents.core.errors import LeaseLost, RunIsLive, StoreError
from rh_agents.core.ports import Journal, RunRequest, Store
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing._records import completed, fact, key, outcome
from tests.services.lossy_proxy import LossyProxy
from tests.services.postgresql import LOCKED, PASSWORD, PostgresqlServer

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")

from rh_agents.stores.postgresql import PostgresqlStore

RUN = "monday"
T = TypeVar("T")


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await main()

    return asyncio.run(bounded())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresqlStore]:
    store = PostgresqlStore(url)
    try:
        yield store
    finally:
        await store.aclose()


async def record(journal: Journal, number: int) -> None:
    result = outcome(number, f"value {number}")
    await journal.append(completed(RUN, result), result)


@asynccontextmanager
async def behind_a_proxy(url: str, server: PostgresqlServer) -> AsyncIterator[tuple[LossyProxy, Store, Journal]]:
    """A store whose wire to the server is ours, and a run with its first outcome. It comes to its end, and is sound."""
    with LossyProxy(server.port) as proxy:
        async with opened(url.replace(f":{server.port}/", f":{proxy.port}/")) as store:
            journal = await store.open_run(RunRequest(RUN, "me"))
            await record(journal, 1)
            yield proxy, store, journal
            await record(journal, 3)
            await journal.close(ExecutionStatus.COMPLETED)
            assert await store.check() == []


async def recorded_values(store: Store) -> dict[bytes, Any]:
    return {each.key: each.value async for each in store.outcomes(RUN)}


FAILURES: dict[str, Callable[[PostgresqlServer], object]] = {
    "crash of the server": lambda server: server.restart("immediate"),
    "shutdown of the server": lambda server: server.restart("fast"),
    "end of the session": lambda server: server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'rh_agents' AND query LIKE '%moved AS%'"
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_run_goes_on_after_a_short_failure_of_the_server_and_nothing_is_lost_or_there_twice(
    failure: str, postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    """Eight tasks record while the server fails; what was under way then is found out, or sent again."""

    async def main() -> None:
        acknowledged: set[int] = set()

        async def keep_recording(number: int) -> None:
            while not is_enough:
                await record(journal, number)
                acknowledged.add(number)
                number += 100

        is_enough = False
        async with opened(postgresql_url) as store:
            journal = await store.open_run(RunRequest(RUN, "me"))
            async with asyncio.TaskGroup() as tasks:
                for first in range(8):
                    tasks.create_task(keep_recording(first))
                while len(acknowledged) < 40:  # noqa: ASYNC110 - an event would have to be set by eight
                    await asyncio.sleep(0.001)
                await asyncio.to_thread(FAILURES[failure], postgresql_server)
                before = len(acknowledged)
                while len(acknowledged) < before + 40:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.001)
                is_enough = True
            await journal.close(ExecutionStatus.COMPLETED)
            found = await recorded_values(store)
            assert found == {key(number): f"value {number}" for number in acknowledged}
            assert await store.check() == []

    run(main)


def test_an_outcome_whose_commit_was_not_answered_is_found_and_not_sent_again(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    """The server commits, the wire is cut before it says so: the row of the run says what nobody heard."""

    async def main() -> None:
        async with behind_a_proxy(postgresql_url, postgresql_server) as (proxy, store, journal):
            proxy.lose_answer_to(b"value 2")
            await record(journal, 2)
            assert proxy.answer_lost.is_set()
            assert list(await recorded_values(store)) == [key(1), key(2)]

    run(main)


def test_a_run_goes_on_when_another_server_answers_at_the_same_address(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    """A failover: the server crashes, the data come up at another port, and what stands before both leads there."""

    async def main() -> None:
        async with behind_a_proxy(postgresql_url, postgresql_server) as (proxy, store, journal):
            first = postgresql_server.port
            try:
                await asyncio.to_thread(postgresql_server.move)
                proxy.lead_to(postgresql_server.port)
                await record(journal, 2)
                assert list(await recorded_values(store)) == [key(1), key(2)]
            finally:
                await asyncio.to_thread(postgresql_server.move, first)
                proxy.lead_to(first)

    run(main)


def test_a_run_stops_with_a_clear_error_when_the_server_is_away_for_longer_than_its_lease(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    async def main() -> None:
        async with opened(postgresql_url) as store:
            journal = await store.open_run(RunRequest(RUN, "me", lease=1.0))
            await record(journal, 1)
            await asyncio.to_thread(postgresql_server.stop, "immediate")
            try:
                with pytest.raises(StoreError, match=postgresql_server.url().split("?")[0]):
                    await record(journal, 2)
            finally:
                await asyncio.to_thread(postgresql_server.start)
            with pytest.raises(StoreError):
                await record(journal, 3)
        async with opened(postgresql_url) as store:
            journal = await store.open_run(RunRequest(RUN, "successor"))
            assert list(journal.recorded.finished) == [key(1)]
            await journal.close(ExecutionStatus.COMPLETED)

    run(main)


def test_a_run_that_was_taken_over_during_a_failure_is_not_written_to(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    schema = postgresql_url.rpartition("=")[2]

    async def main() -> None:
        with LossyProxy(postgresql_server.port) as proxy:
            wire = postgresql_url.replace(f":{postgresql_server.port}/", f":{proxy.port}/")
            async with opened(wire) as store:
                journal = await store.open_run(RunRequest(RUN, "me"))
                await record(journal, 1)
                proxy.lead_to(1)  # where nobody listens
                proxy.cut()
                recording = asyncio.ensure_future(record(journal, 2))
                await asyncio.sleep(0)
                postgresql_server.execute(f"UPDATE {schema}.run SET fence = fence + 1")
                proxy.lead_to(postgresql_server.port)
                with pytest.raises(LeaseLost):
                    await recording
        assert postgresql_server.execute(f"SELECT count(*) FROM {schema}.journal") == [(1,)]

    run(main)


def test_who_follows_a_run_does_not_notice_that_the_server_was_started_anew(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    async def main() -> None:
        async with opened(postgresql_url) as writer, opened(postgresql_url) as reader:
            journal = await writer.open_run(RunRequest(RUN, "me"))
            await record(journal, 1)
            seen: list[Any] = []

            async def follow() -> None:
                async for each in reader.events(RUN, follow=True):
                    seen.append(each.event.result)  # noqa: PERF401 - the test looks while it grows

            following = asyncio.ensure_future(follow())
            while not seen:  # noqa: ASYNC110 - another task
                await asyncio.sleep(0.01)
            await asyncio.to_thread(postgresql_server.restart, "fast")
            await record(journal, 2)
            await journal.close(ExecutionStatus.COMPLETED)
            await following
            assert seen == ["value 1", "value 2"]

    run(main)


def test_a_session_that_dies_between_two_calls_is_replaced_without_a_word(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    """Nothing was under way, so nothing is unknown; the lease is still ours."""

    async def main() -> None:
        async with opened(postgresql_url) as store:
            journal = await store.open_run(RunRequest(RUN, "me", lease=0.3))
            await record(journal, 1)
            await asyncio.to_thread(postgresql_server.restart, "fast")
            before = await heartbeat()
            # Until the sign of life has found that out, and connected anew.
            while await heartbeat() == before:  # noqa: ASYNC110 - a server sets no event here
                await asyncio.sleep(0.01)
            await record(journal, 2)
            assert list(await recorded_values(store)) == [key(1), key(2)]

    async def heartbeat() -> Any:
        schema = postgresql_url.rpartition("=")[2]
        return await asyncio.to_thread(postgresql_server.execute, f"SELECT heartbeat FROM {schema}.run")

    run(main)


def test_of_stores_that_open_one_run_at_the_same_moment_one_gets_it(postgresql_url: str) -> None:
    async def main() -> None:
        stores = [PostgresqlStore(postgresql_url) for _ in range(4)]
        for number in range(10):
            request = RunRequest(f"run {number}", "me")
            results = await asyncio.gather(*(store.open_run(request) for store in stores), return_exceptions=True)
            journals = [result for result in results if not isinstance(result, BaseException)]
            assert len(journals) == 1
            assert all(isinstance(result, RunIsLive) for result in results if isinstance(result, BaseException))
            await journals[0].close(ExecutionStatus.COMPLETED)
        for store in stores:
            await store.aclose()

    run(main)


def test_a_follower_in_another_process_sees_what_is_recorded_as_it_is_recorded(postgresql_url: str) -> None:
    async def main() -> None:
        async with opened(postgresql_url) as writer, opened(postgresql_url) as reader:
            journal = await writer.open_run(RunRequest(RUN, "me"))
            seen: list[Any] = []
            news = asyncio.Event()

            async def follow() -> None:
                async for each in reader.events(RUN, follow=True):
                    seen.append(each.event.result)
                    news.set()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(follow())
                for number in range(3):
                    await record(journal, number)
                    while len(seen) <= number:
                        news.clear()
                        await news.wait()
                await journal.close(ExecutionStatus.COMPLETED)
            assert seen == ["value 0", "value 1", "value 2"]

    run(main)


@pytest.fixture
def small_disk(postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tablespace on a disk of a few megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = postgresql_server.folder / "small"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True)
    if mount.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted: {mount.stderr.decode().strip()}")
    try:
        shutil.chown(place, "postgres", "postgres")
        postgresql_server.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
        yield "small"
        postgresql_server.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_a_clear_error_and_what_was_acknowledged_is_there(
    small_disk: str, postgresql_server: PostgresqlServer
) -> None:
    url = postgresql_server.url(schema="full", options=f"-c%20default_tablespace%3D{small_disk}")

    async def main() -> None:
        acknowledged = []
        async with opened(url) as store:
            journal = await store.open_run(RunRequest(RUN, "me"))
            with pytest.raises(StoreError, match="No space left on device"):
                for number in range(1000):
                    result = outcome(number, os.urandom(10_000))
                    await journal.append(completed(RUN, result), result)
                    acknowledged.append(result.key)
            with pytest.raises(StoreError, match="No space left on device"):
                await journal.append(fact(RUN, ExecutionStatus.STARTED, outcome(2000)))
        async with opened(url) as store:
            assert list(await recorded_values(store)) == acknowledged
            assert len(acknowledged) > 10

    try:
        run(main)
    finally:
        postgresql_server.execute('DROP SCHEMA "full" CASCADE')


def test_a_statement_that_the_server_gives_up_is_a_clear_error(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    import psycopg  # noqa: PLC0415 - it is optional

    schema = postgresql_url.rpartition("=")[2]

    async def main() -> None:
        async with opened(postgresql_url + "&options=-c%20lock_timeout%3D50ms") as store:
            journal = await store.open_run(RunRequest(RUN, "me"))
            with psycopg.connect(postgresql_server.url()) as other:
                other.execute(f"SELECT FROM {schema}.run FOR UPDATE".encode())
                with pytest.raises(StoreError, match="canceling statement due to lock timeout"):
                    await record(journal, 1)

    run(main)


def test_the_password_is_neither_in_errors_nor_in_what_the_store_shows(postgresql_server: PostgresqlServer) -> None:
    async def error_of(store: Store, work: Callable[[], Awaitable[object]]) -> str:
        with pytest.raises(StoreError) as caught:
            await work()
        return "".join(map(repr, (store, caught.value, caught.value.__cause__, caught.value.__context__)))

    async def main() -> None:
        right = postgresql_server.url(user=LOCKED, password=PASSWORD)
        for url in (right, right.replace(PASSWORD, PASSWORD + "x"), right.replace("/tests", "/nowhere")):
            async with opened(url) as store:  # the role may connect, but not make a schema
                assert PASSWORD not in await error_of(store, lambda: store.open_run(RunRequest(RUN, "me")))
                assert PASSWORD not in await error_of(store, store.runs)

    run(main)


def test_a_missing_package_names_the_extra() -> None:
    code = """
import sys
for package in ("psycopg_pool", "psycopg"):
    sys.modules[package] = None
    try:
        import rh_agents.stores.postgresql
    except ModuleNotFoundError as error:
        print(error)
    del sys.modules[package]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "runs in PostgreSQL need psycopg_pool: pip install 'rh_agents[postgresql]'",
        "runs in PostgreSQL need psycopg: pip install 'rh_agents[postgresql]'",
    ]
