"""What an earlier execution of a run has left in shards, when the run is opened again.

What no worker has is taken over, and its shards are deleted: their members are cut anew. A shard that workers have, or
will take from their queue, goes on meanwhile: it is kept in mind for its group, which waits for what comes of it
(`ShardDriver`), or takes it back if it makes its members itself from now on (`recall`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from rh_agents.core._group.group import Group
from rh_agents.core._run.frame import Frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.runner import with_cache
from rh_agents.core.actors import BaseActor
from rh_agents.core.policies.child_runs import ChildRun, HasChildren
from rh_agents.core.ports import RunInfo
from rh_agents.core.ports.executors import Placement, ShardOptions
from rh_agents.core.redaction import logger
from rh_agents.core.results import ExecutionResult
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.values import decode
from rh_agents.sharding.driver import ShardDriver, result_of_outcome
from rh_agents.sharding.journals import delete_child, take_over, until_free
from rh_agents.sharding.placed import Placed
from rh_agents.sharding.shard import Shard

__all__ = ["SHARDING", "Recalling", "Sharding"]

_WITHIN: Final = 60.0
"""Seconds for which who executes a shard is waited for that is to let go of it: what is in flight may end."""
_log = logger("rh_agents.shards")


class Sharding:
    """What the core needs of this package."""

    def place(self, group: Group, function: Callable[[Any], Any] | BaseActor, options: ShardOptions) -> Placement:
        """Who has the members of this group made."""
        return ShardDriver(group, function, options)

    async def take_up(self, run: RunParts) -> None:
        """Let the journal of a run have what earlier executions of it have left in shards."""
        store: Any = run.store
        if not isinstance(store, HasChildren):  # not `SharedStore`: whether it has a `url` need not matter here
            return
        states = await store.children(run.run_id)
        found = [(state, await _found(run, store, state)) for state in states]
        engines = [state.run_id for state, _ in found if state.is_executed and not state.is_ready]
        if engines:  # their processes have lost the program, and are about to end
            await until_free(store, run.run_id, engines, _WITHIN)
        for placed in [placed for _, placed in found if placed is not None]:
            async for _ in take_over(run, store, placed):
                pass  # who asks for these members finds them in the journal
            if placed.is_kept:
                run.shards_left.setdefault(placed.shard.group_id, []).append(placed)
        gone = [state.run_id for state, placed in found if placed is None or not placed.is_kept]
        await asyncio.gather(*(delete_child(store, run_id) for run_id in gone))

    def recall(self, group: Group) -> Recalling:
        """What takes back what workers have of a group whose members are made in this process from now on."""
        return Recalling(group.run, group.group_id, group.run.shards_left.pop(group.group_id))


class Recalling:
    """Takes back what workers have of a group, when the first member has to be made: recovered ones need nothing of it.

    It is done in a task of its own, since the member that began it may be cancelled while others wait for it.
    """

    def __init__(self, run: RunParts, group_id: str, left: list[Placed]) -> None:
        self._run = run
        self._group_id = group_id
        self._left = left
        self._task: asyncio.Task[None] | None = None

    async def made(self, frame: Frame) -> ExecutionResult[Any]:
        """Make a member, as soon as it is known whether it has an outcome there."""
        if self._task is None:
            work = _recalled(self._run, self._group_id, self._left)
            self._task = asyncio.create_task(work, name="recalls shards")
        await asyncio.shield(self._task)
        recording = self._run.recording
        if frame.key is not None and recording.has_outcome(frame.key):
            return result_of_outcome(await recording.load(frame.key), frame)
        frame.elsewhere = None
        return await with_cache(frame)

    async def aclose(self) -> None:
        """The block of the group has been left: leave what has not been taken back to the next start of the run."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()  # who waited for it has raised it


SHARDING: Final = Sharding()


async def _found(run: RunParts, store: Any, state: ChildRun) -> Placed | None:
    """A shard of an earlier execution; None if nothing is known of it any more."""
    info: RunInfo | None = await store.find_run(state.run_id)
    if info is None or info.input is None:
        return None
    shard = Shard.from_json(decode(info.input))
    until = run.recording.recorded.taken_over.get(shard.id, 0)
    is_kept = state.is_ready or state.status is ExecutionStatus.AWAITING  # it has questions, perhaps with answers
    is_queued, keys = is_kept and info.queue is not None, [item.place.key for item in shard.items]
    return Placed(shard, {}, until, is_queued=is_queued, is_kept=is_kept, keys=keys)


async def _recalled(run: RunParts, group_id: str, left: list[Placed]) -> None:
    """Let workers end what is in flight in these shards, and take over what they have."""
    store: Any = run.store
    await store.stop_children(run.run_id, group_id, "its group goes on without shards")
    await until_free(store, run.run_id, [placed.shard.id for placed in left], _WITHIN)
    for placed in left:
        async for _ in take_over(run, store, placed):
            pass
        await delete_child(store, placed.shard.id)
