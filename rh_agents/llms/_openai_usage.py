"""What an answer used, wherever a server of the chat protocol says it, and under whatever name.

The protocol has one place and three names for it. Servers differ: some count thoughts only in the total, or beside the
answer; some name cache hits in their own words; some write numbers as floats, or the whole of it elsewhere. So places
and names are tables. Where two numbers could be meant, the larger one counts: what is spent is never counted too low.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from rh_agents.core.usage import Usage

_Path = tuple[str | int, ...]

PLACES: tuple[_Path, ...] = (
    ("usage",),
    ("x_groq", "usage"),  # Groq, in streams
    ("choices", 0, "usage"),  # Moonshot, in streams
)
"""Where an answer, or a piece of one, has its usage."""

NAMES: Mapping[str, tuple[_Path, ...]] = {
    "input": (("prompt_tokens",), ("input_tokens",)),
    "output": (("completion_tokens",), ("output_tokens",)),
    "total": (("total_tokens",),),
    "cached": (
        ("prompt_tokens_details", "cached_tokens"),
        ("input_tokens_details", "cached_tokens"),
        ("prompt_cache_hit_tokens",),  # DeepSeek
        ("cached_tokens",),  # Moonshot, Together
        ("num_cached_tokens",),  # Mistral
        ("cache_read_input_tokens",),  # LiteLLM in front of Anthropic
    ),
    "written": (
        ("prompt_tokens_details", "cache_write_tokens"),  # OpenRouter
        ("prompt_tokens_details", "cache_creation_tokens"),  # LiteLLM
        ("cache_creation_input_tokens",),
    ),
    "reasoning": (
        ("completion_tokens_details", "reasoning_tokens"),
        ("output_tokens_details", "reasoning_tokens"),
        ("reasoning_tokens",),
    ),
}
"""Where the usage has each number. Of several the largest one counts."""

COSTS: Mapping[_Path, float] = {
    ("cost",): 1.0,  # OpenRouter
    ("cost", "total_cost"): 1.0,  # Perplexity
    ("cost_in_usd_ticks",): 1e-10,  # xAI
}
"""Where the provider says what the answer cost, and how many US dollars its unit is."""

COST_HEADERS: Mapping[str, float] = {
    "x-litellm-response-cost": 1.0,  # docs.litellm.ai/docs/proxy/response_headers
}
"""Headers in which a proxy says what a whole answer cost, and how many US dollars their unit is. At the beginning of a
stream nobody knows that yet, so what such a header says there does not count."""

_USAGE = re.compile(r'"usage"\s*:\s*(?=\{)')


def usage_in(data: Mapping[str, Any]) -> Usage | None:
    """What an answer, or a piece of one, says about its usage; None if it says nothing."""
    for place in PLACES:
        reported = _at(data, place)
        if isinstance(reported, dict):
            usage = _read(reported)
            if usage is not None:
                return usage
    return None


def _read(reported: Mapping[str, Any]) -> Usage | None:
    count = {name: max((_count(_at(reported, path)) for path in paths), default=0) for name, paths in NAMES.items()}
    if not (count["input"] or count["output"] or count["total"]):
        return None  # zeros: nothing is free of tokens, so it is not known
    said = count["output"]
    output = max(said, count["total"] - count["input"])
    beside = output - said if said else 0  # what only the total has, are thoughts
    return Usage(
        input_tokens=count["input"],
        output_tokens=output,
        cached_tokens=min(count["cached"], count["input"]),
        reasoning_tokens=min(max(count["reasoning"], beside), output),
        requests=1,
        cost=cost_of(reported),
        cache_write_tokens=min(count["written"], max(0, count["input"] - count["cached"])),
    )


def cost_in_headers(headers: Mapping[str, str]) -> float:
    """What a whole answer cost, in US dollars, by what the headers say; 0 if they say nothing."""
    return max((_amount(_number(headers.get(name))) * unit for name, unit in COST_HEADERS.items()), default=0.0)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def cost_of(reported: Mapping[str, Any]) -> float:
    """What it cost, by what the usage says; 0 if it says nothing.

    With the user's own key for the provider behind it, that one's share is reported apart.
    """
    cost = max((_amount(_at(reported, path)) * unit for path, unit in COSTS.items()), default=0.0)
    if reported.get("is_byok") is True:
        cost += _amount(_at(reported, ("cost_details", "upstream_inference_cost")))
    return cost


def larger(one: Usage | None, other: Usage | None) -> Usage | None:
    """Of two reports about one answer, the larger one of each number: servers repeat and complete them in a stream."""
    if one is None or other is None:
        return one or other
    return Usage(*(max(getattr(one, name), getattr(other, name)) for name in Usage.__dataclass_fields__))


def salvaged_usage(data: bytes, read: Callable[[Mapping[str, Any]], Usage | None]) -> Usage | None:
    """The usage in the bytes of an answer that cannot be read as a whole; None if it is not found there.

    Args:
        data: the bytes.
        read: what reads it where it has the form of a usage.
    """
    text = data.decode("utf-8", "replace")
    found = None
    for match in _USAGE.finditer(text):
        try:
            reported, _ = json.JSONDecoder().raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue
        found = read({"usage": reported}) or found
    return found


def _at(data: Any, path: _Path) -> Any:
    for step in path:
        if isinstance(step, int):
            data = data[step] if isinstance(data, list) and len(data) > step else None
        else:
            data = data.get(step) if isinstance(data, dict) else None
    return data


def _amount(value: Any) -> float:
    try:
        number = 0.0 if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # JSON has no bound for numbers
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def _count(value: Any) -> int:
    return math.ceil(_amount(value))
