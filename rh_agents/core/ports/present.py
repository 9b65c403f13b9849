"""What a run is doing now, as its owner says about once a second, so that every other process can see it.

The journal says what has begun and what has ended. What lies in between (a call waits for a limit, or for its next
attempt) is worth no entry of it. So the owner of a run takes a look at itself and writes what it sees into a small row
of its own, beside the journal. The row is no part of a replay, and it is gone with the run.

A look is a *sample*: nothing is counted up or down while calls are made. What came and went between two looks is not
seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from rh_agents.core.policies.numbers import SettingState
from rh_agents.core.usage import Usage

__all__ = [
    "MOST_LISTED",
    "QUIET_AFTER",
    "BudgetState",
    "GroupState",
    "OpenBreaker",
    "Present",
    "Presented",
    "Presenting",
    "Retrying",
    "RunningCall",
    "Waiting",
    "WaitingCall",
    "present_of_run",
]

MOST_LISTED: Final = 50
"""How many calls, groups, limits, breakers and budgets are named at most, each; of more, the numbers tell."""
QUIET_AFTER: Final = 300.0
"""Seconds without an outcome, while calls are under way, that are worth a word."""


class RunningCall(NamedTuple):
    """A call that is being made, and waits for no call of its own.

    Attributes:
        key: in hexadecimal; None if it has none.
        address: its readable place.
        since: when it began, in seconds since 1970.
        attempt: the number of the attempt under way, from 1; 0 if it waits for the first one.
    """

    key: str | None
    address: str
    since: float
    attempt: int


class Waiting(NamedTuple):
    """Calls that wait for a limit, or for the budget that others have reserved.

    Attributes:
        name: of the limit.
        calls: how many wait for it.
        since: since when the first of them does, in seconds since 1970.
        why: what the one that is first in line waits for, such as "requests"; "" if that is not known.
    """

    name: str
    calls: int
    since: float
    why: str = ""


class WaitingCall(NamedTuple):
    """One of the calls that wait for a limit, or for the budget that others have reserved.

    Attributes:
        key, address: as in `RunningCall`.
        name: of the limit.
        since: since when it waits, in seconds since 1970.
    """

    key: str | None
    address: str
    name: str
    since: float


class Retrying(NamedTuple):
    """A call that waits for its next attempt, which is due at `due_at`, in seconds since 1970."""

    key: str | None
    address: str
    due_at: float
    attempt: int = 0
    """The number of attempts that have failed."""


class GroupState(NamedTuple):
    """A group whose block is open.

    Attributes:
        group_id, name, address: as in its events.
        in_use: how many of its slots are taken.
        slots: how many it has.
        finished: how many of its members have ended, in whatever way.
        total: how many there will be; None while that is not known.
        requeues: whether those of its members that failed are made again at once when a person asks for it.
        failed: how many of those that have ended failed.
        begun: how many have begun, those that have ended among them.
    """

    group_id: str
    name: str
    address: str
    in_use: int
    slots: int
    finished: int = 0
    total: int | None = None
    requeues: bool = False
    failed: int = 0
    begun: int = 0


class OpenBreaker(NamedTuple):
    """A circuit breaker that is not closed: its name, its state ("open" or "half_open"), failures in a row."""

    name: str
    state: str
    failures: int = 0


class BudgetState(NamedTuple):
    """A budget under which calls are being made.

    Attributes:
        name: of the part of the run that it is for; "" is the run itself.
        limits: what the budget allows, by field ("cost", "tokens", "calls", "seconds"), as far as it says so.
        spent, reserved: the same of what was spent, and of what is reserved for calls under way.
    """

    name: str
    limits: Mapping[str, float]
    spent: Mapping[str, float]
    reserved: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Present:
    """A run at one moment. Of lists, at most `MOST_LISTED` are named.

    Attributes:
        at: when the owner said so, in seconds since 1970, by its clock. What has not changed is said again only now and
            then: while the run has an owner, it still holds.
        is_over: whether no process executes the run any more, so that nothing is under way. After a crash, until
            another process executes the run or stops it, it is False, and the rest is what was last known.
        in_flight: how many calls are being made, those not counted that wait for calls of their own, or are among the
            following.
        waiting: what calls wait for, those first that have waited longest.
        retrying: calls that wait for their next attempt, those first that are due first.
        retries: how many these are.
        asking: how many questions are open.
        groups: groups whose block is open, outermost first.
        breakers: those that are not closed.
        budgets: that of the run first.
        paused_at: since when nothing new begins, because someone has paused the run; None if no one has.
        running: the calls of `in_flight`, those first that have been running longest.
        held: the calls of `waiting`, those first that have waited longest.
        settings: the numbers that can be set, as far as groups are open and limits have been waited for.
        outcomes: how many calls have one, in all executions.
        failed: how many of these are failures.
        usage: what was used, in all executions.
        last_outcome_at: when the last call came to its outcome, to about a second; None if none has in this execution.
        began_at: when this execution began.
    """

    at: float
    is_over: bool = False
    in_flight: int = 0
    waiting: tuple[Waiting, ...] = ()
    retrying: tuple[Retrying, ...] = ()
    retries: int = 0
    asking: int = 0
    groups: tuple[GroupState, ...] = ()
    breakers: tuple[OpenBreaker, ...] = ()
    budgets: tuple[BudgetState, ...] = ()
    paused_at: float | None = None
    running: tuple[RunningCall, ...] = ()
    outcomes: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)
    last_outcome_at: float | None = None
    began_at: float | None = None
    held: tuple[WaitingCall, ...] = ()
    settings: tuple[SettingState, ...] = ()

    def is_same(self, other: Present | None) -> bool:
        """Whether another one says the same, whenever that was."""
        return other is not None and dataclasses.replace(other, at=self.at) == self

    def ended(self) -> Present:
        """The same when no process executes the run any more: nothing is under way."""
        return Present(
            self.at,
            is_over=True,
            budgets=tuple(each._replace(reserved={}) for each in self.budgets),
            outcomes=self.outcomes,
            failed=self.failed,
            usage=self.usage,
            last_outcome_at=self.last_outcome_at,
            began_at=self.began_at,
        )

    def quiet_for(self, now: float) -> float | None:
        """For how many seconds nothing has finished though calls are under way; None if that is not worth a word.

        A run that is paused, or in which all that is under way waits for a person, is not meant to come forward.
        """
        since = self.last_outcome_at or self.began_at
        is_at_work = self.in_flight or self.retries or self.waiting
        if since is None or self.is_over or self.paused_at is not None or not is_at_work:
            return None
        seconds = now - since
        return seconds if seconds >= QUIET_AFTER else None

    @property
    def names_all(self) -> bool:
        """Whether all calls under way are named, but for those that wait for calls of their own."""
        waiting = sum(each.calls for each in self.waiting)
        named = len(self.running), len(self.held), len(self.retrying)
        return not self.is_over and named == (self.in_flight, waiting, self.retries)

    @property
    def where(self) -> str:
        """The address of the call that has been running longest; else of one that waits for its next attempt."""
        if self.running:
            return self.running[0].address
        return self.retrying[0].address if self.retrying else ""

    def as_json(self) -> dict[str, Any]:
        """What can be written as JSON, without what is not set."""
        record: dict[str, Any] = {}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if value == each.default or value == Usage():
                continue
            if isinstance(value, Usage):
                value = value.as_json()
            elif isinstance(value, tuple):
                value = [item._asdict() for item in value]
            record[each.name] = value
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Present:
        """What `as_json` made, also if a later version did: what is not known is left out.

        Raises:
            ValueError: it is something else.
        """
        try:
            known = {each.name: record[each.name] for each in dataclasses.fields(cls) if each.name in record}
            for name, kind in _LISTS.items():
                known[name] = tuple(_made(kind, item) for item in known.get(name, ()))
            known["usage"] = Usage.from_json(known.get("usage", {}))
            return cls(**known)
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"this is not what the owner of a run says of it: {error}") from error


_LISTS: Final[Mapping[str, Any]] = {
    "waiting": Waiting,
    "retrying": Retrying,
    "groups": GroupState,
    "breakers": OpenBreaker,
    "budgets": BudgetState,
    "running": RunningCall,
    "held": WaitingCall,
    "settings": SettingState,
}


def _made(kind: Any, item: Mapping[str, Any]) -> Any:
    return kind(**{name: value for name, value in item.items() if name in kind._fields})


@runtime_checkable
class Presented(Protocol):
    """A journal that lets others know what its run is doing now."""

    def present_with(self, sample: Callable[[], Present | None]) -> None:
        """Call `sample` on the event loop of the run about once a second, and let others know what it gives.

        It raises nothing, and gives None if the run is gone. It is not called after the run has been closed.
        """
        ...


@runtime_checkable
class Presenting(Protocol):
    """A store that knows what runs are doing now."""

    async def present(self, run_id: str) -> Present | None:
        """See `present_of_run`."""
        ...


async def present_of_run(store: object, run_id: str) -> Present | None:
    """What a run is doing now, as far as its owner has said; values are never read.

    Returns:
        None if nothing is known: it has not been executed for a second, or the store or its journal cannot tell.

    Raises:
        StoreError: there is no such run, or what is known of it is damaged.
    """
    return await store.present(run_id) if isinstance(store, Presenting) else None
