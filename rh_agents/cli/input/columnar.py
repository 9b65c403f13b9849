"""Parquet and Arrow files, data sets in folders: their rows as items, a few at a time, with the values in them.

A row is a mapping from the names of the columns to values of Python: integers, floats (NaN is NaN), texts, truth
values, decimals, dates and times with their zones, bytes, lists and mappings; what is missing is None. What Python has
no exact value for (a time with nanoseconds) is refused by its column. pyarrow reads them, and is imported only here.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Self

from rh_agents.cli.arrow import arrow_module, first_line
from rh_agents.cli.errors import CommandError, close_names
from rh_agents.cli.input.lines import Format, Item

__all__ = ["Columnar", "columnar_format", "is_data_set"]

_AT_ONCE: Final = 1024
"""Rows that are in memory as values of Python."""
_STREAM: Final = b"\xff\xff\xff\xff"
_MAGIC: Final = {b"PAR1": Format.PARQUET, b"ARROW1": Format.ARROW, _STREAM: Format.ARROW}


def columnar_format(stream: io.BufferedReader) -> Format | None:
    """What kind of table a file begins as; None if it is none of these."""
    begin = stream.peek(8)
    return next((form for magic, form in _MAGIC.items() if begin.startswith(magic)), None)


class _Table(NamedTuple):
    """Where the rows of a table are: what columns it has, what gives its batches, and how many rows there are."""

    schema: Any
    batches: Callable[[], Iterator[Any]]
    total: int | None = None


class Columnar:
    """A table that is open.

    Args:
        name: of the input, for people.
        what: it is, for people.
        opened: opens it.
        id_field: the column that names an item.
        must_have_id: there must be one of this name.

    Raises:
        CommandError: pyarrow is not installed, or the table is damaged, or has columns that cannot be items.
    """

    def __init__(
        self, name: str, what: str, opened: Callable[[str], _Table], id_field: str, *, must_have_id: bool
    ) -> None:
        self._name = name
        self._id_field = id_field
        self._arrow = arrow_module(what)
        try:
            table = opened(what)
        except (ValueError, KeyError, TypeError, OSError, self._arrow.ArrowException) as error:
            raise CommandError(f"{name} is cut or damaged: {first_line(error)}: get it again") from error
        self._schema = table.schema
        self._batches = table.batches
        self.total: int | None = table.total
        """How many rows there are; None where the file does not say."""
        self._expect_columns(must_have_id)

    @classmethod
    def of_file(cls, stream: io.BufferedReader, name: str, form: Format, id_field: str, *, must_have_id: bool) -> Self:
        """That of a file that is open, which is PARQUET or ARROW."""
        what = f"{name} is {_NAMES[form]} file"
        read = _arrow_table if form is Format.ARROW else _parquet_table
        return cls(name, what, lambda what: read(stream, what), id_field, must_have_id=must_have_id)

    @classmethod
    def of_folder(cls, folder: str, id_field: str, *, must_have_id: bool) -> Self:
        """That of a data set of Hugging Face, as `save_to_disk` writes it: Arrow streams, and a list of them."""
        what = f"{folder} is a data set of Hugging Face"
        return cls(folder, what, lambda what: _table_of_folder(folder, what), id_field, must_have_id=must_have_id)

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


# -- where tables are -------------------------------------------------------------------------------------------------

_NAMES: Final = {Format.PARQUET: "a Parquet", Format.ARROW: "an Arrow"}


def _parquet_table(stream: io.BufferedReader, what: str) -> _Table:
    file = arrow_module(what, "pyarrow.parquet").ParquetFile(stream)
    return _Table(file.schema_arrow, lambda: file.iter_batches(batch_size=_AT_ONCE), file.metadata.num_rows)


def _arrow_table(stream: io.BufferedReader, what: str) -> _Table:
    ipc = arrow_module(what, "pyarrow.ipc")
    if stream.peek(len(_STREAM)).startswith(_STREAM):
        batches = ipc.open_stream(stream)
        return _Table(batches.schema, lambda: iter(batches))
    reader = ipc.open_file(stream)
    return _Table(reader.schema, lambda: map(reader.get_batch, range(reader.num_record_batches)))


def is_data_set(folder: str) -> bool:
    """Whether a folder was written by `save_to_disk` of Hugging Face."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (_STATE, _SPLITS))


_STATE: Final = "state.json"
_SPLITS: Final = "dataset_dict.json"


def _table_of_folder(folder: str, what: str) -> _Table:
    ipc = arrow_module(what, "pyarrow.ipc")
    files = [os.path.join(folder, name) for name in _files_of(folder)]

    def batches() -> Iterator[Any]:
        for path in files:
            with open(path, "rb") as file:
                yield from ipc.open_stream(file)

    if not files:
        raise CommandError(f"{what} without data")
    with open(files[0], "rb") as file:
        return _Table(ipc.open_stream(file).schema, batches)


def _files_of(folder: str) -> list[str]:
    """The names of the files with the rows, in their order."""
    splits = os.path.join(folder, _SPLITS)
    if os.path.isfile(splits):
        names = [str(name) for name in _json(splits).get("splits", [])]
        first = os.path.join(folder, names[0] if names else "…")
        raise CommandError(f"{folder} is a data set in parts ({', '.join(names)}): name one of them, as in {first}")
    state = _json(os.path.join(folder, _STATE))
    if state.get("_indices_data_files"):
        raise CommandError(
            f"{folder} is a data set of an old version, with an order of its own: write it again with save_to_disk"
        )
    names = [str(each["filename"]) for each in state.get("_data_files", [])]
    outside = next((name for name in names if name != os.path.basename(name)), None)
    if outside is not None:
        raise CommandError(f"{folder} names a file outside of it: {outside}")
    return names


def _json(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    if not isinstance(found, dict):
        raise ValueError(f"{os.path.basename(path)} has no object in it")
    return found
