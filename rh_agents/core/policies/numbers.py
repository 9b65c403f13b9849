"""The numbers of a run that people can set while it goes on: their names, how they are read, and what a change means.

The owner of the run decides by these rules, and whoever tries a change (`dry_run`) sees by the same ones what it would
say: both are given what the numbers are now.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rh_agents.core.errors import ControlRefused

__all__ = ["SettingState", "changed_settings", "read_settings"]

_OF_LIMITS = ("requests", "tokens", "input_tokens", "output_tokens", "limit", "maximum")
_OF_BUDGETS = ("cost", "tokens", "calls", "seconds")
_WHOLE = ("limit", "maximum", "tokens", "calls")


class SettingState(NamedTuple):
    """A number of a run that can be set, as it is now.

    Attributes:
        name: such as "max-workers.pages" or "budget.cost".
        value: the number.
        in_use: how much of it is taken: members that run, slots that are held, what is spent; None if that is not
            counted.
        reserved: of a budget, what is reserved for calls under way.
    """

    name: str
    value: float
    in_use: float | None = None
    reserved: float = 0


def read_settings(settings: Mapping[str, Any]) -> dict[str, float]:
    """Settings as numbers; texts are read.

    Raises:
        ControlRefused: there is no setting of a name, or its value is none.
    """
    if not settings:
        raise ControlRefused("nothing is to be set: name a setting, such as max-workers=4")
    return {name: _read_setting(name, value) for name, value in settings.items()}


def _read_setting(name: str, value: Any) -> float:
    kind, _, rest = name.partition(".")
    field_name = rest.rpartition(".")[2]
    if kind == "limit" and rest.rpartition(".")[0]:
        return _number(name, value, _known(name, field_name, _OF_LIMITS) in _WHOLE[:2], zero=False)
    if kind == "budget":
        return _number(name, value, _known(name, rest, _OF_BUDGETS) in _WHOLE, zero=True)
    if kind == "max-workers" or name == "retry":
        return _number(name, value, True, zero=False)
    near = difflib.get_close_matches(name, ["max-workers", "retry", "budget.cost", "limit.NAME.requests"], 1, 0.5)
    hint = f"did you mean {near[0]}" if near else "there are max-workers, limit.NAME.requests, budget.cost and retry"
    raise ControlRefused(f"there is no setting {name!r}: {hint}")


def _known(name: str, field_name: str, known: Sequence[str]) -> str:
    if field_name not in known:
        near = difflib.get_close_matches(field_name, known, 1)
        hint = f"did you mean {name.removesuffix(field_name)}{near[0]}? " if near else ""
        raise ControlRefused(f"there is no setting {name!r}: {hint}the last word can be {', '.join(known)}")
    return field_name


def _number(name: str, value: Any, is_whole: bool, *, zero: bool) -> float:
    try:
        found = float(value)
    except (OverflowError, TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found) or isinstance(value, bool) or found < 0 or (not found and not zero):
        least = "from 0 on" if zero else "above 0"
        pause = "; to begin nothing new, pause the run" if name.startswith("max-workers") else ""
        raise ControlRefused(f"{name}={value}: a number {least} is needed{pause}")
    if is_whole and found != int(found):
        raise ControlRefused(f"{name}={value}: a whole number is needed")
    return int(found) if is_whole else found


def changed_settings(
    settings: Mapping[str, Any], known: Sequence[SettingState], when: str, *, is_at_start: bool = False
) -> str:
    """What becomes of the numbers of a run, in a sentence with the old ones; `when` says from when on.

    Args:
        settings: the new numbers, by name.
        known: what can be set, and what it is now; nothing says that this is not known.
        when: such as "from now on".
        is_at_start: the run begins, so that groups and limits are not known yet.

    Raises:
        ControlRefused: there is no such group or limit, or more of a budget is spent already.
    """
    states = {name: _states_of(name, known) for name in settings}
    for name, value in settings.items() if known or is_at_start else ():
        _expect_possible(name, value, states[name], known, is_at_start=is_at_start)
    text = ", ".join(f"{name}={value:g}{_before(name, value, states[name])}" for name, value in settings.items())
    more = [remark for name, value in settings.items() for remark in _more_in_use(value, states[name])]
    return "; ".join([f"{text} {when}", *more])


def _states_of(name: str, known: Sequence[SettingState]) -> list[SettingState]:
    """What a setting is about: `max-workers` is about all groups."""
    if name == "max-workers":
        return [state for state in known if state.name.startswith("max-workers.")]
    return [state for state in known if state.name == name]


def _before(name: str, value: float, states: Sequence[SettingState]) -> str:
    numbers = {state.name.partition(".")[2]: state.value for state in states}
    if not numbers:
        return ""
    if len(set(numbers.values())) > 1:
        first = [f"{number:g} ({its})" for its, number in list(numbers.items())[:3]]
        return f" instead of {', '.join(first)}{', ...' if len(numbers) > 3 else ''}"
    (number,) = set(numbers.values())
    if number == math.inf:
        return ""
    return " as before" if number == value else f" instead of {number:g}"


def _expect_possible(
    name: str, value: float, states: Sequence[SettingState], known: Sequence[SettingState], *, is_at_start: bool
) -> None:
    kind, _, rest = name.partition(".")
    for state in states if kind == "budget" else ():
        used, kept = state.in_use or 0, state.reserved
        if used + kept > value:
            reserved = f" and {kept:g} reserved for calls under way" if kept else ""
            raise ControlRefused(
                f"{name}={value:g}: {used:g} is spent already{reserved}; name more, or pause or cancel the run"
            )
    if states or is_at_start or kind == "budget":  # a run that had no budget has one from then on
        return
    if kind == "limit":
        raise ControlRefused(f"{name}: {_no_limit(rest.rpartition('.')[0], known)}")
    if kind == "max-workers" and rest:
        groups = sorted({state.name.partition(".")[2] for state in _states_of("max-workers", known)})
        raise ControlRefused(f"{name}: no group {rest!r} is under way now{_instead(rest, groups)}")


def _no_limit(limit: str, known: Sequence[SettingState]) -> str:
    names = [state.name.removeprefix("limit.") for state in known if state.name.startswith("limit.")]
    fields = [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == limit]
    if fields:
        return f"of the limit {limit!r} can be set: {', '.join(fields)}"
    limits = sorted({name.rpartition(".")[0] for name in names})
    return f"no call of the run has waited for a limit {limit!r}{_instead(limit, limits)}"


def _instead(wanted: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wanted, known, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; name one of {', '.join(map(repr, known))}" if known else ", and there is none so far"


def _more_in_use(value: float, states: Sequence[SettingState]) -> Iterator[str]:
    """What there is to say of those that run, or hold a slot, if they are more than may."""
    for state in states:
        kind, _, rest = state.name.partition(".")
        if state.in_use is None or state.in_use <= value or kind == "budget":
            continue
        who = f"of {rest} run" if kind == "max-workers" else f"hold {rest.rpartition('.')[0]}"
        yield f"{state.in_use:g} {who} now, and none begins until fewer than {value:g} do"
