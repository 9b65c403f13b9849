"""The connection that writes to a file of runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, Final

import apsw

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import Admitted, CacheEntry, Question, RateWindow
from rh_agents.core.ports.control import ControlRequest
from rh_agents.stores._asking import answer_columns, request_columns
from rh_agents.stores._backend import (
    ENDED,
    FORGOTTEN_AFTER,
    Batch,
    EventRow,
    LeaseState,
    OutcomeRow,
    PieceCut,
    PieceRow,
    PresentRow,
    RunRow,
)
from rh_agents.stores._checksums import (
    amounts_checksum,
    answer_checksum,
    cache_checksum,
    held_checksum,
    holder_checksum,
    piece_checksum,
    present_checksum,
    status_checksum,
    ticket_checksum,
    watching_checksum,
)
from rh_agents.stores._copying import erased_meanwhile
from rh_agents.stores._repeated import is_wanted, not_once
from rh_agents.stores._sqlite.erasing import ErasingSession
from rh_agents.stores._sqlite.looking import at_one_moment, expect_ours
from rh_agents.stores._sqlite.rows import (
    JOURNAL_WIDTH,
    PLACE_BITS,
    as_json,
    as_text,
    journal_rows,
    lease_state_of,
    places_of_run,
    question_facts,
    run_facts,
    some_as_text,
)
from rh_agents.stores._sqlite.schema import bring_up_to_date
from rh_agents.stores._sqlite.session import DatabaseFile
from rh_agents.stores._sqlite.versions import known_version
from rh_agents.stores._windows import held_until, refusal, tickets_since

_MOST_ROWS: Final = 256
"""Rows in one statement. Their number is rounded up, so that few statements have to be prepared."""


class SqliteWriteSession(ErasingSession):
    """The connection that writes."""

    def __init__(self, file: DatabaseFile, connection: apsw.Connection) -> None:
        super().__init__(file, connection)
        self._is_news = True
        try:
            with self.errors():
                with at_one_moment(connection):  # before anything is set that stays in the file
                    expect_ours(connection, file.name, known_version())
                self.configure()
            bring_up_to_date(self)
            if is_wanted("keys"):
                self._expect_once()
        except BaseException:
            self.close()
            raise

    def _expect_once(self) -> None:
        with self.errors():
            try:
                self.connection.execute(self._queries["expect_once"])
            except apsw.ConstraintError as error:
                raise not_once(self.file.name) from error

    # -- batches and leases -------------------------------------------------------------------------------------------

    def write(self, batches: Sequence[Batch], now: float) -> list[LeaseState]:
        with self.transaction():
            states = self._write(batches, now)
        self.bound_wal()
        return states

    def _write(self, batches: Sequence[Batch], now: float) -> list[LeaseState]:
        values: list[Any] = []
        states = []
        for batch in batches:
            state = self._advance(batch, now)
            states.append(state)
            if state.is_ours:
                values += journal_rows(batch)
                for key in batch.streamed:
                    self.query("delete_pieces_of", number=batch.number, key=key)
        self._insert(values)
        return states

    def _advance(self, batch: Batch, now: float) -> LeaseState:
        row = self.query_one(
            "advance",
            number=batch.number,
            fence=batch.fence,
            expected=batch.last_sequence,
            last_sequence=batch.last_sequence + len(batch.events),
            outcomes=len(batch.outcomes),
            now=now,
        )
        return lease_state_of(row)

    def _insert(self, values: list[Any], query: str = "insert") -> None:
        """Insert rows with as few statements as possible: for each the interpreter's lock has to be got back."""
        width = JOURNAL_WIDTH
        for start in range(0, len(values), _MOST_ROWS * width):
            chunk = values[start : start + _MOST_ROWS * width]
            count = len(chunk) // width
            size = _size_for(count)
            chunk += [None] * ((size - count) * width)
            self.connection.execute(_repeated(self._queries[query], size), chunk)

    def renew(self, held: Sequence[tuple[int, int]], now: float) -> list[LeaseState]:
        with self.transaction():
            states = [
                lease_state_of(self.query_one("renew", number=number, fence=fence, now=now)) for number, fence in held
            ]
        self.bound_wal()
        return states

    def look(self, held: Sequence[tuple[int, int]]) -> list[LeaseState] | None:
        if not self.has_changed() and not self._is_news:
            return None
        self._is_news = False
        with self.errors():
            return [lease_state_of(self.query_one("look", number=number, fence=fence)) for number, fence in held]

    def say(self, rows: Sequence[PresentRow]) -> None:
        with self.transaction():
            for number, fence, at, facts in rows:
                checksum = present_checksum(at, facts)
                self.query("say", number=number, fence=fence, at=at, facts=facts, checksum=checksum)
        self.bound_wal()

    # -- taking hold of runs ------------------------------------------------------------------------------------------

    def create(self, new: RunRow) -> RunRow | None:
        with self.transaction():
            return self._create(new)

    def _create(self, new: RunRow) -> RunRow | None:
        row = self.query_one("create_run", created_at=new.created_at, run_id=as_text(new.run_id), **run_facts(new))
        if row is None:
            return None
        self._put_input(row[0], new.input)
        return dataclasses.replace(new, number=row[0])

    def replace(self, expected: RunRow, new: RunRow) -> bool:
        with self.transaction():
            row = self.query_one(
                "replace_run",
                number=expected.number,
                expected_fence=expected.fence,
                expected_heartbeat=expected.heartbeat,
                **run_facts(new),
            )
            if row is None:
                return False
            self.query("delete_pieces", number=expected.number)
            self._put_input(expected.number, new.input)
        return True

    def _put_input(self, number: int, data: bytes | None) -> None:
        if data is not None:
            self.query("put_input", number=number, input=data)

    def release(self, number: int, fence: int, status: str | None, reason: str | None, now: float) -> bool:
        held = {"number": number, "fence": fence, "holder_checksum": holder_checksum(None, None, fence + 1)}
        with self.transaction():
            is_ours = self._release(held, status, reason, now)
            if is_ours:
                self.query("delete_pieces", number=number)
                self.query("forget_watchers", number=number, before=inf)
            return is_ours

    def _release(self, held: Mapping[str, int], status: str | None, reason: str | None, now: float) -> bool:
        if status is None:
            return bool(self.query("release_run", **held))
        ended_at = now if status in ENDED else None
        facts = {"status": status, "reason": as_text(reason), "now": now, "ended_at": ended_at}
        checksum = status_checksum(status, reason, ended_at)
        return bool(self.query("release_run_as", **held, **facts, status_checksum=checksum))

    def delete(self, number: int, fence: int) -> bool:
        first, last = places_of_run(number)
        with self.transaction():
            if not self.query("is_held", number=number, fence=fence):
                return False
            self.query("delete_journal", first=first, last=last)
            self.query("delete_questions", number=number)
            self.query("delete_cached", number=number)
            self.query("delete_run", number=number)
        self.bound_wal()
        return True

    def add(self, new: RunRow, parts: Iterable[tuple[list[EventRow], list[OutcomeRow]]]) -> bool:
        if self.query_one("is_run", run_id=as_text(new.run_id)) is not None:
            return False
        with self._gathered(parts) as (events, outcomes), self.transaction():
            made = self._create(new)
            if made is None:
                return False
            self.query("add_copied", before=made.number << PLACE_BITS)
            self.query_one(
                "advance",
                number=made.number,
                fence=made.fence,
                expected=0,
                last_sequence=events,
                outcomes=outcomes,
                now=new.updated_at,
            )
            if new.forked_from is not None and self.query("is_erased", run_id=as_text(new.forked_from)):
                raise erased_meanwhile(new.forked_from)
        self.bound_wal()
        return True

    @contextmanager
    def _gathered(self, parts: Iterable[tuple[list[EventRow], list[OutcomeRow]]]) -> Iterator[tuple[int, int]]:
        """Have the rows of a copy in a table of this connection, in a file: how many events and outcomes there are.

        To read and verify a long journal takes minutes. Who executes another run in the same file could not write all
        the time, and would be stopped by that.
        """
        connection, queries = self.connection, self._queries
        with self.errors():
            connection.pragma("temp_store", "FILE")
            try:
                connection.execute(queries["begin_copy"])
                sequence = count = 0
                for events, outcomes in parts:
                    self._gather(Batch(0, 0, sequence, events, outcomes))
                    sequence, count = sequence + len(events), count + len(outcomes)
                yield sequence, count
            finally:
                with suppress(apsw.Error):  # what is wrong is said by the first error
                    connection.execute(queries["end_copy"])
                    connection.pragma("temp_store", "MEMORY")

    def _gather(self, part: Batch) -> None:
        try:
            self._insert(journal_rows(part), "copy")
        except apsw.Error as error:
            raise StoreError(
                f"{self.file.name}: a copy of a run is made in a temporary file first, which could not be written "
                f"({error}): make room, or let TMPDIR name another directory"
            ) from error

    # -- people -------------------------------------------------------------------------------------------------------

    def ask(self, number: int, fence: int, question: Question) -> bool:
        with self.transaction():
            if not self.query("is_held", number=number, fence=fence):
                return False
            self.query("ask", number=number, **question_facts(question))
            return True

    def reject_answer(self, number: int, fence: int, question_id: str, problem: str) -> bool:
        checksum = answer_checksum(question_id, None, None, None, problem)
        with self.transaction():
            if not self.query("is_held", number=number, fence=fence):
                return False
            facts = {"problem": as_text(problem), "answer_checksum": checksum}
            self.query("reject_answer", number=number, id=as_text(question_id), **facts)
            return True

    def answer(self, number: int, question_id: str, answer: bytes, by: str | None, now: float) -> bool:
        facts = {"answer": answer, "by": as_text(by), "now": now}
        checksum = answer_checksum(question_id, answer, now, by, None)
        with self.transaction():
            return bool(self.query("answer", number=number, id=as_text(question_id), answer_checksum=checksum, **facts))

    def request_stop(self, number: int, reason: str) -> None:
        with self.transaction():
            self.query("request_stop", number=number, reason=as_text(reason))
        self._is_news = True  # `data_version` tells only of what others have written

    # -- text of calls under way --------------------------------------------------------------------------------------

    def watch(self, number: int, key: bytes, now: float, until: float) -> None:
        with self.transaction():
            self.query("forget_watchers", number=number, before=now - FORGOTTEN_AFTER)
            self.query("watch", number=number, key=key, until=until, checksum=watching_checksum(key, until))
        self._is_news = True

    def put_pieces(self, number: int, fence: int, rows: Sequence[PieceRow], cuts: Sequence[PieceCut]) -> None:
        with self.transaction():
            if not self.query("is_held", number=number, fence=fence):
                return
            for row in rows:
                self.query("put_piece", number=number, **row._asdict(), checksum=piece_checksum(*row))
            for cut in cuts:
                self.query("cut_pieces", number=number, **cut._asdict())
        self.bound_wal()

    def ask_for(self, number: int, request: ControlRequest) -> None:
        with self.transaction():
            self.query("ask_for", number=number, **request_columns(request))
        self._is_news = True

    def answer_request(self, number: int, fence: int, request_id: str, answer: Mapping[str, Any], now: float) -> bool:
        with self.transaction():
            if not self.query("is_held", number=number, fence=fence):
                return False
            self.query("answer_request", number=number, **answer_columns(request_id, answer, now))
            return True

    # -- what runs and processes share --------------------------------------------------------------------------------

    def put_cached(self, entry: CacheEntry) -> None:
        with self.transaction():
            self.query(
                "put_cached",
                key=entry.key,
                value=entry.value.decode(),
                actor=as_text(entry.actor),
                created_at=entry.created_at,
                expires_at=entry.expires_at,
                run_id=as_text(entry.run_id),
                checksum=cache_checksum(entry),
            )
        self.bound_wal()

    def delete_expired(self, now: float) -> None:
        with self.transaction():
            self.query("delete_expired", now=now)
            self.query("delete_old_tickets", now=now)
        self.bound_wal()

    def admit(self, window: RateWindow, amounts: Mapping[str, float], now: float) -> Admitted:
        limited = some_as_text(window.name)
        taken = as_json(dict(amounts))
        ends_at = now + window.per
        with self.transaction():
            self.query("delete_old_tickets", now=now)
            rows = self.query("read_tickets", limited=limited)
            tickets = tickets_since(self.file.name, limited, rows, now - window.per)
            refused = refusal(window, tickets, self._held_until(limited), amounts, now)
            if refused is not None:
                return refused
            row = self.query_one(
                "add_ticket",
                limited=limited,
                taken_at=now,
                ends_at=ends_at,
                amounts=taken,
                checksum=ticket_checksum(limited, now, ends_at),
                amounts_checksum=amounts_checksum(limited, taken),
            )
            assert row is not None
            return Admitted(str(row[0]))

    def _held_until(self, limited: str) -> float:
        return held_until(self.file.name, limited, self.query_one("read_hold", limited=limited))

    def settle(self, window: RateWindow, ticket: str, amounts: Mapping[str, float]) -> None:
        limited, used = some_as_text(window.name), as_json(dict(amounts))
        checksum = amounts_checksum(limited, used)
        with self.transaction():
            self.query("settle_ticket", number=int(ticket), limited=limited, amounts=used, amounts_checksum=checksum)

    def hold(self, window: RateWindow, seconds: float, now: float) -> None:
        limited = some_as_text(window.name)
        with self.transaction():
            until = max(self._held_until(limited), now + seconds)
            self.query("hold", limited=limited, held_until=until, checksum=held_checksum(limited, until))

    def close(self) -> None:
        # If it fails, somebody else uses the file and does it later, or what is wrong has been reported; so nobody
        # waits for it either.
        with suppress(apsw.Error):
            self.connection.set_busy_timeout(0)
            self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        super().close()


def _size_for(count: int) -> int:
    """So many rows, or a few more: there are few sizes, so that few statements have to be prepared."""
    power = 1 << (count - 1).bit_length()
    return power if count * 4 > power * 3 else max(1, power * 3 // 4)


_VALUES = re.compile(r"VALUES (\([?, ]+\))")
_statements: dict[tuple[str, int], str] = {}


def _repeated(query: str, count: int) -> str:
    """The query with its list of values so many times."""
    text = _statements.get((query, count))
    if text is None:
        text = _VALUES.sub(lambda found: "VALUES " + ",".join([found[1].replace(" ", "")] * count), query)
        _statements[query, count] = text
    return text
