"""Random journals: what may stand in them in whatever order, retries, endings of groups and calls cut off included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import CallCancelled
from rh_agents.core.events import Fact
from rh_agents.core.groups import EndingCause, GroupEnding, GroupStatus
from rh_agents.core.ports import Journal
from rh_agents.core.results import Outcome
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.testing._records import Written, about_group, completed, fact, key, outcome

_GROUPS = ("pages", "inner")
_WITHOUT_OUTCOME = ("started", "retrying", "cancelled", "awaiting", "recovered", "superseded", "human_intervention")
_ENDS = ("value", "value", "value", "error", "cut off")
_BASES = {7: key("base 7"), 28: key(4), 29: key(5), 30: key(4)}
"""Calls that are further tries of others, one of which was never recorded."""
_LATER = {4: {28, 30}, 5: {29}}
"""The further tries of calls: a call that was made again comes to nothing any more."""
_MANY = 20
"""Calls that one entry makes at once: more than are shown of a group."""
_INNER = 1000
"""The call with that much more than the number of another one is made by that one."""
_INSIDE, _SIZE = 2000, 100
"""Where the numbers of members of groups inside of calls begin, and how many there are for those of one call. The
negative number of such a member is a call below it."""
_NAMES = ("fetch", "ask", 'a"b\\', "\0odd", "\ud800", "é")


class Step(NamedTuple):
    """One entry: about which call (or group), and what becomes of it.

    Attributes:
        call: its number.
        what: a status without an outcome; a kind of outcome; "group" with the state of one; "plain", without a key;
            "many", which is that many members of one group began and succeeded; "nested", which is that they did so
            with calls below them; "grouped", which is that they did so with groups inside; or "early", which is a group
            that ends early when that many have, and one has not.
        cost: what it used; 0 for nothing.
        later: seconds after the first moment.
    """

    call: int
    what: str
    cost: int = 0
    later: int = 0
    group: str = ""
    ends: bool = False


def steps() -> st.SearchStrategy[list[Step]]:
    """The entries of a journal."""
    calls = st.builds(
        Step,
        st.integers(0, 30),
        st.sampled_from([*_WITHOUT_OUTCOME, *(_ENDS * 2), "started", "started", "plain", "many", "nested", "grouped"]),
        st.integers(0, 3),
        st.integers(0, 9),
    )
    again = st.builds(
        Step, st.sampled_from([4, 5, 28, 29, 30]), st.sampled_from(_ENDS), st.integers(0, 3), st.integers(0, 2000)
    )
    groups = st.builds(
        Step,
        st.just(0),
        st.just("group"),
        later=st.integers(0, 9),
        group=st.sampled_from(_GROUPS),
        ends=st.booleans(),
    )
    early = st.builds(Step, st.just(0), st.just("early"), group=st.sampled_from(_GROUPS))
    return st.lists(st.one_of(calls, calls, calls, calls, again, groups, early), max_size=40)


async def write(journal: Journal, written: Written, chosen: Sequence[Step], ended: set[int] | None = None) -> None:
    """Put the entries into a journal, and into the model of it. A call that has an outcome gets no other one.

    `ended` are the calls that have one; those that get one are added.
    """
    run_id, ended = written.run_id, set() if ended is None else ended
    for step in chosen:
        moment = 1_760_000_000.25 + step.later
        if step.what == "group":
            for told in _group(run_id, step, ended):
                written.note(journal, told._replace(timestamp=moment))
            continue
        if step.what == "early":
            _write_early(journal, written, step, moment, ended)
            continue
        if step.what == "many":
            for number in range(step.call, step.call + 3 * _MANY, 3):
                its = [Step(number, "started", step.cost, step.later), Step(number, "value", step.cost, step.later)]
                _write_calls(journal, written, its, moment, ended)
            below = Step(step.call + 3 * (_MANY - 5) + 2, _ENDS[step.later % 5])  # a call of one of them, if in "pages"
            _write_calls(journal, written, [below], moment, ended)
            continue
        if step.what == "nested":
            _write_nested(journal, written, step, moment, ended)
            continue
        if step.what == "grouped":
            _write_grouped(journal, written, step, moment, ended)
            continue
        if step.what == "plain":
            written.note(journal, fact(run_id, ExecutionStatus.STARTED, None, timestamp=moment))
            continue
        _write_calls(journal, written, [step], moment, ended)


def _write_calls(journal: Journal, written: Written, chosen: Sequence[Step], moment: float, ended: set[int]) -> None:
    for step in chosen:
        call, its_outcome = _call(step), None
        if step.what in _ENDS:
            if step.call in ended or not ended.isdisjoint(_LATER.get(step.call, ())):
                continue
            ended.add(step.call)
            recorded, its_outcome = completed(written.run_id, call), call
        else:
            recorded = fact(written.run_id, ExecutionStatus(step.what), call)
        if step.what != "superseded":
            waited = (step.call % 4) / 8 if its_outcome is not None else 0.0
            recorded = recorded.with_more(usage=_usage(step.cost), from_cache=step.cost == 3, waited=waited)
        recorded = recorded._replace(
            timestamp=moment,
            actor=_actor(step.call),
            parallel_index=_index(step.call),
            group_total=None if step.call % 2 else 40 + step.later,
            kind=EventType.TOOL_CALL,
        )
        written.note(journal, recorded, its_outcome)


def _write_nested(journal: Journal, written: Written, step: Step, moment: float, ended: set[int]) -> None:
    """Members of a group, each with a call below that makes another one; one of these calls may be odd."""
    first = step.call - step.call % 3
    for number in range(first, first + 3 * _MANY, 3):
        inner, innermost = number + 2, number + 2 + _INNER
        order = [(number, "started"), (inner, "started"), (innermost, "started"), (innermost, "value")]
        order += [(inner, "value"), (number, "value")]
        if number == first + 3 * (_MANY - 5):
            _make_odd(order, step.later, (inner, innermost)[step.cost % 2], innermost + _INNER)
        _write_calls(journal, written, [Step(*each, later=step.later) for each in order], moment, ended)


def _make_odd(order: list[tuple[int, str]], how: int, call: int, below: int) -> None:
    """Change what becomes of a call in one of eight ways, or of none at all."""
    odd: dict[int, Callable[[], object]] = {
        0: lambda: order.remove((call, "started")),
        1: lambda: order.remove((call, "value")),
        2: lambda: order.insert(1, (call, "retrying")),
        3: lambda: order.insert(4, (call, "error")),
        4: lambda: order.append(order.pop(4)),
        5: lambda: order.append((call, "superseded")),
        6: lambda: order.insert(0, order.pop(2)),
        7: lambda: order.insert(4, (below, "error")),
    }
    odd.get(how, lambda: None)()


def _write_grouped(journal: Journal, written: Written, step: Step, moment: float, ended: set[int]) -> None:
    """Members of a group, each with a group inside; in one of these, which is large, something may be odd."""
    first = step.call - step.call % 3
    for number in range(first, first + 3 * _MANY, 3):
        is_large = number == first + 3 * (_MANY - 5)
        order = [
            (number, "started"),
            *_inside(number, 14 if is_large else 1 + number % 4, deep=is_large),
            (number, "value"),
        ]
        if is_large:
            _make_group_odd(order, step, number)
        for call, what in order:
            if what in _OF_GROUPS:
                told = _group_inside(written.run_id, call, what)
                written.note(journal, told._replace(timestamp=moment))
            else:
                _write_calls(journal, written, [Step(call, what, later=step.later)], moment, ended)


_OF_GROUPS = ("begins", "ends", "ends early", "fails")


def _inside(maker: int, size: int, *, deep: bool) -> list[tuple[int, str]]:
    """What a group in a call does. Its second member has a call below it, its third one another group if `deep`."""
    order = [(maker, "begins")]
    for number in range(_first_inside(maker), _first_inside(maker) + size):
        place = number % _SIZE
        below = [(-number, "started"), (-number, "value")] if place == 1 else []
        below += _inside(number, 12, deep=False) if place == 2 and deep else []
        order += [(number, "started"), *below, (number, "value")]
    return [*order, (maker, "ends")]


def _make_group_odd(order: list[tuple[int, str]], step: Step, maker: int) -> None:
    """Change something in a group that has 14 members, or in the one inside of its third one, or nothing at all."""
    maker = maker if step.cost % 2 else _first_inside(maker) + 2
    begins, ends, member = order.index((maker, "begins")), order.index((maker, "ends")), _first_inside(maker) + 5
    odd: dict[int, Callable[[], object]] = {
        0: lambda: order.insert(begins + 3, (maker, "begins")),
        1: lambda: order.remove((maker, "ends")),
        2: lambda: order.insert(ends, (maker, "ends early")),
        3: lambda: order.insert(ends + 1, order.pop(order.index((member, "value")))),
        4: lambda: order.insert(begins, order.pop(order.index((member, "started")))),
        5: lambda: order.insert(order.index((member, "value")), (member, "error")),
        6: lambda: order.insert(begins + 3, (maker, "retrying")),
        7: lambda: order.append(order.pop(ends)) if step.call % 2 else order.insert(ends, (maker, "fails")),
        8: lambda: order.extend([(maker, "begins"), (maker, "ends")]),
    }
    odd.get(step.later, lambda: None)()


def _group_inside(run_id: str, maker: int, what: str) -> Fact:
    status = {"ends": GroupStatus.COMPLETED, "fails": GroupStatus.FAILED}.get(what, GroupStatus.RUNNING)
    ending = GroupEnding(cause=EndingCause.LEFT, outcomes=3) if what == "ends early" else None
    told = about_group(run_id, _group_of(_first_inside(maker)) or "", status, ending)
    address = f"{_address(maker)}::looks"
    assert told.group is not None
    return told._replace(address=address).with_more(group=told.group.model_copy(update={"address": address}))


def _first_inside(maker: int) -> int:
    """The number of the first member of the group inside of a call."""
    return _INSIDE + maker * _SIZE


def _write_early(journal: Journal, written: Written, step: Step, moment: float, ended: set[int]) -> None:
    first = 60 + _GROUPS.index(step.group)
    written.note(journal, about_group(written.run_id, step.group, GroupStatus.RUNNING)._replace(timestamp=moment))
    for number in range(first, first + 3 * _MANY, 3):
        _write_calls(journal, written, [Step(number, "started"), Step(number, "value")], moment, ended)
    _write_calls(journal, written, [Step(first + 3 * _MANY, "started")], moment, ended)
    its = sum(_group_of(number) == step.group for number in ended)
    ending = GroupEnding(cause=EndingCause.FAILED_FAST, outcomes=its)
    told = about_group(written.run_id, step.group, GroupStatus.RUNNING, ending)
    written.note(journal, told._replace(timestamp=moment))


def _call(step: Step) -> Outcome:
    """A third of the calls are no members; some names and addresses are odd."""
    number = step.call
    error: Exception | None = None
    if step.what == "error":
        error = ValueError(f"oops {number}")
    elif step.what == "cut off":
        error = CallCancelled(f"cut off {number}")
    name = _NAMES[number % len(_NAMES)]
    group = _group_of(number)
    return outcome(
        number, f"value {number}", error, name=name, address=_address(number), group_id=group, base=_place(number),
        parent=_place(_around(number)) if group is None or number >= _INSIDE else b"", seconds=0.25 + number,
    )  # fmt: skip


def _place(number: int) -> bytes:
    return _BASES.get(number, key(number))


def _group_of(number: int) -> str | None:
    if number >= _INSIDE:
        return f"of {_around(number)}"
    return None if number < 0 or number >= _INNER else (*_GROUPS, None)[number % 3]


def _around(number: int) -> int:
    """The call that made one that is no member, or the group of one that is."""
    if number < 0:
        return -number
    if number >= _INSIDE:
        return (number - _INSIDE) // _SIZE
    return number - (_INNER if number >= _INNER else 2)


def _address(number: int) -> str:
    group, name = _group_of(number), _NAMES[number % len(_NAMES)]
    if number >= _INSIDE:
        return f"{_address(_around(number))}::looks[{number % _SIZE}]::{name}"
    return f"{group}[{number}]::{name}" if group else f"{_address(_around(number))}::{name}"


def _index(number: int) -> int | None:
    """Two members of a group may have had the same place in it, in two versions of the program."""
    return None if _group_of(number) is None else number // 4


def _actor(number: int) -> BaseActor:
    kinds = (EventType.TOOL_CALL, EventType.LLM_CALL, EventType.FUNCTION_CALL)
    return BaseActor(
        name=_NAMES[number % 4], version=str(number % 2 + 1), event_type=kinds[number % 3], handler=_never_called
    )


def _usage(cost: int) -> Usage | None:
    return Usage(input_tokens=cost, requests=1, cost=cost / 7, estimates=cost % 2) if cost else None


def _group(run_id: str, step: Step, ended: set[int]) -> list[Fact]:
    """What is said of a group: that it begins, that it ends early, or that it has been executed once more."""
    begins = about_group(run_id, step.group, GroupStatus.RUNNING)
    its = sum(_group_of(number) == step.group for number in ended)
    cause = (EndingCause.FAILED_FAST, EndingCause.INTERRUPTED, None)[step.later % 3]
    if not step.ends:
        return [begins]
    if cause is not None:
        ending = GroupEnding(cause=cause, outcomes=step.later if step.later % 2 else its)
        return [about_group(run_id, step.group, GroupStatus.RUNNING, ending)]
    ends = about_group(run_id, step.group, (GroupStatus.COMPLETED, GroupStatus.FAILED)[step.later % 2])
    assert ends.group is not None
    return [begins, ends.with_more(group=ends.group.model_copy(update={"recovered": its}))]


async def _never_called(_: Any) -> None:
    """Events name an actor; nobody calls it."""
