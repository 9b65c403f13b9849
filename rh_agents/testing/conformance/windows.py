"""Rate windows that processes share."""

from __future__ import annotations

import asyncio
import dataclasses

from rh_agents.core.ports import RateWindow, Store
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop, until

__all__ = ["WindowConformance"]


class WindowConformance(StoreSuite):
    """Processes share rate windows, see `RateLimit`."""

    @on_an_event_loop
    async def test_a_window_admits_no_more_than_stated_whoever_asks(self, store: Store) -> None:
        window = RateWindow("provider", 3600.0, {"requests": 5.0, "tokens": 1000.0})
        need = {"requests": 1.0, "tokens": 100.0, "unlimited": 1e9}
        answers = await asyncio.gather(*(store.admit(window, need) for _ in range(20)))
        admitted = [answer for answer in answers if answer.ticket is not None]
        assert len(admitted) == len({answer.ticket for answer in admitted}) == 5
        refused = [answer for answer in answers if answer.ticket is None]
        assert all(3500.0 < answer.wait <= 3600.0 and answer.why == "requests" for answer in refused)
        other = dataclasses.replace(window, name="another")
        assert (await store.admit(other, need)).ticket is not None

    @on_an_event_loop
    async def test_a_ticket_counts_for_what_was_really_used(self, store: Store) -> None:
        window = RateWindow("provider", 3600.0, {"tokens": 1000.0})
        first = await store.admit(window, {"tokens": 900.0})
        assert first.ticket is not None
        refused = await store.admit(window, {"tokens": 200.0})
        assert (refused.ticket, refused.why) == (None, "tokens")
        await store.settle(window, first.ticket, {"tokens": 300.0})
        assert (await store.admit(window, {"tokens": 700.0})).ticket is not None
        assert (await store.admit(window, {"tokens": 1.0})).ticket is None

    @on_an_event_loop
    async def test_what_is_larger_than_its_limit_passes_when_nothing_else_is_in_the_window(self, store: Store) -> None:
        window = RateWindow("provider", 3600.0, {"tokens": 1000.0})
        assert (await store.admit(window, {"tokens": 5000.0})).ticket is not None
        assert (await store.admit(window, {"tokens": 1.0})).ticket is None
        other = dataclasses.replace(window, name="another")
        assert (await store.admit(other, {"tokens": 1.0})).ticket is not None
        assert (await store.admit(other, {"tokens": 5000.0})).ticket is None

    @on_an_event_loop
    async def test_what_has_left_the_window_does_not_count(self, store: Store) -> None:
        window = RateWindow("provider", 0.05, {"requests": 1.0})
        assert (await store.admit(window, {"requests": 1.0})).ticket is not None

        async def admitted() -> bool | None:
            return True if (await store.admit(window, {"requests": 1.0})).ticket is not None else None

        assert await until(admitted)

    @on_an_event_loop
    async def test_nobody_is_admitted_while_a_window_is_held(self, store: Store) -> None:
        window = RateWindow("provider", 1.0, {"requests": 5.0})
        await store.hold(window, 600.0)
        await store.hold(window, 1.0)
        refused = await store.admit(window, {"requests": 1.0})
        assert (refused.ticket, refused.why) == (None, "held")
        assert 590.0 < refused.wait <= 600.0

    @on_an_event_loop
    async def test_windows_are_shared_with_other_processes(self, store: Store) -> None:
        other = await self._second(store)
        window = RateWindow("provider", 3600.0, {"requests": 10.0})
        answers = await asyncio.gather(
            *(each.admit(window, {"requests": 1.0}) for each in (store, other) for _ in range(10))
        )
        assert sum(answer.ticket is not None for answer in answers) == 10
