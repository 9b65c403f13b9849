"""What the page gets from its server, and what it can ask for."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest

from rh_agents import ExecutionState, Injected, MemoryStore, Secret, open_store, parallel, report_usage, tool
from rh_agents.core.errors import RunAwaiting
from rh_agents.core.ports import Store
from rh_agents.core.redaction import forget_secret
from rh_agents.core.usage import Usage
from rh_agents.testing import JumpingClock
from rh_agents.web.json_text import json_text
from rh_agents.web.reading import Reading
from tests.surfaces.web_kit import browser, fetch, memory, post, recorded

Client = httpx2.AsyncClient


def looking(work: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    """Do something in a browser at a store with one run."""

    async def main() -> None:
        store = memory()
        await recorded(store)
        async with browser(store, **options) as client:
            await work(client)

    asyncio.run(main())


def test_a_run_says_how_it_stands_what_failed_and_where_the_money_went() -> None:
    async def work(client: Client) -> None:
        page = (await client.get("/api/run", params={"run": "monday"})).json()
        assert page["run"]["status"] == "completed"
        assert page["run"]["tags"] == ["nightly"]
        assert page["totals"]["failed"] == 1
        assert page["totals"]["usage"]["cost"] == pytest.approx(0.02)
        assert [(group["name"], group["done"], group["failed"]) for group in page["groups"]["groups"]] == [
            ("pages", 2, 1)
        ]
        assert [actor["name"] for actor in page["actors"]] == ["fetch", "survey"]
        assert "broken is not there" in json.dumps(page["failures"])
        assert page["problem"] is None
        buckets = [counts for piece in page["timeline"]["pieces"] for counts in piece["buckets"]]
        assert [sum(counts) for counts in zip(*buckets, strict=True)][:3] == [3, 1, 1]
        (lane,) = page["lanes"]["lanes"]
        assert (lane["name"], lane["groups"]) == ("survey::pages", 1)
        assert [sum(lane["cells"][1 + at :: 5]) for at in range(3)] == [2, 1, 1]
        assert [(kind["count"], kind["text"]) for kind in page["kinds"]] == [
            (1, "ConnectionError: broken is not there")
        ]
        fetch_times, _ = page["actors"]
        assert 0 < fetch_times["p50"] <= fetch_times["p99"]
        assert {call["actor"] for call in page["slowest"]} == {"fetch", "survey"}

    looking(work)


def test_runs_are_filtered_by_status_tag_and_text() -> None:
    async def main() -> None:
        store = memory()
        await recorded(store, "monday")
        await recorded(store, "tuesday", ("a",))
        async with browser(store) as client:

            async def names(**wanted: str) -> list[str]:
                return [run["run_id"] for run in (await client.get("/api/runs", params=wanted)).json()["runs"]]

            assert sorted(await names()) == ["monday", "tuesday"]
            assert await names(text="TUES") == ["tuesday"]
            assert sorted(await names(tag="nightly", status="completed,failed")) == ["monday", "tuesday"]
            assert await names(status="running") == []
            refused = await client.get("/api/runs", params={"status": "sleepy"})
            assert (refused.status_code, refused.json()["error"].partition(":")[0]) == (400, "status=sleepy")

    asyncio.run(main())


def test_calls_are_filtered_and_sorted_by_the_server() -> None:
    async def work(client: Client) -> None:
        async def calls(**wanted: str) -> list[dict[str, Any]]:
            found = (await client.get("/api/calls", params={"run": "monday", **wanted})).json()["calls"]
            assert isinstance(found, list)
            return found

        assert len(await calls()) == 4
        (failed,) = await calls(status="failed")
        assert failed["message"] == "ConnectionError: broken is not there"
        assert failed["attempts"] == 2
        assert {call["actor"] for call in await calls(actor="fetch")} == {"fetch"}
        assert len(await calls(text="NOT THERE")) == 1
        slow = [call["seconds"] for call in await calls(order="seconds", descending="1")]
        assert slow == sorted(slow, reverse=True)
        assert len(await calls(group=failed["group_id"])) == 3

    looking(work)


def test_calls_are_chosen_by_ranges_and_by_when_they_were_under_way() -> None:
    async def work(client: Client) -> None:
        async def found(path: str = "/api/calls", **wanted: Any) -> Any:
            return await client.get(path, params={"run": "monday", **wanted})

        calls = (await found()).json()["calls"]
        assert {call["address"] for call in (await found(cost_from=0.005)).json()["calls"]} == {
            call["address"] for call in calls if call["usage"].get("cost")
        }
        (failed,) = (await found(attempts_from=2)).json()["calls"]
        assert failed["status"] == "failed"
        assert (await found(seconds_from=1000)).json()["calls"] == []
        last = max(call["ended_at"] for call in calls)
        survey = next(call for call in calls if call["name"] == "survey")
        assert (await found(**{"from": last + 1})).json()["calls"] == []
        assert (await found(until=survey["began_at"] - 1)).json()["calls"] == []
        whole = {"from": survey["began_at"], "until": last}
        assert len((await found(**whole)).json()["calls"]) == len(calls)
        rows = list(csv.DictReader(io.StringIO((await found("/api/calls.csv", attempts_from=2)).text)))
        assert [(row["status"], row["attempts"]) for row in rows] == [("failed", "2")]
        assert "waited" in rows[0]
        for wanted in ({"cost_to": "much"}, {"from": "nan"}, {"until": "1e999"}):
            refused = await found(**wanted)
            assert refused.status_code == 400
            assert "a number is wanted" in refused.json()["error"]

    looking(work)


def test_a_run_that_was_left_says_when_it_was_executed_and_counts_only_that() -> None:
    async def main() -> None:
        clock = JumpingClock()
        store = MemoryStore(clock=clock)
        for later in (0.0, 3600.0):
            clock.advance(later)
            async with ExecutionState(store=store, run_id="monday", clock=clock):
                for number in range(3 if later else 2):
                    await slow(number, clock)
        page = json.loads(json.dumps(await page_of(store)))
        first, second = page["timeline"]["executions"]
        assert (first["before"], second["before"], second["epoch"]) == (0, 4, 1)
        assert second["began_at"] - first["until"] == pytest.approx(3600)
        assert second["new_at"] is not None
        assert (page["totals"]["executed"], page["totals"]["elapsed"]) == (pytest.approx(30), pytest.approx(3630))
        assert len(page["timeline"]["pieces"]) == 2

    asyncio.run(main())


async def page_of(store: Store, run_id: str = "monday") -> dict[str, Any]:
    update = await Reading(store).page(run_id).now()
    return {name: json.loads(text) for name, text in update.sections.items()}


@tool
async def slow(number: int, clock: Annotated[JumpingClock, Injected]) -> int:
    clock.advance(10)
    return number


def test_a_call_has_its_attempts_and_its_value_on_demand() -> None:
    async def work(client: Client) -> None:
        calls = (await client.get("/api/calls", params={"run": "monday", "actor": "fetch"})).json()["calls"]
        good = next(call for call in calls if call["status"] == "completed")
        bad = next(call for call in calls if call["status"] == "failed")
        value = (await client.get("/api/call/value", params={"run": "monday", "key": good["key"]})).json()
        assert json.loads(value["text"])["url"] in ("a", "b")
        found = (await client.get("/api/call", params={"run": "monday", "key": bad["key"]})).json()
        assert [event["status"] for event in found["events"]] == ["started", "retrying", "failed"]
        first, second = found["attempts"]
        assert (first["status"], second["status"]) == ("retrying", "failed")
        assert first["message"] == "ConnectionError: broken is not there"
        assert first["delay"] is not None
        assert found["why"] == "new"
        assert [parent["address"] for parent in found["parents"]] == ["survey"]

    looking(work)


def test_a_value_comes_as_an_attachment_that_no_browser_shows() -> None:
    async def work(client: Client) -> None:
        calls = (await client.get("/api/calls", params={"run": "monday", "status": "completed"})).json()["calls"]
        given = await client.get("/api/call/value", params={"run": "monday", "key": calls[0]["key"], "as": "file"})
        assert given.headers["content-disposition"].startswith("attachment")
        assert given.headers["content-type"] == "application/octet-stream"
        assert given.headers["x-content-type-options"] == "nosniff"

    looking(work)


def test_calls_come_as_csv_with_no_formula_in_it() -> None:
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@sum", "\t=1", "plain"]

    async def main() -> None:
        store = memory()
        async with ExecutionState(store=store, run_id="monday"), parallel(name="pages") as group:
            for name in names:
                group.add(fetch(name), name=name)
            await group.gather()
        async with browser(store) as client:
            given = await client.get("/api/calls.csv", params={"run": "monday"})
            assert given.headers["content-disposition"] == 'attachment; filename="calls.csv"'
            rows = list(csv.DictReader(io.StringIO(given.text)))
            assert {row["name"] for row in rows} == {"plain", *(f"'{name}" for name in names if name != "plain")}
            assert not any(text.startswith(("=", "+", "-", "@", "\t")) for row in rows for text in row.values())

    asyncio.run(main())


def test_what_a_browser_gets_has_no_secret_wherever_it_stands() -> None:
    Secret("mine", "s3cret-w0rd-of-mine")
    try:
        data = {"s3cret-w0rd-of-mine": ["a s3cret-w0rd-of-mine", {"b": ("https://me:hunter22@example.com/", 1, None)}]}
        text = json_text(data).decode()
        assert "w0rd" not in text
        assert "hunter22" not in text
        assert json.loads(json_text({"n": float("nan")})) == {"n": None}
    finally:
        forget_secret("mine")


@pytest.mark.parametrize("path", ["/api/run", "/api/calls", "/api/plan"])
def test_an_unknown_run_and_a_missing_name_are_said_in_one_sentence(path: str) -> None:
    async def work(client: Client) -> None:
        missing = await client.get(path)
        assert (missing.status_code, missing.json()) == (400, {"error": "run= is missing"})
        unknown = await client.get(path, params={"run": "none"})
        assert unknown.status_code in (404, 409)
        assert "no run 'none'" in unknown.json()["error"]

    looking(work)


def test_an_order_or_a_number_that_makes_no_sense_is_refused() -> None:
    async def work(client: Client) -> None:
        bad = await client.get("/api/calls", params={"run": "monday", "order": "; DROP TABLE run"})
        assert bad.status_code == 400
        assert "is wanted" in bad.json()["error"]
        bad = await client.get("/api/calls", params={"run": "monday", "status": "nonsense"})
        assert bad.status_code == 400
        bad = await client.get("/api/calls", params={"run": "monday", "after": "nonsense"})
        assert (bad.status_code, "after=" in bad.json()["error"]) == (400, True)
        bad = await client.get("/api/call/value", params={"run": "monday", "key": "00", "most": "-1"})
        assert bad.status_code in (400, 404)

    looking(work)


def test_a_page_that_has_not_changed_costs_no_body() -> None:
    async def work(client: Client) -> None:
        first = await client.get("/api/run", params={"run": "monday"})
        again = await client.get("/api/run", params={"run": "monday"}, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")

    looking(work)


def test_no_registered_secret_and_no_credential_is_shown_anywhere() -> None:
    @tool
    async def ask(url: str) -> str:
        if "fail" in url:
            raise ValueError(f"refused by {url} with s3cret-w0rd-of-mine")
        return "Bearer sk-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH s3cret-w0rd-of-mine"

    async def main() -> None:
        store = memory()
        async with ExecutionState(store=store, run_id="monday", tags=["s3cret-w0rd-of-mine"]):
            await ask("https://user:hunter22@example.com/")
            with pytest.raises(ValueError, match="refused"):
                await ask("https://user:hunter22@example.com/fail")
        async with browser(store) as client:
            keys = [call["key"] for call in (await client.get("/api/calls", params={"run": "monday"})).json()["calls"]]
            paths = [f"/api/{name}?run=monday" for name in ("run", "calls", "calls.csv", "plan")] + ["/api/runs"]
            paths += [f"/api/call{what}?run=monday&key={key}" for key in keys for what in ("", "/value", "/children")]
            texts = "".join([(await client.get(path)).text for path in paths])
            assert "refused by" in texts
            for secret in ("s3cret-w0rd-of-mine", "hunter22", "sk-abcdefghijklmnop"):
                assert secret not in texts

    Secret("mine", "s3cret-w0rd-of-mine")
    try:
        asyncio.run(main())
    finally:
        forget_secret("mine")


def test_a_question_is_answered_and_an_answer_that_does_not_fit_is_refused() -> None:
    async def main() -> None:
        store = memory()
        with pytest.raises(RunAwaiting):
            async with ExecutionState(store=store, run_id="monday") as state:
                await state.ask("Publish?", bool)
        async with browser(store) as client:
            (question,) = (await client.get("/api/questions")).json()["questions"]
            assert question["text"] == "Publish?"
            body = {"run": "monday", "id": question["id"]}
            refused = await post(client, "/api/answer", {**body, "answer": "perhaps"})
            assert refused.status_code == 422
            accepted = await post(client, "/api/answer", {**body, "answer": True})
            assert accepted.status_code == 200
            assert accepted.json()["next"].startswith("Start the program again, with the same run id")
            twice = await post(client, "/api/answer", {**body, "answer": False})
            assert twice.status_code == 409
            assert (await client.get("/api/questions")).json()["questions"] == []

    asyncio.run(main())


def test_who_has_answered_learns_what_is_to_be_done_now() -> None:
    async def main() -> None:
        store = memory()
        command = ExecutionState(store=store, run_id="it's", facts={"command": '["run", "flow.py:main"]'})
        with pytest.raises(RunAwaiting):
            async with command as state, parallel(2) as questions:
                questions.add(state.ask("Publish?", bool))
                questions.add(state.ask("Where?", str))
                await questions.gather()
        async with browser(store) as client:
            first, second = (await client.get("/api/questions")).json()["questions"]
            answers = {"Publish?": True, "Where?": "here"}
            said = [
                (
                    await post(
                        client, "/api/answer", {"run": "it's", "id": each["id"], "answer": answers[each["text"]]}
                    )
                ).json()
                for each in (first, second)
            ]
            assert said[0]["next"] == "it's waits for 1 more answer."
            assert said[1]["next"] == "Resume with: rh-agents resume 'it'\"'\"'s'"

    asyncio.run(main())


def test_a_run_is_copied_with_an_edited_result_after_a_preview() -> None:
    async def work(client: Client) -> None:
        calls = (await client.get("/api/calls", params={"run": "monday", "actor": "fetch"})).json()["calls"]
        wanted = {
            "run": "monday",
            "verb": "fork",
            "new": "other",
            "address": f"@{calls[0]['key']}",
            "result": {"url": "z"},
        }
        seen = (await post(client, "/api/act", {**wanted, "dry_run": True})).json()
        assert seen["preview"] == "a copy in which 1 call would be made again"
        assert seen["command"].startswith("rh-agents fork monday other --at @")
        assert "done" not in seen
        assert (await client.get("/api/run", params={"run": "other"})).status_code == 404
        assert (await post(client, "/api/act", wanted)).json()["done"] == "forked to other"
        assert (await client.get("/api/run", params={"run": "other"})).json()["run"]["forked_from"] == "monday"
        again = await post(client, "/api/act", wanted)
        assert again.status_code == 422
        assert "already exists" in again.json()["error"]

    looking(work)


def test_a_run_that_has_ended_cannot_be_stopped() -> None:
    async def work(client: Client) -> None:
        refused = await post(client, "/api/act", {"run": "monday", "verb": "stop", "dry_run": True})
        assert refused.status_code == 422
        assert "has ended" in refused.json()["error"]

    looking(work)


def test_two_runs_are_compared_call_by_call() -> None:
    async def main() -> None:
        store = memory()
        await recorded(store, "monday", ("a", "b", "broken"))
        await recorded(store, "tuesday", ("a", "c", "broken"))
        async with browser(store) as client:
            found = (await client.get("/api/compare", params={"left": "monday", "right": "tuesday"})).json()
            assert {row["kind"] for row in found["rows"]} == {"left_only", "right_only"}
            same = (await client.get("/api/compare", params={"left": "monday", "right": "monday"})).json()
            assert same["rows"] == []
            assert same["counts"]["different"] == 0

    asyncio.run(main())


def test_a_plan_says_what_would_be_reused_and_what_would_run() -> None:
    async def main() -> None:
        store = memory()
        async with ExecutionState(store=store, run_id="monday"):
            await fetch("a")
            with pytest.raises(ConnectionError):
                await fetch("broken")
        async with browser(store) as client:
            plan = (await client.get("/api/plan", params={"run": "monday"})).json()
            assert (plan["counts"]["reused"], plan["counts"]["tried_again"]) == (1, 1)
            assert [call["message"] for call in plan["calls"]["tried_again"]] == [
                "ConnectionError: broken is not there"
            ]

    asyncio.run(main())


def test_a_run_whose_journal_is_damaged_has_a_page_that_says_so(tmp_path: Path) -> None:
    apsw = pytest.importorskip("apsw")

    async def main() -> None:
        path = tmp_path / "runs.db"
        store = open_store(path)
        await recorded(store)
        await store.aclose()
        with apsw.Connection(str(path)) as database:
            database.execute("DELETE FROM journal WHERE place % 1024 = 3")
        store = open_store(path)
        async with browser(store) as client:
            page = (await client.get("/api/run", params={"run": "monday"})).json()
            assert page["run"]["status"] == "completed"
            assert "should have" in page["problem"]
        await store.aclose()

    asyncio.run(main())


def test_a_run_is_paused_and_given_other_numbers_after_a_preview_and_the_page_says_who_asked() -> None:
    async def main() -> None:
        store = memory()
        with pytest.raises(RunAwaiting):
            async with ExecutionState(store=store, run_id="monday") as state:
                await state.ask("Publish?", bool)
        async with browser(store) as client:
            wanted = {"run": "monday", "verb": "pause", "reason": "the provider is down"}
            seen = (await post(client, "/api/act", {**wanted, "dry_run": True})).json()
            assert "nothing new begins" in seen["preview"]
            assert seen["command"] == "rh-agents pause monday --reason 'the provider is down'"
            assert (await client.get("/api/run", params={"run": "monday"})).json()["requests"] == []
            assert "done" in (await post(client, "/api/act", wanted)).json()
            (asked,) = (await client.get("/api/run", params={"run": "monday"})).json()["requests"]
            assert (asked["verb"], asked["author"], asked["reason"]) == ("pause", "ada", "the provider is down")
            bad = await post(client, "/api/act", {"run": "monday", "verb": "set", "settings": {"nonsense": 1}})
            assert (bad.status_code, "nonsense" in bad.json()["error"]) == (422, True)

    asyncio.run(main())


def test_failed_calls_are_made_again_after_a_preview_with_the_command_that_does_the_same() -> None:
    async def main() -> None:
        store = memory()
        with pytest.raises(RunAwaiting):
            async with ExecutionState(store=store, run_id="monday") as state:
                with pytest.raises(ConnectionError):
                    await fetch("broken")
                await state.ask("Publish?", bool)
        async with browser(store) as client:
            (call,) = (await client.get("/api/calls", params={"run": "monday", "status": "failed"})).json()["calls"]
            wanted = {"run": "monday", "verb": "requeue", "items": [f"@{call['key']}"]}
            seen = (await post(client, "/api/act", {**wanted, "dry_run": True})).json()
            assert seen["calls"] == 1
            assert seen["command"] == f"rh-agents requeue monday @{call['key']}"
            everything = {"run": "monday", "verb": "requeue", "failed": True, "dry_run": True}
            assert (await post(client, "/api/act", everything)).json()["command"] == "rh-agents requeue monday --failed"
            done = (await post(client, "/api/act", wanted)).json()["done"]
            assert "from its next start on 1 call is made again" in done
            refused = await post(client, "/api/act", {"run": "monday", "verb": "requeue", "items": ["nothing"]})
            assert refused.status_code == 422
            nothing = await post(client, "/api/act", {"run": "monday", "verb": "cancel", "items": []})
            assert (nothing.status_code, "items is missing" in nothing.json()["error"]) == (422, True)
            (asked,) = (await client.get("/api/run", params={"run": "monday"})).json()["requests"]
            assert (asked["verb"], asked["author"]) == ("requeue", "ada")

    asyncio.run(main())


def test_the_list_of_runs_says_how_far_a_run_is_that_goes_on_and_what_it_has_used(tmp_path: Path) -> None:
    async def main() -> None:
        may_end = asyncio.Event()

        @tool
        async def wait(number: int) -> int:
            if number == 0:
                report_usage(Usage(input_tokens=10, cost=0.5, requests=1))
                return number
            await may_end.wait()
            return number

        store = open_store(tmp_path / "runs.db")

        async def execute() -> None:
            async with ExecutionState(store=store, run_id="monday"), parallel(max_workers=4, name="pages") as group:
                group.map(wait, range(3))
                await group.gather()

        running = asyncio.create_task(execute())
        async with browser(store) as client:
            run: dict[str, Any] = {}
            while not run.get("usage"):  # its owner says so about once a second
                await asyncio.sleep(0.05)
                runs = (await client.get("/api/runs")).json()["runs"]
                run = runs[0] if runs else {}
            assert (run["status"], run["in_flight"], run["finished"], run["total"]) == ("running", 2, 1, 3)
            assert run["usage"]["cost"] == 0.5
            page = (await client.get("/api/run", params={"run": "monday"})).json()
            assert page["now"]["in_flight"] == 2
            may_end.set()
            await running
            assert (await client.get("/api/runs")).json()["runs"][0]["status"] == "completed"
        await store.aclose()

    asyncio.run(asyncio.wait_for(main(), 60))
