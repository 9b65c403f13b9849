"""Which calls of a run somebody means who names them, or asks for those that failed: their newest outcomes.

A store that can (`FindsOutcomes`) lets its database find them; of any other `Store` all outcomes are looked through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rh_agents.core._replay.steered import is_named
from rh_agents.core.redaction import without_secrets
from rh_agents.core.results import OutcomeHeader, UnreadOutcome

__all__ = ["FindsOutcomes", "costs_of_calls", "is_meant", "newest_outcomes", "outcomes_around", "outcomes_meant"]


@runtime_checkable
class FindsOutcomes(Protocol):
    """A store that finds outcomes itself. Each method raises `StoreError` if there is no such run."""

    async def outcomes_named(self, run_id: str, items: Sequence[str], unsuccessful: bool) -> list[UnreadOutcome]:
        """The newest outcomes of all calls that one of these names may mean, and if asked for, all that are no values.

        Some may be among them that are not meant. The oldest comes first.
        """
        ...

    async def outcomes_around(self, run_id: str, keys: Sequence[bytes]) -> list[UnreadOutcome]:
        """See `outcomes_around`."""
        ...

    async def costs(self, run_id: str) -> Mapping[str, float]:
        """See `costs_of_calls`."""
        ...


def is_meant(item: str, header: OutcomeHeader) -> bool:
    """Whether somebody who writes so means this call (see `rh_agents.core._replay.steered.is_named`)."""
    return is_named(without_secrets(item), header.name, header.address, header.key)


async def newest_outcomes(store: Any, run_id: str) -> list[UnreadOutcome]:
    """The newest outcome of each call of a run.

    Raises:
        StoreError: there is no such run, or something in it is damaged.
    """
    newest = {outcome.header.base: outcome async for outcome in store.unread_outcomes(run_id)}
    return list(newest.values())


async def outcomes_meant(
    store: Any, run_id: str, items: Sequence[str] = (), *, unsuccessful: bool = False
) -> list[UnreadOutcome]:
    """The newest outcomes of the calls that are meant.

    Args:
        store, run_id: the run.
        items: names, addresses, or `@` and the beginnings of keys.
        unsuccessful: all calls that have failed or were cancelled as well.

    Raises:
        StoreError: there is no such run, or something in it is damaged.
    """
    if isinstance(store, FindsOutcomes):
        found = await store.outcomes_named(run_id, [without_secrets(item) for item in items], unsuccessful)
    else:
        found = await newest_outcomes(store, run_id)
    return [
        each
        for each in found
        if (unsuccessful and not each.header.ok) or any(is_meant(item, each.header) for item in items)
    ]


async def outcomes_around(store: Any, run_id: str, keys: Sequence[bytes]) -> list[UnreadOutcome]:
    """The outcomes with these keys, and the newest ones of the calls around them, those around these, and so on.

    Raises:
        StoreError: there is no such run, or something in it is damaged.
    """
    if not keys:
        return []
    if isinstance(store, FindsOutcomes):
        return await store.outcomes_around(run_id, keys)
    by_key, newest = dict[bytes, UnreadOutcome](), dict[bytes, UnreadOutcome]()
    async for outcome in store.unread_outcomes(run_id):
        by_key[outcome.header.key] = newest[outcome.header.base] = outcome
    found = dict[bytes, UnreadOutcome]()
    for outcome in filter(None, map(by_key.get, keys)):
        caller: UnreadOutcome | None = outcome
        while caller is not None:
            found[caller.header.key] = caller
            caller = newest.get(caller.header.parent)
    return list(found.values())


async def costs_of_calls(store: Any, run_id: str) -> Mapping[str, float]:
    """What calls that have succeeded cost on average: those of each group, by its id, and all others by their names.

    Raises:
        StoreError: there is no such run, or something in it is damaged.
    """
    if isinstance(store, FindsOutcomes):
        return await store.costs(run_id)
    paid: dict[str, list[float]] = {}
    async for outcome in store.unread_outcomes(run_id):
        header = outcome.header
        if header.ok:
            cost = 0.0 if header.usage is None else header.usage.cost
            paid.setdefault(header.group_id or header.name, []).append(cost)
    return {name: sum(costs) / len(costs) for name, costs in paid.items()}
