"""What people see of calls: one in a few words, some of many in an order, all that is recorded of one."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rh_agents.core.ports import RecordedEvent
from rh_agents.core.results import Outcome
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage

__all__ = [
    "MOST",
    "ORDERS",
    "RANGES",
    "Attempt",
    "CallQuery",
    "CallRecord",
    "CallRef",
    "CallView",
    "CallWindow",
    "Replaced",
    "Within",
    "cursor",
    "expect_count",
    "lowered",
    "no_cursor",
    "read_cursor",
    "window_of",
]

MOST: Final = 200
"""Calls in one window."""
ORDERS: Final = (
    "journal", "seconds", "cost", "tokens", "attempts", "status", "address", "message", "waited", "worked",
)  # fmt: skip
"""By what calls can be sorted. "journal" is the order in which they ended; numbers that are not there count as 0, texts
as ""; texts are compared by their code points, and what is equal stands in the order of the journal. "worked" is
how long a call took without what it waited."""
RANGES: Final = ("time", "seconds", "attempts", "cost", "waited")
"""By what else calls can be chosen, from one number to another: "time" is when they were under way, in seconds since
1970."""

_MOST_NUMBER: Final = 1 << 62
_MOST_SEQUENCE: Final = 1 << 40
"""Whole numbers that databases can hold, and that an event of a run can have: what is more was never in a cursor."""


class Replaced(NamedTuple):
    """An outcome of a call that was made again: it counts no more.

    Attributes:
        sequence: of the event that reports it.
        status: what it was: FAILED, CANCELLED, or COMPLETED, if someone asked for the call to be made again.
        seconds: how long that took.
        cost: what that event says was spent; None where it says nothing.
    """

    sequence: int
    status: ExecutionStatus
    seconds: float | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class CallView:
    """One call in a few words.

    Attributes:
        sequence: of the event that decides: that with the outcome; of a call under way, of its newest event.
        key: the identity of the call, in hexadecimal.
        address, name: where it was made, and what it is called there.
        actor: whose call it is, as summaries name it: the actor, or a plain function.
        kind: of the event.
        status: what it came to; STARTED, RETRYING, AWAITING ... of a call under way.
        began_at, ended_at: seconds since 1970; `ended_at` is None of a call under way.
        seconds: how long it took, with all attempts and what was between them.
        attempts: how many there were.
        message: what went wrong, in one line.
        group_id, index: the group of which it is a member, and its place there.
        usage: what the deciding event says was used; attempts before it have theirs in events of their own.
        from_cache: whether nothing was called.
        waited: for how many of its seconds it waited, see `ExecutionEvent.waited`.
        input: what it was called with, in brief; None where that was not recorded.
        replaces: the outcome that this one replaces.
        damage: what is wrong with the row, if it cannot be read: then nothing else but `sequence` is right.
    """

    sequence: int
    key: str
    address: str
    name: str
    actor: str
    kind: EventType
    status: ExecutionStatus
    began_at: float | None = None
    ended_at: float | None = None
    seconds: float | None = None
    attempts: int = 1
    message: str | None = None
    group_id: str | None = None
    index: int | None = None
    usage: Usage | None = None
    from_cache: bool = False
    input: str | None = None
    replaces: Replaced | None = None
    damage: str | None = None
    waited: float = 0.0

    def value(self, order: str) -> float | str:
        """What it is sorted by in one of the `ORDERS`."""
        used = self.usage or Usage()
        return {
            "journal": self.sequence,
            "seconds": self.seconds or 0.0,
            "cost": used.cost or 0.0,
            "tokens": used.input_tokens + used.output_tokens,
            "attempts": self.attempts,
            "status": self.status.value,
            "address": self.address,
            "message": self.message or "",
            "waited": self.waited,
            "worked": (self.seconds or 0.0) - self.waited,
        }[order]

    def span(self, name: str) -> tuple[float, float]:
        """The least and the greatest of what it has of one of the `RANGES`."""
        if name == "time":
            return self.began_at or 0.0, math.inf if self.ended_at is None else self.ended_at
        value = float(self.value(name))
        return value, value


@dataclass(frozen=True, slots=True)
class CallWindow:
    """Some calls in their order.

    Attributes:
        calls: at most as many as were asked for.
        next: give this as `after` for those behind them; None if there are none now.
        until: it shows the run up to this event.
    """

    calls: tuple[CallView, ...] = ()
    next: str | None = None
    until: int = 0


class Within(NamedTuple):
    """Only calls that have something of one of the `RANGES` between two numbers, or equal to one; None is no bound."""

    name: str
    least: float | None = None
    most: float | None = None

    def fits(self, call: CallView) -> bool:
        """Whether a call is wanted."""
        least, most = call.span(self.name)
        return (self.least is None or most >= self.least) and (self.most is None or least <= self.most)


@dataclass(frozen=True, slots=True)
class CallQuery:
    """Which calls that have ended are wanted, and in which order.

    Attributes:
        status, actor, group: only these; `actor` as in `CallView.actor`.
        text: only those in whose address or message this stands; ASCII letters of either case are equal.
        order: one of `ORDERS`.
        descending: the greatest first, or the newest.
        after: the `next` of the window before.
        first: leave out so many of those that fit; only with a group, in the order of the journal.
        n: how many, at most `MOST`.
        within: only those that fit each of these.

    Raises:
        ValueError: there is no such order or range, the cursor is none, or there are too many.
    """

    status: ExecutionStatus | None = None
    actor: str | None = None
    group: str | None = None
    text: str | None = None
    order: str = "journal"
    descending: bool = False
    after: str | None = None
    first: int = 0
    n: int = MOST
    within: tuple[Within, ...] = ()

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"calls are sorted by one of {', '.join(ORDERS)}, not by {self.order!r}")
        expect_count(self.n)
        for each in self.within:
            if each.name not in RANGES:
                raise ValueError(f"calls are chosen by ranges of {', '.join(RANGES)}, not of {each.name!r}")
        if self.first < 0 or (self.first and (self.order != "journal" or self.descending or self.after or self.within)):
            raise ValueError("first= counts members of a group from its beginning, in the order of the journal")
        self.position  # noqa: B018 - it raises for what is no cursor

    @property
    def position(self) -> tuple[float | str, int] | None:
        """Behind which call the window begins: what it is sorted by, and its sequence.

        Raises:
            ValueError: `after` is no cursor.
        """
        return None if self.after is None else read_cursor(self.after)

    def fits(self, call: CallView) -> bool:
        """Whether a call is wanted."""
        return (
            (self.status is None or call.status is self.status)
            and (self.actor is None or call.actor == self.actor)
            and (self.group is None or call.group_id == self.group)
            and (not self.text or any(_has(text, self.text) for text in (call.address, call.message or "")))
            and all(each.fits(call) for each in self.within)
        )

    def place(self, call: CallView) -> tuple[float | str, int]:
        """Where it stands among others."""
        return call.value(self.order), call.sequence


def expect_count(n: int) -> None:
    """See to it that a window is one.

    Raises:
        ValueError: it would have no calls, or too many.
    """
    if not 1 <= n <= MOST:
        raise ValueError(f"a window has 1 to {MOST} calls, not {n}: ask for the next one with after=")


def cursor(place: tuple[float | str, int]) -> str:
    """What stands for a place in a window, for `after`."""
    return json.dumps(place)


def read_cursor(text: str) -> tuple[float | str, int]:
    """The place of which `cursor` made this.

    Raises:
        ValueError: it is none.
    """
    try:
        value, sequence = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        value = sequence = None
    if not isinstance(sequence, int) or not 0 <= sequence <= _MOST_SEQUENCE:
        raise no_cursor(text)
    if not isinstance(value, int | float | str) or (isinstance(value, float) and math.isnan(value)):
        raise no_cursor(text)
    if isinstance(value, int) and abs(value) > _MOST_NUMBER:
        raise no_cursor(text)
    return value, sequence


def no_cursor(text: str) -> ValueError:
    """The error that says that this begins no window."""
    return ValueError(f"after= is the `next` of a window, not {text!r:.80}")


def _has(text: str, wanted: str) -> bool:
    """Whether a text has another one in it; letters of ASCII in either case are equal, as databases have it."""
    return lowered(wanted) in lowered(text)


def lowered(text: str) -> str:
    """A text with the letters of ASCII in lower case, and no others."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


