"""What the PostgreSQL backend promises beyond what every store does: its schema, its plans, and what is lost when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rh_agents.core.errors import StoreError
from tests.services.postgresql import PostgresqlServer

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")

from rh_agents.core.ports import Question
from rh_agents.stores._backend.rows import Batch, Edit, EventRow, LeaseState, OutcomeRow, RunRow, RunsWanted
from rh_agents.stores._backend.windows import CallsWanted
from rh_agents.stores._copying import copied
from rh_agents.stores._postgresql.backend import PostgresqlBackend
from rh_agents.stores._postgresql.finding import sorting
from rh_agents.stores._postgresql.reading import PostgresqlReadSession
from rh_agents.stores._postgresql.writing import PostgresqlWriteSession
from rh_agents.stores._sql import Migration, read_migrations, read_queries
from rh_agents.stores._verified import OutcomePlaces, VerifiedSession, with_outcomes

KEYS = [bytes([number]) * 32 for number in range(256)]


def event(sequence: int, status: str, key: bytes | None = None, ok: bool | None = None, **more: Any) -> EventRow:
    facts: dict[str, Any] = {
        "sequence": sequence,
        "timestamp": 1.0,
        "status": status,
        "event_type": "tool_call",
        "name": "fetch",
        "address": "fetch",
        "key": key,
        "group_id": None,
        "parallel_index": None,
        "group_total": None,
        "attempt": 1,
        "seconds": None,
        "message": None,
        "ok": ok,
        "more": None,
    }
    return EventRow(**{**facts, **more})


def outcome(sequence: int, key: bytes, **more: Any) -> OutcomeRow:
    facts: dict[str, Any] = {
        "sequence": sequence,
        "key": key,
        "ok": True,
        "base": None,
        "parent": b"p" * 32,
        "epoch": 0,
        "tries": 0,
        "parent_attempt": 0,
        "value": b"1",
        "artifact": None,
        "more": None,
    }
    return OutcomeRow(**{**facts, **more})


def finished(number: int, before: int, *keys: bytes) -> Batch:
    """A batch in which calls end."""
    events = [event(place, "completed", key, True) for place, key in enumerate(keys, before + 1)]
    return Batch(number, 1, before, events, [outcome(row.sequence, row.key or b"") for row in events])


class Opened:
    """A backend with one run that is held with fence 1."""

    def __init__(self, url: str) -> None:
        self.backend = PostgresqlBackend(url)
        self.writing: PostgresqlWriteSession = self.backend.writing()
        self.reading = VerifiedSession(self.backend.reading(), self.backend.name)
        self.number = self.new_run("monday")

    def new_run(self, run_id: str) -> int:
        made = self.writing.create(RunRow(0, run_id, "started", owner="a test", fence=1))
        assert made is not None
        return made.number

    def close(self) -> None:
        self.reading.close()
        self.writing.close()
        self.backend.close()


def wait_for_news(reading: VerifiedSession | PostgresqlReadSession) -> bool:
    """True as soon as the reader hears of a change: the server sends the news after the change can be seen."""
    end = time.monotonic() + 5
    while not reading.has_changed():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


@pytest.fixture
def opened(postgresql_url: str) -> Iterator[Opened]:
    made = Opened(postgresql_url)
    yield made
    made.close()


# --- the schema ------------------------------------------------------------------------------------------------------


def test_of_eight_that_open_a_fresh_database_at_once_each_finds_the_schema(
    postgresql_url: str, postgresql_server: PostgresqlServer
) -> None:
    start = threading.Barrier(8)

    def open_it(number: int) -> None:
        backend = PostgresqlBackend(postgresql_url)
        start.wait()
        writing = backend.writing()
        assert writing.create(RunRow(0, f"run {number}", "started")) is not None
        writing.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(open_it, range(8)))
    schema = postgresql_url.rpartition("=")[2]
    known = [(each.number, each.file) for each in read_migrations("postgresql")]
    assert postgresql_server.execute(f"SELECT version, file FROM {schema}.schema_version ORDER BY 1") == known
    assert postgresql_server.execute(f"SELECT count(*) FROM {schema}.run") == [(8,)]


def test_a_newer_schema_is_refused_by_name(postgresql_url: str, postgresql_server: PostgresqlServer) -> None:
    PostgresqlBackend(postgresql_url).writing().close()
    schema = postgresql_url.rpartition("=")[2]
    later = read_migrations("postgresql")[-1].number + 1
    postgresql_server.execute(f"INSERT INTO {schema}.schema_version VALUES ({later}, 'later')")
    with pytest.raises(
        StoreError, match=rf"schema '{schema}' was made by a newer version .*: schema {later}, this one knows \d"
    ):
        PostgresqlBackend(postgresql_url).writing()


def test_a_migration_that_fails_leaves_nothing_and_can_be_made_again(
    postgresql_url: str, postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = read_migrations("postgresql")
    wrong = Migration(right[-1].number + 1, "wrong.sql", "CREATE TABLE half (); SELECT 1 / 0")
    monkeypatch.setattr("rh_agents.stores._postgresql.schema.read_migrations", lambda _: (*right, wrong))
    with pytest.raises(StoreError, match="schema could not be brought up to date: division by zero"):
        PostgresqlBackend(postgresql_url).writing()
    monkeypatch.undo()
    PostgresqlBackend(postgresql_url).writing().close()
    schema = postgresql_url.rpartition("=")[2]
    assert postgresql_server.execute("SELECT to_regclass(%s)", (f"{schema}.half",)) == [(None,)]


def test_a_schema_may_have_any_name(postgresql_server: PostgresqlServer) -> None:
    name = 'runs of "Ops"; DROP TABLE run'
    made = Opened(postgresql_server.url(schema=name.replace(" ", "%20").replace('"', "%22").replace(";", "%3B")))
    try:
        assert made.reading.find_run("monday") is not None
        tables = "SELECT FROM information_schema.tables WHERE table_schema = %s"
        assert postgresql_server.execute(tables, (name,))
    finally:
        made.close()
        postgresql_server.execute('DROP SCHEMA "runs of ""Ops""; DROP TABLE run" CASCADE')


def test_two_schemas_of_one_database_know_nothing_of_each_other(
    opened: Opened, postgresql_server: PostgresqlServer
) -> None:
    other = Opened(postgresql_server.url(schema="another"))
    try:
        assert other.reading.has_changed()
        assert other.writing.look([(other.number, 1)]) == [LeaseState(True, None, "[]")]
        assert opened.reading.has_changed()
        opened.writing.request_stop(opened.number, "for a test")
        assert wait_for_news(opened.reading)
        time.sleep(0.05)  # what is wrongly told there as well may come a little later
        assert not other.reading.has_changed()
        assert other.writing.look([(other.number, 1)]) is None
    finally:
        other.close()
        postgresql_server.execute("DROP SCHEMA another CASCADE")


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_batch_of_a_run_that_is_not_ours_any_more_is_left_out_and_the_others_are_written(opened: Opened) -> None:
    other = opened.new_run("tuesday")
    lost = finished(other, 0, KEYS[1])
    lost.fence = 0
    states = opened.writing.write([lost, finished(opened.number, 0, KEYS[1])], 1.0)
    assert [state.is_ours for state in states] == [False, True]
    assert len(opened.reading.calls(opened.number, "monday", 0, 10)) == 1
    assert opened.reading.calls(other, "tuesday", 0, 10) == []
    assert opened.reading.inner.findings() == []


def test_nothing_is_written_at_another_place_than_the_next(opened: Opened) -> None:
    opened.writing.write([finished(opened.number, 0, KEYS[1])], 1.0)
    for before in (0, 2):
        assert not opened.writing.write([finished(opened.number, before, KEYS[2])], 1.0)[0].is_ours
    assert len(opened.reading.calls(opened.number, "monday", 0, 10)) == 1


def test_whoever_lost_a_run_gives_no_sign_of_life_for_it(opened: Opened) -> None:
    assert opened.writing.renew([(opened.number, 0)], 5.0) == [LeaseState(False, None)]
    before = opened.reading.find_run("monday")
    assert before is not None
    assert (before.heartbeat, before.heartbeat_at) == (0, 0.0)
    assert opened.writing.renew([(opened.number, 1)], 5.0) == [LeaseState(True, None, "[]")]
    after = opened.reading.find_run("monday")
    assert after is not None
    assert (after.heartbeat, after.heartbeat_at) == (1, 5.0)
    assert not opened.writing.replace(before, before), "somebody gave a sign of life meanwhile"


def test_of_two_outcomes_for_one_key_the_second_is_refused_by_the_database(opened: Opened) -> None:
    opened.writing.write([finished(opened.number, 0, KEYS[1])], 1.0)
    with pytest.raises(StoreError, match="outcome_once"):
        opened.writing.write([finished(opened.number, 1, KEYS[2], KEYS[1])], 1.0)
    assert len(opened.reading.calls(opened.number, "monday", 0, 10)) == 1
    assert opened.reading.inner.findings() == []


def test_damage_is_found_and_told_with_the_name_of_its_run(opened: Opened, postgresql_server: PostgresqlServer) -> None:
    opened.writing.write([finished(opened.number, 0, *KEYS[:5])], 1.0)
    schema = opened.backend.database.schema
    postgresql_server.execute(f"DROP INDEX {schema}.outcome_once")
    postgresql_server.execute(f"DELETE FROM {schema}.journal WHERE sequence = 2")
    postgresql_server.execute(f"UPDATE {schema}.journal SET parent = NULL WHERE sequence = 3")
    postgresql_server.execute(f"UPDATE {schema}.journal SET ok = NULL, value = NULL WHERE sequence = 4")
    postgresql_server.execute(f"UPDATE {schema}.journal SET key = %s WHERE sequence = 5", (KEYS[0],))
    opened.writing.write([finished(opened.new_run("tuesday"), 0, KEYS[1])], 1.0)
    postgresql_server.execute(f"DELETE FROM {schema}.run WHERE run_id = 'tuesday'")
    assert opened.reading.inner.findings() == [
        "run 'monday' should have events 1 to 5, and has 4, the last of them 5",
        "run 'monday' should have 5 outcomes, and has 3",
        "the outcome of event 3 of run 'monday' has no call, or not one value",
        "the outcome of event 4 of run 'monday' is there, though its event reports none",
        f"1 events belong to run number {opened.number + 1}, which is not there",
        f"run 'monday': the call with the key {KEYS[0].hex()} has another outcome at event 5 than at event 1, "
        "which is the one that counts",
    ]


def test_a_copy_is_of_one_moment_and_numbered_anew(opened: Opened) -> None:
    opened.writing.write([finished(opened.number, 0, *KEYS[:4])], 1.0)
    run = opened.reading.find_run("monday")
    assert run is not None
    opened.writing.write([finished(opened.number, 4, *KEYS[4:6])], 1.0)  # later than that
    edit = Edit(KEYS[2], False, b"2", None, "ValueError: no")
    new = RunRow(0, "fork", "started", forked_from="monday")
    assert opened.writing.add(new, copied(opened.reading, run, [KEYS[1]], [edit]))
    assert not opened.writing.add(new, copied(opened.reading, run, [], []))
    fork = opened.reading.find_run("fork")
    assert fork is not None
    rows = with_outcomes(
        opened.reading, OutcomePlaces(fork.number, "fork"), opened.reading.events(fork.number, "fork", 0, 10)
    )
    found = [(row.sequence, row.key, row.status, row.message, its and its.value) for row, its in rows]
    assert found == [
        (1, KEYS[0], "completed", None, b"1"),
        (2, KEYS[2], "failed", "ValueError: no", b"2"),
        (3, KEYS[3], "completed", None, b"1"),
    ]
    assert (fork.last_sequence, fork.outcomes, fork.forked_from) == (3, 3, "monday")
    assert opened.reading.inner.findings() == []


# --- news ------------------------------------------------------------------------------------------------------------


def test_whoever_listens_hears_of_every_change_and_of_nothing_else(opened: Opened, postgresql_url: str) -> None:
    other = PostgresqlBackend(postgresql_url).writing()
    question = Question("monday", "q", "ask", "Go on?")
    changes: dict[str, Callable[[], object]] = {
        "write": lambda: other.write([finished(opened.number, 0, KEYS[1])], 1.0),
        "create": lambda: other.create(RunRow(0, "tuesday", "started")),
        "ask": lambda: other.ask(opened.number, 1, question),
        "answer": lambda: other.answer(opened.number, "q", b"true", None, 1.0),
        "reject": lambda: other.reject_answer(opened.number, 1, "q", "not now"),
        "request": lambda: other.request_stop(opened.number, "for a test"),
        "copy": lambda: other.add(RunRow(0, "fork", "started"), []),
        "release": lambda: other.release(opened.number, 1, None, None, 1.0),
        "close": lambda: other.release(opened.number, 2, "completed", None, 1.0),
        "delete": lambda: other.delete(opened.number, 3),
    }
    assert opened.reading.has_changed()
    for name, change in changes.items():
        assert not opened.reading.has_changed(), name
        assert change() is not False, name
        assert wait_for_news(opened.reading), name
    other.look([])
    other.close()
    assert not opened.reading.has_changed()


def test_the_holder_of_a_run_hears_of_a_request_and_of_a_takeover(opened: Opened, postgresql_url: str) -> None:
    held = [(opened.number, 1)]
    other = PostgresqlBackend(postgresql_url).writing()
    assert opened.writing.look(held) == [LeaseState(True, None, "[]")]
    assert opened.writing.look(held) is None
    other.request_stop(opened.number, "for a test")
    opened.writing.renew([], 1.0)
    assert opened.writing.look(held) == [LeaseState(True, "for a test", "[]")]
    run = opened.reading.find_run("monday")
    assert run is not None
    assert other.replace(run, RunRow(run.number, run.run_id, "started", fence=2))
    opened.writing.renew([], 1.0)
    assert opened.writing.look(held) == [LeaseState(False, None)]
    assert opened.writing.look(held) is None
    other.close()


# --- errors ----------------------------------------------------------------------------------------------------------


def test_a_session_that_was_ended_by_the_administrator_is_a_clear_error(
    opened: Opened, postgresql_server: PostgresqlServer
) -> None:
    process = opened.writing._connection.info.backend_pid
    postgresql_server.execute("SELECT pg_terminate_backend(%s, 5000)", (process,))
    with pytest.raises(StoreError, match=r"could not be written .*: terminating connection due to admin"):
        opened.writing.write([finished(opened.number, 0, KEYS[1])], 1.0)
    with pytest.raises(StoreError, match="the connection is closed"):
        opened.writing.renew([(opened.number, 1)], 1.0)
    again = opened.backend.writing()
    assert again.write([finished(opened.number, 0, KEYS[1])], 1.0) == [LeaseState(True, None)]
    again.close()


def test_an_idle_session_notices_that_it_has_been_ended(opened: Opened, postgresql_server: PostgresqlServer) -> None:
    opened.writing.look([(opened.number, 1)])
    process = opened.writing._connection.info.backend_pid
    postgresql_server.execute("SELECT pg_terminate_backend(%s, 5000)", (process,))
    with pytest.raises(StoreError, match="no news of other processes"):
        for _ in range(3):  # one look may read the farewell, and the next one the end of the line
            opened.writing.look([(opened.number, 1)])


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_readers_find_a_server_that_was_started_anew(
    mode: Any, opened: Opened, postgresql_server: PostgresqlServer
) -> None:
    assert opened.reading.has_changed()
    assert opened.reading.find_run("monday") is not None
    assert not opened.reading.has_changed()
    postgresql_server.restart(mode)
    assert opened.reading.find_run("monday") is not None
    assert any(opened.reading.has_changed() for _ in range(3)), "what was said meanwhile was missed"
    for _ in range(3):
        opened.reading.has_changed()
    assert not opened.reading.has_changed()


def test_a_reader_without_a_server_is_a_clear_error(
    opened: Opened, postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened.backend.pool(), "timeout", 0.2)
    postgresql_server.stop()
    try:
        with pytest.raises(StoreError, match="run 'monday' could not be read: couldn't get a connection"):
            opened.reading.find_run("monday")
    finally:
        postgresql_server.start()


def test_many_followers_share_one_connection(opened: Opened, postgresql_server: PostgresqlServer) -> None:
    followers = [opened.backend.reading() for _ in range(50)]
    assert all(follower.has_changed() for follower in followers)
    opened.writing.request_stop(opened.number, "for a test")
    assert wait_for_news(followers[0])
    assert all(follower.has_changed() for follower in followers[1:])
    assert not any(follower.has_changed() for follower in followers)
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rh_agents'"
    assert postgresql_server.execute(query)[0][0] < 10


def test_a_server_that_only_reads_is_a_clear_error(opened: Opened) -> None:
    opened.writing._connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match=r"cannot execute .* in a read-only transaction"):
        opened.writing.write([finished(opened.number, 0, KEYS[1])], 1.0)


# --- plans -----------------------------------------------------------------------------------------------------------

LARGE = ("run", "journal", "question", "artifact")

CALLS: dict[str, Any] = {
    "number": 77, "status": None, "group_id": None, "actor": None, "actor_in_more": None, "text": None, "limit": 5,
    **CallsWanted().bounds,
}  # fmt: skip
ONE_RUN: dict[str, dict[str, Any]] = {
    "find_run": {"run_id": "run 77", "named": 77},
    "calls": {"number": 77, "after": 3, "limit": 5},
    "events": {"number": 77, "after": 3, "limit": 5},
    "outcomes": {"number": 77, "after": 3, "limit": 5},
    "tallies": {"number": 77, "after": 3, "until": 9, "later": [8]},
    "members": {"number": 77, "after": 3, "until": 9, "limit": 5},
    "addresses_at": {"number": 77, "sequences": [3, 5]},
    "keys_at": {"number": 77, "after": 3, "until": 9, "addresses": ["a"]},
    "size_of_journal": {"number": 77, "after": 3, "until": 9},
    "events_at": {"number": 77, "sequences": [3, 5]},
    "outcomes_at": {"number": 77, "sequences": [3, 5]},
    "question": {"number": 77, "id": "q", "named": 77},
    "request_stop": {"number": 77, "reason": "", "changes": "c", "requests": "r"},
    "release": {"number": 77, "fence": 1, "holder_checksum": 0, "changes": "c"},
    "delete": {"number": 77, "fence": 1, "changes": "c", "most": 9},
    "used_artifacts": {"digests": [KEYS[1]]},
    "get_artifact": {"digest": KEYS[1], "size": None},
    "runs_with_tag": {**RunsWanted()._asdict(), "tag": ["tag 77"]},
    **{
        f"{name}{back}": {**CALLS, "after": 3, "until": 9}
        for name in ("find_calls", "find_failures")
        for back in ("", "_back")
    },
    **{
        name: {**CALLS, "after": 3, "until": 9, "value": None, "behind": 0}
        for name in sorting(read_queries("postgresql"))
    },
    "failed_rows": {"number": 77, "after": 3, "until": 9, "limit": 5},
    "tried_again": {"number": 77, "after": 3, "until": 9, "limit": 5},
    "outcomes_of_keys": {"number": 77, "after": 3, "until": 9, "keys": [KEYS[1]]},
    "failures_of_keys": {"number": 77, "after": 3, "until": 9, "keys": [KEYS[1]]},
    "events_of_key": {"number": 77, "after": 3, "until": 9, "key": KEYS[1], "limit": 5},
    "find_children": {"number": 77, "after": 3, "until": 9, "parent": KEYS[1], "limit": 5},
    "find_named": {"number": 77, "after": 3, "until": 9, "names": ["x"], "parts": ["[3]"], "keys": ["1a"]},
    "ended_keys": {"number": 77, "after": 3, "until": 9},
    "kinds": {"number": 77, "after": 3, "until": 9},
    "count_groups": {"number": 77, "after": 3, "until": 9},
    "moments": {"number": 77, "after": 3, "until": 9},
    "inputs": {"number": 77, "after": 3, "until": 9},
    "inputs_at": {"number": 77, "sequences": [3, 5]},
    "renew": {"number": [77, 78], "fence": [1, 1], "now": 1.0},
    "look": {"number": [77, 78], "fence": [1, 1]},
}
"""Queries that must look only at the rows that they are about."""
QUERIES = {**read_queries("postgresql"), **sorting(read_queries("postgresql"))}

FILL = """
INSERT INTO run (run_id, status, epoch, workflow, tags, facts, created_at, updated_at, fence, heartbeat, heartbeat_at,
    lease, last_sequence, outcomes, name_checksum, checksum, status_checksum, holder_checksum)
