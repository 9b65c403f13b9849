"""What an input is, seen from its beginning: whether it is text at all, and in which format.

A wrong guess would send a whole file to a model in the wrong shape, and be paid for. So nothing is guessed that the
content does not show plainly, what is not text is refused before anything is called, and each refusal is one sentence
with the remedy. A name such as `data.csv` says what a file should contain; where a name says nothing (standard input, a
pipe, `data.jsonl.bak`), the content has to.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic_core import from_json

from rh_agents.cli.errors import CommandError
from rh_agents.cli.input.lines import BYTE_ORDER_MARK, Format

__all__ = [
    "Beginning",
    "content_format",
    "looks_like_json",
    "named_format",
    "refuse_json_over_lines",
    "refuse_what_is_no_text",
]

_NAMED = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.JSONL,
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".tab": Format.CSV,
    **dict.fromkeys((".txt", ".text", ".log", ".lst", ".list", ".md", ".rst"), Format.TEXT),
}
_TABS = (".tsv", ".tab")
_BACKUPS = re.compile(r"(?i)[.](bak|backup|old|orig|save|copy|tmp|new|part|[0-9]+)$|~$")
"""What is put behind a name without saying what the file is."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first bytes of an input.

    Attributes:
        name: of the input, for people.
        path: of the file; "" if it has none, as standard input.
        data: the bytes.
        is_all: whether there are no more.
    """

    name: str
    path: str
    data: bytes
    is_all: bool

    @property
    def shown_path(self) -> str:
        """The path for a shell."""
        return shlex.quote(self.path) if self.path else ""

    @classmethod
    def of(cls, name: str, path: str, data: bytes, *, is_all: bool) -> Self:
        """The same without a last character that is cut in its middle."""
        if not is_all:
            for cut in range(1, min(4, len(data))):
                if data[-cut] >= 0xC0:  # the first byte of a character of several
                    width = 2 if data[-cut] < 0xE0 else 3 if data[-cut] < 0xF0 else 4
                    data = data[:-cut] if cut < width else data
                    break
        return cls(name, path, data, is_all)

    @property
    def lines(self) -> list[str]:
        """The complete lines that are not blank, as far as they are UTF-8."""
        lines = self.data.removeprefix(BYTE_ORDER_MARK).split(b"\n")
        complete = lines if self.is_all or len(lines) == 1 else lines[:-1]
        return [text for line in complete if (text := line.decode(errors="replace").strip())]


def named_format(path: str) -> tuple[Format | None, str | None]:
    """What a name says: the format and the separator of a table. None for each that it does not say."""
    name = os.path.basename(path).removesuffix(".gz").removesuffix(".zst")
    while (shorter := _BACKUPS.sub("", name)) != name:
        name = shorter
    ending = os.path.splitext(name)[1].lower()
    return _NAMED.get(ending), "\t" if ending in _TABS else None


# -- not text ---------------------------------------------------------------------------------------------------------

_AS_CSV = "save it as CSV in UTF-8"
_AS_FILE = "write it to a file, and name that"
_QUERY = "say what to read of it, as in --query 'select * from …'"
_PANDAS = """python -c "import pandas; pandas.read_{}('{}').to_json('{}.jsonl', orient='records', lines=True)\""""
_UNPACK = "unpack it, as in `{} {} | rh-agents map … -`"
_KINDS: Sequence[tuple[bytes, str, str]] = (
    (b"\x1f\x8b", "compressed with gzip", "gzip -dc"),
    (b"BZh", "compressed with bzip2", "bzip2 -dc"),
    (b"\xfd7zXZ\0", "compressed with xz", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -dc"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "lz4 -dc"),
    (b"\x1f\x9d", "compressed with compress", "uncompress -c"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -so"),
    (b"Rar!\x1a\x07", "a RAR archive", "unrar p -inul"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document", _AS_CSV),
    (b"PAR1", "a Parquet file", "parquet"),
    (b"ARROW1", "an Arrow file", "feather"),
    (b"FEA1", "an Arrow file", "feather"),
    (b"\xff\xff\xff\xff", "an Arrow stream", _AS_FILE),
    (b"ORC", "an ORC file", "orc"),
    (b"Obj\x01", "an Avro file", ""),
    (b"SQLite format 3\0", "a database of SQLite", _QUERY),
    (b"%PDF-", "a PDF document", "pdftotext"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", ""),
    (b"\x93NUMPY", "an array of NumPy", ""),
    (b"\x80\x02", "a pickle", ""),
    (b"\x80\x03", "a pickle", ""),
    (b"\x80\x04", "a pickle", ""),
    (b"\x80\x05", "a pickle", ""),
    (b"\x89PNG\r\n\x1a\n", "an image", ""),
    (b"\xff\xd8\xff", "an image", ""),
    (b"GIF8", "an image", ""),
)
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f\v\b\x1b")


def refuse_what_is_no_text(beginning: Beginning, *, is_asked: bool) -> None:
    """Refuse an input of which every item would be wrong.

    With `is_asked` the user has named the format: then what may be text of a strange kind is read all the same.

    Raises:
        CommandError: it is not text, or not in UTF-8.
    """
    data = beginning.data
    if not _is_clean(data):
        _refuse_known_kinds(beginning)
        _refuse_other_encodings(beginning)
    if is_asked:
        return
    if b"\0" in data:
        raise CommandError(
            f"{beginning.name} contains NUL bytes, so it is not text: convert it, or name its format with --format"
        )
    if b"\n" not in data and _has_several_lines_of_cr(data):
        raise CommandError(
            f"{beginning.name} has lines that end with CR alone, as old Macs wrote them: convert them, as in "
            f"`tr '\\r' '\\n' < {beginning.shown_path or 'FILE'} | rh-agents map … -`"
        )
    _refuse_latin_1(beginning)


def _is_clean(data: bytes) -> bool:
    """Whether it is UTF-8 without control characters."""
    return _is_utf8(data) and not _CONTROLS.intersection(data)


def _refuse_known_kinds(beginning: Beginning) -> None:
    data, name, path = beginning.data, beginning.name, beginning.shown_path or "FILE"
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise CommandError(f"{name} is {_kind_of_zip(data)}")
    if data[257:262] == b"ustar":
        raise CommandError(f"{name} is a tar archive: {_UNPACK.format('tar -xOf', path)}")
    for magic, what, remedy in _KINDS:
        if not data.startswith(magic):
            continue
        if remedy in ("parquet", "feather", "orc"):
            file = beginning.path or "FILE"
            how = f"convert it to JSON lines, as in {_PANDAS.format(remedy, file, os.path.splitext(file)[0])}"
        elif remedy == "pdftotext":
            how = f"take its text out, as in `pdftotext {path} - | rh-agents map … -`"
        elif remedy in ("", _AS_CSV, _AS_FILE, _QUERY):
            how = remedy or "convert it to JSON lines, CSV or plain text"
        else:
            how = _UNPACK.format(remedy, path)
        raise CommandError(f"{name} is {what}: {how}")


def _kind_of_zip(data: bytes) -> str:
    if b"xl/" in data:
        return f"a workbook of Excel: {_AS_CSV}"  # which is cut, or comes through a pipe
    if b"opendocument.spreadsheet" in data:
        return f"a spreadsheet of OpenDocument: {_AS_CSV}"
    if b"word/" in data or b"ppt/" in data or b"opendocument" in data or b"[Content_Types].xml" in data:
        return "an Office document: save it as plain text or as CSV in UTF-8"
    return "a zip archive: unpack it, and name the file in it"


def _refuse_other_encodings(beginning: Beginning) -> None:
    data = beginning.data
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        found, encoding = "UTF-32", "utf-32"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        found, encoding = "UTF-16", "utf-16"
    else:
        zeros = [data[parity::2].count(0) for parity in (0, 1)]
        pairs = max(1, len(data) // 2)
        few, many = sorted(zeros)
        if many < max(min(2, pairs), 0.4 * pairs) or few > 0.1 * pairs:
            return
        encoding = "utf-16be" if zeros[0] > zeros[1] else "utf-16le"
        found = "UTF-16, without a mark that says so"
    raise CommandError(
        f"{beginning.name} is written in {found}: convert it to UTF-8 first, with iconv -f {encoding} -t utf-8"
        f"{' ' + beginning.shown_path if beginning.path else ''}"
    )


def _has_several_lines_of_cr(data: bytes) -> bool:
    return any(part.strip() for part in data.split(b"\r")[1:])


def _refuse_latin_1(beginning: Beginning) -> None:
    """A file in an old encoding has no line that is UTF-8 and not ASCII. A single broken line is an item's problem."""
    lines = beginning.data.split(b"\n")
    complete = lines if beginning.is_all or len(lines) == 1 else lines[:-1]
    foreign = [number for number, line in enumerate(complete) if not line.isascii()]
    broken = [number for number in foreign if not _is_utf8(complete[number])]
    is_rare = len(broken) == 1 and sum(map(bool, complete)) > 2
    if broken and len(broken) == len(foreign) and not is_rare:
        file = f" {beginning.shown_path}" if beginning.path else ""
        raise CommandError(
            f"{beginning.name} is not in UTF-8 (line {broken[0] + 1} is not, for one): convert it, with iconv -f "
            f"windows-1252 -t utf-8{file} or whatever its encoding is; with --format, only lines that are not UTF-8 "
            "fail"
        )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


# -- JSON -------------------------------------------------------------------------------------------------------------

_OBJECT_BEGINS = re.compile(r'\s*\{\s*"')
_NO_JSON = object()


def looks_like_json(line: str) -> bool:
    """Whether such a line is hardly plain text: an object or a list, or the beginning of an object."""
    if line.lstrip()[:1] not in ("[", "{"):
        return False
    return _OBJECT_BEGINS.match(line) is not None or isinstance(_parsed(line), list | dict)


def _parsed(line: str) -> Any:
    if line.lstrip()[:1] not in tuple('[{"-0123456789tfn'):
        return _NO_JSON
    try:
        return from_json(line)
    except ValueError:
        return _NO_JSON


def content_format(beginning: Beginning, *, is_stream: bool) -> Format:
    """JSON lines or plain text, for an input whose name says nothing.

    `is_stream`: it comes from standard input, where lines that are all JSON values always were JSON lines.
    """
    lines = beginning.lines
    if not lines or 2 * sum(map(looks_like_json, lines)) >= len(lines):
        return Format.JSONL
    values = [_parsed(line) for line in lines]
    if any(value is _NO_JSON for value in values):
        return Format.TEXT
    return Format.JSONL if is_stream or any(isinstance(value, str) for value in values) else Format.TEXT


def refuse_json_over_lines(beginning: Beginning, *, is_json_file: bool, is_named: bool) -> None:
    """Refuse a list or an object that goes over several lines, where one value a line is expected.

    `is_json_file`: its name ends in `.json`; `is_named`: its name says that there is one value a line.

    Raises:
        CommandError: it is one.
    """
    lines = beginning.lines
    first = lines[0] if lines else ""
    is_alone = len(lines) == 1 and beginning.is_all
    value = _parsed(first)
    is_list_over_lines = first.startswith("[") and (is_json_file or (value is _NO_JSON and _goes_on(beginning)))
    is_list_of_objects = isinstance(value, list) and any(isinstance(each, dict) for each in value)
    if is_list_over_lines or (is_list_of_objects and is_alone and not is_named):
        what, how = "contains a list", ".[]"
    elif first.startswith("{") and value is _NO_JSON and _goes_on(beginning):
        what, how = "contains one object over several lines", "."
    else:
        return
    root, ending = os.path.splitext(beginning.path)
    other = shlex.quote(f"{root}{'-lines' if ending == '.jsonl' else ''}.jsonl")
    shown = beginning.shown_path
    remedy = f"jq -c '{how}' {shown} > {other}" if shown else f"… | jq -c '{how}' | rh-agents map …"
    raise CommandError(f"{beginning.name} {what}, and map reads JSON lines, one value a line: convert it with {remedy}")


def _goes_on(beginning: Beginning) -> bool:
    """Whether the first line begins a value of several lines: the lines together are JSON, or the beginning of it."""
    lines = beginning.lines
    if lines[0] in ("[", "{", "[{"):  # of a pipe there may be no more yet
        return True
    try:
        from_json("\n".join(lines), allow_partial=not beginning.is_all)
    except ValueError:
        return False
    return len(lines) > 1
