"""The process that has the group open: cuts shards, has them executed, and takes over what their journals say."""

from __future__ import annotations

import asyncio
import functools
import math
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, cast

from rh_agents.core._base.key_generations import fact_of_keys
from rh_agents.core._group.group import Group
from rh_agents.core._group.members import Place
from rh_agents.core._limits.ledgers import Ledger
from rh_agents.core._loops.exits import FAILURES, failure_of
from rh_agents.core._run.frame import Frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import RhAgentsError, StopRun, StoreError, UsageError, WorkerLost
from rh_agents.core.policies.child_runs import GROUP_HAS_ENDED, AboutChild, ChildRun, NewChild
from rh_agents.core.ports import SharedStore
from rh_agents.core.ports.control import control_of
from rh_agents.core.ports.executors import Placement, ShardOptions
from rh_agents.core.redaction import logger
from rh_agents.core.results import ExecutionResult, Outcome
from rh_agents.core.usage import Usage
from rh_agents.core.values import encode, encode_any
from rh_agents.sharding.hands import Hands, hands_for, why_left
from rh_agents.sharding.journals import calls_below, delete_child, take_over, until_free
from rh_agents.sharding.placed import Placed, Wanted, give
from rh_agents.sharding.shard import WORKFLOW, Item, Shard, retry_as_json

__all__ = ["ShardDriver", "result_of_outcome"]

_LOOK_EVERY: Final = 0.1
"""Seconds between two looks into the journals of shards."""
_COMPANY: Final = 0.05
"""Seconds for which members wait until there are enough of them for a whole shard."""
_QUIET: Final = 0.3
"""Seconds in which no member came, after which the program is taken to have named all that it names at once."""
_ENDS_WITHIN: Final = 5.0
"""Seconds for which workers are waited for that have been told that the group has ended."""
_NOTHING: Final = Usage()
_log = logger("rh_agents.shards")


