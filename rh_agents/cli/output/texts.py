"""Outputs of text: lines of JSON, records of CSV, and either of them compressed.

Compressed lines go to the file a block at a time, each of which is an archive of its own (a member of gzip, a frame of
zstd) and is written whole or not at all: whatever kills the process, what is in the file can be unpacked.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from pydantic_core import to_json

from rh_agents.cli.output.results import LineWriter, to_line

__all__ = ["Blocks", "Rows", "csv_line", "csv_record", "gzip_member"]

_BLOCK: Final = 256 * 1024
"""Bytes of lines that are compressed together."""
_LONGEST_WAIT: Final = 5.0
"""Seconds after which a line goes to the file with the next one, however few there are."""


class Rows:
    """Rows as lines of text in a file that is open.

    Args:
        lines: the file.
        form: what rows are written as, for people.
        line_of: a row of a record, with its line feed.
        header: what comes before the first row.
        blocks: compresses them; None leaves them as they are.
    """

    def __init__(
        self,
        lines: LineWriter,
        form: str = "JSON",
        line_of: Callable[[Mapping[str, Any]], bytes] = to_line,
        *,
        header: bytes = b"",
        blocks: Blocks | None = None,
    ) -> None:
        self.name: str = lines.name
        self.form: str = form
        self.formed: Callable[[Mapping[str, Any]], bytes] = line_of
        self._lines = lines
        self._header = header
        self._blocks = blocks

    def restart(self) -> None:
        """Forget what an earlier execution wrote, and write the header.

        Raises:
            OutputFailed: the system does not allow it.
        """
        self._lines.restart()
        if self._header and self._blocks is None:
            self._lines.write_now(self._header, 0)
        elif self._blocks is not None:
            self._blocks.add(self._header, 0)

    async def write(self, line: bytes, /) -> None:
        """Write a row.

        Raises:
            OutputFailed: it could not be written.
        """
        if self._blocks is None:
            await self._lines.write(line)
        elif self._blocks.add(line):
            await self._lines.write(*self._blocks.taken())

    async def finish(self) -> None:
        """Write what waits for others to be compressed with them.

        Raises:
            OutputFailed: it could not be written.
        """
        if self._blocks is not None and (rest := self._blocks.taken())[0]:
            await self._lines.write(*rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *what: object) -> None:
        self._lines.__exit__(*what)


class Blocks:
    """Lines that are compressed together.

    Args:
        compress: makes an archive of bytes.
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, compress: Callable[[bytes], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        self._compress = compress
        self._clock = clock
        self._waiting = bytearray()
        self._lines = 0
        self._since = clock()

    def add(self, text: bytes, lines: int = 1) -> bool:
        """Add lines, which are so many. Whether it is time to take what has gathered."""
        if not self._waiting:
            self._since = self._clock()
        self._waiting += text
        self._lines += lines
        return len(self._waiting) >= _BLOCK or self._clock() - self._since >= _LONGEST_WAIT

    def taken(self) -> tuple[bytes, int]:
        """What has gathered, as an archive, and how many lines are in it; none if nothing has."""
        text, lines = bytes(self._waiting), self._lines
        self._waiting.clear()
        self._lines = 0
        return self._compress(text) if text else b"", lines


def gzip_member(text: bytes) -> bytes:
    """An archive of its own, the same for the same text: without the time of day."""
    return gzip.compress(text, compresslevel=6, mtime=0)


# -- CSV --------------------------------------------------------------------------------------------------------------


def csv_record(columns: tuple[str, ...], separator: str) -> Callable[[Mapping[str, Any]], bytes]:
    """What makes a line of CSV of a record.

    A text is its own field; what is missing is an empty one; other values are written as JSON writes them, in which
    numbers that JSON does not know are NaN, Infinity and -Infinity. `requeued` is false where a record does not say it.
    """

    def line_of(record: Mapping[str, Any]) -> bytes:
        fields = {"requeued": False, **record}
        return csv_line([_field(fields.get(name)) for name in columns], separator)

    return line_of


def csv_line(fields: list[str], separator: str) -> bytes:
    """The line of these fields, in quotes where they need some."""
    line = io.StringIO()
    csv.writer(line, delimiter=separator, lineterminator="\n").writerow(fields)
    return line.getvalue().encode()


def _field(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    text = to_json(value, fallback=repr, inf_nan_mode="constants").decode()
    return str(json.loads(text)) if text.startswith('"') else text
