"""Where code finds itself, calls outside of a run, and the functions that start one."""

import asyncio
from collections import Counter
from typing import Any

import detangle
import pytest

from rh_agents import (
    EventType,
    ExecutionEvent,
    ExecutionState,
    ExecutionStatus,
    MemoryStore,
    RetryPolicy,
    Tool,
    agent,
    current,
    open_store,
    parallel,
    run,
    run_sync,
    tool,
)
from rh_agents.core.errors import UsageError

QUICK = RetryPolicy(max_attempts=3, initial_delay=0.1, jitter=False)


def test_current_tells_run_address_attempt_and_group_of_the_call_under_way() -> None:
    seen = []

    @tool(retry=QUICK)
    async def fetch(url: str) -> None:
        call = current()
        seen.append((call.address, call.attempt, call.group_id))
        if call.attempt < 2:
            raise ConnectionError

    @agent
    async def survey() -> str:
        async with parallel(name="pages") as p:
            p.add(fetch("a"))
            await p.gather()
        await fetch("b")
        assert current().address == "survey"
        return p.group_id

    async def main() -> None:
        async with ExecutionState(run_id="r") as state:
            assert (current().run, current().address, current().attempt) == (state, "", 0)
            group_id = await survey()
            assert current().address == ""
        in_group, alone = "survey::pages[0]::fetch", "survey::fetch"
        assert seen == [(in_group, 1, group_id), (in_group, 2, group_id), (alone, 1, None), (alone, 2, None)]

    detangle.run(main)


def test_outside_of_calls_current_says_where_it_belongs() -> None:
    with pytest.raises(UsageError, match=r"below `run\(\.\.\.\)`, a decorated function or a group"):
        current()


def collect_keys(store: MemoryStore | None, seen: dict[str, list[str]], times: int) -> None:
    """Execute a run of four calls, each of which fails at its first attempt."""

    @tool(retry=QUICK)
    async def pay(name: str) -> None:
        call = current()
        seen.setdefault(f"{call.address}({name})", []).append(call.idempotency_key)
        if call.attempt < times:
            raise ConnectionError

    async def flow() -> None:
        await pay("a")
        await pay("a")
        await pay("b")
        async with parallel(name="pages") as p:
            p.add(pay("a"))
            await p.gather()

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            async with ExecutionState(store=store, run_id="monday"):
                await flow()
                raise asyncio.CancelledError  # the process is told to end; the run has not

    detangle.run(main)


def test_the_idempotency_key_is_the_same_at_every_attempt_and_another_for_every_call() -> None:
    seen: dict[str, list[str]] = {}
    collect_keys(MemoryStore(), seen, times=3)
    assert [len(keys) for keys in seen.values()] == [3, 3, 3, 3]
    assert [len(set(keys)) for keys in seen.values()] == [1, 1, 1, 1]
    assert len({keys[0] for keys in seen.values()}) == 4


def test_the_idempotency_key_is_the_same_after_a_restart() -> None:
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    collect_keys(MemoryStore(), before, times=2)
    collect_keys(MemoryStore(), after, times=1)  # another store: the same calls are made again
    assert {address: keys[0] for address, keys in before.items()} == {
        address: keys[0] for address, keys in after.items()
    }


def test_without_a_store_too_every_call_has_an_idempotency_key_of_its_own() -> None:
    keys: list[str] = []

    @tool(retry=QUICK)
    async def pay(number: int) -> None:
        keys.append(current().idempotency_key)
        if current().attempt < 2:
            raise ConnectionError

    async def flow() -> None:
        for number in range(20):
            await pay(number)

    detangle.run(lambda: run(flow))
    assert keys[::2] == keys[1::2], "the same at both attempts"
    assert len(set(keys)) == 20


# -- outside of a run -------------------------------------------------------------------------------------------------


@tool
async def double(number: int) -> int:
    await asyncio.sleep(0.1)
    return number * 2


def test_a_call_outside_of_a_run_is_just_made() -> None:
    async def main() -> None:
        assert await double(2) == 4
        result = await double(3).outcome()
        assert (result.unwrap(), result.address, result.attempts) == (6, "double", 1)
        with pytest.raises(UsageError):
            current()

    detangle.run(main)


def test_the_calls_below_it_share_its_run() -> None:
    @agent
    async def pair() -> tuple[Any, Any]:
        own = current().run

        @tool
        async def ask() -> bool:
            return current().run is own

        async with parallel() as p:
            p.add(ask())
            (member,) = await p.gather()
        return await ask(), member.unwrap()

    async def main() -> None:
        assert await pair() == (True, True)
        assert await pair() == (True, True)

    detangle.run(main)


def test_a_group_outside_of_a_run_works() -> None:
    async def main() -> None:
        async with parallel(max_workers=2) as p:
            p.map(double, [1, 2, 3])
            assert [result.unwrap() for result in await p.gather()] == [2, 4, 6]

    detangle.run(main)


def test_a_call_can_be_awaited_again_and_is_then_another_call() -> None:
    times = 0

    @tool
    async def count() -> int:
        nonlocal times
        times += 1
        return times

    async def main() -> None:
        call = count()
        assert (await call, await call) == (1, 2)

    detangle.run(main)


def test_an_event_outside_of_a_run_asks_for_one() -> None:
    event = ExecutionEvent[int](actor=Tool(name="ask", handler=double.actor.handler))
    with pytest.raises(UsageError, match=r"ExecutionEvent\(actor='ask'\) needs one: event\(input_data, extra_context"):
        event(1)

    async def main() -> None:
        async with ExecutionState():
            assert (await event(2)).unwrap() == 4

    detangle.run(main)


