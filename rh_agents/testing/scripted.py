"""A language model that says what its script says: no network, no key, no money, the same answers every time."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, Unpack

from pydantic import BaseModel, PrivateAttr
from pydantic_core import to_json, to_jsonable_python

from rh_agents.core._base.signatures import takes_settings
from rh_agents.core.chat.messages import ChatDelta, ChatRequest, ChatResponse, FinishReason, ToolCall
from rh_agents.core.chat.model import ChatModel, ModelSettings, OnDelta
from rh_agents.core.errors import PermanentModelError
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.usage import Usage
from rh_agents.core.values.inputs import canonical

__all__ = ["ScriptEnded", "ScriptedLLM", "ScriptedSettings", "tool_call"]

_CHARACTERS_PER_TOKEN = 4
_PIECE = 8
"""Characters of a tool call's arguments in one delta."""
_SHOWN_MESSAGES = 6
_SHOWN_CHARACTERS = 200
_WORDS = re.compile(r"\S+\s*|\s+")

Answer: TypeAlias = Any
"""What a script may hold as one answer:

- a `str`: the text of the answer;
- `tool_call(...)`, or a list of them: tools that the model wants to be called, side by side;
- a `ChatResponse`: the answer as it is;
- an exception, or a class of them: it is raised;
- a function of the `ChatRequest`, plain or async: whatever of all this it returns;
- anything else (a Pydantic model, a dataclass, a dict, a number): its JSON, as an answer of that type looks like.
"""
Script: TypeAlias = Sequence[Answer] | Mapping[str, Answer] | Callable[[ChatRequest], Answer]


class ScriptEnded(PermanentModelError, AssertionError):
    """The model was asked for something that its script has no answer to. The message shows what it was asked."""


def tool_call(name: str, /, **arguments: Any) -> ToolCall:
    """The wish of a model that a tool be called: `tool_call("search", query="rivers", limit=3)`.

    It gets its id when the model answers: the same one each time that it comes at the same position of a conversation.
    For arguments that are broken on purpose, write `ToolCall(id="1", name="search", arguments="{broken")`.
    """
    return ToolCall(id="", name=name, arguments=json.dumps(to_jsonable_python(arguments), ensure_ascii=False))


class ScriptedSettings(ModelSettings, total=False):
    """Settings of a `ScriptedLLM`: those of all models, and what it is called."""

    model: str


