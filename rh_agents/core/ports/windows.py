"""What people look at of a long run: windows of at most 200 calls, whatever the number of calls is.

A store that can (`Windowing`) lets its database find them; of any other store the events are folded once for each
question (`rh_agents.core.ports.call_table`), which is right for every store and quick for small runs.

A window gives each call once, as it stands: the newest outcome that counts. Of a call that was made again the view says
which outcome it replaces; of two outcomes of one key the first one counts, as everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from rh_agents.core._base.failure_kinds import FailureKind
from rh_agents.core.ports import Store
from rh_agents.core.ports.call_table import Folding
from rh_agents.core.ports.call_views import (
    MOST,
    ORDERS,
    Attempt,
    CallQuery,
    CallRecord,
    CallRef,
    CallView,
    CallWindow,
    Replaced,
    expect_count,
)
from rh_agents.core.types import ExecutionStatus

__all__ = [
    "MOST",
    "ORDERS",
    "Attempt",
    "CallQuery",
    "CallRecord",
    "CallRef",
    "CallView",
    "CallWindow",
    "FailureKind",
    "KeepsInputs",
    "Replaced",
    "Windowing",
    "call_of_run",
    "calls_of_run",
    "children_of_call",
    "failure_kinds",
    "failures_of_run",
    "inputs_of_calls",
    "members_of_group",
    "running_calls",
]


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
) -> CallWindow:
    """Calls that have ended, filtered and sorted; the arguments are those of `CallQuery`.

    Raises:
        ValueError: an argument is none of these.
        StoreError: there is no such run.
    """
    query = CallQuery(status, actor, group, text, order, descending, after, 0, n)
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
