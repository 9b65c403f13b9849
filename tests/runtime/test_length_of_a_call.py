"""How long the path of one recorded call is. A change that makes it longer has to say so here."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from types import FrameType
from typing import Any

from rh_agents import ExecutionState, MemoryStore, parallel, tool

CALLS, MODULES = 125, 32
"""The most for one call: calls of Python functions of ours, and modules that they are in. Eleven of the calls, and
three of the modules, are for the text of what it is called with (`record_inputs`)."""
CALLS_IN_A_GROUP = 176


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


def test_the_path_of_a_recorded_call_does_not_grow() -> None:
    async def main() -> Profile:
        async with ExecutionState(store=MemoryStore()):
            for number in range(5):
                await fetch(number)
            with Profile() as profile:
                for number in range(100, 110):
                    await fetch(number)
            return profile

    profile = asyncio.run(main())
    assert profile.calls.total() / 10 <= CALLS
    assert len(profile.calls) <= MODULES


def test_the_path_of_a_recorded_member_does_not_grow() -> None:
    async def count(items: int) -> int:
        async with ExecutionState(store=MemoryStore()):
            await fetch(-1)
            with Profile() as profile:
                async with parallel(5) as p:
                    p.map(fetch, range(items))
                    await p.gather()
            return profile.calls.total()

    assert (asyncio.run(count(120)) - asyncio.run(count(20))) / 100 <= CALLS_IN_A_GROUP
