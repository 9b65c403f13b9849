"""The names of the groups of a run, their sizes and what they are in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rh_agents.core.ports import Store
from rh_agents.core.ports.outline import outline_of_run
from rh_agents.core.ports.summary import RunSummary

__all__ = ["GroupTable"]


class GroupTable:
    """Groups by their ids, in the order in which they began; looked for again when a summary has others."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._known: dict[str, dict[str, Any]] = {}
        self._is_final = False

    def forget(self) -> None:
        """Begin anew."""
        self._known = {}

    async def of(self, summary: RunSummary) -> Mapping[str, Mapping[str, Any]]:
        """What is known of all groups that a summary has."""
        if not summary.groups.keys() <= self._known.keys():
            await self._read()
        return self._known

    async def _read(self) -> None:
        outline = await outline_of_run(self._store, self._run_id)
        async for event in outline.read(False):
            found = event.recorded.event
            group = found.group
            if group is not None:
                self._known[group.group_id] = {
                    "id": group.group_id,
                    "name": group.name,
                    "address": group.address,
                    "parent": group.parent_group_id,
                    "total": group.total,
                    "status": group.status.value,
                    "began_at": self._known.get(group.group_id, {}).get("began_at", found.timestamp),
                    "seconds": group.elapsed if group.is_complete else None,
                    "ending": None if group.ending is None else group.ending.cause.value,
                }
            elif found.group_id in self._known and found.group_total is not None:
                self._known[found.group_id]["total"] = found.group_total
