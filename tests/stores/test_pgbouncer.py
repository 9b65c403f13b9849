"""Runs in PostgreSQL behind PgBouncer in transaction mode, which gives each transaction another session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from typer.testing import CliRunner

from rh_agents import open_store
from rh_agents.cli.app import app
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunRequest, Store
from rh_agents.core.ports.keeping import limitations_of, using_store
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing import conformance
from rh_agents.testing._records import RUN
from tests.services.pgbouncer import PgBouncer, pgbouncer
from tests.services.postgresql import PostgresqlServer
from tests.stores.test_conformance import OnDisk, opened

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")

from rh_agents.stores._postgresql.connection import StoreConnection
from rh_agents.stores._postgresql.driver import read_url
from rh_agents.stores._postgresql.news import Ear

__all__ = ["pgbouncer"]


@pytest.fixture
def pooled_url(pgbouncer: PgBouncer, postgresql_url: str) -> str:
    """The URL of a store in an empty schema, through the pooler."""
    return pgbouncer.url(schema=postgresql_url.rpartition("=")[2])


class Pooled(OnDisk):
    """What every store does, done through the pooler."""

    def let_it_be(self, session: Any) -> None:
        session._connection.execute("DROP INDEX IF EXISTS outcome_once")

    @pytest.fixture(autouse=True)
    def _place(self, pooled_url: str) -> None:
        self.url = pooled_url

    async def make_store(self) -> Store:
        return opened(self.url)


class TestShort(
    conformance.FencingConformance, conformance.QuestionConformance, conformance.QueueConformance,
):  # fmt: skip
    """A part of the suite that is quick."""

    second_store = Pooled.second_store
    silence = Pooled.silence
    crash = Pooled.crash
    make_store = Pooled.make_store
    _place = Pooled._place


@pytest.mark.slow
class TestAll(Pooled):
    """All of it."""


def connected(url: str) -> StoreConnection:
    return read_url(url)[0].connect()


def test_a_pooler_is_found_out_and_nothing_is_left_in_the_sessions_of_the_server(
    pooled_url: str, postgresql_url: str
) -> None:
    with connected(postgresql_url) as connection:
        assert not connection.is_shared
    with connected(pooled_url) as connection:
        assert connection.is_shared
        for _ in range(10):
            show = "SELECT current_setting('search_path'), current_setting('enable_seqscan'), pg_backend_pid()"
            assert connection.execute(show).fetchall()[0][:2] == (f'"{postgresql_url.rpartition("=")[2]}"', "off")
            with connection.transaction():
                assert connection.execute("SHOW enable_seqscan").fetchone() == ("off",)
    plain = StoreConnection.connect(**read_url(pooled_url)[0].parameters, autocommit=True)
    plain.prepare_threshold = None
    with plain:
        settings = {plain.execute("SHOW enable_seqscan").fetchall()[0] for _ in range(10)}
        assert settings == {("on",)}
        statements = {plain.execute("SELECT count(*) FROM pg_prepared_statements").fetchall()[0] for _ in range(10)}
        assert statements == {(0,)}
        channels = {plain.execute("SELECT count(*) FROM pg_listening_channels()").fetchall()[0] for _ in range(10)}
        assert channels == {(0,)}


def test_a_commit_through_a_pooler_is_waited_for_whatever_the_default_is(
    pooled_url: str, postgresql_server: PostgresqlServer
) -> None:
    postgresql_server.set("synchronous_commit", "off")
    try:
        with connected(pooled_url) as connection:
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
            with connection.transaction():
                assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    finally:
        postgresql_server.set("synchronous_commit", "on")


def test_a_statement_that_fails_leaves_the_connection_as_it_was(pooled_url: str) -> None:
    import psycopg  # noqa: PLC0415 - it is optional

    with connected(pooled_url) as connection:
        for _ in range(3):
            with pytest.raises(psycopg.errors.UndefinedTable, match="nothing_of_this_name"):
                connection.execute("SELECT * FROM nothing_of_this_name WHERE %(number)s = 1", {"number": 1})
            assert connection.execute("SELECT %(number)s", {"number": 7}).fetchone() == (7,)


def test_the_url_may_say_what_the_pooler_does(pooled_url: str, postgresql_url: str) -> None:
    with connected(postgresql_url + "&pool_mode=transaction") as connection:
        assert connection.is_shared
        assert connection.execute("SHOW enable_seqscan").fetchone() == ("off",)
    with connected(pooled_url + "&pool_mode=session") as connection:
        assert not connection.is_shared
        connection.execute("DISCARD ALL")
    with pytest.raises(StoreError, match="pool_mode=often in the URL of the store: it is session or transaction"):
        read_url(postgresql_url + "&pool_mode=often")


def test_where_nothing_can_be_heard_there_may_be_news_twice_a_second(pooled_url: str) -> None:
    now = 100.0
    with connected(pooled_url) as connection:
        ear = Ear(connection, read_url(pooled_url)[0], "changes", lambda: now)
        assert ear.is_deaf
        assert [ear.has_heard(), ear.has_heard()] == [True, False]
        now = 100.4
        assert not ear.has_heard()
        now = 100.5
        assert [ear.has_heard(), ear.has_heard()] == [True, False]


def test_a_pooler_is_told_of_at_opening_and_by_check(
    pooled_url: str, postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def limitations(url: str) -> Sequence[str]:
        async with using_store(url) as store:
            return await limitations_of(store)

    assert asyncio.run(limitations(postgresql_url)) == []
    with caplog.at_level(logging.INFO, "rh_agents"):
        (line,) = asyncio.run(limitations(pooled_url))
    assert line in caplog.text
    assert "news of other processes is asked for twice a second" in line
    assert line.endswith("add pool_mode=session to the URL")
    asyncio.run(recorded(pooled_url))
    done = CliRunner().invoke(app, ["check", "--store", pooled_url])
    assert "a pooler gives each transaction" in done.output
    assert "1 run, no damage found" in done.output


async def recorded(url: str) -> None:
    async with using_store(url) as store:
        journal = await store.open_run(RunRequest(RUN, "me"))
        await journal.close(ExecutionStatus.COMPLETED)


def test_a_server_that_only_follows_another_one_can_be_looked_at(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    async def look() -> tuple[Sequence[str], list[str]]:
        store = open_store(postgresql_url, read_only=True)
        try:
            await asyncio.to_thread(postgresql_server.follow)
            events = [event.event.address async for event in store.events(RUN, follow=True)]
            return await limitations_of(store), events
        finally:
            await store.aclose()

    asyncio.run(recorded(postgresql_url))
    try:
        lines, events = asyncio.run(look())
    finally:
        postgresql_server.lead()
    assert events == []
    assert "the server only follows another one" in lines[0]
