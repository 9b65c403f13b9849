"""Deleting a run, a part at a time: a journal may have millions of rows, and no one is to wait until all are gone.

A transaction that deletes a million rows takes minutes. Meanwhile whoever writes to the same file waits, a server
cannot remove earlier versions of rows of any table, and a run of this very process gets no sign of life. So the
journal is shortened from its end, a part in each transaction, which is as large as about 25 ms allow, so that hardly
one takes 100 on a busy machine: rows differ in size, and machines in speed. Whoever is killed in between leaves a run
whose journal is whole but shorter than it was. Nobody must go on with that, so before the first part the run gets the
fact that its values are being erased (see `_erasing`), and so do its child runs: it is refused with a sentence, and
deleting it once more comes to the end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from rh_agents.core.ports.keeping import facts_when_erased
from rh_agents.stores._backend import WriteSession
from rh_agents.stores._backend.rows import RunRow
from rh_agents.stores._children import held_of
from rh_agents.stores._engine import Engine
from rh_agents.stores._ownership import taken

__all__ = ["FIRST", "LARGEST", "Pace", "delete", "delete_expired"]

FIRST: Final = 100
"""Rows that the first transaction deletes; a run that has no more than that goes in one."""
LARGEST: Final = 2_500
"""Rows that any transaction deletes at most."""
_LEAST: Final = 10
_AIM: Final = 0.025
"""Seconds that a transaction is to take."""


class Pace:
    """How many rows the next transaction deletes: as many as took 25 ms, but at most twice as many as the last one."""

    def __init__(self) -> None:
        self.rows: int = FIRST
        self.rest: float = 0.0
        """Seconds before the next one: as long as the last one took. Other processes may wait for the lock of a file,
        and who asks for it again at once has it again."""

    def took(self, rows: int, seconds: float) -> None:
        """So many rows were deleted in so many seconds."""
        self.rest = seconds
        fitting = rows * _AIM / max(seconds, 1e-6)
        self.rows = int(max(_LEAST, min(fitting, 2 * self.rows, LARGEST)))


async def delete(engine: Engine, run: RunRow, children: Sequence[RunRow]) -> None:
    """Delete a run that we hold, with its child runs, which we hold too.

    Raises:
        LeaseLost: somebody else has taken one of them over.
        StoreError: it cannot be done now. What is left is deleted when that is asked for once more.
    """
    every = [run, *children]
    is_long = sum(each.last_sequence for each in every) > FIRST
    if is_long:
        for each in every:
            facts = facts_when_erased(each.facts, engine.clock(), is_finished=False)
            marked = dataclasses.replace(each, facts=facts, input=None, reason=None)
            if not await engine.writer.done(partial(_strip, marked)):
                raise taken(each)
        pace = Pace()
        for each in every:
            last, before = each.last_sequence, None
            while last > 0:
                part, last = min(pace.rows, last), max(0, last - pace.rows)
                if not await engine.writer.done(partial(_shorten, each, last, before, part, pace)):
                    raise taken(each)
                before = last
                await asyncio.sleep(pace.rest)
    held = held_of(children)
    if not await engine.writer.done(lambda session: session.delete(run.number, run.fence, held, is_empty=is_long)):
        raise taken(run)


def _strip(marked: RunRow, session: WriteSession) -> bool:
    return session.strip(marked)


def _shorten(run: RunRow, last: int, before: int | None, rows: int, pace: Pace, session: WriteSession) -> bool:
    began = time.monotonic()
    is_held = session.shorten(run.number, run.fence, last, before)
    pace.took(rows, time.monotonic() - began)
    return is_held


async def delete_expired(engine: Engine) -> None:
    """Delete what has expired in the cache, a part at a time."""
    now, pace = engine.clock(), Pace()

    def delete_some(session: WriteSession) -> bool:
        began, rows = time.monotonic(), pace.rows
        deleted = session.delete_expired(now, rows)
        pace.took(rows, time.monotonic() - began)
        return deleted >= rows

    while await engine.writer.done(delete_some):  # noqa: ASYNC110 - it waits for nothing, but lets others write
        await asyncio.sleep(pace.rest)
