"""How providers speak OpenAI's chat protocol: recorded exchanges of a small conversation, and a server that plays them.

The conversation is always the same: somebody asks which of two cities is larger, the model wants the tool `population`
for each of them, learns what came of it, and answers. A *dialect* says what the answers look like, whole and streamed,
with the usage that they tell; which fields a request may have, and what the provider does with others; what it wants
back. So one test can send the whole conversation through each of them and look at the requests, not only at what is
made of the answers.

The shapes follow what the providers document (`sources`), in words of our own. A dialect that was compared with a
running server of its kind says so (`is_observed`); all others rest on documentation alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from rh_agents import Usage
from tests.services.model_server import Exchange, Reply

__all__ = [
    "ANSWER",
    "CITIES",
    "COMMON",
    "REASON",
    "Dialect",
    "Says",
    "Wanted",
    "chunk",
    "error_body",
    "in_pieces",
    "lines",
    "play",
    "received",
    "recorded",
    "whole",
]

Json = dict[str, Any]
CITIES = {"Oslo": 717_710, "Bergen": 291_940}
ANSWER = "Oslo, by 425,770."
REASON = "I need both numbers first."

COMMON = frozenset(
    {"model", "messages", "stream", "temperature", "top_p", "stop", "tools", "tool_choice", "response_format"}
)
"""The fields of a request that every provider here documents."""


@dataclass(frozen=True)
class Wanted:
    """A tool that the model wants to be called."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The arguments as a model writes them."""
        return json.dumps(self.arguments)


@dataclass(frozen=True)
class Says:
    """One answer of a provider, in both of its forms.

    Attributes:
        whole: the body of an answer that comes at once.
        stream: the bytes of one that is streamed.
        usage: what of it has to be counted, with `cost` if the provider says what it cost.
        reasoning: the thoughts that can be read in it.
        streamed_usage: the same of the streamed form, if that tells something else.
    """

    whole: Json
    stream: bytes
    usage: Usage
    reasoning: str = ""
    streamed_usage: Usage | None = None

    def used(self, is_streamed: bool) -> Usage:
        """What has to be counted."""
        return self.streamed_usage if is_streamed and self.streamed_usage is not None else self.usage


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a provider does that others do not.

    Attributes:
        name: the row of the provider table.
        base_url: where the provider answers.
        model: one of its models.
        says: an answer with this text; its finish reason if that is not the usual one.
        calls: an answer that wants these tools.
        sources: what was read to write this down.
        fields: which fields of a request it documents.
        ignored: which others it takes without effect.
        refuses_others: whether a field that it does not document is an error.
        length_field: what it calls the greatest number of tokens.
        assistant_fields: which fields a message of the assistant may have.
        call_ids: the form that ids of tool calls must have, as a regular expression.
        choices: what `tool_choice` may be; "named" stands for one function.
        output: what becomes of a JSON schema: both at once with tools ("native"), refused beside tools ("refused with
            tools"), a grammar that leaves no room for tool calls ("excludes tools"), or not known at all ("unknown").
        wants_back: what is missing in a conversation, if anything is; the provider refuses it then.
        endings: what its finish reasons mean: "stop", "tool_calls", "length", "content_filter" or "broken".
        refusal: its error for a request, from the status and the message.
        key_header: where it wants the key.
        path: the end of the path, and its query.
        user_after_tool: whether a message of the user may follow one of a tool.
        images_in_results: whether the results of tools may have images in them.
        required_headers: the headers without which it answers nothing.
        sampling: settings of a model that it takes, about how tokens are chosen.
        refused_settings: settings of a model that have no form there.
        tool_choice: the strictest choice that its models take while they think.
        asks: a request in the form of OpenAI's protocol, as far as tests look at it.
        tells: the message of a whole answer in that form.
        wrong_in: what is wrong with a request, in a protocol that is not OpenAI's.
        is_observed: whether this was compared with a running server.
    """

    name: str
    base_url: str
    model: str
    says: Callable[..., Says]
    calls: Callable[[Sequence[Wanted]], Says]
    sources: tuple[str, ...]
    fields: frozenset[str]
    ignored: frozenset[str] = frozenset()
    refuses_others: bool = False
    length_field: str = "max_tokens"
    assistant_fields: frozenset[str] = frozenset({"role", "content", "tool_calls"})
    call_ids: str = ".+"
    choices: frozenset[str] = frozenset({"auto", "none", "required", "named"})
    output: Literal["native", "refused with tools", "excludes tools", "unknown"] = "native"
    wants_back: Callable[[Sequence[Json]], str | None] = lambda messages: None
    endings: Mapping[str, str] = field(default_factory=dict)
    refusal: Callable[[int, str], Reply]
    key_header: tuple[str, str] = ("authorization", "Bearer key")
    path: str = "/chat/completions"
    user_after_tool: bool = True
    images_in_results: bool = False
    required_headers: frozenset[str] = frozenset()
    sampling: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0.5, "top_p": 0.9, "seed": 7})
    refused_settings: frozenset[str] = frozenset()
    tool_choice: str = "required"
    asks: Callable[[Json], Json] = lambda body: body
    tells: Callable[[Json], Json] = lambda whole: whole["choices"][0]["message"]
    wrong_in: Callable[[Json], str | None] | None = None
    is_observed: bool = False

    def refuse(self, exchange: Exchange) -> Reply | None:
        """What the provider says to a request that it does not take; None if it takes it."""
        body = exchange.body
        for name in body:
            if name not in self.fields | self.ignored and self.refuses_others:
                return self.refusal(400, f"{name}: Extra inputs are not permitted")
        for name in self.required_headers - set(exchange.headers):
            return self.refusal(400, f"{name}: header is required")
        if self.wrong_in is not None:
            wrong = self.wrong_in(body)
            return None if wrong is None else self.refusal(400, wrong)
        for message in body["messages"]:
            unknown = set(message) - self.assistant_fields if message["role"] == "assistant" else set()
            if unknown and self.refuses_others:
                return self.refusal(400, f"messages.assistant.{min(unknown)}: Extra inputs are not permitted")
            for call in message.get("tool_calls") or ():
                if not re.fullmatch(self.call_ids, call["id"]):
                    return self.refusal(400, f"Tool call id was {call['id']} but must be {self.call_ids}")
        roles = [message["role"] for message in body["messages"]]
        if not self.user_after_tool and ("tool", "user") in pairwise(roles):
            return self.refusal(400, "Unexpected role 'user' after role 'tool'")
        if self.output == "refused with tools" and body.get("response_format") and body.get("tools"):
            return self.refusal(400, "json mode cannot be combined with tool/function calling")
        if self.output == "unknown" and (body.get("response_format") or {}).get("type") == "json_schema":
            return self.refusal(400, "This response_format type is unavailable now")
        missing = self.wants_back(body["messages"])
        return None if missing is None else self.refusal(400, missing)


def play(dialect: Dialect) -> Callable[[Exchange], Reply]:
    """A server that plays the conversation: it refuses what the provider refuses, and answers as a good model would."""

    def answering(exchange: Exchange) -> Reply:
        refused = dialect.refuse(exchange)
        if refused is not None:
            return refused
        says = _next(dialect, dialect.asks(exchange.body))
        if exchange.body.get("stream"):
            return Reply(says.stream, kind="text/event-stream")
        return Reply(says.whole)

    return answering


def _next(dialect: Dialect, body: Json) -> Says:
    """What the model says next. Without a tool's results it wants them, unless a grammar forbids that."""
    told = [message for message in body["messages"] if message["role"] == "tool"]
    schema = body.get("response_format")
    names = [tool["function"]["name"] for tool in body.get("tools", ())]
    if not told and "population" in names:
        if schema and dialect.output == "excludes tools":
            return dialect.says('{"larger": "Bergen", "difference": 1}')  # invented, but it fits
        return dialect.calls([Wanted("population", {"city": city}) for city in CITIES])
    answer = {"larger": "Oslo", "difference": 425_770}
    if schema:
        return dialect.says(json.dumps(answer))
    output = [name for name in names if name != "population"]
    if output:
        return dialect.calls([Wanted(output[0], answer)])
    if "difference" in json.dumps(body["messages"]):  # the schema was told in words
        return dialect.says(f"```json\n{json.dumps(answer)}\n```")
    return dialect.says(ANSWER)


# -- writing shapes down ----------------------------------------------------------------------------------------------


def whole(about: Json, message: Json, finish: str | None, usage: Json | None, **choice: Any) -> Json:
    """An answer that comes at once."""
    told = {} if usage is None else {"usage": usage}
    chosen = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}
    return {**about, "object": "chat.completion", "choices": [chosen], **told}


