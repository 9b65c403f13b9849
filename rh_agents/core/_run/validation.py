"""Executing a finished run again to see whether it still comes to the same: ReplayMode.VALIDATION."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from rh_agents.core._loops.beside import beside, read_beside
from rh_agents.core._replay.ancestry import places_around
from rh_agents.core._replay.identity import again_key
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.errors import StoreError, UnstorableError
from rh_agents.core.events import Fact
from rh_agents.core.history import fact_of_event
from rh_agents.core.ports import NOT_RESUMED, Question, Resumption, RunInfo, Store
from rh_agents.core.ports.keeping import expect_values
from rh_agents.core.redaction.described import short_repr
from rh_agents.core.results import Outcome, UnreadOutcome, describe_error
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Spending
from rh_agents.core.values import encode_any, is_large

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
    if outcome.error is not None:
        text = describe_error(outcome.error)
    else:
        text = short_repr(outcome.value) if is_large(outcome.value) else repr(outcome.value)
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
        self._recovered_places: set[bytes] = set()

    @classmethod
    async def read(cls, store: Store, run_id: str) -> ValidationJournal:
        """All that is recorded of a run, at once; values are decoded when they are asked for.

        Raises:
            StoreError: there is no such run; `ValuesErased`: what its calls came to was erased.
        """
        info = await store.find_run(run_id)
        if info is None:
            raise StoreError(f"there is no run {run_id!r} to validate")
        expect_values(info, "validated")
        outcomes = {outcome.header.key: outcome async for outcome in store.unread_outcomes(run_id)}
        recorded = RecordedCalls()
        failed = {key: outcome.header.made_in for key, outcome in outcomes.items() if not outcome.header.ok}
        async for entry in store.events(run_id, values=False):
            fact = fact_of_event(entry.event)
            failed_in = failed.get(fact.key) if entry.has_outcome and fact.key is not None else None
            recorded.add_fact(entry.sequence, fact, entry.has_outcome, failed_in)
        recorded.cut_off.clear()
        recorded.unknown.clear()  # nothing is decided by what was under way
        recorded.attempts.clear()
        recorded.lost.clear()
        recorded.spent = {"": Spending()}  # a budget that was enough for the run is enough for its validation
        return cls(info, recorded, outcomes)

    async def load(self, key: bytes) -> Outcome:
        """The outcome of a key."""
        return self._recovered(await read_beside(self._outcomes[key]))

    def load_nowait(self, key: bytes) -> Outcome | None:
        """The same if it can be read at once."""
        unread = self._outcomes[key]
        return None if unread.is_large else self._recovered(unread.read())

    def _recovered(self, outcome: Outcome) -> Outcome:
        self._seen.add(outcome.key)
        self._recovered_places.add(outcome.base)
        return outcome

    def note(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """Compare an outcome; the recorded one counts."""
        return None if outcome is None else self._judged(outcome, _compared(self._outcomes.get(outcome.key), outcome))

    async def append(self, fact: Fact, outcome: Outcome | None = None) -> Outcome | None:
        """The same; what is large is compared beside the event loop."""
        if outcome is None:
            return None
        unread = self._outcomes.get(outcome.key)
        if (unread is not None and unread.is_large) or outcome.is_large:
            return self._judged(outcome, await beside(partial(_compared, unread, outcome)))
        return self._judged(outcome, _compared(unread, outcome))

    def _judged(self, outcome: Outcome, compared: _Compared) -> Outcome:
        self._seen.add(outcome.key)
        if not compared.is_same:
            self.differences.append(Difference(outcome.address, compared.recorded, outcome))
        return compared.counts

    async def flush(self) -> None:
        """Nothing waits."""

    async def ask(self, question: Question) -> Question:
        """Nobody is asked for a validation."""
        return question

    async def reject_answer(self, question_id: str, problem: str) -> None:
        """Nobody has answered."""

    def when_stop_requested(self, tell: Callable[[str], None]) -> None:
        """Nobody can ask, since nobody knows."""

    async def close(
        self, status: ExecutionStatus, reason: str | None = None, resumption: Resumption = NOT_RESUMED
    ) -> None:
        """Find what was recorded and not called."""
        parents = {outcome.header.base: outcome.header.parent for outcome in self._outcomes.values()}
        for key, outcome in self._outcomes.items():
            is_replaced = key in self.recorded.superseded or again_key(key) in self._outcomes
            is_replaced = is_replaced or key in self.recorded.dismissed  # it was cut off, so nothing can be compared
            if key in self._seen or is_replaced:
                continue
            if self._recovered_places.isdisjoint(places_around(outcome.header.parent, parents)):
                recorded = await read_beside(outcome, unknown_ok=True)
                self.differences.append(Difference(outcome.header.address, recorded, None))


class _Compared(NamedTuple):
    """What became of a comparison: what is recorded, whether that is the same, and what counts."""

    recorded: Outcome | None
    is_same: bool
    counts: Outcome


def _compared(unread: UnreadOutcome | None, found: Outcome) -> _Compared:
    """Raises: UnstorableError: what no store could keep fails here as it did there."""
    text = encode_any(found.value)
    if unread is None:
        return _Compared(None, False, found)
    try:
        recorded = unread.read()
    except StoreError:  # its class is another one by now, or is gone
        return _Compared(unread.read(unknown_ok=True), False, found)
    return _Compared(recorded, _is_same(recorded, found, text), recorded)


def _is_same(recorded: Outcome, found: Outcome, text: bytes) -> bool:
    if recorded.error is not None and found.error is not None:
        return describe_error(recorded.error) == describe_error(found.error)
    if recorded.error is not None or found.error is not None:
        return False
    try:
        return encode_any(recorded.value) == text
    except UnstorableError:
        return False
