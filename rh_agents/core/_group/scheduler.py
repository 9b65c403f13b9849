"""The tasks of a group: started as slots become free, ended before the group ends, their results kept until read.

A bounded parallel map is a semaphore and a task group. Four demands make this harder than that.

*A million items.* A task for each item, all waiting for one semaphore, would take memory for all of them before the
first has begun. Here a member gets its task when it has a slot, and an iterable is pulled when there is a slot for
what it gives. So nobody waits in line but the members that were added one by one, and there is no dispatcher task
either: whoever ends starts the next one. `fill` is called in the last step of every task, and wherever else something
may have become possible (a member was added, a result was read, a retry waits). It starts what can be started and
returns. It is not re-entered: pulling an item runs the program's code, which may call `add`.

*Everything between awaits.* There is one event loop and no lock. Each method leaves the state consistent when it
returns, and only `_execute`, the waits at the end of this file and the `Feeder`, which reads async iterables, await
anything. What has changed is announced by `_wake`, after the change. Whoever waits looks again at what he waits for:
`is_idle`, `_is_stuck`, a result.

*The second execution must be the first one again.* Some members are recorded when a run is resumed. What becomes of
them, and of the others by that, is decided in `rh_agents.core._replay.decision`; `rh_agents.core._group.recovery` has
what this file needs to obey: the phase of the group, who is *held* or *parked*, and whether it is *stuck*.

*Four ways to end, which may follow each other in this order.* By itself: there is nothing more. `drain`: the run is
stopped, what runs comes to its end, and nothing begins. `halt`: what runs is cancelled, once, so that it can clean
up; but for a member whose outcome is on its way to the store, since the next execution will find it there.
`halt(dismiss=True)`: the program has no more use for the group. Then what is recorded is still recovered, for it
counts in every replay. `join` ends only when the last task has; a cancellation that comes meanwhile is passed on to
the members, and raised after they have ended.

Alternatives, and what speaks against them: a task for each member with a semaphore (memory, and no order among those
that wait); a fixed pool of worker tasks that read a queue (a member needs a context and a cancellation of its own,
and recovered members would wait behind running ones); `asyncio.TaskGroup` (the first exception cancels the siblings,
which is what a group exists to avoid); a done callback for each task (one more step of the event loop for each
member; it is used only for a task that was cancelled before its first step, which never gets to its `finally`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from rh_agents.core._base.foreign import noted
from rh_agents.core._group.feeder import Feeder
from rh_agents.core._group.finished import FinishedResults
from rh_agents.core._group.members import RECOVERED, Member, close_unstarted
from rh_agents.core._group.recovery import AT_ONCE, Recovery
from rh_agents.core._group.roster import Roster
from rh_agents.core._group.rules import NO_GROUP, GroupRules
from rh_agents.core._group.slots import LentSlot, Slots
from rh_agents.core._loops.postponed import look_at
from rh_agents.core._replay.decision import Phase, Recorded, Step, next_step
from rh_agents.core._replay.identity import ENDED
from rh_agents.core._replay.order import RecordedOrder
from rh_agents.core._run.frame import Frame
from rh_agents.core._run.nesting import needs_another_stack
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.runner import run_frame
from rh_agents.core.errors import CallCancelled, StopRun, StoreError
from rh_agents.core.results import ExecutionResult

__all__ = ["Scheduler"]

_WAITING_FOR_RECOVERY = 16
"""Recovered members whose outcome is not at hand take a task each. What one waits for brings those of many."""


class Scheduler:
    """Runs the members of a roster, at most `max_workers` at a time.

    Everything here happens between awaits: in the last step of each task, and in methods that the block calls.

    Args:
        run: the run to which the members belong.
        roster: who waits.
        order: which recovered members a stream wants first.
        max_workers: the number of slots.
        group: decides what the ends of members mean.
    """

    def __init__(
        self, run: RunParts, roster: Roster, order: RecordedOrder, max_workers: int, group: GroupRules
    ) -> None:
        self.roster: Roster = roster
        self.order: RecordedOrder = order
        self.recovery: Recovery = Recovery(run, roster, order)
        self.finished: FinishedResults = FinishedResults(order, max(16, 2 * max_workers))
        self.has_ended_early: bool = False
        """Whether it was halted because the program has no more use for it."""
        self.is_draining: bool = False
        """Whether the run is being stopped, so that what runs comes to its end, and nothing more is started."""
        self.stop: StopRun | None = None
        """Why members have no result though nobody cancelled them: the run is being stopped, or waits for somebody."""
        self.is_streamed: bool = False
        """Whether somebody wants to be woken at every result, not only at the end."""
        self._group = group
        self._loop = asyncio.get_running_loop()
        self.running: dict[int, Member] = {}
        """The members that run, by index."""
        self.slots: Slots = Slots(max_workers, self.fill)
        self._filling = False
        self._judges_soon = False
        self._rests = False
        """Whether nothing is to be done until half of the recovered results that wait for the reader are read."""
        self._feeder = Feeder(roster, self)
        self._waiters: set[asyncio.Future[None]] = set()
        roster.report_to(self)

    def close(self) -> None:
        """The group has ended: let go of it. Each holding the other, both would wait for the garbage collector."""
        self.roster.report_to(None)
        self._group = NO_GROUP
        self.recovery.give = None
        self.slots.close()
        self._feeder.close()

    @property
    def is_halted(self) -> bool:
        """Whether nothing more is begun, because the group is ending."""
        return self.recovery.phase is Phase.ENDING

    # -- starting -----------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Start members while there are slots. Not re-entered when an iterable that is being pulled calls `add`.

        Whatever raises while a member is started ends the group with that error: nobody else would hear of it, for it
        is in the last step of some other member that this one is started.
        """
        recovery = self.recovery
        if self._filling or (recovery.phase is Phase.ENDING and not recovery.goes_on):
            return
        if not (self.slots.free or self.roster.async_source or recovery.is_held_up) and recovery.phase is Phase.OPEN:
            return  # all slots are taken, as most often when results are read
        self._filling, self._rests, recovery.is_interrupted, recovery.left_at_once = True, False, False, AT_ONCE
        self.roster.recover = recovery.recover_call if self.order.has_members else None
        try:
            self._start_members()
            if recovery.held and not recovery.seeks_recorded:
                self._judge_soon()
            if recovery.goes_on:
                self._finish_recovery()
        except StopRun as stop:
            self._note(stop)  # an iterable makes calls itself; what runs comes to its end
        except BaseException as error:
            self.failed(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._filling, self.roster.recover = False, None
        source = self.roster.async_source
        if source is not None and (not self.is_halted or self._may_pull):
            self._feeder.feed(source)

    def _start_members(self) -> None:
        recovery, slots, roster = self.recovery, self.slots, self.roster
        while slots.free or recovery.phase is not Phase.OPEN:
            if (recovery.fetching and not self._has_slot) or (recovery.phase is Phase.ENDING and not recovery.goes_on):
                break
            if recovery.left_at_once <= 0:
                recovery.is_interrupted = True
                self._loop.call_soon(self._fill_and_wake)
                break
            now, member = self._loop.time(), None
            if roster.waiting:
                member = roster.waiting.popleft()
            elif self._may_pull:
                member = roster.pull(now)
                if member is RECOVERED:
                    self._wake()
                    continue
            elif self.order.has_members and not self.running and not self.finished.has_room:
                self._rests = True
            if member is not None and not member.is_numbered:
                self.roster.wait_first(member)
                break
            if member is None or not self._take_its_turn(member, now):
                break

    def numbered(self) -> None:
        """Members have got their keys that had to wait for them."""
        self._judge_soon()
        self._fill_and_wake()

    def _take_its_turn(self, member: Member, now: float) -> bool:
        """Do with a member what is to be done with it; False if it has to wait, and all others behind it."""
        recovery = self.recovery
        is_clear = recovery.fetching == 0 and not recovery.unjudged
        step = next_step(recovery.phase, recovery.look_up(member), is_clear=is_clear)
        if step is Step.WAIT or (step is Step.START and not self.slots.free):
            return self._comes_too_early(member)
        if step is Step.PARK:
            self._park(member, now)
        elif step is Step.DROP:
            close_unstarted(member.work)
        elif step is Step.START or not self._is_recovered_at_once(member):
            self._start(member, now)
        return True

    def _comes_too_early(self, member: Member) -> bool:
        """Let a member wait; whether the turn of those behind it comes all the same."""
        if self.recovery.seeks_recorded:
            self.recovery.held.append(member)
            return True
        self.roster.wait_first(member)
        self._judge_soon()
        return False

    def _judge_soon(self) -> None:
        """Not now: the block may be adding members, and is told when it waits for them."""
        if self.recovery.unjudged and not self._judges_soon:
            self._judges_soon = True
            self._loop.call_soon(self._judge_and_fill)

    def _judge_and_fill(self) -> None:
        self._judges_soon = False
        if self.recovery.can_judge:
            self._group.judge()
            self._fill_and_wake()

    def _fill_and_wake(self) -> None:
        """In a step of its own nobody looks afterwards whether there was nothing left to be started."""
        self.fill()
        self._wake()

    @property
    def _has_slot(self) -> bool:
        """Whether another member may be looked at. What is recovered needs a slot only where others wait for slots."""
        if len(self.running) - self.slots.lent >= self.slots.most + _WAITING_FOR_RECOVERY:
            return False
        return self.slots.free > 0 or self.recovery.phase is not Phase.OPEN

    @property
    def _may_pull(self) -> bool:
        """Whether more items may be pulled: the reader of the results keeps up, and the group is not to end again."""
        if self.roster.unnumbered:
            return False
        recovery = self.recovery
        has_room = self.finished.has_room or self.order.waits_for_enrolment or recovery.seeks_recorded
        return has_room and (recovery.phase is Phase.OPEN or recovery.wants_more)

    def _start(self, member: Member, now: float) -> None:
        frame = member.frame = self._group.make_frame(member)
        self.running[member.index] = member
        if member.recorded is Recorded.FINISHED:
            frame.is_recorded = True
            member.is_recovering = True
            self.recovery.fetching += 1
        else:
            self.slots.take(member)
            self._group.started(member, now)
            frame.settled = self._member_settled
            if frame.retry is not None and frame.cached_as is None:  # those who hold slots may wait for a cached one
                frame.slot = LentSlot(self.slots, member)
        steps = self._execute(member, frame)
        try:
            task = self._loop.create_task(steps, context=member.context)
        except BaseException as error:
            self._cannot_begin(member, steps, error)
            if isinstance(error, Exception):
                return
            raise
        if member.index not in self.running:
            return
        member.task = task
        if not member.has_begun:  # cancelled before its first step, it never gets to its `finally`
            task.add_done_callback(self._never_began)

    def _cannot_begin(self, member: Member, steps: Coroutine[Any, Any, None], error: BaseException) -> None:
        """The event loop's task factory raises, which ends the group, as nothing can begin."""
        self._group.failed(noted(error, "raised by the event loop; a task factory takes `context=`"))
        steps.close()
        if member.index in self.running:
            self._end(member, None)

    def _park(self, member: Member, now: float) -> None:
        """Let a member wait for the end of its group. One that an earlier execution cancelled counts as running."""
        self.recovery.parked[member.index] = member
        if member.recorded is Recorded.CUT_OFF and member.key is not None:
            self._group.started(member, now)
            self.order.passed(member.key)

    @property
    def _is_stuck(self) -> bool:
        """Whether nothing goes on, because all that is left waits for the group to end again."""
        recovery = self.recovery
        if recovery.phase is not Phase.SEALED or self.running or recovery.is_interrupted:
            return False
        if self.roster.waiting or self.roster.unnumbered or self._feeder.may_bring_more:
            return False
        return bool(recovery.parked) or self.roster.has_sources

    def _go_on(self) -> None:
        """The block waits, and nothing goes on: end the group as it ended before. If it is another group, open it."""
        self._group.repeat_ending()
        if self.is_halted:
            return
        self.recovery.open()
        self._judge_soon()
        self.fill()

    def _is_recovered_at_once(self, member: Member) -> bool:
        """Whether a recorded member has its result now, without task and frame."""
        try:
            outcome = self.recovery.outcome_at_hand(member)
        except StoreError as error:
            close_unstarted(member.work)
            self.failed(error)
            return True
        if outcome is None:
            return False
        self._group.recovered(member, outcome)
        if self.recovery.unjudged:
            self._judge_soon()
        self._wake()
        return True

    async def _execute(self, member: Member, frame: Frame) -> None:
        """A member's task. What follows its end is done in its last step, which costs less than a callback."""
        member.has_begun = True
        is_eager = member.task is None
        if member.task is None:
            member.task = asyncio.current_task()  # an eager task makes its first step before anybody else knows it
        else:
            member.task.remove_done_callback(self._never_began)
        error: BaseException | None = None
        try:
            if is_eager and needs_another_stack(frame):
                await asyncio.sleep(0)  # that of the event loop is its own
            await run_frame(frame)
        except asyncio.CancelledError:
            raise
        except StopRun as caught:
            self._note(caught)  # this member waits for something; the others go on
            error = caught
        except (KeyboardInterrupt, SystemExit) as caught:
            error = caught
            if member.task is not None:
                member.task.add_done_callback(look_at)
            raise  # it is the event loop that has to hear of these
        except BaseException as caught:  # noqa: BLE001 - what no group may swallow is raised by the group
            error = caught
        finally:
            frame.owner = ENDED  # else task and frame would hold each other
            if self._loop.is_running():  # else Python destroys what a loop has left that was given up
                self._end(member, error)
            member.task = None
            frame.let_go()
            del self, member, frame, error  # an error of the program may lead to this frame, and would be held by it

    def _never_began(self, task: asyncio.Task[None]) -> None:
        member = next((member for member in self.running.values() if member.task is task), None)
        if member is not None:
            self._end(member, None)

    def _end(self, member: Member, error: BaseException | None) -> None:
        del self.running[member.index]
        self.slots.give_back(member)
        self.recovery.fetching -= member.is_recovering
        self._group.ended(member, error)
        if self.recovery.unjudged:
            self._judge_soon()
        self.fill()
        if self.is_streamed or not self.running:
            self._wake()

    def _member_settled(self, frame: Frame) -> None:
        """The outcome of a member is recorded: whatever it has to do until its end, this is its place in the order."""
        assert frame.index is not None
        member = self.running[frame.index]
        member.is_settled = True
        self.finished.completed(member.index)
        if self.recovery.phase is Phase.ENDING and member.task is not None:
            member.task.cancel()  # it was left alone while its outcome was on its way

    @property
    def has_more_to_do(self) -> bool:
        """Whether an end now would cut anything off."""
        if self.recovery.parked or self.recovery.held or self._feeder.is_active or not self.roster.is_empty:
            return True
        return not all(
            member.is_recovering or (member.frame is not None and member.frame.has_settled)
            for member in self.running.values()
        )

    def is_run_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether it is the task of a member."""
        return task is not None and any(member.task is task for member in self.running.values())

    # -- async iterables ----------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another item may be pulled."""
        return self._has_slot and self._may_pull

    def feeder_waits(self) -> None:
        """If nothing goes on by that, the block has to end the group again."""
        if self._is_stuck:
            self._wake()

    def failed(self, error: BaseException) -> None:
        """A member cannot be enrolled after all, or an async iterable cannot be read."""
        self._group.failed(error)

    def feeder_ended(self, task: asyncio.Task[None]) -> None:
        """An async iterable has been read."""
        if task.cancelled():
            if not self.is_halted and self.stop is None:
                self._group.failed(CallCancelled("the task that pulls items was cancelled, but not by its group"))
        elif (error := task.exception()) is not None:
            if isinstance(error, StopRun):
                self._note(error)  # the iterable makes calls itself; what runs comes to its end
            else:
                self._group.failed(error)
        self._fill_and_wake()

    # -- ending early, and waiting ------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        is_waiting = self.recovery.parked or self.recovery.held or not self.roster.is_empty
        return not self.running and not is_waiting and not self.roster.unnumbered and not self._feeder.is_active

    @property
    def has_left_something(self) -> bool:
        """Whether a member has no result yet, and may come to one: it runs, or waits, or cannot go on for now."""
        return not self.is_idle or (self.stop is not None and not self.is_draining)

    @property
    def has_more_later(self) -> bool:
        """Whether members without a result come to one when the run goes on, with their places before others."""
        return self.stop is not None and not self.has_ended_early

    def _note(self, stop: StopRun) -> None:
        """A member cannot go on. If the program has given the group up, nobody waits for that."""
        if self.is_draining or not self.is_halted:
            self.stop = stop if self.stop is None else self.stop | stop

    def drain(self, stop: StopRun) -> None:
        """Start nothing more; what runs comes to its end."""
        self.is_draining = True
        self.recovery.goes_on = False
        self._note(stop)
        self._end_parked()
        self.recovery.release_held()
        self.roster.unnumbered.clear()  # no calls are made any more, so it does not matter which numbers they have
        for error in self.roster.discard():
            self._group.failed(error)
        self._feeder.cancel()
        self._wake()

    def halt(self, *, dismiss: bool = False, insist: bool = False) -> None:
        """Start nothing more, and cancel what runs: once, unless somebody insists, so that it can clean up.

        A member whose outcome is on its way to the store is waited for: it will be found there when the run is executed
        again, so the program gets it now. `dismiss`: because the program has no more use for it.
        """
        recovery, is_first = self.recovery, not self.is_halted
        recovery.goes_on = dismiss and self.order.has_members and (recovery.goes_on or is_first)
        self.has_ended_early = self.has_ended_early or (dismiss and is_first)
        recovery.phase = Phase.ENDING
        if dismiss:
            self.stop = self.stop if self.is_draining else None  # else nobody waits for what its members wait for
            for member in self.running.values():
                if member.frame is not None:
                    member.frame.is_dismissed = True
        self.discard()
        for member in self.running.values():
            if member.task is not None and (insist or is_first) and not self._is_spared(member):
                if member.frame is not None:
                    member.frame.is_cancelled = True
                member.task.cancel()
        if recovery.goes_on:
            self.fill()
        else:
            self._end_parked()
        self._wake()

    def take_late(self, member: Member) -> None:
        """The group has ended early: a member that comes now is recovered, if it can be, and else never begins."""
        if not self._may_be_recorded(member):
            close_unstarted(member.work)
            return
        self.recovery.goes_on = True
        self.roster.wait(member)
        self.fill()

    def _is_spared(self, member: Member) -> bool:
        """Whether a member comes to its end though the group does: its outcome is recorded, or will be in a moment."""
        if member.is_recovering:
            return self.recovery.goes_on
        return member.frame is not None and member.frame.is_settling

    def discard(self) -> None:
        """Forget what has not begun, but for what is recorded, if that is still to be recovered."""
        recovery = self.recovery
        recovery.release_held()
        keeps_sources = recovery.goes_on and recovery.looks_for_members
        keep = self._may_be_recorded if recovery.goes_on else None
        for error in self.roster.discard(keep=keep, keep_sources=keeps_sources):
            self._group.failed(error)
        if not keeps_sources:
            self._feeder.cancel()

    def _may_be_recorded(self, member: Member) -> bool:
        return not member.is_numbered or self.recovery.look_up(member) is Recorded.FINISHED

    def _finish_recovery(self) -> None:
        """The group is ending, and what is recorded of it has been recovered: the rest ends."""
        recovery = self.recovery
        if recovery.is_under_way or self.roster.waiting:
            return
        is_reading = recovery.looks_for_members and self.roster.has_sources
        if is_reading and (self.roster.async_source is not None or not self._may_pull):
            return  # more may come, or the reader of the results has to make room
        recovery.goes_on = False
        self.discard()
        self._end_parked()

    def _end_parked(self) -> None:
        for member in self.recovery.take_parked():
            self.running[member.index] = member
            self._end(member, None)

    def read_on(self) -> None:
        """Nobody reads results while there are members, so there is no reader to wait for."""
        self.finished.lift_limit()
        self.fill()

    async def idle(self) -> None:
        """Wait until nothing runs and nothing waits."""
        while not self.is_idle:
            await self.change()

    async def change(self) -> None:
        """Wait until a result is there (if `is_streamed`) or nothing runs any more."""
        if self._is_stuck and not self.is_halted:
            self._go_on()
            return
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        if self._waiters and (self.is_streamed or (not self.running and (self.is_idle or self._is_stuck))):
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def join(self) -> None:
        """Wait until every task has ended. A cancellation meanwhile reaches them too, and is raised when they have."""
        cancelled: asyncio.CancelledError | None = None
        self.read_on()
        while not self.is_idle:
            try:
                await self.change()
            except asyncio.CancelledError as error:
                cancelled = error
                self.halt(insist=True)
        if cancelled is not None:
            raise cancelled

    # -- for streams --------------------------------------------------------------------------------------------------

    def take_completed(self) -> ExecutionResult[Any] | None:
        """The result that was completed first, the recorded ones of an earlier execution before all others."""
        if self.order.has_members:
            index = self.finished.next_recorded() if not self.roster.unnumbered else None
            if index is not None:  # all that came before it has been enrolled
                return self.take(index)
            self._pull_ahead()
            if self.roster.unnumbered:
                return None  # one of them may come first
        index = self.finished.next_completed(self.running)
        return None if index is None else self.take(index)

    def take(self, index: int) -> ExecutionResult[Any]:
        """The result of a member; it is not kept."""
        result = self.finished.take(index)
        if not (self._rests and self.finished.is_half_full):
            self.fill()
        return result

    def _pull_ahead(self) -> None:
        """Enrol members until the one that the recorded order wants next is among them, or cannot come any more."""
        order, waiting = self.order, len(self.roster.waiting)
        while order.waits_for_enrolment and not self.is_halted and self._may_pull:
            member = self.roster.pull(self._loop.time())
            if member is None:
                break
            self.roster.wait(member)
            if self.recovery.has_looked_far():
                order.skip_missing()
        if not self.recovery.may_bring_more and not self.is_draining:
            order.skip_missing()  # what a stop discarded comes when the run goes on
        if len(self.roster.waiting) > waiting:
            self.fill()
