"""Input files and standard input: how they are opened, and what can be seen before anything is read."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol, Self

from pydantic_core import from_json

from rh_agents.cli.errors import CommandError, close_names
from rh_agents.cli.input.archives import Unpacked, UnreadableArchive, is_archive
from rh_agents.cli.input.columnar import Columnar, columnar_format, is_data_set
from rh_agents.cli.input.detection import (
    Beginning,
    content_format,
    looks_like_json,
    named_format,
    refuse_json_over_lines,
    refuse_what_is_no_text,
)
from rh_agents.cli.input.items import read_items, results_of
from rh_agents.cli.input.lines import BYTE_ORDER_MARK, Format, Item
from rh_agents.cli.input.queries import file_of_database, is_database, open_query
from rh_agents.cli.input.tables import column_names, found_separator, shown_separator, table_separator
from rh_agents.cli.input.workbooks import Workbook, is_workbook

__all__ = ["Closable", "Input", "InputOptions", "file_of_input", "is_stream", "open_input"]

_COUNTED_UP_TO = 256 * 1024 * 1024
"""Bytes. The lines of larger files are not counted in advance."""
_LOOKED_AT = 64 * 1024
"""Bytes at the beginning that have to show what an input is."""
_STREAM = "-"


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How an input is to be read, as its user says.

    Attributes:
        form: how it is written; AUTO leaves that to its name, and else to its content.
        id_field: the field that names an item.
        must_have_id: the user has named that field, so that there must be one of this name.
        separator: what separates the fields of a table; None leaves it to the content.
        report: takes lines for people about what is doubtful and read all the same.
        sheet: of a workbook of Excel; None if there is one only.
        query: what to ask a database, which the input then is; None of files.
        results: it is the output of another `map`, and its results are the items.
        is_older: it belongs to a run of an earlier version, which knew a few endings of names and looked at nothing
            else. Read in another way, its items would be others.
    """

    form: Format = Format.AUTO
    id_field: str = "id"
    must_have_id: bool = False
    separator: str | None = None
    report: Callable[[str], None] | None = None
    is_older: bool = False
    sheet: str | None = None
    query: str | None = None
    results: bool = False


class Closable(Protocol):
    """What an input comes from."""

    def close(self) -> None:
        """Leave it."""


