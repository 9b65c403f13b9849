"""A worker: it takes runs from a queue one after the other, and executes several side by side.

Shards of maps (`rh_agents.sharding`) are such runs, too. They are counted apart: a run that waits for its own shards
would else keep the only worker there is from making them.

What it does is decided by three sets: flows that it can execute, flows that it cannot (for a while: perhaps what is
missing is installed meanwhile), and runs whose owners are gone. It asks what there is to do, imports what it does not
know yet, and only then takes a run, so that a run that it cannot execute is left alone for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from rh_agents.core._base.sources import fingerprint
from rh_agents.core._run.recording import make_owner
from rh_agents.core.actors.reachable import actors_named_in
from rh_agents.core.actors.signature import Signature
from rh_agents.core.errors import (
    DefinitionError,
    LeaseLost,
    RunAwaiting,
    RunStopped,
    StoreError,
)
from rh_agents.core.execution import ExecutionState
from rh_agents.core.ports import Executor, RunInfo
from rh_agents.core.ports.executors import Executors
from rh_agents.core.ports.keeping import StoreLike, opened_store
from rh_agents.core.queueing import DEFAULT_QUEUE, SHARD_OF, VERSION, Wanted, parts_of_flow, queues_of
from rh_agents.core.redaction import logger, redact
from rh_agents.core.results import describe_error
from rh_agents.core.types import Clock, Engine, ExecutionStatus
from rh_agents.core.values import decode
from rh_agents.decorators import ActorFunction, agent, is_missing, signature_of
from rh_agents.sharding.executing import execute, options_of
from rh_agents.sharding.shard import Shard
from rh_agents.workers.injection import Injection
from rh_agents.workers.leases import LeaseWatch

__all__ = ["Flow", "FlowLoader", "Worker", "WorkerReport", "load_flow"]

_LOG = logger("rh_agents.workers")
_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at a queue in which nothing happens: owners die without a word."""
_TRY_AGAIN_AFTER: Final = 60.0
"""Seconds for which a flow that cannot be executed here is left to others."""
_STORE_FAILED_FOR: Final = 5.0
"""Seconds between two attempts to use a store that failed."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker says, for programs.

    Attributes:
        what: of a run: "begun", "resumed", "completed", "failed", "waiting", "stopped", or "lost" if another process
            has taken it over; else "note".
        text: the same for people, as one line.
        run_id, workflow, version: the run, and what it was submitted with; None where it is about none.
    """

    what: str
    text: str
    run_id: str | None = None
    workflow: str | None = None
    version: str | None = None


FlowLoader = Callable[[str], Any]
"""Gives the function that MODULE:FUNCTION names. What it raises says why that cannot be."""


def load_flow(target: str) -> Any:
    """Import the function that MODULE:FUNCTION names.

    Raises:
        DefinitionError: there is no such function; or whatever its module raises.
    """
    module, colon, name = target.rpartition(":")
    if not colon:
        raise DefinitionError(f"{target!r} does not name a function: it is written MODULE:FUNCTION")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise DefinitionError(f"{module} has no function {name!r}")
    return found


def _awaitable(found: Any, target: str) -> Callable[..., Any]:
    """What is called for a run: the function itself, or, of one that is no `async def`, an agent that is made of it.

    Every worker must come to the same, since the place of a call in its run depends on it.
    """
    if isinstance(found, ActorFunction) or inspect.iscoroutinefunction(found):
        function: Callable[..., Any] = found
        return function
    if not inspect.isfunction(found):
        raise DefinitionError(f"{target} is a {type(found).__name__}: a run needs a function")
    return agent(found)


