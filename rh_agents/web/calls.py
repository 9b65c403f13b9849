"""Windows of the calls of a run: filtered, sorted, one by one, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports import RecordedEvent, Store
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.values import encode_any, encode_error, shown_value
from rh_agents.web.json_text import shown
from rh_agents.web.shapes import usage_data

__all__ = ["CSV_COLUMNS", "Calls"]

CSV_COLUMNS: Final = (
    "sequence", "key", "address", "name", "actor", "kind", "status", "began_at", "ended_at", "seconds", "attempts",
    "message", "group_id", "index", "tokens", "cost",
)  # fmt: skip
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
_MOST: Final = 200


class Calls:
    """The calls of the runs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def window(
        self,
        run_id: str,
        *,
        status: str = "",
        actor: str = "",
        group: str = "",
        text: str = "",
        order: str = "journal",
        descending: bool = False,
        after: str = "",
    ) -> dict[str, Any]:
        """At most `_MOST` calls that fit, in an order, from behind the last one of another window."""
        rows = [row async for row in self._rows(run_id) if _fits(row, status, actor, group, text)]
        if order != "journal":
            rows.sort(key=lambda row: row[order] or 0, reverse=descending)
        elif descending:
            rows.reverse()
        first = int(after or 0)
        return {"calls": rows[first : first + _MOST], "next": str(first + _MOST) if first + _MOST < len(rows) else None}

    async def _rows(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        calls: dict[str, dict[str, Any]] = {}
        async for recorded in self._store.events(run_id, values=False):
            event = recorded.event
            if event.key is not None:
                row = calls.setdefault(event.key, {"began_at": event.timestamp})
                if "ended_at" not in row or row["ended_at"] is None:
                    row.update(_row(recorded))
        for row in calls.values():
            yield row

    async def call(self, run_id: str, key: str) -> dict[str, Any] | None:
        """Everything that is recorded of a call but its value."""
        events: list[dict[str, Any]] = []
        row: dict[str, Any] | None = None
        async for recorded in self._store.events(run_id, values=False):
            event = recorded.event
            if event.key != key:
                continue
            events.append(_event(recorded))
            if row is None:
                row = {"began_at": event.timestamp, "ended_at": None}
            if row["ended_at"] is None:
                row.update(_row(recorded))
        if row is None:
            return None
        async for outcome in self._store.unread_outcomes(run_id):
            if outcome.header.key.hex() == key:
                row["parent"] = outcome.header.parent.hex() or None
                row["base"] = outcome.header.base.hex()
                row["made_in"] = outcome.header.made_in
        return {"call": row, "events": events}

    async def value(self, run_id: str, key: str) -> str | None:
        """What a call came to, as typed JSON text without secrets; None if it has no outcome."""
        async for outcome in self._store.unread_outcomes(run_id):
            if outcome.header.key.hex() == key:
                found = outcome.read(unknown_ok=True)
                data = encode_any(found.value) if found.error is None else encode_error(found.error)
                return shown_value(data)
        return None

    async def children(self, run_id: str, key: str, first: int = 0, n: int = _MOST) -> dict[str, Any]:
        """The calls that a call made."""
        row = await self.call(run_id, key)
        base = key if row is None else row["call"].get("base", key)
        keys = {
            outcome.header.key.hex()
            async for outcome in self._store.unread_outcomes(run_id)
            if outcome.header.parent.hex() == base
        }
        rows = [each async for each in self._rows(run_id) if each["key"] in keys]
        return {"calls": rows[first : first + n], "total": len(rows), "first": first}

    async def csv(self, run_id: str, **wanted: Any) -> AsyncIterator[str]:
        """The calls that fit as lines of CSV, the names of the columns first."""
        yield _csv_line(CSV_COLUMNS)
        after: str | None = ""
        while after is not None:
            window = await self.window(run_id, **wanted, after=after)
            for row in window["calls"]:
                used = row["usage"]
                values = {
                    **row,
                    "tokens": used.get("input_tokens", 0) + used.get("output_tokens", 0),
                    "cost": used.get("cost"),
                }
                yield _csv_line([shown(values.get(name)) for name in CSV_COLUMNS])
            after = window["next"]


def _csv_line(values: Iterable[Any]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(map(_cell, values))
    return out.getvalue()


def _cell(value: Any) -> Any:
    """What a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _fits(row: Mapping[str, Any], status: str, actor: str, group: str, text: str) -> bool:
    return (
        (not status or row["status"] in status.split(","))
        and (not actor or row["actor"] == actor)
        and (not group or row["group_id"] == group)
        and (not text or text.lower() in f"{row['address']} {row['name']} {row['message'] or ''}".lower())
    )


def _row(recorded: RecordedEvent) -> dict[str, Any]:
    event = recorded.event
    return {
        "sequence": recorded.sequence,
        "key": event.key,
        "address": event.address,
        "name": event.name,
        "actor": event.actor.name,
        "version": event.actor.recorded_version,
        "kind": event.event_type.value,
        "status": event.execution_status.value,
        "ended_at": event.timestamp if recorded.has_outcome else None,
        "seconds": event.execution_time,
        "attempts": event.attempt,
        "message": event.message,
        "group_id": event.group_id,
        "index": event.parallel_index,
        "from_cache": event.from_cache,
        "usage": usage_data(event.usage),
        "cost": event.usage.cost if event.usage else 0.0,
    }


def _event(recorded: RecordedEvent) -> dict[str, Any]:
    event: ExecutionEvent[Any] = recorded.event
    return {
        "sequence": recorded.sequence,
        "at": event.timestamp,
        "status": event.execution_status.value,
        "attempt": event.attempt,
        "seconds": event.execution_time,
        "delay": event.retry_delay,
        "message": event.message,
        "usage": usage_data(event.usage),
        "is_final": recorded.has_outcome and event.execution_status is not ExecutionStatus.SUPERSEDED,
    }
