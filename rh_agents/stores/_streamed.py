"""Text of calls under way, on its way from the calls of a run to the table in which those who look read it.

The owner of a run has one `TextRelay`. It learns from the store who looks, takes what calls publish from then on, frees
it of secrets (also of those that are split over several pieces), and hands it to the store ten times a second at most,
whatever the number of calls. What nobody looks at is not taken.

A row is a JSON object: the address of the call, the pieces, and `before`, the time of the row before it in the same
attempt. By that a reader sees that there was one which it has not got: too old a row has been dropped, since of one
call only the newest 64 KiB are kept. Times of rows never repeat within one ownership of a run, so that one of them,
with the fence, stands for all that a reader has got.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Protocol

from rh_agents.core.errors import UsageError
from rh_agents.core.ports import Clock
from rh_agents.core.ports.streaming import (
    WATCHED_FOR,
    Piece,
    PieceKind,
    Streamable,
    StreamedPiece,
    StreamedText,
    TextSink,
)
from rh_agents.core.redaction import without_secrets
from rh_agents.core.redaction.streams import RedactedStream
from rh_agents.stores._backend.beside import PieceCut, PieceRow

EVERY_CALL: Final = bytes(32)
"""The key under which those are noted who look at all calls of a run."""
WRITE_EVERY: Final = 0.1
"""Seconds between two writes, at least."""
MOST_OF_A_CALL: Final = 64 * 1024
"""Bytes of text that are kept of one call: the newest ones."""
_LONGEST_PIECE: Final = 8 * 1024
"""Characters. Longer ones are divided, so that of a text that is too long only the beginning is dropped."""
_UNUSUAL: Final = re.compile("[\ud800-\udfff\ufdd0]")
"""What databases hold only in some other form."""
_TICK: Final = 1e-6
"""Seconds by which the times of two rows differ at least."""

Write = Callable[[Sequence[PieceRow], Sequence[PieceCut], Callable[[], None]], None]
"""Writes rows and deletes those before the cuts; calls the function on the event loop when that has been tried."""


class Keyed(Protocol):
    """An outcome, as far as it matters here."""

    @property
    def key(self) -> bytes:
        """That of its call."""
        ...


@dataclass(slots=True)
class _Part:
    """What is new of one attempt.

    Attributes:
        position: of the first of its pieces.
        before: the time of the row before it.
        is_gap: whether text is missing before it.
    """

    attempt: int
    position: int = 0
    before: float | None = None
    is_gap: bool = False
    pieces: deque[Piece] = field(default_factory=deque)
    size: int = 0

    @property
    def end(self) -> int:
        """The position behind its last piece."""
        return self.position + sum(map(_units, self.pieces))

    def put(self, piece: Piece) -> None:
        """Add a piece. What is more than is kept of a call need not be written first."""
        self.pieces.append(piece)
        self.size += _size(piece)
        while self.size > MOST_OF_A_CALL and len(self.pieces) > 1:
            first = self.pieces.popleft()
            self.position += _units(first)
            self.size -= _size(first)
            self.is_gap = True

    def written(self, key: bytes, address: str, at: float) -> PieceRow:
        """The row of it; what comes then begins behind it."""
        about = {"address": address, "before": self.before, "is_gap": self.is_gap, "pieces": list(self.pieces)}
        row = PieceRow(key, self.attempt, self.position, _json(about), at)
        self.position = self.end
        self.pieces.clear()
        self.size, self.before, self.is_gap = 0, at, False
        return row


class _Text:
    """The text of one call."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._raw: list[Piece] = []
        self._raw_size = 0
        self._parts: list[_Part] = []
        self._streams: dict[tuple[PieceKind, int | None], RedactedStream] = {}
        self._is_cut = False
        self._kept: deque[tuple[PieceRow, int]] = deque()
        self._kept_size = 0

    def add(self, attempt: int, pieces: Iterable[Piece], *, is_gap: bool) -> None:
        """Take what an attempt has published."""
        if not self._parts or self._parts[-1].attempt != attempt:
            self._clean()
            self._end_streams()
            self._parts.append(_Part(attempt))
        if is_gap:
            self._clean()
            self._end_streams()
            self._parts.append(_Part(attempt, self._parts[-1].end, self._parts[-1].before, is_gap=True))
            self._is_cut = True
        for piece in pieces:
            self._raw.append(piece)
            self._raw_size += len(piece.text)
        if self._raw_size > MOST_OF_A_CALL:
            self._clean()

    def _clean(self) -> None:
        """Free what has come of secrets."""
        raw, self._raw, self._raw_size = self._raw, [], 0
        for (kind, index), same in groupby(raw, key=lambda piece: (piece.kind, piece.tool_index)):
            if kind is PieceKind.VOID:
                self._end_streams()
                self._put(Piece(kind))
                continue
            together = list(same)
            for piece in together:
                if piece.tool_name:
                    self._put(Piece(kind, "", index, without_secrets(piece.tool_name)))
                    self._is_cut = False
            stream = self._streams.get((kind, index))
            if stream is None:
                stream = self._streams[kind, index] = RedactedStream(is_cut=self._is_cut)
                self._is_cut = False  # what goes on behind a gap is one text; others begin behind it
            self._put(Piece(kind, stream.add("".join(piece.text for piece in together)), index))

    def _end_streams(self) -> None:
        """What was held back comes to its end here."""
        self._is_cut = False
        streams, self._streams = self._streams, {}
        for (kind, index), stream in streams.items():
            self._put(Piece(kind, stream.rest(), index))

    def _put(self, piece: Piece) -> None:
        if len(piece.text) > _LONGEST_PIECE:
            for start in range(0, len(piece.text), _LONGEST_PIECE):
                self._parts[-1].put(piece._replace(text=piece.text[start : start + _LONGEST_PIECE]))
        elif piece.text or piece.tool_name or piece.kind is PieceKind.VOID:
            self._parts[-1].put(piece)

    def written(self, key: bytes, at: float) -> list[PieceRow]:
        """The rows of what is new."""
        self._clean()
        rows: list[PieceRow] = []
        for part in self._parts:
            if rows and rows[-1].attempt == part.attempt:
                part.before = at
            if part.pieces:
                size = part.size
                rows.append(part.written(key, self._address, at))
                self._kept.append((rows[-1], size))
                self._kept_size += size
        del self._parts[:-1]
        return rows

    def cut(self) -> PieceCut | None:
        """The place before which rows are dropped, if there are too many."""
        is_cut = False
        while self._kept_size > MOST_OF_A_CALL and len(self._kept) > 1:
            self._kept_size -= self._kept.popleft()[1]
            is_cut = True
        first = self._kept[0][0]
        return PieceCut(first.key, first.attempt, first.position) if is_cut else None


