"""Failures by what went wrong: a thousand messages that differ in a number or a name are one kind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

_LONGEST: Final = 200
"""Characters."""
_DIFFERS: Final = re.compile(
    r"""(?<!\w)'[^']*'(?!\w) | "[^"]*" | `[^`]*`                  # what is quoted
    | https?://[^\s,;)\]}>]+                                      # addresses
    | \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b             # UUIDs
    | \b0x[0-9a-f]+\b | \b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b           # other hexadecimal digits
    | \b\w*\d[\w-]*(?:[.,:]\d+)*                                  # numbers, and words with digits in them
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Failure(NamedTuple):
    """A call that failed: the sequence of the event that says so, its address, its actor, and why in one line."""

    sequence: int
    address: str
    actor: str
    message: str | None


@dataclass(frozen=True, slots=True)
class FailureKind:
    """Failures that are alike.

    Attributes:
        text: what their messages have in common; "…" stands for numbers, ids and what is quoted.
        count: how many there are.
        first, last: the sequences of the first and of the last one.
        example: the last one.
    """

    text: str
    count: int
    first: int
    last: int
    example: Failure


def kind_of_message(message: str | None) -> str:
    """What a message has in common with others of its kind: numbers, ids, addresses and quoted texts are left out."""
    return _DIFFERS.sub("…", (message or "")[: 4 * _LONGEST])[:_LONGEST]


def kinds_of(failures: Iterable[Failure]) -> list[FailureKind]:
    """The kinds of failures, which are given oldest first; the commonest kind is first, then the one that was last."""
    found: dict[str, FailureKind] = {}
    for each in failures:
        text = kind_of_message(each.message)
        known = found.get(text)
        count, first = (0, each.sequence) if known is None else (known.count, known.first)
        found[text] = FailureKind(text, count + 1, first, each.sequence, each)
    return sorted(found.values(), key=lambda kind: (-kind.count, -kind.last))
