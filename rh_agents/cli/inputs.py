"""Input files and standard input: how they are opened, and what can be seen before anything is read."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rh_agents.cli.errors import CommandError
from rh_agents.cli.records import BYTE_ORDER_MARK, Format, Item, read_items

__all__ = ["Input", "open_input"]

_COUNTED_UP_TO = 256 * 1024 * 1024
"""Bytes. The lines of larger files are not counted in advance."""


_BY_EXTENSION = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".json": Format.JSONL, ".csv": Format.CSV}


@dataclass(frozen=True, slots=True)
class Input:
    """An input that has been opened; its block closes a file.

    A pipe stays open: a thread may be waiting in it, and whoever closed it would have to wait as well.

    Attributes:
        name: for people.
        items: the records, read when they are asked for.
        may_block: whether the next record may be long in coming, as from a pipe.
        total: how many records there are, if that is known.
        stream: where they come from.
    """

    name: str
    items: Iterator[Item]
    may_block: bool
    total: int | None
    stream: io.BufferedReader

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.may_block:
            self.stream.close()


def open_input(path: str, form: Format, id_field: str) -> Input:
    """Open a file, or standard input (`-`).

    Raises:
        CommandError: it cannot be read, or is of a kind that cannot be read line by line.
    """
    name = "<stdin>" if path == "-" else path
    try:
        # Not sys.stdin: a thread that waits in its buffer would hold the lock that Python takes at exit.
        stream: io.BufferedReader = open(0, "rb", closefd=False) if path == "-" else open(path, "rb")  # noqa: SIM115
        is_file = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}") from error
    asked, form = form, _format_of(path, form)
    total = None
    if is_file:
        try:
            _look_at_beginning(stream, path, asked)
            total = _count(stream, form)
        except BaseException:
            stream.close()
            raise
    return Input(name, read_items(stream, name, form, id_field), not is_file, total, stream)


def _format_of(path: str, form: Format) -> Format:
    if form is not Format.AUTO:
        return form
    if path == "-":
        return Format.JSONL
    return _BY_EXTENSION.get(os.path.splitext(path)[1].lower(), Format.TEXT)


def _look_at_beginning(stream: io.BufferedReader, path: str, asked: Format) -> None:
    """Refuse a file of which every line would be wrong."""
    beginning = stream.peek(64 * 1024)
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CommandError(f"{path} is written in UTF-16: convert it to UTF-8 first, with iconv -f utf-16 -t utf-8")
    if asked is not Format.AUTO or not path.lower().endswith(".json"):
        return
    text = beginning.removeprefix(BYTE_ORDER_MARK).lstrip()
    if text.startswith(b"["):
        what = "holds a list"
    elif text.startswith(b"{") and not text.split(b"\n", 1)[0].rstrip().endswith(b"}"):
        what = "holds one object over several lines"
    else:
        return
    raise CommandError(
        f"{path} {what}, and map reads JSON lines, one value a line: convert it with jq -c '.[]' {path} > "
        f"{os.path.splitext(path)[0]}.jsonl"
    )


def _count(stream: io.BufferedReader, form: Format) -> int | None:
    """How many records there are, but for blank lines; None where that takes long or cannot be told by lines."""
    if os.fstat(stream.fileno()).st_size > _COUNTED_UP_TO:
        return None
    begin = stream.tell()
    lines, last = 0, b"\n"
    while block := stream.read(1 << 20):
        lines += block.count(b"\n")
        last = block[-1:]
        if form is Format.CSV and b'"' in block:  # line ends may be part of a field
            stream.seek(begin)
            return None
    stream.seek(begin)
    lines += last != b"\n"
    return max(0, lines - (form is Format.CSV))
