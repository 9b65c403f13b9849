"""What this process has of shared limits on lease, and what it has to say of that.

All of it is bookkeeping: nothing here waits, and whoever calls it holds the lock of the limit. See
`rh_agents.core.policies.sharing.rates` and `.slots` for what the questions mean.
"""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass, field

from rh_agents.core.policies.limits import Permit
from rh_agents.core.policies.sharing.rates import LEASE, BlockReport, RateAnswer, RateAsk
from rh_agents.core.policies.sharing.slots import SLOT_LEASE, SlotAnswer, SlotAsk
from rh_agents.core.policies.sharing.windows import Amounts, RateWindow

_REPORT_EVERY = 0.1
"""Seconds between two reports that only say that less was used, while calls are under way."""
_SLOW = 4.0
"""A lease is so many times as long as the store took to answer, where that is slow."""


@dataclass(slots=True)
class _Block:
    """Permits on lease.

    Attributes:
        name: how the store knows it.
        asked_at: when this process asked for it, by its own clock.
        at: when it was granted, by the store's; not before what `asked_at` was there.
        lease: for how many seconds from `asked_at` it may be used.
        left: what has not been used.
        used: what has, by the store's clock.
    """

    name: str
    asked_at: float
    at: float
    lease: float
    left: dict[str, float]
    used: dict[float, dict[str, float]] = field(default_factory=dict)


@dataclass(slots=True)
class _Taken:
    """What a permit took: from which block, at which moment by the store's clock, and how much."""

    block: str
    at: float
    amounts: dict[str, float]