SELECT 'run ' || i, 'completed', 0, '', ARRAY['tag ' || i], '{}', i, i, 1, 0, 0, 15, 10, 5, i, 0, 0, 0
FROM generate_series(1, 2000) i;
INSERT INTO journal (run, sequence, timestamp, attempt, status, event_type, name, address, key, ok,
    call_checksum, checksum, epoch, tries, parent_attempt, parent, value, artifact, outcome_checksum)
SELECT i, j, j, 1, CASE WHEN j > 5 THEN 'completed' ELSE 'started' END, '', '', '',
    sha256(j::text::bytea), CASE WHEN j > 5 THEN true END, 0, 0, 0, 0, 0, '',
    CASE WHEN j > 5 AND i % 10 > 0 THEN '1'::bytea END,
    CASE WHEN j > 5 AND i % 10 = 0 THEN sha256(i::text::bytea) END, 0
FROM generate_series(1, 2000) i, generate_series(1, 10) j;
INSERT INTO question (run, id, address, text, asked_at, name_checksum, checksum, answer_checksum)
SELECT i, 'q', '', '', i, i, 0, 0 FROM generate_series(1, 2000) i;
INSERT INTO artifact (digest, put_at, data) SELECT sha256(i::text::bytea), 0, '' FROM generate_series(1, 2000) i;
"""


@pytest.fixture(scope="module", params=["with statistics", "without statistics"])
def filled(postgresql_server: PostgresqlServer, request: pytest.FixtureRequest) -> Iterator[PostgresqlWriteSession]:
    """A schema with many runs, of which the planner knows something, or still nothing."""
    writing = PostgresqlBackend(postgresql_server.url(schema="plans")).writing()
    for table in LARGE:
        writing._connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
    writing._connection.execute(FILL)
    if request.param == "with statistics":
        for table in LARGE:
            writing._connection.execute(f"ANALYZE {table}".encode())
    yield writing
    writing.close()
    postgresql_server.execute("DROP SCHEMA plans CASCADE")


def scans(plan: dict[str, Any]) -> Iterator[str]:
    """The large tables that a plan reads through, be it along an index."""
    looks_up = "Index Cond" in plan or "Recheck Cond" in plan
    if plan.get("Relation Name") in LARGE and plan["Node Type"] != "ModifyTable" and not looks_up:
        yield f"{plan['Node Type']} of {plan['Relation Name']}"
    for below in plan.get("Plans", ()):
        yield from scans(below)


@pytest.mark.parametrize("name", ONE_RUN)
def test_a_query_about_one_run_looks_at_no_other(name: str, filled: PostgresqlWriteSession) -> None:
    query = "EXPLAIN (FORMAT JSON) " + QUERIES[name]
    row = filled._connection.execute(query.encode(), ONE_RUN[name]).fetchone()
    assert row is not None
    assert list(scans(row[0][0]["Plan"])) == []


@pytest.mark.parametrize(
    "name", ["find_failures", "find_failures_back", "failed_rows", "failures_of_keys", "tried_again"]
)
def test_what_failed_and_what_was_made_again_is_found_by_an_index_of_its_own(
    name: str, filled: PostgresqlWriteSession
) -> None:
    rows = filled._connection.execute(("EXPLAIN " + QUERIES[name]).encode(), ONE_RUN[name]).fetchall()
    assert ("journal_tried_again" if name == "tried_again" else "journal_failed") in "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("name", ["calls", "events", "outcomes", "find_calls", "find_calls_back", "find_failures_back"])
def test_a_page_of_a_journal_is_read_without_sorting_the_rest(name: str, filled: PostgresqlWriteSession) -> None:
    query = "EXPLAIN " + QUERIES[name]
    rows = filled._connection.execute(query.encode(), ONE_RUN[name]).fetchall()
    assert "Sort" not in "\n".join(row[0] for row in rows)


def test_the_newest_runs_are_found_without_looking_at_the_others(filled: PostgresqlWriteSession) -> None:
    wanted = {**RunsWanted(limit=200)._asdict(), "kinds": ["completed"]}
    rows = filled._connection.execute(("EXPLAIN " + QUERIES["runs"]).encode(), wanted).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert "run_by_age" in plan
    assert "Sort" not in plan
