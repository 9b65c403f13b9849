"""One call while it is under way: where it is, how often it was tried, what it holds and what it has used.

A frame is also the place from which further calls are made: their keys are derived from its own, and it numbers those
that are identical (`rh_agents.core._replay.numbering`). The frame that is executed in a context is in `current_frame`.
Calls that no other call makes have the root of their run as their parent, which is no call itself: it is never under
way.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar, Token
from typing import Any, cast

from rh_agents.core._base.current import current_call
from rh_agents.core._limits.consumption import Consumption
from rh_agents.core._limits.interruption import CallsUnderWay
from rh_agents.core._limits.ledgers import Ledger, Reservation, reserve
from rh_agents.core._limits.sampling import HeldUp
from rh_agents.core._loops.postponed import Postponed
from rh_agents.core._replay.inputs import recorded_input
from rh_agents.core._replay.keys import ROOT_KEY
from rh_agents.core._replay.numbering import Claimant, Numbering
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import StopRun
from rh_agents.core.events import Fact, spender_of
from rh_agents.core.groups import GroupEnding
from rh_agents.core.policies._checks import Failure
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.redaction import redact, without_secrets
from rh_agents.core.redaction.excerpts import RecordInputs
from rh_agents.core.results import ExecutionResult
from rh_agents.core.types import EventType, ExecutionStatus, Generation
from rh_agents.core.usage import Usage

__all__ = ["Frame", "current_frame", "leave", "root_of"]

_AGENT_CALL, _FUNCTION_CALL = EventType.AGENT_CALL, EventType.FUNCTION_CALL
_new_tuple = tuple.__new__  # a third of the time that a NamedTuple takes to be called


class OwnCalls:
    """How often an agent was called within one of its own calls."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count: int = 0


async def _is_over() -> Any:
    raise RuntimeError("a call that has ended cannot be started again")


