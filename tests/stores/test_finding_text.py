"""Calls are found by what their addresses say, whatever characters are in them."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from rh_agents.core.ports.windows import calls_of_run
from rh_agents.stores._backend import WriteSession
from rh_agents.stores._backend.rows import Batch, EventRow, OutcomeRow, RunRow
from rh_agents.stores.sqlite import SqliteStore

KEY = sha256(b"call").digest()
ADDRESS = "Pages[1]::\x00 é 50% \\_"


def write(session: WriteSession) -> None:
    run = session.create(RunRow(0, "monday", "started", owner="me", fence=1))
    assert run is not None
    about = ("tool_call", "f", ADDRESS, KEY, None, None, None, 1, 0.5, None, True, None)
    session.write(
        [
            Batch(
                run.number,
                1,
                0,
                [EventRow(1, 1.0, "completed", *about)],
                [OutcomeRow(1, KEY, True, None, b"", 0, 0, 0, b"1", None, None)],
            )
        ],
        1.0,
    )


@pytest.mark.parametrize(
    ("text", "is_found"),
    [("pages", True), ("é", True), ("50%", True), ("5_%", False), ("\\_", True), ("\x00 É", False), ("::\x00 é", True)],
)
def test_a_call_is_found_by_any_part_of_its_address(tmp_path: Path, text: str, is_found: bool) -> None:
    async def main() -> int:
        store = SqliteStore(tmp_path / "runs.db")
        await store.runs()
        await store.engine.writer.done(write)
        found = await calls_of_run(store, "monday", text=text)
        by_seconds = await calls_of_run(store, "monday", text=text, order="seconds")
        assert len(found.calls) == len(by_seconds.calls)
        await store.aclose()
        return len(found.calls)

    assert asyncio.run(main()) == is_found
