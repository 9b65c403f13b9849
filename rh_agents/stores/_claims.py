"""How a store gets hold of runs: to execute them, or for a moment while something in them is changed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunRequest
from rh_agents.core.ports.keeping import expect_values
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend import ENDED, LeaseState, RunRow
from rh_agents.stores._engine import Engine, releasing
from rh_agents.stores._owner import Process
from rh_agents.stores._ownership import is_dead, is_fresh, live, own_runs
from rh_agents.stores._writer import result_of

T = TypeVar("T")


class Claims:
    """Gets hold of the runs of a database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def claim(self, request: RunRequest, process: Process) -> tuple[RunRow, RunRow]:
        """Get hold of a run; returns its row as it was, and as it is now."""
        while True:
            before = await self._engine.read(lambda session: session.find_run(request.run_id))
            if before is None:
                before = RunRow(0, request.run_id, ExecutionStatus.PENDING, created_at=self._engine.clock())
                row = await self._created(self._opened(before, request, process))
            else:
                await self.expect_free(before)
                expect_values(before.info, "resumed")
                row = await self.replaced(before, self._opened(before, request, process))
            if row is not None:
                return before, row

    def _opened(self, before: RunRow, request: RunRequest, process: Process) -> RunRow:
        now = self._engine.clock()
        return dataclasses.replace(
            before,
            status=ExecutionStatus.STARTED.value,
            epoch=before.epoch + (before.status in ENDED),
            workflow=request.workflow or before.workflow,
            input=before.input if request.input is None else request.input,
            input_digest=request.input_digest or before.input_digest,
            tags=tuple(request.tags) or before.tags,
            facts=dict(request.facts) or before.facts,
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

    async def _claimed(self, future: Future[T]) -> T:
        """Whether a run is ours now. Whoever stops waiting for the answer does not keep it."""
        try:
            return await result_of(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._give_back)
            raise

    def _give_back(self, future: Future[Any]) -> None:
        if future.exception() is None and isinstance(row := future.result(), RunRow):
            self.release_later(row)

    def release_later(self, row: RunRow) -> None:
        """Let go of a run without waiting for it."""
        with suppress(StoreError):
            self._engine.writer.do(releasing(row.number, row.fence))

    async def _created(self, new: RunRow) -> RunRow | None:
        return await self._claimed(self._engine.writer.do(lambda session: session.create(new)))

    async def replaced(self, expected: RunRow, new: RunRow) -> RunRow | None:
        """The row of a run as it is now; None if somebody else has changed who holds it."""
        return await self._claimed(
            self._engine.writer.do(lambda session: new if session.replace(expected, new) else None)
        )

    async def expect_free(self, row: RunRow) -> None:
        """Wait until it is certain that nobody executes a run, if that is likely.

        Raises:
            RunIsLive: somebody does, or has begun to meanwhile.
        """
        if row.owner is None or is_dead(row):
            return
        if is_fresh(row, self._engine.clock()):
            raise live(row)
        # The owner has been silent for longer than its lease, its clock compared with ours. They may differ, so that
        # this alone proves nothing: it has to be silent for as long by ours.
        loop = asyncio.get_running_loop()
        end = loop.time() + row.lease
        while loop.time() < end:
            await asyncio.sleep(min(max(row.lease / 10, 0.01), 1.0))
            now = await self._engine.read(lambda session: session.find_run(row.run_id))
            if now is None or now.owner is None:
                return
            if (now.number, now.fence, now.heartbeat) != (row.number, row.fence, row.heartbeat):
                raise live(now)

    @asynccontextmanager
    async def held(self, run_id: str, owner: str) -> AsyncIterator[RunRow]:
        """Keep a run for a moment, so that nobody opens it; its row as it is now.

        Raises:
            RunIsLive: somebody executes it.
        """
        opening = Opening(asyncio.get_running_loop())
        while True:
            row = await self._engine.run(run_id)
            await self.expect_free(row)
            mine = dataclasses.replace(
                row,
                owner=owner,
                process=opening.process.text,
                fence=row.fence + 1,
                heartbeat=row.heartbeat + 1,
                heartbeat_at=self._engine.clock(),
            )
            if await self.replaced(row, mine):
                break
        opening.is_of(mine)
        self._engine.writer.hold(opening)
        try:
            yield mine
        finally:
            self._engine.writer.drop(mine.number, mine.fence)
            await self._engine.release(mine.number, mine.fence)


class Opening:
    """Holds a run while it is being opened, or changed from outside."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.process = Process.here()
        self.loop = loop
        self.number = self.fence = 0
        self.lease = 0.0
        own_runs[self.process.opening] = self

    def is_of(self, row: RunRow) -> None:
        self.number, self.fence, self.lease = row.number, row.fence, row.lease

    def look_at_run(self) -> None:
        """It does nothing yet."""

    def lease_changed(self, state: LeaseState) -> None:
        """It will be seen when something is written."""
