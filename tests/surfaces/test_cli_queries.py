"""Rows of a query as inputs: of SQLite, and of PostgreSQL with a cursor on the server."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import sqlite3
import subprocess
import sys
import urllib.parse
from contextlib import closing
from typing import Any

import pytest

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input.files import InputOptions, open_input
from rh_agents.cli.input.lines import Format
from tests.surfaces.cli_kit import QUIET, Folder, environment, said

TEXTS = "select text as id, text from texts order by text"


@pytest.fixture
def database(folder: Folder) -> str:
    """A database of SQLite with some texts."""
    with closing(sqlite3.connect("data.db")) as made, made:
        made.execute("create table texts (text, n, raw)")
        made.executemany("insert into texts values (?, ?, ?)", [("one", 1, b"\0"), ("two", 2.5, None)])
    return "data.db"


def values_of(source: str, query: str, **options: Any) -> list[Any]:
    with open_input(source, InputOptions(query=query, **options)) as given:
        assert given.found == {}
        return [item.value for item in given.items]


@pytest.mark.parametrize("url", ["data.db", "sqlite:///data.db", "env:DATABASE"])
def test_rows_of_sqlite_are_items_read_as_they_are_asked_for(
    database: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE", "sqlite:///data.db")
    assert values_of(url, "select * from texts") == [
        {"text": "one", "n": 1, "raw": b"\0"},
        {"text": "two", "n": 2.5, "raw": None},
    ]
    endless = "with recursive n(n) as (select 1 union all select n + 1 from n) select n, n as id from n"
    with open_input(url, InputOptions(query=endless)) as given:
        assert [next(given.items).id for _ in range(3)] == [1, 2, 3]


def test_what_no_query_gives_is_one_sentence(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    cases: list[tuple[str, str, dict[str, Any], str]] = [
        (database, "select missing from texts", {}, "data.db: no such column: missing"),
        (database, "delete from texts", {}, "data.db: attempt to write a readonly database"),
        (database, "begin", {}, "data.db: the query gives no rows"),
        (database, "select 1; select 2", {}, "data.db: You can only execute one statement at a time"),
        (database, "select 1 as a, 2 as a", {}, "two columns of the query are named 'a': rename one with `as`"),
        (database, "select 1 as ids", {"must_have_id": True}, "the query has no such column; there are ids; did you"),
        (
            database,
            "select 1",
            {"form": Format.CSV},
            "--query: rows of a database have no --format, --sep",
        ),
        ("program.py", "select n from texts", {}, "program.py: file is not a database"),
        ("none.db", "select 1", {}, "cannot read none.db: there is no such file"),
        ("mysql://x/y", "select 1", {}, "--query reads sqlite:///FILE, the FILE itself, or postgresql://HOST/DATABASE"),
        ("env:NOWHERE", "select 1", {}, "env:NOWHERE: there is no variable NOWHERE"),
        (
            "postgresql://me:pw@localhost/x",
            "select 1",
            {},
            "a password must not be in it: put the URL into",
        ),
        ("postgresql://localhost/x?password=pw", "select 1", {}, "a password must not be in it"),
    ]
    for source, query, options, said_of_it in cases:
        with pytest.raises(CommandError) as refused:
            values_of(source, query, **options)
        assert said_of_it in str(refused.value)
        assert "pw" not in str(refused.value)
    for source in ("sqlite:///data.db", "postgresql://localhost/x", "data.db"):
        with pytest.raises(CommandError, match=r"a database.*: say what to read of it, as in --query 'select"):
            open_input(source)
    broken = "select 1 as n union all select abs(-9223372036854775808)"
    with pytest.raises(CommandError, match=r"data\.db:\d: integer overflow"):
        values_of(database, broken)


def test_a_row_is_the_same_item_as_in_lines_of_json_and_the_query_is_a_part_of_the_command(
    database: str, folder: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "one", "three")
    said(capfd, "map", "program.py:rate", "in.jsonl", "--run-id", "r", *QUIET)
    os.rename(database, "data.jsonl")
    words = ("map", "program.py:rate", "data.jsonl", "--query", TEXTS)
    out, _ = said(capfd, *words, "--run-id", "r", *QUIET)
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["one", "two"]
    assert folder.ledger["rate one"] == folder.ledger["rate two"] == 1
    assert "2 items: 2 reused, 0 new" in said(capfd, "plan", "r")[0]
    assert said(capfd, "resume", "r")[0].count("\n") == 2
    one = said(capfd, *words, *QUIET)[1]
    other = said(capfd, *words[:4], f"{TEXTS} desc", *QUIET)[1]
    same = said(capfd, "map", "program.py:rate", "sqlite:///data.jsonl", "--query", TEXTS, *QUIET)[1]
    assert "nothing was called" in same
    assert "nothing was called" not in one + other
    refused = said(capfd, *words, "-o", "data.jsonl", "--force", *QUIET, code=2)[1]
    assert "data.jsonl is the input as well as the output" in refused


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(postgresql_url: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a variable with a database, as the command takes it."""
    monkeypatch.setenv("DATABASE", postgresql_url.partition("?")[0])
    return "env:DATABASE"