class RateLease:
    """What this process has of one shared window of one store."""

    def __init__(self) -> None:
        self._process = uuid.uuid4().hex
        self._count = 0
        self._block: _Block | None = None
        self._closed: list[BlockReport] = []
        self._corrections: dict[float, dict[str, float]] = {}
        self._taken: dict[Permit, _Taken] = {}
        self._recent: deque[float] = deque()
        self._lease = LEASE
        self._reported_at = float("-inf")
        self._is_more = False
        self._is_less = False
        self._hold = 0.0

    def take(self, permit: Permit, now: float) -> bool:
        """Let a permit take what it needs from the block. False if there is none, or not enough left in it."""
        block = self._block
        if block is None or not block.asked_at <= now < block.asked_at + block.lease:
            return False
        need = permit.amounts
        if any(block.left.get(kind, 0.0) < amount for kind, amount in need.items()):
            return False
        at = block.at + now - block.asked_at
        for kind, amount in need.items():
            block.left[kind] -= amount
        _add(block.used.setdefault(at, {}), need)
        self._taken[permit] = _Taken(block.name, at, dict(need))
        permit.ticket = block.name
        self._recent.append(now)
        return True

    def ask(self, window: RateWindow, need: Amounts | None, waiting: int, now: float) -> RateAsk:
        """What to ask the store: with all that there is to report, which counts as reported from now on.

        Args:
            window: the numbers.
            need: what the next call needs; None to report only.
            waiting: how many calls wait for permits.
            now: the time by this process's clock.
        """
        self._close_block()
        reports, self._closed = self._closed, []
        if self._corrections:
            reports.append(BlockReport(None, list(self._corrections.items())))
            self._corrections = {}
        hold, self._hold = self._hold, 0.0
        self._reported_at = now
        self._is_more = self._is_less = False
        while self._recent and self._recent[0] <= now - _REPORT_EVERY:
            self._recent.popleft()
        self._count += 1
        name = f"{self._process}-{self._count}"
        count = max(1, waiting, len(self._recent))
        return RateAsk(window, self._process, name, need, count, self._lease, reports, hold)

    def answered(self, ask: RateAsk, answer: RateAnswer, asked_at: float, now: float) -> None:
        """The store has answered. A block of which another task has heard meanwhile is given back as it is."""
        self._lease = max(LEASE, _SLOW * (now - asked_at))
        if answer.count == 0:
            return
        self._close_block()
        left = {kind: amount * answer.count for kind, amount in (ask.need or {}).items()}
        self._block = _Block(ask.block, asked_at, answer.at, ask.lease, left)

    def unanswered(self, ask: RateAsk) -> None:
        """Nobody knows whether the store has read it. What counts twice is better than what does not count."""
        for report in ask.reports:
            if report.block is not None:
                self._closed.append(report)  # it counts once, whoever says it how often
            else:
                for at, amounts in report.used:
                    more = {kind: amount for kind, amount in amounts.items() if amount > 0}
                    _add(self._corrections.setdefault(at, {}), more)
        self._hold = max(self._hold, ask.hold or 0.0)
        self._is_more = True

    def hold(self, seconds: float) -> None:
        """The provider wants to be left alone for so long."""
        self._hold = max(self._hold, seconds)

    def release(self, permit: Permit, used: Amounts | None) -> None:
        """An attempt has ended and really used so much; None if that is not known, or what was granted."""
        taken = self._taken.pop(permit, None)
        if taken is None or used is None:
            return
        kinds = {*taken.amounts, *used}
        change = {kind: used.get(kind, 0.0) - taken.amounts.get(kind, 0.0) for kind in kinds}
        change = {kind: amount for kind, amount in change.items() if amount}
        if not change:
            return
        self._is_more = self._is_more or max(change.values()) > 0
        self._is_less = True
        block = self._block
        if block is not None and block.name == taken.block:
            _add(block.used[taken.at], change)
            if not used:  # it did not begin, so another one may
                _add(block.left, taken.amounts)
        else:
            _add(self._corrections.setdefault(taken.at, {}), change)

    def has_news(self, now: float) -> bool:
        """Whether others should be told now: of more than was reserved, of a wait, or of what they may have."""
        if self._hold or self._is_more:
            return True
        return self._is_less and (not self._taken or now >= self._reported_at + _REPORT_EVERY)

    def _close_block(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            self._closed.append(BlockReport(block.name, list(block.used.items())))


class SlotLease:
    """What this process has of the slots of one shared limit of one store."""

    def __init__(self) -> None:
        self._process = uuid.uuid4().hex
        self._holders: set[Permit] = set()
        self._until = float("-inf")
        self._usable = 0
        self._most: int | None = None
        self.count: int = 0
        """How many slots it has on lease, as far as the lease has not ended."""

    def take(self, permit: Permit, now: float, *, is_forced: bool = False) -> bool:
        """Let a permit have one of the slots, or (`is_forced`) one more than there are; False if none is free."""
        if not is_forced and (len(self._holders) >= self._usable or now >= self._until):
            return False
        self._holders.add(permit)
        return True

    def release(self, permit: Permit) -> None:
        """A call holds its slot no more. If others wait, and there are more here than this part, it is theirs."""
        self._holders.discard(permit)
        if self._most is not None:
            self._usable = max(len(self._holders), min(self._usable, self._most))

    def has_spare(self, waiting: int) -> bool:
        """Whether it has slots that others should have now: they wait for them, or no call is under way here."""
        in_use = len(self._holders)
        is_wanted = self._most is not None or not in_use
        return self.count > self._usable or (is_wanted and self.count > in_use + waiting)

    def ask(self, limit: int, waiting: int) -> SlotAsk:
        """What to ask the store when so many calls wait."""
        in_use = len(self._holders)
        return SlotAsk(self._process, limit, in_use, in_use + waiting)

    def answered(self, answer: SlotAnswer, asked_at: float) -> None:
        """The store has answered."""
        self.count = self._usable = answer.count
        self._most = answer.most
        self._until = asked_at + SLOT_LEASE


def _add(to: dict[str, float], amounts: Amounts) -> None:
    for kind, amount in amounts.items():
        to[kind] = to.get(kind, 0.0) + amount
