"""What people look at: windows of at most 200 runs of a store, or calls of a run, whatever their number is.

A store that can (`ListsRuns`, `Windowing`) lets its database find and count them. Of any other store all runs are read
for each question, and the events of a run folded once for each (`rh_agents.core.ports.call_table`): that is right for
every store, and quick for few runs and small ones.

A window of calls gives each call once, as it stands: the newest outcome that counts. Of a call that was made again the
view says which outcome it replaces; of two outcomes of one key the first one counts, as everywhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol, runtime_checkable

from rh_agents.core._base.failure_kinds import FailureKind
from rh_agents.core.ports import RunInfo, RunStatus, Store, status_of
from rh_agents.core.ports.call_table import Folding
from rh_agents.core.ports.call_views import (
    MOST,
    ORDERS,
    RANGES,
    Attempt,
    CallQuery,
    CallRecord,
    CallRef,
    CallView,
    CallWindow,
    Replaced,
    Within,
    expect_count,
    lowered,
)
from rh_agents.core.types import ExecutionStatus

__all__ = [
    "MOST",
    "MOST_RUNS",
    "ORDERS",
    "RANGES",
    "Attempt",
    "CallQuery",
    "CallRecord",
    "CallRef",
    "CallView",
    "CallWindow",
    "FailureKind",
    "KeepsInputs",
    "ListsRuns",
    "Replaced",
    "RunQuery",
    "RunWindow",
    "Windowing",
    "Within",
    "call_of_run",
    "calls_of_run",
    "children_of_call",
    "count_runs",
    "every_run",
    "failure_kinds",
    "failures_of_run",
    "inputs_of_calls",
    "list_runs",
    "members_of_group",
    "running_calls",
    "tags_of_runs",
]

MOST_RUNS: Final = 200
"""Runs in one window."""


@runtime_checkable
class Windowing(Protocol):
    """A store that finds windows itself. Each method raises `StoreError` if there is no such run."""

    async def call_window(self, run_id: str, query: CallQuery) -> CallWindow:
        """See `calls_of_run`."""
        ...

    async def running_window(self, run_id: str, n: int, group: str | None) -> CallWindow:
        """See `running_calls`."""
        ...

    async def children_window(self, run_id: str, key: str, after: str | None, n: int) -> CallWindow:
        """See `children_of_call`."""
        ...

    async def call_record(self, run_id: str, key: str) -> CallRecord | None:
        """See `call_of_run`."""
        ...

    async def failure_kinds(self, run_id: str) -> list[FailureKind]:
        """See `failure_kinds`."""
        ...


@runtime_checkable
class KeepsInputs(Protocol):
    """A store that finds what calls were called with by the sequences of their outcomes."""

    async def inputs(self, run_id: str, sequences: Sequence[int]) -> Mapping[int, str]:
        """See `inputs_of_calls`."""
        ...


async def inputs_of_calls(store: Store, run_id: str, sequences: Collection[int]) -> Mapping[int, str]:
    """What calls were called with, by the sequences of their outcomes; what was not recorded is left out.

    Raises:
        StoreError: there is no such run, or a text is damaged.
    """
    if not sequences:
        return {}
    if isinstance(store, KeepsInputs):
        return await store.inputs(run_id, sorted(sequences))
    wanted: dict[str | None, int] = {}
    async for recorded in store.events(run_id, values=False):
        if recorded.has_outcome and recorded.sequence in sequences:
            wanted[recorded.event.key] = recorded.sequence
    outcomes = [outcome async for outcome in store.unread_outcomes(run_id) if outcome.header.key.hex() in wanted]
    return {wanted[each.header.key.hex()]: each.input for each in outcomes if each.input is not None}


async def calls_of_run(
    store: Store,
    run_id: str,
    *,
    status: ExecutionStatus | None = None,
    actor: str | None = None,
    group: str | None = None,
    text: str | None = None,
    order: str = "journal",
    descending: bool = False,
    after: str | None = None,
    n: int = MOST,
    within: Sequence[Within] = (),
) -> CallWindow:
    """Calls that have ended, filtered and sorted; the arguments are those of `CallQuery`.

    Raises:
        ValueError: an argument is none of these.
        StoreError: there is no such run.
    """
    query = CallQuery(status, actor, group, text, order, descending, after, 0, n, tuple(within))
    return await _finder(store).call_window(run_id, query)


async def members_of_group(store: Store, run_id: str, group_id: str, first: int = 0, n: int = MOST) -> CallWindow:
    """Members of a group that have ended, in the order in which they did, from the `first` one (0 is the first) on.

    Raises:
        StoreError: there is no such run.
    """
    return await _finder(store).call_window(run_id, CallQuery(group=group_id, first=first, n=n))


async def failures_of_run(store: Store, run_id: str, *, before: str | None = None, n: int = MOST) -> CallWindow:
    """Calls that failed and have not been made again since, newest first; `before` is the `next` of the window before.

    Raises:
        StoreError: there is no such run.
    """
    query = CallQuery(status=ExecutionStatus.FAILED, descending=True, after=before, n=n)
    return await _finder(store).call_window(run_id, query)


async def failure_kinds(store: Store, run_id: str) -> list[FailureKind]:
    """The same failures by what went wrong, the commonest first.

    Raises:
        StoreError: there is no such run.
    """
    return await _finder(store).failure_kinds(run_id)


async def running_calls(store: Store, run_id: str, n: int = MOST, *, group: str | None = None) -> CallWindow:
    """Calls that were begun and have no outcome, the oldest first: under way, or cut off when their process died.

    Raises:
        StoreError: there is no such run.
    """
    expect_count(n)
    return await _finder(store).running_window(run_id, n, group)


async def children_of_call(store: Store, run_id: str, key: str, after: str | None = None, n: int = MOST) -> CallWindow:
    """Calls that a call made and that have ended, in the order in which they did. `key` may be that of any try of it.

    Raises:
        StoreError: there is no such run.
    """
    expect_count(n)
    return await _finder(store).children_window(run_id, key, after, n)


async def call_of_run(store: Store, run_id: str, key: str) -> CallRecord | None:
    """All that is recorded of the call with this key, in hexadecimal; None if there is nothing.

    Raises:
        StoreError: there is no such run.
    """
    return await _finder(store).call_record(run_id, key)


def _finder(store: Store) -> Windowing:
    return store if isinstance(store, Windowing) else Folding(store)


# -- runs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs are wanted: those for which nothing here says otherwise, the newest first.

    Attributes:
        status: those with one of these; () for all. A run whose row is damaged has the status DAMAGED alone.
        with_damaged: those, too, whose rows are damaged but say what is wanted.
        tag: those with this tag.
        text: those with it in their names or workflows. Letters of ASCII are equal in either case.
        updated_since, updated_before: those in which something happened last from one moment on, or before another
            one, in seconds since 1970.
        forks_of: copies of one of these runs; () for all.
        before: those that come behind the run of this name, whether that fits or not.
        n: so many at most.
    """

    status: tuple[RunStatus, ...] = ()
    with_damaged: bool = False
    tag: str | None = None
    text: str = ""
    updated_since: float | None = None
    updated_before: float | None = None
    forks_of: tuple[str, ...] = ()
    before: str | None = None
    n: int = MOST_RUNS

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MOST_RUNS:
            raise ValueError(f"a window has 1 to {MOST_RUNS} runs, not {self.n}: ask for the next one with before=")

    def fits(self, info: RunInfo) -> bool:
        """Whether a run is wanted. Of one whose row is damaged nothing is known that could speak against it."""
        if info.damage is not None:
            return self.with_damaged or not self.status or RunStatus.DAMAGED in self.status
        return (
            (not self.status or status_of(info) in self.status)
            and (self.tag is None or self.tag in info.tags)
            and (not self.text or any(lowered(self.text) in lowered(each) for each in (info.run_id, info.workflow)))
            and (self.updated_since is None or info.updated_at >= self.updated_since)
            and (self.updated_before is None or info.updated_at < self.updated_before)
            and (not self.forks_of or info.forked_from in self.forks_of)
        )