@dataclass(frozen=True, slots=True)
class Flow:
    """A function that submitted runs need.

    Attributes:
        target: how it is found, as MODULE:FUNCTION.
        function: what is called with the arguments of a run.
        is_other_code: whether its source differs from what it was where the run was submitted.
        is_mapped: whether it is applied to the items of shards, instead of being called with the arguments of runs.
    """

    target: str
    function: Callable[..., Any]
    is_other_code: bool = False
    is_mapped: bool = False

    @classmethod
    def load(cls, flow: str, load: FlowLoader) -> Flow:
        """The flow of a submitted run.

        Raises:
            DefinitionError: it cannot be imported; the message says why.
        """
        target, code = parts_of_flow(flow)
        is_mapped = target.startswith(SHARD_OF)
        target = target.removeprefix(SHARD_OF)
        try:
            found = load(target)
        except DefinitionError:
            raise
        except (Exception, SystemExit) as error:
            raise DefinitionError(f"{target} cannot be imported: {describe_error(error)}") from error
        is_other = code is not None and fingerprint(found) != code
        return cls(target, found if is_mapped else _awaitable(found, target), is_other, is_mapped)

    @property
    def _signature(self) -> Signature:
        return signature_of(self.function)

    def expect_injected(self, factories: Mapping[str, object]) -> None:
        """See to it that there is a factory for each argument of a run that only the worker can give.

        Raises:
            DefinitionError: there is none for one that has no default.
        """
        if self.is_mapped:
            return
        its = self._signature
        needed = [each.name for each in its.parameters if each.name in its.injected and is_missing(each)]
        missing = [name for name in needed if name not in factories]
        if missing:
            raise DefinitionError(
                f"{self.target} needs {missing[0]!r}, which the worker has to make: "
                f"--inject {missing[0]}=MODULE:FUNCTION"
            )

    def injected(self, factories: Mapping[str, object]) -> list[str]:
        """The names of the arguments that the worker gives."""
        return [name for name in self._signature.injected if name in factories]

    def applied_in(self, shard: Shard) -> Any:
        """What is applied to the items of a shard.

        Raises:
            DefinitionError: what the items are given to cannot be imported here.
        """
        return self.function if shard.made_by is None else load_flow(shard.made_by)(self.target, shard.settings)

    def call(self, arguments: Mapping[str, Any]) -> Awaitable[Any]:
        """Call the function with arguments by parameter.

        Raises:
            TypeError: they do not fit any more.
        """
        parameters = [each.replace(annotation=each.empty) for each in self._signature.parameters]
        signature = inspect.Signature(parameters)
        unknown = [name for name in arguments if name not in signature.parameters]
        if unknown:
            raise TypeError(f"{self.target} has no parameter {unknown[0]!r} any more")
        bound = inspect.BoundArguments(signature, dict(arguments))
        call: Awaitable[Any] = self.function(*bound.args, **bound.kwargs)
        return call


