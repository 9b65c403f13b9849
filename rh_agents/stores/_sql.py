"""The SQL of the stores, which lives in files: named queries, numbered migrations, and views of earlier schemas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_NUMBERED = re.compile(r"(\d{4})_\w+\.sql")
_TABLE = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)\b")
_COMMENTS = re.compile(r"^--[^\n]*\n", re.MULTILINE)


class Migration(NamedTuple):
    """One step from a version of the schema to the next: its number is the version that it makes."""

    number: int
    file: str
    text: str


def _read(backend: str, file: str) -> str:
    return (files("rh_agents.stores") / "sql" / backend / file).read_text(encoding="utf-8")


def _named(text: str) -> dict[str, str]:
    parts = _NAME.split(text)
    return {name: query.strip() for name, query in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def read_queries(backend: str) -> dict[str, str]:
    """The queries of a backend by name. Each begins with a line `-- name: ...` in `sql/<backend>/queries.sql`."""
    return _named(_read(backend, "queries.sql"))


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
    return {**read_views(backend, version + 1), **_named(_read(backend, f"views_{version}.sql"))}


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
