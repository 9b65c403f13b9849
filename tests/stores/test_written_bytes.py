"""What a call costs the disk does not grow with the number of calls that there are."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from rh_agents.stores._backend.rows import Batch, EventRow, OutcomeRow, RunRow
from rh_agents.stores.sqlite import SqliteStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what was written")

AT_ONCE = 50
"""Calls in a batch."""


def written() -> int:
    """Bytes that this process has given to the system to be written so far."""
    return int(Path("/proc/self/io").read_text().partition("wchar: ")[2].split()[0])


def batch(number: int, last: int, calls: int, chance: random.Random) -> Batch:
    """Calls start, and come to results of about one KiB: not all of one size, of which just so many fit into a page."""
    events: list[EventRow] = []
    outcomes = []
    for sequence in range(last + 1, last + 2 * calls, 2):
        key, group = chance.randbytes(32), "5835f1b7c389d3d70f29a02a222fd54c"
        facts = ("tool_call", "page", f"pages[{sequence}]::page", key, group, sequence, 1000, 1)
        events.append(EventRow(sequence, 1.5, "started", *facts, None, None, None, None))
        events.append(EventRow(sequence + 1, 1.5, "completed", *facts, 0.5, None, True, None))
        value = b'"' + b"x" * chance.randrange(768, 1281) + b'"'
        outcomes.append(OutcomeRow(sequence + 1, key, True, None, b"", 0, 0, 0, value, None, None))
    return Batch(number, 1, last, events, outcomes)


def bytes_for_each(path: Path, calls: int) -> float:
    """What the log and the database take for each call, until all of it is in the database."""
    session = SqliteStore(path, wal_limit=1 << 20)._database.writing()
    session.connection.pragma("synchronous", "OFF")  # nobody cuts the power here
    made = session.create(RunRow(0, "monday", "started", owner="me", fence=1))
    assert made is not None
    chance = random.Random(7)
    before = written()
    for done in range(0, calls, AT_ONCE):
        session.write([batch(made.number, 2 * done, AT_ONCE, chance)], 1.0)
    session.close()
    return (written() - before) / calls


def test_what_is_written_for_a_call_is_the_same_whether_there_are_a_thousand_or_twenty_thousand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RH_AGENTS_CHECK", raising=False)
    few, many = bytes_for_each(tmp_path / "few.db", 1_000), bytes_for_each(tmp_path / "many.db", 20_000)
    assert many == pytest.approx(few, rel=0.05)
    assert many < 3.6 * 1024, "the result, twice: in the log and in the database; and its events"


def test_an_index_over_keys_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_AGENTS_CHECK", "keys")
    few, many = bytes_for_each(tmp_path / "few.db", 1_000), bytes_for_each(tmp_path / "many.db", 5_000)
    assert many > 1.1 * few