class ScriptedLLM(ChatModel):
    """A model for tests.

        ScriptedLLM(["Hello.", tool_call("search", query="x"), RateLimited("slowly"), Verdict(ok=True)])
        ScriptedLLM({"capital of France": "Paris", "capital of Peru": "Lima", "": "I do not know."})
        ScriptedLLM(lambda request: request.messages[-1].text.upper())

    A **list** gives its answers one after the other, in the order in which requests arrive. That is for one
    conversation. With calls side by side, or in a process that resumes a run that another one began, the order of
    arrival says nothing: use one of the others there.

    A **mapping** gives the answer whose key is found in the text of the conversation; if there are several, the one
    whose key comes first in the mapping. The key `""` is found in each. A list under a key is a list of turns: its
    first answer is for a conversation in which the model has not spoken since the key was said, the second one for when
    it has spoken once, and so on. An exception in such a list is raised once for each request, before the answer that
    comes after it. So each request has its answer, whatever else is asked, and when.

    A **function** gets the `ChatRequest`. It may be async.

    After the end of the script, or where no key is found, the model raises `ScriptEnded`, which is an `AssertionError`
    and is not retried. Retries of other errors do not wait (`retry=` sets another policy).

    Args:
        script: what it answers; see `Answer` for what that can be.
        latency: seconds that each answer takes, or a function of the request that says so.
        sleep: what waits for that long; in virtual time, `asyncio.sleep` will do.
        usage: what each answer uses. By default that is computed from the sizes of the request and the answer, a token
            for every 4 characters.
        settings: fields of `ChatModel`, such as `price=Price(input=1, output=2)`, `stream=True` or `name="planner"`.
    """

    name: str = "scripted"
    model: str = "scripted"
    retry: RetryPolicy | None = RetryPolicy(max_attempts=4, initial_delay=0.0)

    _script: Script = PrivateAttr(default=())
    _latency: float | Callable[[ChatRequest], float] = PrivateAttr(default=0.0)
    _sleep: Callable[[float], Awaitable[object]] = PrivateAttr(default=asyncio.sleep)
    _usage: Usage | None = PrivateAttr(default=None)
    _requests: list[ChatRequest] = PrivateAttr(default_factory=list)
    _used: int = PrivateAttr(default=0)
    _raised: dict[bytes, int] = PrivateAttr(default_factory=dict)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @takes_settings(ScriptedSettings)
    def __init__(
        self,
        script: Script = (),
        /,
        *,
        latency: float | Callable[[ChatRequest], float] = 0.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        usage: Usage | None = None,
        **settings: Unpack[ScriptedSettings],
    ) -> None:
        if isinstance(script, str):
            raise TypeError(f"ScriptedLLM({script!r}): a script is a list of answers; did you mean [{script!r}]?")
        fields: dict[str, Any] = dict(settings)
        super().__init__(**fields)
        self._script = script if callable(script) or isinstance(script, Mapping) else tuple(script)
        self._latency = latency
        self._sleep = sleep
        self._usage = usage

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self._requests)} requests)"

    @property
    def requests(self) -> tuple[ChatRequest, ...]:
        """What it has been asked, in the order of arrival. What was replayed or cached was not asked."""
        with self._lock:
            return tuple(self._requests)

    @property
    def unused(self) -> tuple[Answer, ...]:
        """The answers of a list that have not been given.

        Raises:
            TypeError: the script is a function, which is never used up.
        """
        if not isinstance(self._script, tuple):
            raise TypeError("only a script that is a list is used up")
        return self._script[self._used :]

    async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
        """The next answer of the script.

        Raises:
            ScriptEnded: there is none.
            Exception: the script says so.
        """
        with self._lock:
            self._requests.append(request)
            answer = self._choose(request)
        latency = self._latency(request) if callable(self._latency) else self._latency
        if latency > 0:
            await self._sleep(latency)
        while callable(answer) and not _is_error(answer):
            answer = answer(request)
            if inspect.isawaitable(answer):
                answer = await answer
        response = self._response(answer, request)
        if on_delta is not None:
            for delta in _deltas(response):
                await on_delta(delta)
        return response

    def _choose(self, request: ChatRequest) -> Answer:
        script = self._script
        if isinstance(script, Mapping):
            return self._find(script, request)
        if callable(script):
            return script
        self._used += 1
        if self._used > len(script):
            raise ScriptEnded(_ended(request, f"the {len(script)} answers of its script have been given"))
        return script[self._used - 1]

    def _find(self, script: Mapping[str, Answer], request: ChatRequest) -> Answer:
        for key, answer in script.items():
            turn = _turns_since(key, request)
            if turn is None:
                continue
            if _is_tool_calls(answer) or not isinstance(answer, list | tuple):
                return answer
            return self._of_turn(key, answer, turn, request)
        keys = ", ".join(repr(key) for key in script) or "none"
        raise ScriptEnded(_ended(request, f"no key of its script is in the conversation (there are: {keys})"))

    def _of_turn(self, key: str, answers: Sequence[Answer], turn: int, request: ChatRequest) -> Answer:
        turns = list(_by_turn(answers))
        if turn < len(turns):
            identity = canonical(request)
            number = self._raised.get(identity, 0)
            self._raised[identity] = number + 1
            if number < len(turns[turn]):
                return turns[turn][number]
            if not _is_error(turns[turn][-1]):
                return turns[turn][-1]
        raise ScriptEnded(_ended(request, f"its script has {len(turns)} turns for {key!r}, and this is one more"))

    def _response(self, answer: Answer, request: ChatRequest) -> ChatResponse:
        if _is_error(answer):
            raise answer
        if isinstance(answer, ToolCall):
            answer = [answer]
        if isinstance(answer, ChatResponse):
            response = answer
        elif _is_tool_calls(answer):
            response = ChatResponse(tool_calls=tuple(answer), finish_reason=FinishReason.TOOL_CALLS)
        else:
            response = ChatResponse(text=answer if isinstance(answer, str) else _json(answer, request))
        changes: dict[str, Any] = {}
        if any(not call.id for call in response.tool_calls):
            changes["tool_calls"] = tuple(_with_ids(response.tool_calls, request))
        if not response.usage:
            changes["usage"] = self._usage or Usage(_tokens(_size_of_request(request)), _tokens(_size(response)))
        if not response.model:
            changes["model"] = self.model
        return response.model_copy(update=changes) if changes else response


