"""The call tree: each call is a scope for the calls that it makes, and a scope numbers those that are identical."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from rh_agents.core._key_table import DigestTable
from rh_agents.core.keys import again_key

if TYPE_CHECKING:
    from rh_agents.core._ledger import Ledger
    from rh_agents.core._runner import Job
    from rh_agents.core.errors import StopRun
    from rh_agents.core.groups import GroupEnding
    from rh_agents.core.ports import RunHandle

__all__ = ["ENDED", "Claim", "Claimant", "Generation", "Scope", "current_scope", "every_generation"]

Generation = tuple[int, int, int]
"""Which execution of a call's body: the epoch of its run, how often the call was made again, its attempt."""

_LAST = 2**31 - 1
"""More tries and attempts than there will be; it fits into four bytes."""


def every_generation(epoch: int) -> Generation:
    """Stands for all executions of a body in an epoch: what was made in it counts for each of them."""
    return (epoch, _LAST, _LAST)


Claimant = object
"""Whoever numbers calls: a task for those that it makes itself, a group for its members."""


ENDED: Claimant = object()
"""Stands for a task that has ended. The task itself would hold its scope, and be held by it."""


class Claim(NamedTuple):
    """The number of a call among the identical ones of its scope.

    `is_ordered` is False if an identical call was numbered for another claimant, so that nothing says which of the two
    comes first when the run is executed again.
    """

    occurrence: int
    is_ordered: bool


