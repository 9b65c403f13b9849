"""What a journal says about the calls of a run, by key: which have an outcome, and what is known of the others.

A run of 150,000 calls must remember each of them as long as it lasts: its key, since a second outcome for the key would
pay for the call twice, and its identity, since the next identical call gets the next number
(`rh_agents.core._replay.identity.DigestTable`). In dictionaries that is 340 bytes a call, most of it the headers of
small objects. Here it is 80.

Keys are digests, so any of their bytes are random. The first 12 bits of a key say to which of 4,096 *rows* it belongs.
A row is one array of bytes, with a record for each key: some bytes of the key, and a number. A key is looked for as
text, which C does at several bytes a nanosecond. Nothing is ever sorted or copied as a whole, so no call waits for it:
a hash table of our own would have to be built anew each time it doubles, in Python, and hold up the event loop. Few
keys are in a dictionary, which is faster, and smaller than so many rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, overload

from rh_agents.core._replay.identity import again_key
from rh_agents.core._replay.steered import NOTHING_ASKED, Steered
from rh_agents.core.groups import NOTHING_COUNTED, Counted, EndingCause, GroupEnding, GroupStatus
from rh_agents.core.types import WITHDRAWN, ExecutionStatus, Generation
from rh_agents.core.usage import Charge, Spending

__all__ = ["KeyList", "KeyMarks", "KeyTable", "RecordedCalls", "ReplayRules"]


_DIGEST = 32
"""Bytes of a key."""
_FEW = 1000
"""Keys that may be in a dictionary."""
_ROWS = 4096
_TAG = 4
"""Bytes of a key after those that tell its row."""
_ENTRY = _TAG + 4
_NUMBER = 5
_LINE = _DIGEST + _NUMBER


class KeyTable(Mapping[bytes, int]):
    """Keys of 32 bytes with their numbers (0 to 2**40 - 1), in the order in which they were added.

    The rows hold the place of each key in that order, and only four bytes of it to look for.

    What becomes of a call is asked for its key several times in a row, so the answer to the last question is kept.
    """

    __slots__ = ("_few", "_last", "_lines", "_rows")

    def __init__(self, numbers: Mapping[bytes, int] | None = None) -> None:
        self._last: tuple[bytes, int] = (b"", -1)
        self._lines = bytearray()
        self._few: dict[bytes, int] | None = {}
        self._rows: list[bytearray | None] = []
        for key, number in (numbers or {}).items():
            self.add(key, number)

    def add(self, key: bytes, number: int) -> int:
        """Give a key its number, unless it has one; returns its place in the order, from 0, or -1 if it has one.

        Raises:
            ValueError: it has not 32 bytes.
        """
        if (key in self._few) if self._few is not None else (self.place_of(key) >= 0):
            return -1
        if len(key) != _DIGEST:
            raise ValueError(f"{key!r} is no digest of {_DIGEST} bytes")
        place = len(self._lines) // _LINE
        self._last = (key, place)
        self._lines += key + number.to_bytes(_NUMBER, "little")
        if self._few is None:
            self._enter(key, place)
        else:
            self._few[key] = place
            if place >= _FEW:
                self._few, self._rows = None, [None] * _ROWS
                for its_place, each in enumerate(self):
                    self._enter(each, its_place)
        return place

    def _enter(self, key: bytes, place: int) -> None:
        index = key[0] << 4 | key[1] >> 4
        row = self._rows[index]
        if row is None:
            row = self._rows[index] = bytearray()
        row += key[2 : 2 + _TAG] + place.to_bytes(_ENTRY - _TAG, "little")

    def place_of(self, key: bytes) -> int:
        """The place of a key in the order; -1 if it is not there."""
        if self._few is not None:
            return self._few.get(key, -1)
        last, place = self._last
        if last == key:
            return place
        place = self._search(key)
        self._last = (key, place)
        return place

    def _search(self, key: bytes) -> int:
        row = self._rows[key[0] << 4 | key[1] >> 4] if len(key) == _DIGEST else None
        if row is None:
            return -1
        tag, at = key[2 : 2 + _TAG], -1
        while (at := row.find(tag, at + 1)) >= 0:
            if at % _ENTRY == 0:  # else it is the end of one entry with the beginning of the next
                place = int.from_bytes(row[at + _TAG : at + _ENTRY], "little")
                if self._lines.startswith(key, place * _LINE):
                    return place
        return -1

    def key_at(self, place: int) -> bytes:
        """The key at a place in the order."""
        return bytes(self._lines[place * _LINE : place * _LINE + _DIGEST])

    def __contains__(self, key: object) -> bool:
        if self._few is not None:
            return key in self._few
        return isinstance(key, bytes) and self.place_of(key) >= 0

    def __getitem__(self, key: bytes) -> int:
        place = self.place_of(key)
        if place < 0:
            raise KeyError(key)
        at = place * _LINE + _DIGEST
        return int.from_bytes(self._lines[at : at + _NUMBER], "little")

    def __len__(self) -> int:
        return len(self._lines) // _LINE

    def __iter__(self) -> Iterator[bytes]:
        return map(self.key_at, range(len(self)))

    def __repr__(self) -> str:
        return f"<KeyTable of {len(self)}>"


class KeyMarks:
    """Whether keys are marked: those of a table, and others, of which there are to be few."""

    __slots__ = ("_marks", "_others", "_table")

    def __init__(self, table: KeyTable) -> None:
        self._table = table
        self._marks = bytearray()
        self._others: set[bytes] = set()

    def add(self, key: bytes) -> None:
        """Mark a key."""
        place = self._table.place_of(key)
        if place < 0:
            self._others.add(key)
        else:
            self.add_at(place)

    def add_at(self, place: int) -> None:
        """Mark the key at this place of the table."""
        if place >= len(self._marks):
            self._marks.extend(bytes(len(self._table) - len(self._marks)))
        self._marks[place] = 1

    def __contains__(self, key: bytes) -> bool:
        place = self._table.place_of(key)
        return (0 <= place < len(self._marks) and self._marks[place] == 1) or key in self._others


class KeyList(Sequence[bytes]):
    """Some of the keys of a table, in an order of their own."""

    __slots__ = ("_places", "_table")

    def __init__(self, table: KeyTable) -> None:
        self._table = table
        self._places = array("I")

    def append(self, place: int) -> None:
        """Add the key at this place of the table."""
        self._places.append(place)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self._table.key_at(place) for place in self._places[index]]
        return self._table.key_at(self._places[index])

    def __iter__(self) -> Iterator[bytes]:
        return map(self._table.key_at, self._places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyList | list) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"<KeyList of {len(self)}>"


class Entry(Protocol):
    """What counts here of an entry of the journal; a `Fact` is one."""

    @property
    def status(self) -> ExecutionStatus: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def attempt(self) -> int: ...
    @property
    def group_id(self) -> str | None: ...
    @property
    def more(self) -> Mapping[str, Any] | None:
        """What few entries have; without it there is neither a charge nor an ending, and nothing was asked."""

    @property
    def counted(self) -> Counted:
        """What of its `more` counts."""
        ...


class ReplayRules(NamedTuple):
    """How a run that is executed again treats the outcomes of calls, and of members of one of its groups."""

    retries_failed: bool = True
    """Whether calls are made again that failed in an earlier epoch."""
    compares: bool = False
    """Whether calls are only made again to compare what they come to: nothing is tried again for another reason."""
    keeps_cut_off: bool = True
    """False for members of a group that is open again: what it cut off is made."""
    ending: GroupEnding | None = None
    """Given for members of a group that ends again as it did."""

    def in_group(self, ending: GroupEnding | None) -> ReplayRules:
        """The same for members of a group that ends again so; None if it is open."""
        return self._replace(keeps_cut_off=ending is not None, ending=ending)


_BEGINS: Final = (ExecutionStatus.STARTED, ExecutionStatus.RETRYING)
_NOT_TOLD = GroupEnding(cause=EndingCause.UNKNOWN)


@dataclass(slots=True)
class RecordedCalls:
    """A fold over the events of a journal. It holds no values, so the calls of a long run fit into memory.

    Attributes:
        finished: where each outcome stands, by key, in the order in which they were recorded: the number of its event.
        failed: of those, the ones that are failures, each with the generation of its parent that made it.
        dismissed: of those, the ones that were cancelled because their group had no more use for them.
        orders: by group id, the keys of its members that have an outcome, in the order in which they ended.
        endings: by group id, how groups ended early the last time; None for one that has come to its end since, or of
            which a member is to be made again. Groups of which nothing is known are not in it.
        attempts: how many attempts failed of calls that have no outcome.
        lost: how many workers such calls have lost.
        unknown: calls that were started, have no outcome, and nothing tells whether they ended; with the number of the
            event that told of their start.
        under_way: calls that were begun and have no outcome, those first that began first: the numbers of their first
            and of their newest event.
        waiting: calls that were started and wait to go on: for an answer, a larger budget, the next start of the run.
        cut_off: of the dismissed ones, those that had been called by then, so that they may have had their effect; with
            the number of the event that told of their end.
        superseded: outcomes that somebody asked not to use any more.
        spent: what was spent, by the place of each part of the run that has a budget ("" is the run itself).
        repeated: outcomes that count for nothing, since their calls had one before: their keys, by the numbers of their
            events. There are none unless something has gone wrong.
        steered: what people have asked of the run.
        taken_over: of other runs that executed a part of this one, up to which entry their journals are in this one.
        events: how many events the journal has.
    """

    finished: KeyTable = field(default_factory=KeyTable)
    failed: dict[bytes, Generation] = field(default_factory=dict)
    dismissed: set[bytes] = field(default_factory=set)
    orders: dict[str, KeyList] = field(default_factory=dict)
    endings: dict[str, GroupEnding | None] = field(default_factory=dict)
    attempts: dict[bytes, int] = field(default_factory=dict)
    lost: dict[bytes, int] = field(default_factory=dict)
    unknown: dict[bytes, int] = field(default_factory=dict)
    under_way: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    waiting: set[bytes] = field(default_factory=set)
    cut_off: dict[bytes, int] = field(default_factory=dict)
    superseded: set[bytes] = field(default_factory=set)
    spent: dict[str, Spending] = field(default_factory=lambda: {"": Spending()})
    repeated: dict[int, bytes] = field(default_factory=dict)
    steered: Steered = NOTHING_ASKED
    taken_over: dict[str, int] = field(default_factory=dict)
    events: int = 0

    def add(
        self,
        sequence: int,
        status: ExecutionStatus | str,
        key: bytes | None,
        attempt: int,
        group_id: str | None,
        has_outcome: bool,
        failed_in: Generation | None,
        charge: Charge | None = None,
        ending: GroupEnding | None = None,
        control: Mapping[str, Any] | None = None,
        taken_over: Mapping[str, Any] | None = None,
    ) -> None:
        """The next event of the journal. `failed_in` is given with the outcome of a call that did not succeed.

        Of several outcomes of one key the first one counts. A later one changes nothing but what was spent: what was
        paid twice is spent twice.
        """
        self.events += 1
        if taken_over is not None:
            self.taken_over[taken_over["run"]] = taken_over["until"]
        if charge is not None and status == ExecutionStatus.SUPERSEDED:
            charge = None  # earlier versions wrote there once more what the outcome's event says
        if charge is not None:
            self._charge(charge, has_outcome)
        if has_outcome and not (charge is not None and charge.is_free):
            self.spent[""].calls += 1
        if key is None:
            if group_id is not None:
                self._note_ending(group_id, status, ending)
            elif control is not None:
                if self.steered is NOTHING_ASKED:
                    self.steered = Steered()
                superseded, groups = self.steered.add(control)
                self._supersede(superseded)
                self.endings.update(dict.fromkeys(groups))
            return
        if has_outcome:
            place = self.finished.add(key, sequence)
            if place < 0:
                self.repeated[sequence] = key
                return
            if failed_in is not None:
                self.failed[key] = failed_in
                if status == ExecutionStatus.CANCELLED and failed_in != WITHDRAWN:
                    self.dismissed.add(key)
                    if attempt and key in self.unknown:
                        self.cut_off[key] = sequence
            if group_id is not None:
                order = self.orders.get(group_id)
                if order is None:
                    order = self.orders[group_id] = KeyList(self.finished)
                order.append(place)
            self.unknown.pop(key, None)
            self.under_way.pop(key, None)
            self.waiting.discard(key)
            if self.attempts:
                self.attempts.pop(key, None)
                self.lost.pop(key, None)
        elif status == ExecutionStatus.SUPERSEDED:
            self._supersede((key,))
            if group_id is not None:
                self.endings[group_id] = None
        elif key not in self.finished:  # what follows an outcome says nothing of its call
            self._go_on(sequence, status, key, attempt, charge)

    def _go_on(
        self, sequence: int, status: ExecutionStatus | str, key: bytes, attempt: int, charge: Charge | None
    ) -> None:
        """The next event of a call that has no outcome."""
        begun = self.under_way.get(key)
        if begun is not None:
            self.under_way[key] = (begun[0], sequence)
        elif status in _BEGINS:
            self.under_way[key] = (sequence, sequence)
        if charge is not None and charge.lost:  # it stays unknown what the worker has done
            self.attempts[key] = attempt
            self.lost[key] = charge.lost
        elif status == ExecutionStatus.STARTED:
            self.unknown[key] = sequence
        elif status == ExecutionStatus.RETRYING:
            self.attempts[key] = attempt
            self.unknown.pop(key, None)
        elif status == ExecutionStatus.CANCELLED and not attempt:
            self.unknown.pop(key, None)  # it was never called
        elif status == ExecutionStatus.AWAITING and self.unknown.pop(key, None) is not None:
            self.waiting.add(key)

    def add_fact(self, sequence: int, fact: Entry, has_outcome: bool, failed_in: Generation | None) -> None:
        """The same, of a fact."""
        counted = NOTHING_COUNTED if fact.more is None else fact.counted
        self.add(sequence, fact.status, fact.key, fact.attempt, fact.group_id, has_outcome, failed_in, *counted)

    def _note_ending(self, group_id: str, status: ExecutionStatus | str, ending: GroupEnding | None) -> None:
        if ending is not None:
            if status == ExecutionStatus.STARTED:  # told when it ended; the end of its block only repeats it
                is_whole = len(self.orders.get(group_id, ())) == ending.outcomes  # else a fork has left some out
                self.endings[group_id] = ending if is_whole else None
        elif status == ExecutionStatus.COMPLETED:
            self.endings[group_id] = None
        elif status in (ExecutionStatus.FAILED, ExecutionStatus.CANCELLED):
            known = self.endings.get(group_id)
            if known is None or known.cause is EndingCause.UNKNOWN:
                self.endings[group_id] = GroupEnding(cause=EndingCause.UNKNOWN, status=GroupStatus(status))

    def is_followed(self, key: bytes | None) -> bool:
        """Whether it is a failure after which a group makes the call again, and gives both results."""
        return key in self.steered.live

    def _supersede(self, keys: Collection[bytes]) -> None:
        self.superseded.update(keys)
        further = self.steered.further
        if further:
            further.update(again_key(key) for key in keys if key in further)

    def is_withdrawn(self, key: bytes | None) -> bool:
        """Whether somebody cancelled the call by name."""
        return key is not None and self.failed.get(key) == WITHDRAWN

    def knows(self, key: bytes) -> bool:
        """Whether the call with this key had begun, or has an outcome."""
        return key in self.finished or key in self.unknown or key in self.attempts or key in self.waiting

    def binding_ending(self, group_id: str, generation: Generation, *, retry_failed: bool) -> GroupEnding | None:
        """How a group has to end that is entered again in the execution `generation` of the body around it; None if
        it is open (see `rh_agents.core._replay.decision`).
        """
        ending = self.endings.get(group_id, _NOT_TOLD)
        if ending is None:
            return None
        if ending.cause is EndingCause.UNKNOWN:
            return self._inferred_ending(group_id, generation, ending, retry_failed)
        if (ending.tries, ending.attempt) != generation[1:]:
            return None
        if ending.epoch != generation[0] and retry_failed:
            return None
        if ending.member is not None and bytes.fromhex(ending.member) not in self.failed:
            return None  # a fork has it succeed
        return ending

    def _inferred_ending(
        self, group_id: str, generation: Generation, ending: GroupEnding, retry_failed: bool
    ) -> GroupEnding | None:
        """What members that were cut off tell of a group whose journal has no causes."""
        counting = [
            key
            for key in self.orders.get(group_id, ())
            if not self.is_left_behind(key, generation, retry_failed=retry_failed)
        ]
        if self.dismissed.isdisjoint(counting):
            return None
        return ending.model_copy(update={"known": len(counting)})

    def is_older_than(self, key: bytes, ending: GroupEnding | None) -> bool:
        """Whether a member's failure had been left behind already when its group ended as is recorded.

        The execution that ended it had made the call again, or had not come to that yet: in any case the program did
        not see the failure. That holds also where failures are repeated now.
        """
        failed_in = self.failed.get(key)
        if failed_in is None or ending is None or ending.cause is EndingCause.UNKNOWN:
            return False
        is_older = failed_in < (ending.epoch, ending.tries, ending.attempt)
        return is_older and (ending.retries_failed or failed_in[0] == ending.epoch)

    def is_left_behind(
        self,
        key: bytes,
        generation: Generation,
        *,
        retry_failed: bool,
        keeps_cut_off: bool = True,
        ending: GroupEnding | None = None,
    ) -> bool:
        """Whether the outcome of a key does not count any more for the parent's execution `generation`, so that the
        next key of the call's chain decides (see `try_of`).

        The newest outcome of a chain counts, whichever epoch made it and however the run is started: what was made
        again is never given as it was before. A failure of an earlier attempt of the parent is always left behind, one
        of an earlier epoch if failures are tried again, and what somebody asked to be made again in any case; so is,
        unless `keeps_cut_off`, what a group cut off that is open again. In a group that ends again as `ending` says,
        what that execution had left behind is.
        """
        if key in self.superseded or self.is_older_than(key, ending):
            return True
        failed_in = self.failed.get(key)
        if failed_in is None:
            return False
        if failed_in >= generation:  # made by this very execution, unless its group had no use for it at first
            return key in self.dismissed and (not keeps_cut_off or again_key(key) in self.finished)
        if retry_failed or failed_in[0] == generation[0] or again_key(key) in self.finished:
            return True
        return key in self.dismissed and not keeps_cut_off

    def may_be_tried_again(self, key: bytes) -> bool:
        """False if it is certain that no try follows that of this key: it has no outcome, or a value that counts."""
        return key in self.failed or key in self.superseded

    def is_tried_again(self, key: bytes, generation: Generation, rules: ReplayRules) -> bool:
        """Whether a call is made once more though a try of it has this outcome, as `again` says."""
        if rules.compares and again_key(key) not in self.finished:
            return self.is_older_than(key, rules.ending)  # else it is the newest outcome, which is compared
        return self.is_left_behind(
            key,
            generation,
            retry_failed=rules.retries_failed,
            keeps_cut_off=rules.keeps_cut_off,
            ending=rules.ending,
        )

    def try_of(self, place: bytes, generation: Generation, rules: ReplayRules) -> tuple[bytes, int]:
        """The key under which the call at a place is made now, and how often it has been made before.

        The key is the place itself, unless that call has failed for good in an earlier execution of the body around it
        (see `is_left_behind`). An outcome is never overwritten, so each further try has a key of its own.
        """
        key, tries = place, 0
        while self.is_tried_again(key, generation, rules):
            key, tries = again_key(key), tries + 1
        return key, tries

    def _charge(self, charge: Charge, has_outcome: bool) -> None:
        self.spent[""].add(charge.name, charge.usage)
        for place, seconds in (charge.places or {}).items():
            spending = self.spent.get(place)
            if spending is None:
                spending = self.spent[place] = Spending()
            spending.seconds = max(spending.seconds, seconds)
            if place:
                spending.add(charge.name, charge.usage, has_outcome)
