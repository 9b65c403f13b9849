"""Actors: functions with a name, a policy and typed edges. They are values; calling them is the runtime's work."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Self, TypedDict, TypeVar, Unpack, overload

import typing_extensions
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rh_agents.core._base.key_generations import ENDPOINTS
from rh_agents.core.actors.loop import agent_loop
from rh_agents.core.actors.signature import (
    Injected,
    Signature,
    awaits,
    expect_resolved,
    is_injected,
    is_of,
    problems,
    returned,
)
from rh_agents.core.errors import DefinitionError, InputError, OutputError
from rh_agents.core.policies._checks import amounts
from rh_agents.core.policies._options import as_made, expect_known, explained_fields, takes_options
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.budget import Budget, expect_budget
from rh_agents.core.policies.compaction import Compaction
from rh_agents.core.policies.limits import Limit, limits_of
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.types import CacheScope, Effect, Engine, EventType, OnUnknown, RecordInputs
from rh_agents.core.usage import Usage
from rh_agents.core.values.annotations import check_annotation
from rh_agents.core.values.large_validation import validate
from rh_agents.core.values.registry import learn, learn_function

__all__ = [
    "LLM",
    "Agent",
    "AgentOptions",
    "BaseActor",
    "Injected",
    "PolicyOptions",
    "Tool",
    "ToolSet",
    "expect_resolved",
]


Check = Callable[..., Awaitable[object] | object]
engines_named_so_far: set[str] = set()
"""The engines that actors of this process name, without those that every run has."""


class BaseActor(BaseModel):
    """Something that can be called, with its policy.

    The handler takes the input and, if it has more parameters, the extra context and the run:
    `handler(input_data)`, `handler(input_data, extra_context)`, `handler(input_data, extra_context, state)`; parameters
    named `state` or `execution_state` get the run wherever they stand. (Decorated functions keep their own parameters.)
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        defer_build=True, frozen=True, arbitrary_types_allowed=True, extra="forbid"
    )

    name: str
    description: str = ""
    version: str = "1"
    """Part of the identity of its calls: with a new version, what older code returned is not used again."""
    event_type: EventType = EventType.FUNCTION_CALL
    handler: Callable[..., Any]
    input_model: Any = None
    """The type of the input; what does not fit is an `InputError`. None takes anything."""
    output_model: Any = None
    """The type of the result; what does not fit is an `OutputError`. None takes anything."""
    preconditions: Sequence[Check] = ()
    """Called before the first attempt with (input, extra context, run); what they raise is the call's failure."""
    postconditions: Sequence[Check] = ()
    """Called after each attempt with (result, extra context, run); what they raise fails that attempt."""
    engine: str | None = None
    """Where the handler runs: an `Engine`, or the name of another one that the run is given an executor for. None means
    on the event loop for coroutine functions and in a thread for others."""
    resources: Mapping[str, float] | None = None
    """What each call needs of an engine that places calls by that: amounts by name, such as `{"num_gpus": 1}` for Ray.
    None leaves it to the engine."""
    retry: RetryPolicy | None = None
    """None: whatever the group says, or a single attempt. `retry=3` means at most three attempts."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds for each attempt. A thread cannot be stopped: it goes on unseen after its call has timed out."""
    breaker: CircuitBreaker | None = None
    effect: Effect = Effect.REPEATABLE
    """Whether making the call twice would do harm."""
    on_unknown: OnUnknown | None = None
    """What to do if a crash leaves it unknown whether the call was done; must be chosen for an external effect. None
    means to make it again."""
    cache: CacheScope | None = None
    """For whom results are kept, so that equal calls (same actor, version and input) are not made; None for no one."""
    ttl: Annotated[float, Field(gt=0)] | None = None
    """After this many seconds a cached result is not used any more; None means never."""
    record_inputs: RecordInputs | None = None
    """What is recorded of what its calls are called with; None means what the run says."""
    limits: tuple[Limit, ...] = ()
    """What each attempt waits for: rate limits and concurrency limits, which other actors may share."""
    budget: Budget | None = None
    """What one call may spend, with all that is called in it."""

    if not TYPE_CHECKING:  # they see the fields

        @takes_options(first="name")
        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                problem = explained_fields(as_made(type(self), data), error)
            else:
                return
            raise problem

    def __copy__(self) -> Self:
        """A copy that may get other fields, so it is without what was worked out of these."""
        copied = super().__copy__()
        known = vars(copied)
        for name in known.keys() - type(self).model_fields.keys():
            del known[name]
        return copied

    @cached_property
    def recorded_version(self) -> str:
        """The version as keys and events have it. Models say it each time: their address may change meanwhile."""
        return self.version

    @property
    def cache_label(self) -> str:
        """What stands for it in caches, for people; an actor with former versions has another one than it had then."""
        return self.name

    @cached_property
    def former_versions(self) -> tuple[str, ...]:
        """What stood in place of it in keys of earlier versions of this library.

        See `rh_agents.core._base.key_generations`.
        """
        return ()

    @property
    def keys_since(self) -> int:
        """The generation of keys since which its `former_versions` are former."""
        return ENDPOINTS

    @model_validator(mode="before")
    @classmethod
    def _expect_known_options(cls, data: Any) -> Any:
        if isinstance(data, dict):
            expect_known(as_made(cls, data), data, cls.model_fields)
        return data

    @field_validator("limits", mode="before")
    @classmethod
    def _read_single_limit(cls, limits: Limit | Iterable[Limit]) -> tuple[Limit, ...]:
        return limits_of(limits)

    @field_validator("engine", mode="plain")
    @classmethod
    def _read_engine(cls, engine: object) -> str | None:
        if engine is not None and (not isinstance(engine, str) or not engine):
            raise DefinitionError(f"engine= takes the name of an engine, such as 'process', not {engine!r}")
        if engine is None or engine in Engine.__members__.values():
            return None if engine is None else Engine(engine)
        engines_named_so_far.add(engine)
        return engine

    @field_validator("resources", mode="plain")
    @classmethod
    def _read_resources(cls, resources: object) -> Mapping[str, float] | None:
        return None if resources is None else amounts("resources", resources)

    _read_budget = field_validator("budget", mode="before")(expect_budget)

    @field_validator("retry", mode="before")
    @classmethod
    def _read_short_retry(cls, retry: RetryPolicy | int | None) -> RetryPolicy | None:
        return RetryPolicy.of(retry)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse what could only fail later."""
        if inspect.isasyncgenfunction(self.handler) or inspect.isgeneratorfunction(self.handler):
            raise DefinitionError(f"{self.name} yields: a call has one result, so return a list instead")
        is_async = awaits(self.handler)
        if is_async and self.engine in (Engine.THREAD, Engine.PROCESS):
            raise DefinitionError(
                f"{self.name}: engine={str(self.engine)!r} is for plain functions, and {self.name} is an `async def`"
            )
        if self.resources and self.engine in (None, *Engine):
            raise DefinitionError(
                f"{self.name}: resources= are for an engine that places calls by what they need, such as Ray: name it "
                "with engine="
            )
        if self.effect is Effect.EXTERNAL and self.cache is not None:
            raise DefinitionError(f"{self.name} has an external effect, which cannot be cached: remove cache=")
        if self.ttl is not None and self.cache is None:
            raise DefinitionError(f"{self.name}: ttl= says how long a result is cached, so it needs cache=")
        if self.effect is Effect.EXTERNAL and self.on_unknown is None:
            raise DefinitionError(
                f"{self.name} has an external effect: say what to do when a crash leaves its outcome unknown, "
                "with on_unknown='retry' (its service honours current().idempotency_key), 'fail' or 'ask'"
            )
        result = returned(self.handler)
        if self.effect is Effect.EXTERNAL and is_injected(result):
            raise DefinitionError(
                f"{self.name} has an external effect, so its result must be recorded: it cannot be `Injected`"
            )
        problem = None if result is None or isinstance(result, str) else check_annotation(result)
        if problem is not None:
            raise DefinitionError(
                f"{self.name} returns a type that cannot be stored: {problem}; return serializable data, or "
                "write `-> Annotated[..., Injected]`: then it is not recorded, and called again when a run is resumed"
            )
        if not is_async and self.engine is Engine.ASYNC:
            raise DefinitionError(
                f"{self.name}: engine='async' needs an `async def`; a plain function would block the event loop"
            )
        self._learn_types()

    @cached_property
    def is_coroutine_function(self) -> bool:
        """Whether what the handler returns has to be awaited."""
        return awaits(self.handler)

    @cached_property
    def is_async(self) -> bool:
        """Whether the handler runs on the event loop."""
        return self.is_coroutine_function and self.engine in (None, Engine.ASYNC)

    @cached_property
    def has_policy(self) -> bool:
        """Whether its calls are more than one attempt without an end."""
        return not (self.retry is None and self.timeout is None and self.breaker is None and not self.limits)

    @cached_property
    def is_stored(self) -> bool:
        """Whether results are data. `-> Annotated[Client, Injected]` says they are not: such calls are made again."""
        return not is_injected(returned(self.handler))

    def _learn_types(self) -> None:
        """Make the classes that the annotations name known to stores: they may then be read from one."""
        learn_function(self.handler)
        for model in (self.input_model, self.output_model):
            if model is not None:
                learn(model)

    @cached_property
    def has_known_types(self) -> bool:
        """Looks once more, before the first call that is recorded: annotations may name what is defined further below.

        Raises:
            DefinitionError: there is no such name, so that no one could say whether what the call returns can be kept.
        """
        self._learn_types()
        expect_resolved(self.handler, self.name)
        return True

    @cached_property
    def is_external(self) -> bool:
        """Whether making a call twice would do harm."""
        return self.effect is Effect.EXTERNAL

    @cached_property
    def may_lose_workers(self) -> bool:
        """Whether its calls are made in processes that may die without this one."""
        return self.engine not in (None, Engine.ASYNC, Engine.THREAD)

    @cached_property
    def marks_attempts(self) -> bool:
        """Whether the journal has the beginning of every attempt before it begins: a crash within one matters."""
        return self.is_external or self.on_unknown in (OnUnknown.FAIL, OnUnknown.ASK)

    @cached_property
    def signature(self) -> Signature:
        """How the handler wants to be called."""
        return Signature(self.handler)

    @cached_property
    def _input_adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.input_model)

    @cached_property
    def _output_adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.output_model)

    def validate_input(self, data: Any) -> Any:
        """The input as the handler expects it.

        Raises:
            InputError: it does not fit `input_model`. One line for each place that is wrong.
        """
        if self.input_model is None or is_of(data, self.input_model):
            return data
        try:
            return validate(self._input_adapter, data)
        except ValidationError as error:
            raise InputError(f"{self.name}: input {problems(error)}") from error

    def estimate_input(self, input_data: Any) -> Usage | None:
        """What a call with this input will use at most, for budgets and rate limits; None if that is not known."""
        return None

    def priced(self, usage: Usage) -> Usage:
        """What was used, with what it cost, if the actor knows that and the report does not."""
        return usage

    def validate_output(self, value: Any) -> Any:
        """The result as the output model has it.

        Raises:
            OutputError: it does not fit `output_model`.
        """
        if self.output_model is None or is_of(value, self.output_model):
            return value
        try:
            return validate(self._output_adapter, value)
        except ValidationError as error:
            raise OutputError(f"{self.name}: result {problems(error)}") from error


class Tool(BaseActor):
    """A function that does something in the world, or computes something.

    Models may call it, too. They are shown its name, its description and the JSON schema of its parameters: that of
    `parameters`, of `input_model`, or else of the handler's own parameters. The handler of a tool that has one of the
    first two gets the arguments as its input, any other one gets them by name. So its parameters must have names:
    `*args`, `**kwargs` and positional-only ones are a `DefinitionError`. (What is not written in
    Python, such as `len`, is refused only when a model is to be shown it.)
    """

    event_type: EventType = EventType.TOOL_CALL
    parameters: dict[str, Any] | None = None
    """The JSON schema of the arguments, if someone else has written it. Here, nothing is validated against it."""
    on_error: Literal["return", "raise"] = "return"
    """What becomes of a failure when a model has called the tool: it is reported to the model, or its agent fails."""
    needs_approval: bool | None = None
    """Whether a person has to allow each call by a model, with just its arguments. None: if its effect is external."""

    max_result: int | None = Field(default=None, ge=100)
    """How many characters of its result a model gets; a mark says what was cut. None: what its agent says."""

    def model_post_init(self, context: Any, /) -> None:
        """Refuse parameters for which a model can give no arguments."""
        super().model_post_init(context)
        is_written_here = isinstance(self.handler, FunctionType)
        if is_written_here and self.parameters is None and self.input_model is None and self.signature.is_known:
            self.signature.expect_names(self.name)

    @property
    def is_approved_first(self) -> bool:
        """Whether a person has to allow each call of a model."""
        return self.is_external if self.needs_approval is None else self.needs_approval


class LLM(BaseActor):
    """A function that asks a language model."""

    event_type: EventType = EventType.LLM_CALL


class ToolSet(BaseModel):
    """Tools by name, in their order."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True, frozen=True)

    tools: tuple[Tool, ...] = ()

    def __init__(self, tools: Sequence[Tool] = (), **data: Any) -> None:
        super().__init__(tools=tuple(tools), **data)

    @field_validator("tools")
    @classmethod
    def _names_are_distinct(cls, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
        names = [tool.name for tool in tools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tools of one set have the same name: {', '.join(twice)}")
        return tools

    def __iter__(self) -> Iterator[tuple[str, Tool]]:  # type: ignore[override]
        return ((tool.name, tool) for tool in self.tools)

    def __len__(self) -> int:
        return len(self.tools)

    def __contains__(self, name: object) -> bool:
        return any(tool.name == name for tool in self.tools)

    def __getitem__(self, name: str) -> Tool:
        for tool in self.tools:
            if tool.name == name:
                return tool
        raise KeyError(name)

    def get_tool_list(self) -> list[Tool]:
        """The tools in their order."""
        return list(self.tools)


T = TypeVar("T")
OutputT = typing_extensions.TypeVar("OutputT", covariant=True, default=str)


class PolicyOptions(TypedDict, total=False):
    """The options that actors of every kind have; what they mean, `BaseActor` says."""

    description: str | None
    version: str | None
    retry: RetryPolicy | int | None
    timeout: float | None
    engine: Engine | str | None
    resources: Mapping[str, float] | None
    breaker: CircuitBreaker | None
    effect: Effect | str | None
    on_unknown: OnUnknown | str | None
    cache: CacheScope | str | None
    ttl: float | None
    record_inputs: RecordInputs | str | None
    limits: Limit | Sequence[Limit] | None
    budget: Budget | None


class AgentOptions(PolicyOptions, total=False):
    """The options of `Agent` beside its name, its handler and its output; what they mean, `Agent` says."""

    event_type: EventType
    input_model: Any
    output_model: Any
    preconditions: Sequence[Check]
    postconditions: Sequence[Check]
    tools: ToolSet | Iterable[Any]
    llm: LLM | None
    instructions: str
    max_turns: int
    handoffs: Iterable[Agent[Any]]
    tool_choice: str | None
    max_workers: int
    temperature: float | None
    reasoning_effort: str | None
    parallel_tool_calls: bool | None
    max_result: int | None
    compact: Any


class Agent(BaseActor, Generic[OutputT]):
    """Something that decides what to call: a function of its own, which may use `tools` and `llm`; or a model.

        researcher = Agent(name="researcher", llm=model, tools=[search, read], instructions="Name your sources.")
        answer = await researcher("Who wrote the first compiler?")

    Without a `handler` the model decides. It is asked, the tools that it wants are called side by side, it gets the
    results and is asked again, until it answers. Each of these steps is a call that is recorded, so an agent that was
    killed resumes at the turn where it was.

    Type checkers know the type of its answers: `Agent[Report]` where `output=Report` or the handler returns one,
    `Agent[str]`, which is also what `Agent` alone means, where nothing is said. At run time the brackets say nothing.
    """

    event_type: EventType = EventType.AGENT_CALL
    handler: Callable[..., Any] = Field(default=None, validate_default=False)  # type: ignore[assignment]
    tools: ToolSet = Field(default_factory=ToolSet)
    """What the model may call: tools, decorated functions, and other agents, each of which is asked a question."""
    llm: LLM | None = None
    """The model; without a handler it has to be a `ChatModel`."""
    instructions: str = ""
    """What the model gets before everything else."""
    output: Any = None
    """The type of the answer; None for text."""
    max_turns: int = Field(default=10, ge=1)
    """How often the model is asked before `TooManyTurns` is raised."""
    handoffs: tuple[Agent[Any], ...] = ()
    """Agents to whom the model may hand the conversation over. Their answer is then the answer."""
    tool_choice: str | None = None
    """For the first turn: "auto", "required", "none" or the name of a tool. Later ones are left to the model."""
    max_workers: int = Field(default=8, ge=1)
    """How many tools run side by side."""
    temperature: float | None = None
    reasoning_effort: str | None = None
    """How much its model shall think, such as "low" or "high"."""
    parallel_tool_calls: bool | None = None
    """Whether its model may want several tools at a time. None leaves these to the model's own settings."""
    max_result: int | None = Field(default=None, ge=100)
    """How many characters of the result of each tool the model gets; a mark says what was cut. None: 50,000."""
    compact: Compaction | None = None
    """When its conversation is made shorter, and how; `compact=Summarize()` or a function will do. None: never."""

    if not TYPE_CHECKING:

        def __class_getitem__(cls, output):
            return cls

    @overload
    def __init__(
        self: Agent[T], *, name: str, output: type[T], handler: Any = None, **options: Unpack[AgentOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[T], *, name: str, handler: Callable[..., Coroutine[Any, Any, T]], **options: Unpack[AgentOptions]
    ) -> None: ...
    @overload
    def __init__(self: Agent[T], *, name: str, handler: Callable[..., T], **options: Unpack[AgentOptions]) -> None: ...
    @overload
    def __init__(
        self: Agent[str], *, name: str, output: None = None, handler: None = None, **options: Unpack[AgentOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[Any], *, name: str, output: Any, handler: Any = None, **options: Unpack[AgentOptions]
    ) -> None: ...
    @takes_options("Agent", first="name")
    def __init__(
        self, *, tools: ToolSet | Iterable[Any] = (), handoffs: Iterable[Agent[Any]] = (), **data: Any
    ) -> None:
        super().__init__(**{"tools": tools, "handoffs": handoffs, **data})

    @field_validator("tools", mode="before")
    @classmethod
    def _read_tools(cls, tools: Any) -> Any:
        if not isinstance(tools, Iterable):
            raise DefinitionError(f"tools= takes a list: tools=[{getattr(tools, '__name__', 'search')}], not {tools!r}")
        return tools if isinstance(tools, ToolSet) else ToolSet([_as_tool(each) for each in tools])

    @field_validator("llm", "output", mode="before")
    @classmethod
    def _expect_no_name(cls, given: Any, info: ValidationInfo) -> Any:
        if isinstance(given, str):
            what = "the model itself" if info.field_name == "llm" else "the type itself"
            raise DefinitionError(f"{info.field_name}= takes {what}, not its name {given!r}")
        return given

    @field_validator("handoffs", mode="before")
    @classmethod
    def _read_handoffs(cls, handoffs: Sequence[Agent[Any]]) -> tuple[Agent[Any], ...]:
        return tuple(handoffs)

    @field_validator("compact", mode="before")
    @classmethod
    def _read_short_compaction(cls, compact: Any) -> Any:
        return Compaction.of(compact)

    def _learn_types(self) -> None:
        super()._learn_types()
        if self.output is not None:
            learn(self.output)

    def model_post_init(self, context: Any, /) -> None:
        """Without a handler, the model decides."""
        if self.__dict__.get("handler") is None:
            object.__setattr__(self, "handler", agent_loop.handler_of(self))
        elif self.compact is not None:
            raise DefinitionError(f"{self.name} has a handler, which has to shorten its conversations: remove compact=")
        super().model_post_init(context)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __str__(self) -> str:
        return repr(self)

    def __call__(self, prompt: Any) -> Awaitable[OutputT]:
        """A call of the agent whose value is its answer. `prompt` is a question, a message or a list of them.

        Raises (when it is awaited):
            TooManyTurns: there was no answer after `max_turns` turns.
            ModelError: the model gave no answer; by kind.
        """
        return agent_loop.call_of(self, prompt)


def _as_tool(given: Any) -> Tool:
    """A tool for what models may call: a tool, a decorated function, or an agent that is asked a question."""
    actor = getattr(given, "actor", given)
    if isinstance(actor, Tool):
        return actor
    if not isinstance(actor, BaseActor):
        raise DefinitionError(f"{given!r} is not a tool: write @tool above the function, or give a Tool or an Agent")
    if isinstance(actor, Agent) and given is actor:

        async def ask(prompt: str) -> Any:
            return await actor(prompt)

        return Tool(name=actor.name, description=actor.description or actor.instructions, handler=ask)
    return Tool(**{name: getattr(actor, name) for name in BaseActor.model_fields if name != "event_type"})
