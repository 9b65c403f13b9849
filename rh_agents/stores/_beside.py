"""What stands beside journals: what owners say of now, what is asked of them, and text that is under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from rh_agents.stores._checksums import (
    applied_checksum,
    piece_checksum,
    present_checksum,
    request_checksum,
    watching_checksum,
)

Rows = Sequence[Sequence[Any]]

QUERIES: Final = ("all_present", "all_requests", "all_pieces", "all_watchers")
"""The queries that give all of them."""


def damaged_beside(found: Mapping[str, Rows]) -> Iterator[str]:
    """What is damaged of the rows that `QUERIES` give, by the names of these."""
    for row in found["all_present"]:
        if not _fits(present_checksum, row[1:-1], row[-1]):
            yield f"what run number {row[0]} was last doing is damaged"
    for request_id, verb, arguments, author, reason, asked_at, applied_at, answer, *checksums in found["all_requests"]:
        asked = (request_id, verb, arguments, author, reason, asked_at)
        became = (request_id, applied_at, answer)
        if not (_fits(request_checksum, asked, checksums[0]) and _fits(applied_checksum, became, checksums[1])):
            yield f"request {request_id!r} is damaged"
    for row in found["all_pieces"]:
        if not _fits(piece_checksum, row[:-1], row[-1]):
            yield f"a piece of text of a call that was under way is damaged, written at {row[4]}"
    for row in found["all_watchers"]:
        if not _fits(watching_checksum, row[:-1], row[-1]):
            yield f"a row that says who looks at a call is damaged, until {row[1]}"


def _fits(checksum: Callable[..., int], values: Sequence[Any], kept: Any) -> bool:
    try:
        return bool(checksum(*values) == kept)
    except (TypeError, ValueError, AttributeError):
        return False  # a damaged byte may put a value of any type into any column
