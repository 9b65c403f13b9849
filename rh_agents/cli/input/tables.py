"""Tables: CSV and its relatives. Which separator they have, what their columns are called, and quotes left open.

The reader of the standard library takes a quote that is never closed for one field, to the end of the file: a thousand
records become one. No parser can know what was meant, but people can, if they are shown where such a record begins, how
far it went, and that its lines look like records of their own. `csv.Sniffer` is not used: it takes letters for
separators and never says that it is not sure. Four separators are tried; one of them has to fit all lines there are.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input.detection import looks_like_json
from rh_agents.cli.input.lines import LONGEST_LINE, Item, Lines

__all__ = ["SEPARATORS", "column_names", "found_separator", "shown_separator", "table_items", "table_separator"]

SEPARATORS = (",", ";", "\t", "|")
_LONG = 50
"""Lines. A record over more of them is reported: few texts are that long, and a quote may be open."""
_REPORTED = 3
_NUMBER = re.compile(r"[-+]?[0-9]+([.,][0-9]+)?")
_EXCEL_HINT = re.compile(r"^\ufeff?sep=(.)\r?\n?$")
"""What Excel takes for the separator, before the header."""


# -- separators -------------------------------------------------------------------------------------------------------


def shown_separator(separator: str) -> str:
    """For people."""
    return "tab" if separator == "\t" else repr(separator)


def found_separator(text: str, usual: str, name: str, *, is_all: bool) -> str:
    """The separator of a table that begins with `text`.

    Args:
        text: the first lines.
        usual: the one that the name implies; a table of one column has this one.
        name: of the input.
        is_all: whether there is no more; else the last record may be cut.

    Raises:
        CommandError: several fit.
    """
    hint = _EXCEL_HINT.match(text.partition("\n")[0])
    if hint is not None:
        return hint[1]
    tried = {separator: _fits(text, separator, is_all) for separator in SEPARATORS}
    possible = [separator for separator, fits in tried.items() if fits is not None]
    fitting = [separator for separator in possible if tried[separator]]
    if len(fitting) > 1:
        raise CommandError(
            f"the fields of {name} may be separated by {' or by '.join(map(shown_separator, fitting))}: say which with "
            f"--separator"
        )
    if fitting:
        return fitting[0]
    return possible[0] if len(possible) == 1 and usual not in possible else usual


def _fits(text: str, separator: str, is_all: bool) -> bool | None:
    """Whether every record has the fields that the header names; None if the header has one field only."""
    records = _records(text, separator)
    records = records if is_all or len(records) == 1 else records[:-1]
    if not records or len(records[0]) < 2:
        return None
    names = len(records[0])
    return all(len(_without_rest(record, names)) == names for record in records[1:])


def table_separator(text: str, *, is_all: bool) -> str | None:
    """The separator, if plain lines look like a table: the first one names columns, and all others have as many fields.

    Stricter than for what is called a table: prose has commas as well.
    """
    for separator in SEPARATORS:
        if not _fits(text, separator, is_all):
            continue
        names = _records(text, separator)[0]
        if len(set(names)) == len(names) and all(re.fullmatch(r"[^\W\d][\w.-]{0,40}", name) for name in names):
            return separator
    return None


def _records(text: str, separator: str) -> list[list[str]]:
    try:
        return [fields for fields in csv.reader(text.splitlines(keepends=True), delimiter=separator) if fields]
    except csv.Error:
        return []


def _without_rest(fields: Sequence[str], names: int) -> list[str]:
    """The fields without empty ones beyond the header: many programs end each line with a separator."""
    kept = list(fields)
    while len(kept) > names and not kept[-1]:
        kept.pop()
    return kept


# -- columns ----------------------------------------------------------------------------------------------------------


def column_names(text: str, separator: str) -> list[str]:
    """The names in the header of a table that begins with `text`."""
    if _EXCEL_HINT.match(text.partition("\n")[0]):
        text = text.partition("\n")[2]
    records = _records(text, separator)
    return [name.strip() for name in records[0] if name.strip()] if records else []


class _Columns:
    """The columns of a table. One without a name is given as `column 3`, where it has a value."""

    def __init__(self, fields: Sequence[str], problem: str | None, position: str) -> None:
        names = [name.strip() for name in fields]
        given = [name for name in names if name]
        if problem is None and not given:
            problem = "no column has a name"
        if problem is None and looks_like_json(",".join(fields)):
            raise CommandError(f"{position}: this is JSON, not the header of a table: --format jsonl reads it")
        if problem is None and len(set(given)) < len(given):
            twice = next(name for name in given if given.count(name) > 1)
            problem = f"two columns are named {twice!r}: rename one"
        if problem is not None:
            raise CommandError(f"{position}: the first line of a CSV file names its columns: {problem}")
        self.nameless = {number for number, name in enumerate(names) if not name}
        for number in self.nameless:
            names[number] = self._free_name(f"column {number + 1}", names)
        self.names = names
        self._first_optional = len(names)
        while self._first_optional - 1 in self.nameless:
            self._first_optional -= 1

    def __len__(self) -> int:
        return len(self.names)

    def _free_name(self, name: str, names: Sequence[str]) -> str:
        while name in names:
            name += "_"
        return name

    def problem(self, fields: Sequence[str]) -> str | None:
        """Why a record does not fit; None if it does."""
        if self._first_optional <= len(fields) <= len(self.names):
            return None
        return f"{_fields(len(fields))}, but the header names {len(self.names) - len(self.nameless)}"

    def value(self, fields: Sequence[str]) -> dict[str, str]:
        """The record by name."""
        pairs = enumerate(zip(self.names, fields, strict=False))
        return {name: field for number, (name, field) in pairs if field or number not in self.nameless}


def _fields(number: int) -> str:
    return "1 field" if number == 1 else f"{number} fields"


# -- records ----------------------------------------------------------------------------------------------------------


def table_items(lines: Lines, id_field: str, separator: str, report: Callable[[str], None]) -> Iterator[Item]:
    """The header gives the names. A record with more or fewer fields than it is a failed item.

    Raises:
        CommandError: the header names no columns.
    """
    csv.field_size_limit(LONGEST_LINE)
    table = _Table(lines, separator, report)
    while True:
        begin = lines.number + 1
        fields, problem = table.read()
        if fields is None:
            return
        if table.columns is None:
            if problem is not None or (fields and not _is_hint(lines, begin)):
                table.columns = _Columns(fields, problem, f"{lines.name}:{begin}")
                table.report_numbers(begin)
        elif problem is not None:
            yield lines.bad_item(begin, problem)
        elif fields:
            value = table.columns.value(fields)
            table.report_nameless(value, begin)
            yield lines.item(begin, value, id_field)


def _is_hint(lines: Lines, begin: int) -> bool:
    return begin == 1 and bool(lines.kept) and _EXCEL_HINT.match(str((lines.kept or [""])[0])) is not None


class _Table:
    """Reads records, and sees what is doubtful about them."""

    def __init__(self, lines: Lines, separator: str, report: Callable[[str], None]) -> None:
        self.columns: _Columns | None = None
        self._lines = lines
        self._separator = separator
        self._report = report
        self._reader = csv.reader(lines, delimiter=separator, strict=True)
        self._long = 0
        self._told_names: set[str] = set()

    def read(self) -> tuple[list[str] | None, str | None]:
        """The fields of the next record, and what is wrong with it; no fields at the end."""
        lines = self._lines
        begin = lines.number + 1
        lines.kept = []
        try:
            fields = next(self._reader)
        except StopIteration:
            return None, None
        except csv.Error as error:
            return [], lines.take_problem() or self._why(str(error), begin)
        problem = lines.take_problem()
        if problem is None and self.columns is not None and fields:
            fields = _without_rest(fields, len(self.columns))
            problem = self._doubt(begin) or self.columns.problem(fields)
        return fields, problem

    def _why(self, error: str, begin: int) -> str:
        """What is wrong with a record that goes from line `begin` to the line that was read last."""
        end = self._lines.number
        if error == "unexpected end of data":
            taken = "1 line was" if end - begin == 1 else f"{end - begin} lines were"
            goes = (
                f"the record begins here and goes to the end of the input, line {end}: {taken} taken for a part of it"
            )
            where = "" if end == begin else f"; {goes}"
            return f"not valid CSV: a quote is not closed{where}; close it, or double it if it belongs to the text"
        error = {"newline inside string": "a quote is not closed"}.get(error, error)
        if end == begin:
            return f"not valid CSV: {error}"
        goes = f"in a record that goes from line {begin} to line {end}"
        return f"not valid CSV: {error}, {goes}: a quote is probably not closed"

    def _doubt(self, begin: int) -> str | None:
        """Why a record that is well formed is probably not what was intended; None if it is."""
        kept, end = self._lines.kept or [], self._lines.number
        inner = kept[1:-1]
        if len(inner) >= 3 and self.columns is not None and len(self.columns) > 1:
            alike = sum(self._is_like_a_record(line) for line in inner)
            if alike >= 0.8 * len(inner):
                return (
                    f"the record goes from line {begin} to line {end}, and {alike} of its lines look like records of "
                    f"their own: a quote in line {begin} is probably not closed; if it is one field, give JSON lines"
                )
        if len(kept) > _LONG and self._long < _REPORTED:
            self._long += 1
            more = "; others like it are not reported" if self._long == _REPORTED else ""
            position = f"{self._lines.name}:{begin}"
            self._report(
                f"{position}: the record continues to line {end}: is a quote not closed in line {begin}?{more}"
            )
        return None

    def _is_like_a_record(self, line: str) -> bool:
        assert self.columns is not None
        fields = next(csv.reader([line], delimiter=self._separator), [])
        return len(fields) == len(self.columns)

    def report_numbers(self, begin: int) -> None:
        """A number is a strange name: perhaps nothing names the columns, and the first record would be lost."""
        assert self.columns is not None
        number = next((name for name in self.columns.names if _NUMBER.fullmatch(name)), None)
        if number is not None:
            self._report(
                f"{self._lines.name}:{begin}: this line is taken for the names of the columns, and {number!r} is one "
                "of them: if it is a record, write a line of names above it"
            )

    def report_nameless(self, value: dict[str, str], begin: int) -> None:
        """A column without a name has a value: say once what it is called."""
        assert self.columns is not None
        for number in self.columns.nameless:
            name = self.columns.names[number]
            if name in value and name not in self._told_names:
                self._told_names.add(name)
                self._report(
                    f"{self._lines.name}:{begin}: column {number + 1} has no name; its values are given as {name!r}"
                )
