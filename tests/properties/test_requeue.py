"""Whatever fails, and whatever is asked for when: a stream tells one story, and tells it again after each crash.

A crash is a `kill -9` after any number of writes, as in `tests/properties/test_replay.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents import ExecutionResult, ExecutionState, parallel, tool
from rh_agents.core._replay.identity import again_key
from rh_agents.core.errors import ControlRefused, StopRun
from rh_agents.core.ports.control import control_of
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, KeepingStore, crash

Given = tuple[int | None, bool, bool]
"""A result: its index, whether it is a value, whether an earlier one of its member was given."""


@dataclass(frozen=True)
class Item:
    """A member: how many of its calls fail, how long each takes, how long the program is busy with what comes of it."""

    fails: int
    seconds: float
    busy: float


@dataclass(frozen=True)
class Scene:
    """What happens in one execution of a run.

    Attributes:
        asked: when, and of which items (None: of all that failed), somebody asks for more.
        leaves: after how many results the program gathers the rest; None if it reads the stream to its end.
    """

    items: tuple[Item, ...]
    workers: int
    is_ordered: bool
    adds: bool
    asked: tuple[tuple[float, int | None], ...]
    leaves: int | None
    latency: float


_seconds = st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0])
_items = st.builds(Item, st.sampled_from([0, 0, 0, 1, 1, 2, 3]), _seconds, st.sampled_from([0.0, 0.0, 0.0, 1.5, 4.0]))
_asked = st.tuples(st.floats(0.25, 15.0), st.one_of(st.none(), st.integers(0, 5)))
scenes = st.builds(
    Scene,
    st.lists(_items, min_size=1, max_size=6).map(tuple),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.lists(_asked, max_size=5).map(tuple),
    st.one_of(st.none(), st.none(), st.integers(1, 4)),
    st.sampled_from([0.0, 0.0, 0.3]),
)


class SlowStore(KeepingStore):
    """Reading an outcome may take some time."""

    latency = 0.0

    def _make_journal(self, run: Any, info: Any) -> Any:
        journal: Any = super()._make_journal(run, info)
        load = journal.load
        if self.latency:

            async def slowly(key: bytes) -> Any:
                await asyncio.sleep(self.latency)
                return await load(key)

            journal.load, journal.load_nowait = slowly, lambda key: None
        return journal


@dataclass
class Story:
    """What the program saw: each result with the number of writes by then."""

    given: list[tuple[int, Given]] = field(default_factory=list)
    gathered: list[Given] = field(default_factory=list)
    calls: Counter[int] = field(default_factory=Counter)

    @property
    def results(self) -> list[Given]:
        return [result for _, result in self.given]

    def before(self, length: int) -> list[Given]:
        return [result for place, result in self.given if place <= length]


def _given(result: ExecutionResult[Any]) -> Given:
    return result.index, result.ok, result.requeued


class Playing:
    """Plays a scene, as often as it is asked to: how often each item was called is remembered."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.calls: Counter[int] = Counter()
        self.counts: Any = None

    async def program(self, store: KeepingStore, story: Story) -> None:
        scene = self.scene

        @tool
        async def work(number: int) -> int:
            story.calls[number] += 1
            self.calls[number] += 1
            tried = self.calls[number]
            await asyncio.sleep(scene.items[number].seconds)
            if tried <= scene.items[number].fails:
                raise ConnectionError(number)
            return number

        async with parallel(scene.workers, name="items", requeue=True) as p:
            if scene.adds:
                for number in range(len(scene.items)):
                    p.add(work(number), name=str(number))
            else:
                p.map(work, range(len(scene.items)), name=str)
            async for result in p.stream(ordered=scene.is_ordered):
                story.given.append((len(store.entries), _given(result)))
                assert result.index is not None
                await asyncio.sleep(scene.items[result.index].busy)
                if len(story.given) == scene.leaves:
                    break
            if scene.leaves is not None:
                story.gathered = [_given(result) for result in await p.gather()]
            self.counts = p.group

    async def ask(self, state: ExecutionState) -> None:
        began = asyncio.get_running_loop().time()
        control = control_of(state.store, RUN)
        for when, which in sorted(self.scene.asked, key=lambda each: each[0]):
            await asyncio.sleep(max(0.0, began + when - asyncio.get_running_loop().time()))
            with contextlib.suppress(ControlRefused, StopRun):
                await control.requeue([] if which is None else [str(which)], failed=which is None)

    async def execute(self, store: KeepingStore, *, asks: bool) -> Story:
        """One execution, which dies when its program has seen everything."""
        story = Story()
        state = ExecutionState(store=store, run_id=RUN)

        async def work() -> None:
            asking = asyncio.create_task(self.ask(state)) if asks else None
            await self.program(store, story)
            if asking is not None:
                asking.cancel()
                await asyncio.wait([asking])

        await crash(state, work)
        return story


def _expect_one_story(story: Story, scene: Scene) -> None:
    """Of each member: failures, each followed by a further result, and nothing after the last one."""
    results: dict[int | None, list[Given]] = {}
    for each in [*story.results, *story.gathered]:
        results.setdefault(each[0], []).append(each)
    assert set(results) == set(range(len(scene.items)))
    for its in results.values():
        assert [is_further for _, _, is_further in its] == [False] + [True] * (len(its) - 1)
        assert not any(ok for _, ok, _ in its[:-1])


def _play(scene: Scene, cuts: list[float]) -> None:
    first = Playing(scene)
    store = SlowStore()
    whole = run_virtually(lambda: first.execute(store, asks=True))
    _expect_one_story(whole, scene)
    counts = first.counts
    assert counts.completed + counts.failed == counts.total == len(scene.items)
    for cut in cuts:
        length = 1 + round(cut * (len(store.entries) - 1))
        run_virtually(lambda length=length: _resume(scene, store, whole, length))  # type: ignore[misc]


async def _resume(scene: Scene, store: SlowStore, whole: Story, length: int) -> None:
    left = await store.after_the_first(length)
    left.__class__ = SlowStore
    assert isinstance(left, SlowStore)
    left.latency = scene.latency
    playing = Playing(scene)
    again = await playing.execute(left, asks=True)
    assert again.results[: len(whole.before(length))] == whole.before(length), (length, again.results)
    _expect_one_story(again, scene)
    controls: list[dict[str, Any]] = [dict(entry.event.control or {}) async for entry in left.events(RUN)]
    made = {outcome.key async for outcome in left.outcomes(RUN)}
    promised = {again_key(bytes.fromhex(key)) for control in controls for key in control.get("live", ())}
    assert promised <= made, "what is made now, as its answer says, is made"
    if any(control.get("later") for control in controls):  # which is done now, so that this is another story
        again = await playing.execute(left, asks=False)
        _expect_one_story(again, scene)
    once_more = await playing.execute(left, asks=False)
    assert once_more.results == again.results, length
    assert once_more.gathered == again.gathered, length
    assert not once_more.calls, "all of it is recorded"
    counts = playing.counts
    assert counts.completed + counts.failed == counts.total == len(scene.items)


@settings(max_examples=40, deadline=None)
@given(scenes, st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4))
def test_a_stream_tells_one_story_wherever_the_process_dies(scene: Scene, cuts: list[float]) -> None:
    _play(scene, cuts)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(scenes, st.lists(st.floats(0.0, 1.0), min_size=4, max_size=8))
def test_a_stream_tells_one_story_wherever_the_process_dies_in_many_scenes(scene: Scene, cuts: list[float]) -> None:
    _play(scene, cuts)
