"""Requests through the Batch API: one batch for many, its id recorded, and nothing submitted twice."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, Price, RetryPolicy, RunStopped, Usage
from rh_agents.core.errors import InvalidRequest, ModelOverloaded, ModelTimeout, UnreadableAnswer
from tests.runtime.worlds import RUN, Crash, KeepingStore
from tests.services.batch_server import BatchServer
from tests.services.model_server import Exchange, Reply, answer, error, model_server

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from rh_agents.llms import OpenAIChat
from rh_agents.llms._batch_api import BatchState, Marks
from rh_agents.llms.openai_batch import OpenAIBatches, in_batches


def echo(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, answer(body["messages"][-1]["content"].upper()).body


def batches(**options: Any) -> OpenAIBatches:
    return OpenAIBatches(**{"linger": 0.02, "poll_every": 0.01, **options})


async def ask_all(
    state: ExecutionState, model: OpenAIChat, questions: list[str], then: Callable[[], Awaitable[None]] | None = None
) -> list[Any]:
    async with state.parallel(max_workers=100) as p:
        for number, question in enumerate(questions):
            p.add(model(question), key=str(number))
        if then is not None:
            await then()
        return await p.gather()


def run(
    server: BatchServer,
    questions: list[str],
    store: MemoryStore | None = None,
    then: Callable[[ExecutionState], Awaitable[None]] | None = None,
    sends: OpenAIBatches | None = None,
    run_id: str = "r",
    port: int = 0,
    **settings: Any,
) -> tuple[list[Any], ExecutionState]:
    """What comes of the questions, all at once."""

    async def main() -> tuple[list[Any], ExecutionState]:
        async with model_server(server, port) as served:
            settings.setdefault("retry", None)
            settings.setdefault("endpoint", "batches")  # its port is another one each time
            model = OpenAIChat("stub", base_url=served.base_url, api_key="k", idle_timeout=0.5, **settings)
            with in_batches(sends or batches()):
                async with ExecutionState(store=store or MemoryStore(), run_id=run_id) as state:
                    hook = None if then is None else lambda: then(state)
                    return await ask_all(state, model, questions, hook), state

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_many_calls_are_one_batch_and_each_gets_its_own_answer_and_half_the_price() -> None:
    server = BatchServer(echo)
    questions = [f"q{number}" for number in range(50)] + ["q1", "q1"]
    results, state = run(server, questions, price=Price(input=1.0, output=1.0), timeout=0.001)
    assert [result.unwrap().text for result in results] == [question.upper() for question in questions]
    assert len(server.batches) == 1
    assert len(server.requests) == 52
    assert state.spent.usage.requests == 52
    assert state.spent.usage.cost == pytest.approx(52 * 15 / 1e6 / 2)


def test_a_run_that_is_stopped_while_it_waits_finds_its_batch_again() -> None:
    server, store = BatchServer(echo, looks=1_000_000), MemoryStore()

    async def stop(state: ExecutionState) -> None:
        while not any(batch["looks"] for batch in server.batches.values()):  # noqa: ASYNC110 - a server has no events
            await asyncio.sleep(0.005)
        state.request_interrupt("deploy", grace=0.0)

    with pytest.raises(RunStopped):
        run(server, ["a", "b"], store, stop)
    server.looks = 1
    results, state = run(server, ["a", "b"], store)
    assert [result.unwrap().text for result in results] == ["A", "B"]
    assert len(server.batches) == 1
    assert state.spent.usage == Usage(20, 10, 0, 0, 2, 0.0)


def test_what_is_recorded_is_not_submitted_again() -> None:
    server, store = BatchServer(echo), MemoryStore()
    run(server, ["a"], store)
    results, _ = run(server, ["a", "b"], store)
    assert [result.unwrap().text for result in results] == ["A", "B"]
    assert [request["body"]["messages"][0]["content"] for request in server.requests] == ["a", "b"]


def test_a_batch_that_was_made_when_the_process_died_before_it_knew_is_found_by_its_mark() -> None:
    server, store = BatchServer(echo), MemoryStore()
    server.fails_before_answering = True

    async def die(state: ExecutionState) -> None:
        while not server.batches:  # noqa: ASYNC110 - a server has no events
            await asyncio.sleep(0.001)
        raise Crash

    with pytest.raises(Crash):
        run(server, ["a", "b"], store, die)
    results, _ = run(server, ["a", "b"], store)
    assert [result.unwrap().text for result in results] == ["A", "B"]
    assert len(server.batches) == 1


def test_a_batch_that_was_made_though_the_answer_was_lost_is_looked_for() -> None:
    server = BatchServer(echo)
    server.fails_before_answering = True
    results, _ = run(server, ["a", "b"])
    assert [result.unwrap().text for result in results] == ["A", "B"]
    assert len(server.batches) == 1


def test_what_failed_in_a_batch_is_submitted_again_by_another_attempt_and_when_the_run_goes_on() -> None:
    server, store = BatchServer(lambda _: (503, error(503).body)), MemoryStore()
    results, _ = run(server, ["a"], store, retry=RetryPolicy(max_attempts=2, initial_delay=0.0))
    assert isinstance(results[0].error, ModelOverloaded)
    assert len(server.batches) == 2
    server.answering = echo
    results, _ = run(server, ["a"], store)
    assert results[0].unwrap().text == "A"
    assert len(server.batches) == 3


def test_another_run_with_the_same_questions_gets_answers_of_its_own() -> None:
    server = BatchServer(echo)
    for _ in range(2):
        run(server, ["a", "b"], MemoryStore(), run_id=f"run {len(server.batches)}")
    assert len(server.batches) == 2


def test_a_batch_that_was_cancelled_is_not_taken_for_the_one_that_was_made() -> None:
    server, store = BatchServer(echo), MemoryStore()
    server.fails_before_answering = True

    async def die(state: ExecutionState) -> None:
        while not server.batches:  # noqa: ASYNC110 - a server has no events
            await asyncio.sleep(0.001)
        raise Crash

    with pytest.raises(Crash):
        run(server, ["a"], store, die)
    server.batches["batch_0"]["status"] = "cancelled"
    results, _ = run(server, ["a"], store)
    assert results[0].unwrap().text == "A"
    assert len(server.batches) == 2


def test_a_look_that_fails_for_now_is_repeated() -> None:
    server = BatchServer(echo)
    server.failing_looks = 3
    results, _ = run(server, ["a"])
    assert results[0].unwrap().text == "A"
    assert len(server.batches) == 1


def test_a_crash_between_results_submits_nothing_twice() -> None:
    server, store = BatchServer(echo), MemoryStore()

    async def die(state: ExecutionState) -> None:
        while not any(each["status"] == "completed" for each in server.batches.values()):  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.001)
        raise Crash

    with pytest.raises(Crash):
        run(server, ["a", "b", "c"], store, die)
    results, _ = run(server, ["a", "b", "c"], store)
    assert [result.unwrap().text for result in results] == ["A", "B", "C"]
    assert len(server.batches) == 1


def test_failures_in_a_batch_are_errors_by_kind_and_are_submitted_again_if_they_may_pass() -> None:
    def busy(body: dict[str, Any]) -> tuple[int, Any] | None:
        question = body["messages"][-1]["content"]
        if question == "busy" and len(server.batches) == 1:
            return 503, error(503).body
        if question == "wrong":
            return 400, error(400, "a field is wrong").body
        return None if question == "lost" else echo(body)

    server = BatchServer(busy)
    retry = RetryPolicy(max_attempts=2, initial_delay=0.0)
    results, _ = run(server, ["a", "busy", "wrong", "lost"], retry=retry)
    assert [result.ok for result in results] == [True, True, False, False]
    assert isinstance(results[2].error, InvalidRequest)
    assert isinstance(results[3].error, ModelTimeout)
    assert len(server.batches) == 2
    results, _ = run(BatchServer(lambda _: (503, error(503).body)), ["a"])
    assert isinstance(results[0].error, ModelOverloaded)


def test_a_batch_that_is_refused_says_why() -> None:
    server = BatchServer(echo)
    server.status = "failed"
    results, _ = run(server, ["a"])
    assert isinstance(results[0].error, InvalidRequest)
    assert "not to our taste" in str(results[0].error)


def test_a_batch_has_no_more_requests_than_it_may_and_people_are_told() -> None:
    server, told = BatchServer(echo), list[str]()
    results, _ = run(server, [f"q{n}" for n in range(7)], sends=batches(most=3, tell=told.append))
    assert all(result.ok for result in results)
    assert sorted(batch["request_counts"]["total"] for batch in server.batches.values()) == [1, 3, 3]
    assert "batch batch_0: 3 requests submitted" in told
    assert "batch batch_0: completed (0 of 3)" in told


def test_the_file_of_a_batch_is_no_larger_than_it_may_be() -> None:
    server = BatchServer(echo)
    results, _ = run(server, ["x" * 1_000 for _ in range(10)], sends=batches(most_bytes=4_000))
    assert all(result.ok for result in results)
    assert all(len(server.files[batch["input_file_id"]]) <= 4_000 for batch in server.batches.values())
    assert len(server.batches) == 4


def test_a_server_that_answers_something_else_fails_the_calls_instead_of_leaving_them_waiting() -> None:
    class Confused(BatchServer):
        def __call__(self, exchange: Exchange) -> Reply:
            return Reply({"object": "list"}) if exchange.method == "GET" else super().__call__(exchange)

    results, _ = run(Confused(echo), ["a", "b"])
    assert not any(result.ok for result in results)


def test_what_sends_batches_can_be_used_again_after_a_run_that_was_cut_off() -> None:
    server, sends = BatchServer(echo), batches(linger=1_000.0)

    async def stop(state: ExecutionState) -> None:
        await asyncio.sleep(0.05)
        state.request_interrupt("deploy", grace=0.0)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(RunStopped):
        run(server, ["a"], MemoryStore(), stop, sends, port=port)
    sends._linger = 0.02
    results, _ = run(server, ["a"], MemoryStore(), sends=sends, port=port)
    assert results[0].unwrap().text == "A"


def test_what_was_downloaded_in_one_event_loop_is_downloaded_again_in_another() -> None:
    server, sends, store = BatchServer(echo), batches(), KeepingStore()
    run(server, ["a"], store, sends=sends, run_id=RUN)
    submitted = next(number for number, (_, outcome) in enumerate(store.entries) if outcome is not None) + 1
    left = asyncio.run(store.after_the_first(submitted))
    results, _ = run(server, ["a"], left, sends=sends, run_id=RUN)
    assert results[0].unwrap().text == "A"
    assert len(server.batches) == 1


def test_a_budget_counts_on_half_the_price() -> None:
    model = OpenAIChat("stub", base_url="http://127.0.0.1:1", api_key="k", price=Price(input=1.0, output=1.0))
    request = model.request("How many?")
    whole = model.estimate(request).cost
    with in_batches(batches()):
        assert model.estimate(request).cost == whole / 2


def in_response(line: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """A line of answers with a response that was changed."""
    read = json.loads(line)
    return json.dumps({**read, "response": change(read["response"])}).encode()


class Odd(BatchServer):
    """Does something odd with a batch that is finished, or with what is asked of it."""

    def __init__(self, **odd: Any) -> None:
        super().__init__(echo)
        self.odd = odd
        self.failed = 0

    def _finish(self, batch: dict[str, Any]) -> None:
        super()._finish(batch)
        batch.update(self.odd.get("fields", {}))
        if "line" in self.odd and len(self.batches) == 1:
            name = batch["output_file_id"]
            lines = self.files[name].split(b"\n")
            self.files[name] = b"\n".join([self.odd["line"](lines[0]), *lines[1:]])

    def __call__(self, exchange: Exchange) -> Reply:
        asked, times = self.odd.get("missing", ("nothing", 0))
        if exchange.method == "GET" and asked in exchange.path and self.failed < times:
            self.failed += 1
            return error(404, "no such thing")
        return super().__call__(exchange)


@pytest.mark.parametrize(
    "odd",
    [
        {"fields": {"error_file_id": ""}},
        {"fields": {"error_file_id": "file-gone"}, "missing": ("file-gone", 1_000)},
        {"fields": {"request_counts": None}},
        {"missing": ("/content", 1)},
        {"missing": ("/batches/", 3)},
        {"line": lambda line: json.dumps(json.loads(line), ensure_ascii=False).replace("A", "a\u2028b").encode()},
        {"line": lambda line: in_response(line, lambda response: {**response, "status_code": "200"})},
        {"line": lambda line: in_response(line, lambda response: {"body": response["body"]})},
        {"line": lambda line: in_response(line, lambda response: {**response, "body": json.dumps(response["body"])})},
    ],
    ids=[
        "no error file",
        "error file gone",
        "no counts",
        "answers not there yet",
        "batch not there yet",
        "U+2028",
        "status as text",
        "no status",
        "body as text",
    ],
)
def test_one_fault_while_a_batch_is_read_costs_nothing(odd: dict[str, Any]) -> None:
    server = Odd(**odd)
    results, _ = run(server, ["a", "b", "c"])
    assert all(result.ok for result in results), [result.error_message for result in results]
    assert len(server.batches) == 1


def test_an_answer_that_ends_with_half_a_character_is_read() -> None:
    server = BatchServer(lambda body: (200, answer("half \ud83d").body))
    results, _ = run(server, ["a"])
    assert results[0].unwrap().text == "half \ufffd"


def test_a_line_without_status_and_body_is_an_answer_that_cannot_be_read() -> None:
    server = Odd(line=lambda line: json.dumps({**json.loads(line), "response": {"status_code": 200}}).encode())
    results, _ = run(server, ["a"], retry=RetryPolicy(max_attempts=3))
    assert isinstance(results[0].error, UnreadableAnswer)
    assert results[0].error.usage is not None
    assert len(server.batches) == 1


class Crowded(BatchServer):
    """Takes so many requests at a time, and refuses other batches in OpenAI's words."""

    room = 2

    def _look(self, name: str) -> Reply:
        batch = self.batches[name]
        size = batch["request_counts"]["total"]
        if batch["status"] == "in_progress" and size > self.room:
            what = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m.", "line": None}
            batch.update(status="failed", errors={"object": "list", "data": [{**what, "param": None}]})
            batch["request_counts"] = {"total": 0, "completed": 0, "failed": 0}
        return super()._look(name)


