"""A run that is executed again tells the same story: what the program saw is what is recorded."""

from __future__ import annotations

from typing import Any

import pytest

from rh_agents import ExecutionState, ExecutionStatus, parallel
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, Crash, KeepingStore, World


@pytest.fixture
def world() -> World:
    return World()


# -- a call that was made again ---------------------------------------------------------------------------------------


def test_of_a_call_that_was_made_again_the_newest_outcome_counts_however_the_run_is_started(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["a", "b"]

    async def work() -> list[Any]:
        async with parallel(name="pages") as p:
            p.map(fetch, "abc")
            return [result.result for result in await p.gather()]

    async def expect(values: list[Any], **options: Any) -> None:
        async with world.again(**options):
            assert await work() == values
        assert world.forget() == []

    async def main() -> None:
        async with world.again():
            assert await work() == [None, None, "c"]
        world.down = ["b"]
        world.forget()
        async with world.again():
            assert await work() == ["a", None, "c"]
        assert world.forget() == ["a", "b"]
        for _ in range(2):
            await expect(["a", None, "c"], retry_failed=False)
        await expect(["a", None, "c"], retry_failed=False, replay_mode="republish_all")
        world.down = []
        async with world.again():
            assert await work() == ["a", "b", "c"]
        assert world.forget() == ["b"]
        await expect(["a", "b", "c"])
        await expect(["a", "b", "c"], retry_failed=False)

    run_virtually(main)


@pytest.mark.parametrize("has_outcome", [True, False])
def test_after_a_crash_in_the_second_epoch_the_newest_outcome_counts_without_another_try(
    world: World, has_outcome: bool
) -> None:
    """What the second epoch made again is not given as it was before; what it had not come to is not tried."""
    fetch = world.make_fetch()
    world.down = ["a", "b"]

    async def work() -> list[Any]:
        return [(await fetch(what).outcome()).result for what in "ab"]

    async def main() -> None:
        async with world.again():
            await work()
        world.down = []
        store = world.store
        assert isinstance(store, KeepingStore)
        ended = len(store.entries)
        async with world.again():
            assert await work() == ["a", "b"]
        world.store = await _ended_after(store, ended, ended + 1 + has_outcome)
        world.forget()
        for _ in range(2):
            with pytest.raises(Crash):
                async with world.again(retry_failed=False) as state:
                    assert await work() == ["a" if has_outcome else None, None]
                    assert state.epoch == 1
                    raise Crash
            assert world.forget() == []
        async with world.again():
            assert await work() == ["a", "b"]
        assert world.forget() == (["b"] if has_outcome else ["a", "b"])

    run_virtually(main)


async def _ended_after(store: KeepingStore, ended: int, crashed: int) -> KeepingStore:
    """What is left of a run that ended after so many writes, and whose next execution crashed after so many."""
    left: KeepingStore = await store.after_the_first(ended)
    state = ExecutionState(store=left, run_id=RUN)
    await state.open()
    await state.end()
    state = ExecutionState(store=left, run_id=RUN)
    await state.open()
    journal = state.journal
    assert journal is not None
    for event, outcome in store.entries[ended:crashed]:
        journal.note(event, outcome)
    await state.end(ExecutionStatus.STARTED)
    return left
