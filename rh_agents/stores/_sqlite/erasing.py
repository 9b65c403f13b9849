"""Erasing contents of runs in an SQLite file, so that no byte of them is left in it or beside it.

SQLite itself leaves much behind: a replaced value stays in the free space of its page or in a page that is free, and
in the write-ahead log until that is begun anew. (`secure_delete` would overwrite what is deleted from now on, but not
the copies that moving rows between pages has left earlier.) So in the end the file is written anew (`VACUUM`), which
takes over only what rows say, and the log is brought into it and cut to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import apsw

from rh_agents.core.errors import StoreError
from rh_agents.stores._backend.rows import Batch, RunRow
from rh_agents.stores._checksums import sealed
from rh_agents.stores._sqlite.rows import PLACE_BITS, as_json, as_text, run_facts
from rh_agents.stores._sqlite.session import TransactionSession

_BESIDE: Final = ("delete_questions", "delete_cached", "delete_input", "delete_beside")
_KEPT_OF_RUN: Final = (
    "facts",
    "reason",
    "name_checksum",
    "checksum",
    "status_checksum",
)
_LARGEST_IN_USE: Final = 256 << 20
"""Bytes. A file of this size is written anew in a few seconds, for which other processes wait anyway."""


class ErasingSession(TransactionSession):
    """A connection that can overwrite what is there."""

    def strip(self, new: RunRow) -> bool:
        facts = run_facts(new)
        with self.transaction():
            kept = {name: facts[name] for name in _KEPT_OF_RUN}
            if not self.query("strip_run", number=new.number, fence=new.fence, **kept):
                return False
            for name in _BESIDE:
                self.connection.execute(self._queries[name], {"number": new.number})
        self.bound_wal()
        return True

    def rewrite(self, batch: Batch) -> bool:
        with self.transaction():
            if not self.query("is_held", number=batch.number, fence=batch.fence):
                return False
            self.connection.executemany(self._queries["rewrite"], _rewritten(batch))
        self.bound_wal()
        return True

    def delete_cached(self, keys: Sequence[bytes]) -> None:
        with self.transaction():
            self.query("delete_cached_keys", keys=as_json([key.hex().upper() for key in keys]))
        self.bound_wal()

    def forget_old_versions(self, *, is_in_use: bool) -> str:
        self._write_anew(is_in_use)
        with self.errors():
            try:
                self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError as error:
                raise self._not_yet("another process reads or writes it all the time") from error
        return ""

    def _write_anew(self, is_in_use: bool) -> None:
        with self.errors():
            size = os.path.getsize(self.connection.filename)
            if is_in_use and size > _LARGEST_IN_USE:
                raise self._not_yet(f"the file has {size >> 20} MiB, and other runs in it are being executed")
            self.connection.pragma("temp_store", "FILE")  # it may be larger than memory
            try:
                self.connection.execute("VACUUM")
            finally:
                self.connection.pragma("temp_store", "MEMORY")

    def _not_yet(self, why: str) -> StoreError:
        return StoreError(
            f"{self.file.name}: the values are overwritten, but earlier versions of them cannot be removed from the "
            f"file now: {why}; erase them once more when that is over"
        )


def _rewritten(batch: Batch) -> list[dict[str, Any]]:
    """What is stored of rows that stay where they are."""
    of_events, of_outcomes = sealed(batch.events, batch.outcomes)
    values: dict[int, dict[str, Any]] = {
        outcome.sequence: {"value": (outcome.value or b"").decode(), "outcome_checksum": checksum}
        for outcome, checksum in zip(batch.outcomes, of_outcomes, strict=True)
    }
    return [
        {
            "place": (batch.number << PLACE_BITS) + event.sequence,
            "message": as_text(event.message),
            "more": event.more,
            "call_checksum": call_checksum,
            "checksum": checksum,
            **values.get(event.sequence, {"value": None, "outcome_checksum": None}),
        }
        for event, (call_checksum, checksum) in zip(batch.events, of_events, strict=True)
    ]