@dataclass(frozen=True, slots=True)
class Input:
    """An input that has been opened; its block closes a file.

    A pipe stays open: a thread may be waiting in it, and closing it would have to wait as well.

    Attributes:
        name: for people.
        items: the records, read when they are asked for.
        may_block: whether the next record may be long in coming, as from a pipe.
        total: how many records there are, if that is known.
        stream: where they come from; of a database, its connection.
        form, separator: how it is written.
        sheet: the one that is read of a workbook of Excel.
        in_use: the files that it is, by their paths or descriptors, for an output that must be none of them.
        is_empty: whether it is a text that has ended before it began.
    """

    name: str
    items: Iterator[Item]
    may_block: bool
    total: int | None
    stream: Closable
    form: Format
    separator: str
    in_use: tuple[str | int, ...] = ()
    sheet: str | None = None
    is_empty: bool = False

    @property
    def found(self) -> dict[str, str]:
        """The options of `map` that say how it is written; none, if its name alone says it in every version."""
        if self.form is Format.AUTO:  # of a query or a folder, which can only be read in one way
            return {}
        if self.form is _by_older_names(_STREAM if self.name == "<stdin>" else self.name) and self.separator == ",":
            return {}
        if self.sheet is not None:
            return {"form": self.form.value, "sheet": self.sheet}
        separator = "tab" if self.separator == "\t" else self.separator
        return {"form": self.form.value} | ({"separator": separator} if self.form is Format.CSV else {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.may_block or self.form is Format.AUTO:
            self.stream.close()


def is_stream(path: str) -> bool:
    """Whether what has this name is another thing each time: standard input, or what a shell puts in for `<(…)`."""
    if path == _STREAM:
        return True
    real = os.path.realpath(path)
    return real.startswith(("/proc/", "/dev/fd/")) or (path.startswith("/dev/") and not os.path.isfile(real))


def file_of_input(path: str) -> str | None:
    """The real path of an input, also if a shell made it standard input; None if it is no file."""
    real = os.path.realpath("/dev/stdin" if path == _STREAM else path)
    try:
        is_same = path != _STREAM or os.path.samestat(os.fstat(0), os.stat(real))
    except OSError:
        return None
    return real if is_same and os.path.isfile(real) else None


def open_input(path: str, reading: InputOptions | None = None) -> Input:
    """Open a file, or standard input (`-`), and see what it is.

    Of a pipe the first line is waited for.

    Raises:
        CommandError: it cannot be read, is not text, or may be read in several ways.
    """
    reading = reading or InputOptions()
    opened = _open(path, reading)
    return dataclasses.replace(opened, items=results_of(opened.items)) if reading.results else opened


def _open(path: str, reading: InputOptions) -> Input:
    _expect_options(path, reading)
    if reading.query is not None:
        return _open_query(path, reading.query, reading)
    if os.path.isdir(path) and is_data_set(path):
        return _open_folder(path, reading)
    name = "<stdin>" if path == _STREAM else path
    try:
        # Not sys.stdin: a thread that waits in its buffer would hold the lock that Python takes at exit.
        stream: io.BufferedReader = open(0, "rb", closefd=False) if path == _STREAM else open(path, "rb")  # noqa: SIM115
        is_file = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}") from error
    try:
        if reading.form is Format.EXCEL and not is_file:
            raise CommandError(f"{name} is a pipe, and a workbook of Excel is read from a file: name that")
        if is_file and (is_workbook(stream) or reading.form is Format.EXCEL):
            return _open_workbook(stream, name, reading)
        if reading.sheet is not None:
            raise CommandError(f"--sheet {reading.sheet}: {name} is no workbook of Excel")
        columnar = columnar_format(stream) if is_file else None
        if columnar is not None or reading.form in (Format.PARQUET, Format.ARROW):
            return _open_table(stream, name, columnar, reading)
        is_packed = is_file and is_archive(stream)
        if is_packed:
            beginning, stream = _beginning_of_archive(stream, name, path)
        elif is_file:
            beginning = _beginning_of_file(stream, name, path)
        else:
            beginning, stream = _beginning_of_pipe(stream, name)
        found = _Look(beginning, reading, path).found()
        total = _count(stream, found) if is_file and not is_packed else None
    except BaseException:
        if is_file:
            stream.close()
        raise
    items = read_items(
        stream,
        name,
        found.form,
        reading.id_field,
        separator=found.separator,
        report=reading.report,
        is_guess=reading.form is Format.AUTO,
    )
    return Input(
        name,
        items,
        not is_file,
        total,
        stream,
        found.form,
        found.separator,
        (stream.fileno(),),
        is_empty=beginning.is_all and not beginning.data,
    )


def _expect_options(path: str, reading: InputOptions) -> None:
    """Refuse what does not go together.

    Raises:
        CommandError: it does not.
    """
    if reading.query is None:
        if is_database(path) and not os.path.exists(path):
            raise CommandError(f"{path} is a database: say what to read of it, as in --query 'select * from …'")
    elif reading.form is not Format.AUTO or reading.separator is not None or reading.sheet is not None:
        raise CommandError("--query: rows of a database have no --format, --separator or --sheet: leave that out")


def _open_query(path: str, query: str, reading: InputOptions) -> Input:
    made = open_query(path, query, reading.id_field, must_have_id=reading.must_have_id)
    file = file_of_database(path)
    in_use = () if file is None else (file, f"{file}-wal", f"{file}-shm")
    return Input(path, made.items, made.may_block, None, made, Format.AUTO, ",", in_use)


def _open_folder(path: str, reading: InputOptions) -> Input:
    if reading.form not in (Format.AUTO, Format.ARROW) or reading.separator is not None or reading.sheet is not None:
        raise CommandError(f"{path} is a data set of Hugging Face: leave --format, --separator and --sheet out")
    table = Columnar.of_folder(path, reading.id_field, must_have_id=reading.must_have_id)
    return Input(path, table.items(), False, table.total, io.BytesIO(), Format.AUTO, ",")


def _open_workbook(stream: io.BufferedReader, name: str, reading: InputOptions) -> Input:
    if reading.form not in (Format.AUTO, Format.EXCEL) or reading.separator is not None:
        asked = Format.CSV if reading.separator is not None else reading.form
        raise CommandError(f"{name} is a workbook of Excel, so --format {asked.value} cannot read it: leave that out")
    if not is_workbook(stream):
        raise CommandError(f"{name} is no workbook of Excel, so --format excel cannot read it: leave that out")
    sheet = Workbook(stream, name, reading.sheet, reading.id_field, must_have_id=reading.must_have_id)
    return Input(name, sheet.items(), False, None, stream, Format.EXCEL, ",", (stream.fileno(),), sheet.sheet)


def _open_table(stream: io.BufferedReader, name: str, found: Format | None, reading: InputOptions) -> Input:
    asked = Format.CSV if reading.separator is not None else reading.form
    if found is None or asked not in (Format.AUTO, found):
        what = "no table of Parquet or Arrow in a file" if found is None else f"a file of {found.value.capitalize()}"
        raise CommandError(f"{name} is {what}, so --format {asked.value} cannot read it: leave that out")
    table = Columnar.of_file(stream, name, found, reading.id_field, must_have_id=reading.must_have_id)
    return Input(name, table.items(), False, table.total, stream, found, ",", (stream.fileno(),))


# -- the beginning ----------------------------------------------------------------------------------------------------


def _beginning_of_file(stream: io.BufferedReader, name: str, path: str) -> Beginning:
    begin = stream.tell()
    try:
        data = stream.read(_LOOKED_AT + 1)
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}") from error
    stream.seek(begin)
    return Beginning.of(name, "" if path == _STREAM else path, data[:_LOOKED_AT], is_all=len(data) <= _LOOKED_AT)


