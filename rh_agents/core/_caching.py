"""Results that equal calls share: found in the store or in this run, and made once when several ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

from rh_agents.core._runner import Job
from rh_agents.core._sizes import LARGE
from rh_agents.core.errors import UnstorableError
from rh_agents.core.ports import CacheEntry, RunHandle, Store
from rh_agents.core.results import ExecutionResult
from rh_agents.core.types import CacheScope
from rh_agents.core.values import decode, encode, encode_large, is_large

__all__ = ["CallCache"]

Make = Callable[[], Awaitable[ExecutionResult[Any]]]
Use = Callable[[Any], Awaitable[ExecutionResult[Any]]]


class CallCache:
    """The cached results of one run; those that other runs share are in its store."""

    def __init__(self, run: RunHandle, store: Store | None) -> None:
        self._run = run
        self._store = store
        self._kept: dict[bytes, CacheEntry] = {}
        """What is kept by a run that has no store."""
        self._under_way: dict[bytes, tuple[Job, asyncio.Future[None]]] = {}

    async def call(self, job: Job, same: bytes, make: Make, use: Use) -> ExecutionResult[Any]:
        """The result of a call: what is kept for equal ones, or what comes of making it, which is then kept.

        While an equal call is under way, it is waited for; if that fails, this one is made.
        """
        key = self._key(job, same)
        while True:
            entry = await self._find(key) or await self._find_former(job)
            if entry is not None:
                return await use(await _decoded(entry.value))
            other = self._under_way.get(key)
            if other is None:
                break
            maker, made = other
            if _is_within(job, maker):
                return await make()  # it would wait for itself
            await asyncio.wait([made])
            self._run.expect_running()
        mine = asyncio.get_running_loop().create_future()
        self._under_way[key] = (job, mine)
        result: ExecutionResult[Any] | None = None
        try:
            result = await make()
            if result.ok and not result.is_replayed:
                await self._keep(job, key, result.result)
            return result
        finally:
            del self._under_way[key]
            mine.set_result(None)
            result = None  # else it would be held by an error in it, to which this frame belongs

    def _key(self, job: Job, same: bytes) -> bytes:
        whose = f"run {self._run.run_id}" if job.actor.cache is CacheScope.RUN else "store"
        return sha256(whose.encode("utf-8", "surrogatepass") + b"\0" + same).digest()

    async def _find(self, key: bytes) -> CacheEntry | None:
        now = self._run.now()
        if self._store is not None:
            return await self._store.find_cached(key, now=now)
        entry = self._kept.get(key)
        if entry is None or (entry.expires_at is not None and entry.expires_at <= now):
            return None
        return entry

    async def _find_former(self, job: Job) -> CacheEntry | None:
        """What an earlier version kept under a key that said less; not what today's has under that of another actor."""
        for same in job.formerly_cached_as:
            entry = await self._find(self._key(job, same))
            if entry is not None and entry.actor == job.actor.name:
                self._run.report_former_key(job.actor.name)
                return entry
        return None

    async def _keep(self, job: Job, key: bytes, value: Any) -> None:
        actor = job.actor
        try:
            data = await asyncio.to_thread(encode_large, value) if is_large(value) else encode(value)
        except UnstorableError as error:
            raise UnstorableError(f"{actor.name} returned what no cache can keep: {error}") from error
        now = self._run.now()
        entry = CacheEntry(
            key,
            data,
            actor.cache_label,
            created_at=now,
            expires_at=None if actor.ttl is None else now + actor.ttl,
            run_id=self._run.run_id if actor.cache is CacheScope.RUN else None,
        )
        if self._store is None:
            self._kept[key] = entry
        else:
            await self._store.put_cached(entry)


async def _decoded(data: bytes) -> Any:
    """The value; a large one is read beside the event loop."""
    return await asyncio.to_thread(decode, data) if len(data) > LARGE else decode(data)


def _is_within(job: Job, other: Job) -> bool:
    """Whether a call is made by another one, directly or not."""
    caller = job.parent.job
    while caller is not None and caller is not other:
        caller = caller.parent.job
    return caller is other
