"""The tasks of a group: started as slots become free, ended before the group ends, their results kept until read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rh_agents.core._members import Member, Source
from rh_agents.core._order import RecordedOrder
from rh_agents.core._roster import Roster
from rh_agents.core._runner import Job, run_job
from rh_agents.core.errors import CallCancelled
from rh_agents.core.results import ExecutionResult

if TYPE_CHECKING:
    from rh_agents.core.ports import RunHandle

__all__ = ["Scheduler"]

_REPLAYED_AT_ONCE = 256
"""Recovered members need no slot, but each takes a task for a moment."""
_LOOK_AHEAD = 10_000
"""How many items may be pulled in search of the one that the recorded order wants; it may have left the program."""


class Scheduler:
    """Runs the members of a roster, at most `max_workers` at a time.

    Everything here happens between awaits: in the last step of each task, and in methods that the block calls.

    Args:
        run: the run to which the members belong.
        roster: who waits.
        order: which recovered members a stream wants first.
        max_workers: the number of slots.
        make_job: what to execute for a member.
        started: told of each member that takes a slot, and when.
        ended: told of each member that has ended, before the next one starts, with what no group may swallow: the store
            failed, or the interpreter is told to exit.
        failed: told why an async iterable cannot be read on; it must halt.
    """

    def __init__(
        self,
        run: RunHandle,
        roster: Roster,
        order: RecordedOrder,
        max_workers: int,
        *,
        make_job: Callable[[Member], Job],
        started: Callable[[Member, float], None],
        ended: Callable[[Member, BaseException | None], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.roster: Roster = roster
        self.order: RecordedOrder = order
        self.finished: dict[int, ExecutionResult[Any]] = {}
        """Results that no stream has given yet, by index."""
        self.buffer: float = max(16, 2 * max_workers)
        """How many of them there may be before items are no longer pulled for want of a reader."""
        self.is_halted: bool = False
        self.is_streamed: bool = False
        """Whether somebody wants to be woken at every result, not only at the end."""
        self._run = run
        self._max_workers = max_workers
        self._make_job = make_job
        self._started = started
        self._ended = ended
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, Member] = {}
        self._slots_taken = 0
        self._completed: deque[int] = deque()
        self._keys: dict[int, bytes] = {}
        self._filling = False
        self._feeder: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    # -- starting -----------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Start members while there are slots. Not re-entered when an iterable that is being pulled calls `add`."""
        if self._filling or self.is_halted:
            return
        self._filling = True
        try:
            while self._has_slot:
                now = self._loop.time()
                member = self.roster.next_waiting()
                if member is None and self._has_room:
                    member = self.roster.pull(now)
                if member is None:
                    break
                self._start(member, now)
        finally:
            self._filling = False
        source = self.roster.async_source
        if source is not None:
            self._feed_in_background(source)

    @property
    def _has_slot(self) -> bool:
        return self._slots_taken < self._max_workers and len(self._running) < self._max_workers + _REPLAYED_AT_ONCE

    @property
    def _has_room(self) -> bool:
        """Whether more items may be pulled, seen from the reader of the results."""
        return len(self.finished) < self.buffer or self.order.waits_for_enrolment

    def _start(self, member: Member, now: float) -> None:
        member.job = job = self._make_job(member)
        self._running[member.index] = member
        if job.key is not None:
            job.recorded = self._run.recorded(job.key)
        if job.recorded is None:
            member.holds_slot = True
            self._slots_taken += 1
            self._started(member, now)
        task = self._loop.create_task(self._execute(member, job), context=member.context)
        member.task = task
        if self.is_halted:  # by the member itself, whose first step an eager loop has made already
            task.cancel()
        # A task that is cancelled before its first step never gets to its `finally`.
        if not member.has_begun:
            task.add_done_callback(self._never_began)

    async def _execute(self, member: Member, job: Job) -> None:
        """A member's task. What follows its end is done in its last step, which costs less than a callback."""
        member.has_begun = True
        if member.task is not None:
            member.task.remove_done_callback(self._never_began)
        error: BaseException | None = None
        try:
            await run_job(job)
        except asyncio.CancelledError:
            raise
        except (KeyboardInterrupt, SystemExit) as caught:
            error = caught
            if member.task is not None:
                member.task.add_done_callback(_retrieve)
            raise  # it is the event loop that has to hear of these
        except BaseException as caught:  # noqa: BLE001 - what no group may swallow is raised by the group
            error = caught
        finally:
            self._end(member, error)

    def _never_began(self, task: asyncio.Task[None]) -> None:
        member = next((member for member in self._running.values() if member.task is task), None)
        if member is not None:
            self._end(member, None)

    def _end(self, member: Member, error: BaseException | None) -> None:
        del self._running[member.index]
        self._slots_taken -= member.holds_slot
        self._ended(member, error)
        self.fill()
        self._wake()

    def keep(self, member: Member, result: ExecutionResult[Any]) -> None:
        """Keep a result until it is read."""
        self.finished[member.index] = result
        self._completed.append(member.index)
        if member.key is not None and not self.order.is_over:
            self._keys[member.index] = member.key

    def is_run_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether the task is one of the members'."""
        return task is not None and any(member.task is task for member in self._running.values())

    # -- async iterables ----------------------------------------------------------------------------------------------

    def _feed_in_background(self, source: Source) -> None:
        if self._feeder is None:
            task = self._loop.create_task(
                self._feed(source), name="rh_agents: pull items", context=source.context.copy()
            )
            self._feeder = task
            task.add_done_callback(self._feeder_done)
        elif self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _feed(self, source: Source) -> None:
        """Read an async iterable, and let go of it if it is not read to its end."""
        try:
            await self._feed_from(source)
        finally:
            await source.aclose()

    async def _feed_from(self, source: Source) -> None:
        """Pull items, each one when there is a slot for it."""
        while self.roster.async_source is source:
            if not self._has_slot or not self._has_room:
                await self._wait_for_room()
                continue
            member = await self.roster.pull_async(source, self._loop.time)
            if member is not None:
                self.roster.wait(member)  # a slot may have been taken meanwhile
            self.fill()

    async def _wait_for_room(self) -> None:
        self._room = self._loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _feeder_done(self, feeder: asyncio.Task[None]) -> None:
        self._feeder = None
        if feeder.cancelled():
            if not self.is_halted:
                self._failed(CallCancelled("the task that pulls items was cancelled, but not by its group"))
        elif (error := feeder.exception()) is not None:
            self._failed(error)
        self.fill()
        self._wake()

    # -- ending early, and waiting ------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._running and self._feeder is None and self.roster.is_empty

    def halt(self) -> None:
        """Start nothing more, and cancel what runs."""
        self.is_halted = True
        for error in self.roster.discard():
            self._failed(error)
        if self._feeder is not None:
            self._feeder.cancel()
        for member in self._running.values():
            if member.task is not None:
                member.task.cancel()
        self._wake()

    async def idle(self) -> None:
        """Wait until nothing runs and nothing waits."""
        while not self.is_idle:
            await self.change()

    async def change(self) -> None:
        """Wait until a result is there (if `is_streamed`) or nothing runs any more."""
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        if self._waiters and (self.is_streamed or self.is_idle):
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def join(self) -> None:
        """Wait until every task has ended. A cancellation meanwhile reaches them too, and is raised when they have."""
        cancelled: asyncio.CancelledError | None = None
        while not self.is_idle:
            try:
                await self.change()
            except asyncio.CancelledError as error:
                cancelled = error
                self.halt()
        if cancelled is not None:
            raise cancelled

    # -- for streams --------------------------------------------------------------------------------------------------

    def take_completed(self) -> ExecutionResult[Any] | None:
        """The result that was completed first, the recorded ones of an earlier execution before all others."""
        self._pull_ahead()
        index = self.order.take(self.finished)
        if index is None and self.order.is_over:
            index = self._oldest_completed()
        return None if index is None else self.take(index)

    def take(self, index: int) -> ExecutionResult[Any]:
        """The result of a member; it is not kept."""
        result = self.finished.pop(index)
        key = self._keys.pop(index, None)
        if key is not None:
            self.order.passed(key)
        self.fill()
        return result

    def _oldest_completed(self) -> int | None:
        while self._completed:
            index = self._completed.popleft()
            if index in self.finished:
                return index
        return None

    def _pull_ahead(self) -> None:
        """Enrol members until the one that the recorded order wants next is among them, or cannot come any more."""
        while self.order.waits_for_enrolment and not self.is_halted:
            member = self.roster.pull(self._loop.time())
            if member is None:
                break
            self.roster.wait(member)
            if self.roster.waiting > _LOOK_AHEAD:
                self.order.skip_missing()
        if not self.roster.has_sources:
            self.order.skip_missing()
        self.fill()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at a task's exception, so that asyncio does not log that nobody did."""
    if not task.cancelled():
        task.exception()
