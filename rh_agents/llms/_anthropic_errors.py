"""What the `anthropic` client raises, as errors of ours.

(https://platform.claude.com/docs/en/api/errors)
"""

from __future__ import annotations

import anthropic

from rh_agents.core.errors import (
    AccessDenied,
    ModelError,
    ModelOverloaded,
    ModelTimeout,
    ModelUnreachable,
    UnreadableAnswer,
)
from rh_agents.llms._client_errors import ClientErrors

ERRORS: dict[type[Exception], type[ModelError] | None] = {
    anthropic.APITimeoutError: ModelTimeout,
    anthropic.APIConnectionError: ModelUnreachable,
    anthropic.APIResponseValidationError: UnreadableAnswer,
    anthropic.APIStatusError: None,
    anthropic.APIError: ModelOverloaded,
    anthropic.RetryableError: ModelOverloaded,
    anthropic.AnthropicError: AccessDenied,
}
"""What each error of the client is here. `AnthropicError` itself, and all others: no key, or none that works."""

CLIENT_ERRORS = ClientErrors(ERRORS, anthropic.APIStatusError, anthropic.AnthropicError)
