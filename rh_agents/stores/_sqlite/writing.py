"""The connection that writes to a file of runs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, Final, TypeVar

import apsw

from rh_agents.core.errors import StoreError
from rh_agents.core.policies.child_runs import GROUP_HAS_ENDED
from rh_agents.core.policies.sharing.windows import SharedState
from rh_agents.core.ports import CacheEntry, Clock, Question
from rh_agents.core.ports.control import ControlRequest, Verb
from rh_agents.stores._asking import answer_columns, request_columns
from rh_agents.stores._backend.beside import FORGOTTEN_AFTER, PieceCut, PieceRow, PresentRow
from rh_agents.stores._backend.rows import (
    ENDED,
    NOT_QUEUED,
    Batch,
    EventRow,
    Kept,
    LeaseState,
    NextWanted,
    OutcomeRow,
    Queued,
    RunRow,
    Standing,
)
from rh_agents.stores._checksums import (
    answer_checksum,
    cache_checksum,
    holder_checksum,
    piece_checksum,
    present_checksum,
    queue_checksum,
    shared_checksum,
    status_checksum,
    watching_checksum,
)
from rh_agents.stores._children import checksums_when_released, parent_lost
from rh_agents.stores._copying import erased_meanwhile
from rh_agents.stores._queues import has_signal
from rh_agents.stores._repeated import is_wanted, not_once
from rh_agents.stores._sqlite.erasing import ErasingSession
from rh_agents.stores._sqlite.looking import at_one_moment, expect_ours
from rh_agents.stores._sqlite.rows import (
    JOURNAL_WIDTH,
    PLACE_BITS,
    as_json,
    as_text,
    from_value,
    journal_rows,
    kept_run,
    lease_state_of,
    places_of_run,
    question_facts,
    run_facts,
    some_as_text,
)
from rh_agents.stores._sqlite.schema import bring_up_to_date
from rh_agents.stores._sqlite.session import DatabaseFile
from rh_agents.stores._sqlite.versions import known_version
from rh_agents.stores._verified import undamaged
from rh_agents.stores._windows import RATE, held_until, shared_state, state_of_tickets

T = TypeVar("T")
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

    def is_usable(self) -> bool:
        """A file does not go away without an error."""
        return True

    def standings(self, numbers: Sequence[int]) -> list[Standing | None]:
        with self.errors():
            found = [self.query_one("standing", number=number) for number in numbers]
        return [None if row is None else Standing(*row) for row in found]

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
                for group in batch.ended:
                    self._stop_children(batch.number, group, GROUP_HAS_ENDED)
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

    def create(self, new: RunRow, parent_fence: int | None = None) -> RunRow | None:
        with self.transaction():
            if parent_fence is not None and not self.query("is_held", number=new.parent, fence=parent_fence):
                raise parent_lost(new.run_id)
            return self._create(new)

    def stop_children(self, number: int, group: str | None, reason: str) -> None:
        with self.transaction():
            self._stop_children(number, group, reason)

    def _stop_children(self, number: int, group: str | None, reason: str) -> None:
        tag = None if group is None else as_json(group)
        for child, *place in self.query("children_to_stop", number=number, tag=tag):
            queued = Queued(*map(from_value, place))._replace(ready_at=None)
            self.query("stop_child", number=child, reason=as_text(reason), queue_checksum=queue_checksum(queued))
        self._is_news = True

    def _create(self, new: RunRow) -> RunRow | None:
        row = self.query_one("create_run", created_at=new.created_at, run_id=as_text(new.run_id), **run_facts(new))
        if row is None:
            return None
        self._put_input(row[0], new.input)
        return dataclasses.replace(new, number=row[0])

    def replace(self, expected: RunRow, new: RunRow) -> bool:
        with self.transaction():
            return self._replace(expected, new)

    def _replace(self, expected: RunRow, new: RunRow) -> bool:
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

    def claim(self, wanted: NextWanted, take: Callable[[RunRow], RunRow], now: float) -> tuple[RunRow, RunRow] | None:
        with self.transaction():
            before = undamaged(lambda offset: self._next(wanted, now, offset), self.file.name)
            if before is None:
                return None
            new = take(before)
            self._replace(before, new)
        return before, new

    def _next(self, wanted: NextWanted, now: float, offset: int) -> list[Kept[RunRow]]:
        rows = self.query(
            "next_in_queue",
            queue=as_text(wanted.queue),
            flows=as_json(list(map(as_text, wanted.flows))),
            silent=as_json([json.dumps(each, separators=(",", ":")) for each in wanted.silent]),
            now=now,
            offset=offset,
        )
        return list(map(kept_run, rows))

    def release(
        self,
        number: int,
        fence: int,
        status: str | None,
        reason: str | None,
        now: float,
        queued: Queued = NOT_QUEUED,
        questions: Sequence[str] = (),
        events: Sequence[str] = (),
    ) -> bool:
        held = {"number": number, "fence": fence, "holder_checksum": holder_checksum(None, None, fence + 1)}
        with self.transaction():
            if self._has_come(number, questions, events):
                queued = queued._replace(ready_at=now)
            is_ours = self._release(held, status, reason, now, queued)
            if is_ours:
                self.query("delete_pieces", number=number)
                self.query("forget_watchers", number=number, before=inf)
            return is_ours

    def _has_come(self, number: int, questions: Sequence[str], events: Sequence[str]) -> bool:
        """Whether something that a run is about to wait for is there."""
        if questions and self.query("is_answered", number=number, ids=as_json(list(map(as_text, questions)))):
            return True
        return bool(events) and has_signal(self.query("requests", number=number, is_open=1), events)

    def _release(
        self, held: Mapping[str, int], status: str | None, reason: str | None, now: float, queued: Queued
    ) -> bool:
        if status is None:
            return bool(self.query("release_run", **held))
        ended_at = now if status in ENDED else None
        facts = {"status": status, "reason": as_text(reason), "now": now, "ended_at": ended_at}
        facts |= {"ready_at": queued.ready_at, "claims": queued.claims, **checksums_when_released(queued)}
        checksum = status_checksum(status, reason, ended_at)
        return bool(self.query("release_run_as", **held, **facts, status_checksum=checksum))

    def shorten(self, number: int, fence: int, last: int, before: int | None = None) -> bool:
        first, end = places_of_run(number)
        with self.transaction():
            if not self.query("is_held", number=number, fence=fence):
                return False
            part = {"first": first + last, "last": end}
            self.query("shorten_run", number=number, last_sequence=last, **part)
            self.query("delete_journal", **part)
        self.bound_wal()
        return True

    def delete(
        self, number: int, fence: int, children: Sequence[tuple[int, int]] = (), *, is_empty: bool = False
    ) -> bool:
        held = [*children, (number, fence)]
        with self.transaction():
            if not all(self.query("is_held", number=number, fence=fence) for number, fence in held):
                return False
            for each, _ in held:
                first, last = places_of_run(each)
                self.query("delete_journal", first=first, last=last)
                self.query("delete_questions", number=each)
                self.query("delete_cached", number=each)
                self.query("delete_run", number=each)
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
            is_new = bool(
                self.query("answer", number=number, id=as_text(question_id), answer_checksum=checksum, **facts)
            )
            if is_new:
                self._wake(number, now)
            return is_new

    def _wake(self, number: int, now: float) -> None:
        """What a run in a queue waits for is there."""
        row = self.query_one("sleeping", number=number)
        if row is not None:
            queued = Queued(*map(from_value, row))._replace(ready_at=now)
            self.query("wake", number=number, ready_at=now, queue_checksum=queue_checksum(queued))

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
            if request.verb is Verb.SIGNAL:
                self._wake(number, request.asked_at)
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

    def delete_expired(self, now: float, limit: int) -> int:
        with self.transaction():
            gone = self.query("delete_expired", now=now, limit=limit)
            self.query("delete_old_tickets", now=now)
        self.bound_wal()
        return len(gone)

    def share(self, name: str, step: Callable[[SharedState, float], T], clock: Clock) -> T:
        kept, place = some_as_text(name), self.file.name
        with self.transaction():
            now = clock()
            row = self.query_one("read_shared", shared=kept)
            state = self._before(name, now) if row is None else shared_state(place, kept, *row)
            answer = step(state, now)
            text = as_json(state)
            self.query("put_shared", shared=kept, state=text, checksum=shared_checksum(kept, text))
        self.bound_wal()
        return answer

    def _before(self, name: str, now: float) -> SharedState:
        """What an earlier version had in place of it."""
        if not name.startswith(RATE):
            return {}
        limited = some_as_text(name.removeprefix(RATE))
        until = held_until(self.file.name, limited, self.query_one("read_hold", limited=limited))
        return state_of_tickets(self.file.name, limited, self.query("read_tickets", limited=limited), until, now)

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