def test_a_batch_beyond_the_enqueued_token_limit_is_submitted_again_in_smaller_ones() -> None:
    server = Crowded(echo)
    results, _ = run(server, ["a", "b", "c"])
    assert [result.unwrap().text for result in results] == ["A", "B", "C"]
    assert [batch["status"] for batch in server.batches.values()] == ["failed", "completed", "completed", "completed"]


class Choosy(BatchServer):
    """Refuses a batch because of one of its lines."""

    def _look(self, name: str) -> Reply:
        batch = self.batches[name]
        lines = self.files[batch["input_file_id"]].splitlines()
        bad = [number for number, line in enumerate(lines, 1) if b"bad" in line]
        if batch["status"] == "in_progress" and bad:
            errors = [
                {"code": "invalid", "message": "a field is wrong", "line": number, "param": None} for number in bad
            ]
            batch.update(status="failed", errors={"object": "list", "data": errors})
        return super()._look(name)


def test_one_line_for_which_a_batch_is_refused_is_the_failure_of_that_line() -> None:
    server = Choosy(echo)
    results, _ = run(server, ["a", "bad", "c"])
    assert [result.ok for result in results] == [True, False, True]
    assert isinstance(results[1].error, InvalidRequest)
    assert "a field is wrong" in str(results[1].error)


