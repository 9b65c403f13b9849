"""What the `openai` client raises, as errors of ours."""

from __future__ import annotations

import openai

from rh_agents.core.errors import (
    AccessDenied,
    AnswerTruncated,
    ModelError,
    ModelOverloaded,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
    UnreadableAnswer,
)
from rh_agents.llms._client_errors import ClientErrors

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

CLIENT_ERRORS = ClientErrors(ERRORS, openai.APIStatusError, openai.OpenAIError)
