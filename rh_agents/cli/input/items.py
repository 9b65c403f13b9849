"""Records: from the bytes of an input to items, each with its position, or with its problem.

What is defined, whatever the format: UTF-8, with or without a byte order mark; lines end with LF or CRLF, the last one
may end with the file; blank lines are no items, though they count for line numbers. A line that is not UTF-8 or longer
than `LONGEST_LINE` is a failed item, and the next line is read as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from rh_agents.cli.input.detection import looks_like_json
from rh_agents.cli.input.lines import Format, Item, Lines
from rh_agents.cli.input.tables import table_items
from rh_agents.cli.json_text import RepeatedKey, read_json

__all__ = ["read_items", "results_of"]


def read_items(
    stream: BinaryIO,
    name: str,
    form: Format,
    id_field: str = "id",
    *,
    separator: str = ",",
    report: Callable[[str], None] | None = None,
    is_guess: bool = False,
) -> Iterator[Item]:
    """The records of a stream of bytes.

    Args:
        stream: where they come from.
        name: of the input, for people.
        form: how it is written.
        id_field: the field that names an item.
        separator: what separates the fields of a table.
        report: takes a line for people about what is doubtful and read all the same.
        is_guess: the user has not said that the lines are plain, so that one which looks like JSON is reported.

    Raises:
        CommandError: it cannot be read any further.
    """
    lines = Lines(stream, name)
    if form is Format.CSV:
        return table_items(lines, id_field, separator, report or _nobody)
    if form is Format.TEXT:
        return _text_items(lines, report if is_guess else None)
    return _json_items(lines, id_field)


def _nobody(_: str) -> None:
    """Nobody wants to know."""


def _json_items(lines: Lines, id_field: str) -> Iterator[Item]:
    for line in lines:
        if lines.problem is not None:
            yield lines.bad_item(lines.number, lines.take_problem() or "")
            continue
        line = line.strip(" \t\r\n")
        if not line:
            continue
        try:
            value = read_json(line)
        except RepeatedKey as error:
            yield lines.bad_item(lines.number, str(error))
        except ValueError as error:
            yield lines.bad_item(lines.number, f"not valid JSON: {_without_line(error)}")
        else:
            yield lines.item(lines.number, value, id_field)


def _without_line(error: ValueError) -> str:
    """The parser sees one line only, and calls it line 1."""
    return str(error).replace(" at line 1 column ", " at column ")


def _text_items(lines: Lines, report: Callable[[str], None] | None) -> Iterator[Item]:
    for line in lines:
        problem = lines.take_problem()
        if problem is not None:
            yield lines.bad_item(lines.number, problem)
        elif line.strip():
            text = line.removesuffix("\n").removesuffix("\r")
            if report is not None and looks_like_json(text):
                report(
                    f"{lines.name}:{lines.number}: looks like JSON and is sent as plain text, as are others like it; "
                    "--format jsonl reads it, and --format text says that this is intended"
                )
                report = None
            yield Item(f"{lines.name}:{lines.number}", text, text)


def results_of(items: Iterator[Item]) -> Iterator[Item]:
    """What another `map` wrote as items: each result, under the id of its line.

    How long it took and where it stood there are no part of the item, so that it is the same one when that map was
    resumed. What failed there, and what is no line of a map, is a failed item here.
    """
    for item in items:
        line = item.value
        if item.problem is not None:
            yield item
        elif not isinstance(line, dict) or "ok" not in line or "id" not in line:
            yield item._replace(value=None, problem="no line that map wrote: one has id, ok, and result or error")
        elif line["ok"] in (True, "true"):
            yield Item(item.position, line["id"], line.get("result"))
        else:
            yield Item(item.position, line["id"], None, f"it failed before: {line.get('error')}")
