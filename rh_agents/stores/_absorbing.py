"""Letting the journal of a run have what its child runs have recorded, while nobody executes it or one of them.

Its next owner would do that first. Who changes the run before (makes calls of it again, erases it) does it now, so that
what is changed is all that there is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

from rh_agents.core.policies.child_runs import about_child
from rh_agents.stores._backend import WriteSession
from rh_agents.stores._backend.rows import Batch, RunRow
from rh_agents.stores._children import taken_over_up_to
from rh_agents.stores._copying import Copying, Part
from rh_agents.stores._engine import Engine
from rh_agents.stores._folding import fold
from rh_agents.stores._ownership import taken
from rh_agents.stores._verified import VerifiedSession

__all__ = ["absorbed"]


async def absorbed(engine: Engine, run: RunRow, children: Sequence[RunRow]) -> RunRow:
    """The run as it is when it has what its child runs have, which are deleted.

    Args:
        engine: where they are.
        run: the run, which we hold.
        children: all of its child runs, which we hold as well.

    Raises:
        LeaseLost: somebody else has the run now.
        StoreError: a row is damaged, or the store failed. What has been written till then stays.
    """
    if not children:
        return run
    recorded = await engine.read(lambda session: fold(session, run))
    copying = Copying(recorded.finished, run.last_sequence, is_marked=True)
    for child in children:
        for part in await engine.read(partial(_parts, copying, run, child)):
            run = await _written(engine, run, part)
        if not await engine.writer.done(partial(_delete, child)):
            raise taken(child)
    return run


def _delete(run: RunRow, session: WriteSession) -> bool:
    return session.delete(run.number, run.fence)


def _parts(copying: Copying, run: RunRow, child: RunRow, session: VerifiedSession) -> list[Part]:
    """What a child run has beside what its parent has."""
    about = about_child(child.facts)
    if about is None:
        return []
    after = max(about.given, taken_over_up_to(session, run, child.run_id))
    return list(copying.journal(session, child, after, about))


async def _written(engine: Engine, run: RunRow, part: Part) -> RunRow:
    events, outcomes = part
    if not events:
        return run
    batch, now = Batch(run.number, run.fence, run.last_sequence, events, outcomes), engine.clock()
    (state,) = await engine.writer.done(lambda session: session.write([batch], now))
    if not state.is_ours:
        raise taken(run)
    return dataclasses.replace(
        run, last_sequence=run.last_sequence + len(events), outcomes=run.outcomes + len(outcomes)
    )
