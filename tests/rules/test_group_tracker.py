"""A tracker that is fed by events counts what the group itself counts."""

import asyncio
from typing import Any

import detangle
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from rh_agents import ExecutionEvent, ExecutionState, GroupStatus, MemoryStore, RetryPolicy, tool
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.tracking import ParallelGroupTracker
from rh_agents.core.types import ExecutionStatus

COUNTS = ("name", "status", "total", "enrolled", "started", "completed", "failed", "cancelled", "recovered", "retries")
STARTED, COMPLETED = ExecutionStatus.STARTED, ExecutionStatus.COMPLETED
FAILED, CANCELLED = ExecutionStatus.FAILED, ExecutionStatus.CANCELLED


class Follower:
    """What somebody knows who sees nothing but the events of one group."""

    def __init__(self) -> None:
        self.tracker = ParallelGroupTracker(group_id="")

    def __call__(self, event: ExecutionEvent[Any]) -> None:
        self.tracker.apply(event, asyncio.get_running_loop().time())

    def counts(self) -> dict[str, Any]:
        return {name: getattr(self.tracker, name) for name in COUNTS}


def counts_of(group: ParallelEventGroup) -> dict[str, Any]:
    return {name: getattr(group, name) for name in COUNTS}


def told(index: int, status: ExecutionStatus) -> ExecutionEvent[Any]:
    """An event of a member of a group of ten."""
    return ExecutionEvent(
        actor=work.actor, execution_status=status, group_id="g", parallel_index=index, group_total=10, is_parallel=True
    )


@tool
async def work(number: int) -> int:
    await asyncio.sleep(1 + number % 3)
    if number % 4 == 1:
        raise ValueError(number)
    return number


def test_after_successes_failures_and_retries_both_count_the_same() -> None:
    follower = Follower()

    async def main() -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(follower)
            retry = RetryPolicy(max_attempts=2, initial_delay=1, jitter=False)
            async with state.parallel(max_workers=3, name="pages", retry=retry) as p:
                p.map(work, range(10))
                await p.gather()
                assert follower.counts() == counts_of(p.group), "before the group sums up"
            assert follower.counts() == counts_of(p.group)
            assert (p.group.completed, p.group.failed, p.group.retries) == (7, 3, 3)
            assert follower.tracker.elapsed(1e9) == p.group.elapsed
            assert follower.tracker.latency.summary() == p.group.latency

    detangle.run(main)


def test_while_the_group_runs_both_know_who_runs_and_for_how_long() -> None:
    follower = Follower()

    async def main() -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(follower)
            async with state.parallel(max_workers=2, name="pages") as p:
                p.add(work(8), name="slow")
                p.add(work(0), name="quick")
                p.add(work(2), name="later")
                await asyncio.sleep(1.5)
                slowest = follower.tracker.slowest(5)
                assert [(item.index, item.name) for item in slowest] == [(0, "slow"), (2, "later")]
                assert [item.started_at for item in slowest] == pytest.approx([0.0, 1.0])
                assert follower.tracker.slowest(1) == slowest[:1]
                assert (p.group.running, p.group.pending, p.group.finished) == (2, 0, 1)
                assert (follower.tracker.started, follower.tracker.finished) == (3, 1)
                await p.gather()
            assert follower.tracker.slowest(5) == []

    detangle.run(main)


def test_after_a_resume_both_tell_the_recovered_ones_apart() -> None:
    store = MemoryStore()

    async def execute(numbers: range, follower: Follower) -> ParallelEventGroup:
        state = ExecutionState(store=store, run_id="r", retry_failed=False)
        async with state:
            state.event_bus.subscribe(follower)
            async with state.parallel(name="pages") as p:
                p.map(work, numbers)
                await p.gather()
                assert follower.counts() == counts_of(p.group)
        return p.group

    async def main() -> None:
        await execute(range(5), Follower())
        follower = Follower()
        group = await execute(range(7), follower)
        assert follower.counts() == counts_of(group)
        assert (group.completed, group.failed, group.recovered, group.started) == (5, 2, 5, 2)
        assert group.latency.count == 2, "what was recovered took no time now"

    detangle.run(main)


def test_after_a_cancellation_both_count_those_who_had_begun() -> None:
    follower = Follower()

    async def main() -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(follower)
            async with state.parallel(max_workers=2, name="pages") as p:
                p.map(work, [2, 2, 2, 2])
                await asyncio.sleep(1.5)
                p.cancel()
            assert p.group.status is GroupStatus.CANCELLED
            assert follower.counts() == counts_of(p.group)
            assert (p.group.started, p.group.cancelled) == (2, 2)

    detangle.run(main)


