"""How an answer of a type is asked for. There are three *output modes*:

- `native`: in a field made for it, which OpenAI, Anthropic and some others hold answers to. Some providers refuse it
  beside tools. In others the schema is a grammar for every answer, so that no tool can be called and the model has to
  invent one.
- `tool`: as a further tool, whose arguments are the answer. Wherever there are tools, this works.
- `prompt`: in words, and what comes is read. This works with every model that can write JSON.

In every mode the model gets the schema: by the provider, or else in words.

What a program puts into `extra` is sent as it stands, and may be such a grammar, too. Where the mode with tools is not
`native`, it would win over the tools in the same way, so there it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rh_agents.core.chat.messages import ChatDelta, ChatRequest, ChatResponse, FinishReason
from rh_agents.core.errors import InvalidRequest
from rh_agents.llms._providers import OutputMode, Provider

ANSWER_TOOL = "Give your answer. Call this, and no other tool beside it, when you know all that you need for it."
_LONGEST_NAME = 64


def mode_of(request: ChatRequest, provider: Provider, chosen: OutputMode | None) -> OutputMode | None:
    """How a request asks for an answer of its type; None if any text will do."""
    if request.output_schema is None:
        return None
    mode = chosen or (provider.output_with_tools if request.tools else provider.output)
    if mode == "tool" and request.tool_choice == "none":
        return "prompt"  # it must not call anything
    return mode


def expect_no_grammar(
    request: ChatRequest, fields: Mapping[str, Any], grammars: Iterable[str], with_tools: OutputMode
) -> None:
    """See that the program asks for no form of all answers where that would keep the model from calling tools.

    Args:
        request: one that offers tools.
        fields: what the program wants to be sent.
        grammars: which fields hold all answers to a form.
        with_tools: the output mode beside tools.

    Raises:
        InvalidRequest: it does; the message says what to do instead.
    """
    if with_tools == "native" or request.tool_choice == "none":
        return
    for name in grammars:
        if fields.get(name) and fields[name] != {"type": "text"}:
            raise InvalidRequest(
                f"{request.model}: {name} in extra= beside tools: many servers hold every answer to it, so that no "
                f"tool can be called and the answer is invented. Pass output= instead, which is asked for in the mode "
                f'{with_tools!r} here; or output_mode="native", if this server takes both'
            )


def in_words(request: ChatRequest) -> str:
    """The schema for the eyes of the model."""
    when = "When you have called all the tools that you need, answer" if request.tools else "Answer"
    schema = json.dumps(request.output_schema, ensure_ascii=False, separators=(",", ":"))
    return f"{when} with one JSON value and nothing else. It must fit this JSON schema:\n{schema}"


def answer_tool_of(request: ChatRequest) -> str:
    """The name of the tool whose arguments are the answer: none of the request's tools has it."""
    taken = {tool.name for tool in request.tools}
    name = request.output_name or "answer"
    while name in taken:
        name = f"answer_{name}"[:_LONGEST_NAME] if len(name) < _LONGEST_NAME else f"answer_{len(taken)}"
    return name


class AnswerTool:
    """Reads answers that came as the arguments of a tool.

    Args:
        name: the name of that tool; None if there is none, so that answers are what they are.
    """

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._index: int | None = None

    def read(self, response: ChatResponse) -> ChatResponse:
        """The answer as text. Beside other calls it is no answer: the model has not seen yet what comes of those."""
        answers = [call for call in response.tool_calls if call.name == self._name]
        if not answers:
            return response
        others = tuple(call for call in response.tool_calls if call.name != self._name)
        if others:
            return response.model_copy(update={"tool_calls": others})
        reason = response.finish_reason
        if reason is FinishReason.TOOL_CALLS:
            reason = FinishReason.STOP
        return response.model_copy(
            update={"text": answers[0].arguments, "tool_calls": (), "finish_reason": reason, "provider": {}}
        )

    def delta(self, delta: ChatDelta) -> ChatDelta:
        """A piece of such arguments, as a piece of the text."""
        if delta.tool_index is None:
            return delta
        if delta.tool_name == self._name:
            self._index = delta.tool_index
        return ChatDelta(text=delta.arguments) if delta.tool_index == self._index else delta
