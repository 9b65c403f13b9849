"""One `map` in many processes: who a member is, what is called again, and in which order the program gets results.

The processes are threads here, each with an event loop and a store of its own, so that the test can look at what was
called. `tests/stress/test_shards_killed.py` has real ones, which are killed.
"""

from __future__ import annotations

import asyncio
import functools
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rh_agents import (
    Budget,
    CircuitBreaker,
    ConcurrencyLimit,
    ErrorStrategy,
    ExecutionState,
    RetryPolicy,
    Tool,
    Usage,
    agent,
    current,
    open_store,
    parallel,
    report_usage,
    tool,
)
from rh_agents.core.errors import BudgetExceeded, RunStopped, TooManyFailures, UsageError, WorkerLost
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports.executors import CallContext
from rh_agents.sharding.executing import execute_at, execute_here

CALLS: list[tuple[str, int, str]] = []
"""What was called: the function, its argument, its idempotency key."""


@pytest.fixture(autouse=True)
def _nothing_called_yet() -> None:
    CALLS.clear()


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test as a plain function, which runs it on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@tool
async def look(number: int) -> int:
    CALLS.append(("look", number, current().idempotency_key))
    await asyncio.sleep(0)
    return number


@tool
async def double(number: int) -> int:
    await look(number)
    CALLS.append(("double", number, current().idempotency_key))
    await asyncio.sleep(0.001 * (number % 3))
    if number % 10 == 7:
        raise ValueError(f"{number} is none")
    return 2 * number


async def plain(number: int) -> int:
    CALLS.append(("plain", number, ""))
    return number + 1


class Threads:
    """Executes shards in threads. `loses` says of the how-manieth one whether its process dies, before it or after it.

    Whoever cancels a call kills the process: then what is under way in the thread is cancelled, and that is waited for.
    """

    def __init__(self, loses: Callable[[int], str | None] = lambda _: None) -> None:
        self.calls = 0
        self._loses = loses

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        assert function is execute_here
        self.calls += 1
        fate = self._loses(self.calls)
        if fate == "before":
            raise WorkerLost("it died", has_begun=False)
        loop: asyncio.AbstractEventLoop | None = None
        executed: asyncio.Task[Any] | None = None

        async def execute() -> Any:
            nonlocal loop, executed
            loop, executed = asyncio.get_running_loop(), asyncio.current_task()
            return await execute_at(*args[:3])  # its main program is this one

        thread = asyncio.ensure_future(asyncio.to_thread(asyncio.run, execute()))
        try:
            result = await asyncio.shield(thread)
        except asyncio.CancelledError:
            if loop is not None and executed is not None:
                with suppress(RuntimeError):  # its loop has ended by itself
                    loop.call_soon_threadsafe(executed.cancel)
            await asyncio.wait((thread,))
            raise
        if fate == "after":
            raise WorkerLost("it died")
        return result


Results = list[tuple[int | None, Any, str | None]]


async def mapped(
    place: Path,
    items: Sequence[int],
    *,
    shard: int | None = 5,
    run_id: str = "monday",
    function: Any = double,
    executor: Threads | None = None,
    group: Mapping[str, Any] = {},
    state: Mapping[str, Any] = {},
) -> Results:
    """Map a function over items in a run, and return what the stream of the group gave."""
    where: dict[str, Any] = {} if shard is None else {"shard": shard, "workers": 2}
    executors = {"process": executor or Threads()}
    async with (
        ExecutionState(store=f"{place}/runs.db", run_id=run_id, executors=executors, **state),
        parallel(max_workers=3, name="items", **group) as p,
    ):
        p.map(function, items, **where)
        return [(each.index, each.result, each.error_message) async for each in p.stream()]


async def outcomes(place: Path, run_id: str) -> set[tuple[Any, ...]]:
    store = open_store(f"{place}/runs.db")
    found = {
        (each.key, each.base, each.parent, each.name, each.address, repr(each.value), str(each.error), each.group_id)
        async for each in store.outcomes(run_id)
    }
    await store.aclose()
    return found


async def run_ids(place: Path) -> list[str]:
    store = open_store(f"{place}/runs.db")
    found = [info.run_id for info in await store.runs()]
    await store.aclose()
    return found


@on_a_loop
async def test_shards_have_the_keys_addresses_and_outcomes_of_the_map_without_them(tmp_path: Path) -> None:
    items = [3, 7, 3, 11, 3, 17, 20, 21, 7, 22]
    whole = await mapped(tmp_path, items, shard=None, run_id="whole")
    calls = sorted((name, number) for name, number, _ in CALLS)
    CALLS.clear()
    cut = await mapped(tmp_path, items, shard=3, run_id="cut")
    assert sorted(cut, key=str) == sorted(whole, key=str)
    assert sorted((name, number) for name, number, _ in CALLS) == calls
    assert await outcomes(tmp_path, "cut") == await outcomes(tmp_path, "whole")