def test_members_that_are_cancelled_in_the_moment_of_their_start_are_counted_by_both() -> None:
    follower = Follower()

    async def main() -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(follower)
            async with state.parallel(max_workers=2, name="pages") as p:
                p.map(work, [2, 2, 2])
                p.cancel()
            assert follower.counts() == counts_of(p.group)

    detangle.run(main)


def test_a_tracker_that_has_seen_nothing_tells_nothing() -> None:
    tracker = ParallelGroupTracker(group_id="g")
    assert (tracker.elapsed(5.0), tracker.rate(5.0), tracker.remaining_seconds(5.0)) == (0.0, 0.0, None)
    assert tracker.slowest(3) == []
    assert not tracker.is_complete


def test_rate_and_remaining_time_follow_from_what_has_finished() -> None:
    tracker = ParallelGroupTracker(group_id="g")
    for index, status in enumerate([COMPLETED, FAILED, CANCELLED, COMPLETED]):
        tracker.apply(told(index, STARTED), float(index))
        tracker.apply(told(index, status), index + 1.0)
    assert (tracker.completed, tracker.failed, tracker.cancelled, tracker.total) == (2, 1, 1, 10)
    assert tracker.elapsed(8.0) == 8.0
    assert tracker.rate(8.0) == 0.5
    assert tracker.remaining_seconds(8.0) == 12.0
    tracker.status = GroupStatus.COMPLETED
    assert tracker.elapsed(100.0) == 4.0, "a group that has ended grows no older"


def test_the_rest_is_expected_at_the_pace_of_what_was_really_called() -> None:
    tracker = ParallelGroupTracker(group_id="g", total=100)
    tracker.count_start(0.0)
    tracker.recovered = 90
    tracker.completed = 90
    assert tracker.remaining_seconds(1.0) is None, "nothing is known of the pace yet"
    tracker.count_end(ExecutionStatus.COMPLETED, 2.0, 2.0)
    assert tracker.remaining_seconds(2.0) == 18.0


class Report(BaseModel):
    title: str
    tracker: ParallelGroupTracker


def tracker_in_the_middle() -> ParallelGroupTracker:
    tracker = ParallelGroupTracker(group_id="g", name="pages", total=8, about=ParallelEventGroup(group_id="g"))
    for index in range(4):
        tracker.running[index] = (f"page {index}", 1.0)
        tracker.count_start(1.0, waited=0.25)
    for index, status in ((0, COMPLETED), (1, FAILED)):
        del tracker.running[index]
        tracker.count_end(status, 3.0, 2.0)
    return tracker


def test_a_tracker_can_be_dumped_read_again_and_goes_on_counting() -> None:
    adapter = TypeAdapter(ParallelGroupTracker)
    tracker = tracker_in_the_middle()
    for again in (
        adapter.validate_json(adapter.dump_json(tracker)),
        adapter.validate_python(adapter.dump_python(tracker)),
        Report.model_validate_json(Report(title="t", tracker=tracker).model_dump_json()).tracker,
    ):
        assert again == tracker
        again.count_end(COMPLETED, 4.0, 3.0)
        assert again != tracker
        assert (again.finished, again.latency.count, again.slot_wait.count) == (3, 3, 4)
        assert [item.name for item in again.slowest(1)] == ["page 2"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"group_id": 7},
        {"total": -1},
        {"failed": -1},
        {"status": "odd"},
        {"running": {"x": 1}},
        {"latency": {"count": "many"}},
        {"about": {}},
        {"nonsense": 1},
    ],
)
def test_what_a_tracker_is_made_of_is_validated(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ParallelGroupTracker(**{"group_id": "g", **wrong})


def test_the_percentage_of_a_group_is_what_has_finished_of_its_total() -> None:
    tracker = ParallelGroupTracker(group_id="g")
    assert tracker.completion_percentage == 0.0, "the total is not known"
    tracker.count_end(COMPLETED, 1.0, 1.0)
    assert tracker.completion_percentage == 0.0
    tracker.total = 8
    tracker.count_end(FAILED, 1.0, 1.0)
    tracker.count_end(CANCELLED, 1.0, None)
    assert tracker.completion_percentage == 37.5
    tracker.status = GroupStatus.FAILED
    assert tracker.completion_percentage == 37.5
    tracker.total = 2
    assert tracker.completion_percentage == 100.0, "more came than was known"
    empty = ParallelGroupTracker(group_id="g", total=0)
    assert empty.completion_percentage == 0.0
    empty.status = GroupStatus.COMPLETED
    assert empty.completion_percentage == 100.0


def test_counting_goes_past_validation() -> None:
    tracker = ParallelGroupTracker(group_id="g")
    assert type(tracker).__setattr__ is object.__setattr__
    assert not hasattr(tracker, "__dict__")
