"""Groups: calls that run side by side, of which none is lost.

    async with state.parallel(max_workers=20, name="pages") as p:
        for url in urls:
            p.add(fetch(url))
        results = await p.gather()

The group owns every task that it starts: when its block has ended, all of them have. Members wait as plain objects;
only one that runs has a task, with a context of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import copy_context
from types import TracebackType
from typing import Any, ClassVar, Self, TypeAlias, TypeVar, Unpack, overload

from rh_agents.core._base.mistakes import AsyncBlock
from rh_agents.core._base.tracebacks import trimmed
from rh_agents.core._group.ending import FailurePolicy, GroupOptions, add_failures, positive_or_none, text_or_none
from rh_agents.core._group.group import Group
from rh_agents.core._group.handles import Items, MapHandle, MapOptions, MemberHandle, RowOptions
from rh_agents.core._group.members import (
    Held,
    Source,
    Work,
    check_work,
    close_unstarted,
    expect_name,
    learn_types,
)
from rh_agents.core._group.stream import ResultStream
from rh_agents.core._replay.stops import stop_behind
from rh_agents.core._run.cancellations import cancellations, is_cut_off
from rh_agents.core._run.frame import current_frame, root_of
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import Call, FunctionCall
from rh_agents.core.errors import (
    CallCancelled,
    StopRun,
    UnreadFailures,
    UsageError,
)
from rh_agents.core.groups import (
    EndingCause,
    ErrorStrategy,
    GroupStatus,
    ParallelDisplayMode,
    ParallelEventGroup,
)
from rh_agents.core.policies._checks import at_least, yes_or_no
from rh_agents.core.policies._options import instance_of, one_of, takes_options
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.budget import Budget, expect_budget
from rh_agents.core.policies.limits import Limit, limits_of
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.ports.executors import ShardOptions, sharding
from rh_agents.core.results import ExecutionResult, MemberResult, describe_error
from rh_agents.core.runs import Run
from rh_agents.core.tracking import ParallelGroupTracker
from rh_agents.core.types import Engine
from rh_agents.core.values.rows import DataFrame

__all__ = [
    "ErrorStrategy",
    "GroupStatus",
    "MapHandle",
    "MemberHandle",
    "MemberResult",
    "ParallelDisplayMode",
    "ParallelEventGroup",
    "ParallelExecutionManager",
    "ParallelGroupTracker",
    "ResultStream",
]

T = TypeVar("T")
ItemT = TypeVar("ItemT")
_CallOf: TypeAlias = FunctionCall[T] | Coroutine[Any, Any, T]

_UNNAMED = "parallel"
_SHARD = 500
"""How many items a process gets at a time unless the program says it."""


class ParallelExecutionManager(AsyncBlock):
    """A group of calls that run side by side; `ExecutionState.parallel` and `rh_agents.parallel` make one.

    Args:
        execution_state: the run to which the calls belong.
        max_workers: how many members may run at the same time.
        error_strategy: FAIL_SLOW gives every result; FAIL_FAST cancels the others at the first failure and raises it.
        timeout: seconds for the whole group, from entering its block. Then what runs is cancelled, and the block's
            next `gather`, `stream` or end raises `GroupTimeout`. Code of the block itself is not interrupted.
        name: part of the identity and the address of its members, and shown to people.
        fail_after: stop after this many failures (an int), or after this share of the finished members (a float up to
            1.0, judged on ten finished members or more), with `TooManyFailures`.
        item_timeout: seconds for each attempt of a member whose actor states no timeout.
        retry: for members whose actor states none: a `RetryPolicy`, or the number of attempts.
        breaker: for members whose actor states none; may be shared between groups.
        limits: what each attempt of a member waits for, besides the limits of its actor; may be shared between groups.
        budget: what all members may spend together, what they spent in earlier executions included.
        requeue: whether a failure that a stream has given can be followed by a further result, when a person asks for
            the call to be made again (`rh-agents requeue`): it is marked `requeued`. A stream then looks for such
            requests before it ends, and the group keeps the members that failed, with what they are called with.
    """

    written: ClassVar[str] = "async with parallel(...) as p"

    @takes_options("parallel()")
    def __init__(
        self,
        execution_state: Run,
        max_workers: int = 5,
        error_strategy: ErrorStrategy | str = ErrorStrategy.FAIL_SLOW,
        timeout: float | None = None,
        name: str | None = None,
        *,
        fail_after: int | float | None = None,
        item_timeout: float | None = None,
        retry: RetryPolicy | int | None = None,
        breaker: CircuitBreaker | None = None,
        limits: Limit | Sequence[Limit] = (),
        budget: Budget | None = None,
        requeue: bool = False,
    ) -> None:
        self.name: str = text_or_none(name) or _UNNAMED
        self.max_workers: int = at_least(1, "max_workers", max_workers)
        self.error_strategy: ErrorStrategy = one_of(ErrorStrategy, "error_strategy", error_strategy)
        self.timeout: float | None = positive_or_none("timeout", timeout)
        self.item_timeout: float | None = positive_or_none("item_timeout", item_timeout)
        self._failure_policy = FailurePolicy(self.error_strategy, fail_after)
        self.retry: RetryPolicy | None = RetryPolicy.of(retry)
        self.breaker: CircuitBreaker | None = instance_of(CircuitBreaker, "breaker", breaker)
        self.limits: tuple[Limit, ...] = limits_of(limits)
        self.budget: Budget | None = expect_budget(budget)
        self.requeue: bool = yes_or_no("requeue", requeue)
        self._run: RunParts = execution_state.parts
        self._tracker = ParallelGroupTracker(group_id="", name=self.name)
        self._begun: Group | None = None
        self._cancellations = 0
        self._gathered = 0
        self._seen: set[int] = set()
        self._stream: ResultStream | None = None

    @property
    def group_id(self) -> str:
        """What identifies the group: the same in every execution of a run that is recorded."""
        return self._tracker.group_id

    # -- the block ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._begun is not None:
            raise UsageError(f"group {self.name!r} has been entered before; make a new one with parallel()")
        run = self._run
        await run.open()
        current = current_frame.get()
        frame = current if current is not None and current.run is run else root_of(run)
        frame.expect_no_stop(asyncio.current_task())
        self._cancellations = cancellations()
        self._begun = Group(run, frame, self._options(), self._tracker)
        await self._begun.begin()
        return self

    def _options(self) -> GroupOptions:
        return GroupOptions(
            self.name,
            self.max_workers,
            self._failure_policy,
            self.timeout,
            self.item_timeout,
            self.retry,
            self.breaker,
            self.limits,
            self.budget,
            self.requeue,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group = self._group
        if group.run.is_destroyed_by(error):
            return
        try:
            await self._leave(group, error)
        except BaseException as raised:
            await group.has_been_left(raised)
            trimmed(raised)
            raise
        await group.has_been_left(error)
        if error is not None:
            trimmed(error)

    @property
    def _group(self) -> Group:
        assert self._begun is not None
        return self._begun

    async def _leave(self, group: Group, error: BaseException | None) -> None:
        """The block has come to its end, or `error` ended it."""
        status = GroupStatus.CANCELLED
        try:
            if error is None:
                await self._end_block(group)
                status = GroupStatus.CANCELLED if group.scheduler.is_halted else GroupStatus.COMPLETED
                self._raise_unread(group)
            else:
                await self._abandon(group, error)
        finally:
            has_reason = group.ending.find_reason() is not None
            try:
                await group.close(GroupStatus.FAILED if has_reason else status)
            finally:
                self._stream = None

    async def _end_block(self, group: Group) -> None:
        """The block came to its end: wait for what it left running, and raise what it did not see."""
        scheduler, ending = group.scheduler, group.ending
        group.judge()
        if self._stream is not None and not self._stream.is_exhausted and scheduler.has_left_something:
            ending.halt(cause=EndingCause.LEFT)
        scheduler.read_on()
        try:
            await scheduler.idle()
        except asyncio.CancelledError:
            ending.halt()
            await scheduler.join()
            raise
        scheduler.finished.has_been_read()
        await ending.acknowledge()
        group.conclude()
        if not ending.reason.was_raised:
            ending.raise_reason()
        group.raise_stop()

    def _raise_unread(self, group: Group) -> None:
        """Failures that no one saw must not pass silently. Only leaving a stream early says: the rest is not wanted."""
        if self._stream is not None and not self._stream.is_exhausted:
            return
        errors = [result.error for result in self._unread if isinstance(result.error, Exception)]
        if errors and group.ending.reason.error is None:
            raise UnreadFailures(
                f"{len(errors)} of {group.roster.enrolled} calls of group {self.name!r} failed, and their "
                "results were not read; end the block with `await p.gather()`",
                errors,
            )

    async def _abandon(self, group: Group, error: BaseException) -> None:
        """The block raised, or was cancelled: nothing of the group goes on, and what it had is not hidden."""
        stop = None if isinstance(error, asyncio.CancelledError) else stop_behind(error)
        if stop is not None:  # nobody is to blame: what runs comes to its end
            group.scheduler.drain(stop)
        else:
            is_left = isinstance(error, Exception) and not is_cut_off(group.frame, error, self._cancellations)
            group.ending.halt(cause=EndingCause.LEFT if is_left else None, message=describe_error(error))
        await group.scheduler.join()
        if error is not group.ending.find_reason():
            add_failures(error, self.name, self._unread)

    # -- enrolment ----------------------------------------------------------------------------------------------------

    @overload
    def add(self, work: _CallOf[T], name: str | None = None, *, key: str | None = None) -> MemberHandle[T]: ...
    @overload
    def add(
        self, work: Awaitable[ExecutionResult[T]], name: str | None = None, *, key: str | None = None
    ) -> MemberHandle[T]: ...
    @overload
    def add(
        self, work: Awaitable[T] | Callable[[], Awaitable[T]], name: str | None = None, *, key: str | None = None
    ) -> MemberHandle[T]: ...
    def add(self, work: Work, name: str | None = None, *, key: str | None = None) -> MemberHandle[Any]:
        """Enrol a call, a coroutine, or a callable without arguments that returns an awaitable.

        It starts as soon as a slot is free, also while results are being streamed. If the group has ended early, it
        never begins. In a run that is recorded, the block learns it from the next `gather`, `stream` or its end, for
        what it learns must be on disk before, and `add` cannot wait for that; after that, and in any other run,
        `add` raises.

        Args:
            work: what to run. Only calls and callables can be run again by a retry.
            name: shown to people, the key of `gather_dict`, and the identity of work whose input cannot be seen.
            key: the identity of the work when the run is executed again, in place of its input or name.

        Returns:
            The index of the member, counted from 0; and what to `await` for its value, whose type is that of the work.

        Raises:
            DefinitionError: it is nothing that could run, or a bare coroutine in a group that retries.
            OptionError: the name is no text.
            UsageError: the block has not been entered, or has ended.
            BaseException: the group has ended early; this is why.
        """
        try:
            group = self._expect_open("add()")
            check_work(work, self._makes_again)
            if name is not None:
                expect_name(work, name)
            if self._run.records and not isinstance(work, Call) and callable(work):
                learn_types(work)
            member = group.roster.enrol(work, name, key, copy_context(), asyncio.get_running_loop().time())
            held = member.held = Held()
        except BaseException:
            close_unstarted(work)
            raise
        if group.scheduler.is_halted:
            group.scheduler.take_late(member)
        else:
            group.roster.wait(member)
            group.start_what_came()
        return MemberHandle.of(member.index, self, held)

    @overload
    def map(
        self, function: Callable[[dict[str, Any]], _CallOf[T]], items: DataFrame, **options: Unpack[RowOptions]
    ) -> MapHandle[T, Any]: ...
    @overload
    def map(self, function: BaseActor, items: DataFrame, **options: Unpack[RowOptions]) -> MapHandle[Any, Any]: ...
    @overload
    def map(
        self, function: Callable[[ItemT], _CallOf[T]], items: Items[ItemT], **options: Unpack[MapOptions[ItemT]]
    ) -> MapHandle[T, ItemT]: ...
    @overload
    def map(
        self,
        function: Callable[[ItemT], Awaitable[ExecutionResult[T]]],
        items: Items[ItemT],
        **options: Unpack[MapOptions[ItemT]],
    ) -> MapHandle[T, ItemT]: ...
    @overload
    def map(
        self, function: Callable[[ItemT], Awaitable[T]], items: Items[ItemT], **options: Unpack[MapOptions[ItemT]]
    ) -> MapHandle[T, ItemT]: ...
    @overload
    def map(
        self, function: BaseActor, items: Items[ItemT], **options: Unpack[MapOptions[ItemT]]
    ) -> MapHandle[Any, ItemT]: ...
    @takes_options("map()")
    def map(
        self,
        function: Callable[[Any], Any] | BaseActor,
        items: Items[Any] | DataFrame,
        *,
        name: Callable[[Any], str] | None = None,
        key: Callable[[Any], str] | None = None,
        shard: int | None = None,
        on: str | None = None,
        workers: int | None = None,
    ) -> MapHandle[Any, Any]:
        """Enrol `function(item)` for every item, each one pulled from `items` when a slot is free for it.

        While no one collects all results with `gather`, pulling also waits for the reader of the stream, so a million
        items need no more memory than a few. If `items` raises, that is the failure of one last member.

        Args:
            function: gives a call or an awaitable for an item; another attempt calls it again. Or an actor, whose input
                an item then is.
            items: an iterable or async iterable. Of a data frame of pandas or polars, each row: a mapping from the
                names of its columns to plain values, in which what is missing is None.
            name: gives the name of an item's member.
            key: gives the identity of an item, in place of the item itself.
            shard: have the items made in other processes, so many in each at a time (see `docs/scale.md`). Such a
                group has nothing else; its `max_workers` hold in each process. Keys and results are those of a `map`
                without it, so it may change from one start to the next.
            on: the engine that has the processes, "process" by default. "workers" (or "workers:QUEUE") lets processes
                of `rh-agents worker` take the shards from a queue, on whatever machines; they go on without this one.
            workers: how many processes work at a time; by default as many as the engine has, or 4 workers.

        Returns:
            What to `await` for the results of these items, whose types are known: each is a `MemberResult` with its
            `item`. `p.gather()` and `p.stream()` give them as well.

        Raises:
            DefinitionError: `function` cannot be called, `items` cannot be iterated, or is one text; or the columns of
                a data frame have no names, or not their own.
            UsageError: items cannot be made in other processes: the run has no store that those can open, or the group
                has options that hold in one process only.
        """
        group = self._expect_open("map()")
        source = Source.of(function, items, name, key, copy_context())
        if shard is not None or on is not None or workers is not None:
            self._place(group, source, function, shard, on, workers)
        elif group.placement is not None:
            raise UsageError(f"the items of group {self.name!r} are made in other processes; open another group")
        self.enrol(source)
        return MapHandle(self, source)

    def enrol(self, source: Source) -> None:
        """Enrol what a source gives; `map` makes one of its arguments.

        Raises:
            UsageError: the block has not been entered, or has ended.
        """
        group = self._expect_open("map()")
        if self._run.records:
            learn_types(source.function)
        group.roster.add_source(source)
        if group.scheduler.is_halted:
            group.scheduler.discard()
        else:
            group.start_what_came()

    @property
    def _makes_again(self) -> str | None:
        if self.retry is not None and self.retry.max_attempts > 1:
            return "retries"
        return "makes members again when a person asks for it (requeue=True)" if self.requeue else None

    def _place(
        self, group: Group, source: Source, function: Any, shard: int | None, on: str | None, workers: int | None
    ) -> None:
        """Have the items of a source made in other processes."""
        if group.roster.enrolled or group.roster.has_sources:
            raise UsageError(f"group {self.name!r} has members already: items of shards have a group of their own")
        size = at_least(1, "shard", _SHARD if shard is None else shard)
        at_once = None if workers is None else at_least(1, "workers", workers)
        placement = sharding().place(group, function, ShardOptions(size, on or Engine.PROCESS.value, at_once))
        source.elsewhere = group.placement = placement
        group.scheduler.slots.resize(placement.most)

    def _expect_open(self, method: str) -> Group:
        """The group, if it takes more work."""
        group = self._expect_entered(method)
        if self._tracker.status is not GroupStatus.RUNNING:
            raise UsageError(f"group {self.name!r} has ended: {method} belongs inside its `async with` block")
        ending = group.ending
        if ending.is_expired and not self._run.records:
            ending.reason.note(ending.timed_out())
        if not ending.must_be_reported:
            ending.raise_reason()
        try:
            self._run.interruption.expect_running()
        except StopRun as stop:
            group.frame.report_stop(stop)
            raise
        if group.scheduler.is_halted and not ending.must_be_reported:
            raise UsageError(f"group {self.name!r} is being cancelled and takes no more work")
        return group

    def _expect_entered(self, method: str, *, awaited: str = "") -> Group:
        if self._begun is None or self._tracker.status is GroupStatus.PENDING:
            raise UsageError(f"{method} belongs inside the block: async with parallel() as p: {awaited}p.{method}")
        return self._begun

    def _expect_begun(self, method: str) -> Group:
        """The group, for someone who will wait for its members."""
        group = self._expect_entered(method, awaited="await ")
        if group.scheduler.is_run_by(asyncio.current_task()):
            raise UsageError(f"a member of group {self.name!r} calls {method}: it would wait for itself")
        return group

    # -- results ------------------------------------------------------------------------------------------------------

    async def gather(self) -> list[MemberResult[Any, Any]]:
        """Wait for all members; their results in the order in which they were enrolled.

        What is known of their types, the handles know that `add` and `map` gave.

        Results that a stream has given before are not among them. Members that are made again meanwhile because a
        person asked for it are waited for, and have only their newest result here.

        Raises:
            UsageError: the block has not been entered, or a member of the group calls it, which would wait for itself.
            BaseException: FAIL_FAST, and a member failed: its own exception.
            GroupTimeout: the group's timeout passed.
            TooManyFailures: `fail_after` was reached.
        """
        group = await self._all_have_ended("gather()")
        self._gathered = group.roster.enrolled
        group.scheduler.finished.reading_ended()
        return self.results

    async def _all_have_ended(self, method: str) -> Group:
        group = self._expect_begun(method)
        group.scheduler.finished.is_streaming = False
        group.scheduler.read_on()
        await group.idle_with_newest()
        await group.end()
        while not group.scheduler.is_idle:  # somebody has asked meanwhile for a failure to be made again
            await group.idle_with_newest()
            await group.end()
        return group

    async def gather_dict(self) -> dict[str, MemberResult[Any, Any]]:
        """As `gather`, by name; a member without a name is found under its index: "0", "1", …

        Raises:
            UsageError: two members have the same name. Their results can still be had from `gather`.
        """
        results: dict[str, MemberResult[Any, Any]] = {}
        for result in await self.gather():
            name = self._group.names.get(result.index, str(result.index))
            if name in results:
                raise UsageError(
                    f"members {results[name].index} and {result.index} of group {self.name!r} are both named {name!r}; "
                    "gather_dict() needs distinct names, gather() does not"
                )
            results[name] = result
        return results

    def stream(self, *, ordered: bool = False) -> ResultStream:
        """The results as an async iterator, as they are completed or (`ordered`) in the order of enrolment.

        What it has given is not kept. Leaving the loop early and then the block cancels the rest.

        Raises:
            UsageError: the block has not been entered, or a member of the group calls it, which would wait for itself.
        """
        self._stream = self._expect_begun("stream()").stream(ordered=ordered)
        return self._stream

    @property
    def results(self) -> list[MemberResult[Any, Any]]:
        """What has finished so far and no stream has given, in order of index. Also after the group has failed."""
        if self._begun is None:
            return []
        self._begun.scheduler.finished.has_been_read()
        return self._begun.scheduler.finished.by_index  # type: ignore[return-value]  # `MemberResult` says why

    @property
    def _unread(self) -> list[MemberResult[Any, Any]]:
        return [each for each in self.results if each.index >= self._gathered and each.index not in self._seen]

    # -- for the handles of its members -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"group {self.name!r}"

    async def outcome_of(self, index: int, held: Held) -> ExecutionResult[Any]:
        """Wait for the result of one member; `CallCancelled` and `UsageError` as `MemberHandle`."""
        while held.result is None and self._tracker.status is GroupStatus.RUNNING:
            group = self._expect_begun("(the handle of a member)")
            group.scheduler.is_streamed = True  # each result may be this one
            if not group.scheduler.is_idle:
                await group.scheduler.change()
                continue
            await group.end()
            if group.scheduler.is_idle:
                break
        await self._group.ending.acknowledge()
        return self.outcome_now(index, held)

    def outcome_now(self, index: int, held: Held) -> ExecutionResult[Any]:
        """The result of one member that has ended; `CallCancelled` and `UsageError` as `MemberHandle`."""
        if held.result is not None:
            self._has_seen(index)
            return held.result
        group = self._group
        if self._tracker.status is GroupStatus.RUNNING and not group.scheduler.is_halted:
            raise UsageError(
                f"member {index} of {self!r} has no result yet: `await` its handle, or `await p.gather()` before"
            )
        raise CallCancelled(f"member {index} of {self!r} has no result: it was cancelled, or never began")

    async def results_of(self, source: Source) -> list[ExecutionResult[Any]]:
        """Wait for the results of the items of one `map`; `UsageError` as `gather`. See `MapHandle`."""
        await self._all_have_ended("(the handle of a map)")
        results: list[ExecutionResult[Any]] = [each for each in self.results if source.has(each.index)]
        for result in results:
            if not result.ok:
                self._has_seen(result.index or 0)
        return results

    def stream_of(self, source: Source, *, ordered: bool) -> ResultStream:
        """The results of the items of one `map` as they come; `UsageError` as `MapHandle`."""
        roster = self._expect_begun("(the handle of a map).stream()").roster
        if roster.enrolled != source.enrolled or roster.has_other_sources(source):
            raise UsageError(f"{self!r} has other members, too, whose results would be lost: use p.stream()")
        self._stream = self._group.stream(ordered=ordered)
        return self._stream

    def _has_seen(self, index: int) -> None:
        self._seen.add(index)
        self._group.scheduler.finished.is_seen(index)

    @property
    def group(self) -> ParallelEventGroup:
        """How the group stands now: counts, rate, latencies."""
        if self._begun is None:
            return self._tracker.snapshot(0.0, 0, None, None if self.breaker is None else self.breaker.state)
        return self._begun.ending.snapshot()

    def cancel(self) -> None:
        """Start nothing more and cancel what runs. `gather` then gives what has finished.

        Raises:
            UsageError: the block has not been entered.
        """
        group = self._expect_entered("cancel()")
        group.judge()
        group.ending.halt(cause=EndingCause.CANCELLED, insist=True)
