"""What a limit that processes share asks its store, and when."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from rh_agents.core._limits.sharing.leasing import RateLease, SlotLease
from rh_agents.core._loops.sleeping import slept
from rh_agents.core.errors import StoreError
from rh_agents.core.policies.limits import ConcurrencyLimit, Limit, Permit, RateLimit, RateLimitHint, Refusal
from rh_agents.core.policies.sharing.rates import LOOK, RateAnswer, RateAsk, ask_for_permits
from rh_agents.core.policies.sharing.slots import SLOT_LOOK, SLOT_RENEWAL, SlotAnswer, SlotAsk, ask_for_slots
from rh_agents.core.policies.sharing.windows import RateWindow, SharedStates
from rh_agents.core.redaction import without_secrets

_SHORTEST_WAIT = 0.001
"""Seconds. So much less than a moment may be left that adding it to the time changes nothing."""


class Sharing(Protocol):
    """How one limit is shared. The methods that wait for nothing are called under its lock."""

    def take(self, store: SharedStates, permit: Permit) -> bool:
        """Let a permit take what this process has on lease; False if that is not enough, so the store must be asked."""
        ...

    def take_anyway(self, store: SharedStates, permit: Permit) -> None:
        """Let a permit have a slot even if none is free."""
        ...

    def release(self, permit: Permit, used: Mapping[str, float] | None) -> None:
        """An attempt has ended; a permit that has taken nothing is let alone."""
        ...

    async def ask(self, store: SharedStates, permit: Permit, waiting: int) -> Refusal | None:
        """Ask the store for what a permit and those who wait need. None if the permit has taken it now.

        Only the first one of those who wait does that: side by side, each would get permits for all.
        """
        ...

    async def report(self, store: SharedStates, hints: Sequence[RateLimitHint], waiting: int) -> None:
        """An attempt has ended: let other processes have what is not needed here, and know what providers said."""
        ...


def sharing_of(limit: Limit, lock: AbstractContextManager[object], now: Callable[[], float]) -> Sharing | None:
    """How a limit is shared between processes; None if it is not.

    Args:
        limit: the limit.
        lock: under which its numbers are changed. It is reentrant.
        now: the time, on which all who wait for it agree; to be asked under the lock.
    """
    if isinstance(limit, RateLimit) and limit.shared:
        return _SharedRate(limit, lock, lambda: now() + slept())
    if isinstance(limit, ConcurrencyLimit) and limit.shared:
        return _SharedSlots(limit, lock, lambda: now() + slept())
    return None


class _SharedRate:
    def __init__(self, limit: RateLimit, lock: AbstractContextManager[object], now: Callable[[], float]) -> None:
        self._limit = limit
        self._lock = lock
        self._now = now
        self._leases: weakref.WeakKeyDictionary[SharedStates, RateLease] = weakref.WeakKeyDictionary()

    def _lease_of(self, store: SharedStates) -> RateLease:
        lease = self._leases.get(store)
        if lease is None:
            lease = self._leases[store] = RateLease()
        return lease

    def _window(self) -> RateWindow:
        return RateWindow(without_secrets(self._limit.name), self._limit.per, dict(self._limit.limits))

    def take(self, store: SharedStates, permit: Permit) -> bool:
        return self._lease_of(store).take(permit, self._now())

    def take_anyway(self, store: SharedStates, permit: Permit) -> None:
        """It has no slots."""

    def release(self, permit: Permit, used: Mapping[str, float] | None) -> None:
        for lease in self._leases.values():
            lease.release(permit, used)

    async def ask(self, store: SharedStates, permit: Permit, waiting: int) -> Refusal | None:
        with self._lock:
            lease, now = self._lease_of(store), self._now()
            if lease.take(permit, now):
                return None
            ask = lease.ask(self._window(), permit.amounts, waiting, now)
        answer = await self._say(store, lease, ask)
        with self._lock:
            if lease.take(permit, self._now()):
                return None
        if answer.count:
            return Refusal(_SHORTEST_WAIT, "the store is slow")
        return Refusal(min(max(answer.wait, _SHORTEST_WAIT), LOOK), f"{answer.why}, with other processes")

    async def _say(self, store: SharedStates, lease: RateLease, ask: RateAsk) -> RateAnswer:
        with self._lock:
            asked_at = self._now()
        try:
            answer = await store.share(f"rate:{ask.window.name}", partial(_permits_for, ask))
        except BaseException:
            with self._lock:
                lease.unanswered(ask)
            raise
        with self._lock:
            lease.answered(ask, answer, asked_at, self._now())
        return answer

    async def report(self, store: SharedStates, hints: Sequence[RateLimitHint], waiting: int) -> None:
        with self._lock:
            lease, now = self._lease_of(store), self._now()
            lease.hold(max((each.retry_after or 0.0 for each in hints), default=0.0))
            if not lease.has_news(now):
                return
            ask = lease.ask(self._window(), None, 0, now)
        await self._say(store, lease, ask)


class _SharedSlots:
    def __init__(self, limit: ConcurrencyLimit, lock: AbstractContextManager[object], now: Callable[[], float]) -> None:
        self._limit = limit
        self._lock = lock
        self._now = now
        self._leases: weakref.WeakKeyDictionary[SharedStates, SlotLease] = weakref.WeakKeyDictionary()
        self._timers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.TimerHandle]
        self._timers = weakref.WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    def _lease_of(self, store: SharedStates) -> SlotLease:
        lease = self._leases.get(store)
        if lease is None:
            lease = self._leases[store] = SlotLease()
        return lease

    def take(self, store: SharedStates, permit: Permit) -> bool:
        return self._lease_of(store).take(permit, self._now())

    def take_anyway(self, store: SharedStates, permit: Permit) -> None:
        self._lease_of(store).take(permit, self._now(), is_forced=True)

    def release(self, permit: Permit, used: Mapping[str, float] | None) -> None:
        for lease in self._leases.values():
            lease.release(permit)

    async def ask(self, store: SharedStates, permit: Permit, waiting: int) -> Refusal | None:
        with self._lock:
            lease = self._lease_of(store)
            if lease.take(permit, self._now()):
                return None
        await self._say(store, lease, max(1, waiting))
        with self._lock:
            if lease.take(permit, self._now()):
                return None
        return Refusal(SLOT_LOOK, f"{self._limit.limit} at a time, with other processes")

    async def report(self, store: SharedStates, hints: Sequence[RateLimitHint], waiting: int) -> None:
        with self._lock:
            lease = self._lease_of(store)
            if not lease.has_spare(waiting):
                return
        await self._say(store, lease, waiting)

    async def _say(self, store: SharedStates, lease: SlotLease, waiting: int) -> None:
        """Say how many slots are in use and how many calls wait; and go on saying it as long as it has any."""
        with self._lock:
            ask, asked_at = lease.ask(self._limit.limit, waiting), self._now()
        answer = await store.share(f"slots:{without_secrets(self._limit.name)}", partial(_slots_for, ask))
        with self._lock:
            lease.answered(answer, asked_at)
        self._renew_later(store, lease)

    def _renew_later(self, store: SharedStates, lease: SlotLease) -> None:
        loop = asyncio.get_running_loop()
        before = self._timers.pop(loop, None)
        if before is not None:
            before.cancel()
        if lease.count:
            self._timers[loop] = loop.call_later(SLOT_RENEWAL, self._renew, store, lease)

    def _renew(self, store: SharedStates, lease: SlotLease) -> None:
        task = asyncio.get_running_loop().create_task(self._renewed(store, lease))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _renewed(self, store: SharedStates, lease: SlotLease) -> None:
        try:
            await self._say(store, lease, 0)
        except StoreError:  # whoever needs it learns that; until the lease has ended the store may be there again
            self._renew_later(store, lease)


def _permits_for(ask: RateAsk, state: dict[str, Any], now: float) -> RateAnswer:
    return ask_for_permits(state, ask, now)


def _slots_for(ask: SlotAsk, state: dict[str, Any], now: float) -> SlotAnswer:
    return ask_for_slots(state, ask, now)
