"""How values, URLs and errors pass between the store and psycopg."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents.core.errors import StoreError
from tests.services.postgresql import LOCKED, PASSWORD, PostgresqlServer

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'rh_agents[postgresql]'")

from rh_agents.stores._postgresql.driver import Array, Database, as_text, from_text, read_url


def anything() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=())) | st.text("\\u0\0\ud800 d8")


@given(anything())
def test_every_text_becomes_one_that_the_database_can_hold_and_comes_back(text: str) -> None:
    stored = as_text(text)
    assert "\0" not in stored
    stored.encode()
    assert from_text(stored) == text


@pytest.mark.parametrize("text", ["", "pages[3]", "Grüße, 日本 🙂", "two\nlines"])
def test_an_ordinary_text_is_stored_as_it_is(text: str) -> None:
    assert as_text(text) == text


COLUMNS: dict[str, list[Any]] = {
    "bool": [True, False, None],
    "int4": [0, -1, 2**31 - 1, None],
    "int8": [0, -(2**63), 2**63 - 1, None],
    "float8": [0.0, -0.0, -1.5, float("inf"), 0.1 + 0.2, None],
    "bytea": [b"", b"\0\xff", None],
    "text": ["", "a\\b", "\0\ud800", None],
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_arrives_as_it_was(kind: str, postgresql_server: PostgresqlServer) -> None:
    database, _ = read_url(postgresql_server.url())
    values = COLUMNS[kind]
    with database.connect() as connection:
        for sent in (values, values[:-1], values * 3, [None] * 3, []):
            rows = connection.execute("SELECT * FROM unnest(%s)", (Array(kind, sent),)).fetchall()
            assert repr([value for (value,) in rows]) == repr(sent)


def test_a_text_with_anything_in_it_is_found_again_by_a_parameter(postgresql_server: PostgresqlServer) -> None:
    database, _ = read_url(postgresql_server.url())
    text = "a\0b\ud800\\u0000"
    with database.connect() as connection:
        row = connection.execute("SELECT %s, %s = ANY(%s)", (text, text, Array("text", [text]))).fetchone()
    assert row == (text, True)


def test_the_options_of_the_store_are_taken_out_of_the_url_and_the_others_are_left_to_the_driver() -> None:
    database, options = read_url("postgresql://u@h:5/d?schema=my%20runs&sslmode=require&artifacts=s3%3A%2F%2Fa%2Fb")
    assert options == {"schema": "my runs", "artifacts": "s3://a/b"}
    assert database.schema == "my runs"
    assert database.parameters["sslmode"] == "require"
    assert database.place == "postgresql://u@h:5/d"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h1:1,h2:2/d?target_session_attrs=read-write",
        "postgresql://u@[::1]:5432/d",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://u:%40%2F%3A@h",
        "postgres://u:a:b#@h:5/d",
    ],
)
def test_what_the_driver_takes_is_taken(url: str) -> None:
    read_url(url)


BAD_URLS = [
    "postgresql://u:s3cret@w0rd@h/d",
    "postgresql://u:s3cret/w0rd@h/d",
    "postgresql://u:s3cret:w0rd@h:port/d",
    "postgresql://u:s3cret@h/d?w0rd",
    "postgresql://u:s3cret@h/d?w0rd=1",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_with_a_mistake_in_it_is_refused_without_showing_any_part_of_it(url: str) -> None:
    with pytest.raises(StoreError, match="no URL of a PostgreSQL database") as caught:
        read_url(url)
    assert "s3cret" not in str(caught.value)
    assert "w0rd" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("form", ["postgresql://u:s3cret@h/d", "postgresql://u@h/d?password=s3cret"])
def test_the_password_is_in_no_representation(form: str) -> None:
    database, _ = read_url(form)
    assert "s3cret" not in repr(database) + database.place
    assert database.parameters["password"] == "s3cret"


def connect(url: str) -> None:
    read_url(url)[0].connect().close()


def test_the_right_password_lets_in_and_a_wrong_one_is_a_clear_error(postgresql_server: PostgresqlServer) -> None:
    connect(postgresql_server.url(user=LOCKED, password=PASSWORD))
    with pytest.raises(StoreError, match='password authentication failed for user "locked"') as caught:
        connect(postgresql_server.url(user=LOCKED, password="wr0ng-w0rd"))
    assert "wr0ng" not in str(caught.value)
    assert "wr0ng" not in repr(caught.value.__cause__)


def test_a_database_that_does_not_exist_is_a_clear_error(postgresql_server: PostgresqlServer) -> None:
    with pytest.raises(StoreError, match=r"tests@127\.0\.0\.1:\d+/nowhere.*database \"nowhere\" does not exist"):
        connect(postgresql_server.url("nowhere"))


def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(StoreError, match=r"no connection.*refused"):
        connect("postgresql://nobody@127.0.0.1:1/nowhere")


def test_a_password_that_the_driver_would_tell_is_blotted_out() -> None:
    import psycopg  # noqa: PLC0415 - it is optional

    database = Database({"password": "s3cret"}, "runs", "postgresql://h/d")
    error = database.error("no connection", psycopg.OperationalError("cannot log in with s3cret"))
    assert str(error) == "postgresql://h/d: no connection: cannot log in with ***"


def test_a_database_that_cannot_hold_every_text_is_refused(postgresql_server: PostgresqlServer) -> None:
    postgresql_server.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    try:
        with pytest.raises(StoreError, match="encoding LATIN1"):
            connect(postgresql_server.url("latin"))
    finally:
        postgresql_server.execute("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize(("default", "used"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")])
def test_commits_are_waited_for_whatever_the_servers_default_is(
    default: str, used: str, postgresql_server: PostgresqlServer
) -> None:
    database, _ = read_url(postgresql_server.url(options=f"-c%20synchronous_commit%3D{default}"))
    with database.connect() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == (used,)
        assert connection.execute("SHOW search_path").fetchone() == ('"rh_agents"',)


def test_a_server_that_does_not_sync_is_warned_of(
    postgresql_server: PostgresqlServer, caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> list[str]:
        caplog.clear()
        database, _ = read_url(postgresql_server.url())
        with database.connect() as connection, caplog.at_level(logging.WARNING):
            database.warn_if_unsafe(connection)
        return caplog.messages

    assert warned() == []
    postgresql_server.set("fsync", "off")
    try:
        (message,) = warned()
    finally:
        postgresql_server.set("fsync", "on")
    assert "fsync=off" in message
