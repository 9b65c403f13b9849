"""Subscribers that show events: on a terminal, in a log, in a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rh_agents.core.events import ExecutionEvent
from rh_agents.display import CallCounts, EventCounts, EventPrinter, EventStreamer, ParallelEventPrinter

__all__ = [
    "CallCounts",
    "EventCounts",
    "EventPrinter",
    "EventStreamer",
    "ParallelEventPrinter",
    "create_event_handler",
]


def create_event_handler(printer: EventPrinter | None = None) -> Callable[[ExecutionEvent[Any]], None]:
    """A function of one event that shows it with `printer`, by default a new `EventPrinter`."""
    return (printer or EventPrinter()).print_event
