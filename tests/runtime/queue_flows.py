"""Flows that tests submit: workers import them from here by their names."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any

from rh_agents import Injected, agent, current, tool

CALLS: Counter[object] = Counter()
"""How often what was really called."""
STARTED: list[asyncio.Event] = []
STOPS: list[str] = []


@tool
async def double(number: int) -> int:
    """Twice a number."""
    CALLS["double", number] += 1
    return 2 * number


async def quadruple(number: int, *more: int, offset: int = 0) -> int:
    """Four times a number, and the others with it."""
    await asyncio.sleep(0)  # so that an eager task does not end at once
    return await double(await double(number)) + sum(more) + offset


@agent
async def failing(number: int) -> int:
    """Fails."""
    raise ValueError(f"no {number}")


@agent
async def with_client(number: int, client: Annotated[Any, Injected]) -> str:
    """Needs something that only the worker has."""
    return f"{client} {number}"


@agent
async def in_two_steps(number: int) -> int:
    """Has finished its first step when it is stopped for the first time."""
    first = await double(number)
    CALLS["between"] += 1
    if CALLS["between"] == 1:
        STARTED[-1].set()
        while not current().run.is_interrupted:  # noqa: ASYNC110 - that sets no event
            await asyncio.sleep(0.01)
    return await double(first)


@agent
async def stopping(number: int) -> int:
    """Stops its own run, the first time."""
    first = await double(number)
    if STOPS:
        STOPS.pop()
        current().run.request_interrupt("enough for today")
    return await double(first)


@agent
async def asking(number: int) -> int:
    """Wants to know something."""
    add: int = await current().run.ask("How much more?", int)
    return await double(number) + add


@agent
async def sleeping(number: int) -> int:
    """Waits for an hour, or until somebody wakes it."""
    more: int = await current().run.wait_for_event("wake up", int, timeout=3600)
    return await double(number) + more


@agent
async def keeping(secret: str) -> int:
    """Gets a secret."""
    CALLS["secret", secret] += 1
    return len(secret)


def plain(number: int) -> int:
    """Is no coroutine function."""
    return number + 1
