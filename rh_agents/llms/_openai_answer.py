"""Answers of the chat protocol of OpenAI, whole and bit by bit, and what is wrong with them.

The order matters. What an answer used is looked at first, whatever else is wrong with it, since it is paid by then;
then an error inside of it, then why it ended, then what it says. What it says counts only if it ended as an answer
ends: each reason is in a table, and one that is not there is an error that quotes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rh_agents.core.chat.messages import ChatDelta, ChatResponse, FinishReason
from rh_agents.core.errors import IncompleteAnswer, ModelError
from rh_agents.core.usage import Usage
from rh_agents.llms._client_errors import error_of_body
from rh_agents.llms._finish_reasons import reason_of
from rh_agents.llms._openai_calls import CallsInPieces, tool_calls_in
from rh_agents.llms._openai_usage import larger, usage_in
from rh_agents.llms._providers import UNKNOWN, Provider
from rh_agents.llms._server_json import kind_of, listed, object_at, text_at, unreadable

_TEXTS = ("text", "output_text")
_THOUGHTS = ("thinking", "reasoning", "reasoning_text")
"""The types of the parts of a content that is a list."""
_JOINED = ("text", "summary", "thinking", "content")
"""The fields of a block of thoughts that come bit by bit."""


def read_answer(
    data: Mapping[str, Any], name: str, provider: Provider = UNKNOWN, reasons: Mapping[str, str] | None = None
) -> ChatResponse:
    """A whole answer.

    Args:
        data: the JSON object.
        name: the model, for errors.
        provider: who answered.
        reasons: further finish reasons, and what they mean.

    Raises:
        ModelError: it is an error, has not the form that the protocol asks for, or did not end as an answer ends. Its
            `usage` is what the answer says it used.
    """
    usage = usage_in(data)
    try:
        _check_errors(data, name)
        choice = _choice(data.get("choices"))
        if choice is None:
            raise unreadable("the answer has no choices")
        if choice.get("error"):
            raise error_of_body(choice["error"], name)
        said = _Said(provider)
        reason = reason_of(choice.get("finish_reason"), name, {**provider.finish_reasons, **(reasons or {})})
        message = object_at(choice.get("message"), "message")
        said.add_verdict(choice)
        said.add_text(message)
        said.keep(message)
        return said.response(
            reason,
            tool_calls_in(message, provider.gives_back_in_calls),
            model=text_at(data.get("model"), "model"),
            response_id=text_at(data.get("id"), "id") or None,
            usage=usage,
        )
    except ModelError as error:
        error.usage = error.usage or usage
        raise


class AnswerInPieces:
    """An answer that comes bit by bit.

    Args:
        name: the model, for errors.
        provider: who answers.
        reasons: further finish reasons, and what they mean.
    """

    def __init__(self, name: str, provider: Provider = UNKNOWN, reasons: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._provider = provider
        self._reasons = reasons
        self._said = _Said(provider)
        self._calls = CallsInPieces(provider.gives_back_in_calls)
        self._ended: Any = None
        self._model = ""
        self._id = ""
        self._choice: Any = None
        self.usage: Usage | None = None
        """What it has used, as far as it has said so."""

    def add(self, data: Mapping[str, Any]) -> list[ChatDelta]:
        """Take in the next piece; what is new in it.

        Raises:
            ModelError: it is an error, or has not the form that the protocol asks for.
        """
        self.add_usage(data)
        _check_errors(data, self._name)
        self._model = text_at(data.get("model"), "model") or self._model
        self._id = text_at(data.get("id"), "id") or self._id
        choice = self._choice_in(data.get("choices"))
        if choice is None:
            return []  # the piece that tells the usage, or one of another answer
        if choice.get("error"):
            raise error_of_body(choice["error"], self._name)
        self._ended = choice.get("finish_reason") or self._ended
        self._said.add_verdict(choice)
        return self._add_delta(object_at(choice.get("delta") or {}, "delta"))

    def _choice_in(self, choices: Any) -> Mapping[str, Any] | None:
        """Of several answers to one question, which come in turns, the piece of the first: texts are not mixed."""
        for each in listed(choices, "choices"):
            choice = object_at(each, "choices[0]")
            if self._choice is None:
                self._choice = choice.get("index")
            if choice.get("index") in (None, self._choice):
                return choice
        return None

    @property
    def has_begun(self) -> bool:
        """Whether anything has come of it, so that somebody has worked on it."""
        return self._ended is not None or self._said.anything or bool(self._calls)

    def add_usage(self, data: Mapping[str, Any]) -> None:
        """Look at nothing but what a piece says about usage."""
        self.usage = larger(self.usage, usage_in(data))

    def _add_delta(self, delta: Mapping[str, Any]) -> list[ChatDelta]:
        found = self._said.add_text(delta)
        self._said.keep(delta)
        calls = list(listed(delta.get("tool_calls"), "tool_calls"))
        if delta.get("function_call"):
            calls.append({"index": 0, "function": delta["function_call"]})
        return found + [self._calls.add(object_at(call, "tool_calls")) for call in calls]

    def broke_off(self) -> ModelError:
        """Why a stream that ended without its end event is no answer.

        If the answer itself had ended, the server does not keep to the protocol, and will hardly do so the next time.
        """
        if self._ended is None:
            return IncompleteAnswer(f"{self._name}: the stream broke off before its end")
        return unreadable(f"{self._name}: the stream ended without its end event, [DONE]")

    def whole(self) -> ChatResponse:
        """The answer, when the stream has come to its end.

        Raises:
            ModelError: it did not end as an answer ends.
        """
        return self._said.response(
            reason_of(self._ended, self._name, {**self._provider.finish_reasons, **(self._reasons or {})}),
            self._calls.whole(),
            model=self._model,
            response_id=self._id or None,
            usage=self.usage,
        )


class _Said:
    """What an answer says: its text, its refusal, its thoughts, and what the provider wants to get back of it."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._thoughts: list[str] = []
        self._filtered: set[str] = set()
        self._kept: dict[str, Any] = {}

    @property
    def anything(self) -> bool:
        """Whether it says anything so far."""
        return any(self._texts) or any(self._refusals) or bool(self._thoughts)

    def add_text(self, message: Mapping[str, Any]) -> list[ChatDelta]:
        """Take in a message, or a piece of one; what is new in it."""
        text, thoughts = _content(message.get("content"))
        refusal = text_at(message.get("refusal"), "refusal")
        thoughts = thoughts or self._thoughts_in(message)
        found = []
        if thoughts:
            self._thoughts.append(thoughts)
            found.append(ChatDelta(reasoning=thoughts))
        if text or refusal:
            self._texts.append(text)
            self._refusals.append(refusal)
            found.append(ChatDelta(text=text, refusal=refusal))
        return found

    def add_verdict(self, choice: Mapping[str, Any]) -> None:
        """Take in what Azure's content filter found. A verdict may come after the end: it takes the answer back."""
        results = choice.get("content_filter_results")
        if isinstance(results, dict):
            self._filtered |= {
                kind for kind, each in results.items() if isinstance(each, dict) and each.get("filtered")
            }

    def _thoughts_in(self, message: Mapping[str, Any]) -> str:
        """The thoughts as text: some servers have them under two names."""
        for field in self._provider.thoughts:
            if isinstance(message.get(field), str) and message[field]:
                return str(message[field])
        return ""

    def keep(self, message: Mapping[str, Any]) -> None:
        """Keep the fields that the provider wants to get back."""
        for field in self._provider.gives_back:
            value = message.get(field)
            if not value:
                continue
            kept = self._kept.get(field, value)
            if type(value) is not type(kept):
                raise unreadable(f"{field} is {kind_of(kept)} first, and then {kind_of(value)}")
            if isinstance(value, str):
                self._kept[field] = self._kept.get(field, "") + value
            elif isinstance(value, list):
                _join(self._kept.setdefault(field, []), value)
            elif isinstance(value, dict):
                self._kept[field] = {**self._kept.get(field, {}), **value}

    def response(self, reason: FinishReason, calls: Sequence[Any], **facts: Any) -> ChatResponse:
        """The answer.

        Raises:
            UnreadableAnswer: nothing is said in it, though it ended as an answer ends.
        """
        text, refusal, thoughts = "".join(self._texts), "".join(self._refusals), "".join(self._thoughts)
        if self._filtered:
            reason = FinishReason.CONTENT_FILTER
            refusal = refusal or f"the content filter found {', '.join(sorted(self._filtered))}"
        if reason is FinishReason.TOOL_CALLS and not calls:
            raise unreadable("the answer ended with tool_calls, and has none")
        if reason is FinishReason.STOP and not (text or refusal or calls):
            raise unreadable("the answer is empty" + (": the model thought, and said nothing" if thoughts else ""))
        if facts["usage"] is None:
            del facts["usage"]
        if thoughts:
            facts["reasoning"] = thoughts
        if any(self._kept.values()):
            facts["provider"] = {name: value for name, value in self._kept.items() if value}
        return ChatResponse(text=text, tool_calls=tuple(calls), finish_reason=reason, refusal=refusal or None, **facts)


