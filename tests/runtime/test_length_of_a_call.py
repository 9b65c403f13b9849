"""How long the path of one recorded call is. A change that makes it longer has to say so here."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, parallel, tool
from rh_agents.core._run.frame import Frame, current_frame

CALLS, MODULES = 59, 10
"""The most for one call: calls of Python functions of ours, and modules that they are in. Three of the calls are for
the text of what it is called with (`record_inputs`); nine of them, in one of the modules, are the store in memory."""
CALLS_IN_A_GROUP = 90
CALLS_WHEN_RESUMED = 50
"""For a member of a `map` that is resumed, whose recorded result is streamed. (See `Recovery.recover_call`.)"""
ATTRIBUTES = 30
"""The most that an instance can have before Python makes it a dictionary of its own, which takes twice as long."""


@tool
async def fetch(number: int) -> int:
    return number


class Profile:
    """Counts the calls of our functions while its block lasts."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> Profile:
        gc.disable()  # what other tests have left would be counted, where it has finalizers
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event == "call" and module.startswith("rh_agents."):
            self.calls[module] += 1


async def of_a_call() -> tuple[float, int]:
    """Calls of our functions for one call, and how many modules they are in."""
    async with ExecutionState(store=MemoryStore()):
        for number in range(5):
            await fetch(number)
        with Profile() as profile:
            for number in range(100, 110):
                await fetch(number)
    return profile.calls.total() / 10, len(profile.calls)


async def of_a_group(items: int) -> int:
    """Calls of our functions for a group with so many members."""
    async with ExecutionState(store=MemoryStore()):
        await fetch(-1)
        with Profile() as profile:
            async with parallel(5) as p:
                p.map(fetch, range(items))
                await p.gather()
    return profile.calls.total()


async def of_a_resumed_group(items: int) -> int:
    """Calls of our functions for a group whose results are all recorded."""
    store, profile = MemoryStore(), Profile()
    for _ in range(2):
        profile.calls.clear()
        async with ExecutionState(store=store, run_id="r", history_limit=0), parallel(5) as p:
            with profile:
                p.map(fetch, range(items))
                async for result in p.stream():
                    assert result.ok
    return profile.calls.total()


def measure() -> dict[str, float]:
    """The figures of this process."""
    calls, modules = asyncio.run(of_a_call())
    of_a_member = (asyncio.run(of_a_group(120)) - asyncio.run(of_a_group(20))) / 100
    of_a_resumed_one = (asyncio.run(of_a_resumed_group(420)) - asyncio.run(of_a_resumed_group(20))) / 400
    figures = {"calls": calls, "modules": modules}
    return {**figures, "of a member": of_a_member, "of a resumed one": of_a_resumed_one}


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    """Of a process of its own: secrets that other tests have registered are looked for in each text."""
    command = [sys.executable, "-m", "tests.runtime.test_length_of_a_call"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_the_path_of_a_recorded_call_does_not_grow(figures: dict[str, float]) -> None:
    assert figures["calls"] <= CALLS
    assert figures["modules"] <= MODULES


def test_the_path_of_a_recorded_member_does_not_grow(figures: dict[str, float]) -> None:
    assert figures["of a member"] <= CALLS_IN_A_GROUP


def test_the_path_of_a_resumed_member_does_not_grow(figures: dict[str, float]) -> None:
    assert figures["of a resumed one"] <= CALLS_WHEN_RESUMED


def test_the_frame_of_a_recorded_member_takes_no_dictionary_of_its_own() -> None:
    frames: list[Frame] = []

    @tool
    async def look() -> None:
        frame = current_frame.get()
        assert frame is not None
        frames.append(frame)

    async def main() -> None:
        async with ExecutionState(store=MemoryStore()), parallel(2) as p:
            p.map(lambda _: look(), range(2))
            await p.gather()

    asyncio.run(main())
    assert all(20 < len(vars(frame)) <= ATTRIBUTES for frame in frames)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure()))
