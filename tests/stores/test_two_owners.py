"""Two who take themselves for the owner of a run: whatever the order of what they do, only one can write at a time.

They are sessions of two connections, since it is the database that decides between them. In front of them is what an
owner knows: its fence, how long the journal is, and which calls have an outcome.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from rh_agents.stores._backend.rows import Batch, EventRow, LeaseState, OutcomeRow, RunRow
from rh_agents.stores._verified import VerifiedSession
from rh_agents.stores.sqlite import SqliteStore
from tests.services.postgresql import PostgresqlServer

KEYS = [sha256(bytes([number])).digest() for number in range(8)]
RUN = "monday"


@dataclass
class Place:
    """A database with two connections that write and one that reads."""

    sessions: list[Any]
    reading: VerifiedSession
    in_transaction: Callable[[Any], AbstractContextManager[None]]
    """A transaction of a session, in which its methods do not commit."""

    def row(self, run_id: str) -> RunRow:
        found = self.reading.find_run(run_id)
        assert found is not None
        return found

    def close(self) -> None:
        for session in [*self.sessions, self.reading]:
            session.close()


@contextmanager
def held_open(session: Any) -> Iterator[None]:
    with session.transaction():
        session.transaction = lambda *_: nullcontext()
        try:
            yield
        finally:
            del session.transaction


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        database = SqliteStore(tmp_path / "runs.db")._database
        sessions: list[Any] = [database.writing() for _ in range(2)]
        for session in sessions:
            session.connection.pragma("synchronous", "OFF")  # nobody cuts the power here
        made = Place(sessions, VerifiedSession(database.reading(), "here"), held_open)
        yield made
        made.close()
        return
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")
    from rh_agents.stores._postgresql.backend import PostgresqlBackend  # noqa: PLC0415 - it needs an optional package

    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    schema = f"owners_{random.randrange(10**9)}"
    backend = PostgresqlBackend(server.url(schema=schema))
    sessions = [backend.writing() for _ in range(2)]
    for each in sessions:
        each._connection.execute("SET synchronous_commit = off")
    made = Place(sessions, VerifiedSession(backend.reading(), "here"), lambda each: each._connection.transaction())
    yield made
    made.close()
    backend.close()
    server.execute(f"DROP SCHEMA {schema} CASCADE")


def batch_of(row: RunRow, fence: int, last: int, **values: bytes) -> Batch:
    """Calls come to these values, by the numbers of their keys."""
    events, outcomes = [], []
    for sequence, (name, value) in enumerate(values.items(), last + 1):
        key = KEYS[int(name[1:])]
        events.append(
            EventRow(sequence, 1.0, "completed", "tool_call", "f", "f", key, None, None, None, 1, 0.5, None, True, None)
        )
        outcomes.append(OutcomeRow(sequence, key, True, None, b"", 0, 0, 0, value, None, None))
    return Batch(row.number, fence, last, events, outcomes)


def outcomes_of(place: Place, run_id: str) -> dict[bytes, bytes | None]:
    row = place.row(run_id)
    found = place.reading.outcomes(row.number, run_id, 0, 1000)
    assert len({each.row.key for each in found}) == len(found), "no call has two"
    assert len(place.reading.events(row.number, run_id, 0, 1000)) == row.last_sequence
    assert len(found) == row.outcomes
    return {each.row.key: each.row.value for each in found}


def created(place: Place, run_id: str = RUN) -> RunRow:
    made: RunRow | None = place.sessions[0].create(RunRow(0, run_id, "started", owner="the first", fence=1))
    assert made is not None
    return made


def taken_over(row: RunRow) -> RunRow:
    return dataclasses.replace(row, owner="the second", fence=row.fence + 1, heartbeat=row.heartbeat + 1)


# -- between the statement and the commit ------------------------------------------------------------------------------


def while_it_waits(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def test_who_takes_a_run_over_while_its_owner_commits_does_not_get_it(place: Place) -> None:
    row = created(place)
    first, second = place.sessions
    with place.in_transaction(first):
        assert first.write([batch_of(row, 1, 0, k1=b"1")], 1.0) == [LeaseState(True, None)]
        thread, found = while_it_waits(lambda: second.replace(row, taken_over(row)))
    thread.join()
    assert found == [False], "the owner has given a sign of life"
    assert outcomes_of(place, RUN) == {KEYS[1]: b"1"}
    assert first.write([batch_of(row, 1, 1, k2=b"2")], 1.0) == [LeaseState(True, None)]


def test_an_owner_that_writes_while_another_one_takes_over_writes_nothing(place: Place) -> None:
    row = created(place)
    first, second = place.sessions
    with place.in_transaction(second):
        assert second.replace(row, taken_over(row))
        thread, found = while_it_waits(lambda: first.write([batch_of(row, 1, 0, k1=b"1")], 1.0))
    thread.join()
    assert found == [[LeaseState(False, None)]]
    assert outcomes_of(place, RUN) == {}
    assert second.write([batch_of(row, 2, 0, k1=b"other")], 1.0) == [LeaseState(True, None)]
    assert outcomes_of(place, RUN) == {KEYS[1]: b"other"}


def test_a_batch_that_is_sent_again_because_nobody_knows_of_its_commit_is_written_once(place: Place) -> None:
    row = created(place)
    batch = batch_of(row, 1, 0, k1=b"1", k2=b"2")
    assert place.sessions[0].write([batch], 1.0) == [LeaseState(True, None)]
    for session in place.sessions:  # on the same connection, or on a new one
        assert session.write([batch], 1.0) == [LeaseState(False, None)]
    assert outcomes_of(place, RUN) == {KEYS[1]: b"1", KEYS[2]: b"2"}


# -- in whatever order -------------------------------------------------------------------------------------------------


@dataclass
class Owner:
    """One who takes itself for the owner; `known` is its set of calls that have an outcome."""

    session: Any
    name: str
    fence: int = 0
    last: int = 0
    known: set[bytes] = field(default_factory=set)
    sent: Batch | None = None


class Interleaving:
    """Two owners of one run that do things at random, and what they were told."""

    def __init__(self, place: Place, seed: int) -> None:
        self.chance = random.Random(seed)
        self.place = place
        self.run_id = f"run {seed}"
        self.row = created(place, self.run_id)
        self.owners = [Owner(session, name) for session, name in zip(place.sessions, "ab", strict=True)]
        self.acknowledged: dict[bytes, bytes] = {}
        self.seen: list[tuple[bytes, bytes]] = []

    def execute(self) -> None:
        for _ in range(14):
            owner = self.chance.choice(self.owners)
            self.chance.choice([self.write, self.write, self.write, self.take_over, self.send_again])(owner)
        found = outcomes_of(self.place, self.run_id)
        for key, value in [*self.acknowledged.items(), *self.seen]:
            assert found[key] == value

    def take_over(self, owner: Owner) -> None:
        """Open the run, as whoever finds its owner silent; what is there is read before anything is written."""
        row = self.place.row(self.run_id)
        new = dataclasses.replace(row, owner=owner.name, fence=row.fence + 1, heartbeat=row.heartbeat + 1)
        if not owner.session.replace(row, new):
            return
        calls = self.place.reading.calls(row.number, self.run_id, 0, 1000)
        assert len(calls) == row.last_sequence
        owner.fence, owner.last, owner.sent = new.fence, row.last_sequence, None
        owner.known = {call.key for call in calls if call.ok is not None and call.key is not None}
        outcomes = self.place.reading.outcomes(row.number, self.run_id, 0, 1000)
        self.seen += [(each.row.key, each.row.value or b"") for each in outcomes]

    def write(self, owner: Owner) -> None:
        """Some calls come to their ends, of those that have no outcome as far as the owner knows."""
        open_keys = [number for number, key in enumerate(KEYS) if key not in owner.known]
        numbers = self.chance.sample(open_keys, min(len(open_keys), self.chance.randint(1, 2)))
        if not numbers or not owner.fence:
            return
        values = {f"k{number}": f'"{owner.name} {owner.fence} {number}"'.encode() for number in numbers}
        owner.sent = batch_of(self.row, owner.fence, owner.last, **values)
        self.send(owner, is_answered=self.chance.random() < 0.8)

    def send_again(self, owner: Owner) -> None:
        """The same batch once more."""
        if owner.sent is not None:
            self.send(owner, is_answered=True)

    def send(self, owner: Owner, *, is_answered: bool) -> None:
        batch = owner.sent
        assert batch is not None
        (state,) = owner.session.write([batch], 1.0)
        if not is_answered:  # the answer is lost: the owner stops, and perhaps sends this again
            owner.known |= {each.key for each in batch.outcomes}
            return
        if state.is_ours:
            self.acknowledged |= {each.key: each.value or b"" for each in batch.outcomes}
            owner.last += len(batch.events)
            owner.known |= {each.key for each in batch.outcomes}
            owner.sent = None
        else:
            owner.fence = 0


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_whatever_two_owners_do_in_whatever_order_what_was_acknowledged_is_there_once(place: Place, count: int) -> None:
    for seed in range(count):
        Interleaving(place, seed).execute()
