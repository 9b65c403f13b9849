"""What the body of an error says, whatever its shape: in the server's own words, and which kind of error it is.

No two servers agree on the shape. There are an error object (OpenAI), one within a list (Gemini), one at the top
(vLLM, Mistral), a plain text in its place (LM Studio, xAI), `detail` as a text or as a list of findings (everything
made with FastAPI), an error of another provider as a text within the error (OpenRouter), and pages of HTML (proxies).
So nothing here knows a shape: words are looked for under the names that servers give them, at any depth, and so are
codes.

Which kind of error it is follows from the first of these that says something: its codes, its words, the status that the
body names, the status of the answer. Each is a table. What a provider says that no table knows has the kind of its
status, and is quoted all the same.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

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

_SHOWN = 300
_DEEPEST = 8
"""Nothing that is further down is looked at. What servers say is at most five levels down."""
_MOST = 200
"""Nor is what comes after so many values, or after so many names of one value."""
_READ = 64 * 1024
"""Nor what comes after so many characters."""
_SEARCHED = 8_000
"""The characters that are searched for words. A whole prompt may stand behind them, which takes its time and says
nothing about the error."""
_WORDS = ("message", "error", "detail", "msg", "error_message", "error_description", "errors", "title", "reason")
"""Where servers put what they say, the most telling first."""
_CODE_NAMES = ("code", "error_code", "type", "status", "reason", "error")
_NO_CODES = frozenset({"error"})
"""What stands in the place of a code, and says no more than that it is an error."""
_MARK = re.compile(r"^[A-Za-z][A-Za-z0-9_.]*$")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^<>]*>", re.IGNORECASE | re.DOTALL)
_EMPTY_WORDS = frozenset({"provider returned error", "error", "internal", "bad request"})
"""What says nothing if something else is said as well."""

CODES: dict[str, type[ModelError]] = {
    "context_length_exceeded": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,
    "string_above_max_length": ContextTooLong,
    "contextwindowexceedederror": ContextTooLong,
    "model_context_window_exceeded": ContextTooLong,
    "request_too_large": RequestTooLarge,
    "request_body_too_large_after_decoding": RequestTooLarge,
    "insufficient_quota": QuotaExhausted,
    "billing_hard_limit_reached": QuotaExhausted,
    "billing_error": QuotaExhausted,
    "billing_not_active": QuotaExhausted,
    "insufficient_balance": QuotaExhausted,
    "budgetexceedederror": QuotaExhausted,
    "enforced_spend_limit_reached": QuotaExhausted,
    "contract_spend_limit_reached": QuotaExhausted,
    "linked_organization_spend_limit_reached": QuotaExhausted,
    "content_filter": ModelRefused,
    "content_policy_violation": ModelRefused,
    "contentpolicyviolationerror": ModelRefused,
    "responsibleaipolicyviolation": ModelRefused,
    "prohibited_content": ModelRefused,
    "moderation_blocked": ModelRefused,
    "invalid_api_key": AccessDenied,
    "api_key_invalid": AccessDenied,
    "authentication_error": AccessDenied,
    "permission_error": AccessDenied,
    "permission_denied": AccessDenied,
    "unauthenticated": AccessDenied,
    "organization_on_hold": AccessDenied,
    "rate_limit_exceeded": RateLimited,
    "rate_limit_error": RateLimited,
    "resource_exhausted": RateLimited,
    "throttling": RateLimited,
    "ramp_limit_exceeded": RateLimited,
    "server_error": ModelOverloaded,
    "overloaded_error": ModelOverloaded,
    "engine_overloaded": ModelOverloaded,
    "unavailable": ModelOverloaded,
    "internal_server_error": ModelOverloaded,
    "deadline_exceeded": ModelTimeout,
    "timeout_error": ModelTimeout,
}
"""What codes mean, in lower case. They are what `code`, `type`, `status` and `reason` say, at any depth."""

# The first that fits counts. Only what a body says in other words than its code needs a line here.
TEXTS: tuple[tuple[re.Pattern[str], type[ModelError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"\bloading (the )?model|model .{0,80}\b(is|still) (currently |still )?(being )?load", ModelLoading),
        (r"request too large|payload too large|entity too large|body (is )?too large", RequestTooLarge),
        (
            r"context[ _-]?(length|window|size)|contextwindowexceeded|maximum context|n_ctx\b"
            r"|(prompt|input|conversation|message)s?\b.{0,60}\b(is|are) too long"
            r"|(token count|input tokens?|prompt tokens?|input length|prompt length|number of tokens)\b.{0,80}\bexceed"
            r"|exceeds? the (model'?s )?max\w*( allowed)?( number of)?( input| prompt| sequence)? (tokens|length)"
            r"|max_(completion_)?tokens must be at least 1, got -"
            r"|reduce the length of the (messages|prompt|input)"
            r"|maximum (prompt|sequence|input) length|tokens to keep from the initial prompt",
            ContextTooLong,
        ),
        (
            r"insufficient (balance|credit|fund|quota)|credit balance|(more|enough|out of) credits?\b|no credits?\b"
            r"|exceeded your (current|monthly) (quota|budget|spend)|spend(ing)? limit|billing|payment required"
            r"|budget has been exceeded",
            QuotaExhausted,
        ),
        (
            r"content (management |usage )?(policy|policies|filter)|\bmoderation\b|\bflagged\b|prohibited[_ ]content"
            r"|safety (system|reasons|filter|check)|usage (policy|policies|guidelines)",
            ModelRefused,
        ),
        (
            r"api[ _-]?key\b.{0,40}\b(not valid|invalid|incorrect|expired|missing|required|not found)"
            r"|(invalid|incorrect|wrong|missing|no|expired) (or missing )?(api[ _-]?key|x-api-key|authentication|auth"
            r"|token provided|bearer)|no auth credentials|unauthori[sz]ed",
            AccessDenied,
        ),
        (r"overloaded|at capacity|no capacity|(server|model) (is )?(too )?busy|pending requests", ModelOverloaded),
        (r"rate[ _-]?limit|too many requests|requests per (second|minute|day)|tokens per (minute|day)", RateLimited),
    )
)
"""What words mean."""

STATUSES: dict[int, type[ModelError]] = {
    401: AccessDenied,
    402: QuotaExhausted,
    403: AccessDenied,
    408: ModelTimeout,
    409: ModelOverloaded,
    413: RequestTooLarge,
    425: ModelOverloaded,
    429: RateLimited,
    498: ModelOverloaded,
    504: ModelTimeout,
    524: ModelTimeout,
}
"""What statuses mean; 498 is Groq's for "no capacity". 504 and 524 are those of a proxy that did not get an answer in
time: the server behind it may have worked on the request, so it counts as what was reserved for it."""

STATUSES_OF_CODES = {
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "failed_precondition": 400,
    "not_found_error": 404,
    "not_found": 404,
    "conflict_error": 409,
    "api_error": 500,
    "internal": 500,
}
"""The status with which these codes come, for errors that have none: in streams, and in lines of batches."""

_DECIDED_BY_WORDS = (InvalidRequest, ModelOverloaded, RateLimited)
"""Kinds that servers give to much else, too: words that say more win over such a code or status."""


def kind_of(status: int | None, body: Any, *, waits: bool = False) -> type[ModelError]:
    """The kind of error that a body stands for.

    Args:
        status: of the answer; None for an error within an answer that had begun well.
        body: as it was read.
        waits: whether the server says when to come again. Then it is no quota that is exhausted: some providers
            (Gemini) say of each limit per minute that "the current quota" was exceeded.
    """
    by_code = next((CODES[code] for code in map(str.lower, _codes(body)) if code in CODES), None)
    if by_code is not None and by_code not in _DECIDED_BY_WORDS:
        return by_code
    number = status_in(body) or status or _status_of_code(body)
    by_status = None if number is None else _of_status(number)
    words = said_in(body, whole=True)
    for pattern, kind in TEXTS:
        if pattern.search(words) is not None and _may_be(kind, number, waits=waits):
            return kind
    return by_code or by_status or ModelOverloaded


def _may_be(kind: type[ModelError], status: int | None, *, waits: bool) -> bool:
    """Whether words may mean this. A request that is wrong for good may speak of limits, of loading and of keys."""
    if kind is QuotaExhausted:
        return not waits
    if kind in (ModelLoading, ModelOverloaded, RateLimited):
        return status is None or status in (409, 425, 429, 498) or status >= 500
    if kind is ContextTooLong:  # a limit of tokens per minute is reported in much the same words
        return status != 429
    if kind is AccessDenied:
        return status is None or status in (400, 401, 403)
    return True


def _status_of_code(body: Any) -> int | None:
    return next((STATUSES_OF_CODES[code] for code in map(str.lower, _codes(body)) if code in STATUSES_OF_CODES), None)


def _of_status(status: int) -> type[ModelError]:
    return STATUSES.get(status) or (ModelOverloaded if status >= 500 else InvalidRequest)


def code_in(body: Any) -> str | None:
    """The provider's own word for what is wrong: a code that the table knows, or else the first that there is."""
    found = list(_codes(body))
    known = next((code for code in found if code.lower() in CODES), None)
    return known or (found[0] if found else None)


