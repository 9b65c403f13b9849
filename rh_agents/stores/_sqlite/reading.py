"""A connection that reads a file of runs, of whatever version it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import apsw
from pydantic_core import from_json

from rh_agents.core.ports import CacheEntry, Question
from rh_agents.stores._backend.beside import PieceRow
from rh_agents.stores._backend.rows import (
    CallRow,
    ChildRow,
    EventRow,
    HeldRow,
    InputRow,
    Kept,
    RunRow,
    RunsWanted,
    StoredOutcome,
)
from rh_agents.stores._backend.windows import MemberColumns, Tally
from rh_agents.stores._beside import QUERIES, damaged_beside
from rh_agents.stores._checksums import cache_checksum, call_checksum, event_checksum, outcome_checksum
from rh_agents.stores._files import identity_of
from rh_agents.stores._queues import looked_at
from rh_agents.stores._repeated import repeated_finding
from rh_agents.stores._sql import have_checksums, read_queries, through
from rh_agents.stores._sqlite.activity import CountsActivity
from rh_agents.stores._sqlite.finding import FindsCalls
from rh_agents.stores._sqlite.rows import (
    NOT_MADE,
    OKS,
    PLACE_BITS,
    Row,
    as_json,
    as_text,
    from_digits,
    from_text,
    from_value,
    kept_entry,
    kept_event,
    kept_input,
    kept_outcome,
    kept_question,
    kept_run,
    listing,
    places_of_run,
    some_text,
)
from rh_agents.stores._sqlite.session import DatabaseFile
from rh_agents.stores._sqlite.versions import views_of
from rh_agents.stores._summing import tally
from rh_agents.stores._verified import checksums_of_question, checksums_of_run
from rh_agents.stores._windows import damaged_windows

R = TypeVar("R")

_SEPARATOR: Final = b"\x1e"
"""Between values that are read together: a character that no JSON text contains."""
_NO_KEY: Final = bytes(32)


def _more(about: list[str] | None) -> tuple[str | None, str | None]:
    """The name and the rarer facts of an event that has any."""
    if about is None:
        return None, None
    name, more = about
    return from_text(name), from_text(more)


def _between(number: int, after: int, until: int, later: Sequence[int]) -> dict[str, Any]:
    """The places of events from after one sequence up to another one, and of outcomes that count for nothing."""
    first = number << PLACE_BITS
    return {"after": first + after, "until": first + until, "later": as_json([first + each for each in later])}


def _places(number: int, sequences: Sequence[int]) -> str:
    """The places of events of a run."""
    first = number << PLACE_BITS
    return as_json([first + each for each in sequences])


class SqliteReadSession(FindsCalls, CountsActivity):
    """A connection that reads."""

    def __init__(self, file: DatabaseFile, connection: apsw.Connection) -> None:
        super().__init__(file, connection)
        self._identity = identity_of(connection.filename)
        try:
            with self.errors():
                connection.pragma("query_only", True)
                connection.pragma("cache_size", -4_000)  # a journal is read from one end to the other, and not again
                connection.pragma("temp_store", "MEMORY")
                self._look_through(views_of(connection))
        except BaseException:
            self.close()
            raise

    def is_in_place(self) -> bool:
        return identity_of(self.connection.filename) == self._identity

    def _look_through(self, views: Mapping[str, str]) -> None:
        """Read these instead of the tables that a file of an earlier version does not have."""
        self._views = views
        self._has_checksums = have_checksums(views)
        self._queries = {name: through(query, views) for name, query in read_queries("sqlite").items()}

    def _all(self, name: str, **arguments: Any) -> list[Row]:
        with self.errors():
            if self._views:  # it may have been brought up to date meanwhile, and have more to tell
                self._look_again()
            try:
                return self.query(name, **arguments)
            except apsw.SQLError:  # a table is not there: the same, at this very moment
                if not self._look_again():
                    raise
                return self.query(name, **arguments)

    def _look_again(self) -> bool:
        """Whether the file has another version than it had."""
        views = views_of(self.connection)
        is_other = views != self._views
        if is_other:
            self._look_through(views)
        return is_other

    def _sealed(self, checksum: Callable[[R], Any], rows: Iterable[Kept[R]]) -> list[Kept[R]]:
        """The rows; those of a version that had no checksums get theirs here: there is nothing to compare them with."""
        return list(rows) if self._has_checksums else [Kept(kept.row, checksum(kept.row)) for kept in rows]

    def children(self, number: int) -> list[ChildRow]:
        return [ChildRow(*map(from_value, row)) for row in self._all("children", number=number)]

    def find_mark(self, number: int, after: int, until: int, text: str) -> int | None:
        first = number << PLACE_BITS
        rows = self._all("find_mark", after=first + after, until=first + until, text=as_text(text))
        return rows[0][0] - first if rows else None

    def look_at_queue(self, queue: str, now: float, without: Sequence[str]) -> tuple[Sequence[str], Sequence[HeldRow]]:
        its = as_json(list(map(as_text, without)))
        return looked_at(
            [map(from_value, row) for row in self._all("look_at_queue", queue=as_text(queue), now=now, without=its)]
        )

    def queue_has_news(self) -> bool:
        return self.has_changed()

    def find_run(self, run_id: str, named: int) -> list[Kept[RunRow]]:
        return self._sealed(checksums_of_run, map(kept_run, self._all("find_run", run_id=as_text(run_id), named=named)))

    def runs(self, wanted: RunsWanted) -> list[Kept[RunRow]]:
        return self._sealed(checksums_of_run, self._listed(wanted))

    def _listed(self, wanted: RunsWanted) -> list[Kept[RunRow]]:
        try:
            return [kept_run(row) for row in self._all("list_runs", **listing(wanted))]
        except UnicodeDecodeError:  # a damaged byte of one row: it must not hide the others
            found = self._all("names_of_runs", **listing(wanted))
            return [self._listed_alone(number, name) for number, name in found]

    def _listed_alone(self, number: int, name: bytes) -> Kept[RunRow]:
        alone = listing(RunsWanted(behind=number + 1, limit=1, parts=True))
        try:
            found = [kept_run(row) for row in self._all("list_runs", **alone)]
        except UnicodeDecodeError:
            found = []
        damaged = Kept(RunRow(number, name.decode("utf-8", "replace"), ""), ())
        return next((each for each in found if each.row.number == number), damaged)

    def count_runs(self, wanted: RunsWanted) -> int:
        ((count,),) = self._all("count_runs", **listing(wanted))
        return int(count)

    def tags_of_runs(self) -> set[str]:
        found: set[str] = set()
        for (tags,) in self._all("tags_of_runs"):
            with suppress(ValueError):
                found.update(each for each in json.loads(tags) if isinstance(each, str))
        return found

    def calls(self, number: int, after: int, limit: int) -> list[Kept[CallRow]]:
        first, last = number << PLACE_BITS, places_of_run(number)[1]
        ((places, statuses, keys, attempts, groups, oks, more, made_in, checksums),) = self._all(
            "read_calls", after=first + after, last=last, limit=limit
        )
        keys, new = keys or b"", tuple.__new__  # a third of the time that a NamedTuple takes to be called
        found = [
            new(
                Kept,
                (
                    new(
                        CallRow,
                        (place - first, status, key if key != _NO_KEY else None, attempt, group, ok, *about, *made),
                    ),
                    checksum,
                ),
            )
            for place, status, key, attempt, group, ok, about, made, checksum in zip(
                from_json(places),
                from_json(statuses),
                [keys[start : start + 32] for start in range(0, len(keys), 32)],
                from_json(attempts),
                map(from_text, from_json(groups)),
                map(OKS.__getitem__, from_json(oks)),
                map(_more, from_json(more)),
                (made or NOT_MADE for made in from_json(made_in)),
                from_json(checksums),
                strict=True,
            )
        ]
        return self._sealed(call_checksum, found)

    def events(self, number: int, after: int, limit: int) -> list[Kept[EventRow]]:
        first, last = number << PLACE_BITS, places_of_run(number)[1]
        ((rows,),) = self._all("read_events", after=first + after, last=last, limit=limit)
        return self._kept_events(number, rows)

    def _kept_events(self, number: int, rows: str) -> list[Kept[EventRow]]:
        first = number << PLACE_BITS
        return self._sealed(event_checksum, [kept_event(first, row) for row in from_json(rows)])

    def outcomes(self, number: int, after: int, limit: int) -> list[Kept[StoredOutcome]]:
        first, last = number << PLACE_BITS, places_of_run(number)[1]
        ((rows, values),) = self._all("read_outcomes", after=first + after, last=last, limit=limit)
        return self._kept_outcomes(number, rows, values)

    def _kept_outcomes(self, number: int, rows: str, values: bytes | None) -> list[Kept[StoredOutcome]]:
        first = number << PLACE_BITS
        parts = [] if values is None else values.split(_SEPARATOR)
        found = [kept_outcome(first, row, value) for row, value in zip(from_json(rows), parts, strict=True)]
        return self._sealed(outcome_checksum, found)

    def inputs(self, number: int, after: int, until: int) -> list[Kept[InputRow]]:
        first = number << PLACE_BITS
        return [kept_input(first, row) for row in self._all("read_inputs", after=first + after, until=first + until)]

    def inputs_at(self, number: int, sequences: Sequence[int]) -> list[Kept[InputRow]]:
        rows = self._all("read_inputs_at", places=_places(number, sequences))
        return [kept_input(number << PLACE_BITS, row) for row in rows]

    def tallies(self, number: int, after: int, until: int, later: Sequence[int]) -> list[Tally]:
        rows = self._all("tallies", **_between(number, after, until, later))
        return [
            tally((kind, from_text(group), status, has_outcome, is_repeated, from_text(name), *rest))
            for kind, group, status, has_outcome, is_repeated, name, *rest in rows
        ]

    def members(self, number: int, after: int, until: int, limit: int) -> MemberColumns:
        first = number << PLACE_BITS
        ((count, last, kinds, keys, *columns, uses),) = self._all(
            "read_members", after=first + after, until=first + until, limit=limit
        )
        groups, indexes, actors = map(from_json, columns)
        return MemberColumns(
            last - first if count else None,
            kinds or "",
            keys or b"",
            _texts(groups),
            indexes,
            _texts(actors),
            bool(uses),
        )

    def addresses_at(self, number: int, sequences: Sequence[int]) -> list[tuple[str, str | None, bytes | None, str]]:
        ((rows,),) = self._all("addresses_at", places=_places(number, sequences))
        return [
            (kind, from_text(group), from_digits(key), some_text(address))
            for kind, group, key, address in from_json(rows)
        ]

    def keys_at(self, number: int, after: int, until: int, addresses: Collection[str]) -> set[bytes]:
        first, wanted = number << PLACE_BITS, as_json([as_text(address) for address in addresses])
        return {key for (key,) in self._all("keys_at", after=first + after, until=first + until, addresses=wanted)}

    def events_at(self, number: int, sequences: Sequence[int]) -> list[Kept[EventRow]]:
        ((rows,),) = self._all("read_events_at", places=_places(number, sequences))
        return self._kept_events(number, rows)

    def outcomes_at(self, number: int, sequences: Sequence[int]) -> list[Kept[StoredOutcome]]:
        ((rows, values),) = self._all("read_outcomes_at", places=_places(number, sequences))
        return self._kept_outcomes(number, rows, values)

    def present(self, number: int) -> tuple[float, str, int] | None:
        found = self._all("read_present", number=number)
        return None if not found else cast(tuple[float, str, int], tuple(found[0]))

    def pieces(self, number: int, key: bytes | None, after: float) -> list[Kept[PieceRow]]:
        of_call = {} if key is None else {"key": key}
        rows = self._all("pieces_of_call" if of_call else "pieces", number=number, after=after, **of_call)
        return [Kept(PieceRow._make(row[:-1]), row[-1]) for row in rows]

    def watched_until(self, number: int, key: bytes) -> float:
        found = self._all("watched_until", number=number, key=key)
        return float(found[0][0]) if found else 0.0

    def requests(self, number: int, is_open: bool | None) -> Sequence[Sequence[Any]]:
        return self._all("requests", number=number, is_open=is_open)

    def find_cached(self, key: bytes, now: float) -> Kept[CacheEntry] | None:
        found = self._sealed(cache_checksum, map(kept_entry, self._all("find_cached", key=key, now=now)))
        return found[0] if found else None

    def cached(self, after: bytes, limit: int) -> list[Kept[CacheEntry]]:
        found = map(kept_entry, self._all("read_cached", after=after, limit=limit))
        return self._sealed(cache_checksum, found)

    def find_question(self, number: int, question_id: str, named: int) -> list[Kept[Question]]:
        rows = self._all("find_question", number=number, id=as_text(question_id), named=named)
        return self._sealed(checksums_of_question, map(kept_question, rows))

    def questions(self, run_id: str | None, is_open: bool) -> list[Kept[Question]]:
        if run_id is not None:
            rows = self._all("questions_of_run", run_id=as_text(run_id))
        else:
            rows = self._all("open_questions" if is_open else "questions")
        found = [kept for kept in map(kept_question, rows) if not is_open or kept.row.answer is None]
        return self._sealed(checksums_of_question, found)

    def used_artifacts(self, digests: Collection[str]) -> set[str]:
        return {digest for digest in digests if self._all("is_used_artifact", artifact=bytes.fromhex(digest))}

    def size_of_journal(self, number: int, after: int, until: int) -> int:
        first = number << PLACE_BITS
        return int(self._all("size_of_journal", after=first + after, until=first + until)[0][0])

    def own_artifacts(self, number: int, after: int, until: int) -> dict[str, int]:
        first, last = places_of_run(number)
        span = {"after": first - 1 + after, "until": first - 1 + until}
        return dict(self._all("own_artifacts", first=first, last=last, **span))

    def findings(self) -> list[str]:
        name = self.file.name
        found = [f"{name}: {text}" for (text,) in self._all("check_integrity") if text != "ok"]
        if found:  # what a damaged file says about runs is worth nothing
            return found
        for query, text_of in _FINDINGS.items():
            found += [f"{name}: {text_of(*row)}" for row in self._all(query)]
        if not self._has_checksums:
            return found
        windows = damaged_windows(*(self._all(query) for query in ("all_tickets", "all_holds", "all_shared")))
        beside = damaged_beside({query: self._all(query) for query in QUERIES})
        return found + [f"{name}: {text}" for text in (*windows, *beside)]


def _texts(column: list[str | None]) -> list[str | None]:
    """The texts of a column in which there are few different ones."""
    texts = {text: from_text(text) for text in set(column)}
    return [texts[text] for text in column]


_FINDINGS: Final[dict[str, Callable[..., str]]] = {
    "check_foreign_keys": lambda table, row, parent, _: f"row {row} of {table} refers to a {parent} that is not there",
    "check_sequences": lambda run, last, count, *_: (
        f"run {run!r} should have the events 1 to {last}, and has {count}, not all of them of these numbers"
    ),
    "check_counts": lambda run, count, found: f"run {run!r} should have {count} outcomes, and has {found}",
    "check_events_without_run": lambda number, count: (
        f"{count} events belong to run number {number}, which is not there"
    ),
    "check_outcomes": lambda run, place, what: f"the outcome of event {place} of run {run!r} {what}",
    "check_calls": repeated_finding,
}
