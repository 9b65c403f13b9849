"""Steering a run from outside: requests reach its owner, and each is answered once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rh_agents.core._limits.steering import control_fact
from rh_agents.core.errors import ControlRefused, LeaseLost
from rh_agents.core.events import Fact
from rh_agents.core.execution import ExecutionState
from rh_agents.core.ports import Store
from rh_agents.core.ports.control import (
    Controllable,
    ControlRequest,
    RunControl,
    SteeredJournal,
    Verb,
    control_of,
)
from rh_agents.core.types import EventType
from rh_agents.testing._records import BRIEF_LEASE, COMPLETED, RUN, STARTED, request
from rh_agents.testing.conformance.suite import (
    StoreSuite,
    expect_refusals,
    on_an_event_loop,
    opened,
    written_run,
)

__all__ = ["ControlConformance"]

PAUSED = {"text": "it is paused é"}
SOON = 2.0
"""Seconds within which an owner has to act on what is asked of it."""


class ControlConformance(StoreSuite):
    """A run is steered by requests to its owner. A store whose runs cannot be steered need not have this."""

    @on_an_event_loop
    async def test_only_a_run_that_is_there_is_steered(self, store: Store) -> None:
        asked = _controllable(store)
        await expect_refusals(
            store,
            lambda: asked.request_control(RUN, Verb.PAUSE, {}),
            lambda: asked.control_requests(RUN),
            lambda: asked.is_executed(RUN),
        )

    @on_an_event_loop
    async def test_a_request_reaches_the_owner(self, store: Store) -> None:
        await self._reach(store, store)

    @on_an_event_loop
    async def test_a_request_reaches_the_owner_from_another_process(self, store: Store) -> None:
        await self._reach(store, await self._second(store))

    async def _reach(self, store: Store, asking: Store) -> None:
        asked, heard = _controllable(asking), asyncio.Event()
        journal, _ = await opened(store)
        steered = _steered(journal)
        steered.when_asked(heard.set)
        assert await asked.is_executed(RUN)
        given = await asked.request_control(RUN, Verb.SET, {"settings": {"é": 0.5}}, author="ann", reason="a\0 reason")
        assert given.is_open
        async with asyncio.timeout(SOON):
            await heard.wait()
        (found,) = await steered.requests()
        assert found == await _only(asked)
        assert (found.id, found.verb, found.author, found.asked_at) == (given.id, Verb.SET, "ann", given.asked_at)
        assert found.arguments == {"settings": {"é": 0.5}}
        assert found.reason.startswith("a")
        heard.clear()
        await journal.append(*_applied(found))
        await steered.answer_request(found.id, PAUSED)
        assert await steered.requests() == []
        answered = await asked.wait_for_control(given, 0.0)
        assert (answered.is_open, answered.answer) == (False, PAUSED)
        assert await asked.control_requests(RUN, is_open=True) == []
        assert await asked.control_requests(RUN, is_open=False) == [answered]
        second = await asked.request_control(RUN, Verb.PAUSE, {})
        async with asyncio.timeout(SOON):
            await heard.wait()
        assert await steered.requests() == [second]
        await journal.close(STARTED)
        assert not await asked.is_executed(RUN)

    @on_an_event_loop
    async def test_requests_count_in_the_order_in_which_they_were_made(self, store: Store) -> None:
        asked = _controllable(store)
        await written_run(store, 1)
        given = [await asked.request_control(RUN, verb, {}) for verb in (Verb.PAUSE, Verb.UNPAUSE, Verb.PAUSE)]
        journal = _steered(await store.open_run(request()))
        assert await journal.requests() == given
        await journal.answer_request(given[1].id, PAUSED)
        assert [each.id for each in await journal.requests()] == [given[0].id, given[2].id]

    @on_an_event_loop
    async def test_what_an_owner_who_died_has_not_answered_is_open_and_what_it_applied_is_in_the_journal(
        self, store: Store
    ) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        asked = _controllable(store)
        first, second = [await asked.request_control(RUN, Verb.PAUSE, {}) for _ in range(2)]
        await journal.append(*_applied(first))
        del journal, asked
        store = await self._crashed(store)
        journal = await self._taken_over(store)
        assert [each.id for each in await _steered(journal).requests()] == [first.id, second.id]
        steered = journal.recorded.steered
        assert dict(steered.answers) == {first.id: PAUSED}
        assert steered.pause_of(RUN, 0) is not None
        assert steered.pause_of("a copy", 0) is None
        assert steered.pause_of(RUN, 1) is None
        (event,) = [e.event async for e in store.events(RUN) if e.event.event_type is EventType.CONTROL]
        assert event.control is not None
        assert (event.control["id"], event.message, event.key) == (first.id, "why", None)

    @on_an_event_loop
    async def test_an_owner_that_was_replaced_answers_nothing(self, store: Store) -> None:
        _, zombie, journal = await self._zombie(store)
        asked = await _controllable(self._stores[-1]).request_control(RUN, Verb.PAUSE, {})
        with pytest.raises(LeaseLost):
            await _steered(zombie).answer_request(asked.id, PAUSED)
        assert await _steered(journal).requests() == [asked]

    @on_an_event_loop
    async def test_requests_are_gone_with_the_run_and_no_part_of_a_copy(self, store: Store) -> None:
        asked = _controllable(store)
        await written_run(store, 1, status=COMPLETED)
        await asked.request_control(RUN, Verb.PAUSE, {})
        await store.fork_run(RUN, "copy", [], [])
        assert await asked.control_requests("copy") == []
        await store.delete_run(RUN)
        await written_run(store, 1)
        assert await asked.control_requests(RUN) == []

    @on_an_event_loop
    async def test_a_run_is_paused_and_goes_on_within_two_seconds_of_each(self, store: Store) -> None:
        await self._pause(store, store)

    @on_an_event_loop
    async def test_a_run_is_paused_from_another_process(self, store: Store) -> None:
        await self._pause(store, await self._second(store))

    async def _pause(self, store: Store, asking: Store) -> None:
        control = _control(asking)
        async with ExecutionState(store=store, run_id=RUN) as state:
            began = asyncio.get_running_loop().time()
            paused = await control.pause(author="ann", reason="a look")
            assert paused.is_applied
            assert _is_held(state)
            with pytest.raises(ControlRefused, match="is paused already"):
                await control.pause()
            assert (await control.unpause()).is_applied
            assert not _is_held(state)
            assert asyncio.get_running_loop().time() - began < 3 * SOON
        trail = [e.event.control async for e in store.events(RUN) if e.event.event_type is EventType.CONTROL]
        assert [each and each["verb"] for each in trail] == ["pause", "pause", "unpause"]


def _is_held(state: ExecutionState) -> bool:
    """Read again: type checkers would remember what was asserted."""
    return state.parts.interruption.is_held


def _controllable(store: Store) -> Controllable:
    if not isinstance(store, Controllable):
        pytest.skip("its runs cannot be steered")
    return store


def _control(store: Store) -> RunControl:
    _controllable(store)
    return control_of(store, RUN)


def _steered(journal: object) -> SteeredJournal:
    if not isinstance(journal, SteeredJournal):
        pytest.skip("its journals do not know what is asked")
    return journal


async def _only(store: Controllable) -> ControlRequest:
    (found,) = await store.control_requests(RUN)
    return found


def _applied(asked: ControlRequest) -> tuple[Fact]:
    """What stands in the journal when a request has been applied."""
    control: dict[str, Any] = {
        "id": asked.id,
        "verb": asked.verb.value,
        "author": asked.author,
        "asked_at": asked.asked_at,
        "arguments": dict(asked.arguments),
        "run": RUN,
        "epoch": 0,
        "answer": PAUSED,
    }
    return (control_fact(control, "why", RUN, asked.asked_at),)
