"""The SQL of the stores, which lives in files: named queries, numbered migrations, and views of earlier schemas.

What several queries have in common is a part, which begins with a line `-- part: name` and stands before the queries
that name it in braces: `{name}`. Parts may have parts. Braces with anything else in them are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_HEAD = re.compile(r"^-- (name|part): (\w+)$", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")
_NUMBERED = re.compile(r"(\d{4})_\w+\.sql")
_TABLE = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)\b")
_NO_CHECKSUM = re.compile(r"\bNULL(::\w+)? AS name_checksum\b")
_COMMENTS = re.compile(r"^--[^\n]*\n", re.MULTILINE)


class Migration(NamedTuple):
    """One step from a version of the schema to the next: its number is the version that it makes."""

    number: int
    file: str
    text: str


def _read(backend: str, file: str) -> str:
    return (files("rh_agents.stores") / "sql" / backend / file).read_text(encoding="utf-8")


def named(text: str) -> dict[str, str]:
    """The queries in the text of a file by name, with their parts put in."""
    queries: dict[str, str] = {}
    parts: dict[str, str] = {}
    pieces = _HEAD.split(text)
    for kind, name, body in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        whole = _PART.sub(lambda found: parts.get(found[1], found[0]), body.strip())
        if kind == "name":
            queries[name] = whole
        else:
            parts[name] = _COMMENTS.sub("", whole + "\n").rstrip()  # what explains it stands beside it, and in no query
    return queries


@cache
def read_queries(backend: str) -> dict[str, str]:
    """The queries of a backend by name. Each begins with a line `-- name: name` in `sql/<backend>/queries.sql`."""
    return named(_read(backend, "queries.sql"))


@cache
def read_migrations(backend: str) -> tuple[Migration, ...]:
    """The migrations of a backend in their order; the number of the last one is the version that this program knows."""
    folder = files("rh_agents.stores") / "sql" / backend
    found = ((each, _NUMBERED.fullmatch(each.name)) for each in folder.iterdir())
    return tuple(
        sorted(
            Migration(int(match[1]), each.name, each.read_text(encoding="utf-8"))
            for each, match in found
            if match is not None
        )
    )


@cache
def read_views(backend: str, version: int) -> Mapping[str, str]:
    """What stands for tables of today in a schema of an earlier version, by the names of the tables.

    `sql/<backend>/views_<version>.sql` has them, each a SELECT from the tables of that version; what it does not have
    is as in the next version, and in the last one as it is today.
    """
    if version == read_migrations(backend)[-1].number:
        return {}
    return {**read_views(backend, version + 1), **named(_read(backend, f"views_{version}.sql"))}


def have_checksums(views: Mapping[str, str]) -> bool:
    """Whether rows of the version that is read through these views have checksums: else the view of runs has none."""
    return _NO_CHECKSUM.search(views.get("run", "")) is None


def through(query: str, views: Mapping[str, str]) -> str:
    """A query that reads views instead of the tables of these names.

    They are put before it as common table expressions, so nothing is made in the database.
    """
    text = _COMMENTS.sub("", query)
    names = [name for name in dict.fromkeys(_TABLE.findall(text)) if name in views]
    if not names:
        return query
    for name in names:
        text = re.sub(rf"\b{name} INDEXED BY \w+", name, text)  # a view has no index
    heads = ", ".join(f"{name} AS NOT MATERIALIZED ({views[name]})" for name in names)
    if text.startswith("WITH "):
        return f"WITH {heads}, {text.removeprefix('WITH ')}"
    return f"WITH {heads} {text}"
