"""How calls are found in a PostgreSQL schema of runs for the windows that people look at."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from rh_agents.core.ports.call_views import lowered
from rh_agents.stores._backend.windows import CallsWanted, FailedRow, FailureRow, Kinds, Named, TriedAgain
from rh_agents.stores._postgresql.driver import Array

_UNFOUND: Final = "calls could not be found"
_VALUES: Final = {
    "seconds": ("coalesce(seconds, 0)", "double precision"),
    "attempts": ("attempt", "bigint"),
    "status": ('status COLLATE "C"', "text"),
    "address": ('address COLLATE "C"', "text"),
    "message": ("coalesce(message, '') COLLATE \"C\"", "text"),
    "cost": ("coalesce((used ->> 'cost')::double precision, 0)", "double precision"),
    "waited": ("waited", "double precision"),
    "worked": ("coalesce(seconds, 0) - waited", "double precision"),
    "tokens": (
        "coalesce((used ->> 'input_tokens')::bigint, 0) + coalesce((used ->> 'output_tokens')::bigint, 0)",
        "bigint",
    ),
}
"""What calls are sorted by, and of which type that is."""


class FindsCalls:
    """A session that finds calls. `_rows` is how whoever reads a schema of whatever version asks it."""

    def _rows(self, name: str, what: str, **parameters: Any) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def find_calls(self, number: int, after: int, until: int, wanted: CallsWanted) -> list[int]:
        """The sequences of outcomes that may be wanted."""
        name = "find_failures" if wanted.is_of_failures else "find_calls"
        span = {"number": number, "after": after, "until": until}
        found = self._rows(f"{name}_back" if wanted.descending else name, _UNFOUND, **span, **_wanted(wanted))
        return [sequence for (sequence,) in found]

    def sort_calls(self, number: int, after: int, until: int, wanted: CallsWanted) -> list[tuple[float | str, int]]:
        """The same in another order."""
        value, behind = wanted.behind or (None, 0)
        name = "sort_calls_back" if wanted.descending else "sort_calls"
        span = {"number": number, "after": after, "until": until, "value": value, "behind": behind}
        return [
            (its, sequence)
            for its, sequence in self._rows(f"{name}_by_{wanted.order}", _UNFOUND, **span, **_wanted(wanted))
        ]

    def failed_rows(self, number: int, after: int, until: int, limit: int) -> list[FailedRow]:
        """The failures, oldest first."""
        found = self._rows("failed_rows", _UNFOUND, number=number, after=after, until=until, limit=limit)
        return [FailedRow(FailureRow._make(row[:6]), *row[6:]) for row in found]

    def tried_again(self, number: int, after: int, until: int, limit: int) -> list[TriedAgain]:
        """The outcomes of calls that were made again, oldest first."""
        found = self._rows("tried_again", _UNFOUND, number=number, after=after, until=until, limit=limit)
        return list(map(TriedAgain._make, found))

    def outcomes_of_keys(self, number: int, after: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        """The outcomes of these keys."""
        return self._of_keys("outcomes_of_keys", number, after, until, keys)

    def failures_of_keys(self, number: int, after: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        """Those of them that are no success."""
        return self._of_keys("failures_of_keys", number, after, until, keys)

    def _of_keys(self, name: str, number: int, after: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        wanted = Array("bytea", list(keys))
        found = self._rows(name, _UNFOUND, number=number, after=after, until=until, keys=wanted)
        return [TriedAgain(sequence, key, key, group) for sequence, key, group in found]

    def events_of_key(self, number: int, after: int, until: int, key: bytes, limit: int) -> list[int]:
        """The sequences of events of a call."""
        found = self._rows("events_of_key", _UNFOUND, number=number, after=after, until=until, key=key, limit=limit)
        return [sequence for (sequence,) in found]

    def find_children(self, number: int, after: int, until: int, parent: bytes, limit: int) -> list[int]:
        """The sequences of outcomes of calls that were made at a place in the program."""
        span = {"number": number, "after": after, "until": until, "parent": parent, "limit": limit}
        return [sequence for (sequence,) in self._rows("find_children", _UNFOUND, **span)]

    def find_named(self, number: int, after: int, until: int, items: Sequence[str]) -> list[int]:
        """The sequences of outcomes that one of these may name."""
        names, parts, keys = (Array("text", texts) for texts in Named.of(items))
        span = {"number": number, "after": after, "until": until}
        found = self._rows("find_named", _UNFOUND, **span, names=names, parts=parts, keys=keys)
        return [sequence for (sequence,) in found]

    def ended_keys(self, number: int, after: int, until: int) -> bytes:
        """The keys of outcomes."""
        ((keys,),) = self._rows("ended_keys", _UNFOUND, number=number, after=after, until=until)
        return bytes(keys)

    def kinds(self, number: int, after: int, until: int) -> Kinds:
        """What events say of calls."""
        (found,) = self._rows("kinds", _UNFOUND, number=number, after=after, until=until)
        return Kinds._make(found)

    def count_groups(self, number: int, after: int, until: int) -> dict[str, int]:
        """How many outcomes there are of members of which group."""
        return dict(self._rows("count_groups", _UNFOUND, number=number, after=after, until=until))

    def moments(self, number: int, after: int, until: int) -> tuple[float | None, float | None]:
        """When the calls were under way whose outcomes these are."""
        ((began, ended),) = self._rows("moments", _UNFOUND, number=number, after=after, until=until)
        return began, ended


def sorting(queries: dict[str, str]) -> dict[str, str]:
    """The queries that sort, one for each thing by which calls are sorted: its type is fixed when it is prepared."""
    return {
        f"{name}_by_{order}": queries[name].replace("{value}", value).replace("{kind}", kind)
        for name in ("sort_calls", "sort_calls_back")
        for order, (value, kind) in _VALUES.items()
    }


def _wanted(wanted: CallsWanted) -> dict[str, Any]:
    return {
        "status": wanted.status,
        "group_id": wanted.group_id,
        "actor": wanted.actor,
        "actor_in_more": None if wanted.actor is None else json.dumps(wanted.actor),
        "text": None if wanted.text is None else lowered(wanted.text),
        "limit": wanted.limit,
        **wanted.bounds,
    }
