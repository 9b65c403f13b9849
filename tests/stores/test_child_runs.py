"""A run and its child runs are one run for whoever looks at it, changes it or takes it away."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionState, open_store, parallel, tool
from rh_agents.core.errors import LeaseLost, RunIsLive
from rh_agents.core.groups import EndingCause, ErrorStrategy, GroupEnding, GroupStatus, ParallelEventGroup
from rh_agents.core.policies.child_runs import GROUP_HAS_ENDED, AboutChild, NewChild
from rh_agents.core.ports import Resumption, RunRequest
from rh_agents.core.ports.outline import outline_of_run
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.core.queueing import Wanted, queues_of
from rh_agents.core.runs import affected_by, fork
from rh_agents.core.tracking import group_fact
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.stores._store import SqlStore

GROUP = "f" * 32
FLOW = "shard of pages:fetch"


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.db"
    found: str = request.getfixturevalue("postgresql_url")
    return found


def child(name: str = "monday/pages/1", **about: Any) -> NewChild:
    facts = AboutChild(GROUP, about.pop("given", 0), about.pop("places", ()))
    return NewChild(name, "shard", b"{}", facts, {}, about.pop("queue", "default"), FLOW)


@tool
async def fetch(number: int) -> int:
    if number == 13:
        raise ValueError("no page 13")
    return 10 * number


async def make_members(store: Any, run_id: str, numbers: range, *, status: str = "completed") -> None:
    """Record some calls in a run, as a shard would."""
    async with ExecutionState(store=store, run_id=run_id) as state:
        async with parallel(name="pages") as p:
            p.map(fetch, numbers)
            await p.gather()
        if status != "completed":
            state.request_interrupt("a deploy", grace=0)


async def orphan(url: str) -> Any:
    """A run whose owner is gone, with a child run of which it has nothing."""
    store: Any = open_store(url)
    journal = await store.open_run(RunRequest("monday", "me"))
    await store.add_child("monday", child(queue=None))
    await journal.close(ExecutionStatus.STARTED, "it died")
    await make_members(store, "monday/pages/1", range(10, 14))
    return store


@on_a_loop
async def test_a_child_run_is_made_by_the_owner_of_its_parent_alone(url: str) -> None:
    store: Any = open_store(url)
    with pytest.raises(LeaseLost):
        await store.add_child("monday", child())
    journal = await store.open_run(RunRequest("monday", "me"))
    await store.add_child("monday", child())
    await journal.close(ExecutionStatus.STARTED)
    with pytest.raises(LeaseLost):
        await store.add_child("monday", child("monday/pages/2"))
    assert [each.run_id for each in await store.children("monday")] == ["monday/pages/1"]
    assert [info.run_id for info in await store.runs()] == ["monday"]
    await store.aclose()


@on_a_loop
async def test_an_owner_that_was_taken_over_makes_no_child_run(url: str) -> None:
    store: Any = open_store(url)
    journal = await store.open_run(RunRequest("monday", "me"))
    row = await store.engine.run("monday")
    # Not waited for: its journal has no time to notice it.
    store.engine.writer.do(lambda session: session.release(row.number, row.fence, None, None, 0.0))
    with pytest.raises(LeaseLost):
        await store.add_child("monday", child())
    assert await store.children("monday") == []
    del journal
    await store.aclose()


@on_a_loop
async def test_what_child_runs_have_is_read_as_part_of_a_run_that_nobody_executes(url: str) -> None:
    store = await orphan(url)
    outcomes = [each async for each in store.outcomes("monday")]
    assert sorted(each.value for each in outcomes if each.error is None) == [100, 110, 120]
    events = [each async for each in store.events("monday")]
    assert [each.sequence for each in events] == list(range(1, len(events) + 1))
    assert sum(each.has_outcome for each in events) == 4
    summary = await summary_of_run(store, "monday")
    assert (summary.outcomes, summary.actors["fetch"][ExecutionStatus.FAILED]) == (4, 1)
    outline = await outline_of_run(store, "monday")
    assert outline.last == len(events)
    assert await store.check() == []
    await store.aclose()


@on_a_loop
async def test_a_copy_has_what_child_runs_have_recorded_and_none_of_them(url: str) -> None:
    store = await orphan(url)
    await fork(store, "monday", "tuesday")
    assert await store.children("tuesday") == []
    assert len([each async for each in store.outcomes("tuesday")]) == 4
    left_out = (await affected_by(store, "monday", "pages[1]::fetch"))[0].key
    await store.fork_run("monday", "wednesday", [left_out], [])
    assert left_out not in {each.key async for each in store.outcomes("wednesday")}
    assert await store.check() == []
    await store.aclose()


@on_a_loop
async def test_calls_that_are_recorded_in_a_child_run_can_be_made_again(url: str) -> None:
    store = await orphan(url)
    key = (await affected_by(store, "monday", "pages[1]::fetch"))[0].key
    await store.supersede("monday", [key])
    assert await store.children("monday") == []
    journal = await store.open_run(RunRequest("monday", "me"))
    assert set(journal.recorded.superseded) == {key}
    assert len(journal.recorded.finished) == 4
    await journal.close(ExecutionStatus.STARTED)
    assert await store.check() == []
    await store.aclose()


@on_a_loop
async def test_a_run_is_deleted_and_erased_with_its_child_runs(url: str) -> None:
    store = await orphan(url)
    await store.erase_values("monday")
    assert await store.children("monday") == []
    await store.delete_run("monday")
    assert await store.find_run("monday/pages/1") is None
    assert await store.find_run("monday") is None
    await store.aclose()


@on_a_loop
async def test_a_run_is_not_deleted_while_a_child_run_is_executed_nor_is_anything_of_it(url: str) -> None:
    store = await orphan(url)
    other: Any = open_store(url)
    live = await other.open_run(RunRequest("monday/pages/1", "a worker"))
    with pytest.raises(RunIsLive):
        await store.delete_run("monday")
    assert await store.find_run("monday") is not None
    await live.close(ExecutionStatus.COMPLETED)
    await store.delete_run("monday")
    await other.aclose()
    await store.aclose()


def ending_of(group: str) -> Any:
    about = ParallelEventGroup(
        group_id=group, name="pages", address="pages", error_strategy=ErrorStrategy.FAIL_FAST, max_workers=2,
        status=GroupStatus.RUNNING, ending=GroupEnding(cause=EndingCause.FAILED_FAST),
    )  # fmt: skip
    return group_fact(EventType.GROUP_ENDING, about, "monday", 1.0)


@on_a_loop
async def test_with_the_ending_of_a_group_no_worker_takes_its_child_runs_and_those_that_have_one_stop(url: str) -> None:
    store: SqlStore = open_store(url)  # type: ignore[assignment]
    journal: Any = await store.open_run(RunRequest("monday", "me"))
    for name in ("monday/pages/1", "monday/pages/2"):
        await store.add_child("monday", child(name))
    other = NewChild("monday/others/1", "shard", b"{}", AboutChild("e" * 32), {}, "default", FLOW)
    await store.add_child("monday", other)
    wanted = Wanted("default", [FLOW], "a worker")
    taken = await queues_of(store).claim_next(wanted)
    assert taken is not None
    live: Any = await store.open_run(RunRequest(taken.run_id, "a worker"))
    reasons: list[str] = []
    live.when_stop_requested(reasons.append)
    await journal.append(ending_of(GROUP))
    states = {each.run_id: each.is_ready for each in await store.children("monday")}
    assert states == {"monday/pages/1": False, "monday/pages/2": False, "monday/others/1": True}
    for _ in range(300):
        if reasons:
            break
        await asyncio.sleep(0.01)
    assert reasons == [GROUP_HAS_ENDED]
    # It is handed on, as by a worker that was told to end at this moment: no other one gets it all the same.
    await live.close(ExecutionStatus.STARTED, "its worker was stopped", Resumption(1.0))
    next_one = await queues_of(store).claim_next(wanted)
    assert next_one is not None
    assert next_one.run_id == "monday/others/1"
    assert await queues_of(store).claim_next(wanted) is None
    assert await store.check() == []
    await store.aclose()


@on_a_loop
async def test_who_cancels_or_pauses_a_run_without_an_owner_does_so_with_its_child_runs(url: str) -> None:
    store: Any = open_store(url)
    journal = await store.open_run(RunRequest("monday", "me"))
    await store.add_child("monday", child())
    await journal.close(ExecutionStatus.STARTED, "it died")
    await store.control("monday").pause()
    assert [each.verb.value for each in await store.control_requests("monday/pages/1")] == ["pause"]
    await store.control("monday").cancel()
    assert [each.is_ready for each in await store.children("monday")] == [False]
    await store.aclose()
