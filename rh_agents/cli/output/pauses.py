"""Says that a run is paused: it stands still for as long as no one lets it go on, and nothing else would say why."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from typing import Any, Final

from rh_agents.cli.stores import store_option
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.execution import ExecutionState
from rh_agents.core.types import EventType
from rh_agents.display.text import harmless

__all__ = ["PAUSES", "report_pauses"]

PAUSES: Final = ("pause", "unpause")
"""The names of the events that say so."""

# It is said here. Of a program that has no log, the log would say it once more.
logging.getLogger("rh_agents.control.paused").addHandler(logging.NullHandler())


def report_pauses(state: ExecutionState, report: Callable[[str], None], store: str) -> None:
    """Report whether a run that was opened begins paused, and whenever it is paused or goes on from now on.

    What a program does with its log decides whether the same is in there.

    Args:
        state: the run.
        report: takes lines for people.
        store: what its user calls its store.
    """
    if state.store is None:  # no one can ask for it
        return
    until = f"until `rh-agents unpause {shlex.quote(state.run_id)}{store_option(store)}`"

    def tell(event: ExecutionEvent[Any]) -> None:
        control = event.control
        if event.event_type is not EventType.CONTROL or event.name not in PAUSES or control is None:
            return
        answer = control["answer"]
        if isinstance(answer, dict) and "refused" in answer:
            return
        by = f" by {harmless(str(control['author']))}" if control.get("author") else ""
        report(f"paused{by}: nothing new begins {until}" if event.name == "pause" else f"unpaused{by}: it goes on")

    state.event_bus.subscribe(tell, routine=False)
    if state.parts.paused_at is not None:
        report(f"run {harmless(state.run_id)} begins paused: nothing new begins {until}")
