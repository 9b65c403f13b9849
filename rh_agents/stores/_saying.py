"""What a run is doing now, on its way from its event loop to the thread that writes.

The thread asks about once a second, the event loop takes a look at the run when it gets to that, and the thread writes
what it finds the next time it has something to do. So a blocked event loop says nothing: its run gives signs of life,
and is seen to stand still.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Final

from rh_agents.core.ports.present import Present
from rh_agents.stores._backend.beside import PresentRow
from rh_agents.stores._backend.rows import RunRow
from rh_agents.stores._under_way import Noted, Noting

_UNDER_WAY: Final = "under_way"
_SAY_AGAIN: Final = 5.0
"""Seconds after which the same is said again, so that others see that it still is so."""


class Saying:
    """What the owner of one run says. Used on its event loop.

    Args:
        number, fence: the run, and which of its owners it is.
        said: takes what is to be written.
        noting: knows which calls have no outcome.
    """

    def __init__(self, number: int, fence: int, said: deque[PresentRow], noting: Noting) -> None:
        self._number = number
        self._fence = fence
        self._said = said
        self._noting = noting
        self._sample: Callable[[], Present | None] | None = None
        self._last: Present | None = None

    def begin(self, sample: Callable[[], Present | None]) -> None:
        """From now on there is somebody who knows."""
        self._sample = sample

    def end(self) -> None:
        """The run is let go of."""
        self._sample = None

    def look(self, sequence: int, on_disk: int) -> None:
        """Take a look, and let others know if anything is new.

        Args:
            sequence, on_disk: the last event of the journal, and the last one that survives a crash.
        """
        present = None if self._sample is None else self._sample()
        if present is None or self._is_known(present):
            return
        self._last = present
        noted = self._noting.look(sequence, on_disk)
        more = {} if noted is None else {_UNDER_WAY: noted.as_json()}
        facts = json.dumps({"fence": self._fence, **present.as_json(), **more})
        self._said.append(PresentRow(self._number, self._fence, present.at, facts))

    def _is_known(self, present: Present) -> bool:
        last = self._last
        return last is not None and 0 <= present.at - last.at < _SAY_AGAIN and present.is_same(last)


def noted_in(row: PresentRow) -> Noted | None:
    """The calls under way that the owner has written down; None if it has not.

    Raises:
        ValueError: another program has written something else there.
    """
    found = json.loads(row.facts).get(_UNDER_WAY)
    return None if found is None else Noted.from_json(found)


def present_of(row: PresentRow | None, run: RunRow) -> Present | None:
    """What a run is doing, of what was said last.

    Raises:
        ValueError: another program has written something else there.
    """
    if row is None or (run.owner is not None and row.fence < run.fence):
        return None
    present = Present.from_json(json.loads(row.facts))
    return present.ended() if run.owner is None else present
