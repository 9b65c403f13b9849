"""Summaries of runs: computed by the database, a part of the journal at a time, and continued from the last event."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from rh_agents.core.ports.summary import RunSummary, summary_of_replaced, total_of
from rh_agents.stores._backend.rows import RunRow
from rh_agents.stores._calls import Known
from rh_agents.stores._engine import Engine
from rh_agents.stores._finding import CallFinder
from rh_agents.stores._parts import PART, parts
from rh_agents.stores._summing import part_of
from rh_agents.stores._verified import VerifiedSession


class Totals:
    """Summaries of runs.

    Args:
        engine: where the runs are.
        finder: knows what was made again in them.
    """

    def __init__(self, engine: Engine, finder: CallFinder) -> None:
        self._engine = engine
        self._finder = finder

    async def of(self, run: RunRow, after: int, until: int | None) -> RunSummary:
        """See `rh_agents.core.ports.summary.summary_of_run`."""
        until = max(after, run.last_sequence if until is None else min(until, run.last_sequence))
        known = await self._finder.known_of(run)
        stamp = (run.fence, dict(run.facts))  # another one if what it was about has been erased
        if after or not until:
            return await self._counted(known, run, after, until)
        if known.total is not None and known.total[0] == stamp and known.total[1].until <= until:
            before = known.total[1]
            if before.until < until:
                before = before.merge(await self._counted(known, run, before.until, until))
        else:
            before = await self._counted(known, run, 0, until)
        known.total = (stamp, before)
        return before

    async def _counted(self, known: Known, run: RunRow, after: int, until: int) -> RunSummary:
        await self._finder.compare_keys(known, run, until)
        repeated = sorted(known.ended.repeated)
        works = (
            partial(_part, run, low, high, [sequence for sequence in repeated if low < sequence <= high])
            for low, high in parts(after, until)
        )
        async with aclosing(self._engine.read_each(works)) as counting:
            counted = [RunSummary(after, after), *[part async for part in counting]]
        counted.append(await self._replaced(known, run, after, until))
        if until - after > PART:
            await self._engine.expect_unchanged(run)
        return total_of(counted)

    async def _replaced(self, known: Known, run: RunRow, after: int, until: int) -> RunSummary:
        await self._finder.find_first_tries(known, run, known.tries.all_unknown())
        sequences = known.tries.replaced_between(after, until)
        views = await self._finder.views_at(known, run, sequences, all_of_them=True)
        return summary_of_replaced(
            until, until, [(view.actor, view.status, view.group_id, view.message) for view in views]
        )


def _part(run: RunRow, after: int, until: int, later: list[int], session: VerifiedSession) -> RunSummary:
    return part_of(session, run, after, until, later)