class OwnCalls:
    """How often an agent was called within one of its own calls."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count: int = 0


def _never(_: Claimant) -> bool:
    return False


class _Others:
    """Whoever makes calls beside the owner of a scope, numbered from 1, and forgotten when there is no such task any
    more: a program may start one for each of its calls.
    """

    __slots__ = ("_by_number", "_last", "_numbers")

    def __init__(self) -> None:
        self._numbers: WeakKeyDictionary[Claimant, int] = WeakKeyDictionary()
        self._by_number: WeakValueDictionary[int, Claimant] = WeakValueDictionary()
        self._last = 0

    def number_of(self, claimant: Claimant) -> int:
        number = self._numbers.get(claimant)
        if number is None:
            number = self._last = self._last + 1
            self._numbers[claimant] = number
            self._by_number[number] = claimant
        return number

    def find(self, number: int) -> Claimant | None:
        """Who has this number; None if that is over."""
        return self._by_number.get(number)


_CLAIMS = 2**32
"""More calls with one identity than there will be in a scope."""


class Scope:
    """One call as the place from which others are made.

    Attributes:
        run: the run it belongs to.
        key: its place in the program, from which the keys of its children are derived. It stays the same when the call
            is made again after it failed, so that its finished children are not.
        address: its readable place.
        owner: the task that executes the call. What this task calls is numbered in program order.
        group_id: the innermost group within which the call is made, for nested groups.
        tries: how often the call failed for good before and is made again now.
        attempt: the number of the attempt under way, from 1.
        token: stands for the call in a run that gives it no key.
        job: what executes the call, while it does.
        depth: how many calls there are around it.
        ledgers: the budgets that count what is spent here, the innermost last.
        own_calls: for each agent that is under way here, how often it was called by itself, directly or not.
        stop: why the call cannot go on for now, if something that it called has told its body so.
    """

    owner: Claimant | None = None
    attempt: int = 0
    tries: int = 0
    token: str | None = None
    job: Job | None = None
    depth: int = 0
    ledgers: tuple[Ledger, ...] = ()
    own_calls: dict[str, OwnCalls] | None = None
    stop: StopRun | None = None
    _counts: DigestTable | None = None
    """For each identity, how often it was counted; above that, the number of the claimant that did it last."""
    _others: _Others | None = None
    _open_groups: dict[str, Claimant] | None = None

    def __init__(self, run: RunHandle, key: bytes, address: str, group_id: str | None = None) -> None:
        self.run: RunHandle = run
        self.key: bytes = key
        self.address: str = address
        self.group_id: str | None = group_id

    def enter(self, parent: Scope, agent: str | None) -> None:
        """The call is made by `parent`. `agent` is the name of what is called, if it is an agent."""
        self.depth = parent.depth + 1
        if parent.ledgers:
            self.ledgers = parent.ledgers
        self.own_calls = parent.own_calls
        if agent is not None:
            mine = None if parent.own_calls is None else parent.own_calls.get(agent)
            if mine is None:
                self.own_calls = {**(parent.own_calls or {}), agent: OwnCalls()}
            else:
                mine.count += 1

    def begin_attempt(self, attempt: int) -> None:
        """Start to number anew: another attempt makes the same calls again, and gets their recorded outcomes."""
        self.attempt = attempt
        if attempt > 1:
            self._counts = self._others = self._open_groups = None

    def tell_stop(self, stop: StopRun) -> None:
        """The body of the call is told that it cannot go on. What it makes of that is no outcome."""
        self.stop = (self.stop or stop) | stop  # a new one: this one will lead to the frames that it has passed

    def expect_no_stop(self, task: Claimant | None) -> None:
        """Raise `StopRun` if the task executes the call, and has been told that the call cannot go on."""
        if self.stop is not None and task is self.owner:
            raise self.stop | self.stop

    @property
    def generation(self) -> Generation:
        """Which execution of its body this is. Failures of earlier ones are not repeated to it."""
        return (self.run.epoch, self.tries, self.attempt)

    def resolve(
        self, base: bytes, *, keeps_cut_off: bool = True, ending: GroupEnding | None = None
    ) -> tuple[bytes, int]:
        """The key under which the call at the place `base` is made now, and how often it has been made before.

        The key is `base` itself, unless that call has failed for good in an earlier generation of this scope: in an
        earlier attempt, or in an earlier execution of a run that has ended. An outcome is never overwritten, so each
        further try has a key of its own. `keeps_cut_off` is False for members of a group that is open again; `ending`
        is given for those of one that ends again as it did.
        """
        key, tries = base, 0
        if not (self.tries or self.attempt > 1 or self.run.is_resumed):
            return base, 0  # there are no earlier generations
        generation = self.generation
        while self.run.is_tried_again(key, generation, keeps_cut_off=keeps_cut_off, ending=ending):
            key, tries = again_key(key), tries + 1
        return key, tries

    def count(self, same: bytes) -> int:
        """The number of the next call with the identity `same`, from 0."""
        counts = self._counts
        if counts is None:
            counts = self._counts = DigestTable()
        occurrence = counts.get(same)
        counts.set(same, occurrence + 1)
        return occurrence

    def claim(self, same: bytes, claimant: Claimant, has_ended: Callable[[Claimant], bool] = _never) -> Claim:
        """Number a call with the identity `same` that the task `claimant` makes.

        `has_ended` tells of a task that made one before whether it is over, so that what follows comes after it.
        """
        if self.owner is None:
            self.owner = claimant
        if claimant is self.owner and self._others is None:
            return Claim(self.count(same), True)
        return self._claim_beside(same, claimant, has_ended)

    def _claim_beside(self, same: bytes, claimant: Claimant, has_ended: Callable[[Claimant], bool]) -> Claim:
        """The same when others than the owner make calls as well: calls with this identity are in order if they have
        been numbered for one claimant, or for one after the other.
        """
        others, counts = self._others, self._counts
        if others is None:
            others = self._others = _Others()
        if counts is None:
            counts = self._counts = DigestTable()
        mine = 0 if claimant is self.owner else others.number_of(claimant)
        before, occurrence = divmod(counts.get(same), _CLAIMS)
        counts.set(same, mine * _CLAIMS + occurrence + 1)
        if not occurrence or before == mine:
            return Claim(occurrence, True)
        earlier = others.find(before) if before else self.owner
        return Claim(occurrence, earlier is None or has_ended(earlier))

    def group_began(self, name: str, group: Claimant) -> None:
        """A group of this name takes calls from now on."""
        if self._open_groups is None:
            self._open_groups = {}
        self._open_groups.setdefault(name, group)

    def group_ended(self, name: str, group: Claimant) -> None:
        """No further calls come from this group, so that the next one of its name follows it in a defined order."""
        if self._open_groups is not None and self._open_groups.get(name) is group:
            del self._open_groups[name]

    def has_other_open_group(self, name: str, group: Claimant) -> bool:
        """Whether another group of the same name takes calls at the same time."""
        return self._open_groups is not None and self._open_groups.get(name, group) is not group


current_scope: ContextVar[Scope | None] = ContextVar("rh_agents_scope", default=None)
"""The call that is being executed in this context, if any."""