class Frame(Numbering, Consumption):
    """One call, and the place from which others are made.

    `begin` starts an attempt. `result` is there as soon as the outcome is, even if the task that executes the call is
    cancelled while it tells others of it: what has been paid for is not lost.

    Attributes:
        run: the parts of the run it belongs to.
        base: its place in the program, from which the keys of its children are derived. It stays the same when the call
            is made again after it failed, so that its finished children are not.
        key: under which its outcome is recorded in this try; None if it is not.
        address: its readable place.
        parent: the call that makes it, or the root of the run.
        innermost_group: the innermost group within which it is made, for nested groups.
        tries: how often the call failed for good before and is made again now.
        attempt: the number of the attempt under way, from 1.
        token: stands for the call in a run that gives it no key.
        depth: how many calls there are around it.
        own_calls: for each agent that is under way here, how often it was called by itself, directly or not.
        stop: why the call cannot go on for now, if something that it called has told its body so.
    """

    attempt: int = 0
    token: str | None = None
    depth: int = 0
    own_calls: dict[str, OwnCalls] | None = None
    stop: StopRun | None = None
    caller: Claimant | None = None
    """The task whose block of a group it is a member of; else the one that executes it."""
    is_under_way: bool = False
    """Whether it is being executed. Code that it has left behind may go on in its context after that."""

    # Set only where they matter: thousands of jobs are made a second.
    check: Callable[[], Awaitable[None]] | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    breaker: CircuitBreaker | None = None
    slot: AbstractAsyncContextManager[None] | None = None
    """A block in which it waits for its next attempt, and others of its group may run in its place."""
    group_id: str | None = None
    """The group of which it is a member."""
    index: int | None = None
    total: Callable[[], int | None] | None = None
    is_recorded: bool = False
    """Whether its outcome is there already, so that nothing is called."""
    is_dismissed: bool = False
    """Whether its group has no more use for it. Its cancellation is then an outcome; that of a shutdown is none."""
    is_cancelled: bool = False
    """Whether its group has cancelled it, for whatever reason."""
    is_announced: bool = False
    """Whether events have told of its start."""
    is_written_ahead: bool = False
    """Whether it is on disk that an attempt begins before it does, because a crash within one matters."""
    may_be_done: bool = False
    """Whether it had begun before, in a try that was cut off, and nothing tells whether it was done then."""
    withdrawn: str | None = None
    """Why somebody has cancelled it by name: then its cancellation is its outcome, which no later execution undoes."""
    is_refused: bool = False
    """Whether it may have been done and is therefore not made: by no other attempt of its caller in this epoch."""
    has_settled: bool = False
    """Whether its outcome is on its way to the store, or there: nothing that comes later is its outcome."""
    postponed: Postponed | None = None
    """The cancellations that came when it had finished."""
    settled: Callable[[Frame], None] | None = None
    """Told as soon as its outcome counts, in the order of the journal, before subscribers hear of it."""
    attempts: int = 0
    """How many have begun, in all executions of the run."""
    has_begun: bool = False
    began_at: float = 0.0
    """When it began, on the clock of its event loop; 0.0 before that."""
    ended_at: float | None = None
    result: ExecutionResult[Any] | None = None
    cached_as: bytes | None = None
    """What it has in common with all calls whose result it may share."""
    formerly_cached_as: tuple[bytes, ...] = ()
    """The same in caches that earlier versions filled."""
    cached_data: bytes | None = None
    """What its function returned, as it is kept for them."""
    cleanup_problem: str = ""
    """What its cleanup raised when it was cancelled from outside: it has no outcome that could say so."""
    lost: int = 0
    """How many workers it has lost, in all executions of the run."""
    is_unknown: bool = False
    """Whether it has lost its worker, and nobody has decided yet what becomes of it."""
    has_asked_again: bool = False
    """Whether it has asked a model once more, because an answer could not be read."""
    time_limit: asyncio.Timeout | None = None
    """What ends the attempt under way when its time is over."""
    held_up: HeldUp | None = None
    """Why it does not come forward: it waits for a limit, or for its next attempt."""
    waited: float = 0.0
    """The seconds for which it has waited because a server that it asks wanted that."""
    falls_back_on: Sequence[Failure] = ()
    """On which failures of the server that is asked now another one is asked, so that it is not waited for."""
    unseen_in: int = 0
    """The number of the attempt of whose text something is missing for those who look; 0 if nothing is."""
    pieces_told: int = 0
    """How many pieces of answers subscribers were told."""
    has_waited_enough: bool = False
    """Whether the server has asked for more than it waits: then another attempt would only be refused as well."""
    pieces_of: Callable[[Any], Sequence[Any]] | None = None
    """Tells what subscribers get of a value that is there already, in place of the pieces in which it once came."""
    given: Callable[[], Any] | None = None
    """Tells what it is called with; None where nobody sees that."""
    marks: Mapping[str, Any] | None = None
    """Fields that all of its events have: its tag, and what else its caller wants to be kept with it."""
    actor: BaseActor
    parent: Frame
    begin: Callable[[], Awaitable[Any]]
    is_told: bool
    """Whether there are events about it. Where nobody listens, plain functions go without, because they are many; and
    so does everything where no history is kept either."""

    def __init__(self, run: RunParts, base: bytes, address: str, innermost_group: str | None = None) -> None:
        self.run: RunParts = run
        self.base: bytes = base
        self.address: str = address
        self.innermost_group: str | None = innermost_group
        self.name: str = ""
        self.key: bytes | None = None
        self.tries: int = 0

    def enter(self, parent: Frame, actor: BaseActor, name: str, key: bytes | None, tries: int) -> None:
        """It is a call of `actor`, made by `parent`."""
        self.parent = parent
        self.actor = actor
        self.name = name
        self.key = key
        self.tries = tries
        run, kind = self.run, actor.event_type
        self.is_told = run.records or run.is_observed or (kind is not _FUNCTION_CALL and run.history.limit != 0)
        if actor.marks_attempts or (run.marks_attempts and actor.on_unknown is None and kind is not _AGENT_CALL):
            self.is_written_ahead = True
        self.depth = parent.depth + 1
        if parent.ledgers:
            self.ledgers: tuple[Ledger, ...] = parent.ledgers
        self.own_calls = parent.own_calls
        if kind is _AGENT_CALL:
            self._enter_agent(parent, actor.name)

    def _enter_agent(self, parent: Frame, agent: str) -> None:
        mine = None if parent.own_calls is None else parent.own_calls.get(agent)
        if mine is None:
            self.own_calls = {**(parent.own_calls or {}), agent: OwnCalls()}
        else:
            mine.count += 1

    def begin_attempt(self, attempt: int) -> None:
        """Start to number anew: another attempt makes the same calls again, and gets their recorded outcomes."""
        self.attempt = attempt
        if attempt > 1:
            self.begin_anew()

    def report_stop(self, stop: StopRun) -> None:
        """The body of the call is told that it cannot go on. What it makes of that is no outcome."""
        self.stop = (self.stop or stop) | stop  # a new one: this one will lead to the frames that it has passed

    @functools.cached_property
    def calls(self) -> CallsUnderWay:
        """Those that it makes, under way."""
        return CallsUnderWay()

    async def let_others_end(self) -> None:
        """Wait for calls that other tasks of its body make, before a stop is raised in this one.

        It is no reason to lose what they have paid for. But it would be: a TaskGroup cancels them.
        """
        task = asyncio.current_task()
        if self.calls.has_any(but_of=task):
            await self.calls.wait(self.run.interruption, but_of=task)

    def expect_no_stop(self, task: Claimant | None) -> None:
        """Raise `StopRun` if the task executes the call, and has been told that the call cannot go on."""
        if self.stop is not None and task is self.owner:
            raise self.stop | self.stop

    # -- the calls that it makes --------------------------------------------------------------------------------------

    @property
    def generation(self) -> Generation:
        """Which execution of its body this is. Failures of earlier ones are not repeated to it."""
        return (self.run.recording.epoch, self.tries, self.attempt)

    def try_of(self, base: bytes) -> tuple[bytes, int]:
        """The key under which the call at the place `base` is made now, and how often it has been made before."""
        recording = self.run.recording
        if not self.has_earlier_generations or not recording.recorded.may_be_tried_again(base):
            return base, 0
        return recording.try_of(base, self.generation, recording.rules)

    def try_of_member(self, base: bytes, ending: GroupEnding | None) -> tuple[bytes, int]:
        """The same for a member of a group that ends again as it did; None if it is open."""
        recording = self.run.recording
        if not self.has_earlier_generations or not recording.recorded.may_be_tried_again(base):
            return base, 0
        return recording.try_of(base, self.generation, recording.rules.in_group(ending))

    @property
    def has_earlier_generations(self) -> bool:
        """Whether its body may have been executed before."""
        return self.tries > 0 or self.attempt > 1 or self.run.recording.is_resumed

    def count_beginning(self) -> None:
        """It begins, as those who watch for a blocked event loop want to know."""
        begun = self.run.begun
        begun.calls += 1
        if self.group_id is not None or not self.parent.is_under_way:
            begun.outermost += 1

    def postpone(self, error: asyncio.CancelledError) -> None:
        """A cancellation has come when there was an outcome already: it is delivered after that."""
        if self.postponed is None:
            self.postponed = Postponed()
        self.postponed.add(error)

    # -- what it uses, and what it tells ------------------------------------------------------------------------------

    def add_usage(self, usage: Usage) -> None:
        """The call has used something."""
        usage = self.actor.priced(usage)
        self.usage: Usage | None = usage if self.usage is None else self.usage + usage
        self.run.budgets.spent.add(spender_of(self.actor, self.name), usage)
        if self.reservation is not None:
            self.reservation.spend(usage)

    def newly_spent(self) -> dict[str, Any] | None:
        """What was spent since the last fact that said so, as its `more`; None if nothing was."""
        usage = self.untold_usage()
        charges = self.charges() if self.ledgers and self.run.records else None
        if usage is None and not charges:
            return None
        more: dict[str, Any] = {}
        if usage is not None:
            more["usage"] = usage
        if charges:
            more["charges"] = charges
        return more

    async def readmit(self, estimate: Usage) -> None:
        """Wait until another request may be made within the same attempt.

        Raises:
            StopRun: the run is being stopped, or its budget does not suffice.
        """
        self.run.interruption.expect_running()
        self._wait_for_budget()
        try:
            await self.reenter(self.run.interruption, estimate)
        finally:
            self.held_up = None

    async def renew(self) -> None:
        """Take what another attempt may use out of its budgets.

        Raises:
            StopRun: a budget does not suffice.
        """
        assert self.reservation is not None
        self._wait_for_budget()
        try:
            await self.reservation.renew(self.run.interruption, self.need())
        finally:
            self.held_up = None

    def wait_for_attempt(self, seconds: float) -> None:
        """It waits for its next attempt from now on, for so long."""
        now = asyncio.get_running_loop().time()
        self.held_up = HeldUp("", now, due_at=now + seconds)

    def _wait_for_budget(self) -> None:
        """If it waits now, then for what is reserved for others."""
        self.held_up = HeldUp("the budget", asyncio.get_running_loop().time())

    async def reserve(self, counted: Sequence[Ledger]) -> None:
        """Take what it may use out of all its budgets; `counted` are those that count the call itself.

        Raises:
            StopRun: a budget does not suffice.
        """
        name = spender_of(self.actor, self.name)
        self._wait_for_budget()
        try:
            self.reservation: Reservation | None = await reserve(
                self.run.interruption,
                self.ledgers,
                counted,
                name,
                self.need(),
                self._reserved_around(),
                self.wait_while_held,
            )
        finally:
            self.held_up = None

    def stream(self, progress: Any) -> None:
        """Let those have it who look at text of the call as it streams, if anybody does."""
        key, sink, attempt = self.key, self.run.text_sink, self.attempts
        if key is None:
            return
        is_gap = self.unseen_in == attempt
        if sink is not None and sink.add(key, self.address, attempt, progress, is_gap=is_gap):
            self.unseen_in = 0
        else:
            self.unseen_in = attempt

    async def tell_progress(self, progress: Any) -> None:
        """Let subscribers know how the call gets on."""
        self.pieces_told += 1
        await self.run.publish(self.fact(ExecutionStatus.PROGRESS, self.attempts, more={"progress": progress}))

    async def report_waiting(self, limiter: str, why: str, seconds: float | None) -> None:
        """Let others know that the call waits for a limiter, or (0.0 seconds) that it need not wait any more."""
        self.held_up = None if seconds == 0.0 else HeldUp(limiter, asyncio.get_running_loop().time(), why)
        if self.run.is_observed:
            message, more = f"{limiter}: {why}", {"retry_delay": seconds}
            await self.run.publish(self.fact(ExecutionStatus.WAITING, self.attempts, message=message, more=more))

    def _reserved_around(self) -> list[Reservation]:
        """What is reserved for the calls around it."""
        return [caller.reservation for caller in self._callers() if caller.reservation is not None]

    def _callers(self) -> Iterator[Frame]:
        """The calls around it, the innermost first."""
        caller = self.parent
        while caller.is_under_way:
            yield caller
            caller = caller.parent

    async def wait_while_held(self) -> None:
        """The gate of a paused run. The time of the calls around it stands still: they wait for one that may not begin.

        Raises:
            StopRun: the run is being stopped.
        """
        if self.run.interruption.hold.is_held:
            limits = [caller.time_limit for caller in self._callers() if caller.time_limit is not None]
            self.held_up = HeldUp("pause", asyncio.get_running_loop().time(), "the run is paused")
            try:
                await self.run.interruption.wait_while_held(limits)
            finally:
                self.held_up = None

    def is_made_within(self, other: Any) -> bool:
        """Whether it is made by another call, directly or not."""
        caller = self.parent
        while caller.is_under_way and caller is not other:
            caller = caller.parent
        return caller is other

    def let_go(self) -> None:
        """It has ended, and what made it has its result.

        From a function of the program that failed, its error leads to the Python frames that awaited it, and these hold
        this one. What it held of the result and of its group would hold the error, until the garbage collector comes;
        and what the program has started in its context would hold the function.
        """
        self.result = self.settled = self.total = self.check = self.slot = self.given = None
        self.estimate: Callable[[], Usage | None] | None = None
        self.begin = _is_over

    @property
    def is_settling(self) -> bool:
        """Whether its outcome is on its way to the store, so that it must not be told to end now."""
        return self.has_settled and self.result is None

    @property
    def is_simple(self) -> bool:
        """Whether it is just one attempt with nothing around it, which most members are."""
        return (
            self.retry is None
            and self.timeout is None
            and self.breaker is None
            and self.check is None
            and not self.limits
            and not self.actor.may_lose_workers
        )

    def fact(
        self,
        status: ExecutionStatus,
        attempt: int = 1,
        seconds: float | None = None,
        message: str | None = None,
        result: Any = None,
        more: Mapping[str, Any] | None = None,
    ) -> Fact:
        """What there is to record of the call as it stands."""
        run, actor = self.run, self.actor
        if self.marks is not None:
            more = {**self.marks, **(more or {})}
        return _new_tuple(
            Fact,
            (
                run.run_id,
                run.now(),
                status,
                actor.event_type,
                actor,
                without_secrets(self.name),
                self.address,
                self.key,
                self.group_id,
                self.index,
                None if self.total is None else self.total(),
                attempt,
                seconds,
                None if message is None else redact(message),
                result,
                more,
            ),
        )

    def input_text(self, *, ok: bool) -> str | None:
        """What its outcome says of what it was called with; None for nothing."""
        how = self.actor.record_inputs or self.run.record_inputs
        if self.given is None or how is RecordInputs.NONE:
            return None
        return recorded_input(self.given, how, ok=ok)

    async def report(
        self,
        status: ExecutionStatus,
        attempt: int,
        message: str,
        more: Mapping[str, Any] | None = None,
        *,
        is_urgent: bool = False,
    ) -> None:
        """Record how the call stands, on disk before anything else happens if it is urgent, and publish it."""
        run = self.run
        fact = self.fact(status, attempt, message=message, more=more)
        await run.record(fact, is_urgent=is_urgent)
        if run.is_observed:
            await run.publish(fact)


current_frame: ContextVar[Frame | None] = cast("ContextVar[Frame | None]", current_call)
"""The call that is being executed in this context, if any."""


def leave(token: Token[Frame | None]) -> None:
    """Let the call around be the current one again.

    In another context there is nothing to go back to: where Python destroys a task whose event loop was given up, or
    where the block of a run is left by another task than entered it, as those of fixtures and lifespans are.
    """
    with suppress(ValueError):
        current_frame.reset(token)


def root_of(run: RunParts) -> Frame:
    """The place of calls that are made by no other call."""
    root = run.root
    if root is None:
        root = run.root = Frame(run, ROOT_KEY, "")
        if run.budgets.of_run is not None:
            root.ledgers = (run.budgets.of_run,)
    return cast(Frame, root)
