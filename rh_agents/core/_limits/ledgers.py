"""Budgets at work: what is spent, what is reserved for calls under way, and what has to wait or to stop."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

from rh_agents.core._loops.stop_signal import StopSignal
from rh_agents.core.errors import StopRun, UsageError
from rh_agents.core.policies.budget import Budget
from rh_agents.core.usage import Shortfall, Spending, Usage

_NOTHING = Usage()
_NOT_ENOUGH = ", does not suffice for another call"


class Share(Protocol):
    """What the run has of a budget that it shares with others; see `rh_agents.core._limits.sharing.budgets`."""

    name: str
    limits: Mapping[str, float]

    @property
    def spent_by_all(self) -> str:
        """One line for people."""
        ...

    def in_use(self, name: str) -> tuple[float, float]:
        """How much all have spent, and have reserved beyond that."""
        ...

    def has_room(self, need: Usage, calls: int) -> bool:
        """Whether a call may begin that needs so much, without asking the store."""
        ...

    async def obtain(self, interruption: StopSignal, need: Usage, calls: int) -> str | None:
        """Ask the store for room, or wait for others; returns what is missing for good."""
        ...

    def begins(self) -> None:
        """A call is under way."""
        ...

    def take(self, need: Usage, calls: int = 0) -> None:
        """Reserve it for a call."""
        ...

    def use(self, usage: Usage, reserved: Usage) -> None:
        """A call under way has used something, of which so much was reserved for it."""
        ...

    def give_back(self, left: Usage, need: Usage) -> None:
        """What is left of a need is not reserved any more."""
        ...

    def ended(self, used: Usage, calls: int, *, has_outcome: bool) -> None:
        """A call has ended that has used so much."""
        ...

    def largest_of(self, name: str) -> Usage:
        """What a call of this name has used at most so far, of all who share it."""
        ...

    def learn(self, name: str, used: Usage) -> None:
        """A call of this name has used so much."""
        ...

    def replace(self, name: str, number: float) -> None:
        """A person has set another number."""
        ...

    async def aclose(self) -> None:
        """The run ends."""
        ...


class Ledger:
    """What is spent under one budget.

    Args:
        budget: the budget.
        place: the key of the part of the run that it is for, in hexadecimal; "" is the run itself.
        name: that part for people.
        spent: what was spent in earlier executions. It is counted on from there.
        depth: how many calls there are around that part.
        time: how long the run has worked, in seconds from some moment on (see `Hold.time`).
        share: where money, tokens and calls are counted, if the budget is shared with other runs.
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
        share: Share | None = None,
    ) -> None:
        self.budget = budget
        self.share: Share | None = share
        self.place = place
        self.name = name
        self.spent = spent
        self.reserved: Usage = _NOTHING
        self._reservations = 0
        self.deepest: float = math.inf if budget.depth is None else depth + budget.depth
        self._time = time
        self._opened_at: float | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._largest: dict[str, Usage] = {}
        """What a call has used at most in this execution, by its name."""

    def open(self, since: float | None = None) -> None:
        """The part of the run is under way from now on, or since that time."""
        self._opened_at = self._time() if since is None else since

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

    def learn(self, name: str, used: Usage) -> None:
        """A call has used so much: so much is reserved from now on for calls of its name that say nothing."""
        if self.share is not None:
            self.share.learn(name, used)
        elif self.budget.counts_tokens:
            self._largest[name] = larger_of(used, self._largest.get(name, _NOTHING))

    def largest_of(self, name: str) -> Usage:
        """What a call of this name has used at most so far."""
        return self._largest.get(name, _NOTHING) if self.share is None else self.share.largest_of(name)

    def take(self, need: Usage) -> None:
        """Reserve it."""
        self._reservations += 1
        self.reserved = self.reserved + need

    def give_back(self, need: Usage) -> None:
        """What was taken is free again, so whoever waits may look."""
        self._reservations -= 1
        # sums of fractions leave some behind, for which a call that needs all the rest would wait for ever
        self.reserved = self.reserved - need if self._reservations else _NOTHING
        self.settle()

    def settle(self) -> None:
        """Something that was reserved is free again, so whoever waits may look."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def change(self, interruption: StopSignal, need: Usage, calls: int) -> str | None:
        """Wait until something has been settled, or the run is being stopped.

        Returns:
            What is not left of a shared budget, whatever others give back; None if it is worth looking again.

        Raises:
            StoreError: the store of a shared budget cannot be asked.
        """
        if self.share is not None:
            return await self.share.obtain(interruption, need, calls)
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
        return None

    def missing(self, need: Usage, calls: int) -> str | None:
        """What is not left for a call that needs so much, though nothing else were under way; None if all is."""
        budget, spent = self.budget, self.spent
        if self.share is not None:
            pass  # what others have spent, only the store knows
        elif budget.calls is not None and spent.calls + calls > budget.calls:
            return f"calls={budget.calls:,}"
        elif budget.tokens is not None and spent.usage.tokens + need.tokens > budget.tokens:
            return f"tokens={budget.tokens:,}"
        elif budget.cost is not None and spent.usage.cost + need.cost > budget.cost:
            return f"cost={budget.cost:g}"
        if budget.seconds is not None and self.seconds >= budget.seconds:
            return f"seconds={budget.seconds:g}"
        return None

    def in_use(self, field: str) -> tuple[float, float]:
        """How much is spent of a number of the budget, and is reserved beyond that for calls under way: by all."""
        if field == "seconds":
            return self.seconds, 0.0
        if self.share is not None:
            return self.share.in_use(field)
        if field == "calls":
            return self.spent.calls, 0.0
        return getattr(self.spent.usage, field), getattr(self.reserved, field)

    def limit_of(self, field: str) -> float | None:
        """What the budget allows of it; None for no limit."""
        if self.share is not None and field != "seconds":
            return self.share.limits.get(field)
        number: float | None = getattr(self.budget, field)
        return None if number == math.inf else number

    def has_room(self, need: Usage, calls: int = 0) -> bool:
        """Whether there is enough for a call beside those that are under way."""
        if self.share is not None:
            return self.share.has_room(need, calls)
        budget, spent, reserved = self.budget, self.spent.usage, self.reserved
        return (budget.tokens is None or spent.tokens + reserved.tokens + need.tokens <= budget.tokens) and (
            budget.cost is None or spent.cost + reserved.cost + need.cost <= budget.cost
        )

    def stop(self, limit: str, actor: str) -> StopRun:
        """Why no call of the actor can be made any more."""
        part = f"the budget of {self.name}" if self.name else "the run's budget"
        so_far = str(self.spent)
        if self.share is not None and not limit.startswith("seconds="):
            part = self._shared_as
            so_far = f"{self.share.spent_by_all} by all who share it; here {so_far}"
        return StopRun(
            f"{part}, {limit}{_NOT_ENOUGH} ({actor}); spent so far: {so_far}",
            shortfall=Shortfall(self.place, self.name, limit.partition("=")[0], self.spent),
        )

    @property
    def _shared_as(self) -> str:
        return f"the shared budget {self.budget.name!r}"

    def limit_in(self, reason: str) -> str | None:
        """What does not suffice, if this is why a part of the run in another process was stopped, and we share it."""
        if self.share is None or not reason.startswith(f"{self._shared_as}, "):
            return None
        return reason.removeprefix(f"{self._shared_as}, ").partition(_NOT_ENOUGH)[0]


class Reservation:
    """What one call may spend, taken out of all ledgers that count it, until it has ended.

    Args:
        ledgers: those that count what it uses.
        counted: those that count the call itself.
        name: the name of what is called.
        need: what it may use.
    """

    __slots__ = ("_counted", "_ledgers", "_left", "_name", "_need", "_shares", "_since", "_used")

    def __init__(self, ledgers: Sequence[Ledger], counted: Sequence[Ledger], name: str, need: Usage) -> None:
        self._ledgers = ledgers
        self._counted = counted
        self._name = name
        self._need = _NOTHING
        self._used = _NOTHING
        self._since = _NOTHING
        """What it has used since something was reserved for it."""
        self._left = _NOTHING
        """What of its need it has not used: in shares it counts once, as used or as reserved."""
        self._shares: dict[Share, int] = {}
        """Those of which it is taken, each once, and how many calls they count of it."""
        for ledger in counted:
            ledger.spent.calls += 1
        for ledger in ledgers:
            if ledger.share is not None:
                self._shares[ledger.share] = self._shares.get(ledger.share, 0) or int(ledger in counted)
        for share, calls in self._shares.items():
            share.begins()
            share.take(_NOTHING, calls)
        self._take(need)

    def _take(self, need: Usage) -> None:
        self._need = need
        if not need:
            return
        for ledger in self._ledgers:
            ledger.take(need)
        if self._shares:
            self._left = need
        for share in self._shares:
            share.take(need)

    def is_in(self, ledger: Ledger) -> bool:
        """Whether it is taken out of this ledger, among others."""
        return ledger in self._ledgers

    def spend(self, usage: Usage) -> None:
        """The call has used something."""
        self._since = self._since + usage
        for ledger in self._ledgers:
            ledger.spend(self._name, usage)
        if not self._shares:
            return
        left = self._left
        part = Usage(input_tokens=min(left.tokens, usage.tokens), cost=min(left.cost, usage.cost))
        self._left = Usage(input_tokens=left.tokens - part.tokens, cost=left.cost - part.cost)
        self._used = self._used + usage
        for share in self._shares:
            share.use(usage, part)

    async def renew(
        self,
        interruption: StopSignal,
        need: Usage | None,
        callers: Sequence[Reservation] = (),
        aside: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        """The call goes on, with another attempt or request: what it used is spent, and it needs so much again.

        What is reserved for its `callers` is given back before it waits, as when it began. Each wait is in a block of
        `aside`: those for whom something is reserved may wait for what this call holds.

        Raises:
            StopRun: a budget does not suffice.
        """
        self._learn()
        self.give_back()
        self._take(await room_for(interruption, self._ledgers, (), self._name, need, callers, aside=aside))

    def release(self, *, has_outcome: bool) -> None:
        """The call has ended, and what it used is spent. Without an outcome it is not counted, for it is made again."""
        if not has_outcome:
            for ledger in self._counted:
                ledger.spent.calls -= 1
        self._learn()
        self.give_back()
        shares, self._shares = self._shares, {}
        for share, calls in shares.items():
            share.ended(self._used, calls, has_outcome=has_outcome)

    def _learn(self) -> None:
        used, self._since = self._since, _NOTHING
        if used:
            for ledger in self._ledgers:
                ledger.learn(self._name, used)

    def give_back(self) -> bool:
        """Let others have what is reserved. Returns whether anything was."""
        need, self._need = self._need, _NOTHING
        if not need:
            return False
        for ledger in self._ledgers:
            ledger.give_back(need)
        left, self._left = self._left, _NOTHING
        for share in self._shares:
            share.give_back(left, need)
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
    awaited after that: a call must not begin if the run has been paused meanwhile. Where nobody knows what it needs
    (None), that is the largest that a call of this name has used so far, as far as its budgets have heard.

    Raises:
        StopRun: a budget does not suffice.
        UsageError: there is a budget of money, and nobody knows what the call costs.
        StoreError: the store of a shared budget cannot be asked.
    """
    return Reservation(
        ledgers, counted, name, await room_for(interruption, ledgers, counted, name, need, callers, go_on)
    )


