"""A run as one stream of events and text that a reader can leave and come back to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, tell_progress, tool
from rh_agents.core.chat import ChatDelta
from rh_agents.core.errors import StoreError, UsageError
from rh_agents.core.ports import RecordedEvent, RunRequest, Store
from rh_agents.core.ports.keeping import StoreLike
from rh_agents.core.ports.streaming import StreamedText
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores.following import Followed, follow
from rh_agents.testing import JumpingClock
from rh_agents.testing._records import completed, outcome

RUN = "monday"


@tool
async def write(words: int) -> str:
    for number in range(words):
        await tell_progress(ChatDelta(text=f"{number} "))
        await asyncio.sleep(0.3)
    return "done"


async def taken(store: StoreLike, after: str = "", most: int = 10**9, **options: Any) -> list[Followed]:
    found: list[Followed] = []
    async for each in follow(store, RUN, after=after, **options):
        found.append(each)
        if len(found) >= most:
            break
    return found


def shown(found: list[Followed]) -> list[str]:
    """What was given: events by their status, text as it is."""
    return [
        each.event.event.execution_status.value if each.event else "".join(piece.text for piece in each.pieces)
        for each in found
    ]


def text(found: list[Followed]) -> str:
    return "".join(piece.text for each in found for piece in each.pieces)


def executed(*readers: Any) -> Any:
    """What readers get, which are functions of the store, while two calls are made one after the other."""
    clock = JumpingClock()

    async def main() -> Any:
        store = MemoryStore(clock=clock)
        async with ExecutionState(store=store, run_id=RUN, clock=clock):
            tasks = [asyncio.ensure_future(reader(store)) for reader in readers]
            await asyncio.sleep(0.01)
            await write(5)
            await write(3)
        return await asyncio.gather(*tasks)

    return clock.run(main())


def test_text_stands_between_the_event_that_its_call_has_begun_and_the_one_with_its_outcome() -> None:
    (found,) = executed(taken)
    statuses = [each for each in shown(found) if each in ("started", "completed")]
    assert statuses == ["started", "completed", "started", "completed"]
    first = shown(found).index("completed")
    assert text(found[:first]) == "0 1 2 3 4 "
    assert text(found[first:]) == "0 1 2 "
    sequences = [each.event.sequence for each in found if each.event is not None]
    assert sequences == sorted(set(sequences))


def test_text_comes_before_the_outcome_that_is_recorded_between_two_looks() -> None:
    ended = asyncio.Event()

    @tool
    async def say() -> str:
        await tell_progress("a line")
        await ended.wait()
        return "done"

    class Late(MemoryStore):
        """The call ends when its text has been looked at, and before its events are."""

        has_text = False

        async def streamed(self, run_id: str, key: str | None = None, *, after: str = "") -> StreamedText:
            found = await super().streamed(run_id, key, after=after)
            self.has_text = self.has_text or bool(found.pieces)
            return found

        async def events(self, *args: Any, **options: Any) -> AsyncIterator[RecordedEvent]:
            if self.has_text:
                ended.set()
                await asyncio.sleep(0.01)
            async for each in super().events(*args, **options):
                yield each

    async def main() -> list[str]:
        store = Late(clock=clock)
        async with ExecutionState(store=store, run_id=RUN, clock=clock):
            taking = asyncio.ensure_future(taken(store))
            await asyncio.sleep(0.01)
            await say()
        return shown(await taking)

    clock = JumpingClock()
    assert clock.run(main()) == ["started", "a line\n", "completed"]


def test_who_leaves_after_anything_and_comes_back_gets_each_thing_once() -> None:
    (whole,) = executed(taken)
    for most in range(1, len(whole)):

        async def in_two_parts(store: Store, most: int = most) -> list[Followed]:
            first = await taken(store, most=most)
            return first + await taken(store, after=first[-1].id)

        (found,) = executed(in_two_parts)
        assert text(found) == text(whole)
        assert [each.event for each in found if each.event] != []
        assert [each for each in shown(found) if each in ("started", "completed")] == [
            each for each in shown(whole) if each in ("started", "completed")
        ]
        assert not any(piece.is_gap for each in found for piece in each.pieces)


def test_many_readers_get_the_same_text() -> None:
    results = executed(*[taken] * 5)
    assert {text(found) for found in results} == {"0 1 2 3 4 0 1 2 "}


def test_of_a_run_that_has_ended_its_journal_is_given_with_values_or_without() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with ExecutionState(store=store, run_id=RUN):
            await write(2)
        assert [each.event.event.result for each in await taken(store) if each.event] == [None, "done"]
        assert [each.event.event.result for each in await taken(store, values=False) if each.event] == [None, None]

    JumpingClock().run(main())


def test_who_wants_no_text_lets_no_one_write_any() -> None:
    async def without_text(store: Store) -> list[Followed]:
        return await taken(store, wants_text=False)

    (found,) = executed(without_text)
    assert text(found) == ""
    assert len(found) == 4


def test_what_names_nothing_is_refused_and_so_is_a_run_that_is_not_there() -> None:
    async def main() -> None:
        store = MemoryStore()
        with pytest.raises(StoreError, match=RUN):
            await taken(store)
        async with ExecutionState(store=store, run_id=RUN):
            for name in ("x", "-1", "1.5/", "3/yesterday"):
                with pytest.raises(UsageError, match="after="):
                    await taken(store, after=name)

    JumpingClock().run(main())


def test_a_run_in_a_file_is_followed_by_another_store(tmp_path: Any) -> None:
    async def main() -> str:
        path = tmp_path / "runs.db"
        async with ExecutionState(store=path, run_id=RUN) as state:
            assert state.store is not None
            following = asyncio.ensure_future(taken(path))
            await asyncio.sleep(0.7)  # the owner looks twice a second who reads
            await write(3)
        return text(await following)

    assert asyncio.run(main()) == "0 1 2 "


class CountingStore(MemoryStore):
    """Counts how often it is asked whether anything has happened."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.has_looked = asyncio.Event()

    async def version(self, run_id: str) -> Hashable:
        self.looks += 1
        self.has_looked.set()
        return await super().version(run_id)


