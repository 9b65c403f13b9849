"""Streams of every provider, cut, split, reordered and damaged at every byte.

Never a wrong tool call, never a wrong answer. What cannot be seen is left out: a letter that became another one inside
of a text is for TLS to find. So damage is done with bytes that no JSON has, and reordering with whole events.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from rh_agents.core.chat import ChatDelta, ChatRequest, ChatResponse, Message
from rh_agents.core.errors import ModelError
from tests.services.dialects.all_of_them import DIALECTS
from tests.services.dialects.kit import ANSWER, CITIES, Dialect, Says, Wanted

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")
pytest.importorskip("anthropic", reason="anthropic is not installed: pip install 'rh_agents[anthropic]'")

from rh_agents.llms import AnthropicChat, OpenAIChat
from rh_agents.llms._sse import ServerEvent, server_events
from tests.services.streams import transport

Outcome = ChatResponse | ModelError
REQUEST = ChatRequest(model="m", messages=(Message.user("Which is larger?"),))
WANTED = [Wanted("population", {"city": city}) for city in CITIES]
QUICK, EVERY_BYTE = 797, 1
"""How many bytes lie between two places that are tried."""


def recordings(dialect: Dialect) -> list[Says]:
    return [dialect.says(ANSWER), dialect.calls(WANTED)]


Hear = Callable[[Dialect, Sequence[Sequence[bytes]]], list[Outcome]]


@pytest.fixture(scope="module")
def hear() -> Iterator[Hear]:
    """What is made of each of these streams, by one client: to make one takes longer than to read a hundred streams."""
    chat = OpenAIChat("m", base_url="http://127.0.0.1/v1", api_key="key", retry=None)
    others = {"Anthropic": AnthropicChat("m", "http://127.0.0.1", "key", retry=None)}
    with transport() as served, asyncio.Runner() as runner:

        async def outcomes(dialect: Dialect, bodies: Sequence[Sequence[bytes]]) -> list[Outcome]:
            model = others.get(dialect.name, chat)
            found: list[Outcome] = []
            for pieces in bodies:
                served.pieces = pieces
                try:
                    found.append(await model.complete(REQUEST, nobody))
                except ModelError as error:
                    found.append(error)
            return found

        yield lambda dialect, bodies: runner.run(outcomes(dialect, bodies))


async def nobody(delta: ChatDelta) -> None:
    """Nobody listens."""


def calls_in(response: ChatResponse) -> list[tuple[str, Any]]:
    """The tool calls that would be made: those whose arguments are an object."""
    made = []
    for call in response.tool_calls:
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            continue
        if isinstance(arguments, dict):
            made.append((call.name, arguments))
    return made


def whole(hear: Hear, dialect: Dialect, says: Says) -> ChatResponse:
    (found,) = hear(dialect, [[says.stream]])
    assert isinstance(found, ChatResponse), found
    return found


def check(hear: Hear, dialect: Dialect, damaged: Callable[[bytes], list[list[bytes]]]) -> None:
    """Each of these streams is an error that says so, or the very answer that was given."""
    for says in recordings(dialect):
        expected = whole(hear, dialect, says)
        bodies = damaged(says.stream)
        for body, outcome in zip(bodies, hear(dialect, bodies), strict=True):
            assert isinstance(outcome, ModelError) or outcome == expected, (b"".join(body)[-300:], outcome)


def every(step: int, stream: bytes) -> range:
    """Places in a stream, other ones in each that has another length."""
    return range(len(stream) % step, len(stream), step)


STEPS = pytest.mark.parametrize("step", [QUICK, pytest.param(EVERY_BYTE, marks=pytest.mark.slow)])
ALL = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))


@ALL
@STEPS
def test_a_stream_that_is_cut_anywhere_is_an_error_or_the_answer(hear: Hear, dialect: Dialect, step: int) -> None:
    check(hear, dialect, lambda stream: [[stream[:end]] for end in every(step, stream)])


@ALL
@STEPS
def test_a_byte_that_no_json_has_is_an_error_or_changes_nothing(hear: Hear, dialect: Dialect, step: int) -> None:
    check(
        hear,
        dialect,
        lambda stream: [
            [stream[:at] + bad + stream[at + 1 :]] for at in every(step, stream) for bad in (b"\0", b"\xff")
        ],
    )


@ALL
def test_neither_the_sizes_of_pieces_nor_line_ends_nor_comments_matter(hear: Hear, dialect: Dialect) -> None:
    def disguised(stream: bytes) -> list[list[bytes]]:
        returns, windows = stream.replace(b"\n", b"\r"), stream.replace(b"\n", b"\r\n")
        busy = stream.replace(b"\n\n", b"\n\n: busy\n\nevent: message\nid: 1\nretry: 3\n")
        forms = [stream, returns, windows, b"\xef\xbb\xbf" + stream, busy, stream.replace(b"data: ", b"data:")]
        return [[form[start : start + size] for start in range(0, len(form), size)] for form in forms for size in (61,)]

    for says in recordings(dialect):
        expected = whole(hear, dialect, says)
        for outcome in hear(dialect, disguised(says.stream)):
            assert outcome == expected


@ALL
@pytest.mark.parametrize("most", [24, pytest.param(10_000, marks=pytest.mark.slow)])
def test_events_reordered_lost_or_doubled_give_no_tool_what_is_another_ones(
    hear: Hear, dialect: Dialect, most: int
) -> None:
    """What is lost inside of a text cannot be seen; that two calls were mixed can."""
    events = [event + b"\n\n" for event in dialect.calls(WANTED).stream.split(b"\n\n") if event]
    forms = []
    for at in range(len(events)):
        forms.append([*events[:at], *events[at + 1 :]])
        forms.append([*events[:at], events[at], *events[at:]])
        forms.append([*events[:at], *events[at : at + 2][::-1], *events[at + 2 :]])
    pieces = {json.dumps(dict(each.arguments), sort_keys=True) for each in WANTED}
    forms = random.Random(dialect.name).sample(forms, min(most, len(forms)))
    for form, outcome in zip(forms, hear(dialect, forms), strict=True):
        for name, arguments in calls_in(outcome) if isinstance(outcome, ChatResponse) else ():
            city = str(arguments.get("city", ""))
            assert name == "population"
            fits = json.dumps(arguments, sort_keys=True) in pieces or any(set(city) <= set(each) for each in CITIES)
            assert fits, (b"".join(form), arguments)


# -- odd values -------------------------------------------------------------------------------------------------------

ODD: list[Any] = [None, 0, -1, 1.5, True, "", "x", [], [None], ["x"], {}, {"a": 1}, [{}], 10**30, "stop"]
GONE = object()


def places_in(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a piece of JSON."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*place, key)
        yield from places_in(each, (*place, key))


def put(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    """The same with something else at a place, or without what stands there."""
    key, *rest = place
    changed = copy.copy(value)
    if rest:
        changed[key] = put(value[key], tuple(rest), odd)
    elif odd is GONE:
        del changed[key]
    else:
        changed[key] = odd
    return changed


def tells_usage(events: list[Any], place: tuple[Any, ...]) -> bool:
    """Whether a place is part of what is told about usage, or has that in it."""
    value: Any = events
    for key in place:
        value = value[key]
    return bool({"usage", "x_groq"} & {*place, *(key for inner in places_in(value) for key in inner)})


@ALL
@pytest.mark.parametrize("count", [8, pytest.param(400, marks=pytest.mark.slow)])
def test_an_odd_value_anywhere_is_an_error_by_kind_or_an_answer_with_its_usage(
    hear: Hear, dialect: Dialect, count: int
) -> None:
    chance = random.Random(dialect.name)
    for says in recordings(dialect):
        whole_usage = whole(hear, dialect, says).usage
        events = [json.loads(line[6:]) for line in says.stream.splitlines() if line.startswith(b"data: {")]
        places = [place for place in places_in(events) if len(place) > 1 and not tells_usage(events, place)]
        chosen = chance.choices(places, k=count)
        bodies = []
        for place in chosen:
            odd = put(events, place, chance.choice([*ODD, GONE]))
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in odd)
            bodies.append([f"{text}data: [DONE]\n\n".encode()])
        for place, outcome in zip(chosen, hear(dialect, bodies), strict=True):
            if isinstance(outcome, ChatResponse):
                assert outcome.usage == whole_usage, place


# -- the events themselves --------------------------------------------------------------------------------------------


def events_in(pieces: Sequence[bytes]) -> list[ServerEvent]:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def main() -> list[ServerEvent]:
        return [event async for event in server_events(stream())]

    reading = main()
    try:
        reading.send(None)
    except StopIteration as end:
        return list(end.value)
    raise AssertionError("nothing here waits")


STREAM = (
    b"\xef\xbb\xbfdata: a\r\ndata:b\r\n\r\n: busy\n\nevent: error\ndata:  c\n\nid: 7\n\ndata\n\r"
    b"data: \xc3\xa9\r\r\ndata: [DONE]"
)


def test_events_are_the_same_wherever_their_bytes_are_split() -> None:
    expected = [
        ServerEvent("", b"a\nb"),
        ServerEvent("error", b" c"),
        ServerEvent("", b""),
        ServerEvent("", b"\xc3\xa9"),
        ServerEvent("", b"[DONE]"),
    ]
    for first in range(len(STREAM) + 1):
        for second in range(first, len(STREAM) + 1, 3):
            assert events_in([STREAM[:first], STREAM[first:second], STREAM[second:]]) == expected


def test_a_line_of_many_pieces_is_joined_once() -> None:
    line = b"x" * 80_000
    assert events_in([b"data: ", *(line[at : at + 4] for at in range(0, len(line), 4)), b"\n\n"]) == [
        ServerEvent("", line)
    ]


@pytest.mark.parametrize("bad", [b"\0", b"\xff", b" "])
def test_an_event_whose_name_has_swallowed_its_data_is_not_passed_over(hear: Hear, bad: bytes) -> None:
    """Without its data it would be no event, and nothing would say that a piece of the answer is missing."""
    dialect = DIALECTS["Anthropic"]
    for says in recordings(dialect):
        begun = [at for at in range(len(says.stream)) if says.stream.startswith(b"\ndata:", at)]
        bodies = [[says.stream[:at] + bad + says.stream[at + 1 :]] for at in begun]
        assert bodies
        assert all(isinstance(outcome, ModelError) for outcome in hear(dialect, bodies))


def test_an_error_that_is_no_event_is_told_all_the_same(hear: Hear) -> None:
    begin = DIALECTS["OpenAI"].says(ANSWER).stream[:900].rpartition(b"\n\n")[0] + b"\n\n"
    named, bare, in_the_event = hear(
        DIALECTS["OpenAI"],
        [
            [begin, b'event: error\ndata: {"error": {"message": "the engine died"}}\n\n'],
            [begin, b'{"error": {"message": "the engine died"}}\n'],
            [begin, b'event: error\ndata: {"message": "the engine died"}\n\n'],
        ],
    )
    for outcome in (named, bare, in_the_event):
        assert isinstance(outcome, ModelError)
        assert "the engine died" in str(outcome)
