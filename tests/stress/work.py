"""What is executed: a nested run whose every call tells the ledger, and whose program tells what it was given."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from rh_agents import CallCancelled, ExecutionResult, agent, parallel, tell_progress, tool
from rh_agents.core.chat import ChatDelta
from tests.stress.ledger import ACKNOWLEDGED, BEGUN, DONE, Pen

__all__ = ["FULL", "SMALL", "TINY", "WORKFLOWS", "Plan", "Refused", "outside"]

Plan = dict[str, Any]
"""How large a run is.

`pages`: calls in the first group. `chapters`: agents in the second group, each with so many `steps` one after the
other. `width`: how many run at once. `text`: characters in a result. `large`: every so many-th result has 40,000
instead, which is too much for a row. `slow`: milliseconds that a call takes at most. `gate`: a path; the run waits
between its two groups until there is such a file.
"""

FULL: Plan = {"pages": 80, "chapters": 20, "steps": 5, "width": 8, "text": 200, "large": 0, "slow": 4}
"""200 calls (80 + 20 + 100) below one agent, 8 wide."""
SMALL: Plan = {"pages": 24, "chapters": 8, "steps": 2, "width": 8, "text": 200, "large": 0, "slow": 4}
"""The same with 48 calls."""
TINY: Plan = {"pages": 3, "chapters": 2, "steps": 1, "width": 2, "text": 100, "large": 4, "slow": 1}
"""The same with seven calls, two wide, two of them with large results."""


class Refused(Exception):
    """How some calls fail, at every execution."""


class Outside:
    """The world in which the calls of this process have their effects."""

    def __init__(self) -> None:
        self._count = itertools.count(1)
        self._ledger: Pen | None = None
        self._acknowledgements: Pen | None = None

    def open(self, ledger: Pen, acknowledgements: Pen) -> None:
        """Write with these from now on."""
        self._ledger = ledger
        self._acknowledgements = acknowledgements

    def begin(self, call: str) -> str:
        """A function was called; returns the nonce of this time."""
        nonce = f"{os.getpid()}-{next(self._count)}"
        self._write(BEGUN, call, nonce)
        return nonce

    def end(self, call: str, nonce: str) -> None:
        """It is about to return or to fail."""
        self._write(DONE, call, nonce)

    def acknowledge(self, given: dict[str, Any]) -> dict[str, Any]:
        """The program has been given the outcome of a call."""
        assert self._acknowledgements is not None, "open comes first"
        self._acknowledgements.write(ACKNOWLEDGED, given["call"], given["nonce"])
        return given

    def _write(self, kind: str, call: str, nonce: str) -> None:
        assert self._ledger is not None, "open comes first"
        self._ledger.write(kind, call, nonce)


outside = Outside()


def _milliseconds(call: str, at_most: int) -> float:
    """Some time, the same at every execution."""
    return random.Random(call).uniform(0, at_most)


async def _work(call: str, number: int, plan: Plan) -> dict[str, Any]:
    nonce = outside.begin(call)
    await asyncio.sleep(_milliseconds(call, plan["slow"]) / 1000)
    outside.end(call, nonce)
    if number % 16 == 5:
        raise Refused(f"{call} {nonce}")
    is_large = plan["large"] and number % plan["large"] == 1
    return {"call": call, "nonce": nonce, "text": call[-1] * (40_000 if is_large else plan["text"])}


def _given(result: ExecutionResult[Any]) -> dict[str, Any]:
    """What a call came to, acknowledged."""
    if result.ok:
        return outside.acknowledge(result.unwrap())
    assert result.error_message is not None
    refusal = result.error_message.split()
    assert refusal[0] == "Refused:", result.error_message
    return outside.acknowledge({"call": refusal[1], "nonce": refusal[2], "failed": True})


@tool
async def page(number: int, plan: Plan) -> dict[str, Any]:
    return await _work(f"page:{number}", number, plan)


@tool
async def step(chapter: int, number: int, plan: Plan) -> dict[str, Any]:
    return await _work(f"step:{chapter}.{number}", chapter * plan["steps"] + number, plan)


@agent
async def chapter(number: int, plan: Plan) -> dict[str, Any]:
    """A chain of steps."""
    call = f"agent:chapter:{number}"
    nonce = outside.begin(call)
    steps = [_given(await step(number, each, plan).outcome()) for each in range(plan["steps"])]
    outside.end(call, nonce)
    return {"call": call, "nonce": nonce, "steps": steps}


@tool
async def gate(path: str) -> dict[str, Any]:
    """Wait until the test lets the run go on."""
    nonce = outside.begin("gate")
    while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240 - another process makes the file
        await asyncio.sleep(0.002)
    outside.end("gate", nonce)
    return {"call": "gate", "nonce": nonce}


@agent
async def book(plan: Plan) -> dict[str, Any]:
    """Two groups, the members of the second being agents."""
    nonce = outside.begin("agent:book")
    async with parallel(max_workers=plan["width"], name="pages") as p:
        for number in range(plan["pages"]):
            p.add(page(number, plan))
        pages = {result.index: _given(result) async for result in p.stream()}
    if "gate" in plan:
        _given(await gate(plan["gate"]).outcome())
    async with parallel(max_workers=plan["width"], name="chapters") as p:
        p.map(lambda number: chapter(number, plan), range(plan["chapters"]))
        chapters = [_given(result) for result in await p.gather()]
    outside.end("agent:book", nonce)
    return {
        "call": "agent:book",
        "nonce": nonce,
        "pages": [pages[index] for index in range(plan["pages"])],
        "chapters": chapters,
    }


async def survey(plan: Plan) -> dict[str, Any]:
    """The workflow."""
    return _given(await book(plan).outcome())


# -- the swap: chains side by side whose steps have equal inputs -------------------------------------------------------

_chain: ContextVar[str] = ContextVar("chain")


@tool
async def link(number: int) -> dict[str, Any]:
    """Its input does not tell in which chain it is, but its result does."""
    call = f"link:{_chain.get()}{number}"
    nonce = outside.begin(call)
    await asyncio.sleep(_milliseconds(call, 2) / 1000)
    outside.end(call, nonce)
    return {"call": call, "nonce": nonce}


@agent
async def chain(name: str) -> dict[str, Any]:
    """Two steps."""
    call = f"agent:chain:{name}"
    nonce = outside.begin(call)
    _chain.set(name)
    links = [_given(await link(number).outcome()) for number in (1, 2)]
    outside.end(call, nonce)
    return {"call": call, "nonce": nonce, "links": links}


async def chains(plan: Plan) -> list[Any]:
    """A workflow: two chains, by Python's own means."""
    return list(await asyncio.gather(*[chain(name) for name in plan["names"]]))


