"""Leaving a server alone that has refused a request, together, and coming back in numbers that it takes.

A server that says "too many requests, come again in 2 s" says it to one call, but means everybody who asks it. So
whoever shares a model shares its `Pause`: after a refusal no one asks until the time that the server named is over.

If all who wait came back at once, most of them would be refused again, and those that were unlucky often enough would
fail. A pause therefore counts how many requests were taken since it was open last. That many are let in at once when
it opens again. Then the next ones follow in the same measure: half as many in half of the time, and soon more, since
the server may take more by now. It is a limit per period that is found out, from refusals alone. Where no refusal has
come for `_FORGOTTEN` such periods, the bound is forgotten.

A server may know its own times badly, or not say the truth: "come again in 0 s" is common. If nothing at all was taken
when a pause opened, it opens for a single request the next time, and each fruitless opening doubles the least time
until the next one. A refusal that names no time is none of this: it is a failure, which the retry policy sees to.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from rh_agents.core.policies.limits import Limit, Permit, RateLimitHint, Refusal

__all__ = ["LONGEST_PAUSE", "Pause"]

LONGEST_PAUSE = 300.0
"""Seconds. What a server wants beyond this holds no one but the call that it was said to."""
_FIRST_FLOOR = 0.1
_LONGEST_FLOOR = 15.0
"""Seconds. The least time until the next opening, after one that was fruitless and after many."""
_SHORTEST_SPAN = 0.01
_FORGOTTEN = 4.0
_MOST_REMEMBERED = 10_000
"""Answers. More at once than this are let in only when the server has shown that it takes them."""
_NEVER = -math.inf


class Pause(Limit):
    """What everybody who asks the same model waits for after it has refused a request.

    Attributes:
        hold: the seconds for which it was closed last.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.hold: float = 0.0
        self._held_until = _NEVER
        self._is_closed = False
        self._in_flight = 0
        self._opened_at = _NEVER
        """Since when the period lasts that is looked at; permits from before it tell nothing about it."""
        self._began_at = 0.0
        """The same as the time from which its length counts."""
        self._sent = 0
        self._refused = 0
        self._answered: deque[float] = deque(maxlen=_MOST_REMEMBERED)
        """When, as long as there is no bound: the first refusal may come after the answers of its period."""
        self._burst: int | None = None
        """How many are let in at once; None if there is no bound."""
        self._span = _SHORTEST_SPAN
        """The seconds for which that many are enough."""
        self._fruitless = 0

    def __repr__(self) -> str:
        return f"Pause({self.name!r}, {'closed' if self._is_closed else 'open'})"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is known that would make anybody wait."""
        return not self._is_closed and self._burst is None

    def seconds_held(self, now: float) -> float:
        """For how long it is closed."""
        return max(0.0, self._held_until - now)

    def admit(self, need: Mapping[str, float], now: float) -> Permit | Refusal:
        """Let a request go, unless the server wants to be left alone, or has taken as many as it takes at a time."""
        if now < self._held_until:
            return Refusal(self._held_until - now, "the server asked to wait")
        if self._is_closed:
            self._reopen(now)
        wait = self._wait_for_turn(now)
        if wait > 0:
            return Refusal(wait, f"the server takes about {self._burst} requests in {self._span:.3g} s")
        self._sent += 1
        self._in_flight += 1
        return Permit(now)

    def release(self, permit: Permit, used: Mapping[str, float] | None, now: float) -> None:
        """A request has been answered, or refused."""
        self._in_flight -= 1
        if self._burst is None and not self._is_closed:
            self._answered.append(now)

    def honour(self, hint: RateLimitHint, now: float) -> None:
        """The server has refused a request and named a time."""
        asked = hint.retry_after
        if not hint.is_overloaded or asked is None or asked > LONGEST_PAUSE:
            return
        if not self._is_closed:
            self._close(now, asked)
        floor = min(_LONGEST_FLOOR, _FIRST_FLOOR * 2.0 ** min(self._fruitless - 1, 20)) if self._fruitless else 0.0
        self._held_until = max(self._held_until, now + max(asked, floor))
        self.hold = self._held_until - now

    def refused(self, permit: Permit, now: float) -> None:
        """This one was refused; comes after `honour`."""
        if self._is_closed and permit.granted_at >= self._opened_at:
            self._refused += 1

    def _close(self, now: float, asked: float) -> None:
        self._is_closed = True
        if self._burst is None:  # nothing was counted until now: what is under way may have been taken, and more was
            self._opened_at, self._began_at = _NEVER, now
            answered = sum(1 for when in self._answered if when >= now - asked)
            self._sent, self._refused = self._in_flight + answered, 0
            self._answered.clear()

    def _reopen(self, now: float) -> None:
        taken = self._sent - self._refused
        self._is_closed = False
        self._fruitless = 0 if taken > 0 else self._fruitless + 1
        self._span = max(self._held_until - self._began_at, _SHORTEST_SPAN)
        self._burst = max(1, taken)
        self._opened_at = self._began_at = now
        self._sent = self._refused = 0

    def _wait_for_turn(self, now: float) -> float:
        """Seconds until another one may follow: after x spans, 1 + x + x² times as many as are let in at once."""
        if self._burst is None:
            return 0.0
        age = (now - self._began_at) / self._span
        if age > _FORGOTTEN:
            self._burst = None
            self._fruitless = 0
            return 0.0
        share = (self._sent + 1) / self._burst
        if share <= 1 + age + age * age:
            return 0.0
        due = (math.sqrt(4 * share - 3) - 1) / 2
        return max((due - age) * self._span, 1e-3)
