"""What a run has to do with its store: opening it, recording what happens, and finding what happened before."""

from __future__ import annotations

import asyncio
import math
import os
import platform
import uuid
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rh_agents.core._base.key_generations import EVERY_ENDPOINT, fact_of_keys, generation_of_keys
from rh_agents.core._loops.beside import beside, beside_if_large, read_beside
from rh_agents.core._loops.postponed import LONGEST_WAIT, Postpone, until_it_is_done
from rh_agents.core._replay.ancestry import affected_calls, places_around
from rh_agents.core._replay.codes import changed_codes, changed_sentence, with_codes
from rh_agents.core._replay.identity import tried_key
from rh_agents.core._replay.recorded import KeyMarks, RecordedCalls, ReplayRules
from rh_agents.core.errors import (
    CodeChangedError,
    CodeChangedWarning,
    OptionError,
    RunMismatchError,
    StoreError,
    UsageError,
)
from rh_agents.core.events import Fact
from rh_agents.core.groups import GroupEnding
from rh_agents.core.ports import NOT_RESUMED, Journal, LeasedJournal, Resumption, RunInfo, RunRequest, Store
from rh_agents.core.redaction import expect_no_secret, logger, redact, without_secrets
from rh_agents.core.results import Outcome, OutcomeHeader, UnreadOutcome
from rh_agents.core.types import Durability, EventType, ExecutionStatus, Generation
from rh_agents.core.usage import Spending
from rh_agents.core.values import shown_value

__all__ = ["Recording", "affected_by", "make_owner"]

_MOST_WAITING = 10_000
"""Entries that may wait to be written behind, before whoever adds another one has to wait for them."""
_MOST_COMPARED = 500
"""Entries of a journal in which the servers of models are looked up."""
_NOTHING = RecordedCalls()
_log = logger("rh_agents.replay")


def make_owner() -> str:
    """A name for one execution of a run: who it is for people, and different from every other one."""
    return f"process {os.getpid()} on {platform.node()} ({uuid.uuid4().hex[:12]})"


_MOST_COUNTED = 100_000
"""Events that are looked at to say how many results there are of code that has changed."""


