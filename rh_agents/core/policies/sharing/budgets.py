"""A budget that runs share: each has a part of it on lease, and says again and again what it has spent.

One row has it all: what runs have spent that have ended, and of each execution under way (a *holder*) what it has
spent so far, its *part*, which is how much it may have spent in all without asking again, and a *ceiling*, which is how
much of that calls may have in use that are under way: reserved for them, or used by them and not in the journal yet.
All of a part counts, so whatever a holder does within it, no more than stated is spent.

A holder renews its lease once a second. When it has not done so for the length of the lease, by its own monotonic
clock, it begins nothing before it has asked again. From then on its journal can be read: what that shows, and the
ceiling, count as spent; the rest of its part is there for others. If it comes back (it was only stopped for long), it
says itself what it has spent. The next execution of its run knows what the journal shows; where there is none, whoever
asks next reads it. Until then, and where a journal tells nothing, all of its part
counts.

While a holder waits, others keep no more than what they have in use, and what is given back goes to who waits longest.

Of a call that does not say what it will use, nothing is known but what others of its name have used. So the row has the
most that one of each name has used, in any run, and so much is reserved for such a call. What the budget can be
overdrawn by is then what calls use beyond that: all of it for those that began before the first one of their name had
ended and everybody had heard of it (a holder hears it with its next renewal), nothing where calls of one name use
alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rh_agents.core.policies.sharing.windows import Amounts, SharedState, moment_of

__all__ = [
    "AMOUNTS",
    "BUDGET_LEASE",
    "BUDGET_LOOK",
    "BUDGET_RENEWAL",
    "BudgetAnswer",
    "BudgetAsk",
    "BudgetHolder",
    "ask_for_budget",
]

AMOUNTS: Final = ("cost", "tokens", "calls")
"""What is shared of a budget."""
BUDGET_LEASE: Final = 10.0
"""Seconds after which a holder that has said nothing begins no call any more, and its journal may be read."""
BUDGET_RENEWAL: Final = 1.0
"""Seconds between two signs of life of a holder that has a part."""
BUDGET_LOOK: Final = 0.25
"""Seconds after which who waits asks again."""
_GRACE: Final = 1.0
"""Seconds for which a place in the line is kept for who asks late."""
_KEPT_FOR: Final = 86_400.0
"""Seconds for which it is known of a holder whose lease has ended what was counted for it."""
_MOST_KEPT: Final = 256
"""Of more of them only the sum is kept."""
_MOST_NAMES: Final = 256
"""Of calls of more names than that, what they use is known only where they are made."""


@dataclass(frozen=True, slots=True)
class BudgetHolder:
    """One execution of a run that uses a shared budget.

    Attributes:
        id: stands for it; no other execution has it.
        run: whose journal shows what it has spent; None if that journal is not written at once, and shows too little.
        place: the part of the run that uses the budget; "" is all of it.
        since: the number of the last entry that the journal had before this execution.
        before: what the journal showed then that the part had spent, by name (see `AMOUNTS`).
    """

    id: str
    run: str | None = None
    place: str = ""
    since: int = 0
    before: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BudgetAsk:
    """What a holder says and wants. All amounts are by name, see `AMOUNTS`, and count from the start of the holder.

    Attributes:
        holder: who asks.
        limits: the numbers that its program states.
        spent: what it has spent so far.
        reserved: what is reserved beyond that for calls under way.
        need: what the first call that waits needs beyond both; None to say only how things are.
        wanted: what all calls need that wait.
        ceiling: how much its calls have in use at most from now on until it asks again: more than that may have been
            spent if it dies, beside what its journal shows.
        is_new: whether it has never been answered.
        closes: whether it ends: what it has spent stays, its part is given back.
        replaced: numbers that a person has set in place of those that the program states.
        shown: what the journals of lapsed holders show, by their ids; None if a journal cannot tell.
        largest: what a call has used at most here, by its name, of those of which the holder has not heard the same.
    """

    holder: BudgetHolder
    limits: Amounts
    spent: Amounts
    reserved: Amounts = field(default_factory=dict)
    need: Amounts | None = None
    wanted: Amounts = field(default_factory=dict)
    ceiling: Amounts = field(default_factory=dict)
    is_new: bool = False
    closes: bool = False
    replaced: Amounts = field(default_factory=dict)
    shown: Mapping[str, Amounts | None] = field(default_factory=dict)
    largest: Mapping[str, Amounts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BudgetAnswer:
    """What a holder gets.

    Attributes:
        is_granted: whether there is enough for the call that it asked for.
        part: how much it may have spent and reserved in all, where there is a limit.
        missing: what is not left for the call whatever others give back; "" if it is worth asking again.
        limits: the numbers that hold.
        spent: what all have spent, as far as is known.
        reserved: what calls of all have in use beyond that.
        lapsed: of whom it is to be found out what they have spent.
        is_unknown: nothing is known of the holder (any more): it has to begin as another one.
        largest: what a call has used at most, in any of the runs, by its name.
    """

    is_granted: bool = False
    part: Amounts = field(default_factory=dict)
    missing: str = ""
    limits: Amounts = field(default_factory=dict)
    spent: Amounts = field(default_factory=dict)
    reserved: Amounts = field(default_factory=dict)
    lapsed: tuple[BudgetHolder, ...] = ()
    is_unknown: bool = False
    largest: Mapping[str, Amounts] = field(default_factory=dict)


def ask_for_budget(state: SharedState, ask: BudgetAsk, now: float) -> BudgetAnswer:
    """Answer a question, and keep what the holder has from now on. The same question may come twice."""
    book = _Book(state, moment_of(state, now))
    book.replace(ask)
    book.learn(ask.largest)
    if ask.is_new:
        book.succeeds(ask.holder)
    for holder, shown in ask.shown.items():
        book.take_shown(holder, shown)
    book.count_known()
    book.forget_old_ones()
    if not ask.is_new and ask.holder.id not in book.holders:
        return BudgetAnswer(is_unknown=True)
    if ask.closes:
        book.close(ask)
        return book.answer(ask, is_granted=False)
    return book.grant(ask)


class _Book:
    """The row at one moment."""

    def __init__(self, state: SharedState, now: float) -> None:
        self.now = now
        self.state = state
        self.base: dict[str, float] = state.setdefault("base", {})
        self.holders: dict[str, dict[str, Any]] = state.setdefault("holders", {})
        self.line: list[list[Any]] = [each for each in state.get("line", ()) if each[1] > now]
        state["line"] = self.line

    # -- what is stated -----------------------------------------------------------------------------------------------

    def replace(self, ask: BudgetAsk) -> None:
        """A number that a person sets holds for all whose program states what this one states."""
        for name, number in ask.replaced.items():
            self.state.setdefault("set", {})[name] = [_json(number), ask.limits.get(name)]

    def limits(self, ask: BudgetAsk) -> dict[str, float]:
        limits = dict(ask.limits)
        for name, (number, stated) in self.state.get("set", {}).items():
            if stated == ask.limits.get(name):
                limits[name] = math.inf if number is None else number
        return {name: number for name, number in limits.items() if number != math.inf}

    # -- what calls use -----------------------------------------------------------------------------------------------

    def learn(self, largest: Mapping[str, Amounts]) -> None:
        known: dict[str, dict[str, float]] = self.state.setdefault("largest", {})
        for name, used in largest.items():
            if name in known or len(known) < _MOST_NAMES:
                before = known.get(name, {})
                known[name] = {each: max(number, before.get(each, 0.0)) for each, number in used.items()}

    # -- holders whose lease has ended --------------------------------------------------------------------------------

    def succeeds(self, new: BudgetHolder) -> None:
        """Another execution of the run has begun, and knows what the ones before have spent: these write no more."""
        for holder, each in self.holders.items():
            is_of_run = each["run"] is not None and (each["run"], each["place"]) == (new.run, new.place)
            if is_of_run and holder != new.id and "shown" not in each:
                each["shown"] = {name: new.before.get(name, 0.0) - each["before"].get(name, 0.0) for name in AMOUNTS}

    def count_known(self) -> None:
        for holder, each in self.holders.items():
            if "shown" in each:
                self.take_shown(holder, each["shown"])

    def take_shown(self, holder: str, shown: Amounts | None) -> None:
        """What was in use when it ended counts as spent."""
        each = self.holders.get(holder)
        if each is None or each["until"] > self.now or "counted" in each:
            return
        known = shown or {}
        each["counted"] = {
            name: _counted(each, name, None if shown is None else known.get(name, 0.0)) for name in AMOUNTS
        }

    def forget_old_ones(self) -> None:
        counted = [name for name, each in self.holders.items() if "counted" in each]
        oldest = sorted(counted, key=lambda name: float(self.holders[name]["until"]))
        for place, name in enumerate(oldest):
            each = self.holders[name]
            if each["until"] + _KEPT_FOR > self.now and place >= len(oldest) - _MOST_KEPT:
                break
            _add(self.base, each["counted"])
            del self.holders[name]

    def lapsed(self) -> tuple[BudgetHolder, ...]:
        return tuple(
            BudgetHolder(name, each["run"], each["place"], each["since"])
            for name, each in self.holders.items()
            if each["until"] <= self.now and "counted" not in each
        )

    # -- parts --------------------------------------------------------------------------------------------------------

    def committed(self, name: str, but: str) -> float:
        """What others have spent or may spend."""
        return self.base.get(name, 0.0) + sum(
            _committed(each, name) for holder, each in self.holders.items() if holder != but
        )

    def spent(self, name: str, but: str = "") -> float:
        """What others have spent, as far as is known."""
        return self.base.get(name, 0.0) + sum(
            _spent(each, name) for holder, each in self.holders.items() if holder != but
        )

    def grant(self, ask: BudgetAsk) -> BudgetAnswer:
        """A part for the calls that wait, or a place in the line.

        What is added up is added in the order in which `_missing` adds it: fractions come out alike then. Else a call
        that needs all the rest might not get it, and nothing would be missing: it would wait for ever.
        """
        mine, limits = ask.holder.id, self.limits(ask)
        place = next((index for index, each in enumerate(self.line) if each[0] == mine), len(self.line))
        before, others_wait = self.line[:place], len(self.line) > (place < len(self.line))
        floor = {name: ask.spent.get(name, 0.0) + ask.reserved.get(name, 0.0) for name in AMOUNTS}
        others = {name: self.committed(name, mine) for name in limits}
        taken = {name: others[name] + sum(each[2].get(name, 0.0) for each in before) for name in limits}
        need = ask.need or {}
        is_granted = ask.need is not None and all(
            taken[name] + (floor[name] + need.get(name, 0.0)) <= limits[name] for name in limits
        )
        part = {}
        for name in limits:
            if is_granted:
                part[name] = self._share(name, floor[name], limits[name] - taken[name], ask, is_alone=not others_wait)
            else:
                had = self.holders.get(mine, {}).get("part", {}).get(name, 0.0)
                keeps = ask.need is None and not others_wait
                part[name] = max(floor[name], min(had, limits[name] - others[name])) if keeps else floor[name]
        self._keep(ask, part)
        missing = "" if is_granted or ask.need is None else self._missing(ask, limits)
        self._stand_in_line(ask, place, waits=ask.need is not None and not is_granted and not missing)
        return self.answer(ask, is_granted=is_granted, missing=missing)

    def _share(self, name: str, floor: float, left: float, ask: BudgetAsk, *, is_alone: bool) -> float:
        """What is asked for now, and half of an equal part of the rest, so that it need not ask for each call."""
        least = floor + (ask.need or {}).get(name, 0.0)
        part = max(least, min(left, floor + ask.wanted.get(name, 0.0)))
        if is_alone and left > part:
            live = sum(each["until"] > self.now for holder, each in self.holders.items() if holder != ask.holder.id)
            ahead = (left - part) / (2 * (live + 1))
            part += ahead if name == "cost" else math.floor(ahead)
        return part

    def _keep(self, ask: BudgetAsk, part: Amounts) -> None:
        holder, before = ask.holder, self.holders.get(ask.holder.id, {})
        kept = {"until": self.now + BUDGET_LEASE, "spent": dict(ask.spent), "reserved": dict(ask.reserved)}
        kept |= {"ceiling": dict(ask.ceiling), "part": dict(part)}
        kept |= {"run": holder.run, "place": holder.place, "since": holder.since, "before": dict(holder.before)}
        if "shown" in before:
            kept["shown"] = before["shown"]
        self.holders[holder.id] = kept

    def _missing(self, ask: BudgetAsk, limits: Amounts) -> str:
        """What is not left, even if others spend no more than they have."""
        need, mine = ask.need or {}, ask.holder.id
        for name in AMOUNTS:
            wanted = ask.spent.get(name, 0.0) + need.get(name, 0.0)
            if name in limits and self.spent(name, mine) + wanted > limits[name]:
                return name
        return ""

    def _stand_in_line(self, ask: BudgetAsk, place: int, *, waits: bool) -> None:
        entry = [[ask.holder.id, self.now + BUDGET_LOOK + _GRACE, dict(ask.need or {})]] if waits else []
        if waits or ask.need is not None:
            self.line[place : place + 1] = entry

    def close(self, ask: BudgetAsk) -> None:
        self.holders.pop(ask.holder.id)
        _add(self.base, ask.spent)
        self.line[:] = [each for each in self.line if each[0] != ask.holder.id]

    def answer(self, ask: BudgetAsk, *, is_granted: bool, missing: str = "") -> BudgetAnswer:
        part = self.holders.get(ask.holder.id, {}).get("part", {})
        reserved = [each["reserved"] for each in self.holders.values() if "counted" not in each]
        return BudgetAnswer(
            is_granted,
            dict(part),
            missing,
            self.limits(ask),
            {name: self.spent(name) for name in AMOUNTS},
            {name: sum(each.get(name, 0.0) for each in reserved) for name in AMOUNTS},
            self.lapsed(),
            largest={name: dict(used) for name, used in self.state["largest"].items()},
        )


def _committed(holder: Mapping[str, Any], name: str) -> float:
    """What a holder has spent or may spend without asking again."""
    if "counted" in holder:
        return float(holder["counted"][name])
    if name in holder["part"]:
        return float(holder["part"][name])
    return float(holder["spent"].get(name, 0.0) + holder["ceiling"].get(name, 0.0))


def _spent(holder: Mapping[str, Any], name: str) -> float:
    return float(holder["counted"][name] if "counted" in holder else holder["spent"].get(name, 0.0))


def _counted(holder: Mapping[str, Any], name: str, shown: float | None) -> float:
    """What counts as spent by a holder whose lease has ended, if its journal shows so much."""
    most, said = _committed(holder, name), float(holder["spent"].get(name, 0.0))
    if shown is None:
        return max(most, said)
    return max(said, shown, min(most, shown + float(holder["ceiling"].get(name, 0.0))))


def _json(number: float) -> float | None:
    return None if number == math.inf else number


def _add(to: dict[str, float], amounts: Amounts) -> None:
    for name, amount in amounts.items():
        to[name] = to.get(name, 0.0) + amount
