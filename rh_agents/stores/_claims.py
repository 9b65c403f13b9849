"""How a store gets hold of runs: to execute them, or for a moment while something in them is changed."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

from rh_agents.core._base.executions import closed, executions_in, opened_again, with_executions
from rh_agents.core._loops.sleeping import since_boot
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunRequest
from rh_agents.core.ports.keeping import expect_values
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend.rows import ENDED, LeaseState, RunRow
from rh_agents.stores._engine import Engine, releasing
from rh_agents.stores._owner import Process
from rh_agents.stores._ownership import is_dead, is_fresh, live_row, own_runs
from rh_agents.stores._verified import VerifiedSession
from rh_agents.stores._writer import result_of

T = TypeVar("T")
Sign = tuple[int, int, int]
_MOST_WATCHED: Final = 1_000
"""Owners whose last signs of life are remembered; those that were asked for longest ago are forgotten."""


class Claims:
    """Gets hold of the runs of a database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._last_signs: dict[str, tuple[Sign, float]] = {}
        """Of runs that were asked for and have an owner: its last sign of life, and since when that is seen here."""

    async def claim(self, request: RunRequest, process: Process) -> tuple[RunRow, RunRow]:
        """Get hold of a run; returns its row as it was, and as it is now."""
        while True:
            before = await self._engine.read(lambda session: session.find_run(request.run_id))
            if before is None:
                before = RunRow(0, request.run_id, ExecutionStatus.PENDING, created_at=self._engine.clock())
                row = await self._created(self.opened(before, request, process))
            else:
                await self.expect_free(before)
                expect_values(before.info, "resumed")
                row = await self.replaced(before, self.opened(before, request, process))
            if row is not None:
                return before, row

    def opened(self, before: RunRow, request: RunRequest, process: Process) -> RunRow:
        """The row of a run when it has been opened."""
        now, epoch = self._engine.clock(), before.epoch + (before.status in ENDED)
        known, events, seen_at = executions_in(before.facts), before.last_sequence, seen_last(before)
        return dataclasses.replace(
            before,
            status=ExecutionStatus.STARTED.value,
            epoch=epoch,
            workflow=request.workflow or before.workflow,
            input=before.input if request.input is None else request.input,
            input_digest=request.input_digest or before.input_digest,
            tags=tuple(request.tags) or before.tags,
            facts=with_executions(
                request.facts or before.facts, opened_again(known, before.created_at, seen_at, events, now, epoch)
            ),
            updated_at=now,
            ended_at=None,
            owner=request.owner,
            process=process.text,
            fence=before.fence + 1,
            heartbeat=before.heartbeat + 1,
            heartbeat_at=now,
            lease=request.lease,
            reason=None,
            stop_requested=None,
        )

    async def claimed(self, future: Future[T]) -> T:
        """Whether a run is ours now. Whoever stops waiting for the answer does not keep it."""
        try:
            return await result_of(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._give_back)
            raise

    def _give_back(self, future: Future[Any]) -> None:
        if future.exception() is not None:
            return
        found = future.result()
        row = found[1] if isinstance(found, tuple) else found  # with what it was before, or alone
        if isinstance(row, RunRow):
            self.release_later(row)

    def release_later(self, row: RunRow) -> None:
        """Let go of a run without waiting for it."""
        with suppress(StoreError):
            self._engine.writer.do(releasing(row.number, row.fence))

    async def _created(self, new: RunRow) -> RunRow | None:
        return await self.claimed(self._engine.writer.do(lambda session: session.create(new)))

    async def replaced(self, expected: RunRow, new: RunRow) -> RunRow | None:
        """The row of a run as it is now; None if somebody else has changed who holds it."""
        return await self.claimed(
            self._engine.writer.do(lambda session: new if session.replace(expected, new) else None)
        )

    async def expect_free(self, row: RunRow) -> None:
        """Wait until it is certain that nobody executes a run, if that is likely.

        Who asks again and again waits for one lease in all, counted from the first time.

        Raises:
            RunIsLive: somebody does, or has begun to meanwhile.
        """
        if row.owner is None or is_dead(row):
            self._last_signs.pop(row.run_id, None)
            return
        end = self._seen_since(row) + row.lease
        if time.monotonic() < end and is_fresh(row, self._engine.clock()):
            raise live_row(row)
        # The owner has been silent for longer than its lease, its clock compared with ours. They may differ, so that
        # this alone proves nothing: it has to be silent for as long by ours.
        while time.monotonic() < end:
            await asyncio.sleep(min(max(row.lease / 10, 0.01), 1.0))
            now = await self._engine.read(lambda session: session.find_run(row.run_id))
            if now is None or now.owner is None:
                return
            if (now.number, now.fence, now.heartbeat) != (row.number, row.fence, row.heartbeat):
                raise live_row(now)

    def _seen_since(self, row: RunRow) -> float:
        """Since when by the monotonic clock the owner of a run has given no further sign of life."""
        sign, now = (row.number, row.fence, row.heartbeat), time.monotonic()
        known = self._last_signs.pop(row.run_id, None)
        since = now if known is None or known[0] != sign else known[1]
        self._last_signs[row.run_id] = (sign, since)
        while len(self._last_signs) > _MOST_WATCHED:
            del self._last_signs[next(iter(self._last_signs))]
        return since

    @asynccontextmanager
    async def held(self, run_id: str, owner: str) -> AsyncIterator[RunRow]:
        """Keep a run for a moment, so that nobody opens it; its row as it is now.

        Raises:
            RunIsLive: somebody executes it.
        """
        async with self._held(await self._engine.run(run_id), owner) as row:
            yield row

    @asynccontextmanager
    async def held_with_children(self, run_id: str, owner: str) -> AsyncIterator[tuple[RunRow, list[RunRow]]]:
        """The same with its child runs, of which there come no more meanwhile. Dead owners are waited for together.

        Raises:
            RunIsLive: somebody executes it, or one of them.
        """
        async with AsyncExitStack() as held:
            row = await held.enter_async_context(self._held(await self._engine.run(run_id), owner))
            children = await self._engine.read(partial(_children, row))
            await asyncio.gather(*map(self.expect_free, children))
            yield row, [await held.enter_async_context(self._held(child, owner, is_free=True)) for child in children]

    @asynccontextmanager
    async def _held(self, row: RunRow, owner: str, *, is_free: bool = False) -> AsyncIterator[RunRow]:
        """Keep a run; `is_free` is given if it has been seen that nobody executes it as it is in this row."""
        opening = Opening(asyncio.get_running_loop())
        while True:
            if not is_free:
                await self.expect_free(row)
            mine = dataclasses.replace(
                row,
                facts=facts_when_left(row),
                owner=owner,
                process=opening.process.text,
                fence=row.fence + 1,
                heartbeat=row.heartbeat + 1,
                heartbeat_at=self._engine.clock(),
            )
            if await self.replaced(row, mine):
                break
            row, is_free = await self._engine.run(row.run_id), False
        opening.is_of(mine)
        self._engine.writer.hold(opening, opening.since)
        try:
            yield mine
        finally:
            self._engine.writer.drop(mine.number, mine.fence)
            await self._engine.release(mine.number, mine.fence)


def _children(run: RunRow, session: VerifiedSession) -> list[RunRow]:
    found = [session.find_run(each.run_id) for each in session.children(run.number)]
    return [row for row in found if row is not None]


def seen_last(row: RunRow) -> float:
    """When who holds a run, or held it last, gave a sign of life."""
    return max(row.updated_at, row.heartbeat_at)


def facts_when_left(row: RunRow) -> dict[str, str]:
    """The facts of a run that changes though no process executes it: the last execution ended before that."""
    return with_executions(row.facts, closed(executions_in(row.facts), seen_last(row)))


class Opening:
    """Holds a run while it is being opened, or changed from outside."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.process = Process.here()
        self.loop = loop
        self.number = self.fence = 0
        self.lease = 0.0
        self.since = since_boot()  # before it is claimed
        own_runs[self.process.opening] = self

    def is_of(self, row: RunRow) -> None:
        self.number, self.fence, self.lease = row.number, row.fence, row.lease

    def look_at_run(self) -> None:
        """It does nothing yet."""

    def lease_changed(self, state: LeaseState) -> None:
        """It will be seen when something is written."""
