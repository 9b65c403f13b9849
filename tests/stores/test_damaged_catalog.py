"""A catalog of tables (`sqlite_master`) that somebody has changed by hand: our own errors, or what was recorded."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from rh_agents import open_store, run
from rh_agents.core.errors import RhAgentsError
from tests.stress.golden.workflow import EXPECTED, made, survey

GOLDEN = sorted((Path(__file__).parents[1] / "stress" / "golden").glob("schema_*.tar.gz"))[-1]
SHORT = 13
"""Each one of so many changes is tried; all of them in `make test-slow`."""


def changed(path: Path, statement: str, *arguments: Any) -> list[Any]:
    """What a statement gives that may change the catalog."""
    connection = apsw.Connection(str(path))
    try:
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        connection.pragma("writable_schema", True)
        return list(connection.execute(statement, arguments))
    finally:
        connection.close()


def changes(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, definition in changed(path, "SELECT name, sql FROM sqlite_master ORDER BY name"):
        for what in ("rootpage = 0", "rootpage = rootpage + 1", "rootpage = 2", "name = name || 'x'", "sql = 'CREATE'"):
            yield f"UPDATE sqlite_master SET {what} WHERE name = ?", (name,)
        yield "DELETE FROM sqlite_master WHERE name = ?", (name,)
        for old, new in (("INTEGER", "TEXT"), ("checksum", "chucksum"), ("NOT NULL", ""), ("value", "valve")):
            if old in (definition or ""):
                yield "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ?", (old, new, name)


@pytest.mark.parametrize("step", [SHORT, pytest.param(1, marks=pytest.mark.slow)])
def test_a_catalog_that_was_changed_by_hand_gives_no_wrong_value_and_no_error_but_ours(
    tmp_path: Path, step: int
) -> None:
    path = tmp_path / "runs.db"
    with tarfile.open(GOLDEN) as tar:
        tar.extractall(tmp_path, filter="data")
    whole = path.read_bytes()
    refused = 0
    for statement, arguments in list(changes(path))[::step]:
        path.write_bytes(whole)
        changed(path, statement, *arguments)
        made.clear()

        async def main() -> Any:
            store = open_store(path)
            try:
                await store.check()
                return await run(survey, [1, 2, 3], store=store, run_id="ended", retry_failed=False)
            finally:
                await store.aclose()

        try:
            assert asyncio.run(main()) == EXPECTED, statement
        except RhAgentsError:
            refused += 1
        assert made == [], (statement, arguments)
    assert refused
