"""Durable LangChain models, tools and runnables, and so LangGraph agents that are built of them.

    from langgraph.prebuilt import create_react_agent
    from rh_agents.integrations.langchain import durable

    agent = create_react_agent(durable(model), [durable(search)])

    async def research(question: str) -> str:
        return (await agent.ainvoke({"messages": [("user", question)]}))["messages"][-1].content

    await run(research, "…", store="runs.db", run_id="r")

Only the asynchronous methods (`ainvoke`, `astream`, …) are recorded: calls of ours cannot be made from other threads.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from rh_agents.core._loops.beside import beside_if_large
from rh_agents.core.chat.messages import ChatDelta
from rh_agents.core.context import report_usage
from rh_agents.core.usage import Listing, Price, Usage
from rh_agents.integrations._steps import NOTHING_KNOWN, Step, model_actor, plain, tool_actor, warn_not_recorded
from rh_agents.integrations._streams import REPLAYED, Pieces, streamed, warn_not_streamed

try:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import (
        AIMessageChunk,
        BaseMessage,
        message_chunk_to_message,
        message_to_dict,
        messages_from_dict,
    )
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable, RunnableBinding, RunnableParallel, RunnableSequence
    from langchain_core.tools import BaseTool
    from pydantic import PrivateAttr
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"durable LangChain runnables need the package {_error.name}: pip install 'rh_agents[langchain]'",
        name=_error.name,
    ) from _error

__all__ = ["durable"]

RunnableT = TypeVar("RunnableT", bound="Runnable[Any, Any]")
_stops: ContextVar[list[BaseException] | None] = ContextVar("rh_agents_langchain_stops", default=None)
_VOLATILE = frozenset({"id", "run_id", "response_metadata", "usage_metadata"})


def durable(runnable: RunnableT, *, price: Price | None = None, max_output: int | None = None) -> RunnableT:
    """The same with recorded steps: a chat model, a tool, or a chain (`prompt | model | parser`) of such things.

    A stream gives its chunks as they come, and is recorded as one step; replayed, it is one chunk with
    `rh_agents_replayed` in its `response_metadata`.

    What cannot be seen through, such as a graph that is compiled already, is given back as it is with a
    `NotRecordedWarning`: build it of durable models and tools instead.

    `price` is what its models cost, for budgets of money, and `max_output` the most tokens that they can write, which
    budgets reserve where no settings bound an answer; by default what the library's tables say of their names.
    """
    return _durable(runnable, Listing(price, max_output))  # type: ignore[no-any-return]


def _durable(runnable: Any, known: Listing) -> Any:
    if isinstance(runnable, _DurableChatModel | _DurableTool):
        return runnable
    if isinstance(runnable, BaseChatModel):
        return _DurableChatModel(inner=runnable, known=known)
    if isinstance(runnable, BaseTool):
        return _DurableTool(
            inner=runnable,
            name=runnable.name,
            description=runnable.description,
            args_schema=runnable.args_schema,
            return_direct=runnable.return_direct,
            response_format=runnable.response_format,
        )
    if isinstance(runnable, RunnableSequence):
        return RunnableSequence(*[_durable(step, known) for step in runnable.steps], name=runnable.name)
    if isinstance(runnable, RunnableParallel):
        return RunnableParallel({name: _durable(step, known) for name, step in runnable.steps__.items()})
    if isinstance(runnable, RunnableBinding):
        return runnable.model_copy(update={"bound": _durable(runnable.bound, known)})
    if _may_ask_models(runnable):
        warn_not_recorded(
            f"what {type(runnable).__name__} {getattr(runnable, 'name', None) or ''} does".replace("  ", " "),
            "build it of durable(model) and durable(tool)",
        )
    return runnable


def _may_ask_models(runnable: Any) -> bool:
    """Whether a runnable is more than a prompt or a parser, which only compute."""
    return not type(runnable).__module__.startswith(
        ("langchain_core.prompts", "langchain_core.output_parsers", "langchain_core.runnables.passthrough")
    )


class _DurableChatModel(BaseChatModel):
    """Each answer is a step, identified by the messages, what is bound to the model, and the name of the model."""

    inner: BaseChatModel
    known: Listing = NOTHING_KNOWN
    _actor: Any = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Name the steps after the model."""
        name = getattr(self.inner, "model_name", None) or getattr(self.inner, "model", None) or self.inner._llm_type
        self._actor = model_actor(str(name), self.known)

    @property
    def _llm_type(self) -> str:
        return self.inner._llm_type

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return dict(self.inner._identifying_params)

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        """As the model's own; what it binds is bound to the durable one."""
        bound: Any = self.inner.bind_tools(tools, **options)
        if isinstance(bound, RunnableBinding) and bound.bound is self.inner:
            return self.bind(**bound.kwargs)
        warn_not_recorded(f"the model of {type(self.inner).__name__}.bind_tools", "it wraps the model in its own way")
        return bound

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **given: Any) -> Any:
        warn_not_recorded("a question that is asked by a synchronous method", "use ainvoke, astream or abatch")
        return self.inner._generate(messages, stop=stop, **given)

    async def agenerate(self, *args: Any, **given: Any) -> Any:
        """As every chat model's. What stops a run is no `Exception`, so LangChain takes it for a result; kept here."""
        stops: list[BaseException] = []
        token = _stops.set(stops)
        try:
            return await super().agenerate(*args, **given)
        except AttributeError:
            if stops:
                raise stops[0] from None
            raise
        finally:
            with contextlib.suppress(ValueError):  # the context of a task that Python destroys is another one
                _stops.reset(token)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **given: Any
    ) -> ChatResult:
        ask = functools.partial(self._asked, messages, stop, given)
        with _stops_kept():
            found = await Step(self._actor, self._about(messages, stop, given), ask)
        return ChatResult(generations=[ChatGeneration(message=await _read(each)) for each in found])

    async def _asked(self, messages: list[BaseMessage], stop: Any, given: dict[str, Any]) -> Any:
        result = await self.inner._agenerate(messages, stop=stop, **given)
        for generation in result.generations:
            _report(generation.message)
        return [message_to_dict(generation.message) for generation in result.generations]

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **given: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        """The chunks as they come, in one step for the whole stream; replayed, it is one chunk."""

        async def produce(pieces: Pieces) -> Any:
            if not _can_stream(self.inner):
                warn_not_streamed(self._actor.name)
                return await self._asked(messages, stop, given)
            chunks: list[ChatGenerationChunk] = []
            try:
                async for chunk in self.inner._astream(messages, stop=stop, **given):
                    chunks.append(chunk.model_copy(update={"message": chunk.message.model_copy()}))
                    await pieces.give(chunk)
            finally:
                pieces.usage_so_far = _used(_joined(chunks)) if chunks else None
            if not chunks:
                raise RuntimeError("the stream of the model ended before it had begun")
            if pieces.usage_so_far is not None:
                pieces.count(pieces.usage_so_far)
            return [message_to_dict(_joined(chunks))]

        about = self._about(messages, stop, given)
        with _stops_kept():
            async with streamed(self._actor, about, produce, _published) as pieces:
                has_pieces = False
                async for chunk in pieces:
                    has_pieces = True
                    yield chunk
                if not has_pieces:
                    yield _whole(await _read(pieces.value[0]), is_replayed=pieces.is_replayed)

    def _about(self, messages: list[BaseMessage], stop: Any, given: dict[str, Any]) -> Any:
        return [
            plain([message_to_dict(each) for each in messages], _VOLATILE),
            stop,
            plain(given),
            plain(self._identifying_params),
        ]


