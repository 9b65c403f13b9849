"""Language models as actors: asked once, recorded, replayed, cached, retried and limited like any other call."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Protocol, Self, TypedDict, TypeVar, Unpack, overload

from pydantic import Field, PrivateAttr, model_validator

from rh_agents.core._base.signatures import takes_settings
from rh_agents.core._run.frame import Frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import LLM, BaseActor, Check
from rh_agents.core.calls import Call
from rh_agents.core.chat._asking import ask, begin_again, report_unbounded
from rh_agents.core.chat._estimates import DEFAULT_OUTPUT, input_tokens
from rh_agents.core.chat.messages import (
    CallSettings,
    ChatDelta,
    ChatRequest,
    ChatResponse,
    FinishReason,
    Message,
    Said,
    ToolSpec,
    messages_of,
    pieces_of,
)
from rh_agents.core.chat.schema import AnswerType, problems, spec_of
from rh_agents.core.context import report_hint
from rh_agents.core.errors import AnswerTruncated, InputError, InvalidAnswer, ModelRefused, UnreadableAnswer
from rh_agents.core.policies._options import expect_known
from rh_agents.core.policies.breaker import CircuitBreaker
from rh_agents.core.policies.budget import Budget
from rh_agents.core.policies.limits import Limit, RateLimitHint
from rh_agents.core.policies.pause import Pause
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.types import CacheScope, RecordInputs
from rh_agents.core.usage import Price, Usage
from rh_agents.core.values import learn
from rh_agents.core.values.inputs import CanonicalInput

__all__ = ["Batcher", "ChatModel", "ModelCall", "ModelSettings", "OnDelta", "SharedSettings", "room_in"]

T = TypeVar("T")
Prompt = Said | ChatRequest
OnDelta = Callable[[ChatDelta], Awaitable[None]]

_TRUNCATED = (
    "the answer ended at the greatest number of tokens before it was whole; raise max_tokens, or shorten the "
    "conversation if that is what fills the model's context"
)
_SHOWN_OF_MESSAGES = ("role", "content", "tool_calls", "tool_call_id")
_SETTINGS_OF_CALLS = set(ChatRequest.model_fields) - {"messages", "tools", "tool_choice"}


class Batcher(Protocol):
    """Sends requests in place of the models themselves, many at a time."""

    discount: float
    """What a request costs then, as a share of its price."""

    def takes(self, model: ChatModel) -> bool:
        """Whether it sends those of this model."""
        ...

    async def complete(self, model: ChatModel, request: ChatRequest) -> ChatResponse:
        """The answer, as `ChatModel.complete` gives it."""
        ...


batcher: ContextVar[Batcher | None] = ContextVar("rh_agents_batcher", default=None)
"""What sends the requests that are made in this context; None for the models themselves."""


class ChatModel(LLM):
    """A language model that takes conversations. Each provider derives a class from it and writes `complete`.

        answer = await model("Why is the sky blue?")                # a ChatResponse
        text = await model.ask("Why is the sky blue?")              # just its text
        verdict = await model.ask(review, output=Verdict)           # an object of this type

    Its calls are durable: what decides the answer (the model, the conversation, the tools, the settings) is their
    input. What they use and cost is reported, and counts for budgets and rate limits.
    """

    handler: Callable[..., Any] = Field(default=None, validate_default=False)  # type: ignore[assignment]
    name: str = ""
    """By default the name of the model."""
    model: str
    """The model, as its provider names it."""
    price: Price | None = None
    """What it costs; None if that is not known. Then calls cost nothing, and a budget of money refuses them."""
    retry: RetryPolicy | None = RetryPolicy(max_attempts=4)
    """One layer of retries: those of a provider's own client are off. Only errors that may pass are retried."""
    timeout: Annotated[float, Field(gt=0)] | None = 600.0
    """Seconds for one attempt, from the request to the end of the answer."""
    idle_timeout: Annotated[float, Field(gt=0)] | None = 120.0
    """Seconds for which an answer may stand still: until it begins, and between two pieces of it."""
    stream: bool = False
    """Whether answers are published in pieces while they are written, as PROGRESS events with a `ChatDelta`. What is
    recorded or cached already is published as one piece, and marked (`ChatDelta.replayed`)."""
    output_retries: int = Field(default=2, ge=0)
    """How often the model is asked again, with what is wrong, where its answer does not fit the type that is wanted."""
    temperature: float | None = None
    reasoning_effort: str | None = None
    """How much it shall think, such as "low" or "high", as far as it can."""
    top_p: float | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    """The most tokens that an answer may have. It is also what is reserved in budgets and rate limits."""
    max_output: int | None = Field(default=None, ge=1)
    """The most tokens that the model can write: what is reserved where there is no `max_tokens`. By default what is
    known of the model, or else 4,096. It is not sent, and no part of the identity of calls."""
    max_context: int | None = Field(default=None, ge=1)
    """The most tokens that a conversation with it may have (its window), for agents that make theirs shorter in time.
    By default what is known of the model. It is not sent, and no part of the identity of calls."""
    seed: int | None = None
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, as the provider names them."""

    endpoint: str | None = None
    """Which server it is, as part of what the model is: two servers may call different models by the same name. For
    `OpenAIChat` it is the URL by default. Give a name of your own to a server whose address changes."""

    is_chat_model: ClassVar[bool] = True
    __signature__: ClassVar[inspect.Signature]
    endpoint_setting: ClassVar[str] = "endpoint"
    """What the argument is called that sets `endpoint`."""

    _pause: Pause | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _name_after_the_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name") and isinstance(data.get("model"), str):
            data = {**data, "name": data["model"]}
        return data

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let `help` show how a model of this class is made; else it shows that of the class above it."""
        super().__pydantic_init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            signature = inspect.signature(cls.__init__)
            cls.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])

    def model_post_init(self, context: Any, /) -> None:
        """The handler is the model's own."""
        if self.__dict__.get("handler") is None:
            object.__setattr__(self, "handler", self._handle)
        super().model_post_init(context)

    def __copy__(self) -> Self:
        """The same model, as one of its own: `model_copy(update=...)` gives it other settings."""
        copied = super().__copy__()
        if self.handler == self._handle:
            object.__setattr__(copied, "handler", copied._handle)
        copied._pause = None
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """As `__copy__`: what models share, such as their limits, stays shared."""
        return self.__copy__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    def __str__(self) -> str:
        return repr(self)

    # -- what a provider writes ---------------------------------------------------------------------------------------

    async def complete(self, request: ChatRequest, on_delta: OnDelta | None) -> ChatResponse:
        """Ask the provider once, and return its answer with its usage (`Usage.cost` is filled in by the caller).

        Args:
            request: what to ask.
            on_delta: await it with each piece of the answer; None if no one wants them, then the answer may come whole.

        Raises:
            ModelError: by kind. An answer that is cut off without its end is an `IncompleteAnswer`, one that came and
                has not the form of an answer an `UnreadableAnswer`. Its `usage` is what the request used all the same
                (see `unanswered` where nothing says so); None for nothing.
        """
        raise NotImplementedError

    def price_of(self, response: ChatResponse) -> Price | None:
        """What the model that answered costs; None if that is not known."""
        return self.price

    @property
    def own_fields(self) -> dict[str, Any]:
        """Further fields of each request that follow from settings which only models of this class have."""
        return {}

    @property
    def known_price(self) -> Price | None:
        """What this model costs, as far as is known before it answers."""
        return self.price

    @property
    def is_told_in_pieces(self) -> bool:
        """Whether those who listen get its answers in pieces."""
        return self.stream

    @property
    def known_max_output(self) -> int | None:
        """The most tokens that it can write, as far as is known."""
        return self.max_output

    @property
    def known_context(self) -> int | None:
        """The most tokens that a conversation with it may have, as far as is known."""
        return self.max_context

    @property
    def known_room(self) -> int | None:
        """The most tokens of a conversation for which its window has room beside an answer, as far as is known."""
        return room_in(self.known_context, self.reserved_output)

    @property
    def reserved_output(self) -> int:
        """The tokens for which each request asks room for its answer; 0 if that is left to the provider."""
        return self.max_tokens or 0

    # -- calling it ---------------------------------------------------------------------------------------------------

    @takes_settings(CallSettings)
    def __call__(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        tools: Sequence[Any] = (),
        tool_choice: str | None = None,
        output: Any = None,
        **settings: Unpack[CallSettings],
    ) -> ModelCall[ChatResponse]:
        """A call whose value is the model's `ChatResponse`; with `output`, its `output` is an object of that type.

        Args:
            prompt: what the user says, or a conversation.
            system: what the model gets before it.
            tools: tools that the model may want to be called: tools, decorated functions or `ToolSpec`s. (Calling them
                is what an `Agent` does.)
            tool_choice: "auto", "none", "required", or the name of a tool.
            output: a type; the model gets its JSON schema.
            settings: fields of `ChatRequest` in place of the model's own settings, such as `temperature`.

        Raises:
            DefinitionError: there is no such setting.
        """
        self._expect_settings("__call__", settings)
        answer = None if output is None else AnswerType(output)
        return ModelCall(self, self.request(prompt, system, tools, tool_choice, answer, **settings), answer)

    @overload
    def ask(
        self, prompt: Prompt, *, system: str | None = None, output: type[T], **settings: Unpack[CallSettings]
    ) -> ModelCall[T]: ...
    @overload
    def ask(
        self, prompt: Prompt, *, system: str | None = None, output: None = None, **settings: Unpack[CallSettings]
    ) -> ModelCall[str]: ...
    @takes_settings(CallSettings)
    def ask(
        self, prompt: Prompt, *, system: str | None = None, output: Any = None, **settings: Unpack[CallSettings]
    ) -> ModelCall[Any]:
        """A call whose value is the text of the answer, or an object of the type `output`. It offers no tools.

        Raises:
            InputError: the prompt is neither a text nor messages.
            DefinitionError: there is no such setting.

        Raises (when it is awaited):
            ModelRefused: the model will not answer.
            InvalidAnswer: the answer does not fit the type, also after the model was corrected `output_retries` times.
            AnswerTruncated: it is longer than `max_tokens`.
        """
        self._expect_settings("ask", settings)
        answer = None if output is None else AnswerType(output)
        return ModelCall(self, self.request(prompt, system, (), None, answer, **settings), answer, only_content=True)

    def _expect_settings(self, how: str, settings: Mapping[str, Any]) -> None:
        """Refuse settings that there are not, before they are taken for something else."""
        expect_known(f"{type(self).__name__}.{how}({self.model!r})", settings, _SETTINGS_OF_CALLS)

    def request(
        self,
        prompt: Prompt,
        system: str | None = None,
        tools: Sequence[Any] = (),
        tool_choice: str | None = None,
        answer: AnswerType | None = None,
        **settings: Unpack[CallSettings],
    ) -> ChatRequest:
        """What is sent to the provider, with the settings of the model where nothing else is given.

        Raises:
            InputError: the prompt is neither a text nor messages.
        """
        if isinstance(prompt, ChatRequest):
            return prompt if prompt.model else prompt.model_copy(update={"model": self.model})
        fields: dict[str, Any] = {
            "model": self.model,
            "temperature": self.temperature,
            "reasoning_effort": self.reasoning_effort,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "extra": self.extra,
            **settings,
        }
        return ChatRequest(
            messages=messages_of(prompt, system),
            tools=tuple(_spec(tool) for tool in tools),
            tool_choice=tool_choice,
            output_name="" if answer is None else answer.name,
            output_schema=None if answer is None else answer.schema,
            **fields,
        )

    async def _handle(self, input_data: Any) -> ChatResponse:
        """What `ExecutionEvent(actor=model)(prompt)` does."""
        return await self.answer(self.request(input_data), None)

    async def answer(self, request: ChatRequest, answer: AnswerType | None) -> ChatResponse:
        """One attempt: ask, and ask again if the answer does not fit the type that was asked for.

        Raises:
            ModelRefused: the model will not answer.
            AnswerTruncated: the answer is longer than `max_tokens`.
            InvalidAnswer: it does not fit the type, also after the model was corrected.
            ModelError: by kind.
        """
        left = self.output_retries
        while True:
            response = await ask(self, request)
            if answer is None or response.tool_calls:
                return response
            try:
                return response.model_copy(update={"output": _read(response, answer)})
            except ValueError as error:
                if left == 0:
                    raise InvalidAnswer(
                        f"{self.name}: the answer is no {answer.name}: {_line(problems(error))}"
                    ) from error
                left -= 1
                complaint = (
                    f"That does not fit the JSON schema:\n{problems(error)}\nAnswer again, with nothing but JSON."
                )
                messages = (*request.messages, response.message, Message.user(complaint))
            request = request.model_copy(update={"messages": messages})
            await begin_again(self, request)

    @property
    def endpoint_identity(self) -> str:
        """What stands for its server in keys and in caches; "" for nothing."""
        return self.endpoint or ""

    @property
    def recorded_version(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its version, and its server if that is part of its identity."""
        server = self.endpoint_identity
        return f"{self.version} at {server}" if server else self.version

    @property
    def cache_label(self) -> str:
        """Its name and version, also if its server is not part of it: earlier versions kept answers by its name."""
        return f"{self.name} {self.recorded_version}"

    @property
    def former_versions(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The server was no part of keys once."""
        return (self.version,) if self.endpoint_identity else ()

    @property
    def pause(self) -> Pause:
        """What those share who ask this server, so that all wait when it wants that."""
        if self._pause is None:
            self._pause = Pause(self.name)
        return self._pause

    @property
    def batcher(self) -> Batcher | None:
        """What sends its requests in its place now; None if it does that itself."""
        chosen = batcher.get()
        return chosen if chosen is not None and chosen.takes(self) else None

    @property
    def discount(self) -> float:
        """What a request costs now, as a share of its price."""
        chosen = self.batcher
        return 1.0 if chosen is None else chosen.discount

    def honour(self, hint: RateLimitHint) -> None:
        """For providers: let the limits of the call that is under way know what was said about them."""
        report_hint(hint)

    def estimate_input(self, input_data: Any) -> Usage:
        """What a call with this input will use at most.

        Raises:
            InputError: it is no prompt.
        """
        return self.estimate(self.request(input_data))

    def estimate(self, request: ChatRequest) -> Usage:
        """What a request will use at most, as far as its size shows; for budgets and rate limits.

        Its cost is not a number if no one knows the price.
        """
        output = request.max_tokens or self.known_max_output or DEFAULT_OUTPUT
        usage = Usage(input_tokens=input_tokens(request), output_tokens=output, requests=1)
        price = self.known_price
        return usage + Usage(cost=math.nan if price is None else price.cost(usage) * self.discount)

    def unanswered(self, request: ChatRequest) -> Usage:
        """What counts for a request that was sent, and no answer says what it used: what was reserved for it."""
        return replace(self.estimate(request), cost=0.0, estimates=1)


class SharedSettings(TypedDict, total=False):
    """What every model can be made with: fields of `ChatModel`, as a caller may write them. It is for
    editors, type checkers and `help`; a test holds it against the fields.
    """

    name: str
    description: str
    version: str
    price: Price | None
    retry: RetryPolicy | int | None
    timeout: float | None
    idle_timeout: float | None
    stream: bool
    output_retries: int
    temperature: float | None
    reasoning_effort: str | None
    top_p: float | None
    max_tokens: int | None
    max_output: int | None
    max_context: int | None
    seed: int | None
    extra: dict[str, Any]
    limits: Limit | Iterable[Limit]
    budget: Budget | None
    breaker: CircuitBreaker | None
    cache: CacheScope | str | None
    ttl: float | None
    record_inputs: RecordInputs | str | None
    preconditions: Sequence[Check]
    postconditions: Sequence[Check]


class ModelSettings(SharedSettings, total=False):
    """The same for models whose server is named by `endpoint`."""

    endpoint: str | None


class ModelCall(Call[T]):
    """The question to a model, as a call."""

    __slots__ = ("answer", "model", "only_content", "request")

    def __init__(
        self, model: ChatModel, request: ChatRequest, answer: AnswerType | None = None, *, only_content: bool = False
    ) -> None:
        super().__init__(model)
        self.model: ChatModel = model
        self.request: ChatRequest = request
        self.answer: AnswerType | None = answer
        self.only_content: bool = only_content
        if answer is not None:
            learn(answer.output)

    def with_options(self, *, key: str) -> ModelCall[T]:
        """The same call with another identity: `key` stands for the input when the run is executed again."""
        self.discard()
        call: ModelCall[T] = ModelCall(self.model, self.request, self.answer, only_content=self.only_content)
        call.key = key
        return call

    def canonical_input(self) -> CanonicalInput:
        """The request, and what is wanted of the answer."""
        return CanonicalInput(self.request, suffix=b" content" if self.only_content else b"")

    def given(self) -> Any:
        """The prompt if that is all, else the messages, without what is empty in them."""
        messages = self.request.messages
        if len(messages) == 1 and messages[0].role == "user":
            return messages[0].content
        return [{name: part for name in _SHOWN_OF_MESSAGES if (part := getattr(message, name))} for message in messages]

    def estimate(self) -> Usage:
        """What the model says about this request."""
        if self.request.max_tokens is None:
            report_unbounded(self.model.name, self.model.known_max_output)
        return self.model.estimate(self.request)

    def prepare(self, frame: Frame) -> None:
        """As for every call. What goes through a batch takes its time, and needs no limits."""
        super().prepare(frame)
        if self.model.batcher is not None:
            frame.timeout, frame.limits = None, ()
        if self.model.is_told_in_pieces:
            frame.pieces_of = pieces_of

    async def begin(self, run: RunParts) -> Any:
        """One attempt.

        Raises:
            ModelRefused, AnswerTruncated, UnreadableAnswer: see `ChatModel.ask`.
        """
        if run.recording.is_resumed:
            model = self.model
            await run.recording.report_other_server(
                model.name, model.version, model.endpoint_identity, model.endpoint_setting
            )
        response = await self.model.answer(self.request, self.answer)
        if not self.only_content:
            return response
        if response.tool_calls and not self.request.tools:
            problem = f"{self.model.name} wants tools to be called, and was offered none"
            raise UnreadableAnswer(problem, usage=response.usage)
        if self.answer is not None:
            return response.output
        _expect_whole(response, self.model.name)
        return response.text


def _read(response: ChatResponse, answer: AnswerType) -> Any:
    """The answer as an object.

    Raises:
        ModelRefused: there is none, because the model will not give one.
        AnswerTruncated: it is not whole.
        ValueError: it does not fit.
    """
    _expect_whole(response, "the model")
    return answer.read(response.text)


def _expect_whole(response: ChatResponse, who: str) -> None:
    if response.refusal is not None or response.finish_reason is FinishReason.CONTENT_FILTER:
        raise ModelRefused(f"{who} will not answer: {response.refusal or 'its provider cut it off'}")
    if response.finish_reason is FinishReason.LENGTH:
        raise AnswerTruncated(_TRUNCATED)


def room_in(window: int | None, output: int) -> int | None:
    """What is left of a window beside the room for an answer; all of it if the two do not fit together."""
    return window if window is None or output >= window else window - output


def _spec(tool: Any) -> ToolSpec:
    if isinstance(tool, ToolSpec):
        return tool
    actor = getattr(tool, "actor", tool)
    if isinstance(actor, BaseActor):
        return spec_of(actor)
    raise InputError(f"{tool!r} is not a tool: give a function with @tool above it, a Tool or a ToolSpec")


def _line(text: str) -> str:
    return "; ".join(text.splitlines())