def status_in(body: Any) -> int | None:
    """The HTTP status that a body names, as a number or as a text."""
    for name, value in facts_in(body):
        if name in ("code", "status", "status_code") and not isinstance(value, bool):
            text = str(value)
            if len(text) == 3 and text.isdigit() and text[0] in "45":
                return int(text)
    return None


def _codes(body: Any) -> Iterator[str]:
    """Whatever looks like a code, those called so first."""
    facts = [(name, value) for name, value in facts_in(body) if isinstance(value, str)]
    for wanted in _CODE_NAMES:
        for name, value in facts:
            if name == wanted and value and value not in _NO_CODES and (wanted == "code" or _MARK.match(value)):
                yield value


def said_in(body: Any, *, whole: bool = False) -> str:
    """What the server says, in one line; "" if it says nothing. `whole`: all of it, for looking at rather than for
    people.
    """
    parsed_body = parsed(body)
    if isinstance(parsed_body, str):
        found = [_text_of_page(parsed_body)]
    else:
        found = list(dict.fromkeys(islice(_sayings(parsed_body, 0), _MOST)))
    telling = [each for each in found if each.lower().rstrip(".") not in _EMPTY_WORDS] or found
    text = "; ".join(telling)[:_SEARCHED]
    return " ".join(text.split()) if whole else line(text)