class Recording:
    """The journal of one run, from opening it to letting go of it.

    Args:
        store: None records nothing.
        request: what the store is asked to open.
        durability: when outcomes are on disk.
        validation: opens a journal that only compares, of the run of this name; None opens the run and records.
        retry_failed: whether failures of an execution that had ended are tried again.
        reuse: whether the run may go on with another input or workflow than it had.
        resume_from: make the call at this address again, and what depends on it.
        keep_input: gives the input of the run as it is kept and its digest, if that takes so long that it is to be done
            in a thread; None if the request has both.
    """

    def __init__(
        self,
        store: Store | None,
        request: RunRequest,
        durability: Durability = Durability.SYNC,
        *,
        validation: Callable[[Store, str], Awaitable[Journal]] | None = None,
        retry_failed: bool = True,
        reuse: bool = False,
        resume_from: str | None = None,
        keep_input: Callable[[], tuple[bytes | None, bytes | None]] | None = None,
        codes: Callable[[], Mapping[str, str | None]] | None = None,
        accepts_changes: bool = False,
        is_strict: bool = False,
    ) -> None:
        self._store = store
        self._keep_input = keep_input
        self._codes = codes
        self._accepts_changes = accepts_changes
        self._is_strict = is_strict
        self._request = request
        self._validation = validation
        # A validation records nothing; it compares, and that is waited for, however long it takes.
        compares = validation is not None
        self._durability = Durability.SYNC if compares else durability
        self.rules: ReplayRules = ReplayRules(retry_failed and not compares, compares)
        """What becomes of recorded outcomes of direct calls."""
        self._reuse = reuse
        self._resume_from = resume_from
        if store is None and resume_from is not None:
            raise OptionError(f"resume_from={resume_from!r} names a recorded call, so it needs store=, and run_id=")
        self._journal: Journal | None = None
        self._leased: LeasedJournal | None = None
        self._proving = asyncio.Lock()
        self._lock = asyncio.Lock()
        self._used = KeyMarks(_NOTHING.finished)
        self._recovered_places = KeyMarks(_NOTHING.finished)
        self._earlier = 0
        """How many entries the journal had when it was opened."""
        self.records: bool = store is not None
        self.is_open: bool = False
        self.broken: StoreError | None = None
        self.recorded: RecordedCalls = _NOTHING
        self.epoch: int = 0
        self.is_resumed: bool = False
        self.keys_generation: int = EVERY_ENDPOINT
        """Which generation of keys it has; see `rh_agents.core._base.key_generations`."""
        self._has_reported_former = False
        self._compared: set[str] = set()
        """Models whose server was compared with those in the journal."""

    async def open(self, opened: Callable[[], Awaitable[None]]) -> None:
        """Open the journal, if that has not been done, and let `opened` see to it; others who ask meanwhile wait.

        Raises:
            RunMismatchError: the run is about something else.
            StoreError: the store failed, now or before; `RunIsLive`: somebody else executes the run.
        """
        if self.broken is not None:
            raise self.broken
        async with self._lock:  # calls side by side wait for the first one
            if self.is_open:
                return
            if self._store is not None:
                await self._open(self._store)
            try:
                await opened()
            except BaseException:  # the run has not begun, so somebody else may
                await self.close(ExecutionStatus.STARTED)
                raise
            self.is_open = True

    async def _open(self, store: Store) -> None:
        if self._keep_input is not None:
            try:
                data, digest = await beside(self._keep_input)
            except RuntimeError:  # a mapping or a set was changed while it was read
                data, digest = self._keep_input()
            self._request = replace(self._request, input=data, input_digest=digest)
            self._keep_input = None
        request = self._request
        known = await store.find_run(request.run_id)
        if known is None and self._resume_from is not None:
            raise UsageError(
                f"there is no run {request.run_id!r} yet, so resume_from={self._resume_from!r} names no call of it: "
                "leave resume_from= out, or name a run that exists with run_id="
            )
        self.keys_generation = generation_of_keys(None if known is None else known.facts)
        if known is None or request.facts:
            request = replace(request, facts={**request.facts, **fact_of_keys(self.keys_generation)})
        if known is None:
            expect_no_secret(request.run_id)
        elif not self._reuse:
            await beside_if_large((known.input, request.input), _expect_same, known, request)
        if self._codes is not None and self._validation is None:
            before = {} if known is None else known.facts
            now = self._codes()
            if not self._accepts_changes:
                await self._report_changes(store, changed_codes(before, now))
            facts = with_codes(request.facts or before, before, now, accepted=self._accepts_changes)
            request = replace(request, facts=facts)
        if known is not None and self._resume_from is not None:
            affected = await affected_by(store, request.run_id, self._resume_from)
            await store.supersede(request.run_id, [outcome.key for outcome in affected])
        if self._validation is not None:
            self._journal = await self._validation(store, request.run_id)
        else:
            self._journal = await store.open_run(request)
        self._leased = self._journal if isinstance(self._journal, LeasedJournal) else None
        self.recorded = self._journal.recorded
        self._used = KeyMarks(self.recorded.finished)
        self._recovered_places = KeyMarks(self.recorded.finished)
        self.epoch = self._journal.info.epoch
        self.is_resumed = self.recorded.events > 0
        self._earlier = self.recorded.events

    async def _report_changes(self, store: Store, names: Sequence[str]) -> None:
        """Warn of actors whose code has changed since results of them were recorded, which are reused all the same.

        Raises:
            CodeChangedError: there are such, and the run is strict.
        """
        if not names:
            return
        results: Counter[str] = Counter()
        is_whole = True
        async for recorded in store.events(self._request.run_id, values=False):
            if recorded.sequence > _MOST_COUNTED:
                is_whole = False  # a long run does not wait for a number
                break
            event = recorded.event
            results[event.actor.name] += event.execution_status is ExecutionStatus.COMPLETED
        changed = [name for name in names if results[name] or not is_whole]
        if not changed:
            return
        results = results if is_whole else Counter()
        said = f"run {self._request.run_id!r}: {changed_sentence(changed, results)}, accept_changes=True"
        if self._is_strict:
            raise CodeChangedError(f"{said} reuses them in this strict run")
        warnings.warn(f"{said} silences this", CodeChangedWarning, stacklevel=2)

    def report_former_key(self, name: str) -> None:
        """A call is found under the key that it had before, in a journal that does not say everything about it."""
        if self._has_reported_former:
            return
        self._has_reported_former = True
        _log.warning(
            "run %r uses answers of %s again that were recorded when the server was no part of a model's identity, "
            "whichever server gave them",
            self._request.run_id,
            name,
        )

    async def report_other_server(self, name: str, version: str, server: str, setting: str = "endpoint") -> None:
        """A model is asked whose answers in the journal may all come from another server. Said once for each model.

        They are not used, since two servers may call different models by one name. But who has moved a server, or has
        given it a name, wants to know before everything is paid for again. Only the beginning of the journal is looked
        at: it is enough, and a long run does not wait for it.

        Args:
            name: of the model.
            version: of the model, without its server.
            server: what stands for its server now.
            setting: what the argument is called that names it.
        """
        if self._store is None or name in self._compared or self.keys_generation < EVERY_ENDPOINT:
            return
        self._compared.add(name)
        found: set[str] = set()
        async for recorded in self._store.events(self._request.run_id, values=False):
            if recorded.sequence > min(self._earlier, _MOST_COMPARED):
                break
            actor = recorded.event.actor
            if actor.name == name:
                known = _server_in(actor.recorded_version, version)
                found.update(() if known is None else (known,))
        if found and server not in found:
            _log.warning(
                "%s is asked at %s, and run %r has its answers from %s: they are not used, and its calls are made and "
                "paid for again. If it is the same model, say so with %s=%r.",
                name,
                _named(server),
                self._request.run_id,
                " and ".join(sorted(map(_named, found))),
                setting,
                min(found),
            )

    @property
    def is_written_at_once(self) -> bool:
        """Whether what a call has used is on disk when it has ended; else it will be at some time, or never."""
        return self._durability is Durability.SYNC and self._validation is None

    @property
    def last_entry(self) -> int:
        """The number of the last entry of the journal."""
        return self.recorded.events

    def spent_in(self, place: str) -> Spending:
        """What it shows that a part of the run has spent; "" is all of it."""
        return self.recorded.spent.get(place) or Spending()

    # -- whether the run is ours --------------------------------------------------------------------------------------

    @property
    def is_ours(self) -> bool:
        """Whether it is certain that no other process has taken the run over; then a call may begin."""
        leased = self._leased
        return leased is None or leased.is_ours

    async def prove(self) -> None:
        """See to it that the run is ours: this process may have stood still for longer than its lease.

        Raises:
            LeaseLost: another process has taken it over.
            StoreError: it cannot be found out.
        """
        async with self._proving:
            if self._leased is None or self.is_ours:
                return
            self._expect_journal()
            try:
                await self._leased.prove()
            except StoreError as error:
                self.broken = self.broken or error
                raise

    async def proven(self, begin: Callable[[], Awaitable[Any]]) -> Any:
        """Begin a call when the run is certainly ours; see `prove`."""
        await self.prove()
        return await begin()

    # -- what happened before -----------------------------------------------------------------------------------------

    def is_recorded(self, key: bytes, *, is_external: bool) -> bool:
        """Whether the call with this key has an outcome that is to be recovered.

        A validation recovers what it must not make, external effects and what somebody has cancelled by name, and a
        failure that another try follows: only the newest one is compared.
        """
        return key in self.recorded.finished and self.recovers(key, is_external=is_external)

    def recovers(self, key: bytes, *, is_external: bool) -> bool:
        """The same of a call that has an outcome."""
        if self.is_resumed:
            self._used.add(key)
        if self._validation is None or is_external:
            return True
        return self.recorded.is_withdrawn(key) or self.recorded.is_followed(key)

    async def load(self, key: bytes) -> Outcome:
        """The outcome that is recorded for a key."""
        journal = self._expect_journal()
        try:
            outcome = await journal.load(key)
        except StoreError as error:
            self.broken = self.broken or error
            raise
        if self.is_resumed:
            self._recovered_places.add(outcome.base)
        return outcome

    def load_nowait(self, key: bytes) -> Outcome | None:
        """The same if it can be had without waiting."""
        journal = self._expect_journal()
        try:
            outcome = journal.load_nowait(key)
        except StoreError as error:
            self.broken = self.broken or error
            raise
        if outcome is not None and self.is_resumed:
            self._recovered_places.add(outcome.base)
        return outcome

    def recover_nowait(self, key: bytes) -> Outcome | None:
        """The outcome of a call that is not validated and is made for the first time, so that its key is its place, if
        it is recorded and can be had without waiting.
        """
        place = self.recorded.finished.place_of(key)
        if place < 0:
            return None
        if self.is_resumed:
            self._used.add_at(place)
        outcome = self._expect_journal().load_nowait(key)
        if outcome is not None and self.is_resumed:
            self._recovered_places.add_at(place)
        return outcome

    def try_of(self, place: bytes, generation: Generation, rules: ReplayRules) -> tuple[bytes, int]:
        """The key under which the call at a place is made in this generation of its parent, and how often it was."""
        key, tries = self.recorded.try_of(place, generation, rules)
        if self.is_resumed:
            for number in range(tries):  # they were looked at, so they are not left over
                self._used.add(tried_key(place, number))
        return key, tries

    def has_outcome(self, key: bytes) -> bool:
        """Whether the call with this key has a recorded outcome, whatever becomes of it."""
        return key in self.recorded.finished

    def attempts_before(self, key: bytes) -> int:
        """How many attempts of a call without an outcome failed in earlier executions of the run."""
        return self.recorded.attempts.get(key, 0)

    def lost_before(self, key: bytes) -> int:
        """How many workers a call without an outcome has lost before."""
        return self.recorded.lost.get(key, 0)

    def order_of(self, group_id: str) -> Sequence[bytes]:
        """The keys of a group's members that have a recorded outcome, in the order in which they ended."""
        return self.recorded.orders.get(group_id, ())

    def recorded_ending(self, group_id: str, generation: Generation) -> GroupEnding | None:
        """How a group has to end in this generation of the call around it; None if it is open."""
        if not self.is_resumed and generation == (0, 0, 0):
            return None
        return self.recorded.binding_ending(group_id, generation, retry_failed=self.rules.retries_failed)

    async def acknowledge(self) -> None:
        """Wait until what was noted is on disk, if that is what outcomes are waited for."""
        if self._journal is not None and self._durability is Durability.SYNC:
            await self._flushed()

    def unknown_since(self, key: bytes, base: bytes, tries: int) -> int | None:
        """Since which event a call may have been done though nothing tells: this try of it, or the one before."""
        since = self.recorded.unknown.get(key)
        if since is None and tries and self.recorded.cut_off:
            since = self.recorded.cut_off.get(tried_key(base, tries - 1))
        return since

    async def unused(self) -> AsyncIterator[Outcome]:
        """Outcomes of earlier executions that this one has not asked for, but for those below a recovered call."""
        if self._store is None or not self._earlier:
            return
        unused: list[UnreadOutcome] = []
        parents: dict[bytes, bytes] = {}
        async for outcome in self._store.unread_outcomes(self._request.run_id):
            header = outcome.header
            if self.recorded.finished.get(header.key, math.inf) > self._earlier:
                continue
            parents[header.base] = header.parent
            if header.key not in self._used and header.key not in self.recorded.superseded:
                unused.append(outcome)
        for outcome in unused:
            if not any(place in self._recovered_places for place in places_around(outcome.header.parent, parents)):
                # The program has changed, so it may not have the class any more.
                yield await read_beside(outcome, unknown_ok=True)

    # -- what happens now ---------------------------------------------------------------------------------------------

    def note(self, fact: Fact, outcome: Outcome | None = None) -> None:
        """Record a fact, with what it reports, without waiting for it."""
        journal = self._journal
        if journal is None or self.broken is not None:
            journal = self._expect_journal()
        try:
            journal.note(fact, outcome)
        except StoreError as error:
            self.broken = self.broken or error
            raise

    async def record(
        self,
        fact: Fact,
        outcome: Outcome | None,
        *,
        is_urgent: bool,
        postpone: Postpone | None = None,
    ) -> Outcome | None:
        """Record a fact with its outcome; returns the outcome that counts.

        Outcomes are on disk when this returns, if the durability says so; so is an urgent fact. With `postpone` a
        cancellation does not change that.
        """
        journal = self._journal
        if journal is None or self.broken is not None:
            journal = self._expect_journal()
        try:
            is_waited_for = outcome is not None and (
                self._durability is Durability.SYNC or outcome.is_large  # it is written in a thread
            )
            if is_urgent or is_waited_for:
                before = journal.recorded.events
                try:
                    return await journal.append(fact, outcome)
                except asyncio.CancelledError as error:
                    if outcome is None or postpone is None:
                        raise
                    rest = _rest_of_append(journal, fact, outcome, before)
                    return await until_it_is_done(rest, postpone(error))
            if journal.waiting > _MOST_WAITING:  # before it is noted: whoever is noted first goes on first
                await journal.flush()
                journal = self._expect_journal()
            counts = journal.note(fact, outcome)
        except StoreError as error:
            self.broken = self.broken or error
            raise
        return counts

    async def flush(self) -> None:
        """Wait until what was written behind is on disk; at the end of a group."""
        if self._journal is not None and self._durability is Durability.ASYNC:
            await self._flushed()

    async def written(self) -> None:
        """Wait until what was noted is on disk, however outcomes are recorded."""
        await self._flushed()

    async def _flushed(self) -> None:
        try:
            await self._expect_journal().flush()
        except StoreError as error:
            self.broken = self.broken or error
            raise

    async def close(
        self, status: ExecutionStatus, reason: str | None = None, resumption: Resumption = NOT_RESUMED
    ) -> None:
        """Record how the run stands, and let go of it.

        Raises:
            StoreError: the store failed, now or before.
        """
        journal, self._journal = self._journal, None
        if journal is None:
            return
        if self.broken is not None:  # the run has not ended, whatever its program came to
            try:
                async with asyncio.timeout(LONGEST_WAIT):  # it may be broken because the store does not answer
                    await journal.close(ExecutionStatus.STARTED, redact(str(self.broken)))
            except TimeoutError:
                _log.warning("run %r could not be let go of: its store does not answer", self._request.run_id)
            raise self.broken
        await journal.close(status, None if reason is None else redact(reason), resumption)

    @property
    def journal(self) -> Journal | None:
        """The journal, while it is open."""
        return self._journal

    def _expect_journal(self) -> Journal:
        if self.broken is not None:
            raise self.broken
        if self._journal is None:
            raise StoreError(f"run {self._request.run_id!r} is closed: nothing can be recorded after its end")
        return self._journal