def test_however_many_follow_a_run_the_store_is_asked_once_whether_anything_has_happened() -> None:
    async def main() -> None:
        store = CountingStore()
        journal = await store.open_run(RunRequest("monday", "me"))
        followers = [asyncio.create_task(_sequences(store)) for _ in range(50)]
        for number in range(3):
            given = outcome(number)
            journal.note(completed("monday", given), given)
            store.has_looked.clear()
            await store.has_looked.wait()
        await journal.close(ExecutionStatus.COMPLETED)
        assert await asyncio.gather(*followers) == [[1, 2, 3]] * 50
        assert store.looks < 50

    asyncio.run(main())


async def _sequences(store: MemoryStore) -> list[int]:
    return [each.event.sequence async for each in follow(store, "monday") if each.event is not None]


def test_what_goes_wrong_with_a_store_is_said_to_all_who_follow_and_the_next_one_begins_anew() -> None:
    class Failing(MemoryStore):
        fails = True

        async def version(self, run_id: str) -> Hashable:
            if self.fails:
                raise StoreError("it does not answer")
            return await super().version(run_id)

    async def main() -> None:
        store = Failing()
        journal = await store.open_run(RunRequest("monday", "me"))
        given = outcome(1)
        journal.note(completed("monday", given), given)
        found = await asyncio.gather(*[_sequences(store) for _ in range(3)], return_exceptions=True)
        assert [str(each) for each in found] == ["it does not answer"] * 3
        store.fails = False
        await journal.close(ExecutionStatus.COMPLETED)
        assert await _sequences(store) == [1]

    asyncio.run(main())
