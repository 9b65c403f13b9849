"""What credentials look like: their names, and the shapes in which they stand in texts that people read.

This needs no registry: it is about credentials that no one has named. A shape can be mistaken, so nothing passes here
that must come back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["is_credential_name", "without_credentials"]

_NAME_BEGINS = r"(?<![\w.-])"
"""A name is tried once, from its beginning. From each of its parts (`\\b`), a long one would take quadratic time."""
_NAMES = (
    r"(?:[\w.-]*[_.-])?(?:api[_-]?key|apikey|access[_-]?key|key|token|secret|password|passwd|pwd|signature|sig|credential"
    r"|auth|authorization|session[_-]?id|sas)"
)
_CREDENTIAL_NAME = re.compile(rf"(?i){_NAMES}|cookie")
_NAMED = ("key", "token", "secret", "passw", "pwd", "sig", "credential", "auth", "session", "sas")
"""Something of this is in each of the names, in small letters."""


class _Shape(NamedTuple):
    """What credentials of one kind look like.

    Attributes:
        hints: for each group of these, one of it is in every text that the pattern fits, in small letters. To look for
            them takes much less time than to try the pattern.
        pattern: takes time in proportion to the text, whatever stands there: no part of a text is read again from
            many beginnings.
        replacement: what is left of it.
    """

    hints: tuple[tuple[str, ...], ...]
    pattern: re.Pattern[str]
    replacement: str


_SHAPES: tuple[_Shape, ...] = (
    # scheme://user:password@host; of a user alone, where it is a token (as for https) and not a name (as for ssh)
    _Shape((("://",), ("@",)), re.compile(r"(://[^\s/@:?#'\"<>]*):[^\s/'\"<>]+@"), r"\1:***@"),
    _Shape((("http",), ("@",)), re.compile(r"(?i)(\bhttps?://)[^\s/@:?#'\"<>]+@"), r"\1***@"),
    # ?token=..., &X-Amz-Signature=...
    _Shape((("=",), _NAMED), re.compile(rf"(?i)([?&;]{_NAMES}=)[^\s&#;'\"<>)\]}}]+"), r"\1***"),
    # Authorization: Bearer ..., 'authorization': 'Basic ...', x-api-key: ...
    _Shape(
        (("authorization",),),
        re.compile(
            r"(?i)(\b(?:proxy-)?authorization\\?['\"]?\s*[:=,]\s*(?-i:b)?\\?['\"]?(?:(?:bearer|basic|token|digest|negotiate)\s+)?)"
            r"[^\s'\",;\\)}\]]+"
        ),
        r"\1***",
    ),
    _Shape(
        (("x-api-key",),),
        re.compile(r"(?i)(\bx-api-key\\?['\"]?\s*[:=,]\s*(?-i:b)?\\?['\"]?)[^\s'\",;\\)}\]]+"),
        r"\1***",
    ),
    _Shape((("bearer", "basic"),), re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/-]{8,}=*"), r"\1***"),
    # password='...', "api_key": "..."; without quotes only after an equals sign
    _Shape(
        (("'", '"'), (":", "="), _NAMED),
        re.compile(
            rf"(?i)({_NAME_BEGINS}{_NAMES}\\?['\"]?\s*[:=]\s*(?-i:b)?\\?['\"])(?!<secret:[^<>'\"\\]*>\\?['\"])[^'\"\\]+"
        ),
        r"\1***",
    ),
    _Shape(
        (("=",), _NAMED),
        re.compile(
            rf"(?i)({_NAME_BEGINS}(?:[\w.-]*(?:password|passwd|pwd|secret)|(?:[\w.-]*[_.-])?(?:api[_-]?key|token))=)"
            r"[^\s&#,;'\")\]}]+"
        ),
        r"\1***",
    ),
    # keys that tell by their beginning whose they are, and JSON Web Tokens
    _Shape(
        (
            (
                "sk-",
                "gho_",
                "ghp_",
                "ghs_",
                "ghu_",
                "ghr_",
                "github_pat_",
                "glpat-",
                "xox",
                "hf_",
                "aiza",
                "akia",
                "asia",
            ),
        ),
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{16,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}"
            r"|hf_[A-Za-z0-9]{20,}|AIza[\w-]{30,}|(?:AKIA|ASIA)[A-Z0-9]{16})"
        ),
        "***",
    ),
    _Shape((("eyj",),), re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"), "***"),
)


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Finds any of the words. Those that begin with the same letter stand together: few have to be tried at a place."""
    wanted = [word for word in words if not any(other in word and other != word for other in words)]
    by_letter: dict[str, list[str]] = {}
    for word in dict.fromkeys(wanted):
        by_letter.setdefault(word[0], []).append(re.escape(word[1:]))
    return re.compile("|".join(f"{re.escape(letter)}(?:{'|'.join(rests)})" for letter, rests in by_letter.items()))


_ANY_HINT = _any_of([hint for shape in _SHAPES for hint in shape.hints[-1]])
"""Something of this is in every text that one of the patterns fits: the last group of each is what few texts have."""


def is_credential_name(name: str) -> bool:
    """Whether a variable, a header or a parameter of this name has a credential."""
    return _CREDENTIAL_NAME.fullmatch(name) is not None


def without_credentials(text: str) -> str:
    """The text with `***` in place of whatever has the shape of a credential."""
    small = text.lower()
    if _ANY_HINT.search(small) is None:
        return text
    for shape in _SHAPES:
        if _may_fit(shape, small):
            text = shape.pattern.sub(shape.replacement, text)
    return text


def _may_fit(shape: _Shape, small: str) -> bool:
    """Whether the hints of a shape are there. (Loops, since every call that is recorded comes here: generators in them
    would take five times as long.)
    """
    for group in shape.hints:
        for hint in group:
            if hint in small:
                break
        else:
            return False
    return True
