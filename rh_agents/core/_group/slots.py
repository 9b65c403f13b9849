"""The slots of a group: as many members run at a time, and one that waits for its next attempt needs none meanwhile.

Lending a slot has bounds, or a source of a million items that all fail would be pulled to its end: at most as many
members wait without a slot as there are slots. Beyond that, a wait keeps its slot. Whoever is due again comes before
what has not begun, and gets the next slot that is free: more never run than there are slots.

Nobody who holds a slot may wait for somebody who has lent his, or both would wait for ever. So calls whose result
others share while they are under way (`cache=`) keep theirs, and what was reserved for a call is given back while it
waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from rh_agents.core._group.members import Member

__all__ = ["LentSlot", "Slots"]


class Slots:
    """Counts who holds a slot.

    Args:
        most: how many there are.
        freed: called when a slot has become free because its member waits.
    """

    def __init__(self, most: int, freed: Callable[[], None]) -> None:
        self.most: int = most
        self.lent: int = 0
        """How many members wait without a slot, or are due and wait for one."""
        self.free: int = most
        """How many nobody holds, so that others may begin."""
        self._owed = 0
        """How many more are held than there are now, since there were more before."""
        self._freed: Callable[[], None] | None = freed
        self._due: deque[tuple[Member, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        """How many members hold one."""
        return self.most - self.free + self._owed

    def resize(self, most: int) -> None:
        """There are so many from now on. Who holds one keeps it."""
        left = most - self.taken
        self.most, self.free, self._owed = most, max(0, left), max(0, -left)
        self._grant_due()

    def take(self, member: Member) -> None:
        """It begins, or goes on."""
        member.holds_slot = True
        self.free -= 1

    def give_back(self, member: Member) -> None:
        """It has ended, or waits."""
        if member.holds_slot:
            member.holds_slot = False
            if self._owed:
                self._owed -= 1
            else:
                self.free += 1
        if self._due:
            self._grant_due()

    def _grant_due(self) -> None:
        while self._due and self.free:
            due, granted = self._due.popleft()
            if not granted.done():
                self.take(due)
                granted.set_result(None)

    def close(self) -> None:
        """The group has ended."""
        self._freed = None

    # -- members that wait for their next attempt ---------------------------------------------------------------------

    def lend(self, member: Member) -> bool:
        """Let others have the slot of a member, unless too many wait already."""
        if not member.holds_slot or self.lent >= self.most or self._freed is None:
            return False
        self.lent += 1
        self.give_back(member)
        self._freed()
        return True

    async def take_back(self, member: Member) -> None:
        """The member is due: wait until it has a slot again."""
        try:
            if self.free:
                self.take(member)
                return
            granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._due.append((member, granted))
            await granted
        finally:
            self.lent -= 1

    def forget(self) -> None:
        """A member that waited has ended without another attempt."""
        self.lent -= 1


class LentSlot:
    """While the block lasts, others may have the slot of a member. See `Frame.slot`."""

    __slots__ = ("_is_lent", "_member", "_slots")

    def __init__(self, slots: Slots, member: Member) -> None:
        self._slots = slots
        self._member = member
        self._is_lent = False

    async def __aenter__(self) -> None:
        self._is_lent = self._slots.lend(self._member)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_lent:
            return
        self._is_lent = False
        if error is None:
            await self._slots.take_back(self._member)
        else:
            self._slots.forget()
