"""Windows of the calls of a run: filtered, sorted, one by one, and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from rh_agents.core.ports import RecordedEvent, Store
from rh_agents.core.ports.windows import (
    MOST,
    CallRecord,
    CallView,
    CallWindow,
    Within,
    call_of_run,
    calls_of_run,
    children_of_call,
    running_calls,
)
from rh_agents.core.types import ExecutionStatus
from rh_agents.web.json_text import shown
from rh_agents.web.shapes import usage_data
from rh_agents.web.values import value_text

__all__ = ["CSV_COLUMNS", "RUNNING", "Calls", "Wanted"]

RUNNING: Final = "running"
"""Stands for calls that have begun and have no outcome."""
CSV_COLUMNS: Final = (
    "sequence", "key", "address", "name", "actor", "kind", "status", "began_at", "ended_at", "seconds", "attempts",
    "message", "input", "group_id", "index", "input_tokens", "output_tokens", "cost", "waited",
)  # fmt: skip
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - some take wide ones too


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls, and in which order; "" stands for all of them.

    Attributes:
        status: RUNNING, or what ended calls came to; all that have begun if it is "".
        actor, group, text, order, descending, within: as in `rh_agents.core.ports.windows.CallQuery`.
    """

    status: str = ""
    actor: str = ""
    group: str = ""
    text: str = ""
    order: str = "journal"
    descending: bool = False
    within: tuple[Within, ...] = ()

    def fits(self, call: CallView) -> bool:
        """Whether a call under way is wanted."""
        is_its = not self.actor or call.actor == self.actor
        return is_its and self.text.lower() in call.address.lower() and all(each.fits(call) for each in self.within)


class Calls:
    """The calls of the runs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def window(self, run_id: str, wanted: Wanted, after: str = "") -> dict[str, Any]:
        """At most `MOST` calls that have ended, from behind those of another window; before the first of them, those
        under way. A filter that is none raises ValueError.
        """
        running: list[CallView] = []
        if wanted.status in ("", RUNNING) and not after:
            found = await running_calls(self._store, run_id, group=wanted.group or None)
            running = [call for call in found.calls if wanted.fits(call)]
        ended = CallWindow() if wanted.status == RUNNING else await self._ended(run_id, wanted, after)
        return {"calls": [_call_data(call) for call in (*running, *ended.calls)], "next": ended.next}

    async def _ended(self, run_id: str, wanted: Wanted, after: str) -> CallWindow:
        return await calls_of_run(
            self._store,
            run_id,
            status=ExecutionStatus(wanted.status) if wanted.status else None,
            actor=wanted.actor or None,
            group=wanted.group or None,
            text=wanted.text or None,
            order=wanted.order,
            descending=wanted.descending,
            after=after or None,
            n=MOST,
            within=wanted.within,
        )

    async def call(self, run_id: str, key: str) -> dict[str, Any] | None:
        """Everything that is recorded of a call but its value."""
        record = await call_of_run(self._store, run_id, key)
        return None if record is None else _record_data(record)

    async def value(self, run_id: str, key: str) -> str | None:
        """What a call came to, as typed JSON text without secrets; None if it has no outcome."""
        record = await call_of_run(self._store, run_id, key)
        if record is None or record.read is None:
            return None
        return value_text(await record.read())

    async def children(self, run_id: str, key: str, after: str = "") -> dict[str, Any]:
        """The calls that a call made and that have ended."""
        window = await children_of_call(self._store, run_id, key, after or None)
        return {"calls": [_call_data(call) for call in window.calls], "next": window.next}

    async def csv(self, run_id: str, wanted: Wanted) -> AsyncIterator[str]:
        """The calls that fit as lines of CSV, the names of the columns first."""
        window = await self.window(run_id, wanted)
        yield _csv_line(CSV_COLUMNS)
        while True:
            for call in window["calls"]:
                found = {**call, **call["usage"]}
                yield _csv_line([shown(found.get(name)) for name in CSV_COLUMNS])
            if window["next"] is None:
                return
            window = await self.window(run_id, wanted, window["next"])


def _csv_line(values: Iterable[Any]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(map(_cell, values))
    return out.getvalue()


def _cell(value: Any) -> Any:
    """What a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _call_data(call: CallView) -> dict[str, Any]:
    return {
        "sequence": call.sequence,
        "key": call.key,
        "address": call.address,
        "name": call.name,
        "actor": call.actor,
        "kind": call.kind.value,
        "status": call.status.value,
        "began_at": call.began_at,
        "ended_at": call.ended_at,
        "seconds": call.seconds,
        "waited": call.waited,
        "attempts": call.attempts,
        "message": call.damage or call.message,
        "group_id": call.group_id,
        "index": call.index,
        "from_cache": call.from_cache,
        "usage": usage_data(call.usage),
        "input": call.input,
        "replaces": None if call.replaces is None else call.replaces._asdict(),
        "is_damaged": call.damage is not None,
    }


def _record_data(record: CallRecord) -> dict[str, Any]:
    actor = record.events[-1].event.actor if record.events else None
    return {
        "call": _call_data(record.call) | {"version": "" if actor is None else actor.recorded_version},
        "why": record.why,
        "attempts": [each._asdict() | {"usage": usage_data(each.usage)} for each in record.attempts],
        "events": [_event_data(each) for each in record.events],
        "parents": [each._asdict() for each in record.parents],
        "tries": [each._asdict() for each in record.tries],
        "has_value": record.read is not None,
    }


def _event_data(recorded: RecordedEvent) -> dict[str, Any]:
    event = recorded.event
    return {
        "sequence": recorded.sequence,
        "at": event.timestamp,
        "status": event.execution_status.value,
        "attempt": event.attempt,
        "message": event.message,
        "tag": event.tag,
        "metadata": json.dumps(event.metadata) if event.metadata else "",
    }
