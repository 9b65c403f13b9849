"""What official clients raise, as errors of ours.

The clients of OpenAI and of Anthropic are made by the same generator, so their errors have one shape: a tree of
classes, of which one stands for answers with an error status and has the answer. What differs is a table for each
client. What servers say has no table here: `_error_bodies` knows what it means, whoever says it, and `_waits` when to
come again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2

from rh_agents.core._base.tracebacks import without_causes
from rh_agents.core.errors import (
    InvalidRequest,
    ModelError,
    ModelLoading,
    ModelTimeout,
    ModelUnreachable,
    UnreadableAnswer,
)
from rh_agents.llms._error_bodies import code_in, kind_of, line, said_in, status_in
from rh_agents.llms._http import asked, is_not_connected, is_not_sendable, not_connected, remedy_of_status
from rh_agents.llms._waits import wait_asked_for

_NOT_SENDABLE = "the request has a header that cannot be sent: look for line ends and blanks in the key and in headers="
LOADING = 1.0
"""Seconds after which a server that loads its model is asked again."""

TRANSPORT_ERRORS: dict[type[Exception], type[ModelError]] = {
    httpx2.TimeoutException: ModelTimeout,
    httpx2.DecodingError: UnreadableAnswer,
    httpx2.RequestError: ModelUnreachable,
    httpx2.StreamError: ModelUnreachable,
}
"""What goes wrong while an answer is being read, which clients leave to their HTTP library."""


@dataclass(frozen=True)
class ClientErrors:
    """The errors of one client.

    Attributes:
        kinds: what each of them is here; the first that fits counts, so special ones stand before general ones. None:
            what the server says decides.
        of_status: what stands for an answer with an error status.
        no_key: what is raised where no key was given.
    """

    kinds: Mapping[type[Exception], type[ModelError] | None]
    of_status: type[Exception]
    no_key: type[Exception]

    @property
    def caught(self) -> tuple[type[Exception], ...]:
        """All that can be translated."""
        return (*self.kinds, *TRANSPORT_ERRORS)

    def translate(self, error: Exception, name: str, now: datetime | None = None) -> ModelError:
        """The error of ours that an error of the client, or of its HTTP library, stands for. `name` is the model's."""
        if isinstance(error.__cause__, ModelError):  # somebody on the way knows better: a test that allows no requests
            return error.__cause__
        if isinstance(error, self.of_status):
            found: Any = error
            where = remedy_of_status(found.status_code, asked(error))
            made = error_of_status(found.status_code, _body(found), name, found.response.headers, now, where)
            made.request_id = found.request_id
            return made
        known = (*self.kinds.items(), *TRANSPORT_ERRORS.items())
        kind = next((mine for theirs, mine in known if isinstance(error, theirs)), None) or ModelUnreachable
        if is_not_sendable(error):
            return InvalidRequest(f"{name}: {_NOT_SENDABLE}")
        if is_not_connected(error):
            return kind(f"{name}: {not_connected(error)}")
        cause = error.__cause__
        because = f" ({type(cause).__name__}: {line(str(cause))})" if cause is not None and str(cause) else ""
        return kind(f"{name}: {line(str(error)) or type(error).__name__}{because}")

    def shown_cause(self, error: Exception) -> BaseException | None:
        """The cause of the error that stands for this one, without the hundred lines through the client and its HTTP
        library, which would hide the one line that says what to do; None where the error quotes everything.
        """
        is_quoted = isinstance(error, self.of_status) or is_not_connected(error) or is_not_sendable(error)
        return None if is_quoted else without_causes(error)

    @contextmanager
    def translated(self, name: str) -> Iterator[None]:
        """What the client raises in the block, as errors of ours."""
        try:
            yield
        except self.caught as error:
            raise self.translate(error, name) from self.shown_cause(error)


def error_of_status(
    status: int,
    body: Any,
    name: str,
    headers: Mapping[str, str] | None = None,
    now: datetime | None = None,
    where: str = "",
) -> ModelError:
    """The error that a status and a body, or its error object, stand for. `where` comes after what the server says."""
    wait = wait_asked_for(headers or {}, body, now)
    kind = kind_of(status, body, waits=wait is not None)
    said = said_in(body) or "the server does not say why"
    text = f"{name}: {status}: {said}{where}"
    return kind(text, status=status, code=code_in(body), retry_after=_or_default(kind, wait))


def error_of_body(body: Any, name: str) -> ModelError:
    """The error that a server reports in an answer that began well, for instance in the middle of a stream."""
    wait = wait_asked_for({}, body)
    kind = kind_of(None, body, waits=wait is not None)
    said = said_in(body) or "the server reported an error in its answer"
    return kind(f"{name}: {said}", status=status_in(body), code=code_in(body), retry_after=_or_default(kind, wait))


def _or_default(kind: type[ModelError], wait: float | None) -> float | None:
    """A server that loads its model does not always say how long that takes."""
    return LOADING if wait is None and issubclass(kind, ModelLoading) else wait


def _body(error: Any) -> Any:
    """The whole body of an error; what the client makes of it is only a part."""
    try:
        return error.response.content or error.body
    except httpx2.StreamError:  # it was not read
        return error.body
