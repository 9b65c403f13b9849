"""What happened in a part of a journal, as PostgreSQL counts it."""

from __future__ import annotations

from typing import Any

from rh_agents.core._base.latency import BUCKETS
from rh_agents.core.ports.activity import SLOWEST
from rh_agents.stores._backend.windows import ActivityRows

_UNREAD = "what happened could not be read"


class CountsActivity:
    """A session that counts. `_rows` is how whoever reads a schema of whatever version asks it."""

    def _rows(self, name: str, what: str, **parameters: Any) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def activity(self, number: int, after: int, until: int, width: float) -> ActivityRows:
        """What happened in the events from after one sequence up to another one."""
        span = {"number": number, "after": after, "until": until}
        smallest, per_doubling, offset = BUCKETS
        places = {"smallest": smallest, "per_doubling": float(per_doubling), "offset": offset}
        found: list[Any] = [
            self._rows("activity_buckets", _UNREAD, **span, width=width),
            self._rows("activity_durations", _UNREAD, **span, **places),
            self._rows("activity_slowest", _UNREAD, **span, limit=SLOWEST),
            self._rows("activity_groups", _UNREAD, **span),
            self._rows("activity_totals", _UNREAD, **span),
        ]
        return ActivityRows._make(found)
