"""When a server wants to be asked again, and what it says about its limits: wherever that stands, in whatever unit.

There is no one place. It is in `Retry-After` (RFC 9110, section 10.2.3: seconds or a date) or `retry-after-ms`; in the
headers about limits, of which there are as many families as providers; in the body, as Google's `RetryInfo`, as headers
of another provider within the body (OpenRouter), as a number of seconds; or in a sentence, "try again in 1m2.5s". The
first of these that says something sensible counts, in this order.

Numbers are seconds, unless their name ends in `ms`. A reset may also be a moment: a number too large for anything else
is seconds or milliseconds since 1970, and one between is milliseconds, since nobody is asked to wait for days.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rh_agents.core.policies.limits import RateLimitHint
from rh_agents.llms._error_bodies import facts_in, said_in

LONGEST_WAIT = 3600.0
"""Seconds. A server that wants more than that is not believed: backoff decides then."""

_PARTS = re.compile(r"(\d+(?:\.\d+)?)\s*(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)")
_UNITS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_IN_WORDS = re.compile(
    r"\b(?:try(?:ing)?(?: your request)? again|retry(?:ing)?(?: your request)?|come back|available again|wait)"
    r"(?: \w+){0,2}?"
    r"(?: in| after| for| another)?:? (?:about |approximately |at least )?"
    r"(?P<time>\d+(?:\.\d+)?\s?[a-z]+(?:\s?\d+(?:\.\d+)?\s?(?:ms|h|m|s)(?![a-z]))*)",
    re.IGNORECASE,
)
_EPOCH = 1e9
"""A number from here on is a moment, in seconds since 1970; from a thousand times of it on, in milliseconds."""

_FAMILIES: tuple[tuple[str, str, str], ...] = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset", "requests"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset", "tokens"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset", "input_tokens"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset", "output_tokens"),
    ("x-ratelimit-remaining", "x-ratelimit-reset", "requests"),
    ("ratelimit-remaining", "ratelimit-reset", "requests"),
    ("ratelimitbysize-remaining", "ratelimitbysize-reset", "tokens"),
)
"""The headers about limits: what is left, when there is everything again, and of what."""

_IN_BODIES = {"retry_after": 1.0, "retryafter": 1.0, "retry_after_seconds": 1.0, "retry_after_ms": 0.001}
_IN_BODIES |= {"estimated_time": 1.0, "retrydelay": 1.0, "retry-after": 1.0, "retry-after-ms": 0.001}
"""What bodies call the time to wait, in lower case, and its unit if it is a number."""


def wait_asked_for(headers: Mapping[str, str], body: Any, now: datetime | None = None) -> float | None:
    """Seconds after which a server that refused a request wants to be asked again; None if it does not say.

    Args:
        headers: of the answer; names in lower case, or a mapping that does not mind.
        body: of the answer, as it was read.
        now: for dates and moments.
    """
    now = now or datetime.now(UTC)
    asked = seconds_to_wait(headers, now)
    if asked is None:
        asked = _reset_of_what_is_spent(headers, now)
    for source in (_in_body, _in_words):
        if asked is None:
            asked = source(body, now)
    return asked


def seconds_to_wait(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """What the headers made for it say: `retry-after-ms`, or `Retry-After` in seconds, as a duration or as a date.

    None if it says nothing, or nothing sensible: what is no number, negative, or longer than an hour.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        in_milliseconds = _number(headers.get(name))
        if in_milliseconds is not None:
            return _sensible(in_milliseconds / 1000)
    given = headers.get("retry-after")
    if given is None:
        return None
    seconds = _number(given)
    if seconds is None:
        seconds = _duration(given)
    return _sensible(seconds) if seconds is not None else _until(given, now or datetime.now(UTC))


