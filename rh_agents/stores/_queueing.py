"""Runs that wait in a database for a worker, and how one of them is taken (see `rh_agents.core.queueing`)."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Collection
from functools import partial
from typing import Final

from rh_agents.core.ports import Clock, RunInfo, RunRequest
from rh_agents.core.ports.keeping import erasure_of
from rh_agents.core.queueing import HeldRun, QueueLook, Submission, Wanted, expect_same_run
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores._backend import Backend
from rh_agents.stores._backend.rows import ENDED, NextWanted, RunRow
from rh_agents.stores._claims import Claims, Opening, facts_when_left
from rh_agents.stores._ownership import is_gone, is_held
from rh_agents.stores._queues import at_once
from rh_agents.stores._reading import ReadableStore
from rh_agents.stores._verified import VerifiedSession

__all__ = ["QueueingStore"]

_LOOK_EVERY: Final = 0.1
"""Seconds between two looks for news, which ask nothing of a server."""


class QueueingStore(ReadableStore):
    """A store of which workers take runs."""

    def __init__(self, backend: Backend, *, clock: Clock = time.time) -> None:
        super().__init__(backend, clock=clock)
        self._claims = Claims(self.engine)
        self._claimed: dict[str, tuple[Opening, RunRow, RunRow]] = {}
        """Runs that were taken for a worker and have not been opened: their rows as they were, and as they are now."""
        self._news: VerifiedSession | None = None

    async def submit(self, submission: Submission) -> RunInfo:
        """Add a run that waits for a worker; one that is there is returned."""
        await self._get_ready()
        while True:
            found = await self.engine.read(lambda session: session.find_run(submission.run_id))
            if found is not None:
                expect_same_run(found.info, submission)
                return self._info(found)
            new = _new_row(submission, self.engine.clock())
            row = await self.engine.writer.done(lambda session, new=new: session.create(new))  # type: ignore[misc]
            if row is not None:
                return self._info(row)

    async def look_at_queue(self, queue: str, without: Collection[str] = ()) -> QueueLook:
        """What there is to do in a queue, but for what needs some flows."""
        await self._get_ready()
        now, left_out = self.engine.clock(), list(without)
        flows, rows = await self.engine.read(lambda session: session.look_at_queue(queue, now, left_out))
        held = [
            HeldRun(
                each.run_id, each.flow, (each.number, each.fence, each.heartbeat), each.lease, is_gone(each.process)
            )
            for each in rows
        ]
        return QueueLook(tuple(flows), tuple(held))

    async def claim_next(self, wanted: Wanted) -> RunInfo | None:
        """Become the owner of the next run of a queue; None if there is none."""
        await self._get_ready()
        opening = Opening(asyncio.get_running_loop())
        now = self.engine.clock()
        take = partial(self._taken, wanted, opening, now)
        which = NextWanted(wanted.queue, tuple(wanted.flows), tuple(wanted.silent))
        claiming = self.engine.writer.do(lambda session: session.claim(which, take, now))
        found = await self._claims.claimed(claiming)
        if found is None:
            return None
        before, row = found
        if row.owner is None:
            return row.info
        opening.is_of(row)
        self.engine.writer.hold(opening, opening.since)
        self._claimed[row.run_id] = (opening, before, row)
        return row.info

    def _taken(self, wanted: Wanted, opening: Opening, now: float, before: RunRow) -> RunRow:
        """What becomes of the row of a run that is taken; a run that no worker survives ends."""
        if before.claims >= wanted.max_claims:
            return _failed(before, f"{before.claims} workers have died with it; requeue it to try again", now)
        if erasure_of(before.info) is not None:
            return _failed(before, "its values were erased", now)
        request = RunRequest(before.run_id, wanted.owner, lease=wanted.lease)
        row = self._claims.opened(before, request, opening.process)
        return dataclasses.replace(row, claims=before.claims + 1)

    async def give_back(self, run_id: str) -> None:
        """Let go of a run that was claimed here and has not been opened."""
        claimed = self._claimed.pop(run_id, None)
        if claimed is None:
            return
        _, before, row = claimed
        self.engine.writer.drop(row.number, row.fence)
        await self.engine.writer.done(
            lambda session: session.release(
                row.number, row.fence, before.status, before.reason, before.updated_at, before.queued
            )
        )

    async def enqueue(self, run_id: str) -> bool:
        """Let workers take a submitted run again."""
        await self._get_ready()
        while True:
            row, now = await self.engine.run(run_id), self.engine.clock()
            if row.queue is None or is_held(row, now):
                return False
            if await self._claims.replaced(row, _ready_again(row, now)):
                return True

    async def take_from_queue(self, run_id: str) -> bool:
        """See to it that no worker takes a run any more; False if one has it."""
        await self._get_ready()
        while True:
            row = await self.engine.run(run_id)
            if is_held(row, self.engine.clock()):
                return False
            new = dataclasses.replace(row, ready_at=None, fence=row.fence + 1, owner=None, process=None)
            if await self._claims.replaced(row, new):
                return True

    async def wait_for_queue(self, queue: str, seconds: float) -> None:
        """Return when there may be something new to do in a queue, or after so many seconds."""
        await self._get_ready()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + seconds
        while (left := ends_at - loop.time()) > 0:
            await asyncio.sleep(min(left, _LOOK_EVERY))
            if await self.engine.readers.in_thread(self._has_news):
                return

    def _has_news(self) -> bool:
        if self._news is None:
            self._news = self.engine.readers.connect()
        try:
            return self._news.queue_has_news()
        except BaseException:
            news, self._news = self._news, None
            news.close()
            raise

    def _let_go_of_queues(self) -> None:
        """The store is closed."""
        news, self._news = self._news, None
        if news is not None:
            news.close()


def _new_row(submission: Submission, now: float) -> RunRow:
    return RunRow(
        0,
        submission.run_id,
        ExecutionStatus.PENDING.value,
        workflow=submission.workflow,
        input=submission.input,
        input_digest=submission.input_digest,
        tags=tuple(submission.tags),
        facts=dict(submission.facts),
        created_at=now,
        updated_at=now,
        queue=submission.queue,
        flow=submission.flow,
        priority=submission.priority,
        ready_at=at_once(now) if submission.not_before is None else submission.not_before,
    )


def _failed(before: RunRow, reason: str, now: float) -> RunRow:
    return dataclasses.replace(
        before,
        status=ExecutionStatus.FAILED.value,
        reason=reason,
        facts=facts_when_left(before),
        updated_at=now,
        ended_at=now,
        owner=None,
        process=None,
        fence=before.fence + 1,
        stop_requested=None,
        ready_at=None,
    )


def _ready_again(row: RunRow, now: float) -> RunRow:
    has_ended = row.status in ENDED
    return dataclasses.replace(
        row,
        status=ExecutionStatus.PENDING.value if has_ended else row.status,
        epoch=row.epoch + has_ended,
        reason=None if has_ended else row.reason,
        facts=facts_when_left(row),
        updated_at=now,
        ended_at=None,
        owner=None,
        process=None,
        fence=row.fence + 1,
        stop_requested=None,
        ready_at=at_once(now),
        claims=0,
    )
