"""Waiting for limits: first come, first served, and nobody holds a slot while waiting for calls of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

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
    """The permits of one call, attempt by attempt.

    Args:
        run: the run of the call.
        limits: what each attempt needs permits of. Slots are taken first, so that nothing is used up while waiting.
        tell: is awaited with why a call waits, and for how many seconds as far as that is known.
    """

    def __init__(self, run: RunHandle, limits: Sequence[Limit], tell: Tell) -> None:
        self._run = run
        self._limits = sorted(limits, key=lambda limit: not limit.holds_slots)
        self._tell = tell
        self._permits: list[tuple[Limit, Permit]] = []
        self._advice: list[Advice] = []
        self._lent = 0

    async def enter(self, need: Mapping[str, float]) -> None:
        """Wait for all permits of an attempt.

        Raises:
            StopRun: the run is being stopped.
        """
        try:
            for limit in self._limits:
                self._permits.append((limit, await _gate_of(limit).enter(self._run, need, self._tell)))
        except BaseException:
            await self.leave({}, None)
            raise

    async def enter_again(self, used: Mapping[str, float], need: Mapping[str, float]) -> None:
        """The same for another request within the attempt: it keeps its slots, and needs the rest anew."""
        rates = [each for each in self._permits if not each[0].holds_slots]
        for each in rates:
            self._permits.remove(each)
            await self._release(*each, used)
        for limit, _ in rates:
            self._permits.append((limit, await _gate_of(limit).enter(self._run, need, self._tell)))

    def heed(self, advice: Advice) -> None:
        """A provider has said something about its limits."""
        now = asyncio.get_running_loop().time()
        self._advice.append(advice)
        for limit, permit in self._permits:
            limit.heed(advice, now)
            if advice.is_overloaded and isinstance(limit, AdaptiveConcurrency):
                limit.refused(permit, now)

    async def leave(self, used: Mapping[str, float] | None, error: BaseException | None) -> None:
        """The attempt has ended: let others have what it did not use, and let the limits know how it went."""
        now = asyncio.get_running_loop().time()
        if error is not None and (hint := _hint_of(error)) is not None:
            self.heed(hint)
        permits, self._permits = self._permits, []
        advice, self._advice = self._advice, []
        for limit, permit in permits:
            if error is None:
                limit.succeeded(permit, now)
            await self._release(limit, permit, used)
            if permit.ticket is not None:
                await self._hold_shared(limit, advice)

    async def _release(self, limit: Limit, permit: Permit, used: Mapping[str, float] | None) -> None:
        limit.release(permit, used, asyncio.get_running_loop().time())
        _gate_of(limit).changed()
        if permit.ticket is not None and used is not None and isinstance(limit, RateLimit):
            await _store(self._run, limit).settle(_window(limit), permit.ticket, used)

    async def _hold_shared(self, limit: Limit, advice: Sequence[Advice]) -> None:
        waits = [each.retry_after for each in advice if each.retry_after is not None]
        if waits and isinstance(limit, RateLimit):
            await _store(self._run, limit).hold(_window(limit), max(waits))

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """While the block lasts, the call waits for calls of its own, and others may have its slots."""
        self._lent += 1
        if self._lent == 1:
            now = asyncio.get_running_loop().time()
            for limit, permit in self._permits:
                if limit.holds_slots:
                    limit.release(permit, None, now)
                    _gate_of(limit).changed()
            self._permits = [each for each in self._permits if not each[0].holds_slots]
        try:
            yield
        except Exception:
            await self._take_back()
            raise
        except BaseException:  # the call itself is over
            self._lent -= 1
            raise
        await self._take_back()

    async def _take_back(self) -> None:
        self._lent -= 1
        if self._lent == 0:
            for limit in self._limits:
                if limit.holds_slots:
                    self._permits.append((limit, await _gate_of(limit).enter(self._run, {}, self._tell)))


def _hint_of(error: BaseException) -> Advice | None:
    """What a failure says about limits: errors that carry a `retry_after`, and those that say that it was too much."""
    seconds = getattr(error, "retry_after", None)
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < float("inf")
    is_overloaded = isinstance(error, RateLimited | ModelOverloaded) or is_number
    return Advice(retry_after=seconds if is_number else None, is_overloaded=is_overloaded) if is_overloaded else None


def _window(limit: RateLimit) -> RateWindow:
    return RateWindow(limit.name, limit.per, dict(limit.limits))


def _store(run: RunHandle, limit: RateLimit) -> Any:
    store = run.store
    if store is None:
        raise UsageError(
            f"{limit!r} is shared between processes, and this run has no store through which they could share it"
        )
    return store
