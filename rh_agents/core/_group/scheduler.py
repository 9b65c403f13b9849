"""The tasks of a group: started as slots become free, ended before the group ends, their results kept until read.

A bounded parallel map is a semaphore and a task group. Four demands make this harder than that.

*A million items.* A task for each item, all waiting for one semaphore, would take memory for all of them before the
first has begun. Here a member gets its task when it has a slot, and an iterable is pulled when there is a slot for
what it gives. So nobody waits in line but the members that were added one by one, and there is no dispatcher task
either: whoever ends starts the next one. `fill` is called in the last step of every task, and wherever else something
may have become possible (a member was added, a result was read, a retry waits). It starts what can be started and
returns. It is not re-entered: pulling an item runs the program's code, which may call `add`.

*Everything between awaits.* There is one event loop and no lock. Each method leaves the state consistent when it
returns, and only `_execute`, the feeder and the waits at the end of this file await anything. What has changed is
announced by `_wake`, after the change. Whoever waits looks again at what he waits for: `is_idle`, `_is_stuck`, a
result.

*The second execution must be the first one again.* Some members are recorded when a run is resumed. They need no
slot, and are *recovered* in the order in which they are enrolled, some hundreds at a time, so that others get to the
event loop. What becomes of a member is decided in `rh_agents.core._replay.decision`, which has the reasons; this file
obeys. Three words of it are about time:

    judged   A recovered failure may end the group, as it did before. Which one it is shows only when all failures are
             back that came before it, perhaps out of iterables that have to be read for them (`_seeks_recorded`). Until
             then nothing may begin: it might be a call that the first execution never made. What comes too early is
             *held*. Judging happens in a step of its own (`_judge_soon`), for the block may be adding members still.
    parked   The group is known to have ended early. A member without an outcome had never come to one, and must not
             now. It waits, without task and slot, for the group to end again.
    stuck    Nothing runs, and all that is left is parked or may not be pulled. Only now is it certain that the program
             gives no more members, so the block, which waits, ends the group as it ended before, or finds that this is
             another group and opens it (`_go_on`).

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
from collections import deque
from collections.abc import Callable
from typing import Any

from rh_agents.core._base.foreign import noted, retold
from rh_agents.core._group.members import Member, Source, close_unstarted
from rh_agents.core._group.roster import Roster
from rh_agents.core._group.rules import NO_GROUP, GroupRules
from rh_agents.core._group.slots import LentSlot, Slots
from rh_agents.core._replay.decision import Phase, Recorded, Step, next_step
from rh_agents.core._replay.keys import again_key
from rh_agents.core._replay.numbering import ENDED
from rh_agents.core._replay.order import RecordedOrder
from rh_agents.core._run.frame import Frame
from rh_agents.core._run.nesting import needs_another_stack
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.runner import recover_nowait, run_frame
from rh_agents.core.errors import CallCancelled, StopRun, StoreError
from rh_agents.core.results import ExecutionResult

__all__ = ["Scheduler"]

_RECOVERED_AT_ONCE = 256
"""Recovered members need no slot, but each takes a moment, and others want to use the event loop, too."""
_WAITING_FOR_RECOVERY = 16
"""Recovered members whose outcome is not at hand take a task each. What one waits for brings those of many."""
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
        group: decides what the ends of members mean.
    """

    def __init__(
        self, run: RunParts, roster: Roster, order: RecordedOrder, max_workers: int, group: GroupRules
    ) -> None:
        self.roster: Roster = roster
        self.order: RecordedOrder = order
        self.finished: dict[int, ExecutionResult[Any]] = {}
        """Results that no stream has given yet, by index."""
        self.buffer: float = max(16, 2 * max_workers)
        """How many of them there may be before items are no longer pulled for want of a reader."""
        self.is_halted: bool = False
        self.has_ended_early: bool = False
        """Whether it was halted because the program has no more use for it."""
        self.is_draining: bool = False
        """Whether the run is being stopped, so that what runs comes to its end, and nothing more is started."""
        self.stop: StopRun | None = None
        """Why members have no result though nobody cancelled them: the run is being stopped, or waits for somebody."""
        self.is_streamed: bool = False
        """Whether somebody wants to be woken at every result, not only at the end."""
        self._run = run
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, Member] = {}
        self._slots = Slots(max_workers, self.fill)
        self._completed: deque[int] = deque()
        self._keys: dict[int, bytes] = {}
        self._filling = False
        self._fills_soon = False
        self._judges_soon = False
        self._recovered_at_once = 0
        self._recovering = 0
        self._parked: dict[int, Member] = {}
        self._recovers_on = False
        self._dismissed = run.recording.recorded.dismissed
        self.unjudged: bool = False
        """Whether recovered members failed, and it is not clear yet what that means for the group."""
        self._held: deque[Member] = deque()
        """Members that come too early, while those are sought that ended before the failure that is to be judged."""
        self._first_failure = 0
        """The first place of such a failure in the recorded order."""
        self._feeder: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        roster.report_to(self)

    def close(self) -> None:
        """The group has ended: let go of it. Each holding the other, both would wait for the garbage collector."""
        self.roster.report_to(None)
        self._group = NO_GROUP
        self._slots.close()

    # -- starting -----------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Start members while there are slots. Not re-entered when an iterable that is being pulled calls `add`.

        Whatever raises while a member is started ends the group with that error: nobody else would hear of it, for it
        is in the last step of some other member that this one is started.
        """
        if self._filling or (self.is_halted and not self._recovers_on):
            return
        self._filling = True
        self._fills_soon = False
        try:
            self._start_members()
            if self._held and not self._seeks_recorded:
                self._judge_soon()
            self._finish_recovery()
        except StopRun as stop:
            self._note(stop)  # an iterable makes calls itself; what runs comes to its end
        except BaseException as error:
            self._group.failed(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._filling = False
        source = self.roster.async_source
        if source is not None and (not self.is_halted or self._may_pull):
            self._feed_in_background(source)

    def not_numbered(self, error: BaseException) -> None:
        """A member could not be enrolled after all."""
        self._group.failed(error)

    @property
    def _phase(self) -> Phase:
        if self.is_halted:
            return Phase.ENDING
        return Phase.OPEN if self.roster.sealed_by is None else Phase.SEALED

    def _start_members(self) -> None:
        recovered = self._recovered_at_once
        while self._has_slot and (not self.is_halted or self._recovers_on):
            if self._recovered_at_once - recovered >= _RECOVERED_AT_ONCE:
                self._fills_soon = True
                self._loop.call_soon(self.fill)
                break
            now = self._loop.time()
            member = self.roster.next_waiting()
            if member is None and self._may_pull:
                member = self.roster.pull(now)
            if member is not None and not member.is_numbered:
                self.roster.wait_first(member)
                break
            if member is None or not self._take_its_turn(member, now):
                break

    def numbered(self) -> None:
        """Members have got their keys that had to wait for them."""
        self._judge_soon()
        self.fill()
        self._wake()

    def _take_its_turn(self, member: Member, now: float) -> bool:
        """Do with a member what is to be done with it; False if it has to wait, and all others behind it."""
        frame = self._prepare(member)
        step = next_step(self._phase, member.recorded, is_clear=self._recovering == 0 and not self.unjudged)
        if step is Step.START and not self._slots.has_free:
            step = Step.WAIT
        if step is Step.WAIT and self._seeks_recorded:
            self._held.append(member)
            return True
        if step is Step.WAIT:
            self.roster.wait_first(member)
            self._judge_soon()
            return False
        if step is Step.PARK:
            self._park(member, now)
        elif step is Step.DROP:
            close_unstarted(member.work)
        else:
            self._start(member, frame, now)
        return True

    def _prepare(self, member: Member) -> Frame:
        """Find out what is recorded of a member."""
        frame = member.frame
        if frame is None:
            frame = member.frame = self._group.make_frame(member)
            if frame.key is not None:
                frame.is_recorded = self._run.recording.is_recorded(frame.key, is_external=frame.actor.is_external)
                member.recorded = self._recorded_of(frame, frame.key)
        return frame

    def _recorded_of(self, frame: Frame, key: bytes) -> Recorded:
        if key in self._dismissed and self.roster.sealed_by is not None:
            return Recorded.CUT_OFF
        if frame.is_recorded:
            return Recorded.FINISHED
        is_compared = self._run.is_validation and self._run.recording.has_outcome(key)
        return Recorded.COMPARED if is_compared else Recorded.NOTHING

    def note_failure(self, key: bytes) -> None:
        """A recovered member has failed, and it is to be judged what that means for the group."""
        place = self.order.place_of(key)
        self._first_failure = min(place, self._first_failure) if self.unjudged else place
        self.unjudged = True

    @property
    def _seeks_recorded(self) -> bool:
        """Whether members are to come out of iterables that had ended before the first recorded failure.

        It may end the group, which reads on no more then. What the program had of those members, it gets again.
        """
        if not self.unjudged or self._phase is not Phase.OPEN or not self.roster.has_sources:
            return False
        return len(self._held) < _LOOK_AHEAD and self.order.misses_before(self._first_failure)

    def judged(self) -> None:
        """It is clear what recovered failures mean for the group."""
        self.unjudged = False
        self._release_held()

    def _release_held(self) -> None:
        while self._held:
            self.roster.wait_first(self._held.pop())

    def _judge_soon(self) -> None:
        """Not now: the block may be adding members, and is told when it waits for them."""
        if self.unjudged and not self._judges_soon:
            self._judges_soon = True
            self._loop.call_soon(self._judge_and_fill)

    def _judge_and_fill(self) -> None:
        self._judges_soon = False
        if self.is_halted or self._recovering or self._fills_soon or self.roster.is_numbering:
            return
        if not self._seeks_recorded:
            self._group.judge()
            self.fill()
            self._wake()

    @property
    def _has_slot(self) -> bool:
        """Whether another member may be looked at. What is recovered needs a slot only where others wait for slots."""
        if len(self._running) - self._slots.lent >= self._slots.most + _WAITING_FOR_RECOVERY:
            return False
        return self._slots.has_free or self._phase is not Phase.OPEN

    @property
    def _may_pull(self) -> bool:
        """Whether more items may be pulled: the reader of the results keeps up, and the group is not to end again."""
        if self.roster.is_numbering:
            return False
        has_room = len(self.finished) < self.buffer or self.order.waits_for_enrolment or self._seeks_recorded
        return has_room and (self._phase is Phase.OPEN or self._looks_for_members)

    @property
    def _looks_for_members(self) -> bool:
        """Whether items are pulled to find members that had been enrolled before their group ended early."""
        roster = self.roster
        return roster.sealed_by is not None and not roster.is_full and len(self._parked) < _LOOK_AHEAD

    def _start(self, member: Member, frame: Frame, now: float) -> None:
        self._running[member.index] = member
        if frame.is_recorded:
            if self._is_recovered_at_once(member, frame):
                return
            member.is_recovering = True
            self._recovering += 1
        else:
            self._slots.take(member)
            self._count_start(member, now)
            frame.settled = self._member_settled
            if frame.retry is not None and frame.cached_as is None:  # those who hold slots may wait for a cached one
                frame.slot = LentSlot(self._slots, member)
        task = self._create_task(member, frame)
        if task is None or member.index not in self._running:
            return
        member.task = task
        # A task that is cancelled before its first step never gets to its `finally`.
        if not member.has_begun:
            task.add_done_callback(self._never_began)

    def _create_task(self, member: Member, frame: Frame) -> asyncio.Task[None] | None:
        """The task of a member. If the event loop's task factory raises, that ends the group, as nothing can begin."""
        steps = self._execute(member, frame)
        try:
            return self._loop.create_task(steps, context=member.context)
        except BaseException as error:
            self._group.failed(noted(error, "raised by the event loop; a task factory takes `context=`"))
            steps.close()
            if member.index in self._running:
                self._end(member, None)
            if isinstance(error, Exception):
                return None
            raise

    def _count_start(self, member: Member, now: float) -> None:
        if not member.is_counted:
            member.is_counted = True
            self._group.started(member, now)

    def _park(self, member: Member, now: float) -> None:
        """Let a member wait for the end of its group. One that an earlier execution cancelled counts as running."""
        self._parked[member.index] = member
        if member.recorded is Recorded.CUT_OFF and member.key is not None:
            self._count_start(member, now)
            self.order.passed(member.key)

    @property
    def _is_stuck(self) -> bool:
        """Whether nothing goes on, because all that is left waits for the group to end again."""
        if self._phase is not Phase.SEALED or self._running or self._fills_soon:
            return False
        if self.roster.waiting or self.roster.is_numbering:
            return False
        if self._feeder is not None and (self._room is None or self._room.done()):
            return False
        return bool(self._parked) or self.roster.has_sources

    def _go_on(self) -> None:
        """The block waits, and nothing goes on: end the group as it ended before. If it is another group, open it."""
        self._group.repeat_ending()
        if self.is_halted:
            return
        self.unjudged, self._first_failure = True, 0
        parked, self._parked = self._parked, {}
        for member in parked.values():
            if member.recorded is Recorded.CUT_OFF:
                assert member.key is not None
                member.frame = None
                member.key, member.tries = again_key(member.key), member.tries + 1
            self.roster.wait(member)
        self._judge_soon()
        self.fill()

    def _is_recovered_at_once(self, member: Member, frame: Frame) -> bool:
        """Whether a recorded member has ended already: it takes no task if nobody has to be waited for."""
        error: StoreError | None = None
        try:
            if not recover_nowait(frame):
                return False
        except StoreError as caught:
            error = caught
        self._recovered_at_once += 1
        self._end(member, error)
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
                member.task.add_done_callback(_retrieve)
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
        member = next((member for member in self._running.values() if member.task is task), None)
        if member is not None:
            self._end(member, None)

    def _end(self, member: Member, error: BaseException | None) -> None:
        del self._running[member.index]
        self._slots.give_back(member)
        self._recovering -= member.is_recovering
        self._group.ended(member, error)
        self._judge_soon()
        self.fill()
        self._wake()

    def _member_settled(self, frame: Frame) -> None:
        """The outcome of a member is recorded: whatever it has to do until its end, this is its place in the order."""
        assert frame.index is not None
        member = self._running[frame.index]
        member.is_settled = True
        self._completed.append(member.index)
        if self.is_halted and member.task is not None:  # it was left alone while its outcome was on its way
            member.task.cancel()

    def keep(self, member: Member, result: ExecutionResult[Any]) -> None:
        """Keep a result until it is read."""
        self.finished[member.index] = result
        if not member.is_settled:
            self._completed.append(member.index)
        if member.key is not None and self.order.knows(member.key):
            self._keys[member.index] = member.key

    def let_go_of(self, error: BaseException) -> None:
        """The group was left with this error: by its traceback it holds the group, which must not hold it any more."""
        for index, result in self.finished.items():
            if result.error is error:
                self.finished[index] = result.model_copy(update={"error": retold(error)})

    @property
    def is_recovering(self) -> bool:
        """Whether recorded outcomes are still on their way."""
        return self._recovering > 0 or self._fills_soon

    def count_running(self, is_such: Callable[[bytes], bool]) -> int:
        """How many members run whose key is such a one."""
        return sum(member.key is not None and is_such(member.key) for member in self._running.values())

    def count_settling(self) -> int:
        """How many members have finished, but for their outcome, which is on its way to the store."""
        return sum(member.frame is not None and member.frame.is_settling for member in self._running.values())

    @property
    def has_more_to_do(self) -> bool:
        """Whether an end now would cut anything off."""
        if self._parked or self._held or self._feeder is not None or not self.roster.is_empty:
            return True
        return not all(
            member.is_recovering or (member.frame is not None and member.frame.has_settled)
            for member in self._running.values()
        )

    def is_run_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether the task is one of the members'."""
        return task is not None and any(member.task is task for member in self._running.values())

    # -- async iterables ----------------------------------------------------------------------------------------------

    def _feed_in_background(self, source: Source) -> None:
        if self._feeder is None:
            self._start_feeder(source)
        elif self._room is not None and not self._room.done() and self._has_slot and self._may_pull:
            self._room.set_result(None)

    def _start_feeder(self, source: Source) -> None:
        steps = self._feed(source)
        try:
            task = self._loop.create_task(steps, name="rh_agents: pull items", context=source.context.copy())
        except BaseException as error:
            self._group.failed(noted(error, "raised by the event loop; a task factory takes `context=`"))
            steps.close()
            if not isinstance(error, Exception):
                raise
        else:
            self._feeder = task
            task.add_done_callback(self._feeder_done)

    async def _feed(self, source: Source) -> None:
        """Read an async iterable, and let go of it if it is not read to its end."""
        self._feeder = asyncio.current_task()  # an eager task makes its first step before anybody else knows it
        try:
            await self._feed_from(source)
        finally:
            if self._loop.is_running():
                await source.aclose()

    async def _feed_from(self, source: Source) -> None:
        """Pull items, each one when there is a slot for it."""
        while self.roster.async_source is source:
            if not self._has_slot or not self._may_pull:
                await self._wait_for_room()
                continue
            member = await self.roster.pull_async(source, self._loop.time)
            if member is not None:
                self.roster.wait(member)  # a slot may have been taken meanwhile
            self.fill()

    async def _wait_for_room(self) -> None:
        self._room = self._loop.create_future()
        if self._is_stuck:  # nothing goes on, so the block has to end the group again
            self._wake()
        try:
            await self._room
        finally:
            self._room = None

    def _feeder_done(self, feeder: asyncio.Task[None]) -> None:
        self._feeder = None
        if feeder.cancelled():
            if not self.is_halted and self.stop is None:
                self._group.failed(CallCancelled("the task that pulls items was cancelled, but not by its group"))
        elif (error := feeder.exception()) is not None:
            if isinstance(error, StopRun):
                self._note(error)  # the iterable makes calls itself; what runs comes to its end
            else:
                self._group.failed(error)
        self.fill()
        self._wake()

    # -- ending early, and waiting ------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        is_waiting = self._parked or self._held or not self.roster.is_empty
        return not self._running and not is_waiting and not self.roster.is_numbering and self._feeder is None

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
        self._recovers_on = False
        self._note(stop)
        self._end_parked()
        self._release_held()
        self.roster.leave_unnumbered()
        for error in self.roster.discard():
            self._group.failed(error)
        if self._feeder is not None:
            self._feeder.cancel()
        self._wake()

    def halt(self, *, dismiss: bool = False, insist: bool = False) -> None:
        """Start nothing more, and cancel what runs: once, unless somebody insists, so that it can clean up.

        A member whose outcome is on its way to the store is waited for: it will be found there when the run is executed
        again, so the program gets it now. `dismiss`: because the program has no more use for it.
        """
        cancels = insist or not self.is_halted
        self._recovers_on = dismiss and self.order.has_members and (self._recovers_on or not self.is_halted)
        self.has_ended_early = self.has_ended_early or (dismiss and not self.is_halted)
        self.is_halted = True
        if dismiss:
            self.forget_stop()
            for member in self._running.values():
                if member.frame is not None:
                    member.frame.is_dismissed = True
        self.discard()
        for member in self._running.values():
            if member.task is not None and cancels and not self._is_spared(member):
                if member.frame is not None:
                    member.frame.is_cancelled = True
                member.task.cancel()
        if self._recovers_on:
            self.fill()
        else:
            self._end_parked()
        self._wake()

    def take_late(self, member: Member) -> None:
        """The group has ended early: a member that comes now is recovered, if it can be, and else never begins."""
        if member.is_numbered and not self._prepare(member).is_recorded:
            close_unstarted(member.work)
            return
        self._recovers_on = True
        self.roster.wait(member)
        self.fill()

    def _is_spared(self, member: Member) -> bool:
        """Whether a member comes to its end though the group does: its outcome is recorded, or will be in a moment."""
        if member.is_recovering:
            return self._recovers_on
        return member.frame is not None and member.frame.is_settling

    def discard(self) -> None:
        """Forget what has not begun, but for what is recorded, if that is still to be recovered."""
        self._release_held()
        recovers = self._recovers_on
        keeps_sources = recovers and self._looks_for_members
        keep = self._may_be_recorded if recovers else None
        for error in self.roster.discard(keep=keep, keep_sources=keeps_sources):
            self._group.failed(error)
        if self._feeder is not None and not keeps_sources:
            self._feeder.cancel()

    def _may_be_recorded(self, member: Member) -> bool:
        return not member.is_numbered or self._prepare(member).is_recorded

    def _finish_recovery(self) -> None:
        """The group is ending, and what is recorded of it has been recovered: the rest ends."""
        if not self._recovers_on or self._recovering or self._fills_soon or self.roster.waiting:
            return
        is_reading = self._looks_for_members and self.roster.has_sources
        if is_reading and (self.roster.async_source is not None or not self._may_pull):
            return  # more may come, or the reader of the results has to make room
        self._recovers_on = False
        self.discard()
        self._end_parked()

    def _end_parked(self) -> None:
        parked, self._parked = self._parked, {}
        for member in parked.values():
            self._running[member.index] = member
            self._end(member, None)

    def forget_stop(self) -> None:
        """The program wants nothing more of the group, so nobody waits for what its members wait for."""
        if not self.is_draining:
            self.stop = None

    async def breathe(self) -> None:
        """Let others use the event loop."""
        await asyncio.sleep(0)

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
        if self._waiters and (self.is_streamed or self.is_idle or self._is_stuck):
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def join(self) -> None:
        """Wait until every task has ended. A cancellation meanwhile reaches them too, and is raised when they have."""
        cancelled: asyncio.CancelledError | None = None
        self.buffer = float("inf")  # nobody reads any more, so there is nobody to wait for
        self.fill()
        while not self.is_idle:
            try:
                await self.change()
            except asyncio.CancelledError as error:
                cancelled = error
                self.halt(insist=True)
        if cancelled is not None:
            raise cancelled

    @property
    def results(self) -> list[ExecutionResult[Any]]:
        """What has finished so far and no stream has given, in order of index."""
        return [self.finished[index] for index in sorted(self.finished)]

    # -- for streams --------------------------------------------------------------------------------------------------

    def take_completed(self) -> ExecutionResult[Any] | None:
        """The result that was completed first, the recorded ones of an earlier execution before all others."""
        self._pull_ahead()
        if self.roster.is_numbering and self.order.has_members:
            return None  # one of them may come first
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
            index = self._completed[0]
            if index not in self.finished and index in self._running:
                return None  # its outcome is recorded before those of the others, and comes in a moment
            self._completed.popleft()
            if index in self.finished:
                return index
        return None

    def _pull_ahead(self) -> None:
        """Enrol members until the one that the recorded order wants next is among them, or cannot come any more."""
        while self.order.waits_for_enrolment and not self.is_halted and self._may_pull:
            member = self.roster.pull(self._loop.time())
            if member is None:
                break
            self.roster.wait(member)
            if self.roster.waiting > _LOOK_AHEAD:
                self.order.skip_missing()
        looks_for_more = self.roster.has_sources and (self._phase is Phase.OPEN or self._looks_for_members)
        looks_for_more = looks_for_more or self.roster.is_numbering
        if not looks_for_more and not self.is_draining:  # what a stop discarded comes when the run goes on
            self.order.skip_missing()
        self.fill()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at a task's exception, so that asyncio does not log that nobody did."""
    if not task.cancelled():
        task.exception()
