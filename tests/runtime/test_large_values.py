"""Large results are written and read beside the event loop, a piece at a time, and come back as they were."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rh_agents import ExecutionState, MemoryStore, open_store, storable, tool
from rh_agents.core.errors import StoreError, UnstorableError
from rh_agents.core.values import decode, encode, encode_large, is_large
from rh_agents.core.values.large import LARGE, value_in
from rh_agents.core.values.pieces import PIECE, contains, spans
from rh_agents.testing._records import completed, outcome, request


@storable
@dataclass
class Page:
    text: str
    links: list[str]
    more: Any = None


LONG = 'some text, é€😀\n"quoted" \\ ' * 40_000
VALUES: dict[str, Any] = {
    "a text": LONG,
    "a text of backslashes": "\\" * 1_000_001,
    "a text of control characters": "\x01\x02" * 300_000,
    "bytes": bytes(range(256)) * 4_001,
    "a bytearray": bytearray(b"ab") * 300_001,
    "numbers": [number * 0.37 for number in range(100_000)],
    "numbers that JSON has not": [1.0, float("inf"), 10**5000, *range(100_000)],
    "texts of every length": ["x" * number for number in range(1_000)],
    "large in small in large": [1, ["a", LONG, {"k": b"x" * 500_000, "l": [None]}], "z"],
    "a mapping": {f"key {number}": [number, str(number)] for number in range(20_000)},
    "a mapping with other keys": dict.fromkeys(range(10000), "t" * 50),
    "what looks like a tag": {"!": "tuple", "v": ["x" * LARGE, 1]},
    "a tuple of a set": (frozenset(range(60_000)), {1, 2}),
    "an instance": Page(LONG, ["a", "b" * LARGE], {"deep": [Page("x", [], b"y" * LARGE)]}),
    "half a pair of surrogates": ["a\ud800" * 200_000],
    "line feeds": ["\n", "\n" * 400_000, {"\n": "\n"}],
}


@pytest.mark.parametrize("what", VALUES)
def test_a_large_value_comes_back_as_it_was(what: str) -> None:
    value = VALUES[what]
    assert is_large(value)
    data = encode_large(value)
    for found in (decode(data), decode(encode(value))):
        assert type(found) is type(value)
        assert found == value


def test_older_versions_read_it_too() -> None:
    for what in ("numbers", "large in small in large", "a mapping", "an instance"):
        value = VALUES[what]
        data = encode_large(value)
        one_line = b"".join(data[start:end] for start, end in spans(data))
        assert encode(decode(one_line)) == encode(value), what


def test_a_large_array_comes_back_as_it_was() -> None:
    numpy = pytest.importorskip("numpy")
    for array in (
        numpy.arange(300_000.0).reshape(3, -1),
        numpy.arange(400_000, dtype="int16").reshape(-1, 4)[::2].T,
        numpy.array(["2026-01-01", "NaT"] * 50_000, dtype="datetime64[D]"),
        numpy.array(["abc", "é"] * 50_000),
    ):
        assert is_large(array)
        found = decode(encode_large(array))
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()
        found[0] = found[1]  # it can be changed, as any other


def test_nothing_is_written_or_read_in_one_piece_but_lines() -> None:
    lines = [end - start for start, end in spans(encode_large([1.5] * 500_000))]
    assert max(lines) < 4 * PIECE
    assert len(lines) > 10
    assert value_in(encode_large(LONG), False) == LONG


@pytest.mark.parametrize("value", ["x" * LARGE, [0] * 10_000, {"a": ["b" * 100] * 2_000}, {"a": 1}, None, 1.5, "x"])
def test_what_is_small_is_known_at_a_glance(value: Any) -> None:
    assert not is_large(value)


def test_what_is_no_data_is_refused_with_its_place() -> None:
    with pytest.raises(UnstorableError, match=r"at \[1\]\['client'\] cannot be stored"):
        encode_large(["x" * 2 * LARGE, {"client": object()}])


def test_a_needle_is_found_wherever_pieces_meet() -> None:
    for place in (0, PIECE - 5, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE - 3):
        data = b"." * place + b"needle" + b"." * PIECE
        assert contains(data, b"needle")
    assert not contains(b"needl" * PIECE, b"needle")


@asynccontextmanager
async def gaps() -> AsyncIterator[list[float]]:
    """How much processor time of its own the event loop took between two turns, in seconds.

    That is what it does itself: how long it waits for the processor, or for Python's lock, is up to the machine.
    """
    found: list[float] = []

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            found.append(time.thread_time() - before)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    yield found
    task.cancel()


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("make", [lambda: [0.37 * number for number in range(400_000)], lambda: [["x"] * 50] * 8_000])
def test_the_event_loop_goes_on_while_a_large_result_is_written_and_read(
    tmp_path: Path, make: Callable[[], Any], durability: Any
) -> None:
    value = make()

    @tool
    async def produce() -> list[Any]:
        return value  # type: ignore[no-any-return]

    async def execute() -> None:
        store = open_store(str(tmp_path / "runs.db"))
        async with ExecutionState(store=store, run_id="monday", durability=durability), gaps() as found:
            started = time.process_time()
            produced = await produce()
            assert max(found) < (time.process_time() - started) / 2
        assert produced == value
        await store.aclose()

    asyncio.run(execute())
    asyncio.run(execute())


@pytest.mark.parametrize("is_to_be_large", [False, True])
def test_a_memory_store_writes_and_reads_what_is_large_beside_the_event_loop(is_to_be_large: bool) -> None:
    """On the event loop it would be done in the first turn of its task; what a thread has done comes in a later one."""
    value = ["x" * 100] * (10_000 if is_to_be_large else 10)
    made = outcome(1, value)

    async def main() -> None:
        journal = await MemoryStore().open_run(request("monday"))
        for work in (journal.append(completed("monday", made), made), journal.load(made.key)):
            task = asyncio.ensure_future(work)
            await asyncio.sleep(0)
            assert task.done() is not is_to_be_large
            found = await task
            assert found is not None
            assert found.value == value
        assert (journal.load_nowait(made.key) is None) is is_to_be_large
        counts = await journal.append(completed("monday", made), made)
        assert counts is not None
        assert counts.value == value
        second = outcome(1, ["another"] * 100_000)
        with pytest.raises(StoreError, match="was made twice"):
            await journal.append(completed("monday", second), second)

    asyncio.run(main())


def test_what_is_changed_after_it_was_returned_is_recorded_as_it_was(tmp_path: Path) -> None:
    made = [list(range(100_000))]

    @tool
    async def produce() -> list[int]:
        return made[0]

    async def execute(store: Any) -> list[int]:
        async with ExecutionState(store=store, run_id="monday"):
            found = await produce()
            kept = list(found)
            found.append(-1)
        return kept

    async def main() -> None:
        for store in (open_store(str(tmp_path / "runs.db")), MemoryStore()):
            first = await execute(store)
            assert await execute(store) == first == list(range(100_000))
            made[0] = list(range(100_000))
            await store.aclose()

    asyncio.run(main())
