"""Values as columns of tables can have them, and where a table has kept another one."""

from __future__ import annotations

import datetime
import decimal
from typing import Any, Final

from pydantic_core import to_jsonable_python

from rh_agents.stores._plain import plain_value

__all__ = ["difference", "id_of", "table_value", "weight"]

_KEPT: Final = (
    bool, int, float, str, bytes, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta,
)  # fmt: skip
_LARGEST: Final = 1 << 63


def table_value(value: Any) -> Any:
    """The value in mappings by texts, lists, and what columns have; what they have not is what JSON lines say of it.

    Raises:
        ValueError: there is no text for it: a list that contains itself, half a character.
    """
    if value is None or type(value) in _KEPT:
        return value
    return _known(plain_value(value))


def _known(value: Any) -> Any:
    if value is None or isinstance(value, _KEPT):
        return value
    if isinstance(value, list):
        return [_known(each) for each in value]
    if isinstance(value, dict):
        return {_name(name): _known(each) for name, each in value.items()}
    return to_jsonable_python(value, fallback=repr)


def _name(name: Any) -> str:
    return name if isinstance(name, str) else next(iter(to_jsonable_python({name: None}, fallback=repr)))


def id_of(value: Any) -> int | str:
    """What identifies a row: a number that fits into a column, or a text."""
    if type(value) is int and -_LARGEST <= value < _LARGEST:
        return value
    return value if isinstance(value, str) else str(to_jsonable_python(value, fallback=repr))


def weight(value: Any) -> int:
    """About the bytes of a value."""
    if isinstance(value, str | bytes):
        return 16 + len(value)
    if isinstance(value, dict):
        return 16 + sum(map(weight, value.values()))
    return 16 + sum(map(weight, value)) if isinstance(value, list) else 16


def difference(given: Any, kept: Any) -> str | None:
    """Where two values differ, such as `.price`; None if they are the same.

    The same are NaN and NaN, and an object without a field and one in which it is missing.
    """
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return next((found for pair in zip(given, kept, strict=True) if (found := difference(*pair)) is not None), None)
    if isinstance(given, dict) and isinstance(kept, dict):
        for name in given.keys() | kept.keys():
            found = difference(given.get(name), kept.get(name))
            if found is not None:
                return f".{name}{found}"
        return None
    return None if _is_same(given, kept) else ""


def _is_same(given: Any, kept: Any) -> bool:
    if isinstance(given, bool) != isinstance(kept, bool) or isinstance(given, list | dict):
        return False
    if isinstance(given, datetime.datetime | datetime.time) and isinstance(kept, datetime.datetime | datetime.time):
        return given.utcoffset() == kept.utcoffset() and given == kept
    return bool(given == kept) or (given != given and kept != kept)
