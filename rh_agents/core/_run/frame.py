"""One call while it is under way: where it is, how often it was tried, what it holds and what it has used.

A frame is also the place from which further calls are made: their keys are derived from its own, and it numbers those
that are identical (`rh_agents.core._replay.identity`). The frame that is executed in a context is in `current_frame`.
Calls that no other call makes have the root of their run as their parent, which is never under way itself.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar, Token
from typing import Any, Protocol, cast

from rh_agents.core._base.current import current_call
from rh_agents.core._limits.consumption import Consumption, OwnCalls
from rh_agents.core._limits.interruption import CallsUnderWay
from rh_agents.core._limits.ledgers import Ledger, Reservation, reserve
from rh_agents.core._limits.sampling import HeldUp
from rh_agents.core._loops.postponed import Postponed
from rh_agents.core._replay.identity import ROOT_KEY, Claimant, Numbering, idempotency_key
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.tracing import TracedCall
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import StopRun
from rh_agents.core.events import Fact, spender_of
from rh_agents.core.groups import GroupEnding
from rh_agents.core.policies._checks import Failure
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.ports import CallContext
from rh_agents.core.redaction import redact
from rh_agents.core.results import ExecutionResult
from rh_agents.core.types import EventType, ExecutionStatus, Generation
from rh_agents.core.usage import Usage

__all__ = ["Frame", "current_frame", "leave", "root_of"]

_LEAST_WAIT = 0.001
"""Seconds: shorter waits are not recorded, so that the rows of most calls stay alike."""
_AGENT_CALL, _FUNCTION_CALL = EventType.AGENT_CALL, EventType.FUNCTION_CALL
_NOTHING: Mapping[str, Any] = {}
_new_tuple = tuple.__new__  # a third of the time that a NamedTuple takes to be called


class Members(Protocol):
    """Those of a group, as its calls see them."""

    @property
    def total(self) -> int | None:
        """How many there will be; None if an iterable does not tell its length."""
        ...


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

    # What most calls do without is set only where it matters: thousands are made a second, and an object with more
    # than 30 attributes is made with a dictionary of its own, which takes twice as long.

    tries: int = 0
    attempt: int = 0
    token: str | None = None
    depth: int = 0
    own_calls: dict[str, OwnCalls] | None = None
    stop: StopRun | None = None
    caller: Claimant | None = None
    """The task whose block of a group it is a member of; else the one that executes it."""
    is_under_way: bool = False
    """Whether it is being executed. Code that it has left behind may go on in its context after that."""

    check: Callable[[], Awaitable[None]] | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    breaker: CircuitBreaker | None = None
    slot: AbstractAsyncContextManager[None] | None = None
    """A block in which it waits for its next attempt, and others of its group may run in its place."""
    group_id: str | None = None
    """The group of which it is a member."""
    index: int | None = None
    elsewhere: Callable[[Frame], Awaitable[ExecutionResult[Any]]] | None = None
    """Has it made in another process; None if it is made here."""
    among: Members | None = None
    """The members of its group, itself included, in so far as events say how many there are."""
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
    standing: int = 0
    """For how many reasons it stands still now."""
    still_since: float = 0.0
    stood_still: float = 0.0
    """The seconds since it began in which it did no work, see `stand_still`."""
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
    trace: TracedCall | None = None
    marks: Mapping[str, Any] | None = None
    """Fields that all of its events have: its tag, and what else its caller wants to be kept. `trace`: its tracer."""
    actor: BaseActor
    parent: Frame
    begin: Callable[[], Awaitable[Any]]
    shown_name: str
    """Its name as it is recorded and shown."""
    is_told: bool
    """Whether there are events about it whatever becomes of it. Where nobody listens, plain functions go without,
    because they are many; and so does everything where no history is kept either."""

    def __init__(
        self,
        run: RunParts,
        base: bytes,
        address: str,
        innermost_group: str | None = None,
        parent: Frame | None = None,
        actor: BaseActor | None = None,
        name: str = "",
        shown_name: str = "",
        key: bytes | None = None,
        tries: int = 0,
        is_member: bool = False,
    ) -> None:
        """A call of `actor`, made by `parent`, perhaps as a member of a group; without them, a place of calls."""
        self.run: RunParts = run
        self.base: bytes = base
        self.address: str = address
        self.innermost_group: str | None = innermost_group
        self.name: str = name
        self.key: bytes | None = key
        if parent is None or actor is None:
            return
        self.parent = parent
        self.actor = actor
        self.shown_name = shown_name
        if tries:
            self.tries = tries
        kind = actor.event_type
        self.is_told = (
            run.records
            or (run.bus.wants_routine if is_member else run.is_observed)
            or (kind is not _FUNCTION_CALL and run.history.limit != 0)
        )
        if actor.marks_attempts or (run.marks_attempts and actor.on_unknown is None and kind is not _AGENT_CALL):
            self.is_written_ahead = True
        self.depth = parent.depth + 1
        if parent.own_calls is not None:
            self.own_calls = parent.own_calls
        if parent.ledgers:
            self.ledgers: tuple[Ledger, ...] = parent.ledgers
        if kind is _AGENT_CALL:
            self._enter_agent(parent, actor.name)

    def _enter_agent(self, parent: Frame, agent: str) -> None:
        mine = None if parent.own_calls is None else parent.own_calls.get(agent)
        if mine is None:
            self.own_calls = {**(parent.own_calls or {}), agent: OwnCalls()}
        else:
            mine.count += 1

    def about(self) -> CallContext:
        """What the function that is called may know of the call, wherever it runs."""
        run = self.run
        if run.records:
            key = idempotency_key(run.identity, self.base)
        else:
            self.token = self.token or run.new_id()
            key = idempotency_key(run.identity, self.token.encode())
        resources = (self.actor.resources if self.depth else None) or _NOTHING
        trace = _NOTHING if run.tracing is None else run.tracing.carrier()
        return CallContext(run.identity, self.address, self.attempt, key, self.innermost_group, trace, resources)

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

    def try_of(self, base: bytes, ending: GroupEnding | None = None, *, is_member: bool = False) -> tuple[bytes, int]:
        """The key under which the call at the place `base` is made now, and how often it has been made before.

        Of a member, `ending` says how its group ends again; None if that is open.
        """
        recording = self.run.recording
        if not (recording.is_resumed or self.tries or self.attempt > 1):
            return base, 0  # its body was not executed before
        if not recording.recorded.may_be_tried_again(base):
            return base, 0
        rules = recording.rules.in_group(ending) if is_member else recording.rules
        return recording.try_of(base, self.generation, rules)

    def postpone(self, error: asyncio.CancelledError) -> Postponed:
        """A cancellation has come when there was an outcome already: it is delivered after that."""
        self.postponed = self.postponed or Postponed()
        self.postponed.add(error)
        return self.postponed

    # -- what it uses, and what it tells ------------------------------------------------------------------------------

    def add_usage(self, usage: Usage) -> None:
        """The call has used something."""
        usage = self.actor.priced(usage)
        self.usage: Usage | None = usage if self.usage is None else self.usage + usage
        self.run.budgets.spend(spender_of(self.actor, self.name), usage, self.reservation)

    def newly_spent(self) -> dict[str, Any] | None:
        """What was spent since the last fact that said so, as its `more`; None if nothing was."""
        usage = self.untold_usage()
        has_budget = self.ledgers or self.run.budgets.of_run is not None
        charges = self.charges() if has_budget and self.run.records else None
        more: dict[str, Any] = {} if usage is None else {"usage": usage}
        if charges:
            more["charges"] = charges
        return more or None

    @property
    def all_ledgers(self) -> tuple[Ledger, ...]:
        """All budgets that count what is spent in it, that of the run first: it may have come later than the call."""
        of_run = self.run.budgets.of_run
        return self.ledgers if of_run is None else (of_run, *self.ledgers)

    async def readmit(self, estimate: Usage) -> None:
        """Wait until another request may be made within the same attempt.

        Raises:
            StopRun: the run is being stopped, or its budget does not suffice.
        """
        self.run.interruption.expect_running()
        self._wait_for_budget()
        try:
            await self.reenter(self.run.interruption, estimate, self._reserved_around())
        finally:
            self.come_forward()

    async def renew(self) -> None:
        """Take what another attempt may use out of its budgets.

        Raises:
            StopRun: a budget does not suffice.
        """
        if self.reservation is None:  # the run had no budget yet when the call began
            await self.reserve(self.all_ledgers)
            return
        self._wait_for_budget()
        try:
            await self.reservation.renew(self.run.interruption, self.need(), self._reserved_around())
        finally:
            self.come_forward()

    def wait_for_attempt(self, seconds: float) -> None:
        """It waits for its next attempt from now on, for so long."""
        now = asyncio.get_running_loop().time()
        self.hold_up(HeldUp("", now, due_at=now + seconds))

    def _wait_for_budget(self) -> None:
        """If it waits now, then for what is reserved for others."""
        self.hold_up(HeldUp("the budget", asyncio.get_running_loop().time()))

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
                self.all_ledgers,
                counted,
                name,
                self.need(),
                self._reserved_around(),
                self.wait_while_held,
            )
        finally:
            self.come_forward()

    def hold_up(self, why: HeldUp) -> None:
        """It waits from now on, and for this."""
        if self.held_up is None:
            self.stand_still()
        if self.trace is not None:
            self.trace.held_up(self.held_up, why)
        self.held_up = why

    def come_forward(self) -> None:
        """It need not wait any more."""
        if self.held_up is not None:
            if self.trace is not None:
                self.trace.waited(self.held_up)
            self.held_up = None
            self.go_on()

    def stand_still(self) -> None:
        """It does no work until as many times `go_on` is called: it waits, or all that it is about does."""
        if not self.standing:
            self.still_since = asyncio.get_running_loop().time()
        self.standing += 1

    def go_on(self) -> None:
        """One reason less to stand still."""
        self.standing -= 1
        if not self.standing:
            self.stood_still += asyncio.get_running_loop().time() - self.still_since

    def spent_and_waited(self, seconds: float) -> dict[str, Any] | None:
        """What `newly_spent` says, and how long it stood still."""
        return self.with_waits(self.newly_spent(), seconds)

    def with_waits(self, more: dict[str, Any] | None, seconds: float | None) -> dict[str, Any] | None:
        """The same, of a call that has ended and took so long, with how long it stood still, if it did."""
        self.come_forward()  # it may have been cut short while it waited
        waited = min(self.stood_still, seconds or 0.0)
        return more if waited < _LEAST_WAIT else {"waited": round(waited, 6), **(more or {})}

    @contextmanager
    def all_standing_still(self) -> Iterator[None]:
        """While the block lasts, neither it nor the calls around it do any work: a person is waited for."""
        calls = [self, *self._callers()]
        for call in calls:
            call.stand_still()
        try:
            yield
        finally:
            for call in calls:
                call.go_on()

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
        if seconds == 0.0:
            self.come_forward()
        else:
            self.hold_up(HeldUp(limiter, asyncio.get_running_loop().time(), why))
            self.run.log.waits(self.address, limiter, why)
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

    async def pass_gate(self) -> None:
        """The gate of a paused run, right before a call begins. The run may have got a budget meanwhile.

        Raises:
            StopRun: the run is being stopped, or its budget does not suffice.
        """
        await self.wait_while_held()
        if self.reservation is None and self.run.budgets.of_run is not None:
            await self.reserve(self.all_ledgers)

    async def wait_while_held(self) -> None:
        """The gate of a paused run. The time of the calls around it stands still: they wait for one that may not begin.

        Raises:
            StopRun: the run is being stopped.
        """
        if self.run.interruption.hold.is_held:
            limits = [caller.time_limit for caller in self._callers() if caller.time_limit is not None]
            outer, self.held_up = self.held_up, HeldUp("pause", asyncio.get_running_loop().time(), "the run is paused")
            try:
                with self.all_standing_still():
                    await self.run.interruption.wait_while_held(limits)
            finally:
                self.held_up = outer

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
        self.result = self.settled = self.among = self.given = None
        self.estimate: Callable[[], Usage | None] | None = None
        if self.check is not None or self.slot is not None:
            self.check = self.slot = None
        self.begin = _is_over

    @property
    def is_settling(self) -> bool:
        """Whether its outcome is on its way to the store, so that it must not be told to end now."""
        return self.has_settled and self.result is None

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
                self.shown_name,
                self.address,
                self.key,
                self.group_id,
                self.index,
                None if self.among is None else self.among.total,
                attempt,
                seconds,
                None if message is None else redact(message),
                result,
                more,
            ),
        )

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
    try:  # noqa: SIM105 - `suppress` takes longer than the rest, and each call comes here
        current_frame.reset(token)
    except ValueError:
        pass


def root_of(run: RunParts) -> Frame:
    """The place of calls that are made by no other call."""
    root = run.root
    if root is None:
        root = run.root = Frame(run, ROOT_KEY, "")
    return cast(Frame, root)
