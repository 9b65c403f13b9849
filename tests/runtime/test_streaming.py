"""Text of calls under way, from `tell_progress` and models that stream, for those who look at a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rh_agents import ExecutionState, MemoryStore, RetryPolicy, current, run, tell_progress, tool
from rh_agents.core.chat import ChatDelta, ChatModel, ChatRequest, ChatResponse, Fallback
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.errors import ModelUnreachable
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports.streaming import (
    WATCHED_FOR,
    Piece,
    PieceKind,
    StreamedPiece,
    streamed_text,
    watch_text,
)
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing import JumpingClock, ScriptedLLM

RUN = "watched"


@tool
async def write(words: int) -> str:
    for number in range(words):
        await tell_progress(ChatDelta(text=f"word {number} "))
        await asyncio.sleep(1)
    return "done"


class Reader:
    """Looks at a run every quarter of a second from one moment on up to another one."""

    def __init__(self, store: MemoryStore, first: float = 0.0, last: float = 1e9) -> None:
        self.pieces: list[StreamedPiece] = []
        self._store, self._first, self._last = store, first, last

    async def read(self) -> None:
        loop, after, said = asyncio.get_running_loop(), "", -1e9
        await asyncio.sleep(self._first)
        while True:
            if loop.time() - said >= WATCHED_FOR / 2 and loop.time() < self._last:
                said = loop.time()
                await watch_text(self._store, RUN)
            found = await streamed_text(self._store, RUN, after=after)
            self.pieces += found.pieces
            after = found.after
            await asyncio.sleep(0.25)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def watched(
    program: Callable[[], Awaitable[Any]], readers: Sequence[tuple[float, float]] = ((0.0, 1e9),), **options: Any
) -> tuple[list[Reader], Any]:
    """Execute a program while others look at it."""
    clock = JumpingClock(start=0.0)

    async def main() -> tuple[list[Reader], Any]:
        store = MemoryStore(clock=clock)
        async with ExecutionState(store=store, run_id=RUN, clock=clock, **options):
            found = [Reader(store, *moments) for moments in readers]
            tasks = [asyncio.create_task(each.read()) for each in found]
            await asyncio.sleep(0.01)
            value = await program()
            assert (await streamed_text(store, RUN)).pieces == (), "it is gone with the outcome"
            for task in tasks:
                task.cancel()
        return found, value

    return clock.run(main())


def test_who_looks_reads_what_a_call_publishes_before_its_outcome_is_there() -> None:
    (reader,), _ = watched(lambda: write(3))
    assert reader.text == "word 0 word 1 word 2 "
    assert {(piece.address, piece.attempt, piece.is_gap) for piece in reader.pieces} == {("write", 1, False)}
    assert len(reader.pieces[0].key) == 64


def test_many_readers_get_the_same_and_who_comes_later_all_that_is_kept() -> None:
    readers, _ = watched(lambda: write(20), [(0.0, 1e9), (0.5, 1e9), (10.2, 1e9)])
    assert {reader.text for reader in readers} == {"".join(f"word {number} " for number in range(20))}


def test_what_came_while_nobody_looked_is_missing_and_that_is_marked_once() -> None:
    (reader,), _ = watched(lambda: write(10), [(4.5, 1e9)])
    assert reader.text == " 5 word 6 word 7 word 8 word 9 "
    assert [piece.is_gap for piece in reader.pieces] == [True, False, False, False, False]


def test_text_that_comes_when_no_one_looks_any_more_is_not_kept_and_its_absence_is_marked_for_the_next_one() -> None:
    (early, late), _ = watched(lambda: write(30), [(0.0, 1.0), (20.5, 1e9)])
    before = "".join(f"word {number} " for number in range(10))
    assert early.text.startswith(before)
    assert late.text.startswith(before)
    assert late.text.endswith("word 28 word 29 ")
    assert "word 15" not in late.text
    assert [piece.text for piece in late.pieces if piece.is_gap] == [" 21 "]
    assert early.pieces == late.pieces


def test_each_piece_has_its_attempt() -> None:
    tries = 0

    @tool(retry=RetryPolicy(max_attempts=2, initial_delay=1.0))
    async def ask() -> str:
        nonlocal tries
        tries += 1
        await tell_progress(f"attempt {tries}")
        await asyncio.sleep(1)
        if tries == 1:
            raise ConnectionError("broken off")
        return "done"

    (reader,), _ = watched(lambda: ask())
    assert [(piece.attempt, piece.position, piece.text) for piece in reader.pieces] == [
        (1, 0, "attempt 1\n"),
        (2, 0, "attempt 2\n"),
    ]


def test_an_answer_of_a_model_can_be_read_while_it_is_written() -> None:
    model = ScriptedLLM(["The sky is blue today, and so is the sea."], stream=True)

    async def slowly(event: ExecutionEvent[Any]) -> None:
        if event.execution_status is ExecutionStatus.PROGRESS:
            await asyncio.sleep(0.3)

    async def main() -> list[StreamedPiece]:
        store = MemoryStore()
        async with ExecutionState(store=store, run_id=RUN) as state:
            state.event_bus.subscribe(slowly)
            await watch_text(store, RUN)
            asking = asyncio.ensure_future(model("What is the colour of the sky?"))
            pieces: list[StreamedPiece] = []
            while not asking.done():
                pieces = list((await streamed_text(store, RUN)).pieces) or pieces
                await asyncio.sleep(0.1)
        return pieces

    pieces = JumpingClock().run(main())
    assert "".join(piece.text for piece in pieces).startswith("The sky is blue today, and so")
    assert {piece.kind for piece in pieces} == {PieceKind.TEXT}


def test_no_event_is_made_for_those_who_look() -> None:
    (reader,), history = watched(_write_and_see_the_history)
    assert reader.text == "word 0 word 1 word 2 "
    assert ExecutionStatus.PROGRESS not in history


async def _write_and_see_the_history() -> list[ExecutionStatus]:
    await write(3)
    return [event.execution_status for event in current().run.history]


def test_what_is_recorded_is_the_same_whether_somebody_looks_or_not() -> None:
    async def recorded(*, is_watched: bool) -> list[Any]:
        store = MemoryStore(clock=lambda: 1.0)
        async with ExecutionState(store=store, run_id=RUN, clock=lambda: 1.0):
            if is_watched:
                await watch_text(store, RUN)
            await write(3)
        return [each.event.model_dump(exclude={"actor"}) async for each in store.events(RUN)]

    assert JumpingClock().run(recorded(is_watched=True)) == JumpingClock().run(recorded(is_watched=False))


def test_that_somebody_looks_changes_nothing_about_who_is_asked_when_a_model_fails() -> None:
    class BreaksOff(ChatModel):
        async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
            assert on_delta is not None
            await on_delta(ChatDelta(text="The sky "))
            raise ModelUnreachable("the connection broke")

    model = Fallback(BreaksOff(model="broken", stream=True), ScriptedLLM(["The sea is blue."], stream=True), retry=1)
    (reader,), answer = watched(lambda: model("What is blue?"))
    assert answer.text == "The sea is blue."
    assert reader.text == "", "there was no time to look"


def test_a_recorded_answer_is_not_streamed_again() -> None:
    clock = JumpingClock()

    async def main() -> list[StreamedPiece]:
        store = MemoryStore(clock=clock)
        found: list[StreamedPiece] = []
        for _ in range(2):
            async with ExecutionState(store=store, run_id=RUN, clock=clock):
                await watch_text(store, RUN)
                await write(2)
                found = list((await streamed_text(store, RUN)).pieces)
        return found

    assert clock.run(main()) == []


def test_anything_that_has_text_can_be_streamed() -> None:
    class Page:
        def streamed_pieces(self) -> list[Piece]:
            return [Piece(PieceKind.TEXT, "a page "), Piece(PieceKind.REASONING, "about it ")]

    @tool
    async def publish() -> None:
        await tell_progress({"no": "text"})
        await tell_progress(Page())
        await asyncio.sleep(1)

    (reader,), _ = watched(lambda: publish())
    assert [(piece.kind, piece.text) for piece in reader.pieces] == [
        (PieceKind.TEXT, "a page "),
        (PieceKind.REASONING, "about it "),
    ]


def test_a_run_without_a_store_has_nobody_who_looks() -> None:
    assert JumpingClock().run(run(write, 2)) == "done"
