"""Groups: calls that run side by side, of which none is lost.

    async with state.parallel(max_workers=20, name="pages") as p:
        for url in urls:
            p.add(fetch(url))
        results = await p.gather()

The group owns every task that it starts: when its block has ended, all of them have. Members wait as plain objects;
only one that runs has a task, with a context of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

from rh_agents.core._group.failures import FailurePolicy
from rh_agents.core._group.members import (
    FUNCTION_ACTOR,
    Member,
    Source,
    Work,
    check_work,
    close_unstarted,
    learn_types,
    raising,
    starter,
)
from rh_agents.core._group.reasons import Reason, add_failures
from rh_agents.core._group.roster import Roster
from rh_agents.core._group.scheduler import Scheduler
from rh_agents.core._group.stream import ResultStream
from rh_agents.core._limits.ledgers import Ledger
from rh_agents.core._replay.address import child_address, member_address
from rh_agents.core._replay.decision import can_end_again
from rh_agents.core._replay.keys import group_key
from rh_agents.core._replay.order import RecordedOrder
from rh_agents.core._replay.stops import stop_behind
from rh_agents.core._run.cancellations import cancellations, is_cut_off
from rh_agents.core._run.frame import Frame, current_frame, root_of
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import Call
from rh_agents.core.errors import (
    CallCancelled,
    GroupError,
    GroupTimeout,
    StopRun,
    StoreError,
    TooManyFailures,
    UnreadFailures,
    UsageError,
)
from rh_agents.core.events import group_event
from rh_agents.core.groups import (
    EndingCause,
    ErrorStrategy,
    GroupEnding,
    GroupStatus,
    ParallelDisplayMode,
    ParallelEventGroup,
)
from rh_agents.core.policies._checks import at_least, number
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.budget import Budget, expect_budget
from rh_agents.core.policies.limits import Limit
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.redaction import without_secrets
from rh_agents.core.results import ExecutionResult, describe_error, failure
from rh_agents.core.runs import Run
from rh_agents.core.tracking import ParallelGroupTracker
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = [
    "ErrorStrategy",
    "GroupStatus",
    "ParallelDisplayMode",
    "ParallelEventGroup",
    "ParallelExecutionManager",
    "ParallelGroupTracker",
    "ResultStream",
]

_UNNAMED = "parallel"
_WITH_A_REASON = (EndingCause.FAILED_FAST, EndingCause.FAIL_AFTER, EndingCause.TIMED_OUT)
"""What may end a group at any time, without its block's doing, so that the block has to be told of it."""


