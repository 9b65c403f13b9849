"""What a stranger's text, or a request that no page makes, does to the page: nothing, or one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import sqlite3
from pathlib import Path

import pytest

from rh_agents import ExecutionState, parallel, tool
from rh_agents.core.errors import RunAwaiting, UsageError
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.web.json_text import json_text
from tests.surfaces.web_kit import browser, memory, post, recorded, served

HALF = "x\ud800y"
"""Half of a surrogate pair, as JSON of a server may have it."""


@tool
async def told(text: str) -> str:
    return text


@pytest.mark.parametrize("path", ["run", "calls", "calls.csv", "plan", "export", "runs", "../events"])
def test_half_of_a_surrogate_pair_in_a_run_hides_nothing_of_the_page(path: str, tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "runs.db")
        async with ExecutionState(store=store, run_id="monday", tags=[HALF]), parallel(name=HALF) as group:
            group.add(told(HALF))
            await group.gather()
        async with browser(store) as client:
            found = await client.get(f"/api/{path}", params={"run": "monday"})
            assert found.status_code == 200
            assert found.text

    asyncio.run(main())


def test_a_pair_of_surrogates_is_the_letter_that_it_stands_for() -> None:
    assert json.loads(json_text({HALF: ["\ud83d\ude00", HALF]})) == {"x\ufffdy": ["\U0001f600", "x\ufffdy"]}


@pytest.mark.parametrize("path", ["call", "call/value?as=file", "call/children", "call/text"])
@pytest.mark.parametrize("spoilt", [" {}", "{}\r\n", "\r\nx: y{}", "", "zz", "{}00"])
def test_what_is_not_the_key_of_a_call_is_refused(path: str, spoilt: str) -> None:
    async def main() -> None:
        store = memory()
        await recorded(store)
        async with browser(store) as client:
            (call, *_) = (await client.get("/api/calls", params={"run": "monday"})).json()["calls"]
            found = await client.get(f"/api/{path}", params={"run": "monday", "key": spoilt.format(call["key"])})
            assert found.status_code == 400
            assert "key" in found.json()["error"]

    asyncio.run(main())


NO_PLACES = (
    "x", "[" * 5000, "{}", "[1]", "[1, 2, 3]", "[null, 1]", "[[], 1]", "[NaN, 1]", "[1, 1.5]", "[1, -1]",
    f"[1, {10**30}]", f"[{10**30}, 1]", f"[-{10**30}, 1]", '["a", "b"]',
)  # fmt: skip


def test_a_place_that_no_window_gives_is_refused_and_nothing_is_called_damaged(tmp_path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(tmp_path / "runs.db")
        await recorded(store)
        async with browser(store) as client:
            (call, *_) = (await client.get("/api/calls", params={"run": "monday"})).json()["calls"]
            for after in NO_PLACES:
                for order in ("journal", "seconds", "attempts", "address"):
                    wanted = {"run": "monday", "key": call["key"], "order": order, "after": after}
                    for path in ("/api/calls", "/api/call/children"):
                        found = await client.get(path, params=wanted)
                        assert (found.status_code, "`next` of a window" in found.text) == (400, True), (path, wanted)
            half = {"run": "monday", "order": "address", "after": '["\\ud800", 1]'}
            assert (await client.get("/api/calls", params=half)).status_code == 400
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/events?run=monday", "/api/run/events?run=monday", "/api/runs/events"])
@pytest.mark.parametrize("after", ["1/\nevent: gone\ndata: 1", "9" * 5000, "\u00b2", "1\x00"])
def test_an_id_that_no_stream_gives_is_refused_before_the_stream_begins(path: str, after: str) -> None:
    async def main() -> None:
        store = memory()
        await recorded(store)
        async with browser(store) as client:
            found = await asyncio.wait_for(client.get(path, params={"run": "monday", "after": after}), 5)
            assert found.status_code == 400

    asyncio.run(main())


def test_a_number_that_no_event_has_is_no_place_in_a_stream() -> None:
    async def main() -> None:
        store = memory()
        await recorded(store)
        async with browser(store) as client:
            found = await client.get("/events", params={"run": "monday", "after": "9" * 19})
            assert "names nothing that was given" in found.text

    asyncio.run(main())


def test_the_csv_of_a_run_that_is_not_there_is_an_error_and_no_file() -> None:
    async def main() -> None:
        async with browser(memory()) as client:
            found = await client.get("/api/calls.csv", params={"run": "never"})
            assert found.status_code == 409
            assert "never" in found.json()["error"]

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/api/act", "/api/answer"])
def test_json_that_is_nested_too_deep_is_refused(path: str) -> None:
    async def main() -> None:
        async with browser(memory()) as client:
            headers = {"origin": str(client.base_url), "content-type": "application/json"}
            found = await client.post(path, content="[" * 200_000, headers=headers)
            assert found.status_code == 400

    asyncio.run(main())


def test_a_body_in_chunks_is_refused_whatever_size_it_says() -> None:
    async def main() -> None:
        async with browser(memory()) as client:
            found = await post(client, "/api/act", {}, **{"transfer-encoding": "chunked", "content-length": "2"})
            assert found.status_code == 413

    asyncio.run(main())


@pytest.mark.parametrize(
    "body", ['{"run": "monday", "id": "x", "answer": "\\ud800"}', f'{{"answer": {"[" * 500 + "]" * 500}}}']
)
def test_what_cannot_be_stored_is_refused_in_one_sentence(body: str) -> None:
    async def main() -> None:
        async with browser(memory()) as client:
            headers = {"origin": str(client.base_url), "content-type": "application/json"}
            found = await client.post("/api/answer", content=body, headers=headers)
            assert (found.status_code, "cannot be stored" in found.json()["error"]) == (400, True)

    asyncio.run(main())


def test_an_event_is_on_one_line_also_for_clients_that_know_other_line_ends() -> None:
    async def main() -> None:
        store = memory()
        async with ExecutionState(store=store, run_id="monday"):
            await told("a\u2028b\x85c")
        async with browser(store) as client:
            text = (await client.get("/events", params={"run": "monday"})).text
            results = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
            assert "a\u2028b\x85c" in [each.get("event", {}).get("result") for each in results]

    asyncio.run(main())


def test_an_exported_run_with_a_name_like_a_credential_asks_for_what_is_in_the_file_and_does_not_show_it() -> None:
    name = "run sk-ant-abcdefghijklmnopqrstuvwxyz0123456789"

    async def main() -> None:
        store = memory()
        await recorded(store, name)
        async with browser(store) as client:
            text = (await client.get("/api/export", params={"run": name})).text
            assert "sk-ant-" not in text
            assert '"run?run=run%20***"' in text
            assert "#/run/run%20%2A%2A%2A" in text

    asyncio.run(main())


@pytest.mark.parametrize("damage", ["update question set text = 'spoilt'", "update control set reason = 'spoilt'"])
def test_a_damaged_question_or_request_leaves_the_rest_of_the_page(damage: str, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "runs.db"
        store = SqliteStore(path)
        with pytest.raises(RunAwaiting):
            async with ExecutionState(store=store, run_id="monday") as state:
                await store.control("monday").set({"retry": 5}, reason="busy")
                await state.ask("Go on?", bool)
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            assert database.execute(damage).rowcount == 1
        async with browser(store) as client:
            found = (await client.get("/api/run", params={"run": "monday"})).json()
            assert "is damaged" in found["problem"]
            assert (found["run"]["status"], found["totals"]["outcomes"]) == ("waiting", 0)
            listed = (await client.get("/api/runs")).json()
            assert [run["run_id"] for run in listed["runs"]] == ["monday"]
            assert (listed["problem"] is not None) == ("question" in damage)
            assert listed["runs"][0]["questions"] == (None if "question" in damage else 1), "which is not none"

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/api/runs/events", "/api/run/events", "/events", "/api/call/text"])
def test_only_the_head_of_a_stream_ends_at_once(path: str) -> None:
    async def main() -> None:
        async with browser(store := memory()) as client, ExecutionState(store=store, run_id="monday"):
            found = await asyncio.wait_for(client.head(path, params={"run": "monday", "key": "0" * 64}), 5)
            assert (found.status_code, found.content) == (200, b"")
            assert found.headers["content-type"].startswith("text/event-stream")

    asyncio.run(main())


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_name_that_a_spreadsheet_takes_for_a_formula_is_text_in_csv(first: str) -> None:
    async def main() -> None:
        async with browser(store := memory()) as client:
            async with ExecutionState(store=store, run_id="monday"), parallel(name=f"{first}1+1") as group:
                group.add(told("a"))
                await group.gather()
            (row,) = csv.DictReader(io.StringIO((await client.get("/api/calls.csv", params={"run": "monday"})).text))
            assert row["address"].startswith("'")

    asyncio.run(main())


def test_no_address_is_not_every_address() -> None:
    async def main() -> None:
        async with served(memory(), host=""):
            pytest.fail("it listens")

    with pytest.raises(UsageError, match="is missing"):
        asyncio.run(main())