async def _rest_of_append(journal: Journal, fact: Fact, outcome: Outcome, before: int) -> Outcome | None:
    """Add an outcome and wait for it, or only wait, if it has been added before whoever waited was cancelled.

    Args:
        before: how many entries the journal had before that.
    """
    if journal.recorded.finished.get(outcome.key, 0) <= before:
        return await journal.append(fact, outcome)
    await journal.flush()
    return outcome


def _expect_same(known: RunInfo, request: RunRequest) -> None:
    """Refuse to go on with a run that was about something else."""
    if known.workflow and request.workflow and known.workflow != request.workflow:
        raise RunMismatchError(
            f"run {known.run_id!r} was started with the workflow {known.workflow}, and this is {request.workflow}: "
            "name another run, or pass reuse=True to keep the results that still fit"
        )
    digests = known.input_digest, request.input_digest
    if None not in digests and digests[0] != digests[1]:
        raise RunMismatchError(
            f"run {known.run_id!r} was started with {_difference(known.input, request.input)}: name another run, or go "
            "on with what still fits by reuse=True"
        )


def _server_in(recorded: str, version: str) -> str | None:
    """The server in the recorded version of a model; None if the version itself or something else has changed."""
    if recorded == version:
        return ""
    start = f"{version} at "
    return recorded.removeprefix(start) if recorded.startswith(start) else None


