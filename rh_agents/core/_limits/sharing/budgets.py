"""What a run asks its store about a budget that it shares with others, and when."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

from rh_agents.core._limits.sharing.parts import BudgetPart, amounts_of
from rh_agents.core._loops.sleeping import slept
from rh_agents.core._loops.stop_signal import StopSignal
from rh_agents.core.errors import StoreError, UsageError
from rh_agents.core.policies.budget import Budget
from rh_agents.core.policies.sharing.budgets import (
    AMOUNTS,
    BUDGET_LOOK,
    BUDGET_RENEWAL,
    BudgetAnswer,
    BudgetAsk,
    BudgetHolder,
    ask_for_budget,
)
from rh_agents.core.policies.sharing.windows import Amounts
from rh_agents.core.ports import Store
from rh_agents.core.redaction import logger, without_secrets
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Spending, Usage

__all__ = ["SharedBudget", "SharedRecord"]

_log = logger("rh_agents.budgets")


class SharedRecord(Protocol):
    """The journal of a run, as far as its share of a budget depends on it."""

    @property
    def is_written_at_once(self) -> bool:
        """Whether what a call has used is on disk when it has ended; else it will be at some time, or never."""
        ...

    @property
    def last_entry(self) -> int:
        """The number of its last entry."""
        ...

    def spent_in(self, place: str) -> Spending:
        """What it shows that a part of the run has spent; "" is all of it."""
        ...

    async def written(self) -> None:
        """Wait until what was noted is on disk."""
        ...


class SharedBudget:
    """One budget that a run shares with others.

    Args:
        budget: as the program states it.
        place: the part of the run that uses it, as charges in its journal name it; "" is all of it.
        run_id: the run.
        store: through which it is shared.
        record: the journal of the run.
        slept: for how many seconds this machine has slept, while the clock of the event loop stood still.

    Raises:
        UsageError: the run has no store.
    """

    def __init__(
        self,
        budget: Budget,
        place: str,
        run_id: str,
        store: Store | None,
        record: SharedRecord,
        *,
        slept: Callable[[], float] = slept,
    ) -> None:
        if store is None:
            raise UsageError(
                f"the budget {budget.name!r} is shared, and this run has no store through which it could be: "
                "give it one, as in run(..., store='runs.db')"
            )
        self.name: str = budget.name
        self.place: str = place
        self._slept = slept
        self._run_id = run_id
        self._store = store
        self._record = record
        self._stated: dict[str, float] = {
            name: number for name in AMOUNTS if (number := getattr(budget, name)) is not None and number != math.inf
        }
        self.limits: Mapping[str, float] = dict(self._stated)
        """The numbers that hold, as far as is known here."""
        self.last: BudgetAnswer | None = None
        """What the store has answered last."""
        self._part = BudgetPart(self._holder())
        self._replaced: dict[str, float] = {}
        self._shown: dict[str, Amounts | None] = {}
        self._wanted: list[Amounts] = []
        self._waiters: set[asyncio.Future[None]] = set()
        self._lock = asyncio.Lock()
        self._asks_at = float("-inf")
        """When it is worth asking again for who was refused."""
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reads: set[str] = set()
        self._is_closed = False

    def _holder(self) -> BudgetHolder:
        run_id = self._run_id if self._record.is_written_at_once else None
        before = self._record.spent_in(self.place)
        shown = amounts_of(before.usage, before.calls)
        return BudgetHolder(uuid.uuid4().hex, run_id, self.place, self._record.last_entry, shown)

    # -- calls --------------------------------------------------------------------------------------------------------

    def has_room(self, need: Usage, calls: int) -> bool:
        """Whether a call may begin that needs so much, without asking the store."""
        return self._part.has_room(amounts_of(need, calls), self._now())

    async def obtain(self, interruption: StopSignal, need: Usage, calls: int) -> str | None:
        """There is no room: ask the store for some, or wait for others. Returns when it is worth looking again.

        Returns:
            What is missing, though others gave all back that they do not need; None if nothing is.

        Raises:
            StoreError: it cannot be asked.
        """
        amounts = amounts_of(need, calls)
        self._wanted.append(amounts)
        try:
            if (left := self._asks_at - self._now()) > 0:
                await self._wait(interruption, left)
                return None
            async with self._lock:
                if self._asks_at > self._now() or self._part.has_room(amounts, self._now()):
                    return None
                answer = await self._say(amounts)
                if not answer.is_granted and not answer.missing:
                    self._asks_at = self._now() + BUDGET_LOOK
                return _stated(answer.missing, answer.limits[answer.missing]) if answer.missing else None
        finally:
            self._wanted.remove(amounts)

    async def _wait(self, interruption: StopSignal, seconds: float) -> None:
        """Wait so long, or until something is given back here, or the run is being stopped."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        wake = partial(_wake, waiter)
        timer = asyncio.get_running_loop().call_later(seconds, wake)
        interruption.watch(wake)
        try:
            await waiter
        finally:
            interruption.unwatch(wake)
            timer.cancel()
            self._waiters.discard(waiter)

    def begins(self) -> None:
        """A call is under way."""
        self._part.begins()

    def take(self, need: Usage, calls: int = 0) -> None:
        """Reserve it for a call. There is room."""
        self._part.take(amounts_of(need, calls))

    def use(self, usage: Usage, reserved: Usage) -> None:
        """A call under way has used something, of which so much was reserved for it."""
        self._part.use(amounts_of(usage), amounts_of(reserved))

    def give_back(self, left: Usage, need: Usage) -> None:
        """What is left of a need is not reserved any more, so those that wait may look."""
        self._part.give_back(amounts_of(left), amounts_of(need))
        self._wake_all()

    def ended(self, used: Usage, calls: int, *, has_outcome: bool) -> None:
        """A call has ended that has used so much. Without an outcome it does not count, for it is made again."""
        part, counted = self._part, amounts_of(Usage(), calls)
        part.give_back(counted, counted)
        if has_outcome:
            part.use(counted)
        amounts = amounts_of(used, calls if has_outcome else 0)
        part.ended(amounts, is_written=has_outcome and self._record.is_written_at_once)
        self._wake_all()

    def learn(self, name: str, used: Usage) -> None:
        """A call of this name has used so much."""
        self._part.learn(without_secrets(name), {"cost": used.cost, "tokens": used.tokens})

    def largest_of(self, name: str) -> Usage:
        """What a call of this name has used at most so far, of all who share the budget, as far as is known here."""
        largest = self._part.largest_of(without_secrets(name))
        return Usage(input_tokens=int(largest.get("tokens", 0)), cost=largest.get("cost", 0.0))

    def _now(self) -> float:
        return asyncio.get_running_loop().time() + self._slept()

    def _wake_all(self) -> None:
        for waiter in self._waiters:
            _wake(waiter)

    # -- what is known ------------------------------------------------------------------------------------------------

    @property
    def spent_by_all(self) -> str:
        """One line for people."""
        spent = {} if self.last is None else self.last.spent
        named = (("calls", "{:,.0f} calls"), ("tokens", "{:,.0f} tokens"), ("cost", "${:,.4f}"))
        return ", ".join(text.format(spent[name]) for name, text in named if spent.get(name)) or "nothing"

    def in_use(self, name: str) -> tuple[float, float]:
        """How much all have spent, and have reserved beyond that, as far as is known here."""
        return self._part.seen(self.last, name)

    def replace(self, name: str, number: float) -> None:
        """A person has set another number, for all who share the budget."""
        self._replaced[name] = number
        self._asks_at = float("-inf")
        self._wake_all()
        self._in_background(self._renewed())

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _say(self, need: Amounts | None, *, closes: bool = False) -> BudgetAnswer:
        """Say how things are, and perhaps ask for more. Done by one at a time."""
        while True:
            part = self._part
            wanted = {name: sum(each[name] for each in self._wanted) for name in AMOUNTS} if need else {}
            shown, replaced = dict(self._shown), dict(self._replaced)
            asked_at = self._now()
            ask = part.ask(self._stated, need, wanted, replaced, shown, closes=closes)
            step = partial(_answer_for, ask)
            answer = await self._store.share(f"budget:{without_secrets(self.name)}", step)
            if not answer.is_unknown:
                break
            part.begin_anew(self._holder())
            if closes:
                return answer
        self._shown = {holder: each for holder, each in self._shown.items() if holder not in shown}
        self._replaced = {name: each for name, each in self._replaced.items() if replaced.get(name) != each}
        self._reads -= shown.keys()
        self.last, self.limits = answer, answer.limits
        if not closes:
            part.answered(ask, answer, asked_at)
            self._renew_later()
        for lapsed in answer.lapsed:
            if lapsed.id not in self._reads and not self._is_closed:
                self._reads.add(lapsed.id)
                self._in_background(self._find_out(lapsed))
        return answer

    def _renew_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_closed:
            renew = lambda: self._in_background(self._renewed())  # noqa: E731 - its task is made when it is time
            self._timer = asyncio.get_running_loop().call_later(BUDGET_RENEWAL, renew)

    async def _renewed(self) -> None:
        """Renew the lease, or give the part back that nobody uses."""
        try:
            written = self._part.written()
            if any(written.values()):
                if self._record.is_written_at_once:  # else its journal tells nothing anyway
                    await self._record.written()
                self._part.are_written(written)
            async with self._lock:
                if self._is_closed:
                    return
                if self._part.is_new or self._part.under_way or self._wanted or self._replaced or self._shown:
                    await self._say(None)
                else:
                    await self._leave()
        except (
            StoreError
        ) as error:  # whoever needs it learns that; until the lease has ended the store may be there again
            _log.debug("the lease of the budget %r could not be renewed: %s", self.name, error)
            self._renew_later()

    async def _leave(self) -> None:
        """What was spent is spent, and the rest is there for others."""
        await self._say(None, closes=True)
        self._part.begin_anew(self._holder())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- others that have died ----------------------------------------------------------------------------------------

    async def _find_out(self, holder: BudgetHolder) -> None:
        """Read what a journal shows of a holder that says nothing any more."""
        try:
            shown = await _shown_by(self._store, holder)
        except StoreError as error:
            _log.warning("what %r had spent of the budget %r could not be read: %s", holder.run, self.name, error)
            self._reads.discard(holder.id)
            return
        self._shown[holder.id] = shown
        self._asks_at = float("-inf")
        self._wake_all()

    # -- the end ------------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """The run ends: nothing is asked any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        async with self._lock:
            try:
                if self._replaced and self._part.is_new:
                    await self._say(None)
                if not self._part.is_new:
                    await self._leave()
            except StoreError as error:  # its journal says what it has spent, when its lease has ended
                _log.warning("the part of the budget %r was not given back: %s", self.name, error)


async def _shown_by(store: Store, holder: BudgetHolder) -> Amounts | None:
    """What the journal of a run shows that one execution of it has spent; None if there is no journal that tells.

    Raises:
        StoreError: it cannot be read.
    """
    spent, calls = Usage(), 0
    if holder.run is None or await store.find_run(holder.run) is None:
        return None
    async for recorded in store.events(holder.run, after=holder.since, values=False):
        event = recorded.event
        if event.execution_status is ExecutionStatus.SUPERSEDED:
            continue  # earlier versions wrote there once more what the outcome's event says
        if holder.place and holder.place not in (event.charges or {}):
            continue
        spent = spent if event.usage is None else spent + event.usage
        calls += recorded.has_outcome and not event.from_cache
    return amounts_of(spent, calls)


def _answer_for(ask: BudgetAsk, state: dict[str, Any], now: float) -> BudgetAnswer:
    return ask_for_budget(state, ask, now)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _stated(name: str, number: float) -> str:
    return f"{name}={number:g}" if name == "cost" else f"{name}={number:,.0f}"
