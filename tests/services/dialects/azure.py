"""Azure OpenAI: OpenAI's models behind deployments, with a filter that has its say before, in and after the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents import Usage
from tests.services.dialects import openai
from tests.services.dialects.kit import COMMON, Dialect, Says, Wanted, chunk, in_pieces, lines, whole
from tests.services.model_server import Reply

_ABOUT = {"id": "chatcmpl-Az", "created": 1_764_000_000, "model": "gpt-4.1-mini-2025-04-14"}
_USAGE = {"prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 99}
_COUNTED = Usage(82, 17, 0, 0, 1)
_KINDS = ("hate", "self_harm", "sexual", "violence")


def results(filtered: str | None = None) -> dict[str, Any]:
    """What the filter found: nothing, or one kind that it does not let through."""
    return {kind: {"filtered": kind == filtered, "severity": "high" if kind == filtered else "safe"} for kind in _KINDS}


PROMPT = {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": results()}]}
EMPTY = {"id": "", "object": "", "created": 0, "model": ""}
"""What stands in the pieces that only the filter writes."""


def _verdict(end: int, filtered: str | None = None) -> dict[str, Any]:
    offsets = {"check_offset": end, "start_offset": 0, "end_offset": end}
    choice = {"index": 0, "finish_reason": None, "content_filter_results": results(filtered)}
    return {**EMPTY, "choices": [{**choice, "content_filter_offsets": offsets}], "usage": None}


def verdict(end: int, filtered: str | None = None) -> bytes:
    """The asynchronous filter's piece: a choice without a delta, after the text that it is about."""
    return lines([_verdict(end, filtered)], done=False)


def _recorded(message: dict[str, Any], deltas: Sequence[dict[str, Any]], finish: str | None) -> Says:
    choice = {"content_filter_results": results(), "logprobs": None}
    first = {**EMPTY, "choices": [], **PROMPT}
    begin = chunk(_ABOUT, {"role": "assistant", "content": "", "refusal": None}, usage=None)
    middle = [chunk(_ABOUT, delta, choice=choice, usage=None) for delta in deltas]
    end = chunk(_ABOUT, {}, finish, usage=None)
    pieces = [first, begin, *middle, _verdict(40), end, _verdict(80), chunk(_ABOUT, None, usage=_USAGE)]
    return Says({**whole(_ABOUT, message, finish, _USAGE, **choice), **PROMPT}, lines(pieces), _COUNTED)


def says(text: str, finish: str | None = "stop") -> Says:
    """With the asynchronous filter, whose verdicts come between the pieces and after the last one."""
    return _recorded({"content": text, "refusal": None}, [{"content": piece} for piece in in_pieces(text)], finish)


def calls(wanted: Sequence[Wanted]) -> Says:
    """As OpenAI does."""
    message = openai.calls(wanted).whole["choices"][0]["message"]
    deltas = []
    for index, call in enumerate(message["tool_calls"]):
        start = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        deltas.append({"tool_calls": [{"index": index, **start}]})
        for piece in in_pieces(call["function"]["arguments"]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})  # noqa: PERF401
    return _recorded(message, deltas, "tool_calls")


def filtered_answer(text: str) -> Says:
    """An answer that was cut off: what was found stands in the choice, in a stream in the piece that ends it."""
    found = {"content_filter_results": results("violence")}
    begin = [
        chunk(_ABOUT, {"content": piece}, choice={"content_filter_results": results()}) for piece in in_pieces(text)
    ]
    end = chunk(_ABOUT, {}, "content_filter", found)
    stream = lines([*begin, end, chunk(_ABOUT, None, usage=_USAGE)])
    return Says({**whole(_ABOUT, {"content": text}, "content_filter", _USAGE, **found), **PROMPT}, stream, _COUNTED)


def refusal(status: int, message: str) -> Reply:
    """The codes are texts, also where they are numbers."""
    return Reply({"error": {"message": message, "type": None, "param": None, "code": str(status)}}, status)


def filtered_prompt() -> Reply:
    """What comes instead of an answer if the prompt does not pass the filter."""
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": results("violence")}
    about = {"message": "The response was filtered due to the prompt triggering the content management policy."}
    return Reply(
        {
            "error": {
                **about,
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": inner,
            }
        },
        400,
    )


DIALECT = Dialect(
    name="Azure",
    base_url="https://example.openai.azure.com",
    model="my-deployment",
    says=says,
    calls=calls,
    sources=(
        "learn.microsoft.com/azure/foundry/openai/concepts/content-streaming",
        "the class AzureOpenAI of the package openai 3.54.0",
        "openai-python, issue 1677",
    ),
    fields=COMMON | {"max_completion_tokens", "max_tokens", "seed", "parallel_tool_calls", "stream_options"},
    refuses_others=True,
    call_ids=".{1,40}",
    length_field="max_completion_tokens",
    assistant_fields=frozenset({"role", "content", "tool_calls", "refusal", "name"}),
    endings={"stop": "stop", "tool_calls": "tool_calls", "length": "length", "content_filter": "content_filter"},
    refusal=refusal,
    key_header=("api-key", "key"),
    path="/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21",
)
