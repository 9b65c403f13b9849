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
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

__all__ = [
    "Made",
    "Versions",
    "changed_codes",
    "changed_sentence",
    "may_have_past_versions",
    "recorded_codes",
    "with_codes",
]

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


def may_have_past_versions(facts: Mapping[str, str], executions: int) -> bool:
    """Whether a run was executed so often that a version can be past, and its facts name several ones of an actor."""
    names = Counter(label.rpartition("@")[0] for label in recorded_codes(facts))
    return executions > 1 and any(number > 1 for number in names.values())


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


Made = tuple[str, str]
"""An actor's name and version, by which a call was made."""


class Versions:
    """Which versions of its actors a run had, and when: journals have the calls of all of them.

    A version is *past* if the run was executed anew between all that is recorded of it and all that is of the version
    that counts: of that which the program has, or else of the newest one. A program may have two actors of one name:
    versions that came in one execution are those of several, and then the newest one says nothing of the others, whose
    calls may well be reused. So none is past there, unless it is known what the program has.
    """

    def __init__(self) -> None:
        self._spans: dict[str, dict[str, tuple[int, int]]] = {}

    def note(self, made: Made, first: int, last: int) -> None:
        """Calls of a version that began at events from one sequence up to another one."""
        name, version = made
        spans = self._spans.setdefault(name, {})
        least, most = spans.get(version, (first, last))
        spans[version] = (min(least, first), max(most, last))

    def past(self, begins: Iterable[int], now: Mapping[str, Collection[str]] = MappingProxyType({})) -> frozenset[Made]:
        """Those that are past.

        Args:
            begins: the sequences after which the run was executed.
            now: the versions that actors have, by their names, as far as that is known. Where nothing is recorded of
                these, all that is recorded is past.
        """
        after, found = sorted(begins), set[Made]()
        for name, spans in self._spans.items():
            present = now.get(name, ())
            if present and spans.keys().isdisjoint(present):
                found |= {(name, version) for version in spans}
            elif len(spans) > 1 and (present or not _came_together(spans.values(), after)):
                kept = [spans[version] for version in present if version in spans]
                found |= {
                    (name, version)
                    for version, span in spans.items()
                    if version not in present
                    and _are_apart(span, kept or [max(spans.values(), key=lambda span: span[1])], after)
                }
        return frozenset(found)


def _came_together(spans: Iterable[tuple[int, int]], begins: Sequence[int]) -> bool:
    """Whether two of these spans begin in one execution."""
    executions = [bisect_left(begins, first) for first, _ in spans]
    return len(set(executions)) < len(executions)


def _are_apart(span: tuple[int, int], others: Sequence[tuple[int, int]], begins: Sequence[int]) -> bool:
    """Whether an execution began between a span of events and all of some others, which come before or after it."""
    first, last = span
    is_before = any(last <= begin < min(each for each, _ in others) for begin in begins)
    return is_before or any(max(each for _, each in others) <= begin < first for begin in begins)
