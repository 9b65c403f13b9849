"""A disk that gives back other bytes than were written: an error of ours, or what was recorded, and nothing else."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rh_agents import current, parallel, run, tool
from rh_agents.core.errors import RhAgentsError, RunAwaiting
from rh_agents.core.ports import Store
from rh_agents.stores.sqlite import SqliteStore
from rh_agents.testing._records import listed
from tests.stress.sizes import rounds

MADE: list[str] = []
"""Which functions were called: after the first execution, none may be."""


@tool(retry=2)
async def look(number: int) -> dict[str, Any]:
    MADE.append(f"look {number}")
    if number == 3:
        raise ValueError(f"nothing to see at {number}: é")
    return {"number": number, "text": "some text " * number, "more": [1.5, None, True, b"bytes"]}


@tool(cache="store")
async def summary(number: int) -> str:
    MADE.append(f"summary {number}")
    return f"in short: {number}"


@tool
async def large(letter: str) -> str:
    MADE.append(f"large {letter}")
    return letter * 40_000


async def flow(count: int) -> list[str]:
    """Calls of every kind: in a group, failed, cached, with large results, and a question."""
    async with parallel(max_workers=3, name="pages") as p:
        for number in range(count):
            p.add(look(number))
        seen = await p.gather()
    told = [repr(each.result if each.ok else each.error) for each in seen]
    told += [await summary(each) for each in (1, 1, 2)]
    told += [await large(letter) for letter in "ab"]
    told.append(repr(await current().run.ask("Go on?", bool)))
    return told


async def record(store: Store) -> list[str]:
    """The run, from its beginning to its end."""
    MADE.clear()
    with pytest.raises(RunAwaiting):
        await run(flow, 5, store=store, run_id="monday", tags=["a tag"])
    (question,) = await store.questions("monday")
    await store.answer("monday", question.id, b"true", by="somebody")
    return await run(flow, 5, store=store, run_id="monday", tags=["a tag"], retry_failed=False)


async def read(store: Store) -> list[object]:
    """Everything that a store tells about a run, but for what changes with every commit or opening."""
    (info,) = await store.runs()
    found: list[object] = [(info.run_id, info.status, info.epoch, info.workflow, info.input, info.tags, info.facts)]
    found += [repr(each) for each in await listed(store.outcomes("monday"))]
    found += [
        (each.sequence, each.event.model_dump(exclude={"actor"})) for each in await listed(store.events("monday"))
    ]
    found += await store.questions("monday", is_open=False)
    return found


async def ours(work: Any) -> Any:
    """What it comes to; None for an error of this library. Any other error is a failure of the test."""
    try:
        return await work
    except RhAgentsError:
        return None


async def judge(make: Callable[[], Store], expected: list[str], everything: list[object], what: str) -> list[str]:
    """After damage: whether a run, a reader and the check say what is recorded, or that it is damaged."""
    found: list[str] = []
    store = make()
    findings = await ours(store.check())
    told = await ours(read(store))
    if told is not None and told != everything:
        found.append(f"{what}: something else is read")
    MADE.clear()
    result = await ours(run(flow, 5, store=store, run_id="monday", tags=["a tag"], retry_failed=False))
    if result is not None and (result != expected or MADE):
        found.append(f"{what}: the run gives {result} after calling {MADE}")
    if (told is None or result is None) and findings == []:
        found.append(f"{what}: the check finds nothing")
    await ours(store.aclose())
    return found


@rounds(short=60, full=700)
def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path: Path, rounds: int) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"

    async def main() -> None:
        store = SqliteStore(original / "runs.db")
        expected = await record(store)
        await store.aclose()
        store = SqliteStore(original / "runs.db")
        everything = await read(store)
        await store.aclose()
        files = sorted(path for path in original.rglob("*") if path.is_file())
        assert [path.name for path in files if len(path.name) < 64] == ["runs.db"], "all of it is in the one file"
        sizes = [path.stat().st_size for path in files]
        wrong: list[str] = []
        for seed in range(rounds):
            chance = random.Random(seed)
            # Half of them in the database, wherever that is; the others where there is most.
            victim = files[0] if seed % 2 else chance.choices(files, sizes)[0]
            bit = chance.randrange(victim.stat().st_size * 8)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(original, copy)
            data = bytearray(victim.read_bytes())
            data[bit // 8] ^= 1 << bit % 8
            (copy / victim.relative_to(original)).write_bytes(data)
            what = f"seed {seed}, bit {bit} of {victim.name[:10]}"
            wrong += await judge(lambda: SqliteStore(copy / "runs.db", busy_timeout=1.0), expected, everything, what)
        assert wrong == []

    asyncio.run(main())
