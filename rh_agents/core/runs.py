"""A run as the code inside of it sees it; and going back in one: making a call again, or another result in a copy;
and keeping what a validation has found.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar, overload

from rh_agents.core._base.key_generations import EVERY_ENDPOINT, fact_of_keys
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.recording import affected_by, make_owner
from rh_agents.core._run.validation import Difference
from rh_agents.core.actors import BaseActor
from rh_agents.core.bus import EventBus
from rh_agents.core.errors import CallCancelled, StoreError, UsageError
from rh_agents.core.events import Fact
from rh_agents.core.history import HistorySet
from rh_agents.core.metrics import RunMetrics
from rh_agents.core.ports import RunInfo, RunRequest, Store
from rh_agents.core.ports.keeping import StoreLike, using_store
from rh_agents.core.redaction import expect_no_secret
from rh_agents.core.results import ExecutionResult, Outcome, describe_error
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Spending
from rh_agents.core.values import kept_text

__all__ = ["NOT_CALLED", "UNCHANGED", "Run", "affected_by", "fork", "record_validation", "validated_run"]

T = TypeVar("T")

NOT_CALLED: Final = "recorded, and not called in this validation"
"""What stands in place of the outcome of such a call."""
_VALIDATES: Final = "validates"


class Run(Protocol):
    """A run, as the code that runs in it sees it: `current().run`, and the `state` that handlers get.

    An `ExecutionState` is one, and can be entered and ended as well. Groups in it: `parallel()`.
    """

    event_bus: EventBus
    history: HistorySet
    status: ExecutionStatus
    store: Store | None
    tags: tuple[str, ...]

    @property
    def run_id(self) -> str:
        """The name of the run."""
        ...

    @property
    def parts(self) -> RunParts:
        """What the library itself uses of it."""
        ...

    @property
    def metrics(self) -> RunMetrics:
        """What the run has done so far: calls by actor, and the groups that have ended."""
        ...

    @property
    def spent(self) -> Spending:
        """What the run has spent so far, in all its executions."""
        ...

    @property
    def is_interrupted(self) -> bool:
        """Whether the run is being stopped."""
        ...

    @overload
    async def ask(self, text: str, schema: type[T], *, key: str | None = None) -> T: ...
    @overload
    async def ask(self, text: str, schema: None = None, *, key: str | None = None) -> Any: ...
    async def ask(self, text: str, schema: Any = None, *, key: str | None = None) -> Any:
        """Ask a person, and wait for the answer; see `ExecutionState.ask`."""
        ...

    async def sleep(self, seconds: float, *, name: str = "sleep") -> None:
        """Wait, durably; see `ExecutionState.sleep`."""
        ...

    async def sleep_until(self, when: datetime | float, *, name: str = "sleep") -> None:
        """Wait until a time, durably; see `ExecutionState.sleep_until`."""
        ...

    async def wait_for_event(self, event: str, schema: Any = None, *, timeout: float | None = None) -> Any:
        """Wait for a signal from outside; see `ExecutionState.wait_for_event`."""
        ...

    def request_interrupt(self, reason: str = "interrupted", *, grace: float = 30.0) -> None:
        """Stop the run: no new call begins, those under way have `grace` seconds to end, then they are cancelled."""
        ...

    def set_timeout(self, seconds: float, *, grace: float = 30.0) -> None:
        """Stop the run after this many seconds from now, as `request_interrupt` does."""
        ...

    def start(
        self, actor: BaseActor, input_data: Any, extra_context: Any, marks: Mapping[str, Any] | None = None
    ) -> Awaitable[ExecutionResult[Any]]:
        """A call of the actor that starts when it is awaited, and again at every attempt of a group.

        `marks` are fields that all of its events have.
        """
        ...


# -- going back in a run ----------------------------------------------------------------------------------------------

UNCHANGED: Any = object()
"""Stands for: the result is not edited."""


async def fork(
    store: StoreLike, run_id: str, new_run_id: str, *, address: str | None = None, result: Any = UNCHANGED
) -> None:
    """Copy a run under another name, so that it can go on differently. Executing the copy goes on from what it has.

    Args:
        store: where the run is recorded: a store, or a URL or path for `open_store`.
        run_id: the run.
        new_run_id: the name of the copy.
        address: a finished call (or `@` and the beginning of its key): without `result`, the copy makes it again, with
            everything that depends on it; with `result`, only what depends on it. (If the run had ended, what failed
            in it is tried again as well.)
        result: what that call is to have returned.

    Raises:
        UsageError: there is no such call, more than one, or a result without a call; or a registered secret is in the
            new name.
        StoreError: there is no such run, or there is one of the new name.
        UnstorableError: the result is not serializable.
    """
    expect_no_secret(new_run_id)
    async with using_store(store) as opened:
        await _fork(opened, run_id, new_run_id, address, result)


async def _fork(store: Store, run_id: str, new_run_id: str, address: str | None, result: Any) -> None:
    if address is None:
        if result is not UNCHANGED:
            raise UsageError("fork(result=...) needs the address of the call that is to have returned it")
        return await store.fork_run(run_id, new_run_id, (), ())
    if await store.find_run(run_id) is None:
        raise StoreError(f"there is no run {run_id!r}")
    own, *others = await affected_by(store, run_id, address)
    if result is UNCHANGED:
        return await store.fork_run(run_id, new_run_id, [own.key, *(outcome.key for outcome in others)], ())
    left_out = [outcome.key for outcome in others if outcome.base != own.base]  # its failures lead to the edited one
    return await store.fork_run(run_id, new_run_id, left_out, [own.with_value(result)])


async def record_validation(
    store: StoreLike,
    run_id: str,
    differences: Sequence[Difference],
    *,
    new_run_id: str | None = None,
) -> str:
    """Keep what a validation has found as a run of its own, so that its page shows item by item what differs.

        async with ExecutionState(store=store, run_id="monday", replay_mode="validation") as state:
            await survey(urls)
        await record_validation(store, "monday", state.differences)      # "monday-validation"

    The validated run stays as it is. The new one has an outcome for each difference: what the call came to now, or that
    it was not called. It is COMPLETED if there is none, else FAILED. It is there to be looked at, not to be executed.

    Args:
        store: where the validated run is recorded: a store, or a URL or path for `open_store`.
        run_id: the validated run.
        differences: what was found, as in `ExecutionState.differences`.
        new_run_id: the name of the new run; by default that of the validated one and "-validation", and a number from
            the second one on.

    Returns:
        The name of the new run.

    Raises:
        StoreError: there is no such run, or there is one of the new name.
        UnstorableError: a call returned something that is not serializable.
    """
    async with using_store(store) as opened:
        info = await opened.find_run(run_id)
        if info is None:
            raise StoreError(f"there is no run {run_id!r}, so it cannot have been validated")
        name = await _free_name(opened, f"{run_id}-validation") if new_run_id is None else new_run_id
        expect_no_secret(name)
        if await opened.find_run(name) is not None:
            raise StoreError(f"run {name!r} already exists; choose another name")
        facts = {_VALIDATES: run_id, **fact_of_keys(EVERY_ENDPOINT)}
        journal = await opened.open_run(RunRequest(name, make_owner(), info.workflow, tags=info.tags, facts=facts))
        begun = await opened.find_run(name)
        try:
            for each in differences:
                outcome = _found(each)
                journal.note(_fact_of(outcome, name, 0.0 if begun is None else begun.created_at), outcome)
            await journal.flush()
        finally:
            number = len(differences)
            reason = f"{number} call{'s' * (number != 1)} of {run_id} came to something else" if number else None
            await journal.close(ExecutionStatus.FAILED if number else ExecutionStatus.COMPLETED, reason)
        return name


def validated_run(info: RunInfo) -> str | None:
    """The run of which this one is a recorded validation; None if it is none."""
    text = info.facts.get(_VALIDATES)
    return None if text is None else kept_text(text, unknown_ok=True)


async def _free_name(store: Store, name: str) -> str:
    for number in itertools.count(1):
        candidate = name if number == 1 else f"{name}-{number}"
        if await store.find_run(candidate) is None:
            return candidate
    raise AssertionError


def _found(difference: Difference) -> Outcome:
    if difference.found is not None:
        return difference.found._replace(group_id=None)
    assert difference.recorded is not None
    error = CallCancelled(NOT_CALLED)
    return difference.recorded._replace(value=None, error=error, seconds=0.0, attempts=0, usage=None, group_id=None)


def _fact_of(outcome: Outcome, run_id: str, at: float) -> Fact:
    error, kind = outcome.error, EventType.FUNCTION_CALL
    if error is None:
        status = ExecutionStatus.COMPLETED
    else:
        status = ExecutionStatus.FAILED if outcome.attempts else ExecutionStatus.CANCELLED
    actor = BaseActor.model_construct(
        name=outcome.name,
        event_type=kind,
        handler=lambda: None,
        description="Stands for the actor of a recorded call.",
    )
    return Fact(
        run_id,
        at,
        status,
        kind,
        actor,
        outcome.name,
        outcome.address,
        outcome.key,
        attempt=max(1, outcome.attempts),
        seconds=outcome.seconds,
        message=None if error is None else describe_error(error),
    )
