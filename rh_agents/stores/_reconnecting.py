"""What became of a batch when the way to the database broke while it was written.

Nobody can know whether a commit was made whose answer was lost. But the run's row says it: each batch moves
`last_sequence` on in its own transaction, and only the owner of the fence can do that. So the owner connects anew and
reads both:

- its fence, and the sequence behind the batch: it was written;
- its fence, and the sequence before the batch: it was not, and is sent again;
- another fence: somebody has taken the run over;
- its fence, and any other sequence: what had been acknowledged is gone: another server answers, which has not got it.

This is tried as long as the lease cannot have run out, counted from the moment *before* the last sign of life was sent:
until then no one can have taken the run over, and what the program does meanwhile it does as the owner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Final, TypeVar

from rh_agents.core.errors import StoreError
from rh_agents.stores._backend import ConnectionLost
from rh_agents.stores._backend.rows import Batch, Standing

__all__ = ["KEEP_ON_FOR", "Fate", "attempts", "fate", "kept_on", "lost_by_server"]

T = TypeVar("T")

KEEP_ON_FOR: Final = 10.0
"""Seconds for which what may be done twice is done again when there is no way to the database."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
"""Seconds between two attempts to connect."""


class Fate(Enum):
    """What became of a batch."""

    WRITTEN = auto()
    NOT_WRITTEN = auto()
    TAKEN_OVER = auto()
    """The run has another owner, or is there no more."""
    CUT_SHORT = auto()
    """The journal is shorter than what had been acknowledged, or otherwise not what its owner wrote."""


def fate(batch: Batch, standing: Standing | None) -> Fate:
    """What became of a batch, by what the row of its run says now; None if there is no row."""
    if standing is None or standing.fence != batch.fence:
        return Fate.TAKEN_OVER
    if standing.last_sequence == batch.last_sequence + len(batch.events):
        return Fate.WRITTEN
    return Fate.NOT_WRITTEN if standing.last_sequence == batch.last_sequence else Fate.CUT_SHORT


def lost_by_server(place: str, batch: Batch, standing: Standing | None) -> StoreError:
    """The error of a run whose journal is not what its owner wrote."""
    found = None if standing is None else standing.last_sequence
    return StoreError(
        f"{place}: the server that answers now has {found} events of a run of which {batch.last_sequence} were "
        "acknowledged, so it has not got all that was committed: let commits wait for the server that takes over "
        "(synchronous_standby_names)"
    )


def kept_on(work: Callable[[], T], seconds: float = KEEP_ON_FOR) -> T:
    """What something comes to that may be done twice; done again for some seconds if the way to the database breaks.

    Raises:
        ConnectionLost: there is none for longer.
    """
    ends_at = time.monotonic() + seconds
    lost: ConnectionLost | None = None
    for _ in attempts(lambda: ends_at):
        try:
            return work()
        except ConnectionLost as error:
            lost = error
    assert lost is not None
    raise lost


def attempts(
    until: Callable[[], float],
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[None]:
    """Attempts with growing pauses between them, the first one at once; the last one before the time `until` gives."""
    pause = _FIRST_PAUSE
    while monotonic() < until():
        yield
        sleep(max(0.0, min(pause, until() - monotonic())))
        pause = min(2 * pause, _LONGEST_PAUSE)
