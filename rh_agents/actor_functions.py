"""Decorators that make actors of functions: `@tool`, `@agent` and `@llm`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from rh_agents.core.actors import LLM, Agent, BaseActor, PolicyOptions, Tool
from rh_agents.core.calls import FunctionCall
from rh_agents.core.errors import DefinitionError, OptionError
from rh_agents.core.policies._options import expect_known
from rh_agents.core.redaction.described import short_repr

__all__ = ["ActorDecorator", "ActorFunction", "ActorOptions", "agent", "llm", "tool"]

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


class ActorOptions(PolicyOptions, total=False):
    """The options of `tool`, `agent` and `llm`; see `ActorDecorator`."""

    name: str | None
    max_result: int | None


class ActorDecorator:
    """What `tool`, `agent` and `llm` are: `@tool`, `@tool(retry=3, timeout=30)` or `tool(fetch, retry=3)`.

    Options, all by keyword:
        name: by default the function's name.
        description: by default its docstring.
        version: part of the identity of its calls; change it when old results are no longer right.
        retry: a `RetryPolicy`, or the number of attempts.
        timeout: seconds for each attempt.
        engine: where the function runs: "thread" (the default of those that are not coroutine functions), "process", or
            the name of an engine that the run is given an executor for.
        resources: what each call needs of an engine that places calls by that, such as `{"num_gpus": 1}` for Ray.
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
            self._expect_known(options)
            decorator = ActorDecorator(self._kind, **{**self._options, **options})
            return decorator if function is None else decorator(function)
        if function is None:
            return self
        if not callable(function):
            raise OptionError(
                f"{self!r} stands above a function, and takes options by name, as in {self!r}(name='fetch'); "
                f"it was given {short_repr(function)}"
            )
        return ActorFunction(function, self._make_actor(function))

    def _expect_known(self, options: Mapping[str, Any]) -> None:
        """Refuse options that there are not where they are written, not where the function is decorated."""
        expect_known(repr(self), options, self._kind.model_fields.keys() - {"handler", "event_type"})

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
