"""The most tokens that models write in one answer, as far as their providers say: what budgets reserve for an answer.

From the pages of the models at platform.openai.com/docs/models.
"""

from __future__ import annotations

import re

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_MAX_OUTPUT: dict[str, int] = {
    "gpt-4.1": 32_768,
    "gpt-4.1-mini": 32_768,
    "gpt-4.1-nano": 32_768,
    "gpt-4o": 16_384,
    "gpt-4o-mini": 16_384,
    "gpt-5": 128_000,
    "gpt-5-mini": 128_000,
    "gpt-5-nano": 128_000,
    "o3": 100_000,
    "o3-mini": 100_000,
    "o4-mini": 100_000,
}


def max_output_of(model: str) -> int | None:
    """The most tokens that a model writes, by its name with or without the date of a snapshot; None if not known."""
    return _MAX_OUTPUT.get(_DATE.sub("", model))
