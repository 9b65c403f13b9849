"""All that happens in a run as one stream: the events of its journal, and text of its calls as it streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from rh_agents.core.errors import UsageError
from rh_agents.core.ports import RecordedEvent, Store
from rh_agents.core.ports.opening import StoreLike, using_store
from rh_agents.core.ports.streaming import WATCHED_FOR, StreamedPiece, streamed_text, watch_text

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
    """What has happened in a run and what happens in it, until nobody executes it any more.

        async for each in follow("runs.db", "monday"):
            if each.event is not None:
                print(each.event.sequence, each.event.event.address)
            for piece in each.pieces:
                print(piece.text, end="")

    Text of a call comes behind the event that it has begun and before the one with its outcome. Text that was written
    while nobody looked is not there; the first piece after it says so (`is_gap`). As many may follow as like.

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
    async with using_store(store) as opened:
        async for each in _followed(opened, run_id, sequence, cursor, wants_text=wants_text, values=values):
            yield each


async def _followed(
    store: Store, run_id: str, sequence: int, cursor: str, *, wants_text: bool, values: bool
) -> AsyncIterator[Followed]:
    watched_at = -WATCHED_FOR
    clock = asyncio.get_running_loop().time
    while True:
        # Looked at before the events are read: what the owner wrote before it let go is among them.
        info = await store.find_run(run_id)
        is_live = info is not None and info.owner is not None
        pieces: tuple[StreamedPiece, ...] = ()
        latest = cursor
        if wants_text and is_live:
            if clock() - watched_at >= WATCHED_FOR / 3:
                watched_at = clock()
                await watch_text(store, run_id)
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
        await asyncio.sleep(LOOK_EVERY)


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
