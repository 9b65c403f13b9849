"""A concurrency limit that processes share: each has some of the slots on lease, and says again and again how many.

A process has at least the slots that its calls hold, as long as it says so in time. One that died says nothing, and its
slots are free when its lease has ended. One that was stopped for longer than its lease loses them as well: its calls go
on, since no one can take back what is under way, but no further one begins before the store has been asked again.

Processes that were refused stand in a line. While someone waits, no one gets more than an equal part of the slots, and
who has more gives them up as calls end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from rh_agents.core.policies.sharing.windows import SharedState, moment_of

__all__ = ["SLOT_LEASE", "SLOT_LOOK", "SLOT_RENEWAL", "SlotAnswer", "SlotAsk", "ask_for_slots"]

SLOT_LEASE: Final = 10.0
"""Seconds after which the slots of a process are free that has said nothing."""
SLOT_RENEWAL: Final = 1.0
"""Seconds between two signs of life of who holds some."""
SLOT_LOOK: Final = 0.25
"""Seconds after which who waits asks again."""
_GRACE: Final = 1.0
"""Seconds for which a place in the line is kept for who asks late."""


@dataclass(frozen=True, slots=True)
class SlotAsk:
    """What a process says and wants.

    Attributes:
        process: who asks: the same in every question, and no one else's.
        limit: how many slots there are for all.
        in_use: how many its calls hold.
        wanted: how many it wants, these included.
    """

    process: str
    limit: int
    in_use: int
    wanted: int


@dataclass(frozen=True, slots=True)
class SlotAnswer:
    """What a process gets.

    Attributes:
        count: how many slots it has from now on, those in use included, for `SLOT_LEASE` seconds from when it asked.
        most: how many it may keep when its calls end, since others wait; None if no one does.
    """

    count: int
    most: int | None


def ask_for_slots(state: SharedState, ask: SlotAsk, now: float) -> SlotAnswer:
    """Answer a question, and keep what the process has from now on."""
    now = moment_of(state, now)
    held: dict[str, Any] = {name: each for name, each in state.get("held", {}).items() if each[0] > now}
    line = [each for each in state.get("line", ()) if each[1] > now]
    place = next((index for index, each in enumerate(line) if each[0] == ask.process), len(line))
    others_wait = len(line) > (place < len(line))
    held.pop(ask.process, None)
    processes = {*held, *(each[0] for each in line), ask.process}
    part = max(1, ask.limit // len(processes))
    before = sum(held.get(each[0], (0, 0))[1] < part for each in line[:place])
    free = ask.limit - sum(count for _, count in held.values()) - before
    if others_wait:
        free = min(free, part)
    count = max(ask.in_use, min(ask.wanted, free))
    if count:
        held[ask.process] = [now + SLOT_LEASE, count]
    line = line[:place] + line[place + 1 :] if count > ask.in_use or ask.wanted <= ask.in_use else line
    if count == ask.in_use < ask.wanted:
        line[place : place + 1] = [[ask.process, now + SLOT_LOOK + _GRACE]]
    state["held"], state["line"] = held, line
    most = (part if len(processes) <= ask.limit else 0) if others_wait else None
    return SlotAnswer(count, most)
