"""Which version of the schema a file of runs has, and how it is read as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import apsw

from rh_agents.stores._sql import read_migrations, read_queries, read_views

CHECKSUMS: Final = 3
"""The version of the schema that has checksums."""
JOURNAL: Final = 4
"""The version in which an event and its outcome are one row."""


def known_version() -> int:
    """The newest version that this program knows."""
    return read_migrations("sqlite")[-1].number


def version_of(connection: apsw.Connection) -> int:
    """The version that a file says it has; 0 if there is nothing in it."""
    version = connection.pragma("user_version")
    assert isinstance(version, int)
    return version


def is_moving(connection: apsw.Connection) -> bool:
    """Whether the journal is still where an earlier version had it: a process that moved it was cut off, or goes on."""
    return bool(list(connection.execute(read_queries("sqlite")["is_moving"])))


def views_of(connection: apsw.Connection) -> Mapping[str, str]:
    """What stands for tables that a file does not have, or does not have yet, by their names."""
    version = version_of(connection)
    views = read_views("sqlite", version) if 0 < version < known_version() else {}
    if version == JOURNAL and is_moving(connection):
        moved = read_views("sqlite", CHECKSUMS)["journal"]
        return {**views, "journal": moved.replace(".event ", ".event_3 ").replace(".outcome ", ".outcome_3 ")}
    return views
