"""What takes long because a value is large is done beside the event loop, wherever a run has to do with a value."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from rh_agents import ExecutionEvent, ExecutionState, MemoryStore, RunMismatchError, Tool, open_store, storable, tool
from rh_agents.core._base.sizes import LARGE
from rh_agents.core.errors import InputError, OutputError
from rh_agents.core.values.large_validation import validate
from rh_agents.integrations._steps import is_storable
from rh_agents.testing._records import completed, outcome, request

LONG = "it's " + "x" * LARGE
threads: list[int] = []
"""Where a `Noting` was looked at."""


@storable
@dataclass(frozen=True, eq=False)
class Noting:
    """Tells in which threads it is put into a set: whenever a set with it is read from a store."""

    name: str

    def __hash__(self) -> int:
        threads.append(threading.get_ident())
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Noting) and other.name == self.name


@pytest.fixture(autouse=True)
def _begin() -> None:
    threads.clear()


def made(*, is_large: bool) -> list[Any]:
    value = [{Noting("a")}, LONG if is_large else "short"]
    threads.clear()
    return value


@asynccontextmanager
async def all_stores(folder: Path) -> AsyncIterator[list[Any]]:
    stores = [MemoryStore(), open_store(str(folder / "runs.db"))]
    yield stores
    for store in stores:
        await store.aclose()


# -- validation of replays, and reading what is recorded ---------------------------------------------------------------


@pytest.mark.parametrize("is_large", [False, True])
def test_a_large_result_is_compared_beside_the_loop_when_a_replay_is_validated(tmp_path: Path, is_large: bool) -> None:
    values = [made(is_large=is_large)]

    @tool
    async def produce() -> Any:
        return values[0]

    @tool(effect="external", on_unknown="retry")
    async def pay() -> Any:
        return values[0]

    async def main() -> None:
        async with all_stores(tmp_path) as stores:
            for store in stores:
                values[0] = made(is_large=is_large)
                async with ExecutionState(store=store, run_id="monday"):
                    await produce(), await pay()
                threads.clear()
                for durability in ("sync", "async"):
                    state = ExecutionState(
                        store=store, run_id="monday", replay_mode="validation", durability=durability
                    )
                    async with state:
                        assert await produce() == await pay() == values[0]
                    assert state.differences == []
                assert threads
                assert threading.get_ident() not in threads if is_large else True
                values[0] = ["another", LONG]
                async with ExecutionState(store=store, run_id="monday", replay_mode="validation") as state:
                    await produce()
                (changed, not_called) = state.differences
                assert str(changed).startswith("produce: recorded [")
                assert len(str(changed)) < 300
                assert "now not called" in str(not_called)

    asyncio.run(main())


def test_large_outcomes_and_events_of_a_memory_store_are_read_beside_the_loop() -> None:
    value = made(is_large=True)

    async def main() -> None:
        store = MemoryStore()
        journal = await store.open_run(request("monday"))
        given = outcome(1, value)
        await journal.append(completed("monday", given), given)
        threads.clear()
        assert [each.value async for each in store.outcomes("monday")] == [value]
        assert [each.event.result async for each in store.events("monday")] == [value]
        assert [each.is_large async for each in store.unread_outcomes("monday")] == [True]
        assert set(threads) - {threading.get_ident()}
        assert threads.count(threading.get_ident()) == 0

    asyncio.run(main())


def test_a_failure_that_carries_much_is_recorded_beside_the_loop_and_told_in_short(tmp_path: Path) -> None:
    error = ValueError(LONG, ["x" * 100] * 5_000)
    given = outcome(1, error=error)
    assert given.is_large
    assert not outcome(1, error=ValueError("short")).is_large
    assert outcome(1, error=ExceptionGroup("several", [ValueError(LONG)])).is_large

    async def main() -> None:
        async with all_stores(tmp_path) as stores:
            for store in stores:
                journal = await store.open_run(request("monday"))
                for work in (journal.append(completed("monday", given), given), journal.load(given.key)):
                    task = asyncio.ensure_future(work)
                    await asyncio.sleep(0)
                    assert not task.done(), "what is done on the event loop is done in the first turn"
                    found = await task
                    assert found is not None
                    assert type(found.error) is ValueError
                    assert found.error.args == error.args

    asyncio.run(main())
    message = given.as_result(0, "").error_message
    assert message is not None
    assert message.startswith("ValueError: (\"it's xxx")
    assert len(message) < 11_000


# -- the input of a run ------------------------------------------------------------------------------------------------


def test_a_large_input_of_a_run_is_kept_as_it_always_was(tmp_path: Path) -> None:
    value = {"pages": [LONG, "é\n", b"\0" * LARGE], "client": object(), "n": 1}
    begun: list[asyncio.Future[None]] = []

    async def main() -> None:
        async with all_stores(tmp_path) as stores:
            for store in stores:
                state = ExecutionState(store=store, run_id="monday", input=value)
                begun.append(asyncio.ensure_future(state.open()))
                await asyncio.sleep(0)
                assert not begun[-1].done()
                await begun[-1]
                await state.end()
                info = await store.find_run("monday")
                assert info is not None
                assert info.input_digest is not None
                assert info.input_digest.hex() == "6bd3fff9ff52d78433c8a20035e595515a7df00998342a5325085f1357f9a191"
                async with ExecutionState(store=store, run_id="monday", input=dict(value)):
                    pass
                with pytest.raises(RunMismatchError, match="an input that differs from character"):
                    await ExecutionState(store=store, run_id="monday", input={**value, "n": 2}).open()

    asyncio.run(main())


def test_a_large_input_that_is_not_recorded_is_not_looked_at() -> None:
    async def main() -> None:
        async with ExecutionState(input=[{Noting("a")}, LONG]):
            threads.clear()

    asyncio.run(main())
    assert threads == []


# -- validation by types -----------------------------------------------------------------------------------------------


def _noted(value: Any) -> Any:
    threads.append(threading.get_ident())
    return value


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("where", ["input", "result"])
def test_large_inputs_and_results_are_validated_beside_the_loop(where: str, is_large: bool) -> None:
    async def same(given: Any) -> Any:
        return given

    kind = list[Annotated[str, BeforeValidator(_noted)]]
    actor = (
        Tool(name="same", handler=same, input_model=kind)
        if where == "input"
        else Tool(name="same", handler=same, output_model=kind)
    )
    wrong: Any = InputError if where == "input" else OutputError

    async def main() -> None:
        state = ExecutionState()
        result = await ExecutionEvent(actor=actor)(["a", LONG if is_large else "b"], None, state)
        assert result.unwrap()[0] == "a"
        failed = await ExecutionEvent(actor=actor)([1, LONG if is_large else "b"], None, state)
        assert type(failed.error) is wrong
        assert "0: Input should be a valid string" in str(failed.error)

    asyncio.run(main())
    assert {thread == threading.get_ident() for thread in threads} == {not is_large}


class Item(BaseModel):
    id: int
    text: Annotated[str, Field(min_length=1)] = "none"


class Tree(BaseModel):
    name: str
    below: list[Tree] = Field(default_factory=list)


class Late(BaseModel):
    model_config = ConfigDict(defer_build=True)
    items: dict[str, list[Item]]
    either: list[int] | list[str] | None = None


BIG = ["x" * 100] * 4_000


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (list[Item], [{"id": "1", "text": LONG}, {"id": 2}]),
        (list[Item], [{"id": "one", "text": LONG}, {"id": 2, "text": ""}]),
        (set[str], [*BIG, "y"]),
        (frozenset[int], [LONG]),
        (dict[str, list[int]], {LONG: ["1", 2], "b": []}),
        (tuple[int, ...], [*range(40_000), "7"]),
        (Tree, {"name": LONG, "below": [{"name": "a", "below": [{"name": "b"}]}]}),
        (Tree, {"name": LONG, "below": [{"name": "a", "below": [{"nam": "b"}]}]}),
        (Late, {"items": {"a": [{"id": 1, "text": LONG}]}, "either": ["1", "b"]}),
        (list[int] | list[str], BIG),
        (list[int | str], ["1", *BIG]),
    ],
)
def test_what_is_large_is_validated_like_what_is_small(kind: Any, value: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def seen(read: Callable[[Any], Any]) -> Any:
        try:
            return read(value)
        except ValidationError as error:
            return [(each["loc"], each["type"], each["msg"]) for each in error.errors()]

    found, expected = seen(lambda given: validate(adapter, given)), seen(adapter.validate_python)
    assert found == expected
    assert type(found) is type(expected)


def test_a_thread_that_validates_lets_others_go_on() -> None:
    """Pydantic alone keeps the interpreter's lock until it is done, so that nothing else would happen meanwhile."""
    adapter = TypeAdapter(list[int])
    value = [str(number) for number in range(1_000_000)]
    validate(adapter, value)
    assert max(_turns_while(lambda: validate(adapter, value)) for _ in range(3)) > 5  # others may have the processor


def _turns_while(work: Callable[[], object]) -> int:
    """How often this thread gets to do something while another one works."""
    turns = 0
    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        turns += 1
        thread.join(0.001)
    return turns


# -- steps of frameworks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_large", [False, True])
def test_whether_the_result_of_a_step_can_be_kept_is_found_out_beside_the_loop(is_large: bool) -> None:
    async def main() -> None:
        for value, expected in ((["a"], True), ([object()], False)):
            task: Any = asyncio.ensure_future(_as_coroutine(is_storable([*value, LONG if is_large else "b"])))
            await asyncio.sleep(0)
            assert task.done() is not is_large
            assert await task is expected

    asyncio.run(main())


async def _as_coroutine(work: Awaitable[bool]) -> bool:
    return await work
