"""Why an answer ended, in the words of all providers. Each word is in a table, and one that is not is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rh_agents.core.chat.messages import FinishReason
from rh_agents.core.errors import IncompleteAnswer, PermanentModelError, UnreadableAnswer

BROKEN_OFF = "broken off"
FINISH_REASONS: Mapping[str, str] = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(
        ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"), "length"
    ),
    **dict.fromkeys(
        (
            "content_filter", "content_filtered", "safety", "sensitive", "refusal", "recitation", "blocklist",
            "prohibited_content", "spii", "image_safety", "guardrail_intervened",
        ),
        "content_filter",
    ),
    **dict.fromkeys(
        (
            "error", "abort", "aborted", "cancelled", "network_error", "insufficient_system_resource", "timeout",
            "malformed_function_call",
        ),
        BROKEN_OFF,
    ),
}  # fmt: skip
"""What providers say about why an answer ended, in small letters, and what it means. Anthropic's `pause_turn` is
missing: it comes of tools that run at the provider, and is no end."""


def checked_reasons(reasons: Mapping[str, str]) -> Mapping[str, str]:
    """Further reasons, if all of them mean something.

    Raises:
        ValueError: one does not.
    """
    known = [BROKEN_OFF, *map(str, FinishReason)]
    for reason, meaning in reasons.items():
        if meaning not in known:
            raise ValueError(f"{reason!r} cannot mean {meaning!r}; it can mean {', '.join(map(repr, known))}")
    return reasons


def reason_of(reason: Any, name: str, own: Mapping[str, str]) -> FinishReason:
    """Why an answer ended.

    Args:
        reason: what the provider says.
        name: the model, for errors.
        own: words that only this provider has, or that its user has explained.

    Raises:
        UnreadableAnswer: it does not say.
        IncompleteAnswer: it was broken off.
        PermanentModelError: nobody knows what the reason means.
    """
    if not isinstance(reason, str) or not reason:
        raise UnreadableAnswer("the answer does not say why it ended")
    meaning = own.get(reason) or own.get(reason.lower()) or FINISH_REASONS.get(reason.lower())
    if meaning is None:
        raise PermanentModelError(
            f"{name}: the answer ended with the reason {reason[:100]!r}, which is not known; say what it means with "
            f'finish_reasons={{{reason[:100]!r}: "stop"}} (or "length", "content_filter", "{BROKEN_OFF}")'
        )
    if meaning == BROKEN_OFF:
        raise IncompleteAnswer(f"{name}: the provider broke the answer off ({reason})")
    return FinishReason(meaning)
