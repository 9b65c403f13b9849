"""Which calls are below which: the one place where a run's tree is climbed.

Outcomes name the place of their call (`base`) and of the call that made it (`parent`). A call without an outcome (it
was cut off, or its result is no data) is missing in between. There, addresses have to tell.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterator, Mapping, Sequence

from rh_agents.core._replay.identity import SEPARATOR
from rh_agents.core.errors import UsageError
from rh_agents.core.results import OutcomeHeader

__all__ = ["addresses_around", "affected_calls", "is_below", "places_around"]


def places_around(place: bytes, parents: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """A place and those of the calls around it, from the inside out; it ends at the run, or where nothing is known."""
    around: bytes | None = place
    while around:
        yield around
        around = parents.get(around)


def addresses_around(address: str) -> Iterator[str]:
    """The addresses of the calls and groups around one, from the inside out."""
    end = address.rfind(SEPARATOR)
    while end > 0:
        yield address[:end]
        end = address.rfind(SEPARATOR, 0, end)


def is_below(inner: OutcomeHeader, outer: OutcomeHeader, parents: Mapping[bytes, bytes]) -> bool:
    """Whether a call was made, directly or not, by another one. `parents` has the parent of each place."""
    place = b""
    for place in places_around(inner.parent, parents):
        if place == outer.base:
            return True
    return bool(place) and place not in parents and outer.address in addresses_around(inner.address)


def affected_calls(
    outcomes: Sequence[OutcomeHeader], unseen: Container[bytes], target: str, run_id: str
) -> list[OutcomeHeader]:
    """The outcomes that no longer hold if the call at `target` is made again, in their order; that call's own is first.

    Those are, besides its own, the outcomes of the calls around it, of the calls below it, and of every later member
    of a group whose input cannot be seen (a coroutine, a callable; `unseen` holds their keys): it may have used the
    result. Calls whose input can be seen and that used the result have another key if the result is another one.

    Args:
        outcomes: all of the run, in the order in which they were recorded.
        unseen: the keys of members whose input cannot be seen.
        target: an address; or `@` and the beginning of a key, since calls with different inputs may share an address.
        run_id: for errors.

    Raises:
        UsageError: no call of the run that has an outcome fits, or more than one does.
    """
    found = _find(outcomes, target, run_id)
    parents = {outcome.base: outcome.parent for outcome in outcomes}
    affected = [found]
    is_later = False
    for outcome in outcomes:
        if outcome.key == found.key:
            is_later = True
        elif (
            outcome.base == found.base
            or is_below(found, outcome, parents)
            or is_below(outcome, found, parents)
            or (is_later and outcome.key in unseen)
        ):
            affected.append(outcome)
    return affected


def _find(outcomes: Sequence[OutcomeHeader], target: str, run_id: str) -> OutcomeHeader:
    if target.startswith("@"):
        found = {outcome.base: outcome for outcome in outcomes if outcome.key.hex().startswith(target[1:].lower())}
    else:
        found = {outcome.base: outcome for outcome in outcomes if outcome.address == target}
    if len(found) > 1:
        keys = ", ".join(f"@{outcome.key.hex()[:8]}" for outcome in list(found.values())[:5])
        raise UsageError(f"run {run_id!r} has {len(found)} calls at {target!r}: name one of them by its key: {keys}")
    if not found:
        close = difflib.get_close_matches(target, {outcome.address for outcome in outcomes}, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"run {run_id!r} has no finished call at {target!r}{hint}")
    return next(iter(found.values()))
