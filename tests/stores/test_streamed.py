"""How text of calls under way comes from the calls to the store: how often, how much of it, and for whom."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents.core.chat import ChatDelta
from rh_agents.core.ports.streaming import WATCHED_FOR, StreamedPiece, TextSink
from rh_agents.core.redaction import forget_secret, register_secret
from rh_agents.stores._backend.beside import PieceCut, PieceRow
from rh_agents.stores._streamed import EVERY_CALL, MOST_OF_A_CALL, TextRelay, cursor_after, text_of_rows, time_in
from rh_agents.testing import JumpingClock

T = TypeVar("T")

KEYS = [bytes([number]) * 32 for number in range(1, 9)]


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    return JumpingClock().run(main)


class Ended(NamedTuple):
    key: bytes


class Table:
    """What a store does with the rows of one owner, and when."""

    def __init__(self, *, is_slow: bool = False) -> None:
        self.rows: list[PieceRow] = []
        self.writes: list[float] = []
        self.finished: set[bytes] = set()
        self.sinks: list[TextSink | None] = []
        self._is_slow = is_slow
        self.relay = TextRelay(lambda: 1_700_000_000.0, self._write, self.finished)
        self.relay.stream_with(self.sinks.append)

    def _write(self, rows: Sequence[PieceRow], cuts: Sequence[PieceCut], done: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.writes.append(loop.time())
        self.rows += rows
        for cut in cuts:
            self.rows = [row for row in self.rows if row.key != cut.key or row[1:3] >= cut[1:]]
        if self._is_slow:
            loop.call_later(0.7, done)
        else:
            done()

    def tell(self, key: bytes, text: str, attempt: int = 1, *, is_gap: bool = False) -> bool:
        return self.relay.add(key, "survey::ask", attempt, ChatDelta(text=text), is_gap=is_gap)

    def end(self, key: bytes) -> None:
        """The call has its outcome."""
        self.finished.add(key)
        for gone in self.relay.ended([Ended(key)]):
            self.rows = [row for row in self.rows if row.key != gone]

    def read(self, after: float = 0.0) -> tuple[StreamedPiece, ...]:
        rows = sorted((row for row in self.rows if row.at > after), key=lambda row: (row.at, row[:3]))
        return text_of_rows(rows, 7, after).pieces

    def text(self, key: bytes) -> str:
        return "".join(piece.text for piece in self.read() if piece.key == key.hex())


def test_nothing_is_taken_while_nobody_looks_and_nothing_ten_seconds_after() -> None:
    async def main() -> None:
        table = Table()
        assert table.tell(KEYS[0], "unseen ") is False
        table.relay.watch({EVERY_CALL: 5.0})
        assert table.sinks == [table.relay]
        assert table.tell(KEYS[0], "was seen ", is_gap=True)
        await asyncio.sleep(WATCHED_FOR - 1)
        table.relay.watch({EVERY_CALL: 5.0})  # it was not said again
        await asyncio.sleep(2)
        assert table.sinks == [table.relay, None]
        assert table.tell(KEYS[0], "unseen ") is False
        table.relay.watch({EVERY_CALL: 4.0})  # the clock of another machine
        assert table.sinks[2:] == [table.relay]
        assert table.tell(KEYS[0], "is seen again ", is_gap=True)
        await asyncio.sleep(1)
        assert [(piece.text, piece.is_gap) for piece in table.read()] == [(" seen ", True), (" seen again ", True)]
        assert [piece.position for piece in table.read()] == [0, 6]

    run_in_virtual_time(main())


def test_a_call_that_nobody_looks_at_is_not_taken_while_somebody_looks_at_another_one() -> None:
    async def main() -> None:
        table = Table()
        table.relay.watch({KEYS[0]: 5.0})
        assert (table.tell(KEYS[0], "seen "), table.tell(KEYS[1], "unseen ")) == (True, False)
        await asyncio.sleep(1)
        assert {row.key for row in table.rows} == {KEYS[0]}

    run_in_virtual_time(main())


@pytest.mark.parametrize("is_slow", [False, True])
def test_there_are_at_most_ten_writes_a_second_for_all_calls_together_and_one_at_a_time(is_slow: bool) -> None:
    async def main() -> list[float]:
        table = Table(is_slow=is_slow)
        table.relay.watch({EVERY_CALL: 1.0})
        for number in range(2_000):
            assert table.tell(KEYS[number % 8], f"{number} ")
            await asyncio.sleep(0.004)
        await asyncio.sleep(2)
        for key in KEYS:
            assert table.text(key) == "".join(f"{number} " for number in range(2_000) if KEYS[number % 8] == key)
        return table.writes

    writes = run_in_virtual_time(main())
    apart = [later - earlier for earlier, later in pairwise(writes)]
    assert min(apart) >= (0.7 if is_slow else 0.1) - 1e-9
    assert len(writes) >= (8 if is_slow else 70)


def test_of_a_long_text_no_more_is_kept_in_memory_and_in_the_table_than_64_kib() -> None:
    async def main() -> None:
        table = Table(is_slow=True)
        table.relay.watch({EVERY_CALL: 1.0})
        total = 0
        for number in range(3_000):
            text = f"{number} \N{CJK UNIFIED IDEOGRAPH-4F60}" * random.Random(number).randint(1, 200)
            total += len(text)
            table.tell(KEYS[0], text)
            held = table.relay.texts[KEYS[0]]
            assert held._raw_size + sum(part.size for part in held._parts) <= 2 * MOST_OF_A_CALL + 1_000
            await asyncio.sleep(0.001)
        table.tell(KEYS[0], " end ")
        await asyncio.sleep(3)
        pieces = table.read()
        assert sum(len(piece.text.encode()) for piece in pieces) <= MOST_OF_A_CALL
        assert pieces[-1].position + len(pieces[-1].text) == total + 5
        end = 0
        for piece in pieces:
            assert piece.is_gap is (piece.position > end)
            end = piece.position + len(piece.text)

    run_in_virtual_time(main())


def test_a_secret_that_is_split_by_a_gap_an_attempt_or_an_answer_that_came_to_nothing_is_not_shown() -> None:
    register_secret("door", "open-sesame-99")

    async def main() -> None:
        table = Table()
        table.relay.watch({EVERY_CALL: 1.0})
        table.tell(KEYS[0], "say open-ses")
        table.relay.add(KEYS[0], "survey::ask", 1, ChatDelta(void=True), is_gap=False)
        table.tell(KEYS[0], "ame-99 ")
        table.tell(KEYS[0], "say open-ses", 2)
        await asyncio.sleep(1)
        table.tell(KEYS[0], "ame-99 and on ", 3, is_gap=True)
        await asyncio.sleep(1)
        assert [(piece.attempt, piece.kind, piece.text) for piece in table.read()] == [
            (1, "text", "say "),
            (1, "text", "\N{HORIZONTAL ELLIPSIS}"),
            (1, "void", ""),
            (1, "text", "ame-99 "),
            (2, "text", "say "),
            (2, "text", "\N{HORIZONTAL ELLIPSIS}"),
            (3, "text", " and on "),
        ]

    try:
        run_in_virtual_time(main())
    finally:
        forget_secret("door")


steps = st.lists(
    st.tuples(
        st.sampled_from(["tell", "tell", "tell", "end", "wait", "read", "retry", "leave", "come"]), st.integers(0, 3)
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_whatever_happens_in_whatever_order_readers_get_each_text_once_and_none_of_ended_calls(
    taken: list[tuple[str, int]],
) -> None:
    async def main() -> None:
        table = Table(is_slow=True)
        watch, count, after = 1.0, 0, ""
        attempts, told, got = [1, 1, 1, 1], dict[int, str](), dict[int, str]()
        table.relay.watch({EVERY_CALL: watch})
        for what, which in [*taken, ("wait", 0), ("wait", 0), ("read", 0)]:
            key = KEYS[which]
            if what == "tell" and table.tell(key, f"{count} ", attempts[which]):
                told[which] = told.get(which, "") + f"{count} "
                count += 1
            elif what == "retry":
                attempts[which] += 1
            elif what == "end":
                table.end(key)
                assert table.tell(key, "too late ", attempts[which]) is False
            elif what == "wait":
                await asyncio.sleep(0.9)
            elif what == "leave":
                await asyncio.sleep(11)
            elif what == "come":
                watch += 1
                table.relay.watch({EVERY_CALL: watch})
            elif what == "read":
                since = time_in(after, 7)
                rows = sorted((row for row in table.rows if row.at > since), key=lambda row: (row.at, row[:3]))
                read = text_of_rows(rows, 7, since)
                after = read.after
                for piece in read.pieces:
                    number = KEYS.index(bytes.fromhex(piece.key))
                    assert not piece.is_gap
                    got[number] = got.get(number, "") + piece.text
        assert {row.key for row in table.rows} & table.finished == set()
        for number, text in told.items():
            if KEYS[number] in table.finished:
                assert text.startswith(got.get(number, ""))
            else:
                assert got[number] == text
        assert set(got) <= set(told)

    run_in_virtual_time(main())


def test_a_place_in_the_text_of_an_earlier_owner_is_the_beginning_of_that_of_a_later_one() -> None:
    assert time_in(cursor_after(3, 1_700_000_000.25), 3) == 1_700_000_000.25
    assert time_in(cursor_after(3, 1_700_000_000.25), 5) == 0.0