@on_a_loop
async def test_what_is_tried_again_belongs_to_the_execution_of_the_run_of_the_group(tmp_path: Path) -> None:
    made_in = []
    for shard in (3, None):
        (tmp_path / str(shard)).mkdir()
        for _ in range(3):
            await mapped(tmp_path / str(shard), range(5, 9), shard=shard)
        store = open_store(f"{tmp_path}/{shard}/runs.db")
        made_in.append({(each.key, each.made_in) async for each in store.outcomes("monday")})
        await store.aclose()
    assert made_in[0] == made_in[1]
    assert {epoch for _, (epoch, *_) in made_in[0]} == {0, 1, 2}


@on_a_loop
async def test_idempotency_keys_are_those_of_the_run_of_the_group(tmp_path: Path) -> None:
    called = []
    for shard in (3, None):
        CALLS.clear()
        (tmp_path / str(shard)).mkdir()
        await mapped(tmp_path / str(shard), range(8), shard=shard)
        called.append(set(CALLS))
    assert called[0] == called[1]


@on_a_loop
async def test_a_shard_that_has_been_taken_over_is_deleted(tmp_path: Path) -> None:
    await mapped(tmp_path, range(20), shard=4)
    assert await run_ids(tmp_path) == ["monday"]


@on_a_loop
async def test_plain_functions_and_names_are_mapped_as_well(tmp_path: Path) -> None:
    found = await mapped(tmp_path, range(7), shard=3, function=plain)
    assert sorted(found) == [(number, number + 1, None) for number in range(7)]


SCRIPT = """
import asyncio, functools, sys
from dataclasses import dataclass
from rh_agents import ExecutionState, parallel, tool

@dataclass
class Page:
    number: int

@dataclass
class Words:
    count: int

class Empty(Exception): ...

def called(name, number):
    with open("called", "a") as ledger:
        ledger.write(f"{name} {number}\\n")

@functools.cache
def factor():
    return 2

@tool
async def look(page: Page) -> Words:
    called("look", page.number)
    if page.number == 3:
        raise Empty("no words")
    return Words(page.number * factor())

@tool
async def count(page: Page) -> Words:
    called("count", page.number)
    return await look(page)

async def main(shard):
    async with ExecutionState(store="runs.db", run_id="monday", retry_failed=False), parallel(name="pages") as p:
        results = await p.map(count, [Page(1), Page(2), Page(3)], shard=shard)
    print([(type(each.item), each.result, type(each.error).__name__) for each in results])

asyncio.run(main(int(sys.argv[1]) or None))
"""


