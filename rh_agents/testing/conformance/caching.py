"""Results that are kept for other runs."""

from __future__ import annotations

from rh_agents.core.ports import CacheEntry, Store
from rh_agents.testing._records import RUN, key
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop, written_run

__all__ = ["CacheConformance"]


class CacheConformance(StoreSuite):
    """Results are kept for other runs, see `cache=`."""

    @on_an_event_loop
    async def test_a_kept_result_is_found_until_it_expires_or_is_replaced(self, store: Store) -> None:
        key, other = b"k" * 32, b"o" * 32
        assert await store.find_cached(key, now=0.0) is None
        first = CacheEntry(key, b'{"a":"\xc3\xa9"}', "fetch \ud800", created_at=10.0, expires_at=20.0)
        await store.put_cached(first)
        await store.put_cached(CacheEntry(other, b"2", "fetch", created_at=10.0))
        assert await store.find_cached(key, now=19.9) == first
        assert await store.find_cached(key, now=20.0) is None
        second = CacheEntry(key, b"3", "fetch", created_at=15.0, run_id=RUN)
        await store.put_cached(second)
        assert await store.find_cached(key, now=1e12) == second
        await store.collect_garbage(min_age=0.0)
        assert await store.find_cached(other, now=1e12) is not None

    @on_an_event_loop
    async def test_what_is_kept_is_found_by_other_processes(self, store: Store) -> None:
        other = await self._second(store)
        entry = CacheEntry(b"k" * 32, b"1", "fetch", created_at=1.0)
        await store.put_cached(entry)
        assert await other.find_cached(entry.key, now=2.0) == entry

    @on_an_event_loop
    async def test_what_is_cached_for_a_run_is_deleted_with_it(self, store: Store) -> None:
        for number, run_id in enumerate((RUN, "other", None)):
            await store.put_cached(CacheEntry(key(number), b"1", "fetch", created_at=1.0, run_id=run_id))
        await written_run(store, 1)
        await store.delete_run(RUN)
        found = [await store.find_cached(key(number), now=0.0) for number in range(3)]
        assert [entry is not None for entry in found] == [False, True, True]
