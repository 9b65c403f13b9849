"""Records: from the bytes of an input to items, each with its place, or with its problem.

What is defined, whatever the format: UTF-8, with or without a byte order mark; lines end with LF or CRLF, the last one
may end with the file; blank lines are no items, though they count for line numbers. A line that is not UTF-8 or longer
than `LONGEST_LINE` is a failed item, and the next line is read as if nothing had happened.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

from pydantic_core import from_json

from rh_agents.cli.errors import CommandError

__all__ = ["BYTE_ORDER_MARK", "LONGEST_LINE", "Format", "Item", "read_items"]

LONGEST_LINE = 16 * 1024 * 1024
"""Bytes. Longer lines are failed items, so that a file without line ends cannot fill the memory."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Format(StrEnum):
    """How the input is written."""

    AUTO = "auto"
    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Item:
    """One record of the input.

    Attributes:
        place: where it stands, for people: `reviews.jsonl:17`. In a CSV file the line on which the record begins.
        id: what its id field says, else the number of its line, counted from 1.
        value: the record: any JSON value, a mapping of the CSV header to texts, or the text of a line.
        problem: why there is no value; None if there is one.
    """

    place: str
    id: Any
    value: Any
    problem: str | None = None


def read_items(stream: BinaryIO, name: str, form: Format, id_field: str = "id") -> Iterator[Item]:
    """The records of a stream of bytes.

    Raises:
        CommandError: it cannot be read any further.
    """
    lines = _Lines(stream, name)
    if form is Format.CSV:
        return _csv_items(lines, id_field)
    if form is Format.TEXT:
        return _text_items(lines)
    return _json_items(lines, id_field)


class _Lines:
    """The lines of a stream as text. What is wrong with the line that was given last stands in `problem`."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.name = name
        self.number = 0
        """Of the line that was given last, counted from 1."""
        self.problem: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._read()
        if not line:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if len(line) > LONGEST_LINE:
            self.problem = f"the line is longer than {LONGEST_LINE // 1024**2} MiB"
            while line and not line.endswith(b"\n"):
                line = self._read()
            return "\n"
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self.problem = f"not valid UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}"
            return line.decode(errors="replace")

    def _read(self) -> bytes:
        try:
            return self._stream.readline(LONGEST_LINE + 1)
        except OSError as error:
            raise CommandError(f"cannot read {self.name}: {error.strerror}", exit_code=1) from error

    def take_problem(self) -> str | None:
        """What is wrong with the lines given since this was asked last."""
        problem, self.problem = self.problem, None
        return problem

    def item(self, number: int, value: Any, id_field: str = "") -> Item:
        """An item at line `number`."""
        named = value.get(id_field) if isinstance(value, dict) else None
        return Item(f"{self.name}:{number}", number if named is None else named, value)

    def bad_item(self, number: int, problem: str) -> Item:
        """An item at line `number` that cannot be read."""
        return Item(f"{self.name}:{number}", number, None, problem)


def _json_items(lines: _Lines, id_field: str) -> Iterator[Item]:
    for line in lines:
        problem = lines.take_problem()
        if problem is not None:
            yield lines.bad_item(lines.number, problem)
            continue
        line = line.strip(" \t\r\n")
        if not line:
            continue
        try:
            value = from_json(line)
        except ValueError as error:
            yield lines.bad_item(lines.number, f"not valid JSON: {_without_line(error)}")
        else:
            yield lines.item(lines.number, value, id_field)


def _without_line(error: ValueError) -> str:
    """The parser sees one line only, and calls it line 1."""
    return str(error).replace(" at line 1 column ", " at column ")


def _text_items(lines: _Lines) -> Iterator[Item]:
    for line in lines:
        problem = lines.take_problem()
        if problem is not None:
            yield lines.bad_item(lines.number, problem)
        elif line.strip():
            yield lines.item(lines.number, line.removesuffix("\n").removesuffix("\r"))


def _csv_items(lines: _Lines, id_field: str) -> Iterator[Item]:
    """The header gives the names. A record with more or fewer fields than it is a failed item."""
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    while True:
        begin = lines.number + 1
        try:
            fields, problem = next(reader), lines.take_problem()
        except StopIteration:
            return
        except csv.Error as error:
            fields, problem = [], lines.take_problem() or f"not valid CSV: {error}"
        if not header and (fields or problem):
            header = _checked_header(fields, problem, f"{lines.name}:{begin}")
        elif problem is not None:
            yield lines.bad_item(begin, problem)
        elif fields and len(fields) != len(header):
            yield lines.bad_item(begin, f"{_fields(len(fields))}, but the header names {len(header)}")
        elif fields:
            yield lines.item(begin, dict(zip(header, fields, strict=True)), id_field)


def _fields(number: int) -> str:
    return "1 field" if number == 1 else f"{number} fields"


def _checked_header(fields: list[str], problem: str | None, place: str) -> list[str]:
    names = [name.strip() for name in fields]
    if problem is None and not all(names):
        problem = "a column has no name"
    if problem is None and len(set(names)) < len(names):
        problem = f"two columns are named {next(name for name in names if names.count(name) > 1)!r}"
    if problem is not None:
        raise CommandError(f"{place}: the first line of a CSV file names its columns: {problem}")
    return names
