"""What the `anthropic` client raises, as errors of ours.

(https://platform.claude.com/docs/en/api/errors)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2

from rh_agents.core.errors import (
    AccessDenied,
    IncompleteAnswer,
    ModelError,
    ModelOverloaded,
    ModelTimeout,
    ModelUnreachable,
)
from rh_agents.llms._error_bodies import code_in, kind_of, line, said_in
from rh_agents.llms._waits import wait_asked_for

__all__ = ["CAUGHT", "error_of", "error_of_body", "translated"]

# The first that fits counts, so special kinds come before general ones. None: the status and the body decide.
ERRORS: dict[type[Exception], type[ModelError] | None] = {
    anthropic.APITimeoutError: ModelTimeout,
    anthropic.APIConnectionError: ModelUnreachable,
    anthropic.APIResponseValidationError: IncompleteAnswer,
    anthropic.APIStatusError: None,
    anthropic.APIError: ModelOverloaded,
    anthropic.AnthropicError: AccessDenied,
    httpx2.TimeoutException: ModelTimeout,
    httpx2.DecodingError: IncompleteAnswer,
    httpx2.RequestError: ModelUnreachable,
    httpx2.StreamError: ModelUnreachable,
}
"""What each error of the client, or of its HTTP library, is here. `AnthropicError` itself: there is no key."""
CAUGHT = tuple(ERRORS)
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status with which each type of error comes, where there is none: in streams, and in lines of batches."""


def error_of(error: Exception, name: str) -> ModelError:
    """The error of ours that an error of the client stands for. `name` is the model's."""
    if isinstance(error.__cause__, ModelError):  # somebody on the way knows better: a test that allows no requests
        return error.__cause__
    if isinstance(error, anthropic.APIStatusError):
        wait = wait_asked_for(error.response.headers, error.body)
        kind = kind_of(error.status_code, error.body, waits=wait is not None)
        return kind(
            f"{name}: {error.status_code}: {said_in(error.body) or line(error.message)}",
            status=error.status_code,
            code=code_in(error.body),
            request_id=error.request_id,
            retry_after=wait,
        )
    found = next((mine for theirs, mine in ERRORS.items() if isinstance(error, theirs)), None) or ModelUnreachable
    cause = error.__cause__
    because = f" ({type(cause).__name__}: {line(str(cause))})" if cause is not None and str(cause) else ""
    return found(f"{name}: {line(str(error)) or type(error).__name__}{because}")


def error_of_body(body: Any, name: str) -> ModelError:
    """The error that stands in the middle of a stream, or in a line of a batch."""
    wait = wait_asked_for({}, body)
    inner = body.get("error") if isinstance(body, dict) else None
    code = code_in(inner if isinstance(inner, dict) else body)
    kind = kind_of(_STATUSES.get(code or ""), body, waits=wait is not None)
    said = said_in(body) or "the server does not say what is wrong"
    return kind(f"{name}: {said}", code=code, retry_after=wait)


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Errors of the client that are raised in the block, as errors of ours."""
    try:
        yield
    except CAUGHT as error:
        raise error_of(error, name) from error