def test_rows_of_postgresql_have_the_values_of_their_types(server: str) -> None:
    query = """
        select 1 as id, 2.50::numeric as price, 'NaN'::float8 as no,
        '{"a": [1]}'::jsonb as inner, '\\x00ff'::bytea as raw,
        '2026-07-01 12:00+02'::timestamptz as at, date '2026-07-01' as day, array[1, null] as list, null as none,
        '100%' as text
    """
    (row,) = values_of(server, query)
    assert row.pop("no") != 0
    at = row.pop("at")
    assert at == datetime.datetime(2026, 7, 1, 10, tzinfo=datetime.UTC)
    assert row == {
        "id": 1, "price": decimal.Decimal("2.50"), "inner": {"a": [1]}, "raw": b"\x00\xff",
        "day": datetime.date(2026, 7, 1), "list": [1, None], "none": None, "text": "100%",
    }  # fmt: skip


def test_a_query_of_postgresql_holds_no_transaction_and_is_read_by_parts(server: str, folder: Folder) -> None:
    psycopg: Any = pytest.importorskip("psycopg")
    with open_input(server, InputOptions(query="select n from generate_series(1, 5000) n order by n")) as given:
        assert given.may_block
        assert next(given.items).value == {"n": 1}
        with psycopg.connect(os.environ["DATABASE"]) as other:
            states = "select state from pg_stat_activity where application_name = 'rh-agents map' order by query_start"
            assert [state for (state,) in other.execute(states)][-1] == "idle"
        assert sum(item.value["n"] for item in given.items) == 5000 * 5001 // 2 - 1


def test_what_postgresql_refuses_is_one_sentence(server: str) -> None:
    cases = [
        ("select nothing from pg_class", 'env:DATABASE: column "nothing" does not exist'),
        ("create table x (n int)", "env:DATABASE: syntax error"),
        (
            "with a as (delete from pg_class returning 1) select * from a",
            "DECLARE CURSOR must not contain",
        ),
        (
            "select int4range(1, 3) as span",
            "column 'span' has values of the type Range, which no item can have",
        ),
        ("select 1 / (2 - n) as x from generate_series(1, 3) n", "division by zero"),
    ]
    for query, said_of_it in cases:
        with pytest.raises(CommandError) as refused:
            values_of(server, query)
        assert said_of_it in str(refused.value)
    nowhere = urllib.parse.urlsplit(os.environ["DATABASE"])._replace(netloc="127.0.0.1:1").geturl()
    with pytest.raises(CommandError, match="cannot read postgresql://127"):
        values_of(nowhere, "select 1")


def test_a_command_reads_postgresql_to_the_end(server: str, folder: Folder) -> None:
    query = "select 't' || n as text, 't' || n as id from generate_series(1, 150) n"
    done = subprocess.run(
        [sys.executable, "-m", "rh_agents", "map", "program.py:other", server, "--query", query, *QUIET],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["result"] for line in done.stdout.splitlines()} == {f"t{n}" for n in range(1, 151)}
    assert done.stderr.count("\n") == 1
