"""Runs that wait in memory for a worker (see `rh_agents.core.queueing`)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from rh_agents.core._loops.homes import Waiter
from rh_agents.core.ports import Clock, RunInfo, RunRequest
from rh_agents.core.ports.keeping import erasure_of
from rh_agents.core.queueing import QueueLook, Submission, Wanted, expect_same_run
from rh_agents.core.types import ExecutionStatus

__all__ = ["MemoryQueues"]

_ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)


class MemoryQueues:
    """What a store in memory does with its runs so that workers can take them.

    An owner that is gone for Python lets go of its run, so no lease is watched here.
    """

    _runs: dict[str, Any]
    clock: Clock
    expect_open: Callable[[], None]
    _add_run: Callable[[RunInfo], None]
    _open_run: Callable[[RunRequest, int], Any]

    def __init__(self) -> None:
        self._claimed: dict[str, tuple[RunInfo, Any]] = {}
        """Runs that were taken for a worker and have not been opened: as they were, and their journals."""
        self._idle: list[Waiter] = []

    async def submit(self, submission: Submission) -> RunInfo:
        """Add a run that waits for a worker; one that is there is returned."""
        self.expect_open()
        its = submission
        found = self._runs.get(its.run_id)
        if found is not None:
            known: RunInfo = found.seen()
            expect_same_run(known, its)
            return known
        now = self.clock()
        ready_at = now if its.not_before is None else its.not_before
        about = RunInfo(
            its.run_id, workflow=its.workflow, input=its.input, input_digest=its.input_digest, tags=its.tags
        )
        info = dataclasses.replace(
            about,
            facts=dict(its.facts),
            created_at=now,
            updated_at=now,
            queue=its.queue,
            flow=its.flow,
            priority=its.priority,
            ready_at=ready_at,
        )
        self._add_run(info)
        self.wake_workers()
        return info

    def _ready(self, queue: str) -> list[RunInfo]:
        """The runs of a queue that a worker may take now, in the order in which it does."""
        now = self.clock()
        found = [run.info for run in self._runs.values() if run.info.queue == queue and run.owner() is None]
        found = [each for each in found if each.status not in _ENDED and (each.ready_at or now + 1) <= now]
        return sorted(found, key=lambda info: (-info.priority, info.ready_at or 0.0))

    async def look_at_queue(self, queue: str, without: Collection[str] = ()) -> QueueLook:
        """What there is to do in a queue, but for what needs some flows."""
        self.expect_open()
        flows = dict.fromkeys(info.flow or "" for info in self._ready(queue))
        return QueueLook(tuple(flow for flow in flows if flow not in without), ())

    async def claim_next(self, wanted: Wanted) -> RunInfo | None:
        """Become the owner of the next run of a queue; None if there is none."""
        self.expect_open()
        before = next((each for each in self._ready(wanted.queue) if each.flow in wanted.flows), None)
        if before is None:
            return None
        run = self._runs[before.run_id]
        reason = None
        if before.claims >= wanted.max_claims:
            reason = f"{before.claims} workers have died with it; requeue it to try again"
        elif erasure_of(before) is not None:
            reason = "its values were erased"
        if reason is not None:
            now = self.clock()
            run.info = dataclasses.replace(
                before,
                status=ExecutionStatus.FAILED,
                reason=reason,
                updated_at=now,
                ended_at=now,
                owner=None,
                ready_at=None,
            )
            return run.info  # type: ignore[no-any-return]
        journal = self._open_run(RunRequest(before.run_id, wanted.owner, lease=wanted.lease), before.claims + 1)
        self._claimed[before.run_id] = before, journal
        return run.info  # type: ignore[no-any-return]

    async def give_back(self, run_id: str) -> None:
        """Let go of a run that was claimed here and has not been opened."""
        claimed = self._claimed.pop(run_id, None)
        if claimed is not None:
            run = self._runs[run_id]
            run.info = dataclasses.replace(claimed[0], owner=None)
            run.fence += 1
            run.take(None)
            self.wake_workers()

    async def enqueue(self, run_id: str) -> bool:
        """Let workers take a submitted run again."""
        self.expect_open()
        run = self._run(run_id)
        info: RunInfo = run.info
        if info.queue is None or run.owner() is not None:
            return False
        has_ended, now = info.status in _ENDED, self.clock()
        run.info = dataclasses.replace(
            info,
            status=ExecutionStatus.PENDING if has_ended else info.status,
            epoch=info.epoch + has_ended,
            reason=None if has_ended else info.reason,
            updated_at=now,
            ended_at=None,
            owner=None,
            ready_at=now,
            claims=0,
        )
        self.wake_workers()
        return True

    def _run(self, run_id: str) -> Any:
        raise NotImplementedError

    async def wait_for_queue(self, queue: str, seconds: float) -> None:
        """Return when there may be something new to do in a queue, or after so many seconds."""
        self.expect_open()
        waiter = Waiter()
        self._idle.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter.wait()
        except TimeoutError:
            pass
        finally:
            self._idle.remove(waiter)

    def wake_workers(self) -> None:
        """Let those who wait for something to do look again."""
        for waiter in list(self._idle):
            waiter.wake()