class ParallelExecutionManager:
    """A group of calls that run side by side; `ExecutionState.parallel` and `rh_agents.parallel` make one.

    Args:
        execution_state: the run to which the calls belong.
        max_workers: how many members may run at the same time.
        error_strategy: FAIL_SLOW gives every result; FAIL_FAST cancels the others at the first failure and raises it.
        timeout: seconds for the whole group, from entering its block. Then what runs is cancelled, and the block's
            next `gather`, `stream` or end raises `GroupTimeout`. Code of the block itself is not interrupted.
        name: part of the identity and the address of its members, and shown to people.
        fail_after: stop after so many failures (an int), or after this share of the finished members (a float up to
            1.0, judged on ten finished members or more), with `TooManyFailures`.
        item_timeout: seconds for each attempt of a member whose actor states no timeout.
        retry: for members whose actor states none: a `RetryPolicy`, or the number of attempts.
        breaker: for members whose actor states none; may be shared between groups.
        limits: what each attempt of a member waits for, besides the limits of its actor; may be shared between groups.
        budget: what all members may spend together, what they spent in earlier executions included.
    """

    def __init__(
        self,
        execution_state: Run,
        max_workers: int = 5,
        error_strategy: ErrorStrategy | str = ErrorStrategy.FAIL_SLOW,
        timeout: float | None = None,
        name: str | None = None,
        *,
        fail_after: int | float | None = None,
        item_timeout: float | None = None,
        retry: RetryPolicy | int | None = None,
        breaker: CircuitBreaker | None = None,
        limits: Limit | Sequence[Limit] = (),
        budget: Budget | None = None,
    ) -> None:
        self.name: str = name or _UNNAMED
        self.max_workers: int = at_least(1, "max_workers", max_workers)
        self.error_strategy: ErrorStrategy = ErrorStrategy(error_strategy)
        self.timeout: float | None = _positive("timeout", timeout)
        self.item_timeout: float | None = _positive("item_timeout", item_timeout)
        self._failure_policy = FailurePolicy(self.error_strategy, fail_after)
        self.retry: RetryPolicy | None = RetryPolicy.of(retry)
        self.breaker = breaker
        self.limits: tuple[Limit, ...] = (limits,) if isinstance(limits, Limit) else tuple(limits)
        self.budget: Budget | None = expect_budget(budget)
        self._ledger: Ledger | None = None
        self._lent: AbstractAsyncContextManager[None] | None = None
        self._has_defaults = not (retry is None and item_timeout is None and breaker is None)
        self._run: RunParts = execution_state.parts
        self._ending: GroupEnding | None = None
        self._known_results = 0
        self._told_ending = False
        self._is_forced = False
        self._recorded_reason: BaseException | None = None
        self._cancellations = 0
        self._tracker = ParallelGroupTracker(group_id="", name=self.name)
        self._timer: asyncio.TimerHandle | None = None
        self._names: dict[int, str] = {}
        self._gathered = 0
        self._not_ok = 0
        self._recovered_failures: dict[bytes, ExecutionResult[Any]] = {}
        self._stream: ResultStream | None = None
        self._expired = False
        self._reason = Reason(self.name)

    # -- the block ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._tracker.status is not GroupStatus.PENDING:
            raise UsageError(f"group {self.name!r} has been entered before; make a new one with parallel()")
        run = self._run
        await run.open()
        current = current_frame.get()
        frame = current if current is not None and current.run is run else root_of(run)
        self._frame = frame
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        frame.expect_no_stop(self._task)
        self._cancellations = cancellations()
        if run.records:
            number = frame.count(b"group:" + self.name.encode("utf-8", "surrogatepass"))
            self.group_id: str = group_key(frame.base, self.name, number).hex()[:32]
        else:
            self.group_id = run.new_id()
        order = RecordedOrder(run.recording.order_of(self.group_id))
        self._roster = Roster(run, frame, self.name, self.group_id, order)
        self._roster.sealed_by = self._find_ending() if run.records else None
        self._scheduler = Scheduler(
            run,
            self._roster,
            order,
            self.max_workers,
            make_frame=self._make_frame,
            started=self._member_started,
            ended=self._member_ended,
            failed=self._halt,
            judge=self._judge,
            end_again=self._end_again,
        )
        if self.budget is not None:
            self._ledger = run.budgets.open_part(
                self.budget, f"g{self.group_id}", f"the group {self.name}", frame.depth
            )
        frame.group_began(self.name, self._roster)
        run.interruption.watch(self._drain)
        self._tracker.status = GroupStatus.RUNNING
        self._tracker.group_id = self.group_id
        self._tracker.about = ParallelEventGroup(
            group_id=self.group_id,
            name=without_secrets(self.name),
            address=child_address(frame.address, self.name, 0),
            parent_group_id=frame.innermost_group,
            error_strategy=self.error_strategy,
            max_workers=self.max_workers,
        )
        try:
            await self._tell(EventType.GROUP_STARTED)
        except BaseException:
            await self._close(GroupStatus.CANCELLED)
            raise
        if self._replayed is None and not order.has_members:
            self._start_timer()
        if frame.passage is not None:  # what waits for members holds no slot meanwhile
            self._lent = frame.passage.lent(gives_result=True)
            await self._lent.__aenter__()
        return self

    def _start_timer(self) -> None:
        """Measure the timeout from now on: from entering the block, or from the first call that is really made.

        Until then, recorded outcomes are read, which takes other time than the calls took that were made before; and a
        group that ends again as it did, when nothing else goes on, has no timeout.
        """
        if self.timeout is not None and self._timer is None:
            self._timer = self._loop.call_later(self.timeout, self._time_is_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lent, self._lent = self._lent, None
        try:
            await self._leave(error)
            if error is not None:
                self._reason.add_unseen(error)
        except BaseException as raised:
            self._reason.add_unseen(raised)
            if isinstance(raised, StopRun):
                await self._frame.let_others_end()
            if lent is not None:
                await lent.__aexit__(type(raised), raised, raised.__traceback__)
            raise
        if isinstance(error, StopRun):
            await self._frame.let_others_end()
        if lent is not None:
            await lent.__aexit__(kind, error, trace)

    async def _leave(self, error: BaseException | None) -> None:
        """The block has come to its end, or `error` ended it."""
        status = GroupStatus.CANCELLED
        try:
            if error is None:
                await self._end_block()
                status = GroupStatus.CANCELLED if self._scheduler.is_halted else GroupStatus.COMPLETED
                self._raise_unread()
            else:
                await self._abandon(error)
        finally:
            self._find_reason()
            await self._close(status if self._reason.error is None else GroupStatus.FAILED)

    async def _end_block(self) -> None:
        """The block came to its end: wait for what it left running, and raise what it did not see."""
        self._judge()
        if self._stream is not None and not self._stream.is_exhausted and self._scheduler.has_left_something:
            self._halt(cause=EndingCause.LEFT)
        self._scheduler.buffer = float("inf")  # nobody reads any more, so there is nobody to wait for
        self._scheduler.fill()
        try:
            await self._scheduler.idle()
        except asyncio.CancelledError:
            self._halt()
            await self._scheduler.join()
            raise
        await self._acknowledge()
        self._conclude()
        if not self._reason.was_raised:
            self._raise_reason()
        self._raise_stop()

    def _raise_unread(self) -> None:
        """Failures that nobody saw must not pass silently. Only leaving a stream early says: the rest is not wanted."""
        if self._stream is not None and not self._stream.is_exhausted:
            return
        unread = [
            self._scheduler.finished[index] for index in sorted(self._scheduler.finished) if index >= self._gathered
        ]
        errors = [result.error for result in unread if isinstance(result.error, Exception)]
        if errors and self._reason.error is None:
            raise UnreadFailures(
                f"{len(errors)} of {self._roster.enrolled} calls of group {self.name!r} failed, and nobody read their "
                "results; end the block with `await p.gather()`",
                errors,
            )

    async def _abandon(self, error: BaseException) -> None:
        """The block raised, or was cancelled: nothing of the group goes on, and what it had is not hidden."""
        stop = None if isinstance(error, asyncio.CancelledError) else stop_behind(error)
        if stop is not None:  # nobody is to blame: what runs comes to its end
            self._scheduler.drain(stop)
        else:
            is_left = isinstance(error, Exception) and not is_cut_off(self._frame, error, self._cancellations)
            self._halt(cause=EndingCause.LEFT if is_left else None, message=describe_error(error))
        await self._scheduler.join()
        self._find_reason()
        if error is not self._reason.error:
            add_failures(error, self.name, self._unread)

    async def _close(self, status: GroupStatus) -> None:
        self._stop_timer()
        if self._ledger is not None:
            self._ledger.close(self._loop.time())
        self._run.interruption.unwatch(self._drain)
        self._frame.group_ended(self.name, self._roster)
        self._tracker.status = status
        self._run.counter.count_group(self.group)
        if self._ending is None and status is not GroupStatus.COMPLETED:
            self._set_ending(GroupEnding(cause=EndingCause.INTERRUPTED))
        try:
            await self._tell(EventType.GROUP_COMPLETED)
            await self._run.recording.flush()
            await self._acknowledge()
        finally:
            self._stream = None
            self._scheduler.close()

    async def _tell(self, kind: EventType) -> None:
        run = self._run
        event = group_event(kind, self.group, run.run_id, run.now())
        await run.record(event)
        await run.publish(event)

    # -- enrolment ----------------------------------------------------------------------------------------------------

    def add(self, work: Work, name: str | None = None, *, key: str | None = None) -> int:
        """Enrol a call, a coroutine, or a callable without arguments that returns an awaitable.

        It starts as soon as a slot is free, also while results are being streamed. If the group has ended early, it
        never begins. In a run that is recorded, the block is told so by the next `gather`, `stream` or its end, for
        what it is told must be on disk before, and `add` cannot wait for that; after that, and in any other run,
        `add` raises.

        Args:
            work: what to run. Only calls and callables can be run again by a retry.
            name: shown to people, the key of `gather_dict`, and the identity of work whose input cannot be seen.
            key: the identity of the work when the run is executed again, in place of its input or name.

        Returns:
            The index of the member, counted from 0.

        Raises:
            DefinitionError: it is nothing that could run, or a bare coroutine in a group that retries.
            UsageError: the block has not been entered, or has ended.
            BaseException: the group has ended early; this is why.
        """
        try:
            self._expect_open("add()")
            check_work(work, self.retry is not None and self.retry.max_attempts > 1)
            if self._run.records and not isinstance(work, Call) and callable(work):
                learn_types(work)
            member = self._roster.enrol(work, name, key, copy_context(), self._loop.time())
        except BaseException:
            close_unstarted(work)
            raise
        if self._scheduler.is_halted:
            self._scheduler.take_late(member)
        else:
            self._roster.wait(member)
            self._start_what_came()
        return member.index

    def map(
        self,
        function: Callable[[Any], Any] | BaseActor,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        name: Callable[[Any], str] | None = None,
        key: Callable[[Any], str] | None = None,
    ) -> None:
        """Enrol `function(item)` for every item, each one pulled from `items` when a slot is free for it.

        While nobody collects all results with `gather`, pulling also waits for the reader of the stream, so a million
        items need no more memory than a few. If `items` raises, that is the failure of one last member.

        Args:
            function: gives a call or an awaitable for an item; another attempt calls it again. Or an actor, whose input
                an item then is.
            items: an iterable or async iterable.
            name: gives the name of an item's member.
            key: gives the identity of an item, in place of the item itself.
        """
        self._expect_open("map()")
        source = Source.of(function, items, name, key, copy_context())
        if self._run.records:
            learn_types(source.function)
        self._roster.add_source(source)
        if self._scheduler.is_halted:
            self._scheduler.discard()
        else:
            self._start_what_came()

    def _start_what_came(self) -> None:
        if self._expired:
            self._time_is_up()  # nothing was left to be cut off when it was; now there is
        self._scheduler.fill()

    def _expect_open(self, method: str) -> None:
        status = self._tracker.status
        if status is GroupStatus.PENDING:
            raise UsageError(f"{method} belongs inside the block: async with parallel() as p: p.{method}")
        if status is not GroupStatus.RUNNING:
            raise UsageError(f"group {self.name!r} has ended: {method} belongs inside its `async with` block")
        if self._expired and not self._run.records:
            self._reason.note(self._timed_out())
        if not self._is_to_be_told:
            self._raise_reason()
        try:
            self._run.interruption.expect_running()
        except StopRun as stop:
            self._frame.tell_stop(stop)
            raise
        if self._scheduler.is_halted and not self._is_to_be_told:
            raise UsageError(f"group {self.name!r} is being cancelled and takes no more work")

    @property
    def _is_to_be_told(self) -> bool:
        """Whether the group has ended without its block's doing, and the block has to wait to be told of it."""
        if not self._run.records or self._reason.was_raised or self._ending is None:
            return False
        return self._ending.cause in _WITH_A_REASON

    # -- results ------------------------------------------------------------------------------------------------------

    async def gather(self) -> list[ExecutionResult[Any]]:
        """Wait for all members; their results in the order in which they were enrolled.

        Results that a stream has given before are not among them.

        Raises:
            BaseException: FAIL_FAST, and a member failed: its own exception.
            GroupTimeout: the group's timeout passed.
            TooManyFailures: `fail_after` was reached.
        """
        self._expect_begun("gather()")
        self._scheduler.buffer = float("inf")
        self._scheduler.fill()
        await self._scheduler.idle()
        await self._acknowledge()
        self._raise_end()
        self._gathered = self._roster.enrolled
        return self.results

    async def gather_dict(self) -> dict[str, ExecutionResult[Any]]:
        """As `gather`, by name; a member without a name is found under its index: "0", "1", …

        Raises:
            UsageError: two members have the same name. Their results can still be had from `gather`.
        """
        results: dict[str, ExecutionResult[Any]] = {}
        for result in await self.gather():
            name = self._names.get(result.index or 0, str(result.index))
            if name in results:
                raise UsageError(
                    f"members {results[name].index} and {result.index} of group {self.name!r} are both named {name!r}; "
                    "gather_dict() needs distinct names, gather() does not"
                )
            results[name] = result
        return results

    def stream(self, *, ordered: bool = False) -> ResultStream:
        """The results as an async iterator, as they are completed or (`ordered`) in the order of enrolment.

        What it has given is not kept. Leaving the loop early and then the block cancels the rest.
        """
        self._expect_begun("stream()")
        self._stream = ResultStream(
            self._scheduler, self._conclude, self._raise_end, self._acknowledge, ordered=ordered
        )
        return self._stream

    @property
    def results(self) -> list[ExecutionResult[Any]]:
        """What has finished so far and no stream has given, in order of index. Also after the group has failed."""
        if self._tracker.status is GroupStatus.PENDING:
            return []
        return [self._scheduler.finished[index] for index in sorted(self._scheduler.finished)]

    @property
    def _unread(self) -> list[ExecutionResult[Any]]:
        return [result for result in self.results if (result.index or 0) >= self._gathered]

    @property
    def group(self) -> ParallelEventGroup:
        """How the group stands now: counts, rate, latencies."""
        breaker = None if self.breaker is None else self.breaker.state
        if self._tracker.status is GroupStatus.PENDING:
            return self._tracker.snapshot(0.0, 0, None, breaker)
        return self._tracker.snapshot(self._loop.time(), self._roster.enrolled, self._roster.total(), breaker)

    def cancel(self) -> None:
        """Start nothing more and cancel what runs. `gather` then gives what has finished."""
        if self._tracker.status is GroupStatus.PENDING:
            raise UsageError("cancel() belongs inside the block: async with parallel() as p: p.cancel()")
        self._judge()
        self._halt(cause=EndingCause.CANCELLED, insist=True)

    # -- members ------------------------------------------------------------------------------------------------------

    def _make_frame(self, member: Member) -> Frame:
        work, label = member.work, member.label
        address = member_address(self._frame.address, self.name, member.index, label)
        frame = Frame(self._run, member.base or b"", address, self.group_id)
        actor = work.actor if isinstance(work, Call) else FUNCTION_ACTOR
        frame.enter(self._frame, actor, label, member.key, member.tries)
        if isinstance(work, Call):
            try:
                work.prepare(frame)
                work.share(frame, member.identities)
            except Exception as error:  # noqa: BLE001 - for instance its input cannot be cached: it alone fails
                frame.begin = raising(error)
        else:
            frame.begin = starter(work)
        if self._has_defaults:
            frame.retry = frame.retry or self.retry
            frame.timeout = frame.timeout or self.item_timeout
            frame.breaker = frame.breaker or self.breaker
        if self.limits:
            frame.limits = (*frame.limits, *(limit for limit in self.limits if limit not in frame.limits))
        if self._ledger is not None:
            frame.ledgers = (*frame.ledgers, self._ledger)
        if isinstance(work, Call) and (self.limits or self._ledger is not None):
            frame.estimate = work.estimate
        frame.group_id = self.group_id
        frame.caller = self._task
        frame.index = member.index
        frame.total = self._roster.total
        return frame

    def _member_started(self, member: Member, now: float) -> None:
        if self._replayed is None:
            self._start_timer()
        self._tracker.count_start(now, now - member.enrolled_at)

    def _is_charged_to(self, place: str) -> bool:
        """Whether the budget of this part of the run counts what members of the group spend."""
        ledgers = self._frame.ledgers if self._ledger is None else (self._ledger, *self._frame.ledgers)
        return any(ledger.place == place for ledger in ledgers)

    def _member_ended(self, member: Member, error: BaseException | None) -> None:
        """Count a member that has ended, keep its result, and see what a failure means for the others."""
        frame = member.frame
        assert frame is not None
        result = frame.result
        if frame.cleanup_problem:
            self._reason.note_cleanup(frame.address, frame.cleanup_problem)
        if not frame.has_begun:
            close_unstarted(member.work)
        if isinstance(error, StopRun):
            result = None
            if error.shortfall is not None and self._is_charged_to(error.shortfall.place):
                self._scheduler.drain(error)  # no other member could begin either
        elif error is not None:
            self._halt(error)
        elif result is None and not (self._scheduler.is_halted or self._scheduler.is_draining):
            cancelled = CallCancelled(f"{frame.name or 'the call'} was cancelled, but not by its group")
            result = failure(cancelled, None, frame.attempts, frame.name, frame.index, frame.address)
        if result is not None or member.is_counted:
            self._count(frame, result)
        if result is None:
            return
        if self._run.records and member.key is not None:
            self._note_recorded(member.key, result)
        self._scheduler.keep(member, result)
        if member.name is not None and not self._scheduler.is_streamed:
            self._names[member.index] = member.name
        if isinstance(member.work, Call):
            self._run.counter.count_call(member.work.actor.name, result)
        if result.ok or self._scheduler.is_halted:
            return
        if member.key is not None and (frame.is_recorded or self._replayed is not None):
            self._recovered_failures[member.key] = result
            if self._replayed is None:
                self._scheduler.note_failure(member.key)
        else:
            self._judge_one(member.key, result)

    def _note_recorded(self, key: bytes, result: ExecutionResult[Any]) -> None:
        """Count what the journal knows, and keep the failure that ended the group before, for it may end it again."""
        self._known_results += self._run.recording.has_outcome(key)
        if self._replayed is not None and self._replayed.member == key.hex():
            self._recorded_reason = result.error

    def _judge_one(self, key: bytes | None, result: ExecutionResult[Any]) -> None:
        """See what a failure means for the others."""
        self._not_ok += 1
        reason = self._failure_policy.verdict(result, self._not_ok, self._tracker.finished, self.name)
        if reason is None:
            return
        is_fast = self.error_strategy is ErrorStrategy.FAIL_FAST
        cause = EndingCause.FAILED_FAST if is_fast else EndingCause.FAIL_AFTER
        self._halt(reason, cause, key, None if is_fast else str(reason))

    def _judge(self) -> None:
        """See what recovered failures mean, in the order in which they happened: the first one ended the group."""
        if self._replayed is not None:
            return  # it is recorded what ended it
        self._scheduler.judged()
        failures, self._recovered_failures = self._recovered_failures, {}
        if len(failures) > 1:
            order = {key: place for place, key in enumerate(self._run.recording.order_of(self.group_id))}
            failures = dict(sorted(failures.items(), key=lambda item: order.get(item[0], len(order))))
        for key, result in failures.items():
            if not self._scheduler.is_halted:
                self._judge_one(key, result)

    def _count(self, frame: Frame, result: ExecutionResult[Any] | None) -> None:
        tracker, seconds = self._tracker, None
        if frame.attempts > 1:
            tracker.retries += frame.attempts - 1
        if result is None or isinstance(result.error, CallCancelled):
            status = ExecutionStatus.CANCELLED
        elif result.is_replayed:
            status = ExecutionStatus.COMPLETED if result.ok else ExecutionStatus.FAILED
            tracker.recovered += 1
        else:
            status = ExecutionStatus.COMPLETED if result.ok else ExecutionStatus.FAILED
            seconds = result.execution_time
        tracker.count_end(status, frame.ended_at or self._loop.time(), seconds)

    # -- ending early -------------------------------------------------------------------------------------------------

    def _halt(
        self,
        reason: BaseException | None = None,
        cause: EndingCause | None = None,
        member: bytes | None = None,
        message: str | None = None,
        *,
        insist: bool = False,
    ) -> None:
        """Start nothing more and cancel what runs; `reason` is what `gather` and the others then raise.

        `cause` is given if it is the program that has no more use for what runs, so that its cancellation is an
        outcome, and the ending is recorded: before anybody is told of it.
        """
        if cause is not None and not self._scheduler.is_halted:
            self._note_ending(cause, member, message)
        if cause is None or self._replayed is None:
            self._reason.note(reason)  # else what ended it before says why
        self._scheduler.halt(dismiss=cause is not None, insist=insist)

    def _note_ending(self, cause: EndingCause, member: bytes | None = None, message: str | None = None) -> None:
        """Record how the group ends, unless it only ends as is recorded."""
        run, roster = self._run, self._roster
        if self._replayed is not None:
            self._set_ending(self._replayed)
            return
        knows = run.recording.recorded.knows
        epoch, tries, attempt = self._frame.generation
        ending = GroupEnding(
            cause=cause,
            scope=self._frame.base.hex(),
            epoch=epoch,
            tries=tries,
            attempt=attempt,
            enrolled=roster.enrolled,
            total=roster.total(),
            known=self._known_results + self._scheduler.count_running(knows) if run.records else 0,
            outcomes=len(run.recording.order_of(self.group_id)),
            member=None if member is None else member.hex(),
            message=message,
            timeout=self.timeout if cause is EndingCause.TIMED_OUT else None,
            retries_failed=run.recording.again.retries_failed,
        )
        self._set_ending(ending)
        try:
            run.note(group_event(EventType.GROUP_ENDING, self.group, run.run_id, run.now()))
            self._told_ending = True
        except StoreError as error:
            self._reason.note(error)

    def _set_ending(self, ending: GroupEnding) -> None:
        self._ending = ending
        if self._tracker.about is not None:
            self._tracker.about = self._tracker.about.model_copy(update={"ending": ending})

    async def _acknowledge(self) -> None:
        """The program is about to be told that the group has ended: that must be on disk by now."""
        if self._told_ending:
            self._told_ending = False
            await self._run.recording.acknowledge()

    # -- ending again -------------------------------------------------------------------------------------------------

    @property
    def _replayed(self) -> GroupEnding | None:
        """The recorded ending to which the group comes again; None if there is none, or if its cause is unknown."""
        ending = self._roster.sealed_by
        return None if ending is None or ending.cause is EndingCause.UNKNOWN else ending

    def _find_ending(self) -> GroupEnding | None:
        """How the group ended before and has to end again, see `rh_agents.core._replay.decision`."""
        ending = self._run.recording.recorded_ending(self.group_id, self._frame.generation)
        if ending is None:
            return None
        fail_after = self._failure_policy.fail_after
        return ending if can_end_again(ending, self.error_strategy, fail_after, self.timeout) else None

    def _end_again(self) -> None:
        """Nothing goes on: what is left was cut off when an earlier execution ended the group, so end it like that."""
        ending = self._roster.sealed_by
        assert ending is not None
        self._judge()
        if not self._scheduler.is_halted and self._roster.is_known and not self._was_left_whole(ending):
            self._is_forced = True
            cause = ending.cause if ending.cause is not EndingCause.UNKNOWN else self._guessed_cause(ending)
            if cause is EndingCause.TIMED_OUT:
                self._time_is_up()
            elif cause is not None:
                self._halt(cause=cause)
        if not self._scheduler.is_halted:  # it is open again, and has all its time
            self._stop_timer()
            self._start_timer()

    def _was_left_whole(self, ending: GroupEnding) -> bool:
        """Whether all members had finished when the program left the group, so that what it waits for now is new."""
        return ending.cause is EndingCause.LEFT and self._known_results >= ending.enrolled == ending.total

    def _guessed_cause(self, ending: GroupEnding) -> EndingCause | None:
        """What a journal without causes says, when recorded failures have not ended the group."""
        if ending.status is GroupStatus.CANCELLED:
            return EndingCause.CANCELLED
        return None if self.timeout is None else EndingCause.TIMED_OUT

    def _end_if_it_ended_here(self) -> None:
        """Nothing is left to be cut off: end the group again if all that had been enrolled by then is there.

        Not where the program left it: it does that itself, and if it does not any more, then nothing is missing.
        """
        ending = self._replayed
        if ending is None or ending.is_late or ending.cause is EndingCause.LEFT:
            return
        if self._scheduler.is_idle and not self._scheduler.is_halted and self._roster.is_full:
            self._is_forced = True
            self._halt(cause=EndingCause.CANCELLED)

    def _find_reason(self) -> None:
        """The reason of a group that has ended as it did before, when all that is recorded has been recovered."""
        ending = self._ending
        if ending is None or ending is not self._replayed or self._reason.error is not None:
            return
        if ending.cause is EndingCause.FAILED_FAST:
            self._reason.note(self._recorded_reason)
        elif ending.cause is EndingCause.FAIL_AFTER:
            reason = TooManyFailures(ending.message or "", group=self.name)
            reason.__cause__ = self._recorded_reason
            self._reason.note(reason)
        elif ending.cause is EndingCause.TIMED_OUT:
            self._reason.note(self._timed_out())
        elif ending.cause is EndingCause.LEFT and ending.message is not None and self._is_forced:
            self._reason.note(
                GroupError(
                    f"group {self.name!r} was left by {ending.message} in an earlier execution, and this one waits for "
                    "it: the program has changed; start the run again when it has ended, to make what was cut off",
                    group=self.name,
                )
            )

    def _drain(self) -> None:
        """The run is being stopped."""
        try:
            self._run.interruption.expect_running()
        except StopRun as stop:
            self._scheduler.drain(stop)
        if self._run.interruption.is_cut_off:
            self._halt()

    def _raise_stop(self) -> None:
        """Some members have no result because the run is being stopped, or waits for somebody."""
        if self._scheduler.stop is not None:
            self._frame.tell_stop(self._scheduler.stop)
            raise self._scheduler.stop

    def _conclude(self) -> None:
        """Nothing runs any more: see whether the group has ended early by that."""
        self._end_if_it_ended_here()
        self._judge()

    def _raise_end(self) -> None:
        """Nothing runs any more: say what became of the group, if that is not just its results."""
        self._conclude()
        self._raise_reason()
        self._raise_stop()

    def _time_is_up(self) -> None:
        if not self._scheduler.has_more_to_do:  # nothing is cut off; only what may still be added comes too late
            self._expired = True
            return
        if self._scheduler.is_halted or (
            self._replayed is not None and self._replayed.cause is not EndingCause.TIMED_OUT
        ):
            return  # something else ended it
        if self._scheduler.is_draining:  # the program would not see it any more; what runs has the grace of the run
            return
        error = self._timed_out()
        self._halt(error, EndingCause.TIMED_OUT, message=str(error))

    def _timed_out(self) -> GroupTimeout:
        """Says how many had finished when the time was up; those whose outcome was on its way by then had."""
        ending, timeout, total = self._replayed, self.timeout, self._roster.total()
        if ending is not None and ending.cause is EndingCause.TIMED_OUT:
            if ending.message is not None:
                return GroupTimeout(ending.message, group=self.name)
            timeout, total = ending.timeout, ending.total
        finished = self._tracker.completed + self._tracker.failed + self._scheduler.count_settling()
        of = "" if total is None else f" of {total}"
        return GroupTimeout(
            f"group {self.name!r} took longer than its timeout of {timeout:g} s: {finished}{of} members had finished",
            group=self.name,
        )

    def _raise_reason(self) -> None:
        self._find_reason()
        error = self._reason.error
        if error is None:
            return
        if not self._scheduler.is_run_by(asyncio.current_task()):
            self._reason.was_raised = True
        raise self._reason.explained(error, self.results)

    def _expect_begun(self, method: str) -> None:
        if self._tracker.status is GroupStatus.PENDING:
            raise UsageError(f"{method} belongs inside the block: async with parallel() as p: await p.{method}")
        if self._scheduler.is_run_by(asyncio.current_task()):
            raise UsageError(f"a member of group {self.name!r} calls {method}: it would wait for itself")


def _positive(name: str, value: float | None) -> float | None:
    return None if value is None else number(name, value, "seconds above 0 (None for no limit)", zero=False)
