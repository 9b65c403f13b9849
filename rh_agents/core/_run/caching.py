"""Results that equal calls share: found in the store or in this run, and made once when several ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, Protocol

from rh_agents.core._base.sizes import LARGE
from rh_agents.core._loops.beside import beside_if_large
from rh_agents.core._loops.postponed import Postponed, until_it_is_done
from rh_agents.core._loops.stop_signal import StopSignal
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import UnstorableError
from rh_agents.core.ports import CacheEntry, Store
from rh_agents.core.results import ExecutionResult
from rh_agents.core.types import CacheScope, Clock
from rh_agents.core.values import decode, encode_any

__all__ = ["CallCache"]

Make = Callable[[], Awaitable[ExecutionResult[Any]]]
Use = Callable[[Any], Awaitable[ExecutionResult[Any]]]


class CachedCall(Protocol):
    """A call, as its cache has to know it."""

    actor: BaseActor
    formerly_cached_as: tuple[bytes, ...]
    cached_data: bytes | None

    def is_made_within(self, other: Any) -> bool:
        """Whether it is made by another call, directly or not."""
        ...


class CallCache:
    """The cached results of one run; those that other runs share are in its store.

    Args:
        run_id: the name of the run.
        store: where results are kept; None keeps them in the run.
        interruption: ends the wait for an equal call.
        clock: the time of day.
        report_former_key: told of the name of an actor whose result is found under the key of an earlier version.
    """

    def __init__(
        self,
        run_id: str,
        store: Store | None,
        interruption: StopSignal,
        clock: Clock,
        report_former_key: Callable[[str], None],
    ) -> None:
        self._run_id = run_id
        self._store = store
        self._interruption = interruption
        self._now = clock
        self._report_former_key = report_former_key
        self._kept: dict[bytes, CacheEntry] = {}
        """What is kept by a run that has no store."""
        self._under_way: dict[bytes, tuple[CachedCall, asyncio.Future[None]]] = {}

    async def call(self, call: CachedCall, same: bytes, make: Make, use: Use) -> ExecutionResult[Any]:
        """The result of a call: what is kept for equal ones, or what comes of making it, which is then kept.

        While an equal call is under way, it is waited for; if that fails, this one is made.
        """
        key = self._key(call, same)
        while True:
            entry = await self._find(key) or await self._find_former(call)
            if entry is not None:
                return await use(await _decoded(entry.value))
            other = self._under_way.get(key)
            if other is None:
                break
            maker, made = other
            if call.is_made_within(maker):
                return await make()  # it would wait for itself
            await asyncio.wait([made])
            self._interruption.expect_running()
        mine = asyncio.get_running_loop().create_future()
        self._under_way[key] = (call, mine)
        result: ExecutionResult[Any] | None = None
        try:
            result = await make()
            if result.ok and not result.is_replayed:
                await self._keep_in_any_case(call, key, result.result)
            return result
        finally:
            del self._under_way[key]
            mine.set_result(None)
            result = None  # else it would be held by an error in it, to which this frame belongs

    def _key(self, call: CachedCall, same: bytes) -> bytes:
        whose = f"run {self._run_id}" if call.actor.cache is CacheScope.RUN else "store"
        return sha256(whose.encode("utf-8", "surrogatepass") + b"\0" + same).digest()

    async def _find(self, key: bytes) -> CacheEntry | None:
        now = self._now()
        if self._store is not None:
            return await self._store.find_cached(key, now=now)
        entry = self._kept.get(key)
        if entry is None or (entry.expires_at is not None and entry.expires_at <= now):
            return None
        return entry

    async def _find_former(self, call: CachedCall) -> CacheEntry | None:
        """What an earlier version kept under a key that said less; not what today's has under that of another actor."""
        for same in call.formerly_cached_as:
            entry = await self._find(self._key(call, same))
            if entry is not None and entry.actor == call.actor.name:
                self._report_former_key(call.actor.name)
                return entry
        return None

    async def prepare(self, call: CachedCall, value: Any) -> None:
        """Write down what the function returned, before that is its result.

        Raises:
            UnstorableError: it is no data.
        """
        call.cached_data = await _encoded(call.actor, value)

    async def _keep_in_any_case(self, call: CachedCall, key: bytes, value: Any) -> None:
        """Keep a result. Who is cut off meanwhile has it already, and equal calls are not to be paid for once more."""
        postponed = Postponed()
        try:
            await self._keep(call, key, value)
        except asyncio.CancelledError as error:
            postponed.add(error)
            await until_it_is_done(self._keep(call, key, value), postponed)
        finally:
            postponed.deliver_soon()

    async def _keep(self, call: CachedCall, key: bytes, value: Any) -> None:
        actor = call.actor
        data, call.cached_data = call.cached_data, None
        if data is None:
            data = await _encoded(actor, value)
        now = self._now()
        entry = CacheEntry(
            key,
            data,
            actor.cache_label,
            created_at=now,
            expires_at=None if actor.ttl is None else now + actor.ttl,
            run_id=self._run_id if actor.cache is CacheScope.RUN else None,
        )
        if self._store is None:
            self._kept[key] = entry
        else:
            await self._store.put_cached(entry)


async def _encoded(actor: BaseActor, value: Any) -> bytes:
    """What is kept of a value; a large one is written beside the event loop."""
    try:
        return await beside_if_large(value, encode_any, value)
    except UnstorableError as error:
        raise UnstorableError(f"{actor.name} returned a value that cannot be cached: {error}") from error


async def _decoded(data: bytes) -> Any:
    """The value; a large one is read beside the event loop."""
    return await asyncio.to_thread(decode, data) if len(data) > LARGE else decode(data)
