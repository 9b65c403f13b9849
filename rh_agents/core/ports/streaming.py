"""Text of calls under way, as it streams: what a model writes can be read before its answer is there.

The journal has the outcome of a call, and nothing of how it came to be. So text is kept beside it, and only while
someone looks: whoever looks says so (`watch_text`), and the owner of the run writes down what its calls publish from
then on (`ChatDelta`, or anything else that `tell_progress` is given and that is a text or `Streamable`), at most ten
times a second. Of one call the newest 64 KiB are kept. They are gone when its outcome is recorded, they are no part of
a replay or of a copy, and what is missing is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rh_agents.core.ports import Store

__all__ = [
    "WATCHED_FOR",
    "Piece",
    "PieceKind",
    "Streamable",
    "StreamedPiece",
    "StreamedText",
    "Streaming",
    "StreamingJournal",
    "TextSink",
    "Versioned",
    "streamed_text",
    "watch_text",
]

WATCHED_FOR: Final = 10.0
"""Seconds for which text is written down after someone has said that it is looked at."""


class PieceKind(StrEnum):
    """What a piece of text is part of."""

    TEXT = "text"
    """The answer."""
    REASONING = "reasoning"
    """What the model thinks before it answers."""
    REFUSAL = "refusal"
    """Why it does not answer."""
    TOOL_CALL = "tool_call"
    """The arguments of a call of a tool."""
    VOID = "void"
    """No text: what came before in this attempt has come to nothing, and the answer starts over."""


class Piece(NamedTuple):
    """A piece of what a call publishes.

    Attributes:
        tool_index: which of the answer's tool calls it belongs to, counted from 0; None elsewhere.
        tool_name: of that tool, in the first piece of its call; "" elsewhere.
    """

    kind: PieceKind
    text: str = ""
    tool_index: int | None = None
    tool_name: str = ""


@runtime_checkable
class Streamable(Protocol):
    """What can be given to `tell_progress` and has text for those who look."""

    def streamed_pieces(self) -> Sequence[Piece]:
        """The text, in pieces that are each of one kind."""
        ...


class StreamedPiece(NamedTuple):
    """A piece of text of a call under way.

    Attributes:
        key: of the call, in hexadecimal.
        address: its readable place.
        attempt: the number of the attempt that publishes it, from 1. Text of an earlier attempt has come to nothing.
        position: how many characters this attempt has published before, as far as it was looked at; a piece without
            text counts as one.
        kind, text, tool_index, tool_name: as in `Piece`, without secrets.
        is_gap: whether text is missing just before it: no one looked, or there was too much of it.
    """

    key: str
    address: str
    attempt: int
    position: int
    kind: PieceKind
    text: str
    tool_index: int | None = None
    tool_name: str = ""
    is_gap: bool = False


class StreamedText(NamedTuple):
    """What is new of the text of calls under way.

    Attributes:
        pieces: in the order in which they were written down.
        after: stands for all that has been given; with it, the next look gives what has come since.
    """

    pieces: tuple[StreamedPiece, ...]
    after: str


class TextSink(Protocol):
    """Takes what calls publish, while someone looks. It does not wait, and never fails."""

    def add(self, key: bytes, address: str, attempt: int, progress: object, *, is_gap: bool) -> bool:
        """Take a piece of what an attempt of a call publishes; False if no one looks at this call.

        `is_gap` says that pieces before it were not taken.
        """
        ...


@runtime_checkable
class StreamingJournal(Protocol):
    """A journal that keeps text of calls under way for those who look."""

    def stream_with(self, changed: Callable[[TextSink | None], None]) -> None:
        """Call `changed` on the event loop of the run when someone begins to look, and with None when no one does."""
        ...


@runtime_checkable
class Versioned(Protocol):
    """A store that can say cheaply whether anything has been written to a run."""

    async def version(self, run_id: str) -> Hashable:
        """Another value whenever something has been added to the journal of a run, or someone else has it.

        Raises:
            StoreError: there is no such run.
        """
        ...


@runtime_checkable
class Streaming(Protocol):
    """A store that has the text of calls under way."""

    async def watch(self, run_id: str, key: str | None = None) -> bool:
        """See `watch_text`."""
        ...

    async def streamed(self, run_id: str, key: str | None = None, *, after: str = "") -> StreamedText:
        """See `streamed_text`."""
        ...


async def watch_text(store: Store, run_id: str, key: str | None = None) -> bool:
    """Say that someone looks at the text of calls under way, for `WATCHED_FOR` seconds from now.

    The owner of the run learns of it within a second. It is to be said again in half of that time; as many may look as
    like.

    Args:
        key: the call that is looked at, in hexadecimal; None for all of them.

    Returns:
        Whether there will be any text: the run is being executed, and the store can be written to and knows of it.

    Raises:
        StoreError: there is no such run.
        UsageError: this is no key.
    """
    return await store.watch(run_id, key) if isinstance(store, Streaming) else False


async def streamed_text(store: Store, run_id: str, key: str | None = None, *, after: str = "") -> StreamedText:
    """The text of calls under way that was written down since the look that gave `after`; all of it with "".

    It is there while someone looks (`watch_text`). Any number of readers get the same, each from where it was.

    Raises:
        StoreError: there is no such run.
        UsageError: `after` is not what a look has given, or this is no key.
    """
    if isinstance(store, Streaming):
        return await store.streamed(run_id, key, after=after)
    return StreamedText((), after)
