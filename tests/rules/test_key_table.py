"""Keys in little memory: the same as a dictionary, whatever is done with it."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from hashlib import sha256

import pytest

from rh_agents import ExecutionState
from rh_agents.core._replay.identity import DigestTable
from rh_agents.core._replay.recorded import KeyList, KeyMarks, KeyTable, RecordedCalls
from rh_agents.core._run.frame import Frame


def key(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


def test_a_key_keeps_the_number_that_it_was_given_first() -> None:
    chance = random.Random(7)
    table, expected = KeyTable(), dict[bytes, int]()
    for number in range(6000):
        mine = key(chance.randrange(4000))
        place = table.add(mine, number)
        assert (place < 0) is (mine in expected)
        assert place < 0 or table.key_at(place) == mine
        expected.setdefault(mine, number)
    assert len(table) == len(expected)
    assert list(table.items()) == list(expected.items()), "in the order in which they were added"
    for number in range(4500):
        assert (key(number) in table) == (key(number) in expected)
        assert table.get(key(number)) == expected.get(key(number))
    assert table == KeyTable(expected) != KeyTable({key(0): 1})
    with pytest.raises(KeyError):
        table[key(-1)]


def test_numbers_by_digest_are_those_of_a_dictionary() -> None:
    chance = random.Random(8)
    table, expected = DigestTable(), dict[bytes, int]()
    for _ in range(6000):
        mine = key(chance.randrange(4000)) if chance.random() < 0.9 else b"group:%d" % chance.randrange(500)
        before = expected.get(mine, 0)
        if chance.random() < 0.5:
            expected[mine] = before + 1
            assert table.count(mine) == before
        else:
            expected[mine] = before + 2**32
            table.set(mine, expected[mine])
    assert all(table.get(each) == number for each, number in expected.items())
    assert table.get(key(-1)) == table.get(b"group:") == 0


def test_what_is_marked_is_marked_whenever_its_key_came() -> None:
    table = KeyTable({key(number): number for number in range(1500)})
    marks, expected = KeyMarks(table), set[bytes]()
    for number in range(0, 3000, 3):
        if number % 2:
            table.add(key(1500 + number), number)
        marks.add(key(number))
        expected.add(key(number))
    assert {key(number) for number in range(4500) if key(number) in marks} == expected


def test_a_key_that_was_looked_for_in_vain_is_found_when_it_has_come() -> None:
    table = KeyTable({key(number): number for number in range(1500)})
    assert table.get(key(1500)) is None
    table.add(key(1500), 7)
    assert table[key(1500)] == 7


def test_keys_that_stand_across_two_records_are_not_found() -> None:
    table, digests = KeyTable(), DigestTable()
    for number in range(2000):
        table.add(key(number), number)
        digests.set(key(number), number)
    alike = [bytes(28) + number.to_bytes(4, "big") for number in range(50)]
    shifted = [bytes(zeros) + b"\1" * (32 - zeros) for zeros in range(2, 33)]
    for number, each in enumerate(alike):
        table.add(each, number)
    for number, each in enumerate(shifted):
        digests.set(each[:16] + each[:16], number)
    assert [table[each] for each in alike] == list(range(50))
    assert bytes(28) + (50).to_bytes(4, "big") not in table
    assert [digests.get(each[:16] + each[:16]) for each in shifted[:14]] == list(range(14))
    assert all(table[key(number)] == digests.get(key(number)) == number for number in range(2000))


def test_only_digests_are_keys() -> None:
    with pytest.raises(ValueError, match="no digest"):
        KeyTable({b"short": 1})
    assert b"short" not in KeyTable({key(number): number for number in range(2000)})


def test_a_list_of_keys_does_what_a_list_does() -> None:
    table = KeyTable({key(number): number for number in range(20)})
    keys = KeyList(table)
    for number in range(10, 0, -1):
        keys.append(number)
    expected = [key(number) for number in range(10, 0, -1)]
    assert keys == expected
    assert list(keys) == expected
    assert (keys[3], keys[-1], keys[2:4], len(keys)) == (expected[3], expected[-1], expected[2:4], 10)
    with pytest.raises(IndexError):
        keys[10]


def _recorded() -> Callable[[int], None]:
    calls = RecordedCalls()
    return lambda number: calls.add(number, "completed", key(number), 1, "a group", True, None)


def _counted() -> Callable[[int], None]:
    frame = Frame(ExecutionState().parts, b"", "")

    def remember(number: int) -> None:
        frame.claim(key(number), frame)

    return remember


def _counted_for_many_tasks() -> Callable[[int], None]:
    frame = Frame(ExecutionState().parts, b"", "")
    frame.owner = frame

    class Task:
        pass

    def remember(number: int) -> None:
        frame.claim(key(number), Task())

    return remember


@pytest.mark.parametrize(
    ("make", "most"),
    [(_recorded, 75), (_counted, 50), (_counted_for_many_tasks, 50)],
    ids=["recorded in a group", "counted", "counted for a task of its own each"],
)
def test_what_stays_of_a_call_is_little(make: Callable[[], Callable[[int], None]], most: int) -> None:
    """In the long run it is 55 and 26 bytes; what is more here are the rows themselves."""
    remember = make()
    for number in range(2000):
        remember(number)
    tracemalloc.start()
    try:
        for number in range(2000, 8000):
            remember(number)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown / 8000 < most  # arrays that grow are counted as a whole
