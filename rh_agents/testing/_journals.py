"""Random journals: what may stand in them in whatever order, retries, endings of groups and calls cut off included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import CallCancelled
from rh_agents.core.groups import EndingCause, GroupEnding, GroupStatus
from rh_agents.core.ports import Journal
from rh_agents.core.results import Outcome
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.testing._records import Written, about_group, completed, fact, key, outcome

_GROUPS = ("pages", "inner")
_WITHOUT_OUTCOME = ("started", "retrying", "cancelled", "awaiting", "recovered", "superseded", "human_intervention")
_ENDS = ("value", "value", "value", "error", "cut off")
_NAMES = ("fetch", "ask", 'a"b\\', "\0odd", "\ud800", "é")


class Step(NamedTuple):
    """One entry: about which call (or group), and what becomes of it.

    Attributes:
        call: its number.
        what: a status without an outcome; a kind of outcome; "group" with the state of one; or "plain", without a key.
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
        st.integers(0, 15),
        st.sampled_from([*_WITHOUT_OUTCOME, *(_ENDS * 2), "started", "started", "plain"]),
        st.integers(0, 3),
        st.integers(0, 9),
    )
    groups = st.builds(
        Step,
        st.just(0),
        st.just("group"),
        later=st.integers(0, 9),
        group=st.sampled_from(_GROUPS),
        ends=st.booleans(),
    )
    return st.lists(st.one_of(calls, calls, calls, calls, groups), max_size=40)


async def write(journal: Journal, written: Written, chosen: Sequence[Step]) -> None:
    """Put the entries into a journal, and into the model of it. A call that has an outcome gets no other one."""
    run_id, ended = written.run_id, set[int]()
    for step in chosen:
        moment = 1_760_000_000.25 + step.later
        if step.what == "group":
            written.note(journal, _group(run_id, step)._replace(timestamp=moment))
            continue
        if step.what == "plain":
            written.note(journal, fact(run_id, ExecutionStatus.STARTED, None, timestamp=moment))
            continue
        call, actor = _call(step), _actor(step.call)
        if step.what in _ENDS:
            if step.call in ended:
                continue
            ended.add(step.call)
            recorded, its_outcome = completed(run_id, call), call
        else:
            recorded, its_outcome = fact(run_id, ExecutionStatus(step.what), call), None
        if step.what != "superseded":
            recorded = recorded.with_more(usage=_usage(step.cost), from_cache=step.cost == 3)
        recorded = recorded._replace(
            timestamp=moment, actor=actor, parallel_index=_index(step.call), kind=EventType.TOOL_CALL
        )
        written.note(journal, recorded, its_outcome)


def _call(step: Step) -> Outcome:
    """A third of the calls are no members; some names and addresses are odd."""
    number = step.call
    error: Exception | None = None
    if step.what == "error":
        error = ValueError(f"oops {number}")
    elif step.what == "cut off":
        error = CallCancelled(f"cut off {number}")
    name = _NAMES[number % len(_NAMES)]
    group = (*_GROUPS, None)[number % 3]
    address = (
        f"{group}[{number}]::{name}" if group else f"pages[{number - 2}]::{_NAMES[(number - 2) % len(_NAMES)]}::{name}"
    )
    base = key(f"base {number}") if number == 7 else key(number)
    return outcome(
        number, f"value {number}", error, name=name, address=address, group_id=group, base=base,
        parent=key(number - 2) if group is None else b"", seconds=0.25 + number,
    )  # fmt: skip


def _index(number: int) -> int | None:
    """Two members of a group may have had the same place in it, in two versions of the program."""
    return None if number % 3 == 2 else number // 4


def _actor(number: int) -> BaseActor:
    kinds = (EventType.TOOL_CALL, EventType.LLM_CALL, EventType.FUNCTION_CALL)
    return BaseActor(
        name=_NAMES[number % 4], version=str(number % 2 + 1), event_type=kinds[number % 3], handler=_never_called
    )


def _usage(cost: int) -> Usage | None:
    return Usage(input_tokens=cost, requests=1, cost=cost / 7, estimates=cost % 2) if cost else None


def _group(run_id: str, step: Step) -> Any:
    if not step.ends:
        return about_group(run_id, step.group, GroupStatus.RUNNING)
    cause = (EndingCause.FAILED_FAST, EndingCause.INTERRUPTED, None)[step.later % 3]
    if cause is None:
        return about_group(run_id, step.group, (GroupStatus.COMPLETED, GroupStatus.FAILED)[step.later % 2])
    return about_group(run_id, step.group, GroupStatus.RUNNING, GroupEnding(cause=cause, outcomes=step.later))


async def _never_called(_: Any) -> None:
    """Events name an actor; nobody calls it."""
