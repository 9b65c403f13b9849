"""Workers take submitted runs and execute them; what they cannot execute they leave to others."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rh_agents import (
    ExecutionStatus,
    MemoryStore,
    RunMismatchError,
    forget_secret,
    register_secret,
    run,
    tool,
)
from rh_agents.core.errors import ControlRefused, DefinitionError, OptionError
from rh_agents.core.ports import RunInfo, RunStatus, status_of
from rh_agents.core.queueing import Wanted, flow_name
from rh_agents.errors import UnstorableError
from rh_agents.workers import Flow, Worker, load_flow
from tests.runtime import queue_flows as flows

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def no_calls() -> Iterator[None]:
    flows.CALLS.clear()
    yield
    flows.CALLS.clear()


def executing(main: Callable[[MemoryStore], Awaitable[None]]) -> None:
    asyncio.run(main(MemoryStore()))  # type: ignore[arg-type]


async def worked(store: MemoryStore, **options: Any) -> list[str]:
    """What a worker reports until there is nothing left for it."""
    lines: list[str] = []
    await Worker(store, report=lines.append, **options).run(until_empty=True)
    return lines


async def info_of(store: MemoryStore, run_id: str) -> RunInfo:
    info = await store.find_run(run_id)
    assert info is not None
    return info


def test_a_submitted_run_is_executed_with_its_arguments_and_what_it_returns_is_recorded() -> None:
    async def main(store: MemoryStore) -> None:
        info = await run.submit(flows.quadruple, 2, 10, 20, offset=1, store=store, run_id="a", tags=["shop"])  # type: ignore[call-arg]
        assert (info.status, info.workflow, info.tags) == (ExecutionStatus.PENDING, "quadruple", ("shop",))
        assert status_of(info) is RunStatus.PENDING
        assert flows.CALLS == {}
        await run.submit(flows.plain, 4, store=store, run_id="plain")
        await worked(store)
        assert flows.CALLS == {("double", 2): 1, ("double", 4): 1}
        info = await info_of(store, "a")
        assert (info.status, info.outcomes, info.ready_at, info.claims) == (ExecutionStatus.COMPLETED, 2, None, 0)
        assert [each.value async for each in store.outcomes("plain")] == [5]

    executing(main)


def test_submitting_again_is_the_same_run_and_with_other_arguments_an_error() -> None:
    async def main(store: MemoryStore) -> None:
        for _ in range(2):
            await run.submit(flows.quadruple, 2, store=store, run_id="a")
        with pytest.raises(RunMismatchError, match="another input"):
            await run.submit(flows.quadruple, 3, store=store, run_id="a")
        await worked(store)
        await run.submit(flows.quadruple, 2, store=store, run_id="a")
        await worked(store)
        assert flows.CALLS["double", 2] == 1

    executing(main)


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("queue", ""),
        ("run_id", ""),
        ("run_id", 7),
        ("priority", "high"),
        ("priority", 1.5),
        ("priority", True),
        ("priority", 2**31),
        ("not_before", "tomorrow"),
    ],
)
def test_an_option_that_no_queue_can_keep_is_refused_by_its_name(option: str, given: Any) -> None:
    options: dict[str, Any] = {option: given}
    with pytest.raises(OptionError, match=f"{option}={given!r}"):
        asyncio.run(run.submit(flows.quadruple, 1, store=MemoryStore(), **options))


def test_what_no_worker_could_call_is_refused_when_it_is_submitted() -> None:
    async def main(store: MemoryStore) -> None:
        @tool
        async def local() -> int:
            return 1

        with pytest.raises(DefinitionError, match="top level of a module"):
            await run.submit(local, store=store)
        with pytest.raises(UnstorableError, match=r"argument 'number'.*Injected"):
            await run.submit(flows.quadruple, asyncio.Event(), store=store)  # type: ignore[arg-type, call-arg]
        with pytest.raises(TypeError, match="number"):
            await run.submit(flows.with_client, store=store)
        with pytest.raises(TypeError):
            await run.submit(flows.quadruple, 1, unknown=2, store=store)  # type: ignore[call-arg]
        with pytest.raises(DefinitionError, match="not a call"):
            await run.submit(flows.double(1), store=store)  # type: ignore[call-overload]
        with pytest.raises(DefinitionError, match="no time"):
            await run.submit(flows.quadruple, 1, store=store, not_before=float("nan"))
        assert await store.runs() == []

    executing(main)


def test_what_is_injected_is_made_once_by_the_worker_and_left_at_its_end() -> None:
    async def main(store: MemoryStore) -> None:
        trail: list[str] = []

        @asynccontextmanager
        async def client() -> Any:
            trail.append("made")
            yield "client"
            trail.append("left")

        for number in range(3):
            await run.submit(flows.with_client, number, store=store, run_id=str(number))
        lines = await worked(store)
        assert lines == [
            "left to other workers: tests.runtime.queue_flows:with_client needs 'client', which the worker has to "
            "make: --inject client=MODULE:FUNCTION"
        ]
        await worked(store, inject={"client": client})
        assert trail == ["made", "left"]
        for number in range(3):
            assert [each.value async for each in store.outcomes(str(number))] == [f"client {number}"]

    executing(main)


def test_a_factory_that_fails_leaves_the_run_as_it_was() -> None:
    async def main(store: MemoryStore) -> None:
        before = await run.submit(flows.with_client, 1, store=store, run_id="a")

        def broken() -> None:
            raise ValueError("no network")

        (line,) = await worked(store, inject={"client": broken})
        assert "no network" in line
        assert await info_of(store, "a") == before

    executing(main)


def test_a_flow_that_cannot_be_imported_is_left_and_reported_once_and_tried_again_after_a_minute() -> None:
    async def main(store: MemoryStore) -> None:
        now, asked = [0.0], list[str]()
        is_there = [False]

        def load(target: str) -> Any:
            asked.append(target)
            if not is_there[0]:
                raise ImportError("no module named shop")
            return flows.quadruple

        for name in ("a", "b"):
            await run.submit(flows.quadruple, 2, store=store, run_id=name)
        lines: list[str] = []
        worker = Worker(store, load=load, report=lines.append, monotonic=lambda: now[0])
        for now[0] in (0.0, 59.0):
            assert not await worker._take_if_there_is_room()
        assert asked == ["tests.runtime.queue_flows:quadruple"]
        assert (await info_of(store, "a")).status is ExecutionStatus.PENDING
        now[0] = 61.0
        assert not await worker._take_if_there_is_room()
        assert len(asked) == 2
        assert len(lines) == 1
        is_there[0], now[0] = True, 130.0
        await worker.run(until_empty=True)
        assert (await info_of(store, "b")).status is ExecutionStatus.COMPLETED

    executing(main)


def test_other_code_is_reported_and_can_be_refused() -> None:
    async def main(store: MemoryStore) -> None:
        def load(_: str) -> Any:
            return flows.failing  # another source than what was submitted

        await run.submit(flows.quadruple, 2, store=store, run_id="a")
        (line,) = await worked(store, load=load, require_same_code=True)
        assert "another source here" in line
        assert (await info_of(store, "a")).status is ExecutionStatus.PENDING
        lines = await worked(store, load=load)
        assert "another source here" in lines[0]
        assert (await info_of(store, "a")).status is ExecutionStatus.FAILED
        await run.submit(flows.quadruple, 2, store=store, run_id="b")
        lines = await worked(store, require_same_code=True)
        assert [line for line in lines if "source" in line] == []

    executing(main)


def test_a_run_that_fails_keeps_no_other_one_from_being_executed_and_can_be_requeued() -> None:
    async def main(store: MemoryStore) -> None:
        await run.submit(flows.failing, 1, store=store, run_id="bad", priority=1)
        await run.submit(flows.quadruple, 2, store=store, run_id="good")
        lines = await worked(store)
        assert any("bad (failing, version 1): failed: ValueError: no 1" in line for line in lines)
        assert (await info_of(store, "good")).status is ExecutionStatus.COMPLETED
        result = await store.control("bad").requeue()
        assert (result.is_applied, result.text) == (True, "bad waits for a worker of queue default")
        assert (await info_of(store, "bad")).status is ExecutionStatus.PENDING
        await worked(store)
        assert (await info_of(store, "bad")).epoch == 1
        await store.control("bad").requeue(failed=True)
        await worked(store)
        assert (await info_of(store, "bad")).epoch == 2
        async with asyncio.timeout(10):
            await run(flows.quadruple, 5, store=store, run_id="by hand")
        with pytest.raises(ControlRefused, match="name calls"):
            await store.control("by hand").requeue()

    executing(main)


def test_a_worker_that_is_stopped_hands_its_runs_on_and_nothing_finished_is_repeated() -> None:
    async def main(store: MemoryStore) -> None:
        flows.STARTED.append(asyncio.Event())
        await run.submit(flows.in_two_steps, 3, store=store, run_id="a")
        lines: list[str] = []
        worker = Worker(store, report=lines.append)
        working = asyncio.ensure_future(worker.run())
        async with asyncio.timeout(10):
            await flows.STARTED[-1].wait()
            worker.stop(grace=5.0)
            await working
        info = await info_of(store, "a")
        assert (info.status, info.owner, info.claims) == (ExecutionStatus.STARTED, None, 0)
        assert info.ready_at is not None
        await worked(store)
        assert (await info_of(store, "a")).status is ExecutionStatus.COMPLETED
        assert flows.CALLS == {("double", 3): 1, ("double", 6): 1, "between": 2}

    executing(main)


def test_a_run_that_its_program_stops_waits_until_somebody_says_so() -> None:
    async def main(store: MemoryStore) -> None:
        flows.STOPS.append("once")
        await run.submit(flows.stopping, 3, store=store, run_id="a")
        lines = await worked(store)
        assert lines[-1] == "run a (stopping, version 1): stopped: enough for today"
        info = await info_of(store, "a")
        assert (info.status, info.ready_at) == (ExecutionStatus.STARTED, None)
        assert flows.CALLS == {("double", 3): 1}
        assert (await store.control("a").requeue()).is_applied
        await worked(store)
        assert (await info_of(store, "a")).status is ExecutionStatus.COMPLETED
        assert flows.CALLS == {("double", 3): 1, ("double", 6): 1}

    executing(main)


def test_a_run_that_waits_for_an_answer_is_taken_up_when_it_is_there() -> None:
    async def main(store: MemoryStore) -> None:
        await run.submit(flows.asking, 4, store=store, run_id="a")
        await worked(store)
        info = await info_of(store, "a")
        assert (info.status, info.ready_at) == (ExecutionStatus.AWAITING, None)
        (question,) = await store.questions("a")
        await store.answer("a", question.id, b"7")
        await worked(store)
        assert (await info_of(store, "a")).status is ExecutionStatus.COMPLETED
        outcomes = [each.value async for each in store.outcomes("a")]
        assert outcomes[-1] == 15

    executing(main)


def test_a_run_that_sleeps_or_waits_for_an_event_is_taken_up_when_it_is_due() -> None:
    async def main(store: MemoryStore) -> None:
        await run.submit(flows.sleeping, 4, store=store, run_id="a")
        await worked(store)
        info = await info_of(store, "a")
        assert info.status is ExecutionStatus.AWAITING
        assert info.ready_at is not None
        assert info.ready_at > info.created_at + 3000
        assert await store.claim_next(Wanted("default", [info.flow or ""], "me")) is None
        await store.control("a").signal("wake up", 10)
        await worked(store)
        assert (await info_of(store, "a")).status is ExecutionStatus.COMPLETED
        assert [each.value async for each in store.outcomes("a")][-1] == 18

    executing(main)


def test_a_secret_travels_by_its_name_and_a_worker_without_it_leaves_the_run() -> None:
    async def main(store: MemoryStore) -> None:
        register_secret("shop-key", "sk-very-secret-value")
        try:
            info = await run.submit(flows.keeping, "sk-very-secret-value", store=store, run_id="a")
            assert info.input is not None
            assert b"very-secret" not in info.input
        finally:
            forget_secret("shop-key")
        (line,) = await worked(store)
        assert "shop-key" in line
        assert (await info_of(store, "a")).status is ExecutionStatus.PENDING
        register_secret("shop-key", "sk-rotated-secret-value")
        try:
            await worked(store)
        finally:
            forget_secret("shop-key")
        assert flows.CALLS == {("secret", "sk-rotated-secret-value"): 1}

    executing(main)


def test_several_runs_are_executed_side_by_side_and_never_more_than_said() -> None:
    async def main(store: MemoryStore) -> None:
        for number in range(7):
            await run.submit(flows.quadruple, number, store=store, run_id=str(number))
        most = [0]

        def report(line: str) -> None:
            begun.append(line) if line.endswith("begun") else ended.append(line)
            most[0] = max(most[0], len(begun) - len(ended))

        begun, ended = list[str](), list[str]()
        await Worker(store, max_runs=3, report=report).run(until_empty=True)
        assert (len(begun), len(ended), most[0]) == (7, 7, 3)

    executing(main)


def test_the_program_itself_is_named_by_its_file_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "quadruple", flows.quadruple, raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", "/somewhere/shop.py", raising=False)
    monkeypatch.setattr(flows.quadruple, "__module__", "__main__")
    assert flow_name(flows.quadruple) == "shop:quadruple"
    monkeypatch.setattr(main, "__file__", None)
    with pytest.raises(DefinitionError, match="notebook"):
        flow_name(flows.quadruple)


def test_what_is_no_function_is_no_flow() -> None:
    for target, found in (("m:f", 3), ("m:C", Flow)):
        with pytest.raises(DefinitionError, match="needs a function"):
            Flow.load(target, lambda _, found=found: found)  # type: ignore[misc]
    with pytest.raises(DefinitionError, match="no function"):
        Flow.load("rh_agents:nothing_of_this_name", load_flow)
