"""The workflows of the golden journals. They never change: every version has to find what was recorded of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel

from rh_agents import ExecutionState, RetryPolicy, agent, current, parallel, tool

__all__ = ["EXPECTED", "Mood", "Review", "Verdict", "approve", "made", "survey", "when_finishing"]

made: list[str] = []
"""Which functions were called, in this process."""


async def _nothing() -> None:
    """What happens within the last call of the survey, unless somebody puts something else here."""


when_finishing: list[Callable[[], Awaitable[None]]] = [_nothing]


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True)
class Review:
    number: int
    text: str
    written: datetime


class Verdict(BaseModel):
    mood: Mood
    words: set[str]
    price: Decimal
    raw: bytes
    span: tuple[int, int]
    more: dict[str, Any]


class Refused(Exception):
    """How the reviews of some numbers fail."""


@tool
async def fetch(number: int) -> Review:
    made.append(f"fetch {number}")
    return Review(number, f"review {number}: naïve – \x00 – 評価", datetime(2026, 8, number + 1, 12, 30, tzinfo=UTC))


@tool(version="2")
async def classify(review: Review) -> Verdict:
    made.append(f"classify {review.number}")
    if review.number == 3:
        raise Refused("number 3 is not classified")
    return Verdict(
        mood=Mood.GOOD if review.number % 2 else Mood.BAD,
        words=set(review.text.split()),
        price=Decimal(f"{review.number}.10"),
        raw=bytes(range(review.number)),
        span=(0, review.number),
        more={"none": None, "nested": [1, 2.5, {"deep": True}]},
    )


@agent
async def study(number: int) -> Verdict:
    return await classify(await fetch(number))


@tool(retry=RetryPolicy(max_attempts=3, initial_delay=0))
async def waver() -> str:
    """Fails at its first attempt."""
    made.append("waver")
    if current().attempt == 1:
        raise ConnectionError("not yet")
    return "well then"


@tool
async def write_up() -> str:
    """Too large for a row."""
    made.append("write_up")
    return "0123456789abcdef" * 2500


@tool
async def look_up() -> None:
    made.append("look_up")


@tool
async def finish(moods: list[Mood]) -> str:
    made.append("finish")
    for wait in when_finishing:
        await wait()
    return " ".join(mood.value for mood in moods)


async def survey(numbers: list[int]) -> list[Any]:
    """Everything that a journal can hold, but for questions."""
    async with parallel(max_workers=2, name="reviews") as p:
        p.map(study, numbers)
        results = await p.gather()
    async with parallel(name="mixed") as p:
        p.add(waver(), name="waver")
        p.add(lambda: asyncio.sleep(0, "a plain coroutine"), name="plain")
        p.add(look_up(), name="nothing")
        mixed = await p.gather_dict()
    text = await write_up()
    moods = [result.unwrap().mood for result in results if result.ok]
    return [
        [result.unwrap() if result.ok else result.error_message for result in results],
        {name: result.unwrap() for name, result in mixed.items()},
        len(text),
        await finish(moods),
    ]


async def approve() -> Any:
    """Waits for a person."""
    await look_up()
    state = current().run
    assert isinstance(state, ExecutionState)
    return await state.ask("Go on?", bool)


def _verdict(number: int, mood: Mood, words: set[str]) -> Verdict:
    price, more = Decimal(f"{number}.10"), {"none": None, "nested": [1, 2.5, {"deep": True}]}
    return Verdict(mood=mood, words=words, price=price, raw=bytes(range(number)), span=(0, number), more=more)


EXPECTED: list[Any] = [
    [
        _verdict(1, Mood.GOOD, {"review", "1:", "naïve", "–", "\x00", "評価"}),
        _verdict(2, Mood.BAD, {"review", "2:", "naïve", "–", "\x00", "評価"}),
        "Refused: number 3 is not classified",
    ],
    {"waver": "well then", "plain": "a plain coroutine", "nothing": None},
    40_000,
    "good bad",
]
"""What `survey([1, 2, 3])` returns."""
