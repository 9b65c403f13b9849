"""What callers write beside a call is in all of its events, in every store, and changes nothing else."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError
from rich.console import Console

from rh_agents import (
    EventPrinter,
    ExecutionEvent,
    ExecutionState,
    MemoryStore,
    Secret,
    Tool,
    forget_secret,
    open_store,
    parallel,
    run,
)
from rh_agents.cli import main as rh_agents_command
from rh_agents.core.errors import DefinitionError
from rh_agents.core.ports import Store

METADATA: dict[str, Any] = {"ticket": 7, "nested": {"a": [1, None, "é \x1b[31m \ud83d"]}}
made: list[int] = []


async def double(number: int) -> int:
    made.append(number)
    return number * 2


doubler = Tool(name="doubler", handler=double)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgresql_url")
        return url
    return f"sqlite:///{tmp_path}/runs.db" if request.param == "sqlite" else None


def marked(**marks: Any) -> Callable[[], Awaitable[Any]]:
    """A program that makes one call by itself and one in a group, with these marks."""

    async def program() -> list[Any]:
        alone = await ExecutionEvent(actor=doubler, **marks)(1)
        async with parallel(name="g") as p:
            p.add(ExecutionEvent(actor=doubler, **marks)(2))
            (member,) = await p.gather()
        return [alone.unwrap(), member.unwrap()]

    return program


def test_tag_and_metadata_are_in_every_event_of_the_call_and_in_every_store(store_url: str | None) -> None:
    seen: list[ExecutionEvent[Any]] = []

    async def events(store: Store) -> list[ExecutionEvent[Any]]:
        return [each.event async for each in store.events("r") if each.event.group is None]

    async def execute() -> None:
        store = MemoryStore() if store_url is None else open_store(store_url)
        program = marked(tag="lunch 評価", metadata=METADATA)
        made.clear()
        await run(program, store=store, run_id="r", subscribers=[seen.append])
        assert await run(program, store=store, run_id="r", subscribers=[seen.append]) == [2, 4]
        if store_url is not None:
            await store.aclose()
            store = open_store(store_url)
        recorded = await events(store)
        await store.aclose()
        for event in [*recorded, *(each for each in seen if each.group is None)]:
            assert (event.tag, event.metadata) == ("lunch 評価", METADATA)
        assert made == [1, 2]
        assert len(recorded) >= 4

    asyncio.run(execute())


def test_they_are_no_part_of_the_key() -> None:
    async def execute() -> None:
        store = MemoryStore()
        made.clear()
        for marks in ({}, {"tag": "a"}, {"tag": "b", "metadata": {"c": 1}}):
            assert await run(marked(**marks), store=store, run_id="r", reuse=True) == [2, 4]
        assert made == [1, 2]

    asyncio.run(execute())


def test_the_same_event_can_be_called_again_and_is_not_changed() -> None:
    event = ExecutionEvent(actor=doubler, tag="t", metadata={"a": 1})

    async def execute() -> None:
        async with ExecutionState() as state:
            assert [(await event(number, None, state)).unwrap() for number in (1, 2)] == [2, 4]
            assert {(each.tag, *each.metadata.items()) for each in state.history} == {("t", ("a", 1))}

    asyncio.run(execute())
    assert event.execution_time is None


@pytest.mark.parametrize("unknown", [{"tags": "a"}, {"meta": {}, "labels": []}])
def test_any_other_field_is_refused_with_those_that_there_are(unknown: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError) as caught:
        ExecutionEvent(actor=doubler, **unknown)
    text = str(caught.value)
    assert text.startswith(f"ExecutionEvent has no field {', '.join(map(repr, unknown))}; it has: actor, name, ")
    assert "tag, metadata" in text
    with pytest.raises(DefinitionError, match="it has: actor, name"):
        ExecutionEvent.model_validate({"actor": doubler, **unknown})


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": {1, 2}}, {1: 2}, "text"])
def test_metadata_is_data_that_json_has(metadata: Any) -> None:
    with pytest.raises(ValidationError, match="metadata"):
        ExecutionEvent(actor=doubler, metadata=metadata)


def test_people_see_them_harmless_and_without_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Secret("key", "very-secret-canary")
    output = io.StringIO()
    printer = EventPrinter(console=Console(file=output, width=200))
    url = f"sqlite:///{tmp_path}/runs.db"
    program = marked(tag="lunch very-secret-canary", metadata={"who": "me\x1b[31m", "k": ["very-secret-canary"]})
    try:
        asyncio.run(run(program, store=url, run_id="r", subscribers=[printer]))
        assert rh_agents_command(["show", "r", "--store", url]) == 0
        shown = capsys.readouterr().out
        assert rh_agents_command(["show", "r", "--store", url, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
    finally:
        forget_secret("key")
    for text in (output.getvalue(), shown):
        assert "#lunch " in text
        assert "who" in text
        assert "\x1b[31m" not in text
        assert "canary" not in text
    assert "canary" not in json.dumps(record)
    assert record["tree"][0]["metadata"]["who"] == "me\x1b[31m"
    assert record["tree"][0]["tag"].startswith("lunch ")
    assert b"canary" not in (tmp_path / "runs.db").read_bytes()


def test_a_derived_event_may_have_fields_of_its_own_under_other_names() -> None:
    class Priced(ExecutionEvent[int]):
        price: float = Field(default=0.0, alias="cost")

    unknown: dict[str, Any] = {"prize": 1.5}
    assert Priced(actor=doubler, cost=1.5).price == 1.5
    with pytest.raises(DefinitionError, match="Priced has no field 'prize'"):
        Priced(actor=doubler, **unknown)
