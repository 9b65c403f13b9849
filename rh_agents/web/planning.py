"""What a resume would do, and what differs between two runs, item by item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from itertools import islice
from typing import Any, Final

from rh_agents.core.plan import Fate, PlannedCall, Planner, open_requests
from rh_agents.core.ports import Store
from rh_agents.core.ports.outline import outline_of_run
from rh_agents.core.results import Outcome, UnreadOutcome, describe_error
from rh_agents.core.runs import validated_run
from rh_agents.core.usage import Usage
from rh_agents.core.values import shown_value
from rh_agents.web.reading import NoSuchRun
from rh_agents.web.shapes import request_data, usage_data
from rh_agents.web.values import recorded_text

__all__ = ["compared", "planned", "validated"]

_SHOWN: Final = 100
"""Calls of each fate that are named."""
_MOST_DIFFERENCES: Final = 200
_LONGEST: Final = 2000
_LONGEST_MESSAGE: Final = 200
"""Characters of an error in a plan: the page of the call has all of it."""
_RUNS_AGAIN = (Fate.TRIED_AGAIN, Fate.SUPERSEDED, Fate.UNKNOWN, Fate.CONTINUED)


async def planned(store: Store, run_id: str) -> dict[str, Any]:
    """What would become of the calls of a run if it were executed again, and what those cost before that run again.

    Raises:
        NoSuchRun: there is no such run.
    """
    info = await store.find_run(run_id)
    if info is None:
        raise NoSuchRun(f"there is no run {run_id!r}")
    outline, requests = await outline_of_run(store, run_id), await open_requests(store, run_id)
    planner, used = Planner(info, plain=outline.plain, below=outline.below, requests=requests), dict[bytes, Usage]()
    async for event in outline.read(False):
        if event.outcome is not None:
            planner.add_outcome(event.outcome)
            if event.outcome.usage:
                used[event.outcome.key] = event.outcome.usage
        planner.add(event.recorded)
    plan = planner.plan()
    again = [used.get(call.key, Usage()) for call in plan.of(*_RUNS_AGAIN)]
    return {
        "counts": {fate.value: plan.counts[fate] for fate in Fate},
        "calls": {fate.value: [_planned_call(call) for call in plan.of(fate)[:_SHOWN]] for fate in Fate},
        "groups": [
            {"id": group.group_id, "address": group.address, "not_begun": group.not_begun}
            for group in plan.groups[:_SHOWN]
        ],
        "is_idle": plan.is_idle,
        "requests": [request_data(each) for each in requests],
        "spent_before": usage_data(sum(again, Usage())),
    }


def _planned_call(call: PlannedCall) -> dict[str, Any]:
    return {
        "key": call.key.hex(),
        "address": call.address,
        "name": call.name,
        "attempts": call.attempts,
        "message": None if call.message is None else " ".join(call.message.split())[:_LONGEST_MESSAGE],
        "may_be_done": call.may_be_done,
    }


# -- two runs ----------------------------------------------------------------------------------------------------------


async def compared(store: Store, left: str, right: str) -> dict[str, Any]:
    """What differs between two runs: calls with the same place in the program, by what they came to.

    Keys of calls do not depend on the run, so equal calls of two runs have equal keys, and a call whose input has
    changed is in one of them only.

    Raises:
        NoSuchRun: there is no such run.
    """
    for name in (left, right):
        if await store.find_run(name) is None:
            raise NoSuchRun(f"there is no run {name!r}")
    mine, theirs = await _digests(store, left), await _digests(store, right)
    kinds = {key: _kind(mine.get(key), theirs.get(key)) for key in [*mine, *(key for key in theirs if key not in mine)]}
    counts = Counter(kinds.values())
    shown = dict.fromkeys(islice((key for key, kind in kinds.items() if kind != "equal"), _MOST_DIFFERENCES))
    ours, others = await _sides(store, left, shown), await _sides(store, right, shown)
    return {
        "left": left,
        "right": right,
        "counts": {kind: counts[kind] for kind in ("equal", "different", "left_only", "right_only")},
        "rows": [_difference(kinds[key], ours.get(key), others.get(key)) for key in shown],
    }


def _kind(mine: int | None, theirs: int | None) -> str:
    if mine is None:
        return "right_only"
    return "left_only" if theirs is None else "equal" if mine == theirs else "different"


def _read(unread: UnreadOutcome) -> bytes:
    return recorded_text(unread.read(unknown_ok=True))


async def _digests(store: Store, run_id: str) -> dict[bytes, int]:
    """What each place came to, as a number that is equal for equal outcomes: a run may have many."""
    found: dict[bytes, int] = {}
    async for unread in store.unread_outcomes(run_id):
        header = unread.header
        found[header.base or header.key] = hash((header.ok, _read(unread)))
    return found


async def validated(store: Store, run_id: str) -> dict[str, Any]:
    """What a recorded validation has found, item by item: what is recorded beside what the call came to.

    Raises:
        NoSuchRun: there is no such run, or it is no validation.
    """
    info = await store.find_run(run_id)
    original = None if info is None else validated_run(info)
    if original is None:
        raise NoSuchRun(f"there is no validation {run_id!r}")
    found = [outcome async for outcome in store.outcomes(run_id, unknown_ok=True)]
    shown = {outcome.base or outcome.key: outcome for outcome in found[:_MOST_DIFFERENCES]}
    is_there = await store.find_run(original) is not None
    recorded = await _sides(store, original, shown) if is_there else {}
    return {
        "run": original,
        "is_there": is_there,
        "total": len(found),
        "rows": [_finding(recorded.get(key), outcome) for key, outcome in shown.items()],
    }


def _finding(recorded: dict[str, Any] | None, outcome: Outcome) -> dict[str, Any]:
    is_called = outcome.attempts > 0
    kind = "not_called" if not is_called else "new" if recorded is None else "different"
    return {
        "kind": kind,
        "address": outcome.address,
        "left": recorded,
        "right": _side(outcome) if is_called else None,
    }


async def _sides(store: Store, run_id: str, wanted: Container[bytes]) -> dict[bytes, dict[str, Any]]:
    found: dict[bytes, dict[str, Any]] = {}
    async for unread in store.unread_outcomes(run_id):
        header = unread.header
        if (header.base or header.key) in wanted:
            found[header.base or header.key] = _side(unread.read(unknown_ok=True))
    return found


def _side(outcome: Outcome) -> dict[str, Any]:
    """One of two outcomes that are set side by side: `text` is typed JSON, `message` what went wrong."""
    text = shown_value(recorded_text(outcome))
    return {
        "key": outcome.key.hex(),
        "address": outcome.address,
        "name": outcome.name,
        "ok": outcome.error is None,
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
        "usage": usage_data(outcome.usage),
        "text": text[:_LONGEST],
        "is_cut": len(text) > _LONGEST,
        "message": None if outcome.error is None else describe_error(outcome.error)[:_LONGEST],
    }


def _difference(kind: str, mine: dict[str, Any] | None, theirs: dict[str, Any] | None) -> dict[str, Any]:
    side = theirs if mine is None else mine
    address = "" if side is None else side["address"]
    return {"kind": kind, "address": address, "left": mine, "right": theirs}
