"""Values and errors in one line for people, without secrets."""

from __future__ import annotations

from rh_agents.core._base.errors import RecordedError
from rh_agents.core._base.foreign import text_of
from rh_agents.core.redaction import RedactingRepr, redact

__all__ = ["describe_error", "short_repr"]

_MOST_CUT = 20_000
_LONGEST_LINE = 10_000
"""Characters of a text that is longer than that."""


def describe_error(error: BaseException, *, is_cut: bool = True) -> str:
    """One line for people: the kind of the error and its first line of text, without secrets.

    A text beyond 20,000 characters is cut, unless `is_cut` is False.
    """
    kind = error.kind if isinstance(error, RecordedError) else type(error).__name__
    text = text_of(error)
    if not text:
        return kind
    line = redact((text[:_MOST_CUT] if is_cut else text).splitlines()[0])
    if is_cut and len(text) > _MOST_CUT and len(line) > _LONGEST_LINE:
        line = f"{line[:_LONGEST_LINE]}…"  # after it was redacted: half a secret would not be known as one
    if not line.isprintable():  # it may go to a terminal, and it may have come from anywhere
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return f"{kind}: {line}"


_short = RedactingRepr()
_short.maxstring = _short.maxother = 40
_short.maxlevel = 2


def short_repr(value: object) -> str:
    """A value in one short line, without secrets, whatever its own `repr` does."""
    text = _short.repr(value)
    return text if text.isprintable() else ascii(text)
