"""How large a value is, about: what is large is not read, written or shown on the event loop, and never all at once.

It is looked at until that is certain, so a small value costs little, and no code of the user's runs.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from types import MemberDescriptorType
from typing import Any

LARGE = 1 << 18
"""Bytes, about: what is larger is written and read in a thread."""
_FEW = 16
_DEEPEST = 100
_ATOMS = frozenset({str, int, float, bool, type(None)})
_TEXTS = (str, bytes, bytearray, memoryview)
_SEQUENCES = (list, tuple, set, frozenset, deque)


def is_large(value: object) -> bool:
    """Whether the text of a value is likely to be larger than `LARGE`."""
    kind = type(value)
    if kind is str:
        return len(value) > LARGE  # type: ignore[arg-type]
    if kind in _ATOMS:
        return False
    if kind is dict and len(value) <= _FEW:  # type: ignore[arg-type]  # as the arguments of most calls are
        room = LARGE
        for name, part in value.items():  # type: ignore[attr-defined]
            if type(part) is str:
                room -= len(part)
            elif type(part) not in _ATOMS:
                break
            if type(name) is not str:
                break
            room -= len(name) + 24
        else:
            return room < 0
    return room_after(value, LARGE, 0) < 0


def room_after(value: Any, room: int, depth: int) -> int:
    """The room that is left after a value; less than none ends the search."""
    kind = type(value)
    if kind is str or kind is bytes or kind is bytearray:
        return room - len(value) - 8
    if kind in _ATOMS:
        return room - 8
    if depth > _DEEPEST:
        return room
    if kind in _SEQUENCES:
        room -= 8 * len(value)
        parts = value
    elif kind is dict:
        room -= 16 * len(value)
        parts = chain(value, value.values())
    elif is_array(value):
        return room - int(value.nbytes)
    elif issubclass(kind, _TEXTS):
        return room - _length(value, kind) - 8
    else:
        room -= 64
        parts = _parts_of(value, kind)
    if room < 0:
        return room
    for part in parts:
        # Most parts are atoms, and there may be many: looked at here, each costs half as much.
        if type(part) is str:
            room -= len(part) + 8
        elif type(part) in _ATOMS:
            room -= 8
        else:
            room = room_after(part, room, depth + 1)
        if room < 0:
            return room
    return room


def _length(value: Any, kind: type) -> int:
    if kind is memoryview:
        return int(value.nbytes)
    return next(base for base in _TEXTS if issubclass(kind, base)).__len__(value)


def _parts_of(value: Any, kind: type) -> Iterable[Any]:
    """What a large part of something else could be, without running any code of its class."""
    if issubclass(kind, dict):
        return chain(dict.keys(value), dict.values(value))
    if issubclass(kind, _SEQUENCES):
        base = next(base for base in _SEQUENCES if issubclass(kind, base))
        return base.__iter__(value)
    found = []
    for get in _fields_of(kind):  # type: ignore[arg-type]  # classes can be hashed
        with suppress(AttributeError):  # it is not set
            found.append(get(value))
    return found


@lru_cache(maxsize=1024)
def _fields_of(kind: type) -> list[Callable[[Any], Any]]:
    """What gets the `__dict__` of an instance, and the fields that it has beside that."""
    own = [base for base in kind.__mro__ if "__slots__" in vars(base)]
    slots: list[Callable[[Any], Any]] = [
        each.__get__ for base in own for each in vars(base).values() if type(each) is MemberDescriptorType
    ]
    if issubclass(kind, BaseException):
        slots += [_part_of_errors[name].__get__ for name in ("args", "__cause__")]
    if issubclass(kind, BaseExceptionGroup):
        slots.append(_part_of_groups.__get__)
    return [lambda value: object.__getattribute__(value, "__dict__"), *slots]


_part_of_errors: Mapping[str, Any] = vars(BaseException)
_part_of_groups: Any = vars(BaseExceptionGroup)["exceptions"]


def is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray
