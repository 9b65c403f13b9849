"""Waiting for limits: first come, first served, and nobody holds a slot while waiting for calls of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from rh_agents.core._foreign import seconds_to_wait
from rh_agents.core.errors import ModelOverloaded, RateLimited, UsageError
from rh_agents.core.policies.limits import AdaptiveConcurrency, Advice, Limit, Permit, RateLimit, Refusal
from rh_agents.core.ports import RateWindow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rh_agents.core.ports import RunHandle

__all__ = ["Passage"]

_TOLD_FROM = 0.05
"""Seconds. Shorter waits are not worth an event."""
_SHORTEST_WAIT = 0.001
"""Seconds. So much less than a moment may be left that adding it to the time changes nothing."""
_LONGEST_LOOK = 5.0
"""Seconds after which a shared window is asked again, whatever it said: others may have settled for less."""
Tell = Callable[[str, float | None], Any]


class _Gate:
    """Who waits for a limit, in order. Only the first one asks."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._queue: deque[asyncio.Future[None]] = deque()
        self._why = ""

    def changed(self) -> None:
        """Something was released, or the limit is another one: let the first one ask again."""
        if self._queue and not self._queue[0].done():
            self._queue[0].set_result(None)

    async def enter(self, run: RunHandle, need: Mapping[str, float], tell: Tell) -> Permit:
        """Wait for a permit.

        Raises:
            StopRun: the run is being stopped.
        """
        loop = asyncio.get_running_loop()
        if not self._queue:
            answer = await self._ask(run, need, loop.time())
            if isinstance(answer, Permit):
                return answer
        turn = loop.create_future()
        self._queue.append(turn)
        waited = False
        permit: Permit | None = None
        try:
            while permit is None:
                if self._queue[0] is turn:
                    answer = await self._ask(run, need, loop.time())
                    if isinstance(answer, Permit):
                        permit = answer
                        continue
                    self._why, wait = answer.why, answer.wait
                else:
                    wait = float("inf")
                if not waited and wait > _TOLD_FROM:
                    waited = True
                    await tell(f"{self.limit.name}: {self._why}", None if wait == float("inf") else wait)
                turn = await self._wait(run, turn, wait)
        finally:
            self._leave(turn)
        if waited:
            try:
                await tell(f"{self.limit.name}: admitted", 0.0)
            except BaseException:  # whoever wanted it is gone
                self.limit.release(permit, {}, loop.time())
                self.changed()
                raise
        return permit

    async def _wait(self, run: RunHandle, turn: asyncio.Future[None], wait: float) -> asyncio.Future[None]:
        """Wait until it is worth asking again; gives what stands for the place in the queue from then on."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            if not turn.done():
                turn.set_result(None)

        timer = None if wait == float("inf") else loop.call_later(max(wait, _SHORTEST_WAIT), wake)
        run.watch_stop(wake)
        try:
            await turn
        finally:
            run.unwatch_stop(wake)
            if timer is not None:
                timer.cancel()
        run.expect_running()
        fresh = loop.create_future()
        self._queue[self._queue.index(turn)] = fresh
        return fresh

    def _leave(self, turn: asyncio.Future[None]) -> None:
        was_first = self._queue[0] is turn
        self._queue.remove(turn)
        if was_first:
            self.changed()

    async def _ask(self, run: RunHandle, need: Mapping[str, float], now: float) -> Permit | Refusal:
        limit = self.limit
        answer = limit.admit(need, now)
        if isinstance(answer, Refusal) or not (isinstance(limit, RateLimit) and limit.shared):
            return answer
        try:
            admitted = await _store(run, limit).admit(_window(limit), need)
        except BaseException:
            limit.release(answer, {}, now)
            raise
        if admitted.ticket is None:
            limit.release(answer, {}, now)
            return Refusal(min(max(admitted.wait, 0.001), _LONGEST_LOOK), f"{admitted.why}, with other processes")
        answer.ticket = admitted.ticket
        return answer


def _gate_of(limit: Limit) -> _Gate:
    """The gate of a limit, which lives as long as it does."""
    gate = getattr(limit.when_changed, "__self__", None)
    if isinstance(gate, _Gate):
        return gate
    gate = _Gate(limit)
    limit.when_changed = gate.changed
    return gate


class Passage:
    """The permits of one attempt of a call.

    Args:
        run: the run of the call.
        limits: what the attempt needs permits of. Slots are taken first, so that nothing is used up while waiting, and
            in one order by everybody, so that nobody waits in a circle.
        tell: is awaited with why a call waits, and for how many seconds as far as that is known.
    """

    def __init__(self, run: RunHandle, limits: Sequence[Limit], tell: Tell) -> None:
        self._run = run
        ordered = sorted(dict.fromkeys(limits), key=lambda limit: limit.serial)
        self._of_slots = [limit for limit in ordered if limit.holds_slots]
        self._of_rates = [limit for limit in ordered if not limit.holds_slots]
        self._tell = tell
        self._slots: dict[Limit, Permit] = {}
        self._rates: dict[Limit, Permit] = {}
        self._advice: list[Advice] = []
        self._lent = 0
        self._has_left = False
        self._taking_back = asyncio.Lock()

    async def enter(self, need: Mapping[str, float]) -> None:
        """Wait for all permits of the attempt.

        Raises:
            StopRun: the run is being stopped.
        """
        try:
            for limit in self._of_slots:
                self._slots[limit] = await _gate_of(limit).enter(self._run, {}, self._tell)
            await self._enter_rates(need)
        except BaseException:
            await self.leave({}, None, has_ended=False)
            raise

    async def _enter_rates(self, need: Mapping[str, float]) -> None:
        for limit in self._of_rates:
            self._rates[limit] = await _gate_of(limit).enter(self._run, need, self._tell)

    async def enter_again(self, used: Mapping[str, float], need: Mapping[str, float]) -> None:
        """The same for another request within the attempt: it keeps its slots, and needs the rest anew."""
        await self._release_rates(used)
        await self._enter_rates(need)

    def heed(self, advice: Advice) -> None:
        """A provider has said something about its limits."""
        now = asyncio.get_running_loop().time()
        self._advice.append(advice)
        for limit, permit in (*self._slots.items(), *self._rates.items()):
            limit.heed(advice, now)
            if advice.is_overloaded and isinstance(limit, AdaptiveConcurrency):
                limit.refused(permit, now)

    async def leave(
        self, used: Mapping[str, float] | None, error: BaseException | None, *, has_ended: bool = True
    ) -> None:
        """The attempt has ended, or did not begin: let others have what it did not use, and tell the limits of it."""
        self._has_left = True
        try:
            if error is not None and (hint := _hint_of(error)) is not None:
                self.heed(hint)
            if has_ended and error is None:
                now = asyncio.get_running_loop().time()
                for limit, permit in (*self._slots.items(), *self._rates.items()):
                    limit.succeeded(permit, now)
        finally:
            self._release_slots()
            await self._release_rates(used)

    def _release_slots(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._slots:
            limit, permit = self._slots.popitem()
            limit.release(permit, None, now)
            _gate_of(limit).changed()

    async def _release_rates(self, used: Mapping[str, float] | None) -> None:
        now = asyncio.get_running_loop().time()
        released, self._rates = self._rates, {}
        advice, self._advice = self._advice, []
        for limit, permit in released.items():
            limit.release(permit, used, now)
            _gate_of(limit).changed()
        for limit, permit in released.items():
            if permit.ticket is not None and isinstance(limit, RateLimit):
                await _settle_shared(self._run, limit, permit.ticket, used, advice)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """While the block lasts, the call waits for calls of its own, and others may have its slots."""
        self._lent += 1
        self._release_slots()
        try:
            yield
        except Exception:
            await self._take_back()
            raise
        except BaseException:
            self._lent -= 1
            self._hold_at_once()
            raise
        await self._take_back()

    async def _take_back(self) -> None:
        """The call goes on: wait for its slots, unless further calls of its own are under way."""
        self._lent -= 1
        try:
            async with self._taking_back:
                while (limit := self._next_to_hold()) is not None:
                    self._slots[limit] = await _gate_of(limit).enter(self._run, {}, self._tell)
                    held = list(self._slots)
                    if self._lent or self._has_left or held != self._of_slots[: len(held)]:
                        self._release_slots()  # meanwhile they were lent again, or are not needed any more
        except BaseException:
            self._hold_at_once()
            raise

    def _hold_at_once(self) -> None:
        """The call has not waited to the end. It may be over; but if it goes on, nobody else is to be let in for it."""
        now = asyncio.get_running_loop().time()
        while (limit := self._next_to_hold()) is not None:
            self._slots[limit] = limit.take(now)

    def _next_to_hold(self) -> Limit | None:
        if self._lent or self._has_left:
            return None
        return next((limit for limit in self._of_slots if limit not in self._slots), None)


def _hint_of(error: BaseException) -> Advice | None:
    """What a failure says about limits: errors that carry a `retry_after`, and those that say that it was too much."""
    seconds = seconds_to_wait(error)
    if seconds is None and not isinstance(error, RateLimited | ModelOverloaded):
        return None
    return Advice(retry_after=seconds, is_overloaded=True)


async def _settle_shared(
    run: RunHandle, limit: RateLimit, ticket: str, used: Mapping[str, float] | None, advice: Sequence[Advice]
) -> None:
    """Let the other processes know what was used, and for how long the provider wants to be left alone."""
    store, window = _store(run, limit), _window(limit)
    if used is not None:
        await store.settle(window, ticket, used)
    waits = [each.retry_after for each in advice if each.retry_after is not None]
    if waits:
        await store.hold(window, max(waits))


def _window(limit: RateLimit) -> RateWindow:
    return RateWindow(limit.name, limit.per, dict(limit.limits))


def _store(run: RunHandle, limit: RateLimit) -> Any:
    store = run.store
    if store is None:
        raise UsageError(
            f"{limit!r} is shared between processes, and this run has no store through which they could share it"
        )
    return store
