"""Text of calls under way, for those who look at it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rh_agents.core.chat import ChatDelta
from rh_agents.core.errors import StoreError, UsageError
from rh_agents.core.ports import Journal, Store
from rh_agents.core.ports.streaming import (
    PieceKind,
    StreamedPiece,
    StreamingJournal,
    TextSink,
    streamed_text,
    watch_text,
)
from rh_agents.core.redaction import forget_secret, register_secret
from rh_agents.testing._records import BRIEF_LEASE, COMPLETED, RUN, STARTED, Written, outcome, request
from rh_agents.testing.conformance.suite import StoreSuite, expect_refusals, on_an_event_loop, until, written_run

__all__ = ["StreamingConformance"]

CALL = outcome(1, "the whole answer")
OTHER = outcome(2, "another answer")
ADDRESS = "survey::pages[3]::ask\0 \N{LATIN SMALL LETTER E WITH ACUTE}"


class StreamingConformance(StoreSuite):
    """What calls publish can be read before they have an outcome. A store whose journals do not take it need not."""

    @on_an_event_loop
    async def test_only_at_a_run_that_is_there_can_be_looked(self, store: Store) -> None:
        await expect_refusals(store, lambda: watch_text(store, RUN), lambda: streamed_text(store, RUN))

    @on_an_event_loop
    async def test_what_is_no_key_and_no_place_is_refused(self, store: Store) -> None:
        _streaming(await store.open_run(request()))
        for key in ("", "ab", "x" * 64):
            with pytest.raises(UsageError, match="64 hexadecimal digits"):
                await watch_text(store, RUN, key)
            with pytest.raises(UsageError, match="64 hexadecimal digits"):
                await streamed_text(store, RUN, key)
        with pytest.raises(UsageError, match="earlier look"):
            await streamed_text(store, RUN, after="yesterday")

    @on_an_event_loop
    async def test_nobody_looks_at_a_run_that_nobody_executes(self, store: Store) -> None:
        _streaming(await store.open_run(request("another")))
        await written_run(store, 1)
        assert await watch_text(store, RUN) is False
        assert (await streamed_text(store, RUN)).pieces == ()

    @on_an_event_loop
    async def test_what_is_published_is_seen_in_its_order_with_its_attempt(self, store: Store) -> None:
        await self._see(store, store)

    @on_an_event_loop
    async def test_what_is_published_is_seen_by_another_process(self, store: Store) -> None:
        await self._see(store, await self._second(store))

    async def _see(self, store: Store, looking: Store) -> None:
        sink = await _sink(await store.open_run(request()), looking)
        _publish(sink, ChatDelta(reasoning="Let me see. "), ChatDelta(text="The sky "), ChatDelta(text="is blue\0 é. "))
        _publish(sink, ChatDelta(tool_index=1, tool_name="look up"), ChatDelta(tool_index=1, arguments='{"a": 1, '))
        pieces = await _pieces(looking, 4)
        assert [(each.kind, each.text, each.tool_index, each.tool_name) for each in pieces] == [
            (PieceKind.REASONING, "Let me see. ", None, ""),
            (PieceKind.TEXT, "The sky is blue\0 é. ", None, ""),
            (PieceKind.TOOL_CALL, "", 1, "look up"),
            (PieceKind.TOOL_CALL, '{"a": 1, ', 1, ""),
        ]
        assert {(each.key, each.address, each.attempt) for each in pieces} == {(CALL.key.hex(), ADDRESS, 1)}
        assert [each.position for each in pieces] == [0, 12, 32, 33]
        assert not any(each.is_gap for each in pieces)
        sink.add(CALL.key, ADDRESS, 2, ChatDelta(text="The sea "), is_gap=False)
        sink.add(CALL.key, ADDRESS, 2, ChatDelta(void=True), is_gap=False)
        sink.add(CALL.key, ADDRESS, 2, "a line", is_gap=False)
        pieces = (await _pieces(looking, 7))[4:]
        assert [(each.attempt, each.position, each.kind, each.text) for each in pieces] == [
            (2, 0, PieceKind.TEXT, "The sea "),
            (2, 8, PieceKind.VOID, ""),
            (2, 9, PieceKind.TEXT, "a line\n"),
        ]

    @on_an_event_loop
    async def test_each_reader_goes_on_where_it_was(self, store: Store) -> None:
        sink = await _sink(await store.open_run(request()), store)
        _publish(sink, ChatDelta(text="one "))
        await _pieces(store, 1)
        first = await streamed_text(store, RUN)
        _publish(sink, ChatDelta(text="two "))
        sink.add(OTHER.key, "elsewhere", 1, ChatDelta(text="three "), is_gap=False)
        await _pieces(store, 3)
        assert _texts((await streamed_text(store, RUN, after=first.after)).pieces) == {"two ", "three "}
        assert _texts((await streamed_text(store, RUN, OTHER.key.hex())).pieces) == {"three "}
        last = await streamed_text(store, RUN)
        assert await streamed_text(store, RUN, after=last.after) == ((), last.after)

    @on_an_event_loop
    async def test_who_looks_at_one_call_gets_no_other_ones(self, store: Store) -> None:
        sink = await _sink(await store.open_run(request()), store, CALL.key.hex())
        assert sink.add(OTHER.key, "elsewhere", 1, ChatDelta(text="unseen "), is_gap=False) is False
        _publish(sink, ChatDelta(text="seen "))
        assert _texts(await _pieces(store, 1)) == {"seen "}

    @on_an_event_loop
    async def test_with_the_outcome_of_its_call_text_is_gone(self, store: Store) -> None:
        journal, written = await store.open_run(request()), Written(RUN)
        sink = await _sink(journal, store)
        _publish(sink, ChatDelta(text="The whole "))
        sink.add(OTHER.key, "elsewhere", 1, ChatDelta(text="other "), is_gap=False)
        await _pieces(store, 2)
        await written.call(journal, CALL)
        assert _texts((await streamed_text(store, RUN)).pieces) == {"other "}
        assert sink.add(CALL.key, ADDRESS, 1, ChatDelta(text="too late "), is_gap=False) is False
        await written.check(store)

    @on_an_event_loop
    async def test_what_is_still_on_its_way_when_the_outcome_comes_is_never_seen(self, store: Store) -> None:
        journal, written = await store.open_run(request()), Written(RUN)
        sink = await _sink(journal, store)
        _publish(sink, ChatDelta(text="The whole "))
        await written.call(journal, CALL)
        sink.add(OTHER.key, "elsewhere", 1, ChatDelta(text="other "), is_gap=False)
        assert _texts(await _pieces(store, 1)) == {"other "}

    @on_an_event_loop
    async def test_when_nobody_executes_the_run_any_more_there_is_no_text(self, store: Store) -> None:
        journal = await store.open_run(request())
        _publish(await _sink(journal, store), ChatDelta(text="The whole "))
        (piece,) = await _pieces(store, 1)
        assert piece.text == "The whole "
        await journal.close(STARTED)
        assert (await streamed_text(store, RUN)).pieces == ()
        assert await watch_text(store, RUN) is False

    @on_an_event_loop
    async def test_text_of_a_process_that_was_killed_is_gone_when_another_one_goes_on(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        sink = await _sink(journal, store)
        _publish(sink, ChatDelta(text="The whole "))
        await _pieces(store, 1)
        seen = await streamed_text(store, RUN)
        del journal, sink
        store = await self._crashed(store)
        journal = await self._taken_over(store)
        assert (await streamed_text(store, RUN)).pieces == ()
        _publish(await _sink(journal, store), ChatDelta(text="Once more "))
        pieces = await _pieces(store, 1, after=seen.after)
        assert [(each.text, each.position) for each in pieces] == [("Once more ", 0)]
        await journal.close(COMPLETED)

    @on_an_event_loop
    async def test_an_owner_that_was_taken_over_writes_no_text_any_more(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        sink = await _sink(journal, store)
        if not await self.silence(store, RUN):
            pytest.skip("silence() cannot keep the owner of a run from giving signs of life")
        successor = await self._taken_over(store)
        _publish(sink, ChatDelta(text="of the first "))
        _publish(await _sink(successor, store), ChatDelta(text="of the second "))
        assert _texts(await _pieces(store, 1)) == {"of the second "}

    @on_an_event_loop
    async def test_of_a_call_the_newest_text_is_kept_and_what_is_missing_is_marked(self, store: Store) -> None:
        sink = await _sink(await store.open_run(request()), store)
        _publish(sink, ChatDelta(text="the beginning "))
        await _pieces(store, 1)
        seen = await streamed_text(store, RUN)
        for number in range(40):
            _publish(sink, ChatDelta(text=f"{number:4} " * 1_000))
        pieces = await _until_text(store, "  39 ")
        assert 32 * 1024 < sum(len(piece.text) for piece in pieces) <= 64 * 1024
        _expect_gaps_where_positions_jump(pieces)
        assert any(piece.is_gap for piece in pieces)
        assert pieces[-1].position + len(pieces[-1].text) == 14 + 40 * 5_000
        later = (await streamed_text(store, RUN, after=seen.after)).pieces
        assert later[0].is_gap
        assert later == pieces[-len(later) :]

    @on_an_event_loop
    async def test_what_somebody_has_read_is_no_gap_when_it_is_dropped(self, store: Store) -> None:
        sink = await _sink(await store.open_run(request()), store)
        _publish(sink, ChatDelta(text="x" * 30_000 + " "))
        await _until_text(store, "x ")
        seen = await streamed_text(store, RUN)
        _publish(sink, ChatDelta(text="y" * 50_000 + " "))
        await _until_text(store, "y ")
        assert (await streamed_text(store, RUN)).pieces[0].is_gap
        later = (await streamed_text(store, RUN, after=seen.after)).pieces
        assert later[0].text[0] == "y"
        assert not any(piece.is_gap for piece in later)

    @on_an_event_loop
    async def test_text_that_came_while_nobody_looked_is_marked(self, store: Store) -> None:
        sink = await _sink(await store.open_run(request()), store)
        sink.add(CALL.key, ADDRESS, 1, ChatDelta(text="in the middle "), is_gap=True)
        (piece,) = await _pieces(store, 1)
        assert (piece.text, piece.is_gap) == (" the middle ", True), "the first word is not whole"

    @on_an_event_loop
    async def test_a_secret_is_not_seen_also_if_it_comes_in_two_pieces(self, store: Store) -> None:
        register_secret("door", "open sesame 99")
        try:
            sink = await _sink(await store.open_run(request()), store)
            _publish(sink, ChatDelta(text="say open ses"), ChatDelta(text="ame 99 "), ChatDelta(text="twice "))
            pieces = await _until_text(store, "twice ")
        finally:
            forget_secret("door")
        assert "".join(piece.text for piece in pieces) == "say <secret:door> twice "

    @on_an_event_loop
    async def test_text_is_no_part_of_a_copy_and_gone_with_the_run(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        sink = await _sink(journal, store)
        _publish(sink, ChatDelta(text="The whole "))
        await _pieces(store, 1)
        await store.fork_run(RUN, "copy", [], [])
        assert (await streamed_text(store, "copy")).pieces == ()
        await journal.close(STARTED)
        await store.delete_run(RUN)
        with pytest.raises(StoreError, match=RUN):
            await streamed_text(store, RUN)


def _streaming(journal: Journal) -> StreamingJournal:
    if not isinstance(journal, StreamingJournal):
        pytest.skip("its journals do not take text of calls under way")
    return journal


async def _sink(journal: Journal, looking: Store, key: str | None = None) -> TextSink:
    """What takes text of the run, as soon as its owner knows that somebody looks."""
    sinks: list[TextSink | None] = []
    _streaming(journal).stream_with(sinks.append)

    async def told() -> TextSink | None:
        return sinks[-1] if sinks else None

    assert await told() is None or key is None, "nobody looks yet"
    assert await watch_text(looking, RUN, key)
    return await until(told)


def _publish(sink: TextSink, *deltas: ChatDelta) -> None:
    for delta in deltas:
        assert sink.add(CALL.key, ADDRESS, 1, delta, is_gap=False)


async def _pieces(store: Store, count: int, after: str = "") -> tuple[StreamedPiece, ...]:
    """The text of calls under way, when there are so many pieces."""

    async def enough() -> tuple[StreamedPiece, ...] | None:
        pieces = (await streamed_text(store, RUN, after=after)).pieces
        return pieces if len(pieces) >= count else None

    pieces = await until(enough)
    assert len(pieces) == count
    return pieces


async def _until_text(store: Store, end: str) -> tuple[StreamedPiece, ...]:
    """The text of calls under way, when it ends so."""

    async def ended() -> tuple[StreamedPiece, ...] | None:
        pieces = (await streamed_text(store, RUN)).pieces
        return pieces if pieces and pieces[-1].text.endswith(end) else None

    return await until(ended)


def _expect_gaps_where_positions_jump(pieces: Sequence[StreamedPiece]) -> None:
    end = 0
    for piece in pieces:
        assert piece.is_gap is (piece.position > end)
        end = piece.position + len(piece.text)


def _texts(pieces: Sequence[StreamedPiece]) -> set[str]:
    return {piece.text for piece in pieces}
