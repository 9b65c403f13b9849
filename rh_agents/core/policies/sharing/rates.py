"""A rate limit that processes share: buckets of what was used, and blocks of permits that processes have on lease.

A process that wants permits gets a block of them, worth about 100 ms, if the window has room for all of it. It may use
them until the lease of the block ends, 200 ms after it *asked*, by its own monotonic clock; so no clock of a machine is
ever compared with that of another one. When it asks again it reports when it used how much of the block before, as the
time of the grant plus what has passed since it asked: that is not before the moment at which it really did, by the
clock of the store. What it did not use is free again. What is reported goes into a bucket, whose time is its *end*; a
block that no one has reported counts in full, at the end of its lease. So everything counts at least until it has left
the window, whoever dies or is stopped in between, and at most for the width of a bucket longer.

Processes that were refused stand in a line, in the order of their first refusal. Who comes later gets only what leaves
enough for one call of each process before it, and no more than its share, so that everybody comes to the front. Who
does not ask again when it said that it would is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rh_agents.core.policies.sharing.windows import Amounts, RateWindow, SharedState, moment_of

__all__ = ["LEASE", "LOOK", "BlockReport", "RateAnswer", "RateAsk", "ask_for_permits"]

LEASE: Final = 0.2
"""Seconds for which a process may use a block, unless the store is slower than that."""
LOOK: Final = 1.0
"""Seconds after which a window is asked again at the latest: others may have used less than they reserved."""
_WORTH: Final = 0.1
"""Seconds of the limit that one block is worth, at most."""
_BATCH: Final = 0.02
"""Seconds of the limit for which it is worth asking: fewer permits would be more transactions than use."""
_BUCKETS: Final = 200
"""How many buckets a window has, so that one is half a percent of it."""
_MOST_BLOCKS: Final = 256
"""More blocks without a report are kept by the ends of their leases alone."""
_GRACE: Final = 0.5
"""Seconds for which a place in the line is kept for who asks late."""
_HEARD_FOR: Final = 60.0
"""Seconds within which the same question may come once more."""
_LEAST_WAIT: Final = 0.001


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What became of permits.

    Attributes:
        block: the block that is given back, and in place of which `used` counts; None if `used` are corrections, of
            what was reported before.
        used: when how much was used, or how much more (or less) than was reported for that moment.
    """

    block: str | None
    used: Sequence[tuple[float, Amounts]]


@dataclass(frozen=True, slots=True)
class RateAsk:
    """What a process says to a shared window, and wants of it.

    Attributes:
        window: its numbers.
        process: who asks: the same in every question, and no one else's.
        block: the name of the block that it may get, which no other question has.
        need: what one call needs; None if it only reports.
        count: for how many calls it wants permits.
        lease: for how many seconds it will use them at most, counted from before this question.
        reports: of what it had before.
        hold: no one is to be admitted for this many seconds; None or 0 for no wish.
    """

    window: RateWindow
    process: str
    block: str = ""
    need: Amounts | None = None
    count: int = 1
    lease: float = LEASE
    reports: Sequence[BlockReport] = ()
    hold: float | None = None


@dataclass(frozen=True, slots=True)
class RateAnswer:
    """What a process gets.

    Attributes:
        count: for how many calls it has permits now; 0 if for none.
        at: when that was, by the clock of the window.
        wait: this many seconds from now it is worth asking again.
        why: the limit that is in the way: a name among `limits`, or "held".
    """

    count: int
    at: float
    wait: float = 0.0
    why: str = ""


def ask_for_permits(state: SharedState, ask: RateAsk, now: float) -> RateAnswer:
    """Answer a question, and change the window by it. An amount above its limit passes when nothing else counts."""
    window = _Window(state, ask.window, moment_of(state, now))
    is_repeated = window.has_heard(ask)
    for report in ask.reports:
        if report.block is not None or not is_repeated:
            window.take_report(report)
    if ask.hold:
        state["held"] = max(float(state.get("held", 0.0)), window.now + ask.hold)
    if ask.need is None:
        return RateAnswer(0, window.now)
    held = float(state.get("held", 0.0)) - window.now
    if held > 0:
        return RateAnswer(0, window.now, held, "held")
    return window.grant(ask, ask.need)


