"""Large values in a table of the database, for runs that several machines execute or read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any

import psycopg

from rh_agents.stores._reconnecting import kept_on
from rh_agents.stores.artifacts import StoredArtifact, checked_digest, expect_size, missing, verified

_AT_ONCE = 1000
"""How many artifacts are listed by one query."""


class TableArtifacts:
    """Artifacts as rows of the table `artifact`. Fits `ArtifactStore`.

    Args:
        connection: gives a connection for one thread at a time.
        queries: the SQL, by name.
        place: the database, for error messages.
    """

    def __init__(
        self,
        connection: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
        queries: dict[str, str],
        place: str,
    ) -> None:
        self._connection = connection
        self._queries = queries
        self._place = place

    def __repr__(self) -> str:
        return f"TableArtifacts({self._place!r})"

    def put(self, data: bytes) -> str:
        digest = sha256(data)
        self._asked("put_artifact", "an artifact could not be written", {"digest": digest.digest(), "data": data})
        return digest.hexdigest()

    def get(self, digest: str, *, size: int | None = None) -> bytes:
        name = bytes.fromhex(checked_digest(digest))
        found = self._asked("get_artifact", "an artifact could not be read", {"digest": name, "size": size})
        where = f"{self._place}/artifact/{digest}"
        if not found:
            raise missing(where)
        row = found[0]
        expect_size(row[0], size, where)
        return verified(row[1], digest, where)

    def digests(self) -> Iterator[StoredArtifact]:
        """All artifacts in the order of their digests."""
        after = b""
        while True:
            page = {"after": after, "limit": _AT_ONCE}
            rows = self._asked("list_artifacts", "the artifacts could not be listed", page)
            for digest, size, put_at in rows:
                yield StoredArtifact(digest.hex(), size, put_at)
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1][0]

    def delete(self, digest: str, *, put_before: float) -> int:
        name = bytes.fromhex(checked_digest(digest))
        with self._connection("an artifact could not be deleted") as connection:
            row = connection.execute(
                self._query("delete_artifact"), {"digest": name, "put_before": put_before}
            ).fetchone()
        return 0 if row is None else int(row[0])

    def clean(self, *, put_before: float) -> int:
        """An interrupted write leaves nothing."""
        return 0

    def _asked(self, name: str, what: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """What a query gives that may be done twice; done again for some seconds if the way to the server breaks."""

        def ask() -> list[tuple[Any, ...]]:
            with self._connection(what) as connection:
                cursor = connection.execute(self._query(name), parameters, binary=True)
                return cursor.fetchall() if cursor.description is not None else []

        return kept_on(ask)

    def _query(self, name: str) -> bytes:
        return self._queries[name].encode()