# -- what a batch says about itself ------------------------------------------------------------------------------------


def state_of(**fields: Any) -> BatchState:
    """What is read of a batch that the server describes so."""
    told = {"id": "batch_1", "object": "batch", "created_at": 1_764_331_200, "input_file_id": "file-in", **fields}

    async def main() -> BatchState:
        async with model_server(Reply(told)) as server, OpenAIChat("m", server.base_url, "k") as model:
            api = model.batch_api()
            assert api is not None
            return await api.retrieve("batch_1")

    return asyncio.run(asyncio.wait_for(main(), 60))


STATUSES: dict[str, tuple[bool, bool]] = {
    "validating": (False, True),
    "in_progress": (False, True),
    "finalizing": (False, True),
    "completed": (True, True),
    "cancelling": (False, False),
    "cancelled": (True, False),
    "expired": (True, False),
    "failed": (True, False),
}
"""From the guide to the Batch API: whether it has ended, and whether all of its requests are done then."""


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_says_whether_a_batch_has_ended_and_whether_all_of_it_is_done(status: str) -> None:
    state = state_of(status=status)
    assert (state.is_ended, state.is_whole) == STATUSES[status]
    assert bool(state.refusal) is (status == "failed")
    assert not state.is_crowded
    assert (state.source, state.created_at, state.marks) == ("file-in", 1_764_331_200.0, None)


