"""Rows of data frames as items: what pandas and polars have, recognized by its methods, so that neither is imported.

A row is a mapping from the names of the columns to plain values of Python, and so the same item as that row in lines of
JSON. What is missing is None. pandas has NaN for that in columns of floats, so there NaN is None; polars has both.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol, TypeAlias

from rh_agents.core.errors import DefinitionError

__all__ = ["DataFrame", "PandasFrame", "PolarsFrame", "rows_of"]

_AT_ONCE: Final = 1024
"""Rows that are in memory as values of Python."""
_PLAIN: Final = frozenset((str, int, float, bool, type(None), bytes, datetime.datetime, datetime.date))


class PandasFrame(Protocol):
    """A data frame of pandas, by what it is recognized by here."""

    @property
    def columns(self) -> Any:
        """The names of its columns."""
        ...

    @property
    def iloc(self) -> Any:
        """Its rows, by their numbers."""
        ...

    @property
    def to_dict(self) -> Any:
        """What its rows are made plain values with."""
        ...


class PolarsFrame(Protocol):
    """The same of polars."""

    @property
    def columns(self) -> Any:
        """The names of its columns."""
        ...

    @property
    def height(self) -> Any:
        """How many rows it has."""
        ...

    @property
    def iter_rows(self) -> Any:
        """Its rows, one after the other."""
        ...


DataFrame: TypeAlias = PandasFrame | PolarsFrame
"""What `map` takes rows from. For type checkers, which else go by what iterating a data frame gives: its columns."""


def rows_of(items: Any) -> Iterator[Mapping[str, Any]] | None:
    """The rows of a data frame, made as they are asked for; None for anything else.

    Raises:
        DefinitionError: its columns have no names, two have the same, or one has values that Python has not.
    """
    kind = type(items)
    if not hasattr(kind, "columns"):
        return None
    if hasattr(kind, "iter_rows") and hasattr(kind, "height"):
        return _rows_of_polars(items, _names(items.columns))
    if hasattr(kind, "iloc") and hasattr(kind, "to_dict"):
        return _rows_of_pandas(items, _names(items.columns))
    return None


def _names(columns: Any) -> list[str]:
    names = list(columns)
    for name in names:
        if not isinstance(name, str):
            raise DefinitionError(
                f"map(): the columns of a data frame need names that are texts, and {name!r} is none: rename it"
            )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DefinitionError(f"map(): two columns of the data frame are named {twice!r}: rename one")
    return names


def _rows_of_polars(frame: Any, names: list[str]) -> Iterator[Mapping[str, Any]]:
    for name, kind in zip(names, frame.dtypes, strict=True):
        if getattr(kind, "time_unit", None) == "ns" and bool((frame[name].to_physical() % 1000 != 0).any()):
            raise _has_nanoseconds(name)
    rows: Iterator[Mapping[str, Any]] = frame.iter_rows(named=True)
    return rows


def _rows_of_pandas(frame: Any, names: list[str]) -> Iterator[Mapping[str, Any]]:
    for begin in range(0, len(frame), _AT_ONCE):
        part = frame.iloc[begin : begin + _AT_ONCE]
        for row in part.astype(object).where(part.notna(), None).itertuples(index=False, name=None):
            yield {name: _plain(value, name) for name, value in zip(names, row, strict=True)}


def _plain(value: Any, column: str) -> Any:
    """A value of pandas or NumPy as Python has it."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list):
        return [_plain(each, column) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each, column) for name, each in value.items()}
    if getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):
        raise _has_nanoseconds(column)
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime()
    if hasattr(value, "to_pytimedelta"):
        return value.to_pytimedelta()
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _plain(value.tolist(), column)
    return value


def _has_nanoseconds(column: str) -> DefinitionError:
    return DefinitionError(
        f"map(): column {column!r} has a time with nanoseconds, which Python does not have: cast it to microseconds"
    )
