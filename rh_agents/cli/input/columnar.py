"""Parquet and Arrow files: their rows as items, a few at a time, with the values that are in them.

A row is a mapping from the names of the columns to values of Python: integers, floats (NaN is NaN), texts, truth
values, decimals, dates and times with their zones, bytes, lists and mappings; what is missing is None. What Python has
no exact value for (a time with nanoseconds) is refused by its column. pyarrow reads them, and is imported only here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, Final

from rh_agents.cli.arrow import arrow_module, first_line
from rh_agents.cli.errors import CommandError, close_names
from rh_agents.cli.input.lines import Format, Item

__all__ = ["Columnar", "columnar_format"]

_AT_ONCE: Final = 1024
"""Rows that are in memory as values of Python."""
_MAGIC: Final = {b"PAR1": Format.PARQUET, b"ARROW1": Format.ARROW}


def columnar_format(stream: io.BufferedReader) -> Format | None:
    """What kind of table a file begins as; None if it is none of these."""
    begin = stream.peek(8)
    return next((form for magic, form in _MAGIC.items() if begin.startswith(magic)), None)


class Columnar:
    """A table in a file that is open.

    Args:
        stream: the file.
        name: of the input, for people.
        form: PARQUET or ARROW.
        id_field: the column that names an item.
        must_have_id: there must be one of this name.

    Raises:
        CommandError: pyarrow is not installed, or the file is damaged, or has columns that cannot be items.
    """

    def __init__(
        self, stream: io.BufferedReader, name: str, form: Format, id_field: str, *, must_have_id: bool
    ) -> None:
        self._name = name
        self._id_field = id_field
        what = f"{name} is a {form.value.capitalize()} file"
        self._arrow = arrow_module(what)
        self.total: int | None = None
        """How many rows there are; None where the file does not say."""
        self._schema: Any
        self._batches: Callable[[], Iterator[Any]]
        try:
            if form is Format.PARQUET:
                file = arrow_module(what, "pyarrow.parquet").ParquetFile(stream)
                self.total = file.metadata.num_rows
                self._schema = file.schema_arrow
                self._batches = lambda: file.iter_batches(batch_size=_AT_ONCE)
            else:
                reader = arrow_module(what, "pyarrow.ipc").open_file(stream)
                self._schema = reader.schema
                self._batches = lambda: map(reader.get_batch, range(reader.num_record_batches))
        except (ValueError, OSError, self._arrow.ArrowException) as error:
            raise CommandError(f"{name} is cut or damaged: {first_line(error)}: get it again") from error
        self._expect_columns(must_have_id)

    def _expect_columns(self, must_have_id: bool) -> None:
        names = list(self._schema.names)
        twice = next((each for each in names if names.count(each) > 1), None)
        if twice is not None:
            raise CommandError(f"{self._name} has two columns that are named {twice!r}: rename one")
        if must_have_id and self._id_field not in names:
            raise CommandError(
                f"--id-field {self._id_field}: {self._name} has no such column; there are {', '.join(names[:20])}"
                f"{close_names(self._id_field, names)}"
            )
        for column in self._schema:
            if not self._is_exact(self._in_microseconds(column.type) or column.type):
                raise CommandError(
                    f"{self._name}: column {column.name!r} has times in nanoseconds in it ({column.type}), which "
                    "Python does not have: cast them to microseconds"
                )

    def _is_exact(self, kind: Any) -> bool:
        """Whether Python has all values of a type."""
        if getattr(kind, "unit", None) == "ns":
            return False
        return all(self._is_exact(kind.field(number).type) for number in range(kind.num_fields))

    def _in_microseconds(self, kind: Any) -> Any:
        """The type for times in nanoseconds, which pandas writes for all times; None if it is another type."""
        if getattr(kind, "unit", None) != "ns":
            return None
        types = self._arrow.types
        if types.is_timestamp(kind):
            return self._arrow.timestamp("us", tz=kind.tz)
        return self._arrow.duration("us") if types.is_duration(kind) else self._arrow.time64("us")

    def _with_times(self, batch: Any) -> Any:
        """The same with times that Python has."""
        for number, column in enumerate(self._schema):
            kind = self._in_microseconds(column.type)
            if kind is None:
                continue
            try:
                batch = batch.set_column(number, column.name, batch.column(number).cast(kind))
            except self._arrow.ArrowInvalid as error:
                raise CommandError(
                    f"{self._name}: column {column.name!r} has a time with nanoseconds ({first_line(error)}), which "
                    "Python does not have: cast them to microseconds",
                    exit_code=1,
                ) from error
        return batch

    def items(self) -> Iterator[Item]:
        """The rows, read as they are asked for.

        Raises:
            CommandError: it cannot be read any further.
        """
        number = 0
        try:
            for batch in self._batches():
                for begin in range(0, batch.num_rows, _AT_ONCE):
                    for row in self._with_times(batch.slice(begin, _AT_ONCE)).to_pylist():
                        number += 1
                        named = row.get(self._id_field)
                        yield Item(f"{self._name}:{number}", number if named is None else named, row)
        except (ValueError, OSError, self._arrow.ArrowException) as error:
            raise CommandError(f"{self._name}:{number + 1}: {first_line(error)}", exit_code=1) from error
