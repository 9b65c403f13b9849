"""Which calls are below which: the one place where a run's tree is climbed.

Outcomes name the place of their call (`base`) and of the call that made it (`parent`). A call without an outcome (it
was cut off, or its result is no data) is missing in between. There, addresses have to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rh_agents.core._replay.address import SEPARATOR
from rh_agents.core.results import OutcomeHeader

__all__ = ["addresses_around", "is_below", "places_around"]


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
