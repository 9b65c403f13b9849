"""What models behind official clients have in common: keys, addresses, copies, logs, and answers of another form."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from rh_agents import ExecutionEvent, ExecutionState, ExecutionStatus, RateLimit
from rh_agents.core.chat import ChatDelta, ChatResponse
from rh_agents.core.errors import (
    AccessDenied,
    DefinitionError,
    IncompleteAnswer,
    InvalidRequest,
    ModelError,
    ModelOverloaded,
    UnreadableAnswer,
)
from rh_agents.core.redaction import redact
from tests.services import anthropic_server as anthropic_api
from tests.services.model_server import Exchange, ModelServer, Reply, answer, chunks, model_server, streamed

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")
pytest.importorskip("anthropic", reason="anthropic is not installed: pip install 'rh_agents[anthropic]'")

from rh_agents.llms import AnthropicChat, AzureChat, OpenAIChat

KINDS = pytest.mark.parametrize("kind", [OpenAIChat, AnthropicChat])
HELLO = anthropic_api.message(anthropic_api.text("Hello."))


def hello(exchange: Exchange) -> Reply:
    """The same answer in the protocol in which it is asked for."""
    return Reply(HELLO) if exchange.path.partition("?")[0].endswith("/messages") else answer("Hello.")


def hello_in_pieces(exchange: Exchange) -> Reply:
    """The same as a stream."""
    is_anthropic = exchange.path.endswith("/messages")
    return anthropic_api.stream(anthropic_api.events(HELLO)) if is_anthropic else streamed(chunks("Hello."))


def served(use: Callable[[ModelServer], Awaitable[Any]], answering: Any = hello) -> ModelServer:
    """A server that was used so."""

    async def main() -> ModelServer:
        async with model_server(answering) as server:
            await use(server)
            return server

    return asyncio.run(asyncio.wait_for(main(), 20))


def asked(kind: Any, api_key: Any = "k", path: str = "", **settings: Any) -> Exchange:
    """The request of one question."""

    async def use(server: ModelServer) -> None:
        assert await kind("m", server.base_url + path, api_key, retry=None, **settings).ask("Hi.") == "Hello."

    (exchange,) = served(use).exchanges
    return exchange


def failed(kind: Any, answering: Any, **settings: Any) -> tuple[ModelError, str]:
    """What a question fails with, and the URL that was asked."""
    found: list[Any] = []

    async def use(server: ModelServer) -> None:
        with pytest.raises(ModelError) as caught:
            await kind("m", server.base_url, "k", retry=None, **settings).ask("Hi.")
        found.extend((caught.value, server.base_url + ("/messages" if kind is AnthropicChat else "/chat/completions")))

    served(use, answering)
    return found[0], found[1]


# -- keys and headers -------------------------------------------------------------------------------------------------


@KINDS
def test_a_key_that_was_read_from_a_file_is_sent_without_its_line_end(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(kind, "key-1\n").headers["authorization"] == "Bearer key-1"
    assert asked(kind, SecretStr(" key-1 ")).headers["authorization"] == "Bearer key-1"
    assert asked(kind, headers={"x-team": "blue\r\n"}).headers["x-team"] == "blue"
    monkeypatch.setenv(kind.key_variable, "key-2\n")
    assert asked(kind, None).headers["authorization"] == "Bearer key-2"


@pytest.mark.parametrize(
    "settings",
    [{"api_key": "word-ä"}, {"api_key": "word-\n-more"}, {"headers": {"x": "word-ä"}}, {"headers": {"x y": "1"}}],
)
@KINDS
def test_what_no_header_can_have_is_refused_where_it_is_written_and_not_shown(
    kind: Any, settings: dict[str, Any]
) -> None:
    with pytest.raises(DefinitionError, match="no header can have") as caught:
        kind("m", **{"api_key": "k", **settings})
    assert "word-" not in str(caught.value)


def test_a_key_in_the_environment_that_cannot_be_sent_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "word-ä\n")
    with pytest.raises(DefinitionError, match="m: OPENAI_API_KEY has a line end or a character") as caught:
        asyncio.run(asyncio.wait_for(OpenAIChat("m", "http://127.0.0.1:9/v1").ask("Hi."), 20))
    assert "word-" not in str(caught.value)


def test_the_key_of_another_provider_is_looked_for_in_its_own_variable_and_not_sent_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def key_at(url: str, **settings: Any) -> str | None:
        async def main() -> str | None:
            sdk = await OpenAIChat("m", url, **settings).sdk()
            return str(sdk.api_key)

        return asyncio.run(main())

    groq, proxy = "https://api.groq.com/openai/v1", "https://proxy.example/v1"
    with pytest.raises(AccessDenied, match="set GROQ_API_KEY, or pass api_key="):
        key_at(groq)
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai")
    assert key_at(groq) == "of-openai"  # as the official client does
    monkeypatch.setenv("GROQ_API_KEY", "of-groq-123456\n")
    assert (key_at(groq), key_at(groq, api_key="given")) == ("of-groq-123456", "given")
    assert key_at(proxy, dialect="Groq") == key_at("https://api.openai.com/v1") == "of-openai"
    assert "of-groq" not in redact("it is of-groq-123456")


@KINDS
def test_an_empty_key_is_none(kind: Any) -> None:
    with pytest.raises(AccessDenied, match=r"key.*pass api_key="):
        asyncio.run(asyncio.wait_for(kind("m", "http://127.0.0.1:9/v1", "").ask("Hi."), 20))


def test_a_token_that_cannot_be_sent_is_no_attempt_and_is_not_shown() -> None:
    found: list[InvalidRequest] = []

    async def use(server: ModelServer) -> None:
        with pytest.raises(InvalidRequest, match="has a header that cannot be sent") as caught:
            await AzureChat("m", server.base_url, token=lambda: "word-\n", api_version="1", retry=3).ask("Hi.")
        found.append(caught.value)

    assert served(use).exchanges == []
    assert (found[0].usage, found[0].__cause__) == (None, None)
    assert "word-" not in str(found[0])


# -- addresses --------------------------------------------------------------------------------------------------------


@KINDS
def test_the_query_of_an_address_is_sent_with_each_request(kind: Any) -> None:
    path = "/v1/messages" if kind is AnthropicChat else "/v1/chat/completions"
    assert asked(kind, path="?team=blue&empty=#part").path == f"{path}?team=blue&empty="


def test_the_messages_api_is_found_with_its_version_in_the_address_and_without() -> None:
    def use(end: str) -> Callable[[ModelServer], Awaitable[Any]]:
        return lambda server: AnthropicChat("m", server.base_url.removesuffix("/v1") + end, "k").ask("Hi.")

    for end in ("", "/", "/v1", "/v1/"):
        assert [each.path for each in served(use(end)).exchanges] == ["/v1/messages"]


@pytest.mark.parametrize(
    ("make", "added"),
    [
        (lambda: OpenAIChat("m", "https://h/v1/chat/completions", "k"), "/chat/completions"),
        (lambda: AnthropicChat("m", "https://h/v1/messages/", "k"), "/messages"),
        (lambda: AzureChat("m", "https://h/openai/deployments/m/chat/completions?api-version=1", "k"), "/openai"),
        (lambda: AzureChat("m", "https://h/openai/v1/", "k"), "one for OpenAIChat"),
    ],
)
def test_an_address_with_more_than_belongs_there_is_refused_where_it_is_written(
    make: Callable[[], Any], added: str
) -> None:
    with pytest.raises(DefinitionError, match=added):
        make()


def test_who_has_left_out_the_version_is_reminded_of_it() -> None:
    def not_found(exchange: Exchange) -> Reply:
        return Reply("404 page not found", 404, kind="text/plain")

    async def use(server: ModelServer) -> None:
        with pytest.raises(InvalidRequest, match=r"the server \(base_url=\), which mostly ends in /v1\)$"):
            await OpenAIChat("m", server.base_url.removesuffix("/v1"), "k").ask("Hi.")

    served(use, not_found)


@KINDS
def test_what_is_logged_of_requests_has_no_credentials(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def use(server: ModelServer) -> None:
        url = server.base_url.replace("://", "://me:pw-1@") + "?api_key=pw-2"
        headers = {"x-api-token": "pw-3-0123456789"}
        await kind("m", url, "pw-4-0123456789", headers=headers).ask("Hi.")

    with caplog.at_level(logging.DEBUG):
        served(use)
    logged = [record.getMessage() for record in caplog.records]
    assert any("HTTP Request: POST http://me" in line for line in logged)
    assert not [line for line in logged if "pw-" in line]


# -- copies -----------------------------------------------------------------------------------------------------------


@KINDS
def test_a_copy_of_a_model_asks_where_it_says_with_its_own_key_and_settings(kind: Any) -> None:
    async def use(server: ModelServer) -> None:
        first = kind("m", server.base_url, "key-1", limits=RateLimit(requests=50))
        await first.ask("Hi.")
        second = first.model_copy(
            update={"api_key": SecretStr("key-2"), "base_url": server.base_url[:-3] + "/2/v1", "temperature": 1.0}
        )
        assert second.pause is not first.pause
        await second.ask("Hi.")
        async with ExecutionState() as state:
            await ExecutionEvent(actor=second)("Hi.", None, state)
        for same in (copy.copy(first), copy.deepcopy(first), first.model_copy(deep=True)):
            await same.ask("Hi.")
            assert same.limits[0] is first.limits[0]  # one limit for all of them

    found = [(each.headers["authorization"], each.body.get("temperature")) for each in served(use).exchanges]
    assert found == [("Bearer key-1", None), *[("Bearer key-2", 1.0)] * 2, *[("Bearer key-1", None)] * 3]


# -- answers of another form ------------------------------------------------------------------------------------------


def told(kind: Any, answering: Any, **settings: Any) -> tuple[Any, Sequence[ChatDelta], int]:
    """An answer, its pieces, and how many requests there were."""
    pieces: list[ChatDelta] = []

    async def show(event: ExecutionEvent[Any]) -> None:
        if event.execution_status is ExecutionStatus.PROGRESS and isinstance(event.progress, ChatDelta):
            pieces.append(event.progress)

    found: list[ChatResponse] = []

    async def use(server: ModelServer) -> None:
        async with ExecutionState() as state:
            state.event_bus.subscribe(show)
            found.append(await kind("m", server.base_url, "k", **settings)("Hi."))

    server = served(use, answering)
    return found[0], pieces, len(server.exchanges)


@pytest.mark.parametrize("blanks", [b"", b"\r\n ", b"\xef\xbb\xbf"])
@KINDS
def test_a_whole_answer_in_place_of_a_stream_is_one_piece(kind: Any, blanks: bytes) -> None:
    def answering(exchange: Exchange) -> Reply:
        return Reply(blanks + hello(exchange).data, kind="text/event-stream")

    found, pieces, requests = told(kind, answering, stream=True)
    assert (found.text, pieces, requests) == ("Hello.", [ChatDelta(text="Hello.")], 1)
    assert (found.usage.input_tokens, found.usage.output_tokens) == (10, 5)


@KINDS
def test_a_stream_in_place_of_a_whole_answer_is_put_together(kind: Any) -> None:
    found, pieces, requests = told(kind, hello_in_pieces)
    assert (found.text, pieces, requests) == ("Hello.", [], 1)
    assert (found.usage.input_tokens, found.usage.output_tokens) == (10, 5)


@pytest.mark.parametrize("is_streamed", [False, True])
@KINDS
def test_answers_one_after_the_other_use_one_connection(kind: Any, is_streamed: bool) -> None:
    async def use(server: ModelServer) -> None:
        model = kind("m", server.base_url, "k", stream=is_streamed)
        assert [await model.ask("Hi.") for _ in range(3)] == ["Hello."] * 3

    assert served(use, hello_in_pieces if is_streamed else hello).accepted == 1


@KINDS
def test_a_stream_whose_body_does_not_end_with_it_is_an_answer_all_the_same(kind: Any) -> None:
    def stays_open(exchange: Exchange) -> Reply:
        return replace(hello_in_pieces(exchange), length=10_000)

    def is_torn_down(exchange: Exchange) -> Reply:
        return replace(stays_open(exchange), cut_at=9_000)

    for answering in (stays_open, is_torn_down):
        found, _, requests = told(kind, answering, stream=True)
        assert (found.text, requests) == ("Hello.", 1)


@KINDS
def test_an_error_in_place_of_a_stream_is_what_it_says(kind: Any) -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Too busy."}}
    error, _ = failed(kind, Reply(body), stream=True)
    assert (type(error), str(error), error.usage) == (ModelOverloaded, "m: Too busy.", None)


@pytest.mark.parametrize("is_streamed", [False, True])
@KINDS
def test_what_cannot_be_read_is_told_with_its_beginning_and_where_it_came_from(kind: Any, is_streamed: bool) -> None:
    error, url = failed(kind, Reply("<html>Log in first</html>", kind="text/html"), stream=is_streamed)
    assert type(error) is IncompleteAnswer
    assert str(error).endswith(f"it begins with '<html>Log in first</html>' (asked {url})")
    error, url = failed(kind, Reply({"said": "yes"}), stream=is_streamed)
    assert type(error) is UnreadableAnswer
    assert str(error).startswith("m: ")
    assert str(error).endswith(f"(asked {url})")


@pytest.mark.parametrize("name", ["x-request-id", "request-id"])
def test_a_failure_within_an_answer_says_how_the_provider_finds_the_request(name: str) -> None:
    kind = OpenAIChat if name == "x-request-id" else AnthropicChat
    for is_streamed in (False, True):
        error, _ = failed(kind, Reply("{", headers={name: "req-7"}), stream=is_streamed)
        assert error.request_id == "req-7"
        assert error.usage is not None
        assert error.usage.estimates == 1
