"""How deep calls may be nested, and how often an agent may call itself."""

from __future__ import annotations

import sys

from rh_agents.core._run.frame import Frame
from rh_agents.core._run.parts import RunParts
from rh_agents.core.errors import NestingError, StopRun
from rh_agents.core.policies.budget import DEFAULT_DEPTH, DEFAULT_RECURSION
from rh_agents.core.types import EventType
from rh_agents.core.usage import Shortfall

__all__ = ["check_nesting", "needs_another_stack"]


_SHALLOW = 12
"""Calls. So many fit into Python's stack whatever the program has between them, so nothing is looked at."""
_RESERVE = 200
"""Python frames that a call needs besides those of the calls below it: to be recorded, to be told of, to fail."""


_FOR_A_CALL = 150
"""Python frames that the function of a call may need before it makes the next one."""


def check_nesting(frame: Frame) -> None:
    """See that calls are not nested too deeply, and that no agent calls itself too often.

    Raises:
        StopRun: a limit of the run says so.
        NestingError: Python's stack ends here.
    """
    name, is_agent = frame.actor.name, frame.actor.event_type is EventType.AGENT_CALL
    run, deepest = frame.run, frame.run.budgets.deepest
    if frame.depth > _SHALLOW and _has_no_more_than(_RESERVE):
        raise NestingError(
            f"calls are nested {frame.depth} deep at {name}, and Python's stack has no room for another one. A "
            "member of a group has a stack of its own: make the call in a group (parallel()), or raise the limit with "
            "sys.setrecursionlimit()"
        )
    if frame.depth > deepest:
        _refuse(run, f"calls are nested {frame.depth} deep at {name}, and {deepest:g} is the limit", "depth")
    for ledger in frame.ledgers:
        if frame.depth > ledger.deepest:
            stop = ledger.stop(f"depth={ledger.budget.depth:g}", name)
            run.interruption.budget_spent(stop)
            raise stop
    if not is_agent:
        return
    made = frame.own_calls.get(name) if frame.own_calls else None
    if made is None:
        return
    most = next(
        (ledger.budget.recursion for ledger in reversed(frame.ledgers) if ledger.budget.recursion is not None),
        run.budgets.most_recursion,
    )
    if made.count > most:
        _refuse(
            run, f"the agent {name} was called {made.count:,} times by itself, and {most:,g} is the limit", "recursion"
        )


def needs_another_stack(frame: Frame) -> bool:
    """Whether a call that may begin on another stack had better do that: this one is nearly full."""
    return frame.depth > _SHALLOW and _has_no_more_than(_RESERVE + _FOR_A_CALL)


def _has_no_more_than(frames: int) -> bool:
    """Whether Python's stack has no more room than for so many Python frames."""
    try:
        sys._getframe(sys.getrecursionlimit() - frames)
    except ValueError:
        return False
    return True


def _refuse(run: RunParts, problem: str, field: str) -> None:
    default = {"depth": DEFAULT_DEPTH, "recursion": DEFAULT_RECURSION}[field]
    shortfall = Shortfall("", "", field, run.budgets.spent)
    stop = StopRun(f"{problem} (Budget({field}=...), {default:,} unless you say otherwise)", shortfall=shortfall)
    run.interruption.budget_spent(stop)
    raise stop
