"""Decorators that make actors of functions, and the functions that start runs and groups."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, overload

from rh_agents.core._base.signatures import function_with_arguments_of
from rh_agents.core._run.frame import current_frame
from rh_agents.core.actors import LLM, Agent, BaseActor, Tool
from rh_agents.core.actors.signature import Signature
from rh_agents.core.calls import Call, FunctionCall, default_run
from rh_agents.core.errors import DefinitionError
from rh_agents.core.execution import ExecutionState, set_executors
from rh_agents.core.parallel import ParallelExecutionManager
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.budget import Budget
from rh_agents.core.policies.limits import Limit
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.ports import Executor, Subscriber
from rh_agents.core.ports.opening import StoreLike, set_store_opener
from rh_agents.core.questions import Answerer
from rh_agents.core.redaction.excerpts import RecordInputs
from rh_agents.core.types import CacheScope, Durability, Effect, Engine, OnUnknown, ReplayMode
from rh_agents.core.values.unstarted import short_repr
from rh_agents.stores import open_store

__all__ = ["ActorDecorator", "ActorFunction", "ActorOptions", "agent", "llm", "parallel", "run", "run_sync", "tool"]

P = ParamSpec("P")
R = TypeVar("R")


class ActorFunction(Generic[P, R]):
    """A decorated function. Calling it makes a call, which starts when it is awaited or given to a group.

    `actor` is its policy, `__wrapped__` the function itself.
    """

    def __init__(self, function: Callable[P, Any], actor: BaseActor) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        self.actor = actor

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        return FunctionCall(self.actor, args, kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> ActorFunction[P, R]:
        if instance is None:
            return self
        raise DefinitionError(
            f"{self.actor.name} is a method, whose object is not serializable; write a function that takes the object "
            "as a parameter marked Annotated[..., Injected]"
        )

    def __repr__(self) -> str:
        return f"<{type(self.actor).__name__} {self.actor.name}>"

    @functools.cached_property
    def input_model(self) -> type[Any]:
        """A Pydantic model with a field for each parameter that is data."""
        return self.actor.signature.input_model(f"{self.actor.name}_input")


class ActorOptions(TypedDict, total=False):
    """The options of `tool`, `agent` and `llm`; see `ActorDecorator`."""

    name: str | None
    description: str | None
    version: str | None
    retry: RetryPolicy | int | None
    timeout: float | None
    engine: Engine | str | None
    breaker: CircuitBreaker | None
    effect: Effect | str | None
    on_unknown: OnUnknown | str | None
    cache: CacheScope | str | None
    ttl: float | None
    record_inputs: RecordInputs | str | None
    limits: Limit | Sequence[Limit] | None
    budget: Budget | None
    max_result: int | None


class ActorDecorator:
    """What `tool`, `agent` and `llm` are: `@tool`, `@tool(retry=3, timeout=30)` or `tool(fetch, retry=3)`.

    Options, all by keyword:
        name: by default the function's name.
        description: by default its docstring.
        version: part of the identity of its calls; change it when old results are no longer right.
        retry: a `RetryPolicy`, or the number of attempts.
        timeout: seconds for each attempt.
        engine: where a function that is not a coroutine function runs: "thread" (the default) or "process".
        breaker: a circuit breaker.
        effect: "external" for what must not happen twice by accident.
        on_unknown: what to do when a crash leaves it unknown whether the call was done: "retry", "fail" or "ask".
        cache: "run" or "store": for whom results are kept, so that equal calls are not made again.
        ttl: after this many seconds a cached result is not used any more.
        record_inputs: what is recorded of what its calls are called with, for people: "none", "brief" or "full"; by
            default what the run says.
        limits: what each attempt waits for: a `RateLimit`, a `ConcurrencyLimit`, or several.
        budget: what one call may spend, with all that is called in it.
        max_result: of tools and agents: how many characters of a tool's result a model gets.

    Raises:
        DefinitionError: the function cannot be called as the options say.
    """

    def __init__(self, kind: type[BaseActor], **options: Any) -> None:
        self._kind = kind
        self._options = options

    def __repr__(self) -> str:
        return f"@{self._kind.__name__.lower()}"

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, **options: Unpack[ActorOptions]
    ) -> ActorFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /, **options: Unpack[ActorOptions]) -> ActorFunction[P, R]: ...
    @overload
    def __call__(self, /, **options: Unpack[ActorOptions]) -> ActorDecorator: ...
    def __call__(self, function: Any = None, /, **options: Any) -> Any:
        if options:
            decorator = ActorDecorator(self._kind, **{**self._options, **options})
            return decorator if function is None else decorator(function)
        return self if function is None else ActorFunction(function, self._make_actor(function))

    def _make_actor(self, function: Callable[..., Any]) -> BaseActor:
        options = {key: value for key, value in self._options.items() if value is not None}
        options.setdefault("name", getattr(function, "__name__", type(function).__name__))
        options.setdefault("description", inspect.getdoc(function) or "")
        return self._kind(handler=function, **options)


tool: ActorDecorator = ActorDecorator(Tool)
"""Makes a tool of a function: something that acts or computes."""

agent: ActorDecorator = ActorDecorator(Agent)
"""Makes an agent of a function: something that decides what to call."""

llm: ActorDecorator = ActorDecorator(LLM)
"""Makes a language model call of a function."""


@function_with_arguments_of(ParallelExecutionManager)
def parallel(*args: Any, **options: Any) -> ParallelExecutionManager:
    """A group in the run that is under way, or in a run of its own if none is: `async with parallel(...) as p`.

    The arguments are those of `ParallelExecutionManager`.
    """
    frame = current_frame.get()
    return ParallelExecutionManager((default_run() if frame is None else frame.run).state, *args, **options)


async def run(
    workflow: Callable[..., Awaitable[R]],
    *args: Any,
    store: StoreLike | None = None,
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
    executors: Mapping[Engine, Executor] | Mapping[str, Executor] | None = None,
    **kwargs: Any,
) -> R:
    """Execute `workflow(*args, **kwargs)` as a run, and return its value.

    Started again with the same store and `run_id`, it repeats no finished call. The other arguments are those of
    `ExecutionState`; `subscribers` get every event, and `answerer` is asked what a person has to answer.

    Raises:
        DefinitionError: `workflow` is a call that was made already, or nothing that can be awaited comes of calling it.
        RunStopped: the run was stopped before its end; `RunAwaiting`: it waits for answers; `BudgetExceeded`: a budget
            is spent.
        RunMismatchError: a run of this name was started with another workflow or other arguments.
        StoreError: the store failed; `RunIsLive`: another process executes the run.
    """
    _expect_function(workflow)
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
        executors=executors,
    )
    state.set_answerer(answerer)
    for subscriber in subscribers:
        state.event_bus.subscribe(subscriber)
    async with state:
        call = workflow(*args, **kwargs)
        if not inspect.isawaitable(call):
            raise DefinitionError(
                f"run takes an `async def`, and {name_of(workflow) or 'this'} gave {short_repr(call)}"
            )
        return await call


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


def name_of(workflow: Callable[..., Any]) -> str:
    """The name of what is executed; "" for what has none that would mean something, such as a lambda."""
    actor = workflow.actor if isinstance(workflow, ActorFunction) else workflow
    name = actor.name if isinstance(actor, BaseActor) else getattr(workflow, "__name__", "")
    return "" if name == "<lambda>" else name


def arguments_of(workflow: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a workflow by parameter, without what is injected.

    Raises:
        TypeError: they do not fit.
    """
    if isinstance(workflow, ActorFunction):
        return workflow.actor.signature.bind(args, kwargs)
    return Signature(workflow).bind(args, kwargs)


def run_sync(workflow: Callable[..., Awaitable[R]], *args: Any, **options: Any) -> R:
    """`run` for programs that have no event loop."""
    return asyncio.run(run(workflow, *args, **options))


def _executor(module: str, name: str) -> Callable[[], Executor]:
    """Executors are loaded by name when the first function needs one: most programs need none."""

    def make() -> Executor:
        executor: Executor = getattr(importlib.import_module(module), name)()
        return executor

    return make


set_store_opener(open_store)
set_executors(
    {
        Engine.THREAD: _executor("rh_agents.executors.threads", "ThreadExecutor"),
        Engine.PROCESS: _executor("rh_agents.executors.processes", "ProcessExecutor"),
    }
)
