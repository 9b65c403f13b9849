"""What a database finds and counts for people who look at runs: windows of calls, outlines, numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from rh_agents.core.ports.call_views import RANGES, Within
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.stores._backend.rows import EventRow, Kept, StoredOutcome


class Tally(NamedTuple):
    """How many events of a run are alike.

    Attributes:
        is_repeated: they report outcomes of calls that had one.
        spender: whose calls they are, see `spender_of`.
        is_free: a cache had their results.
        usage: of all of them together; None if they tell of none.
    """

    event_type: str
    group_id: str | None
    status: str
    has_outcome: bool
    is_repeated: bool
    spender: str
    is_free: bool
    events: int
    first_at: float
    last_at: float
    usage: Usage | None


class FailureRow(NamedTuple):
    """An outcome that is a failure: the columns of its event that are shown."""

    sequence: int
    address: str
    name: str
    more: str | None
    event_type: str
    message: str | None


class CallsWanted(NamedTuple):
    """Which outcomes are wanted; see `rh_agents.core.ports.windows.CallQuery`.

    Attributes:
        behind: what the last call of the window before was sorted by, as `sort_calls` gave it, and its sequence.
        limit: how many at most.
        within: the least and the most of `RANGES`.
    """

    status: str | None = None
    actor: str | None = None
    group_id: str | None = None
    text: str | None = None
    order: str = "journal"
    descending: bool = False
    behind: tuple[float | str, int] | None = None
    limit: int = 1
    within: tuple[Within, ...] = ()

    @property
    def bounds(self) -> dict[str, float | None]:
        """What stands for `within` in queries."""
        found: dict[str, float | None] = {f"{end}_{name}": None for name in RANGES for end in ("min", "max")}
        for name, least, most in self.within:
            its_least, its_most = found[f"min_{name}"], found[f"max_{name}"]
            found[f"min_{name}"] = max((each for each in (least, its_least) if each is not None), default=None)
            found[f"max_{name}"] = min((each for each in (most, its_most) if each is not None), default=None)
        return found

    @property
    def is_of_failures(self) -> bool:
        """Whether only calls are wanted that did not succeed, which have an index of their own."""
        return self.status in (ExecutionStatus.FAILED.value, ExecutionStatus.CANCELLED.value)


class TriedAgain(NamedTuple):
    """An outcome of a call: where it stands, its key, and the place of the call in the program."""

    sequence: int
    key: bytes
    base: bytes
    group_id: str | None


class Kinds(NamedTuple):
    """Events by what they say of calls.

    Attributes:
        events: how many there are.
        ended: the keys of those with an outcome, 32 bytes each.
        letters, others, sequences: of other events of calls, s for a start or one more attempt and e for anything else;
            their keys, and where they stand.
    """

    events: int
    ended: bytes
    letters: str
    others: bytes
    sequences: Sequence[int]


class FailedRow(NamedTuple):
    """A failure with the call of which it is one."""

    failure: FailureRow
    key: bytes
    base: bytes | None


class ActivityRows(NamedTuple):
    """What happened in a part of a journal (see `rh_agents.core.ports.activity`).

    Attributes:
        buckets: the address of a call up to the last "[" at least ("" if there is none), the number of a piece of time,
            the first sequence, and how many calls succeeded, failed, were to be tried again, and had waited.
        durations: `name, event_type, more`, which say whose calls these are; the exact seconds of those that waited,
            else None; the number of a bucket of durations, how many there are, their sum and the longest one.
        slowest: outcomes that worked longest: sequence, key, address, name, event_type, more, seconds.
        groups: events of groups in their order: timestamp and `more`.
        totals: how many members groups will have, by id.
    """

    buckets: Sequence[tuple[str, float, int, int, int, int, int]]
    durations: Sequence[tuple[str, str, str | None, float | None, int, int, float, float]]
    slowest: Sequence[tuple[int, bytes, str, str, str, str | None, float]]
    groups: Sequence[tuple[float, str]]
    totals: Sequence[tuple[str, int]]


class MemberColumns(NamedTuple):
    """Events as columns, to tell which members of groups and calls below them are plain (see
    `rh_agents.core.ports.outline`).

    Attributes:
        last: the sequence of the last one; None if there is none.
        kinds: a letter for each: "c" for the outcome of a member, or of a call that another one made, that succeeded at
            its first try, "s" for what may come before that, "x" for what makes a call something else; "b" and "e" for
            the begin and the end of a group, "-" for what else is about no call.
        keys: 32 bytes for each.
        groups, indexes: of members; None where there is none.
        actors: of outcomes that are values: the key of the parent in hexadecimal, the name of the call where it is
            that of the actor, and a JSON object with `actor` and `version`, as in `more`, separated by U+001F.
        uses: whether one of them may have used something of a model.
    """

    last: int | None
    kinds: str
    keys: bytes
    groups: Sequence[str | None]
    indexes: Sequence[int | None]
    actors: Sequence[str | None]
    uses: bool


class Named(NamedTuple):
    """What people write who mean calls, by how it names them.

    Attributes:
        names: names and addresses.
        parts: what addresses may end with.
        keys: beginnings of keys, in small hexadecimal digits.
    """

    names: list[str]
    parts: list[str]
    keys: list[str]

    @classmethod
    def of(cls, items: Sequence[str]) -> Named:
        """What these are."""
        keys = [item[1:].lower() for item in items if item.startswith("@") and len(item) > 1]
        return cls(list(items), [item for item in items if "]" in item], keys)


class FindsWindows(Protocol):
    """The part of a session that reads which finds calls and counts them.

    Nothing of this is compared with checksums, but for what `events_at` and `outcomes_at` give: it says which rows are
    to be read, or is numbers for people.
    """

    def tallies(self, number: int, after: int, until: int, later: Sequence[int]) -> list[Tally]:
        """The events from after one sequence up to another one, counted; `later` are outcomes
        that count for nothing, since their calls had one before.

        These are the only columns that are believed without their checksums: they are counts for people.
        """
        ...

    def activity(self, number: int, after: int, until: int, width: float) -> ActivityRows:
        """What happened in the events from after one sequence up to another one, in buckets of so many seconds.

        Nothing of this is compared with checksums: these are numbers for people.
        """
        ...

    # -- outlines ------------------------------------------------------------------------------------------------------

    def members(self, number: int, after: int, until: int, limit: int) -> MemberColumns:
        """What tells which members are plain, of the events after one sequence and up to another one, at most `limit`.

        Nothing of this is compared with checksums: it only decides which events are given one by one.
        """
        ...

    def addresses_at(self, number: int, sequences: Sequence[int]) -> list[tuple[str, str | None, bytes | None, str]]:
        """The type, the group, the key and the address of events, without checksums, in any order."""
        ...

    def keys_at(self, number: int, after: int, until: int, addresses: Collection[str]) -> set[bytes]:
        """The keys of the calls at some addresses."""
        ...

    def events_at(self, number: int, sequences: Sequence[int]) -> list[Kept[EventRow]]:
        """As `events`, those with these sequences."""
        ...

    def outcomes_at(self, number: int, sequences: Sequence[int]) -> list[Kept[StoredOutcome]]:
        """As `outcomes`, those with these sequences."""
        ...

    # -- windows -------------------------------------------------------------------------------------------------------

    def find_calls(self, number: int, after: int, until: int, wanted: CallsWanted) -> list[int]:
        """The sequences of outcomes that may be wanted, in the order of the journal or, `descending`, the other way."""
        ...

    def sort_calls(self, number: int, after: int, until: int, wanted: CallsWanted) -> list[tuple[float | str, int]]:
        """The same in another order: each with what it is sorted by, as the database has it."""
        ...

    def failed_rows(self, number: int, after: int, until: int, limit: int) -> list[FailedRow]:
        """The failures, oldest first."""
        ...

    def tried_again(self, number: int, after: int, until: int, limit: int) -> list[TriedAgain]:
        """The outcomes of calls that were made again, oldest first, at most `limit`."""
        ...

    def outcomes_of_keys(self, number: int, after: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        """The outcomes of these keys, oldest first."""
        ...

    def failures_of_keys(self, number: int, after: int, until: int, keys: Collection[bytes]) -> list[TriedAgain]:
        """Those of them that are no success, which have an index of their own."""
        ...

    def events_of_key(self, number: int, after: int, until: int, key: bytes, limit: int) -> list[int]:
        """The sequences of events of a call, oldest first."""
        ...

    def find_children(self, number: int, after: int, until: int, parent: bytes, limit: int) -> list[int]:
        """The sequences of outcomes of calls that were made at a place in the program."""
        ...

    def find_named(self, number: int, after: int, until: int, items: Sequence[str]) -> list[int]:
        """The sequences of outcomes that one of these may name (see `rh_agents.core._replay.steered.is_named`)."""
        ...

    def ended_keys(self, number: int, after: int, until: int) -> bytes:
        """The keys of outcomes, 32 bytes each, oldest first."""
        ...

    def kinds(self, number: int, after: int, until: int) -> Kinds:
        """What events say of calls."""
        ...

    def count_groups(self, number: int, after: int, until: int) -> dict[str, int]:
        """How many outcomes there are of members of which group."""
        ...

    def moments(self, number: int, after: int, until: int) -> tuple[float | None, float | None]:
        """When the first of the calls began whose outcomes these are, and when the last one ended; None of none."""
        ...
