"""Text for a terminal: whatever a model wrote, made harmless; and numbers as people like to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.cells import cell_len, set_cell_size

from rh_agents.core.redaction import RedactingRepr, redact
from rh_agents.core.usage import Usage

__all__ = ["amount", "brief", "brief_result", "crop", "duration", "frequency", "harmless", "whole_seconds", "width_of"]

_ANSWER = "rh_agents.core.chat.messages.ChatResponse"
"""Recognized by its name: who only looks has not loaded it."""
LONGEST = 200
"""Characters of a foreign text that are shown, unless stated otherwise."""

_MOST_CUT = 4000

_VARIATION_SELECTORS = range(0xFE00, 0xFE10)
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
_SPACES = (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)

# Terminals disagree about how wide these are. A line that is one cell wider than we think would wrap.
_UNSURE_WIDTH: dict[int, str | None] = {
    **dict.fromkeys(_VARIATION_SELECTORS),
    **dict.fromkeys(_SKIN_TONES),
    **{code: chr(ord("A") + code - _REGIONAL_INDICATORS.start) for code in _REGIONAL_INDICATORS},
    **dict.fromkeys(_SPACES, " "),
}

_brief = RedactingRepr()
_brief.maxstring = _brief.maxother = _brief.maxlong = LONGEST
_brief.maxlevel = 3


def harmless(text: str, limit: int = LONGEST) -> str:
    """The text on one line, in characters that only ever draw themselves.

    What is not printable (control characters, escape sequences, line ends, marks that turn the direction of writing,
    invisible characters, halves of surrogate pairs) is written as Python writes it: `\\x1b`, `\\n`, `\\u202e`. Of more
    than `limit` characters only the first are shown, and "…". Secrets are left out.
    """
    most = 2 * limit + _MOST_CUT  # a secret may be longer than what is shown
    text = redact(text if len(text) <= most else text[:most] + "…")
    shown = text if len(text) <= limit else text[: max(0, limit - 1)] + "…"
    if shown.isascii() and shown.isprintable():
        return shown
    shown = shown.translate(_UNSURE_WIDTH)
    if shown.isprintable():
        return shown
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in shown)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def brief(value: object) -> str:
    """A harmless and short text of any value, without spelling out a long one first."""
    return harmless(_brief.repr(value))


def brief_result(value: object) -> str:
    """The same of what a call came to: of a model's answer, what the model said or which tools it wants called."""
    fields = _fields_of_an_answer(value)
    if fields is None:
        return brief(value)
    wanted = [_fields(call) for call in fields.get("tool_calls") or ()]
    if wanted:
        said = ", ".join(f"{call.get('name')}({call.get('arguments')})" for call in wanted)
    elif fields.get("refusal"):
        said = f"refused: {fields['refusal']}"
    else:
        output = fields.get("output")
        said = brief(fields.get("text") or "") if output is None else brief(output)
    by = fields.get("answered_by")
    return harmless(f"{said} (answered by {by})" if by else said)


def _fields_of_an_answer(value: object) -> Mapping[str, Any] | None:
    """The fields of a `ChatResponse`, whether or not this program has the class; None for anything else."""
    kind = type(value)
    name = getattr(value, "class_name", None) or f"{kind.__module__}.{kind.__qualname__}"
    return _fields(value) if name == _ANSWER else None


def _fields(value: Any) -> Mapping[str, Any]:
    data = getattr(value, "data", None)  # of an instance of a class that is not loaded
    return data if isinstance(data, Mapping) else vars(value)


def width_of(text: str) -> int:
    """How many columns of a terminal the text takes; letters of Chinese or Japanese and emoji take two each."""
    return cell_len(text)


def crop(text: str, width: int) -> str:
    """The text in at most `width` columns; "…" says that something is missing."""
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    return set_cell_size(text, width - 1).rstrip() + "…"


def duration(seconds: float) -> str:
    """Seconds as people say them: "3 ms", "0.31 s", "4.2 s", "12 s", "2:05" (minutes), "1:02:05" (hours)."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return whole_seconds(seconds)


def whole_seconds(seconds: float) -> str:
    """The same without fractions, for what is shown while it changes: "0 s", "12 s", "2:05", "1:02:05"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def frequency(per_second: float) -> str:
    """A rate with a unit that leaves something before the point: "1,250/s", "5.2/s", "12/min", "3.0/h"."""
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        rate = per_second * seconds
        if rate >= 0.95 or unit == "h":
            return f"{rate:,.0f}/{unit}" if rate >= 9.95 else f"{rate:.1f}/{unit}"
    raise AssertionError("the last unit always fits")


def amount(usage: Usage) -> str:
    """What was used, in short: "1,234 tokens $0.0120"."""
    parts = [f"{usage.tokens:,} tokens"] if usage.tokens else []
    if usage.cost:
        parts.append(f"${usage.cost:,.4f}")
    return " ".join(parts)
