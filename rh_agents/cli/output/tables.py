"""Outputs that are tables: Parquet and Arrow, with the values that results have, or a sentence about the column.

A table says of each column what is in it before the first row, and of results that is known after the last one. So rows
wait beside the output in a file without a name, which no kill leaves behind: some thousand at a time, as a table of
their own. At the end the types that suit all of them are known. Then the output is written under another name, made
durable, and put in its place: it is complete, or it is what was there before.

Nothing is changed in silence. What goes into a column is read back and compared; what would be another value (a
moment without its zone, a number without its last digits) is refused, as is what has no type in common with the rest.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, Self

from rh_agents.cli.arrow import arrow_module, first_line
from rh_agents.cli.errors import CommandError, OutputFailed, TableRefused
from rh_agents.cli.output.protected_files import ProtectedFiles
from rh_agents.cli.output.results import refuse_to_overwrite
from rh_agents.cli.output.table_values import difference, id_of, table_value, weight
from rh_agents.stores._files import FILE_MODE, create_file

__all__ = ["TableWriter"]

ROWS_TOGETHER: Final = 1024
_BYTES_TOGETHER: Final = 8 * 1024 * 1024
"""So many rows, or bytes of texts in them, are in memory before they go to the file."""
_ROW_GROUP: Final = 64 * 1024 * 1024
"""Bytes of a part of the output that is written, and read, at once."""
_MOST_FIELDS: Final = 2000
"""Of all objects in results. Where keys are data, such as the names of people, there are more and more of them."""
_ELSEWHERE: Final = "write lines of JSON instead (-o OUT.jsonl); all results are recorded"


class TableWriter:
    """A table of results that is to be made.

    Args:
        path: where it will be.
        form: `Parquet` or `Arrow`.
        columns: their names, in the order in which they stand.
        force: there may be a file of that name already.
        protected: files that it must not be.

    Raises:
        CommandError: it cannot be written there, or pyarrow is not installed.
    """

    def __init__(
        self, path: str, form: str, columns: tuple[str, ...], *, force: bool, protected: ProtectedFiles
    ) -> None:
        self.name: str = path
        self.form: str = f"a row of {form}"
        self._is_parquet = form == "Parquet"
        what = f"-o {path} is a {form} file"
        self._arrow = arrow_module(what)
        self._ipc = arrow_module(what, "pyarrow.ipc")
        self._parquet = arrow_module(what, "pyarrow.parquet") if self._is_parquet else None
        self._real = os.path.realpath(path)
        self._part = f"{self._real}.part"
        _refuse(path, force=force, protected=protected)
        try:
            self._spool: IO[bytes] = tempfile.TemporaryFile(dir=os.path.dirname(self._real))  # noqa: SIM115
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error
        self._rows: list[dict[str, Any]] = []
        self._weight = 0
        self._ids_are_texts = False
        arrow = self._arrow
        kinds = {
            "id": arrow.int64(), "index": arrow.int64(), "ok": arrow.bool_(), "error": arrow.string(),
            "attempts": arrow.int64(), "seconds": arrow.float64(), "requeued": arrow.bool_(),
        }  # fmt: skip
        self._schema: Any = arrow.schema([(name, kinds.get(name, arrow.null())) for name in columns])

    def restart(self) -> None:
        """Remove what an execution that was killed while it finished the table has left."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._part)

    def formed(self, record: Mapping[str, Any], /) -> dict[str, Any]:
        """The record with values that columns can have.

        Raises:
            ValueError: one of them has none.
        """
        row = {name: table_value(record.get(name)) for name in self._schema.names}
        row["id"] = id_of(row["id"])
        if "requeued" in row:
            row["requeued"] = bool(row["requeued"])
        return row

    async def write(self, row: dict[str, Any], /) -> None:
        """Take a row.

        Raises:
            OutputFailed: it does not fit to the others, or there is no room.
        """
        self._rows.append(row)
        self._weight += weight(row)
        if len(self._rows) >= ROWS_TOGETHER or self._weight >= _BYTES_TOGETHER:
            self._put_aside()

    async def finish(self) -> None:
        """Write the table.

        Raises:
            OutputFailed: it cannot be.
        """
        self._put_aside()
        self._expect_columns()
        with self._failures():
            try:
                self._write_part()
                os.replace(self._part, self._real)
                _sync_folder(os.path.dirname(self._real))
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    # -- while results come ---------------------------------------------------------------------------------------

    def _put_aside(self) -> None:
        rows, self._rows, self._weight = self._rows, [], 0
        if not rows:
            return
        if not self._ids_are_texts and any(type(row["id"]) is str for row in rows):
            self._ids_are_texts = True
            names = self._schema.get_field_index("id")
            self._schema = self._schema.set(names, self._arrow.field("id", self._arrow.string()))
        columns = [self._column(name, rows) for name in self._schema.names]
        batch = self._arrow.RecordBatch.from_arrays(columns, names=self._schema.names)
        self._schema = self._schema_with(batch.schema)
        with self._failures():
            self._spool.seek(0, os.SEEK_END)
            with self._ipc.new_stream(self._spool, batch.schema) as stream:
                stream.write_batch(batch)

    def _column(self, name: str, rows: list[dict[str, Any]]) -> Any:
        values = [row[name] for row in rows]
        known = self._schema.field(name).type
        if name == "id" and self._ids_are_texts:
            values = [value if value is None else str(value) for value in values]
        kind = known if name not in ("result", "input") else None
        column = self._array(name, values, kind, [row["id"] for row in rows])
        changed = difference(values, column.to_pylist())
        if changed is not None:
            raise self._refusal(name + changed, "would be another value there")
        return column

    def _array(self, name: str, values: list[Any], kind: Any, ids: list[Any]) -> Any:
        errors = (ValueError, TypeError, OverflowError, self._arrow.ArrowException)

        def fails(number: int) -> bool:
            try:
                self._arrow.array(values[: number + 1], kind)
            except errors:
                return True
            return False

        try:
            return self._arrow.array(values, kind)
        except errors as error:
            first = bisect.bisect_left(range(len(values)), True, key=fails)
            raise self._refusal(name, f"{first_line(error)}; the item {ids[first]!r} has it") from error

    def _schema_with(self, schema: Any) -> Any:
        try:
            found = self._arrow.unify_schemas([self._schema, schema], promote_options="permissive")
        except (ValueError, TypeError, self._arrow.ArrowException) as error:
            raise TableRefused(
                f"cannot write {self.name}: its results have no type in common ({first_line(error)}): {_ELSEWHERE}"
            ) from error
        fields = sum(map(_fields_of, found))
        if fields > _MOST_FIELDS:
            raise TableRefused(
                f"cannot write {self.name}: the objects in it have more than {_MOST_FIELDS:,} different fields in all: "
                f"{_ELSEWHERE}"
            )
        return found

    def _refusal(self, column: str, problem: str) -> OutputFailed:
        what = f"column {column!r} cannot keep a value ({problem})"
        return TableRefused(f"cannot write {self.name}: {what}: {_ELSEWHERE}")

    # -- at the end -----------------------------------------------------------------------------------------------

    def _expect_columns(self) -> None:
        """Parquet has no objects without fields."""
        empty = next((name for field in self._schema for name in _empty_objects(field)), None)
        if self._is_parquet and empty is not None:
            raise self._refusal(empty, "all objects in it are empty, which Parquet does not know")

    def _write_part(self) -> None:
        mode = FILE_MODE
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(os.stat(self._real).st_mode)
        descriptor = create_file(self._part, os.O_WRONLY | getattr(os, "O_BINARY", 0), mode)
        with open(descriptor, "wb") as file:
            made = self._parquet.ParquetWriter if self._parquet is not None else self._ipc.new_file
            with made(file, self._schema) as table:
                for part in self._parts():
                    table.write_table(part)
            file.flush()
            os.fsync(file.fileno())

    def _parts(self) -> Iterator[Any]:
        """The rows that were put aside, as tables of the size that is written at once."""
        gathered: list[Any] = []
        size = 0
        for batch in self._batches():
            gathered.append(batch)
            size += batch.nbytes
            if size >= _ROW_GROUP:
                yield self._arrow.Table.from_batches(gathered, self._schema)
                gathered, size = [], 0
        if gathered:
            yield self._arrow.Table.from_batches(gathered, self._schema)

    def _batches(self) -> Iterator[Any]:
        end = self._spool.seek(0, os.SEEK_END)
        self._spool.seek(0)
        while self._spool.tell() < end:
            with self._ipc.open_stream(self._spool) as stream:
                for batch in stream:
                    yield batch if batch.schema.equals(self._schema) else self._in_final_types(batch)

    def _in_final_types(self, batch: Any) -> Any:
        """The same rows with the types that suit all."""
        ids = batch.column(batch.schema.get_field_index("id")).to_pylist()
        columns = []
        for field in self._schema:
            column = batch.column(batch.schema.get_field_index(field.name))
            if not column.type.equals(field.type):
                values = column.to_pylist()
                if field.name == "id":
                    values = [value if value is None else str(value) for value in values]
                column = self._array(field.name, values, field.type, ids)
                changed = difference(values, column.to_pylist())
                if changed is not None:
                    raise self._refusal(field.name + changed, "would be another value beside those of other rows")
            columns.append(column)
        return self._arrow.RecordBatch.from_arrays(columns, schema=self._schema)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OutputFailed:
            raise
        except (OSError, ValueError, self._arrow.ArrowException) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
            raise OutputFailed(f"cannot write {self.name}: {reason}; all results are recorded") from error


def _refuse(path: str, *, force: bool, protected: ProtectedFiles) -> None:
    """Refuse a place where the table cannot be, or must not be."""
    protected.refuse_name(path)
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise CommandError(f"cannot write {path}: there is no directory {folder}")
    if not os.path.lexists(path):
        return
    if not os.path.isfile(path):
        raise CommandError(f"cannot write {path}: a table can only be a file")
    refuse_to_overwrite(path, force=force)
    try:
        with open(path, "rb") as file:
            protected.refuse_open(path, file.fileno())
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error


def _fields_of(field: Any) -> int:
    kind = field.type
    return 1 + sum(_fields_of(kind.field(number)) for number in range(kind.num_fields))


def _empty_objects(field: Any, path: str = "") -> Iterator[str]:
    kind, name = field.type, f"{path}{field.name}"
    if str(kind) == "struct<>":
        yield name
    for number in range(kind.num_fields):
        yield from _empty_objects(kind.field(number), f"{name}.")


def _sync_folder(folder: str) -> None:
    """The name of the file is durable as well; where a system has no such thing, it does that by itself."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
