"""How a group ends early: why, and that it is on disk before anybody is told of it.

A group whose run is executed again may have to end as it did before; `rh_agents.core._replay.decision` says when, and
why. Its recorded ending is then `Roster.sealed_by`. `Ending` finds the moment for it, and the reason that the block is
given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rh_agents.core._base.foreign import noted
from rh_agents.core._group.scheduler import Scheduler
from rh_agents.core._limits.holding import StandingTimer
from rh_agents.core._replay.decision import can_end_again
from rh_agents.core._run.frame import Frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core.errors import GroupError, GroupTimeout, OptionError, StoreError, TooManyFailures
from rh_agents.core.groups import EndingCause, ErrorStrategy, GroupEnding, GroupStatus, ParallelEventGroup
from rh_agents.core.policies._checks import number
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.budget import Budget
from rh_agents.core.policies.limits import Limit
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.results import ExecutionResult, describe_error
from rh_agents.core.tracking import ParallelGroupTracker, group_fact
from rh_agents.core.types import EventType

__all__ = ["Ending", "FailurePolicy", "GroupOptions", "Reason", "add_failures", "recorded_ending"]

_NOTES = 10
"""How many other failures are named in an error that is raised."""
_WITH_A_REASON = (EndingCause.FAILED_FAST, EndingCause.FAIL_AFTER, EndingCause.TIMED_OUT)
"""What may end a group at any time, without its block's doing, so that the block has to be told of it."""
_SAMPLE = 10
"""A share of failures is judged on at least this many finished members."""


class FailurePolicy:
    """Decides after each failed member whether its group goes on.

    Args:
        strategy: FAIL_FAST ends it at the first failure.
        fail_after: under FAIL_SLOW, the number of failures (int) or the share of the finished members (float up to 1.0)
            that ends it. None never does.

    Raises:
        OptionError: `fail_after` is out of range, or both are given.
    """

    def __init__(self, strategy: ErrorStrategy, fail_after: int | float | None) -> None:
        if fail_after is not None:
            _check(fail_after, strategy)
        self.strategy: ErrorStrategy = strategy
        self.fail_after: int | float | None = fail_after

    def verdict(self, result: ExecutionResult[Any], failed: int, finished: int, group: str) -> BaseException | None:
        """What ends the group after this failed member: its own exception, or `TooManyFailures`. None goes on."""
        if self.strategy is ErrorStrategy.FAIL_FAST:
            return result.error
        if not self._is_reached(failed, finished):
            return None
        reason = TooManyFailures(
            f"group {group!r} stopped after {failed} of {finished} finished members had failed "
            f"(fail_after={self.fail_after}); the last one: {result.error_message}",
            group=group,
        )
        reason.__cause__ = result.error
        return reason

    def _is_reached(self, failed: int, finished: int) -> bool:
        if self.fail_after is None:
            return False
        if isinstance(self.fail_after, int):
            return failed >= self.fail_after
        return finished >= _SAMPLE and failed >= self.fail_after * finished


def _check(fail_after: int | float, strategy: ErrorStrategy) -> None:
    if strategy is ErrorStrategy.FAIL_FAST:
        raise OptionError("FAIL_FAST stops at the first failure, so fail_after has no meaning beside it: leave one out")
    number("fail_after", fail_after, "a number of failures from 1 on, or a share between 0.0 and 1.0", zero=False)
    if isinstance(fail_after, float) and fail_after > 1.0:
        raise OptionError(f"fail_after={fail_after!r}: a share is at most 1.0; a number of failures is an int")


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """The options of `ParallelExecutionManager`, checked."""

    name: str
    max_workers: int
    failure_policy: FailurePolicy
    timeout: float | None = None
    item_timeout: float | None = None
    retry: RetryPolicy | None = None
    breaker: CircuitBreaker | None = None
    limits: tuple[Limit, ...] = ()
    budget: Budget | None = None
    requeue: bool = False


def text_or_none(name: object) -> str | None:
    """The name of a group."""
    if name is None or isinstance(name, str):
        return name
    raise OptionError(f"name={name!r}: a text is needed")


def positive_or_none(name: str, value: float | None) -> float | None:
    """A time limit."""
    return None if value is None else number(name, value, "seconds above 0 (None for no limit)", zero=False)


