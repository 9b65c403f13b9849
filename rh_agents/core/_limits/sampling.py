"""Looking at a run from time to time: what is in flight, what waits for what, and whether anything comes forward.

Nothing is counted for this while calls are made. What a run needs for itself is enough: the calls under way (it waits
for them when it is stopped), its open groups, its ledgers. A call that waits says so in `Frame.held_up`; it has the
time. So a look costs what there is to look at, about a microsecond for each call under way.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from typing import Any, Final, NamedTuple, Protocol, cast

from rh_agents.core._limits.accounts import Accounts
from rh_agents.core._limits.interruption import Interruption
from rh_agents.core._limits.ledgers import Ledger
from rh_agents.core.metrics import RunCounter
from rh_agents.core.policies.breaker import BreakerState, CircuitBreaker
from rh_agents.core.policies.numbers import SettingState
from rh_agents.core.ports.present import (
    MOST_LISTED,
    BudgetState,
    GroupState,
    OpenBreaker,
    Present,
    Retrying,
    RunningCall,
    Waiting,
    WaitingCall,
)
from rh_agents.core.redaction import logger, without_secrets
from rh_agents.core.types import Clock, EventType

_log = logger("rh_agents.run")
_LOOKED_THROUGH: Final = 500
"""Calls in which budgets and breakers are looked for: those of calls side by side are the same few."""
_CLOCKS_DIFFER_BY: Final = 1.0
"""Seconds by which the time of day may move against the event loop's clock until it is compared anew."""


class HeldUp(NamedTuple):
    """Why a call does not come forward. Times are those of the event loop.

    Attributes:
        name: the limit that it waits for; "" if it waits for its next attempt.
        why: what of that limit.
        since: when that began.
        due_at: when its next attempt is due.
    """

    name: str
    since: float
    why: str = ""
    due_at: float | None = None


class CallSeen(Protocol):
    """A call under way, as far as it is looked at."""

    key: bytes | None
    group_id: str | None
    address: str
    name: str
    parent: Any
    actor: Any
    began_at: float
    attempts: int
    held_up: HeldUp | None
    breaker: CircuitBreaker | None
    ledgers: tuple[Ledger, ...]


class GroupSeen(Protocol):
    """An open group, as far as it is looked at."""

    @property
    def state(self) -> GroupState:
        """What there is to say of it."""
        ...

    @property
    def breaker(self) -> CircuitBreaker | None:
        """That of its members."""
        ...


class SettingsSeen(Protocol):
    """The numbers that people can change."""

    def known(self) -> list[SettingState]:
        """As they are now."""
        ...


class RunSeen(Protocol):
    """The parts of a run that are looked at."""

    @property
    def interruption(self) -> Interruption:
        """Knows the calls under way."""
        ...

    @property
    def budgets(self) -> Accounts:
        """Know what is spent."""
        ...

    @property
    def recording(self) -> Any:
        """Knows the outcomes."""
        ...

    @property
    def counter(self) -> RunCounter:
        """Knows how many calls have ended."""
        ...

    @property
    def open_groups(self) -> dict[str, Any]:
        """Groups by id, the outermost first."""
        ...

    @property
    def settings(self) -> SettingsSeen:
        """Know the numbers that people can change."""
        ...

    @property
    def paused_at(self) -> float | None:
        """Since when it is paused."""
        ...

    @property
    def now(self) -> Clock:
        """The time of day."""
        ...


