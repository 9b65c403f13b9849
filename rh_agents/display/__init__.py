"""Events made visible, as pure views: events go into a view model, and functions of that give text.

This is the only package that uses rich.
"""

from rh_agents.display.counts import CallCounts, EventCounts
from rh_agents.display.printer import EventPrinter
from rh_agents.display.progress import ParallelEventPrinter
from rh_agents.display.streamer import EventStreamer

__all__ = ["CallCounts", "EventCounts", "EventPrinter", "EventStreamer", "ParallelEventPrinter"]
