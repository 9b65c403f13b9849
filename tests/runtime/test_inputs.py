"""What calls are called with is recorded with their outcomes, for people: in brief, or as a whole, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest

from rh_agents import (
    ExecutionEvent,
    ExecutionState,
    MemoryStore,
    RecordInputs,
    Secret,
    Tool,
    agent,
    fork,
    open_store,
    parallel,
    run,
    tool,
)
from rh_agents.core.actors.signature import Injected
from rh_agents.core.ports import Store
from rh_agents.core.redaction import forget_secret
from rh_agents.testing import ScriptedLLM

RUN = "r"


@tool
async def fetch(url: str, depth: int = 1) -> int:
    return len(url)


@tool
async def fail(text: str) -> None:
    raise ValueError("no")


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else open_store(tmp_path / "runs.db")


async def recorded(store: Store, run_id: str = RUN) -> dict[str, str | None]:
    """The inputs by address, of all calls that have an outcome."""
    return {each.header.address: each.input async for each in store.unread_outcomes(run_id)}


def inputs(store: Store, program: Callable[[], Awaitable[Any]], **options: Any) -> dict[str, str | None]:
    """What is recorded of a program's calls."""

    async def main() -> dict[str, str | None]:
        async with ExecutionState(store=store, run_id=RUN, **options):
            await program()
        found = await recorded(store)
        await store.aclose()
        return found

    return asyncio.run(main())


def test_in_brief_by_default(store: Store) -> None:
    @tool
    async def longer(text: str) -> int:
        return len(text)

    async def program() -> None:
        await fetch("https://example.org", depth=3)
        await longer("x" * 1000)
        async with parallel(2) as p:
            p.map(fetch, ["a", "b"])
            await p.gather()

    found = inputs(store, program)
    assert found["fetch"] == '{"url":"https://example.org","depth":3}'
    long = found["longer"]
    assert long is not None
    assert len(long.encode()) == 256
    assert long.endswith("x…")
    assert found["parallel[1]::fetch"] == '{"url":"b","depth":1}'


def test_more_of_a_call_that_failed(store: Store) -> None:
    async def program() -> None:
        await fail("y" * 5000).outcome()

    text = inputs(store, program)["fail"]
    assert text is not None
    assert len(text.encode()) == 2048


def test_nothing_if_that_is_wanted(store: Store) -> None:
    @tool(record_inputs="brief")
    async def shown(number: int) -> int:
        return number

    async def program() -> None:
        await fetch("a")
        await shown(1)

    assert inputs(store, program, record_inputs="none") == {"fetch": None, "shown": '{"number":1}'}


def test_all_of_it_if_that_is_wanted(store: Store) -> None:
    @tool(record_inputs=RecordInputs.FULL)
    async def read(pages: list[str], about: tuple[int, int]) -> int:
        return len(pages)

    pages = ["page " * 10] * 100

    async def program() -> None:
        await read(pages, (1, 2))

    text = inputs(store, program)["read"]
    assert text is not None
    assert json.loads(text) == {"pages": pages, "about": {"!": "tuple", "v": [1, 2]}}


def test_of_what_is_large_or_no_data_as_much_as_there_is_room_for(store: Store) -> None:
    @tool(record_inputs="full")
    async def read(text: str) -> int:
        return len(text)

    @tool(record_inputs="full")
    async def use(text: str, handle: Any) -> int:
        return len(text)

    async def program() -> None:
        await read("z" * 10_000_000)
        await use("short", object()).with_options(key="a")

    first, second = inputs(store, program).values()
    assert first is not None
    assert len(first.encode()) == 64 * 1024
    assert second == '{"text":"short","handle":"<object>"}'


