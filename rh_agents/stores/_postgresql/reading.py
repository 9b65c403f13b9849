"""A session that reads a PostgreSQL schema of runs, of whatever version it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any, Final, TypeVar, cast

import psycopg

from rh_agents.core.ports import CacheEntry, Question
from rh_agents.core.ports.call_views import lowered
from rh_agents.stores._backend.beside import PieceRow
from rh_agents.stores._backend.rows import (
    CallRow,
    ChildRow,
    EventRow,
    HeldRow,
    InputRow,
    Kept,
    OutcomeRow,
    RunRow,
    RunsWanted,
    StoredOutcome,
)
from rh_agents.stores._backend.windows import MemberColumns, Tally
from rh_agents.stores._beside import QUERIES, damaged_beside
from rh_agents.stores._checksums import cache_checksum, call_checksum, event_checksum, outcome_checksum
from rh_agents.stores._postgresql.activity import CountsActivity
from rh_agents.stores._postgresql.driver import Array, plain_text
from rh_agents.stores._postgresql.finding import FindsCalls, sorting
from rh_agents.stores._postgresql.news import Connection, News, rows
from rh_agents.stores._postgresql.rows import call_row, kept_entry, kept_run, outcome_row
from rh_agents.stores._postgresql.schema import views_of
from rh_agents.stores._queues import looked_at
from rh_agents.stores._reconnecting import kept_on
from rh_agents.stores._repeated import repeated_finding
from rh_agents.stores._sql import have_checksums, read_queries, through
from rh_agents.stores._summing import tally
from rh_agents.stores._verified import checksums_of_question, checksums_of_run
from rh_agents.stores._windows import damaged_windows

R = TypeVar("R")
T = TypeVar("T")

_UNREAD: Final = "the journal could not be read"


Borrow = Callable[[str], AbstractContextManager[Connection]]
"""Gives a connection of those that all share; an error inside says that what is named could not be done."""


class PostgresqlReadSession(FindsCalls, CountsActivity):
    """A session that does what `ReadSession` says. PostgreSQL's readers never keep a writer waiting."""

    def __init__(self, borrow: Borrow, news: News, ready: News) -> None:
        self._borrow = borrow
        self._queries: Mapping[str, str] | None = None
        self._views: Mapping[str, str] = {}
        self._has_checksums = True
        self._news = news
        self._seen: int | None = None
        self._ready = ready
        self._ready_seen: int | None = None

    def _rows(self, name: str, what: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._asked(name, what, lambda connection, query: rows(connection, query, parameters))

    def _asked(self, name: str, what: str, ask: Callable[[Connection, str], T]) -> T:
        """What a query gives; asked again for some seconds if the way to the server breaks meanwhile."""

        def read() -> T:
            with self._borrow(what) as connection:
                return self._read(connection, name, partial(ask, connection))

        return kept_on(read)

    def _read(self, connection: Connection, name: str, ask: Callable[[str], T]) -> T:
        """What a query gives, of a schema of whatever version, also if it has just been brought up to date."""
        if self._queries is None or self._views:  # it may have been brought up to date, and have more to tell
            self._look_again(connection)
        assert self._queries is not None
        try:
            return ask(self._queries[name])
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            if not self._look_again(connection):
                raise
            return ask(self._queries[name])

    def _look_again(self, connection: Connection) -> bool:
        """Whether the schema has another version than it had."""
        views = views_of(connection)
        is_other = self._queries is None or views != self._views
        if is_other:
            self._look_through(views)
        return is_other

    def _look_through(self, views: Mapping[str, str]) -> None:
        """Read these instead of the tables that a schema of an earlier version does not have."""
        self._views = views
        self._has_checksums = have_checksums(views)
        self._queries = {name: through(query, views) for name, query in _queries().items()}

    def _sealed(self, checksum: Callable[[R], Any], found: Iterable[Kept[R]]) -> list[Kept[R]]:
        """The rows; those of a version that had no checksums get theirs here: there is nothing to compare them with."""
        return list(found) if self._has_checksums else [Kept(kept.row, checksum(kept.row)) for kept in found]

    def children(self, number: int) -> list[ChildRow]:
        return [ChildRow(*row) for row in self._rows("children", "the runs of shards could not be read", number=number)]

    def find_mark(self, number: int, after: int, until: int, text: str) -> int | None:
        found = self._rows("find_mark", _UNREAD, number=number, after=after, until=until, text=text)
        return found[0][0] if found else None

    def look_at_queue(self, queue: str, now: float, without: Sequence[str]) -> tuple[Sequence[str], Sequence[HeldRow]]:
        what = "the runs that wait for a worker could not be read"
        return looked_at(self._rows("look_at_queue", what, queue=queue, now=now, without=Array("text", without)))

    def queue_has_news(self) -> bool:
        before, self._ready_seen = self._ready_seen, self._ready.count()
        return before != self._ready_seen

    def find_run(self, run_id: str, named: int) -> list[Kept[RunRow]]:
        found = self._rows("find_run", f"run {run_id!r} could not be read", run_id=run_id, named=named)
        return self._sealed(checksums_of_run, map(kept_run, found))

    def runs(self, wanted: RunsWanted) -> list[Kept[RunRow]]:
        name = "runs" if wanted.tag is None else "runs_with_tag"
        found = self._rows(name, "the runs could not be read", **_listing(wanted))
        return self._sealed(checksums_of_run, map(kept_run, found))

    def count_runs(self, wanted: RunsWanted) -> int:
        ((count,),) = self._rows("count_runs", "the runs could not be counted", **_listing(wanted))
        return int(count)

    def tags_of_runs(self) -> set[str]:
        return {tag for (tag,) in self._rows("tags_of_runs", "the tags of runs could not be read")}

    def calls(self, number: int, after: int, limit: int) -> list[Kept[CallRow]]:
        parameters = {"number": number, "after": after, "limit": limit}
        found = self._asked("calls", _UNREAD, lambda connection, query: _plain_rows(connection, query, parameters))
        return self._sealed(call_checksum, [Kept(call_row(row[:-1]), row[-1]) for row in found])

    def events(self, number: int, after: int, limit: int) -> list[Kept[EventRow]]:
        return self._kept_events(self._rows("events", _UNREAD, number=number, after=after, limit=limit))

    def _kept_events(self, found: list[tuple[Any, ...]]) -> list[Kept[EventRow]]:
        return self._sealed(event_checksum, [Kept(EventRow._make(row[:-1]), row[-1]) for row in found])

    def outcomes(self, number: int, after: int, limit: int) -> list[Kept[StoredOutcome]]:
        found = self._rows("outcomes", "the outcomes could not be read", number=number, after=after, limit=limit)
        return self._kept_outcomes(found)

    def _kept_outcomes(self, found: list[tuple[Any, ...]]) -> list[Kept[StoredOutcome]]:
        width = len(OutcomeRow._fields) - 1  # the input is read by itself
        outcomes = [Kept(StoredOutcome(outcome_row(row[:width]), *row[width:-1]), row[-1]) for row in found]
        return self._sealed(outcome_checksum, outcomes)

    def inputs(self, number: int, after: int, until: int) -> list[Kept[InputRow]]:
        """What calls were called with."""
        return _kept_inputs(self._rows("inputs", _UNREAD, number=number, after=after, until=until))

    def inputs_at(self, number: int, sequences: Sequence[int]) -> list[Kept[InputRow]]:
        """The same, of the outcomes with these sequences."""
        return _kept_inputs(self._rows("inputs_at", _UNREAD, number=number, sequences=Array("int8", sequences)))

    def tallies(self, number: int, after: int, until: int, later: Sequence[int]) -> list[Tally]:
        """The events from after one sequence up to another one, counted."""
        span = {"number": number, "after": after, "until": until, "later": Array("int8", later)}
        return [tally(row) for row in self._rows("tallies", _UNREAD, **span)]

    def members(self, number: int, after: int, until: int, limit: int) -> MemberColumns:
        """What tells which members are plain."""
        found = self._rows("members", _UNREAD, number=number, after=after, until=until, limit=limit)
        if not found:
            return MemberColumns(None, "", b"", (), (), (), False)
        sequences, kinds, keys, groups, indexes, actors, uses = zip(*found, strict=True)
        columns = ("".join(kinds), b"".join(keys), groups, indexes, actors)
        return MemberColumns(sequences[-1], *columns, any(uses))

    def addresses_at(self, number: int, sequences: Sequence[int]) -> list[tuple[str, str | None, bytes | None, str]]:
        """The type, the group, the key and the address of events."""
        wanted = Array("int8", sequences)
        return [(row[0], *row[1:]) for row in self._rows("addresses_at", _UNREAD, number=number, sequences=wanted)]

    def keys_at(self, number: int, after: int, until: int, addresses: Collection[str]) -> set[bytes]:
        """The keys of the calls at some addresses."""
        span = {"number": number, "after": after, "until": until, "addresses": Array("text", list(addresses))}
        return {key for (key,) in self._rows("keys_at", _UNREAD, **span)}

    def events_at(self, number: int, sequences: Sequence[int]) -> list[Kept[EventRow]]:
        """The events with these sequences."""
        return self._kept_events(self._rows("events_at", _UNREAD, number=number, sequences=Array("int8", sequences)))

    def outcomes_at(self, number: int, sequences: Sequence[int]) -> list[Kept[StoredOutcome]]:
        """The outcomes with these sequences."""
        return self._kept_outcomes(
            self._rows("outcomes_at", _UNREAD, number=number, sequences=Array("int8", sequences))
        )

    def present(self, number: int) -> tuple[float, str, int] | None:
        found = self._rows("read_present", "what a run is doing could not be read", number=number)
        return None if not found else cast(tuple[float, str, int], found[0])

    def pieces(self, number: int, key: bytes | None, after: float) -> list[Kept[PieceRow]]:
        of_call = {} if key is None else {"key": key}
        what = "text of calls under way could not be read"
        found = self._rows("pieces_of_call" if of_call else "pieces", what, number=number, after=after, **of_call)
        return [Kept(PieceRow(bytes(row[0]), *row[1:-1]), row[-1]) for row in found]

    def watched_until(self, number: int, key: bytes) -> float:
        found = self._rows("watched_until", "who looks at a call could not be read", number=number, key=key)
        return float(found[0][0]) if found else 0.0

    def requests(self, number: int, is_open: bool | None) -> Sequence[Sequence[Any]]:
        return self._rows("requests", "the requests to a run could not be read", number=number, is_open=is_open)

    def find_cached(self, key: bytes, now: float) -> Kept[CacheEntry] | None:
        found = self._rows("find_cached", "a kept result could not be read", key=key, now=now)
        return self._sealed(cache_checksum, [kept_entry(found[0])])[0] if found else None

    def cached(self, after: bytes, limit: int) -> list[Kept[CacheEntry]]:
        found = self._rows("cached", "the kept results could not be read", after=after, limit=limit)
        return self._sealed(cache_checksum, map(kept_entry, found))

    def find_question(self, number: int, question_id: str, named: int) -> list[Kept[Question]]:
        facts = {"number": number, "id": question_id, "named": named}
        found = self._rows("question", "a question could not be read", **facts)
        return self._sealed(checksums_of_question, [Kept(Question(*row[:-3]), row[-3:]) for row in found])

    def questions(self, run_id: str | None, is_open: bool) -> list[Kept[Question]]:
        found = self._rows("questions", "the questions could not be read", run_id=run_id, is_open=is_open)
        return self._sealed(checksums_of_question, [Kept(Question(*row[:-3]), row[-3:]) for row in found])

    def used_artifacts(self, digests: Collection[str]) -> set[str]:
        names = Array("bytea", [bytes.fromhex(digest) for digest in digests])
        return {row[0].hex() for row in self._rows("used_artifacts", "the outcomes could not be read", digests=names)}

    def size_of_journal(self, number: int, after: int, until: int) -> int:
        return int(self._rows("size_of_journal", _UNREAD, number=number, after=after, until=until)[0][0])

    def own_artifacts(self, number: int, after: int, until: int) -> dict[str, int]:
        return dict(self._rows("own_artifacts", _UNREAD, number=number, after=after, until=until))

    def findings(self) -> list[str]:
        what = "the check could not be made"
        return [
            *(
                f"run {run_id!r} should have events 1 to {last}, and has {count}, the last of them {highest or 0}"
                for run_id, last, count, highest in self._rows("finding_gaps", what)
            ),
            *(
                f"run {run_id!r} should have {counted} outcomes, and has {found}"
                for run_id, counted, found in self._rows("finding_counts", what)
            ),
            *(
                f"the outcome of event {sequence} of run {run_id!r} {_what_is_wrong(reports)}"
                for run_id, sequence, reports in self._rows("finding_outcomes", what)
            ),
            *(
                f"{count} events belong to run number {number}, which is not there"
                for number, count in self._rows("finding_strays", what)
            ),
            *(repeated_finding(*row) for row in self._rows("finding_keys", what)),
            *self._findings_of_version(what),
        ]

    def _findings_of_version(self, what: str) -> list[str]:
        """What can be wrong in some versions only."""
        found = []
        if "orphan" in self._views:
            orphans = self._rows("finding_orphans", what)
            found += [f"run {run_id!r}: there is an outcome without its event at {place}" for run_id, place in orphans]
        if self._has_checksums:
            found += damaged_windows(*(self._rows(query, what) for query in ("all_tickets", "all_holds", "all_shared")))
            found += damaged_beside({query: self._rows(query, what) for query in QUERIES})
        return found

    def has_changed(self) -> bool:
        seen, self._seen = self._seen, self._news.count()
        return seen != self._seen

    def is_in_place(self) -> bool:
        return True

    def close(self) -> None:
        """There is nothing to let go of."""


@cache
def _queries() -> dict[str, str]:
    queries = read_queries("postgresql")
    return {**queries, **sorting(queries)}


def _listing(wanted: RunsWanted) -> dict[str, Any]:
    """What stands for the runs that are wanted in queries."""
    return {
        **wanted._asdict(),
        "tag": None if wanted.tag is None else Array("text", [wanted.tag]),
        "kinds": None if wanted.kinds is None else Array("text", wanted.kinds),
        "text": None if wanted.text is None else lowered(wanted.text),
        "forks_of": None if wanted.forks_of is None else Array("text", wanted.forks_of),
    }


def _kept_inputs(found: list[tuple[Any, ...]]) -> list[Kept[InputRow]]:
    return [Kept(InputRow(sequence, text or ""), checksum) for sequence, text, checksum in found]


def _plain_rows(connection: Connection, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Hundreds of thousands of rows: their texts are words and digests, in which there is nothing to restore."""
    cursor = connection.cursor(binary=True)
    plain_text(cursor)
    with connection.one_statement():
        cursor.execute(query.encode(), parameters, prepare=True)
    return cursor.fetchall()


def _what_is_wrong(reports: bool) -> str:
    return "has no call, or not one value" if reports else "is there, though its event reports none"
