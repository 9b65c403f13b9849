"""Requests as Anthropic's Messages API takes them, made of ours.

The protocol is not OpenAI's: what the model is told before everything else is a field of its own, results of tools
are blocks in a message of the user, all that answer one turn in the same one and before anything else, and empty
texts are refused. What a model thought goes back to it untouched and in its place, since its signature is verified.

(https://platform.claude.com/docs/en/api/messages; the shapes are those of the types in the official client.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import anthropic
from pydantic_core import from_json

from rh_agents.core.chat.messages import ChatRequest, DocumentPart, ImagePart, Message, TextPart, ToolCall, ToolSpec
from rh_agents.core.errors import InvalidRequest
from rh_agents.llms._output_modes import ANSWER_TOOL, answer_tool_of, expect_no_grammar, in_words, mode_of
from rh_agents.llms._providers import OutputMode, Provider
from rh_agents.llms._settings import Caching

BLOCKS = "anthropic_content"
"""The key in `Message.provider` under which blocks of an answer go back as they came."""
_THOUGHTS = ("thinking", "redacted_thinking")
"""Blocks of thoughts. They take no mark for the cache."""
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
_EFFORTS = {"minimal": "low"}
"""What is called otherwise elsewhere, in the nearest word of the protocol. Which efforts a model knows, its provider
says when it is asked."""
_NO_EFFORT = "none"
"""The effort at which other models do not think at all."""


def request_body(
    request: ChatRequest,
    provider: Provider,
    *,
    default_length: int,
    mode: OutputMode | None = None,
    caching: Caching | None = None,
    stream: bool = False,
) -> dict[str, Any]:
    """The fields of a request.

    Args:
        request: what to ask.
        provider: whom.
        default_length: the most tokens of the answer, if the request does not say it: the protocol requires it.
        mode: how the answer's type is asked for; by default as the provider likes it.
        caching: how long what all requests have in common is kept in the provider's cache; None for not at all.
        stream: whether the answer shall come in pieces.

    Raises:
        InvalidRequest: there is something in it for which the protocol has no form, or the program asks for a form of
            all answers beside tools, where that rules the tools out.
    """
    with_tools = mode or provider.output_with_tools
    mode = mode_of(request, provider, mode)
    if request.seed is not None:
        raise InvalidRequest(f"{request.model}: Anthropic's models take no seed")
    system, messages = _conversation(request.messages, provider)
    tools = [_tool(tool) for tool in request.tools]
    config = _efforts(request)
    thinking = _thinking(request)
    if request.output_schema is not None and mode == "tool":
        tools.append(_answer_tool(request))
    elif request.output_schema is not None and mode == "prompt":
        system.append({"type": "text", "text": in_words(request)})
    elif request.output_schema is not None:
        config["format"] = {"type": "json_schema", "schema": _plain(request.output_schema)}
    own_config = request.extra.get("output_config") or {}
    if tools:
        expect_no_grammar(request, own_config, ("format",), with_tools)
    if caching is not None:
        _mark_for_cache(system, tools, messages, caching)
    fields: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens or default_length,
        "system": system or None,
        "messages": messages,
        "tools": tools or None,
        "tool_choice": _tool_choice(request, by_tool=mode == "tool") if tools else None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop_sequences": list(request.stop) or None,
        "stream": stream or None,
        "output_config": {**config, **own_config} or None,
        "thinking": None if _has_a_budget(thinking) and _goes_on_without_thoughts(messages) else thinking,
    }
    extra = {name: value for name, value in request.extra.items() if name not in ("output_config", "thinking")}
    return {**{name: value for name, value in fields.items() if value is not None}, **extra}


def _efforts(request: ChatRequest) -> dict[str, Any]:
    """How much effort the model shall put into the answer, as a part of `output_config`."""
    effort = request.reasoning_effort
    return {} if effort in (None, _NO_EFFORT) else {"effort": _EFFORTS.get(effort, effort)}


def _thinking(request: ChatRequest) -> Any:
    """How much it shall think. That it shall not is what a call or an agent says, so it counts more than what the model
    was made with.
    """
    return {"type": "disabled"} if request.reasoning_effort == _NO_EFFORT else request.extra.get("thinking")


def _has_a_budget(thinking: Any) -> bool:
    return isinstance(thinking, Mapping) and thinking.get("type") == "enabled"


def _goes_on_without_thoughts(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the results of tools go back which were called without a thought: by another model, or before this one
    was told to think. A turn goes on as it was begun: with a budget for thoughts, that would be refused.

    (https://platform.claude.com/docs/en/build-with-claude/thinking-tool-workflows)
    """
    if len(messages) < 2 or not any(block["type"] == "tool_result" for block in messages[-1]["content"]):
        return False
    return all(block["type"] not in _THOUGHTS for block in messages[-2]["content"])


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in the part of JSON Schema that the API compiles; the rest becomes words in descriptions.

    One that has no such form is sent as it is, and refused by the server in its own words.
    """
    try:
        return anthropic.transform_schema(schema)
    except (ValueError, TypeError, KeyError):
        return schema


# -- messages ---------------------------------------------------------------------------------------------------------


def _conversation(messages: Sequence[Message], provider: Provider) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What stands before the conversation, and the conversation in turns."""
    start = next((index for index, each in enumerate(messages) if each.role != "system"), len(messages))
    system = [block for each in messages[:start] for block in _blocks(each.content)]
    turns: list[dict[str, Any]] = []
    ids = _CallIds(provider)
    for message in messages[start:]:
        role = "user" if message.role == "tool" else message.role
        blocks = _turn(message, ids)
        if not blocks:
            continue  # the API refuses empty messages
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = _results_first([*turns[-1]["content"], *blocks])
        else:
            turns.append({"role": role, "content": blocks})
    return system, turns