class TextRelay:
    """Takes text of the calls of one run while somebody looks. It belongs to the event loop on which it is made.

    Args:
        clock: the time of day in seconds since 1970.
        write: hands rows to the store.
        finished: the keys that have an outcome: there will be no more text.
    """

    def __init__(self, clock: Clock, write: Write, finished: Container[bytes]) -> None:
        self.texts: dict[bytes, _Text] = {}
        """By key; whoever records an outcome takes its call out, and deletes its rows."""
        self._clock = clock
        self._write = write
        self._finished = finished
        self._loop = asyncio.get_running_loop()
        self._changed: Callable[[TextSink | None], None] | None = None
        self._is_on = False
        self._seen: Mapping[bytes, float] = {}
        self._ends: dict[bytes, float] = {}
        self._fresh: dict[bytes, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._lapse: asyncio.TimerHandle | None = None
        self._is_writing = False
        self._last_at = 0.0

    # -- who looks ----------------------------------------------------------------------------------------------------

    def stream_with(self, changed: Callable[[TextSink | None], None]) -> None:
        """Call `changed` when somebody begins to look, and with None when no one does."""
        self._changed = changed
        if self._is_on:
            changed(self)

    def watch(self, watched: Mapping[bytes, float]) -> None:
        """Take these for those who look: calls with the times until which they want to, whatever their clocks say.

        Whose time has changed since the last call looks now; how long ago is measured here.
        """
        now = self._loop.time()
        for key, until in watched.items():
            if self._seen.get(key) != until:
                self._ends[key] = now + WATCHED_FOR
        self._seen = watched
        self._look_who_is_there()

    def _look_who_is_there(self) -> None:
        now = self._loop.time()
        self._ends = {key: end for key, end in self._ends.items() if end > now}
        if self._lapse is not None:
            self._lapse.cancel()
            self._lapse = None
        if self._ends:
            self._lapse = self._loop.call_at(min(self._ends.values()), self._look_who_is_there)
        is_on = bool(self._ends)
        if is_on is not self._is_on:
            self._is_on = is_on
            if self._changed is not None:
                self._changed(self if is_on else None)

    def ended(self, outcomes: Iterable[Keyed]) -> list[bytes]:
        """Those of the calls that have text here: it goes with these outcomes."""
        return [each.key for each in outcomes if self.texts.pop(each.key, None) is not None]

    def close(self) -> None:
        """Take no more."""
        self._ends, self._seen = {}, {}
        self._look_who_is_there()
        self._changed = None
        self.texts.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- what calls publish -------------------------------------------------------------------------------------------

    def add(self, key: bytes, address: str, attempt: int, progress: object, *, is_gap: bool) -> bool:
        """Take a piece of what an attempt of a call publishes; False if nobody looks at this call."""
        if (key not in self._ends and EVERY_CALL not in self._ends) or key in self._finished:
            return False
        pieces = _pieces_in(progress)
        if not pieces:
            return not is_gap  # what is missing is still to be marked
        text = self.texts.get(key)
        if text is None:
            text = self.texts[key] = _Text(address)
        text.add(attempt, pieces, is_gap=is_gap)
        self._fresh[key] = None
        if self._timer is None and not self._is_writing:
            self._timer = self._loop.call_later(WRITE_EVERY, self._hand_over)
        return True

    def _hand_over(self) -> None:
        self._timer = None
        at = self._last_at = max(self._clock(), self._last_at + _TICK)
        fresh, self._fresh = self._fresh, {}
        rows: list[PieceRow] = []
        cuts: list[PieceCut] = []
        for key in fresh:
            text = self.texts.get(key)
            new = [] if text is None else text.written(key, at)
            cut = None if text is None or not new else text.cut()
            rows += new
            cuts += [] if cut is None else [cut]
        if rows:
            self._is_writing = True
            self._write(rows, cuts, self._written)

    def _written(self) -> None:
        self._is_writing = False
        if self._fresh and self._timer is None:
            self._timer = self._loop.call_later(WRITE_EVERY, self._hand_over)


def _pieces_in(progress: object) -> Sequence[Piece]:
    """The text of what was published: a line, or what it says itself; () if it has none."""
    if isinstance(progress, str):
        return (Piece(PieceKind.TEXT, progress if progress.endswith("\n") else f"{progress}\n"),)
    return progress.streamed_pieces() if isinstance(progress, Streamable) else ()


def _units(piece: Piece) -> int:
    """By how much positions grow: what has no text must be told from what follows all the same."""
    return len(piece.text) or 1


def _size(piece: Piece) -> int:
    text = piece.text
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _json(about: Mapping[str, object]) -> str:
    """JSON that every database can hold as it is."""
    text = json.dumps(about, ensure_ascii=False)
    return text if _UNUSUAL.search(text) is None else json.dumps(about)


def watched_in(text: str) -> dict[bytes, float]:
    """Which calls are looked at, and until when, of a JSON text of pairs."""
    return {bytes.fromhex(key): until for key, until in json.loads(text)}


# -- reading ----------------------------------------------------------------------------------------------------------


def cursor_after(fence: int, at: float) -> str:
    """What stands for all rows of one owner of a run up to a time."""
    return f"{fence}:{at!r}"


def time_in(cursor: str, fence: int) -> float:
    """The time in a cursor; 0.0 if it is of another owner, whose rows are gone, or if there is none.

    Raises:
        UsageError: it is no cursor.
    """
    if not cursor:
        return 0.0
    try:
        its, _, at = cursor.partition(":")
        return float(at) if int(its) == fence else 0.0
    except ValueError as error:
        raise UsageError(
            f"after={cursor!r} is no place in streamed text: give what an earlier look returned"
        ) from error


def text_of_rows(rows: Sequence[PieceRow], fence: int, after: float) -> StreamedText:
    """What rows say that were written after a time, in the order of their times."""
    pieces = tuple(_pieces_of(rows, after))
    return StreamedText(pieces, cursor_after(fence, rows[-1].at if rows else after))


def _pieces_of(rows: Iterable[PieceRow], after: float) -> Iterator[StreamedPiece]:
    last: dict[tuple[bytes, int], float] = {}
    for key, attempt, position, text, at in rows:
        about = json.loads(text)
        before = about["before"]
        has_before = before is None or before <= after or last.get((key, attempt)) == before
        is_gap = about["is_gap"] or not has_before
        last[key, attempt] = at
        for kind, its, index, name in about["pieces"]:
            piece = Piece(PieceKind(kind), its, index, name)
            yield StreamedPiece(key.hex(), about["address"], attempt, position, *piece, is_gap)
            position += _units(piece)
            is_gap = False


def key_of(key: str | None) -> bytes:
    """The key that is looked at; that of every call for None.

    Raises:
        UsageError: it is no key.
    """
    if key is None:
        return EVERY_CALL
    try:
        found = bytes.fromhex(key)
    except ValueError:
        found = b""
    if len(found) != len(EVERY_CALL):
        raise UsageError(f"{key!r} is not the key of a call: it has 64 hexadecimal digits, as events show them")
    return found