def test_a_script_maps_its_own_classes_in_other_processes_and_finds_them_in_its_own(tmp_path: Path) -> None:
    (tmp_path / "pages.py").write_text(SCRIPT)
    printed = []
    for shard in ("2", "0"):
        done = subprocess.run(
            [sys.executable, "pages.py", shard], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        printed.append(done.stdout)
    page = "(<class '__main__.Page'>, "
    assert (
        printed[0] == f"[{page}Words(count=2), 'NoneType'), {page}Words(count=4), 'NoneType'), {page}None, 'Empty')]\n"
    )
    assert printed[1] == printed[0]
    ledger = Counter((tmp_path / "called").read_text().splitlines())
    assert ledger == {f"{name} {number}": 1 for name in ("look", "count") for number in (1, 2, 3)}


@on_a_loop
async def test_a_replay_gives_the_results_in_the_order_in_which_the_program_had_them(tmp_path: Path) -> None:
    first = await mapped(tmp_path, range(30), shard=4, state={"retry_failed": False})
    CALLS.clear()
    again = await mapped(tmp_path, range(30), shard=7, state={"retry_failed": False})
    assert again == first
    assert not CALLS


@on_a_loop
async def test_the_next_start_may_have_other_shards_or_none_and_other_items(tmp_path: Path) -> None:
    await mapped(tmp_path, range(12), shard=5)
    for shard, further in ((None, 50), (3, 60), (100, 70), (1, 80)):
        CALLS.clear()
        await mapped(tmp_path, [further, *reversed(range(12))], shard=shard, state={"retry_failed": False})
        assert {number for _, number, _ in CALLS} == {further}
    CALLS.clear()
    await mapped(tmp_path, range(12), shard=2)
    assert {number for name, number, _ in CALLS if name == "double"} == {7}, "a failure is tried again"


@on_a_loop
async def test_a_shard_whose_process_dies_is_given_to_another_and_repeats_nothing_that_has_ended(
    tmp_path: Path,
) -> None:
    executor = Threads(lambda call: {1: "before", 2: "after"}.get(call))
    found = await mapped(tmp_path, range(20), shard=10, executor=executor)
    assert len(found) == 20
    assert max(Counter(CALLS).values()) == 1


@on_a_loop
async def test_a_shard_with_which_too_many_processes_die_fails_and_the_others_do_not(tmp_path: Path) -> None:
    class Deadly(Threads):
        first: str | None = None

        async def call(
            self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
        ) -> Any:
            self.first = self.first or args[1]
            if args[1] == self.first:
                raise WorkerLost("it died", has_begun=False)
            return await super().call(function, args, kwargs, about)

    found = await mapped(tmp_path, range(0, 40, 2), shard=5, executor=Deadly())
    failed = {index for index, _, message in found if message is not None}
    assert failed == {0, 1, 2, 3, 4}
    assert all("5 processes have died" in (message or "5 processes have died") for _, _, message in found)


@on_a_loop
async def test_fail_fast_ends_all_shards_and_the_journal_tells_the_same_story_again(tmp_path: Path) -> None:
    options = {"error_strategy": ErrorStrategy.FAIL_FAST}
    with pytest.raises(ValueError, match="7 is none"):
        await mapped(tmp_path, range(200), shard=5, group=options)
    assert len(CALLS) < 200
    CALLS.clear()
    with pytest.raises(ValueError, match="7 is none"):
        await mapped(tmp_path, range(200), shard=9, group=options, state={"retry_failed": False})
    assert not CALLS


@on_a_loop
async def test_fail_after_counts_over_all_shards(tmp_path: Path) -> None:
    with pytest.raises(TooManyFailures, match="after 3 of"):
        await mapped(tmp_path, range(400), shard=10, group={"fail_after": 3})
    assert len(CALLS) < 500


@on_a_loop
async def test_a_budget_of_calls_holds_over_all_shards_and_after_a_restart(tmp_path: Path) -> None:
    group = {"budget": Budget(calls=20)}
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            await mapped(tmp_path, range(0, 1000, 10), shard=5, function=look, group=group)
        assert len(CALLS) == 20
    await mapped(tmp_path, range(0, 1000, 10), shard=5, function=look, group={"budget": Budget(calls=100)})
    assert len(CALLS) == 100


@on_a_loop
async def test_a_budget_of_calls_of_the_run_holds_over_all_shards(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            await mapped(tmp_path, range(0, 1000, 10), function=look, state={"budget": Budget(calls=20)})
        assert len(CALLS) == 20


class Paid(Tool):
    """It is known beforehand what it costs."""

    def estimate_input(self, input_data: object) -> Usage:
        return Usage(cost=1.0)


async def _pay(number: int) -> int:
    CALLS.append(("pay", number, current().idempotency_key))
    await asyncio.sleep(0.01)
    report_usage(Usage(cost=1.0))
    return number


pay = Paid(name="pay", handler=_pay)


@on_a_loop
@pytest.mark.parametrize("of", ["run", "group"])
async def test_money_of_a_shared_budget_is_enforced_in_each_shard(tmp_path: Path, of: str) -> None:
    for most, paid in ((30.0, 30), (30.0, 30), (45.0, 45), (200.0, 100)):
        budget = Budget(cost=most, shared=True, name="month")
        options: dict[str, Any] = {"state": {"budget": budget}} if of == "run" else {"group": {"budget": budget}}
        if paid < 100:
            with pytest.raises(BudgetExceeded, match="the shared budget 'month'"):
                await mapped(tmp_path, range(100), function=pay, **options)
        else:
            await mapped(tmp_path, range(100), function=pay, **options)
        assert len(CALLS) == paid
    assert len({number for _, number, _ in CALLS}) == 100, "nothing is paid for twice"


@on_a_loop
async def test_an_interruption_lets_what_is_under_way_end_and_nothing_is_called_twice(tmp_path: Path) -> None:
    async def stopped() -> None:
        executors = {"process": Threads()}
        async with (
            ExecutionState(store=f"{tmp_path}/runs.db", run_id="monday", executors=executors) as state,
            parallel(max_workers=2, name="items") as p,
        ):
            p.map(look, range(60), shard=10, workers=2)
            async for _ in p.stream():
                state.request_interrupt("a deploy")

    with pytest.raises(RunStopped):
        await stopped()
    await mapped(tmp_path, range(60), shard=7, function=look)
    assert Counter(number for _, number, _ in CALLS) == Counter(range(60))


@on_a_loop
async def test_what_a_member_had_called_before_it_was_cut_off_goes_along_into_another_shard(tmp_path: Path) -> None:
    async def first() -> None:
        async with (
            ExecutionState(store=f"{tmp_path}/runs.db", run_id="monday"),
            parallel(max_workers=4, name="items") as p,
        ):
            p.map(later, range(4))
            await p.gather()

    have_begun, never = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        if len(CALLS) == 4:
            have_begun.set()
        await never.wait()

    WAITS.append(wait)
    task = asyncio.create_task(first())
    await have_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    WAITS.clear()
    found = await mapped(tmp_path, range(4), shard=2, function=later)
    assert sorted(found) == [(number, number, None) for number in range(4)]
    assert Counter(number for name, number, _ in CALLS if name == "look") == Counter(range(4))


WAITS: list[Callable[[], Any]] = []


@tool
async def later(number: int) -> int:
    found = await look(number)
    for wait in WAITS:
        await wait()
    return found


@agent
async def nested(number: int) -> list[int]:
    async with parallel(max_workers=2, name="inner") as p:
        p.map(look, range(number, number + 3))
        return [each.unwrap() for each in await p.gather()]


@on_a_loop
async def test_groups_within_members_are_replayed_like_all_others(tmp_path: Path) -> None:
    first = await mapped(tmp_path, range(6), shard=2, function=nested)
    await mapped(tmp_path, range(6), shard=None, function=nested, run_id="whole")
    assert await outcomes(tmp_path, "monday") == await outcomes(tmp_path, "whole")
    CALLS.clear()
    assert await mapped(tmp_path, range(6), shard=None, function=nested) == first
    assert not CALLS


@on_a_loop
async def test_subscribers_and_the_history_get_the_events_of_all_processes(tmp_path: Path) -> None:
    seen: list[ExecutionEvent[Any]] = []
    async with ExecutionState(store=f"{tmp_path}/runs.db", executors={"process": Threads()}) as state:
        state.event_bus.subscribe(seen.append)
        async with parallel(max_workers=3, name="items") as p:
            p.map(look, range(5), shard=2)
            await p.gather()
            assert p.group.completed == 5
    ended = [event for event in seen if event.actor.name == "look" and event.execution_status == "completed"]
    assert sorted(event.result for event in ended) == [0, 1, 2, 3, 4]
    assert {event.run_id for event in seen} == {state.run_id}


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"limits": ConcurrencyLimit(3)}, "limits with shared=True"),
        ({"breaker": CircuitBreaker()}, "give it to the function"),
        ({"retry": RetryPolicy(retry_on=OSError)}, "retry_on"),
    ],
)
@on_a_loop
async def test_options_that_hold_in_one_process_only_are_refused(
    tmp_path: Path, group: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        await mapped(tmp_path, range(5), group=group)


@on_a_loop
async def test_a_run_that_others_cannot_open_is_refused_with_the_remedy() -> None:
    async with ExecutionState():
        with pytest.raises(UsageError, match=r"store='runs\.db'"):
            async with parallel(name="items") as p:
                p.map(look, range(3), shard=2)


@on_a_loop
async def test_items_of_shards_have_a_group_of_their_own(tmp_path: Path) -> None:
    async with ExecutionState(store=f"{tmp_path}/runs.db", executors={"process": Threads()}):
        with pytest.raises(UsageError, match="group of their own"):
            async with parallel(name="items") as p:
                p.add(look(1))
                p.map(look, range(3), shard=2)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    items=st.lists(st.integers(0, 12), max_size=14),
    shards=st.lists(st.sampled_from([None, 1, 3, 50]), min_size=2, max_size=3),
    seed=st.integers(0, 99),
)
def test_whatever_the_items_and_the_shards_each_item_is_called_once_and_has_its_key(
    tmp_path_factory: pytest.TempPathFactory, items: list[int], shards: list[int | None], seed: int
) -> None:
    place, chance = tmp_path_factory.mktemp("runs"), random.Random(seed)

    async def all_starts() -> None:
        CALLS.clear()
        for shard in shards:
            executor = Threads(lambda _: chance.choice(["before", None, None, "after", None]))
            await mapped(place, items, shard=shard, function=look, executor=executor)
            chance.shuffle(items)
        assert Counter(number for _, number, _ in CALLS) == Counter(items)
        await mapped(place, items, shard=None, function=look, run_id="whole")
        keys = {each[0] for each in await outcomes(place, "whole")}
        assert {each[0] for each in await outcomes(place, "monday")} == keys

    asyncio.run(all_starts())
