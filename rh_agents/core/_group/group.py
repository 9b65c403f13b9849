"""A group under way: what its members are, and what their ends mean for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from rh_agents.core._group.ending import Ending, GroupOptions, recorded_ending
from rh_agents.core._group.members import (
    FUNCTION_ACTOR,
    NO_ITEM,
    Member,
    callable_again,
    close_unstarted,
    given_to,
    raising,
    starter,
)
from rh_agents.core._group.recovery import RecoveredCalls
from rh_agents.core._group.roster import Roster
from rh_agents.core._group.scheduler import Scheduler
from rh_agents.core._group.stream import ResultStream
from rh_agents.core._limits.ledgers import Ledger
from rh_agents.core._replay.decision import Recorded
from rh_agents.core._replay.identity import address_of_member, group_key, place_of_members
from rh_agents.core._replay.order import RecordedOrder
from rh_agents.core._replay.steered import is_named
from rh_agents.core._run.frame import Frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.runner import recovered_fact
from rh_agents.core._run.tracing import TracedGroup
from rh_agents.core.calls import ActorCall, Call
from rh_agents.core.errors import CallCancelled, StopRun
from rh_agents.core.groups import EndingCause, ErrorStrategy, GroupStatus, ParallelEventGroup
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.ports.executors import Placement, Recall, sharding
from rh_agents.core.ports.present import GroupState
from rh_agents.core.redaction import registered, without_secrets
from rh_agents.core.results import ExecutionResult, Outcome, describe_error, failure
from rh_agents.core.tracking import ParallelGroupTracker, group_fact
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = ["Group"]


def _is_named(item: str, member: Member) -> bool:
    return member.frame is not None and is_named(item, member.label, member.frame.address, member.key)


class Group:
    """The group of one `async with` block, from its beginning to its end. It decides what its `Scheduler` does not.

    Args:
        run: the run it belongs to.
        frame: the call whose body has the block.
        options: what the program wants of it.
        tracker: counts what becomes of its members.
    """

    def __init__(self, run: RunParts, frame: Frame, options: GroupOptions, tracker: ParallelGroupTracker) -> None:
        self.run: RunParts = run
        self.frame: Frame = frame
        self.options: GroupOptions = options
        self.number: int = 0
        """How many groups of this name the call has opened before."""
        self.tracker: ParallelGroupTracker = tracker
        self.group_id: str = self._new_id()
        recorded = run.recording.recorded
        order = RecordedOrder(run.recording.order_of(self.group_id), recorded.steered.further)
        sealed_by = recorded_ending(run, frame, self.group_id, options)
        self.roster: Roster = Roster(run, frame, options.name, self.group_id, order, sealed_by)
        workers = run.settings.max_workers_of(options.name, options.max_workers)
        self.scheduler: Scheduler = Scheduler(run, self.roster, order, workers, self)
        self.scheduler.finished.given = self._given
        self.ending: Ending = Ending(run, frame, options, self.scheduler, tracker)
        self._task = asyncio.current_task()
        self._place = place_of_members(frame.address, options.name)
        self.names: dict[int, str] = {}
        """Of members that have one, by index."""
        recovered = RecoveredCalls(run, self.roster, self.scheduler.finished, tracker, self._place, self.names)
        self.scheduler.recovery.give = recovered.give
        of_members = (options.retry, options.item_timeout, options.breaker, options.limits or None, options.budget)
        self._adds_to_members = any(each is not None for each in of_members)
        self._not_ok = 0
        self._recovered_failures: dict[bytes, tuple[Member, ExecutionResult[object]]] = {}
        self._released: AbstractAsyncContextManager[None] | None = None
        self._recall: Recall | None = None
        self.placement: Placement | None = None
        """Who has its members made in other processes; None if they are made here."""
        self._trace: TracedGroup | None = None
        self._ledger: Ledger | None = None
        if options.budget is not None:
            place, what = f"g{self.group_id}", f"the group {options.name}"
            self._ledger = run.budgets.open_part(options.budget, place, what, frame.depth)

    def _new_id(self) -> str:
        if not self.run.records:
            return self.run.new_id()
        name = self.options.name
        self.number = self.frame.count(b"group:" + name.encode("utf-8", "surrogatepass"))
        return group_key(self.frame.base, name, self.number).hex()[:32]

    # -- the block ----------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """The block is entered."""
        frame, options, tracker = self.frame, self.options, self.tracker
        frame.group_began(options.name, self.roster)
        self.run.interruption.watch(self._drain)
        self.run.open_groups[self.group_id] = self
        self.run.settings.know(options.limits)
        tracker.status = GroupStatus.RUNNING
        tracker.group_id = self.group_id
        tracker.about = ParallelEventGroup(
            group_id=self.group_id,
            name=without_secrets(options.name),
            address=place_of_members(frame.address, options.name),
            parent_group_id=frame.innermost_group,
            error_strategy=options.failure_policy.strategy,
            max_workers=options.max_workers,
        )
        if self.run.tracing is not None:
            self._trace = self.run.tracing.open_group(tracker.about)
        try:
            await self._tell(EventType.GROUP_STARTED)
        except BaseException:
            await self.close(GroupStatus.CANCELLED)
            raise
        if not self.scheduler.order.has_members:
            self.ending.start_timer()
        if frame.permits is not None:  # what waits for members holds no slot meanwhile
            self._released = frame.permits.released(gives_result=True)
            await self._released.__aenter__()

    @property
    def name(self) -> str:
        """What the program calls it."""
        return self.options.name

    @property
    def running(self) -> int:
        """How many members run."""
        return self.scheduler.slots.taken

    @property
    def max_workers(self) -> int:
        """How many may run at most."""
        return self.options.max_workers

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """The budgets that count what its members spend."""
        return self.frame.ledgers if self._ledger is None else (*self.frame.ledgers, self._ledger)

    def set_max_workers(self, count: int) -> None:
        """So many members run at most from now on; those that do already come to their end."""
        if self.placement is not None:
            self.placement.set_max_workers(count)
            return
        self.scheduler.slots.resize(count)
        self.scheduler.fill()

    def cancel_members(self, items: Sequence[str], why: str) -> int:
        """Cancel members that run, by name; how many there were."""
        found = [member for member in self._running_members() if any(_is_named(each, member) for each in items)]
        for member in found:
            assert member.frame is not None
            member.frame.withdrawn = why
            if member.has_begun and member.task is not None:  # else it finds that when it begins
                member.task.cancel()
        return len(found)

    def count_named(self, items: Sequence[str]) -> int:
        """How many members run that are named so."""
        return sum(any(_is_named(each, member) for each in items) for member in self._running_members())

    def _running_members(self) -> list[Member]:
        """Those that can be cancelled: their outcome is not on its way."""
        return [
            member
            for member in self.scheduler.running.values()
            if member.frame is not None
            and not (member.is_recovering or member.frame.has_settled or member.frame.is_cancelled)
        ]

    # -- members that are made again because somebody asked for it ----------------------------------------------------

    @property
    def _makes_again(self) -> bool:
        """Whether members can begin at all: nothing ends the group, its time is not over, and nothing stops the run."""
        is_ending = self.scheduler.is_halted or self.scheduler.is_draining or self.ending.is_expired
        return self.tracker.status is GroupStatus.RUNNING and not is_ending

    def replaceable(self, keys: Collection[bytes]) -> list[Any]:
        """Members with these keys that have failed, and of whose failure the program does not know."""
        return self.scheduler.finished.replaceable(keys) if self._makes_again else []

    def make_again(self, member: Any) -> None:
        """Let such a member be made again, in place of its failure."""
        self._uncount(member)
        self.scheduler.finished.withdraw(member)
        member.make_again()
        self.roster.wait(member)
        self.scheduler.fill()

    def followable(self, keys: Iterable[bytes]) -> list[bytes]:
        """Of these keys, those of failures that its stream has given, or will give again, and can let a further result
        follow. A group that ends as it did before makes nothing.
        """
        if not self.options.requeue or not self._makes_again or self.roster.sealed_by is not None:
            return []
        return [key for key in keys if self.scheduler.finished.can_follow(key)]

    def make_further(self, key: bytes) -> None:
        """The journal says that another try follows this failure: begin it, unless the failure is still to be given."""
        member = self.scheduler.finished.take_given(key)
        if member is not None:
            self._make_further(member)
            self.scheduler.fill()

    def _given(self, member: Member) -> bool:
        """A stream gives a failure; whether its member is made again, or may be."""
        if self.run.recording.recorded.is_followed(member.key):
            self._make_further(member)
            return True
        if self.options.requeue:
            self.scheduler.finished.keep_given(member)
        return self.options.requeue

    def _make_further(self, member: Member) -> None:
        scheduler = self.scheduler
        if scheduler.is_draining or self.tracker.status is not GroupStatus.RUNNING:
            return  # the next execution makes it
        self._uncount(member)
        self.roster.enrol_again(member, asyncio.get_running_loop().time())
        if scheduler.is_halted:
            scheduler.take_late(member)
        else:
            self.roster.wait(member)

    async def idle_with_newest(self) -> None:
        """Wait until nothing runs, and each member has its newest result. A failure that no stream has given, since it
        was left before, gives way to the try that was asked for when the stream was still to give it.
        """
        self._replace_followed()
        await self.scheduler.idle()
        while self._replace_followed():
            await self.scheduler.idle()

    def _replace_followed(self) -> bool:
        if not self._makes_again:
            return False
        finished, is_followed = self.scheduler.finished, self.run.recording.recorded.is_followed
        members = finished.unread_failures(is_followed)
        for member in members:
            was_given_before = member.is_requeued
            finished.withdraw(member)
            self._make_further(member)
            member.is_requeued = was_given_before
        self.scheduler.fill()
        return bool(members)

    def _uncount(self, member: Member) -> None:
        """The failure of a member counts no more."""
        tracker = self.tracker
        self.ending.forget_recorded()
        if member.ended_as is ExecutionStatus.CANCELLED:
            tracker.cancelled -= 1
        else:
            tracker.failed -= 1
            tracker.recovered -= member.recorded is Recorded.FINISHED
        self._not_ok -= member.is_judged
        if member.key is not None:
            self._recovered_failures.pop(member.key, None)

    async def has_been_left(self, error: BaseException | None) -> None:
        """The block has been left, with its results or with an error: what waited for members goes on."""
        released, self._released = self._released, None
        try:
            if error is not None:
                self._let_go_of(error)
            if isinstance(error, StopRun):
                await self.frame.let_others_end()
        except BaseException as raised:
            if released is not None:
                await released.__aexit__(type(raised), raised, None)
            raise
        if released is not None:
            await released.__aexit__(None if error is None else type(error), error, None)

    def _let_go_of(self, error: BaseException) -> None:
        """Say in the error what else there is to say, and do not hold it any more: by its traceback it holds the group,
        with all that its members had in their hands when they failed.
        """
        self.ending.reason.add_unseen(error)
        self.ending.let_go()
        self._recovered_failures.clear()
        self.scheduler.finished.let_go_of(error)

    async def close(self, status: GroupStatus) -> None:
        """The block has been left, and nothing runs any more."""
        if self.placement is not None:
            about = self.tracker.about
            goes_on = status is not GroupStatus.COMPLETED and (about is None or about.ending is None)
            await self.placement.aclose(goes_on=goes_on)
        if self._recall is not None:
            await self._recall.aclose()
        if self._ledger is not None:
            self._ledger.close()
        self.run.interruption.unwatch(self._drain)
        self.run.open_groups.pop(self.group_id, None)
        self.frame.group_ended(self.options.name, self.roster)
        self.tracker.status = status
        self.run.counter.count_group(self.ending.snapshot())
        self.ending.close(status)
        try:
            await self._tell(EventType.GROUP_COMPLETED)
            await self.run.recording.flush()
            await self.ending.acknowledge()
        finally:
            if self._trace is not None:
                why = self.ending.find_reason()
                self._trace.close(self.ending.snapshot(), None if why is None else describe_error(why))
            self.scheduler.finished.close()
            self.scheduler.close()

    async def _tell(self, kind: EventType) -> None:
        run = self.run
        fact = group_fact(kind, self.ending.snapshot(), run.run_id, run.now())
        await run.record(fact)
        await run.publish(fact)

    def stream(self, *, ordered: bool) -> ResultStream:
        """The results, as they come or as the members were enrolled."""
        return ResultStream(self.scheduler, self.conclude, self.end, ordered=ordered)

    def start_what_came(self) -> None:
        """There is more work."""
        if self.ending.is_expired:
            self.ending.time_is_up()  # nothing was left to be cut off when it was; now there is
        self.scheduler.fill()

    def conclude(self) -> None:
        """Nothing runs any more: see whether the group has ended early by that."""
        self.ending.end_if_it_ended_here()
        self.judge()

    async def end(self) -> None:
        """Nothing runs any more: record and say what became of the group, if that is not just its results.

        What was asked of a group that takes requests, by now, is done before its results are all.
        """
        if self.options.requeue and self._makes_again:
            await self.run.steering.look()
        await self.ending.acknowledge()
        self.conclude()
        self.ending.raise_reason()
        self.raise_stop()

    def raise_stop(self) -> None:
        """Some members have no result because the run is being stopped, or waits for somebody."""
        if self.scheduler.stop is not None:
            self.frame.report_stop(self.scheduler.stop)
            raise self.scheduler.stop

    def _drain(self) -> None:
        """The run is being stopped."""
        try:
            self.run.interruption.expect_running()
        except StopRun as stop:
            self.scheduler.drain(stop)
        if self.run.interruption.is_cut_off:
            self.ending.halt()

    # -- what others see of it ----------------------------------------------------------------------------------------

    @property
    def state(self) -> GroupState:
        """The group as others see it while it is open; who counts the calls under way knows how many slots they use."""
        tracker, about = self.tracker, self.tracker.about
        return GroupState(
            self.group_id,
            without_secrets(self.options.name),
            "" if about is None else about.address,
            0,
            self.options.max_workers,
            tracker.finished,
            self.roster.total,
            self.options.requeue and self._makes_again and self.roster.sealed_by is None,
            tracker.failed,
            tracker.started + tracker.recovered,
        )

    @property
    def counted(self) -> ParallelGroupTracker:
        """Its counts now, with the members that run, for a display that looks at it from time to time."""
        running = {
            member.index: (without_secrets(member.label), member.frame.began_at)
            for member in self.scheduler.running.values()
            if member.frame is not None and member.frame.began_at and not member.is_recovering
        }
        roster = self.roster
        return replace(self.tracker, total=roster.total, enrolled=roster.enrolled, running=running)

    @property
    def breaker(self) -> CircuitBreaker | None:
        """That of members which have none themselves."""
        return self.options.breaker

    # -- members ------------------------------------------------------------------------------------------------------

    def make_frame(self, member: Member) -> Frame:
        """What to execute for a member."""
        work, label, options = member.work, member.label, self.options
        actor = work.actor if isinstance(work, Call) else FUNCTION_ACTOR
        shown = without_secrets(label) if registered.anything else label
        address = address_of_member(self._place, member.index, shown)
        about = (self.frame, actor, label, shown, member.key, member.tries, True)
        frame = Frame(self.run, member.base or b"", address, self.group_id, *about)
        if isinstance(work, Call):
            try:
                work.prepare(frame)
                if actor.cache is not None:
                    work.share(frame, member.identities)
            except Exception as error:  # noqa: BLE001 - for instance its input cannot be cached: it alone fails
                frame.begin = raising(error)
        else:
            frame.begin = starter(work)
            frame.given = given_to(work)
        if self._adds_to_members:
            frame.retry = frame.retry or options.retry
            frame.timeout = frame.timeout or options.item_timeout
            frame.breaker = frame.breaker or options.breaker
            frame.limits = (*frame.limits, *(limit for limit in options.limits if limit not in frame.limits))
            frame.ledgers = self.ledgers
        frame.group_id = self.group_id
        frame.caller = self._task
        frame.index = member.index
        frame.among = self.roster
        if member.elsewhere is not None:
            frame.elsewhere = member.elsewhere
        elif self._recall is not None or self.run.shards_left:
            frame.elsewhere = self._made_after_recall()
        steered = self.run.recording.recorded.steered
        if steered.cancelled:
            frame.withdrawn = steered.why_cancelled(label, address, member.key, member.base)
        return frame

    def _made_after_recall(self) -> Callable[[Frame], Awaitable[ExecutionResult[Any]]] | None:
        """How a member is made here of which workers may have an outcome, of an execution that had shards."""
        if self.placement is None and self.group_id in self.run.shards_left:
            self._recall = sharding().recall(self)
        return None if self._recall is None else self._recall.made

    def started(self, member: Member, now: float) -> None:
        """A member has taken a slot, or counts as if it had. It may be made again, and counts once."""
        if member.is_counted:
            return
        member.is_counted = True
        if self.options.timeout is not None:
            self.ending.start_timer()
        self.tracker.count_start(now, now - member.enrolled_at)

    def ended(self, member: Member, error: BaseException | None) -> None:
        """Count a member that has ended, keep its result, and see what a failure means for the others."""
        frame, scheduler = member.frame, self.scheduler
        if frame is None:  # it never began
            close_unstarted(member.work)
            if member.is_counted:
                self._count(None, 0, None)
            return
        result = frame.result
        if frame.cleanup_problem:
            self.ending.reason.note_cleanup(frame.address, frame.cleanup_problem)
        if not frame.has_begun:
            close_unstarted(member.work)
        if isinstance(error, StopRun):
            result = None
            if error.shortfall is not None and self._is_charged_to(error.shortfall.place):
                scheduler.drain(error)  # no other member could begin either
        elif error is not None:
            self.failed(error)
        elif result is None and not (scheduler.is_halted or scheduler.is_draining):
            cancelled = CallCancelled(f"{frame.name or 'the call'} was cancelled, but not by its group")
            result = failure(cancelled, None, frame.attempts, frame.name, frame.index, frame.address)
        if result is not None or member.is_counted:
            member.ended_as = self._count(result, frame.attempts, frame.ended_at)
        if result is not None:
            self._take(member, result)

    def recovered(self, member: Member, outcome: Outcome) -> None:
        """The same for one that has its recorded outcome at once: nothing is called, and nobody listens."""
        run, work = self.run, member.work
        address = address_of_member(self._place, member.index, without_secrets(member.label))
        result = outcome.as_result(member.index, address)
        close_unstarted(work)
        if run.history.limit != 0:
            actor = work.actor if isinstance(work, Call) else FUNCTION_ACTOR
            marks = work.marks if isinstance(work, ActorCall) else None
            about = (actor, member.label, address, member.key, self.group_id, member.index, self.roster.total, marks)
            run.history.add(recovered_fact(run, outcome, result, *about))
        member.ended_as = self._count(result, 0, None)
        self._take(member, result)

    def _take(self, member: Member, result: ExecutionResult[object]) -> None:
        scheduler, recorded = self.scheduler, self.run.recording.recorded
        if self.run.records and member.key is not None:
            is_settled = member.is_settled or member.recorded is Recorded.FINISHED
            self.ending.note_recorded(member.key, result, is_settled=is_settled)
        if member.is_requeued:
            result = result.model_copy(update={"requeued": True})
        if member.item is not NO_ITEM:
            vars(result)["item"] = member.item
        if member.held is not None:
            member.held.result = result
        scheduler.finished.keep(member, result)
        if not result.ok and self._can_make_again(member):
            scheduler.finished.keep_failed(member)
        if member.name is not None and not scheduler.finished.is_streaming:
            self.names[member.index] = member.name
        if isinstance(member.work, Call):
            self.run.counter.actors[member.work.actor.name].add(result)
        if result.ok or scheduler.is_halted or recorded.is_withdrawn(member.key) or recorded.is_followed(member.key):
            return  # what another try follows has ended nothing, and counts no more
        if member.key is not None and (member.recorded is Recorded.FINISHED or self.ending.replayed is not None):
            self._recovered_failures[member.key] = (member, result)
            if self.ending.replayed is None:
                scheduler.recovery.note_failure(member.key)
        else:
            self._judge_one(member, result)

    def _can_make_again(self, member: Member) -> bool:
        """Whether a member that has failed can be made again, in place of its failure or after it."""
        if member.key is None or not callable_again(member.work):
            return False
        is_followed = self.options.requeue or self.run.recording.recorded.is_followed(member.key)
        return member.recorded is Recorded.NOTHING or is_followed

    def failed(self, error: BaseException) -> None:
        """Something that no group may swallow: it ends this one."""
        self.ending.halt(error)

    def repeat_ending(self) -> None:
        """Nothing goes on: end the group as an earlier execution did, unless it is another group than that."""
        self.judge()
        self.ending.repeat_ending()

    def judge(self) -> None:
        """See what recovered failures mean, in the order in which they happened: the first one ended the group."""
        if self.ending.replayed is not None:
            return  # it is recorded what ended it
        self.scheduler.recovery.judged()
        failures, self._recovered_failures = self._recovered_failures, {}
        if len(failures) > 1:
            order = {key: place for place, key in enumerate(self.run.recording.order_of(self.group_id))}
            failures = dict(sorted(failures.items(), key=lambda item: order.get(item[0], len(order))))
        for member, result in failures.values():
            if not self.scheduler.is_halted:
                self._judge_one(member, result)

    def _judge_one(self, member: Member, result: ExecutionResult[object]) -> None:
        """See what a failure means for the others."""
        self._not_ok += 1
        member.is_judged = True
        policy = self.options.failure_policy
        reason = policy.verdict(result, self._not_ok, self.tracker.finished, self.options.name)
        if reason is None:
            return
        is_fast = policy.strategy is ErrorStrategy.FAIL_FAST
        cause = EndingCause.FAILED_FAST if is_fast else EndingCause.FAIL_AFTER
        self.ending.halt(reason, cause, member.key, None if is_fast else str(reason))

    def _is_charged_to(self, place: str) -> bool:
        """Whether the budget of this part of the run counts what members of the group spend."""
        around = self.frame.all_ledgers
        ledgers = around if self._ledger is None else (self._ledger, *around)
        return any(ledger.place == place for ledger in ledgers)

    def _count(self, result: ExecutionResult[object] | None, attempts: int, ended_at: float | None) -> ExecutionStatus:
        """Count the end of a member; returns as what."""
        tracker, seconds = self.tracker, None
        if attempts > 1:
            tracker.retries += attempts - 1
        if result is None or isinstance(result.error, CallCancelled):
            status = ExecutionStatus.CANCELLED
        else:
            status = ExecutionStatus.COMPLETED if result.ok else ExecutionStatus.FAILED
            if result.is_replayed:
                tracker.recovered += 1
            else:
                seconds = result.execution_time
        tracker.count_end(status, ended_at or asyncio.get_running_loop().time(), seconds)
        return status
