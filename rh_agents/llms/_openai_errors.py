"""What the `openai` client raises, as errors of ours; and what the headers of an answer say about limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai

from rh_agents.core.errors import (
    AccessDenied,
    AnswerTruncated,
    ContextTooLong,
    IncompleteAnswer,
    InvalidRequest,
    ModelError,
    ModelOverloaded,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
    QuotaExhausted,
    RateLimited,
)
from rh_agents.core.policies.limits import Advice

__all__ = [
    "ERRORS",
    "NEVER_RAISED",
    "TRANSPORT_ERRORS",
    "advice_in",
    "error_of",
    "error_of_body",
    "error_of_status",
    "seconds_to_wait",
]

LONGEST_WAIT = 3600.0
"""Seconds. A server that wants more than that is not believed: backoff decides then."""

# The first that fits counts, so special kinds come before general ones. None: the status and the code decide.
ERRORS: dict[type[Exception], type[ModelError] | None] = {
    openai.APITimeoutError: ModelTimeout,
    openai.APIConnectionError: ModelUnreachable,
    openai.APIResponseValidationError: IncompleteAnswer,
    openai.OAuthError: AccessDenied,
    openai.AuthenticationError: AccessDenied,
    openai.PermissionDeniedError: AccessDenied,
    openai.BadRequestError: None,
    openai.NotFoundError: None,
    openai.UnprocessableEntityError: None,
    openai.ConflictError: ModelOverloaded,
    openai.RateLimitError: None,
    openai.InternalServerError: None,
    openai.APIStatusError: None,
    openai.LengthFinishReasonError: AnswerTruncated,
    openai.ContentFilterFinishReasonError: ModelRefused,
    openai.APIError: ModelOverloaded,
    openai.OpenAIError: AccessDenied,
}
"""What each error of the client is here. `OpenAIError` itself is raised when no key was given."""

NEVER_RAISED = frozenset(
    {
        "InvalidWebhookSignatureError",
        "WebSocketConnectionClosedError",
        "WebSocketQueueFullError",
        "_AmbiguousModuleClientUsageError",
    }
)
"""Errors of parts of the client that are not used here."""

TRANSPORT_ERRORS: dict[type[Exception], type[ModelError]] = {
    httpx2.TimeoutException: ModelTimeout,
    httpx2.DecodingError: IncompleteAnswer,
    httpx2.RequestError: ModelUnreachable,
    httpx2.StreamError: ModelUnreachable,
}
"""What goes wrong while an answer is being read, which the client leaves to its HTTP library."""

_CODES: dict[str, type[ModelError]] = {
    "context_length_exceeded": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,
    "string_above_max_length": ContextTooLong,
    "insufficient_quota": QuotaExhausted,
    "billing_hard_limit_reached": QuotaExhausted,
    "content_filter": ModelRefused,
    "content_policy_violation": ModelRefused,
    "rate_limit_exceeded": RateLimited,
    "invalid_api_key": AccessDenied,
    "server_error": ModelOverloaded,
    "overloaded_error": ModelOverloaded,
}
_STATUSES: dict[int, type[ModelError]] = {
    401: AccessDenied,
    402: QuotaExhausted,
    403: AccessDenied,
    408: ModelTimeout,
    409: ModelOverloaded,
    413: ContextTooLong,
    425: ModelOverloaded,
    429: RateLimited,
}
_SHOWN = 300
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def error_of(error: Exception, name: str, now: datetime | None = None) -> ModelError:
    """The error of ours that an error of the client, or of its HTTP library, stands for. `name` is the model's."""
    if isinstance(error.__cause__, ModelError):  # somebody on the way knows better: a test that allows no requests
        return error.__cause__
    kind = next((mine for theirs, mine in ERRORS.items() if isinstance(error, theirs)), None)
    if isinstance(error, openai.APIStatusError):
        code = _code(error.body)
        kind = kind or _CODES.get(code or "") or _of_status(error.status_code)
        return kind(
            f"{name}: {error.status_code}: {_said(error.body) or _line(error.message)}",
            status=error.status_code,
            code=code,
            request_id=error.request_id,
            retry_after=seconds_to_wait(error.response.headers, now),
        )
    if kind is None:
        kind = next((mine for theirs, mine in TRANSPORT_ERRORS.items() if isinstance(error, theirs)), ModelUnreachable)
    cause = error.__cause__
    because = f" ({type(cause).__name__}: {_line(str(cause))})" if cause is not None and str(cause) else ""
    return kind(f"{name}: {_line(str(error)) or type(error).__name__}{because}")


def error_of_status(status: int, body: Any, name: str) -> ModelError:
    """The error that a status and an error object stand for."""
    code = _code(body)
    kind = _CODES.get(code or "") or _of_status(status)
    return kind(f"{name}: {status}: {_said(body) or 'the server does not say why'}", status=status, code=code)


def error_of_body(body: Any, name: str) -> ModelError:
    """The error that a server reports in the middle of a stream."""
    code = _code(body)
    status = body.get("code") if isinstance(body, dict) else None
    number = status if isinstance(status, int) else None
    kind = _CODES.get(code or "") or (ModelOverloaded if number is None else _of_status(number))
    return kind(f"{name}: {_said(body) or 'the server reported an error in the middle of its answer'}", code=code)


def _of_status(status: int) -> type[ModelError]:
    return _STATUSES.get(status) or (ModelOverloaded if status >= 500 else InvalidRequest)


def _code(body: Any) -> str | None:
    if not isinstance(body, dict):
        return None
    for name in ("code", "type"):
        value = body.get(name)
        if isinstance(value, str) and (value in _CODES or name == "code"):
            return value
    return None


def _said(body: Any) -> str:
    message = body.get("message") if isinstance(body, dict) else body
    return _line(message) if isinstance(message, str) else ""


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def seconds_to_wait(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """What a server says about when to come again: `retry-after-ms`, or `Retry-After` in seconds or as a date.

    None if it says nothing, or nothing sensible: what is no number, negative, or longer than an hour.
    """
    in_milliseconds = _number(headers.get("retry-after-ms"))
    if in_milliseconds is not None:
        return _sensible(in_milliseconds / 1000)
    given = headers.get("retry-after")
    if given is None:
        return None
    seconds = _number(given)
    if seconds is not None:
        return _sensible(seconds)
    try:
        moment = parsedate_to_datetime(given)
    except (ValueError, TypeError, OverflowError):
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return _sensible((moment - (now or datetime.now(UTC))).total_seconds())


def _sensible(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= LONGEST_WAIT else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def advice_in(headers: Mapping[str, str]) -> Advice | None:
    """What the headers of an answer say about what is left of the provider's limits; None if nothing."""
    remaining: dict[str, float] = {}
    resets: dict[str, float] = {}
    for name in ("requests", "tokens"):
        left = _number(headers.get(f"x-ratelimit-remaining-{name}"))
        reset = _duration(headers.get(f"x-ratelimit-reset-{name}"))
        if left is not None and left >= 0 and reset is not None:
            remaining[name] = left
            resets[name] = reset
    return Advice(remaining=remaining, resets_in=resets) if remaining else None


def _duration(text: str | None) -> float | None:
    """Seconds, from `6m0s`, `20ms`, `1.5s` or a plain number."""
    if text is None:
        return None
    plain = _number(text)
    if plain is None:
        parts = _PARTS.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text.strip():
            return None
        plain = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return _sensible(plain)
