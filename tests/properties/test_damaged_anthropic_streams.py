"""Streams of Anthropic's that are cut at every byte, come in any pieces, and miss, repeat or exchange events."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents.core.chat import ChatResponse
from rh_agents.core.errors import IncompleteAnswer, ModelError
from tests.services.anthropic_server import events, message, stream, text, thinking, tool_use

pytest.importorskip("anthropic", reason="anthropic is not installed: pip install 'rh_agents[anthropic]'")

from rh_agents.llms._anthropic_answer import AnswerInPieces
from rh_agents.llms._server_json import read_json
from rh_agents.llms._sse import server_events

ANSWER = message(
    thinking("Hm, ü."), text("Hello.\u2028\n\n"), tool_use("a", "f", x=1, deep={"y": ["z"]}), tool_use("b", "g")
)
DATA = stream(events(ANSWER)).data


async def reading(pieces: list[bytes]) -> ChatResponse:
    """What comes of a stream.

    Raises:
        ModelError: it is not sound.
    """

    async def sent() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    answer = AnswerInPieces("claude")
    async for event in server_events(sent()):
        answer.add(read_json(event.data))
        if answer.is_whole:
            return answer.whole()
    raise IncompleteAnswer("the stream broke off")


def read(pieces: list[bytes]) -> ChatResponse:
    """The same, in an event loop of its own."""
    return asyncio.run(reading(pieces))


WHOLE = read([DATA])


def test_the_undamaged_stream_gives_what_was_answered() -> None:
    assert (WHOLE.text, WHOLE.reasoning) == ("Hello.\u2028\n\n", "Hm, ü.")
    assert [(call.id, json.loads(call.arguments)) for call in WHOLE.tool_calls] == [
        ("a", {"x": 1, "deep": {"y": ["z"]}}),
        ("b", {}),
    ]


def test_a_stream_that_is_cut_at_any_byte_is_whole_only_if_its_last_event_has_come() -> None:
    async def main() -> None:
        for length in range(len(DATA) + 1):
            is_over = b'"message_stop"}' in DATA[:length]
            try:
                found = await reading([DATA[:length]])
            except ModelError:
                assert not is_over, length
            else:
                assert is_over, length
                assert found == WHOLE

    asyncio.run(main())


@given(st.lists(st.integers(0, len(DATA)), max_size=8))
def test_in_whatever_pieces_a_stream_comes_it_is_the_same_answer(places: list[int]) -> None:
    edges = [0, *sorted(places), len(DATA)]
    assert read([DATA[start:end] for start, end in itertools.pairwise(edges)]) == WHOLE


SOUND = events(ANSWER)


@given(st.integers(0, len(SOUND) - 1), st.integers(0, len(SOUND) - 1), st.sampled_from(["miss", "repeat", "exchange"]))
def test_events_that_are_missing_repeated_or_out_of_order_never_join_what_does_not_belong_together(
    first: int, second: int, damage: str
) -> None:
    found = list(SOUND)
    if damage == "miss":
        del found[first]
    elif damage == "repeat":
        found.insert(second, found[first])
    else:
        found[first], found[second] = found[second], found[first]
    try:
        answer = read([stream(found).data])
    except ModelError:
        return
    assert [call.name for call in answer.tool_calls] == ["f", "g"][: len(answer.tool_calls)]
    for call, sound in zip(answer.tool_calls, WHOLE.tool_calls, strict=False):
        assert (call.id, call.name) == (sound.id, sound.name)


@given(st.integers(0, len(DATA) - 1), st.integers(0, 255))
def test_one_byte_that_is_another_one_raises_nothing_but_errors_of_models(place: int, byte: int) -> None:
    with contextlib.suppress(ModelError):
        read([DATA[:place] + bytes([byte]) + DATA[place + 1 :]])
