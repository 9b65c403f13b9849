"""Which batches there are already: so that none is made for requests that are in one.

Batches are known by their marks (`Marks`), and which requests they hold by what was uploaded. Where a provider keeps
neither, by their answers, which may take a day: so that is asked only of batches that can hold requests whose
submission was cut off.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence

from rh_agents.core.errors import ModelError, TemporaryModelError
from rh_agents.llms._batch_api import BatchApi, BatchState, Marks
from rh_agents.llms._batch_results import Report, Sleep, answered_ids

LOOKED_AT = 100
"""Batches of the account that are looked through at least; in doubt, all that were made since the run began."""
_LOOKS = 3
"""How often a batch is looked for that may have been made: lists lag behind."""
_CLOCKS_DIFFER = 3600.0
"""Seconds by which the provider's clock may differ from ours."""


class KnownBatches:
    """What is known of the batches of an account, and how to find out more."""

    def __init__(self, *, poll_every: float, sleep: Sleep, report: Report) -> None:
        self._poll_every = poll_every
        self._sleep = sleep
        self._report = report
        self.made: dict[str, Sequence[str]] = {}
        """The requests of batches that were made here, or whose requests have been read."""

    async def _wait(self) -> None:
        await self._sleep(self._poll_every)

    async def holding(
        self, api: BatchApi, requests: Collection[str], marks: Marks, *, since: float, in_doubt: bool
    ) -> dict[str, str]:
        """Which of the requests are in a batch already, and in which: the newest that holds them.

        Args:
            api: where.
            requests: their ids.
            marks: those of the batch that they would be.
            since: when the run began, by our clock.
            in_doubt: whether a batch may have been made of some that nothing here tells of.
        """
        if not (api.keeps_marks or in_doubt):
            return {}
        since -= _CLOCKS_DIFFER
        wanted, found, count = set(requests), dict[str, str](), 0
        async for state in self.recent(api, in_doubt=in_doubt):
            count += 1
            is_recent = state.created_at >= since
            if _is_of(state, marks) if api.keeps_marks else is_recent:
                held = wanted.intersection(await self._held(api, state))
                found.update(dict.fromkeys(held, state.id))
                wanted -= held
            is_far_enough = count >= LOOKED_AT and not (in_doubt and is_recent)
            if not wanted or is_far_enough or not (api.keeps_marks or is_recent):
                break
        return found

    async def recent(self, api: BatchApi, *, in_doubt: bool) -> AsyncIterator[BatchState]:
        """The batches of the account. While a batch may have been made, they are asked for until they can be had."""
        seen: set[str] = set()
        while True:
            try:
                async for state in api.recent():
                    if state.id not in seen:
                        seen.add(state.id)
                        yield state
                return
            except TemporaryModelError as error:
                if not in_doubt:
                    raise
                self._report(f"{api.name}: the batches that there are cannot be had: {error}")
            await self._wait()

    async def requests_of(self, api: BatchApi, state: BatchState) -> Sequence[str]:
        """The ids of all requests of which a batch was made; none if nothing can tell."""
        if state.id not in self.made:
            with contextlib.suppress(ModelError):
                self.made[state.id] = await api.requested(state) or ()
        return self.made.get(state.id, ())

    async def _held(self, api: BatchApi, state: BatchState) -> Sequence[str]:
        """The ids of the requests that a batch holds: all of them, or those that were done if it was cut off."""
        while True:
            if state.is_ended and not state.is_whole:
                return await answered_ids(api, state, self._wait)
            if state.id in self.made:
                return self.made[state.id]
            ids = await api.requested(state)
            if ids is None and state.is_ended:
                ids = await answered_ids(api, state, self._wait)
            if ids is not None:
                self.made[state.id] = ids
                return ids
            self._report(f"batch {state.id}: waiting for what is in it, so that nothing is submitted twice")
            await self._wait()
            with contextlib.suppress(TemporaryModelError):
                state = await api.retrieve(state.id)

    async def made_all_the_same(
        self, api: BatchApi, marks: Marks, requests: Collection[str], began: float
    ) -> BatchState | None:
        """The batch of these requests that was made after `began` though nobody said so; None if there is none."""
        for number in range(_LOOKS):
            if number:
                await self._wait()
            count = 0
            async for state in self.recent(api, in_doubt=True):
                count += 1
                if state.id in self.made:
                    continue
                if api.keeps_marks:
                    if state.marks is not None and state.marks.requests == marks.requests and _may_hold(state):
                        return state
                elif state.created_at < began - _CLOCKS_DIFFER:
                    break
                elif state.total in (0, len(requests)) and not set(requests).isdisjoint(await self._held(api, state)):
                    return state
                if count >= LOOKED_AT:
                    break
        return None

    async def only_one(self, api: BatchApi, marks: Marks, made: BatchState) -> BatchState:
        """Of two batches of the same requests, the older one; the other is cancelled.

        There are two if the first one came into the list only after it had been looked for.
        """
        if not api.keeps_marks:
            return made
        count = 0
        async for state in self.recent(api, in_doubt=True):
            count += 1
            if state.marks is not None and state.marks.requests == marks.requests and state.id != made.id:
                if not _may_hold(state) or state.id in self.made:
                    continue
                self._report(f"batch {made.id}: cancelled, since {state.id} has the same requests")
                await api.cancel(made.id)
                return state
            if count >= LOOKED_AT:
                break
        return made


def _may_hold(state: BatchState) -> bool:
    return state.is_whole or not state.is_ended


def _is_of(state: BatchState, marks: Marks) -> bool:
    """Whether a batch was made for this run, or of exactly these requests: earlier versions did not name the run."""
    return state.marks is not None and (state.marks.run == marks.run or state.marks.requests == marks.requests)
