"""Events as server-sent events."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from typing import Any

import pytest

from rh_agents import ExecutionStatus
from rh_agents.bus_handlers import EventStreamer
from rh_agents.core.errors import UsageError
from rh_agents.display.streamer import event_json
from tests.adapters.display_kit import call, group_ended, member

STARTED, COMPLETED = ExecutionStatus.STARTED, ExecutionStatus.COMPLETED


def read(streamer: EventStreamer) -> list[str]:
    async def read_all() -> list[str]:
        return [chunk async for chunk in streamer.stream()]

    return asyncio.run(read_all())


def data(chunk: str) -> Any:
    return json.loads(chunk.split("data: ", 1)[1])


def test_events_become_the_text_of_server_sent_events() -> None:
    streamer = EventStreamer()
    streamer(call(STARTED))
    streamer(member(COMPLETED, 3, result="two\nlines"))
    streamer(group_ended())
    streamer.close()
    chunks = read(streamer)
    assert [chunk.split("\n", 1)[0] for chunk in chunks] == [
        "event: tool_call",
        "event: tool_call",
        "event: group_completed",
    ]
    assert all(chunk.endswith("\n\n") and chunk.count("\n") == 3 for chunk in chunks)
    assert data(chunks[1])["result"] == "two\nlines"
    assert data(chunks[2])["group"]["status"] == "completed"


def test_a_full_buffer_drops_the_oldest_and_tells_how_many() -> None:
    streamer = EventStreamer(buffer=2)
    for index in range(5):
        streamer(member(STARTED, index))
    streamer.close()
    chunks = read(streamer)
    assert chunks[0] == 'event: dropped\ndata: {"dropped": 3}\n\n'
    assert [data(chunk)["parallel_index"] for chunk in chunks[1:]] == [3, 4]
    assert streamer.dropped == 3


def test_the_reader_waits_for_events_and_ends_when_the_streamer_is_closed() -> None:
    async def scenario() -> list[str]:
        streamer = EventStreamer()
        seen: list[str] = []

        async def reader() -> None:
            seen.extend([chunk async for chunk in streamer.stream()])

        task = asyncio.create_task(reader())
        for index in range(3):
            await asyncio.sleep(0)
            streamer(member(STARTED, index))
        await asyncio.sleep(0)
        streamer.close()
        await task
        streamer(member(STARTED, 9))
        return seen

    assert [data(chunk)["parallel_index"] for chunk in asyncio.run(scenario())] == [0, 1, 2]


def test_events_may_come_from_another_thread() -> None:
    async def scenario() -> str:
        streamer = EventStreamer()
        chunks = streamer.stream()
        first = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        thread = threading.Thread(target=streamer, args=(call(STARTED),))
        thread.start()
        thread.join()
        async with asyncio.timeout(10):
            chunk = await first
        await chunks.aclose()
        return chunk

    # In debug mode, the loop refuses what may only be done in its own thread.
    assert asyncio.run(scenario(), debug=True).startswith("event: tool_call")


def test_a_second_reader_is_told_to_bring_a_streamer_of_its_own() -> None:
    async def scenario() -> None:
        streamer = EventStreamer()
        streamer(call(STARTED))
        first = streamer.stream()
        await anext(first)
        with pytest.raises(UsageError, match="another EventStreamer"):
            await anext(streamer.stream())
        await first.aclose()
        streamer(call(STARTED))
        second = streamer.stream()
        await anext(second)
        await second.aclose()

    asyncio.run(scenario())


def test_a_buffer_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer=0"):
        EventStreamer(buffer=0)


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ({"a": [1, None]}, {"a": [1, None]}),
        (Opaque(), "<opaque>"),
        ([Opaque()], "[<opaque>]"),
        (ValueError("no"), "ValueError('no')"),
        (b"\xff", r"b'\xff'"),
        ("\ud800", r"'\ud800'"),
        (math.nan, None),
    ],
)
def test_a_result_without_a_json_form_is_given_as_its_repr(result: object, shown: object) -> None:
    assert json.loads(event_json(call(COMPLETED, result=result)))["result"] == shown


def test_a_result_that_contains_itself_is_given_as_its_repr() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert "..." in json.loads(event_json(call(COMPLETED, result=circle)))["result"]


def test_a_name_that_cannot_be_encoded_is_given_escaped() -> None:
    assert json.loads(event_json(member(STARTED, name="\ud800")))["name"] == r"\ud800"