async def room_for(
    interruption: StopSignal,
    ledgers: Sequence[Ledger],
    counted: Sequence[Ledger],
    name: str,
    need: Usage | None,
    callers: Iterable[Reservation] = (),
    go_on: Callable[[], Awaitable[None]] | None = None,
    aside: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
) -> Usage:
    """Wait until all ledgers have room for a call, as `reserve` does. Returns what is to be taken out of them, now."""
    is_known, need = need is not None, need or _NOTHING
    if math.isnan(need.cost):
        if any(ledger.budget.cost is not None for ledger in ledgers):
            raise UsageError(
                f"a budget of money cannot be held: the price of {name} is unknown; give it a price, "
                "for instance price=Price(input=0.4, output=1.6) for a million tokens each"
            )
        need = replace(need, cost=0.0)
    while True:
        if not is_known:
            need = _largest_so_far(ledgers, name)
        for ledger in ledgers:
            _expect_enough(interruption, ledger, ledger.missing(need, ledger in counted), name)
        waits_for = next((each for each in ledgers if not each.has_room(need, each in counted)), None)
        if waits_for is None:
            return need
        if not any(caller.give_back() for caller in callers):
            async with aside():
                limit = await waits_for.change(interruption, need, waits_for in counted)
            interruption.expect_running()
            _expect_enough(interruption, waits_for, limit, name)
            if go_on is not None:
                await go_on()


def _largest_so_far(ledgers: Sequence[Ledger], name: str) -> Usage:
    largest = _NOTHING
    for ledger in ledgers:
        largest = larger_of(largest, ledger.largest_of(name))
    return largest


def larger_of(a: Usage, b: Usage) -> Usage:
    """Of tokens and of money, the larger number of each."""
    return Usage(input_tokens=max(a.tokens, b.tokens), cost=max(a.cost, b.cost))


def _expect_enough(interruption: StopSignal, ledger: Ledger, missing: str | None, name: str) -> None:
    """Stop what the budget is for, if something is missing for a call of this name."""
    if missing is not None:
        stop = ledger.stop(missing, name)
        interruption.budget_spent(stop)
        raise stop
