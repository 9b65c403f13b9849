"""Lines of an input as text, and what an item is made of."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input.archives import UnreadableArchive

__all__ = ["BYTE_ORDER_MARK", "LONGEST_LINE", "Format", "Item", "Lines"]

LONGEST_LINE = 16 * 1024 * 1024
"""Bytes. Longer lines are failed items, so that a file without line ends cannot fill the memory."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Format(StrEnum):
    """How the input is written."""

    AUTO = "auto"
    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"
    PARQUET = "parquet"
    ARROW = "arrow"
    EXCEL = "excel"


class Item(NamedTuple):
    """One record of the input.

    Attributes:
        position: where it is, for people: `reviews.jsonl:17`. In a CSV file the line on which the record begins.
        id: what its id field says, else the number of its line, counted from 1; of a plain line the line itself.
        value: the record: any JSON value, a mapping of the CSV header to texts, or the text of a line.
        problem: why there is no value; None if there is one.
    """

    position: str
    id: Any
    value: Any
    problem: str | None = None


_new_tuple = tuple.__new__  # a third of the time that a NamedTuple takes to be called


class Lines:
    """The lines of a stream as text. What is wrong with the line that was given last is in `problem`."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.name: str = name
        self.number: int = 0
        """Of the line that was given last, counted from 1."""
        self.problem: str | None = None
        self.kept: list[str] | None = None
        """The lines given since this was set to an empty list."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._stream.readline(LONGEST_LINE + 1)
        except OSError as error:  # an archive that cannot be read raises one as well
            raise self._unreadable(error) from error
        if not line:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if line.isascii() and len(line) <= LONGEST_LINE and self.kept is None:
            return line.decode("ascii")  # as nearly all of them are
        if len(line) > LONGEST_LINE:
            self.problem = f"the line is longer than {LONGEST_LINE // 1024**2} MiB"
            while line and not line.endswith(b"\n"):
                line = self._read()
            return "\n"
        text = self._decoded(line)
        if self.kept is not None:
            self.kept.append(text)
        return text

    def _decoded(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self.problem = f"not valid UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}"
            return line.decode(errors="replace")

    def _read(self) -> bytes:
        try:
            return self._stream.readline(LONGEST_LINE + 1)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> CommandError:
        if isinstance(error, UnreadableArchive):
            return CommandError(f"{self.name}:{self.number + 1}: {error}", exit_code=1)
        return CommandError(f"cannot read {self.name}: {error.strerror}", exit_code=1)

    def take_problem(self) -> str | None:
        """What is wrong with the lines given since this was asked last."""
        problem, self.problem = self.problem, None
        return problem

    def item(self, number: int, value: Any, id_field: str = "") -> Item:
        """An item at line `number`."""
        named = value.get(id_field) if isinstance(value, dict) else None
        return _new_tuple(Item, (f"{self.name}:{number}", number if named is None else named, value, None))

    def bad_item(self, number: int, problem: str) -> Item:
        """An item at line `number` that cannot be read."""
        return Item(f"{self.name}:{number}", number, None, problem)
