"""All that happens in a run as one stream: the events of its journal, and text of its calls as it streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from rh_agents.core.errors import UsageError
from rh_agents.core.ports import RecordedEvent, Store
from rh_agents.core.ports.keeping import StoreLike, using_store
from rh_agents.core.ports.streaming import WATCHED_FOR, StreamedPiece, Versioned, streamed_text, watch_text

__all__ = ["Followed", "follow"]

LOOK_EVERY: Final = 0.1
"""Seconds between two looks: as often as text is written down."""

_MOST_DIGITS: Final = 18
"""Of a sequence: what a database holds as an integer."""


class Followed(NamedTuple):
    """What has happened next in a run: an event, or text of calls under way.

    Attributes:
        id: stands for this and all that came before: `follow(..., after=id)` gives what comes next.
        event: the event with its place in the journal; None for text.
        pieces: text; () for an event.
    """

    id: str
    event: RecordedEvent | None = None
    pieces: tuple[StreamedPiece, ...] = ()


async def follow(
    store: StoreLike, run_id: str, *, after: str = "", wants_text: bool = True, values: bool = True
) -> AsyncIterator[Followed]:
    """What has happened in a run and what happens in it, until no process executes it any more.

        async for each in follow("runs.db", "monday"):
            if each.event is not None:
                print(each.event.sequence, each.event.event.address)
            for piece in each.pieces:
                print(piece.text, end="")

    Text of a call comes behind the event that it has begun and before the one with its outcome. Text that was written
    while no one looked is not there; the first piece after it says so (`is_gap`). As many may follow as like.

    Args:
        store: where the run is: a store, or a URL or path for `open_store`, which is then closed at the end.
        after: the `id` of something that was given before, by whichever process: what came later is given. "" begins at
            the beginning.
        wants_text: whether text is wanted. While it is, the owner of the run writes it down.
        values: whether events of calls that ended have their `result`.

    Raises:
        StoreError: there is no such run, or the store failed.
        UsageError: `after` is no such id.
    """
    sequence, cursor = _parts(after)
    async with using_store(store) as opened, _watching(opened, run_id, wants_text=wants_text) as watch:
        followed = _followed(opened, run_id, sequence, cursor, watch, wants_text=wants_text, values=values)
        async for each in followed:
            yield each


class _Watch:
    """Looks whether anything happens in a run, for all on one event loop who follow it: however many they are, the
    store is asked once. Each of them reads what is new at its own pace.

    Args:
        store, run_id: the run.
        wants_text: whether text is wanted as well.
    """

    def __init__(self, store: Store, run_id: str, *, wants_text: bool) -> None:
        self.watchers: int = 0
        self._store = store
        self._run_id = run_id
        self._wants_text = wants_text
        self._changes = 0
        self._is_live = True
        self._failure: Exception | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """One more follows."""
        self.watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._look())

    def end(self) -> None:
        """One less; the last one ends it."""
        self.watchers -= 1
        if not self.watchers and self._task is not None:
            self._task.cancel()
            self._task = None

    @property
    def is_over(self) -> bool:
        """Whether no one looks any more, since no one executed the run, or the store failed."""
        return self._failure is not None or not self._is_live

    async def news(self, seen: int) -> tuple[int, bool]:
        """Wait until there is something new.

        Args:
            seen: the number that was given last; 0 at the beginning.

        Returns:
            A number, and whether someone executed the run at that time.
        """
        while self._changes == seen:
            if self._failure is not None:
                raise self._failure
            await self._changed.wait()
        return self._changes, self._is_live

    async def _look(self) -> None:
        clock = asyncio.get_running_loop().time
        watched_at = -WATCHED_FOR
        known: object = None
        cursor = ""
        try:
            while self._is_live:
                info = await self._store.find_run(self._run_id)
                is_live = info is not None and info.owner is not None
                if self._wants_text and is_live:
                    if clock() - watched_at >= WATCHED_FOR / 3:
                        watched_at = clock()
                        await watch_text(self._store, self._run_id)
                    cursor = (await streamed_text(self._store, self._run_id, after=cursor)).after
                found = (is_live, cursor, await self._version())
                if found != known:
                    known = found
                    self._publish(is_live=is_live)
                await asyncio.sleep(LOOK_EVERY)
        except Exception as error:  # noqa: BLE001 - whoever follows gets it
            self._failure = error
            self._publish(is_live=self._is_live)

    async def _version(self) -> object:
        """What is another value when there is something new; of a store that cannot say that, always."""
        return await self._store.version(self._run_id) if isinstance(self._store, Versioned) else object()

    def _publish(self, *, is_live: bool) -> None:
        self._is_live = is_live
        if self._failure is None:
            self._changes += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[int, str, bool], _Watch]] = WeakKeyDictionary()


@asynccontextmanager
async def _watching(store: Store, run_id: str, *, wants_text: bool) -> AsyncIterator[_Watch]:
    """The watch of a run, which all who follow it here have in common."""
    watches = _watches.setdefault(asyncio.get_running_loop(), {})
    name = (id(store), run_id, wants_text)  # a watch holds its store, so that no other one has this id meanwhile
    watch = watches.get(name)
    if watch is None or watch.is_over:
        watch = watches[name] = _Watch(store, run_id, wants_text=wants_text)
    watch.begin()
    try:
        yield watch
    finally:
        watch.end()
        if not watch.watchers and watches.get(name) is watch:
            del watches[name]


async def _followed(
    store: Store, run_id: str, sequence: int, cursor: str, watch: _Watch, *, wants_text: bool, values: bool
) -> AsyncIterator[Followed]:
    seen = 0
    while True:
        # Looked at before the events are read: what the owner wrote before it let go is among them.
        seen, is_live = await watch.news(seen)
        pieces: tuple[StreamedPiece, ...] = ()
        latest = cursor
        if wants_text and is_live:
            pieces, latest = await streamed_text(store, run_id, after=cursor)
        keys = {piece.key for piece in pieces}
        async for recorded in store.events(run_id, after=sequence, values=values):
            if pieces and recorded.has_outcome and recorded.event.key in keys:
                cursor = latest
                yield Followed(_id(sequence, cursor), pieces=pieces)
                pieces = ()
            sequence = recorded.sequence
            yield Followed(_id(sequence, cursor), recorded)
        if pieces:
            cursor = latest
            yield Followed(_id(sequence, cursor), pieces=pieces)
        if not is_live:
            return


def _id(sequence: int, cursor: str) -> str:
    return f"{sequence}/{cursor}" if cursor else str(sequence)


def _parts(name: str) -> tuple[int, str]:
    """The sequence and the place in the text in an id."""
    sequence, _, cursor = name.partition("/")
    if not name:
        return 0, ""
    if not sequence.isdecimal() or len(sequence) > _MOST_DIGITS:
        raise UsageError(f"after={name!r} names nothing that was given: use the `id` of what you have got last")
    return int(sequence), cursor