def _is_error(answer: Answer) -> bool:
    return isinstance(answer, BaseException) or (isinstance(answer, type) and issubclass(answer, BaseException))


def _is_tool_calls(answer: Answer) -> bool:
    return isinstance(answer, list | tuple) and bool(answer) and all(isinstance(each, ToolCall) for each in answer)


def _by_turn(answers: Sequence[Answer]) -> Iterator[list[Answer]]:
    """For each turn its answer, after the errors that come before it. Tool calls that stand alone are a turn each."""
    turn: list[Answer] = []
    for answer in answers:
        turn.append(answer)
        if not _is_error(answer):
            yield turn
            turn = []
    if turn:
        yield turn


def _turns_since(key: str, request: ChatRequest) -> int | None:
    """How often the model has spoken since the key was said last; None if it was not said."""
    turns = 0
    for message in reversed(request.messages):
        if message.role == "assistant":
            turns += 1
        elif key and key in message.text:
            return turns
    return None if key else turns


def _with_ids(calls: Sequence[ToolCall], request: ChatRequest) -> Iterator[ToolCall]:
    turn = sum(message.role == "assistant" for message in request.messages) + 1
    for number, call in enumerate(calls, 1):
        yield call if call.id else call.model_copy(update={"id": f"call_{turn}_{number}"})


def _json(value: Any, request: ChatRequest) -> str:
    """The text with which a model answers this value; what is no object comes in one, as the request wants it."""
    is_object = isinstance(value, BaseModel | Mapping) or dataclasses.is_dataclass(value)
    wanted = (request.output_schema or {}).get("properties", {})
    return to_json(value if is_object or set(wanted) != {"answer"} else {"answer": value}).decode()


def _deltas(response: ChatResponse) -> Iterator[ChatDelta]:
    for word in _WORDS.findall(response.text):
        yield ChatDelta(text=word)
    if response.refusal:
        yield ChatDelta(refusal=response.refusal)
    for index, call in enumerate(response.tool_calls):
        yield ChatDelta(tool_index=index, tool_name=call.name)
        for start in range(0, len(call.arguments), _PIECE):
            yield ChatDelta(tool_index=index, arguments=call.arguments[start : start + _PIECE])


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_PER_TOKEN)


def _size_of_request(request: ChatRequest) -> int:
    size = sum(len(tool.model_dump_json()) for tool in request.tools)
    for message in request.messages:
        size += len(message.text) + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return size


def _size(response: ChatResponse) -> int:
    text = len(response.text) + len(response.refusal or "")
    return text + sum(len(call.name) + len(call.arguments) for call in response.tool_calls)


def _ended(request: ChatRequest, why: str) -> str:
    """A message that shows the end of the conversation."""
    lines = [f"the scripted model has no answer: {why}. It was asked:"]
    left_out = len(request.messages) - _SHOWN_MESSAGES
    if left_out > 0:
        lines.append(f"  ... {left_out} messages before these ...")
    for message in request.messages[-_SHOWN_MESSAGES:]:
        said = message.text if len(message.text) <= _SHOWN_CHARACTERS else f"{message.text[:_SHOWN_CHARACTERS]}..."
        lines.append(f"  {message.role}: {said}".rstrip())
        lines.extend(f"    calls {call.name}({call.arguments[:_SHOWN_CHARACTERS]})" for call in message.tool_calls)
    if request.tools:
        lines.append(f"  tools: {', '.join(tool.name for tool in request.tools)}")
    if request.output_name:
        lines.append(f"  wanted: {request.output_name}")
    return "\n".join(lines)
