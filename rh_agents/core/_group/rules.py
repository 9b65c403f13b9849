"""What the scheduler of a group asks and reports: decisions that are no matter of slots and tasks."""

from __future__ import annotations

from typing import Protocol

from rh_agents.core._group.members import Member
from rh_agents.core._run.frame import Frame
from rh_agents.core.results import Outcome

__all__ = ["NO_GROUP", "GroupRules"]


class GroupRules(Protocol):
    """What a scheduler asks, and tells, about its group."""

    def make_frame(self, member: Member) -> Frame:
        """What to execute for a member."""
        ...

    def started(self, member: Member, now: float) -> None:
        """A member has taken a slot."""

    def ended(self, member: Member, error: BaseException | None) -> None:
        """A member has ended, and the next one has not started yet.

        `error` is what no group may swallow: the store failed, or the interpreter is told to exit.
        """

    def recovered(self, member: Member, outcome: Outcome) -> None:
        """A member has its recorded outcome, without a frame."""

    def failed(self, error: BaseException) -> None:
        """No member can be had any more; this must halt the group."""

    def judge(self) -> None:
        """Decide what recovered failures mean for the group; halt it if they end it."""

    def repeat_ending(self) -> None:
        """Halt the group as an earlier execution did. If it is another group than that, open it."""


class _NoGroup:
    """Nobody asks any more for a group that has ended."""

    def make_frame(self, member: Member) -> Frame:
        raise RuntimeError(f"member {member.index} of a group that has ended does not begin")

    def started(self, member: Member, now: float) -> None: ...
    def ended(self, member: Member, error: BaseException | None) -> None: ...
    def recovered(self, member: Member, outcome: Outcome) -> None: ...
    def failed(self, error: BaseException) -> None: ...
    def judge(self) -> None: ...
    def repeat_ending(self) -> None: ...


NO_GROUP: GroupRules = _NoGroup()
"""What a scheduler asks once its group has ended."""