def _reset_of_what_is_spent(headers: Mapping[str, str], now: datetime) -> float | None:
    """When there is everything again of what is spent; or of something, if the server does not say what is left."""
    waits = []
    for left, reset, _ in _FAMILIES:
        remaining = _number(headers.get(left))
        if headers.get(reset) is not None and (remaining is None or remaining < 1):
            waits.append(_reset(headers.get(reset), now))
    return max((wait for wait in waits if wait is not None), default=None)


def _in_body(body: Any, now: datetime) -> float | None:
    for name, value in facts_in(body):
        if name in _IN_BODIES:
            wait = _amount(value, _IN_BODIES[name])
            if wait is not None:
                return _sensible(wait)
        if name == "headers" and isinstance(value, Mapping):  # of the provider behind this one
            inner = {str(key).lower(): str(each) for key, each in value.items()}
            wait = seconds_to_wait(inner, now)
            wait = _reset_of_what_is_spent(inner, now) if wait is None else wait
            if wait is not None:
                return wait
    return None


def _amount(value: Any, unit: float) -> float | None:
    """Seconds, from a number, a text such as `34.07s`, or Google's `{"seconds": 34, "nanos": 0}`."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, Mapping):
        whole, rest = _number(str(value.get("seconds", 0))), _number(str(value.get("nanos", 0)))
        return None if whole is None or rest is None else whole + rest / 1e9
    plain = _number(str(value))
    return _duration(str(value)) if plain is None else plain * unit


def _in_words(body: Any, _: datetime) -> float | None:
    said = _IN_WORDS.search(said_in(body, whole=True))
    wait = None if said is None else _duration(said.group("time").strip())
    return None if wait is None else _sensible(wait)


def hint_in(headers: Mapping[str, str], now: datetime | None = None) -> RateLimitHint | None:
    """What the headers of an answer say about what is left of the provider's limits; None if nothing."""
    remaining: dict[str, float] = {}
    resets: dict[str, float] = {}
    for name, left, reset in _left(headers, now or datetime.now(UTC)):
        if name not in remaining:
            remaining[name], resets[name] = left, reset
    return RateLimitHint(remaining=remaining, resets_in=resets) if remaining else None


def _left(headers: Mapping[str, str], now: datetime) -> Iterator[tuple[str, float, float]]:
    for remaining, reset, name in _FAMILIES:
        left = _number(headers.get(remaining))
        again = _reset(headers.get(reset), now)
        if left is not None and left >= 0 and again is not None:
            yield name, left, again


def _reset(text: str | None, now: datetime) -> float | None:
    """Seconds until a reset, from a duration (`6m0s`, `20ms`), a number, a date, or a moment since 1970."""
    if text is None:
        return None
    plain = _number(text)
    if plain is None:
        duration = _duration(text)
        return _until(text, now) if duration is None else _sensible(duration)
    if plain >= _EPOCH:
        moment = plain / 1000 if plain >= _EPOCH * 1000 else plain
        return _sensible(max(0.0, moment - now.timestamp()))
    return _sensible(plain if plain <= LONGEST_WAIT else plain / 1000)


def _until(text: str, now: datetime) -> float | None:
    """Seconds until a date, of mails (RFC 5322) or of ISO 8601. A moment that is over is no wait."""
    moment = _date(text)
    if moment is None:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return _sensible((moment - now).total_seconds())


def _date(text: str) -> datetime | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return read(text.strip())
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def _sensible(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= LONGEST_WAIT else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _duration(text: str) -> float | None:
    """Seconds, from `6m0s`, `20ms`, `1.5s`, `2 minutes` or `1m 2.5s`; None if it is something else."""
    parts = list(_PARTS.finditer(text.lower()))
    rest = _PARTS.sub("", text.lower())
    if not parts or rest.strip(" ,.") not in ("", "and"):
        return None
    return sum(float(part.group(1)) * _UNITS[_unit(part.group(2))] for part in parts)


def _unit(word: str) -> str:
    return "milli" if word.startswith("milli") else word if word == "ms" else word[0]