def chunk(about: Json, delta: Json | None, finish: str | None = None, choice: Json | None = None, **more: Any) -> Json:
    """A piece of a streamed answer; with `delta=None` one without choices."""
    chosen = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}]
    return {**about, "object": "chat.completion.chunk", "choices": chosen, **more}


def lines(pieces: Sequence[Json | str], *, done: bool = True) -> bytes:
    """Server-sent events; a text among the pieces is a line as it stands, such as a comment."""
    written = [f"{piece}\n\n" if isinstance(piece, str) else f"data: {json.dumps(piece)}\n\n" for piece in pieces]
    return "".join([*written, "data: [DONE]\n\n" if done else ""]).encode()


def recorded(
    about: Json,
    message: Json,
    deltas: Sequence[Json],
    finish: str | None,
    usage: Json,
    counted: Usage,
    *,
    usage_in: Literal["own piece", "last piece"] = "own piece",
    first: Sequence[Json | str] = (),
    last: Sequence[Json | str] = (),
    choice: Json | None = None,
    reasoning: str = "",
    role: bool = True,
) -> Says:
    """An answer in both forms, where the stream is written as OpenAI does but for what is said.

    Args:
        about: what stands in every piece: id, model and the like.
        message: the message of the whole answer.
        deltas: the same, bit by bit.
        finish: why it ended, as the provider says it.
        usage: what it tells about tokens.
        counted: what that means.
        usage_in: where a stream tells it: in a piece without choices after the last one, or in the last one.
        first: pieces before the first one.
        last: pieces after the last one.
        choice: further fields of each choice.
        reasoning: the thoughts in it.
        role: whether a piece with the role, and nothing else, comes first.
    """
    begin = [chunk(about, {"role": "assistant", "content": ""}, choice=choice)] if role else []
    end = [chunk(about, {}, finish, choice)]
    if usage_in == "own piece":
        end.append(chunk(about, None))
    end[-1]["usage"] = usage
    pieces = [*first, *begin, *(chunk(about, delta, choice=choice) for delta in deltas), *end, *last]
    return Says(whole(about, message, finish, usage, **(choice or {})), lines(pieces), counted, reasoning)


def in_pieces(text: str, size: int = 4) -> list[str]:
    """A text as models write it, a few letters at a time."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def error_body(status: int, message: str, kind: str = "invalid_request_error", code: Any = None) -> Reply:
    """An error as OpenAI reports it."""
    return Reply({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def received(messages: Sequence[Json], field: str) -> str | None:
    """What is missing if an assistant's message with tool calls comes without this field."""
    asked = [message for message in messages if message["role"] == "assistant" and message.get("tool_calls")]
    return f"The `{field}` must be passed back" if any(not message.get(field) for message in asked) else None
