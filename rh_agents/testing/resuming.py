"""Whether a program pays twice when it is started again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

from rh_agents.core.events import ExecutionEvent
from rh_agents.core.execution import ExecutionState
from rh_agents.core.ports import Store
from rh_agents.core.ports.keeping import StoreLike, using_store
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = ["assert_no_paid_calls_on_resume"]

R = TypeVar("R")
_SHOWN = 20
_ENDINGS = frozenset({ExecutionStatus.COMPLETED, ExecutionStatus.FAILED})


async def assert_no_paid_calls_on_resume(
    workflow: Callable[..., Awaitable[R]],
    *args: Any,
    store: StoreLike,
    stop_after: int | None = None,
    paid: Collection[EventType] = (EventType.LLM_CALL, EventType.TOOL_CALL),
    run_id: str | None = None,
    **kwargs: Any,
) -> R:
    """Execute a workflow, start it again, and see that no call is paid for twice.

        await assert_no_paid_calls_on_resume(survey, "rivers", store=MemoryStore())
        await assert_no_paid_calls_on_resume(survey, "rivers", store=MemoryStore(), stop_after=3)

    A call is paid for twice if it had an outcome and is made again. The usual reason: its input is not the same the
    second time, for it has a date, a random number or the order of a set in it. After the first execution came to its
    end, there must be no paid call at all in the second one.

    Args:
        workflow: an agent or an async function.
        args: its arguments; so are `kwargs`.
        store: where the run is recorded: a store, or a URL or path for `open_store`.
        stop_after: cut the first execution off, as Ctrl-C does, when this many paid calls have their outcomes; None
            lets it come to its end. What remains is called in the second execution.
        paid: the calls that cost something; by default those of models and of tools.
        run_id: by default a new one.
        kwargs: its keyword arguments.

    Returns:
        What the second execution returned.

    Raises:
        AssertionError: calls were made again; the message has their addresses.
        ValueError: the workflow came to its end before `stop_after` paid calls.
        Exception: what the workflow raises.
    """
    run_id = run_id or uuid.uuid4().hex
    first = _Watch(frozenset(paid), stop_after)
    async with using_store(store) as opened:
        await first.execute(opened, run_id, workflow, args, kwargs)
        if stop_after is not None and not first.is_cut_off:
            raise ValueError(f"stop_after={stop_after}: the workflow ended after {len(first.finished)} paid calls")
        second = _Watch(frozenset(paid), None)
        try:
            value: R = await second.execute(opened, run_id, workflow, args, kwargs, must_return=True)
            return value
        finally:
            again = _made_again(first, second)
            if again:
                raise AssertionError(_message(again, first))


class _Watch:
    """Looks at one execution, and cuts it off."""

    def __init__(self, paid: frozenset[EventType], stop_after: int | None) -> None:
        self._paid = paid
        self._stop_after = stop_after
        self._task: asyncio.Task[Any] | None = None
        self.started: list[ExecutionEvent[Any]] = []
        self.finished: list[ExecutionEvent[Any]] = []
        self.unused: list[str] = []
        self.is_cut_off = False

    def __call__(self, event: ExecutionEvent[Any]) -> None:
        if event.event_type not in self._paid or event.is_replayed:
            return
        if event.execution_status is ExecutionStatus.STARTED:
            self.started.append(event)
        elif event.execution_status in _ENDINGS and not event.from_cache:
            self.finished.append(event)
            if len(self.finished) == self._stop_after and self._task is not None:
                self.is_cut_off = self._task.cancel()

    async def execute(
        self,
        store: Store,
        run_id: str,
        workflow: Callable[..., Awaitable[R]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        must_return: bool = False,
    ) -> Any:
        state = ExecutionState(store=store, run_id=run_id, retry_failed=False)
        state.event_bus.subscribe(self)

        async def work() -> R:
            async with state:
                value = await workflow(*args, **kwargs)
                self.unused = [outcome.key.hex() for outcome in await state.unused_outcomes()]
                return value

        self._task = asyncio.create_task(work())
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait([self._task])
            raise
        if self._task.cancelled() and self.is_cut_off:
            return None
        if self._task.exception() is not None and not must_return:
            return None  # what fails shall fail again in the same way
        return self._task.result()


def _made_again(first: _Watch, second: _Watch) -> list[str]:
    """The addresses of calls that had an outcome which the second execution did not use."""
    if not first.is_cut_off:
        return [event.address or event.name for event in second.started]
    paid = {event.key: event.address or event.name for event in first.finished}
    unused = [key for key in second.unused if key in paid]
    return [
        paid[key] for key in dict.fromkeys([*(event.key for event in second.started if event.key in paid), *unused])
    ]


def _message(again: list[str], first: _Watch) -> str:
    addresses = ", ".join(again[:_SHOWN]) + (f" and {len(again) - _SHOWN} more" if len(again) > _SHOWN else "")
    return (
        f"{len(again)} calls were made, and paid for, again although they had an outcome (there were "
        f"{len(first.finished)} in all): {addresses}. Is there a date, a random number or a set in what they are "
        "asked, or are they called in a run of their own?"
    )