# -- a group whose items change ----------------------------------------------------------------------------------------


@tool
async def item(name: str) -> dict[str, Any]:
    call = f"item:{name}"
    nonce = outside.begin(call)
    await asyncio.sleep(_milliseconds(call, 2) / 1000)
    outside.end(call, nonce)
    return {"call": call, "nonce": nonce}


async def items(plan: Plan) -> list[Any]:
    """A workflow: one group."""
    async with parallel(max_workers=plan["width"]) as p:
        for name in plan["names"]:
            p.add(item(name))
        given = {result.index: _given(result) async for result in p.stream()}
    return [given[index] for index in range(len(plan["names"]))]


# -- calls whose text is read while it streams ------------------------------------------------------------------------


@tool
async def letter(number: int, plan: Plan) -> dict[str, Any]:
    """It says a word every few milliseconds."""
    call = f"letter:{number}"
    nonce = outside.begin(call)
    for word in range(random.Random(call).randint(1, plan["words"])):
        await tell_progress(ChatDelta(text=f"{number}.{word} "))
        await asyncio.sleep(plan["slow"] / 1000)
    outside.end(call, nonce)
    return {"call": call, "nonce": nonce}


async def letters(plan: Plan) -> list[Any]:
    """A workflow: one group."""
    async with parallel(max_workers=plan["width"], name="letters") as p:
        p.map(lambda number: letter(number, plan), range(plan["letters"]))
        return [_given(result) for result in await p.gather()]


# -- a run that is steered ---------------------------------------------------------------------------------------------


@tool
async def job(number: int, plan: Plan) -> dict[str, Any]:
    """One of those in `plan["bad"]` fails, as long as the file `plan["mended"]` is not there.

    The job `plan["waits"]` is not done before there is a file `plan["gate"]`, so that the run does not end before.
    """
    call = f"job:{number}"
    nonce = outside.begin(call)
    await asyncio.sleep(_milliseconds(call, plan["slow"]) / 1000)
    while number == plan["waits"] and not os.path.exists(plan["gate"]):  # noqa: ASYNC110, ASYNC240 - the same
        await asyncio.sleep(0.01)
    is_bad = number in plan["bad"] and not os.path.exists(plan["mended"])  # noqa: ASYNC240 - the test makes it
    outside.end(call, nonce)
    if is_bad:
        raise Refused(f"{call} {nonce}")
    return {"call": call, "nonce": nonce}


async def desk(plan: Plan) -> list[Any]:
    """A workflow: one group whose members are steered by name. What they came to is received at its end."""
    async with parallel(max_workers=plan["width"], name="desk") as p:
        for number in range(plan["jobs"]):
            p.add(job(number, plan), name=f"job:{number}")
        return [_found(result) for result in await p.gather()]


def _found(result: ExecutionResult[Any]) -> dict[str, Any]:
    if isinstance(result.error, CallCancelled):
        return {"cancelled": True}
    return _given(result)


WORKFLOWS: dict[str, Callable[[Plan], Coroutine[Any, Any, Any]]] = {
    "survey": survey,
    "chains": chains,
    "items": items,
    "letters": letters,
    "desk": desk,
}
"""By the name that a job gives."""
