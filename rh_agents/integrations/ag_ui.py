"""A run as the events of AG-UI, the protocol by which user interfaces follow agents.

    translator = AgUi("monday")
    async for each in follow(store, "monday"):
        for event in translator.text(each.pieces) if each.event is None else translator.event(each.event):
            send(event)
    for event in translator.end(await store.find_run("monday"), await store.questions("monday")):
        send(event)

Events are plain data with the field names of the protocol, version 1.0; no package is needed for that.

- Calls of agents, tools and functions, and groups, are *steps*, named by their address.
- Answers of models are *messages* of the assistant, what they think is *reasoning*, and what they want to be called are
  *tool calls*, with their results. Text comes as it streams if the model streams; the rest comes with the outcome. So a
  message is whole when it ends.
- An answer that came to nothing (its attempt failed, or it is asked for once more) ends, and `CUSTOM` with the name
  `rh_agents.void` names its message. Missing text is `rh_agents.gap`: then the whole answer follows as another message.
- A run that waits for people ends with an interrupt for each question; started again, it is another stream.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rh_agents.core.chat.messages import ChatResponse, ToolCall, pieces_of
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports import Question, RecordedEvent, RunInfo, RunStatus, status_of
from rh_agents.core.ports.streaming import Piece, PieceKind, StreamedPiece
from rh_agents.core.redaction import redact
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.values import encode_any, shown_value

__all__ = ["PROTOCOL", "AgUi", "Event"]

PROTOCOL = "1.0"
"""The version of the protocol."""

Event = dict[str, Any]
"""An event of the protocol, which can be written as JSON."""

_GROUPS = (EventType.GROUP_STARTED, EventType.GROUP_ENDING, EventType.GROUP_COMPLETED)


class AgUi:
    """Translates what happens in one run, from its beginning.

    Args:
        run_id: the run; it is the thread of the protocol as well.
    """

    def __init__(self, run_id: str) -> None:
        self._ids = {"threadId": run_id, "runId": run_id}
        self._has_begun = False
        self._steps: dict[str, str] = {}
        self._answers: dict[str, _Answer] = {}
        self._tools = _ToolResults()

    def event(self, recorded: RecordedEvent) -> Iterator[Event]:
        """What an event of the journal is."""
        event = recorded.event
        yield from self._begin(event.timestamp)
        for each in self._of(event, has_outcome=recorded.has_outcome):
            yield {**each, "timestamp": int(event.timestamp * 1000)}

    def text(self, pieces: Iterable[StreamedPiece]) -> Iterator[Event]:
        """What text of calls under way is."""
        yield from self._begin(None)
        for piece in pieces:
            answer = self._answers.get(piece.key)
            if answer is None:
                answer = self._answers[piece.key] = _Answer(piece.key)
            yield from answer.add(piece)

    def end(self, run: RunInfo | None, questions: Sequence[Question]) -> Iterator[Event]:
        """What there is to say when no process executes the run any more.

        Args:
            run: the run as it is now; None if it was deleted.
            questions: its open questions.
        """
        yield from self._close()
        status = None if run is None else status_of(run)
        if run is not None and status is RunStatus.COMPLETED:
            yield {"type": "RUN_FINISHED", **self._ids}
        elif run is not None and status is RunStatus.CANCELLED:
            yield {"type": "RUN_FINISHED", **self._ids, "outcome": {"type": "cancelled"}}
        elif questions:
            interrupts = [_interrupt(question) for question in questions]
            yield {"type": "RUN_FINISHED", **self._ids, "outcome": {"type": "interrupt", "interrupts": interrupts}}
        else:
            reason = None if run is None else run.reason
            message = redact(reason or f"the run is {'gone' if status is None else status.value}")
            yield {"type": "RUN_ERROR", "message": message, "code": "gone" if status is None else status.value}

    def break_off(self, why: str) -> Iterator[Event]:
        """What there is to say when the run cannot be followed any more."""
        yield from self._close()
        yield {"type": "RUN_ERROR", "message": redact(why), "code": "unreadable"}

    def _close(self) -> Iterator[Event]:
        yield from self._begin(None)
        for answer in self._answers.values():
            yield from answer.close()
        for name in reversed(self._steps.values()):
            yield {"type": "STEP_FINISHED", "stepName": name}
        self._answers, self._steps = {}, {}

    def _begin(self, at: float | None) -> Iterator[Event]:
        if not self._has_begun:
            self._has_begun = True
            begun: Event = {"type": "RUN_STARTED", **self._ids, "protocolVersion": PROTOCOL}
            yield begun if at is None else {**begun, "timestamp": int(at * 1000)}

    def _of(self, event: ExecutionEvent[Any], *, has_outcome: bool) -> Iterator[Event]:
        kind, status = event.event_type, event.execution_status
        if kind is EventType.CONTROL:
            yield _custom("control", {"message": redact(event.message or "")})
        elif kind is EventType.LLM_CALL and event.key is not None:
            yield from self._of_model(event, event.key, has_outcome=has_outcome)
        elif kind in _GROUPS:
            group = event.group_id or event.address
            if kind is EventType.GROUP_STARTED:
                self._tools.begin(event)
                yield from self._start(group, event.address)
            elif kind is EventType.GROUP_COMPLETED:
                yield from self._tools.results(event)
                yield from self._finish(group, event.address)
        elif event.key is not None and kind is not EventType.QUESTION:
            if status is ExecutionStatus.STARTED:
                yield from self._start(event.key, event.address or event.name)
            elif status.is_final:
                self._tools.ended(event)
                yield from self._finish(event.key, event.address or event.name)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _start(self, key: str, address: str) -> Iterator[Event]:
        if key in self._steps:
            return
        name, number, active = redact(address), 1, set(self._steps.values())
        while name in active:
            number += 1
            name = f"{redact(address)} ({number})"
        self._steps[key] = name
        yield {"type": "STEP_STARTED", "stepName": name}

    def _finish(self, key: str, address: str) -> Iterator[Event]:
        """What has ended is a step also if nothing says when it began."""
        yield from self._start(key, address)
        yield {"type": "STEP_FINISHED", "stepName": self._steps.pop(key)}

    # -- answers of models --------------------------------------------------------------------------------------------

    def _of_model(self, event: ExecutionEvent[Any], key: str, *, has_outcome: bool) -> Iterator[Event]:
        answer, status = self._answers.get(key), event.execution_status
        if status in (ExecutionStatus.COMPLETED, ExecutionStatus.RECOVERED):
            answer = self._answers.pop(key, None) or _Answer(key)
            yield from answer.whole(event.result)
            if isinstance(event.result, ChatResponse) and event.result.tool_calls:
                calls = [(answer.tool_id(index), call) for index, call in enumerate(event.result.tool_calls)]
                self._tools.wanted(event.address, calls)
        elif status is ExecutionStatus.RETRYING and answer is not None:
            yield from answer.void()
        elif status.is_final or has_outcome:
            if answer is not None:
                del self._answers[key]
                yield from answer.void()
            if event.message:
                yield _custom("failed", {"address": redact(event.address), "message": redact(event.message)})


class _Answer:
    """The answer of a model, as far as it has been sent."""

    def __init__(self, key: str) -> None:
        self._name = key[:16]
        self._number = 1
        self._attempt = 0
        self._open: list[str] = []
        """What of it is open: "text", "reasoning", or the ids of tool calls, which may be written in turn."""
        self._sent: dict[str, str] = {}
        self._is_spoilt = False
        """Whether what is sent will not be the answer: something is missing, or belongs to what has been closed."""

    @property
    def _message(self) -> str:
        return f"{self._name}-{self._number}"

    def tool_id(self, index: int) -> str:
        """The id of one of its tool calls: the answer's own ones may be repeated in a conversation."""
        return f"{self._message}-tool-{index}"

    def add(self, piece: StreamedPiece) -> Iterator[Event]:
        """Send a piece of it."""
        if self._attempt not in (0, piece.attempt):
            yield from self.void()
        self._attempt = piece.attempt
        if piece.is_gap:
            self._is_spoilt = True
            yield _custom("gap", {"messageId": self._message})
        if piece.kind is PieceKind.VOID:
            yield from self.void()
        else:
            yield from self._send(Piece(piece.kind, piece.text, piece.tool_index, piece.tool_name))

    def whole(self, value: Any) -> Iterator[Event]:
        """Send what is missing of it, or, if something else was sent, all of it as another message."""
        pieces = [piece for delta in pieces_of(value) for piece in delta.streamed_pieces()]
        wanted = [piece._replace(text=redact(piece.text), tool_name=redact(piece.tool_name)) for piece in pieces]
        if self._is_spoilt or not self._can_become(wanted):
            yield from self.void()
        for piece in sorted(wanted, key=lambda piece: self._place(piece) not in self._open):
            place = self._place(piece)
            rest = piece.text[len(self._sent.get(place, "")) :]
            if rest or (place not in self._sent and piece.tool_name):
                yield from self._send(piece._replace(text=rest))
        yield from self.close()

    def _can_become(self, wanted: Sequence[Piece]) -> bool:
        """Whether what was sent is the beginning of an answer, and what is closed of it is whole."""
        texts = {self._place(piece): piece.text for piece in wanted}
        return all(
            texts.get(place, "").startswith(sent) and (place in self._open or texts[place] == sent)
            for place, sent in self._sent.items()
        )

    def void(self) -> Iterator[Event]:
        """What was sent has come to nothing; what comes is another message."""
        yield from self.close()
        if self._sent:
            yield _custom("void", {"messageId": self._message})
            self._number += 1
        self._sent, self._is_spoilt, self._attempt = {}, False, 0

    def close(self) -> Iterator[Event]:
        """Nothing more comes of what is open."""
        closed, self._open = self._open, []
        for place in closed:
            if place == "text":
                yield {"type": "TEXT_MESSAGE_END", "messageId": self._message}
            elif place == "reasoning":
                yield {"type": "REASONING_MESSAGE_END", "messageId": f"{self._message}-reasoning"}
                yield {"type": "REASONING_END", "messageId": f"{self._message}-reasoning"}
            else:
                yield {"type": "TOOL_CALL_END", "toolCallId": place}

    def _place(self, piece: Piece) -> str:
        if piece.kind is PieceKind.TOOL_CALL:
            return self.tool_id(piece.tool_index or 0)
        return "reasoning" if piece.kind is PieceKind.REASONING else "text"

    def _send(self, piece: Piece) -> Iterator[Event]:
        place = self._place(piece)
        if place not in self._open:
            if place in self._sent:  # it has ended: the whole answer comes with the outcome
                self._is_spoilt = True
                return
            if piece.kind is not PieceKind.TOOL_CALL or not all(map(_is_tool, self._open)):
                yield from self.close()
            yield from self._begin(place, piece)
        self._sent[place] = self._sent.get(place, "") + piece.text
        if piece.text:
            yield self._content(place, piece.text)

    def _begin(self, place: str, piece: Piece) -> Iterator[Event]:
        self._open.append(place)
        if place == "text":
            yield {"type": "TEXT_MESSAGE_START", "messageId": self._message, "role": "assistant"}
        elif place == "reasoning":
            message = f"{self._message}-reasoning"
            yield {"type": "REASONING_START", "messageId": message}
            yield {"type": "REASONING_MESSAGE_START", "messageId": message, "role": "reasoning"}
        else:
            name = piece.tool_name or "tool"
            parent = {"parentMessageId": self._message} if "text" in self._sent else {}
            yield {"type": "TOOL_CALL_START", "toolCallId": place, "toolCallName": name, **parent}

    def _content(self, place: str, text: str) -> Event:
        if place == "text":
            return {"type": "TEXT_MESSAGE_CONTENT", "messageId": self._message, "delta": text}
        if place == "reasoning":
            message = f"{self._message}-reasoning"
            return {"type": "REASONING_MESSAGE_CONTENT", "messageId": message, "delta": text}
        return {"type": "TOOL_CALL_ARGS", "toolCallId": place, "delta": text}


