"""Budgets at work: what is spent, what is reserved for calls under way, and what has to wait or to stop."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from rh_agents.core._loops.stop_signal import StopSignal
from rh_agents.core.errors import StopRun, UsageError
from rh_agents.core.policies.budget import Budget
from rh_agents.core.usage import Shortfall, Spending, Usage

_NOTHING = Usage()


class Ledger:
    """What is spent under one budget.

    Args:
        budget: the budget.
        place: the key of the part of the run that it is for, in hexadecimal; "" is the run itself.
        name: that part for people.
        spent: what was spent in earlier executions. It is counted on from there.
        depth: how many calls there are around that part.
        time: how long the run has worked, in seconds from some moment on (see `Hold.time`).
    """

    def __init__(
        self,
        budget: Budget,
        place: str,
        name: str,
        spent: Spending,
        depth: int = 0,
        *,
        time: Callable[[], float],
    ) -> None:
        self.budget = budget
        self.place = place
        self.name = name
        self.spent = spent
        self.reserved: Usage = _NOTHING
        self.deepest: float = math.inf if budget.depth is None else depth + budget.depth
        self._time = time
        self._opened_at: float | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()

    def open(self) -> None:
        """The part of the run is under way from now on."""
        self._opened_at = self._time()

    def close(self) -> None:
        """It is no longer under way."""
        self.spent.seconds = self.seconds
        self._opened_at = None

    @property
    def seconds(self) -> float:
        """How long it has been under way, in all executions, without pauses."""
        return self.spent.seconds + (0.0 if self._opened_at is None else self._time() - self._opened_at)

    @property
    def charge(self) -> float:
        """What events say of it, so that it can be counted on from there (see `ExecutionEvent.charges`)."""
        return 0.0 if self.budget.seconds is None else self.seconds

    def spend(self, name: str, usage: Usage) -> None:
        """A call has used something."""
        self.spent.add(name, usage)

    def settle(self) -> None:
        """Something that was reserved is free again, so whoever waits may look."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def change(self, interruption: StopSignal) -> None:
        """Wait until something has been settled, or the run is being stopped."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        interruption.watch(wake)
        try:
            await waiter
        finally:
            interruption.unwatch(wake)

    def missing(self, need: Usage, calls: int) -> str | None:
        """What is not left for a call that needs so much, though nothing else were under way; None if all is."""
        budget, spent = self.budget, self.spent
        if budget.calls is not None and spent.calls + calls > budget.calls:
            return f"calls={budget.calls:,}"
        if budget.tokens is not None and spent.usage.tokens + need.tokens > budget.tokens:
            return f"tokens={budget.tokens:,}"
        if budget.cost is not None and spent.usage.cost + need.cost > budget.cost:
            return f"cost={budget.cost:g}"
        if budget.seconds is not None and self.seconds >= budget.seconds:
            return f"seconds={budget.seconds:g}"
        return None

    def has_room(self, need: Usage) -> bool:
        """Whether there is enough for a call beside those that are under way."""
        budget, spent, reserved = self.budget, self.spent.usage, self.reserved
        return (budget.tokens is None or spent.tokens + reserved.tokens + need.tokens <= budget.tokens) and (
            budget.cost is None or spent.cost + reserved.cost + need.cost <= budget.cost
        )

    def stop(self, limit: str, actor: str) -> StopRun:
        """Why no call of the actor can be made any more."""
        part = f"the budget of {self.name}" if self.name else "the run's budget"
        return StopRun(
            f"{part}, {limit}, does not suffice for another call ({actor}); spent so far: {self.spent}",
            shortfall=Shortfall(self.place, self.name, limit.partition("=")[0], self.spent),
        )


class Reservation:
    """What one call may spend, taken out of all ledgers that count it, until it has ended.

    Args:
        ledgers: those that count what it uses.
        counted: those that count the call itself.
        name: the name of what is called.
        need: what it may use.
    """

    __slots__ = ("_counted", "_ledgers", "_name", "_need")

    def __init__(self, ledgers: Sequence[Ledger], counted: Sequence[Ledger], name: str, need: Usage) -> None:
        self._ledgers = ledgers
        self._counted = counted
        self._name = name
        self._need = need
        for ledger in ledgers:
            ledger.reserved = ledger.reserved + need
        for ledger in counted:
            ledger.spent.calls += 1

    def spend(self, usage: Usage) -> None:
        """The call has used something."""
        for ledger in self._ledgers:
            ledger.spend(self._name, usage)

    async def renew(self, interruption: StopSignal, need: Usage | None) -> None:
        """The call goes on, with another attempt or request: what it used is spent, and it needs so much again.

        Raises:
            StopRun: a budget does not suffice.
        """
        self.give_back()
        fresh = await reserve(interruption, self._ledgers, (), self._name, need)
        self._need = self._need + fresh._need  # requests side by side may be renewed at the same time

    def release(self, *, has_outcome: bool) -> None:
        """The call has ended, and what it used is spent. Without an outcome it is not counted, for it is made again."""
        if not has_outcome:
            for ledger in self._counted:
                ledger.spent.calls -= 1
        self.give_back()

    def give_back(self) -> bool:
        """Let others have what is reserved. Returns whether anything was."""
        need, self._need = self._need, _NOTHING
        if not need:
            return False
        for ledger in self._ledgers:
            ledger.reserved = ledger.reserved - need
            ledger.settle()
        return True


async def reserve(
    interruption: StopSignal,
    ledgers: Sequence[Ledger],
    counted: Sequence[Ledger],
    name: str,
    need: Usage | None,
    callers: Iterable[Reservation] = (),
    go_on: Callable[[], Awaitable[None]] | None = None,
) -> Reservation:
    """Take what a call needs at most out of all its ledgers; `counted` are those that count the call itself.

    If a budget suffices for it only without what is reserved for others, it waits until that is settled. What is
    reserved for its `callers` is given back before that: nobody reserves something and waits for more. `go_on` is
    awaited after that: a call must not begin if the run has been paused meanwhile.

    Raises:
        StopRun: a budget does not suffice.
        UsageError: there is a budget of money, and nobody knows what the call costs.
    """
    need = need or _NOTHING
    if math.isnan(need.cost):
        if any(ledger.budget.cost is not None for ledger in ledgers):
            raise UsageError(
                f"a budget of money cannot be held: the price of {name} is unknown; give it a price, "
                "for instance price=Price(input=0.4, output=1.6) for a million tokens each"
            )
        need = replace(need, cost=0.0)
    while True:
        for ledger in ledgers:
            limit = ledger.missing(need, ledger in counted)
            if limit is not None:
                stop = ledger.stop(limit, name)
                interruption.budget_spent(stop)
                raise stop
        waits_for = next((ledger for ledger in ledgers if not ledger.has_room(need)), None)
        if waits_for is None:
            break
        if not any(caller.give_back() for caller in callers):
            await waits_for.change(interruption)
            interruption.expect_running()
            if go_on is not None:
                await go_on()
    return Reservation(ledgers, counted, name, need)
