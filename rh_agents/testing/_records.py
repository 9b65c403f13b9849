"""What the conformance suite writes into stores, and what it expects to read there."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar

from pydantic import BaseModel

from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import CallCancelled
from rh_agents.core.events import ExecutionEvent, Fact
from rh_agents.core.groups import GroupEnding, GroupStatus, ParallelEventGroup
from rh_agents.core.ports import Journal, RunInfo, RunRequest, Store
from rh_agents.core.results import Outcome, describe_error
from rh_agents.core.tracking import group_fact
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.values import storable

T = TypeVar("T")

RUN = "monday"
STARTED = ExecutionStatus.STARTED
RETRYING = ExecutionStatus.RETRYING
COMPLETED = ExecutionStatus.COMPLETED
FAILED = ExecutionStatus.FAILED
CANCELLED = ExecutionStatus.CANCELLED
AWAITING = ExecutionStatus.AWAITING
SUPERSEDED = ExecutionStatus.SUPERSEDED
ENDED = (COMPLETED, FAILED, CANCELLED)

BRIEF_LEASE = 0.2
"""Seconds, for owners that are going to be silent: so long their successors wait."""

ODD_TEXTS = [
    "", " ", "a", "A", "a ", "a\0", "a\0b", "\0", "\ud800", "a\udfffb", "\ud83d", "é", "e\u0301", "\U0001f40d",
    "\x1b[31m", "%", "_", "'; DROP TABLE run; --", '"', "\\", "\\u0000", "../../etc/passwd", "/", "a\nb\r\n",
    "\u2028", "\ufeff", "null", "x" * 3000,
]  # fmt: skip
"""Texts that are easily confused, cut off, normalised or refused."""


@storable
class Colour(enum.Enum):
    """A value of a kind that a program defines."""

    RED = "red"
    BLUE = 2


@storable
@dataclass(frozen=True)
class Point:
    """A value of a kind that a program defines."""

    x: int
    y: float
    names: tuple[str, ...] = ()


@storable
class Page(BaseModel):
    """A value of a kind that a program defines."""

    url: str
    points: list[Point] = []
    seen: datetime | None = None


_NOON = datetime(2026, 8, 1, 12, 0, 0, 123456, UTC)
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**63, -(2**70), 10**300,
    0.0, -0.0, 0.1 + 0.2, 5e-324, 1.7e308, float("inf"), float("-inf"),
    "text", *ODD_TEXTS, b"", b"\0\xff", bytes(range(256)),
    (), (1, "a", None), [], [1, [2, [3]]], {}, {"a": 1, "": None}, {1: "a", (2, 3): "b"},
    {1, 2}, frozenset({"a"}), set(),
    _NOON, _NOON.replace(tzinfo=None), date(2026, 8, 1), timedelta(days=-1, microseconds=1),
    Colour.RED, [Colour.BLUE], Point(1, 0.5, ("a", "b")), Page(url="a\0", points=[Point(1, 2.0)], seen=_NOON),
    {"pages": [Page(url="b")], "all": (Point(0, 0.0),)},
]  # fmt: skip
"""One of every kind that can be stored."""


async def _never_called(_: Any) -> None:
    """Events name an actor; nobody calls it."""


FETCH: BaseActor = BaseActor(name="fetch", version="7", event_type=EventType.TOOL_CALL, handler=_never_called)


def key(number: int | str) -> bytes:
    return sha256(str(number).encode("utf-8", "surrogatepass")).digest()


def outcome(number: int | str, value: Any = None, error: Exception | None = None, **facts: Any) -> Outcome:
    """What a call came to; `facts` are further fields of `Outcome`."""
    fields: dict[str, Any] = {
        "key": key(number),
        "name": f"fetch {number}",
        "address": f"survey::fetch {number}",
        "value": value,
        "error": error,
        "seconds": 0.1 + 0.2,
        "attempts": 1,
        "base": key(number),
        "parent": b"",
        "made_in": (0, 0, 1),
    }
    return Outcome(**{**fields, **facts})


def fact(run_id: str, status: ExecutionStatus, call: Outcome | None, **fields: Any) -> Fact:
    """A fact about a call that comes, or may come, to this outcome; None is about a call without a key.

    `fields` are those of `Fact`, and those of events that few events have.
    """
    more = {name: fields.pop(name) for name in list(fields) if name not in Fact._fields}
    actor = fields.pop("actor", FETCH)
    if call is None:
        made = Fact(run_id, 1_760_000_000.25, status, actor.event_type, actor, actor.name, "survey::plain")
    else:
        is_member = call.group_id is not None
        made = Fact(
            run_id,
            1_760_000_000.123456,
            status,
            actor.event_type,
            actor,
            call.name,
            call.address,
            call.key,
            call.group_id,
            3 if is_member else None,
            17 if is_member else None,
        )
    return made._replace(more=more or None, **fields)


def completed(run_id: str, call: Outcome) -> Fact:
    """The fact that reports an outcome."""
    error = call.error
    if error is None:
        status = ExecutionStatus.COMPLETED
    else:
        status = ExecutionStatus.CANCELLED if isinstance(error, CallCancelled) else ExecutionStatus.FAILED
    return fact(
        run_id,
        status,
        call,
        seconds=call.seconds,
        attempt=call.attempts,
        result=call.value,
        message=None if error is None else describe_error(error),
    )


def about_group(run_id: str, group_id: str, status: GroupStatus, ending: GroupEnding | None = None) -> Fact:
    """A fact about a group; `ending` is how it ends early."""
    counts = {"total": 9, "enrolled": 9, "started": 5, "completed": 4, "failed": 1, "elapsed": 1.5, "rate": 3.3}
    group = ParallelEventGroup.model_validate(
        {"group_id": group_id, "name": "pages", "address": "survey::pages", "status": status, **counts}
    )
    kind = EventType.GROUP_COMPLETED if group.is_complete else EventType.GROUP_STARTED
    if ending is not None:
        group = group.model_copy(update={"ending": ending})
        kind = EventType.GROUP_ENDING
    return group_fact(kind, group, run_id, 1_760_000_000.25)


def request(run_id: str = RUN, owner: str = "me", **facts: Any) -> RunRequest:
    return RunRequest(run_id, owner, **facts)


async def found_run(store: Store, run_id: str = RUN) -> RunInfo:
    info = await store.find_run(run_id)
    assert info is not None
    return info


async def counting(journal: Journal, call: Outcome) -> Outcome:
    """What counts when this outcome is appended."""
    counts = await journal.append(completed(journal.info.run_id, call), call)
    assert counts is not None
    return counts


@dataclass
class Written:
    """The journal of one run as it should be: the model with which a store is compared."""

    run_id: str
    entries: list[tuple[Fact, Outcome | None]] = field(default_factory=list)

    async def append(self, journal: Journal, given: Fact, result: Outcome | None = None) -> None:
        counts = await journal.append(given, result)
        assert counts is result, "what is recorded for the first time is what counts"
        self.entries.append((given, result))

    def note(self, journal: Journal, given: Fact, result: Outcome | None = None) -> None:
        counts = journal.note(given, result)
        assert counts is result, "what is recorded for the first time is what counts"
        self.entries.append((given, result))

    async def call(self, journal: Journal, call: Outcome) -> Outcome:
        """A call starts, and comes to its outcome."""
        self.note(journal, fact(self.run_id, ExecutionStatus.STARTED, call))
        await self.append(journal, completed(self.run_id, call), call)
        return call

    @property
    def outcomes(self) -> dict[bytes, Outcome]:
        """By key, in the order in which they were recorded: of each key the first one."""
        found: dict[bytes, Outcome] = {}
        for _, result in self.entries:
            if result is not None:
                found.setdefault(result.key, result)
        return found

    def recorded(self) -> RecordedCalls:
        """The fold over the events."""
        calls = RecordedCalls()
        for sequence, (given, result) in enumerate(self.entries, 1):
            failed_in = None if result is None or result.error is None else result.made_in
            calls.add_fact(sequence, given, result is not None, failed_in)
        return calls

    async def check(self, store: Store) -> None:
        """What the store has is what was written."""
        stored = await listed(store.events(self.run_id))
        assert [each.sequence for each in stored] == list(range(1, len(self.entries) + 1)), "gap-free, in order"
        for each, (given, result) in zip(stored, self.entries, strict=True):
            is_end = result is not None or given.status is ExecutionStatus.RECOVERED
            same_event(each.event, given, has_result=is_end)
            assert each.has_outcome is (result is not None)
        for found, result in zip(await listed(store.outcomes(self.run_id)), self.outcomes.values(), strict=True):
            same_outcome(found, result)

    async def check_journal(self, journal: Journal) -> None:
        """What the journal has of earlier times, and of its own, is what was written."""
        same_recorded(journal.recorded, self.recorded())
        for result in self.outcomes.values():
            same_outcome(await journal.load(result.key), result)


def same_recorded(found: RecordedCalls, given: RecordedCalls) -> None:
    """Assert that two folds are equal, in their order too where it matters."""
    assert found == given
    assert list(found.finished) == list(given.finished), "the order in which outcomes were recorded"


def same_value(found: Any, given: Any) -> None:
    """Assert that two values are equal and of one kind; `repr` tells 1 from True, and 0.0 from -0.0."""
    assert type(found) is type(given)
    assert found == given
    if not isinstance(given, set | frozenset):
        assert repr(found) == repr(given)


def same_outcome(found: Outcome, given: Outcome) -> None:
    """Assert that two outcomes are equal, in every field."""
    same_value(found.value, given.value)
    assert type(found.error) is type(given.error)
    if given.error is not None and found.error is not None:
        assert found.error.args == given.error.args
    assert found._replace(value=None, error=None) == given._replace(value=None, error=None)


_FIELDS_ON_THEIR_OWN = {"actor", "result"}


def same_event(found: ExecutionEvent[Any], recorded: Fact, *, has_result: bool) -> None:
    """Assert that an event is what was recorded. Only those that report an outcome need to have their result."""
    given = recorded.event()
    names = [name for name in type(given).model_fields if name not in _FIELDS_ON_THEIR_OWN]
    assert {name: getattr(found, name) for name in names} == {name: getattr(given, name) for name in names}
    assert (found.actor.name, found.actor.version) == (given.actor.name, given.actor.version)
    if has_result:
        same_value(found.result, given.result)


async def listed(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]