def _beginning_of_archive(stream: io.BufferedReader, name: str, path: str) -> tuple[Beginning, io.BufferedReader]:
    """What an archive begins with, and a stream that gives all that is in it. Of a cut one, as much as there is."""
    unpacked, data = Unpacked(stream, name), b""
    with contextlib.suppress(UnreadableArchive):  # it is raised again for the line that is read then
        while len(data) <= _LOOKED_AT and (more := unpacked.read(_LOOKED_AT + 1 - len(data))):
            data += more
    beginning = data[:_LOOKED_AT]
    found = Beginning.of(name, "" if path == _STREAM else path, beginning, is_all=len(data) <= _LOOKED_AT)
    return found, io.BufferedReader(_Again(data, unpacked), _LOOKED_AT)


def _beginning_of_pipe(stream: io.BufferedReader, name: str) -> tuple[Beginning, io.BufferedReader]:
    """What there is up to the end of the first line, and a stream that gives it once more."""
    raw = stream.detach()  # else it would be closed with the stream
    data, is_all = b"", False
    with _signals_interrupt():
        while b"\n" not in data.lstrip() and len(data) < _LOOKED_AT and not is_all:
            try:
                more = raw.read(_LOOKED_AT)
            except OSError as error:
                raise CommandError(f"cannot read {name}: {error.strerror}") from error
            data += more or b""
            is_all = more == b""
    return Beginning.of(name, "", data, is_all=is_all), io.BufferedReader(_Again(data, raw))


class _Again(io.RawIOBase):
    """What has been read of a stream, and then the rest of it."""

    def __init__(self, data: bytes, raw: Any) -> None:
        self._data = memoryview(data)
        self._raw = raw

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readinto(self, buffer: memoryview, /) -> int | None:  # type: ignore[override]
        """Fill the buffer as far as there is something."""
        if not self._data:
            read: int | None = self._raw.readinto(buffer)
            return read
        size = min(len(buffer), len(self._data))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        return size


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does, as it will when the job has begun."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


# -- what it is -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Found:
    """How an input is written."""

    form: Format
    separator: str = ","


