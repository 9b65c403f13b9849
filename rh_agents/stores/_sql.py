"""The SQL of the stores, which lives in files: named queries, and numbered migrations."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

__all__ = ["Migration", "read_migrations", "read_queries"]

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_NUMBERED = re.compile(r"(\d{4})_\w+\.sql")


class Migration(NamedTuple):
    """One step from a version of the schema to the next: its number is the version that it makes."""

    number: int
    file: str
    text: str


@cache
def read_queries(backend: str) -> dict[str, str]:
    """The queries of a backend by name. Each begins with a line `-- name: ...` in `sql/<backend>/queries.sql`."""
    text = (files("rh_agents.stores") / "sql" / backend / "queries.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return {name: query.strip() for name, query in zip(parts[1::2], parts[2::2], strict=True)}


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
