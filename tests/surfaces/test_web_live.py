"""How a page is kept up to date: one follower for all, at most four updates a second, nothing lost, nobody held up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunInfo
from rh_agents.testing import JumpingClock
from rh_agents.web.live import SPACING, Follower, Update
from rh_agents.web.reading import Reading


class Source:
    """What a follower looks at."""

    def __init__(self) -> None:
        self.sections: dict[str, bytes] = {"run": b"1", "totals": b"1"}
        self.version = 0
        self.probes = self.loads = 0
        self.failure: Exception | None = None

    def change(self, name: str, text: bytes) -> None:
        """A section is another one from now on."""
        self.sections[name] = text
        self.version += 1

    async def probe(self) -> int:
        self.probes += 1
        if self.failure is not None:
            raise self.failure
        return self.version

    async def load(self) -> Mapping[str, bytes]:
        self.loads += 1
        return dict(self.sections)


def following(work: Callable[[Source, Follower], Awaitable[None]]) -> None:
    """Do something with a follower, in time that jumps."""

    async def main() -> None:
        source = Source()
        await work(source, Follower(source.probe, source.load))

    JumpingClock().run(main())


async def taken(follower: Follower, after: str | None, into: list[Update]) -> None:
    take = into.append  # one by one, as they come
    async for update in follower.updates(after):
        if update is not None:
            take(update)


def test_a_viewer_gets_what_has_changed_and_only_that() -> None:
    async def work(source: Source, follower: Follower) -> None:
        first = await follower.now()
        assert first.sections == {"run": b"1", "totals": b"1"}
        got: list[Update] = []
        viewer = asyncio.create_task(taken(follower, first.id, got))
        await asyncio.sleep(10)
        assert got == [], "an unchanged page costs nothing"
        source.change("totals", b"2")
        await asyncio.sleep(1)
        assert [update.sections for update in got] == [{"totals": b"2"}]
        viewer.cancel()

    following(work)


def test_one_that_comes_back_gets_what_it_has_missed() -> None:
    async def work(source: Source, follower: Follower) -> None:
        first = await follower.now()
        source.change("totals", b"2")
        await follower.now()
        source.change("totals", b"3")
        again: list[Update] = []
        viewer = asyncio.create_task(taken(follower, first.id, again))
        await asyncio.sleep(1)
        assert again[-1].sections["totals"] == b"3"
        assert all(update.sections.keys() == {"totals"} for update in again)
        viewer.cancel()

    following(work)


@pytest.mark.parametrize("after", [None, "", "nonsense", "another-1", "another-7", "1"])
def test_one_that_knows_a_version_of_another_server_gets_the_whole_page(after: str | None) -> None:
    async def work(source: Source, follower: Follower) -> None:
        await follower.now()
        got: list[Update] = []
        viewer = asyncio.create_task(taken(follower, after, got))
        await asyncio.sleep(1)
        assert got[0].sections == source.sections
        viewer.cancel()

    following(work)


def test_a_viewer_gets_at_most_four_updates_a_second() -> None:
    async def work(source: Source, follower: Follower) -> None:
        first = await follower.now()
        got: list[Update] = []
        viewer = asyncio.create_task(taken(follower, first.id, got))
        for number in range(100):
            source.change("totals", b"%d" % number)
            await asyncio.sleep(0.05)
        viewer.cancel()
        assert SPACING == 0.25
        assert 10 <= len(got) <= 21

    following(work)


def test_twenty_viewers_share_one_follower_and_those_that_stall_hold_up_nobody() -> None:
    async def work(source: Source, follower: Follower) -> None:
        first = await follower.now()
        got: list[list[Update]] = [[] for _ in range(18)]
        viewers = [asyncio.create_task(taken(follower, first.id, into)) for into in got]
        stalled = [follower.updates(first.id) for _ in range(2)]
        source.change("totals", b"2")
        await asyncio.sleep(0)
        for each in stalled:
            await anext(each)  # and it reads no further
        before = source.loads
        for number in range(10):
            source.change("totals", b"x%d" % number)
            await asyncio.sleep(1)
        assert all(into[-1].sections == {"totals": b"x9"} for into in got)
        assert source.loads - before <= 25, "not once for each viewer"
        late = await anext(stalled[0])
        assert late is not None
        assert late.sections == {"totals": b"x9"}, "what it missed in between is of no interest"
        for viewer in viewers:
            viewer.cancel()
        for each in stalled:
            await each.aclose()

    following(work)


def test_nobody_looks_when_nobody_watches() -> None:
    async def work(source: Source, follower: Follower) -> None:
        viewer = asyncio.create_task(taken(follower, None, []))
        await asyncio.sleep(5)
        assert follower.watchers == 1
        viewer.cancel()
        await asyncio.sleep(1)
        probes = source.probes
        await asyncio.sleep(60)
        assert (follower.watchers, source.probes) == (0, probes)

    following(work)


def test_a_store_that_fails_ends_the_stream_with_its_error_and_the_next_viewer_tries_again() -> None:
    async def work(source: Source, follower: Follower) -> None:
        viewer = asyncio.create_task(taken(follower, None, []))
        await asyncio.sleep(1)
        source.failure = StoreError("the disk is gone")
        await asyncio.sleep(1)
        assert viewer.done(), "it does not wait for the next sign of life"
        with pytest.raises(StoreError, match="the disk is gone"):
            await viewer
        source.failure = None
        got: list[Update] = []
        viewer = asyncio.create_task(taken(follower, None, got))
        await asyncio.sleep(1)
        assert got[0].sections == source.sections
        viewer.cancel()

    following(work)


def test_a_viewer_gets_a_sign_of_life_when_nothing_happens() -> None:
    async def work(source: Source, follower: Follower) -> None:
        first = await follower.now()
        updates = follower.updates(first.id)
        assert await anext(updates) is None
        await updates.aclose()

    following(work)


def test_pages_that_nobody_follows_are_forgotten_and_the_others_are_kept() -> None:
    async def main() -> None:
        reading = Reading(MemoryStore())
        for name in ("followed", "forgotten"):
            async with ExecutionState(store=reading.store, run_id=name):
                pass
        followed, forgotten = reading.page("followed"), reading.page("forgotten")
        viewer = asyncio.create_task(taken(followed, None, []))
        await asyncio.sleep(0)
        for number in range(20):
            reading.page(f"run {number}")
        assert reading.page("run 19") is reading.page("run 19")
        assert reading.page("followed") is followed
        assert reading.page("forgotten") is not forgotten
        viewer.cancel()

    asyncio.run(main())


def test_following_the_list_of_runs_asks_for_the_newest_ones_only() -> None:
    asked: list[Any] = []

    class Asked(MemoryStore):
        async def runs(self, **wanted: Any) -> list[RunInfo]:
            asked.append(wanted.get("limit"))
            return await super().runs(**wanted)

    async def main() -> None:
        store = Asked()
        for number in range(205):
            async with ExecutionState(store=store, run_id=f"run {number}"):
                pass
        reading = Reading(store)
        told = json.loads((await reading.runs.now()).sections["runs"])
        assert asked == [200]
        assert [run["run_id"] for run in told] == [f"run {number}" for number in range(204, 4, -1)]
        assert told == (await reading.list_runs())["runs"]

    asyncio.run(main())
