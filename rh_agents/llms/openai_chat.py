"""Models behind any endpoint that speaks the chat protocol of OpenAI, through the official client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Unpack

from pydantic import SecretStr

from rh_agents.core._base.signatures import takes_settings
from rh_agents.core.chat.messages import ChatRequest, ChatResponse
from rh_agents.core.chat.model import OnDelta
from rh_agents.core.context import trace_headers
from rh_agents.core.errors import ModelError
from rh_agents.core.redaction import Secret
from rh_agents.core.usage import Usage

try:
    import openai
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"OpenAIChat needs the package {_error.name}: pip install 'rh_agents[openai]'", name=_error.name
    ) from _error

from rh_agents.llms._client_errors import ClientErrors, error_of_body
from rh_agents.llms._clients import ClientModel
from rh_agents.llms._http import http_client
from rh_agents.llms._openai_answer import AnswerInPieces, read_answer
from rh_agents.llms._openai_errors import CLIENT_ERRORS
from rh_agents.llms._openai_request import request_body
from rh_agents.llms._openai_usage import usage_in
from rh_agents.llms._outputs import max_output_of
from rh_agents.llms._providers import CHAT, WireProtocol
from rh_agents.llms._server_json import read_json
from rh_agents.llms._settings import OpenAISettings
from rh_agents.llms._sse import ServerEvent, server_events
from rh_agents.llms.openai_batch import OpenAIBatchApi

__all__ = ["OpenAIChat"]

_END = b"[DONE]"
_AFTER_THE_END = 0.5
"""Seconds. Some servers say what was used after the end event, and some keep the connection open without a word."""


class OpenAIChat(ClientModel):
    """A model behind an endpoint of OpenAI, or of any other server that speaks its chat protocol.

        model = OpenAIChat("gpt-4.1-mini")
        local = OpenAIChat("qwen3", base_url="http://127.0.0.1:8000/v1", api_key="none")

    Args:
        model: its name there.
        base_url: where; by default what the environment variable OPENAI_BASE_URL says, or else OpenAI.
        api_key: by default what the variable of the provider at the address says (such as GROQ_API_KEY; the table in
            docs/how-to/models.md has them all), or else OPENAI_API_KEY.
        settings: fields of `ChatModel`, such as `temperature=0`, `limits=RateLimit(requests=500)` or `stream=True`, and
            those below. None of them are part of the identity of calls, but for what is sent with each request, and
            for the server: `endpoint="my vLLM"`, or else the URL (scheme, host, port, path; nothing for OpenAI's own).

    Calls raise `ModelError`s by kind. Their `timeout` is for a whole attempt, `idle_timeout` for the time in which
    nothing comes. The client's own retries are off: `retry` is the only layer.
    """

    strict: bool = False
    """Whether the provider is asked to hold answers to the schema, in a form of it in which every field is required."""
    length_field: str | None = None
    """What the server calls `max_tokens`; by default what its provider does: OpenAI says `max_completion_tokens`."""
    assistant_after_tools: bool | None = None
    """Whether the server refuses a message of the user that follows one of a tool, as those with models of Mistral do;
    the images of a tool's result come in such a message. By default what its provider does."""

    has_batches: ClassVar[bool] = True
    """Whether its requests can go through the Batch API of OpenAI."""

    protocol: ClassVar[WireProtocol] = CHAT
    client_errors: ClassVar[ClientErrors] = CLIENT_ERRORS
    key_variable: ClassVar[str] = "OPENAI_API_KEY"
    key_advice: ClassVar[str] = "set OPENAI_API_KEY, or pass api_key= (a server of your own mostly takes any)"

    @takes_settings(OpenAISettings)
    def __init__(  # written out for type checkers, which take the fields of a class for its arguments otherwise
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | SecretStr | Secret | None = None,
        **settings: Unpack[OpenAISettings],
    ) -> None:
        super().__init__(model, base_url, api_key, **settings)

    @property
    def known_max_output(self) -> int | None:
        """The given one, or that of the table."""
        return self.max_output or max_output_of(self.model)

    @property
    def length_name(self) -> str:
        """What the server calls the greatest number of tokens."""
        return self.length_field or self.provider.length_field

    @property
    def says_something_after_tools(self) -> bool:
        """Whether a message of the assistant is put between one of a tool and one of the user."""
        given = self.assistant_after_tools
        return self.provider.assistant_after_tools if given is None else given

    def batch_api(self) -> OpenAIBatchApi | None:
        """The server's batches, for `in_batches`; None if it has none."""
        if not self.has_batches:
            return None
        return OpenAIBatchApi(self)

    def body(self, request: ChatRequest, *, stream: bool = False) -> dict[str, Any]:
        """The fields of a request, in the dialect of the provider."""
        return request_body(
            request,
            self.provider,
            length_field=self.length_name,
            stream=stream,
            assistant_after_tools=self.says_something_after_tools,
            mode=self.output_mode,
            strict=self.strict,
        )

    def read(self, request: ChatRequest, data: Mapping[str, Any]) -> ChatResponse:
        """What a whole answer to a request says.

        Raises:
            ModelError: by kind; with what it used, as far as it says so.
        """
        response = read_answer(data, self.name, self.provider, self.finish_reasons)
        return self._answer_tool(request).read(response)

    def _send(
        self, client: openai.AsyncOpenAI, request: ChatRequest, body: dict[str, Any]
    ) -> AbstractAsyncContextManager[Any]:
        return client.chat.completions.with_streaming_response.create(
            model=request.model, messages=[], extra_body=body, extra_headers=trace_headers()
        )

    def _usage_in(self, answer: Mapping[str, Any]) -> Usage | None:
        return usage_in(answer)

    async def _read_stream(self, request: ChatRequest, pieces: AsyncIterator[bytes], on_delta: OnDelta) -> ChatResponse:
        """Put the answer together. It is whole when the server has said so: both why it ended, and that it ended."""
        answer = AnswerInPieces(self.name, self.provider, self.finish_reasons)
        tool = self._answer_tool(request)
        events = server_events(pieces)
        with self._counted(lambda: self._used(request, answer)):
            async for kind, data in events:
                if data.strip() == _END:
                    if answer.usage is None:
                        await _hear_out(events, answer)
                    return tool.read(answer.whole())
                piece = read_json(data)
                if kind == "error" and not piece.get("error"):
                    raise error_of_body(piece, self.name)
                for delta in answer.add(piece):
                    await on_delta(tool.delta(delta))
            raise answer.broke_off()

    def _used(self, request: ChatRequest, answer: AnswerInPieces) -> Usage | None:
        """What a stream used that broke off: as it says, or what was reserved if someone had begun to answer."""
        if answer.usage is None and answer.has_begun:
            return self.unanswered(request)
        return answer.usage

    def _new_client(self, url: str | None, **common: Any) -> openai.AsyncOpenAI:
        client = http_client(openai.DefaultAsyncHttpxClient, common["timeout"])
        return openai.AsyncOpenAI(base_url=url, http_client=client, **common)


async def _hear_out(events: AsyncIterator[ServerEvent], answer: AnswerInPieces) -> None:
    """Look at what comes after the end of an answer for its usage. Nothing that goes wrong there is wrong with it."""
    with contextlib.suppress(TimeoutError, ModelError, *CLIENT_ERRORS.caught):
        async with asyncio.timeout(_AFTER_THE_END):
            async for _, data in events:
                answer.add_usage(read_json(data))
