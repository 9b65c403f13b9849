"""The session of the writer thread in a PostgreSQL database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any, Final

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
from rh_agents.stores._postgresql.driver import Array, Database
from rh_agents.stores._postgresql.news import Connection, Ear, channels, digest, rows
from rh_agents.stores._postgresql.rows import held_runs, journal_columns, lease_states_of, run_columns
from rh_agents.stores._verified import CHECKSUMS_OF_QUESTION, checksums_of_question
from rh_agents.stores._windows import held_until, refusal, tickets_since

_NOT_ERASED: Final = "values could not be erased"
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
            self._ear = Ear(connection, self._channels["requests"])

    def _rows(self, name: str, what: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self._database.errors(what):
            return rows(self._connection, self._queries[name], parameters)

    def _changes(self, name: str, what: str, **parameters: Any) -> bool:
        """Whether a query that changes something has found what to change; it tells those who listen."""
        return bool(self._rows(name, what, **parameters, **self._channels))

    # -- batches and leases -------------------------------------------------------------------------------------------

    def write(self, batches: Sequence[Batch], now: float) -> list[LeaseState]:
        if not any(batch.streamed for batch in batches):
            return self._write(batches, now)
        with self._database.errors(_UNWRITTEN), self._connection.transaction():
            states = self._write(batches, now)
            ours = [batch for batch, state in zip(batches, states, strict=True) if state.is_ours]
            gone = [(batch.number, key) for batch in ours for key in batch.streamed]
            number, key = Array("int8", [each[0] for each in gone]), Array("bytea", [each[1] for each in gone])
            self._rows("delete_pieces_of", _UNWRITTEN, number=number, key=key)
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

    def create(self, new: RunRow) -> RunRow | None:
        rows = self._rows(
            "create",
            f"run {new.run_id!r} could not be created",
            **run_columns(new),
            last_sequence=new.last_sequence,
            outcomes=new.outcomes,
            created_at=new.created_at,
            run_id=new.run_id,
            changes=self._channels["changes"],
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

    def release(self, number: int, fence: int, status: str | None, reason: str | None, now: float) -> bool:
        what = "the run could not be let go of"
        held = {"number": number, "fence": fence, "holder_checksum": holder_checksum(None, None, fence + 1)}
        if status is None:
            return self._changes("release", what, **held)
        ended_at = now if status in ENDED else None
        facts = {"status": status, "reason": reason, "now": now, "ended_at": ended_at}
        checksum = status_checksum(status, reason, ended_at)
        return self._changes("release_with_status", what, **held, **facts, status_checksum=checksum)

    def delete(self, number: int, fence: int) -> bool:
        return self._changes("delete", "the run could not be deleted", number=number, fence=fence)

    def add(self, new: RunRow, parts: Iterable[tuple[list[EventRow], list[OutcomeRow]]]) -> bool:
        with self._database.errors(f"run {new.run_id!r} could not be made"), self._connection.transaction():
            made = self.create(new)
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
        return self._changes("answer", "an answer could not be recorded", **facts, answer_checksum=checksum)

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
        self._changes("ask_for", "a request could not be left", number=number, **request_columns(request))

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

    def delete_expired(self, now: float) -> None:
        self._rows("delete_expired", "expired results could not be deleted", now=now)

    def admit(self, window: RateWindow, amounts: Mapping[str, float], now: float) -> Admitted:
        """Take amounts out of a window, by the clock of the server: those of machines differ."""
        what, place, limited = "a shared rate limit could not be asked", self._database.place, window.name
        with self._database.errors(what), self._connection.transaction():
            now, until = self._lock_window(limited, what)
            self._rows("delete_old_tickets", what, limited=limited, now=now)
            rows = self._rows("read_tickets", what, limited=limited)
            tickets = tickets_since(place, limited, rows, now - window.per)
            refused = refusal(window, tickets, until, amounts, now)
            if refused is not None:
                return refused
            taken, ends_at = json.dumps(dict(amounts)), now + window.per
            facts = {"limited": limited, "taken_at": now, "ends_at": ends_at, "amounts": taken}
            checksum = ticket_checksum(limited, now, ends_at)
            of_amounts = amounts_checksum(limited, taken)
            ((number,),) = self._rows("add_ticket", what, **facts, checksum=checksum, amounts_checksum=of_amounts)
        return Admitted(str(number))

    def _lock_window(self, limited: str, what: str) -> tuple[float, float]:
        """Let nobody else look at a window until the transaction ends; its time, and before when nobody passes."""
        lock = sha256(digest(self._database) + limited.encode("utf-8", "surrogatepass")).digest()
        self._rows("lock_window", what, lock=int.from_bytes(lock[:8], "big", signed=True))
        ((now, *row),) = self._rows("read_window", what, limited=limited)
        return now, held_until(self._database.place, limited, row)

    def settle(self, window: RateWindow, ticket: str, amounts: Mapping[str, float]) -> None:
        limited, used = window.name, json.dumps(dict(amounts))
        facts = {"limited": limited, "number": int(ticket), "amounts": used}
        checksum = amounts_checksum(limited, used)
        self._rows("settle_ticket", "a shared rate limit could not be settled", **facts, amounts_checksum=checksum)

    def hold(self, window: RateWindow, seconds: float, now: float) -> None:
        what, limited = "a shared rate limit could not be held", window.name
        with self._database.errors(what), self._connection.transaction():
            now, until = self._lock_window(limited, what)
            until = max(until, now + seconds)
            self._rows("hold", what, limited=limited, until=until, checksum=held_checksum(limited, until))

    def close(self) -> None:
        self._connection.close()