class CallRef(NamedTuple):
    """A call by its key in hexadecimal and its address; that is "" where nothing is recorded of it."""

    key: str
    address: str


class Attempt(NamedTuple):
    """One attempt of a call.

    Attributes:
        number: from 1.
        status: RETRYING of one after which there was another; else what the call came to.
        ended_at: seconds since 1970; None while it is under way.
        delay: seconds until the next one.
        message: what went wrong, in one line.
        usage: what it used.
    """

    number: int
    status: ExecutionStatus
    ended_at: float | None = None
    delay: float | None = None
    message: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class CallRecord:
    """All that is recorded of one call.

    Attributes:
        call: how it stands.
        attempts: every one of the execution that recorded the outcome, or of the one under way, oldest first.
        events: all of its events, without their values, oldest first.
        parents: the calls around it, outermost first.
        why: why it was made: "new", "made again: it had failed", "made again: it was cut off", "made again: someone
            asked for that", or "from a cache".
        tries: its earlier outcomes, oldest first.
        read: gives its outcome with the value or the error, decoded only then; None while there is none.
    """

    call: CallView
    attempts: tuple[Attempt, ...] = ()
    events: tuple[RecordedEvent, ...] = ()
    parents: tuple[CallRef, ...] = ()
    why: str = "new"
    tries: tuple[Replaced, ...] = ()
    read: Callable[[], Awaitable[Outcome]] | None = field(default=None, compare=False)


def window_of(found: Sequence[CallView], query: CallQuery, until: int) -> CallWindow:
    """A window of calls of which one more than wanted was looked for, if there is one."""
    calls = tuple(found[: query.n])
    return CallWindow(calls, cursor(query.place(calls[-1])) if len(found) > query.n else None, until)