class _DurableTool(BaseTool):
    """Each call is a step, identified by the tool, its arguments, and the id that the model gave the call."""

    inner: BaseTool

    async def ainvoke(self, input: Any, config: Any = None, **given: Any) -> Any:  # noqa: A002 - the framework's name
        """Call the tool, or find what it returned."""

        async def call() -> Any:
            found = await self.inner.ainvoke(input, config, **given)
            return {"message": message_to_dict(found)} if isinstance(found, BaseMessage) else {"value": found}

        found = await Step(tool_actor(self.name), plain(input), call)
        return await _read(found["message"]) if "message" in found else found["value"]

    def _run(self, *args: Any, **given: Any) -> Any:
        warn_not_recorded(f"a call of tool {self.name!r} by a synchronous method", "use ainvoke")
        return self.inner._run(*args, **given)


async def _read(data: Any) -> Any:
    return (await beside_if_large(data, messages_from_dict, [data]))[0]


@contextlib.contextmanager
def _stops_kept() -> Iterator[None]:
    """Remember what stops a run, for `agenerate`."""
    try:
        yield
    except (Exception, GeneratorExit):
        raise
    except BaseException as stop:
        stops = _stops.get()
        if stops is not None:
            stops.append(stop)
        raise


def _can_stream(model: BaseChatModel) -> bool:
    """Whether a model has a stream of its own, as LangChain itself finds out."""
    kind = type(model)
    if getattr(model, "disable_streaming", False) is True:
        return False
    return kind._astream is not BaseChatModel._astream or kind._stream is not BaseChatModel._stream


def _joined(chunks: list[ChatGenerationChunk]) -> BaseMessage:
    """The message that the chunks make."""
    first, *others = chunks
    whole = functools.reduce(lambda before, chunk: before + chunk, others, first).message
    return message_chunk_to_message(whole)


def _whole(message: BaseMessage, *, is_replayed: bool = False) -> ChatGenerationChunk:
    """A message as the only chunk of a stream."""
    metadata = {**message.response_metadata, REPLAYED: True} if is_replayed else message.response_metadata
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=message.content,
            id=message.id,
            additional_kwargs=message.additional_kwargs,
            response_metadata=metadata,
            usage_metadata=getattr(message, "usage_metadata", None),
            tool_calls=getattr(message, "tool_calls", []),
            chunk_position="last",
        )
    )


def _published(chunk: Any) -> ChatDelta | None:
    calls = getattr(chunk.message, "tool_call_chunks", None)
    if calls:
        first = calls[0]
        name, arguments = first.get("name") or "", first.get("args") or ""
        return ChatDelta(text=chunk.text, tool_index=first.get("index"), tool_name=name, arguments=arguments)
    return ChatDelta(text=chunk.text) if chunk.text else None


def _report(message: Any) -> None:
    used = _used(message)
    if used is not None:
        report_usage(used)


def _used(message: Any) -> Usage | None:
    used = getattr(message, "usage_metadata", None)
    if not used:
        return None
    cached = (used.get("input_token_details") or {}).get("cache_read", 0)
    return Usage(
        input_tokens=used.get("input_tokens", 0),
        output_tokens=used.get("output_tokens", 0),
        cached_tokens=cached or 0,
        requests=1,
    )
