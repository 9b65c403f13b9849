"""Streams of one run over HTTP: everything, for programs, and text of one call, for its page."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from rh_agents import ExecutionState, MemoryStore, tell_progress, tool
from rh_agents.core.chat import ChatDelta
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Question
from rh_agents.core.redaction import forget_secret, register_secret
from rh_agents.testing import JumpingClock, ScriptedLLM
from tests.surfaces.web_kit import browser, memory, recorded

Message = dict[str, Any]


@tool
async def write(words: int) -> str:
    for number in range(words):
        await tell_progress(ChatDelta(text=f"{number} "))
        await asyncio.sleep(1)
    return "done"


def messages(text: str) -> list[Message]:
    """Server-sent events by their fields; the data is read. Comments and `retry` are left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith((":", "retry")))
        if fields:
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


def texts(found: list[Message]) -> str:
    return "".join(piece["text"] for each in found if each["event"] == "text" for piece in each["data"]["pieces"])


async def streamed(client: httpx2.AsyncClient, path: str, after: str = "", **given: str) -> list[Message]:
    headers = {"last-event-id": after} if after else {}
    response = await client.get(path, params={"run": "monday", **given}, headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    return messages(response.text)


def test_programs_get_events_and_text_until_the_run_is_over_and_can_go_on_behind_any_of_it() -> None:
    async def main() -> None:
        store = MemoryStore(clock=clock)
        async with browser(store) as client:
            async with ExecutionState(store=store, run_id="monday", clock=clock):
                following = asyncio.ensure_future(streamed(client, "/events"))
                await asyncio.sleep(0.1)
                await write(5)
            found = await following
            assert [each["event"] for each in found if each["event"] != "text"] == ["event", "event", "end"]
            assert found[-1]["data"] == {"status": "completed"}
            assert texts(found) == "0 1 2 3 4 "
            assert found[0]["data"]["sequence"] == 1
            assert found[0]["data"]["event"]["address"] == "write"
            last = next(each for each in reversed(found) if each["event"] == "event")
            assert last["data"]["event"]["result"] == "done"
            for each in found:
                rest = await streamed(client, "/events", each["id"])
                assert [other["event"] for other in rest][-1] == "end"
                assert all(other["data"].get("sequence", 9) > int(each["id"].split("/")[0]) for other in rest)

    clock = JumpingClock()
    clock.run(main())


def test_programs_get_events_of_ag_ui_if_they_ask_for_them() -> None:
    async def main() -> None:
        store = memory()
        async with ExecutionState(store=store, run_id="monday"):
            await ScriptedLLM(["The sky is blue."])("What is blue?")
        async with browser(store) as client:
            response = await client.get("/events", params={"run": "monday", "format": "ag-ui"})
            found = [each["data"] for each in messages(response.text)]
            assert [each["type"] for each in found] == [
                "RUN_STARTED",
                "TEXT_MESSAGE_START",
                "TEXT_MESSAGE_CONTENT",
                "TEXT_MESSAGE_END",
                "RUN_FINISHED",
            ]
            refused = await client.get("/events", params={"run": "monday", "format": "morse"})
            assert (refused.status_code, "ag-ui" in refused.text) == (400, True)

    asyncio.run(main())


def test_a_run_that_is_not_there_is_said_so_and_a_wrong_place_is_refused() -> None:
    async def main() -> None:
        store = memory()
        await recorded(store)
        async with browser(store) as client:
            assert (await client.get("/events", params={"run": "tuesday"})).status_code == 404
            assert (await client.get("/events")).status_code == 400
            (gone,) = await streamed(client, "/events", "x")
            assert (gone["event"], "after='x'" in gone["data"]["error"]) == ("gone", True)

    asyncio.run(main())


def test_a_run_that_cannot_be_read_ends_a_stream_with_the_reason() -> None:
    class Damaged(MemoryStore):
        async def questions(self, run_id: str | None = None, *, is_open: bool = True) -> list[Question]:
            raise StoreError("a row is damaged")

    async def main() -> None:
        store = Damaged()
        async with ExecutionState(store=store, run_id="monday"):
            await write(0)
        async with browser(store) as client:
            response = await client.get("/events", params={"run": "monday", "format": "ag-ui"})
            *_, last = [each["data"] for each in messages(response.text)]
            assert last == {"type": "RUN_ERROR", "message": "a row is damaged", "code": "unreadable"}

    asyncio.run(main())


@pytest.mark.parametrize("viewers", [1, 5])
def test_the_page_of_a_call_gets_its_text_at_most_four_times_a_second_until_its_outcome_is_there(viewers: int) -> None:
    async def main() -> None:
        store = MemoryStore(clock=clock)
        async with browser(store) as client, ExecutionState(store=store, run_id="monday", clock=clock):
            writing = asyncio.ensure_future(write(20))
            await asyncio.sleep(0.1)
            (key,) = [each.event.key async for each in store.events("monday")]
            assert key is not None
            following = [asyncio.ensure_future(streamed(client, "/api/call/text", key=key)) for _ in range(viewers)]
            await writing
            await asyncio.sleep(3)
            for each in following:
                assert each.done(), "the outcome is there, though the run goes on"
                found = each.result()
                assert [each["event"] for each in found[:-1]] == ["text"] * (len(found) - 1)
                assert found[-1]["event"] == "done"
                assert texts(found) == "".join(f"{number} " for number in range(1, 20))[1:]
                assert len(found) <= 21 * 4
                first = found[0]["data"]["pieces"][0]
                assert (first["attempt"], first["kind"], first["is_gap"]) == (1, "text", True)

    clock = JumpingClock()
    clock.run(main())


def test_of_a_call_that_has_ended_there_is_no_text() -> None:
    async def main() -> None:
        store = memory()
        await recorded(store)
        async with browser(store) as client:
            (key, *_) = [each.event.key async for each in store.events("monday") if each.event.key]
            assert key is not None
            assert [each["event"] for each in await streamed(client, "/api/call/text", key=key)] == ["done"]
            refused = await client.get("/api/call/text", params={"run": "monday", "key": "no key"})
            assert (refused.status_code, "64 hexadecimal digits" in refused.json()["error"]) == (400, True)

    asyncio.run(main())


def test_no_secret_is_in_any_stream() -> None:
    async def main() -> None:
        store = memory()
        async with ExecutionState(store=store, run_id="monday"):
            await ScriptedLLM(["say open sesame 99"])("open sesame 99")
        async with browser(store) as client:
            for written in ("", "ag-ui"):
                response = await client.get("/events", params={"run": "monday", "format": written})
                assert "<secret:door>" in response.text
                assert "sesame" not in response.text

    register_secret("door", "open sesame 99")
    try:
        asyncio.run(main())
    finally:
        forget_secret("door")