class Sampler:
    """Takes looks at one run. Called on its event loop.

    Args:
        run: the run, which has been opened.
        run_id: its name, for the log.
        asking: tells how many questions are open.
    """

    def __init__(self, run: RunSeen, run_id: str, asking: Callable[[], int]) -> None:
        self._run = run
        self._run_id = run_id
        self._asking = asking
        self._began_at = run.now()
        self._ahead = self._began_at - asyncio.get_running_loop().time()
        self._progress = self._count()
        self._last_outcome_at: float | None = None
        self._reported: float | None = None
        """The beginning of the stretch without an outcome that has been reported."""

    def __call__(self) -> Present:
        """What the run is doing now."""
        run, now = self._run, self._run.now()
        self._compare_clocks(now)
        progress = self._count()
        if progress != self._progress:
            self._progress, self._last_outcome_at = progress, now
        groups: list[GroupSeen] = list(run.open_groups.values())
        callers = run.interruption.under_way.callers
        every = cast(list[CallSeen], [call for call, caller in callers.items() if caller is not None])
        calls = _leaves(every)
        at_work = [call for call in calls if call.held_up is None and call.actor.event_type is not EventType.QUESTION]
        held_up = [(call, call.held_up) for call in calls if call.held_up is not None]
        retrying = [(held.due_at, call) for call, held in held_up if held.due_at is not None]
        waiting = [(held, call) for call, held in held_up if held.due_at is None]
        recorded, spent = run.recording.recorded, run.budgets.spent
        present = Present(
            now,
            in_flight=len(at_work),
            waiting=self._waiting(held for held, _ in waiting),
            retrying=self._retrying(retrying),
            retries=len(retrying),
            asking=self._asking(),
            groups=_groups(groups[:MOST_LISTED], every),
            breakers=_breakers(groups, calls),
            budgets=_budgets(run.budgets, calls),
            paused_at=run.paused_at,
            running=tuple(map(self._running, at_work[:MOST_LISTED])),
            outcomes=progress[0],
            failed=len(recorded.failed) - len(recorded.dismissed),
            usage=spent.usage,
            last_outcome_at=self._last_outcome_at,
            began_at=self._began_at,
            held=self._held(waiting),
            settings=_settings(run.settings),
        )
        self._report_quiet(present)
        return present

    def _count(self) -> tuple[int, int, int]:
        """What is another one when something has finished: outcomes, calls that ended, and members of groups."""
        run = self._run
        members = sum(group.state.finished for group in run.open_groups.values())
        return len(run.recording.recorded.finished), run.counter.calls, members

    def _compare_clocks(self, now: float) -> None:
        """Times of the event loop become times of day by the same difference each time, so that they stay the same."""
        ahead = now - asyncio.get_running_loop().time()
        if abs(ahead - self._ahead) > _CLOCKS_DIFFER_BY:
            self._ahead = ahead

    def _running(self, call: CallSeen) -> RunningCall:
        return RunningCall(_hex(call.key), call.address or call.name, self._ahead + call.began_at, call.attempts)

    def _retrying(self, calls: Sequence[tuple[float, CallSeen]]) -> tuple[Retrying, ...]:
        first = nsmallest(MOST_LISTED, calls, key=lambda each: each[0])
        return tuple(
            Retrying(_hex(call.key), call.address or call.name, self._ahead + due_at, call.attempts)
            for due_at, call in first
        )

    def _waiting(self, waits: Iterable[HeldUp]) -> tuple[Waiting, ...]:
        found: dict[str, Waiting] = {}
        for held in waits:
            known, since = found.get(held.name), self._ahead + held.since
            if known is None:
                found[held.name] = Waiting(without_secrets(held.name), 1, since, held.why)
            else:
                why = held.why or known.why  # only the first in line knows
                found[held.name] = known._replace(calls=known.calls + 1, since=min(known.since, since), why=why)
        return tuple(nsmallest(MOST_LISTED, found.values(), key=lambda each: each.since))

    def _held(self, calls: Sequence[tuple[HeldUp, CallSeen]]) -> tuple[WaitingCall, ...]:
        first = nsmallest(MOST_LISTED, calls, key=lambda each: each[0].since)
        return tuple(
            WaitingCall(_hex(call.key), call.address or call.name, without_secrets(held.name), self._ahead + held.since)
            for held, call in first
        )

    def _report_quiet(self, present: Present) -> None:
        """Say once for each stretch that nothing has finished for long."""
        seconds = present.quiet_for(present.at)
        since = present.last_outcome_at or self._began_at
        if seconds is None or self._reported == since:
            return
        self._reported = since
        _log.warning(
            "run %r: nothing has finished for %.0f minutes; %s. `rh-agents show` says what it is doing",
            self._run_id,
            seconds / 60,
            f"under way the longest: {present.where}" if present.where else "its calls wait for limits",
        )


def while_it_is_there(sampler: Sampler) -> Callable[[], Present | None]:
    """What takes a look as long as somebody else has the run: who is asked to look does not keep it."""
    there = weakref.ref(sampler)

    def sample() -> Present | None:
        found = there()
        return None if found is None else found()

    return sample


def _leaves(calls: Sequence[CallSeen]) -> list[CallSeen]:
    """Those of the calls under way that wait for no call of their own."""
    callers = {call.parent for call in calls}
    return [call for call in calls if call not in callers]


def _groups(groups: Sequence[GroupSeen], calls: Sequence[CallSeen]) -> tuple[GroupState, ...]:
    """Groups with the slots in use: a member that waits for its next attempt needs none."""
    members = Counter(call.group_id for call in calls if call.held_up is None or call.held_up.due_at is None)
    return tuple(each._replace(in_use=members[each.group_id]) for each in (group.state for group in groups))


def _settings(settings: SettingsSeen) -> tuple[SettingState, ...]:
    finite = [each for each in settings.known() if math.isfinite(each.value)]
    return tuple(each._replace(name=without_secrets(each.name)) for each in finite[:MOST_LISTED])


def _hex(key: bytes | None) -> str | None:
    return None if key is None else key.hex()


def _breakers(groups: Sequence[GroupSeen], calls: Sequence[CallSeen]) -> tuple[OpenBreaker, ...]:
    found = [group.breaker for group in groups] + [call.breaker for call in calls[:_LOOKED_THROUGH]]
    breakers = dict.fromkeys(each for each in found if each is not None and each.state is not BreakerState.CLOSED)
    return tuple(
        OpenBreaker(without_secrets(each.name), each.state.value, each.failures)
        for each in list(breakers)[:MOST_LISTED]
    )


def _budgets(accounts: Accounts, calls: Sequence[CallSeen]) -> tuple[BudgetState, ...]:
    """The ledgers that count what is under way, that of the run first."""
    first = () if accounts.of_run is None else (accounts.of_run,)
    ledgers = dict.fromkeys(first)
    for call in calls[:_LOOKED_THROUGH]:
        ledgers.update(dict.fromkeys(call.ledgers))
    return tuple(_budget(ledger) for ledger in list(ledgers)[:MOST_LISTED])


def _budget(ledger: Ledger) -> BudgetState:
    numbers = {name: ledger.limit_of(name) for name in ("cost", "tokens", "calls", "seconds")}
    limits = {name: limit for name, limit in numbers.items() if limit is not None}
    used = {name: ledger.in_use(name) for name in limits}
    return BudgetState(
        without_secrets(ledger.name if ledger.share is None else f"{ledger.share.name} (shared)"),
        limits,
        {name: math.floor(spent) if name == "seconds" else spent for name, (spent, _) in used.items()},
        {name: kept for name, (_, kept) in used.items() if kept},
    )
