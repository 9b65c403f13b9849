"""Which calls are under way: what owners write down of them, and how readers go on from there."""

from __future__ import annotations

from hashlib import sha256
from random import Random

import pytest

from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend.windows import Kinds
from rh_agents.stores._under_way import MOST_NOTED, Begun, Noted, Noting, UnderWay

STARTED, RETRYING, COMPLETED = ExecutionStatus.STARTED, ExecutionStatus.RETRYING, ExecutionStatus.COMPLETED
Event = tuple[ExecutionStatus, bytes]


def key(name: object) -> bytes:
    return sha256(repr(name).encode()).digest()


def kinds(events: list[Event], after: int = 0) -> Kinds:
    """What a database says of the events behind one."""
    rows = list(enumerate(events[after:], after + 1))
    others = [(sequence, its) for sequence, (status, its) in rows if status is not COMPLETED]
    ended = b"".join(its for _, (status, its) in rows if status is COMPLETED)
    return Kinds(len(rows), ended, "s" * len(others), b"".join(its for _, its in others), [at for at, _ in others])


def random_events(random: Random, count: int) -> list[Event]:
    events: list[Event] = []
    running: list[bytes] = []
    while len(events) < count:
        roll = random.random()
        if roll < 0.5 or not running:
            running.append(key(len(events)))
            events.append((STARTED, running[-1]))
        elif roll < 0.6:
            events.append((RETRYING, random.choice(running)))
        else:
            events.append((COMPLETED, running.pop(random.randrange(len(running)))))
    return events


def folded(events: list[Event]) -> RecordedCalls:
    recorded = RecordedCalls()
    for sequence, (status, its) in enumerate(events, 1):
        recorded.add(sequence, status, its, 1, None, status is COMPLETED, None)
    return recorded


@pytest.mark.parametrize("seed", range(30))
def test_what_an_owner_has_written_down_and_the_rest_of_the_journal_say_what_is_under_way(seed: int) -> None:
    random = Random(seed)
    events = random_events(random, 60)
    cut = random.randrange(61)
    before = folded(events[:cut])
    noted = Noting(lambda: before.under_way).look(cut, cut)
    assert noted is not None
    read = UnderWay(noted.until)
    by_first = {first: its for its, (first, _) in before.under_way.items()}
    read.start_with((by_first[first], Begun(first, newest, True)) for first, newest in noted.calls)
    read.add(60, kinds(events, cut))
    whole = UnderWay()
    whole.add(60, kinds(events))
    assert read.begun == whole.begun
    assert {its: (each.first, each.newest) for its, each in whole.begun} == folded(events).under_way


def test_what_is_not_on_disk_yet_is_not_written_down() -> None:
    calls = {key("a"): (1, 1)}
    noting = Noting(lambda: calls)
    assert noting.look(sequence=1, on_disk=0) is None
    calls[key("b")] = (2, 2)
    assert noting.look(sequence=2, on_disk=0) is None
    assert noting.look(sequence=2, on_disk=1) == Noted(1, 1, ((1, 1),)), (
        "as it was when the journal was as long as that"
    )
    del calls[key("a")]
    assert noting.look(sequence=3, on_disk=3) == Noted(3, 1, ((2, 2),)), "nothing waits to be written"


def test_of_very_many_calls_the_first_are_written_down_and_how_many_there_are() -> None:
    calls = {key(number): (number, number) for number in range(1, MOST_NOTED + 11)}
    noted = Noting(lambda: calls).look(5000, 5000)
    assert noted is not None
    assert (noted.count, len(noted.calls), noted.calls[-1]) == (MOST_NOTED + 10, MOST_NOTED, (MOST_NOTED, MOST_NOTED))


def test_what_is_written_down_comes_back() -> None:
    noted = Noted(7, 3, ((1, 4), (2, 2)))
    assert Noted.from_json(noted.as_json()) == noted
    for record in ({}, {"until": 1, "count": 1}, {"until": 1, "count": 1, "calls": [7]}, {"until": 1, "calls": []}):
        with pytest.raises(ValueError, match="these are not the calls of a run"):
            Noted.from_json(record)