class Worker:
    """Takes submitted runs from a queue and executes them, until it is stopped.

    Args:
        store: where the runs are: a store, or a URL or path, which is then closed at the end.
        queue: which runs.
        max_runs: how many at a time, in this event loop, and as many shards of maps beside them. What runs side by
            side within each is up to the run.
        lease: after this many seconds without a sign of life from this process, another worker may take its runs over.
        max_claims: a run that this many workers have died with is ended as FAILED. `rh-agents requeue` gives it another
            chance.
        inject: what makes the arguments of flows that are marked `Injected`, by the name of the parameter. Each is
            called once, when the first flow needs it; what it gives may be awaitable, and an async context manager is
            entered, and left when the worker ends.
        require_same_code: leave runs to others whose function had another source where they were submitted. Otherwise
            they are executed, and it is reported.
        executors: by engine, who executes functions that name one, as in `run`. What needs another engine is left.
        load: gives the function that MODULE:FUNCTION names; by default it is imported.
        report: takes lines for people.
        notify: takes the same for programs.
        monotonic: seconds by a clock that never goes back.
    """

    def __init__(
        self,
        store: StoreLike,
        *,
        queue: str = DEFAULT_QUEUE,
        max_runs: int = 1,
        lease: float = 15.0,
        max_claims: int = 5,
        inject: Mapping[str, Callable[[], Any]] | None = None,
        require_same_code: bool = False,
        executors: Mapping[Engine, Executor] | Mapping[str, Executor] | None = None,
        load: FlowLoader = load_flow,
        report: Callable[[str], None] = lambda _: None,
        notify: Callable[[WorkerReport], None] = lambda _: None,
        monotonic: Clock = time.monotonic,
    ) -> None:
        if max_runs < 1 or max_claims < 1:
            raise DefinitionError(f"max_runs={max_runs}, max_claims={max_claims}: at least 1 is needed")
        self._store = opened_store(store)
        self._owned = None if self._store is store else self._store
        self._queues = queues_of(self._store)
        self._queue = queue
        self._max_runs = max_runs
        self._lease = lease
        self._max_claims = max_claims
        self._injection = Injection(inject or {})
        self._require_same_code = require_same_code
        self._executors = executors or {}
        self._load = load
        self._report_line = report
        self._notify = notify
        self._monotonic = monotonic
        self._flows: dict[str, Flow] = {}
        self._refused: dict[str, float] = {}
        self._said: set[str] = set()
        self._watch = LeaseWatch()
        self._wanted: Wanted | None = None
        self._running: dict[asyncio.Task[None], ExecutionState | None] = {}
        self._shards: set[asyncio.Task[None]] = set()
        """Of what runs, what makes a shard."""
        self._stopping = asyncio.Event()
        self._grace = 30.0

    # -- its life -----------------------------------------------------------------------------------------------------

    async def run(self, *, until_empty: bool = False) -> None:
        """Take and execute runs until `stop` is called, and then until those under way have ended.

        Args:
            until_empty: end as soon as nothing is under way here and nothing is ready that can be executed here.
        """
        try:
            while not self._stopping.is_set():
                has_taken = await self._take_if_there_is_room()
                if until_empty and not has_taken and not self._running:
                    break
                if not has_taken:
                    await self._wait()
            await self._drained()
        finally:
            await self._end()

    def stop(self, *, grace: float = 30.0) -> None:
        """Take nothing more. Runs under way begin no new calls, those in flight have `grace` seconds to end.

        The runs have not ended then: the next worker takes them up where they were. Called again with a shorter grace,
        that counts.
        """
        self._grace = grace
        self._stopping.set()
        for state in self._running.values():
            if state is not None:
                self._interrupt(state)

    def _interrupt(self, state: ExecutionState) -> None:
        state.request_interrupt("its worker was stopped", grace=self._grace, hand_on=True)

    async def _drained(self) -> None:
        while self._running:
            await asyncio.wait(list(self._running))

    async def _end(self) -> None:
        """Let go of everything. What is still under way here was cut off, and is handed on by its own end."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running))
        try:
            await self._injection.aclose()
        finally:
            if self._owned is not None:
                await self._owned.aclose()

    async def _wait(self) -> None:
        """Until there may be something to do: something new in the queue, a run that has ended, or the end."""
        waits: list[Awaitable[Any]] = [self._stopping.wait()]
        if any(map(self._has_room, (False, True))):
            waits.append(self._news())
        tasks = [asyncio.ensure_future(each) for each in waits]
        try:
            await asyncio.wait([*tasks, *self._running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _news(self) -> None:
        try:
            await self._queues.wait_for_queue(self._queue, _LOOK_EVERY)
        except StoreError as error:
            self._say(f"the store failed, and is tried again: {error}")
            await asyncio.sleep(_STORE_FAILED_FOR)

    # -- taking a run -------------------------------------------------------------------------------------------------

    async def _take_if_there_is_room(self) -> bool:
        """Whether a run was taken."""
        try:
            info = await self._taken()
        except StoreError as error:
            self._say(f"the store failed, and is tried again: {error}")
            await asyncio.sleep(_STORE_FAILED_FOR)
            return False
        if info is None:
            return False
        if info.status is ExecutionStatus.FAILED:
            self._report("failed", f"run {info.run_id} is ended as failed: {info.reason}", info)
            return True
        assert info.flow is not None
        flow = self._flows[info.flow]
        task = asyncio.ensure_future(self._execute(info, flow))
        self._running.setdefault(task, None)  # an eager task may have put its state there already
        task.add_done_callback(self._running.pop)
        if flow.is_mapped:
            self._shards.add(task)
            task.add_done_callback(self._shards.discard)
        return True

    def _has_room(self, is_mapped: bool) -> bool:
        """Whether one more shard, or one more of all other runs, may be taken."""
        count = len(self._shards) if is_mapped else len(self._running) - len(self._shards)
        return count < self._max_runs

    async def _taken(self) -> RunInfo | None:
        """The next run, as long as there is one without looking again what there is to do."""
        if not any(map(self._has_room, (False, True))):
            return None
        wanted, self._wanted = self._wanted or await self._look(), None
        flows = [] if wanted is None else [each for each in wanted.flows if self._has_room(self._flows[each].is_mapped)]
        if wanted is None or not flows:
            return None
        found = await self._queues.claim_next(replace(wanted, flows=flows, owner=make_owner()))
        if found is not None:
            self._wanted = wanted
        return found

    async def _look(self) -> Wanted | None:
        """What is to be taken; None if there is nothing."""
        now = self._monotonic()
        self._refused = {flow: until for flow, until in self._refused.items() if until > now}
        look = await self._queues.look_at_queue(self._queue, tuple(self._refused))
        silent = self._watch.silent(look.held, now)
        gone = {each.flow for each in look.held if each.sign in silent}
        can = [flow for flow in dict.fromkeys((*look.flows, *gone)) if self._can_execute(flow)]
        if not can:
            return None
        return Wanted(self._queue, can, "", self._lease, silent, self._max_claims)

    def _can_execute(self, flow: str) -> bool:
        if flow in self._flows:
            return True
        try:
            found = Flow.load(flow, self._load)
            found.expect_injected(self._injection.factories)
            Executors(self._executors).expect_all(actors_named_in(found.function))
            if found.is_other_code and self._require_same_code:
                raise DefinitionError(
                    f"{found.target} has another source here than where it was submitted, and the same is required"
                )
        except DefinitionError as error:
            self._refuse(flow, str(error))
            return False
        if found.is_other_code:
            self._say(
                f"{found.target} has another source here than where it was submitted, and is executed as it is here"
            )
        self._flows[flow] = found
        return True

    def _refuse(self, flow: str, reason: str) -> None:
        """Leave what needs a flow to others for a while."""
        self._flows.pop(flow, None)
        self._wanted = None
        self._refused[flow] = self._monotonic() + _TRY_AGAIN_AFTER
        self._say(f"left to other workers: {reason}")

    def _say(self, line: str) -> None:
        """Report something once."""
        if line not in self._said:
            self._said.add(line)
            self._report("note", line)

    def _report(self, what: str, line: str, info: RunInfo | None = None) -> None:
        text = redact(line)
        self._report_line(text)
        run = (None, None, None) if info is None else (info.run_id, info.workflow, info.facts.get(VERSION))
        self._notify(WorkerReport(what, text, *run))

    # -- executing it -------------------------------------------------------------------------------------------------

    async def _execute(self, info: RunInfo, flow: Flow) -> None:
        """Execute a run that was taken. Whatever becomes of it is no concern of the other runs here."""
        assert info.flow is not None
        try:
            execute = await self._how(info, flow)
        except Exception as error:  # noqa: BLE001 - a secret or a class is not known here, or a factory failed
            _LOG.warning("run %s: %s cannot be called", info.run_id, flow.target, exc_info=True)
            self._refuse(info.flow, f"{flow.target} cannot be called: {describe_error(error)}")
            with contextlib.suppress(StoreError):
                await self._queues.give_back(info.run_id)
            return
        except BaseException:
            with contextlib.suppress(StoreError):
                await self._queues.give_back(info.run_id)
            raise
        await self._reported(info, execute)

    async def _how(self, info: RunInfo, flow: Flow) -> Callable[[], Awaitable[None]]:
        """How a run that was taken is executed, when all is there that it needs."""
        given = decode(info.input or b"{}")
        if flow.is_mapped:
            shard = Shard.from_json(given)
            return functools.partial(self._made_shard, shard, flow.applied_in(shard))
        arguments = {**given, **await self._injection.made(flow.injected(self._injection.factories))}
        return functools.partial(self._made_run, info, flow, arguments)

    async def _made_shard(self, shard: Shard, function: Any) -> None:
        options = options_of(self._store, shard)
        state = ExecutionState(**options, lease=self._lease, executors=self._executors)
        self._is_executed_here(state)
        await execute(state, shard, function)

    async def _made_run(self, info: RunInfo, flow: Flow, arguments: Mapping[str, Any]) -> None:
        state = ExecutionState(
            store=self._store,
            run_id=info.run_id,
            lease=self._lease,
            executors=self._executors,
            actors=actors_named_in(flow.function),
        )
        self._is_executed_here(state)
        async with state:
            await flow.call(arguments)

    def _is_executed_here(self, state: ExecutionState) -> None:
        """This task executes the run, and stops it when the worker is to stop."""
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = state
        if self._stopping.is_set():
            self._interrupt(state)

    async def _reported(self, info: RunInfo, execute: Callable[[], Awaitable[None]]) -> None:
        version = info.facts.get(VERSION)
        about = f"run {info.run_id} ({info.workflow}{'' if version is None else f', version {version}'})"
        is_resumed = bool(info.outcomes or info.epoch)
        self._report("resumed" if is_resumed else "begun", f"{about}: {'taken up' if is_resumed else 'begun'}", info)
        try:
            await execute()
        except RunAwaiting as waiting:
            self._report("waiting", f"{about}: {waiting}", info)
        except RunStopped as stopped:
            self._report("stopped", f"{about}: stopped: {stopped.reason}", info)
        except LeaseLost:
            self._report("lost", f"{about}: another process has taken it over", info)
        except Exception as error:  # noqa: BLE001 - its outcome is recorded; the worker goes on with others
            _LOG.warning("%s: failed", about, exc_info=True)
            self._report("failed", f"{about}: failed: {describe_error(error)}", info)
        else:
            self._report("completed", f"{about}: completed", info)
