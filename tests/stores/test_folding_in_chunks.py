"""The fold over a journal passes over beginnings of calls that have a value, and comes to the same as one by one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend.rows import CallRow, RunRow
from rh_agents.stores._folding import fold

STARTED, RETRYING, AWAITING = ExecutionStatus.STARTED, ExecutionStatus.RETRYING, ExecutionStatus.AWAITING
COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED
OUTCOMES = {COMPLETED: True, FAILED: False, CANCELLED: False}


class Rows:
    """A session that has these rows."""

    place = "rows"

    def __init__(self, rows: list[CallRow]) -> None:
        self._rows = rows

    def calls(self, number: int, run_id: str, after: int, limit: int) -> list[CallRow]:
        return self._rows[after : after + limit]


def row(sequence: int, status: ExecutionStatus, key: bytes, attempt: int = 1) -> CallRow:
    ok = OUTCOMES.get(status)
    made_in = (0, 0, 1) if ok is False else (None, None, None)
    return CallRow(sequence, status.value, key, attempt, "g", ok, "name", None, *made_in)


def one_by_one(rows: list[CallRow]) -> RecordedCalls:
    recorded = RecordedCalls()
    for sequence, status, key, attempt, group_id, ok, *_ in rows:
        recorded.add(sequence, status, key, attempt, group_id, ok is not None, (0, 0, 1) if ok is False else None)
    return recorded


def shown(recorded: RecordedCalls) -> dict[str, Any]:
    found = {name: getattr(recorded, name) for name in RecordedCalls.__slots__}
    return found | {
        "finished": dict(recorded.finished),
        "orders": {each: list(its) for each, its in recorded.orders.items()},
    }


@pytest.mark.parametrize("seed", range(200))
def test_events_of_a_journal_come_to_the_same_in_chunks_and_one_by_one(seed: int) -> None:
    chance, keys = random.Random(seed), [bytes([number]) * 32 for number in range(4)]
    statuses = [STARTED, STARTED, COMPLETED, RETRYING, AWAITING, FAILED, CANCELLED]
    rows = [row(at, chance.choice(statuses), chance.choice(keys)) for at in range(1, chance.randrange(2, 24))]
    run = RunRow(1, "r", "", last_sequence=len(rows), outcomes=sum(each.ok is not None for each in rows))
    assert shown(fold(Rows(rows), run)) == shown(one_by_one(rows))  # type: ignore[arg-type]  # it has what is asked for
