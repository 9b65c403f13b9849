"""Text of calls as it streams, as lines of a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rh_agents.core.ports.streaming import PieceKind, StreamedPiece
from rh_agents.display.text import harmless

__all__ = ["StreamedLines"]

_WIDTH = 100
"""Characters after which a line is shown at the next space, though it goes on."""


class StreamedLines:
    """Shows text of several calls side by side: each line says whose it is, and comes when it is whole.

    Args:
        write: takes a line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._waiting: dict[str, tuple[StreamedPiece, str]] = {}

    def add(self, piece: StreamedPiece) -> None:
        """Show a piece, or keep it until its line is whole."""
        before = self._waiting.get(piece.key)
        if before is not None and _begins_anew(before[0], piece):
            self.end(piece.key)
            before = None
        if piece.is_gap:
            self._show(piece, "… text is missing here …")
        if piece.kind is PieceKind.VOID:
            self._show(piece, "… it begins anew …")
            return
        if piece.tool_name:
            self._show(piece, f"calls {piece.tool_name}")
        *lines, rest = (("" if before is None else before[1]) + piece.text).split("\n")
        for line in lines:
            self._show(piece, line)
        while len(rest) > _WIDTH and (space := rest.rfind(" ", 0, _WIDTH)) > 0:
            self._show(piece, rest[:space])
            rest = rest[space + 1 :]
        self._waiting[piece.key] = (piece, rest)

    def end(self, key: str | None) -> None:
        """The call has ended, or what it wrote: show what is left."""
        if key in self._waiting:
            piece, rest = self._waiting.pop(key)
            if rest.strip():
                self._show(piece, rest)

    def _show(self, piece: StreamedPiece, line: str) -> None:
        self._write(f"{harmless(piece.address)} │ {harmless(line)}")


def _begins_anew(before: StreamedPiece, piece: StreamedPiece) -> bool:
    """Whether a piece belongs to another text than the one before."""
    its = (piece.attempt, piece.kind, piece.tool_index)
    return piece.is_gap or (before.attempt, before.kind, before.tool_index) != its
