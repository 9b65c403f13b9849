"""Between the input and the group: items one by one, until there are enough of them or the job is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Self, TypeGuard, TypeVar

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input.files import Input
from rh_agents.cli.input.lines import Item

__all__ = ["CountedFileSource", "FileSource", "PipeSource", "Source", "make_source"]

T = TypeVar("T")
_READ_AHEAD = 64
"""Items that wait between the thread that reads a pipe and the group."""


class _Source:
    """The items of an input, up to a limit. What kept it from reading on, if anything, is in `failure`."""

    def __init__(self, records: Iterator[Item], total: int | None, limit: int | None) -> None:
        self._records = records
        self._limit = limit
        self._stopped = False
        self.taken: int = 0
        self.is_exhausted: bool = False
        """Whether the input has been read to its end."""
        self.total: int | None = limit if total is None else total if limit is None else min(total, limit)
        """How many items there will be at most; None if that is not known."""
        self.failure: CommandError | None = None

    def stop(self) -> None:
        """Give no more items."""
        self._stopped = True

    @property
    def is_at_its_limit(self) -> bool:
        """Whether as many items have been given as were asked for."""
        return self._limit is not None and self.taken >= self._limit

    @property
    def is_over(self) -> bool:
        """Whether there will be no more items, seen without reading."""
        return self._stopped or self.is_at_its_limit

    def read(self) -> Item | None:
        """The next item; None at the end."""
        try:
            return next(self._records, None)
        except CommandError as error:
            self.failure = error
            return None

    def _take(self, item: Item | None) -> TypeGuard[Item]:
        """Count an item that is given to the group; None is the end."""
        self.taken += item is not None
        self.is_exhausted = item is None and not self._stopped
        return item is not None


class FileSource(_Source):
    """Read where it is asked for: a file answers at once."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        item = None if self.is_over else self.read()
        if not self._take(item):
            raise StopIteration
        return item


class CountedFileSource(FileSource):
    """A file of which the number of items is known, for the sake of a progress bar."""

    def __len__(self) -> int:
        return self.total or 0


class PipeSource(_Source):
    """Read ahead in a thread: the next item of a pipe may be long in coming, and what runs must continue meanwhile.

    The process does not wait for that thread when it ends, which is why it is none of a pool of the standard library.
    """

    def __init__(self, records: Iterator[Item], total: int | None, limit: int | None) -> None:
        super().__init__(records, total, limit)
        self._ahead: deque[Item | BaseException | None] = deque()
        self._room = threading.Semaphore(_READ_AHEAD)
        self._thread = threading.Thread(target=self._read_ahead, name="read the input", daemon=True)
        self._waiting: asyncio.Future[None] | None = None

    def stop(self) -> None:
        """Give no more items, not even to a task that waits for one."""
        super().stop()
        self._wake()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        if self._thread.ident is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        while not self.is_over and not self._ahead:
            self._waiting = self._loop.create_future()
            if not self._ahead:  # the thread wakes only those whom it sees waiting
                await self._waiting
        item = None if self.is_over else self._ahead.popleft()
        if isinstance(item, BaseException):
            raise item
        if not self._take(item):
            raise StopAsyncIteration
        self._room.release()
        return item

    def _read_ahead(self) -> None:
        """In the thread. No more is read than is asked for in all: what is left belongs to others."""
        for _ in itertools.count() if self._limit is None else range(self._limit):
            self._room.acquire()
            item: Item | BaseException | None
            try:
                item = self.read()
            except BaseException as error:  # noqa: BLE001 - raised where items are waited for
                item = error
            self._ahead.append(item)
            if self._waiting is not None:
                with contextlib.suppress(RuntimeError):  # the loop has been closed: no one waits any more
                    self._loop.call_soon_threadsafe(self._wake)
            if not isinstance(item, Item):
                return

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


Source = FileSource | PipeSource


def make_source(given: Input, limit: int | None = None) -> Source:
    """The source that suits the input: an iterable for files, an async iterable for what may block."""
    if given.may_block:
        return PipeSource(given.items, given.total, limit)
    kind = FileSource if given.total is None else CountedFileSource
    return kind(given.items, given.total, limit)
