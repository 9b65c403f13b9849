"""Lists of runs: found and counted by the database, a window at a time.

Who executes a run is not for a query to say: an owner may be dead, which only this machine or a lease tells. So the
database finds what may be wanted by what stands in the rows, and those that have an owner, which are few, are judged
here.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Final

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunInfo, RunStatus
from rh_agents.core.ports.windows import RunQuery, RunWindow
from rh_agents.stores._backend.rows import RunRow, RunsWanted
from rh_agents.stores._engine import Engine
from rh_agents.stores._ownership import is_held
from rh_agents.stores._parts import Steps
from rh_agents.stores._verified import VerifiedSession

__all__ = ["RunLister", "info_of"]

_CHUNK: Final = 1000
"""Runs that are read at a time where few of them may be wanted."""

_UNUSUAL: Final = re.compile("[\0\\\\\ud800-\udfff\ufdd0]")
"""Characters that one of the databases cannot hold, or uses to write those that it cannot hold."""

Listed = list[tuple[RunRow, StoreError | None]]


def info_of(row: RunRow, now: float) -> RunInfo:
    """A run as others see it: one whose owner is dead has none."""
    return row.info if is_held(row, now) else dataclasses.replace(row.info, owner=None)


class RunLister:
    """Finds runs.

    Args:
        engine: where they are.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def every(self, wanted: RunsWanted, before: str | None) -> list[RunInfo]:
        """See `rh_agents.core.ports.Store.runs`."""
        return self._infos(await self._read(wanted._replace(behind=await self._number_of(before))))

    async def window(self, query: RunQuery) -> RunWindow:
        """See `rh_agents.core.ports.windows.list_runs`."""
        wanted = _wanted(query)._replace(limit=query.n + 1, behind=await self._number_of(query.before))
        found: list[RunInfo] = []
        while True:
            rows = await self._read(wanted)
            found += self._fitting(query, rows)
            if len(found) > query.n or len(rows) < (wanted.limit or 0):
                break
            wanted = wanted._replace(behind=rows[-1][0].number, limit=_CHUNK)
        shown = tuple(found[: query.n])
        return RunWindow(shown, shown[-1].run_id if len(found) > query.n else None)

    async def count(self, query: RunQuery) -> int:
        """See `rh_agents.core.ports.windows.count_runs`."""
        wanted = _wanted(query)._replace(behind=await self._number_of(query.before))
        # Which rows are damaged is found by comparing the checksums of all; and what databases write in another way is
        # not always found where it is.
        if RunStatus.DAMAGED in query.status or _UNUSUAL.search(query.text):
            return await self._engine.read_in_steps(self._count_each(query, wanted))
        count = await self._engine.read(lambda session: session.inner.count_runs(wanted._replace(owned=False)))
        return count + await self._engine.read_in_steps(self._count_each(query, wanted._replace(owned=True)))

    def _count_each(self, query: RunQuery, wanted: RunsWanted) -> Steps[int]:
        count, rows = 0, _CHUNK
        while rows == _CHUNK:
            session = yield
            found = session.listed(wanted._replace(limit=_CHUNK))
            count += len(self._fitting(query, found))
            rows = len(found)
            wanted = wanted._replace(behind=found[-1][0].number if found else None)
        return count

    async def tags(self) -> set[str]:
        """See `rh_agents.core.ports.windows.tags_of_runs`."""
        return await self._engine.read(lambda session: session.inner.tags_of_runs())

    async def _number_of(self, before: str | None) -> int | None:
        if before is None:
            return None
        number = await self._engine.read(lambda session: session.number_of(before))
        if number is None:
            raise self._engine.no_run(before)
        return number

    async def _read(self, wanted: RunsWanted) -> Listed:
        return await self._engine.read(partial(_listed, wanted))

    def _fitting(self, query: RunQuery, rows: Listed) -> list[RunInfo]:
        if query.status == (RunStatus.DAMAGED,):  # nearly none of very many
            rows = [(row, damage) for row, damage in rows if damage is not None]
        return list(filter(query.fits, self._infos(rows)))

    def _infos(self, rows: Listed) -> list[RunInfo]:
        now = self._engine.clock()
        return [
            info_of(row, now) if damage is None else RunInfo(str(row.run_id), damage=str(damage))
            for row, damage in rows
        ]


def _listed(wanted: RunsWanted, session: VerifiedSession) -> Listed:
    return session.listed(wanted)


def _wanted(query: RunQuery) -> RunsWanted:
    is_any = not query.status or RunStatus.DAMAGED in query.status
    return RunsWanted(
        tag=query.tag,
        updated_before=query.updated_before,
        kinds=None if is_any else tuple(each.value for each in query.status),
        text=query.text or None,
        updated_since=query.updated_since,
        forks_of=query.forks_of or None,
    )