class _Window:
    """The window at one moment: [end of a bucket, amounts], and {name of a block: [end of its lease, amounts]}."""

    def __init__(self, state: SharedState, window: RateWindow, now: float) -> None:
        self.state = state
        self.per = window.per
        self.limits = window.limits
        self.now = now
        gone = now - window.per
        self.used: dict[float, dict[str, float]] = {}
        for end, amounts in state.get("used", ()):
            if end > gone:
                self._count(end, amounts)
        self.blocks: dict[str, Any] = {name: each for name, each in state.get("blocks", {}).items() if each[0] > gone}
        while len(self.blocks) > _MOST_BLOCKS:
            end, amounts = self.blocks.pop(min(self.blocks, key=lambda name: self.blocks[name][0]))
            self._count(self._end_of(end), amounts)
        self._keep()

    def _keep(self) -> None:
        self.state["used"] = sorted([end, amounts] for end, amounts in self.used.items() if any(amounts.values()))
        self.state["blocks"] = self.blocks

    def _end_of(self, moment: float) -> float:
        """The end of the bucket that has this moment in it."""
        width = self.per / _BUCKETS
        return max(moment, math.ceil(moment / width) * width)

    def _count(self, end: float, amounts: Amounts) -> None:
        bucket = self.used.setdefault(end, {})
        for kind, amount in amounts.items():
            bucket[kind] = max(0.0, bucket.get(kind, 0.0) + amount)

    def has_heard(self, ask: RateAsk) -> bool:
        """Whether the same question came before: the connection broke, and no one knew. Corrections count once."""
        heard = {name: each for name, each in self.state.get("heard", {}).items() if each[1] > self.now - _HEARD_FOR}
        is_repeated = bool(heard.get(ask.process, ("", 0))[0] == ask.block)
        if any(report.block is None for report in ask.reports):
            heard[ask.process] = [ask.block, self.now]
        self.state["heard"] = heard
        return is_repeated

    def take_report(self, report: BlockReport) -> None:
        """Let what was used count, in place of the block; one that does not count in its own name counts in full."""
        if report.block is not None and self.blocks.pop(report.block, None) is None:
            return
        for moment, amounts in report.used:
            end = self._end_of(moment)
            if end + self.per <= self.now:
                continue
            self._count(end, amounts)
        self._keep()

    def grant(self, ask: RateAsk, need: Amounts) -> RateAnswer:
        """Permits for some calls, or a place in the line of those who wait."""
        line = [each for each in self.state.get("line", ()) if each[1] > self.now]
        place = next((index for index, each in enumerate(line) if each[0] == ask.process), len(line))
        before, others = [each[2] for each in line[:place]], len(line) - (place < len(line))
        most = {kind: self._worth(kind, need) for kind in self.limits}
        wanted = max(1, min(ask.count, *(most[kind] for kind in most)))
        count = min(wanted, self._room(need, before, others))
        if count >= 1:
            self.blocks[ask.block] = [self.now + ask.lease, {kind: need.get(kind, 0.0) * count for kind in need}]
            self.state["line"] = [each for each in line if each[0] != ask.process]
            self._keep()
            return RateAnswer(count, self.now)
        wait, why = self._until_free(need, before, min(wanted, self._batch(need)))
        again = self.now + min(wait, LOOK) + _GRACE
        line[place : place + 1] = [[ask.process, again, dict(need)]]
        self.state["line"] = line
        return RateAnswer(0, self.now, wait, why)

    def _worth(self, kind: str, need: Amounts, seconds: float = _WORTH) -> int:
        """For how many calls there are permits in this many seconds of the limit, at least one."""
        wanted = self._wanted(kind, need)
        most = math.inf if wanted <= 0 else self.limits[kind] * seconds / self.per / wanted
        return 1_000_000 if most > 1_000_000 else max(1, int(most))

    def _batch(self, need: Amounts) -> int:
        return min((self._worth(kind, need, _BATCH) for kind in self.limits), default=1)

    def _wanted(self, kind: str, need: Amounts) -> float:
        return min(need.get(kind, 0.0), self.limits[kind])

    def _room(self, need: Amounts, before: Sequence[Amounts], others: int) -> int:
        """For how many calls there is room beside those before it in the line; then its share, but at least one."""
        room = 1_000_000
        for kind, limit in self.limits.items():
            wanted = self._wanted(kind, need)
            if wanted > 0:
                free = limit - self._total(kind) - sum(self._wanted(kind, each) for each in before)
                room = min(room, int((free + 1e-9 * limit) / wanted))
        return room if room < 1 else max(1, room // (others + 1))

    def _entries(self) -> Iterable[tuple[float, Amounts]]:
        yield from self.used.items()
        yield from ((end, amounts) for end, amounts in self.blocks.values())

    def _total(self, kind: str) -> float:
        return sum(amounts.get(kind, 0.0) for _, amounts in self._entries())

    def _until_free(self, need: Amounts, before: Sequence[Amounts], count: int) -> tuple[float, str]:
        """Seconds until there is room for so many calls, and what is in the way longest."""
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        worst = (_LEAST_WAIT, "others wait")
        for kind, limit in self.limits.items():
            asked = min(limit, self._wanted(kind, need) * count)
            ahead = sum(self._wanted(kind, each) for each in before)
            excess = sum(amounts.get(kind, 0.0) for _, amounts in entries) + ahead + asked - limit
            if asked <= 0 or excess <= 1e-9 * limit:
                continue
            wait = self.per
            for end, amounts in entries:
                excess -= amounts.get(kind, 0.0)
                if excess <= 1e-9 * limit:
                    wait = max(_LEAST_WAIT, end + self.per - self.now)
                    break
            if wait >= worst[0]:
                worst = (wait, kind)
        return worst
