"""Summaries of what was said, written by a model: in one go, or piece by piece if it is too long for that."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from rh_agents.core.chat._compaction.lengths import Size
from rh_agents.core.chat._compaction.turns import Piece
from rh_agents.core.chat.messages import Message, TextPart
from rh_agents.core.chat.model import ChatModel
from rh_agents.core.errors import AnswerTruncated, InvalidAnswer, RequestTooLarge
from rh_agents.core.policies.compaction import Summarize

_LEAST_PIECE = 500
"""Tokens. If a model cannot summarize that much at a time, it cannot summarize."""
_SO_FAR = "The summary of what was said before:\n\n"
_NEXT = "\n\nWhat was said after that, for a new summary of all of it:\n\n"


async def summary_of(model: ChatModel, step: Summarize, pieces: Sequence[Piece], room: int, size: Size) -> str:
    """What a model says in short about all that, in pieces of at most `room` tokens.

    Raises:
        RequestTooLarge: even a small piece is too long for it.
        AnswerTruncated: the summary is.
        InvalidAnswer: there is nothing in it. Then what it stands for would be lost without a word.
        ModelError: by kind.
    """
    left, summary = deque(pieces), ""
    while left:
        taken = _take(left, room, size)
        said = [f"{_SO_FAR}{summary}{_NEXT}", *taken] if summary else taken
        try:
            summary = await _asked(model, step, said)
        except RequestTooLarge:
            if room <= _LEAST_PIECE:
                raise
            room = max(_LEAST_PIECE, min(room, sum(map(size.share, taken))) // 2)
            left.extendleft(reversed(taken))
    return summary


async def _asked(model: ChatModel, step: Summarize, said: Sequence[Piece]) -> str:
    settings: dict[str, Any] = {} if step.max_tokens is None else {"max_tokens": step.max_tokens}
    try:
        summary: Any = await model.ask(_as_message(said), system=step.instructions, **settings)
    except AnswerTruncated as error:
        raise AnswerTruncated(
            f"{model.name}: the summary ended at the greatest number of tokens before it was whole; give it more by "
            "Summarize(max_tokens=...), or let instructions= ask for less"
        ) from error
    if not isinstance(summary, str) or not summary.strip():
        raise InvalidAnswer(f"{model.name}: {summary!r:.100} is no summary; a text is needed")
    return summary


def _take(left: deque[Piece], room: int, size: Size) -> list[Piece]:
    """As much as there is room for, from the left; a text may be cut, and something is always taken."""
    taken: list[Piece] = []
    while left and room > 0:
        piece = left.popleft()
        tokens = size.share(piece)
        if tokens > room and isinstance(piece, str):
            place = max(1, len(piece) * room // tokens)
            left.appendleft(piece[place:])
            piece = piece[:place]
        elif tokens > room and taken:
            left.appendleft(piece)
            break
        taken.append(piece)
        room -= tokens
    return taken


def _as_message(pieces: Sequence[Piece]) -> Message:
    if all(isinstance(piece, str) for piece in pieces):
        return Message.user("".join(map(str, pieces)))
    return Message.user(*(TextPart(text=piece) if isinstance(piece, str) else piece for piece in pieces))