# -- run and run_sync -------------------------------------------------------------------------------------------------


def test_run_gives_the_value_of_the_workflow_and_hands_on_its_arguments() -> None:
    async def flow(first: int, *, second: int) -> int:
        assert current().run.run_id == "monday"
        return await double(first) + second

    assert detangle.run(lambda: run(flow, first=2, second=3, run_id="monday")) == 7


def test_run_raises_what_the_workflow_raises_itself() -> None:
    error = KeyError("mine")

    async def flow() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(KeyError) as caught:
            await run(flow)
        assert caught.value is error

    detangle.run(main)


def test_run_tells_its_subscribers_everything() -> None:
    told: list[tuple[str, str]] = []
    detangle.run(
        lambda: run(double, 2, subscribers=[lambda event: told.append((event.name, event.execution_status.value))])
    )
    assert told == [("double", "started"), ("double", "completed")]


def test_run_takes_a_store_by_its_url() -> None:
    assert detangle.run(lambda: run(double, 2, store="memory:")) == 4
    assert isinstance(open_store("memory:"), MemoryStore)
    with pytest.raises(ValueError, match="no store for 'mysql://…'"):
        open_store("mysql://x")


def test_run_sync_is_run_for_programs_without_an_event_loop() -> None:
    @agent
    async def flow(first: int, second: int = 0) -> int:
        return first + second

    assert run_sync(flow, 1, second=2) == 3
    with pytest.raises(ZeroDivisionError):
        run_sync(agent(divide_by_zero))


async def divide_by_zero() -> float:
    return 1 / 0


def test_a_run_is_entered_once_at_a_time() -> None:
    async def main() -> None:
        async with ExecutionState(run_id="r") as state:
            with pytest.raises(UsageError, match="run r is under way"):
                async with state:
                    pass
            assert current().run is state

    detangle.run(main)


def test_a_run_has_a_name_tags_and_a_status() -> None:
    state = ExecutionState(tags=["nightly"], run_id="r")
    assert (state.state_id, state.run_id, state.tags, state.status) == ("r", "r", ("nightly",), ExecutionStatus.PENDING)
    assert repr(state) == "<ExecutionState r pending>"
    assert ExecutionState().run_id != ExecutionState().run_id


def test_a_run_that_keeps_no_history_tells_whoever_listens() -> None:
    @tool
    async def double(number: int) -> int:
        return number * 2

    async def main() -> None:
        for listens in (False, True):
            heard: list[ExecutionEvent[Any]] = []
            async with ExecutionState(history_limit=0) as state:
                if listens:
                    state.event_bus.subscribe(heard.append)
                assert await double(1) == 2
                async with parallel() as p:
                    p.map(double, [1, 2])
                    assert [result.unwrap() for result in await p.gather()] == [2, 4]
                assert len(state.history) == 0
                assert state.metrics.calls == 3
            told = [event.execution_status for event in heard if event.event_type is EventType.TOOL_CALL]
            assert Counter(told) == ({"started": 3, "completed": 3} if listens else {})

    detangle.run(main)


def test_a_history_limit_keeps_the_newest_events() -> None:
    async def main() -> None:
        async with ExecutionState(history_limit=3) as state:
            for number in range(5):
                await double(number)
            assert [event.result for event in state.history] == [6, None, 8]

    detangle.run(main)


# -- checks of an actor -----------------------------------------------------------------------------------------------


def test_conditions_before_and_after_a_call_decide_whether_it_succeeds() -> None:
    seen: list[Any] = []

    async def handler(data: int, extra: Any) -> int:
        seen.append(("handler", data))
        return data + current().attempt

    def is_positive(data: int, extra: Any, state: Any) -> None:
        seen.append(("before", data))
        if data <= 0:
            raise ValueError("not positive")

    async def is_even(value: int, extra: Any, state: Any) -> None:
        seen.append(("after", value))
        if value % 2:
            raise ValueError("odd")

    actor = Tool(name="add", handler=handler, preconditions=[is_positive], postconditions=[is_even], retry=QUICK)

    async def main() -> None:
        async with ExecutionState() as state:
            refused = await ExecutionEvent(actor=actor)(0, None, state)
            assert (refused.error_message, refused.attempts) == ("ValueError: not positive", 0)
            assert seen == [("before", 0)]
            seen.clear()
            result = await ExecutionEvent(actor=actor)(2, None, state)
            assert (result.unwrap(), result.attempts) == (4, 2)

    detangle.run(main)
    assert seen == [("before", 2), ("handler", 2), ("after", 3), ("handler", 2), ("after", 4)]


def test_an_input_that_does_not_fit_fails_the_call_without_calling_or_retrying() -> None:
    actor = Tool(name="double", handler=double.actor.handler, input_model=int, output_model=str, retry=QUICK)

    async def main() -> None:
        async with ExecutionState() as state:
            refused = await ExecutionEvent(actor=actor)("two", None, state)
            assert refused.attempts == 0
            assert "InputError: double: input Input should be a valid integer" in (refused.error_message or "")
            wrong = await ExecutionEvent(actor=actor)(2, None, state)
            assert (wrong.error_message or "").startswith("OutputError: double: result Input should be a valid string")
            assert wrong.attempts == 3

    detangle.run(main)
