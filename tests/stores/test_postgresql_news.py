"""Which statement tells whom in PostgreSQL: those who read, those who execute runs, and workers with nothing to do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rh_agents.core.ports import Question
from rh_agents.core.ports.control import ControlRequest, Verb

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")

from rh_agents.stores._backend.rows import Queued, RunRow  # noqa: E402 - not without psycopg
from rh_agents.stores._postgresql.backend import PostgresqlBackend  # noqa: E402
from rh_agents.stores._postgresql.news import Ear, channels  # noqa: E402

END = "the_end"
QUEUED = Queued("default", "flows:double", 0, 5.0)


class Listener:
    """Hears all channels of a schema."""

    def __init__(self, url: str, backend: PostgresqlBackend) -> None:
        self._names = {name: kind for kind, name in channels(backend.database).items()}
        self._connection = psycopg.connect(url.partition("?")[0], autocommit=True)
        self._heard: list[str] = []
        self._connection.add_notify_handler(lambda told: self._heard.append(told.channel))
        for name in (*self._names, END):
            self._connection.execute(f"LISTEN {name}".encode())

    def heard(self) -> set[str]:
        """What was told since the last call: notifications arrive in the order of the commits."""
        self._connection.execute(f"NOTIFY {END}".encode())
        while END not in self._heard:
            self._connection.execute("SELECT 1")
        found, self._heard[:] = {self._names[name] for name in self._heard if name in self._names}, []
        return found

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def backend(postgresql_url: str) -> Iterator[PostgresqlBackend]:
    opened = PostgresqlBackend(postgresql_url)
    yield opened
    opened.close()


def test_each_change_is_told_to_those_whom_it_concerns_and_to_nobody_else(
    backend: PostgresqlBackend, postgresql_url: str
) -> None:
    session = backend.writing()
    listener = Listener(postgresql_url, backend)
    made: dict[str, RunRow] = {}

    def create(name: str, **about: Any) -> Callable[[], object]:
        def do() -> object:
            made[name] = row = session.create(RunRow(0, name, "started", fence=1, **about))  # type: ignore[assignment]
            return row

        return do

    def replace(name: str, **about: Any) -> Callable[[], object]:
        def do() -> bool:
            new = dataclasses.replace(made[name], fence=made[name].fence + 1, **about)
            is_replaced = session.replace(made[name], new)
            made[name] = new
            return is_replaced

        return do

    def number(name: str) -> int:
        return made[name].number

    question = Question("mine", "q", "ask", "Go on?")
    pause = ControlRequest("mine", "c", Verb.PAUSE, {})
    signal = ControlRequest("asks", "s", Verb.SIGNAL, {"event": "e", "value": 1})
    steps: list[tuple[str, Callable[[], object], set[str]]] = [
        ("a run is begun", create("mine", owner="me"), {"changes"}),
        ("a run is submitted", create("submitted", **QUEUED._asdict()), {"changes", "ready"}),
        ("a run that waits", create("asks", **QUEUED._replace(ready_at=None)._asdict()), {"changes"}),
        ("a sign of life", lambda: session.renew([(number("mine"), 1)], 1.0), set()),
        ("a look", lambda: session.look([(number("mine"), 1)]), set()),
        ("a question", lambda: session.ask(number("mine"), 1, question), {"changes"}),
        ("an answer", lambda: session.answer(number("mine"), "q", b"true", None, 1.0), {"changes", "requests"}),
        ("a stop", lambda: session.request_stop(number("mine"), "for a test"), {"changes", "requests"}),
        ("somebody looks", lambda: session.watch(number("mine"), b"k" * 32, 1.0, 9.0), {"requests"}),
        ("a request", lambda: session.ask_for(number("mine"), pause), {"changes", "requests"}),
        ("it is applied", lambda: session.answer_request(number("mine"), 1, "c", {}, 1.0), {"changes"}),
        ("a worker takes a run", replace("submitted", owner="w"), {"changes", "requests"}),
        (
            "and it is to go on later",
            lambda: session.release(number("submitted"), 2, "started", None, 1.0, QUEUED),
            {"changes", "ready"},
        ),
        (
            "a run comes to wait",
            lambda: session.release(
                number("asks"), 1, "awaiting", None, 1.0, QUEUED._replace(ready_at=None), ["q"], ["e"]
            ),
            {"changes"},
        ),
        ("what it waits for comes", lambda: session.ask_for(number("asks"), signal), {"changes", "requests", "ready"}),
        ("a run is let go of", lambda: session.release(number("mine"), 1, None, None, 1.0), {"changes"}),
        ("a run is deleted", lambda: session.delete(number("mine"), 2), {"changes"}),
    ]
    try:
        assert listener.heard() == set()
        for what, change, told in steps:
            assert change() is not False, what
            assert listener.heard() == told, what
    finally:
        listener.close()
        session.close()


def test_a_worker_with_nothing_to_do_hears_of_a_run_that_is_submitted_and_asks_no_more_than_that(
    backend: PostgresqlBackend, postgresql_url: str
) -> None:
    waiting, session = backend.reading(), backend.writing()
    assert waiting.queue_has_news(), "there may have been something before"
    session.create(RunRow(0, "mine", "started", owner="me", fence=1))
    assert not waiting.queue_has_news(), "that is for nobody who waits for work"
    session.create(RunRow(0, "submitted", "pending", **QUEUED._asdict()))
    ends_at = time.monotonic() + 5
    while not waiting.queue_has_news():
        assert time.monotonic() < ends_at, "nothing was heard"
        time.sleep(0.001)
    assert not waiting.queue_has_news()
    waiting.close()
    session.close()


def test_where_there_is_no_pooler_the_server_is_heard_and_not_asked(backend: PostgresqlBackend) -> None:
    connection = backend.database.connect()
    ear = Ear(connection, backend.database, "changes", monotonic=lambda: 0.0)
    assert not ear.is_deaf
    assert ear.has_heard()
    later = Ear(connection, backend.database, "requests", monotonic=iter(range(0, 100, 10)).__next__)
    assert later.has_heard()
    assert not later.has_heard(), "that time has passed is no news"
    connection.close()
