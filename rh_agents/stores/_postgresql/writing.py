"""The session of the writer thread in a PostgreSQL database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any, Final, TypeVar

import psycopg

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
from rh_agents.stores._postgresql.driver import Array, Database, is_alive
from rh_agents.stores._postgresql.news import Connection, Ear, channels, digest, rows
from rh_agents.stores._postgresql.rows import held_runs, journal_columns, kept_run, lease_states_of, run_columns
from rh_agents.stores._queues import has_signal
from rh_agents.stores._verified import CHECKSUMS_OF_QUESTION, checksums_of_question, undamaged
from rh_agents.stores._windows import RATE, held_until, shared_state, state_of_tickets

T = TypeVar("T")
_NOT_DELETED: Final = "the run could not be deleted"
_LARGEST_NUMBER: Final = 2**63 - 1
_NOT_ERASED: Final = "values could not be erased"
_NOT_STOPPED: Final = "the child runs could not be stopped"
_UNWRITTEN: Final = (
    "the journal could not be written (if the connection broke, the last batch may be there all the same)"
)


class PostgresqlWriteSession:
    """The session of the writer thread: what `WriteSession` says, each in one statement or one transaction."""

    def __init__(self, database: Database, connection: Connection, queries: Mapping[str, str]) -> None:
        self._database = database
        self._connection = connection
        self._queries = queries
        self._channels = channels(database)
        with database.errors("no news of other processes"):
            self._ear = Ear(connection, database, "requests")

    def _rows(self, name: str, what: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self._database.errors(what):
            return rows(self._connection, self._queries[name], parameters)

    def _changes(self, name: str, what: str, **parameters: Any) -> bool:
        """Whether a query that changes something has found what to change; it tells those who listen."""
        return bool(self._rows(name, what, **parameters, **self._channels))

    def is_usable(self) -> bool:
        return is_alive(self._connection)

    def standings(self, numbers: Sequence[int]) -> list[Standing | None]:
        what = "it could not be found out what was written"
        found = {row[0]: Standing(*row[1:]) for row in self._rows("standings", what, numbers=Array("int8", numbers))}
        return [found.get(number) for number in numbers]

    # -- batches and leases -------------------------------------------------------------------------------------------

    def write(self, batches: Sequence[Batch], now: float) -> list[LeaseState]:
        if not any(batch.streamed or batch.ended for batch in batches):
            return self._write(batches, now)
        with self._database.errors(_UNWRITTEN), self._connection.transaction():
            states = self._write(batches, now)
            ours = [batch for batch, state in zip(batches, states, strict=True) if state.is_ours]
            gone = [(batch.number, key) for batch in ours for key in batch.streamed]
            number, key = Array("int8", [each[0] for each in gone]), Array("bytea", [each[1] for each in gone])
            self._rows("delete_pieces_of", _UNWRITTEN, number=number, key=key)
            for batch in ours:
                for group in batch.ended:
                    self._stop_children(batch.number, group, GROUP_HAS_ENDED)
        return states

    def _write(self, batches: Sequence[Batch], now: float) -> list[LeaseState]:
        rows = self._rows(
            "write",
            _UNWRITTEN,
            number=Array("int8", [batch.number for batch in batches]),
            fence=Array("int8", [batch.fence for batch in batches]),
            before=Array("int8", [batch.last_sequence for batch in batches]),
            after=Array("int8", [batch.last_sequence + len(batch.events) for batch in batches]),
            added=Array("int8", [len(batch.outcomes) for batch in batches]),
            now=now,
            changes=self._channels["changes"],
            **journal_columns(batches),
        )
        return lease_states_of([batch.number for batch in batches], [row[:2] for row in rows])

    def renew(self, held: Sequence[tuple[int, int]], now: float) -> list[LeaseState]:
        rows = self._rows("renew", "the lease could not be renewed", now=now, **held_runs(held))
        return lease_states_of([number for number, _ in held], rows)

    def look(self, held: Sequence[tuple[int, int]]) -> list[LeaseState] | None:
        with self._database.errors("no news of other processes"):
            if not self._ear.has_heard():
                return None
        rows = self._rows("look", "the state of the runs could not be read", **held_runs(held))
        return lease_states_of([number for number, _ in held], rows)

    def say(self, rows: Sequence[PresentRow]) -> None:
        self._rows(
            "say",
            "what runs are doing could not be written",
            number=Array("int8", [row.number for row in rows]),
            fence=Array("int8", [row.fence for row in rows]),
            at=Array("float8", [row.at for row in rows]),
            facts=Array("text", [row.facts for row in rows]),
            checksum=Array("int4", [present_checksum(row.at, row.facts) for row in rows]),
        )

    # -- taking hold of runs ------------------------------------------------------------------------------------------

    def create(self, new: RunRow, parent_fence: int | None = None) -> RunRow | None:
        if parent_fence is None:
            return self._create(new)
        what = f"run {new.run_id!r} could not be created"
        with self._database.errors(what), self._connection.transaction():
            if not self._rows("lock_held", what, number=new.parent, fence=parent_fence):
                raise parent_lost(new.run_id)
            return self._create(new)

    def stop_children(self, number: int, group: str | None, reason: str) -> None:
        with self._database.errors(_NOT_STOPPED), self._connection.transaction():
            self._stop_children(number, group, reason)

    def _stop_children(self, number: int, group: str | None, reason: str) -> None:
        tag = None if group is None else Array("text", [group])
        for child, *place in self._rows("children_to_stop", _NOT_STOPPED, number=number, tag=tag):
            queued = Queued(*place)._replace(ready_at=None)
            facts = {"reason": reason, "queue_checksum": queue_checksum(queued)}
            self._changes("stop_child", _NOT_STOPPED, number=child, **facts)

    def _create(self, new: RunRow) -> RunRow | None:
        rows = self._rows(
            "create",
            f"run {new.run_id!r} could not be created",
            **run_columns(new),
            last_sequence=new.last_sequence,
            outcomes=new.outcomes,
            created_at=new.created_at,
            run_id=new.run_id,
            changes=self._channels["changes"],
            ready=self._channels["ready"],
        )
        return None if not rows else replace(new, number=rows[0][0])

    def replace(self, expected: RunRow, new: RunRow) -> bool:
        return self._changes(
            "replace",
            f"run {expected.run_id!r} could not be changed",
            **run_columns(new),
            number=expected.number,
            expected_fence=expected.fence,
            expected_heartbeat=expected.heartbeat,
        )

    def claim(self, wanted: NextWanted, take: Callable[[RunRow], RunRow], now: float) -> tuple[RunRow, RunRow] | None:
        with self._database.errors("no run could be taken from a queue"), self._connection.transaction():
            before = undamaged(lambda offset: self._next(wanted, now, offset), self._database.place)
            if before is None:
                return None
            new = take(before)
            return (before, new) if self.replace(before, new) else None

    def _next(self, wanted: NextWanted, now: float, offset: int) -> list[Kept[RunRow]]:
        found = self._rows(
            "next_in_queue",
            "no run could be taken from a queue",
            queue=wanted.queue,
            flows=Array("text", wanted.flows),
            number=Array("int8", [each[0] for each in wanted.silent]),
            fence=Array("int8", [each[1] for each in wanted.silent]),
            heartbeat=Array("int8", [each[2] for each in wanted.silent]),
            now=now,
            offset=offset,
        )
        return list(map(kept_run, found))

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
        if not questions and not events:
            return self._release(number, fence, status, reason, now, queued)
        what = "the run could not be let go of"
        with self._database.errors(what), self._connection.transaction():
            # Locked before it is asked: an answer that is not seen here waits for the lock, and then wakes the run.
            self._rows("lock_run", what, number=number)
            is_answered = self._rows("is_answered", what, number=number, ids=Array("text", questions))
            if is_answered or has_signal(self._rows("requests", what, number=number, is_open=True), events):
                queued = queued._replace(ready_at=now)
            return self._release(number, fence, status, reason, now, queued)

    def _release(
        self, number: int, fence: int, status: str | None, reason: str | None, now: float, queued: Queued
    ) -> bool:
        what = "the run could not be let go of"
        held = {"number": number, "fence": fence, "holder_checksum": holder_checksum(None, None, fence + 1)}
        if status is None:
            return self._changes("release", what, **held)
        ended_at = now if status in ENDED else None
        facts = {"status": status, "reason": reason, "now": now, "ended_at": ended_at}
        facts |= {"ready_at": queued.ready_at, "claims": queued.claims, **checksums_when_released(queued)}
        checksum = status_checksum(status, reason, ended_at)
        return self._changes("release_with_status", what, **held, **facts, status_checksum=checksum)

    def shorten(self, number: int, fence: int, last: int, before: int | None = None) -> bool:
        most = _LARGEST_NUMBER if before is None else before
        return bool(self._rows("shorten", _NOT_DELETED, number=number, fence=fence, last=last, most=most))

    def delete(
        self, number: int, fence: int, children: Sequence[tuple[int, int]] = (), *, is_empty: bool = False
    ) -> bool:
        most = 0 if is_empty else _LARGEST_NUMBER
        if not children:
            return self._changes("delete", _NOT_DELETED, number=number, fence=fence, most=most)
        is_deleted = True
        with self._database.errors(_NOT_DELETED), self._connection.transaction() as transaction:
            for each in (*children, (number, fence)):
                if not self._changes("delete", _NOT_DELETED, number=each[0], fence=each[1], most=most):
                    is_deleted = False
                    raise psycopg.Rollback(transaction)
        return is_deleted

    def add(self, new: RunRow, parts: Iterable[tuple[list[EventRow], list[OutcomeRow]]]) -> bool:
        with self._database.errors(f"run {new.run_id!r} could not be made"), self._connection.transaction():
            made = self._create(new)
            if made is None:
                return False
            sequence = 0
            for events, outcomes in parts:
                self.write([Batch(made.number, made.fence, sequence, events, outcomes)], new.updated_at)
                sequence += len(events)
            if new.forked_from is not None:
                self._expect_values(new.forked_from)
        return True

    def _expect_values(self, source: str) -> None:
        """See to it that the values of a run are there, and stay there until the transaction has ended."""
        what = f"run {source!r} could not be copied"
        self._rows("lock_source", what, run_id=source)
        if self._rows("is_erased", what, run_id=source):
            raise erased_meanwhile(source)

    # -- erasing ------------------------------------------------------------------------------------------------------

    def strip(self, new: RunRow) -> bool:
        kept = ("facts", "reason", "name_checksum", "checksum", "status_checksum")
        facts = {name: value for name, value in run_columns(new).items() if name in kept}
        return self._changes("strip", _NOT_ERASED, number=new.number, fence=new.fence, **facts)

    def rewrite(self, batch: Batch) -> bool:
        columns = journal_columns([batch])
        kept = ("sequence", "message", "more", "call_checksum", "checksum", "value", "outcome_checksum")
        facts = {f"row_{name}": columns[f"row_{name}"] for name in kept}
        return self._changes("rewrite", _NOT_ERASED, number=batch.number, fence=batch.fence, **facts)

    def delete_cached(self, keys: Sequence[bytes]) -> None:
        self._rows("delete_cached", _NOT_ERASED, keys=Array("bytea", keys))

    def forget_old_versions(self, *, is_in_use: bool) -> str:
        """PostgreSQL keeps them: to write a table anew locks it, which is for its administrator to decide."""
        schema = self._database.schema
        return (
            "PostgreSQL keeps earlier versions of rows in its files until "
            f"`VACUUM FULL {schema}.journal, {schema}.run, {schema}.question, {schema}.cached, {schema}.artifact` has "
            "written the tables anew, and in its write-ahead log, replicas and backups"
        )

    # -- people -------------------------------------------------------------------------------------------------------

    def ask(self, number: int, fence: int, question: Question) -> bool:
        what = "a question could not be recorded"
        columns = asdict(question)
        del columns["run_id"]
        checksums = dict(zip(CHECKSUMS_OF_QUESTION, checksums_of_question(question), strict=True))
        with self._database.errors(what), self._connection.transaction():
            self._changes("ask", what, number=number, fence=fence, **columns, **checksums)
            return bool(self._rows("is_held", what, number=number, fence=fence))

    def reject_answer(self, number: int, fence: int, question_id: str, problem: str) -> bool:
        facts = {"number": number, "fence": fence, "id": question_id, "problem": problem}
        checksum = answer_checksum(question_id, None, None, None, problem)
        return self._changes("reject_answer", "an answer could not be rejected", **facts, answer_checksum=checksum)

    def answer(self, number: int, question_id: str, answer: bytes, by: str | None, now: float) -> bool:
        facts = {"number": number, "id": question_id, "answer": answer, "by": by, "now": now}
        checksum = answer_checksum(question_id, answer, now, by, None)
        what = "an answer could not be recorded"
        with self._database.errors(what), self._connection.transaction():
            self._rows("lock_run", what, number=number)
            is_new = self._changes("answer", what, **facts, answer_checksum=checksum)
            if is_new:
                self._wake(number, now, what)
            return is_new

    def _wake(self, number: int, now: float, what: str) -> None:
        """What a run in a queue waits for is there."""
        found = self._rows("sleeping", what, number=number)
        if found:
            queued = Queued(*found[0])._replace(ready_at=now)
            self._changes("wake", what, number=number, ready_at=now, queue_checksum=queue_checksum(queued))

    def request_stop(self, number: int, reason: str) -> None:
        self._changes("request_stop", "the run could not be asked to stop", number=number, reason=reason)

    # -- text of calls under way --------------------------------------------------------------------------------------

    def watch(self, number: int, key: bytes, now: float, until: float) -> None:
        self._rows(
            "watch",
            "it could not be noted that somebody looks at a call",
            number=number,
            key=key,
            before=now - FORGOTTEN_AFTER,
            until=until,
            checksum=watching_checksum(key, until),
            requests=self._channels["requests"],
        )

    def put_pieces(self, number: int, fence: int, rows: Sequence[PieceRow], cuts: Sequence[PieceCut]) -> None:
        self._rows(
            "put_pieces",
            "text of calls under way could not be written",
            number=number,
            fence=fence,
            key=Array("bytea", [row.key for row in rows]),
            attempt=Array("int4", [row.attempt for row in rows]),
            position=Array("int8", [row.position for row in rows]),
            text=Array("text", [row.text for row in rows]),
            at=Array("float8", [row.at for row in rows]),
            checksum=Array("int4", [piece_checksum(*row) for row in rows]),
            cut_key=Array("bytea", [cut.key for cut in cuts]),
            cut_attempt=Array("int4", [cut.attempt for cut in cuts]),
            cut_position=Array("int8", [cut.position for cut in cuts]),
        )

    def ask_for(self, number: int, request: ControlRequest) -> None:
        what = "a request could not be left"
        with self._database.errors(what), self._connection.transaction():
            if request.verb is Verb.SIGNAL:
                self._rows("lock_run", what, number=number)
                self._wake(number, request.asked_at, what)
            self._changes("ask_for", what, number=number, **request_columns(request))

    def answer_request(self, number: int, fence: int, request_id: str, answer: Mapping[str, Any], now: float) -> bool:
        columns = answer_columns(request_id, answer, now)
        what = "what came of a request could not be recorded"
        with self._database.errors(what), self._connection.transaction():
            self._rows("answer_request", what, number=number, fence=fence, **columns, changes=self._channels["changes"])
            return bool(self._rows("is_held", what, number=number, fence=fence))

    # -- what runs and processes share --------------------------------------------------------------------------------

    def put_cached(self, entry: CacheEntry) -> None:
        self._rows(
            "put_cached",
            "a result could not be kept",
            key=entry.key,
            value=entry.value,
            actor=entry.actor,
            created_at=entry.created_at,
            expires_at=entry.expires_at,
            run_id=entry.run_id,
            checksum=cache_checksum(entry),
        )

    def delete_expired(self, now: float, limit: int) -> int:
        return len(self._rows("delete_expired", "expired results could not be deleted", now=now, limit=limit))

    def share(self, name: str, step: Callable[[SharedState, float], T], clock: Clock) -> T:
        """Change what processes share, by the clock of the server: those of machines differ."""
        what, place = "what processes share could not be changed", self._database.place
        with self._database.errors(what), self._connection.transaction():
            lock = sha256(digest(self._database) + name.encode("utf-8", "surrogatepass")).digest()
            self._rows("lock_shared", what, lock=int.from_bytes(lock[:8], "big", signed=True))
            ((now, text, checksum),) = self._rows("read_shared", what, shared=name)
            state = self._before(name, now, what) if text is None else shared_state(place, name, text, checksum)
            answer = step(state, now)
            text = json.dumps(state)
            self._rows("put_shared", what, shared=name, state=text, checksum=shared_checksum(name, text))
        return answer

    def _before(self, name: str, now: float, what: str) -> SharedState:
        """What an earlier version had in place of it."""
        if not name.startswith(RATE):
            return {}
        limited, place = name.removeprefix(RATE), self._database.place
        holds = self._rows("read_hold", what, limited=limited)
        until = held_until(place, limited, holds[0] if holds else None)
        return state_of_tickets(place, limited, self._rows("read_tickets", what, limited=limited), until, now)

    def close(self) -> None:
        self._connection.close()
