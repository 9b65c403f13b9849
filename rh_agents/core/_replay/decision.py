"""What becomes of the members of a group whose run is executed again: recovered, kept waiting, begun or left out.

The hard part is not to give recorded results again. It is that a group may have ended *early*: a failure ended it, its
timeout, `cancel()`, or the program left its stream or its block. The program then saw some results and not others, and
acted on that: `decide([])` was paid for. On replay, recovered members take no time and no slots, so members that had
never begun would begin now and come to results, and the program would come to `decide([1, 2])`. So the ending itself
is recorded (`GroupEnding`: its cause, and in which execution of the body around it), in the journal *before* the
program is told of it, and a group that is executed again is in one of three phases:

    OPEN     No early ending is recorded, or it no longer binds. Members without an outcome begin as slots become free.
             Before that, it must be clear what recovered failures mean for the group: the first one may end it.
    SEALED   The recorded ending binds. Members with an outcome are recovered; no other one begins: it is *parked*.
             When the block waits and nothing else can come, the group ends as it did (`Scheduler.change`).
    ENDING   Something ended the group, now or again. Nothing begins. What is recorded of its members is still
             recovered, and what is on its way to the store is waited for: it counts in every replay.

When a recorded ending binds (`RecordedCalls.binding_ending`, and `can_end_again` for what the program says now):

    - In the same execution of the body around the group: the same epoch, try and attempt. Another attempt of an agent
      makes its groups anew. So does a run that had *ended* and is started again with retries: successes are reused,
      failed and cut-off members have a next key, and the timeout counts anew. With `retry_failed=False` the epoch does
      not matter.
    - Unless somebody asked for one of its members to be made again (`resume_from`), or a fork has left out one of their
      outcomes, or has edited the failure that ended the group.
    - As long as the group can still end so: a timeout ends no group that has none any more.
    - What its members are is found as it was then: failures that the execution which ended it had left behind, to be
      made again, are left behind also where `retry_failed=False` repeats failures, and also if the ending came before
      it got to them.
    - As long as it is the same group. When the block waits for members, at least as many of them must be known to the
      journal as had begun when the group ended. If there are fewer (another input), it is another group, and open.

Between an ending that comes by itself (a failure, the timeout) and the moment when the block is told of it, the block
goes on. What it adds then is taken, and never begins: `add` could not wait until the ending is on disk, and a refusal
that a crash forgets would be another story afterwards. On replay such members are parked, like all that had not begun.
So the block is told at the first `gather`, `stream` or end after the ending, in every execution.

A timeout that would cut nothing off (all members have ended, or only their outcomes are on the way) is no ending yet.
Work that comes later makes it one. When the recorded ending is a known one, the timeout of the group is not measured:
it might pass earlier in the program than it did.

An ending that is none: a shutdown, or a stop of the run. It is recorded as INTERRUPTED and never binds.

Journals of earlier versions have no causes. There, members that the group had no more use for have outcomes that say
so, and these show that it ended early (`EndingCause.UNKNOWN`). How it ended follows from recorded failures, from the
status of its last event, and from its timeout; if none of these tells, it is open.

Alternatives that were tried or thought of: parking only what an earlier execution had cut off (what is listed before it
begins); parking in slots (recorded members behind parked ones are never reached); recording the ending at the end of
the block (the program has acted on it long before); a digest of all members (it differs when an iterable was read a
little further).
"""

from __future__ import annotations

from enum import Enum, auto

from rh_agents.core.groups import EndingCause, ErrorStrategy, GroupEnding

__all__ = ["Phase", "Recorded", "Step", "can_end_again", "next_step"]


class Phase(Enum):
    """Where a group stands, see above."""

    OPEN = auto()
    SEALED = auto()
    ENDING = auto()


class Recorded(Enum):
    """What is recorded of a member under the key of this try."""

    NOTHING = auto()
    """No outcome, whether or not it had begun."""
    CUT_OFF = auto()
    """Its group had no more use for it."""
    FINISHED = auto()
    """A value or a failure that is given again."""
    COMPARED = auto()
    """The same in a validation, which makes the call again and compares."""


class Step(Enum):
    """What becomes of a member whose turn it is."""

    RECOVER = auto()
    """It gets its recorded outcome; nothing is called."""
    PARK = auto()
    """It waits without a slot until the group ends."""
    WAIT = auto()
    """It comes too early: it is not clear yet whether the group goes on."""
    START = auto()
    """It is called, when there is a slot."""
    DROP = auto()
    """It is never called."""


def next_step(phase: Phase, recorded: Recorded, *, is_clear: bool) -> Step:
    """What becomes of a member. `is_clear`: no recovered member is on its way, and no failure is unjudged."""
    if recorded is Recorded.FINISHED:
        return Step.RECOVER
    if phase is Phase.OPEN:
        return Step.START if is_clear else Step.WAIT
    if recorded is Recorded.CUT_OFF:
        return Step.PARK  # it counts as cancelled again
    if phase is Phase.ENDING:
        return Step.DROP
    return Step.START if recorded is Recorded.COMPARED else Step.PARK


def can_end_again(
    ending: GroupEnding, strategy: ErrorStrategy, fail_after: int | float | None, timeout: float | None
) -> bool:
    """Whether a group with these options can still end as it did."""
    if ending.cause is EndingCause.FAILED_FAST:
        return strategy is ErrorStrategy.FAIL_FAST
    if ending.cause is EndingCause.FAIL_AFTER:
        return fail_after is not None
    if ending.cause is EndingCause.TIMED_OUT:
        return timeout is not None
    return True
