"""Which format an output has: what its name says, as `results.csv.gz` does; lines of JSON where it says none."""

from __future__ import annotations

import os
from functools import partial
from typing import Final

from rh_agents.cli.arrow import arrow_module
from rh_agents.cli.errors import CommandError
from rh_agents.cli.output.protected_files import ProtectedFiles
from rh_agents.cli.output.results import open_output
from rh_agents.cli.output.tables import TableWriter
from rh_agents.cli.output.texts import Blocks, Rows, csv_line, csv_record, gzip_member
from rh_agents.cli.output.writers import ResultWriter

__all__ = ["expect_output_name", "open_results"]

_COLUMNS: Final = ("id", "index", "ok", "result", "error", "attempts", "seconds", "requeued")
_TABLES: Final = {".parquet": "Parquet", ".arrow": "Arrow", ".feather": "Arrow"}
_SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_NOT_WRITTEN: Final = (".xls", ".xlsx", ".ods", ".xz", ".bz2", ".zip", ".7z", ".lz4", ".orc", ".avro")


def expect_output_name(path: str | None) -> None:
    """Refuse a name that is none, as an empty variable of a shell gives it, and one of a format that is not written.

    Raises:
        CommandError: it is empty, or it promises what is not written, or what it needs is not installed.
    """
    if path is not None and not path.strip():
        raise CommandError(f"-o {path!r}: the name of a file is needed; leave -o out to write to standard output")
    root, ending, packed = _parts_of(path or "")
    if packed or ending not in _NOT_WRITTEN:
        if packed and ending in _TABLES:
            raise CommandError(f"-o {path}: such a file is compressed by itself: name it {root}{ending}")
        return
    raise CommandError(
        f"-o {path}: results are written as .jsonl or .csv (also .gz or .zst), .parquet or .arrow: name it {root}.csv, "
        "for instance, and make what you need of that"
    )


def _parts_of(path: str) -> tuple[str, str, str]:
    """A path without its endings, its ending, and how it is compressed: `results`, `.csv`, `.gz`."""
    root, ending = os.path.splitext(path)
    packed = ending.lower() if ending.lower() in (".gz", ".zst") else ""
    if packed:
        root, ending = os.path.splitext(root)
    return root, ending.lower(), packed


def open_results(
    path: str | None,
    *,
    force: bool,
    protected: ProtectedFiles,
    with_input: bool = False,
    is_recorded: bool = True,
) -> ResultWriter:
    """Open an output in the format that its name says; standard output (None or `-`) takes lines of JSON.

    Args:
        path: of the file.
        force: it may have content, which it keeps until `restart` is called; a table, until it is finished.
        protected: files that must not be written over even so.
        with_input: there is a column for the item.
        is_recorded: results are in a store as well.

    Raises:
        CommandError: it cannot be written, or it is a table, which is written at the end, and would be all there is.
    """
    expect_output_name(path)
    columns = (*_COLUMNS[:3], "input", *_COLUMNS[3:]) if with_input else _COLUMNS
    _, ending, packed = _parts_of("" if path in (None, "-") else str(path))
    if ending in _TABLES:
        if not is_recorded:
            raise CommandError(
                f"-o {path}: a table is written when the job has ended, so with --store none nothing would be left of "
                "one that was killed, or had a value that fits into no column: name a store, or write .jsonl or .csv"
            )
        return TableWriter(str(path), _TABLES[ending], columns, force=force, protected=protected)
    blocks = None
    if packed == ".gz":
        blocks = Blocks(gzip_member)
    elif packed == ".zst":
        compress = arrow_module(f"-o {path} is compressed with zstd").compress
        blocks = Blocks(partial(compress, codec="zstd", asbytes=True))
    lines = open_output(path, force=force, protected=protected)
    separator = _SEPARATORS.get(ending)
    if separator is not None:
        header = csv_line(list(columns), separator)
        return Rows(lines, "CSV", csv_record(columns, separator), header=header, blocks=blocks)
    return lines if blocks is None else Rows(lines, blocks=blocks)
