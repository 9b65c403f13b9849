"""The decorators that make actors of functions, and the functions that start runs and groups."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import os
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypedDict, TypeVar, TypeVarTuple, Unpack, overload

from rh_agents.actor_functions import ActorDecorator, ActorFunction, ActorOptions, agent, llm, tool
from rh_agents.core._base.key_generations import fact_of_keys, generation_of_keys
from rh_agents.core._base.signatures import function_with_arguments_of
from rh_agents.core._base.sources import fingerprint
from rh_agents.core._base.tracebacks import Shown, UsersLines, users_lines
from rh_agents.core._loops.homes import running_loop
from rh_agents.core._run.frame import current_frame
from rh_agents.core.actors import BaseActor
from rh_agents.core.actors.reachable import actors_named_in
from rh_agents.core.actors.signature import Signature
from rh_agents.core.calls import Call, default_run
from rh_agents.core.errors import DefinitionError, OptionError, UnstorableError, UsageError
from rh_agents.core.execution import ExecutionState, set_executors
from rh_agents.core.parallel import ParallelExecutionManager
from rh_agents.core.policies._options import meant_by
from rh_agents.core.policies.budget import Budget
from rh_agents.core.ports import Executor, RunInfo, Subscriber
from rh_agents.core.ports.executors import Executors, Placement, Recall, Sharding, ShardOptions, set_sharding
from rh_agents.core.ports.keeping import StoreLike, StoreOf, named_store, set_store_opener, using_store
from rh_agents.core.ports.tracing import TracingLike, set_tracing
from rh_agents.core.questions import Answerer
from rh_agents.core.queueing import BEFORE_FINGERPRINT, DEFAULT_QUEUE, VERSION, Submission, flow_name, queues_of
from rh_agents.core.redaction import expect_no_secret, without_secrets
from rh_agents.core.redaction.described import short_repr
from rh_agents.core.types import Durability, Engine, RecordInputs, ReplayMode
from rh_agents.core.values import encode_any
from rh_agents.core.values.inputs import kept_input
from rh_agents.stores import open_store
from rh_agents.stores._environment import named_by_environment
from rh_agents.telemetry import entered, open_tracing

__all__ = [
    "ActorDecorator",
    "ActorFunction",
    "ActorOptions",
    "ArgumentsMissing",
    "RunOptions",
    "Runner",
    "SubmitOptions",
    "agent",
    "llm",
    "parallel",
    "run",
    "run_sync",
    "tool",
]

_MOST_PRIORITY = 2**31 - 1
"""As much as the column of a database has."""

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
Ts = TypeVarTuple("Ts")


@function_with_arguments_of(ParallelExecutionManager)
def parallel(*args: Any, **options: Any) -> ParallelExecutionManager:
    """A group in the run that is under way, or in a run of its own if none is: `async with parallel(...) as p`.

    The arguments are those of `ParallelExecutionManager`.
    """
    frame = current_frame.get()
    with users_lines:
        return ParallelExecutionManager((default_run() if frame is None else frame.run).state, *args, **options)


class RunOptions(TypedDict, total=False):
    """The options of `run` and `run_sync`; what they mean, `Runner.__call__` and `ExecutionState` say.

    For programs that keep some of them: `nightly: RunOptions = {"store": "runs.db", "tags": ["nightly"]}`.
    """

    store: StoreLike | StoreOf | None
    run_id: str | None
    tags: Sequence[str]
    subscribers: Sequence[Subscriber]
    strict: bool
    retry_failed: bool
    durability: Durability | str
    replay_mode: ReplayMode | str
    resume_from: str | None
    reuse: bool
    answerer: Answerer | None
    record_inputs: RecordInputs | str
    budget: Budget | None
    lease: float
    wait: bool
    executors: Mapping[Engine, Executor] | Mapping[str, Executor] | None
    tracing: TracingLike | None
    accept_changes: bool


class SubmitOptions(TypedDict, total=False):
    """The options of `run.submit`; what they mean, `Runner.submit` says."""

    store: StoreLike | StoreOf
    queue: str
    priority: int
    not_before: datetime | float | None
    run_id: str | None
    tags: Sequence[str]


class ArgumentsMissing:
    """For type checkers: what `run(survey, store="runs.db")` gives if `survey` has a parameter without a default.

    It cannot be awaited, so they say where. (At run time it is the `TypeError` that the call itself would be.)
    """


class Runner:
    """What `run` is: `run(survey, urls)` executes a workflow, `run.submit(survey, urls, store=…)` lets a worker."""

    def __repr__(self) -> str:
        return "run"

    # The options of `run` stand beside the parameters of the workflow, and no single signature says so: PEP 612 allows
    # nothing between `*args: P.args` and `**kwargs: P.kwargs`, and PEP 692 no `Unpack` beside those. So there are four,
    # in this order: without options everything is checked. With options, arguments by position are (after `*args: *Ts`
    # options may follow, by PEP 646), and the names of the options; then that no argument is missing. With options and
    # all arguments by name, nothing is. Arguments by position and by name *and* options have no signature: write all
    # by position, or all by name.
    @overload
    def __call__(  # type: ignore[overload-overlap]  # see `ArgumentsMissing`
        self, workflow: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, workflow: Callable[[Unpack[Ts]], Awaitable[R]], /, *args: *Ts, **options: Unpack[RunOptions]
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(
        self, workflow: Callable[[A, Unpack[Ts]], Awaitable[R]], /, **options: Unpack[RunOptions]
    ) -> ArgumentsMissing: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]  # it does, where the first one does not
        self, workflow: Callable[..., Awaitable[R]], /, **options_and_arguments: Any
    ) -> Coroutine[Any, Any, R]: ...
    async def __call__(  # type: ignore[misc]  # its first parameter has a name
        self,
        workflow: Callable[..., Awaitable[R]],
        *args: Any,
        store: StoreLike | StoreOf | None = StoreOf.ENVIRONMENT,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        subscribers: Sequence[Subscriber] = (),
        strict: bool = False,
        retry_failed: bool = True,
        durability: Durability | str = Durability.SYNC,
        replay_mode: ReplayMode | str = ReplayMode.NORMAL,
        resume_from: str | None = None,
        reuse: bool = False,
        answerer: Answerer | None = None,
        record_inputs: RecordInputs | str = RecordInputs.BRIEF,
        budget: Budget | None = None,
        lease: float = 15.0,
        wait: bool = False,
        executors: Mapping[Engine, Executor] | Mapping[str, Executor] | None = None,
        tracing: TracingLike | None = None,
        accept_changes: bool = False,
        **kwargs: Any,
    ) -> R:
        """Execute `workflow(*args, **kwargs)` as a run, and return its value.

        Started again with the same store and `run_id`, it repeats no finished call. The store is by default the one
        that the environment variable `RH_AGENTS_STORE` names, if it is set; None records nothing. The other arguments
        are those of `ExecutionState`; `subscribers` get every event, and `answerer` is asked what a person has to
        answer.

        If the code of an actor that `workflow` leads to has changed since results of it were recorded, those are reused
        with a `CodeChangedWarning`; `accept_changes=True` silences it from then on, `strict=True` makes it an error.

        Raises:
            OptionError: there is no such option, or it cannot have this value.
            DefinitionError: `workflow` is a call that was made already, or nothing that can be awaited comes of calling
                it; or an actor that it leads to names an engine that the run does not have.
            RunStopped: the run was stopped before its end; `RunAwaiting`: it waits for answers; `BudgetExceeded`: a
                budget is spent.
            RunMismatchError: a run of this name was started with another workflow or other arguments.
            CodeChangedError: the run is strict, and code has changed.
            StoreError: the store failed; `RunIsLive`: another process executes the run.
        """
        with users_lines:
            _expect_function(workflow)
            _expect_parameters("run", type(self).__call__, workflow, kwargs)
            _expect_lists(tags=tags, subscribers=subscribers)
            store = named_store(store)
            Executors(executors or {}).expect_all(actors_named_in(workflow))
            state = ExecutionState(
                store=store,
                run_id=run_id,
                tags=tags,
                strict=strict,
                retry_failed=retry_failed,
                durability=durability,
                replay_mode=replay_mode,
                resume_from=resume_from,
                workflow=name_of(workflow),
                input=None if store is None else arguments_of(workflow, args, kwargs),
                reuse=reuse,
                record_inputs=record_inputs,
                budget=budget,
                lease=lease,
                wait=wait,
                executors=executors,
                tracing=tracing,
                actors=None if store is None else actors_named_in(workflow),
                accept_changes=accept_changes,
            )
            state.set_answerer(answerer)
            for subscriber in subscribers:
                state.event_bus.subscribe(subscriber)
            async with state:
                call = workflow(*args, **kwargs)
                if not inspect.isawaitable(call):
                    raise DefinitionError(
                        f"run takes an `async def`, and {name_of(workflow) or 'this'} gave {short_repr(call)}: write "
                        "`async def` before it"
                    )
                return await call

    # As above; but arguments that are `Injected` are left out, so that only those that are given can be checked.
    @overload
    def submit(
        self, workflow: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, RunInfo]: ...
    @overload
    def submit(
        self, workflow: Callable[[Unpack[Ts]], Any], /, *args: *Ts, **options: Unpack[SubmitOptions]
    ) -> Coroutine[Any, Any, RunInfo]: ...
    @overload
    def submit(
        self, workflow: Callable[Concatenate[A, ...], Any], first: A, /, **options: Unpack[SubmitOptions]
    ) -> Coroutine[Any, Any, RunInfo]: ...
    @overload
    def submit(
        self, workflow: Callable[Concatenate[A, B, ...], Any], first: A, second: B, /, **options: Unpack[SubmitOptions]
    ) -> Coroutine[Any, Any, RunInfo]: ...
    @overload
    def submit(  # type: ignore[overload-cannot-match]
        self, workflow: Callable[..., Any], /, **options_and_arguments: Any
    ) -> Coroutine[Any, Any, RunInfo]: ...
    async def submit(  # type: ignore[misc]
        self,
        workflow: Callable[..., Any],
        *args: Any,
        store: StoreLike | StoreOf = StoreOf.ENVIRONMENT,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        not_before: datetime | float | None = None,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        **kwargs: Any,
    ) -> RunInfo:
        """Let a worker (`rh-agents worker`) execute `workflow(*args, **kwargs)`, and return at once.

        The run is in the store when this returns. Submitted again under the same `run_id` with the same workflow and
        arguments, it is the same run. Parameters marked `Injected` are given by the worker, not here.

        Args:
            workflow: a function at the top level of a module that workers can import. In a program that is executed as
                a file, the name of the file stands for its module.
            *args: its arguments. They are recorded, so each must be serializable. Secrets do not belong here:
                register them (`register_secret`), which records their names alone, or let the worker's environment
                have them.
            **kwargs: those by name.
            store: where; a file or PostgreSQL, since workers are other processes. By default what the environment
                variable `RH_AGENTS_STORE` says.
            queue: only workers of this queue take it.
            priority: those with a higher one are taken first, among equal ones those that have waited longest.
            not_before: no worker takes it before: a datetime, or seconds since 1970.
            run_id: the name of the run; by default a new one.
            tags: words by which people find the run.

        Raises:
            DefinitionError: `workflow` is no function that can be imported.
            OptionError: an option has no value that it can have.
            TypeError: the arguments do not fit.
            UnstorableError: an argument is not serializable.
            RunMismatchError: a run of this name has another workflow or other arguments.
            StoreError: the store failed.
        """
        _expect_function(workflow)
        _expect_parameters("run.submit", type(self).submit, workflow, kwargs)
        _expect_lists(tags=tags)
        where = named_store(store)
        if where is None:
            raise OptionError("run.submit needs a store: name one with store=, or by the variable RH_AGENTS_STORE")
        submission = submission_of(
            workflow,
            flow_name(workflow),
            arguments_of(workflow, args, kwargs, needs_injected=False),
            queue=queue,
            priority=priority,
            not_before=not_before.timestamp() if isinstance(not_before, datetime) else not_before,
            run_id=run_id,
            tags=tags,
        )
        async with using_store(where) as opened:
            return await queues_of(opened).submit(submission)


run: Runner = Runner()
"""Executes a workflow as a run: see `Runner`."""


def submission_of(
    workflow: Callable[..., Any],
    flow: str,
    arguments: dict[str, Any],
    *,
    queue: str = DEFAULT_QUEUE,
    priority: int = 0,
    not_before: float | None = None,
    run_id: str | None = None,
    tags: Sequence[str] = (),
) -> Submission:
    """What is submitted of a workflow.

    Args:
        workflow: the function, decorated or not.
        flow: how a worker finds it, as MODULE:FUNCTION.
        arguments: by parameter, without what is injected.
        queue, priority, not_before, run_id, tags: as in `Runner.submit`.

    Raises:
        UnstorableError: an argument is not serializable.
        DefinitionError: the run cannot have this name, or `not_before` is no time.
        OptionError: an option has no value that it can have.
    """
    _expect_place(queue, priority, not_before, run_id)
    if not_before is not None and not math.isfinite(not_before):
        raise DefinitionError(f"not_before={not_before} is no time: give a datetime, or seconds since 1970")
    name = uuid.uuid4().hex if run_id is None else run_id
    expect_no_secret(name)
    for parameter, value in arguments.items():
        try:
            encode_any(value)
        except UnstorableError as error:
            raise UnstorableError(
                f"{name_of(workflow)} cannot be submitted, since a worker could not have its argument {parameter!r}: "
                f"{error}. If it is a connection or the like, mark the parameter Annotated[..., Injected], and let the "
                "worker make it"
            ) from error
    data, digest = kept_input(arguments)
    assert data is not None
    assert digest is not None
    version = workflow.actor.version if isinstance(workflow, ActorFunction) else None
    facts = {**fact_of_keys(generation_of_keys(None)), **({} if version is None else {VERSION: version})}
    code = fingerprint(workflow)
    return Submission(
        name,
        without_secrets(name_of(workflow)),
        flow if code is None else f"{flow}{BEFORE_FINGERPRINT}{code}",
        data,
        digest,
        queue,
        priority,
        not_before,
        tuple(map(without_secrets, tags)),
        facts,
    )


def _expect_place(queue: object, priority: object, not_before: object, run_id: object) -> None:
    """Refuse what no queue can keep, whatever its type says."""
    for name, given in (("queue", queue), ("run_id", run_id)):
        if given is not None and (not isinstance(given, str) or not given):
            raise OptionError(f"{name}={given!r}: a name is needed, as in {name}='nightly'")
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > _MOST_PRIORITY:
        raise OptionError(f"priority={priority!r}: a whole number is needed, up to {_MOST_PRIORITY:,}")
    if not_before is not None and (isinstance(not_before, bool) or not isinstance(not_before, int | float)):
        raise OptionError(f"not_before={not_before!r} is no time: give a datetime, or seconds since 1970")


def _expect_function(workflow: object) -> None:
    """Refuse what a newcomer passes instead of a function.

    Raises:
        DefinitionError: it is a call that was made already, or nothing that can be called.
    """
    if inspect.isawaitable(workflow):
        if inspect.iscoroutine(workflow):
            workflow.close()
        if isinstance(workflow, Call):
            workflow.discard()
        raise DefinitionError("run takes the function and its arguments, not a call: run(survey, urls)")
    if not callable(workflow):
        raise DefinitionError(
            f"run takes a function and its arguments, as in run(survey, urls), not {short_repr(workflow)}"
        )


def _expect_parameters(
    shown: str, taking: Callable[..., Any], workflow: Callable[..., Any], given: Mapping[str, Any]
) -> None:
    """Refuse what is neither an option of `run` nor a parameter of the workflow.

    Raises:
        OptionError: there is such.
    """
    parameters = signature_of(workflow).parameters if given else []
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    names = [each.name for each in parameters]
    for option in given:
        if option not in names:
            options = [each.name for each in inspect.signature(taking).parameters.values() if each.kind is _BY_NAME]
            raise OptionError(
                f"{shown} has no option {option}=, and {name_of(workflow) or 'the workflow'} has no such parameter: "
                f"{meant_by(option, [*options, *names])}"
            )


_BY_NAME = inspect.Parameter.KEYWORD_ONLY


def _expect_lists(**options: object) -> None:
    """Refuse one thing where a list of them is needed.

    Raises:
        OptionError: there is such.
    """
    for name, given in options.items():
        if isinstance(given, str) or not isinstance(given, Iterable):
            shown = getattr(given, "__name__", None) or short_repr(given)
            raise OptionError(f"{name}={shown}: a list is needed: {name}=[{shown}]")


def name_of(workflow: Callable[..., Any]) -> str:
    """The name of what is executed; "" for what has none that would mean something, such as a lambda."""
    actor = workflow.actor if isinstance(workflow, ActorFunction) else workflow
    name = actor.name if isinstance(actor, BaseActor) else getattr(workflow, "__name__", "")
    return "" if name == "<lambda>" else name


def arguments_of(
    workflow: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, needs_injected: bool = True
) -> dict[str, Any]:
    """The arguments of a workflow by parameter, without what is injected; that may be missing unless it is needed.

    Raises:
        TypeError: they do not fit.
    """
    its = signature_of(workflow)
    if needs_injected or not its.injected:
        return its.bind(args, kwargs)
    bound = its.bind_partial(args, kwargs)
    missing = [each.name for each in its.parameters if is_missing(each) and each.name not in {*bound, *its.injected}]
    if missing:
        raise TypeError(f"missing a required argument: {missing[0]!r}")
    return bound


def is_missing(parameter: inspect.Parameter) -> bool:
    """Whether a call has to say what this parameter is."""
    return parameter.default is parameter.empty and parameter.kind not in (
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    )


def signature_of(workflow: Callable[..., Any]) -> Signature:
    """The parameters of a workflow."""
    return workflow.actor.signature if isinstance(workflow, ActorFunction) else Signature(workflow)


@overload
def run_sync(  # type: ignore[overload-overlap]
    workflow: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
) -> R: ...
@overload
def run_sync(  # type: ignore[overload-overlap]
    workflow: Callable[[Unpack[Ts]], Awaitable[R]], /, *args: *Ts, **options: Unpack[RunOptions]
) -> R: ...
@overload
def run_sync(
    workflow: Callable[[A, Unpack[Ts]], Awaitable[R]], /, **options: Unpack[RunOptions]
) -> ArgumentsMissing: ...
@overload
def run_sync(  # type: ignore[overload-cannot-match]
    workflow: Callable[..., Awaitable[R]], /, **options_and_arguments: Any
) -> R: ...
def run_sync(  # type: ignore[misc]
    workflow: Callable[..., Awaitable[Any]], *args: Any, **options: Any
) -> Any:
    """`run` for programs that have no event loop.

    Raises:
        UsageError: one runs here, as in notebooks and in every `async def`: there, `await run(...)`.
        Exception: as `run`.
    """
    if running_loop() is not None:
        written = f"await run({name_of(workflow) or 'survey'}, ...)"
        raise UsageError(f"run_sync() starts an event loop, and one runs here already: write `{written}`")
    with _below_asyncio:
        return asyncio.run(run(workflow, *args, **options))


_below_asyncio = UsersLines(f"{Path(asyncio.__file__).parent}/")


def _executor(module: str, name: str) -> Callable[[], Executor]:
    """Executors are loaded by name when the first function needs one: most programs need none."""

    def make() -> Executor:
        executor: Executor = getattr(importlib.import_module(module), name)()
        return executor

    return make


class _LazySharding:
    """Imported when it is needed: most programs need none."""

    def place(self, group: Any, function: Callable[[Any], Any] | BaseActor, options: ShardOptions) -> Placement:
        return self._loaded().place(group, function, options)

    async def take_up(self, run: Any) -> None:
        await self._loaded().take_up(run)

    def recall(self, group: Any) -> Recall:
        return self._loaded().recall(group)

    @staticmethod
    def _loaded() -> Sharding:
        loaded: Sharding = importlib.import_module("rh_agents.sharding").SHARDING
        return loaded


Shown.everything = os.environ.get("RH_AGENTS_DEBUG", "") not in ("", "0")
set_store_opener(open_store, named_by_environment)
set_tracing(open_tracing, entered)
set_sharding(_LazySharding())
set_executors(
    {
        Engine.THREAD: _executor("rh_agents.executors.threads", "ThreadExecutor"),
        Engine.PROCESS: _executor("rh_agents.executors.processes", "ProcessExecutor"),
    }
)
