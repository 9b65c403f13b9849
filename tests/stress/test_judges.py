"""The judges themselves: whatever could go wrong is found, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.stress import databases
from tests.stress.databases import Tables
from tests.stress.judge import Evidence, findings
from tests.stress.ledger import ACKNOWLEDGED, BEGUN, DONE, Line, Pen, read_lines

FIRST, SECOND = 100, 200
"""Two processes: the first one crashed."""


def line(kind: str, call: str, nonce: str, process: int, at: int) -> Line:
    return Line(kind, call, nonce, process, at)


def made(call: str, nonce: str, process: int, at: int) -> list[Line]:
    return [line(BEGUN, call, nonce, process, at), line(DONE, call, nonce, process, at + 1)]


def value(call: str, nonce: str) -> dict[str, str]:
    return {"call": call, "nonce": nonce}


FINE = Evidence(
    ledger=[
        *made("a", "a1", FIRST, 0),
        *made("b", "b1", FIRST, 10),
        line(BEGUN, "c", "c1", FIRST, 12),
        *made("b", "b2", SECOND, 20),
        *made("c", "c2", SECOND, 30),
    ],
    acknowledged=[
        line(ACKNOWLEDGED, "a", "a1", FIRST, 5),
        line(ACKNOWLEDGED, "a", "a1", SECOND, 19),
        line(ACKNOWLEDGED, "b", "b2", SECOND, 25),
    ],
    torn=0,
    result=[value("a", "a1"), [value("b", "b2")], {"c": value("c", "c2")}],
    crashes=1,
)
UNDISTURBED = [value("a", "x"), [value("b", "y")], {"c": value("c", "z")}]


def judge(width: int = 2, **changes: Any) -> str:
    return "\n".join(findings(dataclasses.replace(FINE, **changes), UNDISTURBED, width=width))


def test_what_was_in_flight_at_a_crash_may_be_called_again() -> None:
    assert judge() == ""


def test_a_call_that_is_made_again_after_its_acknowledgement_is_found() -> None:
    assert "paid twice: a" in judge(ledger=[*FINE.ledger, *made("a", "a2", SECOND, 40)], width=9)


def test_another_outcome_than_the_acknowledged_one_is_found() -> None:
    ledger = [*FINE.ledger, *made("a", "a0", FIRST, -9)]
    assert "changed: a" in judge(ledger=ledger, result=[value("a", "a0"), *FINE.result[1:]])
    again = line(ACKNOWLEDGED, "a", "a0", SECOND, 50)
    assert "changed: a" in judge(ledger=ledger, acknowledged=[*FINE.acknowledged, again])


def test_an_outcome_that_no_call_made_is_found() -> None:
    assert "invented: c" in judge(result=[*FINE.result[:2], {"c": value("c", "a1")}])


def test_a_lost_and_a_swapped_result_are_found() -> None:
    assert "lost: b" in judge(result=[value("a", "a1"), [], {"c": value("c", "c2")}])
    assert "the result differs" in judge(result=[value("b", "b2"), [value("a", "a1")], {"c": value("c", "c2")}])


def test_more_calls_made_again_than_were_in_flight_are_found() -> None:
    assert "2 calls were made again" in judge(width=1)
    agents = [*made("agent:x", "1", FIRST, 0), *made("agent:x", "2", SECOND, 1)]
    agents += [*made("agent:y", "1", FIRST, 0), *made("agent:y", "2", SECOND, 1)]
    agents += [*made("agent:z", "1", FIRST, 0), *made("agent:z", "2", SECOND, 1)]
    assert judge(ledger=[*FINE.ledger, *agents]) == ""
    assert "3 agents were made again" in judge(ledger=[*FINE.ledger, *agents[:8], *agents[8:]], width=1)


def test_a_call_that_is_made_more_often_than_there_were_executions_is_found() -> None:
    assert "c was called 3 times in 2 executions" in judge(ledger=[*FINE.ledger, *made("c", "c3", SECOND, 28)], width=9)


def test_a_call_that_nobody_crashed_in_and_that_has_no_end_is_found() -> None:
    assert "calls without an end" in judge(ledger=[*FINE.ledger, line(BEGUN, "c", "c3", SECOND, 28)], width=9)


def test_a_torn_line_is_no_fact_and_spoils_no_other_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Pen(path).write(BEGUN, "a", "1")
    whole = path.read_bytes()
    Pen(path).write(DONE, "a", "1")
    for length in range(len(whole) + 1, path.stat().st_size - 1):
        torn = tmp_path / f"{length}"
        torn.write_bytes(path.read_bytes()[:length])
        Pen(torn).write(DONE, "b", "2")
        lines, count = read_lines(torn)
        assert [(each.kind, each.call) for each in lines] == [(BEGUN, "a"), (DONE, "b")]
        assert count == (length > len(whole) + 1)


FINE_TABLES: dict[str, list[Any]] = {
    "runs": [(1, "monday", 3, 2, None, 1.0)],
    "events": [(1, 1, b"x", None), (1, 2, b"x", 1), (1, 3, b"y", 0)],
    "outcomes": [(1, 2, b"x", 1), (1, 3, b"y", 0)],
}


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ({}, ""),
        ({"outcomes": [(1, 2, b"x", 1), (1, 3, b"x", 0)]}, "run 1 has 2 outcomes for 78"),
        ({"outcomes": [(1, 2, b"x", 1), (1, 3, b"y", 1)]}, "run 1 has an outcome without its event, at 3"),
        ({"outcomes": [(1, 2, b"x", 1)]}, "run 1 has an event without its outcome, at 3"),
        ({"events": [(1, 2, b"x", 1), (1, 3, b"y", 0)]}, "run 1 has 2 events, and its last one should be 3"),
        ({"runs": [(1, "monday", 4, 2, None, 1.0)]}, "run 1 has 3 events, and its last one should be 4"),
        ({"runs": [(1, "monday", 3, 3, None, 1.0)]}, "run 1 has 2 outcomes, and its row says 3"),
        ({"runs": [(1, "monday", 3, 2, "somebody", 1.0)]}, "monday has ended and still has an owner"),
        ({"runs": [(1, "monday", 3, 2, None, None)]}, "monday has not ended"),
    ],
)
def test_damage_in_a_database_is_found(damage: dict[str, list[Any]], finding: str) -> None:
    found = databases.findings(Tables(**(FINE_TABLES | damage)))
    assert finding in found if finding else found == []
