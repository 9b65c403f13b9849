"""Which owners of runs are gone: all leases of a queue are watched together."""

from __future__ import annotations

from collections.abc import Iterable

from rh_agents.core.queueing import HeldRun

__all__ = ["LeaseWatch"]

Sign = tuple[int, int, int]


class LeaseWatch:
    """Sees for how long owners have given no sign of life, by a clock of its own: those of machines differ.

    Every lease is watched from the moment it is first seen. So all runs of a machine that is gone are free one lease
    after its last sign of life, however many there are.
    """

    def __init__(self) -> None:
        self._seen: dict[Sign, float] = {}

    def silent(self, held: Iterable[HeldRun], now: float) -> list[Sign]:
        """The signs of owners that are gone.

        Args:
            held: the runs that have an owner now; those that are not among them are forgotten.
            now: seconds, by a clock that never goes back.
        """
        seen, gone = dict[Sign, float](), list[Sign]()
        for each in held:
            since = seen[each.sign] = self._seen.get(each.sign, now)
            if each.is_gone or now - since >= each.lease:
                gone.append(each.sign)
        self._seen = seen
        return gone
