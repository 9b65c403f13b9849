"""Who a call with a large input is: that is found out in a thread, and calls are numbered in their order all the same.

The identity of a call is a hash of its input. To write and hash thirty megabytes takes seconds, so it is done beside
the event loop. Identical calls of one caller are numbered in the order in which they are made, and to know which ones
are identical takes their identities. So of all calls of one caller with large inputs, one at a time is identified, in
their order. Inputs are equal only if both are large or neither is, so small ones need not wait for large ones; in a
group, where members start in their order, they do (`rh_agents.core._group.roster`).

The input is read while the event loop goes on. Whoever changes it meanwhile makes it another input.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from rh_agents.core._loops.beside import beside
from rh_agents.core._loops.postponed import Postponed, until_it_is_done
from rh_agents.core._replay.identity import child_key
from rh_agents.core._run.frame import Frame

__all__ = ["Identities", "identified_in_turn"]

T = TypeVar("T")

_turns: WeakKeyDictionary[Frame, asyncio.Lock] = WeakKeyDictionary()


class Identities(NamedTuple):
    """What a call has in common with others.

    Attributes:
        same: with identical calls of one caller.
        former: the same in journals of earlier versions, if it was something else then.
        equal: with calls that have the same result, for a cache; None if that has not been found out.
        formerly_equal: the same in caches that earlier versions filled.
    """

    same: bytes
    former: Sequence[bytes] = ()
    equal: bytes | None = None
    formerly_equal: tuple[bytes, ...] = ()


async def identified_in_turn(
    caller: Frame, identify: Callable[[], Identities], number: Callable[[Identities], T], postponed: Postponed
) -> T:
    """Identify a call beside the event loop, then number it, after all that were made before it.

    Cancellations that come meanwhile are noted in `postponed`: if the call is recorded, the program had its result.

    Raises:
        DefinitionError: its input is not data.
    """
    with caller.run.interruption.under_way.with_one_more():  # else a run that waits for a person would not wait for it
        try:
            return await until_it_is_done(_in_turn(caller, identify, number), postponed, at_most=None)
        except Exception:
            postponed.deliver_soon()
            raise


async def _in_turn(caller: Frame, identify: Callable[[], Identities], number: Callable[[Identities], T]) -> T:
    async with _turns.setdefault(caller, asyncio.Lock()):
        try:
            identities = await beside(identify)
        except RuntimeError:  # a mapping or a set was changed while it was read
            identities = identify()
        return number(identities)


# -- where earlier executions have recorded a call --------------------------------------------------------------------


def known_key(frame: Frame, name: str, group: str | None, base: bytes, former: Sequence[bytes], since: int) -> bytes:
    """The key of a call: `base`, or the one under which a former version recorded it.

    Args:
        frame: the call that makes it.
        name: of what is called.
        group: the name of its group; None outside of one.
        base: its key by today's identity.
        former: its former identities.
        since: the generation of keys from which on they are former.
    """
    recording = frame.run.recording
    if not former or recording.keys_generation >= since:
        return base
    keys = [_next_key(frame, group, same) for same in former]
    knows = recording.recorded.knows
    if knows(base):
        return base
    key = next((key for key in keys if knows(key)), None)
    if key is None:
        return base
    recording.report_former_key(name)
    return key


def _next_key(frame: Frame, group: str | None, same: bytes) -> bytes:
    """The key of the next call with this identity, numbered as calls and members of groups are."""
    if group is None:
        return child_key(frame.base, "", same, frame.count(same))
    return child_key(frame.base, group, same, frame.count(child_key(frame.base, group, same, 0)))


def has_outcome_of_next(frame: Frame, same: bytes, former: Sequence[bytes], since: int) -> bool:
    """Whether the journal says what becomes of the next call with this identity here, so that it would not be made."""
    recording = frame.run.recording
    if not recording.is_resumed:
        return False
    identities = (same,) if recording.keys_generation >= since else (same, *former)
    keys = (child_key(frame.base, "", each, frame.peek(each)) for each in identities)
    return any(recording.has_outcome(frame.try_of(key)[0]) for key in keys)
