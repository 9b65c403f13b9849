"""What a shard is: members of a group for another process, as the input of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rh_agents.core._group.members import Place
from rh_agents.core.errors import UsageError
from rh_agents.core.policies.budget import Budget
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.policies.sharing.budgets import AMOUNTS
from rh_agents.core.results import Outcome
from rh_agents.core.types import Generation
from rh_agents.core.usage import Usage
from rh_agents.core.values import decode, decode_error, encode, encode_error

__all__ = ["WORKFLOW", "Item", "Shard", "retry_as_json"]

WORKFLOW: Final = "shard"
"""What a shard's run says it executes."""
_FILTERS: Final = ("retry_on", "give_up_on")


@dataclass(frozen=True, slots=True)
class Item:
    """One member.

    Attributes:
        place: its index, its place in the program, its key and how often it was made before.
        name: what the program calls it; None if it has no name.
        data: what its function is applied to, as typed JSON.
    """

    place: Place
    name: str | None
    data: str

    def as_json(self) -> list[Any]:
        """Plain data that JSON has."""
        place = self.place
        return [place.index, place.base.hex(), place.key.hex(), place.tries, self.name, self.data]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Item:
        """The item of which `as_json` gives this."""
        index, base, key, tries, name, text = data
        return cls(Place(index, bytes.fromhex(base), bytes.fromhex(key), tries), name, text)

    def value(self) -> Any:
        """What its function is applied to."""
        return decode(self.data.encode())


@dataclass(frozen=True, slots=True)
class Shard:
    """Members of a group for another process.

    Attributes:
        run_id: the run to which the calls of its members belong.
        group, group_id: its name and its id.
        group_number: how many groups of this name the call around it has opened before.
        base, address, generation, depth: the call around it: its key, its place for people, which execution of its body
            has opened the group, and how many calls there are around that call.
        max_workers, item_timeout, retry: options of the group.
        on_unknown, record_inputs: options of the run.
        places: the parts of the run with a budget of their own that count what the members spend.
        items: the members.
        earlier: outcomes of calls that the members have made in earlier executions.
        made_by, settings: what the flow names is applied to items, unless this names a function, as MODULE:FUNCTION,
            that makes of the name and of the settings what is.
        id: the name of its own run. No two shards have the same one, whatever their members are: up to where the group
            has taken over the journal of a shard, its own journal says by this name.
        budgets: those which the members share with other runs.
    """

    run_id: str
    group: str
    group_id: str
    group_number: int
    base: bytes
    address: str
    generation: Generation
    depth: int
    max_workers: int
    item_timeout: float | None
    retry: Mapping[str, Any] | None
    on_unknown: str
    record_inputs: str
    places: tuple[str, ...]
    items: tuple[Item, ...]
    earlier: tuple[Outcome, ...] = ()
    made_by: str | None = None
    settings: Mapping[str, Any] | None = None
    id: str = ""
    budgets: tuple[Budget, ...] = ()

    @property
    def policy(self) -> RetryPolicy | None:
        """The retry policy of the group."""
        return None if self.retry is None else RetryPolicy(**self.retry)

    def as_json(self) -> dict[str, Any]:
        """Plain data that JSON has."""
        data = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        if not data.pop("budgets"):  # workers of versions that knew none of these take what has none
            return self._as_json(data)
        return {**self._as_json(data), "budgets": [_budget_as_json(budget) for budget in self.budgets]}

    def _as_json(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **data,
            "base": self.base.hex(),
            "generation": list(self.generation),
            "retry": None if self.retry is None else dict(self.retry),
            "places": list(self.places),
            "items": [item.as_json() for item in self.items],
            "earlier": [_outcome_as_json(outcome) for outcome in self.earlier],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Shard:
        """The shard of which `as_json` gives this. Classes of values must be known by now."""
        return cls(
            **{
                **data,
                "base": bytes.fromhex(data["base"]),
                "generation": tuple(data["generation"]),
                "places": tuple(data["places"]),
                "items": tuple(map(Item.from_json, data["items"])),
                "earlier": tuple(map(_outcome_from_json, data["earlier"])),
                "budgets": tuple(Budget(**each, shared=True) for each in data.get("budgets", ())),
            }
        )


def retry_as_json(policy: RetryPolicy | None, group: str) -> dict[str, Any] | None:
    """A retry policy as plain data.

    Raises:
        UsageError: it has functions or classes that say what is tried again.
    """
    if policy is None:
        return None
    usual = RetryPolicy()
    if any(getattr(policy, name) != getattr(usual, name) for name in _FILTERS):
        raise UsageError(
            f"group {group!r} says by retry_on or give_up_on what is tried again, and its items are made in other "
            "processes: give that policy to the function, as in @tool(retry=...)"
        )
    return {each.name: getattr(policy, each.name) for each in dataclasses.fields(policy) if each.name not in _FILTERS}


def _budget_as_json(budget: Budget) -> dict[str, Any]:
    numbers = {name: getattr(budget, name) for name in AMOUNTS}
    stated = {name: number for name, number in numbers.items() if number not in (None, math.inf)}
    return {"name": budget.name, **stated}


def _outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    text = encode(outcome.value) if outcome.error is None else encode_error(outcome.error)
    return {
        "key": outcome.key.hex(),
        "base": outcome.base.hex(),
        "parent": outcome.parent.hex(),
        "name": outcome.name,
        "address": outcome.address,
        "ok": outcome.error is None,
        "data": text.decode(),
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
        "group_id": outcome.group_id,
        "made_in": list(outcome.made_in),
        "usage": None if outcome.usage is None else outcome.usage.as_json(),
        "input": outcome.input,
    }


def _outcome_from_json(data: Mapping[str, Any]) -> Outcome:
    text = data["data"].encode()
    return Outcome(
        bytes.fromhex(data["key"]),
        data["name"],
        data["address"],
        decode(text) if data["ok"] else None,
        None if data["ok"] else decode_error(text),
        data["seconds"],
        data["attempts"],
        data["group_id"],
        bytes.fromhex(data["base"]),
        bytes.fromhex(data["parent"]),
        tuple(data["made_in"]),
        None if data["usage"] is None else Usage.from_json(data["usage"]),
        data["input"],
    )