def recorded_ending(run: RunParts, frame: Frame, group_id: str, options: GroupOptions) -> GroupEnding | None:
    """How a group of this call ended before and has to end again; None if it is open."""
    if not run.records:
        return None
    ending = run.recording.recorded_ending(group_id, frame.generation)
    if ending is None:
        return None
    policy = options.failure_policy
    return ending if can_end_again(ending, policy.strategy, policy.fail_after, options.timeout) else None


class Ending:
    """Ends a group early, and knows whether and why it has.

    Args:
        run: the run of the group.
        frame: the call around it.
        options: of the group.
        scheduler: runs its members.
        tracker: counts them.
    """

    def __init__(
        self,
        run: RunParts,
        frame: Frame,
        options: GroupOptions,
        scheduler: Scheduler,
        tracker: ParallelGroupTracker,
    ) -> None:
        self._run = run
        self._frame = frame
        self._options = options
        self._scheduler = scheduler
        self._roster = scheduler.roster
        self._tracker = tracker
        self._loop = asyncio.get_running_loop()
        self._timer: StandingTimer | None = None
        self._now: GroupEnding | None = None
        self._is_noted = False
        self._is_forced = False
        self._known_results = 0
        self._recorded_reason: BaseException | None = None
        self.reason: Reason = Reason(options.name)
        self.is_expired: bool = False
        """Whether the time was up when there was nothing that could have been cut off."""

    def snapshot(self) -> ParallelEventGroup:
        """How the group stands now."""
        breaker = self._options.breaker
        state = None if breaker is None else breaker.state
        return self._tracker.snapshot(self._loop.time(), self._roster.enrolled, self._roster.total, state)

    # -- ending -------------------------------------------------------------------------------------------------------

    def halt(
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
            self._note(cause, member, message)
        if cause is None or self.replayed is None:
            self.reason.note(reason)  # else what ended it before says why
        self._scheduler.halt(dismiss=cause is not None, insist=insist)

    def _note(self, cause: EndingCause, member: bytes | None, message: str | None) -> None:
        """Record how the group ends, unless it only ends as is recorded."""
        run, roster = self._run, self._roster
        if self.replayed is not None:
            self._set(self.replayed)
            return
        knows = run.recording.recorded.knows
        epoch, tries, attempt = self._frame.generation
        self._set(
            GroupEnding(
                cause=cause,
                scope=self._frame.base.hex(),
                epoch=epoch,
                tries=tries,
                attempt=attempt,
                enrolled=roster.enrolled,
                total=roster.total,
                known=self._known + _count_running(self._scheduler, knows) if run.records else 0,
                outcomes=len(run.recording.order_of(roster.group_id)),
                member=None if member is None else member.hex(),
                message=message,
                timeout=self._options.timeout if cause is EndingCause.TIMED_OUT else None,
                retries_failed=run.recording.rules.retries_failed,
            )
        )
        try:
            run.note(group_fact(EventType.GROUP_ENDING, self.snapshot(), run.run_id, run.now()))
            self._is_noted = True
        except StoreError as error:
            self.reason.note(error)

    def _set(self, ending: GroupEnding) -> None:
        self._now = ending
        if self._tracker.about is not None:
            self._tracker.about = self._tracker.about.model_copy(update={"ending": ending})

    async def acknowledge(self) -> None:
        """The program is about to be told that the group has ended: that must be on disk by now."""
        if self._is_noted:
            self._is_noted = False
            await self._run.recording.acknowledge()

    def close(self, status: GroupStatus) -> None:
        """The block has been left with this status."""
        self.stop_timer()
        if self._now is None and status is not GroupStatus.COMPLETED:
            self._set(GroupEnding(cause=EndingCause.INTERRUPTED))

    # -- the timeout --------------------------------------------------------------------------------------------------

    def start_timer(self) -> None:
        """Measure the timeout from now on: from entering the block, or from the first call that is really made.

        Until then, recorded outcomes are read, which takes other time than the calls took that were made before; and a
        group that ends again as it did, when nothing else goes on, has no timeout.
        """
        if self._options.timeout is not None and self._timer is None and self.replayed is None:
            self._timer = self._run.interruption.hold.call_later(self._options.timeout, self.time_is_up)

    def stop_timer(self) -> None:
        """The group has ended, or it is open again and has all its time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def time_is_up(self) -> None:
        """The timeout has passed."""
        if not self._scheduler.has_more_to_do:  # nothing is cut off; only what may still be added comes too late
            self.is_expired = True
            return
        if self._scheduler.is_halted or (
            self.replayed is not None and self.replayed.cause is not EndingCause.TIMED_OUT
        ):
            return  # something else ended it
        if self._scheduler.is_draining:  # the program would not see it any more; what runs has the grace of the run
            return
        error = self.timed_out()
        self.halt(error, EndingCause.TIMED_OUT, message=str(error))

    def timed_out(self) -> GroupTimeout:
        """Says how many had finished when the time was up; those whose outcome was on its way by then had."""
        name, ending = self._options.name, self.replayed
        timeout, total = self._options.timeout, self._roster.total
        if ending is not None and ending.cause is EndingCause.TIMED_OUT:
            if ending.message is not None:
                return GroupTimeout(ending.message, group=name)
            timeout, total = ending.timeout, ending.total
        finished = self._tracker.completed + self._tracker.failed + _count_settling(self._scheduler)
        of = "" if total is None else f" of {total}"
        return GroupTimeout(
            f"group {name!r} took longer than its timeout of {timeout:g} s: {finished}{of} members had finished",
            group=name,
        )

    # -- ending again -------------------------------------------------------------------------------------------------

    @property
    def replayed(self) -> GroupEnding | None:
        """The recorded ending to which the group comes again; None if there is none, or if its cause is unknown."""
        ending = self._roster.sealed_by
        return None if ending is None or ending.cause is EndingCause.UNKNOWN else ending

    def note_recorded(self, key: bytes, result: ExecutionResult[Any], *, is_settled: bool) -> None:
        """Count what the journal knows, and keep the failure that ended the group before, for it may end it again.

        `is_settled`: it is known that it has the outcome.
        """
        self._known_results += is_settled or self._run.recording.has_outcome(key)
        if self._roster.sealed_by is not None and self.replayed is not None and self.replayed.member == key.hex():
            self._recorded_reason = result.error

    @property
    def _known(self) -> int:
        """How many members have results that the journal knows."""
        return self._known_results + self._scheduler.recovery.given

    def forget_recorded(self) -> None:
        """A member whose outcome was counted is made again."""
        self._known_results -= 1

    def repeat_ending(self) -> None:
        """Nothing goes on: what is left was cut off when an earlier execution ended the group, so end it like that."""
        ending = self._roster.sealed_by
        assert ending is not None
        if not self._scheduler.is_halted and self._roster.is_known and not self._was_left_whole(ending):
            self._is_forced = True
            cause = ending.cause if ending.cause is not EndingCause.UNKNOWN else self._guessed_cause(ending)
            if cause is EndingCause.TIMED_OUT:
                self.time_is_up()
            elif cause is not None:
                self.halt(cause=cause)
        if not self._scheduler.is_halted:  # it is open again, and has all its time
            self._roster.reopen()
            self.stop_timer()
            self.start_timer()

    def _was_left_whole(self, ending: GroupEnding) -> bool:
        """Whether all members had finished when the program left the group, so that what it waits for now is new."""
        return ending.cause is EndingCause.LEFT and self._known >= ending.enrolled == ending.total

    def _guessed_cause(self, ending: GroupEnding) -> EndingCause | None:
        """What a journal without causes says, when recorded failures have not ended the group."""
        if ending.status is GroupStatus.CANCELLED:
            return EndingCause.CANCELLED
        return None if self._options.timeout is None else EndingCause.TIMED_OUT

    def end_if_it_ended_here(self) -> None:
        """Nothing is left to be cut off: end the group again if all that had been enrolled by then is there.

        Not where the program left it: it does that itself, and if it does not any more, then nothing is missing.
        """
        ending = self.replayed
        if ending is None or ending.is_late or ending.cause is EndingCause.LEFT:
            return
        if self._scheduler.is_idle and not self._scheduler.is_halted and self._roster.is_full:
            self._is_forced = True
            self.halt(cause=EndingCause.CANCELLED)

    # -- telling ------------------------------------------------------------------------------------------------------

    @property
    def must_be_reported(self) -> bool:
        """Whether the group has ended without its block's doing, and the block has to wait to be told of it."""
        if not self._run.records or self.reason.was_raised or self._now is None:
            return False
        return self._now.cause in _WITH_A_REASON

    def find_reason(self) -> BaseException | None:
        """Why the group has ended early, if anything but its program is the reason.

        That of one that has ended as it did before is known when all that is recorded of it has been recovered.
        """
        ending, name = self._now, self._options.name
        if ending is None or ending is not self.replayed or self.reason.error is not None:
            return self.reason.error
        if ending.cause is EndingCause.FAILED_FAST:
            self.reason.note(self._recorded_reason)
        elif ending.cause is EndingCause.FAIL_AFTER:
            reason = TooManyFailures(ending.message or "", group=name)
            reason.__cause__ = self._recorded_reason
            self.reason.note(reason)
        elif ending.cause is EndingCause.TIMED_OUT:
            self.reason.note(self.timed_out())
        elif ending.cause is EndingCause.LEFT and ending.message is not None and self._is_forced:
            self.reason.note(
                GroupError(
                    f"group {name!r} was left by {ending.message} in an earlier execution, and this one waits for "
                    "it: the program has changed; start the run again when it has ended, to make what was cut off",
                    group=name,
                )
            )
        return self.reason.error

    def let_go(self) -> None:
        """The block has been told."""
        self._recorded_reason = self.reason.error = None

    def raise_reason(self) -> None:
        """Say why the group has ended early, if it has for a reason."""
        error = self.find_reason()
        if error is None:
            return
        if not self._scheduler.is_run_by(asyncio.current_task()):
            self.reason.was_raised = True
        try:
            raise self.reason.explained(error, self._scheduler.finished.by_index)
        finally:
            del error  # by its traceback, which holds this frame, it would hold itself


class Reason:
    """The first thing that ended a group early, if anything did."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._is_explained = False
        self._cleanups: list[str] = []
        self.error: BaseException | None = None
        self.was_raised: bool = False
        """Whether the block has been told; a member that was told does not count."""

    def note(self, error: BaseException | None) -> None:
        """Something ended the group. Only the first reason counts."""
        if self.error is None:
            self.error = error

    def note_cleanup(self, address: str, problem: str) -> None:
        """A member raised in its cleanup when the group was cancelled from outside: no result says so."""
        self._cleanups.append(f"the cleanup of {address} failed: {problem}")

    def add_unseen(self, error: BaseException) -> None:
        """Say in what ends the block what nobody has been told: why it ended early, and which cleanups failed."""
        if self.error is not None and not self.was_raised and self.error is not error:
            self.was_raised = True
            noted(error, f"group {self._group!r}: {describe_error(self.error)}")
        cleanups, self._cleanups = self._cleanups, []
        for text in cleanups[:_NOTES]:
            noted(error, f"group {self._group!r}: {text}")
        if len(cleanups) > _NOTES:
            noted(error, f"group {self._group!r}: {len(cleanups) - _NOTES} more cleanups failed")

    def explained(self, error: BaseException, results: list[ExecutionResult[Any]]) -> BaseException:
        """The reason, once given what had finished by then, or notes of what else had failed."""
        if not self._is_explained:
            self._is_explained = True
            if isinstance(error, GroupTimeout | TooManyFailures):
                error.results = tuple(results)
            else:
                add_failures(error, self._group, results)
        return error


def add_failures(error: BaseException, group: str, results: Iterable[ExecutionResult[Any]]) -> None:
    """Say in an error what else failed in its group; all of it is in the group's `results`."""
    failures = [result for result in results if result.error is not None and result.error is not error]
    for result in failures[:_NOTES]:
        noted(error, f"group {group!r}: {result.address} failed too: {result.error_message}")
    if len(failures) > _NOTES:
        noted(error, f"group {group!r}: {len(failures) - _NOTES} more failed too")


def _count_running(scheduler: Scheduler, is_such: Callable[[bytes], bool]) -> int:
    """How many members run whose key is such a one."""
    return sum(member.key is not None and is_such(member.key) for member in scheduler.running.values())


def _count_settling(scheduler: Scheduler) -> int:
    """How many members have finished, but for their outcome, which is on its way to the store."""
    return sum(member.frame is not None and member.frame.is_settling for member in scheduler.running.values())