class RunWindow(NamedTuple):
    """Some runs.

    Attributes:
        runs: the newest first.
        next: the `before` of the window that follows; None if there is none.
    """

    runs: tuple[RunInfo, ...]
    next: str | None = None


@runtime_checkable
class ListsRuns(Protocol):
    """A store that finds and counts runs itself."""

    async def run_window(self, query: RunQuery) -> RunWindow:
        """See `list_runs`."""
        ...

    async def run_count(self, query: RunQuery) -> int:
        """See `count_runs`."""
        ...

    async def run_tags(self) -> Sequence[str]:
        """See `tags_of_runs`."""
        ...


async def list_runs(store: Store, query: RunQuery) -> RunWindow:
    """The newest runs that are wanted.

    Raises:
        StoreError: there is no run of the name `before`, or the store failed.
    """
    if isinstance(store, ListsRuns):
        return await store.run_window(query)
    found = await _fitting(store, query)
    shown = tuple(found[: query.n])
    return RunWindow(shown, shown[-1].run_id if len(found) > query.n else None)


async def every_run(store: Store, query: RunQuery) -> AsyncGenerator[RunInfo, None]:
    """All runs that are wanted, a window at a time, so that few of them are in memory at once.

    Raises:
        StoreError: as `list_runs`; also if the last run of a window was deleted before the next window was read.
    """
    window = await list_runs(store, query)
    while True:
        for info in window.runs:
            yield info
        if window.next is None:
            return
        window = await list_runs(store, replace(query, before=window.next))


async def count_runs(store: Store, query: RunQuery) -> int:
    """How many runs are wanted, behind `before` if that is given. Damaged rows may count as what stands in them.

    Raises:
        StoreError: as `list_runs`.
    """
    return await store.run_count(query) if isinstance(store, ListsRuns) else len(await _fitting(store, query))


async def tags_of_runs(store: Store, n: int = 100) -> list[str]:
    """The first tags that runs have, in the order of the alphabet, at most `n`.

    Raises:
        StoreError: the store failed.
    """
    found: Iterable[str]
    if isinstance(store, ListsRuns):
        found = await store.run_tags()
    else:
        found = {tag for info in await store.runs() for tag in info.tags}
    return sorted(found)[:n]


async def _fitting(store: Store, query: RunQuery) -> list[RunInfo]:
    return [info for info in await store.runs(before=query.before) if query.fits(info)]
