"""What happened in a part of a journal, as SQLite counts it."""

from __future__ import annotations

from typing import Any

from rh_agents.core._base.latency import BUCKETS
from rh_agents.core.ports.activity import SLOWEST
from rh_agents.stores._backend.windows import ActivityRows
from rh_agents.stores._sqlite.rows import PLACE_BITS, Row, some_text
from rh_agents.stores._sqlite.session import Session


class CountsActivity(Session):
    """A connection that counts. `_all` is how whoever reads a file of whatever version asks it."""

    def _all(self, name: str, **arguments: Any) -> list[Row]:
        raise NotImplementedError

    def activity(self, number: int, after: int, until: int, width: float) -> ActivityRows:
        first = number << PLACE_BITS
        span = {"after": first + after, "until": first + until}
        smallest, per_doubling, offset = BUCKETS
        durations = self._all("activity_durations", **span, smallest=smallest, per_doubling=per_doubling, offset=offset)
        slowest = self._all("activity_slowest", **span, limit=SLOWEST)
        return ActivityRows(
            [
                (some_text(innermost), at, place - first, *counts)
                for innermost, at, place, *counts in self._all("activity_buckets", **span, width=width)
            ],
            [(some_text(name), *rest) for name, *rest in durations],
            [
                (place - first, key, some_text(address), some_text(name), *rest)
                for place, key, address, name, *rest in slowest
            ],
            [(at, more) for at, more in self._all("activity_groups", **span)],
            [(some_text(group), total) for group, total in self._all("activity_totals", **span)],
        )
