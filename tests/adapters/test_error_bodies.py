"""What servers say when they refuse a request: recorded bodies, what is understood of them, and when to ask again.

The bodies have the shapes that the providers document or that their users report, in their words where these matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("openai")

from rh_agents.core.errors import (
    AccessDenied,
    ContextTooLong,
    InvalidRequest,
    ModelError,
    ModelLoading,
    ModelOverloaded,
    ModelRefused,
    ModelTimeout,
    QuotaExhausted,
    RateLimited,
    RequestTooLarge,
)
from rh_agents.llms import OpenAIChat
from rh_agents.llms._client_errors import LOADING, error_of_body, error_of_status
from rh_agents.llms._waits import hint_in, wait_asked_for

NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)


def oai(message: str, kind: str | None = "invalid_request_error", code: Any = None) -> dict[str, Any]:
    """An error as OpenAI reports it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def gemini(code: int, status: str, message: str, *details: dict[str, Any]) -> list[dict[str, Any]]:
    """An error as Gemini reports it at its OpenAI endpoint."""
    return [{"error": {"code": code, "message": message, "status": status, "details": list(details)}}]


BODIES: dict[str, tuple[int, Any, type[ModelError], str]] = {
    "OpenAI, context": (
        400,
        oai("This model's maximum context length is 128000 tokens.", code="context_length_exceeded"),
        ContextTooLong,
        "This model's maximum context length is 128000 tokens.",
    ),
    "OpenAI, too large for its limit": (
        429,
        oai("Request too large for gpt-4o on tokens per min (TPM): Limit 30000.", "tokens", "rate_limit_exceeded"),
        RequestTooLarge,
        "Request too large for gpt-4o",
    ),
    "OpenAI, quota": (
        429,
        oai("You exceeded your current quota.", "insufficient_quota", "insufficient_quota"),
        QuotaExhausted,
        "You exceeded your current quota.",
    ),
    "OpenAI, limit": (
        429,
        oai("Rate limit reached for gpt-4o on requests per min.", "requests", "rate_limit_exceeded"),
        RateLimited,
        "Rate limit reached",
    ),
    "OpenAI, engine": (429, oai("The engine is currently overloaded", "server_error"), ModelOverloaded, "overloaded"),
    "OpenAI, key": (401, oai("Incorrect API key provided: x.", code="invalid_api_key"), AccessDenied, "Incorrect API"),
    "OpenAI, policy": (
        400,
        oai("Invalid prompt: it was flagged as potentially violating our usage policy.", code="invalid_prompt"),
        ModelRefused,
        "flagged",
    ),
    "vLLM, old": (
        400,
        {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
        ContextTooLong,
        "maximum context length",
    ),
    "vLLM, nothing left": (
        400,
        oai("max_tokens must be at least 1, got -186.", "BadRequestError", 400),
        ContextTooLong,
        "got -186",
    ),
    "vLLM, no such path": (404, {"detail": "Not Found"}, InvalidRequest, "404: Not Found"),
    "vLLM, a field": (
        422,
        {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted", "type": "extra"}]},
        InvalidRequest,
        "body.stream_options: Extra inputs are not permitted",
    ),
    "llama.cpp, context": (
        400,
        {"error": {"code": 400, "message": "the request exceeds it", "type": "exceed_context_size_error"}},
        ContextTooLong,
        "exceeds it",
    ),
    "llama.cpp, context in a 500": (
        500,
        {"error": {"code": 500, "message": "context size exceeded", "type": "server_error"}},
        ContextTooLong,
        "context size exceeded",
    ),
    "llama.cpp, loading": (
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        ModelLoading,
        "Loading model",
    ),
    "llama.cpp, key": (
        401,
        {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
        AccessDenied,
        "Invalid API Key",
    ),
    "Ollama, no model": (
        404,
        oai('model "qwen9" not found, try pulling it first', "api_error"),
        InvalidRequest,
        "qwen9",
    ),
    "Ollama, busy": (
        503,
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        ModelOverloaded,
        "server busy, please try again. maximum pending requests exceeded",
    ),
    "Ollama, loading": (503, oai("llm server loading model", "api_error"), ModelLoading, "loading model"),
    "LM Studio, context": (
        400,
        {"error": "The number of tokens to keep from the initial prompt is greater than the context length."},
        ContextTooLong,
        "tokens to keep",
    ),
    "LM Studio, crash": (500, {"error": "The model has crashed. (Exit code: 1)"}, ModelOverloaded, "crashed"),
    "LiteLLM, context": (400, oai("litellm.ContextWindowExceededError: no", None, "400"), ContextTooLong, "litellm"),
    "LiteLLM, policy": (
        400,
        oai("litellm.BadRequestError: litellm.ContentPolicyViolationError: the content policy", None, "400"),
        ModelRefused,
        "content policy",
    ),
    "LiteLLM, budget": (
        400,
        oai("Budget has been exceeded! Current cost: 1.2, Max budget: 1.0", "budget_exceeded", "400"),
        QuotaExhausted,
        "Current cost: 1.2",
    ),
    "OpenRouter, moderation": (
        403,
        {
            "error": {
                "code": 403,
                "message": "Your chosen model requires moderation and your input was flagged",
                "metadata": {"reasons": ["violence"]},
            }
        },
        ModelRefused,
        "violence",
    ),
    "OpenRouter, credits": (402, oai("This request requires more credits", None, 402), QuotaExhausted, "credits"),
    "OpenRouter, another provider's words": (
        429,
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {"raw": '{"error": {"message": "tokens are used up for this minute"}}'},
            }
        },
        RateLimited,
        "429: tokens are used up for this minute",
    ),
    "OpenRouter, another provider's length": (
        400,
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {"raw": '{"detail": "prompt is too long: 210000 tokens > 200000 maximum"}'},
            }
        },
        ContextTooLong,
        "210000 tokens",
    ),
    "Mistral, context": (
        400,
        {
            "object": "error",
            "message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
            "type": "invalid_request_message_order",
            "code": "3051",
        },
        ContextTooLong,
        "40000 tokens",
    ),
    "Mistral, limit": (429, {"message": "Requests rate limit exceeded"}, RateLimited, "Requests rate limit exceeded"),
    "Mistral, a field": (
        422,
        {"object": "error", "message": {"detail": [{"loc": ["body", "n"], "msg": "must be 1", "type": "x"}]}},
        InvalidRequest,
        "body.n: must be 1",
    ),
    "Mistral, key": (401, {"message": "Unauthorized", "request_id": "1"}, AccessDenied, "Unauthorized"),
    "Groq, too large": (
        413,
        oai("Request too large for model `m` on tokens per minute (TPM): Limit 6000", "tokens", "rate_limit_exceeded"),
        RequestTooLarge,
        "Limit 6000",
    ),
    "Groq, context": (
        400,
        oai("Please reduce the length of the messages or completion.", code="context_length_exceeded"),
        ContextTooLong,
        "reduce the length",
    ),
    "Groq, capacity": (498, oai("capacity exceeded", "capacity_exceeded"), ModelOverloaded, "capacity exceeded"),
    "Gemini, context": (
        400,
        gemini(
            400, "INVALID_ARGUMENT", "The input token count (12) exceeds the maximum number of tokens allowed (10)."
        ),
        ContextTooLong,
        "The input token count (12)",
    ),
    "Gemini, key": (
        400,
        gemini(400, "INVALID_ARGUMENT", "API key not valid.", {"reason": "API_KEY_INVALID"}),
        AccessDenied,
        "API key not valid.",
    ),
    "Gemini, blocked": (400, gemini(400, "INVALID_ARGUMENT", "PROHIBITED_CONTENT"), ModelRefused, "PROHIBITED"),
    "Gemini, a limit that it calls a quota": (
        429,
        gemini(
            429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, check your billing.", {"retryDelay": "34s"}
        ),
        RateLimited,
        "You exceeded your current quota",
    ),
    "Gemini, overloaded": (
        503,
        gemini(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        ModelOverloaded,
        "The model is overloaded.",
    ),
    "Azure, filter": (
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering the content management policy.",
                "type": None,
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        ModelRefused,
        "The response was filtered",
    ),
    "Azure, key": (
        401,
        {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}},
        AccessDenied,
        "invalid subscription key",
    ),
    "Azure, no deployment": (
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
        InvalidRequest,
        "does not exist",
    ),
    "Anthropic, too long": (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 21 tokens > 20"}},
        ContextTooLong,
        "prompt is too long",
    ),
    "Anthropic, too large": (
        413,
        {"type": "error", "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}},
        RequestTooLarge,
        "maximum size",
    ),
    "Anthropic, credit": (
        400,
        {"error": {"code": "invalid_request_error", "message": "Your credit balance is too low to access the API."}},
        QuotaExhausted,
        "credit balance",
    ),
    "Anthropic, overloaded": (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ModelOverloaded,
        "Overloaded",
    ),
    "Anthropic, limit": (
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "Number of request tokens has exceeded your per-minute rate limit, input tokens exceed it",
            },
        },
        RateLimited,
        "per-minute",
    ),
    "Anthropic, key": (
        401,
        {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}},
        AccessDenied,
        "invalid x-api-key",
    ),
    "DeepSeek, balance": (
        402,
        oai("Insufficient Balance", "unknown_error", "invalid_request_error"),
        QuotaExhausted,
        "Insufficient Balance",
    ),
    "DeepSeek, key": (
        401,
        oai("Authentication Fails (no such user)", "authentication_error", "invalid_request_error"),
        AccessDenied,
        "Authentication Fails",
    ),
    "xAI, key": (
        400,
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: x."},
        AccessDenied,
        "Incorrect API key",
    ),
    "xAI, credits": (
        403,
        {"code": "The caller does not have permission", "error": "Your team doesn't have any credits yet: no credits"},
        QuotaExhausted,
        "credits",
    ),
    "xAI, context": (
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
        },
        ContextTooLong,
        "131072",
    ),
    "Hugging Face, loading": (
        503,
        {"error": "Model org/name is currently loading", "estimated_time": 20.0},
        ModelLoading,
        "currently loading",
    ),
    "a proxy's page": (
        502,
        "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
        ModelOverloaded,
        "502: 502 Bad Gateway",
    ),
    "a proxy that waited": (
        524,
        "<!DOCTYPE html><html><head><title>524: A timeout occurred</title></head></html>",
        ModelTimeout,
        "A timeout occurred",
    ),
    "a proxy that got no answer in time": (504, "upstream request timeout", ModelTimeout, "upstream request timeout"),
    "Anthropic, spend": (
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Not this month.",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
        },
        QuotaExhausted,
        "Not this month.",
    ),
    "a plain text": (404, "404 page not found", InvalidRequest, "404 page not found"),
    "nothing": (500, "", ModelOverloaded, "the server does not say why"),
    "a list of texts": (400, {"errors": ["a is wrong", "b is wrong"]}, InvalidRequest, "a is wrong; b is wrong"),
    "a request that speaks of limits": (
        400,
        oai("unknown field rate_limit; the server is busy with too many requests of this kind"),
        InvalidRequest,
        "unknown field rate_limit",
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_a_server_says_is_quoted_and_understood(name: str) -> None:
    status, body, kind, words = BODIES[name]
    error = error_of_status(status, body, "m")
    assert type(error) is kind
    assert words in str(error)
    assert error.status == status


def test_an_error_with_status_200_has_the_kind_that_its_body_says() -> None:
    limited = error_of_body({"message": "Provider returned error", "code": 429, "metadata": {"raw": "slow down"}}, "m")
    assert (type(limited), limited.status, str(limited)) == (RateLimited, 429, "m: slow down")
    assert type(error_of_body({"message": "internal", "code": 500}, "m")) is ModelOverloaded
    assert type(error_of_body("busy", "m")) is ModelOverloaded
    assert type(error_of_body({"message": "no such field", "type": "invalid_request_error"}, "m")) is InvalidRequest
    assert type(error_of_body({"message": "x", "status": "INVALID_ARGUMENT"}, "m")) is InvalidRequest
    assert type(error_of_body({"message": "Incorrect API key provided"}, "m")) is AccessDenied


@pytest.mark.parametrize(
    "body", [None, [], {}, 7, [[[[[[[[[[[["deep"]]]]]]]]]]]], {"error": None}, '{"error": ', b"\xff"]
)
def test_a_body_without_words_is_an_error_all_the_same(body: Any) -> None:
    assert type(error_of_status(500, body, "m")) is ModelOverloaded
    assert type(error_of_status(418, body, "m")) is InvalidRequest


def test_a_body_of_any_depth_or_size_is_read_in_no_time() -> None:
    deep: Any = "end"
    for _ in range(500):
        deep = {"error": [deep] * 2}
    assert type(error_of_status(400, deep, "m")) is InvalidRequest
    assert len(str(error_of_status(400, {"message": "x" * 1_000_000}, "m"))) < 500


@pytest.mark.parametrize("body", ["model " * 500_000, "<html>" + "<" * 500_000, {"message": "prompt " * 500_000}])
def test_a_prompt_that_stands_in_an_error_does_not_hold_up_the_program(body: Any) -> None:
    began = time.thread_time()
    assert type(error_of_status(400, body, "m")) is InvalidRequest
    assert time.thread_time() - began < 1.0  # some 20 ms; it was many seconds


def test_no_more_than_the_beginning_of_an_error_is_read() -> None:
    sent = 0

    async def main() -> ModelError:
        async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 500 No\r\ncontent-type: text/plain\r\n\r\nout of order")
            with contextlib.suppress(ConnectionError):
                while sent < 2**26:
                    writer.write(b" " * 2**16)
                    await writer.drain()
                    sent += 2**16
            writer.close()

        server = await asyncio.start_server(endless, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server, OpenAIChat("m", base_url=url, api_key="k", retry=None) as model:
            with pytest.raises(ModelOverloaded) as raised:
                await model("Hello?")
            return raised.value

    assert str(asyncio.run(asyncio.wait_for(main(), 60))) == "m: 500: out of order"
    assert sent < 2**25


EPOCH = NOW.timestamp()
WAITS: dict[str, tuple[dict[str, str], Any, float | None]] = {
    "seconds": ({"retry-after": "3"}, None, 3.0),
    "milliseconds": ({"retry-after-ms": "1500", "retry-after": "2"}, None, 1.5),
    "a duration": ({"retry-after": "1m2s"}, None, 62.0),
    "in words, in three units": ({}, {"error": {"message": "Please try again in 0h2m3.5s."}}, 123.5),
    "a date": ({"retry-after": "Sat, 28 Nov 2026 12:00:20 GMT"}, None, 20.0),
    "spent requests": (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "2.5s",
            "x-ratelimit-remaining-tokens": "900",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        None,
        2.5,
    ),
    "a reset in seconds": ({"x-ratelimit-reset": "7"}, None, 7.0),
    "a reset as a moment": ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{EPOCH + 9:.0f}"}, None, 9.0),
    "a reset as a moment in milliseconds": ({"x-ratelimit-reset": f"{(EPOCH + 4) * 1000:.0f}"}, None, 4.0),
    "a reset in milliseconds": ({"x-ratelimit-reset": "45000"}, None, 45.0),
    "a reset as a duration": ({"x-ratelimit-reset": "1m2.5s"}, None, 62.5),
    "a reset as a date": (
        {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2026-11-28T12:00:30Z"},
        None,
        30.0,
    ),
    "the standard that is being made": ({"ratelimit-remaining": "0", "ratelimit-reset": "12"}, None, 12.0),
    "RetryInfo": (
        {},
        gemini(429, "RESOURCE_EXHAUSTED", "no", {"retryDelay": "34.07s"}),
        34.07,
    ),
    "RetryInfo as an object": ({}, gemini(429, "X", "no", {"retryDelay": {"seconds": "5", "nanos": 5e8}}), 5.5),
    "another provider's headers": (
        {},
        {"error": {"metadata": {"headers": {"X-RateLimit-Reset": f"{(EPOCH + 8) * 1000:.0f}"}}}},
        8.0,
    ),
    "another provider's body": ({}, {"error": {"metadata": {"raw": '{"retry_after": 6}'}}}, 6.0),
    "a model's loading": ({}, {"error": "Model x is currently loading", "estimated_time": 20.0}, 20.0),
    "in words": ({}, oai("Rate limit reached. Please try again in 3s. Visit us."), 3.0),
    "in words, minutes": ({}, oai("Limit 100000, Used 99000. Please try again in 1m2.5s. Need more?"), 62.5),
    "in words, milliseconds": ({}, oai("Please try again in 820ms."), 0.82),
    "in words, written out": ({}, oai("Please retry after 20 seconds."), 20.0),
    "in words, Gemini": ({}, gemini(429, "RESOURCE_EXHAUSTED", "Please retry in 34.5s."), 34.5),
    "in words, minutes written out": ({}, {"detail": "Too many. Wait 2 minutes"}, 120.0),
    "no number": ({}, oai("Please try again later. In 3 seconds nothing happens."), None),
    "what is not spent": ({"x-ratelimit-remaining-tokens": "50", "x-ratelimit-reset-tokens": "9s"}, None, None),
    "longer than is sensible": ({}, oai("Please try again in 26h."), None),
    "nothing": ({}, None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", WAITS)
def test_how_long_to_wait_is_found_wherever_it_stands(name: str) -> None:
    headers, body, seconds = WAITS[name]
    assert wait_asked_for(headers, body, NOW) == (None if seconds is None else pytest.approx(seconds, abs=1e-3))


def test_headers_of_every_family_tell_what_is_left() -> None:
    hint = hint_in(
        {
            "anthropic-ratelimit-input-tokens-remaining": "100",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-28T12:00:30Z",
            "x-ratelimit-remaining": "3",
            "x-ratelimit-reset": f"{EPOCH + 5:.0f}",
        },
        NOW,
    )
    assert hint is not None
    assert hint.remaining == {"input_tokens": 100.0, "requests": 3.0}
    assert hint.resets_in == {"input_tokens": 30.0, "requests": 5.0}


def test_a_server_that_loads_its_model_is_asked_again_soon() -> None:
    assert error_of_status(503, {"error": {"message": "Loading model"}}, "m").retry_after == LOADING
    assert error_of_status(503, {"error": "x is currently loading", "estimated_time": 9}, "m").retry_after == 9.0