class ShardDriver(Placement):
    """Has the members of one group made in other processes.

    Args:
        group: the group.
        function: what is applied to items. If it has attributes `elsewhere` and `data_of`, other processes apply the
            former, to what the latter gives for an item.
        options: how large shards are, and where they are executed.
    """

    def __init__(self, group: Group, function: Callable[[Any], Any] | BaseActor, options: ShardOptions) -> None:
        run = group.run
        self._group = group
        self._run = run
        self._options = options
        self._max_workers = group.options.max_workers
        self._store, self._url = _shared_store(run, group.options.name)
        self._retry = _expect_plain(group)
        self._data_of: Callable[[Any], Any] = getattr(function, "data_of", _itself)
        applied = cast("Callable[..., Any]", getattr(function, "elsewhere", function))
        self._hands: Hands = hands_for(group, applied, options)
        self._workers = self._hands.workers
        self._places = tuple(ledger.place for ledger in group.ledgers if ledger.place)
        self._waiting: deque[Wanted] = deque()
        self._placed: dict[str, Placed] = {}
        self._found: dict[bytes, Placed] = {}
        """By the key of each member, the shards that workers had when the run was opened."""
        self._came_at = asyncio.get_running_loop().time()
        self._earlier: dict[bytes, list[Outcome]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cutting: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._stop: StopRun | None = None
        self._is_held = False
        self._is_closed = False
        self._background: set[asyncio.Task[None]] = set()
        run.interruption.watch(self._drain)
        for placed in run.shards_left.pop(group.group_id, ()):
            if placed.is_queued or self._hands.queue is None:
                self._found.update(dict.fromkeys(placed.keys, placed))
                self._execute(placed)
            else:  # of an engine, which is not to execute it any more
                self._in_background(_deleted(self._store, placed.shard.id))

    @property
    def most(self) -> int:
        """Members that are on their way: enough that each worker has a next shard when it has ended one."""
        return 2 * self._workers * self._options.size

    def set_max_workers(self, count: int) -> None:
        """So many run at a time in each process."""
        self._max_workers = count
        for placed in self._placed.values():
            self._in_background(_steered(self._store, placed.shard.id, {"max-workers": count}))

    # -- members ------------------------------------------------------------------------------------------------------

    async def result_of(self, item: Any, frame: Frame) -> ExecutionResult[Any]:
        """What a member came to, when its outcome is in our journal."""
        return result_of_outcome(await self._outcome_of(item, frame), frame)

    async def _outcome_of(self, item: Any, frame: Frame) -> Outcome:
        if self._stop is not None:
            raise self._stop | self._stop
        key = frame.key
        assert key is not None
        wanted = Wanted(frame, item, asyncio.get_running_loop().create_future())
        self._came_at = asyncio.get_running_loop().time()
        found = self._found.get(key)
        if found is None or found.is_over:
            if self._run.recording.has_outcome(key):  # since it was looked at, its shard has been taken over
                return await self._run.recording.load(key)
            self._waiting.append(wanted)
            self._cut_soon()
        else:
            found.wanted[key] = wanted
            if self._run.recording.has_outcome(key):
                wanted.outcome.set_result(await self._run.recording.load(key))
        while not wanted.outcome.done():
            try:
                await asyncio.wait((wanted.outcome,))
            except asyncio.CancelledError as error:
                if not frame.has_settled:
                    self._withdraw(wanted)
                    raise
                frame.postpone(error)  # its outcome is being taken over
        return wanted.outcome.result()

    def _withdraw(self, wanted: Wanted) -> None:
        """The member is cancelled."""
        wanted.outcome.cancel()
        if wanted in self._waiting:
            self._waiting.remove(wanted)
            return
        wanted.frame.may_be_done = True  # nobody knows how far its process has come
        for placed in self._placed.values():
            key = wanted.frame.key
            if key is not None and key in placed.wanted and wanted.frame.withdrawn is not None:
                self._in_background(_cancelled(self._store, placed.shard.id, key, wanted.frame.withdrawn))

    # -- cutting ------------------------------------------------------------------------------------------------------

    def _cut_soon(self) -> None:
        """Cut a shard when there are enough members, or when no more come."""
        if len(self._waiting) >= self._options.size:
            self._begin_to_cut()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_COMPANY, self._begin_to_cut)

    def _begin_to_cut(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._cutting is None and not self._is_closed:
            self._cutting = asyncio.create_task(self._cut_all(), name="cuts shards")
            self._cutting.add_done_callback(self._has_cut)

    def _has_cut(self, task: asyncio.Task[None]) -> None:
        self._cutting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def _cut_all(self) -> None:
        while self._waiting and len(self._placed) < 2 * self._workers and self._stop is None:
            if self._run.interruption.is_held:
                await self._run.interruption.wait_while_held()
                continue
            if (stop := self._expect_budget()) is not None:
                self._drain_with(stop)
                return
            room = min(self._options.size, len(self._waiting), self._room())
            if room <= 0:
                return  # until some of those have ended for which the budget is reserved
            members = [self._waiting.popleft() for _ in range(int(room))]
            placed = await self._cut(members)
            if placed is not None:
                await self._store.add_child(self._run.run_id, self._child(placed.shard))
                self._execute(placed)

    def _room(self) -> float:
        """How many more members the budgets of the group may suffice for, beside those that are on their way."""
        under_way = sum(not each.outcome.done() for placed in self._placed.values() for each in placed.wanted.values())
        left = (
            ledger.budget.calls - ledger.spent.calls
            for ledger in self._ledgers
            if ledger.budget.calls is not None and ledger.share is None
        )
        return min(left, default=math.inf) - under_way

    def _expect_budget(self) -> StopRun | None:
        """Why no more calls can be made, if a budget is spent."""
        for ledger in self._ledgers:
            limit = ledger.missing(_NOTHING, 1)
            if limit is not None:
                return self._spent(ledger, limit)
        return None

    @property
    def _ledgers(self) -> tuple[Ledger, ...]:
        """The budgets that count what members spend."""
        of_run = self._run.budgets.of_run
        return self._group.ledgers if of_run is None else (of_run, *self._group.ledgers)

    def _spent(self, ledger: Ledger, limit: str) -> StopRun:
        stop = ledger.stop(limit, self._group.options.name)
        self._run.interruption.budget_spent(stop)
        return stop

    def _stop_of(self, why: str) -> StopRun:
        """Why members of a shard cannot be made that was stopped: if by a budget that it shares, by that."""
        for ledger in self._ledgers:
            limit = ledger.limit_in(why)
            if limit is not None:
                return self._spent(ledger, limit)
        return StopRun(why)

    async def _cut(self, members: Sequence[Wanted]) -> Placed | None:
        """A shard of these members, but for those whose item is no data."""
        items: list[Item] = []
        earlier: list[Outcome] = []
        wanted: dict[bytes, Wanted] = {}
        for each in members:
            frame = each.frame
            assert frame.key is not None
            assert frame.index is not None
            try:
                text = encode(self._data_of(each.item)).decode()
            except FAILURES as raised:
                if not each.outcome.done():
                    each.outcome.set_exception(failure_of(raised))
                continue
            place = Place(frame.index, frame.base, frame.key, frame.tries)
            name = self._group.names.get(frame.index, frame.name)
            items.append(Item(place, name, text))
            wanted[frame.key] = each
            earlier += await self._earlier_calls_of(frame.key)
        is_queued = self._hands.queue is not None
        return Placed(self._shard(items, earlier), wanted, is_queued=is_queued) if items else None

    def _shard(self, items: Sequence[Item], earlier: Sequence[Outcome]) -> Shard:
        group, frame, options = self._group, self._group.frame, self._group.options
        return Shard(
            self._run.identity,
            options.name,
            group.group_id,
            group.number,
            frame.base,
            frame.address,
            frame.generation,
            frame.depth,
            self._max_workers,
            options.item_timeout,
            self._retry,
            self._run.state.on_unknown.value,
            self._run.record_inputs.value,
            self._places,
            tuple(items),
            tuple(earlier),
            self._hands.made_by,
            self._hands.settings,
            f"{self._run.run_id}/{options.name}/{uuid.uuid4().hex[:16]}",
            tuple({each.budget.name: each.budget for each in self._ledgers if each.share is not None}.values()),
        )

    def _child(self, shard: Shard) -> NewChild:
        """The run of a shard, with all that whoever executes it has to know."""
        return NewChild(
            shard.id,
            WORKFLOW,
            encode_any(shard.as_json()),
            AboutChild(shard.group_id, len(shard.earlier), shard.places),
            fact_of_keys(self._run.recording.keys_generation),
            self._hands.queue,
            self._hands.flow,
        )

    async def _earlier_calls_of(self, key: bytes) -> list[Outcome]:
        """What a member had called, and has outcomes of, before it was cut off."""
        recorded = self._run.recording.recorded
        if not (key in recorded.unknown or key in recorded.attempts or key in recorded.waiting):
            return []
        if self._earlier is None:
            self._earlier = await calls_below(self._store, self._run.run_id, {*recorded.unknown, *recorded.attempts})
        return self._earlier.get(key, [])

    # -- executing ----------------------------------------------------------------------------------------------------

    def _execute(self, placed: Placed) -> None:
        self._placed[placed.shard.id] = placed
        placed.executed = asyncio.create_task(self._have_executed(placed), name=f"executes {placed.shard.id}")
        placed.executed.add_done_callback(functools.partial(self._was_executed, placed))
        if self._following is None:
            self._following = asyncio.create_task(self._follow(), name="follows shards")
            self._following.add_done_callback(self._has_followed)

    async def _have_executed(self, placed: Placed) -> None:
        """Have a shard executed to its end, and take over all of its journal."""
        try:
            why = await (placed.ended if placed.is_queued else self._hands.execute(placed, self._url))
        except WorkerLost as lost:
            await self._take_over(placed)
            placed.give_up(str(lost))
            placed.is_over = True
            await delete_child(self._store, placed.shard.id)
            return
        await self._take_over(placed)
        if why is not None:
            placed.leave(self._stop_of(why))
            return
        placed.is_over = True
        left = placed.take_back()  # if somebody has deleted it
        if self._stop is None:
            self._waiting.extend(left)
        else:
            Placed(placed.shard, {each.frame.key or b"": each for each in left}).leave(self._stop)
        await delete_child(self._store, placed.shard.id)

    def _was_executed(self, placed: Placed, task: asyncio.Task[None]) -> None:
        self._placed.pop(placed.shard.id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
        elif self._waiting:
            self._begin_to_cut()

    def _failed(self, error: BaseException) -> None:
        """No shard can be had any more: that ends the group."""
        self._group.failed(error)

    # -- following them -----------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while self._placed:
            await asyncio.sleep(_LOOK_EVERY)
            states = {each.run_id: each for each in await self._store.children(self._run.run_id)}
            for placed in list(self._placed.values()):
                state = states.get(placed.shard.id)
                if state is not None and state.sequence > placed.until and self._is_due(placed):
                    await self._take_over(placed)
                if placed.is_queued and not placed.ended.done():
                    await self._see_end(placed, state)
            self._pass_on_pause()
            if self._waiting:
                self._cut_soon()
            if self._stop is None and (stop := self._expect_budget()) is not None:
                self._drain_with(stop)

    def _is_due(self, placed: Placed) -> bool:
        """Whether a journal is to be taken over now.

        Outcomes of members that the program has not named yet would come before it in the order in which it gets them.
        So those of a shard that was found wait until it names no more.
        """
        if not placed.keys or len(placed.wanted) == len(placed.keys):
            return True
        return asyncio.get_running_loop().time() - self._came_at > _QUIET

    async def _see_end(self, placed: Placed, state: ChildRun | None) -> None:
        """See whether nothing more comes of a shard that workers execute."""
        if state is None:
            placed.ended.set_result(None)
            return
        if self._hands.queue is None and not state.is_executed:  # perhaps there is no worker that would take it
            await self._withdraw_shard(placed)
            return
        why = why_left(state)
        if isinstance(why, WorkerLost):
            placed.ended.set_exception(why)
        elif why is not None:
            placed.ended.set_result(why.reason)
        elif not state.is_executed and not state.is_ready:
            placed.ended.set_result(None)

    async def _withdraw_shard(self, placed: Placed) -> None:
        """Take a shard back from the queue; what is left of it is cut anew."""
        if await delete_child(self._store, placed.shard.id, before=functools.partial(self._take_over, placed)):
            placed.ended.set_result(None)

    def _pass_on_pause(self) -> None:
        """Who pauses the run pauses its shards."""
        is_held = self._run.interruption.is_held
        if is_held != self._is_held:
            self._is_held = is_held
            for placed in self._placed.values():
                self._in_background(_paused(self._store, placed.shard.id, is_held))

    def _has_followed(self, task: asyncio.Task[None]) -> None:
        self._following = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def _take_over(self, placed: Placed) -> None:
        """Let our journal have what that of a shard has, and members their outcomes."""
        async with placed.lock:
            if placed.is_over:
                return

            def about_to(outcomes: Sequence[Outcome]) -> None:
                for outcome in outcomes:
                    if outcome.key in placed.wanted:
                        placed.wanted[outcome.key].frame.has_settled = True  # from now on it is not cut off

            total = self._group.roster.total
            async for outcomes in take_over(self._run, self._store, placed, about_to, total):
                give(placed.wanted, outcomes)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _drain(self) -> None:
        """The run is being stopped: no shard begins anything, and what is under way comes to its end."""
        try:
            self._run.interruption.expect_running()
        except StopRun as stop:
            self._drain_with(stop)

    def _drain_with(self, stop: StopRun) -> None:
        if self._stop is not None or self._is_closed:
            return
        self._stop = stop
        while self._waiting:
            wanted = self._waiting.popleft()
            if not wanted.outcome.done():
                wanted.outcome.set_exception(stop | stop)
        self._in_background(self._let_end(stop))

    async def _let_end(self, stop: StopRun) -> None:
        """Let what is under way in shards come to its end, and leave the rest to the next start."""
        while self._placed and not self._is_closed:
            try:  # again and again: one that is opened just now has forgotten what was asked before
                await self._store.stop_children(self._run.run_id, self._group.group_id, stop.reason)
                states = {each.run_id: each for each in await self._store.children(self._run.run_id)}
                for placed in list(self._placed.values()):
                    state = states.get(placed.shard.id)
                    if not placed.is_queued and (state is None or not state.is_executed):
                        await self._end_now(placed, stop)
            except StoreError as error:
                self._failed(error)
                return
            await asyncio.sleep(_LOOK_EVERY)

    async def _end_now(self, placed: Placed, stop: StopRun) -> None:
        """No process has the run of a shard open: none is to open it now."""
        if placed.executed is not None:
            placed.executed.cancel()
            await asyncio.wait((placed.executed,))
        await self._take_over(placed)
        placed.leave(stop)
        await delete_child(self._store, placed.shard.id)

    async def aclose(self, *, goes_on: bool) -> None:
        """The block has been left: nothing goes on that it has no use for, and what was paid for is in our journal."""
        self._is_closed = True
        self._run.interruption.unwatch(self._drain)
        if self._timer is not None:
            self._timer.cancel()
        placed = list(self._placed.values())
        own = (self._cutting, self._following, *self._background, *(each.executed for each in placed))
        tasks = [task for task in own if task is not None]
        to_the_end = {each.executed for each in placed if each.is_over or (each.has_all and not each.is_queued)}
        for task in tasks:
            if task not in to_the_end:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._run.recording.broken is not None:
            return
        queued = [each.shard.id for each in placed if each.is_queued and not each.is_over]
        if queued and not goes_on:
            await self._store.stop_children(self._run.run_id, self._group.group_id, GROUP_HAS_ENDED)
            await until_free(self._store, self._run.run_id, queued, _ENDS_WITHIN)
        for each in placed:
            if not each.is_over and not (each.is_queued and goes_on):
                await self._take_over(each)
                await delete_child(self._store, each.shard.id)


# -- what is asked of the run of a shard -------------------------------------------------------------------------------


async def _cancelled(store: Any, run_id: str, key: bytes, why: str) -> None:
    """Have a member of a shard cancelled, if it has not ended by then."""
    try:
        await control_of(store, run_id).cancel([f"@{key.hex()}"], reason=why)
    except RhAgentsError:
        _log.debug("a member of shard %s had ended before it could be cancelled", run_id)


async def _deleted(store: Any, run_id: str) -> None:
    await delete_child(store, run_id)


async def _paused(store: Any, run_id: str, is_paused: bool) -> None:
    control = control_of(store, run_id)
    try:
        await (control.pause if is_paused else control.unpause)(reason="its run is")
    except RhAgentsError:
        _log.debug("shard %s had ended before it could be paused or go on", run_id)


async def _steered(store: Any, run_id: str, settings: Mapping[str, Any]) -> None:
    try:
        await control_of(store, run_id).set(settings)
    except RhAgentsError:
        _log.debug("shard %s had ended before it could get other numbers", run_id)


# -- groups that can be placed -----------------------------------------------------------------------------------------


def result_of_outcome(outcome: Outcome, frame: Frame) -> ExecutionResult[Any]:
    """The result of a member whose outcome another process has recorded, and our journal has."""
    frame.has_settled = True
    frame.attempts = outcome.attempts
    frame.result = outcome.as_result(frame.index, frame.address).model_copy(update={"is_replayed": False})
    if frame.settled is not None:
        frame.settled(frame)
    return frame.result


def _itself(item: Any) -> Any:
    return item


def _shared_store(run: RunParts, group: str) -> tuple[Any, str]:
    """The store of a run and its name.

    Raises:
        UsageError: other processes cannot open it.
    """
    store: Any = run.store
    if isinstance(store, SharedStore):
        return store, store.url
    what = "is not recorded" if store is None else f"is recorded in a {type(store).__name__}"
    raise UsageError(
        f"the items of group {group!r} are to be made in other processes, and its run {what}, which those cannot "
        "open: give the run a file or a PostgreSQL database, as in run(..., store='runs.db')"
    )


def _expect_plain(group: Group) -> dict[str, Any] | None:
    """The retry policy of a group, as plain data.

    Raises:
        UsageError: it has options that hold in one process only.
    """
    options = group.options
    for name, value in (("breaker", options.breaker), ("limits", options.limits)):
        if value:
            raise UsageError(
                f"group {options.name!r} has {name}, which would hold in each of its processes by itself: give "
                f"{'it' if name == 'breaker' else 'them'} to the function, and limits with shared=True"
            )
    return retry_as_json(options.retry, options.name)
