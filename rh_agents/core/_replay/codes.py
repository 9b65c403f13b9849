"""Whether the code of actors has changed since their results were recorded: what a run says about it in its facts.

When a run is opened, the code of the actors that its program leads to is compared with what its facts say, and they
get what is new: by name and version (`fetch@1`), the digests of all the code that there was while results were
recorded, in their order. So it costs a run nothing while calls are made, no entry of the journal has to say it, and it
is on disk before the first outcome that the code came to. Which of them a result is of is known only by when it was
recorded; so any other code than today's counts as a change until somebody accepts it, which makes today's the only one.

A digest is None where the code could not be seen. That is no change, and not the same either: nothing is said of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["changed_codes", "changed_sentence", "recorded_codes", "with_codes"]

_FACT: Final = "code"
Codes = Mapping[str, str | None]
"""The digests of today's code, by names and versions of actors."""


def recorded_codes(facts: Mapping[str, str]) -> dict[str, list[str | None]]:
    """What code each actor had, as the facts of a run say; nothing of runs of earlier versions."""
    try:
        found = json.loads(facts.get(_FACT, "{}"))
        return {str(name): [each if isinstance(each, str) else None for each in codes] for name, codes in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}  # another version wrote something else


def with_codes(facts: Mapping[str, str], before: Mapping[str, str], now: Codes, *, accepted: bool) -> dict[str, str]:
    """The facts of a run whose program has this code from now on, and that said `before` what it had."""
    known = recorded_codes(before)
    for name, code in now.items():
        codes = [] if accepted else known.get(name, [])
        known[name] = codes if code in codes else [*codes, code]
    return {**facts, _FACT: json.dumps(known, separators=(",", ":"))} if known else dict(facts)


def changed_codes(facts: Mapping[str, str], now: Codes) -> list[str]:
    """The names of actors some of whose results may be of other code than today's. Those of other versions are not
    reused, so they do not matter.
    """
    known = recorded_codes(facts)
    return [
        name.rpartition("@")[0]
        for name, code in now.items()
        if code is not None and any(each not in (None, code) for each in known.get(name, ()))
    ]


def changed_sentence(names: Sequence[str], results: Mapping[str, int]) -> str:
    """What to say of actors whose code has changed, with how many results each has, if that is known."""
    parts = [f"the code of {name!r} has changed since: {_counted(results.get(name, 0))} reused" for name in names]
    return f"{'; '.join(parts)}; a new version='...' in its definition makes the calls again"


def _counted(number: int) -> str:
    if not number:
        return "its results are"
    return "its result is" if number == 1 else f"its {number:,} results are"
