"""Executing a finished run again to see whether it still comes to the same: ReplayMode.VALIDATION."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rh_agents.core._replay.ancestry import places_around
from rh_agents.core._replay.keys import again_key
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.errors import CallCancelled, StoreError, UnstorableError
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.ports import Question, RunInfo, Store
from rh_agents.core.results import Outcome, UnreadOutcome, describe_error
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.values import encode

__all__ = ["Difference", "ValidationJournal"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A call that came to something else than recorded.

    Attributes:
        address: its readable place.
        recorded: what is recorded; None if the call is new.
        found: what it came to now; None if the call was not made.
    """

    address: str
    recorded: Outcome | None
    found: Outcome | None

    def __str__(self) -> str:
        if self.recorded is None:
            return f"{self.address}: not recorded, now {_brief(self.found)}"
        if self.found is None:
            return f"{self.address}: recorded {_brief(self.recorded)}, now not called"
        return f"{self.address}: recorded {_brief(self.recorded)}, now {_brief(self.found)}"


def _brief(outcome: Outcome | None, length: int = 80) -> str:
    if outcome is None:
        return "nothing"
    text = repr(outcome.value) if outcome.error is None else describe_error(outcome.error)
    return text if len(text) <= length else f"{text[: length - 1]}…"


class ValidationJournal:
    """A journal that nothing is added to: what would be is compared with what is there, and that is what counts.

    So a call that came to something else does not make everything after it differ as well.
    """

    def __init__(self, info: RunInfo, recorded: RecordedCalls, outcomes: dict[bytes, UnreadOutcome]) -> None:
        self.info: RunInfo = info
        self.recorded: RecordedCalls = recorded
        self.waiting: int = 0
        self.stop_requested: str | None = None
        self.differences: list[Difference] = []
        self._outcomes = outcomes
        self._seen: set[bytes] = set()
        self._reused_places: set[bytes] = set()

    @classmethod
    async def read(cls, store: Store, run_id: str) -> ValidationJournal:
        """All that is recorded of a run, at once; values are decoded when they are asked for.

        Raises:
            StoreError: there is no such run.
        """
        info = await store.find_run(run_id)
        if info is None:
            raise StoreError(f"there is no run {run_id!r} to validate")
        outcomes = {outcome.header.key: outcome async for outcome in store.unread_outcomes(run_id)}
        recorded = RecordedCalls()
        async for entry in store.events(run_id, values=False):
            event = entry.event
            key = None if event.key is None else bytes.fromhex(event.key)
            outcome = outcomes.get(key) if key is not None and event.execution_status.is_final else None
            if outcome is not None and not _is_told_by(outcome, event.execution_status):
                outcome = None  # a shutdown cut the call off, and it was made again
            failed_in = None if outcome is None or outcome.header.ok else outcome.header.made_in
            recorded.add(
                entry.sequence,
                event.execution_status,
                key,
                event.attempt,
                event.group_id,
                outcome is not None,
                failed_in,
                ending=None if event.group is None else event.group.ending,
            )
        recorded.cut_off.clear()
        recorded.unknown.clear()  # nothing is decided by what was under way
        recorded.attempts.clear()
        return cls(info, recorded, outcomes)

    async def load(self, key: bytes) -> Outcome:
        """The outcome of a key."""
        return self._reused(self._outcomes[key].read())

    def load_nowait(self, key: bytes) -> Outcome | None:
        """The same."""
        return self._reused(self._outcomes[key].read())

    def _reused(self, outcome: Outcome) -> Outcome:
        self._seen.add(outcome.key)
        self._reused_places.add(outcome.base)
        return outcome

    def note(self, event: ExecutionEvent[Any], outcome: Outcome | None = None) -> Outcome | None:
        """Compare an outcome; the recorded one counts."""
        if outcome is None:
            return None
        encode(outcome.value)  # what no store could keep fails here as it did there
        self._seen.add(outcome.key)
        unread = self._outcomes.get(outcome.key)
        if unread is None:
            self.differences.append(Difference(outcome.address, None, outcome))
            return outcome
        try:
            recorded = unread.read()
        except StoreError:  # its class is another one by now, or is gone
            self.differences.append(Difference(outcome.address, unread.read(unknown_ok=True), outcome))
            return outcome
        if not _is_same(recorded, outcome):
            self.differences.append(Difference(outcome.address, recorded, outcome))
        return recorded

    async def append(self, event: ExecutionEvent[Any], outcome: Outcome | None = None) -> Outcome | None:
        """The same."""
        return self.note(event, outcome)

    async def flush(self) -> None:
        """Nothing waits."""

    async def ask(self, question: Question) -> Question:
        """Nobody is asked for a validation."""
        return question

    async def reject_answer(self, question_id: str, problem: str) -> None:
        """Nobody has answered."""

    def when_stop_requested(self, tell: Callable[[str], None]) -> None:
        """Nobody can ask, since nobody knows."""

    async def close(self, status: ExecutionStatus, reason: str | None = None) -> None:
        """Find what was recorded and not called."""
        parents = {outcome.header.base: outcome.header.parent for outcome in self._outcomes.values()}
        for key, outcome in self._outcomes.items():
            is_replaced = key in self.recorded.superseded or again_key(key) in self._outcomes
            is_replaced = is_replaced or key in self.recorded.dismissed  # it was cut off, so nothing can be compared
            if key in self._seen or is_replaced:
                continue
            if self._reused_places.isdisjoint(places_around(outcome.header.parent, parents)):
                self.differences.append(Difference(outcome.header.address, outcome.read(unknown_ok=True), None))


def _is_told_by(outcome: UnreadOutcome, status: ExecutionStatus) -> bool:
    was_cancelled = not outcome.header.ok and isinstance(outcome.read().error, CallCancelled)
    return was_cancelled == (status is ExecutionStatus.CANCELLED)


def _is_same(recorded: Outcome, found: Outcome) -> bool:
    if recorded.error is not None and found.error is not None:
        return describe_error(recorded.error) == describe_error(found.error)
    if recorded.error is not None or found.error is not None:
        return False
    try:
        return encode(recorded.value) == encode(found.value)
    except UnstorableError:
        return False
