"""Sheets of Excel: their rows as items, read as they are asked for.

The first row that is not empty names the columns; rows below it that are not empty are items, with the values that
cells have: numbers, texts, truth values, dates, what a formula came to; what is empty is None. A cell with an error of
Excel (#N/A) has no value, so its row is a failed item. openpyxl reads them, and is imported only here. The texts of a
workbook are in memory, as openpyxl keeps them; its rows are not.
"""

from __future__ import annotations

import importlib
import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rh_agents.cli.errors import CommandError, close_names
from rh_agents.cli.input.archives import MOST_TIMES
from rh_agents.cli.input.lines import Item

__all__ = ["Workbook", "is_workbook"]

_ZIP: Final = b"PK\x03\x04"
_NEVER_TOO_MUCH: Final = 64 * 1024 * 1024


def is_workbook(stream: io.BufferedReader) -> bool:
    """Whether a file is a workbook of Excel, of the kind that .xlsx and .xlsm are."""
    if not stream.peek(len(_ZIP)).startswith(_ZIP):
        return False
    begin = stream.tell()
    try:
        with zipfile.ZipFile(stream) as parts:
            return "xl/workbook.xml" in parts.namelist()
    except zipfile.BadZipFile:
        return False
    finally:
        stream.seek(begin)


class Workbook:
    """A sheet of a workbook that is open.

    Args:
        stream: the file.
        name: of the input, for people.
        sheet: the name of the sheet; None if there is one only with something in it.
        id_field: the column that names an item.
        must_have_id: there must be one of this name.

    Raises:
        CommandError: openpyxl is not installed, the file is damaged, there is no such sheet, or its columns have no
            names.
    """

    def __init__(
        self, stream: io.BufferedReader, name: str, sheet: str | None, id_field: str, *, must_have_id: bool
    ) -> None:
        self._name = name
        self._id_field = id_field
        _refuse_what_expands(stream, name)
        with _problems(name), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and validation, which are nothing to us
            book = _openpyxl(name).load_workbook(stream, read_only=True, data_only=True, keep_links=False)
            sheets = {each.title: each for each in book.worksheets}
            for each in sheets.values():
                each.reset_dimensions()  # which other programs write wrong
            self.sheet: str = self._found(sheets, sheet)
            """The name of the sheet."""
            self._rows = enumerate(sheets[self.sheet].iter_rows(), start=1)
            self._columns = self._read_columns()
        if must_have_id and id_field not in self._columns:
            raise CommandError(
                f"--id-field {id_field}: {name} has no such column; there are {', '.join(self._columns[:20])}"
                f"{close_names(id_field, self._columns)}"
            )

    def _found(self, sheets: dict[str, Any], wanted: str | None) -> str:
        if wanted is not None:
            if wanted not in sheets:
                there = ", ".join(map(repr, sheets))
                raise CommandError(
                    f"--sheet {wanted}: {self._name} has no such sheet; there are {there}{close_names(wanted, sheets)}"
                )
            return wanted
        used = [title for title, sheet in sheets.items() if any(map(_is_used, sheet.iter_rows()))]
        if not used:
            raise CommandError(f"{self._name} has no sheet with something in it")
        if len(used) > 1:
            raise CommandError(
                f"{self._name} has {len(used)} sheets, {', '.join(map(repr, used[:10]))}: say which with --sheet"
            )
        return used[0]

    def _read_columns(self) -> list[str]:
        """The names of the columns; "" for one that has none."""
        for number, cells in self._rows:
            if not _is_used(cells):
                continue
            names = ["" if cell.value is None else str(cell.value).strip() for cell in cells]
            given = [name for name in names if name]
            twice = next((name for name in given if given.count(name) > 1), None)
            if twice is not None:
                raise CommandError(f"{self._position(number)}: two columns are named {twice!r}: rename one")
            return names
        raise CommandError(f"{self._name}: the sheet {self.sheet!r} is empty")

    def items(self) -> Iterator[Item]:
        """The rows.

        Raises:
            CommandError: it cannot be read any further.
        """
        with _problems(self._name):
            for number, cells in self._rows:
                if _is_used(cells):
                    yield self._item(number, cells)

    def _item(self, number: int, cells: Sequence[Any]) -> Item:
        position = self._position(number)
        value: dict[str, Any] = {name: None for name in self._columns if name}
        for place, cell in enumerate(cells):
            name = self._columns[place] if place < len(self._columns) else ""
            if cell.value is None:
                continue
            if cell.data_type == "e":
                return Item(position, number, None, f"column {name or place + 1!r} has the error {cell.value}")
            if not name:
                return Item(position, number, None, f"column {place + 1} has a value and no name in the first row")
            value[name] = cell.value
        named = value.get(self._id_field)
        return Item(position, number if named is None else named, value)

    def _position(self, number: int) -> str:
        return f"{self._name}:{self.sheet}:{number}"


def _is_used(cells: Sequence[Any]) -> bool:
    return any(cell.value is not None for cell in cells)


def _refuse_what_expands(stream: io.BufferedReader, name: str) -> None:
    """A workbook is a zip archive, of which no more is unpacked than it says in its list."""
    begin = stream.tell()
    with _problems(name), zipfile.ZipFile(stream) as parts:
        size = sum(part.file_size for part in parts.infolist())
        packed = sum(part.compress_size for part in parts.infolist())
    stream.seek(begin)
    if size > max(_NEVER_TOO_MUCH, MOST_TIMES * packed):
        raise CommandError(
            f"{name} expands to more than {MOST_TIMES} times its size, so it is not read: if it is what it should be, "
            "save it as CSV in UTF-8"
        )


def _openpyxl(name: str) -> Any:
    try:
        return importlib.import_module("openpyxl")
    except ModuleNotFoundError as error:
        if error.name != "openpyxl":
            raise
        raise CommandError(
            f"{name} is a workbook of Excel, which needs openpyxl: pip install 'rh_agents[formats]', or save it as CSV "
            "in UTF-8"
        ) from error


class _problems:
    """What openpyxl and its parsers raise about a file that is damaged, in one sentence."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        damaged = (zipfile.BadZipFile, SyntaxError, KeyError, ValueError, TypeError, EOFError, OSError)
        if isinstance(error, damaged):
            reason = str(error).partition("\n")[0].rstrip(".")
            raise CommandError(f"{self._name} is cut or damaged: {reason}: get it again", exit_code=1) from error
