"""Waiting for limits: first come, first served, and nobody holds a slot while waiting for calls of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from rh_agents.core._base.foreign import seconds_to_wait
from rh_agents.core._limits.sharing import Sharing, sharing_of
from rh_agents.core._loops.homes import Home, SharedClock, Waiter, Waiters, home, reentrant_lock
from rh_agents.core._loops.postponed import Postponed
from rh_agents.core._loops.stop_signal import StopSignal
from rh_agents.core.errors import ModelOverloaded, RateLimited, UsageError
from rh_agents.core.policies.limits import Limit, Permit, RateLimitHint, Refusal
from rh_agents.core.policies.pause import Pause
from rh_agents.core.policies.sharing.windows import SharedStates

_REPORTED_FROM = 0.05
"""Seconds. Shorter waits are not worth an event."""
_SHORTEST_WAIT = 0.001
"""Seconds. So much less than a moment may be left that adding it to the time changes nothing."""
_LOOK_AFTER_OTHERS = 1.0
"""Seconds after which a call that waits for those of other event loops looks whether these are still there."""
_MANY_HOMES = 50
_FOREVER = float("inf")
_making = reentrant_lock()
Report = Callable[[str, str, float | None], Any]


class Held(Exception):
    """The run has been paused while a call of it waited: it must not begin now, and keeps nothing that others want."""


class WaitingRun(Protocol):
    """The run of a call that waits for a permit."""

    @property
    def interruption(self) -> StopSignal:
        """Ends the wait."""
        ...

    @property
    def store(self) -> SharedStates | None:
        """Through which processes share limits."""
        ...


class _Gate:
    """Who waits for a limit, in order, and who holds its slots. Only the first one asks.

    Calls of several event loops may meet here. What they share is touched under a lock, which nobody holds while
    waiting. The first one is the first whose loop runs: see `_loops` for those that were left behind.
    """

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._lock = reentrant_lock()
        self._clock = SharedClock()
        self._queue = Waiters()
        self._holders: dict[Permit, Home] = {}
        self._homes: set[Home] = set()
        """The loops that have to do with it, and perhaps some that had. Usually there is one."""
        self._why = ""
        self._sharing = sharing_of(limit, self._lock, self._clock.now)

    def __deepcopy__(self, memo: object) -> _Gate:
        return self  # it stands for the limit, of which there is one

    def changed(self) -> None:
        """Something was released, or the limit is another one: let the first one ask again."""
        with self._lock:
            self._queue.wake_first()

    # -- one step at a time, under the lock ---------------------------------------------------------------------------

    def _admit(self, need: Mapping[str, float]) -> Permit | Refusal:
        with self._lock:
            self._meet(home())
            answer = self.limit.admit(need, self._clock.now())
            if isinstance(answer, Refusal) and self._take_from_the_dead():
                answer = self.limit.admit(need, self._clock.now())
            if isinstance(answer, Permit):
                self._note_holder(answer)
            elif answer.wait == _FOREVER:
                self._expect_an_end()
            return answer

    def seconds_held(self, pause: Pause) -> float:
        """For how long nobody is let in."""
        with self._lock:
            return pause.seconds_held(self._clock.now())

    def take(self, run: WaitingRun) -> Permit:
        """A slot even if none is free."""
        with self._lock:
            permit = self.limit.take(self._clock.now())
            self._note_holder(permit)
            if self._sharing is not None:
                self._sharing.take_anyway(_store(run, self.limit), permit)
            return permit

    def _note_holder(self, permit: Permit) -> None:
        if self.limit.holds_slots:
            self._holders[permit] = self._meet(home())

    def _take_from_the_dead(self) -> bool:
        """Release what calls of loops hold that are gone. Returns whether there was anything."""
        if len(self._homes) < 2:
            return False
        dead = [permit for permit, home in self._holders.items() if home.is_gone]
        for permit in dead:
            self._release(permit, None)
        self._homes = {home for home in self._homes if not home.is_gone}
        return bool(dead)

    def _expect_an_end(self) -> None:
        """Somebody has to be able to release a slot, or this would wait for ever.

        Raises:
            UsageError: nobody is.
        """
        if len(self._homes) > 1 and self._holders and all(home.cannot_run for home in self._holders.values()):
            raise UsageError(
                f"{self.limit!r}: its slots are held by calls of an event loop that does not run any more, but is not "
                "closed either; close it, or let it come to the end of its calls (asyncio.run does both)"
            )

    def give_back(self, permit: Permit, used: Mapping[str, float] | None) -> None:
        """An attempt has ended and really used so much; None if that is not known, or what was granted."""
        with self._lock:
            self._release(permit, used)
            self.changed()

    def _release(self, permit: Permit, used: Mapping[str, float] | None) -> None:
        if self.limit.holds_slots and self._holders.pop(permit, None) is None:
            return  # its loop was gone, so its slot was given to somebody else
        self.limit.release(permit, used, self._clock.now())
        if self._sharing is not None:
            self._sharing.release(permit, used)
        if not self._holders and not self._queue:
            self._homes.clear()

    def honour(self, hint: RateLimitHint, permit: Permit) -> None:
        """A provider has said something about its limits to the holder of a permit."""
        with self._lock:
            now = self._clock.now()
            self.limit.honour(hint, now)
            if hint.is_overloaded:
                self.limit.refused(permit, now)

    def succeeded(self, permit: Permit) -> None:
        with self._lock:
            self.limit.succeeded(permit, self._clock.now())

    def _meet(self, home: Home) -> Home:
        """Somebody of this loop has come. Who has waited for its own loop alone looks after this one from now on."""
        if home not in self._homes:
            if len(self._homes) > _MANY_HOMES:  # one for each request of a web application
                holding = set(self._holders.values())
                self._homes = {other for other in self._homes if other in holding or not other.is_gone}
            self._homes.add(home)
            self.changed()
        return home

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def enter(self, run: WaitingRun, need: Mapping[str, float], report: Report, *, begins: bool) -> Permit:
        """Wait for a permit. `begins`: of something new, which must not begin while the run is paused.

        Raises:
            Held: the run is paused, and it would begin.
            StopRun: the run is being stopped.
            UsageError: nobody is left who could release one.
        """
        if self._is_first(None):
            answer = self._take_leased(run, need) if self.is_shared else await self._ask(run, need)
            if isinstance(answer, Permit):
                return answer
        waiter = self._queue_up()
        waited = False
        permit: Permit | None = None
        try:
            while permit is None:
                wait = _FOREVER
                if self._is_first(waiter):
                    answer = await self._ask(run, need)
                    if isinstance(answer, Permit):
                        permit = answer
                        continue
                    self._why, wait = answer.why, answer.wait
                if not waited and wait > _REPORTED_FROM:
                    waited = True
                    await report(self.limit.name, self._why, None if wait == _FOREVER else wait)
                await self._wait(run, waiter, wait, begins=begins)
        finally:
            self._leave(waiter)
        if waited:
            try:
                await report(self.limit.name, "admitted", 0.0)
            except BaseException:  # whoever wanted it is gone
                self.give_back(permit, {})
                raise
        return permit

    def _queue_up(self) -> Waiter:
        with self._lock:
            self._meet(home())
            return self._queue.enter()

    def _leave(self, waiter: Waiter) -> None:
        with self._lock:
            was_first = self._queue.is_first(waiter)
            self._queue.leave(waiter)
            if was_first:
                self.changed()

    def _is_first(self, waiter: Waiter | None) -> bool:
        with self._lock:
            return self._queue.is_first(waiter)

    async def _wait(self, run: WaitingRun, waiter: Waiter, wait: float, *, begins: bool) -> None:
        """Wait until it is worth asking again."""
        if wait == _FOREVER and len(self._homes) > 1:
            wait = max(_LOOK_AFTER_OTHERS, 0.001 * len(self._queue))

        def wake() -> None:
            waiter.wake()

        timer = None
        if wait != _FOREVER:
            timer = asyncio.get_running_loop().call_later(max(wait, _SHORTEST_WAIT), wake)
        run.interruption.watch(wake)
        run.interruption.watch_hold(wake)
        try:
            await waiter.wait()
        finally:
            run.interruption.unwatch(wake)
            run.interruption.unwatch_hold(wake)
            if timer is not None:
                timer.cancel()
        run.interruption.expect_running()
        if begins and run.interruption.is_held:
            raise Held

    async def _ask(self, run: WaitingRun, need: Mapping[str, float]) -> Permit | Refusal:
        answer = self._admit(need)
        if isinstance(answer, Refusal) or self._sharing is None:
            return answer
        return await self._ask_store(self._sharing, run, answer)

    # -- with other processes -----------------------------------------------------------------------------------------

    @property
    def is_shared(self) -> bool:
        """Whether other processes use it as well."""
        return self._sharing is not None

    def _take_leased(self, run: WaitingRun, need: Mapping[str, float]) -> Permit | None:
        """A permit of what this process has on lease; None if there is none, so that the store has to be asked."""
        assert self._sharing is not None
        with self._lock:
            answer = self._admit(need)
            if isinstance(answer, Refusal):
                return None
            if self._sharing.take(_store(run, self.limit), answer):
                return answer
            self._release(answer, {})
            return None

    async def _ask_store(self, sharing: Sharing, run: WaitingRun, permit: Permit) -> Permit | Refusal:
        refused: Refusal | None = None
        try:
            refused = await sharing.ask(_store(run, self.limit), permit, len(self._queue))
        except BaseException:
            with self._lock:
                self._release(permit, {})
            raise
        if refused is None:
            return permit
        with self._lock:
            self._release(permit, {})
        return refused

    async def report(self, run: WaitingRun, hints: Sequence[RateLimitHint]) -> None:
        """An attempt has ended, and other processes may have to know."""
        if self._sharing is not None:
            await self._sharing.report(_store(run, self.limit), hints, len(self._queue))


def _gate_of(limit: Limit) -> _Gate:
    """The gate of a limit, which lives as long as it does."""
    gate = getattr(limit.when_changed, "__self__", None)
    if isinstance(gate, _Gate):
        return gate
    with _making:
        gate = getattr(limit.when_changed, "__self__", None)
        if not isinstance(gate, _Gate):
            gate = _Gate(limit)
            limit.when_changed = gate.changed
        return gate


def seconds_held(pause: Pause) -> float:
    """For how long nobody asks, by the clock of those who wait."""
    return _gate_of(pause).seconds_held(pause)


class Permits:
    """The permits of one attempt of a call.

    Args:
        run: the run of the call.
        limits: what the attempt needs permits of. Slots are taken first, so that nothing is used up while waiting, and
            in one order by everybody, so that there is no deadlock.
        report: is awaited with the limit for which a call waits, with why, and for how many seconds as far as is known.
    """

    def __init__(self, run: WaitingRun, limits: Sequence[Limit], report: Report) -> None:
        self._run = run
        ordered = sorted(dict.fromkeys(limits), key=lambda limit: limit.serial)
        self._of_slots = [limit for limit in ordered if limit.holds_slots]
        self._of_rates = [limit for limit in ordered if not limit.holds_slots]
        self._report = report
        self._slots: dict[Limit, Permit] = {}
        self._rates: dict[Limit, Permit] = {}
        self._hints: list[RateLimitHint] = []
        self._released = 0
        self._has_left = False
        self._reacquiring = asyncio.Lock()

    @property
    def is_shared(self) -> bool:
        """Whether other processes have to learn when it has ended."""
        return any(permit.ticket is not None for permit in self._rates.values()) or any(
            _gate_of(limit).is_shared for limit in self._of_slots
        )

    async def enter(self, need: Mapping[str, float], *, begins: bool = False) -> None:
        """Wait for all permits of the attempt, or (not `begins`) of a part of one that has begun.

        Raises:
            Held: the run has been paused meanwhile. There are no permits now; ask for them again when it goes on.
            StopRun: the run is being stopped.
        """
        self._has_left = False
        try:
            for limit in self._of_slots:
                self._slots[limit] = await _gate_of(limit).enter(self._run, {}, self._report, begins=begins)
            await self._enter_rates(need, begins=begins)
            if begins and self._run.interruption.is_held:
                raise Held
        except BaseException:
            await self.leave({}, None, has_ended=False)
            raise

    async def _enter_rates(self, need: Mapping[str, float], *, begins: bool) -> None:
        for limit in self._of_rates:
            self._rates[limit] = await _gate_of(limit).enter(self._run, need, self._report, begins=begins)

    async def reenter(self, used: Mapping[str, float], need: Mapping[str, float]) -> None:
        """The same for another request within the attempt: it keeps its slots, and needs the rest anew."""
        await self._release_rates(used)
        await self._enter_rates(need, begins=False)

    def honour(self, hint: RateLimitHint) -> None:
        """A provider has said something about its limits."""
        self._hints.append(hint)
        for limit, permit in (*self._slots.items(), *self._rates.items()):
            _gate_of(limit).honour(hint, permit)

    async def leave(
        self, used: Mapping[str, float] | None, error: BaseException | None, *, has_ended: bool = True
    ) -> None:
        """The attempt has ended, or did not begin: let others have what it did not use, and tell the limits of it."""
        self._has_left = True
        try:
            if error is not None and (hint := _hint_of(error)) is not None:
                self.honour(hint)
            if has_ended and error is None:
                for limit, permit in (*self._slots.items(), *self._rates.items()):
                    _gate_of(limit).succeeded(permit)
        finally:
            self._release_slots()
            await self._release_rates(used)
            for limit in self._of_slots:
                await _gate_of(limit).report(self._run, ())

    def _release_slots(self) -> None:
        while self._slots:
            limit, permit = self._slots.popitem()
            _gate_of(limit).give_back(permit, None)

    async def _release_rates(self, used: Mapping[str, float] | None) -> None:
        released, self._rates = self._rates, {}
        hints, self._hints = self._hints, []
        for limit, permit in released.items():
            _gate_of(limit).give_back(permit, used)
        for limit, permit in released.items():
            if permit.ticket is not None:
                await _gate_of(limit).report(self._run, hints)

    def released(self, *, gives_result: bool = False) -> _Released:
        """While the block lasts, the call waits for calls of its own, and others may have its slots.

        With `gives_result` the block has come to something that is recorded, and that the program gets in any case: a
        cancellation that comes while the slots are taken back arrives at the next await after that.
        """
        return _Released(self, gives_result)

    def release(self) -> None:
        """The call waits for calls of its own from now on."""
        self._released += 1
        self._release_slots()

    async def reacquire(self) -> None:
        """The call goes on: wait for its slots, unless further calls of its own are under way."""
        self._released -= 1
        try:
            async with self._reacquiring:
                while (limit := self._next_to_hold()) is not None:
                    self._slots[limit] = await _gate_of(limit).enter(self._run, {}, self._report, begins=False)
                    held = list(self._slots)
                    if self._released or self._has_left or held != self._of_slots[: len(held)]:
                        self._release_slots()  # meanwhile they were released again, or are not needed any more
        except BaseException:
            self._take_slots_at_once()
            raise

    def reacquire_nowait(self) -> None:
        """It does not wait any more, since something ends it. If it goes on, nobody else is to be let in for it."""
        self._released -= 1
        self._take_slots_at_once()

    def _take_slots_at_once(self) -> None:
        while (limit := self._next_to_hold()) is not None:
            self._slots[limit] = _gate_of(limit).take(self._run)

    def _next_to_hold(self) -> Limit | None:
        if self._released or self._has_left:
            return None
        return next((limit for limit in self._of_slots if limit not in self._slots), None)


class _Released:
    """A block in which a call waits for calls of its own. (No `asynccontextmanager`: it sets attributes of errors.)"""

    __slots__ = ("_gives_result", "_permits")

    def __init__(self, permits: Permits, gives_result: bool) -> None:
        self._permits = permits
        self._gives_result = gives_result

    async def __aenter__(self) -> None:
        self._permits.release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            self._permits.reacquire_nowait()
            return
        try:
            await self._permits.reacquire()
        except asyncio.CancelledError as cancelled:
            if error is not None or not self._gives_result:
                raise
            postponed = Postponed()
            postponed.add(cancelled)
            postponed.deliver_soon()


def _hint_of(error: BaseException) -> RateLimitHint | None:
    """What a failure says about limits: errors that carry a `retry_after`, and those that say that it was too much."""
    seconds = seconds_to_wait(error)
    if seconds is None and not isinstance(error, RateLimited | ModelOverloaded):
        return None
    return RateLimitHint(retry_after=seconds, is_overloaded=True)


def _store(run: WaitingRun, limit: Limit) -> SharedStates:
    store = run.store
    if store is None:
        raise UsageError(
            f"{limit!r} is shared between processes, and this run has no store through which they could share it"
        )
    return store
