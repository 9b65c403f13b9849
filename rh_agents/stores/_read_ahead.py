"""Outcomes of earlier executions, read before they are asked for: a replay asks in about the order of the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

from rh_agents.core.errors import StoreError
from rh_agents.stores._backend.rows import StoredOutcome
from rh_agents.stores._writer import again, call_on

Read = Callable[[int, int], Future[list[StoredOutcome]]]
"""Reads outcomes from after a sequence, at most so many."""

_FIRST = 32
_MOST = 2048
"""Outcomes that are read at a time. Some calls wait for each reading, and cost more than those that need not."""
_MOST_KEPT = 2 * _MOST
_MOST_BYTES = 8 << 20
"""Of values that are kept; one reading may add a quarter of it, or one value."""


class ReadAhead:
    """Keeps a bounded number of outcomes that are likely to be wanted next. What was taken is forgotten.

    How much is read at a time follows from how much of what was read has been of use, so that a program which asks in
    another order does not read everything many times.

    Args:
        read: starts a reading in another thread.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._kept: dict[int, StoredOutcome] = {}
        self._bytes = 0
        self._limit = _FIRST
        self._end = 0
        self._has_more = True
        self._got = 0
        self._used = 0
        self._is_reading = False
        self._waiters: list[asyncio.Future[Future[list[StoredOutcome]]]] = []

    def take(self, sequence: int) -> StoredOutcome | None:
        """The outcome with this sequence, if it is here."""
        found = self._kept.pop(sequence, None)
        if found is None:
            return None
        self._used += 1
        self._bytes -= _size(found)
        if len(self._kept) * 2 < self._limit and self._limit > _FIRST and self._has_more and not self._is_reading:
            self._adapt()
            self._begin(self._end)
        return found

    def put_back(self, found: StoredOutcome) -> None:
        """Keep an outcome that was taken too early."""
        self._used -= 1
        self._bytes += _size(found)
        self._kept[found.row.sequence] = found

    async def wait_for(self, sequence: int) -> StoredOutcome | None:
        """The outcome with this sequence, as soon as it has been read; None if it is not there.

        Raises:
            StoreError: it cannot be read.
        """
        while (found := self.take(sequence)) is None:
            if self._is_reading:
                await self._next_reading()
                continue
            self._begin_around(sequence)
            for stored in await self._next_reading():
                if stored.row.sequence == sequence:
                    # Somebody else may have taken it a moment ago, who wanted the same.
                    return self.take(sequence) or stored
            return None
        return found

    async def _next_reading(self) -> list[StoredOutcome]:
        """What is being read, when it is here.

        Raises:
            StoreError: it could not be read.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        done: Future[list[StoredOutcome]] = await waiter
        error = done.exception()
        if isinstance(error, StoreError):
            raise again(error)
        return done.result()

    def _begin_around(self, sequence: int) -> None:
        """Read what stands in the same part of the journal, so that it does not matter which of it is wanted first."""
        self._adapt()
        self._begin((sequence - 1) // self._limit * self._limit)

    def _begin(self, after: int) -> Future[list[StoredOutcome]]:
        limit = self._limit
        loop = asyncio.get_running_loop()
        self._is_reading = True
        reading = self._read(after, limit)
        reading.add_done_callback(lambda done: call_on(loop, self._arrived, done, limit))
        return reading

    def _arrived(self, done: Future[list[StoredOutcome]], limit: int) -> None:
        self._is_reading = False
        if done.exception() is None:
            self._keep(done.result(), limit)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(done)

    def _keep(self, chunk: list[StoredOutcome], limit: int) -> None:
        self._got += len(chunk)
        for stored in chunk:
            before = self._kept.pop(stored.row.sequence, None)
            self._bytes += _size(stored) - (0 if before is None else _size(before))
            self._kept[stored.row.sequence] = stored
        self._end = chunk[-1].row.sequence if chunk else self._end
        self._has_more = len(chunk) == limit
        while len(self._kept) > _MOST_KEPT or (self._bytes > _MOST_BYTES and len(self._kept) > 1):
            self._bytes -= _size(self._kept.pop(next(iter(self._kept))))

    def _adapt(self) -> None:
        """Read more at a time if most of what was read was wanted, and less if little of it was."""
        if self._used * 2 >= self._got:
            self._limit = min(_MOST, self._limit * 2)
        elif self._used * 8 < self._got:
            self._limit = max(1, self._limit // 2)
        self._got //= 2
        self._used //= 2


def _size(stored: StoredOutcome) -> int:
    return len(stored.row.value or b"")
