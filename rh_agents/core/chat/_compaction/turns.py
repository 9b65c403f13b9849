"""Conversations as turns: where they can be cut, what of them stays when they are made shorter, and in what form.

A turn is an answer of the model with the results of the tools that it called, or a message of the user. It is the
smallest piece that can go: a result without its call is refused by every provider, and so is a call without its result.
Where a conversation has something else between a call and its result, all of that is one turn.

Whole messages stay or go, and a message of the model is never changed. So what providers want back with it, such as
signed thoughts, stays valid: they are signed for themselves, and wanted back only with the tool calls that are still
there.

A summary stands in a message of the user: behind what the user said last, where that is older than the turns that stay
(so roles go on alternating, as the templates of some models require), or in one of its own. Where the turns that stay
begin with a message of the user, it is an answer of the model to the question for it, for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile

from rh_agents.core.chat.messages import Content, DocumentPart, ImagePart, Message, TextPart, text_of

Turn = tuple[Message, ...]
Piece = str | ImagePart | DocumentPart
"""A part of what a model is to summarize."""

_MARK = "[Summary of the conversation up to here]\n"
"""Begins a summary, so that the next one takes its place."""
_SHOWN = 4_000
"""Characters of the question that a model is shown who summarizes what came of it."""
_ASKED = "What has been said and done so far?"
_LEFT_OUT = "[The messages before this one were left out to save room.]"


@dataclass(frozen=True, slots=True)
class Split:
    """A conversation, and where it is cut.

    Attributes:
        first: the system messages with which it begins.
        older: the turns that may go.
        question: the last message of the user, without a summary, if it is one of the older turns: it stays.
        kept: the turns that stay.
    """

    first: Turn
    older: tuple[Turn, ...]
    question: Message | None
    kept: tuple[Turn, ...]

    @property
    def rules(self) -> Turn:
        """Its system messages, also those of the older turns: they always stay."""
        return (*self.first, *(message for turn in self.older for message in turn if message.role == "system"))

    @property
    def staying(self) -> Turn:
        """What is left if all that may go is gone."""
        return (*self.rules, *(() if self.question is None else (self.question,)), *chain.from_iterable(self.kept))


def turns_of(messages: Sequence[Message]) -> tuple[Turn, list[Turn]]:
    """The system messages with which a conversation begins, and its turns."""
    first = tuple(takewhile(lambda message: message.role == "system", messages))
    turns: list[list[Message]] = []
    for message in messages[len(first) :]:
        if message.role == "tool" and turns:
            start = _turn_of_call(turns, message.tool_call_id)
            turns[start:] = [[*chain.from_iterable(turns[start:]), message]]
        else:
            turns.append([message])
    return first, [tuple(turn) for turn in turns]


def _turn_of_call(turns: Sequence[Iterable[Message]], call_id: str | None) -> int:
    """The last turn with a call of this id; the last turn of all if there is none."""
    for index in range(len(turns) - 1, -1, -1):
        if any(call.id == call_id for message in turns[index] for call in message.tool_calls):
            return index
    return len(turns) - 1


def split(messages: Sequence[Message], keep: int, fits: Callable[[Turn], bool]) -> Split:
    """Cut a conversation so that its last `keep` turns stay; fewer if what stays would not fit, but at least one."""
    first, turns = turns_of(messages)
    for kept in range(min(keep, len(turns)), 0, -1):
        found = _cut(first, turns, len(turns) - kept)
        if kept == 1 or fits(found.staying):
            return found
    return Split(first, (), None, ())


def _cut(first: Turn, turns: Sequence[Turn], place: int) -> Split:
    older, kept = tuple(turns[:place]), tuple(turns[place:])
    asks = any(message.role == "user" for turn in kept for message in turn)
    return Split(first, older, None if asks else _question(older), kept)


def _question(turns: Iterable[Turn]) -> Message | None:
    """The last message of the user, without a summary in it."""
    messages = list(chain.from_iterable(turns))
    place = _index_of_question(messages)
    if place is None:
        return None
    return messages[place].model_copy(update={"content": _without_summary(messages[place].content)[0]})


def _index_of_question(messages: Sequence[Message]) -> int | None:
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role == "user" and _without_summary(messages[place].content)[0]:
            return place
    return None


def _without_summary(content: Content) -> tuple[Content, str]:
    """What the user said, and the summary that was written behind it; "" if there is none."""
    if isinstance(content, str):
        said, mark, summary = content.partition(_MARK)
        return said.removesuffix("\n\n"), mark + summary
    is_summary = [isinstance(part, TextPart) and part.text.startswith(_MARK) for part in content]
    said_parts = tuple(part for part, summarizes in zip(content, is_summary, strict=True) if not summarizes)
    summaries = (part for part, summarizes in zip(content, is_summary, strict=True) if summarizes)
    return said_parts, text_of(tuple(summaries))


def joined(parts: Split, summary: str | None) -> Turn:
    """The conversation with a summary, or nothing, in place of its older turns."""
    note = _LEFT_OUT if summary is None else _MARK + summary
    question, kept = parts.question, tuple(chain.from_iterable(parts.kept))
    if question is not None:
        asked = question if summary is None else question.model_copy(update={"content": _and(question.content, note)})
        return (*parts.rules, asked, *kept)
    if kept and kept[0].role == "user":
        about = () if summary is None else (Message.user(_ASKED), Message.assistant(note))
        return (*parts.rules, *about, *kept)
    return (*parts.rules, Message.user(note), *kept)


def _and(content: Content, note: str) -> Content:
    """Plain text stays plain text: some servers take nothing else."""
    return f"{content}\n\n{note}" if isinstance(content, str) else (*content, TextPart(text=note))


def cleared(parts: Split, exclude: Sequence[str], placeholder: str) -> Turn:
    """The conversation with a note in place of the results in its older turns."""
    older = [
        message.model_copy(update={"content": placeholder}) if may_go and _is_longer(message, placeholder) else message
        for turn in parts.older
        for message, may_go in _results_in(turn, exclude)
    ]
    return (*parts.first, *older, *chain.from_iterable(parts.kept))


def _is_longer(message: Message, placeholder: str) -> bool:
    return not isinstance(message.content, str) or len(message.content) > len(placeholder)


def _results_in(turn: Turn, exclude: Sequence[str]) -> Iterator[tuple[Message, bool]]:
    """The messages of a turn, each with whether it is such a result."""
    kept_ids = {call.id for message in turn for call in message.tool_calls if call.name in exclude}
    return ((message, message.role == "tool" and message.tool_call_id not in kept_ids) for message in turn)


def problem_of(messages: Sequence[Message]) -> str | None:
    """Why no model takes a conversation: a result without its call, or a call without its result. None if it does."""
    waiting: dict[str, str] = {}
    for number, message in enumerate(messages, 1):
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                return (
                    f"message {number} is the result of the call {message.tool_call_id!r}, which the message of the "
                    "assistant before it does not have; a call and its result stay or go together"
                )
            del waiting[message.tool_call_id]
        elif waiting:
            break
        else:
            waiting = {call.id: call.name for call in message.tool_calls}
    if not waiting:
        return None
    call_id, name = next(iter(waiting.items()))
    return f"the call {call_id!r} of {name} has no result; a call and its result stay or go together"


def transcript(parts: Split, attachments: bool) -> list[Piece]:
    """What is to be summarized, as text, with the images and documents in it. A long question is cut: it stays."""
    messages = list(chain.from_iterable(parts.older))
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    place = None if parts.question is None else _index_of_question(messages)
    if place is not None:
        messages[place] = Message.user(_question_in_short(messages[place].content))
    found: list[Piece] = []
    for piece in chain.from_iterable(_told(message, names) for message in messages):
        shown = piece if attachments or isinstance(piece, str) else _mention(piece)
        if isinstance(shown, str) and found and isinstance(found[-1], str):
            found[-1] += shown
        else:
            found.append(shown)
    return found


def _told(message: Message, names: dict[str, str]) -> Iterator[Piece]:
    if message.role == "system":
        return
    who = message.role if message.tool_call_id is None else f"result of {names.get(message.tool_call_id, 'a tool')}"
    yield f"<{who}>\n"
    for part in (message.content,) if isinstance(message.content, str) else message.content:
        if isinstance(part, TextPart):
            yield part.text
        else:
            yield part
    for call in message.tool_calls:
        yield f"\ncalls {call.name} with {call.arguments}"
    yield f"\n</{who}>\n"


def _question_in_short(content: Content) -> str:
    said, summary = _without_summary(content)
    parts = (said,) if isinstance(said, str) else (p.text if isinstance(p, TextPart) else _mention(p) for p in said)
    text = "\n".join(parts)
    return (text if len(text) <= _SHOWN else f"{text[:_SHOWN]} [...]") + (f"\n\n{summary}" if summary else "")


def _mention(part: ImagePart | DocumentPart) -> str:
    return "[an image]" if isinstance(part, ImagePart) else f"[the document {part.name!r}]"
