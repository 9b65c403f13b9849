"""Executors: where functions run that must not block the event loop."""

from rh_agents.executors.processes import ProcessExecutor
from rh_agents.executors.threads import ThreadExecutor

__all__ = ["ProcessExecutor", "ThreadExecutor"]
