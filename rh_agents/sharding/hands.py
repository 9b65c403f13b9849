"""Who executes shards: an engine of the process that has their group open, or workers that take them from a queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from rh_agents.core._base.sources import fingerprint
from rh_agents.core._group.group import Group
from rh_agents.core.errors import StopRun, WorkerLost
from rh_agents.core.policies.child_runs import ChildRun
from rh_agents.core.ports.executors import WORKERS, CallContext, Executor, ShardOptions
from rh_agents.core.queueing import BEFORE_FINGERPRINT, DEFAULT_QUEUE, SHARD_OF, flow_name
from rh_agents.core.redaction import logger
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.values.registry import name_of_module
from rh_agents.executors._workers.functions import refer
from rh_agents.executors._workers.pool import processors
from rh_agents.sharding.executing import execute_here
from rh_agents.sharding.placed import Placed

__all__ = ["EngineHands", "Hands", "QueueHands", "hands_for", "why_left"]

_MOST_OWNERS: Final = 5
"""A shard with which so many processes of an engine have died is given up."""
_SHARDS_AHEAD: Final = 4
"""So many workers are taken to take shards where it was not said how many there are."""
_log = logger("rh_agents.shards")


class Hands(Protocol):
    """Has shards executed."""

    workers: int
    """How many are executed at a time, as far as is known."""
    queue: str | None
    flow: str | None
    """From which queue workers take them, and what they import; None if it is an engine."""
    made_by: str | None
    settings: Any
    """See `Shard`."""

    async def execute(self, placed: Placed, url: str) -> str | None:
        """Have a shard executed to its end; returns why it has not come to it, None if it has.

        Raises:
            WorkerLost: too many processes have died with it.
        """
        ...


def hands_for(group: Group, function: Callable[[Any], Any], options: ShardOptions) -> Hands:
    """Who executes the shards of a group.

    Raises:
        DefinitionError: the run has no engine of this name, or workers could not find the function.
    """
    name, _, queue = options.on.partition(":")
    if name == WORKERS:
        return QueueHands(function, queue or DEFAULT_QUEUE, options.workers or _SHARDS_AHEAD)
    executor = group.run.executors.named(options.on, f"group {group.options.name}")
    trace = {} if group.run.tracing is None else group.run.tracing.carrier()  # of the group: shards are below it
    about = CallContext(group.run.identity, group.frame.address, 0, "", group.group_id, trace)
    return EngineHands(function, executor, about, options.workers or processors())


class EngineHands:
    """Processes of an engine, which end with this one."""

    queue: str | None = None
    flow: str | None = None
    made_by: str | None = None
    settings: Any = None

    def __init__(self, function: Callable[[Any], Any], executor: Executor, about: CallContext, workers: int) -> None:
        self._reference = refer(function)
        self._executor = executor
        self._about = about
        self.workers: int = workers

    async def execute(self, placed: Placed, url: str) -> str | None:
        """Replace processes that die, until one has come to the end."""
        shard_id = placed.shard.id
        while True:
            placed.owners += 1
            try:
                args = (url, shard_id, self._reference, name_of_module("__main__"))
                why: str | None = await self._executor.call(execute_here, args, {}, self._about)
            except WorkerLost as lost:
                if placed.owners >= _MOST_OWNERS:
                    text = f"{placed.owners} processes have died with its shard {shard_id}; the last one: {lost}"
                    raise WorkerLost(text) from lost
                _log.warning("shard %s has lost its process (%s), and is given to another one", shard_id, lost)
            else:
                return why


class QueueHands:
    """Workers, which take shards from a queue of the store, and go on without this process."""

    def __init__(self, function: Callable[[Any], Any], queue: str, workers: int) -> None:
        self.workers: int = workers
        self.queue: str | None = queue
        self.made_by: str | None = getattr(function, "made_by", None)
        self.settings: Any = getattr(function, "settings", None)
        target = flow_name(function) if self.made_by is None else str(getattr(function, "target", ""))
        code = fingerprint(function) if self.made_by is None else getattr(function, "code", None)
        named = target if code is None else f"{target}{BEFORE_FINGERPRINT}{code}"
        self.flow: str | None = f"{SHARD_OF}{named}"

    async def execute(self, placed: Placed, url: str) -> str | None:
        """Wait for the end of it, of which whoever follows shards tells."""
        return await placed.ended


def why_left(state: ChildRun) -> StopRun | WorkerLost | None:
    """Why a shard of workers does not go on by itself; None if it does, or has ended well."""
    if state.status is ExecutionStatus.FAILED:
        return WorkerLost(f"its shard {state.run_id} has failed: {state.reason or 'see what its worker says'}")
    if state.status is ExecutionStatus.COMPLETED or state.is_executed or state.is_ready:
        return None
    return StopRun(state.reason or f"its shard {state.run_id} waits for something")
