"""What a call under way says about itself: what it has used, how it gets on, and what a provider has let it know."""

from __future__ import annotations

from typing import Any

from rh_agents.core._frame import current_frame
from rh_agents.core.context import remote_call
from rh_agents.core.policies.limits import Advice
from rh_agents.core.usage import Usage

__all__ = ["again", "claim_further_try", "report_advice", "report_usage", "tell_progress"]


def report_usage(usage: Usage) -> None:
    """Say what the call that is under way has used: it is recorded with its outcome, and counts for budgets and limits.

    May be called any number of times; usages are added. Outside of calls it does nothing.
    """
    frame = current_frame.get()
    if frame is not None:
        if frame.is_under_way:
            frame.add_usage(usage)
    elif (remote := remote_call.get()) is not None:
        remote.add_usage(usage)


def report_advice(advice: Advice) -> None:
    """Let the limits of the call that is under way know what a provider has said about its own."""
    frame = current_frame.get()
    if frame is not None and frame.is_under_way:
        frame.heed(advice)


async def tell_progress(progress: Any) -> None:
    """Let subscribers know how the call that is under way gets on, by a PROGRESS event. It is recorded nowhere."""
    frame = current_frame.get()
    if frame is not None and frame.is_under_way and frame.run.is_observed:
        await frame.tell_progress(progress)


async def again(estimate: Usage) -> None:
    """The call that is under way makes a further request within one attempt: wait for its rate limits and budgets."""
    frame = current_frame.get()
    if frame is not None and frame.is_under_way:
        await frame.admit_again(estimate)


def claim_further_try() -> bool:
    """Whether the call under way may ask once more because an answer could not be read: once in all of its attempts."""
    frame = current_frame.get()
    if frame is None or not frame.is_under_way:
        return True
    has_claimed, frame.has_asked_again = frame.has_asked_again, True
    return not has_claimed
