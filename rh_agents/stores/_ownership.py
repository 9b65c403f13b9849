"""Who holds a run, and whether that can still be."""

from __future__ import annotations

import shlex
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rh_agents.core.errors import LeaseLost, RunIsLive
from rh_agents.core.redaction import logger
from rh_agents.stores._backend.rows import RunRow
from rh_agents.stores._delivery import Holder
from rh_agents.stores._owner import Process

own_runs: weakref.WeakValueDictionary[str, Holder] = weakref.WeakValueDictionary()
"""What holds a run in this process: open journals, and runs that are being opened; by `Process.opening`."""

_LOG = logger("rh_agents.stores")
_LOOK_EVERY: Final = 0.05
_WORTH_A_WORD: Final = 1.0
"""Seconds. Who has to wait for longer wants to know what for."""
_CLOCKS_DIFFER_BY: Final = 3600.0
"""Seconds. Clocks of machines may differ by so much at most: who has been silent for longer is not there."""


def is_dead(row: RunRow) -> bool:
    """Whether the owner of a run certainly exists no more. False if that cannot be known from here."""
    return is_gone(row.process)


def is_fresh(row: RunRow, now: float) -> bool:
    """Whether the owner gave a sign of life within its lease, as far as clocks can be compared."""
    return 0.0 <= now - row.heartbeat_at < row.lease


def is_held(row: RunRow, now: float) -> bool:
    """Whether somebody executes the run, as far as is known."""
    return row.owner is not None and not is_dead(row) and is_fresh(row, now)


def is_gone(text: str | None) -> bool:
    """The same of the process that a row names."""
    process = None if text is None else Process.read(text)
    if process is None:
        return False
    return process.is_gone or (process.is_here and _is_given_up(process.opening))


def _is_given_up(opening: str) -> bool:
    """Whether nobody in this process can use what was opened so any more."""
    holder = own_runs.get(opening)
    return holder is None or holder.loop.is_closed()


def taken(row: RunRow) -> LeaseLost:
    """The error of who had a run."""
    return LeaseLost(f"run {row.run_id!r} has been taken over by somebody else meanwhile")


def live(run_id: str, owner: str, described: str) -> RunIsLive:
    """The error that says who executes a run, and what can be done about it."""
    name = shlex.quote(run_id)
    return RunIsLive(
        f"run {run_id!r} is being executed by {described}; look at it with `rh-agents show {name}`, stop it with "
        f"`rh-agents cancel {name}`, or use another run_id",
        owner=owner,
    )


def live_row(row: RunRow) -> RunIsLive:
    """The same of a row of a database."""
    return live(row.run_id, row.owner or "somebody", _named(row.owner, row.process))


def _named(owner: str | None, text: str | None) -> str:
    process = None if text is None else Process.read(text)
    where = f" ({process})" if process is not None and str(process) not in (owner or "") else ""
    return f"{owner}{where}"


# -- before a database is brought up to date ---------------------------------------------------------------------------


class Owned(NamedTuple):
    """A run that somebody holds, as databases of every version tell of it."""

    run_id: str
    number: int
    owner: str
    process: str | None
    fence: int
    heartbeat: int
    heartbeat_at: float
    lease: float

    @property
    def sign(self) -> tuple[int, int, int]:
        """Another one after each sign of life, and for each owner."""
        return self.number, self.fence, self.heartbeat


Silent = frozenset[tuple[int, int, int]]
"""The last signs of life of owners that are there no more."""


def expect_nobody_executes(place: str, read: Callable[[], Sequence[Owned]]) -> Silent:
    """See to it that no run is being executed, by whatever version of this library.

    An owner whose process is gone from this machine is none. One that was silent for longer than its lease has to be
    silent for as long by our own clock, since clocks of machines differ.

    Args:
        place: the database, for people.
        read: the runs that somebody holds now.

    Returns:
        The owners that are there no more, for `expect_no_newcomer`.

    Raises:
        RunIsLive: one is.
    """
    before = [each for each in read() if not is_gone(each.process)]
    now, started = time.time(), time.monotonic()
    for each in before:
        if 0.0 <= now - each.heartbeat_at < each.lease:
            raise _in_the_way(place, each)
    watched = [each for each in before if abs(now - each.heartbeat_at) < each.lease + _CLOCKS_DIFFER_BY]
    longest = max(watched, key=lambda each: each.lease, default=None)
    if longest is not None and longest.lease > _WORTH_A_WORD:
        _LOG.warning(
            "%s is to be brought up to date for this version of rh_agents: it takes %g s to see that run %r is no "
            "longer being executed by %s",
            place,
            longest.lease,
            longest.run_id,
            _named(longest.owner, longest.process),
        )
    while watched:
        time.sleep(_LOOK_EVERY)
        found = {each.number: each for each in read()}
        for each in watched:
            other = found.get(each.number)
            if other is not None and other.sign != each.sign:
                raise _in_the_way(place, other)
        silent_for = time.monotonic() - started
        watched = [each for each in watched if each.number in found and silent_for < each.lease]
    return frozenset(each.sign for each in before)


def expect_no_newcomer(place: str, owners: Sequence[Owned], silent: Silent) -> None:
    """See to it that nobody executes a run since that was asked, while programs of earlier versions could still begin.

    To be asked in each transaction that changes what they need.

    Raises:
        RunIsLive: somebody does: it has begun meanwhile, or was silent and is not any more.
    """
    for each in owners:
        if each.sign not in silent and not is_gone(each.process):
            raise _in_the_way(place, each)


def _in_the_way(place: str, owned: Owned) -> RunIsLive:
    return RunIsLive(
        f"{place} was made by an earlier version of rh_agents, and cannot be brought up to date while run "
        f"{owned.run_id!r} is being executed by {_named(owned.owner, owned.process)}: let it end first, or stop it",
        owner=owned.owner or "somebody",
    )
