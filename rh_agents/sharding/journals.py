"""The journals of shards, as the process reads them that has their group open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from typing import Any, Final

from rh_agents.core._run.parts import RunParts
from rh_agents.core.errors import RunIsLive, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.ports import JournalEntry
from rh_agents.core.redaction import logger
from rh_agents.core.results import Outcome
from rh_agents.sharding.placed import Placed
from rh_agents.sharding.shard import Shard

__all__ = ["batches", "calls_below", "delete_child", "of_calls", "take_over", "until_free"]

_AT_ONCE: Final = 256
"""Entries that are taken over in one transaction."""
_LOOK_EVERY: Final = 0.1
_log = logger("rh_agents.shards")


async def batches(store: Any, shard: Shard, after: int) -> AsyncIterator[list[JournalEntry]]:
    """The entries of a shard from after a place, some hundreds at a time, but for those that it was given."""
    after = max(after, len(shard.earlier))
    if await store.find_run(shard.id) is None:
        return
    batch: list[JournalEntry] = []
    async for entry in store.journal_entries(shard.id, after=after):
        batch.append(entry)
        if len(batch) >= _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


async def take_over(
    run: RunParts,
    store: Any,
    placed: Placed,
    about_to: Callable[[Sequence[Outcome]], None] = lambda _: None,
    total: int | None = None,
) -> AsyncIterator[list[Outcome]]:
    """Let the journal of a run have what that of a shard has; gives the outcomes of each part when they are on disk.

    Args:
        run: the run.
        store: where both are.
        placed: the shard; `until` says how far it has come.
        about_to: gets the outcomes of each part before they are recorded.
        total: how many members the group has, if that is known.
    """
    shard = placed.shard
    async for given in batches(store, shard, placed.until):
        entries = [
            (fact._replace(group_total=total) if fact.group_id == shard.group_id else fact, outcome)
            for fact, outcome in of_calls(shard, given)
        ]
        outcomes = [outcome for _, outcome in entries if outcome is not None]
        about_to(outcomes)
        if entries:
            await run.take_over(entries, shard.places, {"run": shard.id, "until": given[-1].sequence})
        placed.until = given[-1].sequence
        yield outcomes


async def delete_child(store: Any, run_id: str, before: Callable[[], Awaitable[None]] | None = None) -> bool:
    """Delete a shard that nobody executes; False if somebody does: then a later start of its group deletes it.

    Args:
        store: where it is.
        run_id: its name.
        before: is done when no worker can take it any more, and before it is deleted.
    """
    try:
        if before is not None:
            if not await store.take_from_queue(run_id):
                return False
            await before()
        await store.delete_run(run_id)
    except RunIsLive:
        _log.debug("shard %s has not been let go of, and is left", run_id)
        return False
    except StoreError:
        if await store.find_run(run_id) is not None:
            raise
    return True


async def until_free(store: Any, run_id: str, shards: Container[str], at_most: float) -> None:
    """Wait until nobody executes some shards of a run, but no longer than so many seconds."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + at_most
    while loop.time() < ends_at:
        states = await store.children(run_id)
        if not any(state.is_executed and state.run_id in shards for state in states):
            return
        await asyncio.sleep(_LOOK_EVERY)


def of_calls(shard: Shard, entries: Sequence[JournalEntry]) -> list[tuple[Fact, Outcome | None]]:
    """What entries of a shard say of calls and of groups within these; its own group is that of another process."""
    return [
        (entry.fact, entry.outcome)
        for entry in entries
        if entry.fact.key is not None or (entry.fact.group is not None and entry.fact.group_id != shard.group_id)
    ]


async def calls_below(store: Any, run_id: str, begun: Container[bytes]) -> dict[bytes, list[Outcome]]:
    """What calls that were cut off had called, directly or not, by their keys.

    Calls that have no outcome do not say who made them, but the addresses of what they made begin with theirs.
    """
    places: dict[str, bytes] = {}
    found: dict[bytes, list[Outcome]] = {}
    async for _, fact, outcome in store.journal_entries(run_id):
        if fact.key is not None and fact.key in begun:
            places[fact.address] = fact.key
        elif outcome is not None:
            parts = outcome.address.split("::")
            for count in range(len(parts) - 1, 0, -1):
                key = places.get("::".join(parts[:count]))
                if key is not None:
                    found.setdefault(key, []).append(outcome)
    return found
