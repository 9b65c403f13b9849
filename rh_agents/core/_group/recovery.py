"""What an earlier execution has left of a group, and what that means for its members when the run is resumed.

Recorded members need no slot, and are *recovered* in the order in which they are enrolled, some hundreds at a time, so
that others get to the event loop. What becomes of a member is decided in `rh_agents.core._replay.decision`, which has
the reasons; the scheduler obeys. Three words of it are about time:

    judged   A recovered failure may end the group, as it did before. Which one it is shows only when all failures are
             back that came before it, perhaps out of iterables that have to be read for them (`seeks_recorded`). Until
             then nothing may begin: it might be a call that the first execution never made. What comes too early is
             *held*. Judging happens in a step of its own, for the block may be adding members still.
    parked   The group is known to have ended early. A member without an outcome had never come to one, and must not
             now. It waits, without task and slot, for the group to end again.
    stuck    Nothing runs, and all that is left is parked or may not be pulled. Only now is it certain that the program
             gives no more members, so the block, which waits, ends the group as it ended before, or finds that this is
             another group and opens it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from hashlib import sha256
from typing import Any

from rh_agents.core._group.finished import FinishedResults
from rh_agents.core._group.members import RECOVERED, Member
from rh_agents.core._group.roster import Roster
from rh_agents.core._replay.decision import Phase, Recorded
from rh_agents.core._replay.identity import address_of_member, identity_prefix
from rh_agents.core._replay.order import RecordedOrder
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.runner import recovered_fact
from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import Call, FunctionCall
from rh_agents.core.errors import StoreError
from rh_agents.core.redaction import without_secrets
from rh_agents.core.results import Outcome
from rh_agents.core.tracking import ParallelGroupTracker
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.values.inputs import small_arguments

__all__ = ["AT_ONCE", "Give", "RecoveredCalls", "Recovery"]

AT_ONCE = 256
"""Recovered members need no slot, but each takes a moment, and others want to use the event loop, too."""
Give = Callable[[Call[Any], Any, str | None, str, bytes, int, Outcome, float], None]
"""Of a call with its item, name, label, key and index: give it its recorded result."""
_LOOK_AHEAD = 10_000
"""How many items may be pulled in search of the one that the recorded order wants; it may have left the program."""


def _identity_begins_with(actor: BaseActor) -> bytes | None:
    is_usual = actor.has_known_types and actor.is_stored and actor.cache is None and not actor.former_versions
    return identity_prefix(actor.name, actor.recorded_version) if is_usual else None


class RecoveredCalls:
    """Gives calls their recorded results that have not been made members: nothing is called, and nobody listens.

    Args:
        run: the run of their group.
        roster: counts them as enrolled.
        finished: keeps their results until they are read.
        tracker: counts them.
        place: with what the addresses of members begin.
        names: gets their names, by index, if they have any.
    """

    def __init__(
        self,
        run: RunParts,
        roster: Roster,
        finished: FinishedResults,
        tracker: ParallelGroupTracker,
        place: str,
        names: dict[int, str],
    ) -> None:
        self._run = run
        self._roster = roster
        self._finished = finished
        self._tracker = tracker
        self._place = place
        self._names = names

    def give(
        self,
        call: Call[Any],
        item: Any,
        name: str | None,
        label: str,
        key: bytes,
        index: int,
        outcome: Outcome,
        now: float,
    ) -> None:
        """Keep the result of a call that has succeeded, and count it."""
        run, actor, finished, tracker = self._run, call.actor, self._finished, self._tracker
        address = address_of_member(self._place, index, without_secrets(label))
        result = outcome.as_result(index, address)
        vars(result)["item"] = item
        if run.history.limit != 0:
            about = (actor, label, address, key, self._roster.group_id, index, self._roster.total, None)
            run.history.add(recovered_fact(run, outcome, result, *about))
        tracker.recovered += 1
        tracker.count_end(ExecutionStatus.COMPLETED, now, None)
        finished.keep_recovered(index, key, result)
        if name is not None and not finished.is_streaming:
            self._names[index] = name
        run.counter.actors[actor.name].add(result)


class Recovery:
    """Knows which members of a group are recorded, and which of the others come too early.

    Args:
        run: the run to which the members belong.
        roster: who waits.
        order: the order in which recorded members ended.
    """

    def __init__(self, run: RunParts, roster: Roster, order: RecordedOrder) -> None:
        self.phase: Phase = Phase.OPEN if roster.sealed_by is None else Phase.SEALED
        self.goes_on: bool = False
        """Whether recorded members are still recovered though the group is ending."""
        self.fetching: int = 0
        """How many members wait for their recorded outcome."""
        self.left_at_once: int = 0
        """How many may be recovered before it is the turn of others to use the event loop."""
        self.is_interrupted: bool = False
        """Whether others use the event loop, before more members are recovered."""
        self.unjudged: bool = False
        """Whether recovered members failed, and it is not clear yet what that means for the group."""
        self.parked: dict[int, Member] = {}
        self.held: deque[Member] = deque()
        """Members that come too early, while those are sought that ended before the failure that is to be judged."""
        self._run = run
        self._roster = roster
        self._order = order
        self._dismissed = run.recording.recorded.dismissed
        self._first_failure = 0
        self.give: Give | None = None
        """Gives a call that is no member its recorded result."""
        self.given: int = 0
        """How many calls have got theirs so."""
        self._actor: BaseActor | None = None
        self._begins_with: bytes | None = None
        """With what the identity of each call of this actor begins; None if that is not all there is to it."""

    # -- members that need not be made ----

    @property
    def is_in_order(self) -> bool:
        """Whether recorded members can be given their results before they are made: nothing is to be decided first."""
        if self.phase is not Phase.OPEN or self.unjudged or self._run.is_validation or self._run.bus.wants_routine:
            return False
        return self._order.has_members and self._roster.sealed_by is None

    def recover_call(
        self, work: Call[Any], item: Any, name: str | None, key: str | None, context: Context, now: float
    ) -> Member | None:
        """Give an item its recorded result before it becomes a member, if that has nothing of the unusual.

        A long map that is resumed consists of such items: calls of a function with a few small arguments, that have
        succeeded. `RECOVERED` stands for the member that such an item would have become. Of another one that has its
        number by then the member is returned, and takes its turn as all do; None says that nothing was done.
        """
        if type(work) is not FunctionCall or key is not None or work.key is not None or not self.is_in_order:
            return None
        actor, roster = work.actor, self._roster
        if actor is not self._actor:
            self._actor, self._begins_with = actor, _identity_begins_with(actor)
        if self._begins_with is None or self.give is None or roster.unnumbered:
            return None
        data = small_arguments(work.given())
        if data is None:
            return None
        label = actor.name if name is None else name
        same = sha256(self._begins_with + data).digest()
        base = roster.place_of(same, label)
        outcome = None
        if not self._run.recording.recorded.may_be_tried_again(base):  # so it is the key, and no failure
            outcome = self._recover_nowait(base)
        if outcome is None:
            return roster.enrol_at(base, same, work, name, label, context, now)
        index = roster.enrolled
        roster.enrolled = index + 1
        self._order.enrolled(base, index)
        self.left_at_once -= 1
        self.give(work, item, name, label, base, index, outcome, now)
        self.given += 1
        work.discard()
        return RECOVERED

    def _recover_nowait(self, key: bytes) -> Outcome | None:
        try:
            return self._run.recording.recover_nowait(key)
        except StoreError:
            return None  # it is raised again when the member takes its turn

    # -- what becomes of a member -------------------------------------------------------------------------------------

    def look_up(self, member: Member) -> Recorded:
        """What is recorded of a member under its key."""
        recorded = member.recorded
        if recorded is None:
            key, work, recording = member.key, member.work, self._run.recording
            if key is None:
                recorded = Recorded.NOTHING
            else:
                is_external = isinstance(work, Call) and work.actor.is_external
                is_reused = recording.is_recorded(key, is_external=is_external)
                if self._roster.sealed_by is not None and key in self._dismissed:
                    recorded = Recorded.CUT_OFF
                elif is_reused:
                    recorded = Recorded.FINISHED
                else:
                    is_compared = self._run.is_validation and recording.has_outcome(key)
                    recorded = Recorded.COMPARED if is_compared else Recorded.NOTHING
            member.recorded = recorded
        return recorded

    # -- recovering ---------------------------------------------------------------------------------------------------

    def outcome_at_hand(self, member: Member) -> Outcome | None:
        """The outcome of a recorded member, if nobody has to be waited for and nobody wants to be told of it.

        Raises:
            StoreError: it cannot be read.
        """
        run = self._run
        if member.key is None or run.bus.wants_routine:
            return None
        if run.is_observed and member.key in run.recording.recorded.failed:
            return None
        outcome = run.recording.load_nowait(member.key)
        if outcome is not None:
            self.left_at_once -= 1
        return outcome

    @property
    def is_held_up(self) -> bool:
        """Whether members came too early, or others are to use the event loop before more are recovered."""
        return bool(self.held) or self.is_interrupted

    @property
    def is_under_way(self) -> bool:
        """Whether recorded outcomes are still on their way."""
        return self.fetching > 0 or self.is_interrupted

    @property
    def looks_for_members(self) -> bool:
        """Whether items are pulled to find members that had been enrolled before their group ended early."""
        roster = self._roster
        return roster.sealed_by is not None and not roster.is_full and len(self.parked) < _LOOK_AHEAD

    @property
    def wants_more(self) -> bool:
        """Whether members that are enrolled now may have anything to do, or had it before."""
        return self.phase is Phase.OPEN or self.looks_for_members

    @property
    def may_bring_more(self) -> bool:
        """Whether members may still come by themselves that have their place in the recorded order."""
        return (self._roster.has_sources and self.wants_more) or bool(self._roster.unnumbered)

    def has_looked_far(self) -> bool:
        """Whether too many items wait that were pulled in search of one that the recorded order wants."""
        return len(self._roster.waiting) > _LOOK_AHEAD

    # -- recovered failures -------------------------------------------------------------------------------------------

    def note_failure(self, key: bytes) -> None:
        """A recovered member has failed, and it is to be judged what that means for the group."""
        place = self._order.place_of(key)
        self._first_failure = min(place, self._first_failure) if self.unjudged else place
        self.unjudged = True

    @property
    def seeks_recorded(self) -> bool:
        """Whether members are to come out of iterables that had ended before the first recorded failure.

        It may end the group, which reads on no more then. What the program had of those members, it gets again.
        """
        if not self.unjudged or self.phase is not Phase.OPEN or not self._roster.has_sources:
            return False
        return len(self.held) < _LOOK_AHEAD and self._order.misses_before(self._first_failure)

    @property
    def can_judge(self) -> bool:
        """Whether all is back that has to be known before it is judged what recovered failures mean."""
        if self.phase is Phase.ENDING or self.is_under_way or self._roster.unnumbered:
            return False
        return not self.seeks_recorded

    def judged(self) -> None:
        """It is clear what recovered failures mean for the group."""
        self.unjudged = False
        self.release_held()

    def release_held(self) -> None:
        """Let those who came too early wait with the others, before them."""
        while self.held:
            self._roster.wait_first(self.held.pop())

    # -- groups that ended early --------------------------------------------------------------------------------------

    def take_parked(self) -> list[Member]:
        """Those who wait for the end of the group; they are not kept."""
        parked, self.parked = self.parked, {}
        return list(parked.values())

    def open(self) -> None:
        """It is another group than the one that ended: those who were parked wait for slots, like all others."""
        self.phase = Phase.OPEN
        self.unjudged, self._first_failure = True, 0
        for member in self.take_parked():
            if member.recorded is Recorded.CUT_OFF:
                member.make_again()
            self._roster.wait(member)
