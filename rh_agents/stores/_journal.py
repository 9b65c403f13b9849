"""A run that is open in a store with a database behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from rh_agents.core._loops.sleeping import since_boot
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.errors import LeaseLost, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.groups import NOTHING_COUNTED, EndingCause
from rh_agents.core.ports import NOT_RESUMED, Question, Resumption, RunInfo
from rh_agents.core.ports.control import ControlRequest
from rh_agents.core.ports.present import Present
from rh_agents.core.ports.streaming import TextSink
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.values import LARGE, encode_large
from rh_agents.stores._backend import WriteSession
from rh_agents.stores._backend.beside import PieceCut, PieceRow
from rh_agents.stores._backend.rows import ENDED, Batch, EventRow, LeaseState, OutcomeRow, RunRow, StoredOutcome
from rh_agents.stores._delivery import Delivery, Held
from rh_agents.stores._engine import Engine
from rh_agents.stores._read_ahead import ReadAhead
from rh_agents.stores._repeated import made_twice, says_the_same
from rh_agents.stores._rows import (
    LARGEST_INLINE,
    encode_outcome,
    event_row,
    outcome_of,
    outcome_row,
    read_artifact,
    stored_outcome,
)
from rh_agents.stores._saying import Saying
from rh_agents.stores._streamed import TextRelay, watched_in
from rh_agents.stores._under_way import Noting
from rh_agents.stores._writer import Writer, again, call_on

T = TypeVar("T")

_WRITE_BEHIND_AFTER = 0.02
"""Seconds that noted events wait for company. Events that somebody waits for take them along at once."""
_WRITE_BEHIND_AT = 500
"""So many events are company enough."""
_SMALL = 64
"""Events. Larger batches are written in two halves in turn, so that one grows while the other is written."""


class SqlJournal:
    """A run that is open for one owner. It belongs to the event loop on which it was opened.

    Args:
        engine: where the run is; it stays open as long as the journal is in use.
        row: the run's row as it is now that it is ours.
        info: the run as it was before.
        recorded: what was recorded before.
        opening: the sign by which this process knows that it still has the run.
    """

    def __init__(self, engine: Engine, row: RunRow, info: RunInfo, recorded: RecordedCalls, opening: str) -> None:
        self.info: RunInfo = info
        self.recorded: RecordedCalls = recorded
        self.stop_requested: str | None = None
        self.number: int = row.number
        self.fence: int = row.fence
        self.lease: float = row.lease
        self._queued = row.queued
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.opening: str = opening
        self._engine = engine
        self._writer = engine.writer
        self.held: Held | None = None
        """How long the run is ours for certain, once signs of life are given for it."""
        self._sequence = row.last_sequence
        self._events: list[EventRow] = []
        self._outcomes: list[OutcomeRow] = []
        self._artifacts: list[bytes] = []
        self._ended: list[str] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._unwritten: dict[bytes, tuple[OutcomeRow, EventRow, bytes]] = {}
        self._in_flight: tuple[Delivery, list[asyncio.Future[None]]] | None = None
        self._enough = _SMALL
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._broken: StoreError | None = None
        self._on_stop_requested: Callable[[str], None] | None = None
        self._on_asked: Callable[[], None] | None = None
        self._on_committed: Callable[[int, float], None] | None = None
        self._asked = 0
        """How many requests there were when it was looked last."""
        self._saying = Saying(row.number, row.fence, engine.writer.said, Noting(lambda: recorded.under_way))
        write_text = partial(_write_text, engine.writer, self.loop, row.number, row.fence)
        self._relay = TextRelay(engine.clock, write_text, recorded.finished)
        # No cycle: who forgets a journal lets go of it.
        self._begin_to_read = partial(_begin_to_read, engine, row.number, info.run_id)
        self._read_ahead = ReadAhead(self._begin_to_read)

    @property
    def is_open(self) -> bool:
        """Whether the run is ours, as far as is known."""
        return self._broken is None

    @property
    def is_ours(self) -> bool:
        """Whether it is certain, see `rh_agents.core.ports.LeasedJournal`."""
        return self.held is not None and since_boot() < self.held.certain_until

    async def prove(self) -> None:
        """The lease may be over. As long as the database cannot be asked, nobody can have taken the run over there."""
        self._expect_mine()
        key, asked_at = (self.number, self.fence), since_boot()

        def renew(session: WriteSession) -> LeaseState:
            return session.renew([key], self._engine.clock())[0]

        try:
            state = await self._writer.done(renew, again=renew, until=time.monotonic() + self.lease)
        except StoreError as error:
            raise again(self._break(error)) from error
        if not state.is_ours:
            raise again(self._break(self._lost()))
        if self.held is not None:
            self.held.certain_until = max(self.held.certain_until, asked_at + self.lease)

    # -- writing ------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        in_flight = 0 if self._in_flight is None else len(self._in_flight[0].batch.events)
        return len(self._events) + in_flight

    def note(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """Add a fact with its outcome, to be written soon.

        An outcome that its key has already is not added again, and given back as it was recorded.

        Raises:
            StoreError: the key has another one. The run stops: it would have been paid for twice.
        """
        self._expect_mine()
        if outcome is None:
            self._add(fact)
        else:
            data = encode_outcome(outcome)
            if not self._enter(fact, outcome, data, self._keep_later(data)):
                return self._earlier_now(outcome, data)
        if len(self._events) >= _WRITE_BEHIND_AT:
            self._hand_over_soon()
        elif self._timer is None and not self._is_due and self._in_flight is None:
            self._timer = self.loop.call_later(_WRITE_BEHIND_AFTER, self._hand_over)
        return outcome

    async def append(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """The same as `note`, and wait until they survive a power cut."""
        self._expect_mine()
        if outcome is None:
            self._add(fact)
        else:
            artifact = None
            if outcome.is_large:  # its text is made beside the event loop
                data = await self._engine.in_thread(encode_outcome, outcome, encode_large)
                self._expect_mine()
            else:
                data = encode_outcome(outcome)
            if len(data) > LARGEST_INLINE:
                artifact = await self._kept(data)
                self._expect_mine()
            if not self._enter(fact, outcome, data, artifact):
                return await self._earlier(outcome, data)
        await self._wait_for_writing()
        return outcome

    async def flush(self) -> None:
        self._expect_mine()
        await self._flush()

    async def _flush(self) -> None:
        if self._events:
            await self._wait_for_writing()
        elif self._in_flight is not None:
            waiter = self.loop.create_future()
            self._in_flight[1].append(waiter)
            await waiter

    def _wait_for_writing(self) -> asyncio.Future[None]:
        """To be awaited for the last event that was added."""
        waiter = self.loop.create_future()
        self._waiters.append(waiter)
        if self._in_flight is None:
            if len(self._events) >= self._enough:
                self._hand_over()
            elif not self._is_due:
                self._hand_over_soon()
        return waiter

    def _add(self, fact: Fact) -> None:
        self._sequence = sequence = self._sequence + 1
        self._events.append(event_row(sequence, fact, None))
        if fact.more is None:
            self.recorded.add(sequence, fact.status, fact.key, fact.attempt, fact.group_id, False, None)
            return
        ending = fact.ending
        if ending is not None and fact.group_id is not None and ending.cause is not EndingCause.INTERRUPTED:
            self._ended.append(fact.group_id)
        self.recorded.add_fact(sequence, fact, False, None)

    def _enter(self, fact: Fact, outcome: Outcome, data: bytes, artifact: str | None) -> bool:
        """Add an outcome with its fact, unless its key has one; False if it has.

        This is what keeps a call from having two outcomes, and the only way by which one gets into a journal: the key
        is looked up in the set of the run's one owner and entered there, and nothing is awaited in between. (What
        another owner has written since is not in it: that moved `last_sequence` on, so that our batches are refused.)
        """
        key, ok = outcome.key, outcome.error is None
        if key in self.recorded.finished:
            return False
        sequence = self._sequence + 1
        row = event_row(sequence, fact, ok)
        about = (
            outcome_row(sequence, outcome, row, data, None, None)
            if artifact is None
            else outcome_row(sequence, outcome, row, None, artifact, len(data))
        )
        self._sequence = sequence
        self._events.append(row)
        self._outcomes.append(about)
        self._unwritten[key] = (about, row, data)
        failed_in = None if ok else outcome.made_in
        counted = NOTHING_COUNTED if fact.more is None else fact.counted
        self.recorded.add(sequence, fact.status, key, fact.attempt, fact.group_id, True, failed_in, *counted)
        return True

    async def _kept(self, data: bytes) -> str:
        """The digest of a large value that is kept now, in a thread of its own: nobody's commit waits for it."""
        try:
            return await self._engine.in_thread(self._engine.artifacts.put, data)
        except StoreError as error:
            raise again(self._break(error)) from error

    def _keep_later(self, data: bytes) -> str | None:
        """The digest of a large value, which the writer's thread keeps before it writes the batch."""
        if len(data) <= LARGEST_INLINE:
            return None
        self._artifacts.append(data)
        return sha256(data).hexdigest()

    def _hand_over_soon(self) -> None:
        """Give the writer what has been added, at the end of this turn of the event loop: more may come until then."""
        if not self._is_due and self._in_flight is None:
            self._is_due = True
            self.loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._events or self._in_flight is not None or self._broken is not None:
            return
        events = self._events
        streamed = self._relay.ended(self._outcomes) if self._relay.texts else ()
        batch = Batch(self.number, self.fence, events[0].sequence - 1, events, self._outcomes, streamed, self._ended)
        delivery = Delivery(batch, self.loop, self._delivered, self._artifacts)
        self._in_flight = (delivery, self._waiters)
        self._enough = max(_SMALL, len(events) // 2)
        self._events, self._outcomes, self._artifacts, self._waiters, self._ended = [], [], [], [], []
        try:
            self._writer.deliver(delivery)
        except StoreError as error:
            self._break(error)

    def measure_with(self, committed: Callable[[int, float], None]) -> None:
        self._on_committed = committed

    def _delivered(self, result: LeaseState | StoreError) -> None:
        """What became of the batch that was under way."""
        if self._in_flight is None or self._broken is not None:
            return
        if isinstance(result, StoreError):
            self._break(result)
            return
        if not result.is_ours:
            self._break(self._lost())
            return
        (delivery, waiters), self._in_flight = self._in_flight, None
        is_next_under_way = bool(self._waiters) and len(self._events) >= self._enough
        if is_next_under_way:
            self._hand_over()
        for outcome in delivery.batch.outcomes:
            del self._unwritten[outcome.key]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._on_committed is not None:
            self._on_committed(len(delivery.batch.events), delivery.seconds)
        if result.stop_requested is not None:
            self._stop(result.stop_requested)
        if is_next_under_way:
            return
        if self._waiters or len(self._events) >= _WRITE_BEHIND_AT:
            self._hand_over_soon()  # after those who have just been woken have added what they have
        elif self._events:
            self._timer = self.loop.call_later(_WRITE_BEHIND_AFTER, self._hand_over)

    # -- what was recorded before -------------------------------------------------------------------------------------

    async def load(self, key: bytes) -> Outcome:
        self._expect_mine()
        unwritten = self._unwritten.get(key)
        if unwritten is not None:
            about, event, data = unwritten
            stored = stored_outcome(about, event)
            if len(data) > LARGE:
                return await self._engine.in_thread(outcome_of, stored, data)
            return outcome_of(stored, data)
        found = await self._find(key)
        if found.row.artifact is not None:
            return await self._engine.in_thread(self._revived_artifact, found)
        return self._revived(found, found.row.value)

    async def _find(self, key: bytes) -> StoredOutcome:
        """The outcome of a key as it is on disk."""
        sequence = self.recorded.finished.get(key)
        if sequence is None:
            raise StoreError(f"run {self.info.run_id!r} has no outcome for key {key.hex()}")
        found = self._read_ahead.take(sequence)
        if found is None:
            found = await self._read_ahead.wait_for(sequence)
        if found is None:
            raise self._engine.missing(self.info.run_id, f"the outcome of event {sequence}")
        return found

    def load_nowait(self, key: bytes) -> Outcome | None:
        """The same if it is at hand, else None."""
        self._expect_mine()
        unwritten = self._unwritten.get(key)
        if unwritten is not None:
            about, event, data = unwritten
            return None if len(data) > LARGE else outcome_of(stored_outcome(about, event), data)
        found = self._read_ahead.take(self.recorded.finished[key])
        if found is None:
            return None
        if found.row.artifact is not None:
            self._read_ahead.put_back(found)
            return None
        return self._revived(found, found.row.value)

    def _revived_artifact(self, stored: StoredOutcome) -> Outcome:
        return self._revived(stored, read_artifact(self._engine.artifacts, stored.row))

    def _revived(self, stored: StoredOutcome, data: bytes | None) -> Outcome:
        try:
            return outcome_of(stored, data)
        except Exception as error:
            raise self._engine.unreadable(self.info.run_id, stored.row.sequence, error) from error

    async def _earlier(self, outcome: Outcome, data: bytes) -> Outcome:
        """The outcome that a key has already, as soon as it is on disk: the same as this one, written as `data`."""
        key = outcome.key
        while key in self._unwritten:
            self._hand_over_soon()
            await self._flush()
            self._expect_mine()
        found = await self._find(key)
        its = found.row.value
        if found.row.artifact is not None:
            its = await self._engine.in_thread(read_artifact, self._engine.artifacts, found.row)
        self._expect_same(outcome, data, found.row, its)
        return self._revived(found, its)

    def _earlier_now(self, outcome: Outcome, data: bytes) -> Outcome:
        """The same without waiting. That nobody may wait is worth a reading on the event loop: it is rare."""
        unwritten = self._unwritten.get(outcome.key)
        if unwritten is not None:
            about, event, text = unwritten
            self._expect_same(outcome, data, about, text)
            return outcome_of(stored_outcome(about, event), text)
        sequence = self.recorded.finished[outcome.key]
        found = self._begin_to_read(sequence - 1, 1).result()
        if not found or found[0].row.sequence != sequence:
            raise self._engine.missing(self.info.run_id, f"the outcome of event {sequence}")
        row = found[0].row
        its = row.value if row.artifact is None else read_artifact(self._engine.artifacts, row)
        self._expect_same(outcome, data, row, its)
        return self._revived(found[0], its)

    def _expect_same(self, outcome: Outcome, data: bytes, row: OutcomeRow, its: bytes | None) -> None:
        """See to it that an outcome is the one that its key has, whose value is `its`.

        Raises:
            StoreError: it is not, and the run stops. Its program may have acted on the first one, and nobody can say
                which of the two is right.
        """
        if row.ok is not (outcome.error is None) or its is None or not says_the_same(data, its):
            raise again(self._break(made_twice(self.info.run_id, outcome, row.sequence)))

    # -- people -------------------------------------------------------------------------------------------------------

    async def ask(self, question: Question) -> Question:
        self._expect_mine()
        found = await self._question(question.id)
        if found is None:
            number, fence = self.number, self.fence
            if not await self._change(lambda session: session.ask(number, fence, question)):
                raise again(self._break(self._lost()))
            found = await self._question(question.id)
        if found is None:
            raise self._engine.missing(self.info.run_id, f"question {question.id!r}")
        return found

    async def _question(self, question_id: str) -> Question | None:
        number, run_id = self.number, self.info.run_id
        return await self._engine.read(lambda session: session.question(number, run_id, question_id))

    async def reject_answer(self, question_id: str, problem: str) -> None:
        self._expect_mine()
        number, fence = self.number, self.fence
        if await self._question(question_id) is None:
            raise StoreError(f"run {self.info.run_id!r} has asked no question {question_id!r}")
        if not await self._change(lambda session: session.reject_answer(number, fence, question_id, problem)):
            raise again(self._break(self._lost()))

    async def _change(self, work: Callable[[WriteSession], T]) -> T:
        """Write something else than events, which may be done twice. An error breaks the journal."""
        try:
            until = self._writer.lease_ends_at(self.number, self.fence)
            return await self._writer.done(work, again=work, until=until)
        except StoreError as error:
            raise again(self._break(error)) from error

    def when_stop_requested(self, tell: Callable[[str], None]) -> None:
        """Call `tell` on the event loop when somebody asks for the run to be stopped."""
        self._on_stop_requested = tell
        if self.stop_requested is not None:
            tell(self.stop_requested)

    def lease_changed(self, state: LeaseState) -> None:
        """The writer has seen the state of the lease."""
        if self._broken is None:
            if not state.is_ours:
                self._break(self._lost())
                return
            if state.stop_requested is not None:
                self._stop(state.stop_requested)
            if state.watched is not None:
                self._relay.watch(watched_in(state.watched))
            if state.asked > self._asked:
                self._asked = state.asked
                if self._on_asked is not None:
                    self._on_asked()

    def stream_with(self, changed: Callable[[TextSink | None], None]) -> None:
        """Call `changed` when somebody begins to look at text of calls, and with None when no one does."""
        self._relay.stream_with(changed)

    async def requests(self) -> list[ControlRequest]:
        """The requests that are open, oldest first."""
        self._expect_mine()
        number, run_id = self.number, self.info.run_id
        return await self._engine.read(lambda session: session.requests_for_owner(number, run_id))

    async def answer_request(self, request_id: str, answer: Mapping[str, Any]) -> None:
        """The event that applies a request is on disk: it is not open any more."""
        self._expect_mine()
        number, fence, now = self.number, self.fence, self._engine.clock()
        if not await self._change(lambda session: session.answer_request(number, fence, request_id, answer, now)):
            raise again(self._break(self._lost()))

    def when_asked(self, tell: Callable[[], None]) -> None:
        """Call `tell` on the event loop when there may be further requests."""
        self._on_asked = tell

    def present_with(self, sample: Callable[[], Present | None]) -> None:
        """Let others know about once a second what `sample` gives."""
        self._saying.begin(sample)

    def look_at_run(self) -> None:
        """The writer wants to know what the run is doing."""
        if self._broken is None:
            self._saying.look(self._sequence, self._sequence - self.waiting)

    def _stop(self, reason: str) -> None:
        if reason != self.stop_requested:
            self.stop_requested = reason
            if self._on_stop_requested is not None:
                self._on_stop_requested(reason)

    # -- the end ------------------------------------------------------------------------------------------------------

    async def close(
        self, status: ExecutionStatus, reason: str | None = None, resumption: Resumption = NOT_RESUMED
    ) -> None:
        """Write what waits, record the status of the run, and let go of it."""
        if self._broken is not None:
            await self._let_go()
            return
        try:
            await self._writer.unless_it_hangs(self._flush())
        except StoreError as error:
            self._break(error)
            await self._let_go()
            raise
        closed = StoreError(f"run {self.info.run_id!r} has been closed here")
        number, fence, now = self.number, self.fence, self._engine.clock()
        until = self._writer.lease_ends_at(number, fence)
        self._break(closed)
        self._engine.forget(self, self.opening)
        goes_on = status not in ENDED and self._queued.queue is not None
        queued = self._queued._replace(ready_at=resumption.ready_at if goes_on else None, claims=0)
        waits = (resumption.questions, resumption.events) if goes_on else ((), ())

        def release(session: WriteSession) -> bool:
            return session.release(number, fence, status.value, reason, now, queued, *waits)

        def release_again(session: WriteSession) -> bool:
            return release(session) or _is_released(session, number, fence, status)

        released = self._writer.done(release, again=release_again, until=until)
        if not await self._writer.unless_it_hangs(released):
            raise self._lost()

    async def _let_go(self) -> None:
        """Leave a run whose journal is broken to the next owner, if that is possible."""
        if self._engine.forget(self, self.opening):
            await self._engine.release(self.number, self.fence)

    async def leave(self) -> None:
        """The store is closed: write what waits, and let go of the run without recording a status."""
        if self._broken is None:
            if asyncio.get_running_loop() is self.loop:
                with suppress(StoreError):
                    await self._writer.unless_it_hangs(self._flush())
            if self._broken is None:
                self._break(StoreError(f"the store of run {self.info.run_id!r} has been closed"))
        await self._let_go()

    def _break(self, error: StoreError) -> StoreError:
        """From now on every method raises this, or what broke it before; whoever waits gets it now."""
        if self._broken is not None:
            return self._broken
        self._broken = error
        self._saying.end()
        self._relay.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiters = self._waiters
        if self._in_flight is not None:
            waiters = self._in_flight[1] + waiters
        self._in_flight = None
        self._waiters, self._events, self._outcomes, self._artifacts = [], [], [], []
        self._unwritten.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(again(error))
        return error

    def _lost(self) -> LeaseLost:
        return LeaseLost(
            f"run {self.info.run_id!r} has been taken over by somebody else, because this process gave no sign of life "
            f"for more than {self.lease:g} s"
        )

    def _expect_mine(self) -> None:
        if self._writer.is_foreign:
            self._writer.expect_own_process()
        if self._broken is not None:
            raise again(self._broken)


def _is_released(session: WriteSession, number: int, fence: int, status: ExecutionStatus) -> bool:
    """Whether the run has been let go of by its owner, who does not know. To be asked while its lease lasts."""
    (found,) = session.standings([number])
    return found is not None and (found.fence, found.status, found.owner) == (fence + 1, status.value, None)


def _write_text(
    writer: Writer,
    loop: asyncio.AbstractEventLoop,
    number: int,
    fence: int,
    rows: Sequence[PieceRow],
    cuts: Sequence[PieceCut],
    done: Callable[[], None],
) -> None:
    """Let the writer write text of calls. What fails is not tried again: nothing depends on it, and the gap is seen."""
    try:
        future = writer.do(lambda session: session.put_pieces(number, fence, rows, cuts))
    except StoreError:  # the store is being closed
        return
    future.add_done_callback(lambda _: call_on(loop, done))


def _begin_to_read(engine: Engine, number: int, run_id: str, after: int, limit: int) -> Future[list[StoredOutcome]]:
    return engine.begin_to_read(lambda session: session.outcomes(number, run_id, after, limit))