def test_counts_files_and_marks_of_a_batch_are_read() -> None:
    state = state_of(
        status="expired",
        output_file_id="file-good",
        error_file_id="",
        request_counts={"total": 1200, "completed": 1000, "failed": 7},
        metadata={"rh_agents": "these", "rh_agents_run": "this"},
    )
    assert state.status == "expired (1,000 of 1,200)"
    assert (state.total, state.files, state.marks) == (1200, {"file-good": 1000}, Marks("this", "these"))


def test_why_a_batch_was_refused_is_read_for_each_line_and_as_a_whole() -> None:
    errors = [
        {"code": "invalid", "message": "no such model", "line": 3},
        {"code": "odd", "message": None, "line": None},
    ]
    state = state_of(status="failed", errors={"object": "list", "data": errors})
    assert (state.refused, state.refusal, state.is_crowded) == ({2: "no such model"}, "no such model; odd", False)
    assert state_of(status="completed", errors={"object": "list", "data": errors}).refused == {}


@pytest.mark.parametrize(
    "odd",
    [
        {"created_at": "yesterday"},
        {"created_at": None, "request_counts": "many"},
        {"errors": {"data": ["no"]}},
        {"errors": "no"},
        {"errors": {"data": 7}},
        {"metadata": ["x"], "request_counts": {"total": "7"}},
    ],
)
def test_what_a_server_describes_otherwise_is_left_out(odd: dict[str, Any]) -> None:
    for status in ("completed", "failed"):
        state = state_of(status=status, **odd)
        assert (state.id, state.is_ended, state.marks, state.refused) == ("batch_1", True, None, {})


@pytest.mark.parametrize(
    "error",
    [
        {"code": "token_limit_exceeded", "message": "too much"},
        {"code": "enqueued_token_limit_exceeded", "message": None},
        {"code": None, "message": "Enqueued token limit reached for gpt-4o in organization org."},
    ],
)
def test_a_batch_that_came_when_too_much_was_waiting_is_known(error: dict[str, Any]) -> None:
    assert state_of(status="failed", errors={"object": "list", "data": [error]}).is_crowded
    assert not state_of(status="completed", errors={"object": "list", "data": [error]}).is_crowded