def _results_first(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    results = [block for block in blocks if block["type"] == "tool_result"]
    return [*results, *(block for block in blocks if block["type"] != "tool_result")]


class _CallIds:
    """The ids of tool calls as they are sent: in the form that the provider takes, and none twice in a conversation.
    Other models number the calls of each answer anew ("call_0"), and some those of one answer alike.

    Args:
        provider: whom the conversation is sent to.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._taken: set[str] = set()
        self._sent: dict[str, list[str]] = {}
        """For each id that was given, what it was sent as in the last answer with it: several, if that has it so."""
        self._in_turn: set[str] = set()

    def begin_turn(self) -> None:
        """The next calls are of another answer."""
        self._in_turn.clear()

    def of_call(self, given: str) -> str:
        sent = first = self._provider.call_id(given)
        number = 1
        while sent in self._taken:
            number += 1
            sent = f"{first}_{number}"
        self._taken.add(sent)
        if given not in self._in_turn:
            self._in_turn.add(given)
            self._sent[given] = []
        self._sent[given].append(sent)
        return sent

    def of_result(self, given: str) -> str:
        """For what came of it. The results of calls with one id are in the order of the calls."""
        sent = self._sent.get(given)
        if not sent:
            return self._provider.call_id(given)
        return sent.pop(0) if len(sent) > 1 else sent[0]


def _turn(message: Message, ids: _CallIds) -> list[dict[str, Any]]:
    if message.role == "tool":
        blocks = _blocks(message.content)
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": ids.of_result(message.tool_call_id or "")}
        return [{**result, "content": blocks} if blocks else result]
    if message.role != "assistant":
        return _blocks(message.content)
    said = _kept(message)
    if said is None:
        said = [*_blocks(message.content), *map(_tool_use, message.tool_calls)]
    ids.begin_turn()
    return [{**block, "id": ids.of_call(block["id"])} if block["type"] == "tool_use" else block for block in said]


def _kept(message: Message) -> list[dict[str, Any]] | None:
    """The blocks of which a message was made; None if there are none, or it was changed since.

    Calls that nobody will answer, such as of the tool that gives the final answer, must not go back.
    """
    kept = message.provider.get(BLOCKS)
    if not isinstance(kept, list):
        return None
    wanted = [call.id for call in message.tool_calls]
    blocks = [dict(block) for block in kept if block.get("type") != "tool_use" or block.get("id") in wanted]
    texts = "".join(str(each.get("text", "")) for each in blocks if each.get("type") == "text")
    calls = [each["id"] for each in blocks if each.get("type") == "tool_use"]
    return blocks if texts == message.text and calls == wanted else None


def _blocks(content: Any) -> list[dict[str, Any]]:
    parts: Iterable[Any] = (TextPart(text=content),) if isinstance(content, str) else content
    return [block for block in map(_block, parts) if block is not None]


def _block(part: Any) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text} if part.text else None
    if isinstance(part, ImagePart):
        return {"type": "image", "source": _source(part.url)}
    return _document(part)


def _source(url: str) -> dict[str, Any]:
    """Where bytes are: at a URL, or in it."""
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url[5:].partition(",")
    return {"type": "base64", "media_type": head.partition(";")[0], "data": data}


def _document(part: DocumentPart) -> dict[str, Any]:
    """PDF files as they are, text files as their text: there is no form for others.

    Raises:
        InvalidRequest: it is another kind of document.
    """
    title = {"title": part.name} if part.name else {}
    kind = part.media_type or ""
    if part.data is not None and kind.startswith("text/"):
        text = part.data.decode("utf-8", "replace")
        return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}, **title}
    if part.data is not None and kind != "application/pdf":
        raise InvalidRequest(f"{part.name or 'a document'} is {kind}: Anthropic's models read PDF and text files")
    return {"type": "document", "source": _source(part.url), **title}


def _tool_use(call: ToolCall) -> dict[str, Any]:
    """A call that the model has made. Its arguments must be an object there, whatever it wrote."""
    try:
        arguments = from_json(call.arguments or "{}")
    except ValueError:
        arguments = {}
    return {
        "type": "tool_use",
        "id": call.id,
        "name": call.name,
        "input": arguments if isinstance(arguments, dict) else {},
    }


# -- tools ------------------------------------------------------------------------------------------------------------


def _tool(tool: ToolSpec) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description:
        written["description"] = tool.description
    if tool.strict:
        written.update(strict=True, input_schema=_plain(tool.parameters))
    return written


def _answer_tool(request: ChatRequest) -> dict[str, Any]:
    """The tool whose arguments are the answer."""
    return {
        "name": answer_tool_of(request),
        "description": ANSWER_TOOL,
        "input_schema": {"type": "object", **(request.output_schema or {})},
    }


def _tool_choice(request: ChatRequest, *, by_tool: bool) -> dict[str, Any] | None:
    choice = request.tool_choice
    found: dict[str, Any] | None
    if choice in _CHOICES:
        found = {"type": _CHOICES[choice]}
    elif choice is not None:
        found = {"type": "tool", "name": choice}
    elif request.output_schema is not None and by_tool and not _thinks(request):
        found = {"type": "any"}  # some tool, or the one that gives the answer
    else:
        found = None
    if request.parallel_tool_calls is False and (found is None or found["type"] != "none"):
        return {**(found or {"type": "auto"}), "disable_parallel_tool_use": True}
    return found


def _thinks(request: ChatRequest) -> bool:
    """Whether the model thinks first: then it cannot be made to call a tool."""
    thinking = _thinking(request)
    return isinstance(thinking, Mapping) and thinking.get("type") != "disabled"


# -- caching ----------------------------------------------------------------------------------------------------------


def _mark_for_cache(
    system: list[dict[str, Any]], tools: list[dict[str, Any]], messages: list[dict[str, Any]], caching: Caching
) -> None:
    """Mark the ends of what requests have in common: the tools and what the model is told first; and the conversation
    so far.

    A mark stands for everything before it, in the order tools, system, messages.
    """
    mark = {"type": "ephemeral"} if caching == "5m" else {"type": "ephemeral", "ttl": caching}
    common = system or tools
    for blocks in (common, messages[-1]["content"] if messages else []):
        last = next((block for block in reversed(blocks) if block.get("type") not in _THOUGHTS), None)
        if last is not None:
            last["cache_control"] = mark
