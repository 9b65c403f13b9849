"""Events that are made by hand around an actor, or around what stands for one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rh_agents import ExecutionEvent, ExecutionState, MemoryStore, Tool, llm, tool
from rh_agents.core.errors import DefinitionError


@tool(retry=2)
async def double(n: int) -> int:
    return 2 * n


@llm
def triple(n: int) -> int:
    return 3 * n


async def plain(n: int) -> int:
    return n


def test_a_decorated_function_stands_for_its_actor() -> None:
    async def main() -> list[Any]:
        async with ExecutionState(store=MemoryStore()) as state:
            events: list[Any] = [ExecutionEvent(actor=double), ExecutionEvent(actor=triple)]
            assert [(event.name, event.actor.name) for event in events] == [("double", "double"), ("triple", "triple")]
            assert events[0].event_type == double.actor.event_type
            return [await event(5, None, state) for event in events]

    assert [result.unwrap() for result in asyncio.run(main())] == [10, 15]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (plain, "decorate plain with @tool, @llm or @agent, or write Tool(name='plain', handler=plain)"),
        (lambda: 1, "not a function: decorate <lambda> with"),
        (double(1), "not a FunctionCall: "),
        (Tool, "not the class Tool: write Tool(name=..., handler=...)"),
        ("double", "not a str: write Tool("),
        (None, "not a NoneType: write Tool("),
        (3, "not a int: write Tool("),
    ],
)
def test_anything_else_is_refused_in_one_sentence(given: Any, says: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        ExecutionEvent(actor=given)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    if hasattr(given, "discard"):
        given.discard()
