"""The output: a JSON line for each item, written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic_core import to_json

from rh_agents.cli.daemon_thread import DaemonThread
from rh_agents.cli.errors import BadInput, CommandError, OutputClosed, OutputFailed
from rh_agents.cli.input.lines import Item
from rh_agents.cli.output.protected_files import ProtectedFiles
from rh_agents.core.results import ExecutionResult
from rh_agents.stores._files import FILE_MODE, create_file

__all__ = [
    "LineWriter",
    "expect_standard_output",
    "open_output",
    "record_of",
    "refuse_to_overwrite",
    "to_line",
    "unwritable_record",
]


_SURE = getattr(select, "PIPE_BUF", 0)
"""Bytes that a pipe takes without waiting if it takes any; 0 where `select` knows no pipes."""


class LineWriter:
    """Writes lines: each one, or all that are given together, with a single `write` where the system takes it whole.

    If that fails on a file, what was written of a line is taken back: there are complete lines only. A full pipe is
    waited for in a thread, since its reader may take its time and what runs must continue meanwhile.
    """

    form: str = "JSON"

    def __init__(self, raw: io.RawIOBase, name: str, *, begins_anew: bool = False) -> None:
        self.name = name
        self._begins_anew = begins_anew
        self.lines: int = 0
        """How many have been written."""
        self._raw = raw
        self.is_file: bool = stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
        """Whether it is a file, to which nobody has to wait to write."""
        self._thread = None if self.is_file else DaemonThread("write the output")

    def restart(self) -> None:
        """Forget what a file had when it was opened, if it was opened for that.

        Raises:
            OutputFailed: the system does not allow it.
        """
        if not (self._begins_anew and self.is_file):
            return
        try:
            os.ftruncate(self._raw.fileno(), 0)
        except OSError as error:
            raise OutputFailed(f"cannot write {self.name}: {error.strerror}") from error

    def formed(self, record: Mapping[str, Any], /) -> bytes:
        """The line of a record; raises as `to_line` does."""
        return to_line(record)

    async def finish(self) -> None:
        """Every line has been written when `write` returned."""

    async def write(self, line: bytes, lines: int = 1, /) -> None:
        """Write one line, which ends with its line feed; or what has so many `lines` in it.

        Raises:
            OutputClosed: its reader has gone.
            OutputFailed: it could not be written.
        """
        if self._thread is None or self._has_room(len(line)):
            self.write_now(line, lines)
        else:
            await self._thread.start(lambda: self.write_now(line, lines))

    def write_now(self, line: bytes, lines: int = 1) -> None:
        """The same, waiting on the spot."""
        self.write_together([line], lines)

    def write_together(self, blocks: Sequence[bytes], lines: int = 1) -> None:
        """Write several lines, or what has so many `lines` in each, waiting on the spot.

        If that fails, the attribute `lines` says how many are complete.
        """
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        rest = memoryview(data)
        try:
            rest = rest[self._write_some(data) :]  # which is nearly always all of it
            while rest:
                rest = rest[self._write_some(rest) :]
        except BrokenPipeError as error:
            raise OutputClosed(f"{self.name} was closed") from error
        except OSError as error:
            self._keep_complete(blocks, lines, len(data) - len(rest))
            complete = "1 line is" if self.lines == 1 else f"{self.lines} lines are"
            raise OutputFailed(f"cannot write {self.name}: {error.strerror}; {complete} complete") from error
        self.lines += len(blocks) * lines

    def _keep_complete(self, blocks: Sequence[bytes], lines: int, written: int) -> None:
        """So many bytes of these blocks were written: count those that are complete, and take back the rest."""
        for block in blocks:
            if len(block) > written:
                break
            written -= len(block)
            self.lines += lines
        self._take_back(written)

    def _has_room(self, size: int) -> bool:
        """Whether the system says that this many bytes can be written without waiting."""
        if size > _SURE:
            return False
        with contextlib.suppress(ValueError):  # descriptors beyond what `select` can watch
            return bool(select.select([], [self._raw], [], 0)[1])
        return False

    def _write_some(self, data: bytes | memoryview) -> int:
        written = self._raw.write(data)
        if written is None:  # someone made this pipe non-blocking, and it is full
            select.select([], [self._raw], [])
            return 0
        return written

    def _take_back(self, written: int) -> None:
        if self.is_file and written:
            os.ftruncate(self._raw.fileno(), os.fstat(self._raw.fileno()).st_size - written)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()


class _Terminal(io.RawIOBase):
    """Standard output as it is when a line is written: while there is a bar, it keeps lines above the bar."""

    def write(self, data: Any, /) -> int:
        sys.stdout.write(bytes(data).decode())
        sys.stdout.flush()
        return len(data)

    def fileno(self) -> int:
        return sys.stdout.fileno()


def expect_standard_output() -> None:
    """Refuse to do something whose result could not be delivered.

    Raises:
        CommandError: standard output is closed.
    """
    if sys.stdout is None:
        raise CommandError("standard output is closed, and there is nowhere else to write to")


def open_output(path: str | None, *, force: bool, protected: ProtectedFiles | None = None) -> LineWriter:
    """Open a file to write lines to it, or standard output (None or `-`).

    With `force` a file may have content; it keeps that until `LineWriter.restart` is called. `protected` are the files
    that must not be written over even so.

    Raises:
        CommandError: it cannot be written, or it has content and `force` was not given, or it is one of those files.
    """
    protected = protected or ProtectedFiles()
    if path is None or path == "-":
        if sys.stdout is None:
            raise CommandError("standard output is closed: name a file with -o")
        if sys.stdout.isatty():
            return LineWriter(_Terminal(), "standard output")
        try:
            protected.refuse_open("standard output", 1)
            return LineWriter(open(1, "wb", buffering=0, closefd=False), "standard output")
        except OSError as error:
            raise CommandError(f"cannot write to standard output: {error.strerror}") from error
    protected.refuse_name(path)
    refuse_to_overwrite(path, force=force)
    try:
        raw = open(_opened(path), "wb", buffering=0)  # noqa: SIM115 - closed with the writer
    except OSError as error:
        folder = os.path.dirname(path)
        if isinstance(error, FileNotFoundError) and not os.path.isdir(folder):
            raise CommandError(f"cannot write {path}: there is no directory {folder}") from error
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
    try:
        protected.refuse_open(path, raw.fileno())
    except BaseException:
        raw.close()
        raise
    return LineWriter(raw, path, begins_anew=force)


def _opened(path: str) -> int:
    """The descriptor of a file: a new one is for its owner alone, one that is there keeps its permissions."""
    # Appending: every line goes to the end, whatever else writes there.
    flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        return create_file(path, flags)
    except FileExistsError:  # also a link that leads nowhere yet
        return os.open(path, flags | os.O_CREAT, FILE_MODE)


def refuse_to_overwrite(path: str, *, force: bool) -> None:
    """Results may have been paid for, so a file is written over only if that is asked for.

    Raises:
        CommandError: it has content and `force` was not given.
    """
    try:
        about = os.stat(path)
    except OSError:
        return  # opening it will tell
    if about.st_size and stat.S_ISREG(about.st_mode) and not force:
        raise CommandError(f"{path} exists and has content: name another file, or write over it with --force")


def record_of(item: Item, index: int, result: ExecutionResult[Any], *, with_input: bool = False) -> dict[str, Any]:
    """What the output says about an item."""
    record: dict[str, Any] = {"id": item.id, "index": index, "ok": result.ok}
    if with_input:
        record["input"] = item.value
    if result.ok:
        record["result"] = result.result
    else:
        text = str(result.error) if isinstance(result.error, BadInput) else result.error_message or ""
        record["error"] = text.encode(errors="backslashreplace").decode()
    record["attempts"] = 0 if isinstance(result.error, BadInput) else result.attempts
    record["seconds"] = round(result.execution_time or 0.0, 6)
    if result.requeued:
        record["requeued"] = True
    return record


def to_line(value: Any, indent: int | None = None) -> bytes:
    """The value as JSON, with its line feed.

    What has no form in JSON is written as its `repr`; numbers that JSON does not know (NaN, infinity) are null.

    Raises:
        ValueError: there is no JSON for it: bytes that are not UTF-8, a lone surrogate, a list that contains itself.
    """
    return to_json(value, fallback=repr, inf_nan_mode="null", indent=indent) + b"\n"


def unwritable_record(record: Mapping[str, Any], problem: str) -> dict[str, Any]:
    """What the output says of an item whose result has no form in it: it failed."""
    kept = {name: record[name] for name in ("id", "index", "attempts", "seconds", "requeued") if name in record}
    return {**kept, "ok": False, "error": problem}