def _is_tool(place: str) -> bool:
    return place not in ("text", "reasoning")


class _ToolResults:
    """Finds the results of tool calls: an agent makes those of one answer in the next group.

    What a model wants and an agent does not make (there is no such tool, or its arguments do not fit) is no member. So
    results are told only of tools of whose calls as many were made as were wanted.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, list[tuple[str, ToolCall]]] = {}
        self._groups: dict[str, list[tuple[str, ToolCall]]] = {}
        self._made: dict[str, dict[int, tuple[str, str]]] = {}

    def wanted(self, address: str, calls: list[tuple[str, ToolCall]]) -> None:
        """A model wants these."""
        self._wanted[address.rpartition("::")[0]] = calls

    def begin(self, event: ExecutionEvent[Any]) -> None:
        """A group begins."""
        calls = self._wanted.pop(event.address.rpartition("::")[0], None)
        if calls is not None and event.group_id is not None:
            self._groups[event.group_id] = calls
            self._made[event.group_id] = {}

    def ended(self, event: ExecutionEvent[Any]) -> None:
        """A call has come to its end, perhaps a member of such a group."""
        made = self._made.get(event.group_id or "")
        if made is not None and event.parallel_index is not None:
            content = _content_of(event.result) if event.message is None else f"Error: {redact(event.message)}"
            made[event.parallel_index] = (event.name, content)

    def results(self, event: ExecutionEvent[Any]) -> Iterator[Event]:
        """A group has ended: the results of its calls."""
        calls = self._groups.pop(event.group_id or "", [])
        made = [each for _, each in sorted(self._made.pop(event.group_id or "", {}).items())]
        counts = Counter(name for name, _ in made)
        for name in counts:
            ids = [tool_id for tool_id, call in calls if call.name == name]
            if len(ids) != counts[name]:
                continue
            for tool_id, content in zip(ids, (text for its, text in made if its == name), strict=True):
                yield {
                    "type": "TOOL_CALL_RESULT",
                    "messageId": f"{tool_id}-result",
                    "toolCallId": tool_id,
                    "content": content,
                    "role": "tool",
                }


def _content_of(value: Any) -> str:
    return redact(value) if isinstance(value, str) else shown_value(encode_any(value))


def _custom(name: str, value: Any) -> Event:
    return {"type": "CUSTOM", "name": f"rh_agents.{name}", "value": value}


def _interrupt(question: Question) -> Event:
    found: Event = {"id": question.id, "reason": "question", "message": redact(question.text)}
    schema = None if question.schema is None else json.loads(question.schema)
    return {**found, "responseSchema": schema} if isinstance(schema, dict) else found