@dataclass(slots=True)
class _Look:
    """Finds out how an input is written. What its user says counts, then its name, then its content."""

    beginning: Beginning
    reading: InputOptions
    path: str
    _text: str = field(init=False)

    def __post_init__(self) -> None:
        self._text = self.beginning.data.removeprefix(BYTE_ORDER_MARK).decode(errors="replace")

    def found(self) -> _Found:
        """How it is written.

        Raises:
            CommandError: it is not text, or may be read in several ways.
        """
        asked = self.reading.form is not Format.AUTO or self.reading.separator is not None
        refuse_what_is_no_text(self.beginning, is_asked=asked)
        named, separator = named_format(self.path)
        if self.reading.is_older:
            return _Found(_by_older_names(self.path))
        if asked:
            form: Format = Format.CSV if self.reading.form is Format.AUTO else self.reading.form
        else:
            form = self._as_content() if named is None else self._as_named(named)
        found = _Found(form, self._separator(separator or ",") if form is Format.CSV else ",")
        self._expect_id(found)
        return found

    def _as_named(self, named: Format) -> Format:
        beginning = self.beginning
        if named is Format.JSONL:
            is_json_file = self.path.lower().endswith(".json")
            refuse_json_over_lines(beginning, is_json_file=is_json_file, is_named=not is_json_file)
        lines = beginning.lines
        if named is Format.TEXT and lines and 2 * sum(map(looks_like_json, lines)) >= len(lines):
            raise CommandError(
                f"{beginning.name} is named like plain text, and its lines look like JSON: say --format jsonl, or "
                "--format text to send each line as it is"
            )
        return named

    def _as_content(self) -> Format:
        beginning, is_piped = self.beginning, is_stream(self.path)
        refuse_json_over_lines(beginning, is_json_file=False, is_named=False)
        form = content_format(beginning, is_stream=self.path == _STREAM)
        if form is Format.JSONL:
            is_certain = any(looks_like_json(line) or line.startswith('"') for line in beginning.lines)
            if beginning.lines and not (is_certain and self.path == _STREAM):  # numbers may be meant as texts
                self._report(f"{beginning.name} is read as JSON lines, since it contains them; --format overrides this")
            return form
        separator = table_separator(self._text, is_all=beginning.is_all)
        if separator is not None:
            raise CommandError(
                f"{beginning.name} looks like a table whose fields are separated by {shown_separator(separator)}: say "
                "--format csv, or --format text to send each line as it is"
            )
        if is_piped:
            self._report(f"{beginning.name} is read as plain text, an item a line; --format overrides this")
        return form

    def _separator(self, usual: str) -> str:
        given = self.reading.separator
        if given is not None:
            return given
        found = found_separator(self._text, usual, self.beginning.name, is_all=self.beginning.is_all)
        if found != usual:
            shown = shown_separator(found)
            self._report(f"{self.beginning.name}: the fields are separated by {shown}; --separator overrides this")
        return found

    def _expect_id(self, found: _Found) -> None:
        """Refuse the name of an id field that no record has."""
        wanted = self.reading.id_field
        if not self.reading.must_have_id or not self.beginning.lines:
            return
        if found.form is Format.TEXT:
            raise CommandError(f"--id-field {wanted}: lines of plain text have no fields; a line is its own id")
        names = column_names(self._text, found.separator) if found.form is Format.CSV else self._fields()
        if names is not None and wanted not in names:
            are = ", ".join(names[:20]) or "none"
            more = ", …" if len(names) > 20 else ""
            raise CommandError(
                f"--id-field {wanted}: {self.beginning.name} has no such field; there are {are}{more}"
                f"{close_names(wanted, names)}"
            )

    def _fields(self) -> list[str] | None:
        """The names of the fields in the first JSON lines; None if none of them can be read."""
        names: dict[str, None] = {}
        seen = False
        for line in self.beginning.lines:
            try:
                value = from_json(line)
            except ValueError:
                continue
            seen = True
            names.update(dict.fromkeys(value) if isinstance(value, dict) else {})
        return list(names) if seen else None

    def _report(self, text: str) -> None:
        if self.reading.report is not None:
            self.reading.report(text)


_OLDER_NAMES = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".json": Format.JSONL, ".csv": Format.CSV}


def _by_older_names(path: str) -> Format:
    if path == _STREAM:
        return Format.JSONL
    return _OLDER_NAMES.get(os.path.splitext(path)[1].lower(), Format.TEXT)


def _count(stream: io.BufferedReader, found: _Found) -> int | None:
    """How many records there are, but for blank lines; None where that takes long or lines do not show it."""
    if os.fstat(stream.fileno()).st_size > _COUNTED_UP_TO:
        return None
    is_table = found.form is Format.CSV
    begin = stream.tell()
    lines, last = 0, b"\n"
    while block := stream.read(1 << 20):
        lines += block.count(b"\n")
        last = block[-1:]
        if is_table and b'"' in block:  # line ends may be part of a field
            stream.seek(begin)
            return None
    stream.seek(begin)
    lines += last != b"\n"
    return max(0, lines - is_table)