def _named(server: str) -> str:
    return server or "its provider's own server"


def _difference(before: bytes | None, now: bytes | None, length: int = 120) -> str:
    """Two inputs that differ, or the places where long ones begin to: their beginnings may well be the same."""
    texts = ["(not kept)" if data is None else shown_value(data) for data in (before, now)]
    pairs = enumerate(zip(*texts, strict=False))
    same = next((place for place, (first, second) in pairs if first != second), min(map(len, texts)))
    start = max(0, same - length // 4)
    if start == 0 or same == max(map(len, texts)):
        start, where = 0, "the input"
    else:
        where = f"an input that differs from character {same + 1:,} on:"
    first, second = (_excerpt(text, start, length) for text in texts)
    return f"{where} {first}, and this is {second}"


def _excerpt(text: str, start: int, length: int) -> str:
    end = start + length
    return f"{'…' if start else ''}{text[start : end if len(text) <= end else end - 1]}{'…' if len(text) > end else ''}"


async def affected_by(store: Store, run_id: str, target: str) -> list[OutcomeHeader]:
    """The outcomes of a run that no longer hold if the call at `target` is made again; its own is first.

    Raises:
        UsageError: there is no such call, or more than one.
        StoreError: there is no such run.
    """
    unseen = {
        bytes.fromhex(entry.event.key)
        async for entry in store.events(run_id, values=False)
        if entry.event.key is not None and entry.event.event_type is EventType.FUNCTION_CALL
    }
    headers = [outcome.header async for outcome in store.unread_outcomes(run_id)]
    return affected_calls(headers, unseen, without_secrets(target), run_id)
