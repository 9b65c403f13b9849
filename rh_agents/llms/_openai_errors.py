"""What the `openai` client raises, as errors of ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx2
import openai

from rh_agents.core.errors import (
    AccessDenied,
    AnswerTruncated,
    ModelError,
    ModelLoading,
    ModelOverloaded,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
    UnreadableAnswer,
)
from rh_agents.llms._error_bodies import code_in, kind_of, line, said_in, status_in
from rh_agents.llms._waits import wait_asked_for

__all__ = [
    "ERRORS",
    "NEVER_RAISED",
    "TRANSPORT_ERRORS",
    "error_of",
    "error_of_body",
    "error_of_status",
]

LOADING = 1.0
"""Seconds after which a server that loads its model is asked again."""

# The first that fits counts, so special kinds come before general ones. None: what the server says decides.
ERRORS: dict[type[Exception], type[ModelError] | None] = {
    openai.APITimeoutError: ModelTimeout,
    openai.APIConnectionError: ModelUnreachable,
    openai.APIResponseValidationError: UnreadableAnswer,
    openai.OAuthError: AccessDenied,
    openai.AuthenticationError: None,
    openai.PermissionDeniedError: None,
    openai.BadRequestError: None,
    openai.NotFoundError: None,
    openai.UnprocessableEntityError: None,
    openai.ConflictError: None,
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
    httpx2.DecodingError: UnreadableAnswer,
    httpx2.RequestError: ModelUnreachable,
    httpx2.StreamError: ModelUnreachable,
}
"""What goes wrong while an answer is being read, which the client leaves to its HTTP library."""


def error_of(error: Exception, name: str, now: datetime | None = None) -> ModelError:
    """The error of ours that an error of the client, or of its HTTP library, stands for. `name` is the model's."""
    if isinstance(error.__cause__, ModelError):  # somebody on the way knows better: a test that allows no requests
        return error.__cause__
    kind = next((mine for theirs, mine in ERRORS.items() if isinstance(error, theirs)), None)
    if isinstance(error, openai.APIStatusError):
        response = error.response
        made = error_of_status(response.status_code, _body(error), name, response.headers, now)
        made.request_id = error.request_id
        return made
    if kind is None:
        kind = next((mine for theirs, mine in TRANSPORT_ERRORS.items() if isinstance(error, theirs)), ModelUnreachable)
    cause = error.__cause__
    because = f" ({type(cause).__name__}: {line(str(cause))})" if cause is not None and str(cause) else ""
    return kind(f"{name}: {line(str(error)) or type(error).__name__}{because}")


def error_of_status(
    status: int, body: Any, name: str, headers: Mapping[str, str] | None = None, now: datetime | None = None
) -> ModelError:
    """The error that a status and a body, or its error object, stand for."""
    wait = wait_asked_for(headers or {}, body, now)
    kind = kind_of(status, body, waits=wait is not None)
    said = said_in(body) or "the server does not say why"
    return kind(f"{name}: {status}: {said}", status=status, code=code_in(body), retry_after=_or_default(kind, wait))


def error_of_body(body: Any, name: str) -> ModelError:
    """The error that a server reports in an answer that began well, for instance in the middle of a stream."""
    wait = wait_asked_for({}, body)
    kind = kind_of(None, body, waits=wait is not None)
    said = said_in(body) or "the server reported an error in its answer"
    status = status_in(body)
    return kind(f"{name}: {said}", status=status, code=code_in(body), retry_after=_or_default(kind, wait))


def _or_default(kind: type[ModelError], wait: float | None) -> float | None:
    """A server that loads its model does not always say how long that takes."""
    return LOADING if wait is None and issubclass(kind, ModelLoading) else wait


def _body(error: openai.APIStatusError) -> Any:
    """The whole body of an error; what the client makes of it is only a part."""
    try:
        return error.response.content or error.body
    except httpx2.StreamError:  # it was not read
        return error.body
