"""How calls are found in a file of runs for the windows that people look at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pydantic_core import from_json

from rh_agents.core.ports.call_views import lowered
from rh_agents.stores._backend.windows import CallsWanted, FailedRow, FailureRow, Kinds, Named, TriedAgain
from rh_agents.stores._sqlite.rows import PLACE_BITS, Row, as_json, as_text, from_text, some_text
from rh_agents.stores._sqlite.session import Session


class FindsCalls(Session):
    """A connection that finds calls. `_all` is how whoever reads a file of whatever version asks it."""

    def _all(self, name: str, **arguments: Any) -> list[Row]:
        raise NotImplementedError

    def find_calls(self, number: int, after: int, until: int, wanted: CallsWanted) -> list[int]:
        first = number << PLACE_BITS
        name = "find_failures" if wanted.is_of_failures else "find_calls"
        rows = self._all(f"{name}_back" if wanted.descending else name, **_wanted(first, after, until, wanted))
        return [place - first for (place,) in rows]

    def sort_calls(self, number: int, after: int, until: int, wanted: CallsWanted) -> list[tuple[float | str, int]]:
        first = number << PLACE_BITS
        value, behind = wanted.behind or (None, 0)
        rows = self._all(
            "sort_calls_back" if wanted.descending else "sort_calls",
            order=wanted.order,
            value=value,
            behind=first + behind,
            **_wanted(first, after, until, wanted),
        )
        return [(value, place - first) for value, place in rows]

    def failed_rows(self, number: int, after: int, until: int, limit: int) -> list[FailedRow]:
        rows = self._all("failed_rows", **_span(number, after, until), limit=limit)
        return [
            FailedRow(
                FailureRow(
                    place - (number << PLACE_BITS), some_text(address), some_text(name), more, kind, from_text(message)
                ),
                key,
                base,
            )
            for place, address, name, more, kind, message, key, base in rows
        ]

    def tried_again(self, number: int, after: int, until: int, limit: int) -> list[TriedAgain]:
        rows = self._all("tried_again", **_span(number, after, until), limit=limit)
        return [
            TriedAgain(place - (number << PLACE_BITS), key, base, from_text(group)) for place, key, base, group in rows
        ]

    def outcomes_of_keys(self, number: int, after: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        return self._of_keys("outcomes_of_keys", number, after, until, keys)

    def failures_of_keys(self, number: int, after: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        return self._of_keys("failures_of_keys", number, after, until, keys)

    def _of_keys(self, name: str, number: int, after: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        rows = self._all(name, **_span(number, after, until), keys=as_json([key.hex() for key in keys]))
        return [TriedAgain(place - (number << PLACE_BITS), key, key, from_text(group)) for place, key, group in rows]

    def events_of_key(self, number: int, after: int, until: int, key: bytes, limit: int) -> list[int]:
        rows = self._all("events_of_key", **_span(number, after, until), key=key, limit=limit)
        return [place - (number << PLACE_BITS) for (place,) in rows]

    def find_children(self, number: int, after: int, until: int, parent: bytes, limit: int) -> list[int]:
        rows = self._all("find_children", **_span(number, after, until), parent=parent, limit=limit)
        return [place - (number << PLACE_BITS) for (place,) in rows]

    def find_named(self, number: int, after: int, until: int, items: Sequence[str]) -> list[int]:
        names, parts, keys = Named.of(items)
        texts = {"names": as_json(list(map(as_text, names))), "parts": as_json(list(map(as_text, parts)))}
        rows = self._all("find_named", **_span(number, after, until), **texts, keys=as_json(keys))
        return [place - (number << PLACE_BITS) for (place,) in rows]

    def ended_keys(self, number: int, after: int, until: int) -> bytes:
        ((keys,),) = self._all("ended_keys", **_span(number, after, until))
        return keys or b""

    def kinds(self, number: int, after: int, until: int) -> Kinds:
        ((count, ended, letters, others, places),) = self._all("read_kinds", **_span(number, after, until))
        first = number << PLACE_BITS
        sequences = [place - first for place in from_json(places)]
        return Kinds(count, ended or b"", letters or "", others or b"", sequences)

    def count_groups(self, number: int, after: int, until: int) -> dict[str, int]:
        return {some_text(group): count for group, count in self._all("count_groups", **_span(number, after, until))}

    def moments(self, number: int, after: int, until: int) -> tuple[float | None, float | None]:
        ((began, ended),) = self._all("moments", **_span(number, after, until))
        return began, ended


def _span(number: int, after: int, until: int) -> dict[str, int]:
    first = number << PLACE_BITS
    return {"after": first + after, "until": first + until}


def _wanted(first: int, after: int, until: int, wanted: CallsWanted) -> dict[str, Any]:
    return {
        "after": first + after,
        "until": first + until,
        "status": wanted.status,
        "group_id": as_text(wanted.group_id),
        "actor": as_text(wanted.actor),
        "actor_in_more": None if wanted.actor is None else as_json(wanted.actor),
        "text": None if wanted.text is None else as_text(lowered(wanted.text)),
        "limit": wanted.limit,
        **wanted.bounds,
    }
