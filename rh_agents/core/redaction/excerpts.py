"""What a call was called with, as a short text for people: like JSON, without secrets, cut where it is too long.

It is made for every call that is recorded, so what is usual (a few short arguments) takes a short way. What is large is
never written out to be cut then: of a text the beginning is taken, of a list the first elements. No code of the
program's classes runs: of an instance its fields are shown, as they are kept in it.

Secrets are taken out before a text is cut, since half of one would not be known as one; and the value of an argument,
or of a field, whose name is that of a credential is not shown at all.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import to_json

from rh_agents.core._base.sizes import is_array
from rh_agents.core.redaction import Secret, redact
from rh_agents.core.redaction.shapes import is_credential_name

__all__ = ["CUT", "RecordInputs", "cut", "excerpt"]

CUT: Final = "…"
"""Stands at the end of what was cut."""
_HIDDEN = "***"
_DEEPEST = 12
_AS_THEY_ARE = frozenset({int, float, bool, type(None)})
_AS_TEXT = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID, pathlib.PurePath)
_LISTS = (list, tuple, set, frozenset)
_SPARE = 1_000
"""Characters beyond what is shown, in which secrets are looked for: one may begin in the last one that is."""


class RecordInputs(StrEnum):
    """What is recorded, for people, of what calls are called with. It is no part of their identity."""

    NONE = "none"
    """Nothing."""
    BRIEF = "brief"
    """256 bytes of a text like JSON, 2 KiB of a call that failed."""
    FULL = "full"
    """All of it as typed JSON, up to 64 KiB."""


def excerpt(value: object, most: int) -> str:
    """A value as a text of at most `most` bytes in UTF-8, with `CUT` as the last character if it would be longer."""
    tree = value if _is_plain(value, most) else _Pruned(most).of(value, 0)
    try:
        text = to_json(tree, inf_nan_mode="constants").decode()
    except ValueError:  # a surrogate that stands alone
        text = json.dumps(tree)
    text = redact(text)
    return text if len(text) * 4 <= most else cut(text, most)


def cut(text: str, most: int) -> str:
    """The text in at most so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return text
    return data[: most - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def _is_plain(value: object, most: int) -> bool:
    """Whether it can be written as it is: a few arguments with values that JSON has, none of them long or hidden."""
    if type(value) is not dict or len(value) > 16:
        return False
    for name, each in value.items():
        kind = type(each)
        if kind is str:
            if len(each) > most:
                return False
        elif kind not in _AS_THEY_ARE:
            return False
        if type(name) is not str or _is_hidden(name):
            return False
    return True


@lru_cache(maxsize=4096)
def _is_hidden(name: str) -> bool:
    return is_credential_name(name)


class _Pruned:
    """Makes of a value what JSON has, and no more of it than there is room for.

    Args:
        most: how many bytes are shown in the end.
    """

    def __init__(self, most: int) -> None:
        self._room = most + _SPARE

    def of(self, value: object, depth: int) -> Any:
        """What stands for a value."""
        kind = type(value)
        self._room -= 1
        if kind in _AS_THEY_ARE:
            return "<a long number>" if isinstance(value, int) and abs(value) >= 1 << 1000 else value
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if depth > _DEEPEST:
            return CUT
        if isinstance(value, dict):
            return self._mapping(dict.items(value), dict.__len__(value), depth)
        if isinstance(value, _LISTS):
            return self._list(value, depth)
        return self._other(value, depth)

    def _text(self, text: str) -> str:
        shown = text[: max(0, self._room)]
        self._room -= len(shown)
        return shown if len(shown) == len(text) else shown + CUT

    def _mapping(self, items: Iterable[tuple[object, object]], length: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, each in items:
            if self._room <= 0:
                found[CUT] = f"{length - len(found):,} more"
                break
            shown = self._text(name if isinstance(name, str) else _named(name))
            found[shown] = _HIDDEN if _is_hidden(shown) and each is not None else self.of(each, depth + 1)
        return found

    def _list(self, value: Any, depth: int) -> list[Any]:
        kind: Any = next(base for base in _LISTS if isinstance(value, base))
        found: list[Any] = []
        for each in kind.__iter__(value):
            if self._room <= 0:
                found.append(f"{CUT} {kind.__len__(value) - len(found):,} more")
                break
            found.append(self.of(each, depth + 1))
        return found

    def _other(self, value: object, depth: int) -> Any:
        if isinstance(value, Secret):
            return str(value)
        if isinstance(value, enum.Enum):
            return self.of(value.value, depth + 1)
        if isinstance(value, _AS_TEXT):
            return self._text(str(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{memoryview(value).nbytes:,} bytes>"
        if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
            fields = _fields_of(value)
            return self._mapping(fields.items(), len(fields), depth)
        return _named(value)


def _fields_of(value: Any) -> Mapping[str, object]:
    """The fields of an instance, without asking its class for them."""
    if isinstance(value, BaseModel):
        return value.__dict__
    return {name: getattr(value, name, None) for name in value.__dataclass_fields__}


def _named(value: object) -> str:
    """What stands for something that is not data."""
    if isinstance(value, type):
        return f"<class {value.__name__}>"
    if type(value) in _AS_THEY_ARE:
        return str(value)
    size = f" {value.shape}" if is_array(value) else ""  # type: ignore[attr-defined]
    return f"<{type(value).__name__}{size}>"