def test_of_every_kind_of_call(store: Store) -> None:
    async def plain(number: int) -> int:
        return number

    @tool
    async def connect(host: str, client: Annotated[object, Injected]) -> str:
        return host

    @agent
    async def survey(topic: str) -> str:
        model = ScriptedLLM(["an answer"])
        return str((await ExecutionEvent(actor=model)("what is it?", None, None)).unwrap())

    async def answer(_: object) -> str:
        return "yes"

    async def program() -> None:
        async with parallel(2) as p:
            p.map(plain, [7])
            p.add(plain(8), name="bare")
            await p.gather()
        await connect("localhost", object())
        await survey("cats")
        await ExecutionEvent(actor=Tool(name="double", handler=plain))(21, None, None)
        await ScriptedLLM(["Paris."], name="asked").ask("The capital of France?")
        await ScriptedLLM(["Paris."], name="led").ask("The capital of France?", system="Be brief.")

    found = inputs(store, program)
    assert found["parallel[0]::plain"] == "7"
    assert found["parallel[1]::bare"] is None, "nobody sees what a coroutine was made with"
    assert found["connect"] == '{"host":"localhost"}'
    assert found["survey"] == '{"topic":"cats"}'
    assert "what is it?" in (found["survey::scripted"] or "")
    assert found["double"] == "21"
    assert found["asked"] == '"The capital of France?"'
    assert found["led"] == (
        '[{"role":"system","content":"Be brief."},{"role":"user","content":"The capital of France?"}]'
    )


def test_a_question_is_its_text(store: Store) -> None:
    async def main() -> dict[str, str | None]:
        async def answer(_: object) -> str:
            return "yes"

        async with ExecutionState(store=store, run_id=RUN) as state:
            state.set_answerer(answer)
            await state.ask("May I?")
        return await recorded(store)

    assert asyncio.run(main()) == {"ask": '"May I?"'}


def test_secrets_are_shown_by_name_and_credentials_not_at_all(store: Store) -> None:
    password = Secret("db-password", "correct horse")

    @tool(record_inputs="full")
    async def login(user: str, password: Secret) -> str:
        return user

    @tool
    async def call(url: str, api_key: str) -> str:
        raise ValueError("no")

    async def program() -> None:
        await login("me", password)
        await call("https://me:hunter2@example.org/correct horse", "hunter22").outcome()

    try:
        shown = str(inputs(store, program))
    finally:
        forget_secret("db-password")
    assert "correct horse" not in shown
    assert "hunter2" not in shown
    assert "<secret:db-password>" in shown
    assert '"api_key":"***"' in shown


def test_keys_are_the_same_whatever_is_recorded(store: Store) -> None:
    calls: list[str] = []

    @tool
    async def work(text: str) -> str:
        calls.append(text)
        return text

    async def program() -> None:
        async with parallel(2) as p:
            p.map(work, ["a", "b", "c"])
            await p.gather()

    async def main() -> None:
        for how in RecordInputs:
            await run(program, store=store, run_id=RUN, record_inputs=how)
        await run(program, store=store, run_id=RUN)
        await store.aclose()

    asyncio.run(main())
    assert sorted(calls) == ["a", "b", "c"]


def test_a_copy_has_them_as_well_also_of_an_edited_call(store: Store) -> None:
    async def main() -> tuple[dict[str, str | None], dict[str, str | None]]:
        async def program() -> None:
            await fetch("a")
            await fail("b").outcome()

        await run(program, store=store, run_id=RUN)
        await fork(store, RUN, "copy", address="fail", result=None)
        found = await recorded(store), await recorded(store, "copy")
        await store.aclose()
        return found

    original, copy = asyncio.run(main())
    assert copy == original == {"fetch": '{"url":"a","depth":1}', "fail": '{"text":"b"}'}


def test_whatever_a_call_was_called_with_its_outcome_is_recorded(store: Store) -> None:
    class Changing(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("changed")

    class Odd:
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            raise RuntimeError("odd")

    @tool
    async def take(thing: Annotated[Any, "anything"]) -> int:
        return 1

    async def program() -> None:
        await take(Changing(a=1)).with_options(key="a")
        async with parallel(1) as p:
            p.add(take(Odd()).with_options(key="b"))
            await p.gather()

    first, second = inputs(store, program).values()
    assert first == '{"thing":{"a":1}}'
    assert second == "<not shown: RuntimeError>"


def test_a_word_that_is_none_of_them_is_refused() -> None:
    with pytest.raises(ValueError, match="some"):
        ExecutionState(record_inputs="some")