def _sayings(value: Any, depth: int) -> Iterator[str]:
    """The texts that are meant for people, in the order in which they tell most."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        inner = parsed(value)
        if isinstance(inner, str):
            yield from filter(None, [_text_of_page(inner).strip()])
        else:
            yield from _sayings(inner, depth + 1)
    elif isinstance(value, list):
        for each in value[:10]:
            yield from _sayings(each, depth + 1)
    elif isinstance(value, dict):
        yield from _sayings_of(value, depth)


def _sayings_of(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    where = value.get("loc")
    if isinstance(where, list) and isinstance(value.get("msg"), str):  # a finding of Pydantic
        yield f"{'.'.join(map(str, where))}: {value['msg']}"
        return
    for name in _WORDS:
        if value.get(name):
            yield from _sayings(value[name], depth + 1)
            break
    about = value.get("metadata")
    if isinstance(about, dict):  # what a provider behind this one said, and why something was flagged
        for name in ("raw", "reasons"):
            if about.get(name):
                yield from _sayings(about[name], depth + 1)


def facts_in(body: Any) -> Iterator[tuple[str, Any]]:
    """The names and values in a body, from the top downwards; values that are JSON texts are looked into as well."""
    todo: list[tuple[Any, int]] = [(parsed(body), 0)]
    seen = 0
    while todo and seen < _MOST:
        value, depth = todo.pop(0)
        seen += 1
        if isinstance(value, list):
            todo += [(each, depth + 1) for each in value[:10] if depth < _DEEPEST]
        elif isinstance(value, dict):
            for name, each in islice(value.items(), _MOST):
                yield str(name).lower(), each
                inner = parsed(each) if isinstance(each, str) and each.lstrip()[:1] in ("{", "[") else each
                if isinstance(inner, dict | list) and depth < _DEEPEST:
                    todo.append((inner, depth + 1))


def parsed(body: Any) -> Any:
    """A body as data, if it is JSON; else as a text."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        body = body[:_READ]
    if isinstance(body, str) and body.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return body
    return body


def _text_of_page(text: str) -> str:
    """What a page of HTML is called, or else says; any other text is what it is."""
    if not re.match(r"\s*<(!doctype|html|\?xml|head|body)", text, re.IGNORECASE):
        return text
    title = _TITLE.search(text[:_SEARCHED])
    return html.unescape(title.group(1) if title else _TAG.sub(" ", text[:_SEARCHED])).strip()


def line(text: str) -> str:
    """A text in one line, which is not too long to be read."""
    short = " ".join(text.split())
    return short if len(short) <= _SHOWN else f"{short[: _SHOWN - 1]}…"
