"""How a long journal is read: a part at a time, each in a transaction of its own (see `_backend.ReadSession`)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from rh_agents.stores._verified import VerifiedSession

T = TypeVar("T")

PART: Final = 16_384
"""Events that are looked through at a time: some hundredths of a second."""

Steps = Generator[None, "VerifiedSession", T]
"""A reading in steps: each `yield` gives a session back and gets one for the next step; at the end there is a result.

    def outcomes(run: RunRow) -> Steps[int]:
        count = 0
        for after, until in parts(0, run.last_sequence):
            session = yield
            count += len(session.inner.find_calls(...))
        return count

`Engine.read_in_steps` runs it in threads: others read in between, and a caller who leaves ends it behind its next step.
"""


def parts(after: int, until: int, size: int = PART) -> Iterator[tuple[int, int]]:
    """The parts of a journal from after one sequence up to another one, each given in the same way."""
    for low in range(after, until, size):
        yield low, min(low + size, until)


def parts_back(after: int, until: int, size: int = PART) -> Iterator[tuple[int, int]]:
    """The same from the end."""
    for high in range(until, after, -size):
        yield max(high - size, after), high
