"""Executing a shard: its members run as if the group were open here, and their outcomes are in the run of the shard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

from rh_agents.core._group.members import Source
from rh_agents.core._run.frame import Frame
from rh_agents.core.actors import BaseActor
from rh_agents.core.context import is_traced
from rh_agents.core.errors import RunIsLive, RunStopped, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.execution import ExecutionState
from rh_agents.core.parallel import ParallelExecutionManager
from rh_agents.core.ports import Store
from rh_agents.core.ports.tracing import CONTINUED
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.values import decode
from rh_agents.core.values.registry import call_main_program
from rh_agents.executors._workers.functions import Reference, find
from rh_agents.sharding.shard import WORKFLOW, Shard
from rh_agents.stores import open_store

__all__ = ["execute", "execute_at", "execute_here", "options_of"]

_PATIENCE: Final = 60.0
"""Seconds for which an owner is waited for that may have died on another machine."""
_LOOK_EVERY: Final = 0.5
_EARLIER: Final = BaseActor.model_construct(
    name="earlier",
    event_type=EventType.FUNCTION_CALL,
    handler=lambda: None,
    description="Stands for what a member had called before it was put into a shard.",
)


def execute_here(url: str, shard_id: str, reference: Reference, main_program: str) -> str | None:
    """Execute a shard in this process; what a worker process is told to call. See `execute_at`.

    Classes of the main program are recorded by its name, `main_program`, which is not that of this process's.
    """
    call_main_program(main_program)
    return asyncio.run(execute_at(url, shard_id, reference))


async def execute_at(url: str, shard_id: str, reference: Reference) -> str | None:
    """Execute a shard in the store of this name, from where an earlier owner of it has left it.

    Args:
        url: what `open_store` takes.
        shard_id: the name of its run, which has been recorded with all that is to be done.
        reference: the function that is applied to its items.

    Returns:
        Why it has not come to its end: somebody stopped it, or members wait for answers. None if it has.

    Raises:
        RunIsLive: another process executes it, and has not given that up for a minute.
        StoreError: there is no such shard, or the store failed.
    """
    function = find(reference)  # its module first: it has the classes of what is recorded
    store = open_store(url)
    deadline = time.monotonic() + _PATIENCE
    try:
        info = await store.find_run(shard_id)
        if info is None or info.input is None:
            raise StoreError(f"there is no shard {shard_id!r} any more")
        shard = Shard.from_json(decode(info.input))
        while True:
            try:
                await execute(ExecutionState(**options_of(store, shard)), shard, function)
            except RunStopped as stopped:
                return stopped.reason
            except RunIsLive:  # who had it before has died, and its lease is not over
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_LOOK_EVERY)
            else:
                return None
    finally:
        await store.aclose()


def options_of(store: Store, shard: Shard) -> dict[str, Any]:
    """The options of an `ExecutionState` for a shard."""
    return {
        "store": store,
        "run_id": shard.id,
        "workflow": WORKFLOW,
        "history_limit": 0,
        "on_unknown": shard.on_unknown,
        "record_inputs": shard.record_inputs,
        "tracing": CONTINUED if is_traced() else None,
    }


async def execute(state: ExecutionState, shard: Shard, function: Callable[[Any], Any] | BaseActor) -> None:
    """Execute a shard in a run that has been made for it, from where an earlier owner of it has left it.

    Raises:
        RunStopped: somebody stopped it, or members wait for answers.
        RunIsLive: another process executes it.
        StoreError: the store failed.
    """
    state.parts.identity = shard.run_id
    state.parts.root = _place_of(shard, state)
    async with state:
        state.parts.root.ledgers = tuple(map(state.parts.budgets.share_all, shard.budgets))
        state.parts.recording.epoch = shard.generation[0]
        await _record_earlier(shard, state)
        await _make_members(shard, state, function)


def _place_of(shard: Shard, state: ExecutionState) -> Frame:
    """What stands for the call around the group."""
    frame = Frame(state.parts, shard.base, shard.address)
    _, frame.tries, frame.attempt = shard.generation
    frame.depth = shard.depth
    for _ in range(shard.group_number):
        frame.count(b"group:" + shard.group.encode("utf-8", "surrogatepass"))
    return frame


async def _record_earlier(shard: Shard, state: ExecutionState) -> None:
    """What members have called before is recorded here as well, before anything else is."""
    recording = state.parts.recording
    for outcome in shard.earlier if recording.recorded.events == 0 else ():
        status = ExecutionStatus.COMPLETED if outcome.error is None else ExecutionStatus.FAILED
        about = (outcome.name, outcome.address, outcome.key, outcome.group_id)
        fact = Fact(state.run_id, state.parts.now(), status, _EARLIER.event_type, _EARLIER, *about)
        recording.note(fact._replace(attempt=outcome.attempts, seconds=outcome.seconds), outcome)
    if shard.earlier:
        await recording.written()


async def _make_members(shard: Shard, state: ExecutionState, function: Callable[[Any], Any] | BaseActor) -> None:
    group = ParallelExecutionManager(
        state, shard.max_workers, name=shard.group, item_timeout=shard.item_timeout, retry=shard.policy
    )
    async with group:
        source = Source.of(function, shard.items, None, None, copy_context())
        source.is_part = True
        group.enrol(source)
        async for _ in group.stream():
            pass  # who has the group open gets it out of the journal
