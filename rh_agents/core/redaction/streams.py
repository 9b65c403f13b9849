"""Texts that come in pieces: a secret is not shown either if it is split over several of them.

What could be the beginning of a secret is held back until what follows shows that it is none. The same for the word at
the end: of what has the shape of a credential, the beginning looks like any word.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from rh_agents.core.redaction import redact, shown_forms

__all__ = ["RedactedStream"]

_CONTEXT: Final = 1_000
"""Characters before a piece by which is known what it is: the value in `password="..."` tells nothing by itself."""
_LONGEST_WORD: Final = 512
"""Characters. Of a longer word the beginning is shown while it goes on: it is a text without spaces."""
_WORD: Final = re.compile(r"""[^\s'"<>\x80-\U0010ffff]+\Z""")
"""The last word of a text as far as it may be a credential: in ASCII, and without quotes."""
_FIRST_WORD: Final = re.compile(r"""[^\s'"<>\x80-\U0010ffff]+""")
_TELLING: Final = 4
"""Characters of a secret that say something about it."""


class RedactedStream:
    """Frees a text of secrets that comes in pieces, as `redact` frees a whole one.

    Of a registered secret no part is ever given. What only has the shape of a credential is recognized by what stands
    in the 1,000 characters before it.

    Args:
        is_cut: whether the text has begun before the first piece. What may be the end of a secret, and of a word in
            any case, is then left out.
    """

    def __init__(self, *, is_cut: bool = False) -> None:
        self._is_cut = is_cut
        self._text = ""
        """What was given last, and what is held back."""
        self._given = 0
        """How many characters of it were given."""
        self._shown = ""
        """These as people see them."""

    def add(self, text: str) -> str:
        """What can be shown when this piece has come."""
        self._text += text
        if self._is_cut and not self._has_begun():
            return ""
        return self._give(_end_of_what_is_safe(self._text, self._given))

    def _has_begun(self) -> bool:
        """Leave out the word with which a text begins that was cut there; False if its end has not come."""
        word = _FIRST_WORD.match(self._text)
        end = 0 if word is None else word.end()
        if end == len(self._text) < _LONGEST_WORD:
            return False
        self._text = self._text[max(end, _forms_now().ends_at(self._text)) :]
        self._is_cut = False
        return True

    def rest(self) -> str:
        """What was held back: the text has come to its end, or was cut off there. The beginning of a secret is not."""
        if self._is_cut:
            return ""
        forms = _forms_now()
        found = max((stop for _, stop in forms.found(self._text)), default=0)
        end = forms.begins_at(self._text, max(self._given, found))
        if len(self._text) - end < _TELLING:
            return self._give(len(self._text))
        return self._give(end) + "\N{HORIZONTAL ELLIPSIS}"

    def _give(self, end: int) -> str:
        if end <= self._given:
            return ""
        shown = redact(self._text[:end])
        new = shown[_same(self._shown, shown) :]
        self._given, self._shown = end, shown
        self._forget()
        return new

    def _forget(self) -> None:
        """Keep no more than tells what the next pieces are."""
        start = self._given - _CONTEXT
        if start > _CONTEXT:
            self._text = self._text[start:]
            self._given = _CONTEXT
            self._shown = redact(self._text[:_CONTEXT])


class _Forms:
    """All ways in which registered secrets are spelt, by their first letters.

    Args:
        shown: the spellings, as `shown_forms` gives them.
    """

    def __init__(self, shown: Mapping[str, str]) -> None:
        self.shown: Mapping[str, str] = shown
        self._longest = max(map(len, shown), default=0)
        self._by_letter: dict[str, list[str]] = defaultdict(list)
        for form in shown:
            self._by_letter[form[0]].append(form)

    def begins_at(self, text: str, start: int) -> int:
        """Where at the end of a text, from `start` on, a secret may begin that goes on in what follows."""
        for at in range(max(start, len(text) - self._longest + 1), len(text)):
            if any(form.startswith(text[at:]) for form in self._by_letter.get(text[at], ())):
                return at
        return len(text)

    def ends_at(self, text: str) -> int:
        """Where at the beginning of a text a secret ends that has begun before it; 0 if none does."""
        for end in range(min(len(text), self._longest - 1), _TELLING - 1, -1):
            if any(form.endswith(text[:end]) for form in self.shown):
                return end
        return 0

    def found(self, text: str) -> Iterator[tuple[int, int]]:
        """Where in a text there are secrets: the beginning and the end of each."""
        present = sorted((form for form in self.shown if form in text), key=len, reverse=True)
        if present:
            for match in re.finditer("|".join(map(re.escape, present)), text):
                yield match.span()


_forms = _Forms({})


def _forms_now() -> _Forms:
    global _forms  # noqa: PLW0603 - worked out again only when another secret has been registered
    shown = shown_forms()
    if _forms.shown is not shown:
        _forms = _Forms(shown)
    return _forms


def _end_of_what_is_safe(text: str, given: int) -> int:
    """How much of a text can be shown though more will come; so much was shown before."""
    end = len(text)
    word = _WORD.search(text, max(given, end - _LONGEST_WORD))
    if word is not None:
        end = word.start()
    forms = _forms_now()
    if forms.shown:
        end = min(end, forms.begins_at(text, given))
        # A secret is shown by its name as a whole, or not yet.
        end = min([end, *(start for start, stop in forms.found(text) if start < end < stop)])
    return max(given, end)


def _same(before: str, now: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    if now.startswith(before):
        return len(before)
    pairs = enumerate(zip(before, now, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(before), len(now)))
