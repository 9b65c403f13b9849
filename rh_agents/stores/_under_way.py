"""Which calls of a run are under way: those that were begun and have no outcome, as the journal says.

The owner of a run knows that, and writes it down beside the journal, together with what the run is doing (`_saying`):
up to an event of the journal that is on disk, the calls without an outcome, each by the places of its first and of its
newest event. So whoever asks what runs, or what ran when the owner was killed, reads a second's worth of the journal,
and not all of it. That it is true does not depend on who owns the run by now: a journal is only added to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from rh_agents.stores._backend.windows import Kinds

_DIGEST: Final = 32
_PART: Final = 8192
MOST_NOTED: Final = 2000
"""Calls that are written down at most, those first that began first: sixteen bytes for each."""


class Begun(NamedTuple):
    """A call without an outcome.

    Attributes:
        first, newest: the sequences of its first and of its newest event.
        has_begun: whether one of them says that it was begun.
    """

    first: int
    newest: int
    has_begun: bool


@dataclass(frozen=True, slots=True)
class Noted:
    """What the owner of a run has written down.

    Attributes:
        until: the sequence up to which it is true.
        count: how many calls there were without an outcome.
        calls: the first and the newest event of each, or of the first `MOST_NOTED` of them.
    """

    until: int
    count: int
    calls: tuple[tuple[int, int], ...]

    def as_json(self) -> dict[str, Any]:
        """What can be written as JSON."""
        return {"until": self.until, "count": self.count, "calls": self.calls}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Noted:
        """What `as_json` made.

        Raises:
            ValueError: it is something else.
        """
        try:
            calls = tuple((int(first), int(newest)) for first, newest in record["calls"])
            return cls(int(record["until"]), int(record["count"]), calls)
        except (TypeError, KeyError) as error:
            raise ValueError(f"these are not the calls of a run: {error}") from error


class Noting:
    """What an owner writes down. Used on its event loop.

    What is written must be on disk: after a crash, a call whose outcome was lost with it is under way. So what is seen
    now is kept until the journal is on disk as far as that.

    Args:
        under_way: the first and the newest event of each call without an outcome, those first that began first.
    """

    def __init__(self, under_way: Callable[[], Mapping[bytes, tuple[int, int]]]) -> None:
        self._under_way = under_way
        self._seen: Noted | None = None
        self._on_disk: Noted | None = None

    def look(self, sequence: int, on_disk: int) -> Noted | None:
        """What is to be written down: the newest that is known of what is on disk; None if there is nothing yet.

        Args:
            sequence: the journal's last event.
            on_disk: the last one that survives a crash.
        """
        if self._seen is None or self._seen.until <= on_disk:
            self._on_disk, calls = self._seen or self._on_disk, self._under_way()
            self._seen = Noted(sequence, len(calls), tuple(islice(calls.values(), MOST_NOTED)))
        return self._seen if self._seen.until <= on_disk else self._on_disk


class UnderWay:
    """The calls under way, known up to an event and read on from there.

    Args:
        until: up to which event.
        is_whole: False if there are calls of which it is not known, all of which began after those that are.

    Attributes:
        calls: by key, in the order of their first events.
        new: the keys that were added since somebody looked whether they have an outcome further up.
    """

    def __init__(self, until: int = 0, *, is_whole: bool = True) -> None:
        self.until: int = until
        self.is_whole: bool = is_whole
        self.calls: dict[bytes, Begun] = {}
        self.new: set[bytes] = set()
        self._lock = threading.Lock()

    def start_with(self, calls: Iterable[tuple[bytes, Begun]]) -> None:
        """What is known at the beginning."""
        self.calls.update(calls)

    def read_on(self, until: int, kinds: Callable[[int, int], Kinds]) -> None:
        """Read the next part of the journal, up to an event at most. Several may do so at a time.

        Args:
            until: that event.
            kinds: gives what the events from after one sequence up to another one say.
        """
        with self._lock:
            end = min(self.until + _PART, until)
            if end > self.until:
                self.add(end, kinds(self.until, end))

    def add(self, until: int, kinds: Kinds) -> None:
        """The next events, up to one."""
        calls, ended = self.calls, set(split(kinds.ended))
        for key in ended & calls.keys():
            del calls[key]
        for key, letter, sequence in zip(split(kinds.others), kinds.letters, kinds.sequences, strict=True):
            if key in ended:
                continue
            first, _, has_begun = calls.get(key) or (sequence, 0, False)
            calls[key] = Begun(first, sequence, has_begun or letter == "s")
            self.new.add(key)
        self.until = until

    def forget(self, keys: Iterable[bytes]) -> None:
        """These have an outcome before: what follows it says nothing of its call."""
        for key in keys:
            self.calls.pop(key, None)

    def take_new(self) -> set[bytes]:
        """The keys that are new and still under way, once."""
        found, self.new = self.new & self.calls.keys(), set()
        return found

    @property
    def begun(self) -> Sequence[tuple[bytes, Begun]]:
        """Those that have begun."""
        return [each for each in self.calls.items() if each[1].has_begun]


def split(keys: bytes) -> list[bytes]:
    """Keys that stand one behind the other."""
    return [keys[start : start + _DIGEST] for start in range(0, len(keys), _DIGEST)]