def _join(kept: list[Any], blocks: Sequence[Any]) -> None:
    """Add blocks of thoughts to those before. A piece of the last block is joined to it."""
    for block in blocks:
        last = kept[-1] if kept else None
        if not (isinstance(block, dict) and isinstance(last, dict) and _continues(last, block)):
            kept.append(dict(block) if isinstance(block, dict) else block)
            continue
        for field, value in block.items():
            if field in _JOINED and isinstance(value, str) and isinstance(last.get(field), str):
                last[field] += value
            elif value not in (None, "") or field not in last:
                last[field] = value


def _continues(last: Mapping[str, Any], block: Mapping[str, Any]) -> bool:
    """Whether a block is a piece of the last one: of its type, at its index, before that one was signed."""
    if last.get("type") != block.get("type") or last.get("index") != block.get("index"):
        return False
    return not last.get("signature") or not any(block.get(field) for field in _JOINED)


def _check_errors(data: Mapping[str, Any], name: str) -> None:
    """Raise what an answer, or a piece of one, says about an error, wherever it says so.

    Raises:
        ModelError: by kind.
    """
    beside = data.get("x_groq")
    error = data.get("error") or (beside.get("error") if isinstance(beside, dict) else None)
    if error:
        raise error_of_body(error, name)


def _choice(choices: Any) -> Mapping[str, Any] | None:
    found = listed(choices, "choices")
    return object_at(found[0], "choices[0]") if found else None


def _content(content: Any) -> tuple[str, str]:
    """The text and the thoughts of a content. Some servers write it as a list of parts, as requests do."""
    if not isinstance(content, list):
        return text_at(content, "content"), ""
    texts, thoughts = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = object_at(part, "a part of the content").get("type")
        if kind in _TEXTS:
            texts.append(text_at(part.get("text"), "text"))
        elif kind in _THOUGHTS:
            inner = part.get(kind, part.get("text"))
            thoughts.append("".join(_content(inner)) if isinstance(inner, list) else text_at(inner, str(kind)))
    return "".join(texts), "".join(thoughts)
