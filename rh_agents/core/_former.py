"""Keys that a call had in journals of earlier versions, so that what they recorded is found and not paid for again.

A key holds what makes a call this call. Sometimes that turns out to be too little: models at two servers had the same
keys if they had the same name. What was left out is part of the key from then on, and in a journal that was made
before, the call is looked for under its former key as well. That is all decided here, in one step between the number of
a call and its key:

- A run that was made by this version, or a later one, says so in its facts (`KEYS`). No former key is looked up in it:
  there, the former key of one call may be today's key of another one.
- In any other run each call is numbered under its former identity, too, since that is how it was numbered then.
- A key of today that the journal knows wins. Else, if it knows the former one, the call takes that as its place: its
  further tries, and the calls below it, continue what is recorded there.

Keys of questions to a model hold what it was told before. Where that is made in another way than it was, such as what
is told of the results of tools, there is nothing to look up: each further question has it, too. There, a run of before
goes on as it was begun, to its end (`RunHandle.has_former_keys`; see `rh_agents.core.chat.tool_calls`). It is not
reported, since nothing about the reuse is uncertain. What the program states itself is a changed setting and counts.

A cache has no facts. There, an entry says by its label whether it is an earlier version's (`BaseActor.cache_label`).

What was recorded under a former key does not say what was left out of it, so the reuse is reported, once in a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rh_agents.core.keys import child_key

if TYPE_CHECKING:
    from rh_agents.core.ports import RunInfo
    from rh_agents.core.scope import Scope

__all__ = ["KEYS", "has_former_keys", "known_place"]

KEYS = {"keys": "with endpoints"}
"""The fact about a run that says what its keys hold."""


def has_former_keys(known: RunInfo | None) -> bool:
    """Whether a run was made by a version whose keys held less."""
    return known is not None and any(known.facts.get(name) != value for name, value in KEYS.items())


def known_place(scope: Scope, name: str, group: str | None, base: bytes, former: Sequence[bytes]) -> bytes:
    """The place of a call: `base`, or the one that a former version recorded it at.

    Args:
        scope: who makes the call.
        name: of what is called.
        group: the name of its group; None outside of one.
        base: its place by today's identity.
        former: its former identities.
    """
    run = scope.run
    if not former or not run.has_former_keys:
        return base
    places = [_next_place(scope, group, same) for same in former]
    if run.knows(base):
        return base
    place = next((place for place in places if run.knows(place)), None)
    if place is None:
        return base
    run.report_former_key(name)
    return place


def _next_place(scope: Scope, group: str | None, same: bytes) -> bytes:
    """The place of the next call with this identity, numbered as calls and members of groups are."""
    if group is None:
        return child_key(scope.key, "", same, scope.count(same))
    return child_key(scope.key, group, same, scope.count(child_key(scope.key, group, same, 0)))
